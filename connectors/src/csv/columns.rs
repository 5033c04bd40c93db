//! Values of a record into typed columns, all of them or none.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use tidemill_engine::row;
use tidemill_engine::spec::TimeUnitName;

/// How much of a value an error message quotes.
const QUOTED_CHARS_MAX: usize = 40;
/// Days from year 1 to 1970.
const EPOCH_DAYS: i32 = 719_163;

/// Builds the columns of one schema.
pub struct Columns {
    schema: SchemaRef,
    /// Where each column stands in a record.
    places: Vec<Option<usize>>,
    /// Values a record has.
    width: usize,
    unit_ns: i64,
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
    /// The text of the value at this place of the record, known to be UTF-8.
    Text(usize),
}

impl Columns {
    /// Columns of `schema`; column `i` is at `places[i]` of a record of `width` values.
    pub fn new(schema: SchemaRef, places: Vec<Option<usize>>, width: usize, unit: TimeUnitName) -> Self {
        let builder = |t: &DataType| match t {
            DataType::Timestamp(..) => Builder::Time(Vec::new()),
            DataType::Float64 => Builder::F64(Default::default()),
            DataType::Int64 => Builder::I64(Default::default()),
            DataType::UInt64 => Builder::U64(Default::default()),
            DataType::Boolean => Builder::Bool(Default::default()),
            DataType::Dictionary(..) => Builder::Symbol(StringDictionaryBuilder::new()),
            DataType::Date32 => Builder::Date(Default::default()),
            _ => Builder::Text(Default::default()),
        };
        let builders = schema.fields().iter().map(|f| builder(f.data_type())).collect();
        let cells = vec![Cell::Null; schema.fields().len()];
        Self { schema, places, width, unit_ns: unit.nanoseconds(), builders, cells, rows: 0 }
    }

    /// Appends a record; or nothing, and says why.
    pub fn push(&mut self, record: &csv::ByteRecord) -> Result<(), String> {
        if record.len() != self.width {
            return Err(format!("{} values, expected {}", record.len(), self.width));
        }
        for (i, place) in self.places.iter().enumerate() {
            let field = self.schema.field(i);
            let raw = place.and_then(|p| record.get(p)).unwrap_or_default();
            let place = place.unwrap_or_default();
            self.cells[i] = match raw {
                [] if field.is_nullable() => Cell::Null,
                [] => return Err(format!("column `{}` is empty", field.name())),
                raw => {
                    let text = std::str::from_utf8(raw)
                        .map_err(|_| format!("column `{}` is not UTF-8 text", field.name()))?;
                    cell(&self.builders[i], text, place, self.unit_ns).map_err(|wanted| {
                        let quoted: String = text.chars().take(QUOTED_CHARS_MAX).collect();
                        format!("column `{}`: `{quoted}` is not {wanted}", field.name())
                    })?
                }
            };
        }
        for (builder, cell) in self.builders.iter_mut().zip(&self.cells) {
            let text = |cell: Cell| match cell {
                Cell::Text(place) => record.get(place).and_then(|raw| std::str::from_utf8(raw).ok()),
                _ => None,
            };
            match (builder, *cell) {
                (Builder::Time(b), cell) => b.push(if let Cell::I64(v) = cell { Some(v) } else { None }),
                (Builder::F64(b), cell) => {
                    b.append_option(if let Cell::F64(v) = cell { Some(v) } else { None })
                }
                (Builder::I64(b), cell) => {
                    b.append_option(if let Cell::I64(v) = cell { Some(v) } else { None })
                }
                (Builder::U64(b), cell) => {
                    b.append_option(if let Cell::U64(v) = cell { Some(v) } else { None })
                }
                (Builder::Bool(b), cell) => {
                    b.append_option(if let Cell::Bool(v) = cell { Some(v) } else { None })
                }
                (Builder::Date(b), cell) => {
                    b.append_option(if let Cell::I64(v) = cell { Some(v as i32) } else { None })
                }
                (Builder::Text(b), cell) => b.append_option(text(cell)),
                (Builder::Symbol(b), cell) => b.append_option(text(cell)),
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// The rows since the last call.
    pub fn finish(&mut self) -> RecordBatch {
        let columns = self.builders.iter_mut().map(|builder| -> ArrayRef {
            match builder {
                Builder::Time(b) => {
                    let values = TimestampNanosecondArray::from(std::mem::take(b));
                    match row::ts_type() {
                        DataType::Timestamp(_, zone) => Arc::new(values.with_timezone_opt(zone)),
                        _ => Arc::new(values),
                    }
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
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .expect("every builder was made for its column and took one value a row")
    }
}

/// Parses a value; the error is what was wanted.
fn cell(builder: &Builder, text: &str, place: usize, unit_ns: i64) -> Result<Cell, &'static str> {
    Ok(match builder {
        Builder::Text(_) | Builder::Symbol(_) => Cell::Text(place),
        Builder::F64(_) => Cell::F64(text.trim().parse().map_err(|_| "a number")?),
        Builder::I64(_) => Cell::I64(text.trim().parse().map_err(|_| "a whole number")?),
        Builder::U64(_) => Cell::U64(text.trim().parse().map_err(|_| "a whole number of 0 or more")?),
        Builder::Bool(_) => match text.trim() {
            "true" | "True" | "TRUE" | "1" => Cell::Bool(true),
            "false" | "False" | "FALSE" | "0" => Cell::Bool(false),
            _ => return Err("true or false"),
        },
        Builder::Date(_) => {
            use chrono::Datelike;
            let date: NaiveDate = text.trim().parse().map_err(|_| "a date such as 2024-01-02")?;
            Cell::I64(i64::from(date.num_days_from_ce() - EPOCH_DAYS))
        }
        Builder::Time(_) => {
            Cell::I64(time(text.trim(), unit_ns).ok_or("a time such as 2024-01-02T03:04:05Z")?)
        }
    })
}

/// Nanoseconds from an integer, RFC 3339 text, or text without a zone (UTC).
fn time(text: &str, unit_ns: i64) -> Option<i64> {
    if let Ok(units) = text.parse::<i64>() {
        return units.checked_mul(unit_ns);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt();
    }
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let naive = formats.iter().find_map(|f| NaiveDateTime::parse_from_str(text, f).ok())?;
    naive.and_utc().timestamp_nanos_opt()
}
