//! The sizing rule as a graph writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::Exact;

/// How large a position `BUY` and `SELL` signals ask for. The signal's `strength` scales it; it is cut to whole lots, towards zero.
///
/// Parts of equity count what a position is worth at the present price, in the account's currency. Volatility is the signal's own (`volatility`
/// column) or measured from the sampled returns (`history:`), a year.
///
/// ```yaml
/// sizing: { volatility: { target: 0.15, max_leverage: 2 } }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SizingParams {
    /// So many units: `fixed: 100`.
    Fixed(Exact),
    /// Units worth so much in the account's currency: `notional: 10000`.
    Notional(Exact),
    /// Units worth this part of equity: `equity: 0.1`.
    Equity(Exact),
    /// As large a part of equity as brings it to a volatility.
    Volatility(VolatilityTarget),
    /// Units that lose a part of equity when the price moves some average true ranges against them.
    Atr(AtrRisk),
    /// Kelly's part of equity, which makes its logarithm grow fastest, or a fraction of it.
    Kelly(Kelly),
    /// Each symbol that has a signal by the inverse of its volatility.
    RiskParity(RiskParity),
    /// Each symbol so that it adds the same risk to the whole, correlations taken into account.
    EqualRisk(EqualRisk),
}

impl Default for SizingParams {
    /// One unit.
    fn default() -> Self {
        Self::Fixed(Exact(1.into()))
    }
}

/// Part of equity = target / volatility.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolatilityTarget {
    /// Volatility a year that the position shall add to the account (0.15: 15 %).
    pub target: f64,
    /// Largest part of equity.
    #[serde(default = "one")]
    pub max_leverage: f64,
}

/// Units = equity x risk / (atr x multiple). The signal brings the range in its column `atr`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtrRisk {
    /// Part of equity that may be lost (0.01: one percent).
    pub risk: f64,
    /// Distance of that loss, in average true ranges.
    #[serde(default = "two")]
    pub multiple: f64,
    /// Largest part of equity.
    #[serde(default = "one")]
    pub max_leverage: f64,
}

/// Kelly's criterion. The signal brings the symbol's expected excess return a year in its column `expected`: above zero for a `BUY`, below zero for a
/// `SELL`. One that is against the signal's side asks for no position.
///
/// Alone, the part of equity is `fraction x expected / volatility^2`. Jointly it is the symbol's part of `fraction x C^-1 x expected` over all symbols
/// that have a signal with an expectation, where C is the covariance of their returns a year, shrunk after Ledoit and Wolf (2004). Where the joint
/// solution would have a symbol against its own signal, it gets nothing. A signal sizes its own symbol; the others follow with their next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kelly {
    /// Part of the full bet (0.5: half Kelly).
    #[serde(default = "half")]
    pub fraction: f64,
    /// Largest part of equity: of the symbol where alone; of all together, long and short added up, where joint.
    #[serde(default = "one")]
    pub max: f64,
    /// Whether correlations with the other symbols count.
    #[serde(default)]
    pub joint: bool,
}

/// Part of equity = target x (1 / volatility) / (sum of 1 / volatility over all symbols that have a signal).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RiskParity {
    /// Sum of all parts of equity.
    #[serde(default = "one")]
    pub target: f64,
    /// The symbols that share it, whether they have a signal or not. Default: those that have one.
    #[serde(default)]
    pub symbols: Vec<String>,
}

/// Parts of equity such that each symbol contributes the same to the volatility of the whole (equal risk contribution), by the covariance of
/// returns, shrunk after Ledoit and Wolf (2004).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EqualRisk {
    /// Sum of all parts of equity.
    #[serde(default = "one")]
    pub target: f64,
    /// The symbols that share it, whether they have a signal or not. Default: those that have one.
    #[serde(default)]
    pub symbols: Vec<String>,
}

fn one() -> f64 {
    1.0
}
fn half() -> f64 {
    0.5
}
fn two() -> f64 {
    2.0
}
