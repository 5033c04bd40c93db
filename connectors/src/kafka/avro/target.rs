//! What messages are read as: the columns a graph names, or an Avro reader schema from a file.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow_avro::codec::Tz;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::Value;
use tidemill_engine::component::Problems;
use tidemill_engine::problem::Problem;

use super::cast;

/// What messages are read as.
#[derive(Clone, Debug)]
pub struct Target {
    /// The columns.
    pub columns: SchemaRef,
    /// An Avro schema that decides names, aliases and defaults; else fields are found by the columns' names.
    pub(super) reader: Option<Value>,
    /// Nanoseconds in a unit of times that are plain numbers.
    pub(super) unit_ns: i64,
}

impl Target {
    /// Fields by the names of `columns`.
    pub fn columns(columns: SchemaRef, unit_ns: i64) -> Self {
        Self { columns, reader: None, unit_ns }
    }

    /// The reader schema in `file`; problems at `path`.
    pub fn from_file(file: &Path, path: &str) -> Result<Self, Problems> {
        let problem = |reason: String| vec![Problem::new(path, reason)];
        let text = std::fs::read_to_string(file)
            .map_err(|e| problem(format!("cannot read the Avro schema {}: {e}", file.display())))?;
        let (reader, columns) =
            read_schema(&text).map_err(|reason| problem(format!("{}: {reason}", file.display())))?;
        Ok(Self { columns, reader: Some(reader), unit_ns: 1 })
    }
}

/// An Avro record schema, and the columns of a stream that holds its records.
pub fn read_schema(text: &str) -> Result<(Value, SchemaRef), String> {
    let schema: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    record_fields(&schema)?;
    let decoded = decoder(0, text, None, None)?.schema();
    let mut fields = Vec::new();
    for field in decoded.fields() {
        let kind = cast::stream_type(field.data_type()).ok_or_else(|| {
            format!(
                "field `{}` is {}, which cannot be a column; leave it out of the schema that is read with",
                field.name(),
                field.data_type()
            )
        })?;
        fields.push(Field::new(field.name(), kind, field.is_nullable()));
    }
    Ok((schema, Arc::new(Schema::new(fields))))
}

/// The fields of a record schema.
pub(super) fn record_fields(schema: &Value) -> Result<&Vec<Value>, String> {
    match (schema.get("type").and_then(Value::as_str), schema.get("fields").and_then(Value::as_array)) {
        (Some("record"), Some(fields)) => Ok(fields),
        _ => Err("it is not a record".to_owned()),
    }
}

/// A decoder of messages in Confluent's framing that name schema `id`.
pub fn decoder(
    id: u32,
    writer: &str,
    reader: Option<&Value>,
    projection: Option<Vec<usize>>,
) -> Result<Decoder, String> {
    let failed = |e: arrow::error::ArrowError| e.to_string();
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(id), AvroSchema::new(writer.to_owned())).map_err(failed)?;
    let mut builder =
        ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(usize::MAX).with_tz(Tz::Utc);
    if let Some(reader) = reader {
        builder = builder.with_reader_schema(AvroSchema::new(reader.to_string()));
    }
    if let Some(projection) = projection {
        builder = builder.with_projection(projection);
    }
    builder.build_decoder().map_err(failed)
}

/// The type of a field that may be null or not: the one that is not null. `None` for other unions.
pub fn scalar(schema: &Value) -> Option<&Value> {
    match schema {
        Value::Array(branches) if branches.len() == 2 => branches.iter().find(|b| !is_null(b)),
        Value::Array(_) => None,
        one => Some(one),
    }
}

pub(super) fn is_null(schema: &Value) -> bool {
    schema.as_str() == Some("null")
}
