//! Rows that replace a range: what backfill writes with.
//!
//! A [`RangeWriter`] takes rows of one source, one key (such as `symbol = BTCUSDT`) and one span of
//! time, in any order. [`finish`](RangeWriter::finish) sorts them, writes files, and commits once: the
//! rows of the same source and key in that span that were there before are replaced, all others stay.
//! So filling a range twice changes nothing, and a crash at any instant leaves the old rows or the new.
//!
//! Files that lie in the range as a whole are dropped from the dataset; a file that also holds rows of
//! other keys or times (a compacted one, say) is rewritten without the replaced rows, in the same commit.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampNanosecondType};
use futures::TryStreamExt;
use tidemill_engine::row;

use crate::ArchiveError;
use crate::dataset::{Change, Dataset};
use crate::encode;
use crate::layout::Layout;
use crate::log::{Added, Covered, Gap, Origin, RangeKey, State};
use crate::read::{self, Choice};
use crate::snapshot::FileEntry;
use crate::sort::{Sorted, Sorter};
use crate::upload::FileWriter;

/// Attempts at a commit while others change the same rows.
const ATTEMPTS_MAX: usize = 10;

/// How files are written.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Level of zstd, 1 to 22.
    pub zstd: i32,
    /// Rows a row group has at most.
    pub row_group_rows: usize,
    /// About how many bytes a file has at most.
    pub file_bytes: usize,
    /// About how much memory sorting takes.
    pub memory_bytes: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { zstd: 1, row_group_rows: 250_000, file_bytes: 256 << 20, memory_bytes: 256 << 20 }
    }
}

/// What a range has become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeReport {
    /// Rows written.
    pub rows: u64,
    /// Files written.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that counted before and do not any more.
    pub replaced_files: usize,
    /// The commit.
    pub version: u64,
}

/// Writes one range.
pub struct RangeWriter {
    dataset: Dataset,
    layout: Layout,
    schema: SchemaRef,
    covered: Covered,
    options: WriteOptions,
    gaps: Vec<Gap>,
    sorter: Option<Sorter>,
    rows: u64,
}

impl RangeWriter {
    /// A writer for the rows of `source` with `key` from `from` up to, not including, `to` (ns). The
    /// dataset must have been created; its columns are those of its layout.
    pub async fn new(
        dataset: &Dataset,
        source: &str,
        key: RangeKey,
        from: i64,
        to: i64,
        options: WriteOptions,
    ) -> Result<Self, ArchiveError> {
        let state = dataset.state().await?;
        let Some(layout) = state.layout.clone() else {
            return Err(ArchiveError::Invalid(format!(
                "`{}` has not been created: it has no layout",
                dataset.location().display
            )));
        };
        let schema = layout.schema()?;
        if from >= to {
            return Err(ArchiveError::Invalid(format!("the range from {from} to {to} is empty")));
        }
        if let Some(column) = key.0.keys().find(|name| schema.index_of(name).is_err()) {
            return Err(ArchiveError::Invalid(format!(
                "the range's key has a column `{column}`, which the dataset has not"
            )));
        }
        let sorter = sorter(&layout, &schema, &options)?;
        let covered = Covered { source: source.to_owned(), key, from, to, complete: false };
        let dataset = dataset.clone();
        Ok(Self {
            dataset,
            layout,
            schema,
            covered,
            options,
            gaps: Vec::new(),
            sorter: Some(sorter),
            rows: 0,
        })
    }

    /// The columns that rows are put in.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes rows, in any order: columns go by name, are cast where that is exact, and are null where
    /// they are missing and may be. A row outside the range, or of another key, is an error.
    pub async fn write(&mut self, rows: RecordBatch) -> Result<(), ArchiveError> {
        let Some(mut sorter) = self.sorter.take() else {
            return Err(ArchiveError::Invalid("a write before has failed".into()));
        };
        let (schema, covered) = (self.schema.clone(), self.covered.clone());
        let pushed = tokio::task::spawn_blocking(move || {
            let rows = read::fit(&rows, &schema)?;
            let inside = inside(&rows, &covered)?;
            if inside.true_count() < rows.num_rows() {
                return Err(ArchiveError::Invalid(format!(
                    "{} of {} rows are outside the range {} to {} of `{}` ({})",
                    rows.num_rows() - inside.true_count(),
                    rows.num_rows(),
                    covered.from,
                    covered.to,
                    covered.source,
                    covered.key
                )));
            }
            let n = rows.num_rows() as u64;
            sorter.push(rows)?;
            Ok((sorter, n))
        });
        let (sorter, n) = pushed.await.unwrap_or_else(|e| Err(ArchiveError::rows("sort rows", e)))?;
        self.sorter = Some(sorter);
        self.rows += n;
        Ok(())
    }

    /// Notes that something in the range is missing, from the last time before it to the first after it.
    pub fn gap(&mut self, from: i64, to: i64, reason: impl Into<String>) {
        let Covered { source, key, .. } = self.covered.clone();
        self.gaps.push(Gap { source, key, from, to, reason: reason.into() });
    }

    /// Writes and commits. `complete`: everything the source has for the range has been written.
    pub async fn finish(mut self, complete: bool) -> Result<RangeReport, ArchiveError> {
        self.covered.complete = complete;
        let Some(sorter) = self.sorter.take() else {
            return Err(ArchiveError::Invalid("a write before has failed".into()));
        };
        let keys = BTreeSet::from([self.covered.key.clone()]);
        let origin = Origin::Range { source: self.covered.source.clone(), keys };
        let files = self.files(origin)?;
        let added = tokio::task::spawn_blocking(move || drain(sorter.finish()?, files)).await;
        let added = added.unwrap_or_else(|e| Err(ArchiveError::rows("write rows", e)))?;
        for _ in 0..ATTEMPTS_MAX {
            match self.commit(&added).await {
                Err(ArchiveError::Conflict { .. }) => {}
                done => return done,
            }
        }
        self.commit(&added).await
    }

    fn files(&self, origin: Origin) -> Result<FileWriter, ArchiveError> {
        let properties = encode::properties(
            &self.schema,
            self.options.zstd,
            self.options.row_group_rows,
            &self.layout.partition_by,
            &self.layout.sort,
        );
        let runtime = tokio::runtime::Handle::current();
        FileWriter::new(
            &self.dataset,
            runtime,
            self.schema.clone(),
            &self.layout.partition_by,
            properties,
            self.options.file_bytes,
            origin,
        )
    }

    /// Commits the new files in place of what is there now.
    async fn commit(&self, added: &[Added]) -> Result<RangeReport, ArchiveError> {
        let base = self.dataset.state().await?;
        let (remove, kept) = self.replaced(&base).await?;
        let report = RangeReport {
            rows: added.iter().map(|f| f.rows).sum(),
            files: added.len(),
            bytes: added.iter().map(|f| f.bytes).sum(),
            replaced_files: remove.len(),
            version: 0,
        };
        let change = Change {
            by: "backfill".into(),
            add: added.iter().cloned().chain(kept).collect(),
            remove,
            ranges: vec![self.covered.clone()],
            gaps: self.gaps.clone(),
            alone_in: Some(self.covered.source.clone()),
            ..Change::default()
        };
        let version = self.dataset.commit(&base, change).await?;
        Ok(RangeReport { version, ..report })
    }

    /// Files that the range replaces, and new ones with those of their rows that it does not.
    async fn replaced(&self, base: &State) -> Result<(Vec<String>, Vec<Added>), ArchiveError> {
        let Covered { source, key, from, to, .. } = &self.covered;
        let (mut remove, mut kept) = (Vec::new(), Vec::new());
        for file in base.files.values() {
            let Origin::Range { source: s, keys } = &file.origin else { continue };
            // Keys name whole columns' values: other values of the same columns are other rows.
            let apart = |other: &RangeKey| {
                other.0.iter().any(|(column, value)| key.0.get(column).is_some_and(|v| v != value))
            };
            if s != source || file.ts.1 < *from || file.ts.0 >= *to || keys.iter().all(apart) {
                continue;
            }
            let whole =
                file.ts.0 >= *from && file.ts.1 < *to && (key.0.is_empty() || keys.iter().all(|k| k == key));
            if !whole {
                match self.without(file).await? {
                    // None of its rows are in the range after all.
                    None => continue,
                    Some(files) => kept.extend(files),
                }
            }
            remove.push(file.path.clone());
        }
        Ok((remove, kept))
    }

    /// Writes a file anew without the rows of the range; `None` where it has none.
    async fn without(&self, file: &Added) -> Result<Option<Vec<Added>>, ArchiveError> {
        let entry = FileEntry {
            path: file.path.clone(),
            bytes: file.bytes,
            rows: Some(file.rows),
            ts: Some(file.ts),
            partition: Vec::new(),
            origin: file.origin.clone(),
            modified_ms: 0,
            own: true,
        };
        let mut rows = read::rows(&self.dataset, &entry, Choice::all(self.schema.clone())).await?;
        let mut files = self.files(file.origin.clone())?;
        let mut dropped = 0;
        while let Some(batch) = rows.try_next().await? {
            let covered = self.covered.clone();
            let work = move || {
                let inside = inside(&batch, &covered)?;
                let outside =
                    arrow::compute::not(&inside).map_err(|e| ArchiveError::rows("filter rows", e))?;
                let keep = arrow::compute::filter_record_batch(&batch, &outside)
                    .map_err(|e| ArchiveError::rows("filter rows", e))?;
                if keep.num_rows() > 0 {
                    files.write(&keep)?;
                }
                Ok((files, inside.true_count()))
            };
            let done = tokio::task::spawn_blocking(work).await;
            let n;
            (files, n) = done.unwrap_or_else(|e| Err(ArchiveError::rows("filter rows", e)))?;
            dropped += n;
        }
        if dropped == 0 {
            return Ok(None);
        }
        let done = tokio::task::spawn_blocking(move || files.finish()).await;
        Ok(Some(done.unwrap_or_else(|e| Err(ArchiveError::rows("write rows", e)))?))
    }
}

/// A sorter by folder, then by the order of the layout.
fn sorter(layout: &Layout, schema: &SchemaRef, options: &WriteOptions) -> Result<Sorter, ArchiveError> {
    let names: Vec<String> = layout.partition_by.iter().chain(&layout.sort).cloned().collect();
    Sorter::new(schema.clone(), &names, options.memory_bytes)
}

/// Sorted rows into files.
pub(crate) fn drain(sorted: Sorted, mut files: FileWriter) -> Result<Vec<Added>, ArchiveError> {
    for rows in sorted {
        files.write(&rows?)?;
    }
    files.finish()
}

/// Which rows a range is of. Key columns are compared as text.
fn inside(rows: &RecordBatch, covered: &Covered) -> Result<BooleanArray, ArchiveError> {
    let fail = |e| ArchiveError::rows("compare rows with their range", e);
    let ts = rows
        .column_by_name(row::TS)
        .and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>())
        .ok_or_else(|| ArchiveError::rows("compare rows with their range", "there is no column `ts`"))?;
    let mut inside: BooleanArray =
        ts.values().iter().map(|t| Some(*t >= covered.from && *t < covered.to)).collect();
    for (column, value) in &covered.key.0 {
        let Some(found) = rows.column_by_name(column) else {
            let reason = format!("there is no column `{column}`");
            return Err(ArchiveError::rows("compare rows with their range", reason));
        };
        let same: BooleanArray = match found.as_any_dictionary_opt() {
            // Once per value, not per row.
            Some(dictionary) if found.data_type() == &row::symbol_type() => {
                let texts = arrow::compute::cast(dictionary.values(), &DataType::Utf8).map_err(fail)?;
                let texts = texts.as_string::<i32>();
                let hits: Vec<bool> =
                    (0..texts.len()).map(|i| texts.is_valid(i) && texts.value(i) == value).collect();
                let keys = found.as_dictionary::<arrow::datatypes::Int32Type>().keys();
                keys.iter().map(|k| Some(k.is_some_and(|k| hits[k as usize]))).collect()
            }
            _ => {
                let texts = arrow::compute::cast(found, &DataType::Utf8).map_err(fail)?;
                texts.as_string::<i32>().iter().map(|t| Some(t == Some(value.as_str()))).collect()
            }
        };
        inside = arrow::compute::and(&inside, &same).map_err(fail)?;
    }
    Ok(inside)
}
