//! Opening partitions: where each begins and ends, by the checkpoint, the archive and Kafka. Everything here blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::Position;
use tokio::sync::Notify;

use super::identity::{self, Mark};
use super::params::{Format, Isolation};
use super::{Begin, Settings};
use crate::kafka::admin::{self, ANSWER_TIMEOUT};
use crate::kafka::client::{Ear, create};
use crate::kafka::format::RowDecoder;
use crate::kafka::history::{Archive, Past};
use crate::kafka::reader::{Decode, Reader};
use crate::kafka::{avro, embedded};

/// How long a missing topic is waited for.
const TOPIC_WAIT: Duration = Duration::from_secs(5);
/// How long brokers are waited for at the start.
const BROKER_WAIT: Duration = Duration::from_secs(30);

/// A partition about to be read.
struct Opening {
    pub partition: u32,
    pub next: i64,
    pub end: Option<i64>,
    /// Archived offsets to read first.
    pub past: Option<Range<u64>>,
}

/// What is known of a partition before Kafka is contacted.
#[derive(Default)]
pub(super) struct Known {
    /// Next offsets by the checkpoint.
    pub restored: BTreeMap<u32, i64>,
    /// The last messages before them.
    pub marks: BTreeMap<u32, Mark>,
    /// Those of them that are in the archive.
    pub past: BTreeSet<u32>,
    /// What the run has fixed of each partition, as positions say it.
    pub fixed: BTreeMap<u32, Fixed>,
    /// What is archived, once it has been looked at.
    pub archive: Option<Arc<Archive>>,
}

/// What is fixed when a run begins, and stays in the positions of a partition.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::kafka) struct Fixed {
    /// Where a bounded read stops.
    pub end: Option<i64>,
    /// How many partitions the topic has, where `keyed_by` depends on it.
    pub count: Option<usize>,
}

impl Fixed {
    /// A position with what is fixed.
    pub fn within(&self, mut position: Position) -> Position {
        if let Some(end) = self.end {
            position["end"] = end.into();
        }
        if let Some(count) = self.count {
            position["of"] = count.into();
        }
        position
    }
}

/// What stored positions have fixed.
pub(super) fn fixed(settings: &Settings, positions: &BTreeMap<u32, Position>) -> BTreeMap<u32, Fixed> {
    let read = |(partition, position): (&u32, &Value)| {
        let end = position.get("end").and_then(Value::as_i64).filter(|_| settings.bounded);
        let count = position.get("of").and_then(Value::as_u64).map(|n| n as usize).filter(|_| settings.keyed);
        (*partition, Fixed { end, count })
    };
    positions.iter().map(read).collect()
}

/// The topic has more partitions than when the run began, and `keyed_by` promises that a key stays in its partition.
pub(super) fn grown(settings: &Settings, before: usize, now: usize) -> ConnectorError {
    ConnectorError::Fatal(format!(
        "kafka topic `{}` has {now} partitions now and had {before} when the run began: keys may have moved to other partitions, \
         so `keyed_by` no longer holds and rows of a key could be taken out of order; take `keyed_by` out, and the watermark puts \
         rows in order, or run with `--from none`",
        settings.topic
    ))
}

/// A consumer with its partitions assigned.
pub(super) struct Opened {
    pub consumer: Arc<BaseConsumer<Ear>>,
    pub readers: Vec<(Reader, Option<Past>)>,
    /// How many partitions the topic has.
    pub count: usize,
}

/// Offsets out of stored positions.
pub(super) fn offsets(
    topic: &str,
    positions: &BTreeMap<u32, Position>,
) -> Result<BTreeMap<u32, i64>, ConnectorError> {
    let read = |(partition, position): (&u32, &Value)| match position.get("offset").and_then(Value::as_i64) {
        Some(offset) => Ok((*partition, offset)),
        None => Err(ConnectorError::Fatal(format!(
            "the checkpoint's position of kafka topic `{topic}` partition {partition} is {position}, not an offset; run with `--from none`"
        ))),
    };
    positions.iter().map(read).collect()
}

/// Connects, finds out where each of `mine` begins and ends, and assigns them. Blocks.
pub(super) fn open(
    settings: &Arc<Settings>,
    clock: &Clock,
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
    if let Some(before) = known.fixed.values().filter_map(|f| f.count).max().filter(|before| *before < count)
    {
        return Err(grown(settings, before, count));
    }
    let mine = mine(count);
    identity::check(settings, isolation, &known.marks, &mine)?;
    let openings: Vec<Opening> = mine
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
        let fixed = Fixed { end, count: settings.keyed.then_some(count) };
        let past = match (past, &settings.history, &known.archive) {
            (Some(offsets), Some(history), Some(archive)) => {
                Some(Past::new(history, archive, &settings.topic, partition, offsets, fixed))
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
        reader.fixed = fixed;
        reader.last = known.marks.get(&partition).copied().filter(|mark| mark.offset < next);
        readers.push((reader, past));
    }
    if assignment.count() > 0 {
        consumer.assign(&assignment).map_err(failed)?;
    }
    Ok(Opened { consumer, readers, count })
}

fn wait_for_topic(
    settings: &Settings,
    clock: &Clock,
    consumer: &BaseConsumer<Ear>,
    ear: &Ear,
) -> Result<usize, ConnectorError> {
    let (topic, brokers) = (&settings.topic, settings.connection.brokers());
    let started = clock.start();
    let mut missing: Option<Stopwatch> = None;
    loop {
        let answer = admin::partitions(consumer, topic, Duration::from_secs(3));
        while consumer.poll(Duration::ZERO).is_some() {}
        match answer {
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
    // Fixed once: what comes later is the next run's.
    let fixed = known.fixed.get(&partition).and_then(|f| f.end);
    let (restored, end) = (&known.restored, settings.bounded.then_some(fixed.unwrap_or(high)));
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
pub(super) fn forgotten(
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
        let watermarks = consumer.fetch_watermarks(&settings.topic, *partition as i32, ANSWER_TIMEOUT);
        if watermarks.is_ok_and(|(low, _)| *next < low) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Data was deleted, or the topic is another one: never skipped in silence.
pub(in crate::kafka) fn out_of_range(
    topic: &str,
    partition: i32,
    next: i64,
    low: i64,
    high: i64,
) -> ConnectorError {
    let why = if next < low {
        "retention has deleted what was not yet read"
    } else {
        "the topic has been cut short or created again"
    };
    ConnectorError::Fatal(format!(
        "kafka topic `{topic}` partition {partition} has no offset {next}, the next one to read: it holds {low} to {high}, so {why}; \
         run with `--from none` to start over with what is there"
    ))
}
