//! Rows of JSON lines files: one JSON object a line. See [`records`](crate::records) for order and positions.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::json::Decoder;
use tidemill_engine::problem::Problem;
use tidemill_engine::schema::SchemaSpec;
use tidemill_engine::spec::TimeUnitName;

use crate::files;
use crate::records::{Format, Next, RecordFiles, Records};

/// Bytes a line may have.
const LINE_MAX: u64 = 16 << 20;

/// Rows of JSON lines files, one JSON object a line.
///
/// Files are read one after another by name; `.gz` files are unpacked. A line that is not a row (not
/// JSON, a column missing or of another type) is refused with its number and the reason, and the
/// lines beside it go on; unknown fields are passed over, as are empty lines.
///
/// ```yaml
/// sources:
///   trades: { kind: jsonl, with: { url: "trades/*.jsonl.gz", schema: trade } }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// A file, a folder or a glob: `s3://`, `gs://`, `az://`, `file://`, or a path relative to the graph's folder.
    pub url: String,
    /// Columns and their types.
    pub schema: SchemaSpec,
    /// Unit of times that are plain integers.
    #[serde(default)]
    pub time_unit: TimeUnitName,
}

/// The kind.
pub struct Jsonl;

#[async_trait]
impl SourceKind for Jsonl {
    const KIND: &'static str = "jsonl";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = Problems::new();
        let columns = params.schema.resolve("schema").map_err(|p| problems.extend(p)).ok();
        let found =
            files::list(&params.url, &cx.base, &[".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"]).await;
        match (found, columns) {
            (Ok(files), Some(columns)) => {
                let format = Arc::new(Lines { columns: columns.clone(), unit: params.time_unit });
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

struct Lines {
    columns: SchemaRef,
    unit: TimeUnitName,
}

impl Format for Lines {
    fn open(&self, name: &str, bytes: Box<dyn Read + Send>) -> Result<Box<dyn Records>, ConnectorError> {
        let decoder = Decoder::new(self.columns.clone(), self.unit);
        let bytes = BufReader::with_capacity(1 << 17, bytes);
        Ok(Box::new(File { bytes, decoder, line: Vec::new(), number: 0, name: name.to_owned() }))
    }
}

struct File {
    bytes: BufReader<Box<dyn Read + Send>>,
    decoder: Decoder,
    line: Vec<u8>,
    number: u64,
    name: String,
}

impl File {
    /// Reads the next line that is not empty; false at the end.
    fn line(&mut self) -> Result<bool, ConnectorError> {
        loop {
            self.line.clear();
            let read = self.bytes.by_ref().take(LINE_MAX).read_until(b'\n', &mut self.line);
            let read = read.map_err(|e| {
                ConnectorError::fatal(format!("cannot read `{}` after line {}", self.name, self.number), e)
            })?;
            if read == 0 {
                return Ok(false);
            }
            self.number += 1;
            if read as u64 == LINE_MAX && self.line.last() != Some(&b'\n') {
                let what = format!("line {} of `{}` is longer than {LINE_MAX} bytes", self.number, self.name);
                return Err(ConnectorError::fatal(what, "is it a file of JSON lines?"));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

impl Records for File {
    fn next(&mut self) -> Result<Next, ConnectorError> {
        if !self.line()? {
            return Ok(Next::End);
        }
        let raw = self.line.trim_ascii();
        Ok(match self.decoder.push(raw) {
            Ok(()) => Next::Row,
            Err(reason) => {
                Next::Bad(raw.to_vec(), format!("line {} of `{}`: {reason}", self.number, self.name))
            }
        })
    }

    fn skip(&mut self, records: u64) -> Result<(), ConnectorError> {
        for _ in 0..records {
            self.line()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> RecordBatch {
        self.decoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Drive, another_input_is_refused, check_source};
    use serde_json::json;

    #[tokio::test(flavor = "multi_thread")]
    async fn bad_lines_are_refused_and_the_good_ones_beside_them_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for i in 0..500 {
            match i % 7 {
                3 => text.push_str("{\"ts\": \n"),
                5 => text.push_str("\n{\"ts\": 5, \"price\": \"much\"}\n"),
                _ => text.push_str(&format!("{{\"ts\": {i}, \"price\": {i}.5, \"more\": [1]}}\n")),
            }
        }
        std::fs::write(folder.path().join("a.jsonl"), &text).unwrap();
        std::fs::write(folder.path().join("b.jsonl"), "{\"ts\": 1000, \"price\": 1}").unwrap();
        let cx = PlanContext {
            job: "j".into(),
            node: "n".into(),
            base: folder.path().into(),
            clock: Default::default(),
        };
        let params = json!({"url": ".", "schema": {"ts": "timestamp", "price": "f64"}});
        let plan = Jsonl::plan(serde_json::from_value(params).unwrap(), &cx).await.unwrap();
        let read = &check_source(&plan).await[&0];
        assert_eq!((read.seqs.len(), read.rejects.len()), (500 - 71 - 71 + 1, 71 + 71));
        assert_eq!(read.seqs.last(), Some(&500));
        assert_eq!((read.rejects[0].seq, read.rejects[0].before), (3, 3));
        assert!(read.rejects[0].reason.starts_with("line 4 of `"), "{}", read.rejects[0].reason);
        assert!(read.rejects[1].reason.contains("`price`") && read.rejects[1].raw.starts_with(b"{\"ts\": 5"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_file_of_the_same_name_is_refused() {
        let folders = [1, 2].map(|price| {
            let folder = tempfile::tempdir().unwrap();
            let text: String = (0..500).map(|i| format!("{{\"ts\": {i}, \"price\": {price}}}\n")).collect();
            std::fs::write(folder.path().join("a.jsonl"), text).unwrap();
            folder
        });
        let plan = async |folder: &tempfile::TempDir| {
            let cx = PlanContext {
                job: "j".into(),
                node: "n".into(),
                base: folder.path().into(),
                clock: Default::default(),
            };
            let params = json!({"url": "a.jsonl", "schema": {"ts": "timestamp", "price": "f64"}});
            Jsonl::plan(serde_json::from_value(params).unwrap(), &cx).await.unwrap()
        };
        let (one, other) = (plan(&folders[0]).await, plan(&folders[1]).await);
        let drive = Drive { chunk_rows: 100, ..Drive::default() };
        another_input_is_refused(&one, &other, drive, &["a.jsonl` is not the file"]).await;
    }
}
