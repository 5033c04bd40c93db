//! Rows into messages, by the sink's format.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_avro::writer::EncodedRows;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::json::{EncodeOptions, Encoder, Rows};

use super::{Target, avro};

/// Makes messages of rows.
#[derive(Debug)]
pub(super) enum Messages {
    Json(Encoder),
    Avro(Box<avro::Writer>),
}

/// The messages of one batch.
pub(super) enum Encoded<'a> {
    Json(Rows<'a>),
    Avro(EncodedRows),
}

impl Messages {
    /// For rows of `schema`; asks the registry where there is one.
    pub(super) async fn open(target: &Target, schema: SchemaRef) -> Result<Self, ConnectorError> {
        Ok(match &target.avro {
            None => Self::Json(Encoder::new(schema, EncodeOptions::default())),
            Some(plan) => Self::Avro(Box::new(plan.open(&target.topic).await?)),
        })
    }

    pub(super) fn encode(&mut self, rows: &RecordBatch, topic: &str) -> Result<Encoded<'_>, ConnectorError> {
        match self {
            Self::Json(encoder) => Ok(Encoded::Json(encoder.encode(rows))),
            Self::Avro(writer) => writer.encode(rows).map(Encoded::Avro).map_err(|reason| {
                ConnectorError::Fatal(format!(
                    "a row for kafka topic `{topic}` cannot be written as avro: {reason}"
                ))
            }),
        }
    }
}

impl Encoded<'_> {
    /// The message of row `i`.
    pub(super) fn row(&self, i: usize) -> &[u8] {
        match self {
            Self::Json(rows) => rows.row(i),
            Self::Avro(rows) => &rows.bytes()[rows.offsets()[i]..rows.offsets()[i + 1]],
        }
    }
}
