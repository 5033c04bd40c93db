//! One stream's rows, read by column name.
//!
//! A column that is not there reads as null everywhere: what a run does not tell is left out of a report, it does not
//! stop it.

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use tidemill_engine::row;
use tidemill_trading::Decimal;
use tidemill_trading::money;

/// Rows of one schema.
pub struct Rows {
    batch: RecordBatch,
}

impl Rows {
    /// All of `batches` in their order.
    pub fn new(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self, ArrowError> {
        Ok(Self { batch: row::concat(schema, batches)? })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Event times.
    pub fn ts(&self) -> &[i64] {
        row::ts(&self.batch)
    }

    /// The rows as Arrow has them.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// A column of text.
    pub fn text(&self, name: &str) -> Text<'_> {
        Text(self.batch.column_by_name(name))
    }

    /// A column of numbers, exact ones rounded to the nearest `f64`.
    pub fn numbers(&self, name: &str) -> Numbers {
        let column = self.batch.column_by_name(name);
        Numbers(match column.map(|c| (c, c.data_type())) {
            Some((column, DataType::Decimal128(_, scale)))
                if i64::from(*scale) == i64::from(money::WIRE_SCALE) =>
            {
                let exact = column.as_primitive::<Decimal128Type>();
                Some(exact.iter().map(|v| v.and_then(money::from_wire).map(money::to_f64)).collect())
            }
            Some((column, t)) if t.is_numeric() => {
                cast(column, &DataType::Float64).ok().map(|c| c.as_primitive::<Float64Type>().clone())
            }
            _ => None,
        })
    }

    /// A column of exact numbers; those of an `f64` column are the decimals that they were written as.
    pub fn exact(&self, name: &str) -> Exact {
        match self.batch.column_by_name(name) {
            Some(column) if *column.data_type() == DataType::Decimal128(38, money::WIRE_SCALE as i8) => {
                Exact::Wire(column.as_primitive::<Decimal128Type>().clone())
            }
            _ => Exact::Float(self.numbers(name)),
        }
    }
}

/// Text by row.
#[derive(Clone, Copy)]
pub struct Text<'a>(Option<&'a ArrayRef>);

impl<'a> Text<'a> {
    /// The text of row `i`.
    pub fn get(self, i: usize) -> Option<&'a str> {
        self.0.and_then(|column| row::text(column, i))
    }
}

/// Numbers by row.
pub struct Numbers(Option<Float64Array>);

impl Numbers {
    /// The number of row `i`, if it is one.
    pub fn get(&self, i: usize) -> Option<f64> {
        self.0.as_ref().filter(|c| c.is_valid(i)).map(|c| c.value(i)).filter(|v| v.is_finite())
    }
}

/// Exact numbers by row.
pub enum Exact {
    /// As money is carried.
    Wire(Decimal128Array),
    /// As analytics are.
    Float(Numbers),
}

impl Exact {
    /// The number of row `i`.
    pub fn get(&self, i: usize) -> Option<Decimal> {
        match self {
            Self::Wire(column) => column.is_valid(i).then(|| column.value(i)).and_then(money::from_wire),
            Self::Float(column) => column.get(i).and_then(money::from_f64),
        }
    }
}
