//! Dead letters: input that could not become a row, kept with its bytes, origin and reason.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, StringBuilder, UInt32Builder};
use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::row;

/// Schema of a dead-letter stream: system columns, then `source`, `partition`, `position`,
/// `reason`, `key` and `raw` (the bytes as they came).
///
/// `ts` is the watermark of the partition at that point, so that the stream replays the same.
pub fn schema() -> SchemaRef {
    row::stream_schema(&[
        Arc::new(Field::new("source", DataType::Utf8, false)),
        Arc::new(Field::new("partition", DataType::UInt32, false)),
        Arc::new(Field::new("position", DataType::UInt64, false)),
        Arc::new(Field::new("reason", DataType::Utf8, false)),
        Arc::new(Field::new("key", DataType::Binary, true)),
        Arc::new(Field::new("raw", DataType::Binary, false)),
    ])
}

/// One dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The partition's watermark when it came.
    pub ts: i64,
    /// Where it stood in the partition.
    pub seq: u64,
    /// Why.
    pub reason: String,
    /// The message key, where there was one.
    pub key: Option<Vec<u8>>,
    /// The bytes as they came.
    pub raw: Vec<u8>,
}

/// Puts dead letters of one partition into a batch.
pub fn batch(source: &str, partition: u32, letters: &[DeadLetter]) -> RecordBatch {
    let n = letters.len();
    let origin = row::origin(source, partition);
    let mut names = StringBuilder::new();
    let mut partitions = UInt32Builder::new();
    let mut reasons = StringBuilder::new();
    let mut keys = BinaryBuilder::new();
    let mut raws = BinaryBuilder::new();
    for letter in letters {
        names.append_value(source);
        partitions.append_value(partition);
        reasons.append_value(&letter.reason);
        keys.append_option(letter.key.as_deref());
        raws.append_value(&letter.raw);
    }
    let seqs: Vec<u64> = letters.iter().map(|l| l.seq).collect();
    let columns: Vec<ArrayRef> = vec![
        row::ts_array(letters.iter().map(|l| l.ts).collect()),
        row::u64_array(vec![origin; n]),
        row::u64_array(seqs.clone()),
        Arc::new(names.finish()),
        Arc::new(partitions.finish()),
        row::u64_array(seqs),
        Arc::new(reasons.finish()),
        Arc::new(keys.finish()),
        Arc::new(raws.finish()),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns are those of the schema")
}
