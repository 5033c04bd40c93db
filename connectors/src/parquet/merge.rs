//! Merges files in the order of time: a heap over the open files' next rows.
//!
//! A file is opened when the merge reaches its first time (by its footer), so files that follow
//! each other in time are read one after another, batch by batch without a copy; only those that
//! overlap are merged row by row. Equal times go by the order of the files. State: one open reader
//! and one batch per overlapping file.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use arrow::array::RecordBatch;
use arrow::buffer::ScalarBuffer;
use tidemill_engine::connector::ConnectorError;
use tokio::runtime::Handle;

use super::Layout;
use super::position::At;
use super::reader::{Inputs, Reader, times};

/// Files that may be open at once.
const OPEN_MAX: usize = 1024;

/// Rows of all files in order.
pub struct Merge {
    inputs: Inputs,
    layout: Layout,
    chunk_rows: usize,
    runtime: Handle,
    /// How many of `inputs` have been opened.
    opened: usize,
    /// Open files, by index into `inputs`.
    cursors: BTreeMap<usize, Cursor>,
    /// Next time, rank and index of each open file.
    heap: BinaryHeap<Reverse<(i64, usize, usize)>>,
    /// Rows that wait for their chunk: file batches, and runs of them.
    batches: Vec<RecordBatch>,
    runs: Vec<Run>,
    waiting: usize,
    last_ts: i64,
}

/// Rows `from .. from + rows` of a waiting batch.
#[derive(Clone, Copy)]
struct Run {
    batch: usize,
    from: usize,
    rows: usize,
}

struct Cursor {
    reader: Reader,
    batch: RecordBatch,
    times: ScalarBuffer<i64>,
    /// The next row of `batch`.
    at: usize,
    /// Rows of the file's chosen row groups before `batch`.
    before: u64,
    /// Which waiting batch is this one, if it is.
    waiting_as: Option<usize>,
}

impl Merge {
    /// Starts at the beginning, or at `at`.
    pub fn new(
        inputs: Inputs,
        layout: Layout,
        chunk_rows: usize,
        runtime: Handle,
        at: Option<&At>,
    ) -> Result<Self, ConnectorError> {
        let mut merge = Self {
            cursors: BTreeMap::new(),
            inputs,
            layout,
            chunk_rows: chunk_rows.max(1),
            runtime,
            opened: 0,
            heap: BinaryHeap::new(),
            batches: Vec::new(),
            runs: Vec::new(),
            waiting: 0,
            last_ts: i64::MIN,
        };
        if let Some(at) = at {
            merge.last_ts = at.ts;
            merge.opened = at.opened;
            for file in 0..at.opened {
                if let Some(rows) = at.open.get(&merge.inputs[file].file.name) {
                    merge.open(file, *rows)?;
                }
            }
        }
        Ok(merge)
    }

    /// Where the merge stands: after the last row that `next_rows` gave.
    pub fn at(&self) -> At {
        let open = self.cursors.iter();
        let open = open.map(|(i, c)| (self.inputs[*i].file.name.clone(), c.before + c.at as u64));
        At { opened: self.opened, open: open.collect(), ts: self.last_ts }
    }

    /// The next rows, at most a chunk of them.
    pub fn next_rows(&mut self) -> Result<Option<RecordBatch>, ConnectorError> {
        loop {
            self.open_due()?;
            let Some(Reverse((_, _, file))) = self.heap.peek().copied() else {
                return self.flush();
            };
            let rows = self.run_length(file);
            // A long run goes out as it is, uncopied; what waits goes before it.
            let long = rows * 2 >= self.chunk_rows;
            if long && self.waiting > 0 {
                return self.flush();
            }
            self.take(file, rows)?;
            if long || self.waiting >= self.chunk_rows {
                return self.flush();
            }
        }
    }

    fn open_due(&mut self) -> Result<(), ConnectorError> {
        while let Some(next) = self.inputs.get(self.opened) {
            let due = match self.heap.peek() {
                None => true,
                Some(Reverse((ts, ..))) => self.layout.merge && next.first_ts <= *ts,
            };
            if !due {
                break;
            }
            if self.heap.len() >= OPEN_MAX {
                let hint = "compact them into files that follow each other, or use `order: name`";
                let what = format!("more than {OPEN_MAX} files overlap in time at `{}`", next.file.display);
                return Err(ConnectorError::fatal(what, hint));
            }
            self.opened += 1;
            self.open(self.opened - 1, 0)?;
        }
        Ok(())
    }

    fn open(&mut self, file: usize, skip: u64) -> Result<(), ConnectorError> {
        let reader = Reader::open(&self.inputs[file], &self.layout, skip, self.chunk_rows, &self.runtime)?;
        let cursor = Cursor {
            reader,
            batch: RecordBatch::new_empty(self.layout.schema.clone()),
            times: Vec::new().into(),
            at: 0,
            before: skip,
            waiting_as: None,
        };
        self.cursors.insert(file, cursor);
        self.settle(file)
    }

    /// Brings a cursor to its next row in range and into the heap, or closes it.
    fn settle(&mut self, file: usize) -> Result<(), ConnectorError> {
        let Some(cursor) = self.cursors.get_mut(&file) else { return Ok(()) };
        let (from, to) = self.layout.range;
        loop {
            while let Some(ts) = cursor.times.get(cursor.at) {
                if (from..to).contains(ts) || !self.layout.ranged {
                    self.heap.push(Reverse((*ts, self.inputs[file].rank, file)));
                    return Ok(());
                }
                cursor.at += 1;
            }
            let last = cursor.times.last().copied().unwrap_or(self.inputs[file].first_ts);
            cursor.before += cursor.batch.num_rows() as u64;
            cursor.at = 0;
            cursor.waiting_as = None;
            let Some(batch) = cursor.reader.next_rows()? else {
                self.cursors.remove(&file);
                return Ok(());
            };
            cursor.times = match self.layout.time {
                Some((column, scale)) => times(batch.column(column), scale, last).ok_or_else(|| {
                    ConnectorError::fatal(&self.inputs[file].file.display, "its time column holds no times")
                })?,
                None => vec![0; batch.num_rows()].into(),
            };
            cursor.batch = batch;
        }
    }

    /// How many rows of `file`, the first in the heap, come before any other file's.
    fn run_length(&mut self, file: usize) -> usize {
        let top = self.heap.pop();
        let rival = self.heap.peek().map(|Reverse(r)| *r);
        self.heap.extend(top);
        let next_opens = match self.inputs.get(self.opened) {
            Some(next) if self.layout.merge => next.first_ts,
            _ => i64::MAX,
        };
        let Some(cursor) = self.cursors.get(&file) else { return 0 };
        let room = self.chunk_rows - self.waiting.min(self.chunk_rows - 1);
        let end = cursor.batch.num_rows().min(cursor.at + room);
        let (from, to) = self.layout.range;
        let ranged = self.layout.ranged;
        let rank = self.inputs[file].rank;
        let first = |ts: i64| rival.is_none_or(|rival| (ts, rank, file) < rival);
        let times = &cursor.times[cursor.at..end];
        // The first row is the least of all; asking it again could only stop the merge.
        let run = times.iter().skip(1).take_while(|ts| {
            first(**ts)
                && (**ts < next_opens || next_opens == i64::MAX)
                && (!ranged || (from..to).contains(*ts))
        });
        1 + run.count()
    }

    fn take(&mut self, file: usize, rows: usize) -> Result<(), ConnectorError> {
        self.heap.pop();
        let Some(cursor) = self.cursors.get_mut(&file) else { return Ok(()) };
        let batch = *cursor.waiting_as.get_or_insert_with(|| {
            self.batches.push(cursor.batch.clone());
            self.batches.len() - 1
        });
        match self.runs.last_mut() {
            Some(run) if run.batch == batch && run.from + run.rows == cursor.at => run.rows += rows,
            _ => self.runs.push(Run { batch, from: cursor.at, rows }),
        }
        cursor.at += rows;
        self.waiting += rows;
        self.last_ts = cursor.times[cursor.at - 1];
        self.settle(file)
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, ConnectorError> {
        let fail = |e| ConnectorError::fatal("cannot merge rows", e);
        let runs = std::mem::take(&mut self.runs);
        let slice = |run: &Run| self.batches[run.batch].slice(run.from, run.rows);
        let rows = match runs.as_slice() {
            [] => None,
            [run] => Some(slice(run)),
            runs if runs.len() * 16 <= self.waiting => {
                let parts: Vec<RecordBatch> = runs.iter().map(slice).collect();
                Some(arrow::compute::concat_batches(&self.layout.schema, &parts).map_err(fail)?)
            }
            runs => {
                let parts: Vec<&RecordBatch> = self.batches.iter().collect();
                let indices: Vec<(usize, usize)> =
                    runs.iter().flat_map(|r| (r.from..r.from + r.rows).map(|i| (r.batch, i))).collect();
                Some(arrow::compute::interleave_record_batch(&parts, &indices).map_err(fail)?)
            }
        };
        self.batches.clear();
        self.waiting = 0;
        self.cursors.values_mut().for_each(|c| c.waiting_as = None);
        Ok(rows)
    }
}
