//! Trades: each once, in the order of their ids, and none missing that the venue can still be asked for.
//!
//! Ids of a symbol follow one another. Where one is missing, later trades wait while it is fetched
//! ([`crate::venue::continuity`]): aggregated trades from `aggTrades`, spot's single trades from `historicalTrades`. Futures' single
//! trades can be had only with an API key; their holes, and all where `recover` is off, are counted (`gaps`, `missing_trades`)
//! and told.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::Value;

use super::feed::{Reader, Symbols, path, rest};
use super::wire::{self, AggTrade, RestAggTrade, RestTrade, Trade};
use super::{Channel, Market, Params, refused};
use crate::venue::continuity::{Continuity, Limits, Missing, Request};
use crate::venue::frame::Frame;
use crate::venue::json;
use crate::venue::protocol::Output;
use crate::venue::tables::trades::Trades;
use crate::venue::tables::{Head, Side};

/// Trades that one answer brings at most.
const PAGE: i64 = 1000;

/// A trade of either stream, or of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Made {
    id: i64,
    ts_ns: i64,
    received_ns: i64,
    price: f64,
    size: f64,
    side: Side,
}

/// Which trades follow which.
enum Line {
    /// Holes are filled.
    Filled(Continuity<Made>),
    /// Holes are told; the last id of each symbol.
    Told(BTreeMap<String, i64>),
}

/// Reads the channels `trades` and `agg_trades`.
pub(super) struct TradeReader {
    rows: Trades,
    single: bool,
    line: Line,
    /// The scheme and host of requests.
    host: String,
}

impl TradeReader {
    pub(super) fn new(params: &Params) -> Self {
        let single = params.channel == Channel::Trades;
        let base = rest(params);
        let host = base[..base.len() - path(&base).len()].to_owned();
        let line = match params.recover && !(single && params.market == Market::Usdm) {
            true => Line::Filled(Continuity::new(Limits::default(), request(base, single, params.market))),
            false => Line::Told(BTreeMap::new()),
        };
        Self { rows: Trades::new(params.market.venue()), single, line, host }
    }

    /// The trades of an answer's body.
    fn page(&self, frame: &Frame) -> Result<Vec<(i64, Made)>, String> {
        let received_ns = frame.received_ns;
        if self.single {
            let made = |t: RestTrade| Made {
                id: t.id,
                ts_ns: t.time.0,
                received_ns,
                price: t.price.0,
                size: t.qty.0,
                side: taker(t.is_buyer_maker),
            };
            return Ok(json::read::<Vec<RestTrade>>(&frame.data)?
                .into_iter()
                .map(|t| (t.id, made(t)))
                .collect());
        }
        let made = |t: RestAggTrade| Made {
            id: t.a,
            ts_ns: t.at.0,
            received_ns,
            price: t.p.0,
            size: t.q.0,
            side: taker(t.m),
        };
        Ok(json::read::<Vec<RestAggTrade>>(&frame.data)?.into_iter().map(|t| (t.a, made(t))).collect())
    }
}

/// The request for missing trades, by the venue's weights.
fn request(base: String, single: bool, market: Market) -> impl Fn(&str, Missing) -> Request + Send + 'static {
    let (name, weight) = match (single, market) {
        (true, _) => ("historicalTrades", 25),
        (false, Market::Spot) => ("aggTrades", 4),
        (false, Market::Usdm) => ("aggTrades", 20),
    };
    move |symbol, Missing { from, to }| {
        let limit = (to - from + 1).clamp(1, PAGE);
        Request { url: format!("{base}/{name}?symbol={symbol}&fromId={from}&limit={limit}"), weight }
    }
}

/// The taker's side, by whether the buyer was the maker.
fn taker(buyer_is_maker: bool) -> Side {
    if buyer_is_maker { Side::Sell } else { Side::Buy }
}

/// Makes a row. Futures' stream numbers movements of the insurance fund among the trades, with price and size 0: they are no trades.
fn row(rows: &mut Trades, symbol: &str, made: Made) {
    if made.price > 0.0 {
        let head = Head { ts_ns: made.ts_ns, symbol, received_ns: made.received_ns };
        rows.push(head, Some(made.id), made.price, made.size, Some(made.side));
    }
}

impl Reader for TradeReader {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn received(&mut self, frame: &Frame, symbols: &Symbols, out: &mut Output) -> Result<(), String> {
        let received_ns = frame.received_ns;
        let (kind, symbol, made) = if self.single {
            let Trade { e, s, t, p, q, at, m } = wire::event(&frame.data)?.data;
            (e, s, Made { id: t, ts_ns: at.0, received_ns, price: p.0, size: q.0, side: taker(m) })
        } else {
            let AggTrade { e, s, a, p, q, at, m } = wire::event(&frame.data)?.data;
            (e, s, Made { id: a, ts_ns: at.0, received_ns, price: p.0, size: q.0, side: taker(m) })
        };
        let expected = if self.single { "trade" } else { "aggTrade" };
        if kind != expected {
            return Err(format!("the message is a `{kind}`, not a `{expected}`"));
        }
        symbols.find(symbol)?;
        if made.price == 0.0 {
            out.count("empty_trades");
        }
        let rows = &mut self.rows;
        match &mut self.line {
            Line::Filled(line) => {
                line.live(frame, symbol, made.id, made, &mut |made| row(rows, symbol, made), out)
            }
            Line::Told(last) => {
                let last = match last.get_mut(symbol) {
                    Some(last) => last,
                    None => last.entry(symbol.to_owned()).or_insert(made.id - 1),
                };
                if made.id <= *last {
                    out.count("duplicates");
                    return Ok(());
                }
                let missing = made.id - *last - 1;
                if missing > 0 {
                    out.count("gaps");
                    *out.counts.entry("missing_trades").or_default() += missing.unsigned_abs();
                    let (from, to) = (*last + 1, made.id - 1);
                    out.notices.push(format!("{symbol}: trades {from} to {to} are missing"));
                }
                *last = made.id;
                row(rows, symbol, made);
            }
        }
        Ok(())
    }

    fn answered(&mut self, url: &str, status: u16, frame: &Frame, _: &Symbols, out: &mut Output) {
        let Line::Filled(line) = &self.line else { return out.count("unknown_answers") };
        let url = format!("{}{}", self.host, path(url));
        let Some(symbol) = line.asked(&url).map(str::to_owned) else { return out.count("unknown_answers") };
        let page = match status {
            200 => self.page(frame).map_err(|e| format!("the answer to {url} can't be read: {e}")),
            _ => Err(refused::failure(&url, status, &frame.data)),
        };
        let rows = &mut self.rows;
        let Line::Filled(line) = &mut self.line else { return };
        let mut emit = |made| row(rows, &symbol, made);
        match page {
            Ok(trades) => line.answered(frame, &symbol, trades, &mut emit, out),
            Err(reason) => {
                out.count("failed_requests");
                out.notices.push(reason.clone());
                line.refused(frame, &symbol, &reason, &mut emit, out);
            }
        }
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn finish(&mut self) -> RecordBatch {
        self.rows.finish()
    }

    fn state(&self) -> Value {
        match &self.line {
            Line::Filled(line) => line.state(),
            Line::Told(last) => last.iter().map(|(symbol, id)| (symbol.clone(), Value::from(*id))).collect(),
        }
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        match &mut self.line {
            Line::Filled(line) => line.restore(state)?,
            Line::Told(last) if state.is_null() => last.clear(),
            Line::Told(last) => {
                *last = serde_json::from_value(state.clone())
                    .map_err(|e| format!("expected ids by symbol: {e}"))?;
            }
        }
        Ok(())
    }
}
