//! The messages of the venue's documents through the feed, and what is planned and asked for.

use serde_json::{Value, json};
use tidemill_engine::clock::Clock;
use tidemill_engine::component::{PlanContext, SourceKind};

use super::recorded::{feed, run};
use super::{Binance, Params};
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::{Action, Output, Protocol};

fn frame(kind: FrameKind, data: &str) -> Frame {
    Frame { received_ns: 7, connection: 0, kind, data: data.as_bytes().to_vec().into() }
}

fn message(data: &str) -> Frame {
    frame(FrameKind::Received, data)
}

fn answer(url: &str, status: u16, data: &str) -> Frame {
    frame(FrameKind::Response { url: url.into(), status }, data)
}

fn one(with: &str, data: &str) -> Value {
    let (rows, out) = run(&mut feed(with), &[message(data)]);
    assert!(out.rejects.is_empty() && rows.len() == 1, "{rows:?} {out:?}");
    rows[0].clone()
}

fn said(with: &str, frames: &[Frame]) -> Output {
    run(&mut feed(with), frames).1
}

const MS: i64 = 1_000_000;

#[test]
fn messages_of_the_documents_become_rows() {
    let with = |market: &str, symbol: &str, channel: &str| {
        format!(r#"{{"market":"{market}","symbols":["{symbol}"],"channel":"{channel}"}}"#)
    };
    let row = one(
        &with("spot", "bnbbtc", "trades"),
        r#"{"stream":"bnbbtc@trade","data":{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782135,"m":true,"M":true}}"#,
    );
    let expected = json!({ "ts": 1672515782135 * MS, "venue": "binance", "symbol": "BNBBTC", "trade_id": 12345,
        "price": 0.001, "size": 100.0, "side": "sell", "received_at": 7 });
    assert_eq!(row, expected);
    // The same with timeUnit=MICROSECOND.
    let row = one(
        &with("spot", "BNBBTC", "trades"),
        r#"{"stream":"bnbbtc@trade","data":{"e":"trade","E":1672515782136123,"s":"BNBBTC","t":1,"p":"0.001","q":"100","T":1672515782136099,"m":false,"M":true}}"#,
    );
    assert_eq!((&row["ts"], &row["side"]), (&json!(1672515782136099i64 * 1000), &json!("buy")));

    let row = one(
        &with("spot", "BNBBTC", "tickers"),
        r#"{"stream":"bnbbtc@ticker","data":{"e":"24hrTicker","E":1672515782136,"s":"BNBBTC","p":"0.0015","P":"250.00","w":"0.0018","x":"0.0009","c":"0.0025","Q":"10","b":"0.0024","B":"10","a":"0.0026","A":"100","o":"0.0010","h":"0.0025","l":"0.0010","v":"10000","q":"18","O":0,"C":86400000,"F":0,"L":18150,"n":18151}}"#,
    );
    let expected = json!({ "ts": 1672515782136 * MS, "venue": "binance", "symbol": "BNBBTC", "last": 0.0025, "bid": 0.0024,
        "ask": 0.0026, "volume": 10000.0, "received_at": 7 });
    assert_eq!(row, expected);

    let row = one(
        &with("usdm", "BTCUSDT", "mark_prices"),
        r#"{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","i":"11784.62659091","P":"11784.25641265","r":"-0.00038167","T":1562306400000}}"#,
    );
    let expected = json!({ "ts": 1562305380000 * MS, "venue": "binance_usdm", "symbol": "BTCUSDT", "mark_price": 11794.15,
        "index_price": 11784.62659091, "funding_rate": -0.00038167, "next_funding_at": 1562306400000 * MS, "received_at": 7 });
    assert_eq!(row, expected);

    let row = one(
        &with("usdm", "BTCUSDT", "liquidations"),
        r#"{"stream":"btcusdt@forceOrder","data":{"e":"forceOrder","E":1568014460893,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9911.5","X":"FILLED","l":"0.014","z":"0.014","T":1568014460890}}}"#,
    );
    let expected = json!({ "ts": 1568014460890 * MS, "venue": "binance_usdm", "symbol": "BTCUSDT", "side": "sell", "price": 9910.0,
        "size": 0.014, "average_price": 9911.5, "received_at": 7 });
    assert_eq!(row, expected);
}

#[test]
fn streams_are_named_in_the_url_where_the_venue_wants_them() {
    let url = |with: &str| feed(with).endpoints()[0].url.clone();
    let spot = r#"{"market":"spot","symbols":["BTCUSDT","ethusdt"],"channel":"book","microseconds":true}"#;
    assert_eq!(
        url(spot),
        "wss://stream.binance.com:9443/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms&timeUnit=MICROSECOND"
    );
    for (channel, expected) in [
        ("book", "/public/stream?streams=btcusdt@depth@100ms"),
        ("quotes", "/public/stream?streams=btcusdt@bookTicker"),
        ("agg_trades", "/market/stream?streams=btcusdt@aggTrade"),
        ("bars", "/market/stream?streams=btcusdt@kline_1m"),
        ("mark_prices", "/market/stream?streams=btcusdt@markPrice@1s"),
        ("liquidations", "/market/stream?streams=btcusdt@forceOrder"),
        ("tickers", "/market/stream?streams=btcusdt@ticker"),
    ] {
        let with = format!(r#"{{"market":"usdm","symbols":["BTCUSDT"],"channel":"{channel}"}}"#);
        assert_eq!(url(&with), format!("wss://fstream.binance.com{expected}"));
    }
    let slow = r#"{"market":"spot","symbols":["BTCUSDT"],"channel":"book","book":{"speed":"1000ms"}}"#;
    assert!(url(slow).ends_with("streams=btcusdt@depth"));
}

#[test]
fn many_symbols_are_spread_within_the_venues_limits() {
    let symbols: Vec<String> = (0..1500).map(|i| format!("S{i}USDT")).collect();
    for (market, most) in [("spot", 1024), ("usdm", 200)] {
        let with = json!({ "market": market, "symbols": symbols, "channel": "agg_trades", "connection": { "redundant": 2 } });
        let endpoints = feed(&with.to_string()).endpoints();
        let mut names = Vec::new();
        for pair in endpoints.chunks(2) {
            assert_eq!((&pair[0], pair[0].group), (&pair[1], pair[1].group));
            assert!(pair[0].url.len() <= super::streams::URL_BYTES_MAX);
            let mut here: Vec<String> =
                pair[0].url.split_once("streams=").unwrap().1.split('/').map(Into::into).collect();
            for message in &pair[0].hello {
                let message: Value = serde_json::from_str(&message.text).unwrap();
                assert_eq!(message["method"], "SUBSCRIBE");
                here.extend(
                    message["params"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()),
                );
            }
            assert!(here.len() <= most && pair[0].send_gap_ns >= 100 * MS, "{market}: {}", here.len());
            names.extend(here);
        }
        names.sort();
        let mut expected: Vec<String> =
            symbols.iter().map(|s| format!("{}@aggTrade", s.to_lowercase())).collect();
        expected.sort();
        assert_eq!(names, expected, "{market}");
    }
}

#[test]
fn a_symbol_that_the_venue_does_not_have_is_told_of() {
    let with = r#"{"market":"spot","symbols":["BTCUSDT","BTCUSTD"],"channel":"trades"}"#;
    let mut feed = feed(with);
    let (_, out) = run(&mut feed, &[frame(FrameKind::Opened, "wss://…")]);
    let url = "https://api.binance.com/api/v3/ticker/price";
    assert_eq!(out.actions, [Action::Fetch { connection: 0, url: url.into(), weight: 4 }]);
    let list = r#"[{"symbol":"ETHBTC","price":"0.07"},{"symbol":"BTCUSDT","price":"60000.1"}]"#;
    let (_, out) = run(&mut feed, &[answer(url, 200, list), frame(FrameKind::Opened, "again")]);
    assert_eq!((out.counts["unknown_symbols"], out.actions.len()), (1, 0));
    assert!(out.notices[0].contains("no symbol `BTCUSTD`"), "{:?}", out.notices);
    // A server that has no such list leaves it at that.
    let quiet = said(with, &[answer(url, 404, "not found")]);
    assert_eq!((quiet.notices.len(), quiet.rejects.len()), (0, 0));
}

fn trade(id: i64) -> Frame {
    message(&format!(
        r#"{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":1672515782136,"s":"BTCUSDT","a":{id},"p":"0.001","q":"100","f":100,"l":105,"T":1672515782136,"m":true,"M":true}}}}"#
    ))
}

fn ids(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["trade_id"].as_i64().unwrap()).collect()
}

#[test]
fn a_hole_in_the_trades_is_filled_over_rest_also_after_a_restart() {
    let with = r#"{"market":"spot","symbols":["BTCUSDT"],"channel":"agg_trades","check_symbols":false}"#;
    let page = |from: i64, to: i64| {
        let one = |id: i64| json!({ "a": id, "p": "0.5", "q": "2.00", "f": 1, "l": 2, "T": 1672515782136i64, "m": false, "M": true });
        Value::from((from..=to).map(one).collect::<Vec<_>>()).to_string()
    };
    let url = "https://api.binance.com/api/v3/aggTrades?symbol=BTCUSDT&fromId=12&limit=3";
    let mut first = feed(with);
    let (rows, out) = run(&mut first, &[trade(10), trade(11), trade(11), trade(15), trade(16)]);
    assert_eq!((ids(&rows), out.counts["duplicates"]), (vec![10, 11], 1));
    assert_eq!(out.actions, [Action::Fetch { connection: 0, url: url.into(), weight: 4 }]);
    let state = first.state();
    // The answer may come from another host (a server of captures).
    let (rows, out) =
        run(&mut first, &[answer(&url.replace("api.binance.com", "localhost:1"), 200, &page(12, 14))]);
    assert_eq!((ids(&rows), out.counts["recovered_trades"]), (vec![12, 13, 14, 15, 16], 3));
    assert_eq!(
        (&rows[0]["price"], &rows[0]["side"], &rows[3]["side"]),
        (&json!(0.5), &json!("buy"), &json!("sell"))
    );

    let mut second = feed(with);
    second.restore(&state).unwrap();
    let (rows, out) = run(&mut second, &[trade(11), trade(17)]);
    assert_eq!((rows.len(), out.actions.len()), (0, 1));
    let next = "https://api.binance.com/api/v3/aggTrades?symbol=BTCUSDT&fromId=12&limit=5";
    let (rows, _) = run(&mut second, &[answer(next, 200, &page(12, 16))]);
    assert_eq!(ids(&rows), (12..=17).collect::<Vec<_>>());
    assert!(feed(with).restore(&json!([1])).is_err());
}

#[test]
fn answers_that_fail_are_told_and_the_hole_is_given_up_in_the_end() {
    let with = r#"{"market":"spot","symbols":["BTCUSDT"],"channel":"agg_trades","check_symbols":false}"#;
    let mut feed = feed(with);
    let url = "https://api.binance.com/api/v3/aggTrades?symbol=BTCUSDT&fromId=2&limit=1";
    let (mut rows, _) = run(&mut feed, &[trade(1), trade(3)]);
    let answers = [
        answer(url, 400, r#"{"code":-1121,"msg":"Invalid symbol."}"#),
        answer(
            url,
            418,
            r#"{"code":-1003,"msg":"Way too much request weight used; IP banned until 1659999999999."}"#,
        ),
        answer(url, 0, "connection refused"),
        answer(url, 200, "[{\"a\":2,"),
        answer(url, 200, "[]"),
    ];
    let (more, out) = run(&mut feed, &answers);
    rows.extend(more);
    assert_eq!((ids(&rows), out.counts["missing_trades"], out.counts["failed_requests"]), (vec![1, 3], 1, 4));
    assert!(
        out.notices[0].ends_with("was answered with 400: binance error -1121: Invalid symbol."),
        "{:?}",
        out.notices
    );
    assert!(out.notices[3].contains("can't be read"), "{:?}", out.notices);
}

#[test]
fn futures_single_trades_are_told_apart_but_not_filled() {
    let with = r#"{"market":"usdm","symbols":["BTCUSDT"],"channel":"trades","check_symbols":false}"#;
    let trade = |id: i64, price: &str| {
        message(&format!(
            r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1,"T":1672515782136,"s":"BTCUSDT","t":{id},"p":"{price}","q":"0.1","X":"MARKET","m":true}}}}"#
        ))
    };
    let (rows, out) = run(&mut feed(with), &[trade(1, "5"), trade(2, "0"), trade(6, "5"), trade(6, "5")]);
    assert_eq!((ids(&rows), out.actions.len()), (vec![1, 6], 0));
    let counts = ["gaps", "missing_trades", "duplicates", "empty_trades"].map(|name| out.counts[name]);
    assert_eq!((counts, out.notices), ([1, 3, 1, 1], vec!["BTCUSDT: trades 3 to 5 are missing".to_owned()]));
}

#[test]
fn what_is_wrong_is_refused_and_takes_nothing_with_it() {
    let with = r#"{"market":"spot","symbols":["BTCUSDT"],"channel":"agg_trades","check_symbols":false}"#;
    let good = String::from_utf8(trade(2).data.to_vec()).unwrap();
    for (bad, reason) in [
        (good.replace("\"q\":\"100\"", "\"q\":\"-100\""), "negative number `-100`"),
        (good.replace("\"p\":\"0.001\"", "\"p\":\"NaN\""), "invalid value: string \"NaN\""),
        (good.replace("\"p\":\"0.001\"", "\"p\":\"inf\""), "invalid value: string \"inf\""),
        (good.replace("\"p\":\"0.001\",", ""), "missing field `p`"),
        (good.replace("\"T\":1672515782136", "\"T\":-1"), "invalid"),
        (good.replace("\"s\":\"BTCUSDT\"", "\"s\":\"ETHUSDT\""), "symbol `ETHUSDT` was not subscribed to"),
        (good.replace("\"e\":\"aggTrade\"", "\"e\":\"zzz\""), "unknown message type `zzz`"),
        (good[..good.len() / 2].to_owned(), "the frame is not JSON"),
        (format!("{good}{good}"), "the frame is not JSON"),
        (String::new(), "the frame is not JSON"),
    ] {
        let (rows, out) = run(&mut feed(with), &[trade(1), message(&bad), trade(2)]);
        assert_eq!((ids(&rows), out.rejects.len()), (vec![1, 2], 1), "{bad}: {out:?}");
        assert!(out.rejects[0].reason.contains(reason), "{bad}: {}", out.rejects[0].reason);
        assert_eq!(out.rejects[0].raw, bad.as_bytes());
    }
}

#[tokio::test]
async fn it_plans_without_a_network_and_says_what_is_wrong() {
    let cx = PlanContext { job: "j".into(), node: "n".into(), base: ".".into(), clock: Clock::default() };
    let params = |with: Value| serde_json::from_value::<Params>(with).unwrap();
    let fine = params(json!({ "market": "usdm", "symbols": ["BTCUSDT"], "channel": "liquidations" }));
    assert!(Binance::plan(fine, &cx).await.is_ok());
    for (with, paths) in [
        (json!({ "market": "spot", "symbols": [], "channel": "liquidations" }), vec!["symbols", "channel"]),
        (
            json!({ "market": "spot", "symbols": ["BTC-USDT", "A", "a"], "channel": "bars", "interval": "7m" }),
            vec!["symbols[0]", "symbols[2]", "interval"],
        ),
        (
            json!({ "market": "usdm", "symbols": ["A"], "channel": "book", "microseconds": true,
                "book": { "speed": "1s", "depth": 0 }, "connection": { "redundant": 9 } }),
            vec!["book.speed", "book.depth", "microseconds", "connection.redundant"],
        ),
    ] {
        let problems = Binance::plan(params(with), &cx).await.err().unwrap();
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), paths);
    }
    assert!(
        serde_json::from_value::<Params>(
            json!({ "market": "spot", "symbols": [], "channel": "book", "x": 1 })
        )
        .is_err()
    );
}
