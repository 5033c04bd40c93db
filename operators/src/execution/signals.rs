//! Rows of a strategy: what is wanted of a symbol.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Decimal128Type};
use tidemill_engine::component::StreamInfo;
use tidemill_engine::operator::OperatorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::event::Event;
use tidemill_trading::money::{self, Decimal};
use tidemill_trading::signal::{OrderWish, Signal, Want};

use super::Shell;
use super::symbols::Symbols;
use crate::columns::floats;

/// Columns that are numbers and may be there.
const NUMBERS: [&str; 9] =
    ["strength", "limit", "stop", "trail", "atr", "volatility", "expected", "stop_loss", "take_profit"];

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
        // The more exact wish comes first, where a row has several.
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
    numbers: [Option<ScalarBuffer<f64>>; 9],
}

impl<'a> SignalRows<'a> {
    pub fn new(columns: &Columns, batch: &'a RecordBatch) -> Result<Self, OperatorError> {
        let mut numbers = [const { None }; 9];
        for (values, column) in numbers.iter_mut().zip(columns.numbers) {
            *values = column.map(|c| floats(batch.column(c))).transpose()?;
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
        let want = match self.want(i) {
            Ok(Some(want)) => want,
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
        let number = |n: usize| self.numbers[n].as_ref().map(|v| v[i]).filter(|v| !v.is_nan());
        let signal = Signal {
            ts,
            src,
            seq,
            instrument,
            want,
            strength: number(0).unwrap_or(1.0),
            order: OrderWish { limit: number(1), stop: number(2), trail: number(3) },
            atr: number(4),
            volatility: number(5),
            expected: number(6),
            stop_loss: number(7),
            take_profit: number(8),
        };
        shell.machine.signal(&signal, events);
    }

    /// What row `i` wants: its first column that is not null.
    fn want(&self, i: usize) -> Result<Option<Want>, String> {
        for (by, column) in &self.by {
            if column.is_null(i) {
                continue;
            }
            return match by {
                By::Side(_) => side(row::text(column, i).unwrap_or_default()),
                By::Target(_) => exact(column, i).map(|units| Some(Want::Target(units))),
                By::Quantity(_) => exact(column, i).map(|units| Some(Want::Trade(units))),
                By::Weight(_) => {
                    let weight = float(column, i);
                    weight.map(|weight| Some(Want::Weight(weight)))
                }
            };
        }
        Ok(None)
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
