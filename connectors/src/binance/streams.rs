//! Which streams make up a channel, over which connections, at which addresses.
//!
//! Streams are named in the URL of a combined stream, as far as a URL of [`URL_BYTES_MAX`] reaches; the rest is subscribed to with
//! messages. A name that the venue doesn't know is passed over by it without a word.

use tidemill_engine::problem::Problem;

use super::{Book, Channel, Market, Params};
use crate::venue::protocol::{Endpoint, Outgoing};

/// Longest URL of a combined stream; servers and proxies refuse long ones (431).
pub const URL_BYTES_MAX: usize = 4000;
/// Streams that one SUBSCRIBE message names.
const SUBSCRIBE_MAX: usize = 100;

impl Market {
    /// Streams that one connection may have.
    pub fn streams_max(self) -> usize {
        match self {
            Self::Spot => 1024,
            Self::Usdm => 200,
        }
    }

    /// Messages that the venue takes from us each second, pongs among them; one is left for those.
    fn messages_per_second(self) -> i64 {
        match self {
            Self::Spot => 5,
            Self::Usdm => 10,
        }
    }

    /// The `venue` column.
    pub fn venue(self) -> &'static str {
        match self {
            Self::Spot => "binance",
            Self::Usdm => "binance_usdm",
        }
    }

    /// Where REST requests go.
    pub fn rest_url(self) -> &'static str {
        match self {
            Self::Spot => "https://api.binance.com",
            Self::Usdm => "https://fapi.binance.com",
        }
    }

    /// Path of REST requests.
    pub fn rest_path(self) -> &'static str {
        match self {
            Self::Spot => "/api/v3",
            Self::Usdm => "/fapi/v1",
        }
    }

    /// Where streams of a channel come from. USD-M futures are split: books and best prices at `/public`, the
    /// rest at `/market`, and the old unsplit address no longer sends the latter (since 2026-04-23).
    /// <https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/Important-WebSocket-Change-Notice>
    pub fn ws_url(self, channel: Channel) -> &'static str {
        match (self, channel) {
            (Self::Spot, _) => "wss://stream.binance.com:9443",
            (Self::Usdm, Channel::Book | Channel::Quotes | Channel::Trades) => {
                "wss://fstream.binance.com/public"
            }
            (Self::Usdm, _) => "wss://fstream.binance.com/market",
        }
    }

    /// Bar intervals of the venue.
    pub fn intervals(self) -> &'static [&'static str] {
        const ALL: [&str; 16] = [
            "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M",
        ];
        match self {
            Self::Spot => &ALL,
            Self::Usdm => &ALL[1..],
        }
    }

    /// Update speeds of the `depth` stream, the venue's default first.
    pub fn speeds(self) -> &'static [&'static str] {
        match self {
            Self::Spot => &["1000ms", "100ms"],
            Self::Usdm => &["250ms", "500ms", "100ms"],
        }
    }

    /// Weight of a REST request for a book of 1000 levels.
    pub fn depth_weight(self) -> u32 {
        match self {
            Self::Spot => 50,
            Self::Usdm => 20,
        }
    }
}

/// The stream's name of a symbol in lower case.
pub fn stream(symbol: &str, params: &Params) -> String {
    let s = symbol.to_lowercase();
    match params.channel {
        Channel::Trades => format!("{s}@trade"),
        Channel::AggTrades => format!("{s}@aggTrade"),
        Channel::Quotes => format!("{s}@bookTicker"),
        Channel::Book => {
            let Book { speed, .. } = &params.book;
            match *speed == params.market.speeds()[0] {
                true => format!("{s}@depth"),
                false => format!("{s}@depth@{speed}"),
            }
        }
        Channel::Bars => format!("{s}@kline_{}", params.interval),
        Channel::Tickers => format!("{s}@ticker"),
        Channel::MarkPrices => format!("{s}@markPrice@1s"),
        Channel::Liquidations => format!("{s}@forceOrder"),
    }
}

/// The connections.
pub fn endpoints(params: &Params) -> Vec<Endpoint> {
    let base = params.ws_url.as_deref().unwrap_or_else(|| params.market.ws_url(params.channel));
    params.connection.endpoints(&params.symbols, params.market.streams_max(), |symbols| {
        let streams: Vec<String> = symbols.iter().map(|symbol| stream(symbol, params)).collect();
        endpoint(base.trim_end_matches('/'), &streams, params)
    })
}

fn endpoint(base: &str, streams: &[String], params: &Params) -> Endpoint {
    let unit = if params.microseconds { "&timeUnit=MICROSECOND" } else { "" };
    let mut named = String::new();
    let mut rest = streams;
    while let Some((first, others)) = rest.split_first() {
        if base.len() + named.len() + first.len() + 64 > URL_BYTES_MAX {
            break;
        }
        if !named.is_empty() {
            named.push('/');
        }
        named.push_str(first);
        rest = others;
    }
    let hello = rest.chunks(SUBSCRIBE_MAX).zip(1..).map(|(streams, id)| subscribe(streams, id)).collect();
    Endpoint {
        url: format!("{base}/stream?streams={named}{unit}"),
        hello,
        send_gap_ns: 1_000_000_000 / (params.market.messages_per_second() - 1),
        // The venue pings (every 20 s on spot, every 3 min on futures), and the driver answers.
        ping: None,
        stale_ns: params.connection.stale_after.ns(),
        group: 0,
    }
}

fn subscribe(streams: &[String], id: u32) -> Outgoing {
    Outgoing::plain(serde_json::json!({ "method": "SUBSCRIBE", "params": streams, "id": id }).to_string())
}

/// What is wrong with the parameters that concern streams.
pub fn problems(params: &Params) -> Vec<Problem> {
    let mut problems = Vec::new();
    let market = params.market;
    if params.symbols.is_empty() {
        problems.push(Problem::new("symbols", "a feed needs at least one symbol").hint("write [BTCUSDT]"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, symbol) in params.symbols.iter().enumerate() {
        let at = format!("symbols[{i}]");
        let fine = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        if symbol.is_empty() || symbol.len() > 40 || !symbol.chars().all(fine) {
            let problem = Problem::new(at, format!("`{symbol}` is no symbol of Binance"));
            problems.push(problem.hint("write it without a separator, as BTCUSDT"));
        } else if !seen.insert(symbol.to_uppercase()) {
            problems.push(Problem::new(at, format!("`{symbol}` is there twice")));
        }
    }
    let futures_only = matches!(params.channel, Channel::MarkPrices | Channel::Liquidations);
    if futures_only && market == Market::Spot {
        let problem = Problem::new("channel", "spot has no such channel").hint("write market: usdm");
        problems.push(problem);
    }
    if params.channel == Channel::Bars && !market.intervals().contains(&params.interval.as_str()) {
        let problem = Problem::new("interval", format!("`{}` is no interval of the venue", params.interval));
        problems.push(problem.hint_names(&params.interval, market.intervals().iter().copied()));
    }
    if params.channel == Channel::Book && !market.speeds().contains(&params.book.speed.as_str()) {
        let problem = Problem::new("book.speed", format!("`{}` is no speed of the venue", params.book.speed));
        problems.push(problem.hint_names(&params.book.speed, market.speeds().iter().copied()));
    }
    if !(1..=super::depth::SNAPSHOT_LEVELS).contains(&params.book.depth) {
        problems.push(Problem::new("book.depth", "is not from 1 to 1000 levels"));
    }
    if params.microseconds && market == Market::Usdm {
        problems.push(Problem::new("microseconds", "only spot sends times in microseconds"));
    }
    problems
}
