//! v2 by sample messages: the venue's documented ones, and frames that others recorded and published.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use serde_json::{Value, json};

use super::{Params, V1, V2};
use crate::venue::frame::FrameKind;
use crate::venue::protocol::{Action, Output, Protocol};
use crate::venue::recorded::{RowBook, read_deltas, received, step, turned};

fn params(symbols: &[&str], channel: &str, more: Value) -> Params {
    let mut params = json!({ "symbols": symbols, "channel": channel });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(params).unwrap()
}

fn v2(symbols: &[&str], channel: &str) -> V2 {
    let params = params(symbols, channel, json!({ "book": { "levels": 10 } }));
    assert_eq!(params.problems(), []);
    V2::new(Arc::new(params))
}

/// The venue's own example: <https://docs.kraken.com/api/docs/guides/spot-ws-book-v2>.
const DOCUMENTED: &str = r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":45283.5,"qty":0.10000000},{"price":45283.4,"qty":1.54582015},{"price":45282.1,"qty":0.10000000},{"price":45281.0,"qty":0.10000000},{"price":45280.3,"qty":1.54592586},{"price":45279.0,"qty":0.07990000},{"price":45277.6,"qty":0.03310103},{"price":45277.5,"qty":0.30000000},{"price":45277.3,"qty":1.54602737},{"price":45276.6,"qty":0.15445238}],"asks":[{"price":45285.2,"qty":0.00100000},{"price":45286.4,"qty":1.54571953},{"price":45286.6,"qty":1.54571109},{"price":45289.6,"qty":1.54560911},{"price":45290.2,"qty":0.15890660},{"price":45291.8,"qty":1.54553491},{"price":45294.7,"qty":0.04454749},{"price":45296.1,"qty":0.35380000},{"price":45297.5,"qty":0.09945542},{"price":45299.5,"qty":0.18772827}],"checksum":3310070434}]}"#;
/// Received on 2024-10-03, as published by <https://github.com/WillySeahh/gsrTest>.
const RECORDED: [&str; 2] = [
    r#"{"channel":"book","type":"snapshot","data":[{"symbol":"ALGO/USD","bids":[{"price":0.12291,"qty":27039.62776299},{"price":0.12290,"qty":8136.33288180},{"price":0.12287,"qty":10984.20817349},{"price":0.12283,"qty":28027.05025639},{"price":0.12280,"qty":9705.60000000},{"price":0.12279,"qty":15215.53522714},{"price":0.12275,"qty":4067.00000000},{"price":0.12274,"qty":30639.39949109},{"price":0.12268,"qty":2531.96119986},{"price":0.12267,"qty":16299.00000000}],"asks":[{"price":0.12307,"qty":600.00000000},{"price":0.12308,"qty":4042.11919517},{"price":0.12312,"qty":10284.53891000},{"price":0.12314,"qty":16155.08885299},{"price":0.12315,"qty":5186.05778473},{"price":0.12316,"qty":32828.24000000},{"price":0.12317,"qty":7751.65718582},{"price":0.12318,"qty":32298.82000000},{"price":0.12319,"qty":1864.66899600},{"price":0.12322,"qty":4718.99755630}],"checksum":2375857985}]}"#,
    r#"{"channel":"book","type":"update","data":[{"symbol":"ALGO/USD","bids":[{"price":0.12275,"qty":6597.51731160}],"asks":[],"checksum":1100635717,"timestamp":"2024-10-03T02:46:57.050170Z"}]}"#,
];

/// What a proxy that reads and writes JSON makes of numbers.
fn without_trailing_zeros(text: &str) -> String {
    let mut value = String::new();
    for part in text.split_inclusive([',', '}', ']']) {
        let (body, end) = part.split_at(part.len() - 1);
        let number = body.rsplit_once(':').is_some_and(|(_, n)| n.contains('.') && n.parse::<f64>().is_ok());
        value += if number { body.trim_end_matches('0').trim_end_matches('.') } else { body };
        value += end;
    }
    value
}

fn follow(protocol: &mut dyn Protocol, texts: &[&str]) -> (BTreeMap<String, RowBook>, Output) {
    let (mut told, mut all) = (BTreeMap::new(), Output::default());
    for (i, text) in texts.iter().enumerate() {
        let (batch, out) = step(protocol, &received(1_000_000_000 + i as i64, text));
        read_deltas(&mut told, &batch);
        crate::venue::recorded::add(&mut all.counts, &out);
        all.actions.extend(out.actions);
        all.rejects.extend(out.rejects);
        all.notices.extend(out.notices);
    }
    (told, all)
}

#[test]
fn the_documented_and_the_recorded_checksums_are_right() {
    let (told, out) = follow(&mut v2(&["BTC/USD"], "book"), &[DOCUMENTED]);
    assert!(told["BTC/USD"].valid && out.counts.is_empty(), "{out:?}");
    let (told, out) = follow(&mut v2(&["ALGO/USD"], "book"), &RECORDED);
    assert!(told["ALGO/USD"].valid && out.counts.is_empty(), "{out:?}");
    assert_eq!(told["ALGO/USD"].numbers(true, 7)[6], (0.12275, 6597.5173116));
    let wrong = DOCUMENTED.replace("3310070434", "3310070435");
    let mut protocol = v2(&["BTC/USD"], "book");
    let (told, out) = follow(&mut protocol, &[&wrong]);
    assert!(
        !told.contains_key("BTC/USD") && out.counts["checksum_errors"] == 1,
        "a wrong snapshot is not told"
    );
    let (_, out) = step(&mut protocol, &received(12_000_000_000, r#"{"channel":"heartbeat"}"#));
    assert_eq!(out.actions.len(), 2, "unsubscribed and subscribed");
}

#[test]
fn lost_trailing_zeros_are_filled_up_to_the_pairs_precision() {
    let lost: Vec<String> = RECORDED.iter().map(|text| without_trailing_zeros(text)).collect();
    assert!(lost[0].contains(r#""price":0.1229,"#) && lost[0].contains(r#""qty":600}"#), "{}", lost[0]);
    let instrument = r#"{"channel":"instrument","type":"snapshot","data":{"assets":[{"id":"USD","status":"enabled","precision":4}],"pairs":[{"symbol":"ALGO/USD","base":"ALGO","quote":"USD","status":"online","qty_precision":8,"qty_increment":1E-8,"price_precision":5,"cost_precision":10,"marginable":true,"has_index":true,"cost_min":0.5,"tick_size":0.00001,"price_increment":0.00001,"qty_min":20.0},{"symbol":"X/Y","price_precision":1,"qty_precision":1}]}}"#;
    let with: Vec<&str> = [instrument].into_iter().chain(lost.iter().map(String::as_str)).collect();
    let (told, out) = follow(&mut v2(&["ALGO/USD"], "book"), &with);
    assert!(told["ALGO/USD"].valid && out.counts.is_empty() && out.rejects.is_empty(), "{out:?}");
    let as_sent = [instrument, RECORDED[0], RECORDED[1]];
    let (told, _) = follow(&mut v2(&["ALGO/USD"], "book"), &as_sent);
    assert!(told["ALGO/USD"].valid, "and it is the same where none was lost");
    let (told, out) = follow(&mut v2(&["ALGO/USD"], "book"), &with[1..]);
    assert!(told.is_empty() && out.counts["checksum_errors"] == 1, "without the precision it can't be right");
}

/// <https://docs.kraken.com/api/docs/websocket-v2/trade>, ids counted on.
fn trade(kind: &str, ids: &[i64]) -> String {
    let trades = ids.iter().map(|id| {
        json!({ "symbol": "MATIC/USD", "side": "sell", "price": 0.5117, "qty": 40.0, "ord_type": "market", "trade_id": id, "timestamp": "2023-09-25T07:49:37.708706Z" })
    });
    json!({ "channel": "trade", "type": kind, "data": trades.collect::<Vec<_>>() }).to_string()
}

/// Ids of the rows.
fn ids(protocol: &mut V2, texts: &[String]) -> (Vec<i64>, Output) {
    let (mut ids, mut all) = (Vec::new(), Output::default());
    for text in texts {
        let (batch, out) = step(protocol, &received(1, text));
        ids.extend_from_slice(batch.column_by_name("trade_id").unwrap().as_primitive::<Int64Type>().values());
        crate::venue::recorded::add(&mut all.counts, &out);
        all.actions.extend(out.actions);
        all.notices.extend(out.notices);
    }
    (ids, all)
}

#[test]
fn a_hole_in_the_trades_is_filled_by_the_snapshot_of_a_new_subscription() {
    let mut protocol = v2(&["MATIC/USD"], "trades");
    let begin = [trade("snapshot", &[3, 2, 1]), trade("update", &[4]), trade("update", &[4, 5])];
    let (got, out) = ids(&mut protocol, &begin);
    assert_eq!((got, out.counts["duplicates"]), (vec![1, 2, 3, 4, 5], 1));

    let hole = [
        trade("update", &[8]),
        trade("update", &[9]),
        trade("snapshot", &[6, 7, 8, 9]),
        trade("update", &[10]),
    ];
    let (got, out) = ids(&mut protocol, &hole);
    assert_eq!(got, [6, 7, 8, 9, 10]);
    assert_eq!(out.counts, BTreeMap::from([("trade_requests", 1)]));
    let Action::Send { message, .. } = &out.actions[1] else { panic!("{out:?}") };
    assert_eq!(
        message.text,
        r#"{"method":"subscribe","params":{"channel":"trade","symbol":["MATIC/USD"],"snapshot":true}}"#
    );

    // A restart goes on after the last id; what is too old for the snapshot is counted as missing.
    let mut restored = v2(&["MATIC/USD"], "trades");
    restored.restore(&protocol.state()).unwrap();
    let (got, out) = ids(&mut restored, &[trade("snapshot", &[14, 15])]);
    assert_eq!((got, out.counts["gaps"], out.counts["missing_trades"]), (vec![14, 15], 1, 3));
    assert_eq!(out.notices, ["kraken: MATIC/USD: 3 trades before id 14 are missing"]);
}

#[test]
fn tickers_and_bars_are_read_as_documented() {
    let ticker = r#"{"channel":"ticker","type":"snapshot","data":[{"symbol":"ALGO/USD","bid":0.10025,"bid_qty":740.0,"ask":0.10036,"ask_qty":1361.44813783,"last":0.10035,"volume":997038.98383185,"vwap":0.10148,"low":0.09979,"high":0.10285,"change":-0.00017,"change_pct":-0.17}]}"#;
    let mut protocol = v2(&["ALGO/USD"], "tickers");
    let (rows, out) = step(&mut protocol, &received(77, ticker));
    assert!(out.rejects.is_empty(), "{out:?}");
    let number = |name| rows.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(0);
    assert_eq!(["last", "bid", "ask", "volume"].map(number), [0.10035, 0.10025, 0.10036, 997038.98383185]);
    assert_eq!(
        rows.column(0).as_primitive::<TimestampNanosecondType>().value(0),
        77,
        "it has no time: when it came"
    );

    // <https://docs.kraken.com/api/docs/websocket-v2/ohlc>
    let bars = r#"{"channel":"ohlc","type":"snapshot","timestamp":"2023-10-04T16:26:01.806315597Z","data":[{"symbol":"ALGO/USD","open":0.09875,"high":0.09875,"low":0.09875,"close":0.09875,"trades":1,"volume":201.86015,"vwap":0.09875,"interval_begin":"2023-10-04T15:25:00.000000000Z","interval":5,"timestamp":"2023-10-04T15:30:00.000000Z"},{"symbol":"ALGO/USD","open":0.09875,"high":0.0988,"low":0.09875,"close":0.09875,"trades":13,"volume":16255.46368,"vwap":0.09879,"interval_begin":"2023-10-04T15:30:00.000000000Z","interval":5,"timestamp":"2023-10-04T15:35:00.000000Z"}]}"#;
    let (rows, out) = step(&mut v2(&["ALGO/USD"], "bars"), &received(77, bars));
    assert!(out.rejects.is_empty(), "{out:?}");
    let closed = rows.column_by_name("closed").unwrap().as_boolean();
    assert_eq!(closed.iter().collect::<Vec<_>>(), [Some(false), Some(true), Some(false)]);
    assert_eq!(rows.column_by_name("trades").unwrap().as_primitive::<Int64Type>().values(), &[1, 1, 13]);
    assert_eq!(rows.column(0).as_primitive::<TimestampNanosecondType>().value(0), 1_696_436_761_806_315_597);
}

#[test]
fn what_the_venue_says_and_what_cannot_be_read_is_told_apart() {
    let says = [
        r#"{"channel":"status","type":"update","data":[{"version":"2.0.8","system":"online","api_version":"v2","connection_id":14949390454975033707}]}"#,
        r#"{"channel":"heartbeat"}"#,
        r#"{"method":"pong","req_id":101,"time_in":"2023-09-24T14:10:23.799685Z","time_out":"2023-09-24T14:10:23.799703Z"}"#,
        r#"{"method":"subscribe","result":{"channel":"book","depth":10,"snapshot":true,"symbol":"BTC/USD"},"success":true,"time_in":"2023-10-06T17:35:55.219022Z","time_out":"2023-10-06T17:35:55.219067Z"}"#,
    ];
    let (_, out) = follow(&mut v2(&["BTC/USD"], "book"), &says);
    assert!(out.counts.is_empty() && out.notices.is_empty() && out.rejects.is_empty(), "{out:?}");

    let refuses = [
        r#"{"error":"Currency pair not supported XBT/USD","method":"subscribe","success":false,"symbol":"XBT/USD","time_in":"2026-10-06T17:39:49.588049Z","time_out":"2026-10-06T17:39:49.588083Z"}"#,
        r#"{"channel":"status","type":"update","data":[{"system":"maintenance"}]}"#,
        r#"{"channel":"ticker","type":"update","data":[]}"#,
        &DOCUMENTED.replace("BTC/USD", "ETH/USD"),
    ];
    let (told, out) = follow(&mut v2(&["BTC/USD"], "book"), &refuses);
    assert!(told.is_empty() && out.rejects.is_empty());
    let counts =
        [("other_messages", 1), ("unknown_symbols", 1), ("venue_errors", 1), ("venue_not_online", 1)];
    assert_eq!(out.counts, BTreeMap::from(counts));
    assert_eq!(out.notices[0], "kraken: connection 0: XBT/USD: Currency pair not supported XBT/USD");

    // After each of these the book can't be believed, and is asked for anew.
    let update = RECORDED[1];
    for bad in [
        &update[..update.len() / 2],
        "",
        "[]",
        "nonsense",
        r#"{"channel":"bok","type":"update","data":[]}"#,
        &update.replace("6597.51731160", "-6597.51731160"),
        &update.replace("0.12275", "\"x\""),
        &update.replace("1100635717", "99999999999"),
        &update.replace("update", "upgrade"),
        &update.replace("0.12275", "0.00000"),
    ] {
        let (told, out) = follow(&mut v2(&["ALGO/USD"], "book"), &[RECORDED[0], bad]);
        let book = &told["ALGO/USD"];
        assert_eq!((book.valid, book.invalid, out.rejects.len()), (false, 1, 1), "{bad}: {out:?}");
        assert_eq!(out.actions.len(), 2, "{bad}");
        let (told, out) = follow(&mut v2(&["ALGO/USD"], "book"), &[RECORDED[0], bad, RECORDED[0], update]);
        assert!(told["ALGO/USD"].valid && out.counts["resyncs"] == 1, "heals: {bad}");
    }
    // A bad trade loses none beside it.
    let mixed = trade("update", &[1, 2, 3]).replacen("0.5117", "-1", 1);
    let (rows, out) = step(&mut v2(&["MATIC/USD"], "trades"), &received(1, &mixed));
    assert_eq!((rows.num_rows(), out.rejects.len()), (2, 1));
}

#[test]
fn a_snapshot_that_does_not_come_is_asked_for_again() {
    let mut protocol = v2(&["ALGO/USD"], "book");
    follow(&mut protocol, &[RECORDED[0], "torn"]);
    let heartbeat = |at: i64| received(at * 1_000_000_000, r#"{"channel":"heartbeat"}"#);
    let asked = |out: Output| out.actions.len();
    assert_eq!(asked(step(&mut protocol, &heartbeat(9)).1), 0);
    assert_eq!(asked(step(&mut protocol, &heartbeat(12)).1), 2);
    assert_eq!(asked(step(&mut protocol, &heartbeat(13)).1), 0);
    step(&mut protocol, &received(14_000_000_000, RECORDED[0]));
    assert_eq!(asked(step(&mut protocol, &heartbeat(99)).1), 0, "it came");
}

#[test]
fn v1_bars_errors_and_trades_after_a_reconnect() {
    let params = |channel| params(&["XBT/USD"], channel, json!({ "protocol": "v1", "interval": "5m" }));
    // <https://docs.kraken.com/api/docs/websocket-v1/ohlc>
    let bar = r#"[42,["1542057314.748456","1542057360.435743","3586.70000","3586.70000","3586.60000","3586.60000","3586.68894","0.03373000",2],"ohlc-5","XBT/USD"]"#;
    let (rows, out) = step(&mut V1::new(Arc::new(params("bars"))), &received(1, bar));
    assert!(out.rejects.is_empty(), "{out:?}");
    assert_eq!(rows.column_by_name("low").unwrap().as_primitive::<Float64Type>().value(0), 3586.6);
    let start = rows.column_by_name("start").unwrap().as_primitive::<TimestampNanosecondType>().value(0);
    assert_eq!(start, 1_542_057_060_435_743_000);

    let refused = r#"{"errorMessage":"Subscription depth not supported","event":"subscriptionStatus","pair":"XBT/USD","status":"error","subscription":{"depth":42,"name":"book"}}"#;
    let (_, out) = step(&mut V1::new(Arc::new(params("book"))), &received(1, refused));
    assert_eq!(out.notices, ["kraken: connection 0: XBT/USD: Subscription depth not supported"]);

    let mut trades = V1::new(Arc::new(params("trades")));
    let message = |times: &[&str]| {
        let trades: Vec<Value> = times.iter().map(|at| json!(["5541.2", "0.1", at, "s", "l", ""])).collect();
        json!([0, trades, "trade", "XBT/USD"]).to_string()
    };
    let rows = |protocol: &mut V1, texts: &[&[&str]]| -> usize {
        texts.iter().map(|times| step(protocol, &received(1, &message(times))).0.num_rows()).sum()
    };
    assert_eq!(
        rows(&mut trades, &[&["1534614057.3", "1534614057.3"], &["1534614058.1"]]),
        3,
        "two at one time are two"
    );
    step(&mut trades, &turned(1, FrameKind::Closed));
    step(&mut trades, &turned(1, FrameKind::Opened));
    assert_eq!(rows(&mut trades, &[&["1534614058.1", "1534614057.3", "1534614059.0"], &["1534614059.0"]]), 2);
}

#[test]
fn endpoints_and_problems() {
    let endpoints = v2(&["BTC/USD", "ETH/USD"], "book").endpoints();
    assert_eq!((endpoints.len(), endpoints[0].url.as_str()), (1, "wss://ws.kraken.com/v2"));
    let hello: Vec<&str> = endpoints[0].hello.iter().map(|m| m.text.as_str()).collect();
    assert_eq!(
        hello,
        [
            r#"{"method":"subscribe","params":{"channel":"instrument"}}"#,
            r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD","ETH/USD"],"depth":10,"snapshot":true}}"#,
        ]
    );
    let bad = json!({ "book": { "output": "snapshots", "depth": 50, "levels": 25 }, "interval": "7m", "connection": { "redundant": 2 } });
    let paths = |params: &Params| params.problems().into_iter().map(|p| p.path).collect::<Vec<_>>();
    assert_eq!(
        paths(&params(&["BTCUSD", "A/B", "A/B"], "book", bad.clone())),
        ["symbols[0]", "symbols[2]", "book.depth", "connection.redundant"]
    );
    assert_eq!(
        paths(&params(&[], "bars", bad)),
        ["symbols", "interval", "book.depth", "connection.redundant"]
    );
    assert_eq!(
        paths(&params(&["A/B"], "trades", json!({ "connection": { "redundant": 2 } }))),
        Vec::<String>::new()
    );
}
