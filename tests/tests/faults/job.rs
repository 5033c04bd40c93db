//! A job of a plan: its graph, how it is started, and what its readers see.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::admin;
use tidemill_tests::*;

use crate::plan::{Flow, Plan};
use crate::running::Running;

/// Everything that readers of a job's output see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Messages that a `read_committed` consumer gets, key by key in their order: partition, origin, value.
    pub signals: Vec<String>,
    /// Rows of all Parquet files, sorted.
    pub archive: Vec<String>,
    /// The lines of the jsonl file.
    pub studies: Vec<String>,
    /// The lines of the file of dead letters.
    pub dead_letters: Vec<String>,
}

/// One job.
pub struct Job {
    /// Its name, and its topic's.
    pub name: String,
    /// Where its graph and files are.
    pub folder: PathBuf,
    /// The broker, as the test reaches it.
    pub brokers: String,
    /// Where Parquet files and checkpoints are: a URL or a folder.
    pub place: String,
    /// Time between its checkpoints.
    pub checkpoint_every: &'static str,
    /// Environment of its processes.
    pub env: Vec<(String, String)>,
}

impl Job {
    /// A job of `plan`'s flow over `topic`. `brokers` is what the job connects to.
    pub fn new(
        plan: &Plan,
        folder: PathBuf,
        topic: &str,
        broker: &str,
        brokers: &str,
        place: Option<String>,
    ) -> Self {
        let name = unique("faults");
        std::fs::create_dir_all(&folder).unwrap();
        let place = place.map_or_else(|| folder.display().to_string(), |p| format!("{p}/{name}"));
        // What a source decides while it runs is to be written and not yet in a checkpoint when it is killed.
        let checkpoint_every = if plan.flow == Flow::Copy { "5s" } else { "200ms" };
        let job = Self { name, folder, brokers: broker.to_owned(), place, checkpoint_every, env: Vec::new() };
        let text = match plan.flow {
            Flow::Copy => job.copy(topic, brokers, plan),
            flow => job.studies(topic, brokers, flow == Flow::Strict, plan.files),
        };
        std::fs::write(job.graph(), text).unwrap();
        job
    }

    fn graph(&self) -> PathBuf {
        self.folder.join("graph.yaml")
    }

    fn studies(&self, topic: &str, brokers: &str, strict: bool, files: bool) -> String {
        let late = if strict { "late: admit" } else { "lateness: 200ms, late: divert" };
        let (signals, place) = (&self.name, &self.place);
        let (letters, file_sinks) = match files {
            true => (
                "on_error: { dead_letter: letters }",
                "  studied: { kind: jsonl, from: studies, with: { path: studies.jsonl, origin: true } }\n  letters: { kind: jsonl, with: { path: letters.jsonl, origin: true } }\n",
            ),
            false => ("on_error: skip", ""),
        };
        // Diverted rows go to the dead letters, which only files hold.
        let late = if files { late } else { late.trim_end_matches(", late: divert") };
        let late = if files || strict { late.to_owned() } else { format!("{late}, late: drop") };
        format!(
            r#"
dataflow: {signals}
version: 1
checkpoints: {{ url: "{place}/checkpoints" }}
sources:
  trades:
    kind: kafka
    with:
      {{ brokers: "{brokers}", topic: {topic}, schema: trade, event_time_unit: ms, keyed_by: [symbol], stop: end, {late}, {letters} }}
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
  archive: {{ kind: parquet, from: bars, with: {{ url: "{place}/archive", partition_by: [symbol] }} }}
{file_sinks}"#,
            shards = if strict { 1 } else { 2 },
        )
    }

    fn copy(&self, topic: &str, brokers: &str, plan: &Plan) -> String {
        use crate::plan::Fault;
        let idle = plan.steps.iter().any(|step| matches!(step.fault, Fault::Idle));
        let idle = if idle { ", idle_timeout: 300ms" } else { "" };
        let (copies, place) = (&self.name, &self.place);
        format!(
            r#"
dataflow: {copies}
version: 1
vars: {{ lateness: 0s }}
checkpoints: {{ url: "{place}/checkpoints" }}
sources:
  trades:
    kind: kafka
    with:
      {{ brokers: "{brokers}", topic: {topic}, schema: trade, event_time_unit: ms, discover: 100ms, lateness: $lateness, late: admit{idle} }}
sinks:
  signals:
    kind: kafka
    from: trades
    with: {{ brokers: "{brokers}", topic: {copies}, key: [symbol], partitions: 2, linger: 10ms }}
  studied: {{ kind: jsonl, from: trades, with: {{ path: studies.jsonl, origin: true }} }}
"#
        )
    }

    /// Starts it.
    pub fn start(&self, workers: u64, processes: u64, more: &[String], fault: Option<&str>) -> Running {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(self.graph());
        // Small batches and little in flight: a run lasts long enough to be disturbed in its middle.
        command.args([
            "--progress",
            "off",
            "--checkpoint-every",
            self.checkpoint_every,
            "--chunk-rows",
            "50",
        ]);
        command.args(["--in-flight-rows", "100", "--workers", &workers.to_string()]);
        command.args(["--processes", &processes.to_string()]).args(more);
        command.env("RUST_LOG", "info,tidemill_engine=debug");
        command.env("TIDEMILL_CLOCK_OFFSET", self.folder.join("clock"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(fault) = fault {
            command.env("TIDEMILL_FAULT", fault);
        }
        Running::start(command)
    }

    /// Its manifests, in order: path and text.
    pub fn manifests(&self) -> Vec<(String, String)> {
        let prefix = format!("checkpoints/{}/manifests", self.name);
        let mut all: Vec<_> = self
            .objects(&prefix, ".json")
            .into_iter()
            .map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned()))
            .collect();
        all.sort();
        all
    }

    /// Objects below `prefix` of its place whose names end with `suffix`.
    fn objects(&self, prefix: &str, suffix: &str) -> Vec<(String, Bytes)> {
        wait_for(async {
            let location =
                tidemill_engine::storage::open(&format!("{}/{prefix}", self.place), &self.folder).unwrap();
            let store = &location.store;
            let listed: Vec<_> = store.list(Some(&location.path)).try_collect().await.unwrap_or_default();
            let mut found = Vec::new();
            for object in listed.into_iter().filter(|o| o.location.as_ref().ends_with(suffix)) {
                // A running job may have pruned it meanwhile.
                if let Ok(got) = store.get(&object.location).await {
                    found.push((object.location.to_string(), got.bytes().await.unwrap()));
                }
            }
            found
        })
    }

    /// Overwrites an object of its place.
    pub fn overwrite(&self, path: &str, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        wait_for(async {
            let location = tidemill_engine::storage::open(&self.place, &self.folder).unwrap();
            location.store.put(&path.into(), bytes.into()).await.unwrap();
        });
    }

    /// Whether its last checkpoint says that it has ended: another start would begin from nothing.
    pub fn has_ended(&self) -> bool {
        self.manifests().last().is_some_and(|(_, text)| text.contains("\"reason\": \"closed\""))
    }

    /// The messages that a `read_committed` consumer gets, key by key in their order.
    pub fn signals(&self) -> Vec<String> {
        let connection = Connection::plain(&self.brokers);
        // Before its first run there is no topic.
        let mut messages = wait_for(admin::read_all(&connection, &self.name, true)).unwrap_or_default();
        // Shards write beside each other: only the order within a key is promised.
        messages.sort_by(|a, b| a.key.cmp(&b.key));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = messages.iter().map(|m| {
            let origin =
                m.headers.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>();
            let (key, payload) = (m.key.as_deref(), m.payload.as_deref());
            let (key, payload) = (text(key.unwrap_or_default()), text(payload.unwrap_or_default()));
            format!("{:?} {key} {origin:?} {payload}", m.partition)
        });
        shown.collect()
    }

    /// What its readers see.
    pub fn seen(&self) -> Seen {
        let signals = self.signals();
        let mut archive = Vec::new();
        for (_, bytes) in self.objects("archive", ".parquet") {
            parquet_rows(bytes, &mut archive);
        }
        archive.sort_unstable();
        let file = |name: &str| {
            let text = std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        };
        Seen { signals, archive, studies: file("studies.jsonl"), dead_letters: file("letters.jsonl") }
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The end of what it has logged.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

fn parquet_rows(bytes: Bytes, rows: &mut Vec<String>) {
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
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

/// How two views differ, if they do.
pub fn difference(expected: &Seen, got: &Seen) -> Option<String> {
    let parts = [
        ("signals", &expected.signals, &got.signals),
        ("archive", &expected.archive, &got.archive),
        ("studies", &expected.studies, &got.studies),
        ("dead letters", &expected.dead_letters, &got.dead_letters),
    ];
    let mut text = String::new();
    for (what, expected, got) in parts.into_iter().filter(|(_, expected, got)| expected != got) {
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
