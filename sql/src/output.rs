//! Answers as files: CSV, JSON, JSON lines, Parquet.
//!
//! Times are RFC 3339 in UTC. In CSV and JSON a struct's fields are columns of their own, `bar.open`;
//! Parquet keeps structs. CSV writes nulls as nothing, JSON as `null`, and decimals in JSON are text.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidemill_engine::json::{EncodeOptions, Encoder};

use crate::error::{ErrorKind, SqlError};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Comma-separated, with a header.
    Csv,
    /// One array of objects.
    Json,
    /// One object a line.
    Jsonl,
    /// Parquet, zstd.
    Parquet,
}

enum Inner<W: Write + Send> {
    Csv(csv::Writer<W>),
    Json { encoder: Encoder, out: W, first: bool, lines: bool },
    Parquet(ArrowWriter<W>),
}

/// Writes batches of one schema; [`Writer::finish`] ends the file.
pub struct Writer<W: Write + Send> {
    inner: Inner<W>,
    rows: u64,
}

impl<W: Write + Send> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("rows", &self.rows).finish_non_exhaustive()
    }
}

fn fail(e: impl std::fmt::Display) -> SqlError {
    SqlError::new(ErrorKind::Storage, format!("cannot write the answer: {e}"))
}

impl<W: Write + Send> Writer<W> {
    /// A file of rows of `schema`.
    pub fn new(format: Format, schema: &SchemaRef, out: W) -> Result<Self, SqlError> {
        let inner = match format {
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                // The header stands even where no row follows.
                writer.write(&flat(&RecordBatch::new_empty(schema.clone()))?).map_err(fail)?;
                Inner::Csv(writer)
            }
            Format::Json | Format::Jsonl => {
                let lines = format == Format::Jsonl;
                let schema = flat(&RecordBatch::new_empty(schema.clone()))?.schema();
                let encoder = Encoder::new(schema, EncodeOptions { origin: true, lines });
                Inner::Json { encoder, out, first: true, lines }
            }
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                Inner::Parquet(ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(fail)?)
            }
        };
        Ok(Self { inner, rows: 0 })
    }

    /// Writes rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        self.rows += batch.num_rows() as u64;
        match &mut self.inner {
            Inner::Csv(writer) => writer.write(&flat(batch)?).map_err(fail),
            Inner::Json { encoder, out, lines: true, .. } => {
                out.write_all(encoder.encode(&flat(batch)?).bytes()).map_err(fail)
            }
            Inner::Json { encoder, out, first, .. } => {
                for row in encoder.encode(&flat(batch)?).iter() {
                    out.write_all(if *first { b"[\n" } else { b",\n" }).map_err(fail)?;
                    out.write_all(row).map_err(fail)?;
                    *first = false;
                }
                Ok(())
            }
            Inner::Parquet(writer) => writer.write(batch).map_err(fail),
        }
    }

    /// Ends the file; gives the number of rows.
    pub fn finish(self) -> Result<u64, SqlError> {
        match self.inner {
            Inner::Csv(writer) => writer.into_inner().flush().map_err(fail)?,
            Inner::Json { mut out, first, lines, .. } => {
                if !lines {
                    out.write_all(if first { b"[]\n" } else { b"\n]\n" }).map_err(fail)?;
                }
                out.flush().map_err(fail)?;
            }
            Inner::Parquet(writer) => {
                writer.into_inner().map_err(fail)?.flush().map_err(fail)?;
            }
        }
        Ok(self.rows)
    }
}

/// The batch with a struct's fields as columns and views as plain text.
pub fn flat(batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let mut columns: Vec<(Arc<Field>, ArrayRef)> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        flatten(field.name(), column, field.is_nullable(), &mut columns)?;
    }
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(fail)
}

fn flatten(
    name: &str,
    column: &ArrayRef,
    nullable: bool,
    out: &mut Vec<(Arc<Field>, ArrayRef)>,
) -> Result<(), SqlError> {
    let to = match column.data_type() {
        DataType::Struct(_) => {
            let parts = column.as_struct();
            for (field, part) in parts.fields().iter().zip(parts.columns()) {
                // A null struct's fields are null.
                let part = match parts.nulls() {
                    Some(nulls) => {
                        let keep = arrow::array::BooleanArray::new(nulls.inner().clone(), None);
                        arrow::compute::nullif(part, &arrow::compute::not(&keep).map_err(fail)?)
                            .map_err(fail)?
                    }
                    None => part.clone(),
                };
                flatten(&format!("{name}.{}", field.name()), &part, true, out)?;
            }
            return Ok(());
        }
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) if !matches!(**value, DataType::Utf8) => (**value).clone(),
        other => other.clone(),
    };
    let column = if to == *column.data_type() { column.clone() } else { cast(column, &to).map_err(fail)? };
    out.push((Arc::new(Field::new(name, to, nullable)), column));
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringViewArray, StructArray, TimestampNanosecondArray};

    use super::*;

    fn batch() -> RecordBatch {
        let ts: ArrayRef =
            Arc::new(TimestampNanosecondArray::from(vec![1_381_152_600_000_000_000; 2]).with_timezone("UTC"));
        let symbol: ArrayRef = Arc::new(StringViewArray::from(vec![Some("BAC"), None]));
        let open: ArrayRef = Arc::new(Float64Array::from(vec![13.5, 1.0]));
        let fields = vec![Field::new("open", DataType::Float64, true)];
        let nulls = arrow::buffer::NullBuffer::from(vec![true, false]);
        let bar: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![open], Some(nulls)));
        RecordBatch::try_from_iter_with_nullable([
            ("ts", ts, false),
            ("symbol", symbol, true),
            ("bar", bar, true),
        ])
        .unwrap()
    }

    fn text(format: Format, batches: &[RecordBatch]) -> String {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(format, &batch().schema(), &mut bytes).unwrap();
        batches.iter().for_each(|b| writer.write(b).unwrap());
        assert_eq!(writer.finish().unwrap(), 2 * batches.len() as u64);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn text_formats_have_a_column_for_each_field() {
        assert_eq!(
            text(Format::Csv, &[batch()]),
            "ts,symbol,bar.open\n2013-10-07T13:30:00Z,BAC,13.5\n2013-10-07T13:30:00Z,,\n"
        );
        assert_eq!(
            text(Format::Jsonl, &[batch()]),
            "{\"ts\":\"2013-10-07T13:30:00Z\",\"symbol\":\"BAC\",\"bar.open\":13.5}\n\
             {\"ts\":\"2013-10-07T13:30:00Z\",\"symbol\":null,\"bar.open\":null}\n"
        );
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json, &[batch(), batch()])).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 4);
        assert_eq!(text(Format::Json, &[]), "[]\n");
        assert_eq!(text(Format::Csv, &[]), "ts,symbol,bar.open\n");
    }

    #[test]
    fn parquet_reads_back() {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(Format::Parquet, &batch().schema(), file.try_clone().unwrap()).unwrap();
        writer.write(&batch()).unwrap();
        writer.finish().unwrap();
        let mut reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 10).unwrap();
        assert_eq!(reader.next().unwrap().unwrap(), batch());
    }
}
