//! Rows in Parquet files, exactly once at rest.
//!
//! Every file belongs to one interval between two checkpoints and appears, whole, when the later
//! one is taken. It is named after the earlier, which is known when its first bytes are uploaded:
//! `JOB.SINK.after-CHECKPOINT-SHARD-NUMBER.gGENERATION.parquet`. So a run that starts from checkpoint
//! `s` knows at sight what a crashed run left behind: files of its own with `after >= s`. Shard 0
//! removes them while it opens. That is safe though other shards are opening too: no file of this
//! run can be complete before its first checkpoint, and no checkpoint is taken before all shards are
//! open. A zombie of an older generation may still complete files after that; they carry its
//! generation, and shard 0 looks for them once more when the run's first checkpoint is committed.
//! Rows of this sink that `tidemill archive compact` has merged are found in the dataset's log: see
//! [`compacted`].
//!
//! Where a source that feeds the sink cannot be read again, files behind the checkpoint stay: they are
//! whole, and nothing would bring their rows a second time.
//!
//! Rows within a file are in order of time. Memory: one row group per open partition folder, plus
//! one upload part of each file not yet complete.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::basic::{Compression, ZstdLevel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{PlanContext, Problems, SinkKind, SinkPlan, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::sink::{Delivery, FlushPolicy, Guarantee, Placement, Sink, SinkContext, SinkWriter};
use tidemill_engine::storage::{self, Location};

mod compacted;
pub mod name;
mod partition;
mod upload;
mod writer;

use name::FileName;

/// Rows in Parquet files, exactly once at rest.
///
/// Files appear when a checkpoint is taken, whole, below one folder, local or in an object store;
/// with `partition_by` in Hive folders (`date=2013-10-07/symbol=SPY/`). `date` is the UTC date of `ts`
/// where the stream has no such column. Rows keep `_src` and `_seq`, their origin. What a crashed run
/// left is removed at the next start, unless a source that feeds the sink cannot be read again (`tidemill plan` says
/// so): then it stays, at least once across a crash. A run that begins from nothing where an earlier run of this job
/// and sink left files does what `existing` says. Uploads that a crash left incomplete in an object store are never visible; let
/// a lifecycle rule of the bucket clear them.
///
/// ```yaml
/// sinks:
///   history:
///     kind: parquet
///     from: bars
///     with: { url: archive/bars, partition_by: [date], compression: zstd(3) }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The folder: `s3://`, `gs://`, `az://`, `file://`, or a path relative to the graph's folder.
    pub url: String,
    /// Columns that become folders; they stay in the files too. `date`: the UTC date of `ts`.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// `zstd(1)` to `zstd(22)`, `zstd`, `snappy`, `lz4` or `none`.
    #[serde(default = "default_compression")]
    pub compression: String,
    /// Rows a row group has at most.
    #[serde(default = "default_row_group_rows")]
    pub row_group_rows: usize,
    /// About how many MiB a file has at most; then the next is begun.
    #[serde(default = "default_file_mb")]
    pub file_mb: usize,
    /// What a run that begins from nothing does with files of earlier runs of this job and sink.
    #[serde(default)]
    pub existing: Existing,
    /// Whether columns with few distinct values are stored by dictionary.
    #[serde(default = "default_dictionary")]
    pub dictionary: bool,
}

/// What becomes of files that earlier runs left.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// The run refuses to start: rows might stand there twice.
    #[default]
    Fail,
    /// They are removed first.
    Replace,
    /// They stay, and the run's rows come beside them.
    Append,
}

fn default_compression() -> String {
    "zstd(1)".into()
}

fn default_row_group_rows() -> usize {
    250_000
}

fn default_file_mb() -> usize {
    256
}

fn default_dictionary() -> bool {
    true
}

/// The kind.
pub struct Parquet;

fn compression(text: &str) -> Option<Compression> {
    let level = text.strip_prefix("zstd(").and_then(|t| t.strip_suffix(')'));
    Some(match (text, level) {
        (_, Some(level)) => Compression::ZSTD(ZstdLevel::try_new(level.parse().ok()?).ok()?),
        ("zstd", _) => Compression::ZSTD(ZstdLevel::default()),
        ("snappy", _) => Compression::SNAPPY,
        ("lz4", _) => Compression::LZ4_RAW,
        ("none", _) => Compression::UNCOMPRESSED,
        _ => return None,
    })
}

impl SinkKind for Parquet {
    const KIND: &'static str = "parquet";
    type Params = Params;

    fn plan(params: Params, input: &StreamInfo, cx: &PlanContext) -> Result<SinkPlan, Problems> {
        let mut problems = Problems::new();
        let columns = partition::resolve(&params.partition_by, input, &mut problems);
        let compression = compression(&params.compression);
        if compression.is_none() {
            let problem =
                Problem::new("compression", format!("unknown compression `{}`", params.compression));
            problems.push(problem.hint("one of: zstd, zstd(1) to zstd(22), snappy, lz4, none"));
        }
        for (path, value) in [("row_group_rows", params.row_group_rows), ("file_mb", params.file_mb)] {
            if value == 0 {
                problems.push(Problem::new(path, "is not above 0"));
            }
        }
        if params.url.is_empty() {
            problems.push(Problem::new("url", "is empty: name a folder"));
        } else if let Err(e) = storage::open(&params.url, &cx.base) {
            problems.push(Problem::new("url", e.to_string()));
        }
        match compression {
            Some(compression) if problems.is_empty() => {
                let properties = writer::properties(compression, &params, &input.schema);
                let (url, file_bytes) = (params.url.clone(), params.file_mb << 20);
                let sink = ParquetSink { url, columns, properties, file_bytes, existing: params.existing };
                Ok(SinkPlan {
                    delivery: Delivery::Ordered,
                    placement: Placement::Local,
                    // Files become durable at checkpoints alone: a flush has nothing to do.
                    flush: FlushPolicy { rows_max: 1 << 20, linger: std::time::Duration::from_secs(1) },
                    sink: Arc::new(sink),
                })
            }
            _ => Err(problems),
        }
    }
}

struct ParquetSink {
    url: String,
    columns: Vec<tidemill_archive::partition::Column>,
    properties: parquet::file::properties::WriterProperties,
    file_bytes: usize,
    existing: Existing,
}

#[async_trait]
impl Sink for ParquetSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let location =
            storage::open(&self.url, &cx.base).map_err(|e| ConnectorError::fatal("the archive", e))?;
        let local = storage::local_path(&self.url, &cx.base);
        if let Some(folder) = &local {
            std::fs::create_dir_all(folder).map_err(|e| crate::jsonl::failed(folder, &e))?;
        }
        let mut replaced = Replaced::default();
        if cx.shard == 0 {
            replaced = remove_leftovers(&location, &cx, self.existing).await?;
            if let Some(folder) = &local {
                upload::remove_staged(folder, &cx)?;
            }
        }
        let writer = writer::Writer::new(
            location,
            local,
            self.columns.clone(),
            self.properties.clone(),
            self.file_bytes,
            cx,
            replaced,
        );
        Ok(Box::new(writer))
    }
}

/// Files of earlier runs that this one replaces, once all sinks of the job are open.
#[derive(Debug, Default)]
struct Replaced {
    files: Vec<Path>,
    /// Compacted ones, by their paths in the dataset.
    compacted: Vec<String>,
}

impl Replaced {
    /// Removes them.
    async fn remove(self, location: &Location, sink: &str) -> Result<(), ConnectorError> {
        compacted::remove(location, self.compacted).await?;
        delete(location, &self.files).await?;
        if !self.files.is_empty() {
            tracing::info!(
                sink,
                files = self.files.len(),
                "removed files of an earlier run, which this one replaces"
            );
        }
        Ok(())
    }
}

async fn delete(location: &Location, files: &[Path]) -> Result<(), ConnectorError> {
    for path in files {
        match location.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(upload::failed(path.as_ref(), e)),
        }
    }
    Ok(())
}

/// Removes what earlier starts of this run wrote behind the checkpoint it goes on from; while the run
/// has committed nothing, sees to the files of earlier runs as well: those that it replaces are given back.
async fn remove_leftovers(
    location: &Location,
    cx: &SinkContext,
    existing: Existing,
) -> Result<Replaced, ConnectorError> {
    let fail = |e: object_store::Error| upload::failed(&location.display, e);
    let mut replaced = Replaced::default();
    let mut leftovers: Vec<Path> = Vec::new();
    let mut earlier: Vec<Path> = Vec::new();
    let mut found = location.store.list(Some(&location.path));
    while let Some(meta) = found.try_next().await.map_err(fail)? {
        let Some(file) = meta.location.filename().and_then(|n| FileName::parse(n, &cx.job, &cx.name)) else {
            continue;
        };
        // A larger generation than ours is of a run whose checkpoints are lost and whose clock was ahead, or of one that has just
        // taken over: that one fences us at our next checkpoint. Either way its files are not ours to remove.
        let of_another = file.generation < cx.run || (cx.fresh && file.generation > cx.generation);
        if of_another {
            earlier.push(meta.location);
        } else if file.after >= cx.start_checkpoint && file.generation < cx.generation {
            // They are whole, and where a source cannot be read again nothing will bring their rows once more.
            if cx.replayable {
                leftovers.push(meta.location);
            }
        }
    }
    let merged = compacted::find(location, cx).await?;
    if cx.fresh && !(earlier.is_empty() && merged.is_empty()) {
        match existing {
            Existing::Fail => {
                return Err(ConnectorError::Fatal(format!(
                    "`{}` holds {} files of an earlier run of job `{}`, and this run begins from nothing: set `existing: replace` \
                     to remove them, `existing: append` to keep them, or go on from a checkpoint (--from ID)",
                    location.display,
                    earlier.len() + merged.len(),
                    cx.job
                )));
            }
            Existing::Replace => replaced = Replaced { files: earlier, compacted: merged },
            Existing::Append => {}
        }
    }
    delete(location, &leftovers).await?;
    if !leftovers.is_empty() {
        tracing::info!(
            sink = cx.name,
            files = leftovers.len(),
            "removed files that this run will write again"
        );
    }
    Ok(replaced)
}

#[cfg(test)]
mod tests;
