//! Coinbase: one channel of the Advanced Trade feed, or of the older Exchange feed, as a source.
//!
//! `ts` is when a trade was made or a book changed; for tickers and bars, when the venue sent them. State: the last
//! trade id of each product; the last bar; for books the book itself.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::problem::Problem;

use crate::venue::books::{BookOutput, BookParams};
use crate::venue::feed::{FeedParams, plan_feed};
use crate::venue::protocol::{Endpoint, Outgoing};

pub mod advanced;
pub mod exchange;
pub mod wire;

pub use advanced::Advanced;
pub use exchange::Exchange;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod samples;

/// Market data of Coinbase, of one channel and any number of products.
///
/// | channel | rows | the venue's channel (Advanced Trade, Exchange) |
/// |---|---|---|
/// | `trades` | `trade_id, price, size, side` | `market_trades`, `matches` |
/// | `book` | by `book.output`: `deltas`, `snapshots` or `quotes` of a local book | `level2`, `level2_batch` |
/// | `tickers` | `last, bid, ask, volume` over 24 hours | `ticker` or `ticker_batch`, `ticker` |
/// | `bars` | `start, open, high, low, close, volume, closed`: five minutes, about every second | `candles`, none |
///
/// All rows begin with `ts, venue, symbol` (`venue` is `coinbase`) and end with `received_at`. `side` is the taker's (the
/// venue sends the maker's).
///
/// **Advanced Trade** numbers all messages of a connection (`sequence_num`), and its heartbeats once more. A hole in
/// either makes every book of that connection invalid at that moment (a row says so) and the connection is made again, which
/// brings new snapshots; a message that comes twice is passed over. After a reconnect the venue sends its latest trades again: those that were
/// missed fill the hole by their ids, and what is missing beyond them is counted and reported.
///
/// **Exchange** (`protocol: exchange`, the feed that was "Coinbase Pro") numbers trades only: a lost trade is seen and reported, a lost
/// change of a book is not, unless it crosses the book or time goes backwards.
///
/// The public channels need no key. A JWT may be passed (`jwt_token: "${COINBASE_JWT}"`); the venue lets it expire after two
/// minutes, so it is of use to the first connection only.
///
/// ```yaml
/// sources:
///   trades:
///     kind: coinbase
///     with: { symbols: [BTC-USD, ETH-USD], channel: trades }
///   book:
///     kind: coinbase
///     with:
///       symbols: [BTC-USD]
///       channel: book
///       book: { output: snapshots, depth: 10 }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `advanced`, or `exchange`: the older feed.
    #[serde(default)]
    pub protocol: Version,
    /// Products as the venue writes them: `BTC-USD`.
    pub symbols: Vec<String>,
    /// What to read.
    pub channel: Channel,
    /// How books are given out; for `channel: book`.
    #[serde(default)]
    pub book: BookParams,
    /// Tickers every five seconds in place of every trade (Advanced Trade).
    #[serde(default)]
    pub batch: bool,
    /// Sent along with subscriptions to Advanced Trade; a secret.
    #[serde(default)]
    pub jwt_token: Option<String>,
    /// Another address than the venue's: a sandbox, a server of captures.
    #[serde(default)]
    pub ws_url: Option<String>,
    /// Connections, capture and replay.
    #[serde(default)]
    pub connection: FeedParams,
}

/// A feed of the venue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// Advanced Trade.
    #[default]
    Advanced,
    /// Coinbase Exchange, once "Pro".
    Exchange,
}

/// A channel of the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Trades.
    Trades,
    /// A local order book.
    Book,
    /// Statistics of 24 hours.
    Tickers,
    /// Bars of five minutes.
    Bars,
}

/// The `venue` column.
const VENUE: &str = "coinbase";
/// Products that one message subscribes to.
const SUBSCRIBE_MAX: usize = 100;
/// Products of one connection: the venue sets no limit, but cuts connections that fall behind.
const SYMBOLS_MAX: usize = 500;
/// Eight messages a second, and one is left for others of the same address.
/// <https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-rate-limits>
const SEND_GAP_NS: i64 = 1_000_000_000 / 7;

impl Params {
    /// What is wrong with them.
    fn problems(&self) -> Problems {
        let mut problems = self.connection.problems();
        if self.symbols.is_empty() {
            problems
                .push(Problem::new("symbols", "a feed needs at least one product").hint("write [BTC-USD]"));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (i, symbol) in self.symbols.iter().enumerate() {
            let at = format!("symbols[{i}]");
            let fine = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
            if symbol.len() > 40 || !symbol.contains('-') || !symbol.chars().all(fine) {
                let problem = Problem::new(at, format!("`{symbol}` is no product of Coinbase"));
                problems.push(problem.hint("write base and quote in capitals with a dash, as BTC-USD"));
            } else if !seen.insert(symbol) {
                problems.push(Problem::new(at, format!("`{symbol}` is there twice")));
            }
        }
        if self.book.output == BookOutput::Snapshots && !(1..=1000).contains(&self.book.depth) {
            problems.push(Problem::new("book.depth", "a snapshot has 1 to 1000 levels a side"));
        }
        if self.connection.redundant > 1 && self.channel != Channel::Trades {
            let reason = "two connections can be told apart by trade ids only: no other channel has a number that both share";
            problems
                .push(Problem::new("connection.redundant", reason).hint("leave it out, or read `trades`"));
        }
        if self.protocol == Version::Exchange {
            if self.channel == Channel::Bars {
                problems.push(
                    Problem::new("channel", "the Exchange feed has no bars").hint("leave `protocol` out"),
                );
            }
            if self.jwt_token.is_some() {
                problems
                    .push(Problem::new("jwt_token", "the Exchange feed takes no JWT").hint("leave it out"));
            }
        }
        if self.batch && (self.channel != Channel::Tickers || self.protocol == Version::Exchange) {
            problems.push(Problem::new("batch", "only the tickers of Advanced Trade come batched"));
        }
        problems
    }

    fn endpoints(&self, url: &str, hello: impl Fn(&[String]) -> Vec<Outgoing>) -> Vec<Endpoint> {
        let url = self.ws_url.as_deref().unwrap_or(url);
        self.connection.endpoints(&self.symbols, SYMBOLS_MAX, |symbols| Endpoint {
            url: url.to_owned(),
            hello: hello(symbols),
            send_gap_ns: SEND_GAP_NS,
            // The driver's own pings are answered; heartbeats come every second.
            ping: None,
            stale_ns: self.connection.stale_after.ns(),
            group: 0,
        })
    }
}

/// The kind.
pub struct Coinbase;

#[async_trait]
impl SourceKind for Coinbase {
    const KIND: &'static str = "coinbase";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let problems = params.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let connection = params.connection.clone();
        let params = Arc::new(params);
        match params.protocol {
            Version::Advanced => plan_feed(move || Box::new(Advanced::new(params.clone())), connection, cx),
            Version::Exchange => plan_feed(move || Box::new(Exchange::new(params.clone())), connection, cx),
        }
    }
}
