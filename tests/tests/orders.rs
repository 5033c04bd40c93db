//! Orders to a broker under `kill -9`, against a local venue that drops, delays, cuts, answers 5xx, and takes orders without saying so:
//! none is doubled, none is lost, and the positions are the venue's, every time.
//!
//! A round starts a job, kills it (at a named step, at a request as the venue gets or has taken it, or at any instant), starts it again, and so
//! on until it has ended by itself; then the venue's books are compared. `TIDEMILL_KILLS` says how many kills there are,
//! `TIDEMILL_SEED` where their series begins.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill_tests::alpaca_server::{AlpacaServer, Faults, KEY, SECRET};
use tidemill_tests::patience::hang_guard;
use tidemill_tests::*;
use tidemill_trading::Decimal;

/// Kills of one job; then it may end.
const KILLS_PER_ROUND: usize = 6;

/// When the process is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    /// Between two steps whose order matters.
    At(&'static str),
    /// As the venue gets a request that changes something, and has not taken it.
    Before(&'static str),
    /// As the venue has taken it, and has not answered.
    After(&'static str),
    /// At any instant.
    Instant,
}

/// Taken in turn. What a reconciliation meets has to be left behind first.
const KILLS: [Kill; 20] = [
    Kill::At("order-before-journal"),
    Kill::At("order-journalled"),
    Kill::At("order-reconcile"),
    Kill::At("order-before-send"),
    Kill::After("POST"),
    Kill::At("order-reconciled"),
    Kill::At("order-answered"),
    Kill::At("order-reconcile"),
    Kill::At("order-concluded"),
    Kill::Instant,
    Kill::Before("POST"),
    Kill::At("order-reconciled"),
    Kill::At("change-journalled"),
    Kill::At("order-reconcile"),
    Kill::After("PATCH"),
    Kill::At("sink-checkpointed"),
    Kill::After("DELETE"),
    Kill::At("before-manifest"),
    Kill::At("after-manifest"),
    Kill::Instant,
];

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// An order's name.
fn name(round: u64, n: u64) -> String {
    let mut rng = Rng(round << 32 | n);
    format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64())
}

/// What a job asks for, and what the venue must have at its end.
#[derive(Default)]
struct Plan {
    lines: Vec<Value>,
    /// Units by symbol.
    positions: BTreeMap<String, Decimal>,
    /// Of each order name: units of the last order under it, its status, and how many orders there were.
    orders: BTreeMap<String, (Decimal, &'static str, usize)>,
}

impl Plan {
    /// Orders of all kinds: those that fill, those that wait, are changed once or twice and cancelled, and those that are refused; at the end
    /// every other position is closed by a reduce-only order.
    fn new(round: u64) -> Self {
        let mut rng = Rng(round.wrapping_mul(77) + 5);
        let mut plan = Self::default();
        let mut ts = 1_704_207_600_000_000_000i64;
        let symbols = ["SPY", "BAC", "IBM", "AIG"];
        for n in 0..18 {
            let (id, symbol) = (name(round, n), symbols[rng.within(0..4) as usize]);
            let (buys, quantity) = (rng.within(0..3) > 0, rng.within(1..100) as i64);
            let side = if buys { "buy" } else { "sell" };
            let mut row = |more: Value| {
                ts += 1_000_000;
                let mut row = json!({ "ts": ts / 1_000_000, "event": "order", "order_id": id, "symbol": symbol, "side": side,
                    "type": "market", "time_in_force": "day", "quantity": quantity, "price": null });
                row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                plan.lines.push(row);
            };
            match rng.within(0..6) {
                0..3 => {
                    row(json!({}));
                    *plan.positions.entry(symbol.into()).or_default() +=
                        Decimal::from(if buys { quantity } else { -quantity });
                    plan.orders.insert(id.clone(), (quantity.into(), "filled", 1));
                }
                3 => {
                    row(json!({ "type": "limit", "price": 99.5, "time_in_force": "gtc" }));
                    row(json!({ "event": "modify", "quantity": quantity + 3, "price": 98.25 }));
                    row(json!({ "event": "position" }));
                    row(json!({ "event": "modify", "quantity": quantity + 5, "price": 97 }));
                    plan.orders.insert(id.clone(), ((quantity + 5).into(), "new", 3));
                }
                4 => {
                    row(json!({ "type": "limit", "price": 99.5, "time_in_force": "gtc" }));
                    row(json!({ "event": "modify", "quantity": quantity + 1, "price": 98 }));
                    row(json!({ "event": "cancel" }));
                    plan.orders.insert(id.clone(), ((quantity + 1).into(), "canceled", 2));
                }
                _ => row(json!({ "symbol": "POOR" })),
            }
        }
        for (n, (symbol, held)) in plan.positions.iter_mut().filter(|(_, held)| !held.is_zero()).enumerate() {
            if n % 2 == 1 {
                continue;
            }
            ts += 1_000_000;
            let (id, side) =
                (name(round, 100 + n as u64), if *held > Decimal::ZERO { "sell" } else { "buy" });
            plan.lines.push(json!({ "ts": ts / 1_000_000, "event": "order", "order_id": id, "symbol": symbol, "side": side,
                "type": "market", "time_in_force": "gtc", "quantity": held.abs().to_string().parse::<i64>().unwrap(),
                "price": null, "reduce_only": true }));
            plan.orders.insert(id, (held.abs(), "filled", 1));
            *held = Decimal::ZERO;
        }
        plan
    }

    /// What the venue's books have that they should not have, or do not have that they should.
    fn differs(&self, venue: &AlpacaServer) -> Option<String> {
        let book = venue.book();
        let mut found: BTreeMap<String, (Decimal, &str, usize)> = BTreeMap::new();
        for order in &book.orders {
            let name = order.client_id.split('-').next().unwrap().to_owned();
            let entry = found.entry(name).or_insert((Decimal::ZERO, "", 0));
            if order.replaced_by.is_none() {
                (entry.0, entry.1) = (order.qty, &order.status);
            }
            entry.2 += 1;
        }
        for (id, wanted) in &self.orders {
            match found.remove(id) {
                Some(found) if found == *wanted => {}
                found => return Some(format!("order {id}: {found:?} where {wanted:?} should be")),
            }
        }
        if let Some((id, found)) = found.into_iter().next() {
            return Some(format!("order {id} was never asked for: {found:?}"));
        }
        let held = |all: &BTreeMap<String, Decimal>| -> BTreeMap<String, Decimal> {
            all.iter().filter(|(_, qty)| !qty.is_zero()).map(|(s, q)| (s.clone(), *q)).collect()
        };
        let (ours, theirs) = (held(&self.positions), held(&book.positions));
        (ours != theirs).then(|| format!("positions: {theirs:?} where {ours:?} should be"))
    }
}

struct Job {
    folder: PathBuf,
}

impl Job {
    fn new(folder: &Path, plan: &Plan, url: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let lines: String = plan.lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(folder.join("orders.jsonl"), lines).unwrap();
        let graph = format!(
            r#"
dataflow: orders
version: 1
sources:
  wishes:
    kind: jsonl
    with:
      url: orders.jsonl
      event_time_unit: ms
      schema: {{ ts: i64, event: symbol, order_id: string, symbol: symbol, side: symbol?, type: symbol?, time_in_force: symbol?,
        quantity: f64?, price: f64?, reduce_only: bool? }}
sinks:
  broker:
    kind: alpaca
    from: wishes
    with: {{ url: "{url}", key: {KEY}, secret: {SECRET}, max_age: 0s, timeout: 250ms, requests_per_minute: 100000 }}
"#
        );
        std::fs::write(folder.join("graph.yaml"), graph).unwrap();
        Self { folder: folder.to_owned() }
    }

    fn start(&self, fault: Option<&str>) -> Child {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(self.folder.join("graph.yaml"));
        command.args([
            "--progress",
            "off",
            "--checkpoint-every",
            "30ms",
            "--chunk-rows",
            "3",
            "--in-flight-rows",
            "6",
        ]);
        command.env("RUST_LOG", "info").env_remove("TIDEMILL_FAULT").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(fault) = fault {
            command.env("TIDEMILL_FAULT", fault);
        }
        command.spawn().unwrap()
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// Waits for a child's end; `None` where `limit` passes first, or where it hangs.
fn wait(child: &Mutex<Child>, limit: Option<Duration>) -> Option<ExitStatus> {
    let (since, guard) = (Instant::now(), hang_guard());
    loop {
        if let Some(status) = child.lock().unwrap().try_wait().unwrap() {
            return Some(status);
        }
        if limit.map_or_else(|| guard.is_over(), |limit| since.elapsed() > limit) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a job, killed as `kill` says; whether it was killed (else it has ended).
fn run(job: &Job, venue: &AlpacaServer, kill: Option<Kill>, rng: &mut Rng) -> bool {
    let nth = rng.within(1..4);
    let fault = match kill {
        // A restart meets few of them.
        Some(Kill::At(point)) if point.contains("reconcile") => Some(format!("{point}:1")),
        Some(Kill::At(point)) => Some(format!("{point}:{nth}")),
        _ => None,
    };
    let child = Arc::new(Mutex::new(job.start(fault.as_deref())));
    let killed = Arc::new(AtomicBool::new(false));
    if let Some(Kill::Before(method) | Kill::After(method)) = kill {
        let wanted = if matches!(kill, Some(Kill::Before(_))) { "before" } else { "after" };
        let (child, killed, seen) = (child.clone(), killed.clone(), Mutex::new(0));
        venue.watch(move |moment, this, _| {
            if moment == wanted && this == method {
                let mut seen = seen.lock().unwrap();
                *seen += 1;
                if *seen == nth {
                    let _ = child.lock().unwrap().kill();
                    killed.store(true, Ordering::SeqCst);
                }
            }
        });
    }
    let limit = (kill == Some(Kill::Instant)).then(|| Duration::from_millis(rng.within(0..700)));
    let status = match wait(&child, limit) {
        Some(status) => status,
        None => {
            assert_eq!(kill, Some(Kill::Instant), "it hangs\n{}", job.log());
            child.lock().unwrap().kill().unwrap();
            killed.store(true, Ordering::SeqCst);
            wait(&child, None).unwrap()
        }
    };
    venue.unwatch();
    use std::os::unix::process::ExitStatusExt;
    let aborted = status.signal() == Some(6) && fault.is_some();
    assert!(
        status.success() || aborted || killed.load(Ordering::SeqCst),
        "{kill:?}: {status}\n{}",
        job.log()
    );
    !status.success()
}

#[test]
fn whatever_is_killed_each_order_is_at_the_venue_once() {
    let (seed, wanted) = (number("TIDEMILL_SEED", 0), number("TIDEMILL_KILLS", 20));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mut kills, mut turn, mut round, mut unknown) = (0, 0, 0, 0);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let began = Instant::now();
    // A step that a run does not come to ends its round.
    while kills < wanted && round < wanted * 3 + 10 {
        let this = seed + round;
        let venue = runtime.block_on(AlpacaServer::start(Faults::wild(this))).unwrap();
        let plan = Plan::new(this);
        let job = Job::new(&folder.path().join(format!("round{round}")), &plan, &venue.url());
        let mut rng = Rng(this.wrapping_mul(0x9e37_79b9) + 1);
        let (mut here, mut story) = (0, Vec::new());
        while kills < wanted && here < KILLS_PER_ROUND {
            let kill = KILLS[((seed + turn) % KILLS.len() as u64) as usize];
            turn += 1;
            let was_killed = run(&job, &venue, Some(kill), &mut rng);
            if !was_killed {
                story.push(format!("{kill:?} not met"));
                break;
            }
            (kills, here) = (kills + 1, here + 1);
            story.push(format!("{kill:?}"));
            *counts.entry(format!("{kill:?}")).or_default() += 1;
        }
        // Undisturbed to its end; an ended job that is started again asks for all of it again.
        run(&job, &venue, None, &mut rng);
        if round % 4 == 0 {
            run(&job, &venue, None, &mut rng);
        }
        unknown += venue.book().duplicates;
        if let Some(difference) = plan.differs(&venue) {
            let kept = folder.keep();
            panic!(
                "round {round} (TIDEMILL_SEED={this}): {difference}\n{story:?}\nfiles are in {}/round{round}\n{}",
                kept.display(),
                job.log()
            );
        }
        round += 1;
    }
    assert!(kills >= wanted, "only {kills} of {wanted} kills were met");
    eprintln!(
        "{kills} kills in {round} rounds, {} s: 0 doubled, 0 lost; the venue refused {unknown} second sendings: {counts:?}",
        began.elapsed().as_secs()
    );
}

/// A graph that decides by itself: signals and prices, the account's reports, `execution`, and its orders back to the venue.
fn strategy(folder: &Path, url: &str, first_ns: i64) -> (PathBuf, BTreeMap<&'static str, i64>) {
    std::fs::create_dir_all(folder).unwrap();
    let mut rng = Rng(first_ns as u64);
    let mut targets = BTreeMap::new();
    let mut lines = String::new();
    for n in 0..40 {
        let symbol = ["SPY", "IBM"][n as usize % 2];
        let target = rng.within(1..50) as i64;
        targets.insert(symbol, target);
        let row = json!({ "ts": first_ns / 1_000_000 + n * 50, "symbol": symbol, "price": 100.0, "size": 1.0, "target": target });
        lines.push_str(&format!("{row}\n"));
    }
    std::fs::write(folder.join("wishes.jsonl"), lines).unwrap();
    let access = format!("url: \"{url}\", key: {KEY}, secret: {SECRET}, requests_per_minute: 100000");
    let graph = format!(
        r#"
dataflow: strategy
version: 1
sources:
  wishes:
    kind: jsonl
    with: {{ url: wishes.jsonl, event_time_unit: ms, schema: {{ ts: i64, symbol: symbol, price: f64, size: f64, target: f64 }} }}
  reports: {{ kind: alpaca_account, with: {{ {access}, timeout: 500ms, snapshot_every: 400ms }} }}
operators:
  execution:
    kind: execution
    from: [wishes, reports]
    with:
      signals: wishes
      market: [wishes]
      reports: reports
      venue: {{ kind: external }}
      sizing: {{ equity: 0.1 }}
      account: {{ cash: {{ USD: 1000000 }} }}
  fills: {{ kind: select, from: execution, with: {{ sql: "fill_id, symbol, side, fill_quantity", where: "event = 'fill'" }} }}
  told: {{ kind: select, from: execution, with: {{ sql: "*", where: "event NOT IN ('fill', 'equity', 'position')" }} }}
sinks:
  broker: {{ kind: alpaca, from: execution, with: {{ {access}, timeout: 250ms, max_age: 0s }} }}
  fills_file: {{ kind: jsonl, from: fills, with: {{ path: fills.jsonl }} }}
  told_file: {{ kind: jsonl, from: told, with: {{ path: told.jsonl }} }}
"#
    );
    std::fs::write(folder.join("graph.yaml"), graph).unwrap();
    (folder.to_owned(), targets)
}

/// Units by symbol of the fills that `execution` has told; each once.
fn told_fills(folder: &Path) -> BTreeMap<String, Decimal> {
    let text = std::fs::read_to_string(folder.join("fills.jsonl")).unwrap_or_default();
    let mut seen = std::collections::BTreeSet::new();
    let mut held = BTreeMap::new();
    for row in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let id = row["fill_id"].as_str().unwrap().to_owned();
        assert!(seen.insert(id.clone()), "fill {id} was told twice");
        let quantity: Decimal = row["fill_quantity"].as_str().unwrap().parse().unwrap();
        let signed = if row["side"] == "buy" { quantity } else { -quantity };
        *held.entry(row["symbol"].as_str().unwrap().to_owned()).or_default() += signed;
    }
    held
}

#[test]
fn a_strategy_that_is_killed_holds_what_it_wants() {
    let (seed, rounds) = (number("TIDEMILL_SEED", 0), number("TIDEMILL_KILLS", 20).div_ceil(20).min(15));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let points = [
        "report-logged",
        "order-journalled",
        "order-answered",
        "order-concluded",
        "order-reconcile",
        "after-manifest",
    ];
    for round in seed..seed + rounds {
        let mut faults = Faults::wild(round);
        faults.odd_percent = 10;
        let venue = runtime.block_on(AlpacaServer::start(faults)).unwrap();
        venue.book().cash = 1_000_000.into();
        let temporary = tempfile::tempdir().unwrap();
        let now = tidemill_engine::clock::Clock::System.now_ns();
        let (folder, targets) = strategy(temporary.path(), &venue.url(), now + 2_000_000_000);
        let job = Job { folder };
        let mut rng = Rng(round + 99);
        let mut kills = 0;
        let mut child = job.start(None);
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(rng.within(200..900)));
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if rng.within(0..2) == 0 {
                let point = points[rng.within(0..points.len() as u64) as usize];
                let mut doomed = job.start(Some(&format!("{point}:{}", rng.within(1..4))));
                let begun = Instant::now();
                while doomed.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_millis(800) {
                    std::thread::sleep(Duration::from_millis(2));
                }
                let _ = doomed.kill();
                doomed.wait().unwrap();
                kills += 1;
            }
            child = job.start(None);
        }
        let guard = hang_guard();
        loop {
            let (held, open) = {
                let book = venue.book();
                (book.positions.clone(), book.orders.iter().filter(|o| o.is_open()).count())
            };
            let wanted =
                targets.iter().all(|(symbol, target)| held.get(*symbol) == Some(&Decimal::from(*target)));
            if wanted && open == 0 && told_fills(&job.folder) == held {
                break;
            }
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself\n{}", job.log());
            if guard.is_over() {
                let told = std::fs::read_to_string(job.folder.join("told.jsonl")).unwrap_or_default();
                let told: Vec<&str> = told.lines().collect();
                let fills = told_fills(&job.folder);
                let kept = temporary.keep();
                panic!(
                    "round {round}: {held:?} and {open} open orders where {targets:?} should be, told {fills:?}\nfiles are in {}\n{}\n{}",
                    kept.display(),
                    told[told.len().saturating_sub(25)..].join("\n"),
                    job.log()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let orders = venue.book().orders.len();
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let status = child.wait().unwrap();
        // It may have been told to stop before it could hear it.
        use std::os::unix::process::ExitStatusExt;
        assert!(status.success() || status.signal() == Some(15), "{status}\n{}", job.log());
        eprintln!("round {round}: {kills} kills, {orders} orders, {:?}", venue.book().positions);
    }
}
