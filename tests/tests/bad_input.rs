//! Bad input and bad surroundings: each gets a clear message or a dead letter, none a panic, and no
//! good row beside it is lost.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, RwLock};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use serde_json::{Value, json};
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::admin::{self, Message};
use tidemill_tests::patience::hang_guard;
use tidemill_tests::*;

/// Whoever restarts the broker has it alone.
static BROKER: RwLock<()> = RwLock::new(());

/// A graph in a folder of its own.
struct Flow {
    folder: tempfile::TempDir,
    name: String,
}

impl Flow {
    /// `nodes` is the graph without its head.
    fn new(name: &str, nodes: &str) -> Self {
        let flow = Self { folder: tempfile::tempdir().unwrap(), name: unique(name) };
        flow.write(nodes);
        flow
    }

    fn write(&self, nodes: &str) {
        std::fs::write(self.path("graph.yaml"), format!("dataflow: {}\nversion: 1\n{nodes}", self.name))
            .unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, verb: &[&str], args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(verb).arg(self.path("graph.yaml")).args(args).stdin(Stdio::null());
        command
    }

    /// Runs it to its end: whether it went well, and what it said.
    fn run(&self, args: &[&str]) -> (bool, String) {
        let mut running = self.start(args);
        let code = running.wait();
        (code == Some(0), running.said())
    }

    /// Starts it; rows in small batches, checkpoints all the time.
    fn start(&self, args: &[&str]) -> Running {
        let log = self.path(&unique("log"));
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = self
            .command(&["run"], &["--progress", "log", "--checkpoint-every", "200ms", "--chunk-rows", "100"]);
        command.args(args).stdout(file.try_clone().unwrap()).stderr(file);
        Running { child: command.spawn().unwrap(), log }
    }

    /// What another command prints.
    fn tool(&self, verb: &[&str], args: &[&str]) -> String {
        let output = self.command(verb, args).output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{verb:?} {args:?}: {text}");
        text
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        // The last line may still be on its way.
        text.split_inclusive('\n')
            .filter(|l| l.ends_with('\n'))
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    /// Waits until it ends; its exit code.
    fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        let (child, log) = (&mut self.child, &self.log);
        until("the run ends", &|| std::fs::read_to_string(log).unwrap_or_default(), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|s| s.code())
    }

    /// Stops it in order.
    fn stop(&mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert_eq!(self.wait(), Some(0), "{}", self.said());
    }

    fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, said: &dyn Fn() -> String, mut done: impl FnMut() -> bool) {
    hang_guard().wait_until(|| format!("{what}\n{}", said()), &mut done);
}

fn make_topic(brokers: &str, messages: Vec<Message>) -> String {
    let (connection, topic) = (Connection::plain(brokers), unique("input"));
    wait_for(admin::create_topic(&connection, &topic, 1, &[("retention.ms", "-1")])).unwrap();
    produce(brokers, &topic, messages);
    topic
}

fn produce(brokers: &str, topic: &str, messages: Vec<Message>) {
    wait_for(admin::produce(&Connection::plain(brokers), topic, messages)).unwrap();
}

fn message(payload: impl Into<Vec<u8>>) -> Message {
    Message { key: Some(b"k".to_vec()), payload: Some(payload.into()), ..Message::default() }
}

/// Trades `numbers`, one a second from 2024-01-02T15:00:00Z; the price is the number.
fn trades(numbers: std::ops::Range<u64>) -> Vec<Message> {
    let trade =
        |i: u64| json!({ "ts": (1_704_207_600 + i) * 1_000_000_000, "symbol": "A", "price": i, "size": 1 });
    numbers.map(|i| message(trade(i).to_string())).collect()
}

fn prices(lines: &[Value]) -> Vec<f64> {
    lines.iter().map(|l| l["price"].as_f64().unwrap()).collect()
}

fn numbers(range: std::ops::Range<u64>) -> Vec<f64> {
    range.map(|i| i as f64).collect()
}

/// `trades` from a topic, straight to `out.jsonl`.
fn copy(brokers: &str, topic: &str, more: &str) -> String {
    format!(
        "sources:\n  trades: {{ kind: kafka, with: {{ brokers: \"{brokers}\", topic: {topic}, schema: trade, {more} }} }}\n\
         sinks:\n  out: {{ kind: jsonl, from: trades, with: {{ path: out.jsonl }} }}\n"
    )
}

#[test]
fn bad_messages_become_dead_letters_and_the_good_ones_beside_them_go_through() {
    let Some(brokers) = kafka() else { return };
    let _shared = BROKER.read().unwrap_or_else(|e| e.into_inner());
    let bad: Vec<(Option<Vec<u8>>, &str)> = vec![
        (Some(b"{\"ts\": 17042".to_vec()), "not valid JSON"),
        (
            Some(br#"{"ts":1,"symbol":"A","price":"much","size":1}"#.to_vec()),
            "column `price`: expected f64, found the text \"much\"",
        ),
        (Some(br#"{"ts":1,"symbol":"A","price":1}"#.to_vec()), "column `size` is missing"),
        (Some(br#"{"ts":1,"symbol":null,"price":1,"size":1}"#.to_vec()), "column `symbol` is null"),
        (Some(br#"{"ts":1,"symbol":"A","price":NaN,"size":1}"#.to_vec()), "not valid JSON"),
        (
            Some(br#"{"ts":"2199-01-01T00:00:00Z","symbol":"A","price":1,"size":1}"#.to_vec()),
            "ahead of the message's own timestamp (ahead_max)",
        ),
        (
            Some(br#"{"ts":"9999-01-01T00:00:00Z","symbol":"A","price":1,"size":1}"#.to_vec()),
            "column `ts`: expected a timestamp",
        ),
        (
            Some(br#"{"ts":"1850-01-01T00:00:00Z","symbol":"A","price":1,"size":1}"#.to_vec()),
            "is outside ts_min and ts_max",
        ),
        (Some(b"[1, 2]".to_vec()), "expected a JSON object, found a list"),
        (Some(b"\xff\xfe\x00".to_vec()), "not valid JSON"),
        (None, "the message has no value (a tombstone)"),
    ];
    // A good one from before 1970, then good and bad in turn.
    let mut messages = vec![message(r#"{"ts":"1969-12-31T23:59:59Z","symbol":"A","price":-1,"size":1}"#)];
    let good = trades(0..bad.len() as u64);
    for (good, (payload, _)) in good.into_iter().zip(&bad) {
        messages.push(Message { payload: payload.clone(), ..message("") });
        messages.push(good);
    }
    let topic = make_topic(&brokers, messages);
    let expected: Vec<f64> = [-1.0].into_iter().chain(numbers(0..bad.len() as u64)).collect();

    let graph = copy(&brokers, &topic, "stop: end, on_error: { dead_letter: letters }");
    let kept = Flow::new("kept", "");
    kept.write(&format!(
        "{graph}  letters: {{ kind: jsonl, with: {{ path: letters.jsonl }} }}\n  again: {{ kind: kafka, from: trades, with: {{ brokers: \"{brokers}\", topic: {} }} }}\n",
        kept.name
    ));
    let (well, said) = kept.run(&[]);
    assert!(well, "{said}");
    assert_eq!(prices(&kept.lines("out.jsonl")), expected);
    let again = wait_for(admin::read_all(&Connection::plain(&brokers), &kept.name, true)).unwrap();
    assert_eq!(again.len(), expected.len(), "also where Kafka knows no such time");
    let letters = kept.lines("letters.jsonl");
    assert_eq!(letters.len(), bad.len());
    for (i, (letter, (payload, reason))) in letters.iter().zip(&bad).enumerate() {
        assert!(letter["reason"].as_str().unwrap().contains(reason), "{letter}");
        assert_eq!(letter["position"], 2 * i + 1);
        // Rows that were read and then refused are kept as their columns, not byte for byte.
        let raw = letter["raw"].as_str().unwrap_or_default();
        match payload.as_ref().map(|p| (std::str::from_utf8(p), serde_json::from_slice::<Value>(p))) {
            Some((Ok(_), Ok(json))) if json["ts"] == "1850-01-01T00:00:00Z" => {
                let kept: Value = serde_json::from_str(raw).unwrap();
                assert_eq!((&kept["ts"], kept["price"].as_f64()), (&json["ts"], json["price"].as_f64()));
            }
            Some((Ok(text), _)) => assert_eq!(raw, text),
            _ => {}
        }
    }
    let list = kept.tool(&["dead-letters", "list"], &[]);
    assert!(list.lines().count() == bad.len() + 1 && list.contains("column `size` is missing"), "{list}");

    let skipped = Flow::new("skipped", &copy(&brokers, &topic, "stop: end, on_error: skip"));
    let (well, said) = skipped.run(&["--workers", "2"]);
    assert!(well && said.contains("dead letters"), "{said}");
    assert_eq!(prices(&skipped.lines("out.jsonl")), expected);

    let failed = Flow::new("failed", &copy(&brokers, &topic, "stop: end"));
    let (well, said) = failed.run(&[]);
    assert!(
        !well
            && said.contains("partition 0, position 1: not valid JSON")
            && said.contains("set on_error to skip or dead_letter"),
        "{said}"
    );
}

#[test]
fn dead_letters_go_through_again_after_a_fix() {
    let Some(brokers) = kafka() else { return };
    let _shared = BROKER.read().unwrap_or_else(|e| e.into_inner());
    let mut messages = trades(0..5);
    messages.push(message(r#"{"ts":"2024-07-01T00:00:00Z","symbol":"A","price":100,"size":1}"#));
    messages.push(message("nonsense"));
    messages.push(message(r#"{"ts":"2024-07-02T00:00:00Z","symbol":"A","price":101,"size":1}"#));
    let topic = make_topic(&brokers, messages);
    let graph = |ts_max: &str| {
        let with = format!("ts_max: {ts_max}, on_error: {{ dead_letter: letters }}");
        copy(&brokers, &topic, &with) + "  letters: { kind: jsonl, with: { path: letters.jsonl } }\n"
    };
    let flow = Flow::new("replayed", &graph("2024-06-01"));
    let mut running = flow.start(&[]);
    // The last good row waits for a later one: only then is it known that none is older.
    produce(&brokers, &topic, trades(5..6));
    until("the letters are there", &|| running.said(), || {
        flow.lines("letters.jsonl").len() == 3 && flow.lines("out.jsonl").len() >= 5
    });
    running.stop();
    let list = flow.tool(&["dead-letters", "list"], &[]);
    assert!(list.contains("is outside ts_min and ts_max") && list.contains("nonsense"), "{list}");
    let shown = flow.tool(&["dead-letters", "show"], &["1"]);
    assert!(
        shown.contains("source    trades") && shown.contains("position  6") && shown.ends_with("nonsense\n"),
        "{shown}"
    );

    flow.write(&graph("2025-01-01"));
    let dry = flow.tool(&["dead-letters", "replay"], &["0", "2", "--dry-run"]);
    assert!(dry.contains(&format!("would send 2 to topic {topic}")), "{dry}");
    let sent = flow.tool(&["dead-letters", "replay"], &["0", "2"]);
    assert!(sent.contains(&format!("sent 2 to topic {topic}")), "{sent}");
    produce(
        &brokers,
        &topic,
        vec![message(r#"{"ts":"2024-07-03T00:00:00Z","symbol":"A","price":102,"size":1}"#)],
    );
    let mut running = flow.start(&[]);
    until("the replayed are there", &|| running.said(), || flow.lines("out.jsonl").len() >= 8);
    running.stop();
    assert_eq!(prices(&flow.lines("out.jsonl"))[..8], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 100.0, 101.0]);
    assert_eq!(flow.lines("letters.jsonl").len(), 3);
}

#[test]
fn late_and_doubled_rows_go_the_way_the_graph_says() {
    let Some(brokers) = kafka() else { return };
    let _shared = BROKER.read().unwrap_or_else(|e| e.into_inner());
    let row = |(second, id): (u64, u64)| {
        message(
            json!({ "ts": (1_704_207_600 + second) * 1_000_000_000, "symbol": "A", "id": id }).to_string(),
        )
    };
    // Row 4 is late by 15 s, and row 2 comes twice.
    let topic =
        make_topic(&brokers, [(10, 1), (20, 2), (30, 3), (15, 4), (20, 2), (40, 5)].map(row).to_vec());
    let flow = Flow::new(
        "late",
        &format!(
            "vars: {{ late: admit, lateness: 0s }}\n\
             sources:\n  rows: {{ kind: kafka, with: {{ brokers: \"{brokers}\", topic: {topic}, schema: {{ ts: timestamp, symbol: symbol, id: i64 }}, stop: end, late: $late, lateness: $lateness, on_error: {{ dead_letter: letters }} }} }}\n\
             operators:\n  once: {{ kind: dedupe, from: rows, with: {{ by: [symbol, id], within: 1h }} }}\n\
             sinks:\n  all: {{ kind: jsonl, from: rows, with: {{ path: all.jsonl, existing: replace }} }}\n  each: {{ kind: jsonl, from: once, with: {{ path: each.jsonl, existing: replace }} }}\n  letters: {{ kind: jsonl, with: {{ path: letters.jsonl, existing: replace }} }}\n"
        ),
    );
    let seen = |file: &str| -> Vec<(String, i64)> {
        let short = |l: &Value| (l["ts"].as_str().unwrap()[14..19].to_owned(), l["id"].as_i64().unwrap());
        flow.lines(file).iter().map(short).collect()
    };
    let at = |rows: &[(&str, i64)]| -> Vec<(String, i64)> {
        rows.iter().map(|(ts, id)| ((*ts).to_owned(), *id)).collect()
    };
    let run = |late: &str, lateness: &str| {
        let (well, said) = flow.run(&[
            "--checkpoints",
            "off",
            "--set",
            &format!("late={late}"),
            "--set",
            &format!("lateness={lateness}"),
        ]);
        assert!(well, "{said}");
        said
    };
    run("admit", "0s");
    assert_eq!(
        seen("all.jsonl"),
        at(&[("00:10", 1), ("00:20", 2), ("00:30", 3), ("00:30", 4), ("00:30", 2), ("00:40", 5)])
    );
    assert_eq!(
        seen("each.jsonl"),
        at(&[("00:10", 1), ("00:20", 2), ("00:30", 3), ("00:30", 4), ("00:40", 5)])
    );
    run("drop", "0s");
    assert_eq!(seen("all.jsonl"), at(&[("00:10", 1), ("00:20", 2), ("00:30", 3), ("00:40", 5)]));
    assert!(flow.lines("letters.jsonl").is_empty());
    run("divert", "0s");
    assert_eq!(seen("all.jsonl"), at(&[("00:10", 1), ("00:20", 2), ("00:30", 3), ("00:40", 5)]));
    let letters = flow.lines("letters.jsonl");
    let reasons: Vec<&str> = letters.iter().map(|l| l["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["late: 15s behind the newest row", "late: 10s behind the newest row"]);
    run("drop", "15s");
    assert_eq!(
        seen("all.jsonl"),
        at(&[("00:10", 1), ("00:15", 4), ("00:20", 2), ("00:20", 2), ("00:30", 3), ("00:40", 5)])
    );
    assert_eq!(
        seen("each.jsonl"),
        at(&[("00:10", 1), ("00:15", 4), ("00:20", 2), ("00:30", 3), ("00:40", 5)])
    );
}

fn write_parquet(path: &Path, rows: &[(Option<i64>, Option<&str>, f64)]) {
    let times = TimestampNanosecondArray::from_iter(
        rows.iter().map(|r| r.0.map(|s| (1_704_207_600 + s) * 1_000_000_000)),
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("ts", Arc::new(times.with_timezone("UTC"))),
        ("symbol", Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>())),
        ("price", Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2)))),
        ("size", Arc::new(Float64Array::from_iter_values(rows.iter().map(|_| 1.0)))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None)
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn nan_prices_null_keys_and_missing_times_in_parquet_leave_the_rows_beside_them_alone() {
    let flow = Flow::new(
        "columns",
        "sources:\n  trades: { kind: parquet, with: { url: trades.parquet, on_error: { dead_letter: letters } } }\n\
         operators:\n  bars: { kind: bars, from: trades, with: { every: 1m, by: [symbol] } }\n\
         sinks:\n  out: { kind: jsonl, from: bars, with: { path: out.jsonl } }\n  letters: { kind: jsonl, with: { path: letters.jsonl } }\n",
    );
    let a = Some("A");
    let rows = [
        (Some(0), a, 1.0),
        (Some(1), a, f64::NAN),
        (Some(2), None, 9.0),
        (None, a, 9.0),
        (Some(3), a, 5.0),
        (Some(4), a, f64::INFINITY),
        (Some(5), a, 2.0),
    ];
    write_parquet(&flow.path("trades.parquet"), &rows);
    let (well, said) = flow.run(&[]);
    assert!(well && said.contains("rows with a null in a key column are left out"), "{said}");
    let bars = flow.lines("out.jsonl");
    let field = |name: &str| bars[0][name].as_f64().unwrap();
    assert_eq!(
        (bars.len(), field("open"), field("high"), field("low"), field("close"), field("trades")),
        (1, 1.0, 5.0, 1.0, 2.0, 3.0)
    );
    let letters = flow.lines("letters.jsonl");
    assert_eq!((letters.len(), letters[0]["reason"].as_str().unwrap()), (1, "ts: the event time is missing"));
}

#[test]
fn a_truncated_parquet_file_is_named_and_nothing_is_read_in_its_place() {
    let flow = Flow::new(
        "truncated",
        "sources:\n  trades: { kind: parquet, with: { url: \"in/*.parquet\" } }\nsinks:\n  out: { kind: jsonl, from: trades, with: { path: out.jsonl } }\n",
    );
    std::fs::create_dir(flow.path("in")).unwrap();
    let rows: Vec<_> = (0..5000).map(|i| (Some(i), Some("A"), i as f64 * 1.37)).collect();
    write_parquet(&flow.path("in/a.parquet"), &rows);
    write_parquet(&flow.path("in/b.parquet"), &rows);
    let whole = std::fs::read(flow.path("in/b.parquet")).unwrap();
    for cut in [0, 3, whole.len() / 2, whole.len() - 1] {
        std::fs::write(flow.path("in/b.parquet"), &whole[..cut]).unwrap();
        let (well, said) = flow.run(&[]);
        assert!(
            !well && said.contains("in/b.parquet`: the file is damaged, or not Parquet"),
            "cut at {cut}: {said}"
        );
    }
    // Its end is whole, its rows are not: that is found while it is read.
    let mut holed = whole.clone();
    holed[4..whole.len() / 2].fill(0xff);
    std::fs::write(flow.path("in/b.parquet"), &holed).unwrap();
    let (well, said) = flow.run(&[]);
    assert!(!well && said.contains("in/b.parquet`: the file is damaged, or not Parquet"), "{said}");
    // Put right, all of it is there.
    std::fs::write(flow.path("in/b.parquet"), &whole).unwrap();
    let (well, said) = flow.run(&[]);
    assert!(well, "{said}");
    assert_eq!(flow.lines("out.jsonl").len(), 10_000);
}

#[test]
fn an_empty_topic_is_no_error_and_a_missing_one_is_named() {
    let Some(brokers) = kafka() else { return };
    let _shared = BROKER.read().unwrap_or_else(|e| e.into_inner());
    let empty = Flow::new("empty", &copy(&brokers, &make_topic(&brokers, Vec::new()), "stop: end"));
    let (well, said) = empty.run(&[]);
    assert!(well, "{said}");
    assert!(empty.lines("out.jsonl").is_empty());
    let missing = Flow::new("missing", &copy(&brokers, "nobody_made_this", "stop: end"));
    let (well, said) = missing.run(&[]);
    assert!(
        !well
            && said.contains("kafka topic `nobody_made_this` does not exist at")
            && said.contains("kafka-topics --create"),
        "{said}"
    );
}

#[test]
fn a_topic_that_vanishes_is_said_and_what_came_before_is_there() {
    let Some(brokers) = kafka() else { return };
    let _shared = BROKER.read().unwrap_or_else(|e| e.into_inner());
    let topic = make_topic(&brokers, trades(0..100));
    let flow = Flow::new("vanishes", &copy(&brokers, &topic, "discover: 200ms"));
    let mut running = flow.start(&[]);
    until("rows come", &|| running.said(), || flow.lines("out.jsonl").len() >= 99);
    wait_for(admin::delete_topic(&Connection::plain(&brokers), &topic)).unwrap();
    assert_eq!(running.wait(), Some(1));
    let said = running.said();
    assert!(
        said.contains(&format!("kafka topic `{topic}` at {brokers} has vanished while it was read")),
        "{said}"
    );
    assert_eq!(prices(&flow.lines("out.jsonl"))[..99], numbers(0..99));
}

#[test]
fn a_job_outlives_a_restart_of_its_broker() {
    let Some(brokers) = kafka() else { return };
    let Some(services) = std::env::var_os("TIDEMILL_SERVICES") else {
        return skipped("the broker is not ours to restart");
    };
    let _alone = BROKER.write().unwrap_or_else(|e| e.into_inner());
    let topic = make_topic(&brokers, trades(0..1000));
    let flow = Flow::new("broker", "");
    flow.write(&format!(
        "{}  again: {{ kind: kafka, from: trades, with: {{ brokers: \"{brokers}\", topic: {}, key: [symbol] }} }}\n",
        copy(&brokers, &topic, ""),
        flow.name
    ));
    let mut running = flow.start(&[]);
    until("rows come", &|| running.said(), || flow.lines("out.jsonl").len() >= 999);
    assert!(
        Command::new(services)
            .args(["restart", "kafka"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    produce(&brokers, &topic, trades(1000..2001));
    until("the rest comes", &|| running.said(), || flow.lines("out.jsonl").len() >= 2000);
    assert!(running.runs());
    running.stop();
    assert_eq!(prices(&flow.lines("out.jsonl"))[..2000], numbers(0..2000));
    let again = wait_for(admin::read_all(&Connection::plain(&brokers), &flow.name, true)).unwrap();
    let again: Vec<Value> =
        again.iter().map(|m| serde_json::from_slice(m.payload.as_ref().unwrap()).unwrap()).collect();
    assert_eq!(prices(&again)[..2000], numbers(0..2000));
    assert!(again.len() <= 2001);
}

/// A small disk, where this machine lets us have one.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|s| s.success()).then_some(Self(path))
    }

    fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_in_the_checkpoint_store_costs_checkpoints_and_no_rows() {
    let Some(brokers) = kafka() else { return };
    let _shared = BROKER.read().unwrap_or_else(|e| e.into_inner());
    let topic = make_topic(&brokers, trades(0..101));
    let flow = Flow::new("full", &copy(&brokers, &topic, ""));
    // A place that can never be one.
    std::fs::write(flow.path("file"), "").unwrap();
    let nowhere = flow.path("file").join("checkpoints");
    let (well, said) = flow.run(&["--checkpoints", nowhere.to_str().unwrap()]);
    assert!(!well && said.contains("file/checkpoints"), "{said}");

    let Some(disk) = Disk::new(flow.path("disk")) else {
        eprintln!("no tmpfs can be mounted here: a disk that fills up while the job runs is not tested");
        return;
    };
    let args = ["--checkpoints", disk.0.to_str().unwrap()];
    let mut running = flow.start(&args);
    until("rows come", &|| running.said(), || flow.lines("out.jsonl").len() >= 100);
    disk.fill();
    until("a checkpoint fails", &|| running.said(), || {
        running.said().contains("a checkpoint has failed; the job goes on and tries again")
    });
    disk.free();
    produce(&brokers, &topic, trades(101..201));
    until("the job goes on", &|| running.said(), || flow.lines("out.jsonl").len() >= 200);
    // However long the disk stays full: rows flow, and the last checkpoint is there when it can be.
    disk.fill();
    let failed = |text: &str| text.matches("a checkpoint has failed; the job goes on").count();
    let before = failed(&running.said());
    until("checkpoints fail again", &|| running.said(), || failed(&running.said()) >= before + 2);
    produce(&brokers, &topic, trades(201..301));
    until("rows come all the same", &|| running.said(), || flow.lines("out.jsonl").len() >= 300);
    disk.free();
    running.stop();
    assert_eq!(prices(&flow.lines("out.jsonl"))[..300], numbers(0..300));
}

#[test]
fn of_two_runs_of_one_job_the_first_is_fenced_and_nothing_is_doubled() {
    let Some(brokers) = kafka() else { return };
    let _shared = BROKER.read().unwrap_or_else(|e| e.into_inner());
    let topic = make_topic(&brokers, trades(0..500));
    let flow = Flow::new("twice", "");
    flow.write(&format!(
        "{}  again: {{ kind: kafka, from: trades, with: {{ brokers: \"{brokers}\", topic: {}, key: [symbol] }} }}\n",
        copy(&brokers, &topic, ""),
        flow.name
    ));
    let mut first = flow.start(&[]);
    until("rows come", &|| first.said(), || flow.lines("out.jsonl").len() >= 499);
    let mut second = flow.start(&[]);
    produce(&brokers, &topic, trades(500..1001));
    assert_eq!(first.wait(), Some(76));
    let said = first.said();
    assert!(said.contains("has taken over"), "{said}");
    until("the second has everything", &|| second.said(), || flow.lines("out.jsonl").len() >= 1000);
    until("so has its topic", &|| second.said(), || {
        wait_for(admin::read_all(&Connection::plain(&brokers), &flow.name, true)).unwrap().len() >= 1000
    });
    second.stop();
    assert_eq!(prices(&flow.lines("out.jsonl"))[..1000], numbers(0..1000));
    let again = wait_for(admin::read_all(&Connection::plain(&brokers), &flow.name, true)).unwrap();
    let again: Vec<Value> =
        again.iter().map(|m| serde_json::from_slice(m.payload.as_ref().unwrap()).unwrap()).collect();
    assert_eq!(prices(&again)[..1000], numbers(0..1000));
    assert!(again.len() <= 1001);
}
