//! Several processes of one job, as an operator sees them: a failure ends the job with its cause and an exit code, SIGTERM
//! takes a last checkpoint whichever process gets it, and a killed process costs no row.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::admin::{self, Message};
use tidemill_tests::*;

/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(240);

/// A job in a folder of its own, over a topic of two partitions: each of two processes reads one.
struct Job {
    folder: tempfile::TempDir,
    name: String,
    brokers: String,
    topic: String,
}

impl Job {
    fn new(brokers: &str) -> Self {
        let (folder, name, topic) = (tempfile::tempdir().unwrap(), unique("cluster"), unique("input"));
        let connection = Connection::plain(brokers);
        wait_for(admin::create_topic(&connection, &topic, 2, &[("retention.ms", "-1")])).unwrap();
        let graph = format!(
            "dataflow: {name}\nversion: 1\n\
             sources:\n  trades: {{ kind: kafka, with: {{ brokers: \"{brokers}\", topic: {topic}, schema: trade }} }}\n\
             sinks:\n  out: {{ kind: jsonl, from: trades, with: {{ path: out.jsonl }} }}\n"
        );
        std::fs::write(folder.path().join("graph.yaml"), graph).unwrap();
        Self { folder, name, brokers: brokers.into(), topic }
    }

    /// Trades `numbers`, one a second, in the partitions by turns; the price is the number.
    fn trades(&self, numbers: std::ops::Range<u64>) {
        let trade = |i: u64| {
            let ts = (1_704_207_600 + i) * 1_000_000_000;
            self.message(
                (i % 2) as i32,
                &json!({ "ts": ts, "symbol": "A", "price": i, "size": 1 }).to_string(),
            )
        };
        self.produce(numbers.map(trade).collect());
    }

    fn message(&self, partition: i32, text: &str) -> Message {
        Message { partition: Some(partition), payload: Some(text.into()), ..Message::default() }
    }

    fn produce(&self, messages: Vec<Message>) {
        wait_for(admin::produce(&Connection::plain(&self.brokers), &self.topic, messages)).unwrap();
    }

    fn start(&self) -> Running {
        let log = self.folder.path().join(unique("log"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(self.folder.path().join("graph.yaml"));
        command.args(["--processes", "2", "--progress", "off", "--checkpoint-every", "200ms"]);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
        Running { child: command.spawn().unwrap(), log }
    }

    fn prices(&self) -> Vec<f64> {
        let text = std::fs::read_to_string(self.folder.path().join("out.jsonl")).unwrap_or_default();
        // The last line may still be on its way.
        let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        whole.map(|l| serde_json::from_str::<Value>(l).unwrap()["price"].as_f64().unwrap()).collect()
    }

    fn newest_manifest(&self) -> String {
        let folder = self.folder.path().join(".tidemill").join(&self.name).join("manifests");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let newest = files.filter(|path| path.extension().is_some_and(|e| e == "json")).max();
        newest.map(|path| std::fs::read_to_string(path).unwrap()).unwrap_or_default()
    }
}

struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn output(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + HANG;
        while !done() {
            assert!(Instant::now() < end, "it hangs before {what}\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it ends; its exit code.
    fn wait(&mut self) -> Option<i32> {
        let end = Instant::now() + HANG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "it hangs\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn members(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten();
        let listed = tasks.flatten().map(|t| std::fs::read_to_string(t.path().join("children")));
        listed
            .flat_map(|l| {
                l.unwrap_or_default().split_whitespace().map(|p| p.parse().unwrap()).collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `target`: a process, or with a minus sign its group.
fn kill(signal: &str, target: &str) {
    assert!(Command::new("kill").args([signal, "--", target]).status().unwrap().success());
}

/// Given two processes, when a line that one of them reads is bad, then the job ends with the reason, said once, and code 1.
#[test]
fn a_bad_line_in_one_process_ends_the_job_with_its_reason() {
    let Some(brokers) = kafka() else { return };
    for partition in [0, 1] {
        let job = Job::new(&brokers);
        job.trades(0..6);
        job.produce(vec![job.message(partition, "{\"ts\": 17042")]);
        let mut running = job.start();
        assert_eq!(running.wait(), Some(1), "{}", running.output());
        let output = running.output();
        let reason = format!("partition {partition}, position 3: not valid JSON");
        assert_eq!(output.matches(&reason).count(), 1, "{output}");
        assert_eq!(output.matches("error: ").count(), 1, "{output}");
    }
}

/// Given two processes, when SIGTERM reaches all of them, one of them or the launcher, then the job takes a last checkpoint
/// and ends with code 0.
#[test]
fn a_stop_takes_a_last_checkpoint_whoever_gets_the_signal() {
    let Some(brokers) = kafka() else { return };
    let group = |r: &Running| format!("-{}", r.child.id());
    let member = |r: &Running| r.members()[1].to_string();
    let launcher = |r: &Running| r.child.id().to_string();
    let targets: [&dyn Fn(&Running) -> String; 3] = [&group, &member, &launcher];
    for target in targets {
        let job = Job::new(&brokers);
        job.trades(0..100);
        let mut running = job.start();
        running.until("rows come", || job.prices().len() >= 98);
        kill("-TERM", &target(&running));
        assert_eq!(running.wait(), Some(0), "{}", running.output());
        let manifest = job.newest_manifest();
        assert!(manifest.contains("\"reason\": \"stop\""), "{manifest}\n{}", running.output());
    }
}

/// Given two processes, when one or the other is killed, then the job restarts, and no row is lost or doubled.
#[test]
fn a_killed_process_costs_no_row() {
    let Some(brokers) = kafka() else { return };
    let job = Job::new(&brokers);
    let mut running = job.start();
    let mut produced = 0;
    for victim in [1, 0] {
        job.trades(produced..produced + 200);
        produced += 200;
        running.until("rows come", || job.prices().len() as u64 >= produced - 2);
        let before = running.members();
        kill("-9", &before[victim].to_string());
        running.until("others take over", || {
            let now = running.members();
            now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
        });
        assert!(running.output().contains("it ended: signal: 9"), "{}", running.output());
    }
    job.trades(produced..produced + 100);
    produced += 100;
    running.until("the last rows come", || job.prices().len() as u64 >= produced - 2);
    kill("-TERM", &running.child.id().to_string());
    assert_eq!(running.wait(), Some(0), "{}", running.output());
    let expected: Vec<f64> = (0..produced - 2).map(|i| i as f64).collect();
    assert_eq!(job.prices()[..expected.len()], expected);
}

/// Given a job that fails in a way that may pass, or whose graph is wrong, then its exit code says so.
#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let code = |graph: &str, more: &[&str]| {
        let path = folder.path().join("graph.yaml");
        std::fs::write(&path, graph).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(&path).args(["--progress", "off"]).args(more);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (wrong, text) = code("dataflow: wrong\nversion: 1\nsources: { a: { kind: no_such_kind } }\n", &[]);
    assert_eq!(wrong, Some(2), "{text}");
    let (usage, text) = code("", &["--no-such-flag"]);
    assert_eq!(usage, Some(2), "{text}");
    std::fs::write(folder.path().join("in.jsonl"), "nonsense\n").unwrap();
    let bad = "dataflow: bad\nversion: 1\n\
               sources: { rows: { kind: jsonl, with: { url: in.jsonl, schema: trade } } }\n\
               sinks: { out: { kind: jsonl, from: rows, with: { path: out.jsonl } } }\n";
    for processes in ["1", "2"] {
        let (fatal, text) = code(bad, &["--processes", processes]);
        assert_eq!(fatal, Some(1), "{text}");
        assert_eq!(text.matches("not valid JSON").count(), 1, "{text}");
    }
}
