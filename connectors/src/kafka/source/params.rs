//! The `with:` block of the `kafka` source.

use schemars::JsonSchema;
use serde::Deserialize;
use tidemill_engine::duration::Span;
use tidemill_engine::row;
use tidemill_engine::schema::SchemaSpec;
use tidemill_engine::spec::TimeUnitName;

use crate::kafka::client::Options;
use crate::kafka::history::HistoryParams;
use crate::kafka::registry::RegistryParams;

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
///       max_out_of_orderness: 250ms
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
