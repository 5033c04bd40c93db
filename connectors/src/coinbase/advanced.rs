//! Coinbase Advanced Trade: every message of a connection carries the next `sequence_num`, whatever its channel.
//!
//! A hole in it, or in the heartbeats' own counter, or a message that can't be read, means that anything may be missing: the
//! connection is *broken*. Nothing more is taken from it until it was made again, when the venue sends whole books and its latest
//! trades anew. <https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels>

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use sonic_rs::LazyValue;
use tidemill_book::sync::{Coinbase as Rule, Crossing, Fault, FaultKind, Sequence, Step};
use tidemill_book::{Level, Levels};

use super::wire::{self, Envelope};
use super::{Channel, Params, SUBSCRIBE_MAX, VENUE};
use crate::venue::books::{At, Books, Resync};
use crate::venue::forming::Forming;
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::ids::{IdStep, Ids};
use crate::venue::json::read;
use crate::venue::protocol::{Action, Endpoint, Outgoing, Output, Protocol};
use crate::venue::table::{Table, Wanted, other};
use crate::venue::tables::bars::{Bar, Bars};
use crate::venue::tables::tickers::{Ticker, Tickers};
use crate::venue::tables::trades::Trades;
use crate::venue::tables::{Head, Side};

/// Where the feed is.
pub const WS_URL: &str = "wss://advanced-trade-ws.coinbase.com";

/// One channel of Advanced Trade.
pub struct Advanced {
    params: Arc<Params>,
    wanted: Wanted,
    table: Table<Rule>,
    ids: Ids,
    forming: Forming,
    connections: BTreeMap<u32, Connection>,
    bids: Vec<Level>,
    asks: Vec<Level>,
}

/// What is known of a connection.
#[derive(Default)]
struct Connection {
    sequence: Sequence,
    heartbeats: Sequence,
    /// Its beginning was seen, so that its first number must be 0.
    opened: bool,
    /// It began with another number than 0 before: then that is how the venue counts.
    begins_late: bool,
    /// Something is missing: nothing is taken until it is opened again.
    broken: bool,
}

impl Advanced {
    /// From checked parameters.
    pub fn new(params: Arc<Params>) -> Self {
        let table = match params.channel {
            Channel::Book => {
                let make = |_: &str| Rule::new(Crossing::Fault);
                Table::Book(Box::new(Books::new(VENUE, &params.book, Resync::Reconnect, make)))
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
            connections: BTreeMap::new(),
            bids: Vec::new(),
            asks: Vec::new(),
        }
    }

    /// The channel's name in subscriptions.
    fn subscribed(&self) -> &'static str {
        match self.params.channel {
            Channel::Book => "level2",
            Channel::Trades => "market_trades",
            Channel::Tickers if self.params.batch => "ticker_batch",
            Channel::Tickers => "ticker",
            Channel::Bars => "candles",
        }
    }

    /// A message: counted, then taken by its channel.
    fn received(&mut self, frame: &Frame, out: &mut Output) {
        if self.connections.entry(frame.connection).or_default().broken {
            return out.count("ignored_frames");
        }
        let message: Envelope = match read(&frame.data) {
            Ok(message) => message,
            Err(reason) => {
                out.reject(frame, self.rows(), reason);
                return self.lost(frame, "a message could not be read".into(), out);
            }
        };
        if let Some(number) = message.sequence_num
            && !self.next(number, frame, out)
        {
            return;
        }
        let Some(channel) = message.channel else { return self.unnamed(&message, frame, out) };
        let result = match (channel, &message.events) {
            (_, None) => Err("no `events`".into()),
            ("heartbeats", Some(events)) => self.heartbeats(events, frame, out),
            ("subscriptions", Some(events)) => self.subscriptions(events, out),
            ("l2_data", Some(events)) => self.book(events, &message, frame, out),
            ("market_trades", Some(events)) => self.trades(events, frame, out),
            ("ticker" | "ticker_batch", Some(events)) => self.tickers(events, &message, frame, out),
            ("candles", Some(events)) => self.bars(events, &message, frame, out),
            ("status" | "user" | "futures_balance_summary", _) => other(out),
            (other, _) => Err(format!("unknown channel `{other:.64}`")),
        };
        if let Err(reason) = result {
            out.reject(frame, self.rows(), reason);
            // It was counted, so nothing else is missing; but it may have been ours.
            if matches!(channel, "l2_data" | "market_trades" | "heartbeats") {
                self.lost(frame, format!("a message of `{channel}` could not be used"), out);
            }
        }
    }

    /// Error frames have no channel.
    fn unnamed(&mut self, message: &Envelope, frame: &Frame, out: &mut Output) {
        if message.kind == Some("error") {
            out.count("venue_errors");
            let text = message.message.as_deref().unwrap_or("no message");
            return out.notices.push(format!("{VENUE}: connection {}: {text}", frame.connection));
        }
        out.reject(frame, self.rows(), "neither a `channel` nor an error");
    }

    /// Whether the message with this number is the next.
    fn next(&mut self, number: u64, frame: &Frame, out: &mut Output) -> bool {
        let connection = self.connections.entry(frame.connection).or_default();
        match connection.sequence.step(number) {
            Step::First if number > 0 && connection.opened && !connection.begins_late => {
                connection.begins_late = true;
                self.lost(frame, format!("sequence_num begins with {number}, not with 0"), out);
                false
            }
            Step::First | Step::Next => true,
            Step::Repeat { .. } => {
                out.count("duplicates");
                false
            }
            Step::Gap { expected, got } => {
                self.lost(frame, format!("sequence_num {expected} was to come, {got} came"), out);
                false
            }
        }
    }

    /// Anything may be missing from a connection.
    fn lost(&mut self, frame: &Frame, detail: String, out: &mut Output) {
        let fault = Fault::new(FaultKind::Gap, detail);
        match &mut self.table {
            Table::Book(books) => books.invalidate_connection(frame, frame.received_ns, &fault, out),
            _ => {
                out.count("gaps");
                out.notices.push(format!("{VENUE}: connection {}: {fault}", frame.connection));
            }
        }
        self.connections.entry(frame.connection).or_default().broken = true;
        let asked =
            |a: &Action| matches!(a, Action::Reconnect { connection, .. } if *connection == frame.connection);
        if !out.actions.iter().any(asked) {
            out.actions.push(Action::Reconnect { connection: frame.connection, reason: fault.to_string() });
        }
    }

    fn heartbeats(&mut self, events: &LazyValue, frame: &Frame, out: &mut Output) -> Result<(), String> {
        for event in read::<Vec<wire::Heartbeat>>(events.as_raw_str().as_bytes())? {
            let counter =
                u64::try_from(event.heartbeat_counter.0).map_err(|_| "a heartbeat_counter is negative")?;
            let connection = self.connections.entry(frame.connection).or_default();
            match connection.heartbeats.step(counter) {
                Step::First | Step::Next => {}
                Step::Repeat { .. } => out.count("duplicates"),
                Step::Gap { expected, got } => {
                    self.lost(frame, format!("heartbeat_counter {expected} was to come, {got} came"), out);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Products of ours that the venue doesn't list where it lists the channel are unknown to it.
    fn subscriptions(&mut self, events: &LazyValue, out: &mut Output) -> Result<(), String> {
        for mut event in read::<Vec<wire::Subscriptions>>(events.as_raw_str().as_bytes())? {
            // Where subscriptions are spread over messages or connections, one list holds a part of them.
            let spread = self.params.symbols.len() > SUBSCRIBE_MAX || self.params.connection.connections > 1;
            if let Some(listed) = event.subscriptions.remove(self.subscribed()).filter(|_| !spread) {
                self.wanted.listed(|symbol| listed.iter().any(|l| l == symbol), out);
            }
        }
        Ok(())
    }

    fn book(
        &mut self,
        events: &LazyValue,
        message: &Envelope,
        frame: &Frame,
        out: &mut Output,
    ) -> Result<(), String> {
        if !matches!(self.table, Table::Book(_)) {
            return other(out);
        }
        let sequence = message.sequence_num.ok_or("no `sequence_num`")?;
        let sent_ns = message.timestamp.map_or(frame.received_ns, |t| t.0);
        let events: Vec<wire::BookEvent> = read(events.as_raw_str().as_bytes())?;
        for event in events {
            if !self.wanted.takes(event.product_id, out) {
                continue;
            }
            self.bids.clear();
            self.asks.clear();
            let mut ts_ns = None;
            for update in &event.updates {
                let level = Level { price: update.price_level.0, size: update.new_quantity.0 };
                match update.side {
                    "bid" => self.bids.push(level),
                    "offer" | "ask" => self.asks.push(level),
                    other => return Err(format!("unknown side `{other:.64}`")),
                }
                ts_ns = ts_ns.max(update.event_time.map(|t| t.0));
            }
            let Table::Book(books) = &mut self.table else { return Ok(()) };
            let levels = Levels { bids: &self.bids, asks: &self.asks };
            match event.kind {
                "snapshot" => {
                    let at = At { symbol: event.product_id, ts_ns: sent_ns, frame };
                    books.snapshot(at, levels, sequence, out);
                }
                "update" => {
                    let at = At { symbol: event.product_id, ts_ns: ts_ns.unwrap_or(sent_ns), frame };
                    books.update(at, levels, sequence, out);
                }
                other => return Err(format!("unknown event `{other:.64}`")),
            }
        }
        Ok(())
    }

    fn trades(&mut self, events: &LazyValue, frame: &Frame, out: &mut Output) -> Result<(), String> {
        if !matches!(self.table, Table::Trades(_)) {
            return other(out);
        }
        let events: Vec<wire::Each> = read(events.as_raw_str().as_bytes())?;
        let mut trades = Vec::new();
        for raw in events.iter().flat_map(|event| &event.list) {
            match read::<wire::Trade>(raw.as_raw_str().as_bytes()).and_then(|t| Ok((taker(t.side)?, t))) {
                Ok(trade) => trades.push(trade),
                Err(reason) => out.reject(frame, self.rows(), reason),
            }
        }
        for (side, trade) in in_order(trades) {
            let (symbol, id) = (trade.product_id, trade.trade_id.0);
            if !self.wanted.takes(symbol, out) {
                continue;
            }
            match self.ids.look(symbol, id) {
                IdStep::New => {}
                IdStep::Repeat => {
                    out.count("duplicates");
                    continue;
                }
                IdStep::Gap(missing) => {
                    out.count("gaps");
                    *out.counts.entry("missing_trades").or_default() += missing.unsigned_abs();
                    out.notices
                        .push(format!("{VENUE}: {symbol}: {missing} trades before id {id} are missing"));
                }
            }
            self.ids.take(symbol, id);
            let head = Head { ts_ns: trade.time.0, symbol, received_ns: frame.received_ns };
            if let Table::Trades(rows) = &mut self.table {
                rows.push(head, Some(id), trade.price.0, trade.size.0, Some(side));
            }
        }
        Ok(())
    }

    fn tickers(
        &mut self,
        events: &LazyValue,
        message: &Envelope,
        frame: &Frame,
        out: &mut Output,
    ) -> Result<(), String> {
        if !matches!(self.table, Table::Tickers(_)) {
            return other(out);
        }
        let ts_ns = message.timestamp.map_or(frame.received_ns, |t| t.0);
        let events: Vec<wire::Each> = read(events.as_raw_str().as_bytes())?;
        for raw in events.iter().flat_map(|event| &event.list) {
            match read::<wire::Ticker>(raw.as_raw_str().as_bytes()) {
                Err(reason) => out.reject(frame, self.rows(), reason),
                Ok(t) if self.wanted.takes(t.product_id, out) => {
                    let head = Head { ts_ns, symbol: t.product_id, received_ns: frame.received_ns };
                    let (bid, ask, volume) = (t.best_bid.0, t.best_ask.0, t.volume_24_h.0);
                    if let Table::Tickers(rows) = &mut self.table {
                        rows.push(head, &Ticker { last: t.price.0, bid, ask, volume });
                    }
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn bars(
        &mut self,
        events: &LazyValue,
        message: &Envelope,
        frame: &Frame,
        out: &mut Output,
    ) -> Result<(), String> {
        if !matches!(self.table, Table::Bars(_)) {
            return other(out);
        }
        let ts_ns = message.timestamp.map_or(frame.received_ns, |t| t.0);
        let events: Vec<wire::Each> = read(events.as_raw_str().as_bytes())?;
        let mut bars = Vec::new();
        for raw in events.iter().flat_map(|event| &event.list) {
            let bar = read::<wire::Candle>(raw.as_raw_str().as_bytes()).and_then(|c| {
                let start_ns = c.start.0.checked_mul(1_000_000_000).ok_or("a start is out of range")?;
                Ok((start_ns, c))
            });
            match bar {
                Ok(bar) => bars.push(bar),
                Err(reason) => out.reject(frame, self.rows(), reason),
            }
        }
        // They come newest first.
        bars.sort_by_key(|(start_ns, _)| *start_ns);
        for (start_ns, c) in bars {
            if !self.wanted.takes(c.product_id, out) {
                continue;
            }
            let [open, high, low, close, volume] = [c.open.0, c.high.0, c.low.0, c.close.0, c.volume.0];
            let bar = Bar { start_ns, open, high, low, close, volume, trades: None, closed: false };
            let head = Head { ts_ns, symbol: c.product_id, received_ns: frame.received_ns };
            if let Table::Bars(rows) = &mut self.table
                && !self.forming.push(rows, head, bar)
            {
                out.count("duplicates");
            }
        }
        Ok(())
    }

    fn opened(&mut self, frame: &Frame, out: &mut Output) {
        self.closed(frame, out);
        let begins_late = self.connections.get(&frame.connection).is_some_and(|c| c.begins_late);
        let connection = Connection { opened: true, begins_late, ..Connection::default() };
        self.connections.insert(frame.connection, connection);
        if let Table::Book(books) = &mut self.table {
            books.opened(frame);
        }
    }

    fn closed(&mut self, frame: &Frame, out: &mut Output) {
        self.forming.lost();
        if let Table::Book(books) = &mut self.table {
            books.closed(frame, out);
        }
        // Should something still come, it is of no use.
        if let Some(connection) = self.connections.get_mut(&frame.connection) {
            connection.broken = true;
        }
    }
}

/// What the taker did, from what the maker did.
pub(super) fn taker(maker: &str) -> Result<Side, String> {
    match maker {
        "BUY" | "buy" => Ok(Side::Sell),
        "SELL" | "sell" => Ok(Side::Buy),
        other => Err(format!("unknown side `{other:.64}`")),
    }
}

/// Trades by id within a product, and by time among products as far as that goes.
fn in_order(mut trades: Vec<(Side, wire::Trade)>) -> Vec<(Side, wire::Trade)> {
    trades.sort_by_key(|(_, trade)| trade.trade_id.0);
    let mut latest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut keyed: Vec<(i64, (Side, wire::Trade))> = Vec::with_capacity(trades.len());
    for (side, trade) in trades {
        let at = latest.entry(trade.product_id).or_insert(i64::MIN);
        *at = trade.time.0.max(*at);
        keyed.push((*at, (side, trade)));
    }
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, trade)| trade).collect()
}

impl Protocol for Advanced {
    fn endpoints(&self) -> Vec<Endpoint> {
        let jwt = self.params.jwt_token.as_deref();
        let message = |symbols: Option<&[String]>, channel: &str| {
            let text = |jwt: Option<&str>| {
                let mut message = json!({ "type": "subscribe", "channel": channel });
                if let Some(symbols) = symbols {
                    message["product_ids"] = json!(symbols);
                }
                if let Some(jwt) = jwt {
                    message["jwt"] = jwt.into();
                }
                message.to_string()
            };
            Outgoing { text: text(jwt), shown: text(jwt.map(|_| "***")) }
        };
        self.params.endpoints(WS_URL, |symbols| {
            // Heartbeats first: without them the venue closes quiet connections.
            let mut hello = vec![message(None, "heartbeats")];
            hello.extend(symbols.chunks(SUBSCRIBE_MAX).map(|chunk| message(Some(chunk), self.subscribed())));
            hello
        })
    }

    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn on_frame(&mut self, frame: &Frame, out: &mut Output) {
        match &frame.kind {
            FrameKind::Received => self.received(frame, out),
            FrameKind::Opened => self.opened(frame, out),
            FrameKind::Closed => self.closed(frame, out),
            FrameKind::Sent | FrameKind::Response { .. } => {}
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
