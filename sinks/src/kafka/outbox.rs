//! A producer, and rows made messages for it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tidemill_connectors::kafka::client::{Ear, blocking, create};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;

use super::Target;
use super::format::Messages;
use super::key::Keys;

/// The header that names a row's origin, `<_src>:<_seq>`.
const ORIGIN: &str = "tidemill-origin";
/// How long to let the client work when its queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Outbox {
    pub(super) producer: Arc<ThreadedProducer<Ear>>,
    pub(super) ear: Ear,
    topic: String,
    job: String,
    messages: Messages,
    keys: Keys,
    origin: String,
}

impl Outbox {
    /// Makes the producer; `fixed` are settings on top of the common ones.
    pub(super) async fn open(
        target: &Target,
        job: &str,
        schema: SchemaRef,
        fixed: &[(&str, &str)],
    ) -> Result<Self, ConnectorError> {
        let mut all = vec![
            // Failures are all that is asked for: a report a message would cost more than the message.
            ("delivery.report.only.error", "true"),
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("compression.type", target.compression.name()),
        ];
        all.extend_from_slice(fixed);
        let defaults = [
            ("linger.ms", "1"),
            ("queue.buffering.max.messages", "500000"),
            ("queue.buffering.max.kbytes", "262144"),
            ("message.timeout.ms", "60000"),
            ("retry.backoff.ms", "50"),
        ];
        // The registry first: a schema it refuses is best known before brokers are bothered.
        let messages = Messages::open(target, schema).await?;
        let config = target.connection.config(&defaults, &all)?;
        let ear = Ear::default();
        let hears = ear.clone();
        let producer = blocking(move || create::<Ear, ThreadedProducer<Ear>>(&config, hears)).await?;
        Ok(Self {
            producer: Arc::new(producer),
            ear,
            topic: target.topic.clone(),
            job: job.to_owned(),
            messages,
            keys: Keys::new(target.key.clone()),
            origin: String::new(),
        })
    }

    /// Hands rows to the producer; waits while its queue is full.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        self.keys.read(rows)?;
        let (ts, src, seq) = (row::ts(rows), row::src(rows), row::seq(rows));
        let encoded = self.messages.encode(rows, &self.topic)?;
        for i in 0..rows.num_rows() {
            self.origin.clear();
            let written = write!(self.origin, "{}:{}", src[i], seq[i]);
            debug_assert!(written.is_ok());
            let headers =
                OwnedHeaders::new_with_capacity(1).insert(Header { key: ORIGIN, value: Some(&self.origin) });
            let mut record: BaseRecord<'_, [u8], [u8]> =
                BaseRecord::to(&self.topic).payload(encoded.row(i)).headers(headers);
            record.key = self.keys.get(i);
            // Kafka knows no times before 1970; such a message gets the time of its writing.
            record.timestamp = Some(ts[i].div_euclid(1_000_000)).filter(|ms| *ms > 0);
            let mut next = Some(record);
            while let Some(record) = next.take() {
                match self.producer.send(record) {
                    Ok(()) => {}
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                        tokio::time::sleep(FULL_PAUSE).await;
                        next = Some(record);
                    }
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                        return Err(ConnectorError::Fatal(format!(
                            "the row from {} is {} bytes as a message, too large for kafka topic `{}`; raise `message.max.bytes` in \
                             `options` and on the topic",
                            self.origin,
                            encoded.row(i).len(),
                            self.topic
                        )));
                    }
                    Err((error, _)) => return Err(self.failed("write", &error)),
                }
            }
        }
        Ok(())
    }

    /// The error of an operation that the client refused or gave up.
    pub(super) fn failed(&self, what: &str, error: &KafkaError) -> ConnectorError {
        failed(&self.producer, &self.ear, &self.job, &self.topic, what, error)
    }

    /// Waits until the brokers have all messages, or the client has given some up.
    pub(super) async fn drain(&self) -> Result<(), ConnectorError> {
        let producer = self.producer.clone();
        let drained = blocking(move || Ok(drain(&producer))).await?;
        drained.map_err(|error| self.failed("write", &error))?;
        match self.ear.failed_delivery() {
            None => Ok(()),
            Some((code, reason)) => Err(undelivered(&self.topic, code, &reason)),
        }
    }
}

/// Dropping a producer waits for its thread and its queue: not on an async thread.
impl Drop for Outbox {
    fn drop(&mut self) {
        let producer = self.producer.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(producer));
        }
    }
}

/// Waits until the client's queue is empty. Blocks.
///
/// `Producer::flush` would do, but it looks only every 100 ms.
pub(super) fn drain(producer: &ThreadedProducer<Ear>) -> Result<(), KafkaError> {
    loop {
        match producer.flush(Duration::ZERO) {
            Ok(()) => break,
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {
                std::thread::sleep(Duration::from_micros(500))
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a refusal means for the job.
pub(super) fn failed(
    producer: &ThreadedProducer<Ear>,
    ear: &Ear,
    job: &str,
    topic: &str,
    what: &str,
    error: &KafkaError,
) -> ConnectorError {
    // Refusals after a fatal error only say that there was one.
    let fatal = producer.client().fatal_error();
    let code = fatal.as_ref().map(|(code, _)| *code).or(error.rdkafka_error_code());
    if matches!(
        code,
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    ) {
        return ConnectorError::Fenced(format!("a newer run of job `{job}` has taken over topic `{topic}`"));
    }
    if let Some((code, reason)) = ear.failed_delivery() {
        return undelivered(topic, code, &reason);
    }
    let reason = fatal.map_or_else(|| error.to_string(), |(_, reason)| reason);
    ConnectorError::Transient(format!("cannot {what} to kafka topic `{topic}`: {reason}"))
}

/// A message that the brokers refused: some would be refused again.
fn undelivered(topic: &str, code: RDKafkaErrorCode, reason: &str) -> ConnectorError {
    let hint = match code {
        RDKafkaErrorCode::InvalidTimestamp => {
            "a row's ts is further in the future than the topic's `message.timestamp.after.max.ms` allows"
        }
        RDKafkaErrorCode::MessageSizeTooLarge => "raise the topic's `max.message.bytes`",
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            "grant WRITE on it to this user, or mend the credentials in `options`"
        }
        _ => {
            return ConnectorError::Transient(format!(
                "kafka topic `{topic}` did not take a message: {reason}"
            ));
        }
    };
    ConnectorError::Fatal(format!("kafka topic `{topic}` refused a message: {reason}; {hint}"))
}
