//! What rows of the inputs say: positions, equity and prices.

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch, StringArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Int32Type};
use tidemill_engine::component::{Problems, StreamInfo};
use tidemill_engine::operator::OperatorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;

use super::Params;
use super::book::Book;
use super::config::Config;
use crate::columns::floats;

/// Which columns of an input say what.
#[derive(Clone, Debug)]
pub(super) enum Port {
    /// Positions, and equity where there is a column for it.
    Positions { symbol: usize, quantity: usize, event: Option<usize>, equity: Option<usize> },
    /// Prices: one column, or the middle of two. `rank` is the port's place.
    Prices { symbol: usize, price: usize, other: Option<usize>, rank: usize },
    /// Neither.
    Unused,
}

/// Finds the columns. What cannot be found is a problem.
pub(super) fn ports(params: &Params, inputs: &[StreamInfo], problems: &mut Problems) -> Vec<Port> {
    let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
    let mut find = |path: String, name: &str| {
        let found = names.iter().position(|n| *n == name);
        if found.is_none() {
            let problem = Problem::new(path, format!("`{name}` is not among the streams of `from`"));
            problems.push(problem.hint_names(name, names.iter().copied()));
        }
        found
    };
    let positions = match &params.positions {
        Some(name) => find("positions".into(), name),
        None => Some(0),
    };
    let prices: Vec<usize> = match &params.prices {
        Some(list) => {
            list.iter().enumerate().filter_map(|(i, name)| find(format!("prices[{i}]"), name)).collect()
        }
        None => (0..inputs.len()).filter(|i| Some(*i) != positions).collect(),
    };
    if prices.is_empty() || prices.iter().any(|p| Some(*p) == positions) {
        let problem = Problem::new("prices", "needs a stream of prices beside the one of positions");
        problems.push(problem.hint("`from: [positions, bars]`, say"));
    }
    if !problems.is_empty() {
        // Which columns to look for in which stream isn't known.
        return Vec::new();
    }
    let mut port = |(i, input): (usize, &StreamInfo)| {
        let mut keep =
            |found: Result<usize, Problem>| found.map_err(|p| problems.push(p)).unwrap_or_default();
        let has = |name: &str| input.schema.index_of(name).is_ok();
        if Some(i) == positions {
            let quantity = match &params.quantity {
                Some(name) => name.as_str(),
                None if has("position") => "position",
                None => "quantity",
            };
            let quantity = keep(input.numeric("quantity", quantity));
            return Port::Positions {
                symbol: keep(text(input, &params.symbol)),
                quantity,
                event: input.schema.index_of("event").ok().filter(|i| is_text(input.data_type(*i))),
                equity: input.schema.index_of("equity").ok().filter(|i| input.data_type(*i).is_numeric()),
            };
        }
        if !prices.contains(&i) {
            return Port::Unused;
        }
        let symbol = keep(text(input, &params.symbol));
        let (price, other) = match &params.price {
            Some(name) => (name.as_str(), None),
            None if has("price") => ("price", None),
            None if has("close") => ("close", None),
            None if has("bid") && has("ask") => ("bid", Some("ask")),
            None => ("price", None),
        };
        let price = keep(input.numeric("price", price));
        let other = other.map(|name| keep(input.numeric("price", name)));
        Port::Prices { symbol, price, other, rank: i }
    };
    inputs.iter().enumerate().map(&mut port).collect()
}

fn is_text(t: &DataType) -> bool {
    *t == DataType::Utf8 || *t == row::symbol_type()
}

fn text(input: &StreamInfo, name: &str) -> Result<usize, Problem> {
    let column = input.column("symbol", name)?;
    match is_text(input.data_type(column)) {
        true => Ok(column),
        false => Err(Problem::new("symbol", format!("column `{name}` of `{}` is not text", input.name))),
    }
}

/// A batch, read.
pub(super) struct Told<'a> {
    /// Before which others its rows count at equal times.
    pub rank: usize,
    pub ts: &'a [i64],
    /// The next row.
    pub at: usize,
    src: &'a [u64],
    seq: &'a [u64],
    symbols: Symbols<'a>,
    what: What,
}

enum What {
    Positions { quantity: ScalarBuffer<f64>, event: Option<ArrayRef>, equity: Option<ScalarBuffer<f64>> },
    Prices { price: ScalarBuffer<f64>, other: Option<ScalarBuffer<f64>> },
    Nothing,
}

impl Port {
    /// Reads a batch.
    pub fn read<'a>(&self, batch: &'a RecordBatch) -> Result<Told<'a>, OperatorError> {
        let (rank, symbol, what) = match self {
            Self::Positions { symbol, quantity, event, equity } => {
                let what = What::Positions {
                    quantity: floats(batch.column(*quantity))?,
                    event: event.map(|c| batch.column(c).clone()),
                    equity: equity.map(|c| floats(batch.column(c))).transpose()?,
                };
                (usize::MAX, *symbol, what)
            }
            Self::Prices { symbol, price, other, rank } => {
                let what = What::Prices {
                    price: floats(batch.column(*price))?,
                    other: other.map(|c| floats(batch.column(c))).transpose()?,
                };
                (*rank, *symbol, what)
            }
            Self::Unused => (usize::MAX, 0, What::Nothing),
        };
        Ok(Told {
            rank,
            ts: row::ts(batch),
            at: if matches!(what, What::Nothing) { batch.num_rows() } else { 0 },
            src: row::src(batch),
            seq: row::seq(batch),
            symbols: Symbols::of(batch.column(symbol)),
            what,
        })
    }
}

impl Told<'_> {
    /// Tells the book what row `i` says.
    #[inline]
    pub fn tell(&mut self, i: usize, book: &mut Book, config: &Config) {
        book.at(self.ts[i], self.src[i], self.seq[i]);
        match &self.what {
            What::Prices { price, other } => {
                let price = other.as_ref().map_or(price[i], |other| 0.5 * (price[i] + other[i]));
                let seen = price > 0.0 && price < f64::INFINITY && other.as_ref().is_none_or(|o| o[i] > 0.0);
                if seen && let Some(id) = self.symbols.id(i, book) {
                    book.price(id, price, config);
                }
            }
            What::Positions { quantity, event, equity } => {
                let event = event.as_ref().map(|event| row::text(event, i).unwrap_or_default());
                if event.is_none_or(|event| event == "equity")
                    && let Some(equity) = equity
                {
                    book.equity(equity[i]);
                }
                if event.is_none_or(|event| event == "position")
                    && quantity[i].is_finite()
                    && let Some(id) = self.symbols.id(i, book)
                {
                    book.position(id, quantity[i], config);
                }
            }
            What::Nothing => {}
        }
    }
}

/// Numbers of symbols: looked up once per value of a dictionary.
enum Symbols<'a> {
    Dictionary { rows: &'a DictionaryArray<Int32Type>, values: &'a StringArray, known: Vec<u32> },
    Text(&'a StringArray),
    None,
}

const UNKNOWN: u32 = u32::MAX;

impl<'a> Symbols<'a> {
    fn of(column: &'a ArrayRef) -> Self {
        if let Some(rows) = column.as_dictionary_opt::<Int32Type>() {
            return match rows.values().as_string_opt::<i32>() {
                Some(values) => Self::Dictionary { rows, values, known: vec![UNKNOWN; values.len()] },
                None => Self::None,
            };
        }
        column.as_string_opt::<i32>().map_or(Self::None, Self::Text)
    }

    #[inline]
    fn id(&mut self, i: usize, book: &mut Book) -> Option<u32> {
        match self {
            Self::Dictionary { rows, values, known } => {
                if rows.is_null(i) {
                    return None;
                }
                let key = rows.keys().value(i) as usize;
                if known[key] == UNKNOWN {
                    if values.is_null(key) {
                        return None;
                    }
                    known[key] = book.id(values.value(key));
                }
                Some(known[key])
            }
            Self::Text(values) if !values.is_null(i) => Some(book.id(values.value(i))),
            _ => None,
        }
    }
}
