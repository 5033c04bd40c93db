//! The `kafka` source: assigned partitions, positions in checkpoints.
//!
//! Each instance reads the partitions `p` with `p % instances == instance`; there is no consumer
//! group to rebalance. A row's `_seq` is its offset, and a chunk's position `{"offset": n}` is the
//! next offset to read; with `history`, `{"offset": n, "in": "history"}` is one in the archive. Every partition's first chunk is empty and carries where it starts, so
//! that a job which is restarted before its first row starts at the same place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
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
use super::avro;
use super::client::{Connection, Ear, Options, blocking, create};
use super::embedded;
use super::format::{AheadGuard, RowDecoder, raw_schema};
use super::history::{self, Archive, History, HistoryParams, Past};
use super::reader::{Decode, Reader};
use super::registry::{Registry, RegistryParams, Schemas};

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
/// `format: avro` takes messages in Confluent's framing (a zero byte, the id of the writer's schema, the
/// record) and gets each writer's schema once from the Schema Registry at `registry`, such as
/// `registry: {url: "http://localhost:8081"}`. `schema` is what they are read as, whatever the writer's
/// version. Columns are found by name among the record's fields: others are passed over, missing ones
/// are null where the column allows it, numbers and text are converted as JSON's are. The path of an
/// Avro reader schema, `schema: trade.avsc`, brings aliases, defaults and promotions by Avro's rules.
/// Timestamps and decimals keep their value whatever the writer's unit and scale; enums are symbols. A
/// registry that does not answer holds the source up; a message whose schema it does not have is refused.
///
/// `history: {url: "s3://bucket/archive/trades"}` puts archived rows before what Kafka still has: those that
/// a `parquet` sink directly behind a source of this topic has written. Each partition is read from the
/// archive up to its last archived offset, then from Kafka from exactly the next: no row is missing or
/// double, and all come as if Kafka had kept them. A fresh job begins with the archive, a restarted one where it
/// was. Where neither has some offsets the job does not start, unless `on_gap: continue`.
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
    /// Columns of a JSON or Avro message; for Avro also the path of a reader schema, `trade.avsc`.
    #[serde(default)]
    pub schema: Option<SchemaSpec>,
    /// The Schema Registry that Avro messages' schemas are in.
    #[serde(default)]
    pub registry: Option<RegistryParams>,
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
    /// Archived rows that come before what Kafka still has: see there.
    #[serde(default)]
    pub history: Option<HistoryParams>,
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
    /// An Avro record in Confluent's framing.
    Avro,
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
        let mut avro = None;
        let columns = match (params.format, &params.schema) {
            (Format::Raw, None) => Some(raw_schema()),
            (Format::Avro, _) => {
                avro = plan_avro(&params, cx).map_err(|p| problems.extend(p)).ok();
                avro.as_ref().map(|(_, target)| target.columns.clone())
            }
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
        if params.registry.is_some() && params.format != Format::Avro {
            problems.push(Problem::new("registry", "only `format: avro` has schemas in a registry").at_key());
        }
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
        let history = match (&params.history, &columns) {
            (Some(history), Some(columns)) => {
                if params.start != Start::Earliest {
                    problems.push(
                        Problem::new("start", "with `history` a partition begins with its archive")
                            .hint("leave `start` out"),
                    );
                }
                History::plan(history, columns, cx).await.map_err(|p| problems.extend(p)).ok()
            }
            _ => None,
        };
        let (Some(connection), Some(columns), Some(start), true) =
            (connection, columns, start, problems.is_empty())
        else {
            return Err(problems);
        };
        let settings = Settings {
            ahead: ahead_guard(&params, &columns),
            format: params.format,
            avro,
            unit: params.event_time_unit,
            columns: columns.clone(),
            connection,
            topic: params.topic,
            start,
            bounded: params.stop == Stop::End,
            group: params.group.unwrap_or_else(|| format!("tidemill.{}", cx.job)),
            isolation: params.isolation,
            discover: params.discover.std().max(Duration::from_millis(100)),
            history,
        };
        Ok(SourcePlan {
            columns,
            partitions: Partitions::Many { keyed_by: params.keyed_by },
            bounded: settings.bounded,
            source: Arc::new(KafkaSource(Arc::new(settings))),
        })
    }
}

/// Where the schemas are, and what messages are read as.
fn plan_avro(params: &Params, cx: &PlanContext) -> Result<(Arc<Schemas>, avro::Target), Problems> {
    let mut problems = Problems::new();
    let registry = match &params.registry {
        Some(registry) => Registry::new(registry, "registry").map_err(|p| problems.extend(p)).ok(),
        None => {
            problems.push(
                Problem::new("registry", "`format: avro` needs the Schema Registry that has its schemas")
                    .hint("write registry: {url: \"http://localhost:8081\"}"),
            );
            None
        }
    };
    let target = match &params.schema {
        Some(SchemaSpec::Named(name)) if name.ends_with(".avsc") => {
            avro::Target::from_file(&cx.base.join(name), "schema")
        }
        Some(spec) => spec
            .resolve("schema")
            .map(|columns| avro::Target::columns(columns, params.event_time_unit.nanoseconds())),
        None => Err(vec![
            Problem::new("schema", "`format: avro` needs a schema to read with")
                .hint("write columns and types, or the path of an Avro schema: trade.avsc"),
        ]),
    };
    let target = target.map_err(|p| problems.extend(p)).ok();
    match (registry, target) {
        (Some(registry), Some(target)) => Ok((Arc::new(Schemas::new(registry, cx.clock.clone())), target)),
        _ => Err(problems),
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
    /// For `format: avro`.
    avro: Option<(Arc<Schemas>, avro::Target)>,
    unit: TimeUnitName,
    ahead: Option<AheadGuard>,
    start: Begin,
    bounded: bool,
    group: String,
    isolation: Isolation,
    discover: Duration,
    history: Option<History>,
}

struct KafkaSource(Arc<Settings>);

/// A partition about to be read.
struct Opening {
    partition: u32,
    next: i64,
    end: Option<i64>,
    /// Archived offsets to read first.
    past: Option<Range<u64>>,
}

/// What is known of a partition before Kafka is asked.
#[derive(Default)]
struct Known {
    /// Next offsets by the checkpoint.
    restored: BTreeMap<u32, i64>,
    /// Those of them that are in the archive.
    past: BTreeSet<u32>,
    /// What is archived, once it has been looked at.
    archive: Option<Arc<Archive>>,
}

/// A consumer with its partitions assigned.
struct Opened {
    consumer: Arc<BaseConsumer<Ear>>,
    readers: Vec<(Reader, Option<Past>)>,
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
        let past = cx.restored.iter().filter(|(_, at)| history::is_past(at)).map(|(p, _)| *p).collect();
        let mut known = Known { restored, past, archive: None };
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
        let ids: Vec<u32> = opened.readers.iter().map(|(r, _)| r.partition as u32).collect();
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
        let known = Known { restored, past: self.known.past.clone(), archive: self.known.archive.clone() };
        let opened = blocking(move || open(&settings, &clock, &known, &suspect, |_| mine.clone())).await?;
        let writers = opened.readers.iter().map(|(r, _)| self.cx.add_partition(r.partition as u32)).collect();
        self.start(opened.consumer, opened.readers, writers);
        Ok(())
    }

    /// Tells the group how far committed checkpoints have come.
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
    known: &Known,
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
        .map(|partition| place(settings, &consumer, &ear, known, partition))
        .collect::<Result<_, _>>()?;
    let failed =
        |e: KafkaError| ConnectorError::transient(format!("cannot read kafka topic `{}`", settings.topic), e);
    let mut assignment = TopicPartitionList::new();
    let mut readers = Vec::with_capacity(openings.len());
    for Opening { partition, next, end, past } in openings {
        let id = partition as i32;
        // Split before it is assigned: otherwise the first messages go to the common queue.
        let queue = consumer
            .split_partition_queue(&settings.topic, id)
            .ok_or_else(|| failed(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownPartition)))?;
        if end.is_none_or(|end| next < end) {
            assignment.add_partition_offset(&settings.topic, id, Offset::Offset(next)).map_err(failed)?;
        }
        let decode = match (&settings.avro, settings.format) {
            (Some((schemas, target)), _) => {
                Decode::Later(Box::new(avro::Messages::new(schemas.clone(), target.clone(), settings.ahead)))
            }
            (None, Format::Raw) => Decode::AtOnce(RowDecoder::raw()),
            (None, _) => {
                Decode::AtOnce(RowDecoder::json(settings.columns.clone(), settings.unit, settings.ahead))
            }
        };
        let past = match (past, &settings.history, &known.archive) {
            (Some(offsets), Some(history), Some(archive)) => {
                Some(Past::new(history, archive, partition, offsets))
            }
            _ => None,
        };
        let mut reader = Reader::new(
            settings.topic.clone(),
            id,
            next,
            end,
            consumer.clone(),
            queue,
            decode,
            ear.clone(),
            suspect.clone(),
        );
        reader.has_history = settings.history.is_some();
        readers.push((reader, past));
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
    known: &Known,
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
    let (restored, end) = (&known.restored, settings.bounded.then_some(high));
    if let (Some(history), Some(archive)) = (&settings.history, &known.archive) {
        let at = restored.get(&partition).map(|next| (*next, known.past.contains(&partition)));
        let (past, next) = history.place(archive, topic, partition, at, low, high)?;
        return Ok(Opening { partition, next, end, past });
    }
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
    Ok(Opening { partition, next, end, past: None })
}

/// Whether Kafka has forgotten where some partition of this instance is to go on. Blocks.
fn forgotten(
    settings: &Settings,
    positions: &BTreeMap<u32, i64>,
    instance: usize,
    instances: usize,
) -> Result<bool, ConnectorError> {
    let config = settings
        .connection
        .config(&admin::READ_DEFAULTS, &admin::read_fixed(&settings.group, "read_committed"))?;
    let consumer: BaseConsumer<Ear> = create(&config, Ear::quiet())?;
    for (partition, next) in positions.iter().filter(|(p, _)| **p as usize % instances == instance) {
        // A broker that does not answer is waited for where the topic is opened.
        let asked = consumer.fetch_watermarks(&settings.topic, *partition as i32, ANSWER_TIMEOUT);
        if asked.is_ok_and(|(low, _)| *next < low) {
            return Ok(true);
        }
    }
    Ok(false)
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
