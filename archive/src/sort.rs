//! Sorts rows with bounded memory: in memory up to a limit, then in sorted runs on disk.
//!
//! The sort is stable, so its result depends on the order of the rows alone, never on how they are
//! split into batches or how many runs there are. Rows that come in order cost one comparison each.
//! Memory: the limit, and while runs are merged one batch of each. Disk: the rows, uncompressed, in
//! Arrow's IPC format below the system's temporary folder (`TMPDIR`).

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};

use crate::ArchiveError;
use crate::partition::Column;

mod merge;
mod run;

use merge::Merge;
use run::Run;

/// Rows of a sorted batch.
pub const BATCH_ROWS: usize = 8192;

/// What rows are sorted by: real columns, and the date of `ts`.
pub struct Keys {
    columns: Vec<Column>,
    converter: RowConverter,
}

impl Keys {
    /// By `names`, in that order, ascending, nulls first.
    pub fn new(names: &[String], schema: &SchemaRef) -> Result<Self, ArchiveError> {
        let fail = |e| ArchiveError::rows(format!("sort by [{}]", names.join(", ")), e);
        let columns = Column::of(names, schema).map_err(fail)?;
        let fields = columns.iter().map(|c| SortField::new(c.data_type(schema))).collect();
        Ok(Self { columns, converter: RowConverter::new(fields).map_err(fail)? })
    }

    /// The keys of a batch's rows, comparable as bytes.
    fn rows(&self, batch: &RecordBatch) -> Result<Rows, ArchiveError> {
        let arrays: Vec<ArrayRef> = self.columns.iter().map(|c| c.values(batch)).collect();
        self.converter.convert_columns(&arrays).map_err(|e| ArchiveError::rows("sort rows", e))
    }
}

/// Takes rows in any order.
pub struct Sorter {
    schema: SchemaRef,
    keys: Keys,
    bytes_max: usize,
    waiting: Vec<(RecordBatch, Rows)>,
    bytes: usize,
    runs: Vec<Run>,
    folder: Option<tempfile::TempDir>,
}

impl Sorter {
    /// Sorts rows of `schema` by `names` in about `bytes_max` of memory.
    pub fn new(schema: SchemaRef, names: &[String], bytes_max: usize) -> Result<Self, ArchiveError> {
        let keys = Keys::new(names, &schema)?;
        Ok(Self { schema, keys, bytes_max, waiting: Vec::new(), bytes: 0, runs: Vec::new(), folder: None })
    }

    /// Takes rows. Blocks while a run is written.
    pub fn push(&mut self, batch: RecordBatch) -> Result<(), ArchiveError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let rows = self.keys.rows(&batch)?;
        // Rows of a slice, not of what it was sliced from; twice, since sorting puts them end to end.
        let slices = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0));
        self.bytes += 2 * slices.sum::<usize>() + rows.size();
        self.waiting.push((batch, rows));
        if self.bytes > self.bytes_max {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<(), ArchiveError> {
        let folder = match &self.folder {
            Some(folder) => folder,
            None => {
                let made = tempfile::Builder::new().prefix("tidemill-sort").tempdir();
                self.folder.insert(made.map_err(|e| run::failed("make", &e))?)
            }
        };
        let path = folder.path().join(format!("{}.arrow", self.runs.len()));
        let sorted = sort(&self.schema, std::mem::take(&mut self.waiting))?;
        self.bytes = 0;
        self.runs.push(Run::write(path, &self.schema, sorted)?);
        Ok(())
    }

    /// All rows, sorted, in batches. Blocks while it is read.
    pub fn finish(mut self) -> Result<Sorted, ArchiveError> {
        if self.runs.is_empty() {
            return Ok(Sorted {
                source: Source::Memory(Box::new(sort(&self.schema, self.waiting)?)),
                _folder: None,
            });
        }
        if !self.waiting.is_empty() {
            self.spill()?;
        }
        let merge = Merge::new(self.runs, self.keys)?;
        Ok(Sorted { source: Source::Runs(Box::new(merge)), _folder: self.folder })
    }
}

/// Sorted rows.
pub struct Sorted {
    source: Source,
    /// Holds the runs until they have been read.
    _folder: Option<tempfile::TempDir>,
}

enum Source {
    Memory(Box<InMemory>),
    Runs(Box<Merge>),
}

impl Iterator for Sorted {
    type Item = Result<RecordBatch, ArchiveError>;
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Memory(sorted) => sorted.next(),
            Source::Runs(merge) => merge.next_batch().transpose(),
        }
    }
}

/// Rows sorted in memory.
struct InMemory {
    /// As they came where they are in order; otherwise one, of all rows.
    batches: Vec<RecordBatch>,
    /// Which row comes next; `None`: they are in order as they stand.
    order: Option<Vec<u32>>,
    at: usize,
}

/// Sorts batches in memory.
fn sort(schema: &SchemaRef, waiting: Vec<(RecordBatch, Rows)>) -> Result<InMemory, ArchiveError> {
    let mut ordered = true;
    let mut last = None;
    'look: for (_, rows) in &waiting {
        for row in rows {
            if last.is_some_and(|last| last > row) {
                ordered = false;
                break 'look;
            }
            last = Some(row);
        }
    }
    if ordered {
        let batches = waiting.into_iter().map(|(batch, _)| batch).collect();
        return Ok(InMemory { batches, order: None, at: 0 });
    }
    let count: usize = waiting.iter().map(|(_, rows)| rows.num_rows()).sum();
    if u32::try_from(count).is_err() {
        return Err(ArchiveError::rows("sort rows", "more than 4 billion at once: use a lower memory limit"));
    }
    let mut keyed: Vec<(arrow::row::Row<'_>, u32)> = Vec::with_capacity(count);
    for (_, rows) in &waiting {
        let first = keyed.len() as u32;
        keyed.extend(rows.iter().enumerate().map(|(i, row)| (row, first + i as u32)));
    }
    // Stable: rows of equal keys stay as they came.
    keyed.sort_unstable();
    let order = keyed.into_iter().map(|(_, i)| i).collect();
    let batches: Vec<RecordBatch> = waiting.into_iter().map(|(batch, _)| batch).collect();
    let whole =
        arrow::compute::concat_batches(schema, &batches).map_err(|e| ArchiveError::rows("sort rows", e))?;
    Ok(InMemory { batches: vec![whole], order: Some(order), at: 0 })
}

impl Iterator for InMemory {
    type Item = Result<RecordBatch, ArchiveError>;
    fn next(&mut self) -> Option<Self::Item> {
        let Some(order) = &self.order else {
            self.at += 1;
            return self.batches.get(self.at - 1).cloned().map(Ok);
        };
        let part = order.get(self.at..order.len().min(self.at + BATCH_ROWS)).filter(|p| !p.is_empty())?;
        self.at += part.len();
        let part = UInt32Array::from_iter_values(part.iter().copied());
        let taken = arrow::compute::take_record_batch(self.batches.first()?, &part);
        Some(taken.map_err(|e| ArchiveError::rows("sort rows", e)))
    }
}

#[cfg(test)]
mod tests;
