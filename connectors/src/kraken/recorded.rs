//! The recorded v1 sessions: every book message applied, every checksum right, the books right at every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use serde_json::{Value, json};
use tidemill_engine::row;

use super::{Params, V1};
use crate::venue::frame::FrameKind;
use crate::venue::protocol::Protocol;
use crate::venue::recorded::{RowBook, SlowBook, add, frames, nanoseconds, read_deltas, step};

const PAIRS: [&str; 10] = [
    "WAVES/EUR",
    "XMR/USD",
    "KSM/XBT",
    "GRT/ETH",
    "SC/EUR",
    "ETH/CHF",
    "OCEAN/XBT",
    "OMG/USD",
    "XBT/CHF",
    "ADA/XBT",
];

/// A protocol of v1 for all pairs of the session.
pub(super) fn v1(channel: &str, book: Value) -> V1 {
    let params = json!({ "protocol": "v1", "symbols": PAIRS, "channel": channel, "book": book });
    let params: Params = serde_json::from_value(params).unwrap();
    assert_eq!(params.problems(), []);
    V1::new(Arc::new(params))
}

/// The frame's data, if it is an array.
pub(super) fn data(frame: &crate::venue::frame::Frame) -> Option<Value> {
    if frame.kind != FrameKind::Received {
        return None;
    }
    Some(serde_json::from_slice(&frame.data).unwrap()).filter(Value::is_array)
}

#[test]
fn every_book_message_is_applied_every_checksum_is_right_and_the_books_are_right_at_every_step() {
    let Some(frames) = frames("kraken.ws.50.part.gz", 0) else { return };
    let mut protocol = v1("book", json!({}));
    let mut slow: BTreeMap<String, SlowBook> = BTreeMap::new();
    let mut told: BTreeMap<String, RowBook> = BTreeMap::new();
    let (mut snapshots, mut updates, mut checksums, mut rows, mut levels) = (0, 0, 0, 0, 0);
    let mut counts = BTreeMap::new();
    for frame in &frames {
        let (batch, out) = step(&mut protocol, frame);
        assert!(out.rejects.is_empty() && out.notices.is_empty() && out.actions.is_empty(), "{out:?}");
        add(&mut counts, &out);
        rows += batch.num_rows();
        read_deltas(&mut told, &batch);
        let Some(message) = data(frame) else { continue };
        let pair = message.as_array().unwrap().last().unwrap().as_str().unwrap();
        let book = slow.entry(pair.to_owned()).or_default();
        match book.kraken_v1(&message, 1000) {
            Some(checksum) => {
                assert_eq!(book.kraken_checksum(), checksum, "the recipe itself");
                checksums += 1;
                updates += 1;
            }
            None => snapshots += 1,
        }
        let rule = told[pair].valid && told[pair].equals(book, usize::MAX);
        assert!(rule, "{pair} at {}", frame.received_ns);
        levels += book.bids.len() + book.asks.len();
    }
    counts.remove("republished_levels");
    assert_eq!(counts, BTreeMap::new(), "no fault, nothing passed over");
    assert_eq!((snapshots, updates, checksums), (10, 2556, 2556));
    println!(
        "{snapshots} snapshots, {updates} updates, {checksums} checksums right, {rows} rows, {levels} levels compared"
    );
}

/// Prices and sizes, best first.
type Side = Vec<(f64, f64)>;

#[test]
fn the_best_levels_are_right_at_every_step_as_snapshots_and_as_quotes() {
    let Some(frames) = frames("kraken.ws.50.part.gz", 0) else { return };
    let mut best = v1("book", json!({ "output": "snapshots", "depth": 7, "levels": 1000 }));
    let mut quotes = v1("book", json!({ "output": "quotes", "levels": 1000 }));
    let mut slow: BTreeMap<String, SlowBook> = BTreeMap::new();
    let mut told: BTreeMap<String, (Side, Side, [f64; 4])> = BTreeMap::new();
    let mut rows = (0, 0);
    for frame in &frames {
        let (batch, _) = step(&mut best, frame);
        rows.0 += batch.num_rows();
        let list = |name: &str| {
            let list = batch.column_by_name(name).unwrap().as_list::<i32>().value(0);
            list.as_primitive::<Float64Type>().values().to_vec()
        };
        let mut entry = Default::default();
        if batch.num_rows() > 0 {
            let side = |prices, sizes| list(prices).into_iter().zip(list(sizes)).collect::<Vec<_>>();
            entry = (side("bid_prices", "bid_sizes"), side("ask_prices", "ask_sizes"));
        }
        let Some(message) = data(frame) else { continue };
        let pair = message.as_array().unwrap().last().unwrap().as_str().unwrap().to_owned();
        let state = told.entry(pair.clone()).or_default();
        if batch.num_rows() > 0 {
            (state.0, state.1) = entry;
        }
        let (batch, _) = step(&mut quotes, frame);
        rows.1 += batch.num_rows();
        if batch.num_rows() > 0 {
            let number = |name| batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(0);
            state.2 = ["bid", "bid_size", "ask", "ask_size"].map(number);
        }
        let book = slow.entry(pair).or_default();
        book.kraken_v1(&message, 1000);
        let (bids, asks) = (book.numbers(true, 7), book.numbers(false, 7));
        assert_eq!(state.2, [bids[0].0, bids[0].1, asks[0].0, asks[0].1]);
        assert_eq!((&state.0, &state.1), (&bids, &asks));
    }
    println!("{} rows of snapshots, {} of quotes", rows.0, rows.1);
    assert!(rows.0 > rows.1 && rows.1 > 100, "a row for a change that shows");
}

fn rows(protocol: &mut V1, file: &str) -> Option<(RecordBatch, Vec<Value>)> {
    let frames = frames(file, 0)?;
    let mut messages = Vec::new();
    let mut out = Default::default();
    for frame in &frames {
        protocol.on_frame(frame, &mut out);
        messages.extend(data(frame));
    }
    assert!(out.rejects.is_empty() && out.notices.is_empty() && out.counts.is_empty(), "{out:?}");
    Some((protocol.finish(), messages))
}

#[test]
fn every_trade_is_a_row() {
    let Some((rows, messages)) = rows(&mut v1("trades", json!({})), "kraken.ws.48.0.gz") else { return };
    let mut n = 0;
    for message in messages {
        for trade in message[1].as_array().unwrap() {
            let text = |i: usize| trade[i].as_str().unwrap();
            let number = |name| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(n);
            assert_eq!(
                (number("price"), number("size")),
                (text(0).parse().unwrap(), text(1).parse().unwrap())
            );
            assert_eq!(
                rows.column(0).as_primitive::<TimestampNanosecondType>().value(n),
                nanoseconds(text(2))
            );
            assert_eq!(
                row::text(rows.column_by_name("side").unwrap(), n),
                Some(if text(3) == "b" { "buy" } else { "sell" })
            );
            assert_eq!(row::text(rows.column_by_name("symbol").unwrap(), n), message[3].as_str());
            assert!(rows.column_by_name("trade_id").unwrap().as_primitive::<Int64Type>().is_null(n));
            n += 1;
        }
    }
    assert_eq!((n, rows.num_rows()), (10, 10));
}

#[test]
fn every_ticker_is_a_row() {
    let Some((rows, messages)) = rows(&mut v1("tickers", json!({})), "kraken.ws.49.0.gz") else { return };
    assert_eq!(rows.num_rows(), messages.len());
    for (n, message) in messages.iter().enumerate() {
        let number = |name| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(n);
        let sent = |key: &str, i: usize| message[1][key][i].as_str().unwrap().parse::<f64>().unwrap();
        let got = ["last", "bid", "ask", "volume"].map(number);
        assert_eq!(got, [sent("c", 0), sent("b", 0), sent("a", 0), sent("v", 1)]);
    }
}
