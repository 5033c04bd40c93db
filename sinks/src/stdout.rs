//! Rows on the standard output, for people and pipes.
//!
//! One writer, in the order of time. It cannot take back what it printed: after a crash, rows since
//! the last checkpoint are printed again. A reader that goes away (`| head`) ends the printing, not the job.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampNanosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{PlanContext, Problems, SinkKind, SinkPlan, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::json::{EncodeOptions, Encoder};
use tidemill_engine::row;
use tidemill_engine::sink::{Delivery, FlushPolicy, Placement, Sink, SinkContext, SinkWriter};

/// Rows on the standard output.
///
/// One line a row, in the order of time. After a crash, rows since the last checkpoint are printed again.
///
/// ```yaml
/// sinks:
///   screen: { kind: stdout, from: signal, with: { format: text, limit: 20 } }
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// How rows look.
    pub format: Format,
    /// Print so many rows of a run, then none. Default: all.
    pub limit: Option<u64>,
    /// Whether `_src` and `_seq`, the origin of each row, are printed too.
    pub origin: bool,
}

/// How rows look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// `name=value` pairs.
    Text,
}

/// The kind.
pub struct Stdout;

impl SinkKind for Stdout {
    const KIND: &'static str = "stdout";
    type Params = Params;

    fn plan(params: Params, _: &StreamInfo, _: &PlanContext) -> Result<SinkPlan, Problems> {
        Ok(SinkPlan {
            delivery: Delivery::Ordered,
            placement: Placement::Shards { count: 1, by: Vec::new() },
            flush: FlushPolicy::default(),
            sink: Arc::new(StdoutSink(params)),
        })
    }
}

struct StdoutSink(Params);

#[async_trait]
impl Sink for StdoutSink {
    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Writer { printer: Printer::new(&self.0, cx.schema), lines: Vec::new(), closed: false }))
    }
}

/// Rows to lines.
struct Printer {
    encoder: Encoder,
    format: Format,
    origin: bool,
    left: u64,
}

impl Printer {
    fn new(params: &Params, schema: SchemaRef) -> Self {
        let options = EncodeOptions { origin: params.origin, lines: true };
        let left = params.limit.unwrap_or(u64::MAX);
        Self { encoder: Encoder::new(schema, options), format: params.format, origin: params.origin, left }
    }

    fn print(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), arrow::error::ArrowError> {
        let n = (rows.num_rows() as u64).min(self.left) as usize;
        self.left -= n as u64;
        let rows = rows.slice(0, n);
        if self.format == Format::Json {
            out.extend_from_slice(self.encoder.encode(&rows).bytes());
            return Ok(());
        }
        let options = FormatOptions::new().with_null("-");
        let schema = rows.schema();
        let arrays: Vec<ArrayRef> = rows.columns().iter().map(without_zone).collect();
        let columns = schema.fields().iter().zip(&arrays);
        let columns: Vec<(&str, ArrayFormatter)> = columns
            .filter(|(field, _)| self.origin || (field.name() != row::SRC && field.name() != row::SEQ))
            .map(|(field, column)| {
                Ok((field.name().as_str(), ArrayFormatter::try_new(column.as_ref(), &options)?))
            })
            .collect::<Result<_, arrow::error::ArrowError>>()?;
        for i in 0..n {
            let values: Vec<String> = columns
                .iter()
                .map(|(name, values)| match *name {
                    row::TS => format!("{}Z", values.value(i)),
                    name => format!("{name}={}", values.value(i)),
                })
                .collect();
            out.extend_from_slice(values.join("  ").as_bytes());
            out.push(b'\n');
        }
        Ok(())
    }
}

/// Arrow prints times of named zones only with a table of zones; ours are all UTC.
fn without_zone(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) => Arc::new(
            column.as_primitive::<TimestampNanosecondType>().clone().with_timezone_opt(None::<Arc<str>>),
        ),
        _ => column.clone(),
    }
}

struct Writer {
    printer: Printer,
    lines: Vec<u8>,
    closed: bool,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        if self.closed || self.printer.left == 0 {
            return Ok(());
        }
        self.printer.print(&rows, &mut self.lines).map_err(|e| ConnectorError::fatal("cannot print rows", e))
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        let lines = std::mem::take(&mut self.lines);
        if self.closed || lines.is_empty() {
            return Ok(());
        }
        let print = move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&lines).and_then(|()| out.flush())
        };
        let printed = tokio::task::spawn_blocking(print).await.map_err(std::io::Error::other).and_then(|r| r);
        match printed {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                tracing::info!("the reader of the standard output has gone; nothing more is printed");
                self.closed = true;
                Ok(())
            }
            printed => printed.map_err(|e| ConnectorError::fatal("cannot write to the standard output", e)),
        }
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.flush(0).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{rows, schema};

    fn printed(params: Params) -> String {
        let mut printer = Printer::new(&params, schema());
        let mut out = Vec::new();
        printer.print(&rows(0..5), &mut out).unwrap();
        printer.print(&rows(5..9), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_lines_up_to_the_limit() {
        let json = printed(Params { limit: Some(7), ..Params::default() });
        assert_eq!(json.lines().count(), 7);
        assert_eq!(json.lines().nth(1), Some(r#"{"ts":"2024-01-01T01:00:00Z","symbol":"S1","price":0.25}"#));
        let text = printed(Params { format: Format::Text, ..Params::default() });
        assert_eq!(text.lines().count(), 9);
        assert_eq!(text.lines().nth(5), Some("2024-01-01T05:00:00Z  symbol=S 2/x  price=-"));
        assert!(printed(Params { origin: true, ..Params::default() }).contains("\"_seq\":8"));
    }
}
