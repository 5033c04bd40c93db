//! Kraken's WebSocket v1: arrays named by their last two elements.
//!
//! Levels carry times; the latest of a message is its `ts`. A snapshot has no checksum, so a book is believed from its snapshot on and
//! proven by the first update. <https://docs.kraken.com/api/docs/websocket-v1/book>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use sonic_rs::LazyValue;
use tidemill_book::Levels;
use tidemill_book::sync::{Fault, FaultKind, Kraken as Rule, Outcome};

use super::v1_wire::{self as wire, Data, Event};
use super::{Channel, Params, SUBSCRIBE_MAX, VENUE};
use crate::venue::books::{At, Books, Resync};
use crate::venue::forming::Forming;
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::ids::Ids;
use crate::venue::json::read;
use crate::venue::overdue::Overdue;
use crate::venue::protocol::{Action, Endpoint, Outgoing, Output, Protocol};
use crate::venue::table::{Table, Wanted, other};
use crate::venue::tables::bars::{Bar, Bars};
use crate::venue::tables::tickers::{Ticker, Tickers};
use crate::venue::tables::trades::Trades;
use crate::venue::tables::{Head, Side};

/// Where the feed is.
pub const WS_URL: &str = "wss://ws.kraken.com";

/// One channel of v1.
pub struct V1 {
    params: Arc<Params>,
    wanted: Wanted,
    table: Table<Rule>,
    /// The time of each pair's last trade, for want of ids.
    times: Ids,
    /// Pairs whose connection was made again: what it begins with may have been there.
    rejoined: BTreeSet<String>,
    forming: Forming,
    overdue: Overdue,
    /// The connection that brought a pair's last whole book.
    home: BTreeMap<String, u32>,
}

impl V1 {
    /// From checked parameters.
    pub fn new(params: Arc<Params>) -> Self {
        let table = match params.channel {
            Channel::Book => {
                let levels = params.book.subscribed();
                let asker = params.clone();
                let resync = Resync::Resubscribe(Box::new(move |symbol: &str| resubscribe(&asker, symbol)));
                let make = move |_: &str| Rule::new(levels);
                Table::Book(Box::new(Books::new(VENUE, &params.book.rows(), resync, make)))
            }
            Channel::Trades => Table::Trades(Trades::new(VENUE)),
            Channel::Tickers => Table::Tickers(Tickers::new(VENUE)),
            Channel::Bars => Table::Bars(Bars::new(VENUE)),
        };
        Self {
            wanted: Wanted::new(VENUE, &params.symbols),
            params,
            table,
            times: Ids::default(),
            rejoined: BTreeSet::new(),
            forming: Forming::default(),
            overdue: Overdue::default(),
            home: BTreeMap::new(),
        }
    }

    fn received(&mut self, frame: &Frame, out: &mut Output) {
        for (connection, symbol) in self.overdue.due(frame.received_ns) {
            out.count("repeated_requests");
            let send = |message| Action::Send { connection, message };
            out.actions.extend(resubscribe(&self.params, &symbol).into_iter().map(send));
        }
        let array = frame.data.trim_ascii_start().first() == Some(&b'[');
        let result = if array { self.data(frame, out) } else { self.event(frame, out) };
        if let Err(reason) = result {
            self.unread(None, frame, reason, out);
        }
    }

    fn event(&mut self, frame: &Frame, out: &mut Output) -> Result<(), String> {
        let event: Event = read(&frame.data)?;
        let pair = event.pair.as_deref().map(|pair| format!("{pair}: ")).unwrap_or_default();
        let error = event.error.as_deref().unwrap_or("no message");
        let notice = match (event.event, event.status) {
            (Some("subscriptionStatus"), Some("error")) | (Some("error"), _) => {
                out.count("venue_errors");
                format!("{pair}{error}")
            }
            (Some("systemStatus"), Some(status)) if status != "online" => {
                out.count("venue_not_online");
                format!("the system is {status}")
            }
            (Some("heartbeat" | "pong" | "systemStatus" | "subscriptionStatus"), _) => return Ok(()),
            (Some(name), _) => return Err(format!("unknown event `{name:.64}`")),
            (None, _) => return Err("no `event`".into()),
        };
        out.notices.push(format!("{VENUE}: connection {}: {notice}", frame.connection));
        Ok(())
    }

    fn data(&mut self, frame: &Frame, out: &mut Output) -> Result<(), String> {
        let data: Data = read(&frame.data)?;
        let (name, of) = data.channel.split_once('-').unwrap_or((data.channel, ""));
        let here = matches!(
            (name, &self.table),
            ("book", Table::Book(_))
                | ("trade", Table::Trades(_))
                | ("ticker", Table::Tickers(_))
                | ("ohlc", Table::Bars(_))
        );
        match name {
            "book" | "trade" | "ticker" | "ohlc" if here => {}
            "book" | "trade" | "ticker" | "ohlc" | "spread" => return other(out),
            unknown => return Err(format!("unknown channel `{unknown:.64}`")),
        }
        if !self.wanted.takes(data.pair, out) {
            return Ok(());
        }
        // Cut at another depth than the venue's, a book would run out of levels.
        let levels = self.params.book.subscribed();
        if name == "book" && of.parse() != Ok(levels) {
            if self.wanted.once(data.channel) {
                let what =
                    format!("{VENUE}: `{:.64}` comes, books of {levels} levels were asked for", data.channel);
                out.notices.push(format!("{what}: set `levels` to what it has"));
            }
            return other(out);
        }
        let result = match name {
            "book" => self.book(&data, frame, out),
            "trade" => self.trades(&data, frame, out),
            "ticker" => self.ticker(&data, frame, out),
            _ => self.bar(&data, frame, out),
        };
        if let Err(reason) = result {
            self.unread(Some(data.pair), frame, reason, out);
        }
        Ok(())
    }

    /// A message that can't be used: of one pair, or of any of its connection.
    fn unread(&mut self, symbol: Option<&str>, frame: &Frame, reason: String, out: &mut Output) {
        out.reject(frame, self.rows(), reason);
        let Table::Book(books) = &mut self.table else { return };
        let fault = Fault::new(FaultKind::Gap, "a message could not be used");
        match symbol {
            Some(symbol) => {
                books.invalidate(At { symbol, ts_ns: frame.received_ns, frame }, &fault, out);
                self.overdue.asked(frame.connection, symbol, frame.received_ns);
            }
            None => {
                books.invalidate_connection(frame, frame.received_ns, &fault, out);
                for (symbol, _) in self.home.iter().filter(|(_, home)| **home == frame.connection) {
                    self.overdue.asked(frame.connection, symbol, frame.received_ns);
                }
            }
        }
    }

    fn book(&mut self, data: &Data, frame: &Frame, out: &mut Output) -> Result<(), String> {
        let parts: Vec<wire::Book> = parts(data)?;
        let republished = parts.iter().map(|p| p.a.republished + p.b.republished).sum::<u64>();
        if republished > 0 {
            *out.counts.entry("republished_levels").or_default() += republished;
        }
        let checksum = parts.iter().rev().find_map(|part| part.c);
        let checksum =
            checksum.map(|c| c.parse().map_err(|_| format!("`{c:.64}` is no checksum"))).transpose()?;
        let whole = parts.iter().any(|part| part.all_asks.is_some() || part.all_bids.is_some());
        if !whole && checksum.is_none() {
            return Err("an update without a checksum".into());
        }
        let none = wire::Levels::default();
        let (mut asks, mut bids) = (Vec::new(), Vec::new());
        let mut ts_ns = None;
        for part in &parts {
            let [a, b] = match whole {
                true => [&part.all_asks, &part.all_bids].map(|side| side.as_ref().unwrap_or(&none)),
                false => [&part.a, &part.b],
            };
            asks.extend_from_slice(&a.levels);
            bids.extend_from_slice(&b.levels);
            ts_ns = ts_ns.max(a.at_ns).max(b.at_ns);
        }
        let Table::Book(books) = &mut self.table else { return Ok(()) };
        let at = At { symbol: data.pair, ts_ns: ts_ns.unwrap_or(frame.received_ns), frame };
        let levels = Levels { bids: &bids, asks: &asks };
        let outcome = match whole {
            true => books.snapshot(at, levels, checksum, out),
            false => books.update(at, levels, checksum, out),
        };
        match outcome {
            Outcome::Fault(_) => self.overdue.asked(frame.connection, data.pair, frame.received_ns),
            Outcome::Applied if whole => {
                self.overdue.came(frame.connection, data.pair);
                self.home.insert(data.pair.to_owned(), frame.connection);
            }
            _ => {}
        }
        Ok(())
    }

    fn trades(&mut self, data: &Data, frame: &Frame, out: &mut Output) -> Result<(), String> {
        let lists: Vec<Vec<LazyValue>> = parts(data)?;
        let mut trades = Vec::new();
        for raw in lists.iter().flatten() {
            match read::<wire::Trade>(raw.as_raw_str().as_bytes()) {
                Ok(trade) => trades.push(trade),
                Err(reason) => out.reject(frame, self.rows(), reason),
            }
        }
        // A snapshot may begin with the newest.
        trades.sort_by_key(|trade| trade.at_ns);
        let mut rejoined = self.rejoined.contains(data.pair);
        for trade in trades {
            if rejoined && self.times.look(data.pair, trade.at_ns) == crate::venue::ids::IdStep::Repeat {
                out.count("duplicates");
                continue;
            }
            if rejoined {
                rejoined = false;
                self.rejoined.remove(data.pair);
            }
            self.times.take(data.pair, trade.at_ns);
            let head = Head { ts_ns: trade.at_ns, symbol: data.pair, received_ns: frame.received_ns };
            let side = if trade.buy { Side::Buy } else { Side::Sell };
            if let Table::Trades(rows) = &mut self.table {
                rows.push(head, None, trade.price, trade.size, Some(side));
            }
        }
        Ok(())
    }

    fn ticker(&mut self, data: &Data, frame: &Frame, _: &mut Output) -> Result<(), String> {
        let head = Head { ts_ns: frame.received_ns, symbol: data.pair, received_ns: frame.received_ns };
        for t in parts::<wire::Ticker>(data)? {
            let (bid, ask, volume) = (Some(t.b.0), Some(t.a.0), Some(t.v.0));
            if let Table::Tickers(rows) = &mut self.table {
                rows.push(head, &Ticker { last: t.c.0, bid, ask, volume });
            }
        }
        Ok(())
    }

    fn bar(&mut self, data: &Data, frame: &Frame, out: &mut Output) -> Result<(), String> {
        for b in parts::<wire::Ohlc>(data)? {
            let [open, high, low, close] = b.prices;
            let (start_ns, volume) = (b.end_ns.saturating_sub(self.params.interval.ns()), b.volume);
            let bar = Bar { start_ns, open, high, low, close, volume, trades: Some(b.trades), closed: false };
            let head = Head { ts_ns: b.at_ns, symbol: data.pair, received_ns: frame.received_ns };
            if let Table::Bars(rows) = &mut self.table
                && !self.forming.push(rows, head, bar)
            {
                out.count("duplicates");
            }
        }
        Ok(())
    }
}

/// The payloads of a message.
fn parts<'a, T: serde::Deserialize<'a>>(data: &'a Data) -> Result<Vec<T>, String> {
    data.payloads.iter().map(|payload| read(payload.as_raw_str().as_bytes())).collect()
}

fn request(params: &Params, event: &str, symbols: &[String]) -> Outgoing {
    let mut subscription = json!({ "name": params.channel.name() });
    match params.channel {
        Channel::Book => subscription["depth"] = params.book.subscribed().into(),
        Channel::Bars => subscription["interval"] = (params.interval.ns() / super::MINUTE_NS).into(),
        Channel::Trades | Channel::Tickers => {}
    }
    Outgoing::plain(json!({ "event": event, "pair": symbols, "subscription": subscription }).to_string())
}

fn resubscribe(params: &Params, symbol: &str) -> Vec<Outgoing> {
    let symbols = [symbol.to_owned()];
    ["unsubscribe", "subscribe"].map(|event| request(params, event, &symbols)).to_vec()
}

impl Protocol for V1 {
    fn endpoints(&self) -> Vec<Endpoint> {
        let ping = json!({ "event": "ping" }).to_string();
        self.params.endpoints(WS_URL, &ping, |symbols| {
            symbols.chunks(SUBSCRIBE_MAX).map(|chunk| request(&self.params, "subscribe", chunk)).collect()
        })
    }

    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn on_frame(&mut self, frame: &Frame, out: &mut Output) {
        if frame.kind == FrameKind::Received {
            return self.received(frame, out);
        }
        if !matches!(frame.kind, FrameKind::Opened | FrameKind::Closed) {
            return;
        }
        self.forming.lost();
        self.overdue.closed(frame.connection);
        self.rejoined = self.wanted.symbols().clone();
        if let Table::Book(books) = &mut self.table {
            books.closed(frame, out);
            if frame.kind == FrameKind::Opened {
                books.opened(frame);
            }
        }
    }

    fn rows(&self) -> usize {
        self.table.rows()
    }

    fn finish(&mut self) -> RecordBatch {
        self.table.finish()
    }

    fn state(&self) -> Value {
        json!({ "times": self.times.state(), "bars": self.forming.state() })
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        if state.is_null() {
            return Ok(());
        }
        self.rejoined = self.wanted.symbols().clone();
        self.times.restore(&state["times"])?;
        self.forming.restore(&state["bars"])
    }
}
