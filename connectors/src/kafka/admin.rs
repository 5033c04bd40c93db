//! Topics from the outside: make, list, delete, fill and read them. For sinks that need a topic,
//! the demo, dead-letter replay and tests.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tidemill_engine::connector::ConnectorError;

use super::client::{Connection, Ear, blocking, create};
use super::embedded;

/// How long a broker may take to answer a question.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A message as it lies in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its partition; when producing, `None` lets the key decide.
    pub partition: Option<i32>,
    /// Its offset; not used when producing.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Creates `topic`; false where it exists already.
pub async fn create_topic(
    connection: &Connection,
    topic: &str,
    partitions: usize,
    settings: &[(&str, &str)],
) -> Result<bool, ConnectorError> {
    if connection.is_embedded() {
        return embedded::create_topic(topic, partitions);
    }
    let failed = |e: String| {
        ConnectorError::Transient(format!(
            "cannot create kafka topic `{topic}` at {}: {e}",
            connection.brokers()
        ))
    };
    let client: AdminClient<DefaultClientContext> =
        connection.config(&[], &[])?.create().map_err(|e: KafkaError| failed(e.to_string()))?;
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    let mut new = NewTopic::new(topic, count, TopicReplication::Fixed(-1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let options =
        AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT));
    let results = client.create_topics([&new], &options).await.map_err(|e| failed(e.to_string()))?;
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(failed(code.to_string())),
        None => Err(failed("the broker did not answer".into())),
    }
}

/// Deletes `topic`.
pub async fn delete_topic(connection: &Connection, topic: &str) -> Result<(), ConnectorError> {
    let failed = |e: String| {
        ConnectorError::Transient(format!(
            "cannot delete kafka topic `{topic}` at {}: {e}",
            connection.brokers()
        ))
    };
    let client: AdminClient<DefaultClientContext> =
        connection.config(&[], &[])?.create().map_err(|e: KafkaError| failed(e.to_string()))?;
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT));
    let results = client.delete_topics(&[topic], &options).await.map_err(|e| failed(e.to_string()))?;
    match results.into_iter().next() {
        Some(Err((_, code))) => Err(failed(code.to_string())),
        _ => Ok(()),
    }
}

/// Topics and how many partitions each has, by name.
pub async fn topics(connection: &Connection) -> Result<Vec<(String, usize)>, ConnectorError> {
    let (connection, config) = (connection.clone(), connection.config(&[], &[])?);
    blocking(move || {
        let ear = Ear::quiet();
        let client: BaseConsumer<Ear> = create(&config, ear.clone())?;
        let metadata = client.fetch_metadata(None, ANSWER_TIMEOUT).map_err(|e| {
            while client.poll(Duration::ZERO).is_some() {}
            ConnectorError::Transient(format!(
                "cannot list kafka topics at {}: {e}{}",
                connection.brokers(),
                ear.complaint()
            ))
        })?;
        let mut topics: Vec<_> =
            metadata.topics().iter().map(|t| (t.name().to_owned(), t.partitions().len())).collect();
        topics.sort();
        Ok(topics)
    })
    .await
}

/// How many partitions `topic` has, once it has leaders; `None` where there is no such topic.
pub async fn topic_partitions(connection: &Connection, topic: &str) -> Result<Option<usize>, ConnectorError> {
    let (brokers, config) = (connection.brokers().to_owned(), connection.config(&[], &[])?);
    let topic = topic.to_owned();
    blocking(move || {
        let ear = Ear::quiet();
        let client: BaseConsumer<Ear> = create(&config, ear.clone())?;
        let mut attempts = 0;
        loop {
            let answer = partitions(&client, &topic, ANSWER_TIMEOUT / 2);
            while client.poll(Duration::ZERO).is_some() {}
            match answer {
                Ok(count) => return Ok(count),
                Err(_) if attempts < 5 => {
                    attempts += 1;
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(e) => {
                    let complaint = ear.complaint();
                    return Err(ConnectorError::Transient(format!(
                        "no answer from kafka at {brokers} about topic `{topic}`: {e}{complaint}"
                    )));
                }
            }
        }
    })
    .await
}

/// How many partitions `topic` has; `None` where there is no such topic. Blocks.
pub fn partitions<C: rdkafka::consumer::ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<usize>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), timeout)?;
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(Some(found.partitions().len()).filter(|n| *n > 0)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

/// Writes messages as they are and waits until the brokers have them all.
pub async fn produce(
    connection: &Connection,
    topic: &str,
    messages: Vec<Message>,
) -> Result<(), ConnectorError> {
    let fixed = [
        ("partitioner", "murmur2_random"),
        ("enable.idempotence", "true"),
        ("delivery.report.only.error", "true"),
    ];
    let config =
        connection.config(&[("linger.ms", "5"), ("queue.buffering.max.messages", "1000000")], &fixed)?;
    let topic = topic.to_owned();
    blocking(move || {
        let ear = Ear::quiet();
        let producer: ThreadedProducer<Ear> = create(&config, ear.clone())?;
        let failed = |e: &dyn std::fmt::Display| {
            ConnectorError::Transient(format!("cannot write to kafka topic `{topic}`: {e}"))
        };
        for message in &messages {
            loop {
                match producer.send(record(&topic, message)) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err((error, _)) => return Err(failed(&error)),
                }
            }
        }
        producer.flush(ANSWER_TIMEOUT * 3).map_err(|e| failed(&format!("{e}{}", ear.complaint())))?;
        // Reports of failures travel by the polling thread; this makes sure they have come.
        producer.poll(Duration::ZERO);
        ear.failed_delivery().map_or(Ok(()), |(_, reason)| Err(failed(&reason)))
    })
    .await
}

fn record<'a>(topic: &'a str, message: &'a Message) -> BaseRecord<'a, [u8], [u8]> {
    let mut record = BaseRecord::to(topic);
    record.partition = message.partition;
    record.key = message.key.as_deref();
    record.payload = message.payload.as_deref();
    record.timestamp = message.timestamp_ms;
    if !message.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(message.headers.len());
        record.headers = Some(
            message
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) })),
        );
    }
    record
}

/// Everything that lies in `topic` now, partition by partition; `committed`: without what open or
/// aborted transactions wrote.
pub async fn read_all(
    connection: &Connection,
    topic: &str,
    committed: bool,
) -> Result<Vec<Message>, ConnectorError> {
    let isolation = if committed { "read_committed" } else { "read_uncommitted" };
    let config = connection.config(&READ_DEFAULTS, &read_fixed("tidemill.read", isolation))?;
    let topic = topic.to_owned();
    blocking(move || {
        let client: BaseConsumer<Ear> = create(&config, Ear::quiet())?;
        let failed =
            |e: KafkaError| ConnectorError::Transient(format!("cannot read kafka topic `{topic}`: {e}"));
        let count = partitions(&client, &topic, ANSWER_TIMEOUT).map_err(failed)?.unwrap_or(0);
        let mut all = Vec::new();
        for partition in 0..count {
            read_range(&client, &topic, partition as i32, 0, &mut all).map_err(failed)?;
        }
        Ok(all)
    })
    .await
}

/// Settings of a consumer that reads assigned partitions once, to their ends.
pub const READ_DEFAULTS: [(&str, &str); 2] = [("fetch.wait.max.ms", "20"), ("fetch.error.backoff.ms", "50")];

/// Settings such a consumer must have.
pub fn read_fixed<'a>(group: &'a str, isolation: &'a str) -> [(&'a str, &'a str); 6] {
    [
        ("group.id", group),
        ("isolation.level", isolation),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("enable.partition.eof", "true"),
    ]
}

/// Appends the messages of one partition from offset `from` to its end.
pub fn read_range<C: rdkafka::consumer::ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    from: i64,
    into: &mut Vec<Message>,
) -> Result<(), KafkaError> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(from))?;
    client.assign(&assignment)?;
    let mut silent = 0;
    loop {
        match client.poll(ANSWER_TIMEOUT / 10) {
            Some(Ok(message)) => {
                silent = 0;
                into.push(Message {
                    partition: Some(message.partition()),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    payload: message.payload().map(<[u8]>::to_vec),
                    timestamp_ms: message.timestamp().to_millis(),
                    headers: message.headers().map_or_else(Vec::new, |headers| {
                        let pair =
                            |h: Header<'_, &[u8]>| (h.key.to_owned(), h.value.unwrap_or_default().to_vec());
                        headers.iter().map(pair).collect()
                    }),
                });
            }
            Some(Err(KafkaError::PartitionEOF(p))) if p == partition => return Ok(()),
            Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => silent += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error),
            None => silent += 1,
        }
        if silent > 30 {
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
    }
}

/// Errors that librdkafka gets over by itself.
pub fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        code,
        AllBrokersDown
            | BrokerTransportFailure
            | Resolve
            | OperationTimedOut
            | RequestTimedOut
            | LeaderNotAvailable
            | NotLeaderForPartition
            | NotCoordinator
            | CoordinatorNotAvailable
            | CoordinatorLoadInProgress
            | BrokerNotAvailable
            | NetworkException
            | OffsetNotAvailable
    )
}
