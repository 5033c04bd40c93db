//! What an operator is: rows in, rows out, no clock and no IO.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::Serialize;

use crate::state_memory::StatePart;

/// Watermark that no row reaches: the input is complete.
pub const END: i64 = i64::MAX;

/// One instance of an operator, on one worker, for the keys that worker owns.
///
/// The runtime calls it in event order where the plan says it must: rows of one key (or, for an
/// operator that is not keyed, all rows) arrive in the order of `(ts, _src, _seq)`. The output
/// must be a function of the rows in that order: never of how they were cut into batches.
pub trait Operator: Send {
    /// Takes rows; `inputs[i]` is what port `i` has, in order. With several ports that are ordered,
    /// all rows up to one watermark come together and the operator interleaves them by `ts`.
    ///
    /// Rows may be pushed whose `ts` is not below the last `advance`.
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError>;

    /// Every row with `ts < watermark` has been processed ([`END`]: all there are). Rows that
    /// were waiting for that time go out now; later rows have `ts >= watermark`.
    fn advance(&mut self, _watermark: i64, _out: &mut Output) -> Result<(), OperatorError> {
        Ok(())
    }

    /// The operator's state, if it has any.
    fn state(&mut self) -> Option<&mut dyn State> {
        None
    }
}

/// State that is snapshotted by key group, a few groups at a time, while rows go on flowing.
///
/// Must be cheap: `begin` (it runs between two batches, whatever the size of the state).
pub trait State {
    /// Fixes the instant of a snapshot: what `next` gives is the state as of now.
    fn begin(&mut self);
    /// Like [`begin`](Self::begin), but `next` gives only groups that may have changed since snapshot number `since` began
    /// (0: since the state was restored); a group that holds nothing any more comes with no bytes. `false`: it cannot
    /// tell, and gives all groups.
    fn begin_changed(&mut self, _since: u32) -> bool {
        self.begin();
        false
    }
    /// How many snapshots have begun: the number of the last one.
    fn snapshots(&self) -> u32 {
        0
    }
    /// Encodes more groups, about `budget` bytes of them; `None` when all have been given. After an error the snapshot
    /// is void.
    fn next(&mut self, budget: usize) -> Result<Option<Groups>, OperatorError>;
    /// Takes back a group that `next` gave, into a state that holds nothing of that group.
    fn restore(&mut self, group: u16, bytes: &[u8]) -> Result<(), OperatorError>;
    /// How many keys it holds.
    fn keys(&self) -> usize;
    /// Whether keys without recent rows can leave memory.
    fn can_spill(&self) -> bool {
        false
    }
    /// Keeps it within a part of the process's memory. Called once, before anything else.
    fn limit(&mut self, _part: StatePart) -> Result<(), OperatorError> {
        Ok(())
    }
    /// Called between two calls of the operator: makes memory follow the limit. Never shows in the output.
    fn trim(&mut self) -> Result<(), OperatorError> {
        Ok(())
    }
    /// What has left memory, where keys can.
    fn spilled(&self) -> Option<Spilled> {
        None
    }
}

/// Key groups, encoded.
pub type Groups = Vec<(u16, Vec<u8>)>;

/// Where the keys of an instance are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spilled {
    /// Keys in memory.
    pub in_memory: u64,
    /// Keys on disk only.
    pub on_disk: u64,
    /// Keys looked up on disk so far.
    pub lookups: u64,
    /// Keys that have left memory so far.
    pub evictions: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

impl Spilled {
    /// All counts, in order.
    pub fn counts(&self) -> [u64; 5] {
        [self.in_memory, self.on_disk, self.lookups, self.evictions, self.disk_bytes]
    }

    /// Of counts in the order of [`counts`](Self::counts).
    pub fn of([in_memory, on_disk, lookups, evictions, disk_bytes]: [u64; 5]) -> Self {
        Self { in_memory, on_disk, lookups, evictions, disk_bytes }
    }
}

/// Collects what an operator sends on.
#[derive(Debug)]
pub struct Output {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Output {
    /// An empty output of `schema`.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new() }
    }

    /// The schema that rows must have: system columns first.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Sends a batch; empty ones are passed over.
    pub fn push(&mut self, batch: RecordBatch) {
        debug_assert_eq!(batch.num_columns(), self.schema.fields().len());
        if batch.num_rows() > 0 {
            self.batches.push(batch);
        }
    }

    /// Takes what has been pushed.
    pub fn drain(&mut self) -> std::vec::Drain<'_, RecordBatch> {
        self.batches.drain(..)
    }
}

/// An invariant that broke: it stops the job, which restarts from its last checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Arrow refused an operation.
    #[error("columnar operation failed")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A snapshot could not be read back.
    #[error("state cannot be read: {0}")]
    State(String),
    /// Anything else, in the operator's words.
    #[error("{0}")]
    Invalid(String),
}
