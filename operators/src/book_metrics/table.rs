//! The tables that hold books, told apart by their columns.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Float64Type, Int32Type};
use tidemill_engine::component::StreamInfo;
use tidemill_engine::operator::OperatorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;

use super::kept::{Event, Placed};
use super::metric::Levels;
use crate::columns::floats;

/// Which table the input is, and where its columns are.
#[derive(Clone, Debug)]
pub enum Table {
    /// A row a changed level.
    Deltas {
        /// `event`, `side`, `price`, `size`, `last`.
        columns: [usize; 5],
    },
    /// A row a book, cut at some depth.
    Snapshots {
        /// `valid`, where it is there.
        valid: Option<usize>,
        /// `bid_prices`, `bid_sizes`, `ask_prices`, `ask_sizes`.
        columns: [usize; 4],
    },
    /// A row a best bid and ask.
    Quotes {
        /// `valid`, where it is there.
        valid: Option<usize>,
        /// `bid`, `bid_size`, `ask`, `ask_size`.
        columns: [usize; 4],
    },
}

const DELTAS: [&str; 5] = ["event", "side", "price", "size", "last"];
const SNAPSHOTS: [&str; 4] = ["bid_prices", "bid_sizes", "ask_prices", "ask_sizes"];
const QUOTES: [&str; 4] = ["bid", "bid_size", "ask", "ask_size"];

impl Table {
    /// Finds out which table a stream is.
    pub fn of(input: &StreamInfo) -> Result<Self, Problem> {
        let is_text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::Dictionary(..));
        let is_list =
            |t: &DataType| matches!(t, DataType::List(item) if *item.data_type() == DataType::Float64);
        let valid = || {
            let index = input.schema.index_of("valid").ok()?;
            (*input.data_type(index) == DataType::Boolean).then_some(index)
        };
        if let Some(columns) = find(input, DELTAS, |i, t| match i {
            0 | 1 => is_text(t),
            4 => *t == DataType::Boolean,
            _ => t.is_numeric(),
        }) {
            return Ok(Self::Deltas { columns });
        }
        if let Some(columns) = find(input, SNAPSHOTS, |_, t| is_list(t)) {
            return Ok(Self::Snapshots { valid: valid(), columns });
        }
        if let Some(columns) = find(input, QUOTES, |_, t| t.is_numeric()) {
            return Ok(Self::Quotes { valid: valid(), columns });
        }
        let problem = Problem::new("", format!("`{}` has no columns of a book", input.name));
        Err(problem.hint(format!(
            "a table of deltas has {}, one of snapshots {} (lists of f64), one of quotes {}; feeds give them by `book: {{ output: … }}`",
            DELTAS.join(", "),
            SNAPSHOTS.join(", "),
            QUOTES.join(", ")
        )))
    }

    /// `deltas`, `snapshots` or `quotes`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deltas { .. } => "deltas",
            Self::Snapshots { .. } => "snapshots",
            Self::Quotes { .. } => "quotes",
        }
    }
}

fn find<const N: usize>(
    input: &StreamInfo,
    names: [&str; N],
    fits: impl Fn(usize, &DataType) -> bool,
) -> Option<[usize; N]> {
    let mut columns = [0; N];
    for (i, name) in names.iter().enumerate() {
        columns[i] = input.schema.index_of(name).ok()?;
        if !fits(i, input.data_type(columns[i])) {
            return None;
        }
    }
    Some(columns)
}

/// A batch of `deltas`.
pub struct DeltaRows<'a> {
    events: Vec<Option<Event>>,
    bids: Vec<Option<bool>>,
    prices: ScalarBuffer<f64>,
    sizes: ScalarBuffer<f64>,
    last: &'a BooleanArray,
}

impl<'a> DeltaRows<'a> {
    pub fn new(batch: &'a RecordBatch, columns: [usize; 5]) -> Result<Self, OperatorError> {
        let [event, side, price, size, last] = columns.map(|c| batch.column(c));
        let event_of = |text: &str| match text {
            "snapshot" => Some(Event::Snapshot),
            "delta" => Some(Event::Delta),
            "invalid" => Some(Event::Invalid),
            _ => None,
        };
        let bid_of = |text: &str| match text {
            "bid" => Some(true),
            "ask" => Some(false),
            _ => None,
        };
        Ok(Self {
            events: meanings(event, event_of),
            bids: meanings(side, bid_of),
            prices: floats(price)?,
            sizes: floats(size)?,
            last: last.as_boolean(),
        })
    }

    /// Row `i`: what it is, its level, and whether it is the last of its message. None where it is nothing that we know.
    pub fn row(&self, i: usize) -> Option<(Event, Option<Placed>, bool)> {
        let level = self.bids[i].map(|bid| (bid, self.prices[i], self.sizes[i]));
        let last = self.last.is_valid(i) && self.last.value(i);
        Some((self.events[i]?, level, last))
    }
}

/// What the texts of a column mean; each distinct one is looked at once.
fn meanings<T: Copy>(column: &ArrayRef, of: impl Fn(&str) -> Option<T>) -> Vec<Option<T>> {
    if let Some(dictionary) = column.as_dictionary_opt::<Int32Type>()
        && let Some(values) = dictionary.values().as_string_opt::<i32>()
    {
        let values: Vec<Option<T>> = values.iter().map(|text| text.and_then(&of)).collect();
        return dictionary.keys().iter().map(|key| key.and_then(|key| values[key as usize])).collect();
    }
    (0..column.len()).map(|i| row::text(column, i).and_then(&of)).collect()
}

/// Which rows of a batch may be believed.
pub fn believed(batch: &RecordBatch, valid: Option<usize>) -> impl Fn(usize) -> bool {
    let valid = valid.map(|c| batch.column(c).as_boolean().clone());
    move |i| valid.as_ref().is_none_or(|valid| valid.is_valid(i) && valid.value(i))
}

/// One side of a row of `snapshots`: price and size lists.
pub struct Shown<'a> {
    prices: &'a [f64],
    sizes: &'a [f64],
    /// Whether no level is missing.
    whole: bool,
}

impl Levels for Shown<'_> {
    fn best_first(&self) -> impl Iterator<Item = (f64, f64)> + Clone {
        self.prices.iter().copied().zip(self.sizes.iter().copied())
    }

    fn whole(&self) -> bool {
        self.whole
    }
}

/// The lists of a batch of `snapshots`, or the columns of `quotes`, as sides.
pub enum Columns<'a> {
    /// Values and where each row's begin and end.
    Lists([(&'a [f64], &'a [i32]); 4]),
    /// A value a row; NaN where there is none.
    Values([ScalarBuffer<f64>; 4]),
}

impl<'a> Columns<'a> {
    pub fn lists(batch: &'a RecordBatch, columns: [usize; 4]) -> Self {
        Self::Lists(columns.map(|c| {
            let list = batch.column(c).as_list::<i32>();
            (list.values().as_primitive::<Float64Type>().values().as_ref(), list.offsets().as_ref())
        }))
    }

    pub fn values(batch: &RecordBatch, columns: [usize; 4]) -> Result<Self, OperatorError> {
        let [bid, bid_size, ask, ask_size] = columns.map(|c| floats(batch.column(c)));
        Ok(Self::Values([bid?, bid_size?, ask?, ask_size?]))
    }

    /// Row `i`'s bids and asks.
    pub fn sides(&self, i: usize) -> (Shown<'_>, Shown<'_>) {
        match self {
            Self::Lists(lists) => {
                let list = |c: usize| {
                    let (values, offsets) = lists[c];
                    &values[offsets[i] as usize..offsets[i + 1] as usize]
                };
                let side = |c: usize| Shown { prices: list(c), sizes: list(c + 1), whole: false };
                (side(0), side(2))
            }
            Self::Values(values) => {
                let side = |c: usize| {
                    let there = !values[c][i].is_nan() && !values[c + 1][i].is_nan();
                    let cell = |c: usize| &values[c][i..i + usize::from(there)];
                    Shown { prices: cell(c), sizes: cell(c + 1), whole: false }
                };
                (side(0), side(2))
            }
        }
    }
}
