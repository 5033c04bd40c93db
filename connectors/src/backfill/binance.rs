//! Binance history over REST: klines, aggregate trades, trades; spot and USD-M futures.
//!
//! <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints> and
//! <https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api>.
//! Aggregate trades: the first page by `startTime`, the others by `fromId`, since a millisecond may hold more
//! trades than a page. Trades have no request by time: the first id is that of the first aggregate trade (`f`).

use serde::Deserialize;

use super::columns::{self, Bar, Trade};
use super::continuity::Rule;
use super::ranges::{Cut, Span};
use super::rest::{Limits, PageError, Pager, Request};
use arrow::array::RecordBatch;

/// Rows of one page; every endpoint here takes it.
const LIMIT: usize = 1000;
/// How far a search by time goes on when the venue finds nothing: it may look no further than an hour itself.
const SEARCH_STEP_MS: i64 = 3_600_000;
const MS_NS: i64 = 1_000_000;
/// The longest month.
const MONTH_NS_MAX: i64 = 31 * super::ranges::DAY_NS;

/// Spot or futures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Market {
    /// The spot market.
    Spot,
    /// USD-margined futures.
    Usdm,
}

impl Market {
    /// Its name in sources of ranges.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::Usdm => "usdm",
        }
    }

    /// The venue's name in rows, as the feeds write it.
    pub fn venue(self) -> &'static str {
        match self {
            Self::Spot => "binance",
            Self::Usdm => "binance_usdm",
        }
    }

    /// Where its REST API is.
    pub fn url(self) -> &'static str {
        match self {
            Self::Spot => "https://api.binance.com",
            Self::Usdm => "https://fapi.binance.com",
        }
    }

    /// Its limits an address: 6000 and 2400 weight a minute.
    pub fn limits(self, per_second: Option<f64>) -> Limits {
        let weight = match self {
            Self::Spot => 6000,
            Self::Usdm => 2400,
        };
        Limits { weight_per_minute: Some(weight), used_header: Some("x-mbx-used-weight-1m"), per_second }
    }

    fn path(self, endpoint: &str) -> String {
        match self {
            Self::Spot => format!("/api/v3/{endpoint}"),
            Self::Usdm => format!("/fapi/v1/{endpoint}"),
        }
    }
}

/// What of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Bars of an interval.
    Klines(Interval),
    /// Aggregate trades: one a taker order and price.
    AggTrades,
    /// Every trade.
    Trades,
}

/// An interval of klines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// As the venue writes it: `1m`, `1h`, `1d`.
    pub name: String,
    /// Its length, where it always has the same one.
    pub ns: Option<i64>,
}

impl std::str::FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [
            "1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M",
        ];
        if !known.contains(&text) {
            return Err(format!("`{text}` is no interval of Binance's: {}", known.join(", ")));
        }
        let ns =
            text.parse::<tidemill_engine::duration::Span>().ok().map(|s| s.ns()).filter(|_| text != "1M");
        Ok(Self { name: text.to_owned(), ns })
    }
}

impl Data {
    /// The dataset it goes to where the user names none.
    pub fn dataset(&self) -> String {
        match self {
            Self::Klines(interval) => format!("bars_{}", interval.name),
            Self::AggTrades => "agg_trades".into(),
            Self::Trades => "trades".into(),
        }
    }

    /// How its ranges are called; dumps of the same data have the same name, so neither fetches what
    /// the other has brought.
    pub fn source(&self, market: Market) -> String {
        let what = match self {
            Self::Klines(interval) => format!("klines.{}", interval.name),
            Self::AggTrades => "agg_trades".into(),
            Self::Trades => "trades".into(),
        };
        format!("binance.{}.{what}", market.name())
    }

    /// What a whole history looks like.
    pub fn rule(&self) -> Rule {
        match self {
            // Weeks begin on Mondays, three days and months anywhere.
            Self::Klines(Interval { ns: Some(ns), .. }) if *ns <= super::ranges::DAY_NS => {
                Rule::Every { column: "ts".into(), interval_ns: *ns }
            }
            Self::Klines(_) => Rule::None,
            Self::AggTrades | Self::Trades => Rule::Ids("trade_id".into()),
        }
    }

    /// The pieces that it is fetched in.
    pub fn cut(&self) -> Cut {
        match self {
            Self::Klines(Interval { ns: Some(ns), .. }) if *ns < 60_000_000_000 => Cut::Days,
            Self::Klines(Interval { ns: Some(ns), .. }) if *ns < super::ranges::DAY_NS => Cut::Months,
            Self::Klines(_) => Cut::Whole,
            Self::AggTrades | Self::Trades => Cut::Days,
        }
    }
}

/// A pager of `data` over a range.
pub fn pager(market: Market, data: &Data, symbol: &str, span: Span) -> Box<dyn Pager> {
    let (market, symbol) = (market, symbol.to_owned());
    let from_ms = span.from.div_euclid(MS_NS) + i64::from(span.from.rem_euclid(MS_NS) > 0);
    match data {
        Data::Klines(interval) => Box::new(Klines {
            market,
            symbol,
            interval: interval.clone(),
            span,
            // Ranges go by `ts`, a bar's end; requests by its start.
            next_ms: Some(from_ms - interval.ns.unwrap_or(MONTH_NS_MAX).div_euclid(MS_NS)),
            reached: span.from,
            rows: Vec::new(),
        }),
        Data::AggTrades | Data::Trades => Box::new(Trades {
            market,
            symbol,
            aggregate: *data == Data::AggTrades,
            span,
            at: At::Time(from_ms),
            reached: span.from,
            rows: Vec::new(),
        }),
    }
}

struct Klines {
    market: Market,
    symbol: String,
    interval: Interval,
    span: Span,
    next_ms: Option<i64>,
    reached: i64,
    rows: Vec<Bar>,
}

/// Open time, open, high, low, close, volume, close time, quote volume, trades, …
type Kline<'a> =
    (i64, &'a str, &'a str, &'a str, &'a str, &'a str, i64, &'a str, i64, &'a str, &'a str, &'a str);

impl Pager for Klines {
    fn next(&mut self) -> Option<Request> {
        let from = self.next_ms.filter(|ms| ms.saturating_mul(MS_NS) < self.span.to)?;
        // `endTime` is inclusive.
        let to = (self.span.to - 1).div_euclid(MS_NS);
        let path = format!(
            "{}?symbol={}&interval={}&startTime={from}&endTime={to}&limit={LIMIT}",
            self.market.path("klines"),
            self.symbol,
            self.interval.name
        );
        let weight = match self.market {
            Market::Spot => 2,
            Market::Usdm => 5,
        };
        Some(Request { path, weight })
    }

    fn page(&mut self, body: &[u8]) -> Result<(), PageError> {
        let page: Vec<Kline<'_>> = read(body)?;
        let mut bars = Vec::with_capacity(page.len());
        for k in &page {
            let start = ns(k.0)?;
            let bar = Bar {
                start,
                prices: [number(k.1)?, number(k.2)?, number(k.3)?, number(k.4)?],
                volume: number(k.5)?,
                trades: Some(k.8),
                end: self.interval.ns.map_or(ns(k.6)? + MS_NS, |length| start + length),
            };
            bars.push(bar);
        }
        ascending(bars.iter().map(|b| b.start))?;
        match page.last() {
            Some(last) if Some(last.0) < self.next_ms => {
                return Err(PageError::Garbled("the page is older than what was asked for".into()));
            }
            last => self.next_ms = last.map(|k| k.0 + 1),
        }
        self.rows.extend(bars.into_iter().filter(|b| self.span.holds(b.end)));
        self.reached = self.rows.last().map_or(self.reached, |b| b.end);
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> RecordBatch {
        columns::bars(self.market.venue(), &self.symbol, &std::mem::take(&mut self.rows))
    }

    fn reached_ns(&self) -> i64 {
        self.reached
    }
}

/// Where a walk over trades stands.
enum At {
    /// Looks for the first trade from this millisecond on.
    Time(i64),
    /// Goes on with this id.
    Id(i64),
    /// At the end.
    End,
}

struct Trades {
    market: Market,
    symbol: String,
    aggregate: bool,
    span: Span,
    at: At,
    reached: i64,
    rows: Vec<Trade>,
}

#[derive(Deserialize)]
struct AggTrade<'a> {
    a: i64,
    p: &'a str,
    q: &'a str,
    /// The first trade in it.
    f: i64,
    #[serde(rename = "T")]
    time: i64,
    m: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneTrade<'a> {
    id: i64,
    price: &'a str,
    qty: &'a str,
    time: i64,
    is_buyer_maker: bool,
}

impl Pager for Trades {
    fn next(&mut self) -> Option<Request> {
        let (aggregates, trades) = match self.market {
            Market::Spot => (4, 25),
            Market::Usdm => (20, 20),
        };
        let symbol = &self.symbol;
        let (endpoint, query, weight) = match self.at {
            At::Time(ms) if ms.saturating_mul(MS_NS) >= self.span.to => return None,
            At::Time(ms) => {
                let limit = if self.aggregate { LIMIT } else { 1 };
                ("aggTrades", format!("startTime={ms}&limit={limit}"), aggregates)
            }
            At::Id(id) if self.aggregate => ("aggTrades", format!("fromId={id}&limit={LIMIT}"), aggregates),
            At::Id(id) => ("historicalTrades", format!("fromId={id}&limit={LIMIT}"), trades),
            At::End => return None,
        };
        Some(Request { path: format!("{}?symbol={symbol}&{query}", self.market.path(endpoint)), weight })
    }

    fn page(&mut self, body: &[u8]) -> Result<(), PageError> {
        let page = match self.at {
            At::Time(ms) if !self.aggregate => {
                let first: Vec<AggTrade<'_>> = read(body)?;
                self.at = first.first().map_or(At::Time(ms + SEARCH_STEP_MS), |t| At::Id(t.f));
                return Ok(());
            }
            _ if self.aggregate => {
                let page: Vec<AggTrade<'_>> = read(body)?;
                page.iter().map(|t| trade(t.a, t.time, t.p, t.q, t.m)).collect::<Result<Vec<_>, _>>()?
            }
            _ => {
                let page: Vec<OneTrade<'_>> = read(body)?;
                page.iter()
                    .map(|t| trade(t.id, t.time, t.price, t.qty, t.is_buyer_maker))
                    .collect::<Result<Vec<_>, _>>()?
            }
        };
        ascending(page.iter().map(|t| t.id))?;
        let end = page.iter().position(|t| t.ts >= self.span.to);
        let at = match (page.last(), &self.at) {
            _ if end.is_some() => At::End,
            (None, At::Time(ms)) => At::Time(ms + SEARCH_STEP_MS),
            // Nothing behind the last id yet.
            (None, _) => At::End,
            (Some(last), At::Id(asked)) if last.id < *asked => {
                return Err(PageError::Garbled(format!(
                    "asked for trades from {asked} on, the last is {}",
                    last.id
                )));
            }
            (Some(last), _) => At::Id(last.id + 1),
        };
        let asked = if let At::Id(id) = self.at { id } else { i64::MIN };
        self.at = at;
        self.reached = page.last().map_or(self.reached, |t| t.ts.min(self.span.to));
        let upto = end.unwrap_or(page.len());
        self.rows.extend(page[..upto].iter().filter(|t| t.id >= asked && self.span.holds(t.ts)));
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> RecordBatch {
        columns::trades(self.market.venue(), &self.symbol, &std::mem::take(&mut self.rows))
    }

    fn reached_ns(&self) -> i64 {
        self.reached
    }
}

fn trade(id: i64, time: i64, price: &str, size: &str, buyer_made: bool) -> Result<Trade, PageError> {
    Ok(Trade { ts: ns(time)?, id, price: number(price)?, size: number(size)?, taker_bought: !buyer_made })
}

/// Reads a page; the venue's own `{code, msg}` is its refusal.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, PageError> {
    sonic_rs::from_slice(body).map_err(|error| {
        #[derive(Deserialize)]
        struct Refusal {
            code: i64,
            msg: String,
        }
        match sonic_rs::from_slice::<Refusal>(body) {
            Ok(refusal) => PageError::Refused(format!("code {}: {}", refusal.code, refusal.msg)),
            Err(_) => PageError::Garbled(garbled(&error)),
        }
    })
}

/// A parser's error without its picture of the text.
pub(super) fn garbled(error: &sonic_rs::Error) -> String {
    let text = error.to_string();
    format!("the answer is not what the venue documents: {}", text.lines().next().unwrap_or_default())
}

/// A number that stands as text; negative and infinite ones are no price and no size.
pub(super) fn number(text: &str) -> Result<f64, PageError> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(n),
        _ => Err(PageError::Garbled(format!(
            "`{}` is not a number",
            text.chars().take(40).collect::<String>()
        ))),
    }
}

/// Nanoseconds from milliseconds or, by their size, microseconds.
fn ns(time: i64) -> Result<i64, PageError> {
    unit_ns(time).ok_or_else(|| PageError::Garbled(format!("{time} is not a time")))
}

/// Nanoseconds from a time whose unit its size tells: Binance's are milliseconds, and in spot dumps since
/// 2025 microseconds. (Milliseconds reach 10^14 in the year 5138, microseconds did in 1973.)
pub fn unit_ns(time: i64) -> Option<i64> {
    match time.unsigned_abs() {
        0..100_000_000_000_000 => time.checked_mul(MS_NS),
        100_000_000_000_000..100_000_000_000_000_000 => time.checked_mul(1000),
        _ => Some(time),
    }
}

fn ascending(ids: impl Iterator<Item = i64>) -> Result<(), PageError> {
    let mut last = i64::MIN;
    for id in ids {
        if id <= last {
            return Err(PageError::Garbled(format!("{id} comes after {last} on the page")));
        }
        last = id;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_tells_its_unit() {
        assert_eq!(unit_ns(1_704_067_200_000), Some(1_704_067_200_000_000_000));
        assert_eq!(unit_ns(1_735_689_600_000_001), Some(1_735_689_600_000_001_000));
        assert_eq!(unit_ns(1_735_689_600_000_000_001), Some(1_735_689_600_000_000_001));
    }

    #[test]
    fn a_page_is_taken_whole_or_not_at_all() {
        let mut pager = pager(Market::Spot, &Data::AggTrades, "X", Span::new(0, 10_000_000_000));
        assert_eq!(pager.next().unwrap().path, "/api/v3/aggTrades?symbol=X&startTime=0&limit=1000");
        // As the docs show it.
        let good = br#"[{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":1498,"m":true,"M":true}]"#;
        assert!(matches!(pager.page(&good[..good.len() - 2]), Err(PageError::Garbled(_))));
        assert!(matches!(
            pager.page(br#"{"code":-1121,"msg":"Invalid symbol."}"#),
            Err(PageError::Refused(reason)) if reason == "code -1121: Invalid symbol."
        ));
        assert_eq!((pager.rows(), pager.next().unwrap().path.contains("startTime=0")), (0, true));
        pager.page(good).unwrap();
        assert_eq!(pager.next().unwrap().path, "/api/v3/aggTrades?symbol=X&fromId=26130&limit=1000");
        pager.page(b"[]").unwrap();
        assert_eq!(pager.next(), None);
        let rows = pager.finish();
        assert_eq!(rows.num_rows(), 1);
        assert_eq!(tidemill_engine::row::text(rows.column_by_name("side").unwrap(), 0), Some("sell"));
    }
}
