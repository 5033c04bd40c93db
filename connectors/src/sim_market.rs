//! A simulated market: trades and quotes of several symbols, the same for the same seed.
//!
//! One partition; rows are in order of time and a row's `_seq` is its number. Events come as a
//! Poisson process; each moves its symbol's price by a step of a random walk whose drift and
//! volatility switch between regimes (a Markov chain, Hamilton 1989). Random numbers come from one
//! PCG stream per [`market::BLOCK`] rows, so a position is the market at the start of its block and
//! going on costs at most one block. No clock touches the rows; `pace` only delays them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, RecordBatch, StringDictionaryBuilder};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_engine::source::{Chunk, PartitionWriter, Seqs, Source, SourceContext, Stopped};

pub mod market;

use market::{Event, Market};

/// A simulated market: trades and quotes of several symbols, the same for the same seed.
///
/// Trades have the columns `symbol, price, size, side`; quotes `symbol, bid, bid_size, ask, ask_size`;
/// `emit: both` adds `kind` (`trade` or `quote`) and leaves the columns of the other kind null.
/// Each symbol's price is a random walk on a grid of ticks that wanders between regimes. The run ends
/// after `rows`, at `end` or after `duration`, whichever comes first; without any of them, never.
///
/// ```yaml
/// sources:
///   trades:
///     kind: sim_market
///     with:
///       { seed: 7, symbols: [SPY, EURUSD], price: 470, rate: 50, duration: 1h, instruments: { EURUSD: { price: 1.08, tick: 0.00001 } } }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The same seed gives the same rows.
    pub seed: u64,
    /// Names of the symbols.
    pub symbols: Vec<String>,
    /// So many symbols `S0000`, `S0001`, … in place of `symbols`.
    pub count: Option<usize>,
    /// Time of the beginning (RFC 3339), or `now`.
    pub start: String,
    /// The run ends at this time (RFC 3339), which is left out.
    pub end: Option<String>,
    /// The run ends when so much event time has passed.
    pub duration: Option<Span>,
    /// The run ends after so many rows.
    pub rows: Option<u64>,
    /// Events per second of event time, for each symbol.
    pub rate: f64,
    /// Price of every symbol at the start.
    pub price: f64,
    /// Prices are multiples of this.
    pub tick: f64,
    /// Sizes are multiples of this.
    pub lot: f64,
    /// Distance between bid and ask, as a share of the price; at least one tick.
    pub spread: f64,
    /// What the market can be like; a symbol starts in the first and wanders among them.
    pub regimes: Vec<Regime>,
    /// What is different for some of the symbols, by name.
    pub instruments: BTreeMap<String, Instrument>,
    /// Which events become rows.
    pub emit: Emit,
    /// How fast rows come: `max`, `realtime`, or so many times real time (`10x`).
    pub pace: String,
}

impl Default for Params {
    fn default() -> Self {
        let regime = |name: &str, volatility, drift, lasts: i64| Regime {
            name: name.into(),
            volatility,
            drift,
            lasts: Span::from_ns(lasts * 60_000_000_000),
        };
        Self {
            seed: 1,
            symbols: ["AAA", "BBB", "CCC", "DDD"].map(String::from).to_vec(),
            count: None,
            start: "2024-01-02T14:30:00Z".into(),
            end: None,
            duration: None,
            rows: None,
            rate: 10.0,
            price: 100.0,
            tick: 0.01,
            lot: 1.0,
            spread: 0.0002,
            regimes: vec![
                regime("calm", 0.01, 0.0, 20),
                regime("trending", 0.02, 0.4, 10),
                regime("volatile", 0.06, 0.0, 5),
            ],
            instruments: BTreeMap::new(),
            emit: Emit::Trades,
            pace: "max".into(),
        }
    }
}

/// How one symbol trades, where it differs from the market's `price`, `tick`, `lot` and `spread`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Instrument {
    /// Its price at the start.
    pub price: Option<f64>,
    /// Its prices are multiples of this.
    pub tick: Option<f64>,
    /// Its sizes are multiples of this.
    pub lot: Option<f64>,
    /// Distance between its bid and ask, as a share of the price.
    pub spread: Option<f64>,
    /// It moves this many times as far as the regime says: 0.3 for a currency pair, 2 for a coin.
    pub volatility: f64,
}

impl Default for Instrument {
    fn default() -> Self {
        Self { price: None, tick: None, lot: None, spread: None, volatility: 1.0 }
    }
}

/// What the market is like for a while.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Regime {
    /// Its name, for the reader of the graph.
    pub name: String,
    /// Standard deviation of the price's relative change over 24 hours: 0.02 is 2 %.
    pub volatility: f64,
    /// Relative change over 24 hours; the sign is drawn anew whenever the regime begins.
    #[serde(default)]
    pub drift: f64,
    /// How long it lasts on average, in event time.
    pub lasts: Span,
}

/// Which events become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Emit {
    /// Every event is a trade.
    #[default]
    Trades,
    /// Every event is a quote.
    Quotes,
    /// One event in four is a trade, the others are quotes.
    Both,
}

/// Symbols that a market may have.
const SYMBOLS_MAX: usize = 10_000;
/// Wall-clock time that one paced chunk covers.
const SLICE_NS: f64 = 5_000_000.0;
/// Longest sleep between two looks at the clock.
const NAP_MAX: std::time::Duration = std::time::Duration::from_millis(50);

/// The kind.
pub struct SimMarket;

#[async_trait]
impl SourceKind for SimMarket {
    const KIND: &'static str = "sim_market";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = Problems::new();
        let start = match params.start.as_str() {
            "now" => cx.clock.now_ns(),
            text => crate::parquet::instant("start", &Some(text.to_owned()), 0, &mut problems),
        };
        let end = crate::parquet::instant("end", &params.end, i64::MAX, &mut problems);
        let end = params.duration.map_or(end, |d| end.min(start.saturating_add(d.ns())));
        let symbols = match params.count {
            Some(n) => (0..n.min(SYMBOLS_MAX + 1)).map(|i| format!("S{i:04}")).collect(),
            None => params.symbols.clone(),
        };
        for name in params.instruments.keys().filter(|name| !symbols.contains(*name)) {
            let problem =
                Problem::new(format!("instruments.{name}"), format!("the market has no symbol `{name}`"));
            problems.push(problem.hint_names(name, symbols.iter().map(String::as_str)));
        }
        let mut check = |ok: bool, path: &str, reason: &str| {
            if !ok {
                problems.push(Problem::new(path, reason));
            }
        };
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let names = if params.count.is_some() { "count" } else { "symbols" };
        check(!symbols.is_empty(), names, "a market needs at least one symbol");
        check(symbols.len() <= SYMBOLS_MAX, names, "a market has at most 10000 symbols");
        check(end > start, "end", "is not after the start");
        check(
            positive(params.rate) && params.rate <= 1e9,
            "rate",
            "is not a number of events per second above 0",
        );
        let of_market = (String::new(), Instrument::default());
        let of_symbols = params.instruments.iter().map(|(n, own)| (format!("instruments.{n}."), own.clone()));
        for (path, own) in std::iter::once(of_market).chain(of_symbols) {
            let price = own.price.unwrap_or(params.price);
            let tick = own.tick.unwrap_or(params.tick);
            let spread = own.spread.unwrap_or(params.spread);
            let at = |field: &str| format!("{path}{field}");
            check(positive(price), &at("price"), "is not a price above 0");
            check(positive(tick) && tick <= price, &at("tick"), "is not above 0 and at most the price");
            check(positive(own.lot.unwrap_or(params.lot)), &at("lot"), "is not a size above 0");
            check((0.0..0.5).contains(&spread), &at("spread"), "is not a share of the price from 0 to 0.5");
            check(
                (0.0..=100.0).contains(&own.volatility),
                &at("volatility"),
                "is not a factor from 0 to 100",
            );
        }
        check(
            !params.regimes.is_empty() && params.regimes.len() <= 64,
            "regimes",
            "there are 1 to 64 regimes",
        );
        for (i, regime) in params.regimes.iter().enumerate() {
            let fine = regime.volatility >= 0.0 && regime.volatility <= 10.0 && regime.drift.abs() <= 100.0;
            check(fine, &format!("regimes[{i}]"), "has a volatility outside 0 to 10, or a drift beyond 100");
            check(regime.lasts.ns() > 0, &format!("regimes[{i}].lasts"), "is not above 0");
        }
        let pace = pace(&params.pace, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let columns = columns(params.emit);
        let bounded = params.rows.is_some() || end != i64::MAX;
        let source = SimSource {
            params: Arc::new(params),
            symbols: symbols.into(),
            start,
            end,
            pace,
            columns: columns.clone(),
        };
        Ok(SourcePlan {
            columns,
            partitions: Partitions::Single,
            bounded,
            replayable: true,
            source: Arc::new(source),
        })
    }
}

/// Event time per wall-clock time; `None`: as fast as can be.
fn pace(text: &str, problems: &mut Problems) -> Option<f64> {
    let factor = match text {
        "max" => return None,
        "realtime" => Some(1.0),
        other => other.strip_suffix('x').and_then(|n| n.parse().ok()),
    };
    if factor.is_none_or(|f: f64| !f.is_finite() || f <= 0.0) {
        problems
            .push(Problem::new("pace", format!("`{text}` is no pace")).hint("write max, realtime, or 10x"));
    }
    factor
}

fn columns(emit: Emit) -> SchemaRef {
    let both = emit == Emit::Both;
    let mut fields =
        vec![Field::new(row::TS, row::ts_type(), false), Field::new("symbol", row::symbol_type(), false)];
    if both {
        fields.push(Field::new("kind", row::symbol_type(), false));
    }
    let f64s =
        |names: &[&str]| names.iter().map(|n| Field::new(*n, DataType::Float64, both)).collect::<Vec<_>>();
    if emit != Emit::Quotes {
        fields.extend(f64s(&["price", "size"]));
        fields.push(Field::new("side", row::symbol_type(), both));
    }
    if emit != Emit::Trades {
        fields.extend(f64s(&["bid", "bid_size", "ask", "ask_size"]));
    }
    Arc::new(Schema::new(fields))
}

/// Events as columns.
struct Columns {
    ts: Vec<i64>,
    symbol: Vec<i32>,
    symbols: ArrayRef,
    kind: StringDictionaryBuilder<Int32Type>,
    side: StringDictionaryBuilder<Int32Type>,
    trade: [Float64Builder; 2],
    quote: [Float64Builder; 4],
    emit: Emit,
    schema: SchemaRef,
}

impl Columns {
    fn new(source: &SimSource) -> Self {
        Self {
            ts: Vec::new(),
            symbol: Vec::new(),
            symbols: Arc::new(arrow::array::StringArray::from_iter_values(source.symbols.iter())),
            kind: StringDictionaryBuilder::new(),
            side: StringDictionaryBuilder::new(),
            trade: Default::default(),
            quote: Default::default(),
            emit: source.params.emit,
            schema: source.columns.clone(),
        }
    }

    fn push(&mut self, event: &Event) {
        self.ts.push(event.ts);
        self.symbol.push(event.symbol as i32);
        let is_trade = event.is_trade;
        if self.emit == Emit::Both {
            self.kind.append_value(if is_trade { "trade" } else { "quote" });
        }
        if self.emit != Emit::Quotes {
            let values = [event.price, event.size];
            self.trade.iter_mut().zip(values).for_each(|(b, v)| b.append_option(is_trade.then_some(v)));
            self.side.append_option(is_trade.then_some(if event.is_buy { "buy" } else { "sell" }));
        }
        if self.emit != Emit::Trades {
            let values = [event.bid, event.bid_size, event.ask, event.ask_size];
            self.quote.iter_mut().zip(values).for_each(|(b, v)| b.append_option((!is_trade).then_some(v)));
        }
    }

    fn finish(&mut self) -> Result<RecordBatch, ConnectorError> {
        let fail = |e| ConnectorError::fatal("cannot build rows", e);
        let codes = arrow::array::Int32Array::from(std::mem::take(&mut self.symbol));
        let symbols =
            arrow::array::DictionaryArray::<Int32Type>::try_new(codes, self.symbols.clone()).map_err(fail)?;
        let mut columns: Vec<ArrayRef> = vec![row::ts_array(std::mem::take(&mut self.ts)), Arc::new(symbols)];
        let f64 = |b: &mut Float64Builder| Arc::new(b.finish()) as ArrayRef;
        if self.emit == Emit::Both {
            columns.push(Arc::new(self.kind.finish()));
        }
        if self.emit != Emit::Quotes {
            columns.extend(self.trade.iter_mut().map(f64));
            columns.push(Arc::new(self.side.finish()));
        }
        if self.emit != Emit::Trades {
            columns.extend(self.quote.iter_mut().map(f64));
        }
        RecordBatch::try_new(self.schema.clone(), columns).map_err(fail)
    }
}

#[derive(Clone)]
struct SimSource {
    params: Arc<Params>,
    symbols: Arc<[String]>,
    start: i64,
    end: i64,
    pace: Option<f64>,
    columns: SchemaRef,
}

impl SimSource {
    /// Makes chunks until the end or until nobody wants them.
    fn generate(
        &self,
        cx: &SourceContext,
        mut market: Market,
        mut writer: PartitionWriter,
    ) -> Result<(), ConnectorError> {
        let runtime = tokio::runtime::Handle::current();
        let rows_max = self.params.rows.unwrap_or(u64::MAX);
        let watch = cx.clock.start();
        let from = market.ts();
        let slice_ns = self.pace.map(|pace| (SLICE_NS * pace) as i64);
        let mut columns = Columns::new(self);
        let mut next = market.next();
        loop {
            let first = market.row() - 1;
            let until = slice_ns.map_or(self.end, |ns| next.ts.saturating_add(ns).min(self.end));
            let mut n = 0;
            while n < cx.chunk_rows as u64 && first + n < rows_max && next.ts < until {
                columns.push(&next);
                n += 1;
                next = market.next();
            }
            let position = market.position();
            let last = columns.ts.last().copied();
            if n > 0 {
                let rows = columns.finish()?;
                let chunk = Chunk { rows, seqs: Seqs::From(first), position, rejects: Vec::new() };
                let sent = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = cx.stop.cancelled() => Err(Stopped),
                        sent = self.paced(last, from, &watch, &mut writer, chunk) => sent,
                    }
                });
                if sent.is_err() {
                    return Ok(());
                }
            }
            if first + n >= rows_max || next.ts >= self.end {
                writer.end();
                return Ok(());
            }
        }
    }

    async fn paced(
        &self,
        last: Option<i64>,
        from: i64,
        watch: &tidemill_engine::clock::Stopwatch,
        writer: &mut PartitionWriter,
        chunk: Chunk,
    ) -> Result<(), Stopped> {
        if let (Some(pace), Some(last)) = (self.pace, last) {
            let due = std::time::Duration::from_nanos(((last - from) as f64 / pace) as u64);
            while let Some(rest) = due.checked_sub(watch.elapsed()).filter(|r| !r.is_zero()) {
                tokio::time::sleep(rest.min(NAP_MAX)).await;
            }
        }
        writer.send(chunk).await
    }
}

#[async_trait]
impl Source for SimSource {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        if cx.instance != 0 {
            cx.ready(&[]);
            return Ok(());
        }
        let market = match cx.restored.get(&0) {
            None => Market::new(&self.params, &self.symbols, self.start),
            Some(position) => Market::restore(&self.params, &self.symbols, position).map_err(|e| {
                ConnectorError::fatal(
                    "cannot go on from the checkpoint: its position is not one of this market",
                    e,
                )
            })?,
        };
        let mut writers = cx.ready(&[0]);
        let Some(writer) = writers.pop() else { return Ok(()) };
        let source = self.clone();
        crate::parquet::blocking(move || source.generate(&cx, market, writer)).await
    }
}

#[cfg(test)]
mod tests;
