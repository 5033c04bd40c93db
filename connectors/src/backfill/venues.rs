//! Venues' REST histories: symbols over a span of time.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tidemill_archive::Covered;
use tidemill_engine::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::continuity::Rule;
use super::ranges::{Cut, Span};
use super::rest::{Limits, Pager, Rest};
use super::{Failure, History, Rows, Work, binance, coinbase, columns, kraken};

/// How long after an event a venue's history is taken to have it, nanoseconds.
const SETTLED_NS: i64 = 5_000_000_000;

/// Which venue, and what of it.
#[derive(Clone, Debug)]
pub enum Venue {
    /// Binance.
    Binance(binance::Market, binance::Data),
    /// Coinbase Exchange trades; the ids at borders of ranges that were fetched.
    Coinbase(coinbase::Borders),
    /// Kraken trades.
    Kraken,
}

/// A venue's history.
pub struct VenueHistory {
    venue: Venue,
    symbols: Vec<String>,
    span: Span,
    rest: Rest,
}

/// What a user wants of a venue.
#[derive(Clone)]
pub struct Wanted {
    /// Which venue, and what of it.
    pub venue: Venue,
    /// Symbols as the venue writes them.
    pub symbols: Vec<String>,
    /// From when to when, by `ts` (a bar's is its end); the end is moved to now where it is later.
    pub span: Span,
    /// Another place of the REST API.
    pub rest_url: Option<String>,
    /// Requests a second at most; default: by the venue's limits.
    pub per_second: Option<f64>,
    /// A header with an API key, sent with every request; never shown.
    pub secret_header: Option<(String, String)>,
}

impl Venue {
    /// The dataset its rows go to where the user names none.
    pub fn dataset(&self) -> String {
        match self {
            Self::Binance(_, data) => data.dataset(),
            Self::Coinbase(_) | Self::Kraken => "trades".into(),
        }
    }

    fn limits(&self, per_second: Option<f64>) -> Limits {
        match self {
            Self::Binance(market, _) => market.limits(per_second),
            Self::Coinbase(_) => coinbase::limits(per_second),
            Self::Kraken => kraken::limits(per_second),
        }
    }

    fn url(&self) -> &'static str {
        match self {
            Self::Binance(market, _) => market.url(),
            Self::Coinbase(_) => coinbase::URL,
            Self::Kraken => kraken::URL,
        }
    }

    fn source(&self) -> String {
        match self {
            Self::Binance(market, data) => data.source(*market),
            Self::Coinbase(_) => "coinbase.trades".into(),
            Self::Kraken => "kraken.trades".into(),
        }
    }

    fn cut(&self) -> Cut {
        match self {
            Self::Binance(_, data) => data.cut(),
            Self::Coinbase(_) | Self::Kraken => Cut::Days,
        }
    }
}

impl VenueHistory {
    /// A history; refuses what is no request.
    pub fn new(wanted: Wanted, clock: Clock, stop: CancellationToken) -> Result<Self, String> {
        let Wanted { venue, mut symbols, mut span, rest_url, per_second, secret_header } = wanted;
        for symbol in &mut symbols {
            *symbol = symbol.trim().to_owned();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/' | '_' | '.');
            if symbol.is_empty() || !symbol.chars().all(plain) {
                return Err(format!("`{symbol}` is no symbol of a venue's"));
            }
        }
        span.to = span.to.min(clock.now_ns() - SETTLED_NS);
        if span.is_empty() {
            return Err(format!(
                "there is nothing between {} and {}",
                super::ranges::time(span.from),
                super::ranges::time(span.to)
            ));
        }
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = secret_header {
            let mut value =
                HeaderValue::from_str(&value).map_err(|_| format!("the value of {name} is no header"))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?, value);
        }
        let url = rest_url.unwrap_or_else(|| venue.url().to_owned());
        let rest = Rest::new(&url, headers, venue.limits(per_second), clock, stop)?;
        Ok(Self { venue, symbols, span, rest })
    }
}

#[async_trait]
impl History for VenueHistory {
    fn columns(&self) -> SchemaRef {
        match &self.venue {
            Venue::Binance(_, binance::Data::Klines(_)) => columns::bars_schema(),
            _ => columns::trades_schema(),
        }
    }

    fn partition_by(&self) -> Vec<String> {
        let mut folders = vec!["venue".to_owned(), "symbol".to_owned()];
        let long = match &self.venue {
            Venue::Binance(_, binance::Data::Klines(interval)) => {
                interval.ns.is_none_or(|ns| ns >= 60_000_000_000)
            }
            _ => false,
        };
        // A day of minute bars is a file of 1440 rows: their folders are years of days too many.
        if !long {
            folders.push("date".into());
        }
        folders
    }

    fn rule(&self) -> Rule {
        match &self.venue {
            Venue::Binance(_, data) => data.rule(),
            Venue::Coinbase(_) | Venue::Kraken => Rule::Ids("trade_id".into()),
        }
    }

    async fn plan(&self, _there: &[Covered], _force: bool) -> Result<Vec<Work>, Failure> {
        let work = self.symbols.iter().enumerate().map(|(index, symbol)| Work {
            source: self.venue.source(),
            key: vec![("symbol".into(), symbol.clone())],
            label: symbol.clone(),
            span: self.span,
            cut: self.venue.cut(),
            size: self.span.length(),
            index,
        });
        Ok(work.collect())
    }

    async fn fetch(&self, work: &Work, piece: Span, out: &mut Rows) -> Result<(), Failure> {
        let symbol = &self.symbols[work.index];
        let mut pager: Box<dyn Pager> = match &self.venue {
            Venue::Binance(market, data) => binance::pager(*market, data, symbol, piece),
            Venue::Coinbase(borders) => coinbase::pager(symbol, piece, Arc::clone(borders)),
            Venue::Kraken => kraken::pager(symbol, piece),
        };
        self.rest.walk(pager.as_mut(), out).await
    }
}
