//! What a source is: async code that fills partitions with chunks of rows.
//!
//! A source reads one or more *partitions*, each an ordered log with positions (a Kafka partition,
//! a merged set of files, a generator). The engine adds `ts`, `_src` and `_seq`, keeps each
//! partition's watermark, applies the late-row policy and remembers positions in checkpoints.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::connector::ConnectorError;
use crate::metrics::Counts;

mod queue;

pub use queue::ChunkQueue;
use queue::ChunkSender;

/// Where a partition's reader stands: whatever the source needs to go on after the last row of a
/// chunk. It is stored in checkpoints, so it must stay readable by later versions.
pub type Position = Value;

/// A source, ready to be opened by each of its instances.
#[async_trait]
pub trait Source: Send + Sync {
    /// Reads until the data ends or `cx.stop` is cancelled. It declares its partitions first with
    /// [`SourceContext::ready`], resumes each from `cx.restored`, and must not buffer without bound.
    ///
    /// Partitions are held back one by one (those ahead in event time wait for the others), so a
    /// full queue of one must never keep another's rows from being sent.
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError>;

    /// The place on this machine where it keeps what a restart needs beside the checkpoint, as users call it.
    fn kept_here(&self) -> Option<String> {
        None
    }
}

/// Rows of one partition, in log order.
#[derive(Debug)]
pub struct Chunk {
    /// The rows, in the columns the source planned (no system columns).
    pub rows: RecordBatch,
    /// Each row's position in the partition, increasing.
    pub seqs: Seqs,
    /// Where to resume after this chunk.
    pub position: Position,
    /// Input that could not become a row, with its place among the rows.
    pub rejects: Vec<Reject>,
}

/// Positions of a chunk's rows.
#[derive(Debug)]
pub enum Seqs {
    /// `start`, `start + 1`, …
    From(u64),
    /// One each (a Kafka log has holes).
    List(Vec<u64>),
}

/// Input that could not become a row.
#[derive(Clone, Debug)]
pub struct Reject {
    /// Its position in the partition.
    pub seq: u64,
    /// How many rows of the chunk come before it.
    pub before: usize,
    /// The bytes as they came.
    pub raw: Vec<u8>,
    /// The message key as it came, where there is one.
    pub key: Option<Vec<u8>>,
    /// Why it was refused: lowercase, no full stop, with the column where there is one.
    pub reason: String,
}

/// What the engine hands a source instance.
pub struct SourceContext {
    /// Name of the node in the graph.
    pub name: String,
    /// This instance: it reads the partitions `p` with `p % instances == instance`.
    pub instance: usize,
    /// How many instances the source has in the job.
    pub instances: usize,
    /// Positions to resume from, by partition: for every partition any instance ever read.
    pub restored: BTreeMap<u32, Position>,
    /// Rows a chunk should have at most.
    pub chunk_rows: usize,
    /// Time, for connectors that need it.
    pub clock: Clock,
    /// Cancelled when the job stops.
    pub stop: CancellationToken,
    /// Positions of this instance's partitions in the last committed checkpoint.
    pub committed: watch::Receiver<BTreeMap<u32, Position>>,
    /// Where partitions are announced.
    pub events: mpsc::UnboundedSender<SourceEvent>,
    /// Wakes the worker that reads this instance.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// What the source counts beside its rows, shown in the run's summary and metrics.
    pub counts: Counts,
    /// The run that this start belongs to (0: unknown). Starts that go on from one another's checkpoints
    /// share it; one that begins from nothing has its own.
    pub run: u64,
    /// This start, larger than those of the run before it.
    pub generation: u64,
    /// A log of the source's own that checkpoints depend on, set before its first chunk.
    pub log: SourceLog,
}

/// A log that a source keeps of what it reads, because it cannot read it again.
#[async_trait]
pub trait DurableLog: Send + Sync {
    /// Makes everything that was sent in chunks so far survive a power cut. A checkpoint is acknowledged
    /// when this has returned.
    async fn sync(&self) -> Result<(), ConnectorError>;
}

/// Where a source leaves its log for the engine.
pub type SourceLog = Arc<OnceLock<Arc<dyn DurableLog>>>;

/// A source instance's word to its worker.
pub enum SourceEvent {
    /// Where the partition that is announced next begins: read from there, it gives the same rows again.
    Begins(u32, Position),
    /// A partition, the queue its chunks come from, and whether a closed queue is the end of its data.
    Partition(u32, ChunkQueue, Arc<AtomicBool>),
    /// All partitions known at the start have been announced: watermarks may move.
    Ready,
}

impl SourceContext {
    /// Announces the partitions this instance reads now, in their order; call it once, first.
    pub fn ready(&self, partitions: &[u32]) -> Vec<PartitionWriter> {
        let writers = partitions.iter().map(|id| self.partition(*id)).collect();
        let _ = self.events.send(SourceEvent::Ready);
        (self.wake)();
        writers
    }

    /// Like [`ready`](Self::ready), for a source that knows where each partition begins and can read it again from there. The run's
    /// first checkpoint has these positions, before any row is sent.
    pub fn ready_at(&self, partitions: &[(u32, Position)]) -> Vec<PartitionWriter> {
        for (id, position) in partitions {
            let _ = self.events.send(SourceEvent::Begins(*id, position.clone()));
        }
        self.ready(&partitions.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    }

    /// Like [`add_partition`](Self::add_partition), for one that begins at `position`.
    pub fn add_partition_at(&self, id: u32, position: Position) -> PartitionWriter {
        let _ = self.events.send(SourceEvent::Begins(id, position));
        self.add_partition(id)
    }

    /// Announces a partition that appeared after the start.
    pub fn add_partition(&self, id: u32) -> PartitionWriter {
        let writer = self.partition(id);
        (self.wake)();
        writer
    }

    fn partition(&self, id: u32) -> PartitionWriter {
        let (tx, rx) = queue::queue();
        let ended = Arc::new(AtomicBool::new(false));
        let _ = self.events.send(SourceEvent::Partition(id, rx, ended.clone()));
        PartitionWriter { id, tx, ended, wake: self.wake.clone() }
    }
}

/// The write side of one partition.
///
/// A partition has ended when [`end`](Self::end) was called, or when the source's `run` returned
/// well before it was asked to stop. Just dropping the writer, as an error or a panic does, ends
/// nothing: a failure never looks like the end of the data. A source of several partitions must
/// `end` each as it ends: until then the others wait for it.
pub struct PartitionWriter {
    id: u32,
    tx: ChunkSender,
    ended: Arc<AtomicBool>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// The job is stopping: the source should return.
#[derive(Debug, thiserror::Error)]
#[error("the job is stopping")]
pub struct Stopped;

impl PartitionWriter {
    /// The partition.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Sends a chunk, waiting while the worker is behind.
    pub async fn send(&mut self, chunk: Chunk) -> Result<(), Stopped> {
        self.tx.send(chunk).await.ok_or(Stopped)?;
        (self.wake)();
        Ok(())
    }

    /// Says that the partition has ended for good.
    pub fn end(self) {
        self.ended.store(true, Ordering::Release);
    }
}

impl Drop for PartitionWriter {
    fn drop(&mut self) {
        // The queue closes with `tx`; the worker must look at it once more to see the end.
        self.tx = ChunkSender::closed();
        (self.wake)();
    }
}
