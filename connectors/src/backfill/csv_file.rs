//! Rows of CSV files by a mapping: a record becomes a row whole, or is refused with its line and the column.

use std::io::Read;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Int32Type};
use chrono::{Datelike, NaiveDate};

use super::mapping::{From, Mapping};
use super::text::TimeFormat;
use super::{Failure, Rows};

/// Rows of a batch.
const BATCH_ROWS: usize = 32_768;
/// How much of a value a message quotes.
const QUOTED_CHARS_MAX: usize = 40;
/// Days from year 1 to 1970.
const EPOCH_DAYS: i32 = 719_163;

/// How a CSV file is written.
#[derive(Clone, Debug)]
pub struct Dialect {
    /// Whether the first line names the columns.
    pub header: bool,
    /// Between values.
    pub delimiter: u8,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { header: true, delimiter: b',' }
    }
}

/// Reads a file to its end; blocks. `name` is how messages call it.
pub fn read(
    name: &str,
    bytes: impl Read,
    mapping: &Mapping,
    dialect: &Dialect,
    out: &mut Rows,
) -> Result<(), Failure> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(dialect.delimiter)
        .buffer_capacity(1 << 17)
        .from_reader(bytes);
    let broken =
        |e: csv::Error| Failure::Range(format!("cannot read `{name}`: it is damaged or cut off: {e}"));
    let mut record = csv::ByteRecord::new();
    let mut there = reader.read_byte_record(&mut record).map_err(broken)?;
    if !there {
        return match dialect.header {
            true => Err(Failure::Range(format!("`{name}` is empty: a header line is wanted"))),
            false => Ok(()),
        };
    }
    let width = record.len();
    let columns: Vec<String> = if dialect.header {
        let names = record
            .iter()
            .map(|h| String::from_utf8_lossy(h).trim_start_matches('\u{feff}').trim().to_owned());
        let names = names.collect();
        there = reader.read_byte_record(&mut record).map_err(broken)?;
        names
    } else {
        // The columns stand in the schema's order, but for those that are constant.
        let own = mapping.columns.iter().zip(mapping.schema.fields());
        let own = own.filter(|(c, _)| !matches!(c.from, From::Constant(_))).map(|(_, f)| f.name().clone());
        own.chain((0..).map(|i| format!("#{}", i + 1))).take(width).collect()
    };
    let places = mapping.places(&columns, name).map_err(Failure::Range)?;
    let mut builders = Builders::new(mapping, places);
    while there {
        if record.len() != width {
            let line = record.position().map_or(0, csv::Position::line);
            let n = record.len();
            out.refuse(|| format!("line {line} of `{name}`: {n} values, expected {width}"));
        } else if let Err(reason) = builders.push(&record) {
            let line = record.position().map_or(0, csv::Position::line);
            out.refuse(|| format!("line {line} of `{name}`: {reason}"));
        }
        if builders.rows == BATCH_ROWS {
            out.blocking_send(builders.finish())?;
        }
        there = reader.read_byte_record(&mut record).map_err(broken)?;
    }
    if builders.rows > 0 {
        out.blocking_send(builders.finish())?;
    }
    Ok(())
}

struct Builders<'a> {
    mapping: &'a Mapping,
    places: Vec<Option<usize>>,
    builders: Vec<Builder>,
    cells: Vec<Cell>,
    rows: usize,
}

enum Builder {
    Time(Vec<Option<i64>>),
    F64(Float64Builder),
    I64(Int64Builder),
    U64(UInt64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
    Symbol(StringDictionaryBuilder<Int32Type>),
    Date(Date32Builder),
}

#[derive(Clone, Copy)]
enum Cell {
    Null,
    F64(f64),
    I64(i64),
    U64(u64),
    Bool(bool),
    /// The text of the record's value here.
    Text,
    /// The mapping's constant.
    Constant,
}

impl<'a> Builders<'a> {
    fn new(mapping: &'a Mapping, places: Vec<Option<usize>>) -> Self {
        let builder = |t: &DataType| match t {
            DataType::Timestamp(..) => Builder::Time(Vec::with_capacity(BATCH_ROWS)),
            DataType::Float64 => Builder::F64(Float64Builder::with_capacity(BATCH_ROWS)),
            DataType::Int64 => Builder::I64(Default::default()),
            DataType::UInt64 => Builder::U64(Default::default()),
            DataType::Boolean => Builder::Bool(Default::default()),
            DataType::Dictionary(..) => Builder::Symbol(StringDictionaryBuilder::new()),
            DataType::Date32 => Builder::Date(Default::default()),
            _ => Builder::Text(Default::default()),
        };
        let builders = mapping.schema.fields().iter().map(|f| builder(f.data_type())).collect();
        Self { mapping, places, builders, cells: vec![Cell::Null; mapping.columns.len()], rows: 0 }
    }

    /// Appends a record, or nothing and says why.
    fn push(&mut self, record: &csv::ByteRecord) -> Result<(), String> {
        for i in 0..self.cells.len() {
            let field = self.mapping.schema.field(i);
            let column = &self.mapping.columns[i];
            if let From::Constant(_) = column.from {
                self.cells[i] = Cell::Constant;
                continue;
            }
            let raw = self.places[i].and_then(|p| record.get(p)).unwrap_or_default();
            self.cells[i] = match raw {
                [] if field.is_nullable() => Cell::Null,
                [] => return Err(format!("column `{}` is empty", field.name())),
                raw => {
                    let text = std::str::from_utf8(raw)
                        .map_err(|_| format!("column `{}` is not UTF-8 text", field.name()))?;
                    cell(&self.builders[i], text, &column.time, column.shift_ns).map_err(|wanted| {
                        let quoted: String = text.chars().take(QUOTED_CHARS_MAX).collect();
                        format!("column `{}`: `{quoted}` is not {wanted}", field.name())
                    })?
                }
            };
        }
        for (i, (builder, cell)) in self.builders.iter_mut().zip(&self.cells).enumerate() {
            let text = || match (cell, &self.mapping.columns[i].from) {
                (Cell::Constant, From::Constant(text)) => Some(text.as_str()),
                // It was seen to be UTF-8 above.
                (Cell::Text, _) => self.places[i].and_then(|p| std::str::from_utf8(record.get(p)?).ok()),
                _ => None,
            };
            match (builder, *cell) {
                (Builder::Time(b), Cell::I64(v)) => b.push(Some(v)),
                (Builder::Time(b), _) => b.push(None),
                (Builder::F64(b), Cell::F64(v)) => b.append_value(v),
                (Builder::F64(b), _) => b.append_null(),
                (Builder::I64(b), Cell::I64(v)) => b.append_value(v),
                (Builder::I64(b), _) => b.append_null(),
                (Builder::U64(b), Cell::U64(v)) => b.append_value(v),
                (Builder::U64(b), _) => b.append_null(),
                (Builder::Bool(b), Cell::Bool(v)) => b.append_value(v),
                (Builder::Bool(b), _) => b.append_null(),
                (Builder::Date(b), Cell::I64(v)) => b.append_value(v as i32),
                (Builder::Date(b), _) => b.append_null(),
                (Builder::Text(b), _) => b.append_option(text()),
                (Builder::Symbol(b), _) => b.append_option(text()),
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(&mut self) -> RecordBatch {
        self.rows = 0;
        let columns = self.builders.iter_mut().map(|builder| -> ArrayRef {
            match builder {
                Builder::Time(b) => {
                    Arc::new(TimestampNanosecondArray::from(std::mem::take(b)).with_timezone("UTC"))
                }
                Builder::F64(b) => Arc::new(b.finish()),
                Builder::I64(b) => Arc::new(b.finish()),
                Builder::U64(b) => Arc::new(b.finish()),
                Builder::Bool(b) => Arc::new(b.finish()),
                Builder::Text(b) => Arc::new(b.finish()),
                Builder::Symbol(b) => Arc::new(b.finish()),
                Builder::Date(b) => Arc::new(b.finish()),
            }
        });
        let columns: Vec<ArrayRef> = columns.collect();
        RecordBatch::try_new(self.mapping.schema.clone(), columns).expect(
            "every builder was made for its column and took one value a row, null only where it may be",
        )
    }
}

/// Parses a value; the error is what was wanted.
fn cell(builder: &Builder, text: &str, time: &TimeFormat, shift_ns: i64) -> Result<Cell, &'static str> {
    Ok(match builder {
        Builder::Text(_) | Builder::Symbol(_) => Cell::Text,
        Builder::F64(_) => Cell::F64(text.trim().parse().map_err(|_| "a number")?),
        Builder::I64(_) => Cell::I64(text.trim().parse().map_err(|_| "a whole number")?),
        Builder::U64(_) => Cell::U64(text.trim().parse().map_err(|_| "a whole number of 0 or more")?),
        Builder::Bool(_) => match text.trim() {
            "true" | "True" | "TRUE" | "1" => Cell::Bool(true),
            "false" | "False" | "FALSE" | "0" => Cell::Bool(false),
            _ => return Err("true or false"),
        },
        Builder::Date(_) => {
            let date: NaiveDate = text.trim().parse().map_err(|_| "a date such as 2024-01-02")?;
            Cell::I64(i64::from(date.num_days_from_ce() - EPOCH_DAYS))
        }
        Builder::Time(_) => {
            let ns = time.parse(text).and_then(|ns| ns.checked_add(shift_ns));
            Cell::I64(ns.ok_or("a time such as 2024-01-02T03:04:05Z")?)
        }
    })
}
