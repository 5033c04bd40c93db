//! One partition: takes what is there, makes it a chunk, hands it over, and waits for more.
//!
//! It never waits while it has something to send, so a chunk is as large as what came since the
//! last one. A worker that is behind stops this partition only: its own queue fills up.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use rdkafka::Message as _;
use rdkafka::Offset;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{Chunk, PartitionWriter, Position, Reject, Seqs};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::admin::{ANSWER_TIMEOUT, is_passing};
use super::avro;
use super::client::{Ear, blocking};
use super::format::RowDecoder;
use super::source::{Fixed, Mark, position};

/// A chunk holds no more bytes of messages than this (and one message more).
const CHUNK_BYTES_MAX: usize = 16 << 20;
/// The client wakes the reader; should it ever forget to, this does.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Reader {
    pub(super) partition: i32,
    /// Whether what Kafka has deleted may be in an archive: a restart looks there.
    pub(super) has_history: bool,
    /// What the run has fixed.
    pub(super) fixed: Fixed,
    /// The last message before `next`.
    pub(super) last: Option<Mark>,
    topic: String,
    next: i64,
    end: Option<i64>,
    consumer: Arc<BaseConsumer<Ear>>,
    queue: PartitionQueue<Ear>,
    decode: Decode,
    ear: Ear,
    suspect: Arc<Notify>,
    more: Arc<Notify>,
    seqs: Vec<u64>,
    rejects: Vec<Reject>,
}

/// When messages become rows.
#[allow(clippy::large_enum_variant, reason = "there is one a partition")]
pub(super) enum Decode {
    /// As they are taken.
    AtOnce(RowDecoder),
    /// A chunk at a time: it may have to wait for schemas.
    Later(Box<avro::Messages>),
}

impl Decode {
    fn waiting(&self) -> usize {
        match self {
            Self::AtOnce(_) => 0,
            Self::Later(messages) => messages.len(),
        }
    }
}

/// How a look into the queue ended.
enum Look {
    /// It is empty, or the chunk is full.
    More,
    /// Everything up to the end has been read.
    End,
    /// The broker has no more at present, though the end has not been reached.
    Short,
    /// The next offset is not in the log.
    OutOfRange,
}

impl Reader {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        topic: String,
        partition: i32,
        next: i64,
        end: Option<i64>,
        consumer: Arc<BaseConsumer<Ear>>,
        mut queue: PartitionQueue<Ear>,
        decode: Decode,
        ear: Ear,
        suspect: Arc<Notify>,
    ) -> Self {
        let more = Arc::new(Notify::new());
        let wake = more.clone();
        queue.set_nonempty_callback(move || wake.notify_one());
        Self {
            partition,
            has_history: false,
            fixed: Fixed::default(),
            last: None,
            topic,
            next,
            end,
            consumer,
            queue,
            decode,
            ear,
            suspect,
            more,
            seqs: Vec::new(),
            rejects: Vec::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut out: PartitionWriter,
        chunk_rows: usize,
        stop: CancellationToken,
    ) -> Result<(), ConnectorError> {
        // The checkpoint must know where this partition began, though no row may come for long.
        let rows = self.rows().await?;
        let start = self.chunk(rows);
        if out.send(start).await.is_err() {
            return Ok(());
        }
        if self.end.is_some_and(|end| self.next >= end) {
            out.end();
            return Ok(());
        }
        // The broker had the whole log at the last read.
        let mut whole = false;
        loop {
            let look = self.look(chunk_rows)?;
            if !self.seqs.is_empty() || !self.rejects.is_empty() || self.decode.waiting() > 0 {
                self.ear.well();
                let rows = tokio::select! {
                    rows = self.rows() => rows?,
                    () = stop.cancelled() => return Ok(()),
                };
                let chunk = self.chunk(rows);
                tokio::select! {
                    sent = out.send(chunk) => if sent.is_err() { return Ok(()) },
                    () = stop.cancelled() => return Ok(()),
                }
                if matches!(look, Look::More) {
                    continue;
                }
            }
            match look {
                Look::More => {}
                Look::End => {
                    out.end();
                    return Ok(());
                }
                // Behind the last message there may be marks of transactions, which are no messages. But a broker that has just
                // become the leader may not know the end of the log yet.
                Look::Short if whole => {
                    out.end();
                    return Ok(());
                }
                Look::Short => whole = self.again().await?,
                Look::OutOfRange => return Err(self.out_of_range().await),
            }
            tokio::select! {
                () = self.more.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Reads on from the next offset, after asking for the end of the log; whether the known end is in it.
    async fn again(&self) -> Result<bool, ConnectorError> {
        let (consumer, topic, partition, next) =
            (self.consumer.clone(), self.topic.clone(), self.partition, self.next);
        let end = self.end.unwrap_or(next);
        blocking(move || {
            let watermarks = consumer.fetch_watermarks(&topic, partition, ANSWER_TIMEOUT);
            let whole = watermarks.is_ok_and(|(_, high)| high >= end);
            if !whole {
                tracing::debug!(
                    topic,
                    partition,
                    next,
                    end,
                    "kafka: the log is shorter than it was; waiting"
                );
                std::thread::sleep(LOOK_AGAIN);
            }
            let failed = |e: KafkaError| {
                ConnectorError::transient(
                    format!("cannot read on in kafka topic `{topic}` partition {partition}"),
                    e,
                )
            };
            consumer.seek(&topic, partition, Offset::Offset(next), ANSWER_TIMEOUT).map_err(failed)?;
            Ok(whole)
        })
        .await
    }

    /// Takes messages until there are none, or enough for a chunk.
    fn look(&mut self, chunk_rows: usize) -> Result<Look, ConnectorError> {
        let mut bytes = 0;
        while self.seqs.len() + self.rejects.len() + self.decode.waiting() < chunk_rows
            && bytes < CHUNK_BYTES_MAX
        {
            match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let offset = message.offset();
                    if self.end.is_some_and(|end| offset >= end) {
                        return Ok(Look::End);
                    }
                    self.next = offset + 1;
                    self.last = Some(Mark::of(&message));
                    let (key, payload) = (message.key(), message.payload());
                    bytes += key.map_or(0, <[u8]>::len) + payload.map_or(0, <[u8]>::len);
                    let time = message.timestamp().to_millis();
                    match &mut self.decode {
                        Decode::Later(messages) => messages.push(offset as u64, key, payload, time),
                        Decode::AtOnce(decoder) => match decoder.push(key, payload, time) {
                            Ok(()) => self.seqs.push(offset as u64),
                            Err(reason) => self.rejects.push(Reject {
                                seq: offset as u64,
                                before: self.seqs.len(),
                                raw: payload.unwrap_or_default().to_vec(),
                                key: key.map(<[u8]>::to_vec),
                                reason,
                            }),
                        },
                    }
                    if self.end == Some(self.next) {
                        return Ok(Look::End);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) if self.end.is_some() => return Ok(Look::Short),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                ))) => return Ok(Look::OutOfRange),
                Some(Err(error)) => self.trouble(&error)?,
            }
        }
        Ok(Look::More)
    }

    /// The rows of what was taken.
    async fn rows(&mut self) -> Result<RecordBatch, ConnectorError> {
        match &mut self.decode {
            Decode::AtOnce(decoder) => Ok(decoder.finish()),
            Decode::Later(messages) => {
                let decoded = messages.decode().await?;
                (self.seqs, self.rejects) = (decoded.seqs, decoded.rejects);
                Ok(decoded.rows)
            }
        }
    }

    /// Where to go on.
    pub(super) fn position(&self) -> Position {
        self.fixed.within(position(&self.topic, self.next, self.last))
    }

    fn chunk(&mut self, rows: RecordBatch) -> Chunk {
        let seqs = std::mem::take(&mut self.seqs);
        let gapless = seqs.windows(2).all(|w| w[0] + 1 == w[1]);
        Chunk {
            rows,
            seqs: match seqs.first() {
                Some(first) if gapless => Seqs::From(*first),
                _ => Seqs::List(seqs),
            },
            position: self.position(),
            rejects: std::mem::take(&mut self.rejects),
        }
    }

    async fn out_of_range(&self) -> ConnectorError {
        let (consumer, topic, partition) = (self.consumer.clone(), self.topic.clone(), self.partition);
        let watermarks = blocking(move || {
            consumer.fetch_watermarks(&topic, partition, ANSWER_TIMEOUT).map_err(|e| {
                ConnectorError::transient(format!("cannot find the offsets of kafka topic `{topic}`"), e)
            })
        });
        match watermarks.await {
            Ok((low, _)) if self.has_history && self.next < low => ConnectorError::Transient(format!(
                "kafka topic `{}` partition {partition} has no offset {} any more (it begins at {low}): looking in the archive",
                self.topic, self.next
            )),
            Ok((low, high)) => super::source::out_of_range(&self.topic, partition, self.next, low, high),
            Err(error) => error,
        }
    }

    fn trouble(&self, error: &KafkaError) -> Result<(), ConnectorError> {
        let (topic, partition) = (&self.topic, self.partition);
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        match code {
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicId => {
                self.suspect.notify_one();
                Ok(())
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => Err(ConnectorError::Fatal(format!(
                "not allowed to read kafka topic `{topic}`: grant READ on it to this user, or mend the credentials in `options`"
            ))),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => Err(ConnectorError::transient(
                format!("reading kafka topic `{topic}` partition {partition} failed"),
                error,
            )),
            code if is_passing(code) => Ok(()),
            _ => {
                tracing::warn!(topic, partition, "kafka: {error}");
                Ok(())
            }
        }
    }
}
