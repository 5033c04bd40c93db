//! Keys as small numbers: rows with equal keys get the same number.
//!
//! A single key of text is what joins of market data are about: dictionaries cost one look a distinct
//! value, short strings one hash of sixteen bytes, and a run of equal ones a comparison. Everything else
//! goes through Arrow's row format.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;

/// Of a row whose key has no number: null, or not known.
pub(crate) const NO_KEY: u32 = u32::MAX;

/// Numbers of keys. Built from one side; looked up by the other.
#[derive(Debug)]
pub(crate) struct Keys {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No keys: all rows are alike.
    None,
    /// One column of text.
    Text(HashMap<Box<str>, u32>),
    /// Anything.
    Rows(RowConverter, HashMap<Box<[u8]>, u32>),
}

fn is_text(t: &DataType) -> bool {
    match t {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

impl Keys {
    /// For keys of these types.
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        let kind = match types {
            [] => Kind::None,
            [one] if is_text(one) => Kind::Text(HashMap::new()),
            many => {
                let fields = many.iter().map(|t| SortField::new(plain(t))).collect();
                Kind::Rows(RowConverter::new(fields)?, HashMap::new())
            }
        };
        Ok(Self { kind })
    }

    /// How many different keys there are.
    pub(crate) fn len(&self) -> usize {
        match &self.kind {
            Kind::None => 1,
            Kind::Text(numbers) => numbers.len(),
            Kind::Rows(_, numbers) => numbers.len(),
        }
    }

    /// Each row's number; new keys get new ones.
    pub(crate) fn add(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        match &mut self.kind {
            Kind::None => Ok(vec![0; rows]),
            Kind::Text(numbers) => each_text(&columns[0], |text| {
                if let Some(number) = numbers.get(text) {
                    return *number;
                }
                let number = numbers.len() as u32;
                numbers.insert(text.into(), number);
                number
            }),
            Kind::Rows(converter, numbers) => each_row(converter, columns, rows, |bytes| {
                if let Some(number) = numbers.get(bytes) {
                    return *number;
                }
                let number = numbers.len() as u32;
                numbers.insert(bytes.into(), number);
                number
            }),
        }
    }

    /// Each row's number, or [`NO_KEY`].
    pub(crate) fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::None => Ok(vec![0; rows]),
            Kind::Text(numbers) => {
                each_text(&columns[0], |text| numbers.get(text).copied().unwrap_or(NO_KEY))
            }
            Kind::Rows(converter, numbers) => {
                each_row(converter, columns, rows, |bytes| numbers.get(bytes).copied().unwrap_or(NO_KEY))
            }
        }
    }
}

/// A dictionary's values in its place.
fn plain(t: &DataType) -> DataType {
    match t {
        DataType::Dictionary(_, value) => (**value).clone(),
        other => other.clone(),
    }
}

/// The number of each text; equal neighbours are asked for once.
fn each_text(column: &ArrayRef, mut number: impl FnMut(&str) -> u32) -> Result<Vec<u32>> {
    if let DataType::Dictionary(key, _) = column.data_type() {
        let column = match **key {
            DataType::Int32 => column.clone(),
            _ => {
                let t = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
                cast(column, &t)?
            }
        };
        let dictionary = column.as_dictionary::<Int32Type>();
        // Values that no row has must not get numbers, so each is asked for when first seen.
        let values = cast(dictionary.values(), &DataType::Utf8)?;
        let values = values.as_string::<i32>();
        let mut known: Vec<Option<u32>> = vec![None; values.len()];
        let keys = dictionary.keys();
        let mut of = |code: usize| {
            if values.is_null(code) {
                return NO_KEY;
            }
            *known[code].get_or_insert_with(|| number(values.value(code)))
        };
        return Ok(match keys.nulls() {
            None => keys.values().iter().map(|code| of(*code as usize)).collect(),
            Some(nulls) => keys
                .values()
                .iter()
                .zip(nulls)
                .map(|(code, valid)| if valid { of(*code as usize) } else { NO_KEY })
                .collect(),
        });
    }
    let column = cast(column, &DataType::Utf8View)?;
    let column = column.as_string_view();
    let mut out = Vec::with_capacity(column.len());
    // Short strings are wholly in their view, so equal views are equal strings.
    let mut recent: [(u128, u32); 16] = [(u128::MAX, NO_KEY); 16];
    for (i, view) in column.views().iter().enumerate() {
        if column.is_null(i) {
            out.push(NO_KEY);
            continue;
        }
        let short = (*view as u32) <= 12;
        if !short {
            out.push(number(column.value(i)));
            continue;
        }
        let slot =
            &mut recent[((view >> 32) as u64 ^ (view >> 40) as u64 ^ (view >> 48) as u64) as usize & 15];
        if slot.0 != *view {
            *slot = (*view, number(column.value(i)));
        }
        out.push(slot.1);
    }
    Ok(out)
}

fn each_row(
    converter: &RowConverter,
    columns: &[ArrayRef],
    rows: usize,
    mut number: impl FnMut(&[u8]) -> u32,
) -> Result<Vec<u32>> {
    let columns: Vec<ArrayRef> =
        columns.iter().map(|c| cast(c, &plain(c.data_type()))).collect::<Result<_, _>>()?;
    let converted = converter.convert_columns(&columns)?;
    let nulls: Vec<_> = columns.iter().filter_map(|c| c.logical_nulls()).collect();
    let one = |i: usize| {
        if nulls.iter().any(|n| n.is_null(i)) { NO_KEY } else { number(converted.row(i).as_ref()) }
    };
    Ok((0..rows).map(one).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringArray, StringViewArray};

    use super::*;

    #[test]
    fn equal_keys_get_equal_numbers_however_they_are_encoded() {
        let long = "a key that does not fit into a view";
        let text = [Some("BAC"), Some("IBM"), None, Some("BAC"), Some(long), Some(long), Some("AIG")];
        let view: ArrayRef = Arc::new(StringViewArray::from_iter(text));
        let dictionary: ArrayRef = Arc::new(text.iter().copied().collect::<DictionaryArray<Int32Type>>());
        let mut keys = Keys::new(&[view.data_type().clone()]).unwrap();
        let numbers = keys.add(&[view], 7).unwrap();
        assert_eq!(numbers, [0, 1, NO_KEY, 0, 2, 2, 3]);
        assert_eq!(keys.find(&[dictionary], 7).unwrap(), numbers);
        let other: ArrayRef = Arc::new(StringArray::from(vec!["MSFT", "AIG"]));
        assert_eq!(keys.find(&[other], 2).unwrap(), [NO_KEY, 3]);
    }

    #[test]
    fn several_keys_count_together() {
        let a: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), Some("x"), None, Some("x")]));
        let b: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1, 1]));
        let mut keys = Keys::new(&[a.data_type().clone(), b.data_type().clone()]).unwrap();
        assert_eq!(keys.add(&[a, b], 4).unwrap(), [0, 1, NO_KEY, 0]);
    }
}
