//! Rows of CSV files, typed. See [`records`](crate::records) for order and positions.
//!
//! A record becomes a row only as a whole: values are parsed first and appended when all of them are
//! valid, so a refused record leaves no trace.

use std::io::Read;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::schema::SchemaSpec;
use tidemill_engine::spec::TimeUnitName;

use crate::files;
use crate::records::{Format, Next, RecordFiles, Records};

mod columns;
use columns::Columns;

/// Rows of CSV files, typed.
///
/// Files are read one after another by name; `.gz` files are unpacked. The header says where each
/// column of the schema stands; other columns are passed over. An empty value is null. Times are RFC
/// 3339 (`2024-01-02 03:04:05`, without a zone, is UTC) or integers of `time_unit`. A record that is not
/// a row is refused with its line, the column and the reason, and those beside it go on.
///
/// ```yaml
/// sources:
///   quotes:
///     kind: csv
///     with:
///       url: "fx/eurusd_quotes_*.csv.gz"
///       schema: { ts: timestamp, symbol: symbol, bid: f64, ask: f64 }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// A file, a folder or a glob: `s3://`, `gs://`, `az://`, `file://`, or a path relative to the graph's folder.
    pub url: String,
    /// Columns and their types.
    pub schema: SchemaSpec,
    /// Whether the first line names the columns; else they stand in the schema's order.
    #[serde(default = "default_header")]
    pub header: bool,
    /// The character between values; `"\t"` for tabs.
    #[serde(default = "default_delimiter")]
    pub delimiter: char,
    /// Unit of times that are plain integers.
    #[serde(default)]
    pub time_unit: TimeUnitName,
}

fn default_header() -> bool {
    true
}

fn default_delimiter() -> char {
    ','
}

/// The kind.
pub struct Csv;

#[async_trait]
impl SourceKind for Csv {
    const KIND: &'static str = "csv";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = Problems::new();
        let columns = params.schema.resolve("schema").map_err(|p| problems.extend(p)).ok();
        if !params.delimiter.is_ascii() || matches!(params.delimiter, '"' | '\n' | '\r') {
            let problem =
                Problem::new("delimiter", format!("`{}` cannot stand between values", params.delimiter));
            problems.push(problem.hint("one ASCII character: , ; | or \"\\t\""));
        }
        let found = files::list(&params.url, &cx.base, &[".csv", ".csv.gz"]).await;
        match (found, columns) {
            (Ok(files), Some(columns)) if problems.is_empty() => {
                let format = Arc::new(Dialect {
                    columns: columns.clone(),
                    header: params.header,
                    delimiter: params.delimiter as u8,
                    unit: params.time_unit,
                });
                let source = Arc::new(RecordFiles { files: files.into(), format });
                Ok(SourcePlan {
                    columns,
                    partitions: Partitions::Single,
                    bounded: true,
                    replayable: true,
                    source,
                })
            }
            (found, _) => {
                problems.extend(found.err().map(|reason| Problem::new("url", reason)));
                Err(problems)
            }
        }
    }
}

struct Dialect {
    columns: SchemaRef,
    header: bool,
    delimiter: u8,
    unit: TimeUnitName,
}

impl Format for Dialect {
    fn open(&self, name: &str, bytes: Box<dyn Read + Send>) -> Result<Box<dyn Records>, ConnectorError> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .buffer_capacity(1 << 16)
            .from_reader(Tee { bytes, kept: Vec::new(), base: 0, from: 0 });
        let names: Vec<&str> = self.columns.fields().iter().map(|f| f.name().as_str()).collect();
        let mut width = names.len();
        let mut places: Vec<Option<usize>> = (0..width).map(Some).collect();
        if self.header {
            let mut header = csv::ByteRecord::new();
            let found = reader.read_byte_record(&mut header).map_err(|e| broken(name, &e))?;
            let there: Vec<String> = header
                .iter()
                .map(|h| String::from_utf8_lossy(h).trim_start_matches('\u{feff}').trim().to_owned())
                .collect();
            width = there.len();
            places = names.iter().map(|n| there.iter().position(|h| h == n)).collect();
            let required = |i: &usize| !self.columns.field(*i).is_nullable();
            let missing: Vec<&str> = (0..names.len())
                .filter(|i| places[*i].is_none())
                .filter(required)
                .map(|i| names[i])
                .collect();
            if !found && !missing.is_empty() {
                return Err(ConnectorError::fatal(format!("`{name}` is empty"), "a header line is wanted"));
            }
            if !missing.is_empty() {
                return Err(ConnectorError::Fatal(format!(
                    "the header of `{name}` lacks {}; it has {}",
                    missing.join(", "),
                    there.join(", ")
                )));
            }
        }
        let columns = Columns::new(self.columns.clone(), places, width, self.unit);
        Ok(Box::new(File { reader, columns, record: csv::ByteRecord::new(), name: name.to_owned() }))
    }
}

fn broken(name: &str, error: &csv::Error) -> ConnectorError {
    ConnectorError::fatal(format!("cannot read `{name}`: the file is damaged or cut off"), error)
}

/// Keeps the bytes of the record being read, so that a refused one can be shown as it came.
struct Tee {
    bytes: Box<dyn Read + Send>,
    kept: Vec<u8>,
    /// Offset in the file of the first kept byte.
    base: u64,
    /// Offset of the first byte still wanted.
    from: u64,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let gone = (self.from.saturating_sub(self.base) as usize).min(self.kept.len());
        self.kept.drain(..gone);
        self.base += gone as u64;
        let n = self.bytes.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..n]);
        Ok(n)
    }
}

struct File {
    reader: csv::Reader<Tee>,
    columns: Columns,
    record: csv::ByteRecord,
    name: String,
}

impl File {
    /// Reads a record; gives its line, or nothing at the end.
    fn read(&mut self) -> Result<Option<u64>, ConnectorError> {
        self.reader.get_mut().from = self.reader.position().byte();
        let found = self.reader.read_byte_record(&mut self.record).map_err(|e| broken(&self.name, &e))?;
        Ok(found.then(|| self.record.position().map_or(0, csv::Position::line)))
    }

    /// The record as it came, and how many line breaks stand before it (the second half of a
    /// Windows line end, empty lines).
    fn raw(&self) -> (Vec<u8>, u64) {
        let tee = self.reader.get_ref();
        let from = self.record.position().map_or(tee.from, csv::Position::byte);
        let range = [from, self.reader.position().byte()].map(|at| at.saturating_sub(tee.base) as usize);
        let raw = tee.kept.get(range[0]..range[1]).unwrap_or_default();
        let blank = raw.len() - raw.trim_ascii_start().len();
        let breaks = raw[..blank].iter().filter(|b| **b == b'\n').count();
        (raw.trim_ascii().to_vec(), breaks as u64)
    }
}

impl Records for File {
    fn next(&mut self) -> Result<Next, ConnectorError> {
        let Some(line) = self.read()? else { return Ok(Next::End) };
        Ok(match self.columns.push(&self.record) {
            Ok(()) => Next::Row,
            Err(reason) => {
                let (raw, breaks) = self.raw();
                Next::Bad(raw, format!("line {} of `{}`: {reason}", line + breaks, self.name))
            }
        })
    }

    fn skip(&mut self, records: u64) -> Result<(), ConnectorError> {
        for _ in 0..records {
            self.read()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> RecordBatch {
        self.columns.finish()
    }
}

#[cfg(test)]
mod tests;
