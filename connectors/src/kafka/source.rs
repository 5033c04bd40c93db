//! The `kafka` source: assigned partitions, positions in checkpoints.
//!
//! Each instance reads the partitions `p` with `p % instances == instance`; there is no consumer
//! group to rebalance. A row's `_seq` is its offset, and a chunk's position `{"offset": n}` is the
//! next offset to read. Every partition's first chunk is empty and carries where it starts, so
//! that a job which is restarted before its first row starts at the same place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_engine::schema::SchemaSpec;
use tidemill_engine::source::{PartitionWriter, Position, Source, SourceContext};
use tidemill_engine::spec::TimeUnitName;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::admin::{self, ANSWER_TIMEOUT};
use super::client::{Connection, Ear, Options, blocking, create};
use super::embedded;
use super::format::{AheadGuard, RowDecoder, raw_schema};
use super::reader::Reader;

/// How long a missing topic is waited for.
const TOPIC_WAIT: Duration = Duration::from_secs(5);
/// How long brokers are waited for at the start.
const BROKER_WAIT: Duration = Duration::from_secs(30);
/// How long a topic must be gone before the job gives it up: restarting brokers forget for a moment.
const VANISHED_WAIT: Duration = Duration::from_secs(10);
/// How often the client is asked for its logs, errors and commit results.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Reads a Kafka topic.
///
/// Partitions are assigned, not balanced by a consumer group: the job's checkpoints hold the offsets
/// and are what it resumes from. Offsets of committed checkpoints are also committed to `group`, for
/// lag tools. New partitions are found and read from their first message. With
/// `brokers: embedded` the broker runs inside the process, and the topic is made on first use.
///
/// `format: json` takes one JSON object a message and needs a `schema`; unknown fields are passed
/// over, numbers may be quoted, times are RFC 3339 text or numbers in `event_time_unit`. `format: raw`
/// gives the columns `ts` (the message's own timestamp), `key` and `value`. A message that cannot
/// become a row goes the way of `on_error`, with its bytes, key and reason.
///
/// ```yaml
/// sources:
///   trades:
///     kind: kafka
///     with:
///       brokers: localhost:9092
///       topic: trades
///       schema: trade
///       keyed_by: [symbol]
///       lateness: 250ms
///       options: { security.protocol: PLAINTEXT }
/// ```
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `host:port`, several with commas; or `embedded`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// What a message is.
    #[serde(default)]
    pub format: Format,
    /// Columns of a JSON message.
    #[serde(default)]
    pub schema: Option<SchemaSpec>,
    /// Promises that messages equal in these columns are always in the same partition (they are its
    /// key): operators by these columns then need no reordering.
    #[serde(default)]
    pub keyed_by: Option<Vec<String>>,
    /// Where to begin where no checkpoint says so: `earliest`, `latest` or
    /// `{timestamp: 2024-01-01T00:00:00Z}` (by the messages' timestamps).
    #[serde(default)]
    pub start: Start,
    /// `end`: stop at what was in the topic at the start. `never`: go on.
    #[serde(default)]
    pub stop: Stop,
    /// Consumer group that offsets are committed to, for lag tools. Default `tidemill.<job>`.
    #[serde(default)]
    pub group: Option<String>,
    /// Whether messages of open and aborted transactions are read.
    #[serde(default)]
    pub isolation: Isolation,
    /// How often new partitions are looked for.
    #[serde(default = "discover_default")]
    pub discover: Span,
    /// How far a row's event time may be ahead of its message's own timestamp; a row further ahead
    /// is refused. `null` turns it off.
    #[serde(default = "ahead_default")]
    pub ahead_max: Option<Span>,
    /// Column that holds the event time (a field of every source, needed here for `ahead_max`).
    #[serde(default = "event_time_default")]
    pub event_time: String,
    /// Unit of times that are plain numbers (a field of every source, needed here to read them).
    #[serde(default)]
    pub event_time_unit: TimeUnitName,
    /// Further librdkafka settings, such as `security.protocol`, `sasl.*` and `ssl.*`.
    #[serde(default)]
    pub options: Options,
}

fn discover_default() -> Span {
    Span::from_ns(30_000_000_000)
}

fn ahead_default() -> Option<Span> {
    Some(Span::from_ns(86_400_000_000_000))
}

fn event_time_default() -> String {
    row::TS.into()
}

/// What a message is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object.
    #[default]
    Json,
    /// Text: columns `ts`, `key`, `value`.
    Raw,
}

/// Where a partition without a checkpoint begins.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Its oldest message.
    #[default]
    Earliest,
    /// The next message to come.
    Latest,
    /// The first message at or after this time, RFC 3339.
    Timestamp(String),
}

/// Where it ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// Nowhere.
    #[default]
    Never,
    /// At the end the topic had when the job started.
    End,
}

/// Which messages are seen.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Those of committed transactions and of none.
    #[default]
    ReadCommitted,
    /// All.
    ReadUncommitted,
}

/// The kind.
#[derive(Debug)]
pub struct Kafka;

#[async_trait]
impl SourceKind for Kafka {
    const KIND: &'static str = "kafka";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = Problems::new();
        let connection =
            Connection::new(&params.brokers, &params.options).map_err(|p| problems.extend(p)).ok();
        if params.topic.is_empty() {
            problems.push(Problem::new("topic", "the topic has no name"));
        }
        let columns = match (params.format, &params.schema) {
            (Format::Raw, None) => Some(raw_schema()),
            (Format::Json, Some(spec)) => spec.resolve("schema").map_err(|p| problems.extend(p)).ok(),
            (Format::Raw, Some(_)) => {
                problems.push(Problem::new(
                    "schema",
                    "`format: raw` has the columns ts, key and value, and takes no schema",
                ));
                None
            }
            (Format::Json, None) => {
                problems.push(
                    Problem::new("schema", "`format: json` needs a schema")
                        .hint("name one (trade, quote, bar), or write columns and types"),
                );
                None
            }
        };
        for (i, name) in params.keyed_by.iter().flatten().enumerate() {
            if let Some(columns) = columns.as_ref().filter(|c| c.index_of(name).is_err()) {
                let names = columns.fields().iter().map(|f| f.name().as_str());
                problems.push(
                    Problem::new(format!("keyed_by[{i}]"), format!("the schema has no column `{name}`"))
                        .hint_names(name, names),
                );
            }
        }
        let start = match &params.start {
            Start::Earliest => Some(Begin::Earliest),
            Start::Latest => Some(Begin::Latest),
            Start::Timestamp(text) => match chrono::DateTime::parse_from_rfc3339(text) {
                Ok(time) => Some(Begin::At(time.timestamp_millis())),
                Err(error) => {
                    problems.push(
                        Problem::new("start.timestamp", format!("`{text}` is not a time: {error}"))
                            .hint("write it as 2024-01-01T00:00:00Z"),
                    );
                    None
                }
            },
        };
        let (Some(connection), Some(columns), Some(start), true) =
            (connection, columns, start, problems.is_empty())
        else {
            return Err(problems);
        };
        let settings = Settings {
            ahead: ahead_guard(&params, &columns),
            format: params.format,
            unit: params.event_time_unit,
            columns: columns.clone(),
            connection,
            topic: params.topic,
            start,
            bounded: params.stop == Stop::End,
            group: params.group.unwrap_or_else(|| format!("tidemill.{}", cx.job)),
            isolation: params.isolation,
            discover: params.discover.std().max(Duration::from_millis(100)),
        };
        Ok(SourcePlan {
            columns,
            partitions: Partitions::Many { keyed_by: params.keyed_by },
            bounded: settings.bounded,
            source: Arc::new(KafkaSource(Arc::new(settings))),
        })
    }
}

fn ahead_guard(params: &Params, columns: &SchemaRef) -> Option<AheadGuard> {
    let column = columns.index_of(&params.event_time).ok()?;
    let unit_ns = match columns.field(column).data_type() {
        DataType::Timestamp(..) => 1,
        DataType::Int64 | DataType::UInt64 => params.event_time_unit.nanoseconds(),
        _ => return None,
    };
    Some(AheadGuard { column, unit_ns, max_ns: params.ahead_max?.ns() })
}

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
    unit: TimeUnitName,
    ahead: Option<AheadGuard>,
    start: Begin,
    bounded: bool,
    group: String,
    isolation: Isolation,
    discover: Duration,
}

struct KafkaSource(Arc<Settings>);

/// A partition about to be read.
struct Opening {
    partition: u32,
    next: i64,
    end: Option<i64>,
}

/// A consumer with its partitions assigned.
struct Opened {
    consumer: Arc<BaseConsumer<Ear>>,
    readers: Vec<Reader>,
    /// How many partitions the topic has.
    count: usize,
}

/// What the watch over the topic finds.
enum Found {
    Partitions(usize),
    Vanished,
}

#[async_trait]
impl Source for KafkaSource {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        let settings = self.0.clone();
        let restored = offsets(&settings.topic, &cx.restored)?;
        let suspect = Arc::new(Notify::new());
        let opened = {
            let (settings, clock, restored, suspect) =
                (settings.clone(), cx.clock.clone(), restored.clone(), suspect.clone());
            let (instance, instances) = (cx.instance, cx.instances.max(1));
            let first = move || {
                let mine =
                    |count| (0..count).filter(|p| p % instances == instance).map(|p| p as u32).collect();
                open(&settings, &clock, &restored, &suspect, mine)
            };
            tokio::select! {
                opened = blocking(first) => opened?,
                () = cx.stop.cancelled() => return Ok(()),
            }
        };
        let mut run = Run {
            cx,
            settings,
            restored,
            suspect,
            consumers: Vec::new(),
            tasks: JoinSet::new(),
            count: opened.count,
        };
        let ids: Vec<u32> = opened.readers.iter().map(|r| r.partition as u32).collect();
        let writers = run.cx.ready(&ids);
        run.start(opened.consumer, opened.readers, writers);
        let result = run.supervise().await;
        run.close().await;
        result
    }
}

struct Run {
    cx: SourceContext,
    settings: Arc<Settings>,
    restored: BTreeMap<u32, i64>,
    suspect: Arc<Notify>,
    consumers: Vec<Arc<BaseConsumer<Ear>>>,
    tasks: JoinSet<Result<(), ConnectorError>>,
    count: usize,
}

impl Run {
    fn start(
        &mut self,
        consumer: Arc<BaseConsumer<Ear>>,
        readers: Vec<Reader>,
        writers: Vec<PartitionWriter>,
    ) {
        self.consumers.push(consumer);
        for (reader, writer) in readers.into_iter().zip(writers) {
            let (chunk_rows, stop) = (self.cx.chunk_rows.max(1), self.cx.stop.clone());
            self.tasks.spawn(reader.run(writer, chunk_rows, stop));
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
        let restored =
            mine.iter().filter_map(|p| Some((*p, *self.restored.get(p)?))).chain([(u32::MAX, 0)]).collect();
        let opened = blocking(move || open(&settings, &clock, &restored, &suspect, |_| mine.clone())).await?;
        let writers = opened.readers.iter().map(|r| self.cx.add_partition(r.partition as u32)).collect();
        self.start(opened.consumer, opened.readers, writers);
        Ok(())
    }

    /// Tells the group how far committed checkpoints have come.
    fn commit(&self, positions: &BTreeMap<u32, Position>) {
        let Ok(positions) = offsets(&self.settings.topic, positions) else { return };
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
    clock: tidemill_engine::clock::Clock,
    suspect: Arc<Notify>,
    found: mpsc::Sender<Found>,
) {
    let mut gone: Option<tidemill_engine::clock::Stopwatch> = None;
    loop {
        let pause = if gone.is_some() { Duration::from_secs(1) } else { settings.discover };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = suspect.notified(), if gone.is_none() => {}
        }
        let (asking, topic) = (consumer.clone(), settings.topic.clone());
        let asked =
            tokio::task::spawn_blocking(move || admin::partitions(&asking, &topic, ANSWER_TIMEOUT)).await;
        let news = match asked {
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

/// Offsets out of stored positions.
fn offsets(topic: &str, positions: &BTreeMap<u32, Position>) -> Result<BTreeMap<u32, i64>, ConnectorError> {
    let read = |(partition, position): (&u32, &Value)| match position.get("offset").and_then(Value::as_i64) {
        Some(offset) => Ok((*partition, offset)),
        None => Err(ConnectorError::Fatal(format!(
            "the checkpoint's position of kafka topic `{topic}` partition {partition} is {position}, not an offset; run with `--from none`"
        ))),
    };
    positions.iter().map(read).collect()
}

/// Connects, finds out where each of `mine` begins and ends, and assigns them. Blocks.
fn open(
    settings: &Arc<Settings>,
    clock: &tidemill_engine::clock::Clock,
    restored: &BTreeMap<u32, i64>,
    suspect: &Arc<Notify>,
    mine: impl Fn(usize) -> Vec<u32>,
) -> Result<Opened, ConnectorError> {
    let isolation = match settings.isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    };
    let ear = Ear::default();
    let config = settings.connection.config(
        &[
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.error.backoff.ms", "100"),
            ("queued.min.messages", "50000"),
            ("queued.max.messages.kbytes", "16384"),
            ("topic.metadata.refresh.interval.ms", "10000"),
        ],
        &[
            ("group.id", settings.group.as_str()),
            ("isolation.level", isolation),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // An offset that is gone is an error, never a silent jump.
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", if settings.bounded { "true" } else { "false" }),
        ],
    )?;
    let consumer: Arc<BaseConsumer<Ear>> = Arc::new(create(&config, ear.clone())?);
    let count = wait_for_topic(settings, clock, &consumer, &ear)?;
    let openings: Vec<Opening> = mine(count)
        .into_iter()
        .map(|partition| place(settings, &consumer, &ear, restored, partition))
        .collect::<Result<_, _>>()?;
    let failed =
        |e: KafkaError| ConnectorError::transient(format!("cannot read kafka topic `{}`", settings.topic), e);
    let mut assignment = TopicPartitionList::new();
    let mut readers = Vec::with_capacity(openings.len());
    for Opening { partition, next, end } in openings {
        let id = partition as i32;
        // Split before it is assigned: otherwise the first messages go to the common queue.
        let queue = consumer
            .split_partition_queue(&settings.topic, id)
            .ok_or_else(|| failed(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownPartition)))?;
        if end.is_none_or(|end| next < end) {
            assignment.add_partition_offset(&settings.topic, id, Offset::Offset(next)).map_err(failed)?;
        }
        let decoder = match settings.format {
            Format::Json => RowDecoder::json(settings.columns.clone(), settings.unit, settings.ahead),
            Format::Raw => RowDecoder::raw(),
        };
        readers.push(Reader::new(
            settings.topic.clone(),
            id,
            next,
            end,
            consumer.clone(),
            queue,
            decoder,
            ear.clone(),
            suspect.clone(),
        ));
    }
    if assignment.count() > 0 {
        consumer.assign(&assignment).map_err(failed)?;
    }
    Ok(Opened { consumer, readers, count })
}

fn wait_for_topic(
    settings: &Settings,
    clock: &tidemill_engine::clock::Clock,
    consumer: &BaseConsumer<Ear>,
    ear: &Ear,
) -> Result<usize, ConnectorError> {
    let (topic, brokers) = (&settings.topic, settings.connection.brokers());
    let started = clock.start();
    let mut missing: Option<tidemill_engine::clock::Stopwatch> = None;
    loop {
        let asked = admin::partitions(consumer, topic, Duration::from_secs(3));
        while consumer.poll(Duration::ZERO).is_some() {}
        match asked {
            Ok(Some(count)) => return Ok(count),
            Ok(None) if settings.connection.is_embedded() => {
                embedded::create_topic(topic, 1)?;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(None) => {
                if missing.get_or_insert_with(|| clock.start()).elapsed() >= TOPIC_WAIT {
                    return Err(ConnectorError::Fatal(format!(
                        "kafka topic `{topic}` does not exist at {brokers}; create it (kafka-topics --create --topic {topic} \
                         --bootstrap-server {brokers}), or mend the name"
                    )));
                }
                std::thread::sleep(Duration::from_millis(250));
            }
            Err(error) => {
                let complaint = ear.complaint();
                if started.elapsed() >= BROKER_WAIT {
                    return Err(ConnectorError::Transient(format!(
                        "no answer from kafka at {brokers} in {} s: {error}{complaint}",
                        BROKER_WAIT.as_secs()
                    )));
                }
                tracing::warn!("no answer from kafka at {brokers} yet: {error}{complaint}");
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }
}

/// Finds where a partition begins and ends.
fn place(
    settings: &Settings,
    consumer: &BaseConsumer<Ear>,
    ear: &Ear,
    restored: &BTreeMap<u32, i64>,
    partition: u32,
) -> Result<Opening, ConnectorError> {
    let topic = &settings.topic;
    let id = partition as i32;
    let failed = |e: KafkaError| {
        ConnectorError::Transient(format!(
            "cannot find the offsets of kafka topic `{topic}` partition {id}: {e}{}",
            ear.complaint()
        ))
    };
    let (low, high) = consumer.fetch_watermarks(topic, id, ANSWER_TIMEOUT).map_err(failed)?;
    let next = match (restored.get(&partition), settings.start) {
        (Some(next), _) if (low..=high).contains(next) => *next,
        (Some(next), _) => return Err(out_of_range(topic, id, *next, low, high)),
        // The job has run before, this partition is new since: nothing of it has been read.
        (None, _) if !restored.is_empty() => low,
        (None, Begin::Earliest) => low,
        (None, Begin::Latest) => high,
        (None, Begin::At(ms)) => {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(topic, id, Offset::Offset(ms)).map_err(failed)?;
            let found = consumer.offsets_for_times(times, ANSWER_TIMEOUT).map_err(failed)?;
            match found.elements().first().map(|e| e.offset()) {
                Some(Offset::Offset(next)) if next >= 0 => next,
                _ => high,
            }
        }
    };
    Ok(Opening { partition, next, end: settings.bounded.then_some(high) })
}

/// Data was deleted, or the topic is another one: never skipped in silence.
pub(super) fn out_of_range(topic: &str, partition: i32, next: i64, low: i64, high: i64) -> ConnectorError {
    let why = if next < low {
        "retention has deleted what was not yet read"
    } else {
        "the topic has been cut short or made anew"
    };
    ConnectorError::Fatal(format!(
        "kafka topic `{topic}` partition {partition} has no offset {next}, the next one to read: it holds {low} to {high}, so {why}; \
         run with `--from none` to start over with what is there"
    ))
}
