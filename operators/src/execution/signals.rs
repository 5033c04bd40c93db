//! Rows of a strategy: what is wanted of a symbol.
//!
//! A null says nothing. A number that is none (NaN, infinite) is a mistake of the strategy, not a way to say nothing: without its limit an order
//! would be a market order, without its stop a position unguarded. Such a row, and one that wants two things at once, becomes the alert
//! `bad_signal` and nothing else.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Decimal128Type};
use tidemill_engine::component::StreamInfo;
use tidemill_engine::operator::OperatorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::event::Event;
use tidemill_trading::market::is_price;
use tidemill_trading::money::{self, Decimal};
use tidemill_trading::signal::{OrderWish, Signal, Want};

use super::Shell;
use super::symbols::Symbols;
use crate::columns::floats;

/// Columns that are numbers and may be there, those of the order itself first.
pub(super) const NUMBERS: [&str; 9] =
    ["limit", "stop", "trail", "strength", "atr", "volatility", "expected", "stop_loss", "take_profit"];

/// How many of them an order that only closes, or cancels, is concerned with.
const OF_THE_ORDER: usize = 3;

/// What a row wants.
#[derive(Clone, Copy, Debug)]
enum By {
    /// Words.
    Side(usize),
    /// Units to be held.
    Target(usize),
    /// A part of equity.
    Weight(usize),
    /// An order of units.
    Quantity(usize),
}

/// Where the columns are.
#[derive(Clone, Debug)]
pub struct Columns {
    symbol: usize,
    by: Vec<By>,
    numbers: [Option<usize>; 9],
}

impl Columns {
    pub fn of(input: &StreamInfo) -> Result<Self, Problem> {
        let symbol = super::market::symbol_column("signals", input)?;
        let find = |name: &str, text: bool| {
            let i = input.schema.index_of(name).ok()?;
            let t = input.data_type(i);
            let is_text = matches!(t, DataType::Utf8 | DataType::Dictionary(..));
            (is_text == text && (is_text || t.is_numeric())).then_some(i)
        };
        let mut by = Vec::new();
        by.extend(find("target", false).map(By::Target));
        by.extend(find("weight", false).map(By::Weight));
        by.extend(find("quantity", false).map(By::Quantity));
        by.extend(find("side", true).map(By::Side));
        if by.is_empty() {
            let problem =
                Problem::new("signals", format!("`{}` has no column that says what is wanted", input.name));
            return Err(problem.hint("one of `side` (text), `target`, `weight`, `quantity` (numbers)"));
        }
        Ok(Self { symbol, by, numbers: NUMBERS.map(|name| find(name, false)) })
    }
}

/// A batch of signals.
pub struct SignalRows<'a> {
    symbols: Symbols<'a>,
    by: Vec<(By, &'a ArrayRef)>,
    /// Values, where a null is NaN, and the columns that they are of.
    numbers: [Option<(ScalarBuffer<f64>, &'a ArrayRef)>; 9],
}

impl<'a> SignalRows<'a> {
    pub fn new(columns: &Columns, batch: &'a RecordBatch) -> Result<Self, OperatorError> {
        let mut numbers = [const { None }; 9];
        for (values, column) in numbers.iter_mut().zip(columns.numbers) {
            let of = |c: usize| Ok::<_, OperatorError>((floats(batch.column(c))?, batch.column(c)));
            *values = column.map(of).transpose()?;
        }
        let by = |by: &By| {
            let (By::Side(c) | By::Target(c) | By::Weight(c) | By::Quantity(c)) = by;
            (*by, batch.column(*c))
        };
        Ok(Self {
            symbols: Symbols::new(batch.column(columns.symbol)),
            by: columns.by.iter().map(by).collect(),
            numbers,
        })
    }

    pub fn row(
        &mut self,
        i: usize,
        ts: i64,
        (src, seq): (u64, u64),
        shell: &mut Shell,
        events: &mut Vec<Event>,
    ) {
        let said =
            self.want(i).and_then(|want| want.map(|want| Ok((want, self.numbers(i, want)?))).transpose());
        let (want, number) = match said {
            Ok(Some(said)) => said,
            Ok(None) => return,
            Err(detail) => {
                let detail = format!("the signal for {}: {detail}", self.symbols.text(i));
                return shell.machine.complain(ts, None, "bad_signal", detail, events);
            }
        };
        let Some(instrument) = self.symbols.of(i, &mut shell.machine) else {
            let detail = format!(
                "{} is not among the `instruments`, and there is no `default_instrument`",
                self.symbols.text(i)
            );
            return shell.machine.complain(ts, None, "unknown_symbol", detail, events);
        };
        let [limit, stop, trail, strength, atr, volatility, expected, stop_loss, take_profit] = number;
        let signal = Signal {
            ts,
            src,
            seq,
            instrument,
            want,
            strength: strength.unwrap_or(1.0),
            order: OrderWish { limit, stop, trail },
            atr,
            volatility,
            expected,
            stop_loss,
            take_profit,
        };
        shell.machine.signal(&signal, events);
    }

    /// The numbers of row `i`, in the order of [`NUMBERS`]. Those that do not matter for what it wants are left out: a position is left whatever
    /// its sizes are.
    fn numbers(&self, i: usize, want: Want) -> Result<[Option<f64>; 9], String> {
        let count = match want {
            Want::Cancel => 0,
            Want::Flat => OF_THE_ORDER,
            _ => NUMBERS.len(),
        };
        let mut numbers = [None; 9];
        for (n, name) in NUMBERS.into_iter().enumerate().take(count) {
            let Some((values, column)) = &self.numbers[n] else { continue };
            let value = values[i];
            if value.is_nan() && column.is_null(i) {
                continue;
            }
            if !value.is_finite() {
                return Err(format!("its `{name}` is {value}: write null where there is none"));
            }
            if matches!(name, "stop_loss" | "take_profit") && !is_price(value) {
                return Err(format!("its `{name}` of {value} is no price: write null where there is none"));
            }
            if name == "atr" && value < 0.0 {
                return Err(format!("its `{name}` of {value} is below zero"));
            }
            numbers[n] = Some(value);
        }
        Ok(numbers)
    }

    /// What row `i` wants: one of its columns says it.
    fn want(&self, i: usize) -> Result<Option<Want>, String> {
        let mut said: Option<(&str, Want)> = None;
        for (by, column) in self.by.iter().filter(|(_, column)| !column.is_null(i)) {
            let (name, want) = match by {
                By::Side(_) => ("side", side(row::text(column, i).unwrap_or_default())?),
                By::Target(_) => ("target", Some(Want::Target(exact(column, i)?))),
                By::Quantity(_) => ("quantity", Some(Want::Trade(exact(column, i)?))),
                By::Weight(_) => ("weight", Some(Want::Weight(float(column, i)?))),
            };
            let Some(want) = want else { continue };
            if let Some((other, _)) = said {
                return Err(format!(
                    "it has both `{other}` and `{name}`: one of them says what is wanted, the others are null"
                ));
            }
            said = Some((name, want));
        }
        Ok(said.map(|(_, want)| want))
    }
}

fn side(word: &str) -> Result<Option<Want>, String> {
    Ok(Some(match word.trim().to_ascii_uppercase().as_str() {
        "BUY" | "LONG" => Want::Long,
        "SELL" | "SHORT" => Want::Short,
        "FLAT" | "EXIT" | "CLOSE" => Want::Flat,
        "CANCEL" => Want::Cancel,
        "HOLD" | "" => return Ok(None),
        _ => {
            return Err(format!(
                "`{word}` is no side: it is BUY, LONG, SELL, SHORT, FLAT, EXIT, CLOSE, CANCEL or HOLD"
            ));
        }
    }))
}

/// A number of units, read exactly where the column is exact.
fn exact(column: &ArrayRef, i: usize) -> Result<Decimal, String> {
    if let DataType::Decimal128(_, 18) = column.data_type() {
        let wire = column.as_primitive::<Decimal128Type>().value(i);
        return money::from_wire(wire).ok_or_else(|| format!("{wire} e-18 units are too many"));
    }
    let value = float(column, i)?;
    money::from_f64(value).ok_or_else(|| format!("{value} is no number of units"))
}

fn float(column: &ArrayRef, i: usize) -> Result<f64, String> {
    let value = floats(&column.slice(i, 1)).map_err(|e| e.to_string())?[0];
    if value.is_finite() { Ok(value) } else { Err(format!("{value} is no number")) }
}
