//! The Alpaca sink and the account's source against a local venue: each fault by itself, and the account's reports under kills.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};
use tidemill_connectors::broker::journal::{Entry, FILE, Outcome, Record};
use tidemill_connectors::broker::lines::Lines;
use tidemill_engine::component::{SinkKind, SinkPlan, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;
use tidemill_engine::sink::{SinkContext, SinkWriter};
use tidemill_sinks::alpaca::Alpaca;
use tidemill_sinks::conformance;
use tidemill_tests::alpaca_server::{AlpacaServer, Fate, Faults, KEY, SECRET};
use tidemill_tests::patience::hang_guard;
use tidemill_tests::*;
use tidemill_trading::Decimal;

#[path = "alpaca/closing.rs"]
mod closing;
#[path = "alpaca/late.rs"]
mod late;

const A: &str = "000000000000000000000000000000aa";
const B: &str = "000000000000000000000000000000bb";

/// Rows of an order stream, from objects; `seq` of the first.
fn rows(first: u64, objects: &[Value]) -> RecordBatch {
    let texts = ["event", "order_id", "symbol", "side", "type", "time_in_force"];
    let mut fields: Vec<Arc<Field>> =
        texts.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8, true))).collect();
    fields.extend(["quantity", "price"].map(|name| Arc::new(Field::new(name, DataType::Float64, true))));
    let flags = ["post_only", "reduce_only"];
    fields.extend(flags.map(|name| Arc::new(Field::new(name, DataType::Boolean, true))));
    let n = objects.len();
    let mut columns: Vec<ArrayRef> = vec![
        row::ts_array((0..n as i64).map(|i| 1_704_207_600_000_000_000 + first as i64 + i).collect()),
        row::u64_array(vec![7; n]),
        row::u64_array((first..first + n as u64).collect()),
    ];
    for name in texts {
        columns.push(Arc::new(objects.iter().map(|o| o[name].as_str()).collect::<StringArray>()));
    }
    for name in ["quantity", "price"] {
        columns.push(Arc::new(objects.iter().map(|o| o[name].as_f64()).collect::<Float64Array>()));
    }
    for name in flags {
        columns.push(Arc::new(objects.iter().map(|o| o[name].as_bool()).collect::<BooleanArray>()));
    }
    RecordBatch::try_new(row::stream_schema(&fields), columns).unwrap()
}

fn market(id: &str, symbol: &str, quantity: i64) -> Value {
    json!({ "event": "order", "order_id": id, "symbol": symbol, "side": "buy", "type": "market", "time_in_force": "day",
        "quantity": quantity })
}

fn limit(id: &str, quantity: i64) -> Value {
    json!({ "event": "order", "order_id": id, "symbol": "SPY", "side": "sell", "type": "limit", "time_in_force": "gtc",
        "quantity": quantity, "price": 101.5 })
}

fn plan(base: &Path, url: &str, more: Value) -> SinkPlan {
    let mut with = json!({ "url": url, "key": KEY, "secret": SECRET, "max_age": "0s", "timeout": "200ms",
        "give_up_after": "5s", "requests_per_minute": 100_000 });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let input = StreamInfo { name: "orders".into(), schema: rows(0, &[]).schema() };
    let params = serde_json::from_value(with).unwrap();
    Alpaca::plan(params, &input, &conformance::plan_context(base)).map_err(|e| format!("{e:?}")).unwrap()
}

async fn open(base: &Path, url: &str, more: Value) -> Result<Box<dyn SinkWriter>, ConnectorError> {
    let cx = SinkContext { schema: rows(0, &[]).schema(), ..conformance::context(base, 0, Vec::new()) };
    plan(base, url, more).sink.open(cx).await
}

/// What the journal says came of each request, in its order: key and `taken` or the reason.
fn outcomes(base: &Path) -> Vec<(String, String)> {
    let (_, entries) = Lines::open::<Entry>(&base.join(".tidemill/job/alpaca").join(FILE)).unwrap();
    let outcomes = entries.into_iter().filter_map(|entry| match entry.record {
        Record::Outcome { asked, outcome: Outcome::Accepted(_) } => Some((asked.key, "taken".to_owned())),
        Record::Outcome { asked, outcome: Outcome::Rejected(reason) } => Some((asked.key, reason)),
        _ => None,
    });
    outcomes.collect()
}

#[tokio::test]
async fn each_fault_by_itself_leaves_one_order() {
    for fate in [
        Fate::Fine,
        Fate::TakenThenCut,
        Fate::Cut,
        Fate::TakenThen500,
        Fate::Unavailable,
        Fate::TakenThenSilence,
        Fate::LateArrival,
        Fate::TooMany,
        Fate::HalfAnswer,
    ] {
        let folder = tempfile::tempdir().unwrap();
        // Twice in a row: what meets the second try too.
        let venue = AlpacaServer::start(Faults::then(&[fate, fate])).await.unwrap();
        let mut writer = open(folder.path(), &venue.url(), json!({})).await.unwrap();
        writer.write(rows(0, &[market(A, "SPY", 5)])).await.unwrap();
        // What is late has come by then.
        tokio::time::sleep(Duration::from_millis(if fate == Fate::LateArrival { 500 } else { 0 })).await;
        let book = venue.book().clone();
        assert_eq!((book.orders.len(), book.positions["SPY"]), (1, 5.into()), "{fate:?}");
        assert_eq!(outcomes(folder.path()), [(A.to_owned(), "taken".to_owned())], "{fate:?}");
        // The same for a change and a cancel.
        writer.write(rows(10, &[limit(B, 10)])).await.unwrap();
        for (event, fates) in [("modify", [fate, Fate::Fine]), ("cancel", [fate, Fate::Fine])] {
            venue.set_faults(Faults::then(&fates));
            let change =
                json!({ "event": event, "order_id": B, "symbol": "SPY", "quantity": 12, "price": 102 });
            writer.write(rows(20, &[change])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(if fate == Fate::LateArrival { 500 } else { 0 })).await;
        }
        let book = venue.book().clone();
        let shown: Vec<String> = book.orders.iter().map(|o| format!("{} {}", o.qty, o.status)).collect();
        assert_eq!(shown, ["5 filled", "10 replaced", "12 canceled"], "{fate:?}");
    }
}

#[tokio::test]
async fn refusals_are_reported_and_take_nothing_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let venue = AlpacaServer::start(Faults::none()).await.unwrap();
    let mut writer = open(folder.path(), &venue.url(), json!({})).await.unwrap();
    let id = |n: u32| format!("{n:032x}");
    let mut post_only = limit(&id(3), 1);
    post_only["post_only"] = json!(true);
    let mut nonsense = market(&id(4), "SPY", 1);
    nonsense["quantity"] = json!(-1);
    let unknown = json!({ "event": "cancel", "order_id": id(9), "symbol": "SPY" });
    let filled = json!({ "event": "cancel", "order_id": id(5), "symbol": "SPY" });
    let all = [
        market(&id(1), "POOR", 1),
        market(&id(2), "NONE", 1),
        post_only,
        nonsense,
        market(&id(5), "SPY", 2),
        unknown,
        filled,
    ];
    writer.write(rows(0, &all)).await.unwrap();
    let said = outcomes(folder.path());
    let reason = |key: &str| {
        &said.iter().find(|(k, _)| k.starts_with(key)).unwrap_or_else(|| panic!("{key}: {said:?}")).1
    };
    assert!(reason(&id(1)).contains("insufficient buying power: the order is worth more"), "{said:?}");
    assert!(reason(&id(2)).contains("not found"), "{said:?}");
    assert!(reason(&id(3)).contains("no post-only"), "{said:?}");
    assert!(reason(&id(4)).contains("quantity: -1 is not above zero"), "{said:?}");
    assert_eq!(reason(&id(5)), "taken");
    assert!(reason(&format!("{}~", id(9))).contains("no order of this name"), "{said:?}");
    // There is nothing to be taken back, which is what was wanted; the fill is told by the account's source.
    assert_eq!(reason(&format!("{}~", id(5))), "taken");
    assert_eq!(venue.book().orders.len(), 1);
    // Rows that come again, in a run that starts from the last checkpoint.
    drop(writer);
    let mut writer = open(folder.path(), &venue.url(), json!({})).await.unwrap();
    writer.write(rows(0, &all)).await.unwrap();
    assert_eq!((outcomes(folder.path()), venue.book().orders.len()), (said, 1));
    // Too old.
    let mut old = {
        drop(writer);
        open(folder.path(), &venue.url(), json!({ "max_age": "1m" })).await.unwrap()
    };
    old.write(rows(50, &[market(&id(6), "SPY", 1)])).await.unwrap();
    let (key, why) = outcomes(folder.path()).pop().unwrap();
    assert!(key == id(6) && why.contains("max_age is 60 s"), "{why}");
    assert_eq!(venue.book().orders.len(), 1);
}

#[tokio::test]
async fn what_ends_a_run_leaves_the_order_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let venue = AlpacaServer::start(Faults::none()).await.unwrap();
    // Keys that the venue does not know: the run stops, nothing was refused.
    let mut writer = open(folder.path(), &venue.url(), json!({ "secret": "wrong-one" })).await.unwrap();
    let error = writer.write(rows(0, &[market(A, "SPY", 5)])).await.unwrap_err();
    assert!(matches!(&error, ConnectorError::Fatal(m) if m.contains("check `key` and `secret`")), "{error}");
    assert!(!error.to_string().contains("wrong-one"));
    drop(writer);
    // A venue that never says: the run ends and starts again.
    let mut silent = Faults::then(&[Fate::TakenThenCut]);
    silent.deaf_percent = 100;
    venue.set_faults(silent);
    let more = json!({ "give_up_after": "300ms" });
    let error = open(folder.path(), &venue.url(), more.clone()).await.err().unwrap();
    assert!(matches!(&error, ConnectorError::Transient(m) if m.contains("has not said")), "{error}");
    venue.set_faults(Faults::none());
    // Another run writes.
    let mut writer = open(folder.path(), &venue.url(), more).await.unwrap();
    let second = open(folder.path(), &venue.url(), json!({})).await.err().unwrap();
    assert!(matches!(&second, ConnectorError::Transient(m) if m.contains("another run")), "{second}");
    writer.write(rows(0, &[market(A, "SPY", 5)])).await.unwrap();
    let book = venue.book().clone();
    assert_eq!((book.orders.len(), book.positions["SPY"]), (1, 5.into()));
    // The journal is lost: the venue's word remains.
    drop(writer);
    std::fs::remove_dir_all(folder.path().join(".tidemill")).unwrap();
    let mut writer = open(folder.path(), &venue.url(), json!({})).await.unwrap();
    writer.write(rows(0, &[market(A, "SPY", 5)])).await.unwrap();
    let book = venue.book().clone();
    assert_eq!((book.orders.len(), book.duplicates), (1, 1));
    assert_eq!(outcomes(folder.path()), [(A.to_owned(), "taken".to_owned())]);
    // A change of an order that only the venue knows.
    writer.write(rows(5, &[limit(B, 4)])).await.unwrap();
    drop(writer);
    std::fs::remove_dir_all(folder.path().join(".tidemill")).unwrap();
    let mut writer = open(folder.path(), &venue.url(), json!({})).await.unwrap();
    let change = json!({ "event": "modify", "order_id": B, "symbol": "SPY", "quantity": 6 });
    let cancel = json!({ "event": "cancel", "order_id": B, "symbol": "SPY" });
    writer.write(rows(6, &[change, cancel])).await.unwrap();
    let last = venue.book().orders.last().cloned().unwrap();
    assert_eq!((last.qty, last.status.as_str()), (6.into(), "canceled"));
}

/// Given a journal in object storage and a machine that dies with an order at the venue and no answer, when another machine goes on with
/// an empty disk, then it knows of the order; and the first one, should it live, can send nothing more.
#[tokio::test]
async fn another_machine_goes_on_with_a_journal_in_object_storage() {
    let Some((_, bucket)) = s3() else { return };
    let venue = AlpacaServer::start(Faults::none()).await.unwrap();
    let machines = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let unique = machines[0].path().file_name().unwrap().to_str().unwrap();
    let journal = format!("s3://{bucket}/journals/{unique}-{}", std::process::id());
    let more = json!({ "journal": journal, "give_up_after": "300ms" });
    let at = |machine: usize, generation| {
        let base = machines[machine].path();
        let cx = conformance::context(base, 0, Vec::new());
        let cx = SinkContext { schema: rows(0, &[]).schema(), generation, ..cx };
        let sink = plan(base, &venue.url(), more.clone()).sink;
        async move { sink.open(cx).await }
    };
    let mut first = at(0, 1).await.unwrap();
    // It was taken, and no answer came; the venue says nothing of it either.
    let mut silent = Faults::then(&[Fate::TakenThenCut]);
    silent.deaf_percent = 100;
    venue.set_faults(silent);
    let error = first.write(rows(0, &[market(A, "SPY", 5)])).await.unwrap_err();
    assert!(matches!(error, ConnectorError::Transient(_)), "{error}");
    venue.set_faults(Faults::none());
    let mut second = at(1, 2).await.unwrap();
    second.write(rows(0, &[market(A, "SPY", 5)])).await.unwrap();
    let book = venue.book().clone();
    // Found, not sent again: the venue had no second one to refuse.
    assert_eq!((book.orders.len(), book.duplicates), (1, 0));
    let error = first.write(rows(1, &[market(B, "SPY", 7)])).await.unwrap_err();
    assert!(matches!(error, ConnectorError::Fenced(_)), "{error}");
    let error = at(0, 1).await.err().unwrap();
    assert!(matches!(error, ConnectorError::Fenced(_)), "{error}");
    second.write(rows(1, &[market(B, "SPY", 7)])).await.unwrap();
    assert_eq!(venue.book().orders.len(), 2);
    for machine in &machines {
        assert!(std::fs::read_dir(machine.path()).unwrap().next().is_none(), "nothing is on its disk");
    }
}

/// The same as [`conformance::check_sink`] asks of sinks that keep rows: whatever crashes, wherever, each order is there once.
#[tokio::test]
async fn whatever_crashes_and_comes_again_each_order_is_there_once() {
    for crash in 0..8 {
        let folder = tempfile::tempdir().unwrap();
        let venue = AlpacaServer::start(Faults::wild(crash)).await.unwrap();
        let batch = |step: u64| {
            let id = |n: u64| format!("{:032x}", step * 100 + n);
            let changes = [("modify", 9), ("cancel", 0)].map(
                |(event, qty)| json!({ "event": event, "order_id": id(2), "symbol": "SPY", "quantity": qty, "price": 5 }),
            );
            let [modify, cancel] = changes;
            rows(step * 10, &[market(&id(1), "IBM", 3), limit(&id(2), 7), modify, cancel])
        };
        let (mut step, mut crashed) = (0, false);
        while step < 3 {
            let mut writer = open(folder.path(), &venue.url(), json!({})).await.unwrap();
            while step < 3 {
                let writing = writer.write(batch(step));
                if crash > 3 && step == 1 && !crashed {
                    crashed = true;
                    // Dropped in its middle, as a process that ends.
                    let _ = tokio::time::timeout(Duration::from_millis(10 * (crash - 3)), writing).await;
                    break;
                }
                writing.await.unwrap();
                if crash <= 3 && step == 1 && !crashed {
                    crashed = true;
                    if crash > 1 {
                        writer.checkpoint(step).await.unwrap();
                    }
                    // The checkpoint was not committed: its rows come again.
                    step -= u64::from(crash % 2 == 1);
                    break;
                }
                writer.checkpoint(step).await.unwrap();
                writer.committed(step).await.unwrap();
                step += 1;
            }
        }
        let guard = hang_guard();
        while venue.book().orders.len() < 9 {
            guard.check(|| "what was late does not come".to_owned());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // A second order for one of them would have come by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let book = venue.book().clone();
        let canceled = book.orders.iter().filter(|o| o.status == "canceled").count();
        assert_eq!((book.orders.len(), book.positions["IBM"], canceled), (9, 9.into(), 3), "crash {crash}");
    }
}

#[tokio::test]
async fn a_dry_run_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let venue = AlpacaServer::start(Faults::none()).await.unwrap();
    let mut writer = open(folder.path(), &venue.url(), json!({ "dry_run": true })).await.unwrap();
    writer.write(rows(0, &[market(A, "SPY", 5), limit(B, 1)])).await.unwrap();
    writer.close().await.unwrap();
    assert!(venue.requests().is_empty() && !folder.path().join(".tidemill").exists());
}

/// A job that writes an account's reports into a file.
struct Account {
    folder: tempfile::TempDir,
}

impl Account {
    fn new(venue: &AlpacaServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = venue.url();
        let graph = format!(
            r#"
dataflow: account
version: 1
sources:
  reports:
    kind: alpaca_account
    with: {{ url: "{url}", key: {KEY}, secret: {SECRET}, timeout: 500ms, requests_per_minute: 100000, snapshot_every: 300ms }}
operators:
  said: {{ kind: select, from: reports, with: {{ sql: "*", where: "event <> 'heartbeat'" }} }}
sinks:
  file: {{ kind: jsonl, from: said, with: {{ path: said.jsonl, origin: true }} }}
"#
        );
        std::fs::write(folder.path().join("graph.yaml"), graph).unwrap();
        Self { folder }
    }

    fn start(&self, fault: Option<&str>) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(self.folder.path().join("graph.yaml"));
        command.args(["--progress", "off", "--checkpoint-every", "50ms"]).env_remove("TIDEMILL_FAULT");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(fault) = fault {
            command.env("TIDEMILL_FAULT", fault);
        }
        command.spawn().unwrap()
    }

    fn said(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("said.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the last snapshot came after everything that `done` looks for.
    fn wait(&self, what: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let guard = hang_guard();
        loop {
            let said = self.said();
            if done(&said) {
                return said;
            }
            if guard.is_over() {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let shown = &lines[lines.len().saturating_sub(40)..];
                panic!("{what} did not come\n{}\n{said:#?}", shown.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn amount(value: &Value) -> i64 {
    let text = value.as_str().unwrap_or("0");
    text.split('.').next().unwrap().parse().unwrap()
}

/// The position of a symbol as a reader of the reports has it, and what each snapshot said it was when it came: the reader's
/// own sum must be the same. A snapshot of a new run is taken as it is.
fn read(said: &[Value]) -> (i64, usize) {
    let (mut position, mut snapshot, mut snapshots) = (0, None, 0);
    let mut fills = std::collections::BTreeSet::new();
    for row in said {
        match row["event"].as_str().unwrap() {
            "filled" => {
                let fill = row["fill_id"].as_str().unwrap().to_owned();
                assert!(fills.insert(fill.clone()), "fill {fill} came twice");
                let signed = if row["side"] == "buy" { 1 } else { -1 };
                position += signed * amount(&row["fill_quantity"]);
            }
            "snapshot_begin" => snapshot = Some(0),
            "snapshot_position" => snapshot = Some(amount(&row["quantity"])),
            "snapshot_end" => {
                let told = snapshot.take().unwrap();
                assert!(
                    snapshots == 0 || told == position,
                    "{told} in snapshot {snapshots}, {position} by fills"
                );
                (position, snapshots) = (told, snapshots + 1);
            }
            _ => {}
        }
    }
    (position, snapshots)
}

#[test]
fn whatever_is_killed_or_lost_each_report_comes_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for seed in 0..2 {
        let venue = runtime.block_on(AlpacaServer::start(Faults::none())).unwrap();
        let post = |id: &str, kind: &str, side: &str, qty: i64| {
            let order = json!({ "client_order_id": id, "symbol": "SPY", "qty": qty.to_string(), "type": kind, "side": side,
                "time_in_force": "day", "limit_price": "100.00" });
            let told = venue.book().post(&order).1;
            venue.tell(told);
        };
        // Before anybody listened: only the snapshot tells of it.
        post(&format!("{:032x}", 1), "market", "buy", 10);
        post(&format!("{:032x}", 2), "limit", "buy", 5);
        let account = Account::new(&venue);
        let mut child = account.start(None);
        let said =
            account.wait("the first snapshot", |said| said.iter().any(|r| r["event"] == "snapshot_end"));
        assert_eq!(said[0]["event"], "snapshot_begin");
        assert!(
            said.iter().any(|r| r["event"] == "snapshot_order" && r["order_id"] == format!("{:032x}", 2))
        );
        assert_eq!(read(&said).0, 10);
        let mut faults = Faults::wild(seed);
        faults.dropped_percent = 20;
        venue.set_faults(faults);
        let mut rng = Rng(seed);
        for n in 0..30u64 {
            let id = format!("{:032x}", 100 + n);
            if rng.within(0..2) == 0 {
                post(
                    &id,
                    "market",
                    if rng.within(0..3) > 0 { "buy" } else { "sell" },
                    rng.within(1..20) as i64,
                );
            } else {
                post(&id, "limit", "sell", 6);
                venue.fill(&id, 2, "100.01");
                if rng.within(0..2) == 0 {
                    venue.fill(&id, 4, "100.02");
                } else {
                    venue.end(&id, "canceled");
                }
            }
            match rng.within(0..6) {
                0 => venue.cut(),
                1 => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    child = account.start(None);
                }
                2 if n < 25 => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    // Killed again, as it has logged what it is about to tell.
                    let mut again = account.start(Some("report-logged:1"));
                    let since = Instant::now();
                    while again.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_millis(600)
                    {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    let _ = again.kill();
                    again.wait().unwrap();
                    child = account.start(None);
                }
                _ => std::thread::sleep(Duration::from_millis(rng.within(0..60))),
            }
        }
        venue.set_faults(Faults::none());
        let book = venue.book().clone();
        let fills = book.fills.len() - 2;
        let over = book.orders.iter().filter(|o| o.status == "canceled").count();
        let all_there = |said: &[Value]| {
            let count = |event: &str| said.iter().filter(|r| r["event"] == event).count();
            count("filled") >= fills
                && count("canceled") >= over
                && said.last().is_some_and(|r| r["event"] == "snapshot_end")
        };
        let said = account.wait("all reports", all_there);
        let (position, snapshots) = read(&said);
        assert_eq!(Decimal::from(position), book.positions["SPY"]);
        let count = |event: &str| said.iter().filter(|r| r["event"] == event).count();
        assert_eq!((count("filled"), count("canceled")), (fills, over));
        // Each order was told to be there once, in the order of `ts` and `_seq`.
        assert_eq!(count("accepted"), 30);
        let order: Vec<(&str, u64)> =
            said.iter().map(|r| (r["ts"].as_str().unwrap(), r["_seq"].as_u64().unwrap())).collect();
        assert!(order.windows(2).all(|w| w[0].1 < w[1].1), "rows are not in their order");
        eprintln!("seed {seed}: {} rows, {fills} fills, {snapshots} snapshots", said.len());
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let status = child.wait().unwrap();
        // It may have been told to stop before it could hear it.
        use std::os::unix::process::ExitStatusExt;
        assert!(status.success() || status.signal() == Some(15), "{status}");
    }
}
