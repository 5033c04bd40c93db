//! A partition of a source on its worker: how far it has come, and what happens to time when it says nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, RecordBatch};

use crate::checkpoint::decisions::Floor;
use crate::clock::Stopwatch;
use crate::runtime::floors::Floors;
use crate::runtime::intake::Intake;
use crate::source::{Chunk, ChunkQueue, Position};

/// One partition of a source.
pub struct Partition {
    /// Its number.
    pub id: u32,
    /// `_src` of its rows.
    pub origin: u64,
    /// Chunks that wait.
    pub queue: ChunkQueue,
    /// A chunk that waits for a decision.
    pub stash: Option<Chunk>,
    /// A closed queue is the end of the data.
    pub ended_well: Arc<AtomicBool>,
    /// Where to go on after the last chunk.
    pub position: Position,
    /// The time that it has reached.
    pub max_ts: i64,
    /// One more than the last position read.
    pub next_seq: u64,
    /// Decisions that hold for its next rows.
    pub floors: Floors,
    /// What judges its rows as long as the source's `max_out_of_orderness` does not hold for it yet.
    pub former: Option<Intake>,
    /// `max_out_of_orderness` changed with this checkpoint: rows behind it wait until it is committed.
    pub changed: Option<u64>,
    /// Read again from its position, it gives the same rows.
    pub replays: bool,
    /// A decision about it that is being written: its rows wait.
    pub deciding: Option<Floor>,
    /// There is no more.
    pub ended: bool,
    /// It has been silent for so long that it holds nobody back.
    pub idle: bool,
    /// Since the last chunk.
    pub quiet: Stopwatch,
    /// `max_ts` as of the last chunk.
    pub heard: i64,
    /// Rows sent whose effects may not have passed the sinks.
    pub in_flight: InFlight,
}

impl Partition {
    /// What judges its rows: `now` is the source's.
    pub fn intake<'a>(&'a self, now: &'a Intake) -> &'a Intake {
        self.former.as_ref().unwrap_or(now)
    }

    /// Its watermark: no row of it will be older.
    pub fn watermark(&self, now: &Intake) -> i64 {
        self.intake(now).watermark(self.max_ts)
    }

    /// Raises its watermark to at least `floor`.
    pub fn raise(&mut self, now: &Intake, floor: i64) {
        self.max_ts = self.intake(now).raise(self.max_ts, floor);
    }
}

/// Rows on their way to the sinks.
#[derive(Debug, Default)]
pub struct InFlight {
    /// Of each batch its newest `ts`, rows and bytes.
    sent: VecDeque<(i64, usize, usize)>,
    /// Rows in all.
    pub rows: usize,
    /// Bytes in all.
    pub bytes: usize,
    /// Bytes of a row of the last batch; 0 before the first.
    row_bytes: usize,
}

/// Batches of this many bytes are not measured closer.
const SMALL_BYTES: usize = 64 << 10;

impl InFlight {
    /// Counts a batch whose newest row is of `ts`.
    pub fn push(&mut self, ts: i64, batch: &RecordBatch) {
        let (rows, bytes) = (batch.num_rows(), bytes(batch));
        if rows > 0 {
            self.sent.push_back((ts, rows, bytes));
            (self.rows, self.bytes) = (self.rows + rows, self.bytes + bytes);
            self.row_bytes = bytes.div_ceil(rows);
        }
    }

    /// How many more rows may be in flight, of `rows_max` rows and `bytes_left` bytes; none where their size is not known.
    pub fn room(&self, rows_max: usize, bytes_left: usize) -> usize {
        let by_bytes = bytes_left.checked_div(self.row_bytes).unwrap_or(0);
        rows_max.saturating_sub(self.rows).min(by_bytes)
    }

    /// Forgets batches that have passed the sinks, whose watermark is `sinks`.
    pub fn passed(&mut self, sinks: i64) {
        while let Some((_, rows, bytes)) = self.sent.pop_front_if(|(ts, ..)| *ts < sinks) {
            (self.rows, self.bytes) = (self.rows - rows, self.bytes - bytes);
        }
    }
}

/// Bytes that a batch's rows take. A batch may be a slice of a large one: then only its part counts.
pub fn bytes(batch: &RecordBatch) -> usize {
    let whole = batch.get_array_memory_size();
    if whole <= SMALL_BYTES {
        return whole;
    }
    let slice = |column: &ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(slice).sum::<usize>().min(whole)
}
