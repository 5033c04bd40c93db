//! The `kafka` sink: rows as JSON or Avro messages, exactly once or at least once.
//!
//! Exactly once does not wait for checkpoints: each shard writes its rows *and* its progress in one
//! short transaction, so consumers that read committed messages see rows within the linger. The
//! argument why that is sound stands in [`exactly_once`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tidemill_connectors::kafka::client::Options;
use tidemill_connectors::kafka::registry::{Registry, RegistryParams};
use tidemill_connectors::kafka::{Connection, admin};
use tidemill_engine::component::{PlanContext, Problems, SinkKind, SinkPlan, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tidemill_engine::sink::{Delivery, FlushPolicy, Guarantee, Placement, Sink, SinkContext, SinkWriter};

mod at_least_once;
mod avro;
mod exactly_once;
mod format;
mod key;
mod outbox;
mod progress;

/// Most shards a sink may have: each is a transactional id that the brokers remember.
const SHARDS_MAX: usize = 256;
/// Rows a transaction may have.
const ROWS_MAX: usize = 65_536;
/// Longest time a row waits for its commit.
const LINGER_EXACTLY_ONCE: Duration = Duration::from_millis(20);
/// Rows are on their way when they have been written: a flush only waits for the brokers' word, and
/// with it all rows behind. Checkpoints flush by themselves.
const LINGER_AT_LEAST_ONCE: Duration = Duration::from_secs(1);

/// Writes rows to a Kafka topic, one message a row: a JSON object, or an Avro record.
///
/// Times are RFC 3339 in UTC. `key` names the columns whose values are the message key (a JSON list
/// where there are several) and decide the partition, as Java's default partitioner would. A
/// message's timestamp is its row's `ts`, and its header `tidemill-origin` is `<_src>:<_seq>`.
///
/// `delivery: exactly_once` writes rows in the order of their time, in transactions of about
/// `linger`; readers should use `isolation.level=read_committed`. Its progress is kept in the topic
/// `tidemill.<job>.<sink>.progress`. A run `--from none` writes everything again, behind what is
/// there. `at_least_once` writes rows as they come, sooner; a restart may write some twice.
///
/// `format: avro` writes Confluent's framing, which Kafka's Avro deserializers in every language read. The
/// schema is made from the stream's columns (times are `timestamp-nanos`, symbols `string`, columns that
/// may be null `["null", …]`), or is your own, `schema: trade.avsc`: its fields are filled by name, with times
/// in its unit, decimals in its scale, and text as its enums. It gets its id from `registry` when
/// the job starts, under `subject` (`<topic>-value`); `auto_register: false` takes only what is there. Keys stay
/// text.
///
/// A missing topic is made (`create: false` forbids it), with `retention.ms=-1`: messages carry event
/// time, and by Kafka's default a backfill's would be deleted as too old.
///
/// ```yaml
/// sinks:
///   signals:
///     kind: kafka
///     from: signal
///     with: { brokers: localhost:9092, topic: signals, key: [symbol], delivery: exactly_once }
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
    /// The Schema Registry of `format: avro`.
    #[serde(default)]
    pub registry: Option<RegistryParams>,
    /// The subject that `format: avro` has its schema under; default `<topic>-value`.
    #[serde(default)]
    pub subject: Option<String>,
    /// Whether `format: avro` registers its schema where it is not there yet.
    #[serde(default = "yes")]
    pub auto_register: bool,
    /// An Avro schema to write with, a path: `trade.avsc`. Default: made from the columns.
    #[serde(default)]
    pub schema: Option<String>,
    /// Columns whose values are the message key. Default: no key, partitions are taken in turn.
    #[serde(default)]
    pub key: Vec<String>,
    /// What a restart may do to the rows in the topic.
    #[serde(default)]
    pub delivery: DeliveryParam,
    /// How many writers share the work, by `key`; for `exactly_once`. Must stay as it is while the
    /// job lives.
    #[serde(default)]
    pub shards: Option<usize>,
    /// `exactly_once`: longest time a row waits for its transaction to be committed; default 20ms.
    /// `at_least_once`: rows are sent as they come, and so often it is made sure that brokers have
    /// them all, which holds up those behind; default 1s.
    #[serde(default)]
    pub linger: Option<Span>,
    /// Partitions of the topic where it has to be made.
    #[serde(default = "one")]
    pub partitions: usize,
    /// Whether a missing topic is made.
    #[serde(default = "yes")]
    pub create: bool,
    /// How messages are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Further librdkafka settings, such as `security.protocol`, `sasl.*` and `ssl.*`.
    #[serde(default)]
    pub options: Options,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
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
}

/// What a restart may do to the rows in the topic.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryParam {
    /// Nothing: each is there once.
    #[default]
    ExactlyOnce,
    /// Some may be there twice.
    AtLeastOnce,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
    /// Fast, older.
    Snappy,
    /// Small, older.
    Gzip,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
        }
    }
}

/// The kind.
#[derive(Debug)]
pub struct Kafka;

impl SinkKind for Kafka {
    const KIND: &'static str = "kafka";
    type Params = Params;

    fn plan(params: Params, input: &StreamInfo, cx: &PlanContext) -> Result<SinkPlan, Problems> {
        let mut problems = Problems::new();
        let connection =
            Connection::new(&params.brokers, &params.options).map_err(|p| problems.extend(p)).ok();
        if params.topic.is_empty() {
            problems.push(Problem::new("topic", "the topic has no name"));
        }
        if params.partitions == 0 {
            problems.push(Problem::new("partitions", "a topic has at least one partition"));
        }
        let key = input.keys("key", &params.key).map_err(|p| problems.extend(p)).unwrap_or_default();
        let avro = plan_avro(&params, input, cx).map_err(|p| problems.extend(p)).ok().flatten();
        let exactly_once = params.delivery == DeliveryParam::ExactlyOnce;
        match params.shards {
            Some(_) if !exactly_once => {
                problems.push(Problem::new(
                    "shards",
                    "`delivery: at_least_once` has a writer on every worker and takes no shards",
                ));
            }
            Some(n) if !(1..=SHARDS_MAX).contains(&n) => {
                problems.push(Problem::new("shards", format!("{n} is not between 1 and {SHARDS_MAX}")));
            }
            Some(n) if n > 1 && params.key.is_empty() => {
                problems.push(
                    Problem::new("shards", "rows are spread over shards by their key, and there is none")
                        .hint("add `key:`"),
                );
            }
            _ => {}
        }
        let linger = if exactly_once { LINGER_EXACTLY_ONCE } else { LINGER_AT_LEAST_ONCE };
        let flush = FlushPolicy { linger: params.linger.map_or(linger, Span::std), rows_max: ROWS_MAX };
        let shards = params.shards.unwrap_or(1);
        let Some(connection) = connection.filter(|_| problems.is_empty()) else { return Err(problems) };
        let (delivery, placement) = if exactly_once {
            (
                Delivery::Ordered,
                Placement::Shards {
                    count: shards,
                    by: if shards > 1 { params.key.clone() } else { Vec::new() },
                },
            )
        } else {
            (Delivery::Eager, Placement::Local)
        };
        let sink = KafkaSink {
            target: Target { connection, topic: params.topic, key, compression: params.compression, avro },
            exactly_once,
            partitions: params.partitions,
            create: params.create,
        };
        Ok(SinkPlan { delivery, placement, flush, sink: Arc::new(sink) })
    }
}

/// How rows become records, for `format: avro`.
fn plan_avro(params: &Params, input: &StreamInfo, cx: &PlanContext) -> Result<Option<avro::Plan>, Problems> {
    let mut problems = Problems::new();
    if params.format != Format::Avro {
        for (field, given) in [
            ("registry", params.registry.is_some()),
            ("subject", params.subject.is_some()),
            ("schema", params.schema.is_some()),
        ] {
            if given {
                problems.push(Problem::new(field, "is for `format: avro` only").at_key());
            }
        }
        return if problems.is_empty() { Ok(None) } else { Err(problems) };
    }
    let registry = match &params.registry {
        Some(registry) => Registry::new(registry, "registry").map_err(|p| problems.extend(p)).ok(),
        None => {
            problems.push(
                Problem::new("registry", "`format: avro` needs a Schema Registry for its schema")
                    .hint("write registry: {url: \"http://localhost:8081\"}"),
            );
            None
        }
    };
    let own = match &params.schema {
        None => None,
        Some(path) => match std::fs::read_to_string(cx.base.join(path)) {
            Ok(text) => Some(text),
            Err(error) => {
                let reason = format!("cannot read the Avro schema {path}: {error}");
                problems.push(Problem::new("schema", reason));
                None
            }
        },
    };
    let Some(registry) = registry.filter(|_| problems.is_empty()) else { return Err(problems) };
    let subject = params.subject.clone().unwrap_or_else(|| format!("{}-value", params.topic));
    let record = avro::record_name(&params.topic);
    avro::Plan::new(registry, subject, params.auto_register, &record, own.as_deref(), input).map(Some)
}

/// Where messages go, and how.
#[derive(Clone, Debug)]
struct Target {
    connection: Connection,
    topic: String,
    key: Vec<usize>,
    compression: Compression,
    /// For `format: avro`.
    avro: Option<avro::Plan>,
}

#[derive(Debug)]
struct KafkaSink {
    target: Target,
    exactly_once: bool,
    partitions: usize,
    create: bool,
}

#[async_trait]
impl Sink for KafkaSink {
    fn guarantee(&self) -> Guarantee {
        if self.exactly_once { Guarantee::ExactlyOnce } else { Guarantee::AtLeastOnce }
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let Target { connection, topic, .. } = &self.target;
        if admin::topic_partitions(connection, topic).await?.is_none() {
            if !self.create {
                return Err(ConnectorError::Fatal(format!(
                    "kafka topic `{topic}` does not exist at {}; create it, or let `create: true` do it",
                    connection.brokers()
                )));
            }
            // Messages carry event time: by the default retention those of a backfill would be gone at once.
            make_topic(connection, topic, self.partitions, &[("retention.ms", "-1")]).await?;
        }
        Ok(if self.exactly_once {
            Box::new(exactly_once::open(&self.target, cx).await?)
        } else {
            Box::new(at_least_once::open(&self.target, cx).await?)
        })
    }
}

/// Creates a topic and waits until it has leaders.
async fn make_topic(
    connection: &Connection,
    topic: &str,
    partitions: usize,
    settings: &[(&str, &str)],
) -> Result<(), ConnectorError> {
    if admin::create_topic(connection, topic, partitions, settings).await? {
        tracing::info!(topic, partitions, "made a kafka topic");
    }
    for _ in 0..50 {
        if admin::topic_partitions(connection, topic).await?.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(ConnectorError::Transient(format!("kafka topic `{topic}` was made, and brokers do not know it yet")))
}
