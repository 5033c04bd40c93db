//! Rows: the columns that every stream carries, and how rows are ordered.
//!
//! A stream's batches are Arrow `RecordBatch`es of one schema whose first three columns are the
//! engine's own: `ts` (event time, UTC nanoseconds), `_src` (which partition of which source the
//! row came from) and `_seq` (its position there). None of them is ever null. A derived row takes
//! `_src` and `_seq` from the last row that made it, so `(ts, _src, _seq)` orders every stream.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{
    DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use arrow::error::ArrowError;

/// Name of the event time column.
pub const TS: &str = "ts";
/// Name of the origin column: source and partition.
pub const SRC: &str = "_src";
/// Name of the position column.
pub const SEQ: &str = "_seq";
/// How many leading columns belong to the engine.
pub const SYSTEM_COLUMNS: usize = 3;

/// The type of `ts`.
pub fn ts_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// The type of key-like text columns (`symbol`, `venue`): dictionary-encoded UTF-8.
pub fn symbol_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The three system fields.
pub fn system_fields() -> Vec<Arc<Field>> {
    vec![
        Arc::new(Field::new(TS, ts_type(), false)),
        Arc::new(Field::new(SRC, DataType::UInt64, false)),
        Arc::new(Field::new(SEQ, DataType::UInt64, false)),
    ]
}

/// A stream schema: the system columns, then `user` (any system names in it are skipped).
pub fn stream_schema<'a>(user: impl IntoIterator<Item = &'a Arc<Field>>) -> SchemaRef {
    let mut fields = system_fields();
    fields.extend(user.into_iter().filter(|f| !is_system(f.name())).cloned());
    Arc::new(Schema::new(fields))
}

/// Whether `name` is one of the engine's own columns.
pub fn is_system(name: &str) -> bool {
    matches!(name, TS | SRC | SEQ)
}

/// Event times of a batch, nanoseconds since the epoch.
pub fn ts(batch: &RecordBatch) -> &[i64] {
    batch.column(0).as_primitive::<TimestampNanosecondType>().values()
}

/// Origins of a batch.
pub fn src(batch: &RecordBatch) -> &[u64] {
    batch.column(1).as_primitive::<UInt64Type>().values()
}

/// Positions of a batch.
pub fn seq(batch: &RecordBatch) -> &[u64] {
    batch.column(2).as_primitive::<UInt64Type>().values()
}

/// An event time column from nanoseconds.
pub fn ts_array(values: Vec<i64>) -> ArrayRef {
    Arc::new(arrow::array::TimestampNanosecondArray::from(values).with_timezone("UTC"))
}

/// An origin or position column.
pub fn u64_array(values: Vec<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from(values))
}

/// Builds the `_src` value of a partition: a stable hash of the source's name, then the partition.
pub fn origin(source: &str, partition: u32) -> u64 {
    let name = xxhash_rust::xxh3::xxh3_64(source.as_bytes()) >> 32;
    (name << 32) | u64::from(partition)
}

/// The partition in a `_src` value.
pub fn origin_partition(src: u64) -> u32 {
    (src & 0xffff_ffff) as u32
}

/// Puts batches of one schema end to end.
pub fn concat(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    match batches {
        [one] => Ok(one.clone()),
        many => arrow::compute::concat_batches(schema, many),
    }
}

/// The text of row `i` of a `Utf8` or dictionary column; `None` where null or not text.
pub fn text(column: &ArrayRef, i: usize) -> Option<&str> {
    if column.is_null(i) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(i)),
        DataType::Dictionary(..) => {
            let dict = column.as_dictionary_opt::<Int32Type>()?;
            let key = dict.keys().value(i) as usize;
            Some(dict.values().as_string_opt::<i32>()?.value(key))
        }
        _ => None,
    }
}
