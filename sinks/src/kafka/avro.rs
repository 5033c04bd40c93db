//! Rows into Avro messages in Confluent's framing: a zero byte, the schema's id, the record.
//!
//! The schema is made from the stream's columns, or is the user's own; either way its id comes from the
//! registry before the first row, so a schema that the subject's rules refuse stops the job at its start.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use arrow_avro::schema::{FingerprintStrategy, SCHEMA_METADATA_KEY};
use arrow_avro::writer::format::AvroSoeFormat;
use arrow_avro::writer::{EncodedRows, Encoder, WriterBuilder};
use serde_json::{Value, json};
use tidemill_connectors::kafka::avro::target::{decoder, scalar};
use tidemill_connectors::kafka::registry::Registry;
use tidemill_engine::component::{Problems, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_engine::schema::type_name;

/// How rows become records: all that can be known before the registry is asked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Where the schema gets its id.
    pub(super) registry: Registry,
    /// The subject it is registered under.
    pub(super) subject: String,
    /// Whether it is registered where it is not there yet.
    pub(super) register: bool,
    shape: Shape,
}

/// A record's schema, and where its fields come from.
#[derive(Clone, Debug)]
struct Shape {
    avro: String,
    fields: SchemaRef,
    columns: Vec<Column>,
}

/// Where a field comes from.
#[derive(Clone, Debug)]
enum Column {
    Same(usize),
    Cast(usize),
    /// Text that is one of these symbols.
    Symbols(usize, Arc<StringArray>),
    Null,
}

impl Plan {
    /// A plan for `input`; `own` is the user's schema.
    pub(super) fn new(
        registry: Registry,
        subject: String,
        register: bool,
        record: &str,
        own: Option<&str>,
        input: &StreamInfo,
    ) -> Result<Self, Problems> {
        let avro = match own {
            Some(text) => text.to_owned(),
            None => derive(record, &input.schema)?.to_string(),
        };
        let shape = shape(avro, input)?;
        Ok(Self { registry, subject, register, shape })
    }

    /// Gets the schema's id.
    pub(super) async fn open(&self, topic: &str) -> Result<Writer, ConnectorError> {
        let (subject, avro) = (self.subject.as_str(), self.shape.avro.as_str());
        let id = if self.register {
            self.registry.register(subject, avro).await?
        } else {
            self.registry.lookup(subject, avro).await?.ok_or_else(|| {
                ConnectorError::Fatal(format!(
                    "the schema of the rows for kafka topic `{topic}` is not registered under subject `{subject}` at {}; \
                     register it, or let `auto_register: true` do it; it is {avro}",
                    self.registry.address()
                ))
            })?
        };
        tracing::info!(topic, subject, id, "writing with this avro schema");
        Writer::new(&self.shape, id)
            .map_err(|e| ConnectorError::fatal(format!("cannot write kafka topic `{topic}` as avro"), e))
    }
}

/// An Avro schema for a stream's columns.
fn derive(record: &str, schema: &SchemaRef) -> Result<Value, Problems> {
    let mut problems = Problems::new();
    let mut fields = Vec::new();
    for field in schema.fields() {
        let name = field.name();
        if matches!(name.as_str(), row::SRC | row::SEQ) {
            continue;
        }
        let avro = match avro_type(field.data_type()) {
            _ if !is_name(name) => Err(format!(
                "column `{name}` cannot be an Avro field: names are letters, digits and _, and begin with no digit"
            )),
            Some(avro) => Ok(avro),
            None => Err(format!(
                "column `{name}` is {}, which avro messages cannot hold",
                type_name(field.data_type())
            )),
        };
        match avro {
            Ok(avro) if field.is_nullable() => {
                fields.push(json!({"name": name, "type": ["null", avro], "default": null}));
            }
            Ok(avro) => fields.push(json!({"name": name, "type": avro})),
            Err(reason) => problems.push(
                Problem::new("format", reason)
                    .hint("leave it out or change it with `kind: select` before this sink"),
            ),
        }
    }
    match problems.is_empty() {
        true => Ok(json!({"type": "record", "name": record, "namespace": "tidemill", "fields": fields})),
        false => Err(problems),
    }
}

fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().next().is_some_and(|c| !c.is_ascii_digit())
}

/// The name of a topic's record.
pub(super) fn record_name(topic: &str) -> String {
    let name: String =
        topic.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if is_name(&name) { name } else { format!("_{name}") }
}

fn avro_type(kind: &DataType) -> Option<Value> {
    let logical = |base: &str, name: &str| json!({"type": base, "logicalType": name});
    Some(match kind {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
            json!("int")
        }
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 => json!("string"),
        DataType::Dictionary(_, values) if **values == DataType::Utf8 => json!("string"),
        DataType::Binary | DataType::FixedSizeBinary(_) => json!("bytes"),
        DataType::Date32 => logical("int", "date"),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => logical("long", "timestamp-nanos"),
        DataType::Timestamp(TimeUnit::Microsecond, _) => logical("long", "timestamp-micros"),
        DataType::Timestamp(TimeUnit::Millisecond, _) => logical("long", "timestamp-millis"),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) if *s >= 0 && *s <= *p as i8 => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": p, "scale": s})
        }
        _ => return None,
    })
}

/// Binds a schema's fields to a stream's columns.
fn shape(avro: String, input: &StreamInfo) -> Result<Shape, Problems> {
    let whole = |reason: String| vec![Problem::new("schema", reason)];
    let schema: Value = serde_json::from_str(&avro).map_err(|e| whole(format!("not JSON: {e}")))?;
    let decoded =
        decoder(0, &avro, None, None).map_err(|e| whole(format!("not an Avro record schema: {e}")))?.schema();
    let enums: Vec<Option<Arc<StringArray>>> = schema["fields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|field| {
            let symbols = scalar(&field["type"])?.get("symbols")?.as_array()?;
            Some(Arc::new(StringArray::from_iter_values(symbols.iter().filter_map(Value::as_str))))
        })
        .collect();
    let mut problems = Problems::new();
    let mut columns = Vec::new();
    for (field, symbols) in decoded.fields().iter().zip(enums) {
        match bind(field, symbols, input) {
            Ok(column) => columns.push(column),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let metadata = [(SCHEMA_METADATA_KEY.to_owned(), avro.clone())].into();
    let fields = Arc::new(Schema::new_with_metadata(decoded.fields().clone(), metadata));
    Ok(Shape { avro, fields, columns })
}

fn bind(field: &Field, symbols: Option<Arc<StringArray>>, input: &StreamInfo) -> Result<Column, Problem> {
    use DataType::{
        Binary, Decimal128, Decimal256, Dictionary, FixedSizeBinary, Float32, Float64, Int32, Int64,
        Timestamp, Utf8,
    };
    let name = field.name();
    let Ok(index) = input.schema.index_of(name) else {
        return match field.is_nullable() {
            true => Ok(Column::Null),
            false => Err(input
                .column("schema", name)
                .err()
                .unwrap_or_else(|| Problem::new("schema", format!("no column `{name}`")))),
        };
    };
    let column = input.schema.field(index);
    let problem = |reason: String| Problem::new("schema", reason);
    if column.is_nullable() && !field.is_nullable() {
        return Err(problem(format!("column `{name}` may be null, and the schema's field may not"))
            .hint(r#"make its type a union: ["null", …]"#));
    }
    let (from, to) = (column.data_type(), field.data_type());
    let text = match from {
        Utf8 => true,
        Dictionary(_, values) => **values == Utf8,
        _ => false,
    };
    if let Some(symbols) = symbols.filter(|_| text) {
        return Ok(Column::Symbols(index, symbols));
    }
    let fits = match (from, to) {
        _ if from == to => return Ok(Column::Same(index)),
        (_, Utf8 | Binary) if text => true,
        (FixedSizeBinary(_), Binary) | (Timestamp(..), Timestamp(..)) => true,
        (Float32 | Float64, Float32 | Float64) => true,
        (Decimal128(..) | Decimal256(..), Decimal128(..) | Decimal256(..) | Float64) => true,
        (from, Int32 | Int64 | Float64) => from.is_integer(),
        _ => false,
    };
    match fits {
        true => Ok(Column::Cast(index)),
        false => Err(problem(format!(
            "column `{name}` is {}, which cannot be written as the schema's {to}",
            type_name(from)
        ))),
    }
}

/// Makes messages of rows.
#[derive(Debug)]
pub(super) struct Writer {
    shape: Shape,
    encoder: Encoder,
}

impl Writer {
    fn new(shape: &Shape, id: u32) -> Result<Self, String> {
        let encoder = WriterBuilder::new(shape.fields.as_ref().clone())
            .with_fingerprint_strategy(FingerprintStrategy::Id(id))
            .build_encoder::<AvroSoeFormat>()
            .map_err(|e| e.to_string())?;
        Ok(Self { shape: shape.clone(), encoder })
    }

    /// The messages of `rows`.
    pub(super) fn encode(&mut self, rows: &RecordBatch) -> Result<EncodedRows, String> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.shape.columns.len());
        for (column, field) in self.shape.columns.iter().zip(self.shape.fields.fields()) {
            let made = match column {
                Column::Same(i) => Ok(rows.column(*i).clone()),
                Column::Cast(i) => {
                    // A value that does not fit is an error, not a null.
                    let strict = CastOptions { safe: false, ..CastOptions::default() };
                    cast_with_options(rows.column(*i), field.data_type(), &strict).map_err(|e| e.to_string())
                }
                Column::Symbols(i, symbols) => symbol_keys(rows.column(*i), symbols),
                Column::Null => Ok(new_null_array(field.data_type(), rows.num_rows())),
            };
            columns.push(made.map_err(|reason| format!("column `{}`: {reason}", field.name()))?);
        }
        let shaped = RecordBatch::try_new(self.encoder.schema(), columns).map_err(|e| e.to_string())?;
        self.encoder.encode(&shaped).map_err(|e| e.to_string())?;
        Ok(self.encoder.flush())
    }
}

/// Text as places in a list of symbols.
fn symbol_keys(column: &ArrayRef, symbols: &Arc<StringArray>) -> Result<ArrayRef, String> {
    let place = |text: &str| {
        let found = symbols.iter().position(|symbol| symbol == Some(text));
        found.map(|i| i as i32).ok_or_else(|| format!("`{text}` is not among the schema's symbols"))
    };
    let column = match column.data_type() {
        DataType::Dictionary(key, _) if **key == DataType::Int32 => column.clone(),
        _ => cast(column, &row::symbol_type()).map_err(|e| e.to_string())?,
    };
    let column = column.as_dictionary::<Int32Type>();
    let values = column.values().as_string::<i32>();
    // Dictionaries may hold values that no row has.
    let mut places: Vec<Option<i32>> = vec![None; values.len()];
    let mut keys = Vec::with_capacity(column.len());
    for key in column.keys() {
        keys.push(match key.map(|key| key as usize) {
            Some(key) if values.is_valid(key) => match places[key] {
                Some(place) => Some(place),
                None => {
                    let found = place(values.value(key))?;
                    places[key] = Some(found);
                    Some(found)
                }
            },
            _ => None,
        });
    }
    let keyed =
        DictionaryArray::try_new(Int32Array::from(keys), symbols.clone()).map_err(|e| e.to_string())?;
    Ok(Arc::new(keyed))
}

#[cfg(test)]
mod tests;
