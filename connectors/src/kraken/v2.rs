//! Kraken's WebSocket v2.
//!
//! **Checksum.** The venue's guide has it over the digits of price and size as they were sent, which its feed does with all
//! decimals of the pair (`0.00100000`). JSON numbers may lose trailing zeros on the way (through a proxy that reads and
//! writes them), so the pairs' precisions are asked for (`instrument` channel) and, once known, digits are filled up to them:
//! the same where none was lost. <https://docs.kraken.com/api/docs/guides/spot-ws-book-v2>,
//! <https://docs.kraken.com/api/docs/websocket-v2/instrument>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::Deserialize;
use serde_json::{Value, json};
use sonic_rs::LazyValue;
use tidemill_book::Levels;
use tidemill_book::sync::kraken::Digits;
use tidemill_book::sync::{Fault, FaultKind, Kraken as Rule, Outcome};

use super::v2_wire::{self as wire, Envelope};
use super::{Channel, Params, SUBSCRIBE_MAX, VENUE};
use crate::venue::books::{At, Books, Resync};
use crate::venue::forming::Forming;
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::ids::{IdStep, Ids};
use crate::venue::json::read;
use crate::venue::overdue::Overdue;
use crate::venue::protocol::{Action, Endpoint, Outgoing, Output, Protocol};
use crate::venue::table::{Table, Wanted, other};
use crate::venue::tables::bars::{Bar, Bars};
use crate::venue::tables::tickers::{Ticker, Tickers};
use crate::venue::tables::trades::Trades;
use crate::venue::tables::{Head, Side};

/// Where the feed is.
pub const WS_URL: &str = "wss://ws.kraken.com/v2";

/// One channel of v2.
pub struct V2 {
    params: Arc<Params>,
    wanted: Wanted,
    table: Table<Rule>,
    ids: Ids,
    forming: Forming,
    /// Pairs that were subscribed to anew and have not brought a snapshot yet.
    overdue: Overdue,
    /// The connection that brought a pair's last whole book.
    home: BTreeMap<String, u32>,
    /// Pairs with a hole in their trades, by connection: nothing is taken until a snapshot comes.
    holes: BTreeSet<(u32, String)>,
}

impl V2 {
    /// From checked parameters.
    pub fn new(params: Arc<Params>) -> Self {
        let table = match params.channel {
            Channel::Book => {
                let levels = params.book.subscribed();
                let asker = params.clone();
                let again = move |symbol: &str| resubscribe(&asker, symbol);
                let resync = Resync::Resubscribe(Box::new(again));
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
            ids: Ids::default(),
            forming: Forming::default(),
            overdue: Overdue::default(),
            home: BTreeMap::new(),
            holes: BTreeSet::new(),
        }
    }

    fn received(&mut self, frame: &Frame, out: &mut Output) {
        for (connection, symbol) in self.overdue.due(frame.received_ns) {
            out.count("repeated_requests");
            let send = |message| Action::Send { connection, message };
            out.actions.extend(resubscribe(&self.params, &symbol).into_iter().map(send));
        }
        let message: Envelope = match read(&frame.data) {
            Ok(message) => message,
            Err(reason) => return self.unread(None, frame, reason, out),
        };
        let Some(channel) = message.channel else { return self.answered(&message, frame, out) };
        let result = match (channel, &message.data) {
            ("heartbeat" | "pong", _) => Ok(()),
            (_, None) => Err("no `data`".into()),
            ("book", Some(data)) => self.book(data, &message, frame, out),
            ("trade", Some(data)) => self.trades(data, &message, frame, out),
            ("ticker", Some(data)) => self.tickers(data, frame, out),
            ("ohlc", Some(data)) => self.bars(data, &message, frame, out),
            ("instrument", Some(data)) => self.instruments(data).or_else(|reason| {
                out.reject(frame, self.rows(), reason);
                Ok(())
            }),
            ("status", Some(data)) => status(data, frame, out),
            ("level3", _) => other(out),
            (name, _) => Err(format!("unknown channel `{name:.64}`")),
        };
        if let Err(reason) = result {
            self.unread(None, frame, reason, out);
        }
    }

    /// The answer to a request, or the refusal of one.
    fn answered(&mut self, message: &Envelope, frame: &Frame, out: &mut Output) {
        let error = message.error.as_deref();
        match (message.method, message.success, error) {
            (Some("pong"), ..) | (Some(_), Some(true), None) => {}
            (_, _, Some(error)) => {
                out.count("venue_errors");
                let symbol = message.symbol.as_deref().map(|s| format!("{s}: ")).unwrap_or_default();
                out.notices.push(format!("{VENUE}: connection {}: {symbol}{error}", frame.connection));
            }
            _ => self.unread(None, frame, "neither a `channel` nor a `method`".into(), out),
        }
    }

    /// A message that can't be used: of one pair, or of any of its connection.
    fn unread(&mut self, symbol: Option<&str>, frame: &Frame, reason: String, out: &mut Output) {
        out.reject(frame, self.rows(), reason);
        let Table::Book(books) = &mut self.table else { return };
        let fault = Fault::new(FaultKind::Gap, "a message could not be used");
        match symbol.filter(|symbol| self.wanted.has(symbol)) {
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

    fn book(
        &mut self,
        data: &LazyValue,
        message: &Envelope,
        frame: &Frame,
        out: &mut Output,
    ) -> Result<(), String> {
        if !matches!(self.table, Table::Book(_)) {
            return other(out);
        }
        let whole = match message.kind {
            Some("snapshot") => true,
            Some("update") => false,
            kind => return Err(format!("unknown type `{:.64}`", kind.unwrap_or("none"))),
        };
        // Nearly always one pair a message.
        if let Ok([book]) = read::<[wire::Book; 1]>(data.as_raw_str().as_bytes()) {
            self.one_book(&book, whole, frame, out);
            return Ok(());
        }
        for raw in read::<Vec<LazyValue>>(data.as_raw_str().as_bytes())? {
            let raw = raw.as_raw_str().as_bytes();
            match read::<wire::Book>(raw) {
                Ok(book) => self.one_book(&book, whole, frame, out),
                Err(reason) => {
                    #[derive(Deserialize)]
                    struct Named<'a> {
                        symbol: &'a str,
                    }
                    let named = read::<Named>(raw).ok().map(|n| n.symbol);
                    self.unread(named, frame, reason, out);
                }
            }
        }
        Ok(())
    }

    fn one_book(&mut self, book: &wire::Book, whole: bool, frame: &Frame, out: &mut Output) {
        if !self.wanted.takes(book.symbol, out) {
            return;
        }
        let Table::Book(books) = &mut self.table else { return };
        let ts_ns = book.timestamp.map_or(frame.received_ns, |t| t.0);
        let at = At { symbol: book.symbol, ts_ns, frame };
        let levels = Levels { bids: &book.bids.0, asks: &book.asks.0 };
        let outcome = match whole {
            true => books.snapshot(at, levels, Some(book.checksum), out),
            false => books.update(at, levels, Some(book.checksum), out),
        };
        match outcome {
            Outcome::Fault(_) => self.overdue.asked(frame.connection, book.symbol, frame.received_ns),
            Outcome::Applied if whole => {
                self.overdue.came(frame.connection, book.symbol);
                self.home.insert(book.symbol.to_owned(), frame.connection);
            }
            _ => {}
        }
    }

    fn instruments(&mut self, data: &LazyValue) -> Result<(), String> {
        let Table::Book(books) = &mut self.table else { return Ok(()) };
        let instruments: wire::Instruments = read(data.as_raw_str().as_bytes())?;
        for pair in instruments.pairs {
            if self.wanted.has(&pair.symbol) {
                let digits = Digits { price: pair.price_precision, size: pair.qty_precision };
                books.rule_mut(&pair.symbol).set_digits(digits);
            }
        }
        Ok(())
    }

    fn trades(
        &mut self,
        data: &LazyValue,
        message: &Envelope,
        frame: &Frame,
        out: &mut Output,
    ) -> Result<(), String> {
        if !matches!(self.table, Table::Trades(_)) {
            return other(out);
        }
        let whole = message.kind == Some("snapshot");
        let raw: Vec<LazyValue> = read(data.as_raw_str().as_bytes())?;
        let mut trades = Vec::with_capacity(raw.len());
        for raw in &raw {
            match read::<wire::Trade>(raw.as_raw_str().as_bytes()).and_then(|t| Ok((side(t.side)?, t))) {
                Ok(trade) => trades.push(trade),
                Err(reason) => out.reject(frame, self.rows(), reason),
            }
        }
        // A snapshot may begin with the newest.
        trades.sort_by_key(|(_, trade)| trade.trade_id);
        if whole {
            for (_, trade) in &trades {
                self.holes.remove(&(frame.connection, trade.symbol.to_owned()));
                self.overdue.came(frame.connection, trade.symbol);
            }
        }
        for (side, trade) in trades {
            if self.wanted.takes(trade.symbol, out) && self.fits(&trade, whole, frame, out) {
                self.ids.take(trade.symbol, trade.trade_id);
                let head =
                    Head { ts_ns: trade.timestamp.0, symbol: trade.symbol, received_ns: frame.received_ns };
                if let Table::Trades(rows) = &mut self.table {
                    rows.push(head, Some(trade.trade_id), trade.price.0, trade.qty.0, Some(side));
                }
            }
        }
        Ok(())
    }

    /// Whether a trade is the next one. A hole has its pair subscribed to anew: the snapshot fills it, or shows that it can't be filled.
    fn fits(&mut self, trade: &wire::Trade, whole: bool, frame: &Frame, out: &mut Output) -> bool {
        let missing = match self.ids.look(trade.symbol, trade.trade_id) {
            IdStep::New => return true,
            IdStep::Repeat => {
                out.count("duplicates");
                return false;
            }
            IdStep::Gap(missing) => missing,
        };
        if whole {
            out.count("gaps");
            *out.counts.entry("missing_trades").or_default() += missing.unsigned_abs();
            let (symbol, id) = (trade.symbol, trade.trade_id);
            out.notices.push(format!("{VENUE}: {symbol}: {missing} trades before id {id} are missing"));
            return true;
        }
        if self.holes.insert((frame.connection, trade.symbol.to_owned())) {
            out.count("trade_requests");
            let send = |message| Action::Send { connection: frame.connection, message };
            out.actions.extend(resubscribe(&self.params, trade.symbol).into_iter().map(send));
            self.overdue.asked(frame.connection, trade.symbol, frame.received_ns);
        }
        false
    }

    fn tickers(&mut self, data: &LazyValue, frame: &Frame, out: &mut Output) -> Result<(), String> {
        if !matches!(self.table, Table::Tickers(_)) {
            return other(out);
        }
        for raw in read::<Vec<LazyValue>>(data.as_raw_str().as_bytes())? {
            match read::<wire::Ticker>(raw.as_raw_str().as_bytes()) {
                Err(reason) => out.reject(frame, self.rows(), reason),
                Ok(t) if self.wanted.takes(t.symbol, out) => {
                    let ts_ns = t.timestamp.map_or(frame.received_ns, |t| t.0);
                    let head = Head { ts_ns, symbol: t.symbol, received_ns: frame.received_ns };
                    let [bid, ask, volume] = [t.bid, t.ask, t.volume].map(|v| v.map(|v| v.0));
                    if let Table::Tickers(rows) = &mut self.table {
                        rows.push(head, &Ticker { last: t.last.0, bid, ask, volume });
                    }
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn bars(
        &mut self,
        data: &LazyValue,
        message: &Envelope,
        frame: &Frame,
        out: &mut Output,
    ) -> Result<(), String> {
        if !matches!(self.table, Table::Bars(_)) {
            return other(out);
        }
        let ts_ns = message.timestamp.map_or(frame.received_ns, |t| t.0);
        let raw: Vec<LazyValue> = read(data.as_raw_str().as_bytes())?;
        let mut bars = Vec::with_capacity(raw.len());
        for raw in &raw {
            match read::<wire::Ohlc>(raw.as_raw_str().as_bytes()) {
                Ok(bar) => bars.push(bar),
                Err(reason) => out.reject(frame, self.rows(), reason),
            }
        }
        bars.sort_by_key(|bar| bar.interval_begin.0);
        for b in bars {
            if !self.wanted.takes(b.symbol, out) {
                continue;
            }
            let [open, high, low, close, volume] = [b.open.0, b.high.0, b.low.0, b.close.0, b.volume.0];
            let (start_ns, trades) = (b.interval_begin.0, Some(b.trades));
            let bar = Bar { start_ns, open, high, low, close, volume, trades, closed: false };
            let head = Head { ts_ns, symbol: b.symbol, received_ns: frame.received_ns };
            if let Table::Bars(rows) = &mut self.table
                && !self.forming.push(rows, head, bar)
            {
                out.count("duplicates");
            }
        }
        Ok(())
    }
}

fn status(data: &LazyValue, frame: &Frame, out: &mut Output) -> Result<(), String> {
    for status in read::<Vec<wire::Status>>(data.as_raw_str().as_bytes())? {
        if status.system != "online" {
            out.count("venue_not_online");
            out.notices
                .push(format!("{VENUE}: connection {}: the system is {}", frame.connection, status.system));
        }
    }
    Ok(())
}

fn side(name: &str) -> Result<Side, String> {
    match name {
        "buy" => Ok(Side::Buy),
        "sell" => Ok(Side::Sell),
        other => Err(format!("unknown side `{other:.64}`")),
    }
}

fn request(params: &Params, method: &str, symbols: &[String]) -> Outgoing {
    let mut message = json!({ "channel": params.channel.name(), "symbol": symbols });
    match params.channel {
        Channel::Book => message["depth"] = params.book.subscribed().into(),
        Channel::Bars => message["interval"] = (params.interval.ns() / super::MINUTE_NS).into(),
        Channel::Trades | Channel::Tickers => {}
    }
    if method == "subscribe" {
        message["snapshot"] = true.into();
    }
    Outgoing::plain(json!({ "method": method, "params": message }).to_string())
}

fn resubscribe(params: &Params, symbol: &str) -> Vec<Outgoing> {
    let symbols = [symbol.to_owned()];
    ["unsubscribe", "subscribe"].map(|method| request(params, method, &symbols)).to_vec()
}

impl Protocol for V2 {
    fn endpoints(&self) -> Vec<Endpoint> {
        let ping = json!({ "method": "ping" }).to_string();
        self.params.endpoints(WS_URL, &ping, |symbols| {
            let mut hello = Vec::new();
            if self.params.channel == Channel::Book {
                let instruments = json!({ "method": "subscribe", "params": { "channel": "instrument" } });
                hello.push(Outgoing::plain(instruments.to_string()));
            }
            hello
                .extend(symbols.chunks(SUBSCRIBE_MAX).map(|chunk| request(&self.params, "subscribe", chunk)));
            hello
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
        self.holes.retain(|(connection, _)| *connection != frame.connection);
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
        json!({ "trades": self.ids.state(), "bars": self.forming.state() })
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        if state.is_null() {
            return Ok(());
        }
        self.ids.restore(&state["trades"])?;
        self.forming.restore(&state["bars"])
    }
}
