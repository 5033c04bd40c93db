//! Rows of Parquet files: by a mapping, or all columns as they are.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use tidemill_engine::row;

use super::columns::constant;
use super::mapping::{From, Mapping};
use super::{Failure, Rows};

/// Rows of a batch.
const BATCH_ROWS: usize = 32_768;

fn broken(name: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Range(format!("cannot read `{name}`: the file is damaged, or not Parquet: {error}"))
}

/// The columns of a file as the archive would have them: `ts` first, texts such as `symbol` dictionary-encoded.
pub fn schema(name: &str, path: &Path, times: &[String]) -> Result<SchemaRef, Failure> {
    let file = std::fs::File::open(path).map_err(|e| broken(name, e))?;
    let metadata =
        ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|e| broken(name, e))?;
    let fields = metadata.schema().fields();
    let time = times.iter().find_map(|t| fields.iter().position(|f| f.name().eq_ignore_ascii_case(t)));
    let mut columns = vec![Field::new(row::TS, row::ts_type(), false)];
    for (i, field) in fields.iter().enumerate() {
        if Some(i) == time {
            continue;
        }
        let kind = match field.data_type() {
            DataType::Timestamp(..) => row::ts_type(),
            DataType::Dictionary(..) => row::symbol_type(),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let key = ["symbol", "venue", "exchange", "side"].contains(&field.name().as_str());
                if key { row::symbol_type() } else { DataType::Utf8 }
            }
            DataType::Float32 => DataType::Float64,
            other => other.clone(),
        };
        columns.push(Field::new(field.name(), kind, field.is_nullable()));
    }
    Ok(Arc::new(Schema::new(columns)))
}

/// Reads a file to its end; blocks. `name` is how messages call it.
pub fn read(name: &str, path: &Path, mapping: &Mapping, out: &mut Rows) -> Result<(), Failure> {
    let file = std::fs::File::open(path).map_err(|e| broken(name, e))?;
    let bytes = file.metadata().map_or(0, |m| m.len());
    let plain = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|e| broken(name, e))?;
    let there: Vec<String> = plain.schema().fields().iter().map(|f| f.name().clone()).collect();
    let places = mapping.places(&there, name).map_err(Failure::Range)?;
    // Texts that become dictionaries are decoded as such: their values are not copied row by row.
    let hinted: Vec<Field> = plain
        .schema()
        .fields()
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let symbol = places
                .iter()
                .position(|p| *p == Some(i))
                .is_some_and(|c| matches!(mapping.schema.field(c).data_type(), DataType::Dictionary(..)));
            match f.data_type() {
                DataType::Utf8 if symbol => f.as_ref().clone().with_data_type(row::symbol_type()),
                _ => f.as_ref().clone(),
            }
        })
        .collect();
    let hint = Arc::new(Schema::new_with_metadata(hinted, plain.schema().metadata().clone()));
    let metadata =
        ArrowReaderMetadata::try_new(plain.metadata().clone(), ArrowReaderOptions::new().with_schema(hint))
            .map_err(|e| broken(name, e))?;
    let mut roots: Vec<usize> = places.iter().flatten().copied().collect();
    roots.sort_unstable();
    roots.dedup();
    let total: i64 = metadata.metadata().file_metadata().num_rows();
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots.iter().copied());
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_batch_size(BATCH_ROWS)
        .with_projection(mask)
        .build()
        .map_err(|e| broken(name, e))?;
    let mut behind = 0_u64;
    for batch in reader {
        let batch = batch.map_err(|e| broken(name, e))?;
        behind += batch.num_rows() as u64;
        let columns = (0..mapping.columns.len()).map(|i| {
            let array = places[i].and_then(|p| Some(batch.column(roots.binary_search(&p).ok()?)));
            convert(mapping, i, array, batch.num_rows()).map_err(|e| {
                Failure::Range(format!("`{name}`: column `{}`: {e}", mapping.schema.field(i).name()))
            })
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
        let rows = RecordBatch::try_new(mapping.schema.clone(), columns)
            .map_err(|e| Failure::Range(format!("`{name}`: {e}")))?;
        out.blocking_send(rows)?;
        out.at((u128::from(bytes) * u128::from(behind) / u128::from(total.max(1) as u64)) as u64);
    }
    Ok(())
}

/// A column as the mapping wants it.
fn convert(mapping: &Mapping, i: usize, array: Option<&ArrayRef>, n: usize) -> Result<ArrayRef, String> {
    let (field, column) = (mapping.schema.field(i), &mapping.columns[i]);
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |array: &ArrayRef, to: &DataType| {
        arrow::compute::cast_with_options(array, to, &strict).map_err(|e| e.to_string())
    };
    let Some(array) = array else {
        return match &column.from {
            From::Constant(text) => cast(&constant(text, n), field.data_type()),
            _ => Ok(arrow::array::new_null_array(field.data_type(), n)),
        };
    };
    let plain = column.shift_ns == 0 && column.time.format.is_none();
    match array.data_type() {
        same if same == field.data_type() && (plain || !mapping.is_time(i)) => Ok(array.clone()),
        kind if mapping.is_time(i) => {
            let times: Vec<Option<i64>> = match kind {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
                    let text = cast(array, &DataType::Utf8)?;
                    let text = text.as_string::<i32>();
                    let time = |t: Option<&str>| match t {
                        None => Ok(None),
                        Some(t) => {
                            column.time.parse(t).map(Some).ok_or_else(|| format!("`{t}` is not a time"))
                        }
                    };
                    text.iter().map(time).collect::<Result<_, _>>()?
                }
                kind if kind.is_integer() => {
                    let ints = cast(array, &DataType::Int64)?;
                    let ints = ints.as_primitive::<Int64Type>();
                    let time = |v: Option<i64>| match v {
                        None => Ok(None),
                        Some(v) => {
                            column.time.unit.ns(v).map(Some).ok_or_else(|| format!("{v} is not a time"))
                        }
                    };
                    ints.iter().map(time).collect::<Result<_, _>>()?
                }
                _ => {
                    let ints = cast(&cast(array, &row::ts_type())?, &DataType::Int64)?;
                    ints.as_primitive::<Int64Type>().iter().collect()
                }
            };
            let shifted: TimestampNanosecondArray =
                times.into_iter().map(|t| t.and_then(|t| t.checked_add(column.shift_ns))).collect();
            Ok(Arc::new(shifted.with_timezone("UTC")))
        }
        _ => cast(array, field.data_type()),
    }
}
