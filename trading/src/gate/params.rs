//! The gate's rules as a graph writes them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::TradingState;
use crate::money::Exact;
use crate::span::Span;

/// Rules that every order must pass before it is sent. Each is optional; without any, all orders pass.
///
/// Limits of exposure are held against the **worst case**: what is held, plus all that working orders may still trade, plus the new order. So no
/// sequence of fills can exceed a limit that its orders passed. Prices can: a position that grew past a limit by its price stands, and may be made
/// smaller, not larger. Amounts are in the account's currency, and an order that meets a limit exactly passes.
///
/// Orders that only make a position smaller pass all limits of size and exposure, in the states `normal` and `reducing`. In `halted` nothing passes.
/// An order that closes a position while reduce-only orders (a stop-loss) work must be reduce-only too, for both might be filled.
/// A refusal names its rule by the path it has here, such as `position.max_notional`.
///
/// ```yaml
/// risk:
///   order: { max_quantity: 5000, max_notional: 250000 }
///   position: { max_notional: 500000, symbols: { SPY: { max_notional: 1000000 } } }
///   sector: { banks: 400000 }
///   gross: 2000000
///   leverage: 2
///   concentration: { max: 0.5 }
///   rate: { orders: 20, per: 1s }
///   collar: { bps: 100 }
///   stale: 10s
///   daily_loss: { fraction: 0.03, zone: America/New_York, action: halt }
///   drawdown: { max: 0.1, cool_down: 1d, action: flatten }
///   var: { level: 0.99, fraction: 0.05 }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GateParams {
    /// Of one order.
    pub order: Option<SizeLimits>,
    /// Of one symbol's position, long or short.
    pub position: Option<SizeLimits>,
    /// Value of all positions of a sector, long and short added up: sector -> amount. `*` is every sector that is not named.
    pub sector: BTreeMap<String, Exact>,
    /// Value of all positions at a venue, long and short added up: venue -> amount. `*` is every venue that is not named.
    pub venue: BTreeMap<String, Exact>,
    /// Value of all positions, long and short added up.
    pub gross: Option<Exact>,
    /// Value of long positions less that of short ones, either way.
    pub net: Option<Exact>,
    /// Value of all positions, long and short added up, as a multiple of equity.
    pub leverage: Option<Exact>,
    /// How large one symbol's position may be beside the whole.
    pub concentration: Option<Concentration>,
    /// How many orders may leave in a span of time.
    pub rate: Option<Rate>,
    /// How far an order's price may be beyond the market.
    pub collar: Option<Collar>,
    /// Orders are refused where the symbol's market was silent for longer.
    pub stale: Option<Span>,
    /// How much may be lost in a day.
    pub daily_loss: Option<DailyLoss>,
    /// How far equity may fall from its peak.
    pub drawdown: Option<Drawdown>,
    /// Value at risk of the book with the new order.
    pub var: Option<VarLimit>,
    /// How alike a position may be to what is held already.
    pub correlation: Option<CorrelationLimit>,
    /// The kill switch in the graph: `reducing` or `halted` holds as long as the graph says so, whatever is commanded.
    pub state: TradingStateParam,
}

/// A state in a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TradingStateParam {
    /// All orders pass the state.
    #[default]
    Normal,
    /// Only orders that make positions smaller.
    Reducing,
    /// None.
    Halted,
}

impl From<TradingStateParam> for TradingState {
    fn from(state: TradingStateParam) -> Self {
        match state {
            TradingStateParam::Normal => Self::Normal,
            TradingStateParam::Reducing => Self::Reducing,
            TradingStateParam::Halted => Self::Halted,
        }
    }
}

/// Limits of an order or a position.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SizeLimits {
    /// Most units.
    pub max_quantity: Option<Exact>,
    /// Most value, in the account's currency.
    pub max_notional: Option<Exact>,
    /// Other limits for some symbols. What they leave out is as above. Where `instruments` lists all that is traded, a symbol that is not
    /// among them is an error; with a `default_instrument`, or without `instruments`, any symbol may still come, so a mistyped one limits nothing.
    pub symbols: BTreeMap<String, SizeLimit>,
}

/// Limits of one symbol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SizeLimit {
    /// Most units.
    pub max_quantity: Option<Exact>,
    /// Most value, in the account's currency.
    pub max_notional: Option<Exact>,
}

/// How large one symbol's position may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concentration {
    /// Largest part: 0.25 is a quarter.
    pub max: Exact,
    /// Of what: `equity`, or `gross` (the value of all positions; then the first position of an empty book is all of it, so begin with others).
    #[serde(default)]
    pub of: Whole,
}

/// What a concentration is a part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whole {
    /// What the account is worth.
    #[default]
    Equity,
    /// The value of all positions, long and short added up.
    Gross,
}

/// How many orders may leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// So many orders, of all symbols together,
    pub orders: u32,
    /// in any span of this length.
    pub per: Span,
}

/// How far an order's price may be beyond the market.
///
/// A limit price is held against the other side of the last quote, or the last trade where there is no quote; a market order's expected price
/// against the last trade, or the middle of the quote; a stop-limit order's limit against its stop. Only the costly direction counts: a buy order far
/// below the market passes. Stops without a limit, trailing stops and take-profits pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Collar {
    /// Hundredths of a percent.
    pub bps: Exact,
}

/// How much may be lost in a day, against the last equity of the day before; what is paid in or out is neither gain nor loss. The hold ends with the
/// day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DailyLoss {
    /// In the account's currency.
    #[serde(default)]
    pub amount: Option<Exact>,
    /// As a fraction of equity at the day's start. One of `amount` and `fraction` is needed.
    #[serde(default)]
    pub fraction: Option<Exact>,
    /// Time zone whose midnight begins a day; default: UTC.
    #[serde(default)]
    pub zone: Option<String>,
    /// What then happens until the day ends.
    #[serde(default)]
    pub action: BreakerAction,
}

/// The circuit breaker: how far equity may fall from its peak. What is paid in or out moves the peak with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drawdown {
    /// Largest fall as a fraction of the peak (0.1: ten percent).
    pub max: Exact,
    /// How long it holds; then the peak begins anew at the equity of that time. Default: until a `resume` is commanded.
    #[serde(default)]
    pub cool_down: Option<Span>,
    /// What then happens.
    #[serde(default)]
    pub action: BreakerAction,
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerAction {
    /// Orders that could make a position larger are cancelled, and refused.
    Reduce,
    /// All orders are cancelled, and refused.
    #[default]
    Halt,
    /// As `halt`, and all positions are closed at market.
    Flatten,
}

/// Value at risk of the book with the new order: how much it loses at most, in so many of a hundred samples.
///
/// It is reckoned for what is held with the order filled, and again with all working orders filled too; the larger counts. An order that lowers it
/// passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VarLimit {
    /// Level, such as 0.95 or 0.99.
    pub level: f64,
    /// Largest loss in the account's currency.
    #[serde(default)]
    pub amount: Option<Exact>,
    /// Largest loss as a fraction of equity. One of `amount` and `fraction` is needed.
    #[serde(default)]
    pub fraction: Option<Exact>,
    /// `historical` (the quantile of what today's book would have lost, interpolated) or `parametric` (normal, with its mean and deviation).
    #[serde(default)]
    pub method: VarMethod,
    /// Time ahead, scaled by its root; default: one sample of the history.
    #[serde(default)]
    pub horizon: Option<Span>,
    /// Fewest samples that all symbols of the book must have in common; with fewer, orders are refused.
    #[serde(default = "thirty")]
    pub min_samples: usize,
}

/// How value at risk is reckoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VarMethod {
    /// A quantile of past samples.
    #[default]
    Historical,
    /// From their mean and deviation.
    Parametric,
}

/// How alike a position may be to what is held already: an order that opens or grows a position is refused where the correlation of
/// returns, each in its direction, is larger. A hedge has a negative one, and passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrelationLimit {
    /// Largest correlation, between -1 and 1.
    pub max: f64,
    /// With the `portfolio` of all other positions as one, or with each of the other `positions`.
    #[serde(default)]
    pub with: With,
    /// Fewest samples in common; with fewer, orders are refused.
    #[serde(default = "thirty")]
    pub min_samples: usize,
}

/// What a correlation is with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum With {
    /// All other positions as one.
    #[default]
    Portfolio,
    /// Each of the other positions.
    Positions,
}

fn thirty() -> usize {
    30
}
