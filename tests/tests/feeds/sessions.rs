//! The recorded sessions through whole graphs: the library imports them, the binary replays them, and their text, read by
//! other means, says what must come of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidemill_connectors::capture::import;
use tidemill_connectors::venue::frame::{Frame, FrameKind};
use tidemill_tests::{binary, data, wait_for};

use super::rebuild::{KRAKEN_LEVELS, Message, Rebuild, Venue, messages};
use super::told::{Told, is_of, rows, time, top, trade};

/// Levels a side of `snapshots` rows.
pub const DEPTH: usize = 7;

/// A recorded session.
pub struct Session {
    pub venue: Venue,
    pub files: &'static [&'static str],
    pub symbols: &'static [&'static str],
}

pub const SPOT: Session = Session {
    venue: Venue::Spot,
    files: &["binance.ws.1.0.gz", "binance.http.0.0.gz"],
    symbols: &["NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR"],
};
const FUTURES: Session = Session {
    venue: Venue::Futures,
    files: &["binance_futures.ws.1.0.gz", "binance_futures.http.0.0.gz"],
    symbols: &["SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT"],
};
const COINBASE: Session = Session {
    venue: Venue::Coinbase,
    files: &["coinbase.ws.28.part.gz"],
    symbols: &[
        "SKL-USD", "SKL-BTC", "BAND-GBP", "NMR-EUR", "BAND-BTC", "YFI-BTC", "DASH-BTC", "NU-GBP", "CRV-EUR",
        "SKL-GBP",
    ],
};
pub const KRAKEN: Session = Session {
    venue: Venue::Kraken,
    files: &["kraken.ws.48.0.gz", "kraken.ws.49.0.gz", "kraken.ws.50.part.gz"],
    symbols: &[
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
    ],
};

impl Session {
    /// The sessions' folder, where there is one.
    pub fn folder() -> Option<PathBuf> {
        Some(data()?.join("feeds"))
    }

    /// What the importer makes of it.
    pub fn frames(&self, folder: &Path) -> Vec<Frame> {
        let files: Vec<PathBuf> = self.files.iter().map(|file| folder.join(file)).collect();
        import::read(&files).unwrap()
    }

    /// Its books after each message, in the order of time, to the end.
    pub fn rebuilt(&self, folder: &Path) -> BTreeMap<String, Rebuild> {
        let mut books = BTreeMap::new();
        for message in messages(folder, self.files, self.venue) {
            if let Message::Book(message) = message {
                let book = books.entry(message.symbol.clone()).or_insert_with(|| Rebuild::new(self.venue));
                book.take(message);
            }
        }
        books
    }

    /// A graph of three sources, `deltas`, `snapshots` and `trades`, each to a file `$out.NAME.jsonl`; `more` adds to
    /// the settings of a source.
    pub fn graph(&self, more: impl Fn(&str) -> Value) -> String {
        let trades = match self.venue {
            Venue::Spot | Venue::Futures => "agg_trades",
            Venue::Coinbase | Venue::Kraken => "trades",
        };
        let (mut sources, mut sinks) = (json!({}), json!({}));
        for name in ["deltas", "snapshots", "trades"] {
            let mut with =
                json!({ "symbols": self.symbols, "channel": if name == "trades" { trades } else { "book" } });
            if name != "trades" {
                with["book"] = json!({ "output": name, "depth": DEPTH });
            }
            let kind = match self.venue {
                Venue::Spot | Venue::Futures => {
                    with["market"] = json!(if self.venue == Venue::Spot { "spot" } else { "usdm" });
                    "binance"
                }
                Venue::Coinbase => {
                    with["protocol"] = json!("exchange");
                    "coinbase"
                }
                Venue::Kraken => {
                    with["protocol"] = json!("v1");
                    with["book"]["levels"] = json!(KRAKEN_LEVELS);
                    "kraken"
                }
            };
            for (key, value) in more(name).as_object().into_iter().flatten() {
                with[key] = value.clone();
            }
            sources[name] = json!({ "kind": kind, "with": with });
            let path = format!("$out.{name}.jsonl");
            sinks[format!("{name}_out")] =
                json!({ "kind": "jsonl", "from": name, "with": { "path": path, "origin": true } });
        }
        let graph = json!({
            "dataflow": "session", "version": 1, "vars": { "out": "live" }, "sources": sources, "sinks": sinks,
        });
        graph.to_string()
    }
}

/// What a replay of frames left.
pub struct Replayed {
    folder: tempfile::TempDir,
    /// What each source counted.
    counts: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Replayed {
    pub fn rows(&self, name: &str) -> Vec<Value> {
        rows(&self.folder.path().join(format!("live.{name}.jsonl")))
    }
}

/// Imports frames into a capture and runs the session's graph from it with the binary.
pub fn replay(session: &Session, frames: &[Frame]) -> Replayed {
    let folder = tempfile::tempdir().unwrap();
    wait_for(import::write(frames, "capture", folder.path())).unwrap();
    std::fs::write(folder.path().join("graph.yaml"), session.graph(|_| json!({}))).unwrap();
    let mut command = std::process::Command::new(binary());
    command.args(["replay", "capture", "graph.yaml"]).current_dir(folder.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    Replayed { counts: counts(&said), folder }
}

/// The last lines of the summary: `deltas: frames 267, gaps 1`.
fn counts(said: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for name in ["deltas", "snapshots", "trades"] {
        let line = said.lines().rev().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        let line = line.unwrap_or_else(|| panic!("the summary has no counts of {name}: {said}"));
        let of = line.split(", ").map(|part| {
            let (name, n) = part.rsplit_once(' ').unwrap();
            (name.to_owned(), n.parse().unwrap())
        });
        counts.insert(name.to_owned(), of.collect());
    }
    counts
}

/// Replays a session and holds every row against the text. `expected`: whole books, differences, those of them that a
/// snapshot held already, checksums, trades.
fn check(session: &Session, expected: [u64; 5]) {
    let Some(folder) = Session::folder() else { return };
    let frames = session.frames(&folder);
    let replayed = replay(session, &frames);
    let mut deltas = replayed.rows("deltas").into_iter().peekable();
    let mut snapshots = replayed.rows("snapshots").into_iter().peekable();
    let mut slow: BTreeMap<String, Rebuild> = BTreeMap::new();
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    let mut tops = BTreeMap::new();
    let (mut trades, mut levels, mut rows) = (Vec::new(), 0, [0; 2]);
    for message in messages(&folder, session.files, session.venue) {
        let message = match message {
            Message::Book(message) => message,
            Message::Trades(more) => {
                trades.extend(more);
                continue;
            }
            Message::Other => continue,
        };
        let (symbol, at_ns) = (message.symbol.clone(), message.at_ns);
        let place = format!("{symbol} at {at_ns}");
        let book = slow.entry(symbol.clone()).or_insert_with(|| Rebuild::new(session.venue));
        book.take(message);
        let id = book.id.filter(|_| book.known);
        let view = told.entry(symbol.clone()).or_default();
        let event = if view.valid { "delta" } else { "snapshot" };
        let mut ended = true;
        while let Some(row) = deltas.next_if(|row| is_of(row, &symbol, at_ns)) {
            assert_eq!((row["event"].as_str(), row["update_id"].as_u64()), (Some(event), id), "{place}");
            view.take(&row);
            ended = row["last"] == true;
            rows[0] += 1;
        }
        assert!(ended, "{place}: its last row is marked");
        assert_eq!(view.valid, book.known, "{place}");
        if book.known {
            let same = view.equals(book);
            levels += same.unwrap_or_else(|| panic!("{place}: another book than the rebuild"));
            let best = book.top(DEPTH);
            if tops.get(&symbol) != Some(&best) {
                let row = snapshots.next().unwrap();
                assert!(is_of(&row, &symbol, at_ns), "{place}: its snapshot is missing before {row}");
                assert_eq!((&row["valid"], row["update_id"].as_u64()), (&json!(true), id), "{place}");
                assert_eq!(top(&row), best, "{place}");
                tops.insert(symbol, best);
                rows[1] += 1;
            }
        }
    }
    assert_eq!((deltas.next(), snapshots.next()), (None, None), "rows of no message");
    assert_eq!(slow.len(), session.symbols.len());
    assert!(slow.values().all(|book| book.known));
    let sum = |i: usize| slow.values().map(|book| book.counts[i]).sum::<u64>();
    let trades_seen = trades.len() as u64;
    assert_eq!([sum(0), sum(1), sum(2), sum(3), trades_seen], expected);
    // A row older than one before it joins the stream at the watermark.
    let mut watermark = i64::MIN;
    for trade in &mut trades {
        watermark = watermark.max(trade.ts_ns);
        trade.ts_ns = watermark;
    }
    let got: Vec<_> = replayed.rows("trades").iter().map(trade).collect();
    assert_eq!(got, trades);
    for (name, mut counts) in replayed.counts.clone() {
        assert_eq!(counts.remove("frames"), Some(frames.len() as u64));
        // Differences that waited for their snapshot are not counted. Of another channel are trades to a source of books, the
        // answers with books to one of trades.
        let passed_over = counts.remove("stale diffs").unwrap_or(0);
        assert!(passed_over <= expected[2], "{name}: {passed_over}");
        for harmless in
            ["other channels", "other messages", "unknown answers", "book requests", "republished levels"]
        {
            counts.remove(harmless);
        }
        assert_eq!(counts, BTreeMap::new(), "{name}: no gap, no wrong checksum, nothing refused");
    }
    eprintln!(
        "{:?}: {} whole books, {} differences ({} in their snapshot), {} checksums, {} trades; {} rows of deltas, {} of \
         snapshots, {levels} levels compared",
        session.venue, expected[0], expected[1], expected[2], expected[3], expected[4], rows[0], rows[1]
    );
}

#[test]
fn the_binance_spot_session_through_a_graph_is_its_text() {
    check(&SPOT, [4, 177, 5, 0, 2]);
}

#[test]
fn the_binance_futures_session_through_a_graph_is_its_text() {
    check(&FUTURES, [4, 764, 12, 0, 91]);
}

#[test]
fn the_coinbase_session_through_a_graph_is_its_text() {
    check(&COINBASE, [10, 5891, 0, 0, 46]);
}

#[test]
fn the_kraken_session_through_a_graph_is_its_text_and_every_checksum_is_right() {
    check(&KRAKEN, [10, 2556, 0, 2556, 10]);
}

/// The same graphs are not blind: one wrong digit of a checksum, and one lost difference.
#[test]
fn one_wrong_message_of_a_session_is_told_by_the_graph() {
    let Some(folder) = Session::folder() else { return };
    let received = |frames: &[Frame], what: &str, n: usize| {
        let is = |frame: &&(usize, &Frame)| {
            frame.1.kind == FrameKind::Received && String::from_utf8_lossy(&frame.1.data).contains(what)
        };
        let of: Vec<_> = frames.iter().enumerate().collect();
        of.iter().filter(is).nth(n).unwrap().0
    };
    let mut frames = KRAKEN.frames(&folder);
    let at = received(&frames, "\"c\":\"", 1000);
    let text = String::from_utf8_lossy(&frames[at].data).into_owned();
    let (head, tail) = text.split_once("\"c\":\"").unwrap();
    let other = if tail.starts_with('1') { "2" } else { "1" };
    frames[at].data = format!("{head}\"c\":\"{other}{}", &tail[1..]).into();
    let kraken = ("checksum errors", "checksum", frames[at].received_ns, replay(&KRAKEN, &frames));
    let mut frames = SPOT.frames(&folder);
    let lost = received(&frames, "nknusdt@depth", 20);
    let next = received(&frames, "nknusdt@depth", 21);
    let seen_ns = frames[next].received_ns;
    frames.remove(lost);
    let spot = ("gaps", "gap", seen_ns, replay(&SPOT, &frames));
    for (count, reason, seen_ns, replayed) in [kraken, spot] {
        for name in ["deltas", "snapshots"] {
            assert_eq!(replayed.counts[name].get(count), Some(&1), "{:?}", replayed.counts);
            let rows = replayed.rows(name);
            let invalid: Vec<&Value> = rows.iter().filter(|row| !row["reason"].is_null()).collect();
            assert_eq!(invalid.len(), 1);
            assert_eq!((&invalid[0]["reason"], time(invalid[0], "received_at")), (&json!(reason), seen_ns));
            let symbol = &invalid[0]["symbol"];
            let after = rows.iter().skip_while(|row| row["reason"].is_null()).skip(1);
            assert_eq!(after.filter(|row| row["symbol"] == *symbol).count(), 0, "nobody healed it");
        }
    }
}
