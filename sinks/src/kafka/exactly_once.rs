//! Exactly once: rows and progress in one short transaction.
//!
//! Why it is sound. Rows reach a shard in order of `ts`. Let a flush's *progress* P be one more than
//! the `ts` of the last row written; the flush promises that all rows before its watermark have
//! been written and none at or after it, so all rows with `ts < P` are in this or earlier
//! transactions, and none with `ts >= P` is. Rows and P are committed together, so this holds of
//! every state that the brokers can be in, whenever the process is killed. A restart first fences
//! the old writer (its open transaction is aborted, one about to be committed is completed), and
//! only then reads P. It replays from a checkpoint at T, which was taken after a flush: no row before
//! T is missing from the topic. Replay is deterministic, so the rows with `ts < P` that come again
//! are the ones that are there, and are dropped; those with `ts >= P` are not there, and are written.
//!
//! A flush with nothing written commits nothing, though the watermark has moved: P then says less
//! than is known, but between P and the watermark there is no row, in this run or in a replay, so
//! nothing can be doubled. That is also why a checkpoint needs no commit of its own, and why P is not
//! the watermark itself: a bounded job ends at the watermark of all rows, and can go on later.
//!
//! A run that begins from nothing (`--from none`) writes everything again, whatever progress earlier
//! runs left: it commits a record of its own first, and of records only the newest is ever read.
//!
//! All of this stands on the replay. Where a source that feeds the sink cannot be read again (a live feed without
//! a capture), a restart brings no old rows but new ones, and a venue's clock, or one that was set back, may put them
//! below P. So nothing is dropped then: the promise is at least once across a crash, rows of one start are in
//! order, and what sources beside it do bring again is in the topic twice.

use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::{Value, json};
use tidemill_connectors::kafka::client::{Ear, blocking};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;
use tidemill_engine::sink::{SinkContext, SinkWriter};

use super::Target;
use super::outbox::{Outbox, drain, failed};
use super::progress::{self, Progress};

/// Brokers abort a transaction that is open for longer.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one attempt to fence, commit or abort may take; they are repeated.
const ATTEMPT: Duration = Duration::from_secs(10);
const ATTEMPTS: usize = 6;

pub(super) struct ExactlyOnce {
    out: Outbox,
    clock: Clock,
    progress_topic: String,
    progress: Progress,
    /// What is committed; `None` where nothing ever was.
    committed: Option<i64>,
    open: Option<Stopwatch>,
    /// The `ts` of the last row in the open transaction.
    last: i64,
}

pub(super) async fn open(target: &Target, cx: SinkContext) -> Result<ExactlyOnce, ConnectorError> {
    let progress_topic = progress::topic(&cx.job, &cx.name);
    progress::prepare(&target.connection, &progress_topic, cx.shards).await?;
    let id = progress::transactional_id(&cx.job, &cx.name, cx.shard);
    let timeout = TRANSACTION_TIMEOUT.as_millis().to_string();
    let settings = [
        ("transactional.id", id.as_str()),
        ("transaction.timeout.ms", timeout.as_str()),
        ("message.timeout.ms", timeout.as_str()),
    ];
    let out = Outbox::open(target, &cx.job, cx.schema.clone(), &settings).await?;
    let producer = out.producer.clone();
    let fenced = blocking(move || Ok(attempt(|| producer.init_transactions(ATTEMPT)))).await?;
    fenced.map_err(|e| out.failed("start transactions", &e))?;
    let found = progress::read(&target.connection, &progress_topic, cx.shard).await?;
    let stale = found.as_ref().is_some_and(|p| p.run != cx.run);
    let committed = reconcile(found, &target.topic, &progress_topic, &cx)?;
    let progress = Progress {
        job: cx.job,
        sink: cx.name,
        shard: cx.shard,
        shards: cx.shards,
        topic: target.topic.clone(),
        watermark: 0,
        generation: cx.generation,
        run: cx.run,
    };
    let mut writer =
        ExactlyOnce { out, clock: cx.clock, progress_topic, progress, committed, open: None, last: i64::MIN };
    if stale {
        tracing::info!(
            topic = target.topic,
            shard = cx.shard,
            "a new run: everything is written again, behind what earlier runs wrote"
        );
        writer.begin()?;
        writer.flush(i64::MIN).await?;
        writer.committed = None;
    }
    Ok(writer)
}

/// Where to go on, from what the brokers and the checkpoint say.
fn reconcile(
    found: Option<Progress>,
    topic: &str,
    progress_topic: &str,
    cx: &SinkContext,
) -> Result<Option<i64>, ConnectorError> {
    let (shard, shards) = (cx.shard, cx.shards);
    if let Some(p) = found.as_ref().filter(|p| p.generation > cx.generation) {
        return Err(ConnectorError::Fenced(format!(
            "a newer run of job `{}` (start {}, this is {}) has taken over topic `{topic}`",
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

#[async_trait]
impl SinkWriter for ExactlyOnce {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        let ts = row::ts(&rows);
        debug_assert!(ts.is_sorted());
        let known = self.committed.map_or(0, |p| ts.partition_point(|t| *t < p));
        let Some(last) = ts[known..].last().copied() else { return Ok(()) };
        let rows = rows.slice(known, rows.num_rows() - known);
        if self.open.is_none() {
            self.begin()?;
        }
        self.last = last;
        match self.out.write(&rows).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.give_up(error).await),
        }
    }

    async fn flush(&mut self, watermark: i64) -> Result<(), ConnectorError> {
        if self.open.is_none() {
            return Ok(());
        }
        self.progress.watermark = watermark.min(self.last.saturating_add(1));
        match self.commit().await {
            Ok(()) => {
                self.open = None;
                self.committed = Some(self.progress.watermark);
                self.out.ear.well();
                Ok(())
            }
            Err(error) => Err(self.give_up(error).await),
        }
    }

    fn horizon(&self) -> Option<i64> {
        self.committed.filter(|p| *p > i64::MIN)
    }

    async fn checkpoint(&mut self, _: u64) -> Result<Value, ConnectorError> {
        Ok(
            json!({ "topic": self.progress.topic, "shards": self.progress.shards, "watermark": self.committed }),
        )
    }
}

impl ExactlyOnce {
    fn begin(&mut self) -> Result<(), ConnectorError> {
        self.out.producer.begin_transaction().map_err(|e| self.out.failed("write", &e))?;
        self.open = Some(self.clock.start());
        Ok(())
    }

    async fn commit(&self) -> Result<(), ConnectorError> {
        let value = serde_json::to_vec(&self.progress)
            .map_err(|e| ConnectorError::fatal("cannot write progress", e))?;
        let key = format!("{}/{}/{}", self.progress.job, self.progress.sink, self.progress.shard);
        loop {
            let record = BaseRecord::to(&self.progress_topic)
                .partition(self.progress.shard as i32)
                .key(key.as_bytes())
                .payload(&value[..]);
            match self.out.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err((error, _)) => return Err(self.out.failed("write progress", &error)),
            }
        }
        tidemill_engine::fault::point("kafka-before-commit");
        let producer = self.out.producer.clone();
        let committed = blocking(move || Ok(commit(&producer))).await?;
        tidemill_engine::fault::point("kafka-after-commit");
        committed.map_err(|error| self.out.failed("commit", &error))
    }

    /// Aborts what is open, as far as that can be done, and finds the right word for the error.
    async fn give_up(&mut self, error: ConnectorError) -> ConnectorError {
        let Some(opened) = self.open.take() else { return error };
        // Brokers fence the writer of a transaction that took too long just as an old one.
        if matches!(error, ConnectorError::Fenced(_)) {
            return match opened.elapsed() {
                long if long >= TRANSACTION_TIMEOUT => ConnectorError::Transient(format!(
                    "a transaction to kafka topic `{}` was open for {} s, and brokers abort them after {}",
                    self.progress.topic,
                    long.as_secs(),
                    TRANSACTION_TIMEOUT.as_secs()
                )),
                _ => error,
            };
        }
        let producer = self.out.producer.clone();
        let aborted = blocking(move || Ok(producer.abort_transaction(ATTEMPT))).await;
        if let Ok(Err(why)) = aborted {
            // Should a newer run be the reason, that is the better word.
            let word = failed(
                &self.out.producer,
                &self.out.ear,
                &self.progress.job,
                &self.progress.topic,
                "abort",
                &why,
            );
            if matches!(word, ConnectorError::Fenced(_)) {
                return word;
            }
        }
        error
    }
}

fn commit(producer: &ThreadedProducer<Ear>) -> Result<(), KafkaError> {
    drain(producer)?;
    attempt(|| producer.commit_transaction(ATTEMPT))
}

/// Repeats a call that may succeed when it is called again.
fn attempt(call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let mut attempts = 1;
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && attempts < ATTEMPTS => {
                attempts += 1
            }
            done => return done,
        }
    }
}
