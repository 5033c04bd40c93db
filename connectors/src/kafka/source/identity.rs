//! Whether a topic is still the one whose offsets a checkpoint holds. Everything here blocks.
//!
//! An offset means nothing in another log. A position carries the topic's name, and of the last message before it the offset and
//! a hash ([`Mark`]): a topic that was deleted and created again has other messages there, or none. The address of the brokers
//! may change freely. Retention and compaction may have removed the message; then there is nothing to compare.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::Position;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Settings;
use crate::kafka::admin::{self, ANSWER_TIMEOUT, is_passing};
use crate::kafka::client::{Ear, create};

/// The last message before a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::kafka) struct Mark {
    /// Its offset.
    pub offset: i64,
    /// Hash of its key, value and timestamp.
    pub hash: u64,
}

impl Mark {
    /// Of a message.
    pub fn of(message: &BorrowedMessage<'_>) -> Self {
        let value = message.payload().map_or(1, xxh3_64);
        let key = message.key().map_or(2, |key| xxh3_64_with_seed(key, value));
        let time = message.timestamp().to_millis().unwrap_or(-1);
        let hash = key ^ value.rotate_left(21) ^ (time as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { offset: message.offset(), hash }
    }
}

/// A position: the next offset of `topic`, and the message before it.
pub(in crate::kafka) fn position(topic: &str, next: i64, mark: Option<Mark>) -> Position {
    match mark {
        Some(mark) => json!({ "topic": topic, "offset": next, "last": mark }),
        None => json!({ "topic": topic, "offset": next }),
    }
}

/// The messages before stored positions, by partition. An error where a position counts another topic.
pub(super) fn marks(
    topic: &str,
    positions: &BTreeMap<u32, Position>,
) -> Result<BTreeMap<u32, Mark>, ConnectorError> {
    let mut marks = BTreeMap::new();
    for (partition, position) in positions {
        match position.get("topic").and_then(Value::as_str) {
            Some(counted) if counted != topic => {
                return Err(ConnectorError::Fatal(format!(
                    "the checkpoint holds offsets of kafka topic `{counted}`, and the graph reads `{topic}` now: they mean nothing \
                     there; set `topic` back, or run with `--from none` to read `{topic}` from its `start`"
                )));
            }
            Some(_) => {}
            None => {
                tracing::debug!(topic, partition, "the checkpoint does not name the topic of its offsets")
            }
        }
        if let Some(last) = position.get("last") {
            let mark = serde_json::from_value(last.clone()).map_err(|e| {
                ConnectorError::Fatal(format!(
                    "the checkpoint's position of kafka topic `{topic}` partition {partition} is not readable ({e}); run with \
                     `--from none`"
                ))
            })?;
            marks.insert(*partition, mark);
        }
    }
    Ok(marks)
}

/// Compares the messages that stand before the positions of `mine` with those that were read.
pub(super) fn check(
    settings: &Settings,
    isolation: &str,
    marks: &BTreeMap<u32, Mark>,
    mine: &[u32],
) -> Result<(), ConnectorError> {
    let topic = &settings.topic;
    let failed = |e: KafkaError| {
        ConnectorError::transient(
            format!("cannot read the last messages again that were read of kafka topic `{topic}`"),
            e,
        )
    };
    if !marks.keys().any(|partition| mine.contains(partition)) {
        return Ok(());
    }
    let config =
        settings.connection.config(&admin::READ_DEFAULTS, &admin::read_fixed(&settings.group, isolation))?;
    let consumer: BaseConsumer<Ear> = create(&config, Ear::quiet())?;
    let mut waiting: BTreeMap<i32, Mark> = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for (partition, mark) in marks.iter().filter(|(partition, _)| mine.contains(partition)) {
        let id = *partition as i32;
        assignment.add_partition_offset(topic, id, Offset::Offset(mark.offset)).map_err(failed)?;
        waiting.insert(id, *mark);
    }
    consumer.assign(&assignment).map_err(failed)?;
    let mut silent = Duration::ZERO;
    while !waiting.is_empty() {
        let wait = Duration::from_millis(200);
        match consumer.poll(wait) {
            Some(Ok(message)) => {
                silent = Duration::ZERO;
                let partition = message.partition();
                let Some(mark) = waiting.remove(&partition) else { continue };
                let found = Mark::of(&message);
                if found.offset != mark.offset {
                    // A later one: retention or compaction. An earlier one, from the beginning of a shorter log: whether the position
                    // is beyond its end is looked at next.
                    tracing::debug!(topic, partition, "the last message that was read is not there any more");
                } else if found != mark {
                    return Err(ConnectorError::Fatal(format!(
                        "kafka topic `{topic}` partition {partition} holds another message at offset {} than the one that was read \
                         there: the topic was deleted and created again, or the brokers are another cluster's; name the one that \
                         was read, or run with `--from none` to start over with what is there",
                        mark.offset
                    )));
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                silent = Duration::ZERO;
                waiting.remove(&partition);
            }
            Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => silent += wait,
            Some(Err(error)) => return Err(failed(error)),
            None => silent += wait,
        }
        if silent >= ANSWER_TIMEOUT * 3 {
            return Err(failed(KafkaError::MessageConsumption(
                rdkafka::error::RDKafkaErrorCode::OperationTimedOut,
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidemill_engine::component::{PlanContext, SourceKind, SourcePlan};

    use super::*;
    use crate::conformance::{Drive, another_input_is_refused, read_source};
    use crate::kafka::client::{Connection, EMBEDDED};
    use crate::kafka::source::Kafka;

    /// A new topic with 300 messages in two partitions, all of them saying `v`.
    async fn topic(name: &str, v: i64) -> SourcePlan {
        let connection = Connection::plain(EMBEDDED);
        admin::create_topic(&connection, name, 2, &[]).await.unwrap();
        let message = |i: i64| admin::Message {
            partition: Some((i % 2) as i32),
            payload: Some(json!({"ts": i, "v": v}).to_string().into_bytes()),
            timestamp_ms: Some(1_700_000_000_000 + i),
            ..Default::default()
        };
        admin::produce(&connection, name, (0..300).map(message).collect()).await.unwrap();
        plan(name).await
    }

    async fn plan(topic: &str) -> SourcePlan {
        let cx =
            PlanContext { job: "j".into(), node: "n".into(), base: ".".into(), clock: Default::default() };
        let schema = json!({"ts": "timestamp", "v": "i64"});
        let with = json!({"brokers": EMBEDDED, "topic": topic, "schema": schema, "stop": "end"});
        Kafka::plan(serde_json::from_value(with).unwrap(), &cx).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_topic_is_refused_and_one_of_the_same_name_with_other_messages() {
        let drive = || Drive { chunk_rows: 40, ..Drive::default() };
        let (one, other) = (topic("identity_one", 1).await, topic("identity_other", 2).await);
        another_input_is_refused(&one, &other, drive(), &["`identity_one`", "`identity_other`"]).await;
        // Deleted and created again: the name is the same, the offsets are there, the messages are not.
        let read = read_source(&one.source, &one.columns, drive()).await.unwrap();
        let again = |read: Vec<(u32, Position)>| Drive { restored: read.into_iter().collect(), ..drive() };
        let position = |p: u32, chunk: usize| read[&p].positions[chunk].2.clone();
        let moved = |mut position: Position| {
            position["topic"] = json!("identity_other");
            position
        };
        let positions = vec![(0, moved(position(0, 2))), (1, moved(position(1, 1)))];
        let error = read_source(&other.source, &other.columns, again(positions)).await.unwrap_err();
        let ConnectorError::Fatal(reason) = &error else { panic!("{error}") };
        assert!(reason.contains("another message at offset") && reason.contains("--from none"), "{reason}");
        // What an earlier version wrote has no name and no message: it is taken.
        let old = vec![(0, json!({"offset": 30})), (1, json!({"offset": 150}))];
        let rest = read_source(&one.source, &one.columns, again(old)).await.unwrap();
        assert_eq!(rest[&0].seqs, (30..150).collect::<Vec<_>>());
        assert_eq!(rest[&1].seqs, Vec::<u64>::new());
    }
}
