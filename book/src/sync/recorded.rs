//! The recorded sessions of four venues: every message is applied, chains hold and checksums match, and the books equal
//! a slow rebuild at every step, which keeps texts in sorted maps and knows nothing of decimals.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::ladder::Level;

/// A file of the data folder, or none where the folder is absent (in CI it must be there).
fn session(name: &str) -> Option<String> {
    let folder = std::env::var_os("TIDEMILL_DATA").map_or_else(|| "../../shared/data".into(), PathBuf::from);
    let path = folder.join("feeds").join(name);
    if !path.exists() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{} is absent and CI=true", path.display());
        eprintln!("SKIPPED: a recorded session is absent: no {}", path.display());
        return None;
    }
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    Some(text)
}

/// The messages that were received: `time: {…}` lines.
fn received(text: &str) -> impl Iterator<Item = (f64, Value)> {
    text.lines().filter_map(|line| {
        let (time, message) = line.split_once(": ")?;
        Some((time.parse().ok()?, serde_json::from_str(message).ok()?))
    })
}

/// One side as texts, by the price padded so that texts sort as numbers.
type Texts = BTreeMap<String, (String, String)>;

#[derive(Clone, Default)]
struct Slow {
    bids: Texts,
    asks: Texts,
}

impl Slow {
    /// Sets levels `[[price, size, …], …]`; what has no digit but 0 in its size is gone.
    fn set(&mut self, bid: bool, levels: &Value) {
        let side = if bid { &mut self.bids } else { &mut self.asks };
        for level in levels.as_array().into_iter().flatten() {
            let (price, size) = (level[0].as_str().unwrap(), level[1].as_str().unwrap());
            let (whole, fraction) = price.split_once('.').unwrap_or((price, ""));
            let key = format!("{whole:0>20}.{fraction:0<20}");
            if size.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
                side.insert(key, (price.into(), size.into()));
            } else {
                side.remove(&key);
            }
        }
    }

    fn cut(&mut self, depth: usize) {
        while self.bids.len() > depth {
            self.bids.pop_first();
        }
        while self.asks.len() > depth {
            self.asks.pop_last();
        }
    }

    fn is(&self, book: &Book) -> bool {
        let text = |level: &Level| (level.price.to_string(), level.size.to_string());
        book.bids().iter().map(text).eq(self.bids.values().rev().cloned())
            && book.asks().iter().map(text).eq(self.asks.values().cloned())
    }
}

fn levels(value: &Value) -> Vec<Level> {
    let level = |l: &Value| {
        Level::parse(l[0].as_str().unwrap().as_bytes(), l[1].as_str().unwrap().as_bytes()).unwrap()
    };
    value.as_array().into_iter().flatten().map(level).collect()
}

/// A symbol of a Binance session: its rule, the slow book once there is one, and all diffs so far.
struct Symbol<R> {
    rule: R,
    slow: Option<Slow>,
    diffs: Vec<Value>,
}

fn binance<R>(
    name: &str,
    marks: impl Fn(&Value) -> R::UpdateMark,
    dropped: impl Fn(u64, u64) -> bool,
) -> Option<(usize, usize, usize)>
where
    R: Rule<SnapshotMark = u64> + Default,
{
    let (feed, rest) = (session(&format!("{name}.ws.1.0.gz"))?, session(&format!("{name}.http.0.0.gz"))?);
    let mut events: Vec<(f64, Option<String>, Value)> = received(&feed)
        .filter(|(_, m)| m["data"]["e"] == "depthUpdate")
        .map(|(time, m)| (time, None, m["data"].clone()))
        .collect();
    for line in rest.lines() {
        let Some((head, body)) = line.split_once(": ") else { continue };
        let (url, time) = head.split_once(" -> ").unwrap();
        let Some(symbol) = url.split_once("symbol=") else { continue };
        let symbol = symbol.1.split('&').next().unwrap().to_owned();
        events.push((time.parse().unwrap(), Some(symbol), serde_json::from_str(body).unwrap()));
    }
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut symbols: BTreeMap<String, Symbol<R>> = BTreeMap::new();
    let (mut applied, mut stale, mut checked) = (0, 0, 0);
    for (_, snapshot, message) in events {
        let (bids, asks) = if snapshot.is_some() { ("bids", "asks") } else { ("b", "a") };
        let (bids, asks) = (&message[bids], &message[asks]);
        let (b, a) = (levels(bids), levels(asks));
        let all = Levels { bids: &b, asks: &a };
        let symbol = snapshot.clone().unwrap_or_else(|| message["s"].as_str().unwrap().to_owned());
        let state = symbols.entry(symbol).or_insert_with(|| Symbol {
            rule: R::default(),
            slow: None,
            diffs: Vec::new(),
        });
        let outcome = if snapshot.is_some() {
            let id = message["lastUpdateId"].as_u64().unwrap();
            let mut slow = Slow::default();
            slow.set(true, bids);
            slow.set(false, asks);
            for diff in state.diffs.iter().filter(|d| !dropped(d["u"].as_u64().unwrap(), id)) {
                slow.set(true, &diff["b"]);
                slow.set(false, &diff["a"]);
            }
            state.slow = Some(slow);
            state.rule.snapshot(all, id)
        } else {
            let outcome = state.rule.update(all, marks(&message));
            match (&outcome, &mut state.slow) {
                (Outcome::Applied, Some(slow)) => {
                    slow.set(true, bids);
                    slow.set(false, asks);
                    applied += 1;
                }
                (Outcome::Ignored(Ignored::Stale), _) => stale += 1,
                (Outcome::Buffered, None) => {}
                other => panic!("{name}: {:?}", other.0),
            }
            state.diffs.push(message.clone());
            outcome
        };
        assert!(!matches!(outcome, Outcome::Fault(_)), "{name}: {outcome:?}");
        if let (true, Some(slow)) = (state.rule.valid(), &state.slow) {
            assert!(slow.is(state.rule.book()), "{name}: a book differs after {message}");
            checked += 1;
        }
    }
    assert!(symbols.values().all(|s| s.rule.valid()));
    Some((applied, stale, checked))
}

#[test]
fn binance_spot_chains_are_unbroken_and_books_right_at_every_step() {
    let id = |m: &Value, name: &str| m[name].as_u64().unwrap();
    let marks = |m: &Value| SpotIds { first: id(m, "U"), last: id(m, "u") };
    let Some(tally) = binance::<BinanceSpot>("binance", marks, |u, last| u <= last) else { return };
    println!("applied, stale, checked: {tally:?}");
    assert!(tally.0 > 50);
}

#[test]
fn binance_futures_chains_are_unbroken_and_books_right_at_every_step() {
    let id = |m: &Value, name: &str| m[name].as_u64().unwrap();
    let marks = |m: &Value| FuturesIds { first: id(m, "U"), last: id(m, "u"), previous: id(m, "pu") };
    let Some(tally) = binance::<BinanceFutures>("binance_futures", marks, |u, last| u < last) else { return };
    println!("applied, stale, checked: {tally:?}");
    assert!(tally.0 > 400);
}

#[test]
fn kraken_checksums_all_match_and_books_are_right_at_every_step() {
    let Some(feed) = session("kraken.ws.50.part.gz") else { return };
    let mut books: BTreeMap<u64, (Kraken, Slow)> = BTreeMap::new();
    let (mut snapshots, mut checksums) = (0, 0);
    for (_, message) in received(&feed) {
        let Some(parts) = message.as_array() else { continue };
        let (rule, slow) =
            books.entry(parts[0].as_u64().unwrap()).or_insert_with(|| (Kraken::new(1000), Slow::default()));
        let parts = &parts[1..parts.len() - 2];
        let one = |name: &str| parts.iter().flat_map(|p| levels(&p[name])).collect::<Vec<_>>();
        let outcome = if parts[0].get("as").is_some() {
            snapshots += 1;
            *slow = Slow::default();
            let (bids, asks) = (one("bs"), one("as"));
            rule.snapshot(Levels { bids: &bids, asks: &asks }, None)
        } else {
            let checksum = parts.iter().find_map(|p| p["c"].as_str()).unwrap().parse().unwrap();
            checksums += 1;
            let (bids, asks) = (one("b"), one("a"));
            rule.update(Levels { bids: &bids, asks: &asks }, Some(checksum))
        };
        for part in parts {
            for (name, bid) in [("bs", true), ("b", true), ("as", false), ("a", false)] {
                slow.set(bid, &part[name]);
            }
        }
        slow.cut(1000);
        assert_eq!(outcome, Outcome::Applied, "{message}");
        assert!(slow.is(rule.book()), "a book differs after {message}");
    }
    println!("{snapshots} snapshots, {checksums} checksums");
    assert!(snapshots == 10 && checksums > 2000, "{snapshots} snapshots, {checksums} checksums");
}

#[test]
fn coinbase_updates_apply_and_books_are_right_at_every_step() {
    let Some(feed) = session("coinbase.ws.28.part.gz") else { return };
    let mut books: BTreeMap<String, (CoinbaseExchange, Slow)> = BTreeMap::new();
    let mut updates = 0;
    for (_, message) in received(&feed) {
        let kind = message["type"].as_str().unwrap();
        if !matches!(kind, "snapshot" | "l2update") {
            continue;
        }
        let product = message["product_id"].as_str().unwrap().to_owned();
        let (rule, slow) = books.entry(product).or_default();
        let outcome = if kind == "snapshot" {
            let (bids, asks) = (levels(&message["bids"]), levels(&message["asks"]));
            slow.set(true, &message["bids"]);
            slow.set(false, &message["asks"]);
            rule.snapshot(Levels { bids: &bids, asks: &asks }, ())
        } else {
            updates += 1;
            let changes = message["changes"].as_array().unwrap();
            let side = |name: &str| -> Value {
                let of_side = changes.iter().filter(|c| c[0] == name);
                of_side.map(|c| Value::from(vec![c[1].clone(), c[2].clone()])).collect()
            };
            let (bids, asks) = (side("buy"), side("sell"));
            slow.set(true, &bids);
            slow.set(false, &asks);
            let (bids, asks) = (levels(&bids), levels(&asks));
            rule.update(Levels { bids: &bids, asks: &asks }, None)
        };
        assert_eq!(outcome, Outcome::Applied, "{message}");
        assert!(slow.is(rule.book()), "a book differs after {message}");
    }
    println!("{updates} updates");
    assert_eq!((books.len(), updates), (10, 5891));
}
