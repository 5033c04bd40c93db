//! Advanced Trade and Exchange by sample messages, as the venue documents them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use serde_json::{Value, json};
use tidemill_engine::row;

use super::{Advanced, Exchange, Params};
use crate::venue::frame::FrameKind;
use crate::venue::protocol::{Action, Output, Protocol};
use crate::venue::recorded::{add, read_deltas, received, step, turned};

fn params(channel: &str, more: Value) -> Params {
    let mut params = json!({ "symbols": ["BTC-USD", "ETH-USD"], "channel": channel });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(params).unwrap()
}

fn feed(channel: &str) -> Advanced {
    let params = params(channel, json!({}));
    assert_eq!(params.problems(), []);
    Advanced::new(Arc::new(params))
}

fn trades(sequence: u64, kind: &str, ids: &[i64]) -> String {
    let trade = |id: &i64| json!({ "trade_id": id.to_string(), "product_id": "ETH-USD", "price": "1260.01", "size": "0.3", "side": "BUY", "time": "2019-08-14T20:42:27.265Z" });
    let trades: Vec<Value> = ids.iter().map(trade).collect();
    json!({ "channel": "market_trades", "client_id": "", "timestamp": "2023-02-09T20:19:35.39625135Z", "sequence_num": sequence, "events": [{ "type": kind, "trades": trades }] }).to_string()
}

fn book(sequence: u64, kind: &str, levels: &[(&str, &str, &str)]) -> String {
    let update = |(side, price, size): &(&str, &str, &str)| json!({ "side": side, "event_time": "2023-02-09T20:32:50.714964855Z", "price_level": price, "new_quantity": size });
    let updates: Vec<Value> = levels.iter().map(update).collect();
    json!({ "channel": "l2_data", "client_id": "", "timestamp": "2023-02-09T20:32:50.8Z", "sequence_num": sequence, "events": [{ "type": kind, "product_id": "BTC-USD", "updates": updates }] }).to_string()
}

/// Rows' trade ids, and what was counted and asked.
fn ids(protocol: &mut dyn Protocol, texts: &[String]) -> (Vec<i64>, Output) {
    let (mut ids, mut all) = (Vec::new(), Output::default());
    for text in texts {
        let (batch, out) = step(protocol, &received(1, text));
        ids.extend_from_slice(batch.column_by_name("trade_id").unwrap().as_primitive::<Int64Type>().values());
        add(&mut all.counts, &out);
        all.actions.extend(out.actions);
        all.notices.extend(out.notices);
    }
    (ids, all)
}

fn open(protocol: &mut dyn Protocol) {
    step(protocol, &turned(1, FrameKind::Closed));
    step(protocol, &turned(1, FrameKind::Opened));
}

#[test]
fn a_hole_in_the_sequence_is_filled_by_the_latest_trades_of_the_next_connection() {
    let mut protocol = feed("trades");
    open(&mut protocol);
    let begin = [
        trades(0, "snapshot", &[12, 11, 10]),
        trades(1, "update", &[13]),
        trades(1, "update", &[13]),
        trades(2, "update", &[15, 14]),
    ];
    let (got, out) = ids(&mut protocol, &begin);
    assert_eq!((got, out.counts), (vec![10, 11, 12, 13, 14, 15], BTreeMap::from([("duplicates", 1)])));

    // Number 3 is lost: from then on nothing is taken, so nothing has to be taken back.
    let (got, out) = ids(&mut protocol, &[trades(4, "update", &[18]), trades(5, "update", &[19])]);
    assert_eq!((got, out.counts), (vec![], BTreeMap::from([("gaps", 1), ("ignored_frames", 1)])));
    assert_eq!(out.actions.len(), 1);
    assert!(matches!(out.actions[0], Action::Reconnect { connection: 0, .. }));
    open(&mut protocol);
    let (got, _) =
        ids(&mut protocol, &[trades(0, "snapshot", &[19, 18, 17, 16, 15, 14]), trades(1, "update", &[20])]);
    assert_eq!(got, [16, 17, 18, 19, 20]);

    // Too long away: what the snapshot doesn't reach is missing, and said so; also over a restart.
    let mut restored = feed("trades");
    restored.restore(&protocol.state()).unwrap();
    let (got, out) = ids(&mut restored, &[trades(0, "snapshot", &[31, 30])]);
    assert_eq!((got, out.counts["missing_trades"]), (vec![30, 31], 9));
    assert_eq!(out.notices, ["coinbase: ETH-USD: 9 trades before id 30 are missing"]);
}

#[test]
fn trades_of_several_products_come_by_time_and_by_id() {
    let trade = |product: &str, id: i64, at: &str| json!({ "trade_id": id.to_string(), "product_id": product, "price": "1", "size": "1", "side": "SELL", "time": at });
    let list = [
        trade("BTC-USD", 9, "2024-01-01T00:00:03Z"),
        trade("ETH-USD", 5, "2024-01-01T00:00:02Z"),
        trade("BTC-USD", 8, "2024-01-01T00:00:01Z"),
    ];
    let text = json!({ "channel": "market_trades", "sequence_num": 0, "events": [{ "type": "update", "trades": list }] }).to_string();
    let (rows, _) = step(&mut feed("trades"), &received(1, &text));
    assert_eq!(rows.column_by_name("trade_id").unwrap().as_primitive::<Int64Type>().values(), &[8, 5, 9]);
    assert_eq!(row::text(rows.column_by_name("side").unwrap(), 0), Some("buy"), "the maker sold");
}

#[test]
fn a_connection_begins_with_0_unless_the_venue_counts_otherwise() {
    let mut protocol = feed("trades");
    open(&mut protocol);
    let (got, out) = ids(&mut protocol, &[trades(1, "snapshot", &[10])]);
    assert_eq!((got.len(), out.actions.len(), out.counts["gaps"]), (0, 1, 1), "the first may have been lost");
    open(&mut protocol);
    let (got, out) = ids(&mut protocol, &[trades(1, "snapshot", &[10])]);
    assert_eq!((got.len(), out.actions.len()), (1, 0), "it does so always");
    let (got, _) = ids(&mut feed("trades"), &[trades(77, "update", &[10])]);
    assert_eq!(got.len(), 1, "a capture that begins in the middle");
}

#[test]
fn a_hole_in_the_heartbeats_or_the_sequence_makes_every_book_of_the_connection_invalid() {
    let heartbeat = |sequence: u64, counter: Value| {
        json!({ "channel": "heartbeats", "client_id": "", "timestamp": "2023-06-23T20:31:26.122969572Z", "sequence_num": sequence, "events": [{ "current_time": "2023-06-23 20:31:56.121961769 +0000 UTC m=+91717.525857105", "heartbeat_counter": counter }] }).to_string()
    };
    let whole = [("bid", "99.5", "1"), ("offer", "100.5", "2")];
    for bad in [heartbeat(3, json!("3051")), heartbeat(4, json!(3050)), book(9, "update", &[])] {
        let mut protocol = feed("book");
        open(&mut protocol);
        let mut told = BTreeMap::new();
        let texts = [
            heartbeat(0, json!("3049")),
            book(1, "snapshot", &whole),
            book(2, "update", &[("bid", "99.5", "0"), ("bid", "99.4", "3")]),
            bad.clone(),
        ];
        let mut last = Output::default();
        for text in &texts {
            let (batch, out) = step(&mut protocol, &received(1, text));
            read_deltas(&mut told, &batch);
            last = out;
        }
        let book = &told["BTC-USD"];
        assert_eq!((book.valid, book.invalid, last.counts["gaps"]), (false, 1, 1), "{bad}: {last:?}");
        assert!(matches!(last.actions[..], [Action::Reconnect { connection: 0, .. }]), "{last:?}");
    }
}

#[test]
fn tickers_and_bars_are_read_as_documented() {
    let ticker = r#"{"channel":"ticker","client_id":"","timestamp":"2023-02-09T20:30:37.167359596Z","sequence_num":0,"events":[{"type":"snapshot","tickers":[{"type":"ticker","product_id":"BTC-USD","price":"21932.98","volume_24_h":"16038.28770938","low_24_h":"21835.29","high_24_h":"23011.18","low_52_w":"15460","high_52_w":"48240","price_percent_chg_24_h":"-4.15775596190603","best_bid":"21931.98","best_bid_quantity":"8000.21","best_ask":"21933.98","best_ask_quantity":"8038.07770938"},{"type":"ticker","product_id":"ETH-USD","price":"1","best_bid":""}]}]}"#;
    let (rows, out) = step(&mut feed("tickers"), &received(1, ticker));
    assert!(out.rejects.is_empty() && rows.num_rows() == 2, "{out:?}");
    let number = |name| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>();
    assert_eq!(
        ["last", "bid", "ask", "volume"].map(|n| number(n).value(0)),
        [21932.98, 21931.98, 21933.98, 16038.28770938]
    );
    assert_eq!(number("bid").iter().last(), Some(None), "empty is none");
    assert_eq!(rows.column(0).as_primitive::<TimestampNanosecondType>().value(0), 1_675_974_637_167_359_596);

    let bars = r#"{"channel":"candles","client_id":"","timestamp":"2023-06-09T20:19:35.39625135Z","sequence_num":0,"events":[{"type":"snapshot","candles":[{"start":"1688998500","high":"1867.72","low":"1865.63","open":"1867.38","close":"1866.81","volume":"0.20269406","product_id":"ETH-USD"},{"start":"1688998200","high":"2","low":"1","open":"1","close":"2","volume":"1","product_id":"ETH-USD"}]}]}"#;
    let (rows, out) = step(&mut feed("bars"), &received(1, bars));
    assert!(out.rejects.is_empty(), "{out:?}");
    assert_eq!(
        rows.column_by_name("closed").unwrap().as_boolean().iter().collect::<Vec<_>>(),
        [Some(false), Some(true), Some(false)]
    );
    let starts = rows.column_by_name("start").unwrap().as_primitive::<TimestampNanosecondType>();
    assert_eq!(
        starts.values(),
        &[1_688_998_200_000_000_000, 1_688_998_200_000_000_000, 1_688_998_500_000_000_000]
    );
}

#[test]
fn what_the_venue_says_and_what_cannot_be_used_is_told_apart() {
    let mut protocol = feed("book");
    let says = |protocol: &mut Advanced, text: &str| step(protocol, &received(1, text)).1;
    let out = says(&mut protocol, r#"{"type":"error","message":"authentication failure"}"#);
    assert_eq!(
        (&out.notices[..], out.rejects.len()),
        (&["coinbase: connection 0: authentication failure".to_owned()][..], 0)
    );
    let subscribed = r#"{"channel":"subscriptions","client_id":"","timestamp":"2023-02-09T20:33:57.609931463Z","sequence_num":0,"events":[{"subscriptions":{"level2":["BTC-USD"],"heartbeats":["heartbeats"]}}]}"#;
    let out = says(&mut protocol, subscribed);
    assert_eq!(out.notices, ["coinbase: `ETH-USD` was not subscribed to: the venue doesn't have it"]);
    let empty = r#"{"channel":"subscriptions","timestamp":"2026-06-14T05:35:45.540672514Z","sequence_num":1,"events":[{"subscriptions":{}}]}"#;
    let out = says(&mut protocol, empty);
    assert!(out.notices.is_empty() && out.rejects.is_empty(), "{out:?}");
    let other = book(2, "snapshot", &[]).replace("BTC-USD", "DOGE-USD");
    assert_eq!(says(&mut protocol, &other).counts, BTreeMap::from([("unknown_symbols", 1)]));
    assert_eq!(
        says(&mut protocol, &trades(3, "update", &[1])).counts,
        BTreeMap::from([("other_messages", 1)])
    );

    let whole = book(0, "snapshot", &[("bid", "99.5", "1"), ("offer", "100.5", "2")]);
    let update = book(1, "update", &[("bid", "99.75", "7")]);
    for bad in [
        update[..update.len() / 2].to_owned(),
        "nonsense".to_owned(),
        update.replace("99.75", "-99.75"),
        update.replace("\"7\"", "\"-7\""),
        update.replace("\"7\"", "\"x\""),
        update.replace("bid", "bit"),
        update.replace("update", "upgrade"),
        update.replace("99.75", "100.75"),
    ] {
        let mut protocol = feed("book");
        open(&mut protocol);
        let mut told = BTreeMap::new();
        read_deltas(&mut told, &step(&mut protocol, &received(1, &whole)).0);
        assert!(told["BTC-USD"].valid);
        let (batch, out) = step(&mut protocol, &received(1, &bad));
        read_deltas(&mut told, &batch);
        assert!(!told["BTC-USD"].valid, "{bad}");
        assert!(matches!(out.actions[..], [Action::Reconnect { .. }]), "{bad}: {out:?}");
        let crossed = bad.contains("100.75");
        assert_eq!(out.rejects.len(), usize::from(!crossed), "{bad}: {out:?}");
        open(&mut protocol);
        read_deltas(&mut told, &step(&mut protocol, &received(1, &whole)).0);
        assert!(told["BTC-USD"].valid, "heals: {bad}");
    }
    // A bad trade loses none beside it, and an unknown channel is refused.
    let mixed = trades(0, "update", &[1, 2, 3]).replacen("\"0.3\"", "\"-0.3\"", 1);
    let (rows, out) = step(&mut feed("trades"), &received(1, &mixed));
    assert_eq!((rows.num_rows(), out.rejects.len()), (2, 1));
    let (_, out) =
        step(&mut feed("trades"), &received(1, r#"{"channel":"tide","sequence_num":0,"events":[]}"#));
    assert_eq!(out.rejects[0].reason, "unknown channel `tide`");
}

#[test]
fn exchange_says_what_is_missing_and_what_is_wrong() {
    let feed = |channel: &str| Exchange::new(Arc::new(params(channel, json!({ "protocol": "exchange" }))));
    let matched = |kind: &str, id: i64| {
        json!({ "type": kind, "trade_id": id, "sequence": 50, "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8", "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1", "time": "2014-11-07T08:19:27.028459Z", "product_id": "BTC-USD", "size": "5.23512", "price": "400.23", "side": "sell" }).to_string()
    };
    let texts = [matched("last_match", 10), matched("match", 11), matched("match", 11), matched("match", 14)];
    let (got, out) = ids(&mut feed("trades"), &texts);
    assert_eq!(got, [10, 11, 14]);
    assert_eq!(out.counts, BTreeMap::from([("duplicates", 1), ("gaps", 1), ("missing_trades", 2)]));
    let heartbeat = r#"{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}"#;
    let error =
        r#"{"type":"error","message":"Failed to subscribe","reason":"ETH-XYZ is not a valid product"}"#;
    let (_, out) = ids(&mut feed("trades"), &[matched("match", 20), heartbeat.to_owned(), error.to_owned()]);
    assert_eq!(out.notices, ["coinbase: connection 0: Failed to subscribe: ETH-XYZ is not a valid product"]);
    assert_eq!(out.counts, BTreeMap::from([("venue_errors", 1)]));

    let snapshot = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["10101.10","0.45054140"]],"asks":[["10102.55","0.57753524"]]}"#;
    let update = |change: Value, at: &str| {
        json!({ "type": "l2update", "product_id": "BTC-USD", "time": at, "changes": [change] }).to_string()
    };
    let good = update(json!(["buy", "10101.80000000", "0.162567"]), "2019-08-14T20:42:27.265Z");
    for bad in [
        update(json!(["buy", "10102.55", "1"]), "2019-08-14T20:42:28Z"),
        update(json!(["buy", "10101.90", "1"]), "2019-08-14T20:42:27Z"),
        update(json!(["boy", "10101.90", "1"]), "2019-08-14T20:42:28Z"),
    ] {
        let (mut protocol, mut told) = (feed("book"), BTreeMap::new());
        for (text, valid) in [(snapshot, true), (&good, true), (&bad, false)] {
            let (batch, out) = step(&mut protocol, &received(1, text));
            read_deltas(&mut told, &batch);
            assert_eq!(told["BTC-USD"].valid, valid, "{text}: {out:?}");
            assert_eq!(out.actions.len(), if valid { 0 } else { 2 }, "unsubscribed and subscribed");
        }
    }
}

#[test]
fn endpoints_hide_the_jwt_and_problems_have_their_place() {
    let protocol =
        Advanced::new(Arc::new(params("tickers", json!({ "batch": true, "jwt_token": "SECRET" }))));
    let endpoints = protocol.endpoints();
    assert_eq!((endpoints.len(), endpoints[0].url.as_str()), (1, "wss://advanced-trade-ws.coinbase.com"));
    let hello = &endpoints[0].hello;
    let sent: Value = serde_json::from_str(&hello[1].text).unwrap();
    let expected = json!({ "type": "subscribe", "channel": "ticker_batch", "product_ids": ["BTC-USD", "ETH-USD"], "jwt": "SECRET" });
    assert_eq!(sent, expected);
    assert!(hello[0].text.contains("heartbeats") && !format!("{hello:?}").contains("SECRET"));

    let paths = |channel: &str, more: Value| {
        params(channel, more).problems().into_iter().map(|p| p.path).collect::<Vec<_>>()
    };
    assert_eq!(
        paths("book", json!({ "symbols": ["BTCUSD", "A-B", "A-B"], "connection": { "redundant": 2 } })),
        ["symbols[0]", "symbols[2]", "connection.redundant"]
    );
    assert_eq!(
        paths("bars", json!({ "protocol": "exchange", "jwt_token": "x", "batch": true })),
        ["channel", "jwt_token", "batch"]
    );
    assert_eq!(
        paths("book", json!({ "symbols": [], "book": { "output": "snapshots", "depth": 0 } })),
        ["symbols", "book.depth"]
    );
}
