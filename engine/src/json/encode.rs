//! Arrow rows into JSON objects.
//!
//! Times are RFC 3339 in UTC with 0, 3, 6 or 9 fractional digits, as many as the value needs; floats
//! are the shortest decimal that reads back the same (`1.0`, not `1`), those that are not finite
//! are null; decimals are text, which keeps every digit; binary is text where it is valid UTF-8,
//! else `{"base64": "…"}`; lists are arrays; types without a JSON form of their own are Arrow's text for them.

use std::fmt::Write as _;
use std::ops::Range;

use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::time::TimeWriter;
use crate::row;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct EncodeOptions {
    /// Whether `_src` and `_seq` are written too.
    pub origin: bool,
    /// Whether each row ends in a line break.
    pub lines: bool,
}

/// Encodes batches of one schema; keeps its buffers from batch to batch.
#[derive(Debug)]
pub struct Encoder {
    /// The column's index and `{"name":` or `,"name":`.
    columns: Vec<(usize, Vec<u8>)>,
    lines: bool,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    times: TimeWriter,
    text: String,
}

/// Encoded rows.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    bytes: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Rows<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &'a [u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let rows = *self;
        (0..rows.len()).map(move |i| rows.row(i))
    }

    /// All rows, one after another.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// A column, downcast once per batch.
enum Column<'a> {
    /// Values and units per second.
    Time(&'a [i64], i64),
    Date(&'a [i32]),
    F64(&'a [f64]),
    F32(&'a [f32]),
    I64(&'a [i64]),
    I32(&'a [i32]),
    U64(&'a [u64]),
    U32(&'a [u32]),
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Decimal(&'a Decimal128Array),
    /// Codes, and where in `escaped` each dictionary value stands.
    Symbol(&'a [i32], Vec<Range<usize>>, Vec<u8>),
    /// Where each row's values begin and end, the values, and which of them are null.
    List(&'a [i32], Box<Column<'a>>, Option<NullBuffer>),
    /// Other integers: as Arrow writes them, without quotes.
    Integer(ArrayFormatter<'a>),
    Other(ArrayFormatter<'a>),
    Null,
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef) -> Self {
        match array.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Self::Time(array.as_primitive::<TimestampNanosecondType>().values(), 1_000_000_000)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Time(array.as_primitive::<TimestampMicrosecondType>().values(), 1_000_000)
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Self::Time(array.as_primitive::<TimestampMillisecondType>().values(), 1_000)
            }
            DataType::Timestamp(TimeUnit::Second, _) => {
                Self::Time(array.as_primitive::<TimestampSecondType>().values(), 1)
            }
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>().values()),
            DataType::Float64 => Self::F64(array.as_primitive::<Float64Type>().values()),
            DataType::Float32 => Self::F32(array.as_primitive::<Float32Type>().values()),
            DataType::Int64 => Self::I64(array.as_primitive::<Int64Type>().values()),
            DataType::Int32 => Self::I32(array.as_primitive::<Int32Type>().values()),
            DataType::UInt64 => Self::U64(array.as_primitive::<UInt64Type>().values()),
            DataType::UInt32 => Self::U32(array.as_primitive::<UInt32Type>().values()),
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Binary => Self::Binary(array.as_binary()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive()),
            DataType::Dictionary(code, value) if **code == DataType::Int32 && **value == DataType::Utf8 => {
                Self::symbols(array.as_dictionary::<Int32Type>())
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let values = list.values();
                Self::List(list.offsets(), Box::new(Self::of(values)), values.logical_nulls())
            }
            other => match ArrayFormatter::try_new(array.as_ref(), &FormatOptions::new()) {
                Ok(formatter) if other.is_integer() => Self::Integer(formatter),
                Ok(formatter) => Self::Other(formatter),
                Err(_) => Self::Null,
            },
        }
    }

    /// Each dictionary value is escaped once, however many rows have it.
    fn symbols(array: &'a DictionaryArray<Int32Type>) -> Self {
        let values = array.values().as_string::<i32>();
        let mut escaped = Vec::with_capacity(values.value_data().len() + 2 * values.len());
        let ranges = values
            .iter()
            .map(|value| {
                let start = escaped.len();
                json(&value, &mut escaped);
                start..escaped.len()
            })
            .collect();
        Self::Symbol(array.keys().values(), ranges, escaped)
    }
}

fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value)
        .expect("numbers and text have a JSON form, and memory takes every write");
}

impl Encoder {
    /// An encoder of batches of `schema`.
    pub fn new(schema: SchemaRef, options: EncodeOptions) -> Self {
        let mut columns = Vec::new();
        for (i, field) in schema.fields().iter().enumerate() {
            let name = field.name().as_str();
            if matches!(name, row::SRC | row::SEQ) && !options.origin {
                continue;
            }
            let mut prefix = vec![if columns.is_empty() { b'{' } else { b',' }];
            json(name, &mut prefix);
            prefix.push(b':');
            columns.push((i, prefix));
        }
        Self {
            columns,
            lines: options.lines,
            bytes: Vec::new(),
            ends: Vec::new(),
            times: TimeWriter::default(),
            text: String::new(),
        }
    }

    /// Encodes all rows of `batch`, which has the encoder's schema.
    pub fn encode(&mut self, batch: &RecordBatch) -> Rows<'_> {
        self.bytes.clear();
        self.ends.clear();
        let arrays: Vec<_> = self
            .columns
            .iter()
            .map(|(i, prefix)| {
                let array = batch.column(*i);
                (prefix.as_slice(), Column::of(array), array.logical_nulls())
            })
            .collect();
        let out = &mut self.bytes;
        for row in 0..batch.num_rows() {
            for (prefix, column, nulls) in &arrays {
                out.extend_from_slice(prefix);
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    out.extend_from_slice(b"null");
                } else {
                    write(column, row, out, &mut self.times, &mut self.text);
                }
            }
            out.extend_from_slice(match (arrays.is_empty(), self.lines) {
                (false, false) => b"}",
                (false, true) => b"}\n",
                (true, false) => b"{}",
                (true, true) => b"{}\n",
            });
            self.ends.push(out.len());
        }
        Rows { bytes: &self.bytes, ends: &self.ends }
    }
}

fn write(column: &Column, row: usize, out: &mut Vec<u8>, times: &mut TimeWriter, text: &mut String) {
    match column {
        Column::Time(values, per_second) => quoted(out, |out| times.time(values[row], *per_second, out)),
        Column::Date(values) => quoted(out, |out| times.date(i64::from(values[row]), out)),
        // serde_json writes null for what is not finite.
        Column::F64(values) => json(&values[row], out),
        Column::F32(values) => json(&values[row], out),
        Column::I64(values) => json(&values[row], out),
        Column::I32(values) => json(&values[row], out),
        Column::U64(values) => json(&values[row], out),
        Column::U32(values) => json(&values[row], out),
        Column::Bool(values) => out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
        Column::Text(values) => json(values.value(row), out),
        Column::Binary(values) => match std::str::from_utf8(values.value(row)) {
            Ok(text) => json(text, out),
            Err(_) => {
                out.extend_from_slice(b"{\"base64\":\"");
                out.extend_from_slice(BASE64.encode(values.value(row)).as_bytes());
                out.extend_from_slice(b"\"}");
            }
        },
        Column::Decimal(values) => {
            out.push(b'"');
            out.extend_from_slice(values.value_as_string(row).as_bytes());
            out.push(b'"');
        }
        Column::Symbol(codes, ranges, escaped) => {
            out.extend_from_slice(&escaped[ranges[codes[row] as usize].clone()])
        }
        Column::List(offsets, values, nulls) => {
            out.push(b'[');
            let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            for i in start..end {
                if i > start {
                    out.push(b',');
                }
                match nulls {
                    Some(nulls) if nulls.is_null(i) => out.extend_from_slice(b"null"),
                    _ => write(values, i, out, times, text),
                }
            }
            out.push(b']');
        }
        Column::Integer(formatter) | Column::Other(formatter) => {
            text.clear();
            match write!(text, "{}", formatter.value(row)) {
                Ok(()) if matches!(column, Column::Integer(_)) => out.extend_from_slice(text.as_bytes()),
                Ok(()) => json(text.as_str(), out),
                Err(_) => out.extend_from_slice(b"null"),
            }
        }
        Column::Null => out.extend_from_slice(b"null"),
    }
}

/// Writes in quotes what `write` writes; null where it cannot.
fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> bool) {
    let start = out.len();
    out.push(b'"');
    if write(out) {
        out.push(b'"');
    } else {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn rows_are_written_as_consumers_expect() {
        let schema = row::stream_schema(&[
            Arc::new(Field::new("price", DataType::Float64, true)),
            Arc::new(Field::new("raw", DataType::Binary, false)),
            Arc::new(Field::new("cash", DataType::Decimal128(38, 18), false)),
            Arc::new(Field::new("day", DataType::Date32, false)),
            Arc::new(Field::new("n", DataType::Int16, false)),
            Arc::new(Field::new("symbol", row::symbol_type(), true)),
        ]);
        let symbols: DictionaryArray<Int32Type> = vec![Some("a\"b"), None, Some("ü")].into_iter().collect();
        let cash = Decimal128Array::from(vec![1, -1_500_000_000_000_000_000, 0])
            .with_precision_and_scale(38, 18)
            .unwrap();
        let rows = RecordBatch::try_new(
            schema.clone(),
            vec![
                row::ts_array(vec![0, -1, 1_700_000_000_120_000_000]),
                row::u64_array(vec![u64::MAX; 3]),
                row::u64_array(vec![0, 1, 2]),
                Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NAN), None])),
                Arc::new(BinaryArray::from(vec![b"\xff\xfe\x00\x01".as_slice(), b"text", b""])),
                Arc::new(cash),
                Arc::new(Date32Array::from(vec![0, 19_000, -1])),
                Arc::new(Int16Array::from(vec![1, 2, 3])),
                Arc::new(symbols),
            ],
        )
        .unwrap();
        let mut encoder = Encoder::new(schema.clone(), EncodeOptions::default());
        let written: Vec<String> =
            encoder.encode(&rows).iter().map(|r| String::from_utf8(r.to_vec()).unwrap()).collect();
        assert_eq!(
            written,
            [
                r#"{"ts":"1970-01-01T00:00:00Z","price":1.0,"raw":{"base64":"//4AAQ=="},"cash":"0.000000000000000001","day":"1970-01-01","n":1,"symbol":"a\"b"}"#,
                r#"{"ts":"1969-12-31T23:59:59.999999999Z","price":null,"raw":"text","cash":"-1.500000000000000000","day":"2022-01-08","n":2,"symbol":null}"#,
                r#"{"ts":"2023-11-14T22:13:20.120Z","price":null,"raw":"","cash":"0.000000000000000000","day":"1969-12-31","n":3,"symbol":"ü"}"#,
            ]
        );
        let mut encoder = Encoder::new(schema, EncodeOptions { origin: true, lines: true });
        let all = encoder.encode(&rows.slice(0, 1)).bytes().to_vec();
        assert!(all.starts_with(br#"{"ts":"1970-01-01T00:00:00Z","_src":18446744073709551615,"_seq":0,"#));
        assert!(all.ends_with(b"}\n"));
        assert!(encoder.encode(&rows.slice(0, 0)).is_empty());
    }

    #[test]
    fn lists_are_arrays() {
        let mut prices = ListBuilder::new(Float64Builder::new());
        prices.append_value([Some(1.5), None, Some(f64::INFINITY)]);
        prices.append_value([]);
        prices.append_null();
        prices.append_value([Some(2.0)]);
        let mut names = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
        (0..4).for_each(|i| {
            names.values().append_value(vec![Some("a\"b"); i]);
            names.append(true);
        });
        let (prices, names) = (prices.finish(), names.finish());
        let schema = row::stream_schema(&[
            Arc::new(Field::new("prices", prices.data_type().clone(), true)),
            Arc::new(Field::new("names", names.data_type().clone(), true)),
        ]);
        let rows = RecordBatch::try_new(
            schema.clone(),
            vec![
                row::ts_array(vec![0; 4]),
                row::u64_array(vec![0; 4]),
                row::u64_array(vec![0; 4]),
                Arc::new(prices),
                Arc::new(names),
            ],
        )
        .unwrap();
        let mut encoder = Encoder::new(schema, EncodeOptions::default());
        let head = r#"{"ts":"1970-01-01T00:00:00Z","prices":"#;
        let expect = [
            r#"[1.5,null,null],"names":[[]]}"#,
            r#"[],"names":[["a\"b"]]}"#,
            r#"null,"names":[["a\"b","a\"b"]]}"#,
            r#"[2.0],"names":[["a\"b","a\"b","a\"b"]]}"#,
        ];
        // A slice, too: its offsets do not begin at zero.
        for (rows, expect) in [(rows.clone(), &expect[..]), (rows.slice(1, 3), &expect[1..])] {
            let written = encoder.encode(&rows);
            let text: Vec<_> = written.iter().map(|r| String::from_utf8(r.to_vec()).unwrap()).collect();
            let expect: Vec<_> = expect.iter().map(|tail| format!("{head}{tail}")).collect();
            assert_eq!(text, expect);
        }
    }
}
