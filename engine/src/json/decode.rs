//! JSON objects into Arrow columns, without a tree of values in between.
//!
//! A row is staged first and appended only when all of it is valid, so a refused message leaves no
//! trace. Unknown fields are passed over. Of a field given twice the last one counts, as in most
//! JSON readers. Numbers may be quoted (`"101.5"`), as venues like to do.

use std::fmt;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Int32Type, SchemaRef, TimeUnit};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::time;
use crate::schema::type_name;
use crate::spec::TimeUnitName;

/// How much of a value an error message quotes.
const QUOTED_CHARS_MAX: usize = 40;
/// Integers up to here are exact in a float.
const FLOAT_EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Decodes JSON objects into the columns of one schema.
pub struct Decoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    row: Row,
    len: usize,
}

struct Column {
    name: Box<str>,
    kind: Kind,
    nullable: bool,
    builder: Builder,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    F64,
    I64,
    U64,
    Bool,
    Text,
    Time,
    Date,
    /// Of numbers.
    List,
}

enum Builder {
    F64(Float64Builder),
    I64(Int64Builder),
    U64(UInt64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
    Symbol(StringDictionaryBuilder<Int32Type>),
    Time(TimestampNanosecondBuilder),
    Date(Date32Builder),
    List(ListBuilder<Float64Builder>),
}

/// One row while it is read.
#[derive(Debug, Default)]
struct Row {
    cells: Vec<Cell>,
    text: String,
    numbers: Vec<f64>,
    unit_ns: i64,
    /// Why the row is refused, in our words; serde's error then only unwinds.
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Cell {
    Missing,
    Null,
    F64(f64),
    I64(i64),
    U64(u64),
    Bool(bool),
    /// A piece of [`Row::text`].
    Text(usize, usize),
    /// A piece of [`Row::numbers`].
    List(usize, usize),
}

impl Decoder {
    /// A decoder for `columns`, of the types that [`SchemaSpec`](crate::schema::SchemaSpec) knows, or lists of `f64`.
    /// Integers in timestamp columns count `unit` since the epoch.
    ///
    /// Columns of another type are a mistake of the caller's and always refused.
    pub fn new(columns: SchemaRef, unit: TimeUnitName) -> Self {
        let of = |f: &Arc<arrow::datatypes::Field>| {
            let (kind, builder) = match f.data_type() {
                DataType::Float64 => (Kind::F64, Builder::F64(Float64Builder::new())),
                DataType::Int64 => (Kind::I64, Builder::I64(Int64Builder::new())),
                DataType::UInt64 => (Kind::U64, Builder::U64(UInt64Builder::new())),
                DataType::Boolean => (Kind::Bool, Builder::Bool(BooleanBuilder::new())),
                DataType::Date32 => (Kind::Date, Builder::Date(Date32Builder::new())),
                DataType::Timestamp(TimeUnit::Nanosecond, tz) => (
                    Kind::Time,
                    Builder::Time(TimestampNanosecondBuilder::new().with_timezone_opt(tz.clone())),
                ),
                DataType::List(item) if *item.data_type() == DataType::Float64 => {
                    let list = ListBuilder::new(Float64Builder::new()).with_field(item.clone());
                    (Kind::List, Builder::List(list))
                }
                DataType::Dictionary(..) => (Kind::Text, Builder::Symbol(StringDictionaryBuilder::new())),
                _ => (Kind::Text, Builder::Text(StringBuilder::new())),
            };
            Column { name: f.name().as_str().into(), kind, nullable: f.is_nullable(), builder }
        };
        let columns_of = columns.fields().iter().map(of).collect();
        let row = Row {
            cells: vec![Cell::Missing; columns.fields().len()],
            unit_ns: unit.nanoseconds(),
            ..Row::default()
        };
        Self { schema: columns, columns: columns_of, row, len: 0 }
    }

    /// Appends the row in `raw`, one JSON object; or nothing, and says why.
    pub fn push(&mut self, raw: &[u8]) -> Result<(), String> {
        self.push_if(raw, |_| Ok(()))
    }

    /// Like [`push`](Self::push), and `accept` must find the row right too.
    pub fn push_if(
        &mut self,
        raw: &[u8],
        accept: impl FnOnce(&Staged) -> Result<(), String>,
    ) -> Result<(), String> {
        self.row.cells.fill(Cell::Missing);
        self.row.text.clear();
        self.row.numbers.clear();
        self.row.reason = None;
        let mut json = serde_json::Deserializer::from_slice(raw);
        let object = Object { columns: &self.columns, schema: &self.schema, row: &mut self.row };
        if let Err(error) = object.deserialize(&mut json).and_then(|()| json.end()) {
            return Err(self.row.reason.take().unwrap_or_else(|| format!("not valid JSON: {error}")));
        }
        for (column, cell) in self.columns.iter().zip(&self.row.cells) {
            match cell {
                Cell::Missing if !column.nullable => {
                    return Err(format!("column `{}` is missing", column.name));
                }
                Cell::Null if !column.nullable => return Err(format!("column `{}` is null", column.name)),
                _ => {}
            }
        }
        accept(&Staged(&self.row.cells))?;
        for (column, cell) in self.columns.iter_mut().zip(&self.row.cells) {
            column.builder.append(*cell, &self.row);
        }
        self.len += 1;
        Ok(())
    }

    /// Rows appended since the last [`finish`](Self::finish).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the rows.
    pub fn finish(&mut self) -> RecordBatch {
        let rows = std::mem::take(&mut self.len);
        let arrays = self.columns.iter_mut().map(|c| c.builder.finish()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .expect("every builder is of its field's type, has a value a row, and no null where none may be")
    }
}

/// A row that is valid and not yet appended.
pub struct Staged<'a>(&'a [Cell]);

impl Staged<'_> {
    /// The value of an integer, timestamp (nanoseconds) or date (days) column; `None` where null.
    pub fn integer(&self, column: usize) -> Option<i64> {
        match self.0.get(column)? {
            Cell::I64(value) => Some(*value),
            Cell::U64(value) => i64::try_from(*value).ok(),
            _ => None,
        }
    }
}

impl Builder {
    fn append(&mut self, cell: Cell, row: &Row) {
        let text = &row.text;
        match (self, cell) {
            (Self::F64(b), Cell::F64(v)) => b.append_value(v),
            (Self::I64(b), Cell::I64(v)) => b.append_value(v),
            (Self::U64(b), Cell::U64(v)) => b.append_value(v),
            (Self::Bool(b), Cell::Bool(v)) => b.append_value(v),
            (Self::Text(b), Cell::Text(from, to)) => b.append_value(&text[from..to]),
            (Self::Symbol(b), Cell::Text(from, to)) => b.append_value(&text[from..to]),
            (Self::Time(b), Cell::I64(v)) => b.append_value(v),
            (Self::Date(b), Cell::I64(v)) => b.append_value(v as i32),
            (Self::List(b), Cell::List(from, to)) => {
                b.values().append_slice(&row.numbers[from..to]);
                b.append(true);
            }
            (Self::F64(b), _) => b.append_null(),
            (Self::I64(b), _) => b.append_null(),
            (Self::U64(b), _) => b.append_null(),
            (Self::Bool(b), _) => b.append_null(),
            (Self::Text(b), _) => b.append_null(),
            (Self::Symbol(b), _) => b.append_null(),
            (Self::Time(b), _) => b.append_null(),
            (Self::Date(b), _) => b.append_null(),
            (Self::List(b), _) => b.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::F64(b) => Arc::new(b.finish()),
            Self::I64(b) => Arc::new(b.finish()),
            Self::U64(b) => Arc::new(b.finish()),
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
            Self::Symbol(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::List(b) => Arc::new(b.finish()),
        }
    }
}

/// Reads the object.
struct Object<'a> {
    columns: &'a [Column],
    schema: &'a SchemaRef,
    row: &'a mut Row,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

/// Fills in the visits that all end in the same refusal.
macro_rules! refuse {
    ($($visit:ident($type:ty) $what:expr;)*) => {
        $(fn $visit<E: serde::de::Error>(self, v: $type) -> Result<(), E> {
            let _ = &v;
            Err(self.refuse(&$what(v)))
        })*
    };
}

impl Object<'_> {
    fn refuse<E: serde::de::Error>(self, found: &str) -> E {
        self.row.reason = Some(format!("expected a JSON object, found {found}"));
        E::custom("")
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Producers write fields in one order: the column after the last one is tried first.
        let mut next = 0;
        while let Some(found) = map.next_key_seed(Name { columns: self.columns, next })? {
            let Some(index) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let column = &self.columns[index];
            map.next_value_seed(Value { column, index, schema: self.schema, row: self.row })?;
            next = index + 1;
        }
        Ok(())
    }

    refuse! {
        visit_bool(bool) describe_bool;
        visit_i64(i64) describe_number;
        visit_u64(u64) describe_number;
        visit_f64(f64) describe_number;
        visit_str(&str) describe_text;
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Err(self.refuse("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.refuse("a list"))
    }
}

/// Finds a field's column.
struct Name<'a> {
    columns: &'a [Column],
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        match self.columns.get(self.next) {
            Some(column) if *column.name == *name => Ok(Some(self.next)),
            _ => Ok(self.columns.iter().position(|c| *c.name == *name)),
        }
    }
}

/// Reads a value into its column's cell.
struct Value<'a> {
    column: &'a Column,
    index: usize,
    schema: &'a SchemaRef,
    row: &'a mut Row,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl Value<'_> {
    fn set<E>(self, cell: Cell) -> Result<(), E> {
        self.row.cells[self.index] = cell;
        Ok(())
    }

    fn refuse<E: serde::de::Error>(self, found: &str) -> E {
        let expected = match self.schema.field(self.index).data_type() {
            DataType::Timestamp(..) => "a timestamp (RFC 3339 text, or a number since the epoch)".to_owned(),
            DataType::List(_) => "a list of numbers".to_owned(),
            DataType::Date32 => "a date such as 2024-01-02".to_owned(),
            DataType::Utf8 | DataType::Dictionary(..) => "text".to_owned(),
            other => type_name(other),
        };
        self.row.reason = Some(format!("column `{}`: expected {expected}, found {found}", self.column.name));
        E::custom("")
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<(), E> {
        let integral = v.fract() == 0.0 && v.abs() <= FLOAT_EXACT_MAX;
        match self.column.kind {
            Kind::F64 => self.set(Cell::F64(v)),
            Kind::I64 if integral => self.set(Cell::I64(v as i64)),
            Kind::U64 if integral && v >= 0.0 => self.set(Cell::U64(v as u64)),
            // A float prints as the shortest decimal that means it: the one that was written.
            Kind::Time => match time::parse_decimal(&v.to_string(), self.row.unit_ns) {
                Some(ns) => self.set(Cell::I64(ns)),
                None => Err(self.refuse(&describe_number(v))),
            },
            _ => Err(self.refuse(&describe_number(v))),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<(), E> {
        match self.column.kind {
            Kind::F64 => self.set(Cell::F64(v as f64)),
            Kind::I64 => self.set(Cell::I64(v)),
            Kind::U64 if v >= 0 => self.set(Cell::U64(v as u64)),
            Kind::Time => match v.checked_mul(self.row.unit_ns) {
                Some(ns) => self.set(Cell::I64(ns)),
                None => Err(self.refuse(&describe_number(v))),
            },
            _ => Err(self.refuse(&describe_number(v))),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<(), E> {
        match self.column.kind {
            Kind::F64 => self.set(Cell::F64(v as f64)),
            Kind::U64 => self.set(Cell::U64(v)),
            _ => match i64::try_from(v) {
                Ok(v) => self.visit_i64(v),
                Err(_) => Err(self.refuse(&describe_number(v))),
            },
        }
    }

    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<(), E> {
        match self.column.kind {
            Kind::Bool => self.set(Cell::Bool(v)),
            _ => Err(self.refuse(&describe_bool(v))),
        }
    }

    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<(), E> {
        let cell = match self.column.kind {
            Kind::Text => {
                let from = self.row.text.len();
                self.row.text.push_str(v);
                Some(Cell::Text(from, self.row.text.len()))
            }
            Kind::F64 => v.parse::<f64>().ok().filter(|v| v.is_finite()).map(Cell::F64),
            Kind::I64 => v.parse().ok().map(Cell::I64),
            Kind::U64 => v.parse().ok().map(Cell::U64),
            Kind::Time => {
                time::parse_rfc3339(v).or_else(|| time::parse_decimal(v, self.row.unit_ns)).map(Cell::I64)
            }
            Kind::Date => time::parse_date(v).map(|days| Cell::I64(i64::from(days))),
            Kind::Bool | Kind::List => None,
        };
        match cell {
            Some(cell) => self.set(cell),
            None => Err(self.refuse(&describe_text(v))),
        }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.set(Cell::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !matches!(self.column.kind, Kind::List) {
            return Err(self.refuse("a list"));
        }
        let from = self.row.numbers.len();
        while let Some(item) = list.next_element::<Item>()? {
            let number = match item {
                Item::Number(number) => Some(number),
                Item::Text(text) => text.parse().ok().filter(|v: &f64| v.is_finite()),
                Item::Other(_) => None,
            };
            let Some(number) = number else {
                return Err(self.refuse("a list with something else"));
            };
            self.row.numbers.push(number);
        }
        let cell = Cell::List(from, self.row.numbers.len());
        self.set(cell)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.refuse("an object"))
    }
}

/// An element of a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Number(f64),
    Text(String),
    Other(IgnoredAny),
}

fn describe_bool(v: bool) -> String {
    v.to_string()
}

fn describe_number(v: impl fmt::Display) -> String {
    format!("the number {v}")
}

fn describe_text(v: &str) -> String {
    let cut: String = v.chars().take(QUOTED_CHARS_MAX).collect();
    let more = if cut.len() < v.len() { "…" } else { "" };
    format!("the text {cut:?}{more}")
}

#[cfg(test)]
mod tests;
