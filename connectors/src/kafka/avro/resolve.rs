//! One writer's schema resolved against what is to be read, and its messages decoded.
//!
//! arrow-avro decodes into builders column by column, and a message that breaks off leaves them
//! uneven. So a decoder that failed is thrown away and the good messages before are decoded again:
//! once each, whatever comes.
//!
//! Avro's rules of resolution leave logical types out of account: milliseconds read as microseconds are off by
//! 1000, a decimal of another scale by a power of ten. Here the writer's unit and scale count, and
//! values are converted.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow_avro::reader::Decoder;
use serde_json::{Map, Value};

use super::cast::{Cell, cell};
use super::target::{Target, decoder, is_null, record_fields, scalar};

/// Messages of one schema, ready to be decoded.
pub(super) struct Resolved {
    id: u32,
    writer: String,
    reader: Option<Value>,
    projection: Option<Vec<usize>>,
    decoder: Decoder,
    cells: Vec<Cell>,
    target: Target,
}

/// Rows, and which message each came from.
pub(super) type Rows = (RecordBatch, Vec<usize>);

impl Resolved {
    /// Resolves schema `id`; else says why its messages cannot be read.
    pub(super) fn new(id: u32, writer: &str, target: &Target) -> Result<Self, String> {
        let of_schema = |reason: String| format!("schema {id}: {reason}");
        Self::resolve(id, writer, target).map_err(of_schema)
    }

    fn resolve(id: u32, writer: &str, target: &Target) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(writer).map_err(|e| format!("not JSON: {e}"))?;
        let fields = record_fields(&schema)?;
        let (reader, projection) = match &target.reader {
            Some(reader) => (Some(adapt(reader, &schema)), None),
            None => {
                let columns = target.columns.fields().iter().filter_map(|column| {
                    fields.iter().position(|f| f.get("name").and_then(Value::as_str) == Some(column.name()))
                });
                (None, Some(columns.collect::<Vec<_>>()))
            }
        };
        // A field may use a type that is defined in one left out: then all are decoded.
        let (decoder, projection) = match decoder(id, writer, reader.as_ref(), projection.clone()) {
            Ok(made) => (made, projection),
            Err(reason) if projection.is_none() => return Err(reason),
            Err(_) => (decoder(id, writer, None, None)?, None),
        };
        let decoded = decoder.schema();
        let mut cells = Vec::new();
        for column in target.columns.fields() {
            let name = column.name();
            cells.push(match decoded.index_of(name) {
                Ok(index) => {
                    let from = decoded.field(index).data_type();
                    cell(index, from, column.data_type(), target.unit_ns).ok_or_else(|| {
                        let to = tidemill_engine::schema::type_name(column.data_type());
                        format!("its field `{name}` is {from}, which cannot be read as {to}")
                    })?
                }
                Err(_) if column.is_nullable() => Cell::Null,
                Err(_) => return Err(format!("it has no field `{name}`, and the column may not be null")),
            });
        }
        let (writer, target) = (writer.to_owned(), target.clone());
        Ok(Self { id, writer, reader, projection, decoder, cells, target })
    }

    /// Decodes `messages`; what is wrong with one goes into its place in `verdicts`.
    pub(super) fn decode<'a>(
        &mut self,
        messages: &[usize],
        payload: &impl Fn(usize) -> &'a [u8],
        verdicts: &mut [Option<String>],
    ) -> Vec<Rows> {
        let mut done = Vec::new();
        let mut good = Vec::with_capacity(messages.len());
        for &message in messages {
            match self.feed(payload(message)) {
                Ok(()) => good.push(message),
                Err(reason) => {
                    verdicts[message] = Some(reason);
                    let before = std::mem::take(&mut good);
                    self.again(&before, payload, verdicts, &mut done);
                }
            }
        }
        self.flush(good, payload, verdicts, &mut done);
        done
    }

    /// Decodes `messages`, which are sound one by one, with a new decoder.
    fn again<'a>(
        &mut self,
        messages: &[usize],
        payload: &impl Fn(usize) -> &'a [u8],
        verdicts: &mut [Option<String>],
        done: &mut Vec<Rows>,
    ) {
        // The same inputs made one before.
        match decoder(self.id, &self.writer, self.reader.as_ref(), self.projection.clone()) {
            Ok(new) => self.decoder = new,
            Err(reason) => return messages.iter().for_each(|m| verdicts[*m] = Some(reason.clone())),
        }
        for &message in messages {
            if let Err(reason) = self.feed(payload(message)) {
                // It was sound before; should it not be now, none of this decoder's rows can be trusted.
                return messages.iter().for_each(|m| verdicts[*m] = Some(reason.clone()));
            }
        }
        self.flush(messages.to_vec(), payload, verdicts, done);
    }

    fn feed(&mut self, payload: &[u8]) -> Result<(), String> {
        let room = self.decoder.capacity();
        let outcome = self.decoder.decode(payload);
        match (outcome, room - self.decoder.capacity()) {
            (Ok(used), 1) if used == payload.len() => Ok(()),
            (Ok(_), 0) => Err(format!("the record of schema {} breaks off", self.id)),
            (_, 1..) => Err(format!("there are bytes left behind the record of schema {}", self.id)),
            (Err(error), _) => Err(format!("not a record of schema {}: {error}", self.id)),
        }
    }

    /// Takes the decoder's rows. Text that is not UTF-8 and symbols that do not exist come out only
    /// here: then each half is tried by itself, down to the one message.
    fn flush<'a>(
        &mut self,
        messages: Vec<usize>,
        payload: &impl Fn(usize) -> &'a [u8],
        verdicts: &mut [Option<String>],
        done: &mut Vec<Rows>,
    ) {
        if messages.is_empty() {
            return;
        }
        match self.decoder.flush() {
            Ok(Some(rows)) if rows.num_rows() == messages.len() => match self.shape(rows, messages, verdicts)
            {
                Ok(rows) => done.push(rows),
                Err((messages, reason)) => {
                    messages.iter().for_each(|m| verdicts[*m] = Some(reason.clone()));
                }
            },
            broken => {
                if let [message] = messages[..] {
                    let reason = broken.err().map_or_else(|| "it gave no row".into(), |e| e.to_string());
                    verdicts[message] = Some(format!("not a record of schema {}: {reason}", self.id));
                    return self.again(&[], payload, verdicts, done);
                }
                let (first, second) = messages.split_at(messages.len() / 2);
                self.again(first, payload, verdicts, done);
                self.again(second, payload, verdicts, done);
            }
        }
    }

    /// Makes the promised columns; rows where that fails get a verdict and are left out.
    fn shape(
        &self,
        rows: RecordBatch,
        mut messages: Vec<usize>,
        verdicts: &mut [Option<String>],
    ) -> Result<Rows, (Vec<usize>, String)> {
        let (decoded, count) = (rows.columns(), rows.num_rows());
        let mut made: Vec<ArrayRef> = Vec::with_capacity(self.cells.len());
        let mut bad = false;
        for (cell, column) in self.cells.iter().zip(self.target.columns.fields()) {
            let array = match cell.make(decoded, column.data_type(), count) {
                Ok(array) => array,
                Err(reason) => return Err((messages, format!("column `{}`: {reason}", column.name()))),
            };
            if cell.suspect(decoded, &array, column.is_nullable()) {
                for (i, message) in messages.iter().enumerate() {
                    if verdicts[*message].is_none() {
                        verdicts[*message] =
                            cell.fault(decoded, &array, column.name(), column.is_nullable(), i);
                        bad |= verdicts[*message].is_some();
                    }
                }
            }
            made.push(array);
        }
        let keep =
            bad.then(|| messages.iter().map(|m| Some(verdicts[*m].is_none())).collect::<BooleanArray>());
        if let Some(keep) = &keep {
            // A batch may not hold null where the schema forbids it, not even for a moment.
            for column in &mut made {
                *column = match arrow::compute::filter(column, keep) {
                    Ok(kept) => kept,
                    Err(e) => return Err((messages, e.to_string())),
                };
            }
            messages.retain(|m| verdicts[*m].is_none());
        }
        match RecordBatch::try_new(self.target.columns.clone(), made) {
            Ok(rows) => Ok((rows, messages)),
            Err(e) => Err((messages, e.to_string())),
        }
    }
}

/// The rows that `keep` names.
pub(super) fn only(rows: Rows, verdicts: &[Option<String>]) -> Rows {
    let (batch, mut messages) = rows;
    if messages.iter().all(|m| verdicts[*m].is_none()) {
        return (batch, messages);
    }
    let keep: BooleanArray = messages.iter().map(|m| Some(verdicts[*m].is_none())).collect();
    let batch = filter_record_batch(&batch, &keep).expect("the mask is as long as the batch");
    messages.retain(|m| verdicts[*m].is_none());
    (batch, messages)
}

/// The reader's schema made fit for one writer's: the record takes the writer's name (topics'
/// records are distinguished by their id, not by their name), and fields of both the writer's unit and scale.
fn adapt(reader: &Value, writer: &Value) -> Value {
    let mut reader = reader.clone();
    let Some(record) = reader.as_object_mut() else { return reader };
    record.remove("namespace");
    for name in ["name", "namespace"] {
        if let Some(value) = writer.get(name) {
            record.insert(name.to_owned(), value.clone());
        }
    }
    let written = writer.get("fields").and_then(Value::as_array).into_iter().flatten();
    let types: Map<String, Value> =
        written.filter_map(|f| Some((f.get("name")?.as_str()?.to_owned(), f.get("type")?.clone()))).collect();
    for field in record.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
        let aliases = field.get("aliases").and_then(Value::as_array).into_iter().flatten();
        let names = field.get("name").into_iter().chain(aliases).filter_map(Value::as_str);
        let Some(from) = names.filter_map(|name| types.get(name)).next() else { continue };
        let Some(from) = scalar(from).filter(|t| t.get("logicalType").is_some()) else { continue };
        let from = from.clone();
        if let Some(to) = field.get_mut("type").and_then(scalar_mut)
            && to.get("logicalType").is_some()
            && to.get("type") == from.get("type")
        {
            *to = from;
        }
    }
    reader
}

fn scalar_mut(schema: &mut Value) -> Option<&mut Value> {
    if !schema.is_array() {
        return Some(schema);
    }
    schema.as_array_mut().filter(|b| b.len() == 2)?.iter_mut().find(|b| !is_null(b))
}
