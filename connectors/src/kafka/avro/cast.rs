//! Decoded columns into the columns a source promised, and the rows where that cannot be done.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampNanosecondArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use tidemill_engine::row;
use tidemill_engine::schema::type_name;

/// Where a column comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// The decoded column with this index, as it is.
    Same(usize),
    /// The decoded column with this index, cast.
    Cast(usize),
    /// The decoded integers with this index, times since 1970 in units of so many nanoseconds.
    Epoch(usize, i64),
    /// Nowhere: the writer does not know it.
    Null,
}

/// How `from`, the type of decoded column `index`, becomes `to`; `None` where it cannot.
pub(super) fn cell(index: usize, from: &DataType, to: &DataType, unit_ns: i64) -> Option<Cell> {
    use DataType::{
        Binary, Date32, Decimal128, Decimal256, Dictionary, Float32, Float64, Int32, Int64, Timestamp,
        UInt64, Utf8,
    };
    if from == to {
        return Some(Cell::Same(index));
    }
    let fits = match (from, to) {
        (Int32 | Int64, Timestamp(..)) => return Some(Cell::Epoch(index, unit_ns)),
        (Timestamp(..) | Date32 | Utf8, Timestamp(..))
        | (Int32 | Int64 | Float32 | Decimal128(..) | Decimal256(..) | Utf8, Float64)
        | (Int32 | Int64 | Decimal128(_, 0) | Decimal256(_, 0) | Utf8, Int64 | UInt64)
        | (Decimal128(..) | Decimal256(..), Decimal128(..) | Decimal256(..))
        | (Utf8, Dictionary(..) | Date32 | Binary) => true,
        (Dictionary(_, values), Utf8 | Dictionary(..)) => **values == Utf8,
        _ => false,
    };
    fits.then_some(Cell::Cast(index))
}

/// The type that a stream carries for a decoded one; `None` where streams have no such column.
pub(super) fn stream_type(decoded: &DataType) -> Option<DataType> {
    Some(match decoded {
        DataType::Int32 | DataType::Int64 => DataType::Int64,
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Timestamp(..) => row::ts_type(),
        DataType::Dictionary(_, values) if **values == DataType::Utf8 => row::symbol_type(),
        DataType::Boolean
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => decoded.clone(),
        _ => return None,
    })
}

impl Cell {
    /// The column of type `to` for `rows` rows.
    pub(super) fn make(&self, decoded: &[ArrayRef], to: &DataType, rows: usize) -> Result<ArrayRef, String> {
        let failed = |e: arrow::error::ArrowError| e.to_string();
        match self {
            Self::Null => Ok(new_null_array(to, rows)),
            Self::Same(i) => Ok(decoded[*i].clone()),
            // Times without a zone are UTC: cast with it, not to it.
            Self::Cast(i) => match (decoded[*i].data_type(), to) {
                (DataType::Timestamp(_, None), DataType::Timestamp(unit, zone)) => {
                    let ns = cast(&decoded[*i], &DataType::Timestamp(*unit, None)).map_err(failed)?;
                    let ns = ns.as_primitive::<TimestampNanosecondType>().clone();
                    Ok(Arc::new(ns.with_timezone_opt(zone.clone())))
                }
                _ => cast(&decoded[*i], to).map_err(failed),
            },
            Self::Epoch(i, unit_ns) => {
                let long = cast(&decoded[*i], &DataType::Int64).map_err(failed)?;
                let times: TimestampNanosecondArray =
                    long.as_primitive::<Int64Type>().unary_opt(|t| t.checked_mul(*unit_ns));
                Ok(Arc::new(times.with_timezone("UTC")))
            }
        }
    }

    fn source<'a>(&self, decoded: &'a [ArrayRef]) -> Option<&'a ArrayRef> {
        match self {
            Self::Same(i) | Self::Cast(i) | Self::Epoch(i, _) => decoded.get(*i),
            Self::Null => None,
        }
    }

    /// Why row `i` of `made` is not what was promised, where it is not.
    pub(super) fn fault(
        &self,
        decoded: &[ArrayRef],
        made: &ArrayRef,
        name: &str,
        nullable: bool,
        i: usize,
    ) -> Option<String> {
        if made.is_valid(i) {
            return None;
        }
        match self.source(decoded) {
            Some(source) if source.is_valid(i) => {
                let value = array_value_to_string(source, i).unwrap_or_default();
                let kind = type_name(made.data_type());
                Some(format!("column `{name}`: {value} cannot be read as {kind}"))
            }
            _ if !nullable => Some(format!("column `{name}`: is null, and the schema does not allow that")),
            _ => None,
        }
    }

    /// Whether any row may have a fault: cheap, and false for nearly every batch.
    pub(super) fn suspect(&self, decoded: &[ArrayRef], made: &ArrayRef, nullable: bool) -> bool {
        let before = self.source(decoded).map_or(made.len(), |source| source.null_count());
        made.null_count() > if nullable { before } else { 0 }
    }
}
