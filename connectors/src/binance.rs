//! Binance spot and USD-M futures: one channel of the market data streams as a source.
//!
//! `ts` is the time at which the matching engine made the event where the message says it (trades, futures'
//! books and quotes), else when the venue sent it, else (spot's best prices, which carry no time) when it was received.
//! State: the last id of each symbol; for books the book itself; for trades what waits behind a hole, bounded.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{PlanContext, Problems, SourceKind, SourcePlan};

use crate::venue::books::{BookOutput, BookParams};
use crate::venue::feed::{FeedParams, plan_feed};

mod depth;
pub mod feed;
mod latest;
pub mod refused;
pub mod streams;
mod trades;
pub mod wire;

#[cfg(test)]
mod faults;
#[cfg(test)]
pub(crate) mod recorded;
#[cfg(test)]
mod recorded_tests;
#[cfg(test)]
mod samples;

pub use feed::BinanceFeed;

/// Market data of Binance, spot or USD-M futures, of one channel and any number of symbols.
///
/// | channel | rows | the venue's stream |
/// |---|---|---|
/// | `trades` | `trade_id, price, size, side` | `trade` |
/// | `agg_trades` | the same, trades of one taker order at one price together | `aggTrade` |
/// | `quotes` | `bid, bid_size, ask, ask_size, update_id, valid` | `bookTicker` |
/// | `book` | by `book.output`: `deltas`, `snapshots` or `quotes` of a local book | `depth`, and REST snapshots |
/// | `bars` | `start, open, high, low, close, volume, trades, closed`, every one or two seconds | `kline` |
/// | `tickers` | `last, bid, ask, volume` over 24 hours, every second | `ticker` |
/// | `mark_prices` | `mark_price, index_price, funding_rate, next_funding_at` (futures) | `markPrice@1s` |
/// | `liquidations` | `side, price, size, average_price` (futures; the venue sends the last of a symbol in each second) | `forceOrder` |
///
/// All rows begin with `ts, venue, symbol` (`venue` is `binance` or `binance_usdm`) and end with `received_at`.
///
/// **Trades** are told apart and proven complete by their ids: what two connections bring twice is taken once, and a hole in
/// the ids (a lost connection, a restart) is filled over REST while later trades of the symbol wait. Futures'
/// single trades can't be asked for without an API key, so their holes are counted and reported but stay; `agg_trades` can.
///
/// **Books** follow the venue's rule: a REST snapshot, then differences whose update ids join without a gap. A gap, a crossed book or
/// a lost connection makes the book invalid at that moment (a row says so) until a new snapshot heals it.
/// A level beyond the snapshot's 1000 that never changes stays unknown.
///
/// The venue doesn't say when a symbol doesn't exist: its streams just stay silent. So the feed asks for the list of symbols
/// when it starts (`check_symbols`) and warns of those that aren't there.
///
/// ```yaml
/// sources:
///   trades:
///     kind: binance
///     with: { market: spot, symbols: [BTCUSDT, ETHUSDT], channel: trades }
///   book:
///     kind: binance
///     with:
///       market: usdm
///       symbols: [BTCUSDT]
///       channel: book
///       book: { output: snapshots, depth: 10, speed: 100ms }
///       connection: { redundant: 2 }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `spot`, or `usdm`: the futures margined in dollars.
    pub market: Market,
    /// Symbols as the venue writes them: `BTCUSDT`.
    pub symbols: Vec<String>,
    /// What to read.
    pub channel: Channel,
    /// How books are kept and given out; for `channel: book`.
    #[serde(default)]
    pub book: Book,
    /// Length of bars: `1s` (spot only), `1m`, `3m`, `5m`, `15m`, `30m`, `1h`, `2h`, `4h`, `6h`, `8h`, `12h`, `1d`, `3d`, `1w`, `1M`.
    #[serde(default = "minute")]
    pub interval: String,
    /// Whether holes in the trades are filled over REST.
    #[serde(default = "yes")]
    pub recover: bool,
    /// Whether a symbol that the venue doesn't have is looked for and warned of at the start.
    #[serde(default = "yes")]
    pub check_symbols: bool,
    /// Whether spot sends its times in microseconds rather than milliseconds.
    #[serde(default)]
    pub microseconds: bool,
    /// Another address than the venue's for streams: `wss://data-stream.binance.vision`, a testnet, a server of captures.
    #[serde(default)]
    pub ws_url: Option<String>,
    /// Another address than the venue's for REST requests.
    #[serde(default)]
    pub rest_url: Option<String>,
    /// Connections, redundancy, capture and replay.
    #[serde(default)]
    pub connection: FeedParams,
}

/// How books are kept and given out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Book {
    /// `deltas`: a row for each changed level; `snapshots`: the best levels when one of them changed; `quotes`: best bid and ask when
    /// one changed.
    pub output: BookOutput,
    /// Levels a side of `snapshots`, 1 to 1000.
    pub depth: usize,
    /// How often the venue sends differences: `100ms` or `1000ms` on spot; `100ms`, `250ms` or `500ms` on futures.
    pub speed: String,
}

impl Default for Book {
    fn default() -> Self {
        let BookParams { output, depth } = BookParams::default();
        Self { output, depth, speed: "100ms".into() }
    }
}

/// A market of the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Market {
    /// Spot.
    Spot,
    /// Futures margined in USDT or USDC.
    Usdm,
}

/// A channel of the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Single trades.
    Trades,
    /// Trades of one taker order at one price, together.
    AggTrades,
    /// Best bid and ask, as they change.
    Quotes,
    /// A local order book.
    Book,
    /// Bars, updated as they form.
    Bars,
    /// Statistics of 24 hours.
    Tickers,
    /// Mark price and funding.
    MarkPrices,
    /// Liquidation orders.
    Liquidations,
}

fn minute() -> String {
    "1m".into()
}

fn yes() -> bool {
    true
}

/// The kind.
pub struct Binance;

#[async_trait]
impl SourceKind for Binance {
    const KIND: &'static str = "binance";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = streams::problems(&params);
        problems.extend(params.connection.problems());
        if !problems.is_empty() {
            return Err(problems);
        }
        let connection = params.connection.clone();
        let params = Arc::new(params);
        plan_feed(move || Box::new(BinanceFeed::new(params.clone())), connection, cx)
    }
}
