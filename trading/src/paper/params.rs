//! What a graph says of a paper venue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::{Decimal, Exact};
use crate::paper::latency::Latency;

/// A venue that only pretends: orders are matched against the market data of the graph, the same way in every run.
///
/// A taking order gets what the market shows, at the prices that it shows, and never the same liquidity twice; a resting order waits
/// behind what was there before it. Everything else that costs money in real trading is a knob here: `latency` of orders and reports,
/// `slippage`, `queue`, `participation`.
///
/// ```yaml
/// venue:
///   kind: paper
///   latency: 250us
///   queue: pessimistic
///   slippage: { ticks: 1 }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaperParams {
    /// How long orders and reports are on their way: a span such as `250us`, or `{order, report, series_ns, seed}`. Default: none.
    #[serde(default)]
    pub latency: Latency,
    /// What taking orders are matched on: `trades` (and bars), `quotes` or `book`. Default: the best that has been seen of the
    /// instrument: a book, else quotes, else trades.
    #[serde(default)]
    pub match_on: Option<MatchOn>,
    /// How far behind in the queue of its price a resting order is. Default: `pessimistic`.
    #[serde(default)]
    pub queue: Queue,
    /// How much worse than shown a taking order is filled. Default: `none`.
    #[serde(default)]
    pub slippage: Slippage,
    /// The largest part of a trade's size that ours may have, above 0 and at most 1. Default: 1.
    #[serde(default = "whole")]
    pub participation: Exact,
    /// Whether an order may be filled in parts; where not, it waits until all of it can be had at once. Default: `true`.
    #[serde(default = "yes")]
    pub partial_fills: bool,
    /// Whether a trade at the limit price can fill a resting order (once its turn in the queue comes), or only one beyond it. Default:
    /// `true`.
    #[serde(default = "yes")]
    pub fill_at_touch: bool,
    /// The price that triggers stops, trailing stops and take-profits. Default: `last`.
    #[serde(default)]
    pub stop_trigger: StopTrigger,
    /// How bars are read.
    #[serde(default)]
    pub bars: Bars,
    /// Whether the venue closes an account's positions when its equity falls below the maintenance margin. Default: `true`.
    #[serde(default = "yes")]
    pub liquidate: bool,
}

fn whole() -> Exact {
    Exact(Decimal::ONE)
}
fn yes() -> bool {
    true
}

impl Default for PaperParams {
    fn default() -> Self {
        Self {
            latency: Latency::default(),
            match_on: None,
            queue: Queue::default(),
            slippage: Slippage::default(),
            participation: whole(),
            partial_fills: true,
            fill_at_touch: true,
            stop_trigger: StopTrigger::default(),
            bars: Bars::default(),
            liquidate: true,
        }
    }
}

/// What taking orders are matched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatchOn {
    /// The next trade, or the next price of a bar.
    Trades,
    /// The best bid and ask that were last shown, with their sizes.
    Quotes,
    /// The levels of the order book.
    Book,
}

/// The place of a resting order among those of the same price.
///
/// Where nothing tells what rests at a price (trades alone), nothing is ahead; where only the best prices are shown, an order behind
/// them learns its place when its price becomes the best one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// All that is shown at the price when the order joins is ahead of it. Only trades at the price make that less, and it is never
    /// more than what is still shown.
    #[default]
    Pessimistic,
    /// As `pessimistic`, and what is cancelled at the price is thought to be ahead and behind in proportion.
    Proportional,
    /// Those that were there when the order joined, one by one, until they are filled or gone: where the feed tells of each order.
    /// Of a feed that only tells of levels nobody can know, so there it is as `pessimistic`.
    Exact,
    /// Nothing is ahead.
    None,
}

/// How much worse than shown a taking order is filled. A limit price is never passed; prices are rounded to the tick, for the worse. A sell is
/// never filled below one tick, however large the slippage is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Slippage {
    /// Not at all.
    #[default]
    None,
    /// By so many ticks, 10000 at most.
    Ticks(u32),
    /// By so many hundredths of a percent.
    Bps(Exact),
    /// By a fraction of the price that grows with the square root of the part that is taken of what was shown: 0.001 is ten basis
    /// points for all of it, five for a quarter.
    Impact(f64),
}

/// The price that triggers stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopTrigger {
    /// The last trade; as long as none was seen, as `quote`. One from before the order came must be borne out by the quote, where there is one.
    #[default]
    Last,
    /// The price that the order would get: the ask for a buy, the bid for a sell.
    Quote,
    /// The venue's mark price.
    Mark,
}

/// How bars are read: as four trades at their prices, a quarter of the volume each, at the bar's end. Between them the price is
/// thought to pass all prices, so a stop is filled at its trigger; a gap at the open is filled at the open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bars {
    /// The order of the four prices. Default: `open_low_high_close`.
    #[serde(default)]
    pub path: BarPath,
}

/// The order of a bar's prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BarPath {
    /// The low before the high.
    #[default]
    OpenLowHighClose,
    /// The high before the low.
    OpenHighLowClose,
    /// That of high and low which is nearer to the open first; where both are as near, the low.
    NearestFirst,
}

impl BarPath {
    /// The four prices in their order.
    pub(crate) fn prices(self, open: f64, high: f64, low: f64, close: f64) -> [f64; 4] {
        let low_first = match self {
            Self::OpenLowHighClose => true,
            Self::OpenHighLowClose => false,
            Self::NearestFirst => open - low <= high - open,
        };
        if low_first { [open, low, high, close] } else { [open, high, low, close] }
    }
}
