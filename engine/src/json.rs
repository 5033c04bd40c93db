//! Rows from JSON and back, straight into and out of Arrow columns.
//!
//! [`Decoder`] takes one JSON object a message; [`Encoder`] gives one JSON object a row. What one
//! writes the other reads back: times with every nanosecond, floats bit for bit.

mod decode;
mod encode;
pub mod time;

pub use decode::{Decoder, Staged};
pub use encode::{EncodeOptions, Encoder, Rows};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row;
    use crate::spec::TimeUnitName;
    use arrow::array::*;
    use arrow::datatypes::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    type Line = (i64, Option<f64>, i64, Option<u64>, bool, Option<String>, String, i32);

    fn columns() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("ts", row::ts_type(), false),
            Field::new("f", DataType::Float64, true),
            Field::new("i", DataType::Int64, false),
            Field::new("u", DataType::UInt64, true),
            Field::new("b", DataType::Boolean, false),
            Field::new("text \"quoted\"", DataType::Utf8, true),
            Field::new("symbol", row::symbol_type(), false),
            Field::new("d", DataType::Date32, false),
        ]))
    }

    fn batch(lines: &[Line]) -> RecordBatch {
        let symbols: DictionaryArray<Int32Type> = lines.iter().map(|l| l.6.as_str()).collect();
        let columns_of: Vec<ArrayRef> = vec![
            row::ts_array(lines.iter().map(|l| l.0).collect()),
            Arc::new(lines.iter().map(|l| l.1).collect::<Float64Array>()),
            Arc::new(Int64Array::from_iter_values(lines.iter().map(|l| l.2))),
            Arc::new(lines.iter().map(|l| l.3).collect::<UInt64Array>()),
            Arc::new(BooleanArray::from(lines.iter().map(|l| l.4).collect::<Vec<_>>())),
            Arc::new(lines.iter().map(|l| l.5.clone()).collect::<StringArray>()),
            Arc::new(symbols),
            Arc::new(Date32Array::from_iter_values(lines.iter().map(|l| l.7))),
        ];
        RecordBatch::try_new(columns(), columns_of).unwrap()
    }

    proptest! {
        #[test]
        fn what_the_encoder_writes_the_decoder_reads_back(
            lines in proptest::collection::vec((
                any::<i64>(),
                proptest::option::of(proptest::num::f64::NORMAL | proptest::num::f64::ZERO | proptest::num::f64::SUBNORMAL),
                any::<i64>(),
                proptest::option::of(any::<u64>()),
                any::<bool>(),
                proptest::option::of(any::<String>()),
                any::<String>(),
                -700_000i32..2_900_000,
            ), 1..20)
        ) {
            let rows = batch(&lines);
            let mut encoder = Encoder::new(columns(), EncodeOptions::default());
            let mut decoder = Decoder::new(columns(), TimeUnitName::Ns);
            let encoded = encoder.encode(&rows);
            for row in encoded.iter() {
                // An independent parser agrees that it is one JSON object.
                let value: serde_json::Value = serde_json::from_slice(row).unwrap();
                prop_assert_eq!(value.as_object().unwrap().len(), 8);
                decoder.push(row).unwrap();
            }
            let back = decoder.finish();
            for (i, line) in lines.iter().enumerate() {
                prop_assert_eq!(back.column(0).as_primitive::<TimestampNanosecondType>().value(i), line.0);
                let f = back.column(1).as_primitive::<Float64Type>();
                prop_assert_eq!((!f.is_null(i)).then(|| f.value(i).to_bits()), line.1.map(f64::to_bits));
                prop_assert_eq!(back.column(2).as_primitive::<Int64Type>().value(i), line.2);
                let u = back.column(3).as_primitive::<UInt64Type>();
                prop_assert_eq!((!u.is_null(i)).then(|| u.value(i)), line.3);
                prop_assert_eq!(back.column(4).as_boolean().value(i), line.4);
                prop_assert_eq!(row::text(back.column(5), i), line.5.as_deref());
                prop_assert_eq!(row::text(back.column(6), i), Some(line.6.as_str()));
                prop_assert_eq!(back.column(7).as_primitive::<Date32Type>().value(i), line.7);
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_half_a_row(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut decoder = Decoder::new(columns(), TimeUnitName::Ns);
            let taken = decoder.push(&raw).is_ok();
            prop_assert_eq!(decoder.len(), usize::from(taken));
            prop_assert_eq!(decoder.finish().num_rows(), usize::from(taken));
        }
    }
}
