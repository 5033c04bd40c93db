//! The `kafka` source: assigned partitions, positions in checkpoints.
//!
//! Each instance reads the partitions `p` with `p % instances == instance`; there is no consumer
//! group to rebalance. A row's `_seq` is its offset, and a chunk's position `{"topic": t, "offset": n}` is the
//! next offset to read, with a hash of the last message before it ([`identity`]). `"end": m` with it is where a bounded read
//! stops, fixed when the run began; `"of": k` how many partitions the topic had, where `keyed_by` depends on that. With
//! `history`, `"in": "history"` says that the offset is in the archive. Every partition's first chunk is empty and carries where it starts, so
//! that a job which is restarted before its first row starts at the same place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{PartitionWriter, Position, Source, SourceContext};
use tidemill_engine::spec::TimeUnitName;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::admin::{self, ANSWER_TIMEOUT};
use super::avro;
use super::client::{Connection, Ear, blocking};
use super::format::AheadGuard;
use super::history::{self, History, Past};
use super::reader::Reader;
use super::registry::Schemas;

mod identity;
mod open;
mod params;
mod plan;

pub(super) use identity::{Mark, position};
pub(super) use open::Fixed;
pub(super) use open::out_of_range;
use open::{Known, fixed, forgotten, grown, offsets, open};
pub use params::{Format, Isolation, Params, Start, Stop};
pub use plan::Kafka;

/// How long a topic must be gone before the job gives it up: restarting brokers forget for a moment.
const VANISHED_WAIT: Duration = Duration::from_secs(10);
/// How often the client is polled for its logs, errors and commit results.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Where a partition without a checkpoint begins.
#[derive(Clone, Copy, Debug)]
enum Begin {
    Earliest,
    Latest,
    /// Milliseconds since the epoch.
    At(i64),
}

struct Settings {
    connection: Connection,
    topic: String,
    columns: SchemaRef,
    format: Format,
    /// For `format: avro`.
    avro: Option<(Arc<Schemas>, avro::Target)>,
    unit: TimeUnitName,
    ahead: Option<AheadGuard>,
    start: Begin,
    bounded: bool,
    /// `keyed_by` is set: which partition has a key must not change.
    keyed: bool,
    group: String,
    isolation: Isolation,
    discover: Duration,
    history: Option<History>,
}

struct KafkaSource(Arc<Settings>);

/// What the watch over the topic finds.
enum Found {
    Partitions(usize),
    Vanished,
}

#[async_trait]
impl Source for KafkaSource {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        let settings = self.0.clone();
        let marks = identity::marks(&settings.topic, &cx.restored)?;
        let restored = offsets(&settings.topic, &cx.restored)?;
        let past = cx.restored.iter().filter(|(_, at)| history::is_past(at)).map(|(p, _)| *p).collect();
        let fixed = fixed(&settings, &cx.restored);
        let mut known = Known { restored, marks, past, fixed, archive: None };
        let suspect = Arc::new(Notify::new());
        let (instance, instances) = (cx.instance, cx.instances.max(1));
        let opening = async {
            if let Some(history) = &settings.history {
                // A job that goes on in Kafka needs no archive, unless Kafka has forgotten its place.
                let topic = settings.clone();
                let positions = known.restored.clone();
                let live = known.past.is_empty() && !positions.is_empty();
                if !live || blocking(move || forgotten(&topic, &positions, instance, instances)).await? {
                    let archive = history.load(|p| p as usize % instances == instance).await?;
                    known.archive = Some(Arc::new(archive));
                }
            }
            let known = Arc::new(known);
            let (settings, clock, suspect, mine) =
                (settings.clone(), cx.clock.clone(), suspect.clone(), known.clone());
            let first = move || {
                let ids =
                    |count| (0..count).filter(|p| p % instances == instance).map(|p| p as u32).collect();
                open(&settings, &clock, &mine, &suspect, ids)
            };
            Ok::<_, ConnectorError>((blocking(first).await?, known))
        };
        let (opened, known) = tokio::select! {
            opened = opening => opened?,
            () = cx.stop.cancelled() => return Ok(()),
        };
        let mut run = Run {
            cx,
            settings,
            known,
            suspect,
            consumers: Vec::new(),
            tasks: JoinSet::new(),
            count: opened.count,
        };
        let begins: Vec<(u32, Position)> = opened.readers.iter().map(begins).collect();
        let writers = run.cx.ready_at(&begins);
        run.start(opened.consumer, opened.readers, writers);
        let result = run.supervise().await;
        run.close().await;
        result
    }
}

/// A partition and where it begins.
fn begins((reader, past): &(Reader, Option<Past>)) -> (u32, Position) {
    let position = past.as_ref().map_or_else(|| reader.position(), Past::position);
    (reader.partition as u32, position)
}

struct Run {
    cx: SourceContext,
    settings: Arc<Settings>,
    known: Arc<Known>,
    suspect: Arc<Notify>,
    consumers: Vec<Arc<BaseConsumer<Ear>>>,
    tasks: JoinSet<Result<(), ConnectorError>>,
    count: usize,
}

impl Run {
    fn start(
        &mut self,
        consumer: Arc<BaseConsumer<Ear>>,
        readers: Vec<(Reader, Option<Past>)>,
        writers: Vec<PartitionWriter>,
    ) {
        self.consumers.push(consumer);
        for ((reader, past), writer) in readers.into_iter().zip(writers) {
            let (chunk_rows, stop) = (self.cx.chunk_rows.max(1), self.cx.stop.clone());
            self.tasks.spawn(async move {
                let Some(past) = past else { return reader.run(writer, chunk_rows, stop).await };
                match past.run(writer, chunk_rows, stop.clone()).await? {
                    Some(writer) => reader.run(writer, chunk_rows, stop).await,
                    None => Ok(()),
                }
            });
        }
    }

    async fn supervise(&mut self) -> Result<(), ConnectorError> {
        let (found, mut finds) = mpsc::channel(1);
        let _watch = Watch(tokio::spawn(watch(
            self.settings.clone(),
            self.consumers[0].clone(),
            self.cx.clock.clone(),
            self.suspect.clone(),
            found,
        )));
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let mut committed = self.cx.committed.clone();
        let mut commits = true;
        loop {
            if self.settings.bounded && self.tasks.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = self.cx.stop.cancelled() => return Ok(()),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(error),
                    Err(error) => return Err(ConnectorError::transient("a partition's reader failed", error)),
                },
                changed = committed.changed(), if commits => match changed {
                    Ok(()) => {
                        let positions = committed.borrow_and_update().clone();
                        self.commit(&positions);
                    }
                    Err(_) => commits = false,
                },
                Some(found) = finds.recv() => match found {
                    Found::Partitions(count) => self.grow(count).await?,
                    Found::Vanished => return Err(ConnectorError::Fatal(format!(
                        "kafka topic `{}` at {} has vanished while it was read; make it again, or run with `--from none` \
                         once it is back: its old offsets mean nothing in a new topic",
                        self.settings.topic,
                        self.settings.connection.brokers()
                    ))),
                },
                _ = housekeeping.tick() => {
                    for consumer in &self.consumers {
                        // Messages come by the partitions' own queues: here are only events.
                        while consumer.poll(Duration::ZERO).is_some() {}
                    }
                }
            }
        }
    }

    /// Reads partitions that were added to the topic, from their beginning.
    async fn grow(&mut self, count: usize) -> Result<(), ConnectorError> {
        if self.settings.bounded || count <= self.count {
            return Ok(());
        }
        if self.settings.keyed {
            return Err(grown(&self.settings, self.count, count));
        }
        let (from, instances, instance) = (self.count, self.cx.instances.max(1), self.cx.instance);
        self.count = count;
        let mine: Vec<u32> = (from..count).filter(|p| p % instances == instance).map(|p| p as u32).collect();
        tracing::info!(
            source = self.cx.name,
            topic = self.settings.topic,
            "{} partitions now, {from} before",
            count
        );
        if mine.is_empty() {
            return Ok(());
        }
        let (settings, clock, suspect) = (self.settings.clone(), self.cx.clock.clone(), self.suspect.clone());
        // As if restored: what is not known yet begins at its beginning.
        let restored = &self.known.restored;
        let restored =
            mine.iter().filter_map(|p| Some((*p, *restored.get(p)?))).chain([(u32::MAX, 0)]).collect();
        let known = Known {
            restored,
            marks: self.known.marks.clone(),
            past: self.known.past.clone(),
            fixed: self.known.fixed.clone(),
            archive: self.known.archive.clone(),
        };
        let opened = blocking(move || open(&settings, &clock, &known, &suspect, |_| mine.clone())).await?;
        let begins = opened.readers.iter().map(begins);
        let writers = begins.map(|(id, position)| self.cx.add_partition_at(id, position)).collect();
        self.start(opened.consumer, opened.readers, writers);
        Ok(())
    }

    /// Commits to the group how far committed checkpoints have come.
    fn commit(&self, positions: &BTreeMap<u32, Position>) {
        // What is read from the archive says nothing of the lag in Kafka.
        let live = positions.iter().filter(|(_, at)| !history::is_past(at));
        let live = live.map(|(partition, at)| (*partition, at.clone())).collect();
        let Ok(positions) = offsets(&self.settings.topic, &live) else { return };
        let mut list = TopicPartitionList::new();
        for (partition, offset) in positions {
            let added =
                list.add_partition_offset(&self.settings.topic, partition as i32, Offset::Offset(offset));
            debug_assert!(added.is_ok());
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = self.consumers[0].commit(&list, CommitMode::Async) {
            tracing::debug!(group = self.settings.group, "offsets were not committed to the group: {error}");
        }
    }

    async fn close(&mut self) {
        let positions = self.cx.committed.borrow().clone();
        self.commit(&positions);
        self.tasks.shutdown().await;
        let consumers = std::mem::take(&mut self.consumers);
        let _ = blocking(move || {
            drop(consumers);
            Ok(())
        })
        .await;
    }
}

/// Aborts the watch when the run ends.
struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks at the topic every now and then, and when a reader suspects that it is gone.
async fn watch(
    settings: Arc<Settings>,
    consumer: Arc<BaseConsumer<Ear>>,
    clock: Clock,
    suspect: Arc<Notify>,
    found: mpsc::Sender<Found>,
) {
    let mut gone: Option<Stopwatch> = None;
    loop {
        let pause = if gone.is_some() { Duration::from_secs(1) } else { settings.discover };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = suspect.notified(), if gone.is_none() => {}
        }
        let (client, topic) = (consumer.clone(), settings.topic.clone());
        let answer =
            tokio::task::spawn_blocking(move || admin::partitions(&client, &topic, ANSWER_TIMEOUT)).await;
        let news = match answer {
            Ok(Ok(Some(count))) => {
                gone = None;
                Found::Partitions(count)
            }
            Ok(Ok(None)) => match &gone {
                Some(since) if since.elapsed() >= VANISHED_WAIT => Found::Vanished,
                Some(_) => continue,
                None => {
                    tracing::warn!(
                        topic = settings.topic,
                        "kafka topic is not there any more; looking again"
                    );
                    gone = Some(clock.start());
                    continue;
                }
            },
            Ok(Err(_)) => continue,
            Err(_) => return,
        };
        if found.send(news).await.is_err() {
            return;
        }
    }
}
