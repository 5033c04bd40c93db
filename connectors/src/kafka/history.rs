//! Archive, then live: rows that Kafka has forgotten, from a dataset that kept `_src` and `_seq`.
//!
//! A partition's rows come from the archive up to the last archived offset, and from Kafka from exactly
//! the next one: the cut is an offset, so nothing is missing or doubled whatever the clocks say. Rows
//! come out as Kafka gave them: same columns, `_seq` the offset, in order of offsets. What is archived
//! is in order of time, so it is put back in order: one pass over `_src` and `_seq` notes which offsets
//! each slice of each file has, and a merge then reads slices in order of their least offset; a row is
//! given on once no unread slice can have a smaller offset. Memory: one slice per file that overlaps
//! others in offsets, plus what late rows have mixed up; no more than `memory_mb` a partition, else an error.
//!
//! A position is an offset, in the archive as in Kafka (`in: history` tells which), so compaction
//! between two starts changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use futures::{FutureExt, StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_archive::read::{self, Choice};
use tidemill_archive::{ArchiveError, Catalog, Dataset, FileEntry, Snapshot};
use tidemill_engine::component::{PlanContext, Problems};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_engine::schema::type_name;
use tidemill_engine::source::Position;

mod merge;

pub use merge::Past;

/// Rows of a slice: what is read at once.
const SLICE_ROWS: usize = 8192;
/// Files whose offsets are read at once.
const FILES_AT_ONCE: usize = 4;

/// Where the rows lie that Kafka no longer has.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryParams {
    /// The dataset's folder, such as `s3://bucket/archive/trades`: rows of this topic that a `parquet`
    /// sink wrote directly from a `kafka` source.
    pub url: String,
    /// Name of that `kafka` source in the job that archived. Needed where the dataset has rows of several.
    #[serde(default)]
    pub source: Option<String>,
    /// What happens where neither the archive nor Kafka has some offsets.
    #[serde(default)]
    pub on_gap: OnGap,
    /// How many MiB of rows may wait, per partition, to be put back in order of offsets.
    #[serde(default = "memory_default")]
    pub memory_mb: usize,
}

fn memory_default() -> usize {
    512
}

/// What happens where neither the archive nor Kafka has some offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    /// The job does not start.
    #[default]
    Fail,
    /// It says so and goes on behind the gap.
    Continue,
}

/// A history that is configured.
#[derive(Clone, Debug)]
pub struct History {
    dataset: Dataset,
    source: Option<String>,
    on_gap: OnGap,
    memory_bytes: usize,
    columns: SchemaRef,
}

fn failed(error: ArchiveError) -> ConnectorError {
    match error.is_passing() {
        true => ConnectorError::Transient(format!("the archive of the topic's history: {error}")),
        false => ConnectorError::Fatal(format!("the archive of the topic's history: {error}")),
    }
}

impl History {
    /// Checks the stanza; a dataset without files is an empty history.
    pub async fn plan(
        params: &HistoryParams,
        columns: &SchemaRef,
        cx: &PlanContext,
    ) -> Result<Self, Problems> {
        let at_url = |reason: String| vec![Problem::new("history.url", reason)];
        if params.memory_mb == 0 {
            return Err(vec![Problem::new("history.memory_mb", "is not above 0")]);
        }
        let catalog = Catalog::open(&params.url, &cx.base).map_err(|e| at_url(e.to_string()))?;
        let dataset = catalog.as_dataset();
        let snapshot = dataset.snapshot().await.map_err(|e| at_url(e.to_string()))?;
        if !snapshot.files().is_empty() {
            let schema = snapshot.schema().await.map_err(|e| at_url(e.to_string()))?;
            let mut problems = Problems::new();
            let system = [row::SRC, row::SEQ].map(|name| Field::new(name, DataType::UInt64, false));
            for field in system.iter().chain(columns.fields().iter().map(AsRef::as_ref)) {
                let (name, wanted) = (field.name(), field.data_type());
                match schema.field_with_name(name) {
                    Ok(found) if is_text(found.data_type()) && is_text(wanted) => {}
                    Ok(found) if found.data_type() == wanted => {}
                    Ok(found) => problems.push(Problem::new(
                        "history.url",
                        format!(
                            "column `{name}` is {} in the archive, but {} in the source",
                            type_name(found.data_type()),
                            type_name(wanted)
                        ),
                    )),
                    Err(_) if field.is_nullable() => {}
                    Err(_) => problems.push(
                        Problem::new("history.url", format!("the archive has no column `{name}`"))
                            .hint("it must hold the rows of this source, as a parquet sink directly behind it writes them"),
                    ),
                }
            }
            if !problems.is_empty() {
                return Err(problems);
            }
        }
        Ok(Self {
            dataset,
            source: params.source.clone(),
            on_gap: params.on_gap,
            memory_bytes: params.memory_mb << 20,
            columns: columns.clone(),
        })
    }

    /// How messages call the dataset.
    fn place_name(&self) -> &str {
        &self.dataset.location().display
    }

    /// Where a partition begins: archived offsets to read first, and the next offset in Kafka, which has
    /// `low` up to `high`. `at`: the checkpoint's next offset, and whether it is in the archive.
    pub fn place(
        &self,
        archive: &Archive,
        topic: &str,
        partition: u32,
        at: Option<(i64, bool)>,
        low: i64,
        high: i64,
    ) -> Result<(Option<Range<u64>>, i64), ConnectorError> {
        let id = partition as i32;
        let archived = archive.bounds(partition).map(|b| b.start as i64..b.end as i64);
        let (past, next) = match (at, archived) {
            // Kafka has more than the archive, or all that there is.
            (None, Some(archived)) if low <= archived.start => (None, low),
            (None, Some(archived)) => (Some(archived.clone()), archived.end),
            (None, None) => (None, 0),
            (Some((next, false)), _) if next >= low => (None, next),
            (Some((next, _)), Some(archived)) if next < archived.start && next < low => {
                let gap = self.gap(topic, id, next, archived.start.min(low), "have been dropped from both");
                gap?;
                (Some(archived.clone()), archived.end)
            }
            (Some((next, _)), Some(archived)) if archived.contains(&next) => {
                (Some(next..archived.end), archived.end)
            }
            (Some((next, _)), _) => (None, next),
        };
        if next > high {
            return Err(super::source::out_of_range(topic, id, next, low, high));
        }
        if next < low {
            self.gap(topic, id, next, low, "are in neither")?;
            return Ok((past.map(|p| p.start as u64..p.end as u64), low));
        }
        Ok((past.map(|p| p.start as u64..p.end as u64), next))
    }

    /// Offsets from `from` up to `to` are nowhere: an error, unless the graph says to go on.
    fn gap(&self, topic: &str, id: i32, from: i64, to: i64, why: &str) -> Result<(), ConnectorError> {
        let place = self.place_name();
        let what = format!(
            "offsets {from} to {} of kafka topic `{topic}` partition {id} {why}: Kafka has deleted them, and `{place}` has them not",
            to - 1
        );
        match self.on_gap {
            OnGap::Continue => {
                tracing::warn!("{what}; going on behind them");
                Ok(())
            }
            OnGap::Fail => {
                Err(ConnectorError::Fatal(format!("{what}; `history.on_gap: continue` goes on without them")))
            }
        }
    }

    /// Notes which offsets of `mine` are archived, and where.
    pub async fn load(&self, mine: impl Fn(u32) -> bool) -> Result<Archive, ConnectorError> {
        let snapshot = self.dataset.snapshot().await.map_err(failed)?;
        let wanted = self.source.as_ref().map(|name| row::origin(name, 0) >> 32);
        let reads: Vec<_> = snapshot.files().iter().map(|f| index(&self.dataset, f).boxed()).collect();
        let mut reads = futures::stream::iter(reads).buffered(FILES_AT_ONCE);
        let (mut files, mut sources) = (Vec::new(), BTreeSet::new());
        while let Some(slices) = reads.try_next().await.map_err(failed)? {
            sources.extend(slices.iter().flat_map(|s| s.spans.keys().map(|src| src >> 32)));
            files.push(slices);
        }
        drop(reads);
        let source = match (wanted, sources.len()) {
            (Some(wanted), _) => wanted,
            (None, 0 | 1) => sources.first().copied().unwrap_or(0),
            (None, n) => {
                return Err(ConnectorError::Fatal(format!(
                    "`{}` holds rows of {n} sources: say which by `history.source`, the name of the kafka source in the job that \
                     archived this topic",
                    self.place_name()
                )));
            }
        };
        let mut bounds: BTreeMap<u32, Range<u64>> = BTreeMap::new();
        for (src, (min, max)) in files.iter().flatten().flat_map(|slice| &slice.spans) {
            let partition = row::origin_partition(*src);
            if src >> 32 == source && mine(partition) {
                let bound = bounds.entry(partition).or_insert(*min..max + 1);
                *bound = bound.start.min(*min)..bound.end.max(max + 1);
            }
        }
        Ok(Archive { snapshot, source, files, bounds })
    }
}

fn is_text(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(_, value) => is_text(value),
        t => matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

/// What is archived.
pub struct Archive {
    snapshot: Snapshot,
    /// The upper half of the rows' `_src`.
    source: u64,
    /// Slices of each of the snapshot's files.
    files: Vec<Vec<Slice>>,
    bounds: BTreeMap<u32, Range<u64>>,
}

impl Archive {
    /// The first archived offset of a partition, and the one behind the last.
    pub fn bounds(&self, partition: u32) -> Option<Range<u64>> {
        self.bounds.get(&partition).cloned()
    }
}

/// Some rows that follow each other in a file.
struct Slice {
    rows: usize,
    /// Least and largest `_seq` by `_src`.
    spans: BTreeMap<u64, (u64, u64)>,
}

/// Reads the origins in a file.
async fn index(dataset: &Dataset, file: &FileEntry) -> Result<Vec<Slice>, ArchiveError> {
    let origin = |name| Field::new(name, DataType::UInt64, false);
    let schema = Arc::new(Schema::new(vec![origin(row::SRC), origin(row::SEQ)]));
    let choice = Choice { batch_rows: SLICE_ROWS, ..Choice::all(schema) };
    let mut rows = read::rows(dataset, file, choice).await?;
    let mut slices = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        let src = batch.column(0).as_primitive::<UInt64Type>().values();
        let seq = batch.column(1).as_primitive::<UInt64Type>().values();
        let mut spans: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (src, seq) in src.iter().zip(seq) {
            let span = spans.entry(*src).or_insert((*seq, *seq));
            *span = (span.0.min(*seq), span.1.max(*seq));
        }
        slices.push(Slice { rows: batch.num_rows(), spans });
    }
    Ok(slices)
}

/// A stored position within the history.
pub fn position(topic: &str, offset: u64) -> Position {
    json!({ "topic": topic, "offset": offset, "in": "history" })
}

/// Whether a stored position is within the history.
pub fn is_past(position: &Value) -> bool {
    position.get("in").and_then(Value::as_str) == Some("history")
}

#[cfg(test)]
mod tests;
