//! Rows of Parquet files, in the order of time.
//!
//! One partition; a row's `_seq` is its number in the merged order. Files are merged by a column
//! of time ([`merge`]): equal times go by file name, so the order is total and never depends on how
//! the store lists them. State: an open reader per file that overlaps others in time. A position
//! holds the rows behind in each open file, so going on skips whole row groups.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_engine::schema::type_name;
use tidemill_engine::source::{Chunk, Seqs, Source, SourceContext, Stopped};

use crate::files::{self, FileRef};

pub mod footer;
pub mod merge;
pub mod position;
pub mod reader;

/// Rows of Parquet files, in the order of time.
///
/// `url` is one file, a folder (every `.parquet` below it) or a glob, local or in an object store.
/// Files whose times follow each other are read one after another; those that overlap are merged row
/// by row, equal times by file name. Each file should be in order of time by itself; where it is
/// not, give the source a `max_out_of_orderness`. Only the chosen columns and the row groups that touch
/// `from`..`to` are decoded. Text columns come out as `symbol`; columns of another archive's origin
/// (`_src`, `_seq`) are left out. On restart, files that sort after those already read may be new;
/// a file that was read and has gone, or is not what it was, is an error.
///
/// ```yaml
/// sources:
///   trades:
///     kind: parquet
///     with:
///       url: "data/equities/trades_*.parquet"
///       columns: [symbol, price, size]
///       from: 2013-10-07T13:30:00Z
///       to: 2013-10-07T20:00:00Z
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// A file, a folder or a glob (`trades_*.parquet`, `**/*.parquet`): `s3://`, `gs://`, `az://`,
    /// `file://`, or a path relative to the graph's folder.
    pub url: String,
    /// Columns to read; the time column always comes too. Default: all.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Column by which files are ordered and `from`/`to` choose; the same as `event_time`.
    #[serde(default = "default_time")]
    pub time: String,
    /// Rows before this time are left out (RFC 3339).
    #[serde(default)]
    pub from: Option<String>,
    /// Rows at or after this time are left out (RFC 3339).
    #[serde(default)]
    pub to: Option<String>,
    /// How several files become one stream.
    #[serde(default)]
    pub order: FileOrder,
}

fn default_time() -> String {
    row::TS.into()
}

/// How several files become one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileOrder {
    /// Merged by time.
    #[default]
    Merge,
    /// One after another by name.
    Name,
}

/// The kind.
pub struct Parquet;

/// A file and what of it is read.
#[derive(Clone, Debug)]
pub struct Input {
    /// The file.
    pub file: FileRef,
    /// Rows it has in all.
    pub rows: u64,
    /// Its place among the files by name: equal times go by it.
    pub rank: usize,
    /// The row groups to read.
    pub groups: Vec<(usize, footer::Group)>,
    /// Its first time by its footer; the least there is where the footer does not say.
    pub first_ts: i64,
}

/// What is the same for every file.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The columns delivered.
    pub schema: SchemaRef,
    /// Index of the time column, and the nanoseconds in one of its units.
    pub time: Option<(usize, i64)>,
    /// Whether files are merged by time.
    pub merge: bool,
    /// Times to read: from the first up to, not including, the second.
    pub range: (i64, i64),
    /// Whether `range` leaves anything out.
    pub ranged: bool,
}

/// Footers that are read at once.
const FOOTERS_AT_ONCE: usize = 16;

#[async_trait]
impl SourceKind for Parquet {
    const KIND: &'static str = "parquet";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = Problems::new();
        let from = instant("from", &params.from, i64::MIN, &mut problems);
        let to = instant("to", &params.to, i64::MAX, &mut problems);
        if problems.is_empty() && from >= to {
            problems.push(Problem::new("to", "is not after `from`: no row could be between them"));
        }
        let found = files::list(&params.url, &cx.base, &[".parquet", ".pq"]).await;
        let found = match found {
            Ok(found) => found,
            Err(reason) => {
                problems.push(Problem::new("url", reason));
                return Err(problems);
            }
        };
        let footers = match footers(&found, &params.time).await {
            Ok(footers) => footers,
            Err(problem) => {
                problems.push(problem);
                return Err(problems);
            }
        };
        let schema = choose(&found, &footers, &params, &mut problems);
        let merge = params.order == FileOrder::Merge;
        let ranged = params.from.is_some() || params.to.is_some();
        let time = time_column(&schema, &params, merge && found.len() > 1, ranged, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let layout = Layout { schema: schema.clone(), time, merge, range: (from, to), ranged };
        let mut inputs: Vec<Input> = found
            .into_iter()
            .zip(footers)
            .enumerate()
            .filter_map(|(i, (file, footer))| input(i, file, &footer, &layout))
            .collect();
        if merge {
            // Stable: equal first times stay in order of name.
            inputs.sort_by_key(|i| i.first_ts);
        }
        let source = Arc::new(ParquetSource { inputs: inputs.into(), layout });
        Ok(SourcePlan {
            columns: schema,
            partitions: Partitions::Single,
            bounded: true,
            replayable: true,
            source,
        })
    }
}

/// Reads an RFC 3339 time in nanoseconds.
pub(crate) fn instant(path: &str, text: &Option<String>, default: i64, problems: &mut Problems) -> i64 {
    let Some(text) = text else { return default };
    let parsed = chrono::DateTime::parse_from_rfc3339(text).ok().and_then(|t| t.timestamp_nanos_opt());
    parsed.unwrap_or_else(|| {
        problems.push(
            Problem::new(path, format!("`{text}` is not a time")).hint("write it as 2013-10-07T13:30:00Z"),
        );
        default
    })
}

async fn footers(found: &[FileRef], time: &str) -> Result<Vec<footer::Footer>, Problem> {
    let read = async |file: FileRef, time: String| {
        footer::read(&file, &time).await.map_err(|e| {
            let reason = format!("cannot read `{}`: the file is damaged, or not Parquet: {e}", file.display);
            Problem::new("url", reason).hint("replace the file, or leave it out of the glob")
        })
    };
    let reads: Vec<_> = found.iter().map(|file| read(file.clone(), time.to_owned()).boxed()).collect();
    futures::stream::iter(reads).buffered(FOOTERS_AT_ONCE).try_collect().await
}

/// The chosen columns, which all files must share; they may stand in another order and be null in some.
fn choose(
    found: &[FileRef],
    footers: &[footer::Footer],
    params: &Params,
    problems: &mut Problems,
) -> SchemaRef {
    let (Some(first_file), Some(first)) = (found.first(), footers.first()) else {
        return Arc::new(Schema::empty());
    };
    let own = |name: &str| name == row::SRC || name == row::SEQ;
    let names: Vec<&str> =
        first.schema.fields().iter().map(|f| f.name().as_str()).filter(|n| !own(n)).collect();
    for (i, name) in params.columns.iter().flatten().enumerate() {
        if !names.contains(&name.as_str()) {
            let problem = Problem::new(format!("columns[{i}]"), format!("the files have no column `{name}`"));
            problems.push(problem.hint_names(name, names.iter().copied()));
        }
    }
    let wanted = |name: &str| match &params.columns {
        Some(columns) => columns.iter().any(|c| c == name) || name == params.time,
        None => true,
    };
    let chosen = |name: &str| !own(name) && wanted(name);
    let mut fields: Vec<Field> =
        first.schema.fields().iter().filter(|f| chosen(f.name())).map(|f| f.as_ref().clone()).collect();
    for (file, footer) in found.iter().zip(footers).skip(1) {
        let mut differ = |reason: String| {
            let hint = "files of one source have the same columns; choose those they share with `columns`, or a narrower glob";
            problems.push(Problem::new("url", reason).hint(hint));
        };
        for field in &mut fields {
            let name = field.name();
            match footer.schema.field_with_name(name) {
                Err(_) => differ(format!(
                    "`{}` has no column `{name}`, but `{}` has",
                    file.display, first_file.name
                )),
                Ok(other) if other.data_type() != field.data_type() => differ(format!(
                    "column `{name}` is {} in `{}`, but {} in `{}`",
                    type_name(other.data_type()),
                    file.display,
                    type_name(field.data_type()),
                    first_file.name
                )),
                Ok(other) => *field = field.clone().with_nullable(field.is_nullable() || other.is_nullable()),
            }
        }
        for extra in footer.schema.fields().iter().filter(|f| chosen(f.name())) {
            if first.schema.field_with_name(extra.name()).is_err() {
                differ(format!(
                    "`{}` has a column `{}`, but `{}` has not",
                    file.display,
                    extra.name(),
                    first_file.name
                ));
            }
        }
    }
    Arc::new(Schema::new(fields))
}

fn time_column(
    schema: &SchemaRef,
    params: &Params,
    merged: bool,
    ranged: bool,
    problems: &mut Problems,
) -> Option<(usize, i64)> {
    let name = &params.time;
    let Ok(i) = schema.index_of(name) else {
        if merged || ranged || params.time != row::TS {
            let names = schema.fields().iter().map(|f| f.name().as_str());
            let why = if ranged { "`from` and `to` need it" } else { "files are merged by it" };
            problems.push(
                Problem::new("time", format!("the files have no column `{name}`; {why}"))
                    .hint_names(name, names),
            );
        }
        return None;
    };
    let t = schema.field(i).data_type();
    match footer::time_scale(t) {
        Some(_) if ranged && *t == DataType::Int64 => {
            let reason =
                format!("column `{name}` is a plain integer: `from` and `to` need a timestamp column");
            problems.push(Problem::new("time", reason));
            None
        }
        Some(scale) => Some((i, scale)),
        None => {
            if merged || ranged {
                let reason = format!("column `{name}` is {}, not a time", type_name(t));
                problems.push(
                    Problem::new("time", reason).hint("name the event time column, or use `order: name`"),
                );
            }
            None
        }
    }
}

/// What of a file is read; `None` where its footer says that no row is in range.
fn input(rank: usize, file: FileRef, footer: &footer::Footer, layout: &Layout) -> Option<Input> {
    let (from, to) = layout.range;
    let touches =
        |g: &footer::Group| !layout.ranged || g.range.is_none_or(|(min, max)| max >= from && min < to);
    let groups: Vec<_> =
        footer.groups.iter().copied().enumerate().filter(|(_, g)| touches(g) && g.rows > 0).collect();
    let first_ts = groups.iter().map(|(_, g)| g.range.map_or(i64::MIN, |r| r.0)).min()?;
    Some(Input { file, rank, rows: footer.rows(), groups, first_ts })
}

struct ParquetSource {
    inputs: reader::Inputs,
    layout: Layout,
}

#[async_trait]
impl Source for ParquetSource {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        if cx.instance != 0 {
            cx.ready(&[]);
            return Ok(());
        }
        let start = match cx.restored.get(&0).cloned() {
            None => None,
            Some(position) => {
                let (inputs, merge) = (self.inputs.clone(), self.layout.merge);
                let runtime = tokio::runtime::Handle::current();
                let look = move || runtime.block_on(position::read(&position, &inputs, merge));
                let looked = tokio::task::spawn_blocking(look).await;
                Some(looked.map_err(|e| ConnectorError::fatal("the files could not be compared", e))??)
            }
        };
        let mut writers = cx.ready(&[0]);
        let Some(mut writer) = writers.pop() else { return Ok(()) };
        let (inputs, layout) = (self.inputs.clone(), self.layout.clone());
        let read = move || {
            let runtime = tokio::runtime::Handle::current();
            let mut positions = start.as_ref().map_or_else(Default::default, position::Writer::resumed);
            let (at, mut row) = start.map_or((None, 0), |start| (Some(start.at), start.row));
            let mut merge =
                merge::Merge::new(inputs.clone(), layout, cx.chunk_rows, runtime.clone(), at.as_ref())?;
            while let Some(rows) = merge.next_rows()? {
                let seqs = Seqs::From(row);
                row += rows.num_rows() as u64;
                let position = positions.write(&inputs, merge.at(), row, &runtime)?;
                let chunk = Chunk { rows, seqs, position, rejects: Vec::new() };
                let sent = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = cx.stop.cancelled() => Err(Stopped),
                        sent = writer.send(chunk) => sent,
                    }
                });
                if sent.is_err() {
                    return Ok(());
                }
            }
            writer.end();
            Ok(())
        };
        blocking(read).await
    }
}

/// Runs `read` on a blocking thread; a decoder that panics on bad bytes is an error like others.
pub(crate) async fn blocking(
    read: impl FnOnce() -> Result<(), ConnectorError> + Send + 'static,
) -> Result<(), ConnectorError> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|e| Err(ConnectorError::fatal("the reader of the files stopped", e)))
}

#[cfg(test)]
mod tests;
