//! Avro messages in Confluent's framing into rows: a zero byte, the schema's id (4 bytes, big-endian),
//! then the record.
//!
//! Messages are held until their writers' schemas are there (fetching one waits, and a worker must not), then
//! decoded a chunk at a time. A message that is no record of its schema is a reject and leaves those beside it
//! alone; a registry that cannot be reached is an error of the connection, never of a message, so
//! rows stay a function of the topic and its schemas.
//!
//! Source: <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType, UInt64Type};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::Reject;

use super::format::AheadGuard;
use super::registry::Schemas;
use resolve::{Resolved, Rows};

mod cast;
mod resolve;
pub mod target;

pub use target::Target;

/// The byte that every message begins with.
const MAGIC: u8 = 0;
/// The magic byte and the id.
const PREFIX_BYTES: usize = 5;

/// Makes rows of one partition's messages.
pub(super) struct Messages {
    schemas: Arc<Schemas>,
    target: Target,
    ahead: Option<AheadGuard>,
    /// By schema id: ready, or why it never will be.
    resolved: HashMap<u32, Result<Resolved, String>>,
    held: Vec<Held>,
    bytes: Vec<u8>,
}

/// A message that waits to be decoded.
struct Held {
    offset: u64,
    key: Option<Range<usize>>,
    payload: Option<Range<usize>>,
    timestamp_ms: Option<i64>,
}

/// What a chunk's messages came to.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) rows: RecordBatch,
    pub(super) seqs: Vec<u64>,
    pub(super) rejects: Vec<Reject>,
}

impl Messages {
    pub(super) fn new(schemas: Arc<Schemas>, target: Target, ahead: Option<AheadGuard>) -> Self {
        Self { schemas, target, ahead, resolved: HashMap::new(), held: Vec::new(), bytes: Vec::new() }
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Holds a message.
    pub(super) fn push(
        &mut self,
        offset: u64,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        timestamp_ms: Option<i64>,
    ) {
        let mut keep = |part: &[u8]| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(part);
            start..self.bytes.len()
        };
        let (key, payload) = (key.map(&mut keep), payload.map(&mut keep));
        self.held.push(Held { offset, key, payload, timestamp_ms });
    }

    /// Decodes what is held, in the order in which it came; waits for the registry where a schema is new.
    ///
    /// Cancelled while it waits, it holds the messages still.
    pub(super) async fn decode(&mut self) -> Result<Decoded, ConnectorError> {
        let mut verdicts: Vec<Option<String>> = vec![None; self.held.len()];
        // Ids in the order of their first message.
        let mut groups: Vec<(u32, Vec<usize>)> = Vec::new();
        for (i, held) in self.held.iter().enumerate() {
            match self.framed(held) {
                Err(reason) => verdicts[i] = Some(reason),
                Ok(id) => match groups.iter_mut().rev().find(|(known, _)| *known == id) {
                    Some((_, messages)) => messages.push(i),
                    None => groups.push((id, vec![i])),
                },
            }
        }
        let mut missing: HashMap<u32, String> = HashMap::new();
        for (id, _) in &groups {
            if self.resolved.contains_key(id) {
                continue;
            }
            match self.schemas.get(*id).await? {
                Ok(schema) => {
                    self.resolved.insert(*id, Resolved::new(*id, &schema, &self.target));
                }
                Err(reason) => {
                    missing.insert(*id, reason);
                }
            }
        }
        let mut all: Vec<Rows> = Vec::new();
        for (id, messages) in &groups {
            let payload = |i: usize| self.held[i].payload.clone().map_or(&[][..], |at| &self.bytes[at]);
            let why = match self.resolved.get_mut(id) {
                Some(Ok(resolved)) => {
                    for rows in resolved.decode(messages, &payload, &mut verdicts) {
                        all.push(guard(self.ahead, rows, &self.held, &mut verdicts));
                    }
                    continue;
                }
                Some(Err(reason)) => reason.clone(),
                None => missing.remove(id).unwrap_or_default(),
            };
            messages.iter().for_each(|i| verdicts[*i] = Some(why.clone()));
        }
        let rows = self.in_order(all)?;
        let (mut seqs, mut rejects) = (Vec::with_capacity(rows.num_rows()), Vec::new());
        let taken = |at: &Option<Range<usize>>| at.clone().map(|at| self.bytes[at].to_vec());
        for (held, verdict) in self.held.iter().zip(verdicts) {
            match verdict {
                None => seqs.push(held.offset),
                Some(reason) => rejects.push(Reject {
                    seq: held.offset,
                    before: seqs.len(),
                    raw: taken(&held.payload).unwrap_or_default(),
                    key: taken(&held.key),
                    reason,
                }),
            }
        }
        self.held.clear();
        self.bytes.clear();
        Ok(Decoded { rows, seqs, rejects })
    }

    /// The schema id of a message.
    fn framed(&self, held: &Held) -> Result<u32, String> {
        let payload = held.payload.clone().ok_or("the message has no value (a tombstone)")?;
        match self.bytes[payload] {
            [MAGIC, a, b, c, d, ..] => Ok(u32::from_be_bytes([a, b, c, d])),
            [MAGIC, ..] => {
                Err(format!("the message is shorter than the {PREFIX_BYTES} bytes of magic and schema id"))
            }
            [first, ..] => Err(format!(
                "the first byte is {first:#04x}, not 0x00: this is not a message of a Schema Registry's serializer"
            )),
            [] => Err("the message is empty".to_owned()),
        }
    }

    /// Rows of several schemas in the order of their messages.
    fn in_order(&self, mut all: Vec<Rows>) -> Result<RecordBatch, ConnectorError> {
        let failed = |e| ConnectorError::fatal("cannot put decoded rows in order", e);
        match all.len() {
            0 => return Ok(RecordBatch::new_empty(self.target.columns.clone())),
            1 => return Ok(all.remove(0).0),
            _ => {}
        }
        let mut order: Vec<(usize, usize, usize)> = all
            .iter()
            .enumerate()
            .flat_map(|(b, (_, messages))| messages.iter().enumerate().map(move |(row, m)| (*m, b, row)))
            .collect();
        order.sort_unstable();
        let places: Vec<(usize, usize)> = order.into_iter().map(|(_, batch, row)| (batch, row)).collect();
        let batches: Vec<&RecordBatch> = all.iter().map(|(rows, _)| rows).collect();
        interleave_record_batch(&batches, &places).map_err(failed)
    }
}

/// Leaves out rows whose time is too far ahead of their messages' own.
fn guard(ahead: Option<AheadGuard>, rows: Rows, held: &[Held], verdicts: &mut [Option<String>]) -> Rows {
    let Some(guard) = ahead else { return rows };
    let column = rows.0.column(guard.column);
    let time = |i: usize| match column.data_type() {
        _ if column.is_null(i) => None,
        DataType::Timestamp(..) => Some(column.as_primitive::<TimestampNanosecondType>().value(i)),
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(i)),
        DataType::UInt64 => i64::try_from(column.as_primitive::<UInt64Type>().value(i)).ok(),
        _ => None,
    };
    for (i, message) in rows.1.iter().enumerate() {
        if let Err(reason) = guard.check(time(i), held[*message].timestamp_ms) {
            verdicts[*message] = Some(reason);
        }
    }
    resolve::only(rows, verdicts)
}

#[cfg(test)]
mod tests;
