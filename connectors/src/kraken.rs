//! Kraken: one channel of the WebSocket feed, v2 or v1, as a source.
//!
//! `ts` is when a trade was made or a book or bar changed, as far as the message says it; else when it was received. State: the last
//! trade id of each pair; the last bar; for books the book itself.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;

use crate::venue::books::{BookOutput, BookParams};
use crate::venue::feed::{FeedParams, plan_feed};
use crate::venue::protocol::{Endpoint, Outgoing};

pub mod v1;
pub mod v1_wire;
pub mod v2;
pub mod v2_wire;

pub use v1::V1;
pub use v2::V2;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod samples;

/// Market data of Kraken's spot market, of one channel and any number of pairs.
///
/// | channel | rows | the venue's channel |
/// |---|---|---|
/// | `trades` | `trade_id, price, size, side` | `trade` |
/// | `book` | by `book.output`: `deltas`, `snapshots` or `quotes` of a local book | `book` |
/// | `tickers` | `last, bid, ask, volume` over 24 hours | `ticker` |
/// | `bars` | `start, open, high, low, close, volume, trades, closed`, with every trade | `ohlc` |
///
/// All rows begin with `ts, venue, symbol` (`venue` is `kraken`) and end with `received_at`.
///
/// **Books** are proven by the venue's checksum over the ten best levels of both sides, with every update. One that doesn't match, or a message
/// that can't be read, makes the book invalid at that moment (a row says so); the pair is subscribed to anew and
/// heals with its snapshot. What is wrong below the tenth level shows when it comes up. A book has the `levels` that are subscribed to:
/// what falls beyond is removed (a row of size 0).
///
/// **Trades** are numbered by pair. A hole has the pair subscribed to anew, which brings the last 50 trades: those
/// that were missed fill it, what is missing beyond is counted and reported. v1 (`protocol: v1`) has no trade ids, and nothing
/// by which a lost trade could be seen.
///
/// v2 names pairs as `BTC/USD`, v1 as `XBT/USD`.
///
/// ```yaml
/// sources:
///   trades:
///     kind: kraken
///     with: { symbols: [BTC/USD, ETH/USD], channel: trades }
///   book:
///     kind: kraken
///     with:
///       symbols: [BTC/USD]
///       channel: book
///       book: { output: snapshots, depth: 10, levels: 100 }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `v2`, or `v1`: the older feed.
    #[serde(default)]
    pub protocol: Version,
    /// Pairs as the venue writes them: `BTC/USD`.
    pub symbols: Vec<String>,
    /// What to read.
    pub channel: Channel,
    /// How books are kept and given out; for `channel: book`.
    #[serde(default)]
    pub book: Book,
    /// Length of bars: 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w or 15d.
    #[serde(default = "minute")]
    pub interval: Span,
    /// Another address than the venue's: its beta, a server of captures.
    #[serde(default)]
    pub ws_url: Option<String>,
    /// Connections, capture and replay.
    #[serde(default)]
    pub connection: FeedParams,
}

/// How books are kept and given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Book {
    /// `deltas`: a row a changed level; `snapshots`: the best levels when one of them changed; `quotes`: best bid and ask when one changed.
    pub output: BookOutput,
    /// Levels a side of `snapshots`, 1 to 1000.
    pub depth: usize,
    /// Levels a side that are subscribed to: 10, 25, 100, 500 or 1000. If left out, 1000 for `deltas`, else the fewest that
    /// hold `depth`.
    pub levels: Option<usize>,
}

impl Default for Book {
    fn default() -> Self {
        Self { output: BookOutput::Deltas, depth: 10, levels: None }
    }
}

/// Depths of the venue's books.
const LEVELS: [usize; 5] = [10, 25, 100, 500, 1000];

impl Book {
    fn rows(&self) -> BookParams {
        BookParams { output: self.output, depth: self.depth }
    }

    /// Levels a side that are subscribed to.
    fn subscribed(&self) -> usize {
        let wanted = match self.output {
            BookOutput::Deltas => 1000,
            BookOutput::Snapshots => self.depth,
            BookOutput::Quotes => 1,
        };
        self.levels.or_else(|| LEVELS.into_iter().find(|l| *l >= wanted)).unwrap_or(1000)
    }
}

/// A version of the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// The current one.
    #[default]
    V2,
    /// The older one.
    V1,
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
    /// Bars.
    Bars,
}

impl Channel {
    /// Its name at the venue, in both versions.
    fn name(self) -> &'static str {
        match self {
            Self::Trades => "trade",
            Self::Book => "book",
            Self::Tickers => "ticker",
            Self::Bars => "ohlc",
        }
    }
}

fn minute() -> Span {
    Span::from_ns(MINUTE_NS)
}

const MINUTE_NS: i64 = 60_000_000_000;
/// Intervals of bars in minutes.
const INTERVALS: [i64; 9] = [1, 5, 15, 30, 60, 240, 1440, 10080, 21600];
/// The `venue` column.
const VENUE: &str = "kraken";
/// Pairs that one message subscribes to.
const SUBSCRIBE_MAX: usize = 50;
/// Pairs of one connection: the venue sets no limit, but cuts connections that fall behind.
const SYMBOLS_MAX: usize = 200;
/// Between two messages to the venue, which names no limit for public ones.
const SEND_GAP_NS: i64 = 100_000_000;

impl Params {
    /// What is wrong with them.
    fn problems(&self) -> Problems {
        let mut problems = self.connection.problems();
        if self.symbols.is_empty() {
            problems.push(Problem::new("symbols", "a feed needs at least one pair").hint("write [BTC/USD]"));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (i, symbol) in self.symbols.iter().enumerate() {
            let at = format!("symbols[{i}]");
            let fine = |part: &str| {
                !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || ".-_".contains(c))
            };
            let pair = symbol.split_once('/').is_some_and(|(base, quote)| fine(base) && fine(quote));
            if symbol.len() > 40 || !pair {
                let problem = Problem::new(at, format!("`{symbol}` is no pair of Kraken"));
                problems.push(problem.hint("write base and quote with a slash, as BTC/USD"));
            } else if !seen.insert(symbol) {
                problems.push(Problem::new(at, format!("`{symbol}` is there twice")));
            }
        }
        if self.channel == Channel::Bars && !INTERVALS.iter().any(|m| m * MINUTE_NS == self.interval.ns()) {
            let problem = Problem::new("interval", format!("the venue has no bars of {}", self.interval));
            problems.push(problem.hint("one of: 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w, 15d"));
        }
        if let Some(levels) = self.book.levels.filter(|levels| !LEVELS.contains(levels)) {
            let problem = Problem::new("book.levels", format!("the venue has no books of {levels} levels"));
            problems.push(problem.hint("one of: 10, 25, 100, 500, 1000"));
        }
        if self.book.output == BookOutput::Snapshots {
            if !(1..=1000).contains(&self.book.depth) {
                problems.push(Problem::new("book.depth", "a snapshot has 1 to 1000 levels a side"));
            } else if self.book.depth > self.book.subscribed() {
                problems.push(Problem::new("book.depth", "is more than the `levels` that are subscribed to"));
            }
        }
        let numbered = self.channel == Channel::Trades && self.protocol == Version::V2;
        if self.connection.redundant > 1 && !numbered {
            let reason = "two connections can be told apart by trade ids only: nothing else has a number that both share";
            problems.push(
                Problem::new("connection.redundant", reason).hint("leave it out, or read `trades` of v2"),
            );
        }
        problems
    }

    fn endpoints(&self, url: &str, ping: &str, hello: impl Fn(&[String]) -> Vec<Outgoing>) -> Vec<Endpoint> {
        let url = self.ws_url.as_deref().unwrap_or(url);
        self.connection.endpoints(&self.symbols, SYMBOLS_MAX, |symbols| Endpoint {
            url: url.to_owned(),
            hello: hello(symbols),
            send_gap_ns: SEND_GAP_NS,
            ping: Some(ping.to_owned()),
            stale_ns: self.connection.stale_after.ns(),
            group: 0,
        })
    }
}

/// The kind.
pub struct Kraken;

#[async_trait]
impl SourceKind for Kraken {
    const KIND: &'static str = "kraken";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let problems = params.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let connection = params.connection.clone();
        let params = Arc::new(params);
        match params.protocol {
            Version::V2 => plan_feed(move || Box::new(V2::new(params.clone())), connection, cx),
            Version::V1 => plan_feed(move || Box::new(V1::new(params.clone())), connection, cx),
        }
    }
}
