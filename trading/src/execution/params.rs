//! How an execution machine is set up: the graph's `with:` block, but what only the operator knows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::brackets::{ProtectParams, trail_on_tick};
use crate::algo::AlgoParams;
use crate::gate::GateParams;
use crate::history::HistoryParams;
use crate::instrument::Instrument;
use crate::ledger::LedgerParams;
use crate::money::{Decimal, Exact};
use crate::order::{TimeInForce, Trail};
use crate::paper::PaperParams;
use crate::sizing::SizingParams;
use crate::span::Span;

/// Trades for an account: turns signals into orders within limits, and tells what became of them.
///
/// Reads signals and market data (and a broker's reports, and commands), keeps the account, and sends orders to the paper venue in it or, by a sink, to
/// a broker. Every stream of `from:` that is not named under `signals`, `reports` or `control` is market data; what kind is seen by its
/// columns, all of them with `symbol`:
///
/// | stream | columns |
/// |---|---|
/// | trades | `price`, `size` (of null the feed does not tell: any quantity is filled) |
/// | quotes | `bid`, `ask`, and `bid_size`, `ask_size` where known |
/// | bars | `open`, `high`, `low`, `close`, `volume`; `ts` is the bar's end |
/// | book deltas of a venue feed | `event`, `side`, `price`, `size`, `last` |
/// | mark prices | `mark_price`, and `funding_rate` with `next_funding_at` where known |
/// | funding that falls due | `funding_rate` |
/// | books order by order | `event` (`order`, `trade`, `reset`), `order` (its number), `side` (`bid`, `ask`), `price`, `size`: of an order what rests of it now, 0 when it is gone; a trade before what it left of the orders it took from. What `queue: exact` needs |
/// | halts | `halted` (true from when the venue halts the symbol until it goes on): meanwhile orders are refused by the rule `halted`, and what must be closed waits |
/// | signals | one of `side` (`BUY`, `LONG`, `SELL`, `SHORT`, `FLAT`, `EXIT`, `CLOSE`, `CANCEL`; null and `HOLD`: nothing), `target` (units), `weight` (part of equity), `quantity` (an order); and where wanted `strength`, `limit`, `stop`, `trail`, `atr`, `volatility`, `expected`, `stop_loss`, `take_profit` (null: not said; a number that is none, or two wishes in one row: the alert `bad_signal`, no order) |
/// | control | `command`: `halt`, `flatten`, `reduce`, `resume` |
///
/// At equal times market data comes first, then reports, control and signals. The output is one stream of events, each row with the columns that belong
/// to its `event`: `order`, `modify`, `cancel` (what a broker's sink sends), `status`, `fill`, `rejection`, `position`, `equity`, `cash`, `state`,
/// `alert`. Order ids are hashed from the signal's row, so that they are the same in every run.
///
/// ```yaml
/// operators:
///   trade:
///     kind: execution
///     from: [trades, signals]
///     with:
///       signals: signals
///       account: { cash: { USD: 100000 }, fees: { per_unit: 0.005, minimum: 1 } }
///       venue: { kind: paper, latency: 2ms }
///       sizing: { equity: 0.2 }
///       risk: { position: { max_notional: 50000 }, drawdown: { max: 0.2, action: flatten } }
///       protect: { stop_loss: { fraction: 0.02 }, take_profit: { fraction: 0.05 } }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecutionParams {
    /// Which stream of `from:` has the signals. It may be a market stream too.
    pub signals: String,
    /// Which streams have market data; default: all that are nothing else.
    #[serde(default)]
    pub market: Option<Vec<String>>,
    /// Which stream has the reports of an external venue.
    #[serde(default)]
    pub reports: Option<String>,
    /// Which stream has commands (`command`: `halt`, `flatten`, `reduce`, `resume`).
    #[serde(default)]
    pub control: Option<String>,
    /// Whether a bid or ask of zero in a stream of quotes means that this side did not change. Default: that it has no price.
    #[serde(default)]
    pub zero_is_unchanged: bool,
    /// A CSV file of splits and dividends, relative to the graph, with the columns `ts,symbol,kind,value`: `kind` is `split` (new units for an old one)
    /// or `dividend` (cash for a unit). For the paper venue only: a broker tells of them itself.
    #[serde(default)]
    pub corporate_actions: Option<String>,
    /// The account: its cash, its kind, its fees.
    #[serde(default)]
    pub account: LedgerParams,
    /// What is traded.
    #[serde(default)]
    pub instruments: Vec<Instrument>,
    /// What symbols that are not in `instruments` are like (its own `symbol` does not matter). Default: their rows are refused, but where
    /// `instruments` is empty: a share with a tick of 0.01 and a lot of 1.
    #[serde(default)]
    pub default_instrument: Option<Instrument>,
    /// Where orders go: `{ kind: paper }` or `{ kind: external }`, a broker's sink and its source of reports.
    #[serde(default)]
    pub venue: VenueParams,
    /// How large a position a `BUY` or `SELL` asks for. Not needed where signals bring their sizes (`target`, `weight`).
    #[serde(default)]
    pub sizing: Option<SizingParams>,
    /// The gate before every order.
    #[serde(default)]
    pub risk: GateParams,
    /// Sampled returns, for rules that measure volatility.
    #[serde(default)]
    pub history: HistoryParams,
    /// How orders are made.
    #[serde(default)]
    pub order: OrderParams,
    /// Stop-loss and take-profit, attached to each position.
    #[serde(default)]
    pub protect: ProtectParams,
    /// Whether a `SELL` without a position opens a short one. Default: no, it closes a long one.
    #[serde(default)]
    pub short: bool,
    /// Distance of the `equity` and `position` rows; they come only where something was seen since the last, and at the end of a
    /// bounded run. Default `1m`; 0: none.
    #[serde(default = "minute")]
    pub sample: Span,
    /// What a `BUY` means: a long position (`target`), or one more order (`trade`).
    #[serde(default)]
    pub mode: Mode,
    /// How far a position may be from a repeated wish before it is adjusted, a fraction of the wish. Default: a `BUY` while long
    /// changes nothing; a `target` or `weight` column is followed exactly.
    #[serde(default)]
    pub rebalance: Option<Exact>,
    /// Whether positions are closed before the session of their instrument ends.
    #[serde(default)]
    pub flat_at_close: bool,
    /// How long before it; nothing is opened from then on. Default `1m`.
    #[serde(default = "minute")]
    pub flat_before: Span,
}

fn minute() -> Span {
    Span::from_ns(60_000_000_000)
}

/// Where orders go.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VenueParams {
    /// The paper venue: matched here, against the market streams.
    Paper(PaperParams),
    /// A broker: rows of event `order`, `modify` and `cancel` go to its sink, its source gives `reports`.
    External,
}

impl Default for VenueParams {
    fn default() -> Self {
        Self::Paper(PaperParams::default())
    }
}

/// What a `BUY` means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A position: repeating it changes nothing.
    #[default]
    Target,
    /// An order: repeating it makes another.
    Trade,
}

/// How orders are made.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OrderParams {
    /// `market`, `limit`, `stop`, `stop_limit`, `trailing_stop` or `take_profit`. A signal's `limit`, `stop` and `trail` columns come first.
    #[serde(rename = "type")]
    pub order_type: TypeParams,
    /// Where a limit stands: behind the own side's best price (bid for a buy), at the other side's, between them, or at the last trade.
    pub from: From,
    /// How far behind it a limit stands, away from the market; negative: into it.
    pub offset: Offset,
    /// How far from the last price a trigger stands: beyond it for stops, before it for `take_profit`; the trail of a `trailing_stop`.
    pub trigger: Offset,
    /// How long an order stands.
    pub time_in_force: ForceParams,
    /// Only as a maker.
    pub post_only: bool,
    /// Orders only make positions smaller: they are cut to what is held, and refused where nothing is.
    pub reduce_only: bool,
    /// Whether turning from long to short is one order (default), or one that closes and then one that opens, for venues that want it so. Beside a
    /// guard at the venue an order that rests turns in two parts, so that the guard can stay.
    pub turn: Turn,
    /// Cuts orders into slices: `{ twap: { over: 5m, slices: 10 } }`.
    pub algo: Option<AlgoParams>,
}

/// Kinds of orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TypeParams {
    /// At whatever price there is.
    #[default]
    Market,
    /// At a price or better.
    Limit,
    /// At market, once a price was passed.
    Stop,
    /// At a limit, once a price was passed.
    StopLimit,
    /// At market, once the price came back from its best by `trigger`.
    TrailingStop,
    /// At market, once a better price was reached.
    TakeProfit,
}

/// What a limit price is reckoned from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// The own side's best price: bid for a buy. The last trade where no quote is known.
    #[default]
    Near,
    /// The other side's best price.
    Far,
    /// Between them.
    Mid,
    /// The last trade.
    Last,
}

/// A distance in price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Offset {
    /// So many ticks.
    Ticks(i32),
    /// So many hundredths of a percent of the price.
    Bps(Exact),
    /// In price.
    Amount(Exact),
}

impl Default for Offset {
    fn default() -> Self {
        Self::Ticks(0)
    }
}

impl Offset {
    /// In price, from `price` with steps of `tick`.
    pub fn price(self, price: Decimal, tick: Decimal) -> Option<Decimal> {
        match self {
            Self::Ticks(n) => tick.checked_mul(n.into()),
            Self::Bps(bps) => price.checked_mul(bps.0)?.checked_mul(Decimal::new(1, 4)),
            Self::Amount(a) => Some(a.0),
        }
    }

    /// As the distance of a trailing stop.
    pub fn trail(self, tick: Decimal) -> Option<Trail> {
        match self {
            Self::Bps(bps) => bps.0.checked_mul(Decimal::new(1, 4)).map(Trail::Fraction),
            other => {
                let amount = other.price(Decimal::ZERO, tick)?;
                Some(Trail::Amount(trail_on_tick(amount, tick)))
            }
        }
    }

    fn is_positive(self) -> bool {
        match self {
            Self::Ticks(n) => n > 0,
            Self::Bps(x) | Self::Amount(x) => x.0 > Decimal::ZERO,
        }
    }
}

/// How long an order stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForceParams {
    /// Until it is cancelled.
    #[default]
    Gtc,
    /// At once, the rest is cancelled.
    Ioc,
    /// All of it at once, or nothing.
    Fok,
    /// Until the session ends.
    Day,
    /// So long: `{ gtd: 10m }`.
    Gtd(Span),
}

impl ForceParams {
    /// Of an order that is sent `now`.
    pub fn at(self, now: i64) -> TimeInForce {
        match self {
            Self::Gtc => TimeInForce::Gtc,
            Self::Ioc => TimeInForce::Ioc,
            Self::Fok => TimeInForce::Fok,
            Self::Day => TimeInForce::Day,
            Self::Gtd(span) => TimeInForce::Gtd(now.saturating_add(span.ns())),
        }
    }
}

/// How a position is turned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// By one order.
    #[default]
    One,
    /// By an order that closes it, then one that opens the other.
    Two,
}

/// What is wrong, by its path.
pub type Wrong = Vec<(String, String)>;

impl ExecutionParams {
    /// What is wrong with what this module alone knows; the parts tell of themselves.
    pub fn problems(&self) -> Wrong {
        let mut wrong: Wrong = Vec::new();
        let under = |at: &str, more: Wrong| {
            more.into_iter().map(|(path, why)| (format!("{at}.{path}"), why)).collect::<Vec<_>>()
        };
        for (i, instrument) in self.instruments.iter().enumerate() {
            wrong.extend(under(&format!("instruments[{i}]"), of_instrument(instrument)));
        }
        if let Some(instrument) = &self.default_instrument {
            wrong.extend(under("default_instrument", of_instrument(instrument)));
        }
        wrong.extend(under("protect", self.protect.problems()));
        wrong.extend(under("order", self.order.problems()));
        if self.corporate_actions.is_some() && matches!(self.venue, VenueParams::External) {
            wrong.push((
                "corporate_actions".into(),
                "a broker tells of splits and dividends itself: leave the file out with `venue: { kind: external }`".into(),
            ));
        }
        if self.rebalance.is_some_and(|r| r.0 < Decimal::ZERO) {
            wrong.push(("rebalance".into(), "must not be below zero".into()));
        }
        if self.flat_at_close && self.flat_before.ns() == 0 {
            wrong.push((
                "flat_before".into(),
                "must be longer than zero: at the close itself nothing is traded any more".into(),
            ));
        }
        wrong
    }
}

impl OrderParams {
    fn problems(&self) -> Wrong {
        use TypeParams::{Limit, Stop, StopLimit, TakeProfit, TrailingStop};
        let mut wrong: Wrong = Vec::new();
        let mut say = |path: &str, why: &str| wrong.push((path.to_owned(), why.to_owned()));
        let limited = matches!(self.order_type, Limit | StopLimit);
        if self.post_only && !limited {
            say("post_only", "only a limit order can rest: add `type: limit`");
        }
        if self.post_only && matches!(self.time_in_force, ForceParams::Ioc | ForceParams::Fok) {
            say("post_only", "an order that rests cannot be filled at once or not at all");
        }
        if matches!(self.order_type, Stop | StopLimit | TakeProfit | TrailingStop)
            && !self.trigger.is_positive()
        {
            say(
                "trigger",
                "must be above zero: how far from the price the order is triggered, `{ bps: 20 }`, say",
            );
        }
        if let ForceParams::Gtd(span) = self.time_in_force
            && span.ns() == 0
        {
            say("time_in_force.gtd", "must be longer than zero");
        }
        if let Some(algo) = &self.algo {
            if matches!(algo, AlgoParams::Iceberg { .. }) && !limited {
                say("algo.iceberg", "hides part of an order that rests: add `type: limit`");
            }
            wrong.extend(algo.problems().into_iter().map(|(path, why)| (format!("algo.{path}"), why)));
        }
        wrong
    }
}

/// What the account and the venue do not look at.
fn of_instrument(instrument: &Instrument) -> Wrong {
    let mut wrong: Wrong = Vec::new();
    for (name, value) in [
        ("min_quantity", instrument.min_quantity),
        ("max_quantity", instrument.max_quantity),
        ("min_notional", instrument.min_notional),
    ] {
        if value.is_some_and(|value| value.0 <= Decimal::ZERO) {
            wrong.push((name.into(), "must be above zero".into()));
        }
    }
    if instrument.borrow_rate.0 < Decimal::ZERO {
        wrong.push(("borrow_rate".into(), "must not be below zero".into()));
    }
    wrong
}
