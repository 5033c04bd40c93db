//! Drives the writer of one sink shard on tokio: order of calls, flushes, checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::clock::{Clock, Stopwatch};
use crate::connector::ConnectorError;
use crate::sink::{Delivery, FlushPolicy, SinkWriter};

/// From a sink node to a shard's task, in order.
#[derive(Debug)]
pub enum SinkMessage {
    /// Rows to write.
    Rows(RecordBatch),
    /// All rows below this have been sent.
    Watermark(i64),
    /// Everything before checkpoint `id` has been sent.
    Checkpoint(u64),
    /// Checkpoint `id` is committed.
    Committed(u64),
    /// The run is over.
    Close,
}

/// What the task tells its node.
pub struct SinkTask {
    /// Shard number.
    pub shard: usize,
    /// What comes in.
    pub messages: mpsc::UnboundedReceiver<SinkMessage>,
    /// The last watermark whose rows have all been taken by the writer.
    pub done: Arc<AtomicI64>,
    /// Wakes the node.
    pub wake: Box<dyn Fn() + Send + Sync>,
    /// Takes a finished checkpoint.
    pub checkpointed: Box<dyn Fn(u64, Value) + Send + Sync>,
    /// When to flush.
    pub policy: FlushPolicy,
    /// In which order rows come.
    pub delivery: Delivery,
    /// Time.
    pub clock: Clock,
}

impl SinkTask {
    /// Runs until closed.
    pub async fn run(mut self, mut writer: Box<dyn SinkWriter>) -> Result<(), ConnectorError> {
        let mut watermark = i64::MIN;
        // Rows written and not flushed, since when, and whether the watermark covers them all.
        let mut waiting: usize = 0;
        let mut since: Option<Stopwatch> = None;
        let mut covered = true;
        loop {
            let due = match &since {
                Some(since) if covered => {
                    let left = self.policy.linger.saturating_sub(since.elapsed());
                    match tokio::time::timeout(left, self.messages.recv()).await {
                        Ok(message) => message.map(Some),
                        Err(_) => Some(None),
                    }
                }
                _ => self.messages.recv().await.map(Some),
            };
            // The node is gone: the run has failed, and what is not flushed is replayed.
            let Some(message) = due else { return Ok(()) };
            let mut flush = message.is_none();
            match message {
                Some(SinkMessage::Rows(rows)) => {
                    waiting += rows.num_rows();
                    since.get_or_insert_with(|| self.clock.start());
                    covered = self.delivery == Delivery::Eager;
                    writer.write(rows).await?;
                }
                Some(SinkMessage::Watermark(now)) => {
                    watermark = now;
                    covered = true;
                    self.done.store(now, Ordering::Release);
                    (self.wake)();
                }
                Some(SinkMessage::Checkpoint(id)) => {
                    writer.flush(watermark).await?;
                    (waiting, since) = (0, None);
                    // A writer that failed here may have put half of it: only a restart knows which.
                    let value = writer.checkpoint(id).await?;
                    crate::fault::point("sink-checkpointed");
                    (self.checkpointed)(id, value);
                }
                Some(SinkMessage::Committed(id)) => writer.committed(id).await?,
                Some(SinkMessage::Close) => return writer.close().await,
                None => {}
            }
            if covered && waiting > 0 {
                flush |= waiting >= self.policy.rows_max;
                flush |= since.as_ref().is_some_and(|s| s.elapsed() >= self.policy.linger);
                flush |= self.policy.linger == Duration::ZERO && self.messages.is_empty();
                if flush {
                    writer.flush(watermark).await?;
                    (waiting, since) = (0, None);
                }
            }
        }
    }
}
