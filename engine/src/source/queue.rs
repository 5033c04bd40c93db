//! The queue between a source's partition and its worker: bounded by rows and bytes, so that small chunks may wait in numbers.
//!
//! A chunk is handed over between threads, which costs the same however few rows it has. Where the worker is behind, what waits is taken
//! together; so what is bounded must be its size. A chunk that is larger than the bound waits until it is alone.

use std::sync::Arc;

use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Chunk;

/// Rows that may wait.
const ROWS_MAX: u32 = 32 * 1024;
/// A row counts as several where it takes more bytes than this: 16 MiB may wait.
const ROW_BYTES: usize = 512;
/// Chunks that may wait.
const CHUNKS_MAX: usize = 4096;
/// Each chunk counts as this many rows at least: it takes memory of its own.
const ROWS_MIN: usize = 8;

/// The worker's end.
#[derive(Debug)]
pub struct ChunkQueue(mpsc::Receiver<(Chunk, OwnedSemaphorePermit)>);

/// The source's end.
#[derive(Debug)]
pub(super) struct ChunkSender {
    tx: mpsc::Sender<(Chunk, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// A queue.
pub(super) fn queue() -> (ChunkSender, ChunkQueue) {
    let (tx, rx) = mpsc::channel(CHUNKS_MAX);
    (ChunkSender { tx, room: Arc::new(Semaphore::new(ROWS_MAX as usize)) }, ChunkQueue(rx))
}

fn weight(chunk: &Chunk) -> u32 {
    let rejected = chunk.rejects.iter().map(|reject| reject.raw.len()).sum::<usize>();
    let by_bytes = (crate::runtime::bytes(&chunk.rows) + rejected) / ROW_BYTES;
    let rows = chunk.rows.num_rows().max(chunk.rejects.len()).max(by_bytes).max(ROWS_MIN);
    u32::try_from(rows).unwrap_or(ROWS_MAX).min(ROWS_MAX)
}

impl ChunkSender {
    /// Sends a chunk once there is room; `None` where nobody takes it.
    pub async fn send(&self, chunk: Chunk) -> Option<()> {
        let permit = tokio::select! {
            permit = self.room.clone().acquire_many_owned(weight(&chunk)) => permit.ok()?,
            () = self.tx.closed() => return None,
        };
        self.tx.send((chunk, permit)).await.ok()
    }

    /// One that leads nowhere.
    pub fn closed() -> Self {
        queue().0
    }
}

impl ChunkQueue {
    /// The next chunk, if one waits.
    pub fn try_recv(&mut self) -> Result<Chunk, TryRecvError> {
        self.0.try_recv().map(|(chunk, _)| chunk)
    }

    /// The next chunk; `None` where no more come.
    pub async fn recv(&mut self) -> Option<Chunk> {
        self.0.recv().await.map(|(chunk, _)| chunk)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Seqs;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

    fn chunk(column: ArrayRef) -> Chunk {
        let rows = RecordBatch::try_from_iter([("v", column)]).unwrap();
        Chunk { rows, seqs: Seqs::From(0), position: serde_json::Value::Null, rejects: Vec::new() }
    }

    /// How many chunks may wait.
    fn fits(make: impl Fn() -> Chunk) -> usize {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        tokio.block_on(async {
            let (sender, mut taken) = queue();
            let mut sent = 0;
            loop {
                let sending = sender.send(make());
                tokio::select! {
                    biased;
                    done = sending => assert!(done.is_some()),
                    () = tokio::task::yield_now() => break,
                }
                sent += 1;
            }
            // What is taken makes room.
            assert!(taken.try_recv().is_ok());
            assert!(sender.send(make()).await.is_some());
            drop(taken);
            assert!(sender.send(make()).await.is_none(), "nothing takes it any more");
            sent
        })
    }

    #[test]
    fn small_chunks_wait_in_numbers_and_large_ones_do_not() {
        let numbers = |n: i64| move || chunk(std::sync::Arc::new((0..n).collect::<Int64Array>()));
        assert_eq!(fits(numbers(10)), 3276);
        assert_eq!(fits(numbers(8192)), 4);
        assert_eq!(fits(numbers(100_000)), 1);
        let large = || chunk(std::sync::Arc::new(StringArray::from(vec!["x".repeat(1 << 20); 2])));
        assert!((4..=8).contains(&fits(large)), "{}", fits(large));
    }
}
