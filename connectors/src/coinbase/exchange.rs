//! Coinbase Exchange, the feed that was "Coinbase Pro": messages with a `type`, without a number that all of them share.
//!
//! What can be seen: a hole in a product's trade ids, a crossed book, a book whose time goes backwards, a message that can't be
//! read. A lost `l2update` that crosses nothing can't. <https://docs.cdp.coinbase.com/exchange/websocket-feed/channels>

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use tidemill_book::Levels;
use tidemill_book::sync::{CoinbaseExchange as Rule, Crossing, Fault, FaultKind, Outcome};

use super::advanced::taker;
use super::wire::{self, Message};
use super::{Channel, Params, SUBSCRIBE_MAX, VENUE};
use crate::venue::books::{At, Books, Resync};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::ids::{IdStep, Ids};
use crate::venue::json::read;
use crate::venue::overdue::Overdue;
use crate::venue::protocol::{Action, Endpoint, Outgoing, Output, Protocol};
use crate::venue::table::{Table, Wanted, other};
use crate::venue::tables::Head;
use crate::venue::tables::tickers::{Ticker, Tickers};
use crate::venue::tables::trades::Trades;

/// Where the feed is.
pub const WS_URL: &str = "wss://ws-feed.exchange.coinbase.com";
/// The public channel of book changes; `level2` itself wants a key since 2023, and has the same messages.
const BOOK: &str = "level2_batch";

/// One channel of the Exchange feed.
pub struct Exchange {
    params: Arc<Params>,
    wanted: Wanted,
    table: Table<Rule>,
    ids: Ids,
    /// Products that were subscribed to anew and have not brought a snapshot yet.
    overdue: Overdue,
    /// The connection that brought a product's last whole book.
    home: BTreeMap<String, u32>,
}

impl Exchange {
    /// From checked parameters.
    pub fn new(params: Arc<Params>) -> Self {
        let table = match params.channel {
            Channel::Trades => Table::Trades(Trades::new(VENUE)),
            Channel::Tickers => Table::Tickers(Tickers::new(VENUE)),
            Channel::Book | Channel::Bars => {
                let make = |_: &str| Rule::new(Crossing::Fault);
                let resync = Resync::Resubscribe(Box::new(resubscribe));
                Table::Book(Box::new(Books::new(VENUE, &params.book, resync, make)))
            }
        };
        Self {
            wanted: Wanted::new(VENUE, &params.symbols),
            params,
            table,
            ids: Ids::default(),
            overdue: Overdue::default(),
            home: BTreeMap::new(),
        }
    }

    fn received(&mut self, frame: &Frame, out: &mut Output) {
        for (connection, symbol) in self.overdue.due(frame.received_ns) {
            out.count("repeated_requests");
            let send = |message| Action::Send { connection, message };
            out.actions.extend(resubscribe(&symbol).into_iter().map(send));
        }
        let message: Message = match read(&frame.data) {
            Ok(message) => message,
            Err(reason) => return self.unread(frame, reason, out),
        };
        let result = match message.kind {
            Some("snapshot" | "l2update") => self.book(&message, frame, out),
            Some("match" | "last_match") => self.trade(&message, frame, out),
            Some("ticker") => self.ticker(&message, frame, out),
            Some("heartbeat") => self.heartbeat(&message, out),
            Some("subscriptions") => self.subscriptions(&message, out),
            Some("error") => {
                out.count("venue_errors");
                let text = message.message.as_deref().unwrap_or("no message");
                let reason = message.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
                out.notices.push(format!("{VENUE}: connection {}: {text}{reason}", frame.connection));
                Ok(())
            }
            // Messages of the full and the status channel.
            Some("received" | "open" | "done" | "change" | "activate" | "status") => other(out),
            Some(kind) => Err(format!("unknown type `{kind:.64}`")),
            None => Err("no `type`".into()),
        };
        if let Err(reason) = result {
            self.unread(frame, reason, out);
        }
    }

    /// A message that can't be used may have changed any book of its connection.
    fn unread(&mut self, frame: &Frame, reason: String, out: &mut Output) {
        out.reject(frame, self.rows(), reason);
        if let Table::Book(books) = &mut self.table {
            let fault = Fault::new(FaultKind::Gap, "a message could not be used");
            books.invalidate_connection(frame, frame.received_ns, &fault, out);
            for (symbol, _) in self.home.iter().filter(|(_, home)| **home == frame.connection) {
                self.overdue.asked(frame.connection, symbol, frame.received_ns);
            }
        }
    }

    /// The product of a message, if it was asked for.
    fn ours<'a>(&mut self, message: &Message<'a>, out: &mut Output) -> Result<Option<&'a str>, String> {
        let symbol = message.product_id.ok_or("no `product_id`")?;
        Ok(self.wanted.takes(symbol, out).then_some(symbol))
    }

    fn book(&mut self, message: &Message, frame: &Frame, out: &mut Output) -> Result<(), String> {
        if !matches!(self.table, Table::Book(_)) {
            return other(out);
        }
        let Some(symbol) = self.ours(message, out)? else { return Ok(()) };
        let Table::Book(books) = &mut self.table else { return Ok(()) };
        let time_ns = message.time.map(|t| t.0);
        let at = At { symbol, ts_ns: time_ns.unwrap_or(frame.received_ns), frame };
        let whole = message.kind == Some("snapshot");
        let outcome = if whole {
            books.snapshot(at, Levels { bids: &message.bids.0, asks: &message.asks.0 }, (), out)
        } else {
            let levels = Levels { bids: &message.changes.bids, asks: &message.changes.asks };
            books.update(at, levels, time_ns, out)
        };
        match outcome {
            Outcome::Fault(_) => self.overdue.asked(frame.connection, symbol, frame.received_ns),
            Outcome::Applied if whole => {
                self.overdue.came(frame.connection, symbol);
                self.home.insert(symbol.to_owned(), frame.connection);
            }
            _ => {}
        }
        Ok(())
    }

    fn trade(&mut self, message: &Message, frame: &Frame, out: &mut Output) -> Result<(), String> {
        if !matches!(self.table, Table::Trades(_)) {
            return other(out);
        }
        let id = message.trade_id.ok_or("no `trade_id`")?;
        let price = message.price.0.ok_or("no `price`")?;
        let size = message.size.0.ok_or("no `size`")?;
        let side = taker(message.side.ok_or("no `side`")?)?;
        let Some(symbol) = self.ours(message, out)? else { return Ok(()) };
        match self.ids.look(symbol, id) {
            IdStep::New => {}
            IdStep::Repeat => {
                out.count("duplicates");
                return Ok(());
            }
            IdStep::Gap(missing) => {
                out.count("gaps");
                *out.counts.entry("missing_trades").or_default() += missing.unsigned_abs();
                out.notices.push(format!("{VENUE}: {symbol}: {missing} trades before id {id} are missing"));
            }
        }
        self.ids.take(symbol, id);
        let ts_ns = message.time.map_or(frame.received_ns, |t| t.0);
        let head = Head { ts_ns, symbol, received_ns: frame.received_ns };
        if let Table::Trades(rows) = &mut self.table {
            rows.push(head, Some(id), price, size, Some(side));
        }
        Ok(())
    }

    fn ticker(&mut self, message: &Message, frame: &Frame, out: &mut Output) -> Result<(), String> {
        if !matches!(self.table, Table::Tickers(_)) {
            return other(out);
        }
        let last = message.price.0.ok_or("no `price`")?;
        let Some(symbol) = self.ours(message, out)? else { return Ok(()) };
        let ts_ns = message.time.map_or(frame.received_ns, |t| t.0);
        let head = Head { ts_ns, symbol, received_ns: frame.received_ns };
        let (bid, ask, volume) = (message.best_bid.0, message.best_ask.0, message.volume_24h.0);
        if let Table::Tickers(rows) = &mut self.table {
            rows.push(head, &Ticker { last, bid, ask, volume });
        }
        Ok(())
    }

    /// The product's last trade as the venue knows it. Trades come on another channel, so one may still be on its way: it is
    /// counted, and its own message says what is missing for sure.
    fn heartbeat(&mut self, message: &Message, out: &mut Output) -> Result<(), String> {
        let Some(symbol) = self.ours(message, out)? else { return Ok(()) };
        let Some(last) = message.last_trade_id else { return Ok(()) };
        if matches!(self.table, Table::Trades(_)) && self.ids.look(symbol, last) != IdStep::Repeat {
            out.count("trades_behind_heartbeat");
        }
        Ok(())
    }

    /// Products of ours that the venue doesn't list where it lists the channel are unknown to it.
    fn subscriptions(&mut self, message: &Message, out: &mut Output) -> Result<(), String> {
        let channels = message.channels.as_ref().ok_or("no `channels`")?;
        let channels: Vec<wire::Channel> = read(channels.as_raw_str().as_bytes())?;
        if self.params.symbols.len() > SUBSCRIBE_MAX || self.params.connection.connections > 1 {
            return Ok(());
        }
        let subscribed = self.subscribed();
        if let Some(channel) = channels.iter().find(|c| c.name == subscribed) {
            self.wanted.listed(|symbol| channel.product_ids.iter().any(|p| p == symbol), out);
        }
        Ok(())
    }

    /// The channel's name in subscriptions.
    fn subscribed(&self) -> &'static str {
        match self.params.channel {
            Channel::Book | Channel::Bars => BOOK,
            Channel::Trades => "matches",
            Channel::Tickers => "ticker",
        }
    }
}

fn request(kind: &str, symbols: &[String], channel: &str) -> Outgoing {
    Outgoing::plain(json!({ "type": kind, "product_ids": symbols, "channels": [channel] }).to_string())
}

fn resubscribe(symbol: &str) -> Vec<Outgoing> {
    let symbols = [symbol.to_owned()];
    ["unsubscribe", "subscribe"].map(|kind| request(kind, &symbols, BOOK)).to_vec()
}

impl Protocol for Exchange {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.params.endpoints(WS_URL, |symbols| {
            let channels = [self.subscribed(), "heartbeat"];
            let chunks = symbols.chunks(SUBSCRIBE_MAX);
            chunks.flat_map(|chunk| channels.map(|channel| request("subscribe", chunk, channel))).collect()
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
        self.overdue.closed(frame.connection);
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
        json!({ "trades": self.ids.state() })
    }

    fn restore(&mut self, state: &Value) -> Result<(), String> {
        if state.is_null() { Ok(()) } else { self.ids.restore(&state["trades"]) }
    }
}
