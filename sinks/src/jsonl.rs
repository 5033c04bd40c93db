//! Rows as lines of JSON in one local file, exactly once.
//!
//! A checkpoint remembers the file's length after an fsync; a run that starts from it cuts the
//! file back to that length, and replay writes the same lines again. One writer, in the order of
//! time. Memory: the lines since the last flush, at most [`BUFFER_MAX`] bytes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_engine::component::{PlanContext, Problems, SinkKind, SinkPlan, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::json::{EncodeOptions, Encoder};
use tidemill_engine::problem::Problem;
use tidemill_engine::sink::{Delivery, FlushPolicy, Placement, Sink, SinkContext, SinkWriter};

/// Bytes of lines that wait for a flush.
const BUFFER_MAX: usize = 1 << 20;

/// Rows as lines of JSON in one local file.
///
/// Times are RFC 3339. Lines are in the order of time, each exactly once: a run that goes on from a
/// checkpoint cuts the file back to what the checkpoint knew. A run that starts from none begins the
/// file anew.
///
/// ```yaml
/// sinks:
///   signals: { kind: jsonl, from: signal, with: { path: out/signals.jsonl } }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The file, relative to the graph's folder; folders on the way are made.
    pub path: String,
    /// Whether lines carry `_src` and `_seq`, the origin of each row.
    #[serde(default)]
    pub origin: bool,
}

/// The kind.
pub struct Jsonl;

impl SinkKind for Jsonl {
    const KIND: &'static str = "jsonl";
    type Params = Params;

    fn plan(params: Params, _: &StreamInfo, cx: &PlanContext) -> Result<SinkPlan, Problems> {
        if params.path.is_empty() {
            return Err(vec![Problem::new("path", "is empty: name a file")]);
        }
        if params.path.contains("://") && !params.path.starts_with("file://") {
            let problem = Problem::new("path", format!("`{}` is not a local file", params.path));
            return Err(vec![problem.hint("for object stores use the `parquet` sink")]);
        }
        let path = cx.base.join(params.path.trim_start_matches("file://"));
        if path.is_dir() {
            return Err(vec![
                Problem::new("path", format!("`{}` is a folder", path.display())).hint("name a file in it"),
            ]);
        }
        Ok(SinkPlan {
            delivery: Delivery::Ordered,
            placement: Placement::Shards { count: 1, by: Vec::new() },
            flush: FlushPolicy::default(),
            sink: Arc::new(JsonlSink { path, origin: params.origin }),
        })
    }
}

struct JsonlSink {
    path: PathBuf,
    origin: bool,
}

/// What a checkpoint remembers.
#[derive(Serialize, Deserialize)]
struct Remembered {
    bytes: u64,
}

#[async_trait]
impl Sink for JsonlSink {
    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let path = self.path.clone();
        let fail = |e: std::io::Error| failed(&path, &e);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(fail)?;
        // Two runs must not share the file; the lock goes with its process, however that ends.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ConnectorError::transient(
                    format!("`{}`", path.display()),
                    "another run is writing this file",
                ));
            }
            // Some file systems have no locks.
            Err(TryLockError::Error(e)) => {
                tracing::warn!(path = %path.display(), "the file cannot be locked: {e}")
            }
        }
        let remembered = cx.restored.iter().find(|(shard, _)| *shard == 0).filter(|(_, v)| !v.is_null());
        let bytes = match remembered {
            _ if cx.start_checkpoint == 0 => 0,
            None => 0,
            Some((_, value)) => {
                let value: Remembered = serde_json::from_value(value.clone()).map_err(|e| {
                    ConnectorError::fatal(
                        format!("what the checkpoint knows of `{}` is not readable", path.display()),
                        e,
                    )
                })?;
                value.bytes
            }
        };
        let found = file.metadata().map_err(fail)?.len();
        if found < bytes {
            return Err(ConnectorError::Fatal(format!(
                "`{}` has {found} bytes, but {bytes} had been written at the checkpoint: put the file back, or start from none",
                path.display()
            )));
        }
        let options = EncodeOptions { origin: self.origin, lines: true };
        Ok(Box::new(Writer {
            file,
            path,
            bytes,
            cut: false,
            lines: Vec::new(),
            encoder: Encoder::new(cx.schema, options),
        }))
    }
}

/// An error at a file; a full disk may be freed, a missing permission stays missing.
pub(crate) fn failed(path: &std::path::Path, e: &std::io::Error) -> ConnectorError {
    use std::io::ErrorKind::*;
    let what = format!("cannot write `{}`", path.display());
    match e.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory | NotFound | InvalidInput
        | AlreadyExists => ConnectorError::fatal(what, e),
        _ => ConnectorError::transient(what, e),
    }
}

struct Writer {
    file: File,
    path: PathBuf,
    /// Bytes of the file that are this run's or the checkpoint's.
    bytes: u64,
    /// What is not has been cut off: with the first writing, when all sinks are open and the run has begun.
    cut: bool,
    lines: Vec<u8>,
    encoder: Encoder,
}

impl Writer {
    fn write_out(&mut self) -> Result<(), ConnectorError> {
        let fail = |e: std::io::Error| failed(&self.path, &e);
        if !self.cut {
            self.file.set_len(self.bytes).map_err(fail)?;
            self.file.seek(SeekFrom::Start(self.bytes)).map_err(fail)?;
            self.cut = true;
        }
        tidemill_engine::fault::io("jsonl-write").map_err(fail)?;
        self.file.write_all(&self.lines).map_err(fail)?;
        self.bytes += self.lines.len() as u64;
        self.lines.clear();
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        self.lines.extend_from_slice(self.encoder.encode(&rows).bytes());
        if self.lines.len() >= BUFFER_MAX { self.write_out() } else { Ok(()) }
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        self.write_out()
    }

    async fn checkpoint(&mut self, _: u64) -> Result<Value, ConnectorError> {
        self.write_out()?;
        let fail = |e| failed(&self.path, &e);
        let file = self.file.try_clone().map_err(fail)?;
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        synced.map_err(std::io::Error::other).and_then(|r| r).map_err(fail)?;
        Ok(json!(Remembered { bytes: self.bytes }))
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.write_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Case, check_sink, context, rows};

    fn plan(path: &str, base: &std::path::Path) -> Result<SinkPlan, Problems> {
        Jsonl::plan(
            Params { path: path.into(), origin: true },
            &crate::conformance::stream(),
            &crate::conformance::plan_context(base),
        )
    }

    #[tokio::test]
    async fn lines_are_there_once_whatever_crashes() {
        let folder = tempfile::tempdir().unwrap();
        let case = Case {
            plan: &|base| plan("out/rows.jsonl", base).unwrap(),
            contents: &|base| {
                let text = std::fs::read_to_string(base.join("out/rows.jsonl")).unwrap_or_default();
                text.lines().map(str::to_owned).collect()
            },
        };
        let lines = check_sink(folder.path(), &case).await;
        let first: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(first["ts"], "2024-01-01T00:00:00Z");
        assert_eq!(first["symbol"], "S0");
        assert_eq!(first["_seq"], 0);
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        assert!(plan("s3://bucket/x", base).is_err() && plan("", base).is_err() && plan(".", base).is_err());
        std::fs::write(base.join("file"), "x").unwrap();
        let sink = plan("file/rows.jsonl", base).unwrap().sink;
        let error = sink.open(context(base, 0, Vec::new())).await.err().unwrap();
        assert!(matches!(&error, ConnectorError::Fatal(m) if m.contains("file/rows.jsonl")), "{error}");
        // A file that lost what the checkpoint knew.
        let sink = plan("rows.jsonl", base).unwrap().sink;
        let cut = sink.open(context(base, 3, vec![(0, json!({"bytes": 10}))])).await.err().unwrap();
        assert!(cut.to_string().contains("has 0 bytes, but 10 had been written"), "{cut}");
        // Two at once.
        let mut first = sink.open(context(base, 0, Vec::new())).await.unwrap();
        first.write(rows(0..5)).await.unwrap();
        let second = sink.open(context(base, 0, Vec::new())).await.err().unwrap();
        assert!(matches!(&second, ConnectorError::Transient(m) if m.contains("another run")), "{second}");
        // A full disk.
        if std::path::Path::new("/dev/full").exists() {
            let full = plan("/dev/full", base).unwrap().sink;
            let full = async {
                let mut writer = full.open(context(base, 0, Vec::new())).await?;
                writer.write(rows(0..5)).await?;
                writer.flush(5).await
            };
            let error = full.await.unwrap_err();
            assert!(error.to_string().contains("/dev/full"), "{error}");
        }
    }
}
