//! Exactly once: rows and progress in one short transaction, of two producers in turn.
//!
//! Why it is sound. Rows reach a shard in order of `ts`. Let a flush's *progress* P be one more than
//! the `ts` of the last row written; the flush promises that all rows before its watermark have
//! been written and none at or after it, so all rows with `ts < P` are in this or earlier
//! transactions, and none with `ts >= P` is. Rows and P are committed together, so this holds of
//! every state that the brokers can be in, whenever the process is killed: transactions are committed in the order in which
//! they were filled ([`Turns`]), so what is committed is always a beginning of what was written. A restart first fences
//! both old producers (an open transaction is aborted, one about to be committed is completed), and only then reads P. In
//! between, with one producer fenced, the old process can still commit the transaction that the other has completed, if
//! the one before is committed; then it has to begin one with the fenced producer, and ends. So when both are fenced,
//! P is final. It replays from a checkpoint at T, which was taken after a flush: no row before
//! T is missing from the topic. Replay is deterministic, so the rows with `ts < P` that come again
//! are the ones that are there, and are dropped; those with `ts >= P` are not there, and are written.
//!
//! A flush with nothing written commits nothing, though the watermark has moved: P then says less
//! than is known, but between P and the watermark there is no row, in this run or in a replay, so
//! nothing can be doubled. That is also why a checkpoint needs no commit of its own, and why P is not
//! the watermark itself: a bounded job ends at the watermark of all rows, and can go on later.
//!
//! A run that begins from nothing (`--from none`) writes everything again, whatever progress earlier
//! runs left: its first transaction says so, and of records only the newest is ever read. Until then the progress
//! of the run before stays as it is, so a start that another sink refuses changes nothing.
//!
//! The first producer has the transactional id that earlier versions gave their only one, so theirs are fenced, too.
//!
//! All of this stands on the replay. Where a source that feeds the sink cannot be read again (a live feed without
//! a capture), a restart brings no old rows but new ones, and a venue's clock, or one that was set back, may put them
//! below P. So nothing is dropped then: the promise is at least once across a crash, rows of one start are in
//! order, and what sources beside it do bring again is in the topic twice.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde_json::{Value, json};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;
use tidemill_engine::sink::{SinkContext, SinkWriter};

use super::Target;
use super::outbox::Outbox;
use super::progress::{self, Progress};
use super::transaction::{Producer, TRANSACTION_TIMEOUT, Transactional};
use super::turns::Turns;

/// The writer of one shard.
pub(super) struct ExactlyOnce<T = Producer> {
    turns: Turns<T>,
    progress: Progress,
    /// Rows before it are in the topic: those that come again are left out. `None` where nothing ever was written.
    written: Option<i64>,
    /// How many rows of a replay have been left out, until a transaction of this start begins.
    left_out: u64,
    /// The `ts` of the last row that this start has written.
    last: i64,
    /// Whether a commit begins as soon as the one before is done, without waiting for the linger.
    early: bool,
}

pub(super) async fn open(
    target: &Target,
    early: bool,
    cx: SinkContext,
) -> Result<ExactlyOnce, ConnectorError> {
    let progress_topic = progress::topic(&cx.job, &cx.name);
    progress::prepare(&target.connection, &progress_topic, cx.shards).await?;
    let timeout = TRANSACTION_TIMEOUT.as_millis().to_string();
    let [first, second] = progress::transactional_ids(&cx.job, &cx.name, cx.shard);
    let fence = async |id: &str| {
        let settings = [
            ("transactional.id", id),
            ("transaction.timeout.ms", timeout.as_str()),
            ("message.timeout.ms", timeout.as_str()),
        ];
        let out = Outbox::open(target, &cx.job, cx.schema.clone(), &settings).await?;
        Producer::fence(out, &progress_topic).await
    };
    // Both, before the progress is read.
    let (first, second) = tokio::try_join!(fence(&first), fence(&second))?;
    let found = progress::read(&target.connection, &progress_topic, cx.shard).await?;
    if found.as_ref().is_some_and(|p| p.run != cx.run) {
        tracing::info!(
            topic = target.topic,
            shard = cx.shard,
            "a new run: everything is written again, behind what earlier runs wrote"
        );
    }
    let written = reconcile(found, &target.topic, &progress_topic, &cx)?;
    let turns = Turns::new([first, second], &target.topic, cx.clock.clone());
    Ok(ExactlyOnce::new(turns, &target.topic, &cx, written, early))
}

/// Where to go on, from what the brokers and the checkpoint say.
fn reconcile(
    found: Option<Progress>,
    topic: &str,
    progress_topic: &str,
    cx: &SinkContext,
) -> Result<Option<i64>, ConnectorError> {
    let (shard, shards) = (cx.shard, cx.shards);
    // A run that begins here from nothing is the newest, whatever a clock said that was ahead: the checkpoint store has
    // decided so, and lets no row flow where it was overtaken since.
    let begins = cx.fresh && !cx.resumed;
    if let Some(p) = found.as_ref().filter(|p| p.generation > cx.generation && !(begins && p.run != cx.run)) {
        return Err(ConnectorError::Fenced(format!(
            "a newer run of job `{}` (start {}, this is {}) has taken over topic `{topic}`; if there is none, its \
             checkpoints are elsewhere or lost: run with `--from none` into a new topic",
            cx.job, p.generation, cx.generation
        )));
    }
    // Another topic or run is another story: it begins with what this run writes.
    let found = found.filter(|p| p.topic == topic && p.run == cx.run);
    let rescaled = |before: u64| {
        ConnectorError::Fatal(format!(
            "sink `{}` wrote to kafka topic `{topic}` with {before} shards and has {shards} now, so rows belong to other \
             shards than before; keep `shards: {before}`, or give the sink another name and topic",
            cx.name
        ))
    };
    if let Some(p) = found.as_ref().filter(|p| p.shards != shards) {
        return Err(rescaled(p.shards as u64));
    }
    let of_topic =
        || cx.restored.iter().filter(|(_, v)| v.get("topic").and_then(Value::as_str) == Some(topic));
    if let Some(before) =
        of_topic().filter_map(|(_, v)| v.get("shards")?.as_u64()).find(|n| *n != shards as u64)
    {
        return Err(rescaled(before));
    }
    let remembered = of_topic().find(|(s, _)| *s == shard).and_then(|(_, v)| v.get("watermark")?.as_i64());
    let committed = found.as_ref().map(|p| p.watermark);
    if !cx.replayable {
        // What comes is new, whatever its time; and the progress of such a run may have gone back.
        return Ok(None);
    }
    if remembered > committed {
        return Err(ConnectorError::Fatal(format!(
            "the checkpoint says that shard {shard} of sink `{}` has written to kafka topic `{topic}`, but the progress topic \
             `{progress_topic}` knows {}: it was deleted or cut short, and rows cannot be told apart any more; restore \
             it, or run with `--from none` into a new topic",
            cx.name,
            if committed.is_some() { "less" } else { "nothing of it" },
        )));
    }
    if let Some(until) = committed.filter(|p| *p > i64::MIN).map(chrono::DateTime::from_timestamp_nanos) {
        tracing::info!(
            sink = cx.name,
            shard,
            "rows before {until} are in topic `{topic}` already and are left out when they come again"
        );
    }
    Ok(committed)
}

impl<T: Transactional> ExactlyOnce<T> {
    fn new(turns: Turns<T>, topic: &str, cx: &SinkContext, written: Option<i64>, early: bool) -> Self {
        let progress = Progress {
            job: cx.job.clone(),
            sink: cx.name.clone(),
            shard: cx.shard,
            shards: cx.shards,
            topic: topic.to_owned(),
            watermark: 0,
            generation: cx.generation,
            run: cx.run,
        };
        Self { turns, progress, written, left_out: 0, last: i64::MIN, early }
    }
}

#[async_trait]
impl<T: Transactional> SinkWriter for ExactlyOnce<T> {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        let ts = row::ts(&rows);
        debug_assert!(ts.is_sorted());
        let known = self.written.map_or(0, |p| ts.partition_point(|t| *t < p));
        if known > 0 && self.last > i64::MIN {
            tracing::error!(
                sink = self.progress.sink,
                shard = self.progress.shard,
                rows = known,
                "rows came behind later ones that are written to topic `{}`, and were left out: please report this",
                self.progress.topic
            );
        } else {
            self.left_out += known as u64;
        }
        let Some(last) = ts[known..].last().copied() else { return Ok(()) };
        if self.left_out > 0 {
            tracing::info!(
                sink = self.progress.sink,
                shard = self.progress.shard,
                rows = self.left_out,
                "rows that are in topic `{}` already came again and were left out",
                self.progress.topic
            );
            self.left_out = 0;
        }
        self.last = last;
        self.turns.write(&rows.slice(known, rows.num_rows() - known)).await
    }

    async fn flush(&mut self, watermark: i64) -> Result<(), ConnectorError> {
        self.begin_flush(watermark).await?;
        self.turns.settle().await
    }

    async fn begin_flush(&mut self, watermark: i64) -> Result<(), ConnectorError> {
        if !self.turns.has_rows() {
            return Ok(());
        }
        self.progress.watermark = watermark.min(self.last.saturating_add(1));
        self.turns.begin_commit(&self.progress).await?;
        self.written = Some(self.progress.watermark);
        Ok(())
    }

    async fn flushed(&mut self) -> Result<(), ConnectorError> {
        if self.turns.is_settled() {
            std::future::pending::<()>().await;
        }
        self.turns.settle().await
    }

    fn flushes_early(&self) -> bool {
        self.early && self.turns.is_settled()
    }

    fn horizon(&self) -> Option<i64> {
        self.written.filter(|p| *p > i64::MIN)
    }

    async fn checkpoint(&mut self, _: u64) -> Result<Value, ConnectorError> {
        self.turns.settle().await?;
        let Progress { topic, shards, .. } = &self.progress;
        Ok(json!({ "topic": topic, "shards": shards, "watermark": self.written }))
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        self.turns.settle().await
    }
}

#[cfg(test)]
mod tests;
