//! Coinbase Exchange trades over REST, `GET /products/{id}/trades`:
//! <https://docs.cdp.coinbase.com/api-reference/exchange-api/rest-api/products/get-product-trades>.
//!
//! Pages are asked for by trade id (`after`: older than it), newest first. Ids count by one per product, so the
//! first trade of a range is found by bisection over ids, and the walk goes forward in windows of ids. A trade's
//! `side` there is the maker's; ours is the taker's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use chrono::DateTime;
use serde::Deserialize;

use super::binance::{garbled, number};
use super::columns::{self, Trade};
use super::ranges::Span;
use super::rest::{Limits, PageError, Pager, Request};

/// Rows of one page.
const LIMIT: i64 = 1000;
/// Where the REST API is.
pub const URL: &str = "https://api.exchange.coinbase.com";
/// The venue's name in rows.
pub const VENUE: &str = "coinbase";

/// Ten requests a second an address; we keep below.
pub fn limits(per_second: Option<f64>) -> Limits {
    Limits { weight_per_minute: None, used_header: None, per_second: per_second.or(Some(8.0)) }
}

/// First ids at times that ranges have ended at, by product: the next range needs no search.
pub type Borders = Arc<Mutex<HashMap<(String, i64), i64>>>;

/// A pager of trades over a range.
pub fn pager(product: &str, span: Span, borders: Borders) -> Box<dyn Pager> {
    Box::new(Trades {
        product: product.to_owned(),
        span,
        at: At::Newest,
        newest: 0,
        reached: span.from,
        rows: Vec::new(),
        borders,
    })
}

enum At {
    /// Asks for the newest trade.
    Newest,
    /// The first trade of the range has an id in `low..=high`.
    Search {
        low: i64,
        high: i64,
    },
    /// Goes on with this id.
    Walk(i64),
    End,
}

struct Trades {
    product: String,
    span: Span,
    at: At,
    newest: i64,
    reached: i64,
    rows: Vec<Trade>,
    borders: Borders,
}

#[derive(Deserialize)]
struct OneTrade<'a> {
    time: &'a str,
    trade_id: i64,
    price: &'a str,
    size: &'a str,
    side: &'a str,
}

impl Trades {
    fn border(&self, ns: i64) -> Option<i64> {
        let borders = self.borders.lock().unwrap_or_else(PoisonError::into_inner);
        borders.get(&(self.product.clone(), ns)).copied()
    }

    fn search(&self, low: i64, high: i64) -> At {
        if low >= high { At::Walk(low) } else { At::Search { low, high } }
    }
}

impl Pager for Trades {
    fn next(&mut self) -> Option<Request> {
        let query = match self.at {
            At::Newest => "limit=1".to_owned(),
            At::Search { low, high } => format!("limit=1&after={}", low + (high - low) / 2 + 1),
            At::Walk(next) => format!("limit={LIMIT}&after={}", next + LIMIT),
            At::End => return None,
        };
        Some(Request { path: format!("/products/{}/trades?{query}", self.product), weight: 1 })
    }

    fn page(&mut self, body: &[u8]) -> Result<(), PageError> {
        let page: Vec<OneTrade<'_>> =
            sonic_rs::from_slice(body).map_err(|e| PageError::Garbled(garbled(&e)))?;
        let mut trades = page.iter().map(trade).collect::<Result<Vec<_>, _>>()?;
        trades.reverse();
        if !trades.windows(2).all(|w| w[0].id < w[1].id) {
            return Err(PageError::Garbled("the page is not in order of trade ids".into()));
        }
        match self.at {
            At::Newest => match trades.last() {
                Some(last) if last.ts >= self.span.from => {
                    self.newest = last.id;
                    self.at = match self.border(self.span.from) {
                        Some(id) => At::Walk(id),
                        None => self.search(1, last.id),
                    };
                }
                _ => self.at = At::End,
            },
            At::Search { low, high } => {
                let middle = low + (high - low) / 2;
                // The newest trade up to the middle: none between it and the middle exists.
                self.at = match trades.last() {
                    Some(t) if t.id > middle => {
                        return Err(PageError::Garbled(format!(
                            "asked for trades before {}, got {}",
                            middle + 1,
                            t.id
                        )));
                    }
                    Some(t) if t.ts >= self.span.from && t.id >= low => self.search(low, t.id),
                    _ => self.search(middle + 1, high),
                };
            }
            At::Walk(next) => {
                if trades.last().is_some_and(|t| t.id >= next + LIMIT) {
                    return Err(PageError::Garbled(format!("asked for trades before {}", next + LIMIT)));
                }
                trades.retain(|t| t.id >= next);
                let end = trades.iter().position(|t| t.ts >= self.span.to);
                if let Some(i) = end {
                    let mut borders = self.borders.lock().unwrap_or_else(PoisonError::into_inner);
                    borders.insert((self.product.clone(), self.span.to), trades[i].id);
                    trades.truncate(i);
                }
                self.reached = trades.last().map_or(self.reached, |t| t.ts);
                self.rows.append(&mut trades);
                let over = end.is_some() || next + LIMIT > self.newest;
                self.at = if over { At::End } else { At::Walk(next + LIMIT) };
            }
            At::End => {}
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> RecordBatch {
        columns::trades(VENUE, &self.product, &std::mem::take(&mut self.rows))
    }

    fn reached_ns(&self) -> i64 {
        self.reached
    }
}

fn trade(t: &OneTrade<'_>) -> Result<Trade, PageError> {
    let time = DateTime::parse_from_rfc3339(t.time).ok().and_then(|t| t.timestamp_nanos_opt());
    Ok(Trade {
        ts: time.ok_or_else(|| PageError::Garbled(format!("`{}` is not a time", t.time)))?,
        id: t.trade_id,
        price: number(t.price)?,
        size: number(t.size)?,
        taker_bought: match t.side {
            "sell" => true,
            "buy" => false,
            other => return Err(PageError::Garbled(format!("side `{other}`"))),
        },
    })
}
