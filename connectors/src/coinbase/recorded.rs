//! The recorded session of 2021, as it is and told again as Advanced Trade would: every message taken, the books right at every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use serde_json::{Value, json};
use tidemill_engine::row;

use super::{Advanced, Exchange, Params};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::Protocol;
use crate::venue::recorded::{RowBook, SlowBook, add, frames, read_deltas, received, step};

const PRODUCTS: [&str; 10] = [
    "SKL-USD", "SKL-BTC", "BAND-GBP", "NMR-EUR", "BAND-BTC", "YFI-BTC", "DASH-BTC", "NU-GBP", "CRV-EUR",
    "SKL-GBP",
];

pub(super) fn params(protocol: &str, channel: &str) -> Arc<Params> {
    let params = json!({ "protocol": protocol, "symbols": PRODUCTS, "channel": channel });
    let params: Params = serde_json::from_value(params).unwrap();
    assert_eq!(params.problems(), []);
    Arc::new(params)
}

/// The session's frames and their messages.
pub(super) fn session() -> Option<Vec<(Frame, Value)>> {
    let frames = frames("coinbase.ws.28.part.gz", 0)?;
    let message = |frame: &Frame| match frame.kind {
        FrameKind::Received => serde_json::from_slice(&frame.data).unwrap(),
        _ => Value::Null,
    };
    Some(frames.into_iter().map(|frame| (frame.clone(), message(&frame))).collect())
}

/// Takes a message of the Exchange feed into a slow book.
pub(super) fn take(book: &mut SlowBook, message: &Value) {
    let text = |value: &Value, i: usize| value[i].as_str().unwrap().to_owned();
    if message["type"] == "snapshot" {
        *book = SlowBook::default();
        for (key, bid) in [("bids", true), ("asks", false)] {
            for level in message[key].as_array().unwrap() {
                book.set(bid, &text(level, 0), &text(level, 1));
            }
        }
    }
    for change in message["changes"].as_array().into_iter().flatten() {
        book.set(change[0] == "buy", &text(change, 1), &text(change, 2));
    }
}

/// A message of the Exchange feed as Advanced Trade would send it.
pub(super) fn advanced(message: &Value, sequence: u64) -> Option<String> {
    let product = &message["product_id"];
    let time = match &message["time"] {
        Value::Null => json!("2021-04-17T16:43:37Z"),
        time => time.clone(),
    };
    let update = |side: &str, price: &Value, size: &Value| json!({ "side": side, "event_time": time, "price_level": price, "new_quantity": size });
    let (channel, event) = match message["type"].as_str()? {
        kind @ ("snapshot" | "l2update") => {
            let side = |key: &str, side: &str| {
                let levels = message[key].as_array().cloned().unwrap_or_default();
                levels.iter().map(|l| update(side, &l[0], &l[1])).collect::<Vec<_>>()
            };
            let changes = message["changes"].as_array().cloned().unwrap_or_default();
            let changes =
                changes.iter().map(|c| update(if c[0] == "buy" { "bid" } else { "offer" }, &c[1], &c[2]));
            let updates: Vec<Value> =
                side("bids", "bid").into_iter().chain(side("asks", "offer")).chain(changes).collect();
            let kind = if kind == "snapshot" { "snapshot" } else { "update" };
            ("l2_data", json!({ "type": kind, "product_id": product, "updates": updates }))
        }
        "match" | "last_match" => {
            let trade = json!({
                "trade_id": message["trade_id"].to_string(), "product_id": product, "price": message["price"],
                "size": message["size"], "side": message["side"].as_str()?.to_uppercase(), "time": time,
            });
            ("market_trades", json!({ "type": "update", "trades": [trade] }))
        }
        "ticker" => {
            let ticker = json!({
                "type": "ticker", "product_id": product, "price": message["price"], "volume_24_h": message["volume_24h"],
                "best_bid": message["best_bid"], "best_ask": message["best_ask"],
            });
            ("ticker", json!({ "type": "update", "tickers": [ticker] }))
        }
        _ => return None,
    };
    let message = json!({ "channel": channel, "client_id": "", "timestamp": time, "sequence_num": sequence, "events": [event] });
    Some(message.to_string())
}

pub(super) fn heartbeat(sequence: u64, counter: u64) -> String {
    let event = json!({ "current_time": "2021-04-17 16:43:37.1 +0000 UTC m=+91717.525857105", "heartbeat_counter": counter.to_string() });
    json!({ "channel": "heartbeats", "client_id": "", "timestamp": "2021-04-17T16:43:37Z", "sequence_num": sequence, "events": [event] }).to_string()
}

/// Follows the session with a protocol; `text` is what it gets in place of a message.
fn follow(
    protocol: &mut dyn Protocol,
    mut text: impl FnMut(&Frame, &Value) -> Option<Frame>,
) -> Option<BTreeMap<&'static str, u64>> {
    let session = session()?;
    let mut slow: BTreeMap<String, SlowBook> = BTreeMap::new();
    let mut told: BTreeMap<String, RowBook> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    let (mut snapshots, mut updates, mut compared) = (0, 0, 0);
    for (frame, message) in &session {
        let Some(sent) = text(frame, message) else { continue };
        let (batch, out) = step(protocol, &sent);
        assert!(out.rejects.is_empty() && out.notices.is_empty() && out.actions.is_empty(), "{out:?}");
        add(&mut counts, &out);
        read_deltas(&mut told, &batch);
        match message["type"].as_str() {
            Some("snapshot") => snapshots += 1,
            Some("l2update") => updates += 1,
            _ => continue,
        }
        let product = message["product_id"].as_str().unwrap();
        let book = slow.entry(product.to_owned()).or_default();
        take(book, message);
        assert!(
            told[product].valid && told[product].equals(book, usize::MAX),
            "{product} at {}",
            frame.received_ns
        );
        compared += book.bids.len() + book.asks.len();
    }
    assert_eq!((snapshots, updates), (10, 5891));
    println!("{snapshots} snapshots, {updates} updates, {compared} levels compared");
    Some(counts)
}

#[test]
fn exchange_books_are_right_at_every_step() {
    let mut protocol = Exchange::new(params("exchange", "book"));
    let Some(counts) = follow(&mut protocol, |frame, _| Some(frame.clone())) else { return };
    assert_eq!(counts, BTreeMap::from([("other_messages", 92)]), "46 tickers, 46 trades, no fault");
}

#[test]
fn advanced_books_are_right_at_every_step() {
    let mut protocol = Advanced::new(params("advanced", "book"));
    let mut sequence = 0;
    let counts = follow(&mut protocol, |frame, message| {
        if frame.kind == FrameKind::Opened {
            return Some(frame.clone());
        }
        let text = advanced(message, sequence)?;
        sequence += 1;
        Some(received(frame.received_ns, &text))
    });
    let Some(counts) = counts else { return };
    assert_eq!(counts, BTreeMap::from([("other_messages", 92)]));
}

fn rows(protocol: &mut dyn Protocol, advance: bool) -> Option<(RecordBatch, Vec<Value>)> {
    let mut out = Default::default();
    let (mut messages, mut sequence) = (Vec::new(), 0);
    for (frame, message) in session()? {
        match advance.then(|| advanced(&message, sequence)).flatten() {
            Some(text) => {
                protocol.on_frame(&received(frame.received_ns, &text), &mut out);
                sequence += 1;
            }
            None if !advance => protocol.on_frame(&frame, &mut out),
            None => {}
        }
        messages.push(message);
    }
    assert!(out.rejects.is_empty() && out.notices.is_empty() && out.actions.is_empty(), "{out:?}");
    assert_eq!(out.counts.keys().collect::<Vec<_>>(), [&"other_messages"]);
    Some((protocol.finish(), messages))
}

fn check_trades(rows: &RecordBatch, messages: &[Value]) {
    let trades: Vec<&Value> =
        messages.iter().filter(|m| m["type"] == "match" || m["type"] == "last_match").collect();
    assert_eq!((rows.num_rows(), trades.len()), (46, 46));
    for (n, trade) in trades.iter().enumerate() {
        let number = |name| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(n);
        let sent = |key: &str| trade[key].as_str().unwrap().parse::<f64>().unwrap();
        assert_eq!((number("price"), number("size")), (sent("price"), sent("size")));
        assert_eq!(
            rows.column_by_name("trade_id").unwrap().as_primitive::<Int64Type>().value(n),
            trade["trade_id"].as_i64().unwrap()
        );
        let taker = if trade["side"] == "sell" { "buy" } else { "sell" };
        assert_eq!(row::text(rows.column_by_name("side").unwrap(), n), Some(taker));
        let time = chrono::DateTime::parse_from_rfc3339(trade["time"].as_str().unwrap()).unwrap();
        assert_eq!(
            Some(rows.column(0).as_primitive::<TimestampNanosecondType>().value(n)),
            time.timestamp_nanos_opt()
        );
    }
}

#[test]
fn every_trade_is_a_row_and_their_ids_have_no_hole() {
    let Some((batch, messages)) = rows(&mut Exchange::new(params("exchange", "trades")), false) else {
        return;
    };
    check_trades(&batch, &messages);
    let Some((batch, messages)) = rows(&mut Advanced::new(params("advanced", "trades")), true) else {
        return;
    };
    check_trades(&batch, &messages);
}

#[test]
fn every_ticker_is_a_row() {
    for (protocol, advance) in [
        (&mut Exchange::new(params("exchange", "tickers")) as &mut dyn Protocol, false),
        (&mut Advanced::new(params("advanced", "tickers")), true),
    ] {
        let Some((rows, messages)) = rows(protocol, advance) else { return };
        let tickers: Vec<&Value> = messages.iter().filter(|m| m["type"] == "ticker").collect();
        assert_eq!((rows.num_rows(), tickers.len()), (46, 46));
        for (n, ticker) in tickers.iter().enumerate() {
            let number = |name| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(n);
            let sent = |key: &str| ticker[key].as_str().unwrap().parse::<f64>().unwrap();
            let got = ["last", "bid", "ask", "volume"].map(number);
            assert_eq!(got, [sent("price"), sent("best_bid"), sent("best_ask"), sent("volume_24h")]);
        }
    }
}
