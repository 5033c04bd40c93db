//! A live job that is killed: what was written stays written; with a capture, it goes on exactly once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidemill_connectors::capture::info::info;
use tidemill_connectors::capture::reader::Capture;
use tidemill_connectors::capture::serve::ServeOptions;
use tidemill_tests::patience::hang_guard;
use tidemill_tests::{Rng, binary};

use super::{Running, serve, session};

/// Messages that are served, one a millisecond.
const N: usize = 9000;
const KILLS: usize = 5;

fn graph(address: &std::net::SocketAddr, connection: &str) -> String {
    format!(
        r#"dataflow: killed
version: 1
vars: {{ out: live }}
checkpoints: {{ url: checkpoints, every: 1s }}
sources:
  trades:
    kind: websocket
    with:
      url: "ws://{address}/feed?v=1"
      send: [ {{ op: subscribe }} ]
      rows: d
      where: {{ $.ch: t }}
      columns: {{ ts: {{ path: t, type: timestamp }}, symbol: {{ path: s, type: symbol }}, price: {{ path: p, type: f64 }}, n: i64 }}
      connection: {connection}
sinks:
  rows: {{ kind: jsonl, from: trades, with: {{ path: $out.jsonl, origin: true }} }}
  archive: {{ kind: parquet, from: trades, with: {{ url: $out.parquet }} }}
"#
    )
}

fn tidemill(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The whole lines: the process may have been killed in the middle of one.
fn whole_lines(path: &Path) -> String {
    let mut text = text(path);
    text.truncate(text.rfind('\n').map_or(0, |i| i + 1));
    text
}

fn parquet_files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect()
}

/// `_seq` and `n` of every row, sorted.
fn parquet_rows(folder: &Path) -> Vec<(u64, i64)> {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, UInt64Type};
    let mut rows = Vec::new();
    for path in parquet_files(folder) {
        let file = std::fs::File::open(&path).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let seqs = batch.column_by_name("_seq").unwrap().as_primitive::<UInt64Type>().clone();
            let numbers = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().clone();
            rows.extend(seqs.values().iter().copied().zip(numbers.values().iter().copied()));
        }
    }
    rows.sort_unstable();
    rows
}

/// Runs the graph, kills it at random instants, and lets it come to the end of what is served; checks after each kill that
/// what was visible is there at the end.
fn run(folder: &Path, connection: &str, seed: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let options = ServeOptions { speed: Some(1.0), ..ServeOptions::default() };
    let server = runtime.block_on(serve(session(0, N), options));
    std::fs::write(folder.join("graph.yaml"), graph(&server.address, connection)).unwrap();
    let mut random = Rng(seed);
    let (out, archive) = (folder.join("live.jsonl"), folder.join("live.parquet"));
    let guard = hang_guard();
    let mut seen: Vec<String> = Vec::new();
    let mut files = BTreeSet::new();
    for _ in 0..KILLS {
        let mut job = Running(tidemill(folder, &["run", "graph.yaml", "--progress", "off"]).spawn().unwrap());
        let before = text(&out).len();
        // It has written something; then it is killed at any instant.
        while text(&out).len() <= before && server.served().ended == 0 {
            guard.check(|| "nothing was written".into());
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(random.within(0..1600)));
        job.0.kill().unwrap();
        job.0.wait().unwrap();
        seen.push(whole_lines(&out));
        files.append(&mut parquet_files(&archive));
    }
    let mut job = Running(tidemill(folder, &["run", "graph.yaml", "--progress", "off"]).spawn().unwrap());
    let (mut quiet, mut length) = (0, 0);
    while quiet < 20 || server.served().ended == 0 {
        guard.check(|| format!("the served sessions have not ended: {:?}", server.served().ended));
        std::thread::sleep(Duration::from_millis(100));
        let now = text(&out).len();
        quiet = if now == length && now > 0 { quiet + 1 } else { 0 };
        length = now;
    }
    Command::new("kill").args(["-TERM", &job.0.id().to_string()]).status().unwrap();
    assert!(job.0.wait().unwrap().success());
    let end = text(&out);
    for (i, lines) in seen.iter().enumerate() {
        assert!(
            end.starts_with(lines.as_str()),
            "seed {seed}: of {} lines visible when the job was killed for the {}. time, some are gone",
            lines.lines().count(),
            i + 1
        );
    }
    let kept = parquet_files(&archive);
    eprintln!(
        "seed {seed}: lines at each kill {:?}, {} at the end, {} Parquet files",
        seen.iter().map(|s| s.lines().count()).collect::<Vec<_>>(),
        end.lines().count(),
        kept.len()
    );
    if connection.contains("capture") {
        return;
    }
    assert!(files.is_subset(&kept), "seed {seed}: Parquet files are gone: {:?}", files.difference(&kept));
}

#[test]
fn without_a_capture_no_line_that_was_visible_disappears() {
    for seed in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), "{ backoff_min: 10ms, backoff_max: 50ms }", seed);
        // A restart may write again what the checkpoint held for its turn: the newest row, here. It is the same line.
        let lines = text(&folder.path().join("live.jsonl"));
        let mut once: BTreeSet<&str> = BTreeSet::new();
        let again = lines.lines().filter(|line| !once.insert(line)).count();
        assert!(again <= KILLS, "seed {seed}: {again} lines are there twice");
        let number = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["n"].as_u64().unwrap();
        let numbers: BTreeSet<u64> = once.iter().map(number).collect();
        assert_eq!(numbers.len(), once.len(), "seed {seed}: one message, two different lines");
    }
}

#[test]
fn with_a_capture_a_killed_job_goes_on_exactly_once() {
    for seed in [3, 4] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        run(folder, "{ capture: captures, backoff_min: 10ms, backoff_max: 50ms }", seed);
        let replay = ["replay", "captures", "graph.yaml", "--progress", "off", "--set", "out=replayed"];
        assert!(tidemill(folder, &replay).status().unwrap().success());
        let (live, replayed) = (text(&folder.join("live.jsonl")), text(&folder.join("replayed.jsonl")));
        assert!(replayed.starts_with(&live), "seed {seed}: the rows are not those of the whole capture");
        // Stopped, a run leaves what its watermark has not passed: here the last row.
        let left = replayed.lines().count() - live.lines().count();
        assert!(left <= 1, "seed {seed}: {left} rows are missing at the end");
        // What the venue sent and the job wrote down, counted without any of the feed's code.
        let info = tidemill_tests::wait_for(async {
            let capture = Capture::open("captures", folder, "trades").await?;
            info(&capture).await
        });
        assert_eq!(info.unwrap().received as usize, replayed.lines().count(), "seed {seed}");
        let mut newest = 0;
        for (i, line) in replayed.lines().enumerate() {
            let row: Value = serde_json::from_str(line).unwrap();
            let n = row["n"].as_u64().unwrap();
            assert_eq!(row["_seq"].as_u64(), Some(i as u64), "seed {seed}");
            assert!(n > newest, "seed {seed}: message {n} behind {newest}");
            assert_eq!(row["price"].as_f64(), Some(100.25 + ((n - 100_000) % 7) as f64), "seed {seed}");
            newest = n;
        }
        let (live, replayed) =
            (parquet_rows(&folder.join("live.parquet")), parquet_rows(&folder.join("replayed.parquet")));
        assert!(replayed.starts_with(&live), "seed {seed}: Parquet rows differ");
        assert!(replayed.len() - live.len() <= 1, "seed {seed}");
    }
}

#[test]
fn plan_and_validate_say_which_promise_each_sink_has() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let output = |args: &[&str]| {
        let output = tidemill(folder, args).output().unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let address = "127.0.0.1:1".parse().unwrap();
    let hint =
        "source `trades` cannot be read again; set `connection: {capture: FOLDER}` there to change that";
    // An object store may lose the last seconds of a capture.
    let cases = [("{}", false), ("{ capture: captures }", true), ("{ capture: \"s3://b/captures\" }", false)];
    for (connection, exactly_once) in cases {
        std::fs::write(folder.join("graph.yaml"), graph(&address, connection)).unwrap();
        let json: Value = serde_json::from_str(&output(&["plan", "graph.yaml", "--format", "json"])).unwrap();
        let nodes = json["nodes"].as_array().unwrap();
        let sinks: Vec<&Value> = nodes.iter().filter(|node| node["role"] == "sink").collect();
        assert_eq!(sinks.len(), 2);
        for sink in sinks {
            let expected = match exactly_once {
                true => serde_json::json!({"guarantee": "exactly_once", "unreplayable_sources": []}),
                false => {
                    serde_json::json!({"guarantee": "at_least_once", "unreplayable_sources": ["trades"]})
                }
            };
            assert_eq!(sink["promise"], expected, "{connection}");
        }
        let (text, valid) = (output(&["plan", "graph.yaml"]), output(&["validate", "graph.yaml"]));
        let mermaid = output(&["plan", "graph.yaml", "--format", "mermaid"]);
        let times = if exactly_once { 0 } else { 2 };
        assert_eq!(text.matches(hint).count(), times, "{text}");
        assert_eq!(valid.matches(hint).count(), times, "{valid}");
        let word = if exactly_once { "exactly once" } else { "at least once" };
        assert_eq!((text.matches(word).count(), mermaid.matches(word).count()), (2, 2), "{text}{mermaid}");
    }
}
