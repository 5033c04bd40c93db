//! Kraken trades over REST, `GET /0/public/Trades`:
//! <https://docs.kraken.com/api/docs/rest-api/get-recent-trades>.
//!
//! Pages go forward by time (`since`, nanoseconds). Times in rows may be rounded and several trades have the same,
//! so each page begins one nanosecond before the last trade known, and what was seen already is told by its id.

use arrow::array::RecordBatch;
use serde::Deserialize;

use super::binance::{garbled, number};
use super::columns::{self, Trade};
use super::ranges::Span;
use super::rest::{Limits, PageError, Pager, Request};

/// Rows of one page.
const LIMIT: usize = 1000;
/// Where the REST API is.
pub const URL: &str = "https://api.kraken.com";
/// The venue's name in rows.
pub const VENUE: &str = "kraken";

/// About one request a second.
pub fn limits(per_second: Option<f64>) -> Limits {
    Limits { weight_per_minute: None, used_header: None, per_second: per_second.or(Some(1.0)) }
}

/// A pager of trades over a range; `pair` as the user writes it, `XBTUSD` or `BTC/USD`.
pub fn pager(pair: &str, span: Span) -> Box<dyn Pager> {
    Box::new(Trades {
        pair: pair.to_owned(),
        span,
        since: Some(span.from - 1),
        last_id: i64::MIN,
        reached: span.from,
        rows: Vec::new(),
    })
}

struct Trades {
    pair: String,
    span: Span,
    since: Option<i64>,
    last_id: i64,
    reached: i64,
    rows: Vec<Trade>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    error: Vec<String>,
    #[serde(borrow, default)]
    result: Option<std::collections::BTreeMap<String, sonic_rs::LazyValue<'a>>>,
}

/// Price, volume, time, side, order type, miscellaneous, trade id.
type OneTrade<'a> = (&'a str, &'a str, sonic_rs::LazyValue<'a>, &'a str, &'a str, &'a str, i64);

impl Pager for Trades {
    fn next(&mut self) -> Option<Request> {
        let since = self.since?;
        let pair = self.pair.replace('/', "");
        Some(Request { path: format!("/0/public/Trades?pair={pair}&since={since}&count={LIMIT}"), weight: 1 })
    }

    fn page(&mut self, body: &[u8]) -> Result<(), PageError> {
        let garbage = |e: sonic_rs::Error| PageError::Garbled(garbled(&e));
        let answer: Answer<'_> = sonic_rs::from_slice(body).map_err(garbage)?;
        if let Some(error) = answer.error.first() {
            let busy = ["Rate limit", "Too many", "Busy", "Unavailable", "Internal error", "Timeout"];
            return Err(match busy.iter().any(|b| error.contains(b)) {
                true => PageError::Busy(error.clone()),
                false => PageError::Refused(error.clone()),
            });
        }
        let result = answer.result.unwrap_or_default();
        let Some((_, rows)) = result.iter().find(|(name, _)| *name != "last") else {
            return Err(PageError::Garbled("the answer has no pair".into()));
        };
        let page: Vec<OneTrade<'_>> = sonic_rs::from_str(rows.as_raw_str()).map_err(garbage)?;
        let trades = page.iter().map(trade).collect::<Result<Vec<_>, _>>()?;
        if !trades.windows(2).all(|w| w[0].id < w[1].id) {
            return Err(PageError::Garbled("the page is not in order of trade ids".into()));
        }
        let since = self.since.unwrap_or(self.span.from);
        let new: Vec<Trade> = trades.iter().copied().filter(|t| t.id > self.last_id).collect();
        let over = new.iter().any(|t| t.ts >= self.span.to);
        self.since = match new.last() {
            _ if over => None,
            Some(last) => Some((last.ts - 1).max(since)),
            // A whole page of one nanosecond: on behind it. A page that isn't full is the end.
            None if trades.len() >= LIMIT => trades.last().map(|t| t.ts.max(since + 1)),
            None => None,
        };
        if let Some(last) = new.last() {
            self.last_id = last.id;
            self.reached = last.ts.min(self.span.to);
        }
        self.rows.extend(new.into_iter().filter(|t| self.span.holds(t.ts)));
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> RecordBatch {
        columns::trades(VENUE, &self.pair, &std::mem::take(&mut self.rows))
    }

    fn reached_ns(&self) -> i64 {
        self.reached
    }
}

fn trade(t: &OneTrade<'_>) -> Result<Trade, PageError> {
    let text = t.2.as_raw_str().trim_matches('"');
    Ok(Trade {
        ts: seconds_ns(text).ok_or_else(|| PageError::Garbled(format!("`{text}` is not a time")))?,
        id: t.6,
        price: number(t.0)?,
        size: number(t.1)?,
        taker_bought: match t.3 {
            "b" => true,
            "s" => false,
            other => return Err(PageError::Garbled(format!("side `{other}`"))),
        },
    })
}

/// Nanoseconds from seconds with decimals, exactly: as a float they would lose the last digits.
fn seconds_ns(text: &str) -> Option<i64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 18 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine: String = decimals.chars().chain("000000000".chars()).take(9).collect();
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nine.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_every_digit() {
        assert_eq!(seconds_ns("1688669597.8277369"), Some(1_688_669_597_827_736_900));
        assert_eq!(seconds_ns("1688669597"), Some(1_688_669_597_000_000_000));
        assert_eq!(seconds_ns("1.8e9"), None);
    }

    #[test]
    fn an_answer_as_the_docs_show_it() {
        let mut pager = pager("XBTUSD", Span::new(1_688_669_597_000_000_000, 1_688_669_598_000_000_000));
        assert_eq!(
            pager.next().unwrap().path,
            "/0/public/Trades?pair=XBTUSD&since=1688669596999999999&count=1000"
        );
        let busy = br#"{"error":["EGeneral:Too many requests"]}"#;
        assert_eq!(pager.page(busy), Err(PageError::Busy("EGeneral:Too many requests".into())));
        let unknown = br#"{"error":["EQuery:Unknown asset pair"]}"#;
        assert_eq!(pager.page(unknown), Err(PageError::Refused("EQuery:Unknown asset pair".into())));
        let page = br#"{"error":[],"result":{"XXBTZUSD":[
            ["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952],
            ["30243.30000","0.00376960",1688669598.2804112,"s","l","",61044953]],"last":"1688671969993150842"}}"#;
        pager.page(page).unwrap();
        assert_eq!((pager.next(), pager.rows()), (None, 1));
    }
}
