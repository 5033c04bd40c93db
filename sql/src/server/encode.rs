//! Rows as Postgres sends them.
//!
//! Postgres's times have microseconds: a nanosecond that a time has is cut off on the wire (in the archive and in
//! the query it is there). Numbers have up to 38 digits, more than the client library's decimal
//! holds, so they go as text.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse};
use datafusion_postgres::pgwire::error::PgWireResult;
use datafusion_postgres::pgwire::messages::data::DataRow;

use super::fault;

/// The columns of an answer.
pub(super) fn fields(schema: &Schema, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    let fields: Vec<Field> =
        schema.fields().iter().map(|f| f.as_ref().clone().with_data_type(told(f.data_type()))).collect();
    arrow_schema_to_pg_fields(&Schema::new(fields), format, None)
}

/// The type a column is told to be.
fn told(kind: &DataType) -> DataType {
    match kind {
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal256(..) => {
            DataType::Decimal128(38, 0)
        }
        DataType::Float16 => DataType::Float32,
        DataType::Dictionary(_, values) => told(values),
        other => other.clone(),
    }
}

/// The rows of a batch.
pub(super) fn rows(
    batch: RecordBatch,
    fields: &Arc<Vec<FieldInfo>>,
) -> PgWireResult<impl Iterator<Item = PgWireResult<DataRow>> + Send + use<>> {
    let failed = |e: arrow::error::ArrowError| fault::new("XX000", e.to_string());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    let mut changed = Vec::with_capacity(batch.num_columns());
    for ((column, field), info) in batch.columns().iter().zip(batch.schema().fields()).zip(fields.iter()) {
        let to = match told(column.data_type()) {
            DataType::Decimal128(..) if info.format() == FieldFormat::Text => DataType::Utf8,
            DataType::Decimal128(38, 0) if !matches!(column.data_type(), DataType::Decimal128(..)) => {
                match column.data_type() {
                    DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal256(_, s) => {
                        DataType::Decimal128(38, *s)
                    }
                    other => other.clone(),
                }
            }
            other => other,
        };
        let column =
            if to == *column.data_type() { column.clone() } else { cast(column, &to).map_err(failed)? };
        columns.push(column);
        changed.push(Arc::new(field.as_ref().clone().with_data_type(to)));
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(changed)), columns, &options)
        .map_err(failed)?;
    Ok(encode_recordbatch(fields.clone(), batch))
}

/// The column of a `SHOW`.
pub(super) fn shown(name: &str) -> FieldInfo {
    FieldInfo::new(name.to_owned(), None, None, Type::TEXT, FieldFormat::Text)
}

/// The answer to a `SHOW`.
pub(super) fn show(name: &str, value: &str) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(vec![shown(name)]);
    let mut encoder = DataRowEncoder::new(fields.clone());
    encoder.encode_field(&Some(value))?;
    let row = encoder.take_row();
    let mut answer = QueryResponse::new(fields, futures::stream::once(async move { Ok(row) }));
    answer.set_command_tag("SHOW");
    Ok(answer)
}
