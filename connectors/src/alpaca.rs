//! Alpaca: stocks and crypto, one channel of the market data stream as a source.
//!
//! `ts` is the time that the venue gives a trade or quote; bars carry only the start of their interval, so theirs is when they
//! were received. No state: the venue numbers nothing that would show a hole, and sends nothing again.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::problem::Problem;

use crate::venue::feed::{FeedParams, plan_feed};

pub mod account;
pub mod feed;
pub mod statuses;
pub mod trading;
pub mod wire;

pub use feed::AlpacaFeed;

#[cfg(test)]
mod samples;

/// Market data of Alpaca, stocks or crypto, of one channel and any number of symbols.
///
/// | channel | rows | the venue's channel |
/// |---|---|---|
/// | `trades` | `trade_id, price, size, side` (`side` for crypto only) | `trades` |
/// | `quotes` | `bid, bid_size, ask, ask_size` (sizes as the venue sends them: stocks' in round lots) | `quotes` |
/// | `bars` | `start, open, high, low, close, volume, trades`, right after each minute | `bars` |
/// | `updated_bars` | the same, and again where late trades changed a minute | `bars`, `updatedBars` |
/// | `daily_bars` | the day so far, after each minute; `closed` is false | `dailyBars` |
/// | `statuses` | `halted, status, status_text, reason, reason_text`, when a stock's trading status changes | `statuses` |
///
/// All rows begin with `ts, venue, symbol` (`venue` is `alpaca`) and end with `received_at`. A symbol of `*` is all of them.
///
/// `halted` is true after a trading halt or pause, false once trading resumes, and null where a status says neither (imbalances, price
/// bands, quotes that come again before trading does); so the stream is one that `execution` reads. The venue sends changes only:
/// of a stock that was halted before the feed was connected, nothing is known, nor of what changed while it was not.
///
/// Corrections and cancels of trades already sent are no rows: they are counted (`corrections`, `cancels`) and told as notices.
/// **Nothing on this feed shows a lost message**: trade ids don't follow one another and quotes have none.
/// Most subscriptions allow one connection to a feed, and the free one 30 symbols.
///
/// Its errors (402 auth failed, 405 symbol limit exceeded, 406 connection limit exceeded, 409 insufficient subscription, …) are
/// notices that say what to do.
///
/// ```yaml
/// sources:
///   trades:
///     kind: alpaca
///     with:
///       feed: iex
///       symbols: [AAPL, SPY]
///       channel: trades
///       key: "${APCA_API_KEY_ID:-none}"
///       secret: "${APCA_API_SECRET_KEY:-none}"
/// ```
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `sip` (all exchanges), `iex`, `delayed_sip`, `boats`, `overnight`, `crypto`, or `test` (symbol FAKEPACA, around the clock).
    pub feed: Feed,
    /// Symbols: `AAPL`; `BTC/USD` for crypto; `*` for all.
    pub symbols: Vec<String>,
    /// What to read.
    pub channel: Channel,
    /// API key id: `${ENV}` or `file:PATH`.
    pub key: String,
    /// API secret key: `${ENV}` or `file:PATH`.
    pub secret: String,
    /// Another address than the venue's: the sandbox `wss://stream.data.sandbox.alpaca.markets`, a server of captures.
    #[serde(default)]
    pub ws_url: Option<String>,
    /// Connections, capture and replay.
    #[serde(default)]
    pub connection: FeedParams,
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feed, symbols, channel, key: _, secret: _, ws_url, connection } = self;
        let mut shown = f.debug_struct("Params");
        shown.field("feed", feed).field("symbols", symbols).field("channel", channel);
        shown.field("key", &"***").field("secret", &"***");
        shown.field("ws_url", ws_url).field("connection", connection).finish()
    }
}

/// A feed of the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// All US exchanges.
    Sip,
    /// The Investors Exchange.
    Iex,
    /// All US exchanges, 15 minutes late.
    DelayedSip,
    /// Blue Ocean ATS.
    Boats,
    /// The venue's own overnight feed.
    Overnight,
    /// Crypto on the venue's own exchange.
    Crypto,
    /// A made-up symbol, FAKEPACA.
    Test,
}

impl Feed {
    /// Its path at the stream's address: <https://docs.alpaca.markets/docs/streaming-market-data>.
    pub fn path(self) -> &'static str {
        match self {
            Self::Sip => "v2/sip",
            Self::Iex => "v2/iex",
            Self::DelayedSip => "v2/delayed_sip",
            Self::Boats => "v1beta1/boats",
            Self::Overnight => "v1beta1/overnight",
            Self::Crypto => "v1beta3/crypto/us",
            Self::Test => "v2/test",
        }
    }
}

/// A channel of the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Trades.
    Trades,
    /// Best bid and ask, as they change.
    Quotes,
    /// Minutes, once.
    Bars,
    /// Minutes, and again where late trades changed them.
    UpdatedBars,
    /// The day so far.
    DailyBars,
    /// Trading halts and resumptions of stocks.
    Statuses,
}

impl Channel {
    /// The venue's names of what is subscribed to.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Trades => &["trades"],
            Self::Quotes => &["quotes"],
            Self::Bars => &["bars"],
            Self::UpdatedBars => &["bars", "updatedBars"],
            Self::DailyBars => &["dailyBars"],
            Self::Statuses => &["statuses"],
        }
    }
}

/// The kind.
pub struct Alpaca;

#[async_trait]
impl SourceKind for Alpaca {
    const KIND: &'static str = "alpaca";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let problems = problems(&params);
        if !problems.is_empty() {
            return Err(problems);
        }
        let connection = params.connection.clone();
        let params = Arc::new(params);
        plan_feed(move || Box::new(AlpacaFeed::new(params.clone())), connection, cx)
    }
}

fn problems(params: &Params) -> Problems {
    let mut problems = params.connection.problems();
    if params.symbols.is_empty() {
        problems.push(
            Problem::new("symbols", "a feed needs at least one symbol").hint("write [AAPL], or [\"*\"]"),
        );
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, symbol) in params.symbols.iter().enumerate() {
        let at = format!("symbols[{i}]");
        let fine = |c: char| c.is_ascii_alphanumeric() || "./-*_".contains(c);
        if symbol.is_empty() || symbol.len() > 40 || !symbol.chars().all(fine) {
            problems.push(Problem::new(at, format!("`{symbol}` is no symbol of Alpaca")));
        } else if !seen.insert(symbol) {
            problems.push(Problem::new(at, format!("`{symbol}` is there twice")));
        }
    }
    for (at, value) in [("key", &params.key), ("secret", &params.secret)] {
        if value.is_empty() {
            let problem = Problem::new(at, "is empty");
            problems.push(problem.hint("write a reference: \"${APCA_API_KEY_ID}\", or file:PATH"));
        }
    }
    if params.channel == Channel::Statuses && params.feed == Feed::Crypto {
        problems.push(Problem::new("channel", "crypto has no `statuses`: it is never halted"));
    }
    if params.connection.redundant > 1 {
        let problem = Problem::new(
            "connection.redundant",
            "the venue numbers no messages, so two connections can't be told apart",
        );
        problems.push(problem.hint("leave it out"));
    }
    problems
}
