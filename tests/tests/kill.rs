//! Exactly once under `kill -9`: whatever is killed, whenever, what readers find is what an
//! undisturbed run gives them.
//!
//! A round starts a job, kills it (kinds in turn, instants by seed), starts it again, and so on,
//! until it has ended by itself; then everything it wrote is compared. `TIDEMILL_KILLS` says how
//! many kills there are in all, `TIDEMILL_SEED` where their series begins.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use arrow::util::display::array_value_to_string;
use serde_json::json;
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::admin::{self, Message};
use tidemill_tests::*;

/// Trades in the topic.
const TRADES: u64 = 40_000;
/// Kills of one job; then it may end.
const KILLS_PER_ROUND: usize = 6;
/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(150);

/// What is killed, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// The process, at any instant.
    Instant { workers: usize },
    /// The process, before or while it recovers.
    Early,
    /// The process, between two steps whose order matters.
    At(&'static str),
    /// One of two processes; the launcher brings both back.
    Member,
    /// The launcher of two processes.
    Launcher,
    /// The broker is restarted, and then the process is killed.
    Broker,
}

/// Taken in turn, so that fifteen kills have all of them (a member's counts twice).
const KINDS: [Kind; 15] = [
    Kind::Instant { workers: 1 },
    Kind::At("state-written"),
    Kind::Early,
    Kind::At("kafka-before-commit"),
    Kind::Member,
    Kind::Instant { workers: 3 },
    Kind::At("kafka-after-commit"),
    Kind::Launcher,
    Kind::At("sink-checkpointed"),
    Kind::At("before-manifest"),
    Kind::Instant { workers: 2 },
    Kind::At("parquet-put"),
    Kind::Broker,
    Kind::At("after-manifest"),
    Kind::At("ended"),
];

/// Everything that readers of a job's output see.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Messages that a `read_committed` consumer gets, key by key in their order: partition, origin, value.
    signals: Vec<String>,
    /// Rows of all Parquet files, sorted.
    archive: Vec<String>,
    /// The jsonl file.
    studies: String,
    /// The file of dead letters.
    letters: String,
}

struct Bench {
    brokers: String,
    topic: String,
    folder: PathBuf,
    strict: bool,
}

/// One job: its graph, its topic, its folders.
struct Job {
    name: String,
    folder: PathBuf,
    brokers: String,
}

impl Bench {
    /// A job over the same trades as every other. `strict`: rows count as late as soon as they are
    /// out of order, and are moved; otherwise they are put in order, and those too late diverted.
    fn job(&self, name: &str) -> Job {
        let job = Job { name: unique(name), folder: self.folder.join(name), brokers: self.brokers.clone() };
        std::fs::create_dir_all(&job.folder).unwrap();
        let late = if self.strict { "late: admit" } else { "lateness: 200ms, late: divert" };
        let (brokers, topic, signals) = (&self.brokers, &self.topic, &job.name);
        let text = format!(
            r#"
dataflow: {signals}
version: 1
sources:
  trades:
    kind: kafka
    with:
      {{ brokers: "{brokers}", topic: {topic}, schema: trade, event_time_unit: ms, keyed_by: [symbol], stop: end, {late},
        on_error: {{ dead_letter: letters }} }}
operators:
  bars: {{ kind: bars, from: trades, with: {{ every: 1s, by: [symbol] }} }}
  studies:
    kind: indicators
    from: bars
    with: {{ by: [symbol], add: {{ macd: {{ fast: 3, slow: 6, signal: 4 }}, rsi: {{ period: 5 }}, ema: {{ period: 7 }} }} }}
  stance:
    kind: select
    from: studies
    with: {{ sql: "symbol, close, rsi, CASE WHEN macd_hist > 0 THEN 'BUY' ELSE 'SELL' END AS side", where: macd_hist IS NOT NULL }}
  signal: {{ kind: crossover, from: stance, with: {{ by: [symbol], on: side }} }}
sinks:
  signals:
    kind: kafka
    from: signal
    with: {{ brokers: "{brokers}", topic: {signals}, key: [symbol], partitions: 2, shards: {shards}, linger: 10ms }}
  archive: {{ kind: parquet, from: bars, with: {{ url: archive, partition_by: [symbol] }} }}
  studied: {{ kind: jsonl, from: studies, with: {{ path: studies.jsonl, origin: true }} }}
  letters: {{ kind: jsonl, with: {{ path: letters.jsonl, origin: true }} }}
"#,
            shards = if self.strict { 1 } else { 2 },
        );
        std::fs::write(job.graph(), text).unwrap();
        job
    }
}

impl Job {
    fn graph(&self) -> PathBuf {
        self.folder.join("graph.yaml")
    }

    fn start(&self, args: &[&str], fault: Option<&str>) -> Running {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(self.graph());
        // Small batches and little in flight: a run lasts long enough to be killed in its middle.
        command.args([
            "--progress",
            "off",
            "--checkpoint-every",
            "200ms",
            "--chunk-rows",
            "50",
            "--in-flight-rows",
            "100",
        ]);
        command.args(args).env("RUST_LOG", "info,tidemill_engine=debug").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(fault) = fault {
            command.env("TIDEMILL_FAULT", fault);
        }
        Running { child: command.spawn().unwrap(), since: Instant::now() }
    }

    /// Whether its last checkpoint says that it has ended: another start would begin from nothing.
    fn has_ended(&self) -> bool {
        let folder = self.folder.join(".tidemill").join(&self.name).join("manifests");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let last = files.filter(|path| path.extension().is_some_and(|e| e == "json")).max();
        last.is_some_and(|path| std::fs::read_to_string(path).unwrap().contains("\"reason\": \"closed\""))
    }

    fn seen(&self) -> Seen {
        let connection = Connection::plain(&self.brokers);
        let mut messages = wait_for(admin::read_all(&connection, &self.name, true)).unwrap();
        // Shards write beside each other: only the order within a key is promised.
        messages.sort_by(|a, b| a.key.cmp(&b.key));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let signals = messages.iter().map(|m| {
            let origin =
                m.headers.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>();
            format!(
                "{:?} {} {:?} {}",
                m.partition,
                text(m.key.as_deref().unwrap_or_default()),
                origin,
                text(m.payload.as_deref().unwrap_or_default())
            )
        });
        let mut archive = Vec::new();
        parquet_rows(&self.folder.join("archive"), &mut archive);
        archive.sort_unstable();
        let file = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        Seen {
            signals: signals.collect(),
            archive,
            studies: file("studies.jsonl"),
            letters: file("letters.jsonl"),
        }
    }

    /// The end of what the job has said.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

fn parquet_rows(folder: &Path, rows: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            parquet_rows(&path, rows);
        } else if path.extension().is_some_and(|e| e == "parquet") {
            let file = std::fs::File::open(&path).unwrap();
            let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
                .unwrap()
                .build()
                .unwrap();
            for batch in reader {
                let batch = batch.unwrap();
                for row in 0..batch.num_rows() {
                    let mut line = String::new();
                    for column in batch.columns() {
                        let _ = write!(line, "{},", array_value_to_string(column, row).unwrap());
                    }
                    rows.push(line);
                }
            }
        }
    }
}

struct Running {
    child: Child,
    since: Instant,
}

impl Running {
    /// Waits until it ends, at most for `time`.
    fn wait(&mut self, time: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            std::thread::sleep(left.min(Duration::from_millis(2)));
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills one of the processes that it has started; false where there is none.
    fn kill_member(&self, rng: &mut Rng) -> bool {
        let mut children: Vec<u32> = Vec::new();
        for task in
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten()
        {
            let listed = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        if children.is_empty() {
            return false;
        }
        let chosen = children[rng.within(0..children.len() as u64) as usize];
        Command::new("kill")
            .args(["-9", &chosen.to_string()])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Trades of a dozen symbols over five minutes of event time, out of order here and there, some far
/// too late, some no trades at all.
fn trades() -> Vec<Message> {
    let mut rng = Rng(7);
    let mut prices = [100.0f64; 12];
    let message = |i: u64| {
        let symbol = rng.within(0..12) as usize;
        prices[symbol] += (rng.within(0..201) as f64 - 100.0) / 100.0;
        let behind = match rng.within(0..1000) {
            0..=1 => rng.within(2_000..60_000),
            2..=99 => rng.within(0..150),
            _ => 0,
        };
        let ts = 1_704_207_600_000 + (i * 300_000 / TRADES).saturating_sub(behind);
        let payload = match rng.within(0..2000) {
            0 => "{\"ts\": 17042076".to_owned(),
            1 => json!({ "ts": ts, "symbol": "S1", "price": "much", "size": 1 }).to_string(),
            _ => json!({ "ts": ts, "symbol": format!("S{symbol}"), "price": prices[symbol], "size": rng.within(1..500) }).to_string(),
        };
        Message {
            key: Some(format!("S{symbol}").into_bytes()),
            payload: Some(payload.into_bytes()),
            ..Message::default()
        }
    };
    (0..TRADES).map(message).collect()
}

/// Restarts the broker, with its data; false where it is not ours to restart.
fn restart_broker() -> bool {
    let Some(services) = std::env::var_os("TIDEMILL_SERVICES") else { return false };
    Command::new(services)
        .args(["restart", "kafka"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn whatever_is_killed_readers_see_each_row_once() {
    let Some(brokers) = kafka() else { return };
    let (seed, wanted) = (number("TIDEMILL_SEED", 0), number("TIDEMILL_KILLS", 15) as usize);
    let folder = tempfile::tempdir().unwrap();
    let topic = unique("trades");
    let connection = Connection::plain(&brokers);
    wait_for(async {
        admin::create_topic(&connection, &topic, 3, &[("retention.ms", "-1")]).await.unwrap();
        admin::produce(&connection, &topic, trades()).await.unwrap();
    });
    let benches = [true, false].map(|strict| {
        let folder = folder.path().join(if strict { "strict" } else { "patient" });
        Bench { brokers: brokers.clone(), topic: topic.clone(), folder, strict }
    });
    let undisturbed: Vec<(Seen, Duration)> = benches
        .iter()
        .map(|bench| {
            let job = bench.job("undisturbed");
            let mut running = job.start(&[], None);
            let status = running.wait(PATIENCE);
            assert!(status.is_some_and(|s| s.success()), "undisturbed: {status:?}\n{}", job.log());
            let (took, seen) = (running.since.elapsed(), job.seen());
            eprintln!(
                "undisturbed in {} ms: {} signals, {} archived bars, {} bytes of studies, {} of dead letters",
                took.as_millis(),
                seen.signals.len(),
                seen.archive.len(),
                seen.studies.len(),
                seen.letters.len()
            );
            assert!(seen.signals.len() > 300 && seen.archive.len() > 3000 && !seen.letters.is_empty());
            (seen, took)
        })
        .collect();
    let (mut kills, mut rounds, mut missed) = (0, 0, 0);
    let mut counts: std::collections::BTreeMap<String, usize> = Default::default();
    while kills < wanted {
        let bench = rounds % 2;
        let job = benches[bench].job(&format!("round{rounds}"));
        let first = kills;
        let until = wanted.min(kills + KILLS_PER_ROUND);
        let story = round(&job, seed, &mut kills, until, missed, undisturbed[bench].1, &mut counts);
        missed = if kills == first { missed + 1 } else { 0 };
        let seen = job.seen();
        let again = format!(
            "to repeat: TIDEMILL_SEED={} TIDEMILL_KILLS={} cargo test --workspace --test kill -- --nocapture",
            seed + first as u64,
            kills - first
        );
        eprintln!("round {rounds}, {kills} kills so far: {story}");
        if let Some(difference) = difference(&undisturbed[bench].0, &seen) {
            let kept = folder.keep();
            panic!(
                "{difference}\n{story}\n{again}\nfiles are in {}/{}\n{}",
                kept.display(),
                bench,
                job.log()
            );
        }
        rounds += 1;
    }
    eprintln!("{kills} kills in {rounds} rounds, 0 lost, 0 doubled: {counts:?}");
}

/// Kills and restarts a job until it has ended; what was done, in words.
fn round(
    job: &Job,
    seed: u64,
    kills: &mut usize,
    until: usize,
    missed: u64,
    whole: Duration,
    counts: &mut std::collections::BTreeMap<String, usize>,
) -> String {
    let mut story = String::new();
    loop {
        let number = seed + *kills as u64;
        let kind = (*kills < until).then(|| KINDS[(number % KINDS.len() as u64) as usize]);
        let mut rng = Rng(number.wrapping_mul(0x9e37_79b9));
        // Most instants are in the first half: what is killed late has nothing left to recover.
        let instant = Duration::from_millis(rng.within(300..(whole.as_millis() as u64).max(600)));
        let workers = match kind {
            Some(Kind::Instant { workers }) => workers,
            Some(Kind::Member | Kind::Launcher) => 1,
            _ => rng.within(1..4) as usize,
        };
        let processes = if matches!(kind, Some(Kind::Member | Kind::Launcher)) { 2 } else { 1 };
        // What the job's end came before is aimed at earlier the next time.
        let nth = rng.within(1..6).saturating_sub(missed).max(1);
        let fault = match kind {
            Some(Kind::At("ended")) => Some("ended:1".to_owned()),
            Some(Kind::At(point)) => Some(format!("{point}:{nth}")),
            _ => None,
        };
        let (workers, processes) = (workers.to_string(), processes.to_string());
        let mut running = job.start(&["--workers", &workers, "--processes", &processes], fault.as_deref());
        let ended = match kind {
            None | Some(Kind::At(_)) => running.wait(PATIENCE),
            Some(Kind::Instant { .. } | Kind::Launcher) => running.wait(instant),
            Some(Kind::Early) => running.wait(Duration::from_millis(rng.within(0..700))),
            Some(Kind::Member) => match running.wait(instant) {
                None if running.kill_member(&mut rng) => {
                    note(&mut story, kills, counts, "member", running.since.elapsed(), 2);
                    // Everybody recovers, and then the launcher goes too.
                    running.wait(Duration::from_millis(rng.within(0..3000)))
                }
                other => other,
            },
            Some(Kind::Broker) => match running.wait(instant / 3) {
                None => {
                    if !restart_broker() {
                        skipped("the broker is not ours to restart");
                    }
                    story.push_str("broker restarted; ");
                    running.wait(Duration::from_millis(rng.within(0..1500)))
                }
                ended => ended,
            },
        };
        let Some(status) = ended else {
            assert!(kind.is_some(), "{} does not end\n{story}\n{}", job.name, job.log());
            assert!(
                !matches!(kind, Some(Kind::At(_))),
                "{}: {fault:?} was never reached, nor the end\n{story}\n{}",
                job.name,
                job.log()
            );
            running.kill();
            let name = match kind {
                Some(Kind::Member) => "launcher, recovering".to_owned(),
                Some(Kind::Broker) => "after a broker restart".to_owned(),
                other => other.map(|kind| format!("{kind:?}")).unwrap_or_default(),
            };
            note(&mut story, kills, counts, &name, running.since.elapsed(), workers.parse().unwrap_or(0));
            if job.has_ended() {
                story.push_str("it had ended");
                return story;
            }
            continue;
        };
        if status.success() {
            let _ = write!(
                story,
                "ended after {} ms with {workers} workers",
                running.since.elapsed().as_millis()
            );
            return story;
        }
        use std::os::unix::process::ExitStatusExt;
        let aborted = status.signal() == Some(6) && fault.is_some();
        assert!(aborted, "{} failed by itself: {status}\n{story}\n{}", job.name, job.log());
        note(
            &mut story,
            kills,
            counts,
            &fault.unwrap_or_default(),
            running.since.elapsed(),
            workers.parse().unwrap_or(0),
        );
    }
}

fn note(
    story: &mut String,
    kills: &mut usize,
    counts: &mut std::collections::BTreeMap<String, usize>,
    what: &str,
    after: Duration,
    workers: usize,
) {
    *kills += 1;
    let _ = write!(story, "{what} killed after {} ms ({workers} workers); ", after.as_millis());
    *counts.entry(what.split([':', '{']).next().unwrap_or_default().trim().to_owned()).or_default() += 1;
}

/// How two views differ, if they do.
fn difference(expected: &Seen, got: &Seen) -> Option<String> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let parts = [
        ("signals", expected.signals.clone(), got.signals.clone()),
        ("archive", expected.archive.clone(), got.archive.clone()),
        ("studies", lines(&expected.studies), lines(&got.studies)),
        ("dead letters", lines(&expected.letters), lines(&got.letters)),
    ];
    let mut text = String::new();
    for (what, expected, got) in parts.iter().filter(|(_, expected, got)| expected != got) {
        let mut count: std::collections::BTreeMap<&str, i64> = Default::default();
        expected.iter().for_each(|row| *count.entry(row).or_default() -= 1);
        got.iter().for_each(|row| *count.entry(row).or_default() += 1);
        let lost: Vec<_> = count.iter().filter(|(_, n)| **n < 0).collect();
        let more: Vec<_> = count.iter().filter(|(_, n)| **n > 0).collect();
        let _ = writeln!(
            text,
            "{what}: {} rows instead of {}: {} lost, {} too many or other than expected",
            got.len(),
            expected.len(),
            lost.len(),
            more.len()
        );
        for (row, n) in lost.iter().take(5).chain(more.iter().take(5)) {
            let _ = writeln!(text, "  {n:+} {row}");
        }
        if lost.is_empty() && more.is_empty() {
            let at = expected.iter().zip(got).position(|(e, g)| e != g).unwrap_or(0);
            let _ = writeln!(
                text,
                "  the same rows in another order, first at {at}:\n  {}\n  {}",
                expected[at], got[at]
            );
        }
    }
    (!text.is_empty()).then_some(text)
}
