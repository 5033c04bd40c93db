//! The recorded sessions through the feed: every difference applied or provably stale, books equal to an independent slow rebuild at every
//! step, and every row of the other channels equal to its message.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::recorded::{Diff, View, feed, run, session, step, truths};
use crate::venue::frame::{Frame, FrameKind};

const SPOT: &str = r#"["NKNUSDT","BLZETH","LRCBTC","RUNEEUR"]"#;
const USDM: &str = r#"["SUSHIUSDT","AKROUSDT","KEEPUSDT","CTKUSDT"]"#;

fn sessions() -> Vec<(&'static str, &'static str, &'static str, Vec<Frame>)> {
    let load = |name, market, symbols| Some((name, market, symbols, session(name)?));
    [load("binance", "spot", SPOT), load("binance_futures", "usdm", USDM)].into_iter().flatten().collect()
}

fn with(market: &str, symbols: &str, rest: &str) -> String {
    format!(r#"{{"market":"{market}","symbols":{symbols},"check_symbols":false,{rest}}}"#)
}

#[test]
fn books_of_the_recorded_sessions_equal_a_slow_rebuild_at_every_step() {
    for (name, market, symbols, frames) in sessions() {
        let truths = truths(&frames);
        let mut feed = feed(&with(market, symbols, r#""channel":"book""#));
        let mut views: BTreeMap<String, View> = BTreeMap::new();
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        let (mut diffs, mut steps, mut stale, mut waited, mut asked) = (0, 0, 0, 0, Vec::new());
        for frame in &frames {
            let (rows, out) = step(&mut feed, frame);
            assert!(out.rejects.is_empty() && out.notices.is_empty(), "{name}: {out:?}");
            asked.extend(out.actions);
            for (count, n) in out.counts {
                *counts.entry(count).or_default() += n;
            }
            View::take(&mut views, &rows);
            if frame.kind != FrameKind::Received {
                continue;
            }
            let Some((symbol, diff)) = Diff::read(&frame.data) else { continue };
            diffs += 1;
            let truth = &truths[&symbol];
            known.insert(symbol.clone(), diff.last.max(truth.snapshot_id));
            let Some(view) = views.get(&symbol).filter(|view| view.valid) else {
                waited += 1;
                continue;
            };
            // The futures' rule applies a difference that ends with the snapshot's update; it changes nothing.
            let old =
                if market == "spot" { diff.last <= truth.snapshot_id } else { diff.last < truth.snapshot_id };
            stale += u64::from(old);
            let (_, slow) = truth.book(diff.last);
            for (i, (fast, slow)) in view.sides.iter().zip(&slow).enumerate() {
                let slow: BTreeMap<u64, f64> = slow
                    .values()
                    .map(|(p, s)| (p.parse::<f64>().unwrap().to_bits(), s.parse().unwrap()))
                    .collect();
                assert_eq!(*fast, slow, "{name} {symbol} side {i} at {}", diff.last);
            }
            assert_eq!(view.print, truth.print(diff.last));
            steps += 1;
        }
        // Every symbol's book was asked for once, ended valid, and is the true one.
        assert_eq!((asked.len(), views.len()), (4, 4), "{name}");
        for (symbol, view) in &views {
            assert!(view.valid && view.invalid == 0, "{name} {symbol}");
            assert_eq!(view.print, truths[symbol].print(known[symbol]), "{name} {symbol}");
        }
        let passed_over = counts.get("stale_diffs").copied().unwrap_or_default();
        assert_eq!(counts.get("gaps"), None, "{name}: {counts:?}");
        assert_eq!(passed_over, stale, "{name}");
        eprintln!(
            "{name}: {diffs} differences, {waited} waited for a snapshot, {steps} steps equal to the rebuild, {passed_over} stale after it"
        );
        assert!(steps > 150 && steps + waited == diffs, "{name}");
    }
}

#[test]
fn the_venues_own_best_prices_agree_with_the_books() {
    for (name, market, symbols, frames) in sessions() {
        let truths = truths(&frames);
        let mut quotes: BTreeMap<(String, u64), [String; 4]> = BTreeMap::new();
        for frame in frames.iter().filter(|f| f.kind == FrameKind::Received) {
            let value: Value = serde_json::from_slice(&frame.data).unwrap();
            if value["stream"].as_str().unwrap().ends_with("@bookTicker") {
                let data = &value["data"];
                let texts = ["b", "B", "a", "A"].map(|k| data[k].as_str().unwrap().to_owned());
                quotes.insert((data["s"].as_str().unwrap().into(), data["u"].as_u64().unwrap()), texts);
            }
        }
        let mut feed = feed(&with(market, symbols, r#""channel":"book","book":{"output":"quotes"}"#));
        let (rows, _) = run(&mut feed, &frames);
        let mut best: BTreeMap<String, Vec<(u64, [f64; 4])>> = BTreeMap::new();
        for row in &rows {
            let numbers = ["bid", "bid_size", "ask", "ask_size"].map(|k| row[k].as_f64().unwrap());
            let id = row["update_id"].as_u64().unwrap();
            best.entry(row["symbol"].as_str().unwrap().into()).or_default().push((id, numbers));
        }
        // A difference that ends with the very update of a best price lets the two be compared.
        let mut compared = 0;
        for (symbol, truth) in &truths {
            for diff in truth.diffs.iter().filter(|d| d.last > truth.snapshot_id) {
                let Some(texts) = quotes.get(&(symbol.clone(), diff.last)) else { continue };
                let rows = &best[symbol];
                let at = rows.partition_point(|(id, _)| *id <= diff.last);
                let numbers = texts.each_ref().map(|t| t.parse::<f64>().unwrap());
                assert_eq!(rows[at - 1].1, numbers, "{name} {symbol} at {}", diff.last);
                compared += 1;
            }
        }
        eprintln!("{name}: {compared} best prices of the venue equal to the books'");
        assert!(compared > 10, "{name}: {compared}");
    }
}

/// The rows of a channel beside the recorded messages of its stream.
fn check_channel(channel: &str, kind: &str, row_of: impl Fn(&Value, i64) -> Value) {
    for (name, market, symbols, frames) in sessions() {
        let mut feed = feed(&with(market, symbols, &format!(r#""channel":"{channel}""#)));
        let mut expected = Vec::new();
        for frame in frames.iter().filter(|f| f.kind == FrameKind::Received) {
            let value: Value = serde_json::from_slice(&frame.data).unwrap();
            if value["stream"].as_str().unwrap().contains(kind) {
                let data = &value["data"];
                let mut row = row_of(data, frame.received_ns);
                row["venue"] = if market == "spot" { "binance".into() } else { "binance_usdm".into() };
                row["symbol"] = data["s"].clone();
                row["received_at"] = frame.received_ns.into();
                expected.push(row);
            }
        }
        let (rows, out) = run(&mut feed, &frames);
        assert!(out.rejects.is_empty() && out.notices.is_empty(), "{name} {channel}: {out:?}");
        assert_eq!(rows.len(), expected.len(), "{name} {channel}: {:?}", out.counts);
        for (row, expected) in rows.iter().zip(&expected) {
            assert_eq!(row, expected, "{name} {channel}");
        }
        eprintln!("{name}: {} rows of {channel} equal to their messages", rows.len());
    }
}

fn number(value: &Value) -> Value {
    value.as_str().unwrap().parse::<f64>().unwrap().into()
}

fn ns(value: &Value) -> Value {
    (value.as_i64().unwrap() * 1_000_000).into()
}

#[test]
fn best_prices_bars_and_trades_are_their_messages() {
    check_channel("quotes", "@bookTicker", |data, received_ns| {
        let ts = data.get("T").map_or(received_ns.into(), ns);
        json!({ "ts": ts, "bid": number(&data["b"]), "bid_size": number(&data["B"]), "ask": number(&data["a"]),
            "ask_size": number(&data["A"]), "update_id": data["u"], "valid": true })
    });
    check_channel("bars", "@kline_1m", |data, _| {
        let k = &data["k"];
        json!({ "ts": ns(&data["E"]), "start": ns(&k["t"]), "open": number(&k["o"]), "high": number(&k["h"]),
            "low": number(&k["l"]), "close": number(&k["c"]), "volume": number(&k["v"]), "trades": k["n"], "closed": k["x"] })
    });
    check_channel("agg_trades", "@aggTrade", |data, _| {
        let side = if data["m"] == true { "sell" } else { "buy" };
        json!({ "ts": ns(&data["T"]), "trade_id": data["a"], "price": number(&data["p"]), "size": number(&data["q"]), "side": side })
    });
}

#[test]
fn two_connections_of_which_each_is_cut_lose_nothing_together() {
    for (name, market, symbols, frames) in sessions() {
        for channel in ["agg_trades", "quotes", "book"] {
            let with =
                with(market, symbols, &format!(r#""channel":"{channel}","connection":{{"redundant":2}}"#));
            let (alone, _) = run(&mut feed(&with), &frames);
            // First one connection is cut for a while, then the other.
            let mut both = Vec::new();
            let mut messages = 0;
            for frame in &frames {
                messages += usize::from(frame.kind == FrameKind::Received);
                for (connection, cut) in [(0, 80..120), (1, 180..220)] {
                    let frame = Frame { connection, ..frame.clone() };
                    let (first, last) = (messages == cut.start, messages + 1 == cut.end);
                    match &frame.kind {
                        FrameKind::Received if first => both.push(Frame { kind: FrameKind::Closed, ..frame }),
                        FrameKind::Received if last => both.push(Frame { kind: FrameKind::Opened, ..frame }),
                        FrameKind::Received if cut.contains(&messages) => {}
                        FrameKind::Response { .. } if connection == 1 => {}
                        _ => both.push(frame),
                    }
                }
            }
            let (rows, out) = run(&mut feed(&with), &both);
            let content = |rows: &[Value]| -> Vec<Value> {
                rows.iter()
                    .map(|row| {
                        json!([
                            row["symbol"],
                            row["ts"],
                            row["trade_id"],
                            row["update_id"],
                            row["price"],
                            row["size"],
                            row["bid"]
                        ])
                    })
                    .collect()
            };
            assert_eq!(content(&rows), content(&alone), "{name} {channel}");
            assert!(
                out.counts.contains_key("duplicates") || rows.len() < 5,
                "{name} {channel}: {:?}",
                out.counts
            );
        }
    }
}
