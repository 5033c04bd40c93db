//! The values of one row a key, by column: what an as-of join remembers of its right side.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use serde::{Deserialize, Serialize};
use tidemill_engine::keyed::SlotStore;
use tidemill_engine::operator::OperatorError;
use tidemill_engine::row;

/// Whether columns of this type can be remembered.
pub fn fits(t: &DataType) -> bool {
    let text = matches!(t, DataType::Utf8) || *t == row::symbol_type();
    let number = t.is_integer() || t.is_floating();
    text || number
        || matches!(t, DataType::Boolean | DataType::Date32 | DataType::Timestamp(TimeUnit::Nanosecond, _))
}

/// A value in a snapshot.
#[derive(Serialize, Deserialize)]
enum Cell {
    Null,
    Bits(u64),
    Text(String),
}

#[derive(Debug)]
enum Values {
    /// Numbers, by their bits (see [`wide`]).
    Bits(Vec<Option<u64>>),
    Text(Vec<Option<Box<str>>>),
}

/// The widest type of a kind, as which a number is kept.
fn wide(t: &DataType) -> DataType {
    match t {
        t if t.is_floating() => DataType::Float64,
        t if t.is_unsigned_integer() => DataType::UInt64,
        _ => DataType::Int64,
    }
}

/// A batch's column, readable by row.
enum View {
    Float(Float64Array),
    Int(Int64Array),
    Uint(UInt64Array),
    Text,
}

impl View {
    fn of(column: &ArrayRef) -> Result<Self, OperatorError> {
        Ok(match column.data_type() {
            DataType::Utf8 | DataType::Dictionary(..) => Self::Text,
            t => match wide(t) {
                DataType::Float64 => Self::Float(cast(column, &DataType::Float64)?.as_primitive().clone()),
                DataType::UInt64 => Self::Uint(cast(column, &DataType::UInt64)?.as_primitive().clone()),
                _ => Self::Int(cast(column, &DataType::Int64)?.as_primitive().clone()),
            },
        })
    }

    fn bits(&self, i: usize) -> Option<u64> {
        match self {
            Self::Float(a) => a.is_valid(i).then(|| a.value(i).to_bits()),
            Self::Int(a) => a.is_valid(i).then(|| a.value(i) as u64),
            Self::Uint(a) => a.is_valid(i).then(|| a.value(i)),
            Self::Text => None,
        }
    }
}

/// Where a left row's match is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// There is none.
    None,
    /// A row of the right batch at hand.
    Row(u32),
    /// What was remembered of a slot before it.
    Slot(u32),
}

/// The last right row of each key.
#[derive(Debug)]
pub struct Cells {
    types: Vec<DataType>,
    columns: Vec<Values>,
    /// When it was; `i64::MIN` where there is none.
    pub ts: Vec<i64>,
}

impl Cells {
    /// Remembers columns of these types.
    pub fn new(types: Vec<DataType>) -> Self {
        let column = |t: &DataType| match t {
            DataType::Utf8 | DataType::Dictionary(..) => Values::Text(Vec::new()),
            _ => Values::Bits(Vec::new()),
        };
        Self { columns: types.iter().map(column).collect(), types, ts: Vec::new() }
    }

    /// Keeps rows of a batch, `(slot, row)`, whose columns are `columns` and times `ts`.
    pub fn keep(
        &mut self,
        rows: &[(u32, u32)],
        columns: &[&ArrayRef],
        ts: &[i64],
    ) -> Result<(), OperatorError> {
        for (values, column) in self.columns.iter_mut().zip(columns) {
            let view = View::of(column)?;
            for (slot, row) in rows {
                match values {
                    Values::Bits(v) => v[*slot as usize] = view.bits(*row as usize),
                    Values::Text(v) => v[*slot as usize] = row::text(column, *row as usize).map(Into::into),
                }
            }
        }
        for (slot, row) in rows {
            self.ts[*slot as usize] = ts[*row as usize];
        }
        Ok(())
    }

    /// Column `c` for these matches; `right` is that column of the right batch.
    pub fn take(
        &self,
        c: usize,
        matches: &[Match],
        right: Option<&ArrayRef>,
    ) -> Result<ArrayRef, OperatorError> {
        let t = &self.types[c];
        let made: ArrayRef = match &self.columns[c] {
            Values::Bits(kept) => {
                let view = right.map(View::of).transpose()?;
                let bits = matches.iter().map(|m| match m {
                    Match::None => None,
                    Match::Row(i) => view.as_ref().and_then(|v| v.bits(*i as usize)),
                    Match::Slot(slot) => kept[*slot as usize],
                });
                match wide(t) {
                    DataType::Float64 => {
                        Arc::new(bits.map(|b| b.map(f64::from_bits)).collect::<Float64Array>())
                    }
                    DataType::UInt64 => Arc::new(bits.collect::<UInt64Array>()),
                    _ => Arc::new(bits.map(|b| b.map(|b| b as i64)).collect::<Int64Array>()),
                }
            }
            Values::Text(kept) => {
                let texts = matches.iter().map(|m| match m {
                    Match::None => None,
                    Match::Row(i) => right.and_then(|column| row::text(column, *i as usize)),
                    Match::Slot(slot) => kept[*slot as usize].as_deref(),
                });
                match t {
                    DataType::Utf8 => Arc::new(texts.collect::<StringArray>()),
                    _ => Arc::new(texts.collect::<DictionaryArray<Int32Type>>()),
                }
            }
        };
        Ok(if made.data_type() == t { made } else { cast(&made, t)? })
    }
}

impl SlotStore for Cells {
    fn reserve(&mut self, slots: usize) {
        if self.ts.len() < slots {
            self.ts.resize(slots, i64::MIN);
            for values in &mut self.columns {
                match values {
                    Values::Bits(v) => v.resize(slots, None),
                    Values::Text(v) => v.resize(slots, None),
                }
            }
        }
    }

    fn encode(&self, slot: u32, out: &mut Vec<u8>) {
        let i = slot as usize;
        let cells: Vec<Cell> = self
            .columns
            .iter()
            .map(|values| match values {
                Values::Bits(v) => v[i].map_or(Cell::Null, Cell::Bits),
                Values::Text(v) => v[i].as_ref().map_or(Cell::Null, |text| Cell::Text(text.to_string())),
            })
            .collect();
        *out = postcard::to_extend(&(self.ts[i], cells), std::mem::take(out))
            .expect("writing numbers and text to memory does not fail");
    }

    fn decode(&mut self, slot: u32, bytes: &[u8]) -> Result<(), OperatorError> {
        let (ts, cells): (i64, Vec<Cell>) =
            postcard::from_bytes(bytes).map_err(|e| OperatorError::State(e.to_string()))?;
        if cells.len() != self.columns.len() {
            return Err(OperatorError::State("a row of an as-of join has other columns".into()));
        }
        self.ts[slot as usize] = ts;
        for (values, cell) in self.columns.iter_mut().zip(cells) {
            match (values, cell) {
                (Values::Bits(v), Cell::Bits(bits)) => v[slot as usize] = Some(bits),
                (Values::Text(v), Cell::Text(text)) => v[slot as usize] = Some(text.into()),
                (Values::Bits(v), Cell::Null) => v[slot as usize] = None,
                (Values::Text(v), Cell::Null) => v[slot as usize] = None,
                _ => return Err(OperatorError::State("a row of an as-of join has other types".into())),
            }
        }
        Ok(())
    }
}
