//! The protocol: log in, subscribe once that is granted, and make rows of one channel's messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use tidemill_engine::source::Reject;

use super::statuses::{self, Statuses};
use super::wire::{Bar, Control, Kind, Quote, Status, Trade, advice};
use super::{Channel, Params};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::json;
use crate::venue::protocol::{Action, Endpoint, Outgoing, Output, Protocol};
use crate::venue::tables::bars::{self, Bars};
use crate::venue::tables::quotes::{self, Quotes};
use crate::venue::tables::trades::Trades;
use crate::venue::tables::{Head, Side};

/// The `venue` column.
const VENUE: &str = "alpaca";
/// Symbols that one message names.
const SUBSCRIBE_MAX: usize = 500;

/// The protocol of one channel.
pub struct AlpacaFeed {
    params: Arc<Params>,
    /// Symbols of each connection.
    shards: Vec<Vec<String>>,
    /// All symbols; nothing where `*` is among them.
    known: Option<BTreeSet<String>>,
    /// Subscriptions that wait for their answer, by connection.
    unanswered: BTreeMap<u32, usize>,
    rows: Rows,
}

enum Rows {
    Trades(Trades),
    Quotes(Quotes),
    Bars(Bars),
    Statuses(Box<Statuses>),
}

impl AlpacaFeed {
    /// For parameters without problems.
    pub fn new(params: Arc<Params>) -> Self {
        let mut shards = Vec::new();
        let _ = params.connection.endpoints(&params.symbols, usize::MAX, |symbols| {
            shards.push(symbols.to_vec());
            endpoint(&params)
        });
        let all = params.symbols.iter().any(|s| s == "*");
        let known = (!all).then(|| params.symbols.iter().cloned().collect());
        let rows = match params.channel {
            Channel::Trades => Rows::Trades(Trades::new(VENUE)),
            Channel::Quotes => Rows::Quotes(Quotes::new(VENUE)),
            Channel::Bars | Channel::UpdatedBars | Channel::DailyBars => Rows::Bars(Bars::new(VENUE)),
            Channel::Statuses => Rows::Statuses(Box::new(Statuses::new(VENUE))),
        };
        Self { params, shards, known, unanswered: BTreeMap::new(), rows }
    }

    /// The messages that subscribe a connection's symbols.
    fn subscribe(&mut self, connection: u32, out: &mut Output) {
        let Some(symbols) = self.shards.get(connection as usize) else { return };
        let chunks = symbols.chunks(SUBSCRIBE_MAX);
        self.unanswered.insert(connection, chunks.len());
        for symbols in chunks {
            let mut message = json!({ "action": "subscribe" });
            for name in self.params.channel.names() {
                message[*name] = json!(symbols);
            }
            out.actions.push(Action::Send { connection, message: Outgoing::plain(message.to_string()) });
        }
    }

    /// Each element by itself: one that is wrong takes none of the others with it.
    fn received(&mut self, frame: &Frame, out: &mut Output) {
        for element in sonic_rs::to_array_iter(&frame.data[..]) {
            let element = match element {
                Ok(element) => element,
                Err(e) => {
                    let reason = format!("the frame is no array of messages: {}", json::first_line(&e));
                    return out.reject(frame, self.rows(), reason);
                }
            };
            let raw = element.as_raw_str();
            if let Err(reason) = self.message(raw, frame, out) {
                let raw = raw.as_bytes().to_vec();
                out.rejects.push(Reject { seq: 0, before: self.rows(), raw, key: None, reason });
            }
        }
    }

    fn message(&mut self, raw: &str, frame: &Frame, out: &mut Output) -> Result<(), String> {
        let Kind { kind, symbol } = json::read(raw.as_bytes())?;
        match kind {
            "success" | "error" | "subscription" => return self.control(kind, raw, frame, out),
            "c" => return corrected(raw, out),
            "x" => return cancelled(raw, out),
            _ => {}
        }
        let wanted = match self.params.channel {
            Channel::Trades => kind == "t",
            Channel::Quotes => kind == "q",
            Channel::Bars => kind == "b",
            Channel::UpdatedBars => kind == "b" || kind == "u",
            Channel::DailyBars => kind == "d",
            Channel::Statuses => kind == "s",
        };
        if !wanted {
            if matches!(kind, "t" | "q" | "b" | "u" | "d" | "s" | "l" | "i" | "o" | "n") {
                out.count("other_channels");
                return Ok(());
            }
            return Err(format!("unknown message type `{kind}`"));
        }
        let symbol = symbol.ok_or("missing field `S`")?;
        if self.known.as_ref().is_some_and(|known| !known.contains(symbol)) {
            return Err(format!("symbol `{symbol}` was not subscribed to"));
        }
        self.row(kind, raw, frame.received_ns, out)
    }

    fn row(&mut self, kind: &str, raw: &str, received_ns: i64, out: &mut Output) -> Result<(), String> {
        match &mut self.rows {
            Rows::Trades(rows) => {
                let trade: Trade<'_> = json::read(raw.as_bytes())?;
                let side = match trade.tks {
                    None => None,
                    Some("B") => Some(Side::Buy),
                    Some("S") => Some(Side::Sell),
                    Some(other) => return Err(format!("taker's side `{other}` is neither B nor S")),
                };
                let head = Head { ts_ns: trade.t.0, symbol: trade.symbol, received_ns };
                rows.push(head, trade.i, trade.p.0, trade.s.0, side);
            }
            Rows::Quotes(rows) => {
                let quote: Quote<'_> = json::read(raw.as_bytes())?;
                let head = Head { ts_ns: quote.t.0, symbol: quote.symbol, received_ns };
                let side = |price: f64, size: f64| (price > 0.0).then_some((price, size));
                let (bid, ask) = (side(quote.bp.0, quote.bs.0), side(quote.ap.0, quote.ask_size.0));
                rows.push(head, &quotes::Quote { bid, ask, update_id: None });
            }
            Rows::Bars(rows) => {
                let bar: Bar<'_> = json::read(raw.as_bytes())?;
                let head = Head { ts_ns: received_ns, symbol: bar.symbol, received_ns };
                let row = bars::Bar {
                    start_ns: bar.t.0,
                    open: bar.o.0,
                    high: bar.h.0,
                    low: bar.l.0,
                    close: bar.c.0,
                    volume: bar.v.0,
                    trades: bar.n,
                    // A day is sent again each minute; a minute is whole when it is sent, and may be corrected.
                    closed: kind != "d",
                };
                rows.push(head, &row);
            }
            Rows::Statuses(rows) => {
                let status: Status = json::read(raw.as_bytes())?;
                if !statuses::is_known(&status.sc) {
                    out.count("unknown_statuses");
                    out.notices.push(format!(
                        "alpaca tells of {} with a status `{}` that it does not document: `halted` is null",
                        status.symbol, status.sc
                    ));
                }
                rows.push(Head { ts_ns: status.t.0, symbol: &status.symbol, received_ns }, &status);
            }
        }
        Ok(())
    }

    fn control(&mut self, kind: &str, raw: &str, frame: &Frame, out: &mut Output) -> Result<(), String> {
        if kind == "subscription" {
            return self.subscribed(raw, frame.connection, out);
        }
        let control: Control = json::read(raw.as_bytes())?;
        match (kind, control.msg.as_str()) {
            ("success", "authenticated") => self.subscribe(frame.connection, out),
            ("success", _) => {}
            _ => {
                let code = control.code.unwrap_or_default();
                out.count("venue_errors");
                out.notices.push(format!("alpaca error {code}: {}: {}", control.msg, advice(code)));
            }
        }
        Ok(())
    }

    /// The answer to a subscription lists all that is subscribed to: what we asked for must be among it.
    fn subscribed(&mut self, raw: &str, connection: u32, out: &mut Output) -> Result<(), String> {
        let lists: Value = json::read(raw.as_bytes())?;
        let left = self.unanswered.entry(connection).or_insert(1);
        *left = left.saturating_sub(1);
        let Some(symbols) = self.shards.get(connection as usize).filter(|_| *left == 0) else {
            return Ok(());
        };
        for name in self.params.channel.names() {
            let listed = lists.get(*name).and_then(Value::as_array);
            let listed: BTreeSet<&str> = listed.into_iter().flatten().filter_map(Value::as_str).collect();
            let missing: Vec<&str> =
                symbols.iter().map(String::as_str).filter(|s| !listed.contains(s)).collect();
            if !missing.is_empty() {
                *out.counts.entry("refused_subscriptions").or_default() += missing.len() as u64;
                out.notices.push(format!("alpaca didn't subscribe us to {name} of {}", missing.join(", ")));
            }
        }
        Ok(())
    }
}

fn corrected(raw: &str, out: &mut Output) -> Result<(), String> {
    let value: Value = json::read(raw.as_bytes())?;
    out.count("corrections");
    let of = |key: &str| value.get(key).map_or("?".into(), Value::to_string);
    let symbol = value.get("S").and_then(Value::as_str).unwrap_or("?");
    out.notices.push(format!(
        "alpaca corrects trade {} of {symbol}, {} at {}: it is now trade {}, {} at {}",
        of("oi"),
        of("os"),
        of("op"),
        of("ci"),
        of("cs"),
        of("cp")
    ));
    Ok(())
}

fn cancelled(raw: &str, out: &mut Output) -> Result<(), String> {
    let value: Value = json::read(raw.as_bytes())?;
    out.count("cancels");
    let of = |key: &str| value.get(key).map_or("?".into(), Value::to_string);
    let symbol = value.get("S").and_then(Value::as_str).unwrap_or("?");
    let why = if value.get("a").and_then(Value::as_str) == Some("E") { "an error" } else { "a cancel" };
    out.notices.push(format!(
        "alpaca takes trade {} of {symbol} back ({why}): {} at {}",
        of("i"),
        of("s"),
        of("p")
    ));
    Ok(())
}

fn endpoint(params: &Params) -> Endpoint {
    let base = params.ws_url.as_deref().unwrap_or("wss://stream.data.alpaca.markets");
    let auth =
        |key: &str, secret: &str| json!({ "action": "auth", "key": key, "secret": secret }).to_string();
    Endpoint {
        url: format!("{}/{}", base.trim_end_matches('/'), params.feed.path()),
        // Subscriptions follow when the log-in was granted: before that they are refused (401).
        hello: vec![Outgoing { text: auth(&params.key, &params.secret), shown: auth("***", "***") }],
        send_gap_ns: 0,
        ping: None,
        stale_ns: params.connection.stale_after.ns(),
        group: 0,
    }
}

impl Protocol for AlpacaFeed {
    fn endpoints(&self) -> Vec<Endpoint> {
        self.params.connection.endpoints(&self.params.symbols, usize::MAX, |_| endpoint(&self.params))
    }

    fn schema(&self) -> SchemaRef {
        match &self.rows {
            Rows::Trades(rows) => rows.schema(),
            Rows::Quotes(rows) => rows.schema(),
            Rows::Bars(rows) => rows.schema(),
            Rows::Statuses(rows) => rows.schema(),
        }
    }

    fn on_frame(&mut self, frame: &Frame, out: &mut Output) {
        if frame.kind == FrameKind::Received {
            self.received(frame, out);
        }
    }

    fn state_is_whole(&self) -> bool {
        self.unanswered.values().all(|unanswered| *unanswered == 0)
    }

    fn rows(&self) -> usize {
        match &self.rows {
            Rows::Trades(rows) => rows.len(),
            Rows::Quotes(rows) => rows.len(),
            Rows::Bars(rows) => rows.len(),
            Rows::Statuses(rows) => rows.len(),
        }
    }

    fn finish(&mut self) -> RecordBatch {
        match &mut self.rows {
            Rows::Trades(rows) => rows.finish(),
            Rows::Quotes(rows) => rows.finish(),
            Rows::Bars(rows) => rows.finish(),
            Rows::Statuses(rows) => rows.finish(),
        }
    }
}
