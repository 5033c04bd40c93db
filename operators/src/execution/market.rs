//! Market data: which table a stream is, by its columns, and its rows as ticks.
//!
//! A size that is null is one that the feed does not tell. One that is NaN is a mistake, as an infinite one is.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampNanosecondType};
use serde::{Deserialize, Serialize};
use tidemill_engine::component::StreamInfo;
use tidemill_engine::operator::OperatorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::event::Event;
use tidemill_trading::market::{InstrumentId, Market, Tick};

use super::Shell;
use super::symbols::Symbols;
use crate::columns::floats;

/// Which table a stream is, and where its columns are.
#[derive(Clone, Debug)]
pub struct Table {
    symbol: usize,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// `price`, `size`.
    Trades([usize; 2]),
    /// `bid`, `bid_size`, `ask`, `ask_size`, and `valid` where it is there.
    Quotes { bid: usize, bid_size: Option<usize>, ask: usize, ask_size: Option<usize>, valid: Option<usize> },
    /// `open`, `high`, `low`, `close`, `volume`.
    Bars { prices: [usize; 4], volume: Option<usize> },
    /// `event`, `side`, `price`, `size`, `last`.
    Deltas([usize; 5]),
    /// `event`, `order`, `side`, `price`, `size`: every order of the book, and the trades.
    Orders([usize; 5]),
    /// `mark_price`, and funding with its time where both are there.
    Marks { price: usize, funding: Option<(usize, usize)> },
    /// `funding_rate`: it falls due at the row's time.
    Funding(usize),
    /// `halted`.
    Halts(usize),
}

/// The `symbol` column of a stream, which must be text.
pub fn symbol_column(path: &str, input: &StreamInfo) -> Result<usize, Problem> {
    let symbol = input.column(path, "symbol")?;
    match input.data_type(symbol) {
        DataType::Utf8 | DataType::Dictionary(..) => Ok(symbol),
        _ => Err(Problem::new(path, format!("column `symbol` of `{}` is no text", input.name))),
    }
}

impl Table {
    /// Finds out which table a stream is.
    pub fn of(input: &StreamInfo) -> Result<Self, Problem> {
        let symbol = symbol_column("market", input)?;
        let number = |name: &str| {
            let i = input.schema.index_of(name).ok()?;
            input.data_type(i).is_numeric().then_some(i)
        };
        let truth = |name: &str| {
            let i = input.schema.index_of(name).ok()?;
            (*input.data_type(i) == DataType::Boolean).then_some(i)
        };
        let text = |name: &str| {
            let i = input.schema.index_of(name).ok()?;
            matches!(input.data_type(i), DataType::Utf8 | DataType::Dictionary(..)).then_some(i)
        };
        let time = |name: &str| {
            let i = input.schema.index_of(name).ok()?;
            (*input.data_type(i) == row::ts_type()).then_some(i)
        };
        let deltas =
            || Some([text("event")?, text("side")?, number("price")?, number("size")?, truth("last")?]);
        let orders = || {
            let order = input.schema.index_of("order").ok()?;
            let order = input.data_type(order).is_integer().then_some(order)?;
            Some([text("event")?, order, text("side")?, number("price")?, number("size")?])
        };
        let bars = || Some([number("open")?, number("high")?, number("low")?, number("close")?]);
        let kind = if let Some(columns) = deltas() {
            Kind::Deltas(columns)
        } else if let Some(columns) = orders() {
            Kind::Orders(columns)
        } else if let Some(prices) = bars() {
            Kind::Bars { prices, volume: number("volume") }
        } else if let (Some(bid), Some(ask)) = (number("bid"), number("ask")) {
            Kind::Quotes {
                bid,
                bid_size: number("bid_size"),
                ask,
                ask_size: number("ask_size"),
                valid: truth("valid"),
            }
        } else if let (Some(price), Some(size)) = (number("price"), number("size")) {
            Kind::Trades([price, size])
        } else if let Some(price) = number("mark_price") {
            Kind::Marks { price, funding: number("funding_rate").zip(time("next_funding_at")) }
        } else if let Some(rate) = number("funding_rate") {
            Kind::Funding(rate)
        } else if let Some(halted) = truth("halted") {
            Kind::Halts(halted)
        } else {
            let problem = Problem::new("market", format!("`{}` has no columns of market data", input.name));
            return Err(problem.hint(
                "trades have price, size; quotes bid, ask; bars open, high, low, close; book deltas event, side, price, size, last; books order by order event, order, side, price, size; others mark_price, funding_rate or halted (bool)",
            ));
        };
        Ok(Self { symbol, kind })
    }
}

/// Where the stream of an instrument's book, or of its marks, is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// A message of book deltas is not over: its last row is to come.
    open: bool,
    /// The rate of the funding that falls due next.
    rate: f64,
    /// When; UTC nanoseconds.
    due_at: Option<i64>,
}

impl Default for Stream {
    fn default() -> Self {
        Self { open: false, rate: f64::NAN, due_at: None }
    }
}

/// A batch of market data.
pub struct MarketRows<'a> {
    symbols: Symbols<'a>,
    columns: Columns<'a>,
}

enum Columns<'a> {
    Trades(ScalarBuffer<f64>, Sizes<'a>),
    Quotes {
        prices: [ScalarBuffer<f64>; 2],
        sizes: [Option<Sizes<'a>>; 2],
        valid: Option<&'a BooleanArray>,
    },
    Bars([ScalarBuffer<f64>; 4], Option<Sizes<'a>>),
    Deltas {
        event: &'a ArrayRef,
        side: &'a ArrayRef,
        price: ScalarBuffer<f64>,
        size: Sizes<'a>,
        last: &'a BooleanArray,
    },
    Orders {
        event: &'a ArrayRef,
        order: UInt64Array,
        side: &'a ArrayRef,
        price: ScalarBuffer<f64>,
        size: Sizes<'a>,
    },
    Marks(ScalarBuffer<f64>, Option<(ScalarBuffer<f64>, &'a ArrayRef)>),
    Funding(ScalarBuffer<f64>),
    Halts(&'a BooleanArray),
}

/// Sizes as ticks have them.
struct Sizes<'a> {
    values: ScalarBuffer<f64>,
    column: &'a ArrayRef,
}

impl<'a> Sizes<'a> {
    fn new(column: &'a ArrayRef) -> Result<Self, OperatorError> {
        Ok(Self { values: floats(column)?, column })
    }

    /// NaN: not told. A number that is none is infinite.
    #[inline]
    fn at(&self, i: usize) -> f64 {
        let size = self.values[i];
        if size.is_nan() && !self.column.is_null(i) { f64::INFINITY } else { size }
    }
}

impl<'a> MarketRows<'a> {
    pub fn new(table: &Table, batch: &'a RecordBatch) -> Result<Self, OperatorError> {
        let values = |c: usize| floats(batch.column(c));
        let sizes = |c: usize| Sizes::new(batch.column(c));
        let some = |c: Option<usize>| c.map(sizes).transpose();
        let columns = match &table.kind {
            Kind::Trades([price, size]) => Columns::Trades(values(*price)?, sizes(*size)?),
            Kind::Quotes { bid, bid_size, ask, ask_size, valid } => Columns::Quotes {
                prices: [values(*bid)?, values(*ask)?],
                sizes: [some(*bid_size)?, some(*ask_size)?],
                valid: valid.map(|c| batch.column(c).as_boolean()),
            },
            Kind::Bars { prices: [open, high, low, close], volume } => Columns::Bars(
                [values(*open)?, values(*high)?, values(*low)?, values(*close)?],
                some(*volume)?,
            ),
            Kind::Deltas([event, side, price, size, last]) => Columns::Deltas {
                event: batch.column(*event),
                side: batch.column(*side),
                price: values(*price)?,
                size: sizes(*size)?,
                last: batch.column(*last).as_boolean(),
            },
            Kind::Orders([event, order, side, price, size]) => Columns::Orders {
                event: batch.column(*event),
                order: cast(batch.column(*order), &DataType::UInt64)?.as_primitive().clone(),
                side: batch.column(*side),
                price: values(*price)?,
                size: sizes(*size)?,
            },
            Kind::Marks { price, funding } => {
                let funding =
                    funding.map(|(rate, at)| Ok::<_, OperatorError>((values(rate)?, batch.column(at))));
                Columns::Marks(values(*price)?, funding.transpose()?)
            }
            Kind::Funding(rate) => Columns::Funding(values(*rate)?),
            Kind::Halts(halted) => Columns::Halts(batch.column(*halted).as_boolean()),
        };
        Ok(Self { symbols: Symbols::new(batch.column(table.symbol)), columns })
    }

    /// Hands row `i` over. Rows of symbols that are not traded are no concern of the account's.
    #[inline]
    pub fn row(&mut self, i: usize, ts: i64, shell: &mut Shell, events: &mut Vec<Event>) {
        let Some(instrument) = self.symbols.of(i, &mut shell.machine) else { return };
        let market = match &self.columns {
            Columns::Trades(price, size) => Market::Trade { price: price[i], size: size.at(i) },
            Columns::Quotes { prices: [bid, ask], sizes: [bid_size, ask_size], valid } => {
                if valid.is_some_and(|v| v.is_null(i) || !v.value(i)) {
                    // A book that is not known to be right has no best prices.
                    Market::BookReset
                } else {
                    let size = |of: &Option<Sizes<'_>>| of.as_ref().map_or(f64::NAN, |sizes| sizes.at(i));
                    Market::Quote {
                        bid: bid[i],
                        bid_size: size(bid_size),
                        ask: ask[i],
                        ask_size: size(ask_size),
                    }
                }
            }
            Columns::Bars([open, high, low, close], volume) => Market::Bar {
                open: open[i],
                high: high[i],
                low: low[i],
                close: close[i],
                volume: volume.as_ref().map_or(f64::NAN, |volume| volume.at(i)),
            },
            Columns::Funding(rate) => Market::Funding { rate: rate[i] },
            Columns::Halts(halted) if halted.is_null(i) => return,
            Columns::Halts(halted) => Market::Halt(halted.value(i)),
            Columns::Orders { event, order, side, price, size } => {
                let bid = match row::text(side, i) {
                    Some("bid") => Some(true),
                    Some("ask") => Some(false),
                    _ => None,
                };
                match (row::text(event, i), bid) {
                    (Some("trade"), _) => Market::Trade { price: price[i], size: size.at(i) },
                    (Some("order"), Some(bid)) if !order.is_null(i) => {
                        Market::Resting { order: order.value(i), bid, price: price[i], size: size.at(i) }
                    }
                    // `reset`, or what cannot be: the book is not known to be right.
                    _ => Market::BookReset,
                }
            }
            Columns::Deltas { .. } | Columns::Marks(..) => {
                return self.slow_row(i, ts, instrument, shell, events);
            }
        };
        shell.machine.market(&Tick { ts, instrument, market }, events);
    }

    /// Rows that depend on those before them.
    fn slow_row(
        &self,
        i: usize,
        ts: i64,
        instrument: InstrumentId,
        shell: &mut Shell,
        events: &mut Vec<Event>,
    ) {
        let place = instrument as usize;
        if shell.books.len() <= place {
            shell.books.resize(place + 1, Stream::default());
        }
        let tick = |market: Market| Tick { ts, instrument, market };
        let stream = &mut shell.books[place];
        match &self.columns {
            Columns::Deltas { event, side, price, size, last } => {
                let begins = !std::mem::replace(&mut stream.open, last.is_null(i) || !last.value(i));
                let bid = match row::text(side, i) {
                    Some("bid") => Some(true),
                    Some("ask") => Some(false),
                    _ => None,
                };
                match row::text(event, i) {
                    Some("snapshot") if begins => shell.machine.market(&tick(Market::BookReset), events),
                    Some("snapshot" | "delta") => {}
                    // Not known to be right any more.
                    _ => return shell.machine.market(&tick(Market::BookReset), events),
                }
                if let Some(bid) = bid {
                    let level = Market::Level { bid, price: price[i], size: size.at(i) };
                    shell.machine.market(&tick(level), events);
                }
            }
            Columns::Marks(price, funding) => {
                let mut due = None;
                if let Some((rate, at)) = funding
                    && !at.is_null(i)
                {
                    let at = at.as_primitive::<TimestampNanosecondType>().value(i);
                    // The next one is another: the last one fell due in between.
                    due = stream.due_at.filter(|before| *before < at).map(|_| stream.rate);
                    (stream.due_at, stream.rate) = (Some(at), rate[i]);
                }
                shell.machine.market(&tick(Market::Mark { price: price[i] }), events);
                if let Some(rate) = due.filter(|rate| rate.is_finite()) {
                    shell.machine.market(&tick(Market::Funding { rate }), events);
                }
            }
            _ => {}
        }
    }
}
