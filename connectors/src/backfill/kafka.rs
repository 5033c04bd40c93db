//! Kafka topics by time: the JSON messages of a topic between two message timestamps, with `_src` and `_seq` as the
//! `kafka` source gives them, so that the archive joins what comes live.
//!
//! Ranges are **offsets**, not times: event times of neighbouring messages overlap, offsets never do. A range is
//! called `kafka:TOPIC/PARTITION@FROM-TO`, `TO` exclusive; borders lie where the first message of a UTC day is
//! (by the brokers' index of timestamps), and where the log ended when it was read.

use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tidemill_archive::Covered;
use tidemill_engine::json::Decoder;
use tidemill_engine::row;
use tidemill_engine::spec::TimeUnitName;

use super::continuity::Rule;
use super::files::blocking;
use super::ranges::{Cut, Span, WHOLE, missing, pieces};
use super::{Failure, History, Rows, Work};
use crate::kafka::Connection;
use crate::kafka::admin::{ANSWER_TIMEOUT, READ_DEFAULTS, is_passing, partitions, read_fixed};
use crate::kafka::client::{Ear, create};

/// Rows of a batch.
const BATCH_ROWS: usize = 32_768;
/// How long a broker may be silent before a range is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const MS_NS: i64 = 1_000_000;

/// What of which topic.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The cluster.
    pub connection: Connection,
    /// The topic.
    pub topic: String,
    /// The columns of its JSON messages; `ts` among them.
    pub columns: SchemaRef,
    /// Unit of times that are plain numbers.
    pub unit: TimeUnitName,
    /// The name of the graph's source that reads the topic live: `_src` is made of it.
    pub source: String,
    /// By the messages' timestamps.
    pub span: Span,
}

/// A topic.
pub struct TopicHistory {
    wanted: Wanted,
    schema: SchemaRef,
    /// Partition and offsets of each work.
    chunks: std::sync::Mutex<Vec<(i32, Span)>>,
}

impl TopicHistory {
    /// A topic; refuses columns without `ts`.
    pub fn new(wanted: Wanted) -> Result<Self, String> {
        match wanted.columns.field_with_name(row::TS) {
            Ok(f) if *f.data_type() == row::ts_type() && !f.is_nullable() => {}
            _ => return Err("the schema needs a column `ts` of type timestamp, never null".into()),
        }
        let schema = row::stream_schema(wanted.columns.fields());
        Ok(Self { wanted, schema, chunks: Default::default() })
    }

    fn source(&self, partition: i32, offsets: Span) -> String {
        format!("kafka:{}/{partition}@{}-{}", self.wanted.topic, offsets.from, offsets.to)
    }

    /// The offsets of a partition that the dataset has.
    fn covered(&self, partition: i32, there: &[Covered]) -> Vec<Span> {
        let prefix = format!("kafka:{}/{partition}@", self.wanted.topic);
        let offsets = |r: &Covered| {
            let (from, to) = r.source.strip_prefix(&prefix)?.split_once('-')?;
            Some(Span::new(from.parse().ok()?, to.parse().ok()?))
        };
        there.iter().filter(|r| r.complete).filter_map(offsets).collect()
    }

    fn failed(&self, what: &str, error: impl std::fmt::Display) -> Failure {
        Failure::Range(format!(
            "cannot {what} kafka topic `{}` at {}: {error}",
            self.wanted.topic,
            self.wanted.connection.brokers()
        ))
    }
}

/// The borders of a partition's pieces, as offsets.
fn borders(
    client: &BaseConsumer<Ear>,
    topic: &str,
    partition: i32,
    span: Span,
) -> Result<Vec<i64>, KafkaError> {
    let (low, high) = client.fetch_watermarks(topic, partition, ANSWER_TIMEOUT)?;
    let mut borders = Vec::new();
    // From the beginning on, whenever that was, it is one piece.
    let days = if span.from <= 0 { vec![span] } else { pieces(span, Cut::Days) };
    let times = days.iter().map(|p| p.from).chain([span.to]);
    for ns in times {
        let ms = ns.div_euclid(MS_NS) + i64::from(ns.rem_euclid(MS_NS) > 0);
        let mut ask = TopicPartitionList::new();
        ask.add_partition_offset(topic, partition, Offset::Offset(ms.max(0)))?;
        let found = client.offsets_for_times(ask, ANSWER_TIMEOUT)?;
        let offset = match found.elements().first().map(|e| e.offset()) {
            Some(Offset::Offset(offset)) => offset,
            // No message is so new.
            _ => high,
        };
        borders.push(offset.clamp(low, high));
        if offset >= high {
            break;
        }
    }
    Ok(borders)
}

#[async_trait]
impl History for TopicHistory {
    fn columns(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn partition_by(&self) -> Vec<String> {
        vec!["date".into()]
    }

    fn rule(&self) -> Rule {
        // Marks of transactions and compaction leave holes in offsets that are no loss.
        Rule::None
    }

    async fn plan(&self, there: &[Covered], _force: bool) -> Result<Vec<Work>, Failure> {
        let Wanted { connection, topic, span, .. } = self.wanted.clone();
        let config = connection
            .config(&READ_DEFAULTS, &read_fixed("tidemill.backfill", "read_committed"))
            .map_err(|e| self.failed("read", e))?;
        let name = topic.clone();
        let asked = tokio::task::spawn_blocking(move || -> Result<Vec<Vec<i64>>, String> {
            let client: BaseConsumer<Ear> = create(&config, Ear::quiet()).map_err(|e| e.to_string())?;
            let count = partitions(&client, &name, ANSWER_TIMEOUT).map_err(|e| e.to_string())?;
            let count = count.ok_or("there is no such topic")?;
            (0..count as i32).map(|p| borders(&client, &name, p, span).map_err(|e| e.to_string())).collect()
        });
        let asked = asked.await.map_err(|e| self.failed("read", e))?.map_err(|e| self.failed("read", e));
        // Without its offsets nothing can be done at all.
        let all = asked.map_err(|e| Failure::Stop(e.to_string()))?;
        let (mut work, mut chunks) = (Vec::new(), Vec::new());
        for (partition, borders) in all.iter().enumerate() {
            let partition = partition as i32;
            let covered = self.covered(partition, there);
            let mut add = |offsets: Span| {
                work.push(Work {
                    source: self.source(partition, offsets),
                    key: vec![(
                        row::SRC.into(),
                        row::origin(&self.wanted.source, partition as u32).to_string(),
                    )],
                    label: format!("{topic}/{partition} offsets {} to {}", offsets.from, offsets.to),
                    span: WHOLE,
                    cut: Cut::Whole,
                    size: offsets.length().max(1),
                    index: chunks.len(),
                });
                chunks.push((partition, offsets));
            };
            let mut all: Vec<Span> = Vec::new();
            for window in borders.windows(2) {
                all.extend(missing(Span::new(window[0], window[1]), &covered));
            }
            // What is there keeps its name: the driver leaves it out, or brings it again.
            let (first, last) = (borders.first().copied(), borders.last().copied());
            let wanted = Span::new(first.unwrap_or_default(), last.unwrap_or_default());
            all.extend(covered.iter().copied().filter(|c| !c.overlap(wanted).is_empty()));
            all.sort_unstable();
            all.into_iter().for_each(&mut add);
        }
        *self.chunks.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = chunks;
        Ok(work)
    }

    async fn fetch(&self, work: &Work, _piece: Span, out: &mut Rows) -> Result<(), Failure> {
        let chunk =
            self.chunks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(work.index).copied();
        let Some((partition, offsets)) = chunk else {
            return Err(self.failed("read", "its offsets were not planned"));
        };
        let config = self
            .wanted
            .connection
            .config(&READ_DEFAULTS, &read_fixed("tidemill.backfill", "read_committed"))
            .map_err(|e| self.failed("read", e))?;
        let reading = Reading {
            topic: self.wanted.topic.clone(),
            partition,
            offsets,
            schema: self.schema.clone(),
            src: row::origin(&self.wanted.source, partition as u32),
            decoder: Decoder::new(self.wanted.columns.clone(), self.wanted.unit),
            seqs: Vec::new(),
        };
        let brokers = self.wanted.connection.brokers().to_owned();
        blocking(out, move |out| {
            let fail = |e: String| {
                Failure::Range(format!("cannot read kafka topic `{}` at {brokers}: {e}", reading.topic))
            };
            let client: BaseConsumer<Ear> = create(&config, Ear::quiet()).map_err(|e| fail(e.to_string()))?;
            let topic = reading.topic.clone();
            reading.run(&client, out).map_err(|e| match e {
                Failure::Range(reason) => {
                    Failure::Range(format!("cannot read kafka topic `{topic}` at {brokers}: {reason}"))
                }
                other => other,
            })
        })
        .await
    }
}

/// A partition being read from one offset to another.
struct Reading {
    topic: String,
    partition: i32,
    offsets: Span,
    schema: SchemaRef,
    src: u64,
    decoder: Decoder,
    seqs: Vec<u64>,
}

impl Reading {
    fn run(mut self, client: &BaseConsumer<Ear>, out: &mut Rows) -> Result<(), Failure> {
        let fail = |e: KafkaError| Failure::Range(e.to_string());
        let (low, _) = client.fetch_watermarks(&self.topic, self.partition, ANSWER_TIMEOUT).map_err(fail)?;
        if low > self.offsets.from {
            return Err(Failure::Range(format!(
                "offsets {} to {low} of partition {} are gone from it: its retention has removed them",
                self.offsets.from, self.partition
            )));
        }
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&self.topic, self.partition, Offset::Offset(self.offsets.from))
            .map_err(fail)?;
        client.assign(&assignment).map_err(fail)?;
        let mut silent = Duration::ZERO;
        let step = Duration::from_millis(200);
        loop {
            match client.poll(step) {
                Some(Ok(message)) => {
                    silent = Duration::ZERO;
                    let offset = message.offset();
                    if offset >= self.offsets.to {
                        break;
                    }
                    match message.payload().ok_or_else(|| "the message has no value (a tombstone)".to_owned())
                    {
                        Ok(payload) => match self.decoder.push(payload) {
                            Ok(()) => self.seqs.push(offset as u64),
                            Err(reason) => self.refuse(offset, &reason, out),
                        },
                        Err(reason) => self.refuse(offset, &reason, out),
                    }
                    if self.seqs.len() == BATCH_ROWS {
                        self.flush(out)?;
                        out.at(Span::new(self.offsets.from, offset).length());
                    }
                    if offset + 1 == self.offsets.to {
                        break;
                    }
                }
                // Behind the last message may stand marks of transactions, which are no messages.
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => silent += step,
                Some(Err(error)) => return Err(fail(error)),
                None => silent += step,
            }
            if silent >= SILENCE_MAX {
                return Err(Failure::Range(format!("no answer for {} s", SILENCE_MAX.as_secs())));
            }
        }
        self.flush(out)
    }

    fn refuse(&self, offset: i64, reason: &str, out: &mut Rows) {
        let (topic, partition) = (&self.topic, self.partition);
        out.refuse(|| format!("{topic}/{partition} offset {offset}: {reason}"));
    }

    fn flush(&mut self, out: &mut Rows) -> Result<(), Failure> {
        let seqs = std::mem::take(&mut self.seqs);
        let rows = self.decoder.finish();
        if seqs.is_empty() {
            return Ok(());
        }
        let columns: Result<Vec<ArrayRef>, Failure> = self
            .schema
            .fields()
            .iter()
            .map(|field| match field.name().as_str() {
                row::SRC => Ok(row::u64_array(vec![self.src; seqs.len()])),
                row::SEQ => Ok(row::u64_array(seqs.clone())),
                name => rows
                    .column_by_name(name)
                    .cloned()
                    .ok_or_else(|| Failure::Range(format!("the decoder gave no column `{name}`"))),
            })
            .collect();
        let batch = RecordBatch::try_new(self.schema.clone(), columns?)
            .map_err(|e| Failure::Range(format!("rows do not fit their columns: {e}")))?;
        out.blocking_send(batch)
    }
}
