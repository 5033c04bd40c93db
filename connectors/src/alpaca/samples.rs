//! The messages of the venue's documents, through the feed.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_engine::clock::Clock;
use tidemill_engine::component::{PlanContext, SourceKind};

use super::{Alpaca, AlpacaFeed, Params};
use crate::binance::recorded::objects;
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::{Action, Output, Protocol};

fn params(with: Value) -> Params {
    let mut all =
        json!({ "feed": "sip", "symbols": ["AAPL"], "channel": "trades", "key": "K", "secret": "hunter2" });
    with.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
    serde_json::from_value(all).unwrap()
}

fn feed(with: Value) -> AlpacaFeed {
    AlpacaFeed::new(Arc::new(params(with)))
}

fn hear(feed: &mut AlpacaFeed, text: &str) -> (Vec<Value>, Output) {
    let data = text.as_bytes().to_vec().into();
    let frame = Frame { received_ns: 7, connection: 0, kind: FrameKind::Received, data };
    let mut out = Output::default();
    feed.on_frame(&frame, &mut out);
    (objects(&feed.finish()), out)
}

/// 2021-02-22T15:51:44Z, worked out with `date -d`.
const SECOND: i64 = 1_614_009_104;

#[test]
fn trades_quotes_and_bars_of_the_documents_become_rows() {
    let (rows, out) = hear(
        &mut feed(json!({})),
        r#"[{"T":"t","i":96921,"S":"AAPL","x":"D","p":126.55,"s":1,"t":"2021-02-22T15:51:44.208Z","c":["@","I"],"z":"C"}]"#,
    );
    let ts = SECOND * 1_000_000_000 + 208_000_000;
    let expected = json!({ "ts": ts, "venue": "alpaca", "symbol": "AAPL", "trade_id": 96921, "price": 126.55, "size": 1.0,
        "side": null, "received_at": 7 });
    assert_eq!((rows, out.rejects.len()), (vec![expected], 0));

    let crypto = json!({ "feed": "crypto", "symbols": ["AVAX/USD"] });
    let (rows, _) = hear(
        &mut feed(crypto),
        r#"[{"T":"t","S":"AVAX/USD","p":47.299,"s":29.205707815,"t":"2024-03-12T10:27:48.858228144Z","i":3447222699101865076,"tks":"S"}]"#,
    );
    assert_eq!((&rows[0]["side"], &rows[0]["trade_id"]), (&json!("sell"), &json!(3447222699101865076i64)));
    assert_eq!(rows[0]["ts"], json!(1_710_239_268_858_228_144i64));

    let (rows, _) = hear(
        &mut feed(json!({ "channel": "quotes", "symbols": ["*"] })),
        r#"[{"T":"q","S":"AMD","bx":"U","bp":87.66,"bs":1,"ax":"Q","ap":0,"as":0,"t":"2021-02-22T15:51:45.335689322Z","c":["R"],"z":"C"}]"#,
    );
    let ts = (SECOND + 1) * 1_000_000_000 + 335_689_322;
    let expected = json!({ "ts": ts, "venue": "alpaca", "symbol": "AMD", "bid": 87.66, "bid_size": 1.0, "ask": null,
        "ask_size": null, "update_id": null, "valid": true, "received_at": 7 });
    assert_eq!(rows, [expected]);

    let bar = r#""S":"SPY","o":388.985,"h":389.13,"l":388.975,"c":389.12,"v":49378,"n":461,"vw":389.062639,"t":"2021-02-22T15:51:00Z"}"#;
    let three = format!(r#"[{{"T":"b",{bar},{{"T":"u",{bar},{{"T":"d",{bar}]"#);
    for (channel, rows_there, closed, others) in
        [("bars", 1, true, 2), ("updated_bars", 2, true, 1), ("daily_bars", 1, false, 2)]
    {
        let (rows, out) = hear(&mut feed(json!({ "channel": channel, "symbols": ["SPY"] })), &three);
        assert_eq!((rows.len(), out.counts["other_channels"]), (rows_there, others), "{channel}");
        let expected = json!({ "ts": 7, "venue": "alpaca", "symbol": "SPY", "start": (SECOND - 44) * 1_000_000_000,
            "open": 388.985, "high": 389.13, "low": 388.975, "close": 389.12, "volume": 49378.0, "trades": 461,
            "closed": closed, "received_at": 7 });
        assert_eq!(rows[0], expected, "{channel}");
    }
}

/// The example of the documents, and each code of theirs.
#[test]
fn trading_halts_and_resumptions_become_rows_that_execution_reads() {
    let mut feed = feed(json!({ "channel": "statuses" }));
    let (rows, out) = hear(
        &mut feed,
        r#"[{"T":"s","S":"AAPL","sc":"H","sm":"Trading Halt","rc":"T12","rm":"Trading Halted; For information requested by NASDAQ","t":"2021-02-22T19:15:00Z","z":"C"},
            {"T":"t","i":1,"S":"AAPL","p":1,"s":1,"t":"2021-02-22T15:51:44Z"},{"T":"l","S":"AAPL","u":3.24,"d":2.65,"i":"B","t":"2023-04-06T13:34:45.565004401Z","z":"C"}]"#,
    );
    let expected = json!({ "ts": 1_614_021_300_000_000_000i64, "venue": "alpaca", "symbol": "AAPL", "halted": true, "status": "H",
        "status_text": "Trading Halt", "reason": "T12", "reason_text": "Trading Halted; For information requested by NASDAQ",
        "received_at": 7 });
    assert_eq!((rows, out.counts["other_channels"], out.rejects.len()), (vec![expected], 2, 0));
    let halted = Some(true);
    for (codes, meaning) in [("2HP", halted), ("3T", Some(false)), ("56789ACDEFQ", None), ("Z", None)] {
        for code in codes.chars() {
            let (rows, out) = hear(
                &mut feed,
                &format!(
                    r#"[{{"T":"s","S":"AAPL","sc":"{code}","sm":"","t":"2021-02-22T19:15:00Z","z":"A"}}]"#
                ),
            );
            assert_eq!(
                (&rows[0]["halted"], &rows[0]["status_text"]),
                (&json!(meaning), &json!(null)),
                "{code}"
            );
            assert_eq!(out.notices.len(), usize::from(code == 'Z'), "{code}: {:?}", out.notices);
        }
    }
    let (rows, out) = hear(&mut feed, r#"[{"T":"s","S":"AAPL","t":"2021-02-22T19:15:00Z"}]"#);
    assert_eq!((rows.len(), out.rejects.len()), (0, 1));
    let (_, out) = hear(&mut feed, r#"[{"T":"success","msg":"authenticated"}]"#);
    let [Action::Send { message, .. }] = &out.actions[..] else { panic!("{out:?}") };
    assert_eq!(message.text, r#"{"action":"subscribe","statuses":["AAPL"]}"#);
}

#[test]
fn it_logs_in_then_subscribes_and_shows_no_secret() {
    let mut feed = feed(json!({ "feed": "iex", "symbols": ["AAPL", "MSFT"], "channel": "updated_bars" }));
    let endpoints = feed.endpoints();
    assert_eq!(endpoints[0].url, "wss://stream.data.alpaca.markets/v2/iex");
    assert_eq!(endpoints[0].hello[0].text, r#"{"action":"auth","key":"K","secret":"hunter2"}"#);
    let shown = format!("{endpoints:?} {:?}", params(json!({})));
    assert!(!shown.contains("hunter2") && !shown.contains("\"K\""), "{shown}");
    let (_, out) = hear(&mut feed, r#"[{"T":"success","msg":"connected"}]"#);
    assert_eq!(out.actions, []);
    let (_, out) = hear(&mut feed, r#"[{"T":"success","msg":"authenticated"}]"#);
    let [Action::Send { connection: 0, message }] = &out.actions[..] else { panic!("{out:?}") };
    let sent: Value = serde_json::from_str(&message.text).unwrap();
    let names = json!(["AAPL", "MSFT"]);
    assert_eq!(sent, json!({ "action": "subscribe", "bars": names, "updatedBars": names }));
    let (_, out) = hear(
        &mut feed,
        r#"[{"T":"subscription","trades":[],"quotes":[],"bars":["AAPL","MSFT"],"updatedBars":["AAPL"],"dailyBars":[]}]"#,
    );
    assert_eq!(out.notices, ["alpaca didn't subscribe us to updatedBars of MSFT"]);
}

#[test]
fn each_error_of_the_venue_is_a_notice_with_advice() {
    for (code, msg, advice) in [
        (400, "invalid syntax", "wrong form"),
        (401, "not authenticated", "before it was logged in"),
        (402, "auth failed", "check `key` and `secret`"),
        (403, "already authenticated", "logged in already"),
        (404, "auth timeout", "too late"),
        (405, "symbol limit exceeded", "name fewer"),
        (406, "connection limit exceeded", "another program"),
        (407, "slow client", "reads too slowly"),
        (409, "insufficient subscription", "feed: iex"),
        (410, "invalid subscribe action for this feed", "doesn't have the channel"),
        (411, "insufficient scope", "make others"),
        (412, "option messages are only available in MsgPack", "another encoding"),
        (413, "star subscription not allowed for option quotes", "takes no `*`"),
        (500, "internal error", "the fault is the venue's"),
        (599, "something new", "status.alpaca.markets"),
    ] {
        let (rows, out) =
            hear(&mut feed(json!({})), &format!(r#"[{{"T":"error","code":{code},"msg":"{msg}"}}]"#));
        assert!(out.notices[0].starts_with(&format!("alpaca error {code}: {msg}: ")), "{:?}", out.notices);
        assert!(out.notices[0].contains(advice), "{:?}", out.notices);
        assert_eq!((rows.len(), out.counts["venue_errors"], out.rejects.len()), (0, 1, 0));
    }
}

#[test]
fn corrections_and_cancels_are_counted_and_told() {
    let (rows, out) = hear(
        &mut feed(json!({})),
        r#"[{"T":"c","S":"EEM","x":"M","oi":52983525033527,"op":39.1582,"os":440000,"oc":[" ","7"],"ci":52983525034326,"cp":39.1809,"cs":440000,"cc":[" ","7"],"z":"B","t":"2023-04-06T14:25:06.542305024Z"},{"T":"x","S":"GOOGL","i":465,"x":"D","p":105.31,"s":300,"a":"C","z":"C","t":"2023-04-06T13:15:42.83540958Z"}]"#,
    );
    assert_eq!((rows.len(), out.counts["corrections"], out.counts["cancels"]), (0, 1, 1));
    assert_eq!(
        out.notices,
        [
            "alpaca corrects trade 52983525033527 of EEM, 440000 at 39.1582: it is now trade 52983525034326, 440000 at 39.1809",
            "alpaca takes trade 465 of GOOGL back (a cancel): 300 at 105.31",
        ]
    );
}

#[test]
fn what_is_wrong_is_refused_and_takes_nothing_with_it() {
    let good = r#"{"T":"t","i":1,"S":"AAPL","p":1,"s":1,"t":"2021-02-22T15:51:44Z"}"#;
    for (bad, reason) in [
        (r#"{"T":"t","i":2,"S":"AAPL","p":1,"s":-5,"t":"2021-02-22T15:51:44Z"}"#, "negative number `-5`"),
        (r#"{"T":"t","i":2,"S":"AAPL","p":1,"s":5,"t":"yesterday"}"#, "a time as RFC 3339 text"),
        (
            r#"{"T":"t","i":2,"S":"TSLA","p":1,"s":5,"t":"2021-02-22T15:51:44Z"}"#,
            "symbol `TSLA` was not subscribed to",
        ),
        (r#"{"T":"t","i":2,"S":"AAPL","s":5,"t":"2021-02-22T15:51:44Z"}"#, "missing field `p`"),
        (r#"{"T":"zz","S":"AAPL"}"#, "unknown message type `zz`"),
        (r#"{"S":"AAPL"}"#, "missing field `T`"),
        ("17", "expected"),
    ] {
        let (rows, out) = hear(&mut feed(json!({})), &format!("[{good},{bad},{good}]"));
        assert_eq!((rows.len(), out.rejects.len()), (2, 1), "{bad}: {out:?}");
        let reject = &out.rejects[0];
        assert_eq!((reject.raw.as_slice(), reject.before), (bad.as_bytes(), 1), "{bad}");
        assert!(reject.reason.contains(reason), "{bad}: {}", reject.reason);
    }
    // Cut in the middle: what came whole before the cut is kept.
    let (rows, out) = hear(&mut feed(json!({})), &format!("[{good},{}", &good[..30]));
    assert_eq!((rows.len(), out.rejects.len()), (1, 1));
    for junk in ["", "pong", "{}", "[", "\u{0}"] {
        let (rows, out) = hear(&mut feed(json!({})), junk);
        assert_eq!((rows.len(), out.rejects.len()), (0, 1), "{junk:?}");
    }
}

#[tokio::test]
async fn it_plans_without_a_network_and_says_what_is_wrong() {
    let cx = PlanContext { job: "j".into(), node: "n".into(), base: ".".into(), clock: Clock::default() };
    let plan = Alpaca::plan(params(json!({})), &cx).await.map_err(|e| format!("{e:?}")).unwrap();
    assert_eq!(plan.columns.field(3).name(), "trade_id");
    let wrong = params(json!({ "symbols": ["A B", "X", "X"], "key": "", "connection": { "redundant": 2 } }));
    let problems = Alpaca::plan(wrong, &cx).await.err().unwrap();
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["symbols[0]", "symbols[2]", "key", "connection.redundant"]);
    let coins = params(json!({ "feed": "crypto", "symbols": ["BTC/USD"], "channel": "statuses" }));
    assert_eq!(Alpaca::plan(coins, &cx).await.err().unwrap()[0].path, "channel");
}
