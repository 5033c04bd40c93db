//! Exactly once where the clock decides: topics that grow, partitions that fall silent, and where a run begins and ends, with `kill -9`
//! in between. Against a real broker; each test has topics of its own.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use serde_json::{Value, json};
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::admin::{self, Message};
use tidemill_tests::*;

/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(180);
/// Event times begin here, milliseconds.
const START: i64 = 1_704_207_600_000;

struct Job {
    folder: tempfile::TempDir,
    brokers: String,
    /// Read from.
    trades: String,
    /// Written to.
    signals: String,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn ends(mut self, job: &Job) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end\n{}", job.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Job {
    /// Copies trades from one topic to another; `more` are settings of the source.
    fn new(brokers: String, partitions: usize, more: &str) -> Self {
        let trades = unique("trades");
        wait_for(admin::create_topic(&Connection::plain(&brokers), &trades, partitions, &[])).unwrap();
        let job = Self { folder: tempfile::tempdir().unwrap(), brokers, trades, signals: unique("signals") };
        let (brokers, trades, signals) = (&job.brokers, &job.trades, &job.signals);
        let text = format!(
            r#"
dataflow: {signals}
version: 1
sources:
  trades:
    kind: kafka
    with: {{ brokers: "{brokers}", topic: {trades}, schema: trade, event_time_unit: ms, discover: 200ms, {more} }}
sinks:
  signals: {{ kind: kafka, from: trades, with: {{ brokers: "{brokers}", topic: {signals}, linger: 5ms }} }}
"#
        );
        std::fs::write(job.graph(), text).unwrap();
        job
    }

    fn graph(&self) -> PathBuf {
        self.folder.path().join("graph.yaml")
    }

    fn start(&self, args: &[&str]) -> Running {
        let path = self.folder.path().join("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(self.graph()).args(["--progress", "off"]).args(args);
        command.env("RUST_LOG", "info,tidemill_engine=debug").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends trades whose price is their id, `step` milliseconds apart from `at` on.
    fn send(&self, partition: i32, ids: std::ops::Range<i64>, at: i64, step: i64) {
        let message = |(i, id): (usize, i64)| {
            let ts = START + at + i as i64 * step;
            let payload = json!({ "ts": ts, "symbol": "S", "price": id, "size": 1 });
            Message {
                partition: Some(partition),
                payload: Some(payload.to_string().into_bytes()),
                ..Message::default()
            }
        };
        let messages = ids.enumerate().map(message).collect();
        wait_for(admin::produce(&Connection::plain(&self.brokers), &self.trades, messages)).unwrap();
    }

    fn grow(&self, count: usize) {
        let client: rdkafka::admin::AdminClient<_> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let new = [rdkafka::admin::NewPartitions::new(&self.trades, count)];
        wait_for(client.create_partitions(&new, &Default::default())).unwrap();
        let connection = Connection::plain(&self.brokers);
        while wait_for(admin::topic_partitions(&connection, &self.trades)).unwrap() != Some(count) {}
    }

    /// How often each id was written.
    fn written(&self) -> BTreeMap<i64, usize> {
        let connection = Connection::plain(&self.brokers);
        let mut count = BTreeMap::new();
        for message in wait_for(admin::read_all(&connection, &self.signals, true)).unwrap_or_default() {
            let row: Value = serde_json::from_slice(&message.payload.unwrap()).unwrap();
            *count.entry(row["price"].as_f64().unwrap() as i64).or_default() += 1;
        }
        count
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < until, "{what}: {:?}\n{}", self.written(), self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn has(&self, id: i64) -> bool {
        self.written().contains_key(&id)
    }

    fn once(&self, ids: std::ops::Range<i64>) {
        let written = self.written();
        let wrong: Vec<(i64, usize)> = ids
            .map(|id| (id, written.get(&id).copied().unwrap_or(0)))
            .filter(|(_, times)| *times != 1)
            .collect();
        assert!(wrong.is_empty(), "not once (id, times): {wrong:?}\n{}", self.log());
    }

    /// Committed checkpoints that say where sources stand.
    fn checkpoints(&self) -> usize {
        let folder = self.folder.path().join(".tidemill").join(&self.signals).join("manifests");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let text = |f: std::fs::DirEntry| std::fs::read_to_string(f.path()).unwrap_or_default();
        files.map(text).filter(|t| t.contains("max_ts")).count()
    }
}

const NO_CHECKPOINTS: [&str; 2] = ["--checkpoint-every", "1h"];

/// Given a topic that grows while the job runs, when the job is killed before a checkpoint knows of it, then 50 of 50 trades are there.
#[test]
fn a_topic_that_grew_loses_nothing_to_a_kill() {
    let Some(brokers) = kafka() else { return };
    let job = Job::new(brokers, 1, "start: earliest");
    let run = job.start(&NO_CHECKPOINTS);
    job.send(0, 0..20, 0, 10);
    job.until("first trades", || job.has(18));
    job.grow(2);
    // Older than what has been written, and newer.
    job.send(1, 20..35, 50, 10);
    job.send(0, 35..40, 1000, 10);
    job.send(1, 1000..1001, 2000, 1);
    job.send(0, 1001..1002, 2000, 1);
    job.until("trades of the new partition", || (20..40).all(|id| job.has(id)));
    drop(run);
    // Older than what has been written: late, so moved, and not taken for what was written.
    job.send(1, 40..50, 100, 10);
    job.send(0, 1002..1003, 9000, 10);
    job.send(1, 1003..1004, 9000, 10);
    let _run = job.start(&NO_CHECKPOINTS);
    job.until("trades after the kill", || (40..50).all(|id| job.has(id)));
    job.once(0..50);
    job.once(1000..1002);
}

/// Given `idle_timeout`, when a silent partition was passed, came back with older trades, and the job is killed, then 51 of 51 are there.
#[test]
fn a_partition_that_came_back_loses_nothing_to_a_kill() {
    let Some(brokers) = kafka() else { return };
    let job = Job::new(brokers, 2, "start: earliest, idle_timeout: 300ms");
    let run = job.start(&NO_CHECKPOINTS);
    job.send(1, 0..1, 0, 1);
    job.send(0, 1..21, 0, 10);
    job.until("the silent partition is passed", || job.has(19));
    job.send(1, 21..36, 5, 10);
    job.until("trades of the one that came back", || (21..36).all(|id| job.has(id)));
    drop(run);
    // Killed while idle: nothing that was read is decided again.
    let run = job.start(&NO_CHECKPOINTS);
    job.send(0, 36..41, 60_000, 10);
    job.until("trades after the kill", || (36..41).all(|id| job.has(id)));
    drop(run);
    job.send(1, 41..51, 100, 10);
    let _run = job.start(&NO_CHECKPOINTS);
    job.until("trades after the second kill", || (41..51).all(|id| job.has(id)));
    job.once(0..51);
}

/// Given `start: latest`, when the job is killed before a checkpoint was due, then it goes on where it began: 60 of 60.
#[test]
fn start_latest_is_fixed_before_the_first_trade() {
    let Some(brokers) = kafka() else { return };
    let job = Job::new(brokers, 1, "start: latest");
    job.send(0, 900..910, 0, 1);
    let run = job.start(&NO_CHECKPOINTS);
    job.until("where it begins is committed", || job.checkpoints() >= 1);
    job.send(0, 0..22, 1000, 10);
    job.until("first trades", || job.has(20));
    drop(run);
    job.send(0, 22..60, 2000, 10);
    let _run = job.start(&NO_CHECKPOINTS);
    job.send(0, 1000..1001, 9000, 1);
    job.until("trades after the kill", || (0..60).all(|id| job.has(id)));
    job.once(0..60);
    assert!(!job.has(900), "what was there before it began is not read");
}

/// Given `stop: end`, when the job is killed and more trades come, then it ends where it was going to.
#[test]
fn stop_end_ends_where_the_run_was_going_to() {
    let Some(brokers) = kafka() else { return };
    let job = Job::new(brokers, 2, "start: earliest, stop: end");
    job.send(0, 0..4000, 0, 1);
    job.send(1, 4000..8000, 0, 1);
    let slow = ["--checkpoint-every", "20ms", "--chunk-rows", "5", "--in-flight-rows", "10"];
    let run = job.start(&slow);
    job.until("where it begins is committed", || job.checkpoints() > 0);
    drop(run);
    job.send(0, 8000..8100, 4000, 1);
    job.send(1, 8100..8200, 4000, 1);
    assert!(job.start(&slow).ends(&job).success(), "{}", job.log());
    job.once(0..8000);
    assert_eq!(job.written().len(), 8000, "trades that came later are the next run's");
}

/// Given `keyed_by`, when the topic grows, then the job stops and says why, at once and when it is started again.
#[test]
fn a_topic_with_keyed_by_may_not_grow() {
    let Some(brokers) = kafka() else { return };
    let job = Job::new(brokers, 1, "start: earliest, keyed_by: [symbol]");
    let run = job.start(&NO_CHECKPOINTS);
    job.send(0, 0..20, 0, 10);
    job.until("first trades", || job.has(18));
    job.grow(2);
    assert!(!run.ends(&job).success());
    assert!(job.log().contains("`keyed_by` no longer holds"), "{}", job.log());
    std::fs::remove_file(job.folder.path().join("log")).unwrap();
    assert!(!job.start(&NO_CHECKPOINTS).ends(&job).success());
    assert!(job.log().contains("has 2 partitions now and had 1"), "{}", job.log());
}
