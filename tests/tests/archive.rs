//! Archive, then live: a job that reads what Kafka has forgotten from an archive, and goes on in Kafka,
//! gives the rows that Kafka alone would have given; whatever is compacted, killed or deleted meanwhile.
//! `TIDEMILL_SEED` says where the series of kills begins.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::admin::{self, Message};
use tidemill_tests::patience::hang_guard;
use tidemill_tests::*;

const PARTITIONS: i32 = 3;
/// Trades that are archived, and those that come after.
const ARCHIVED: u64 = 90_000;
const LIVE: u64 = 30_000;
/// Restarts of one job before it may end.
const KILLS: usize = 6;

struct Bench {
    brokers: String,
    topic: String,
    folder: tempfile::TempDir,
}

/// How a command ended, and all that it said.
struct Said {
    well: bool,
    text: String,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tidemill(&self, args: &[&str]) -> Said {
        let output = Command::new(binary()).args(args).current_dir(self.folder.path()).output().unwrap();
        let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
        Said { well: output.status.success(), text }
    }

    /// Trades out of order by up to 150 ms, on a partition of their symbol.
    fn produce(&self, from: u64, to: u64) {
        let message = |i: u64| {
            let mut rng = Rng(i);
            let symbol = rng.within(0..7);
            let ts = 1_704_207_600_000 + i * 10 - rng.within(0..150);
            let payload =
                json!({ "ts": ts, "symbol": format!("S{symbol}"), "price": 100 + i % 50, "size": i });
            Message {
                partition: Some((symbol % PARTITIONS as u64) as i32),
                key: Some(format!("S{symbol}").into_bytes()),
                payload: Some(payload.to_string().into_bytes()),
                ..Message::default()
            }
        };
        let messages: Vec<Message> = (from..to).map(message).collect();
        wait_for(admin::produce(&Connection::plain(&self.brokers), &self.topic, messages)).unwrap();
    }

    /// Deletes the messages of each partition before an offset.
    fn delete_before(&self, offsets: &BTreeMap<i32, i64>) {
        let client: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset)).unwrap();
        }
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
        let deleted = wait_for(client.delete_records(&list, &options)).unwrap();
        for element in deleted.elements() {
            element.error().unwrap();
        }
    }

    /// A graph over the topic: every trade, bars of them, and the trades archived again.
    fn graph(&self, name: &str, history: &str) -> PathBuf {
        let (brokers, topic) = (&self.brokers, &self.topic);
        let text = format!(
            r#"
dataflow: {name}_{topic}
version: 1
sources:
  trades:
    kind: kafka
    with: {{ brokers: "{brokers}", topic: {topic}, schema: trade, event_time_unit: ms, keyed_by: [symbol], stop: end, max_out_of_orderness: 300ms{history} }}
operators:
  bars: {{ kind: bars, from: trades, with: {{ every: 1s, by: [symbol] }} }}
sinks:
  all: {{ kind: jsonl, from: trades, with: {{ path: {name}/all.jsonl, origin: true }} }}
  bars_out: {{ kind: jsonl, from: bars, with: {{ path: {name}/bars.jsonl, origin: true }} }}
  archive: {{ kind: parquet, from: trades, with: {{ url: {name}/archive/trades, partition_by: [date, symbol] }} }}
"#
        );
        std::fs::create_dir_all(self.path(name)).unwrap();
        let path = self.path(&format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, graph: &Path, args: &[&str]) -> Said {
        let mut all = vec!["run", graph.to_str().unwrap(), "--progress", "off"];
        all.extend(args);
        self.tidemill(&all)
    }

    /// Runs a graph and kills it at instants that the seed chooses, until it ends by itself; the kills.
    fn run_killed(&self, graph: &Path, seed: u64) -> usize {
        let mut rng = Rng(seed);
        let log = std::fs::File::create(graph.with_extension("log")).unwrap();
        let slow = ["--checkpoint-every", "50ms", "--chunk-rows", "50", "--in-flight-rows", "100"];
        for kills in 0.. {
            let mut child = Command::new(binary())
                .arg("run")
                .arg(graph)
                .args(["--progress", "off", "--workers", ["1", "2"][kills % 2]])
                .args(slow)
                .current_dir(self.folder.path())
                .stdout(Stdio::null())
                .stderr(log.try_clone().unwrap())
                .spawn()
                .unwrap();
            let life = (kills < KILLS).then(|| Duration::from_millis(rng.within(50..600)));
            let (since, guard) = (Instant::now(), hang_guard());
            while life.is_none_or(|life| since.elapsed() < life) {
                guard.check(|| "the run does not end".to_owned());
                if let Some(status) = child.try_wait().unwrap() {
                    let said = std::fs::read_to_string(graph.with_extension("log")).unwrap();
                    assert!(status.success(), "{said}");
                    return kills;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            // Killed behind its end, before it was gone: another start would begin from nothing.
            if self.has_ended(graph) {
                return kills + 1;
            }
        }
        unreachable!("the loop returns")
    }

    /// Whether a graph's last checkpoint says that its run has ended.
    fn has_ended(&self, graph: &Path) -> bool {
        let job = format!("{}_{}", graph.file_stem().unwrap().to_str().unwrap(), self.topic);
        let folder = self.path(".tidemill").join(job).join("manifests");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let last = files.filter(|path| path.extension().is_some_and(|e| e == "json")).max();
        last.is_some_and(|path| std::fs::read_to_string(path).unwrap().contains("\"reason\": \"closed\""))
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Two files of the same lines in the same order; of a long difference the first part is shown.
    fn same(&self, one: &str, other: &str) {
        let (one_lines, other_lines) = (self.lines(one), self.lines(other));
        let differ = one_lines.iter().zip(&other_lines).position(|(a, b)| a != b);
        if let Some(i) = differ {
            panic!("line {i}: {one} has {}, {other} has {}", one_lines[i], other_lines[i]);
        }
        assert_eq!(one_lines.len(), other_lines.len(), "{one} and {other}");
    }

    /// Offsets by partition, and how many rows there are.
    fn offsets(&self, name: &str) -> (BTreeMap<i32, BTreeSet<u64>>, usize) {
        let lines = self.lines(name);
        let mut offsets: BTreeMap<i32, BTreeSet<u64>> = BTreeMap::new();
        for line in &lines {
            let row: Value = serde_json::from_str(line).unwrap();
            let number = |name: &str| match &row[name] {
                Value::String(text) => text.parse::<u64>().unwrap(),
                other => other.as_u64().unwrap(),
            };
            let partition = (number("_src") & 0xffff_ffff) as i32;
            offsets.entry(partition).or_default().insert(number("_seq"));
        }
        (offsets, lines.len())
    }
}

fn bench(name: &str) -> Option<Bench> {
    let brokers = kafka()?;
    let bench = Bench { brokers, topic: unique(name), folder: tempfile::tempdir().unwrap() };
    let connection = Connection::plain(&bench.brokers);
    wait_for(admin::create_topic(&connection, &bench.topic, PARTITIONS as usize, &[])).unwrap();
    Some(bench)
}

const SMALL: [&str; 6] = ["--checkpoint-every", "50ms", "--chunk-rows", "200", "--in-flight-rows", "2000"];

#[test]
fn archive_then_live_is_what_kafka_alone_would_have_given() {
    let Some(bench) = bench("archive") else { return };
    bench.produce(0, ARCHIVED);
    // Archived by a job that is killed now and then; compacted.
    let archiver = bench.graph("archiver", "");
    bench.run_killed(&archiver, 3);
    let archive = "archiver/archive";
    let files = || bench.tidemill(&["archive", "ls", archive, "--json"]);
    let before: Value = serde_json::from_str(&files().text).unwrap();
    assert_eq!(before[0]["rows"], ARCHIVED);
    // What no restart can remove any more first, then, since the job has ended, the rest.
    for args in [["--older-than", "0s"].as_slice(), &["--older-than", "0s", "--ended"]] {
        let said = bench.tidemill(&[["archive", "compact", archive, "trades"].as_slice(), args].concat());
        assert!(said.well, "{}", said.text);
    }
    let after: Value = serde_json::from_str(&files().text).unwrap();
    assert_eq!(after[0]["rows"], ARCHIVED);
    assert_eq!(after[0]["files"], 7, "a file a symbol: {after}");
    assert!(before[0]["files"].as_u64().unwrap() > 7, "{before}");
    let gone = bench.tidemill(&["archive", "expire", archive, "--older-than", "0s", "--yes"]);
    assert!(gone.well && gone.text.contains("deleted"), "{}", gone.text);
    let (offsets, _) = bench.offsets("archiver/all.jsonl");

    // More trades come; the reference is read while Kafka still has everything.
    bench.produce(ARCHIVED, ARCHIVED + LIVE);
    let said = bench.run(&bench.graph("reference", ""), &SMALL);
    assert!(said.well, "{}", said.text);
    assert_eq!(bench.lines("reference/all.jsonl").len() as u64, ARCHIVED + LIVE);

    // Kafka forgets most of what is archived, but not all: the cut is within what both have.
    let ends: BTreeMap<i32, i64> =
        offsets.iter().map(|(p, seqs)| (*p, *seqs.last().unwrap() as i64 + 1)).collect();
    bench.delete_before(&ends.iter().map(|(p, end)| (*p, end - 500)).collect());
    let said = bench.run(&bench.graph("forgotten", ""), &SMALL);
    assert!(said.well);
    assert!((bench.lines("forgotten/all.jsonl").len() as u64) < LIVE + 2000);

    let history = ", history: { url: archiver/archive/trades }";
    for (name, args) in [("one", ["--workers", "1"]), ("two", ["--workers", "2"])] {
        let said = bench.run(&bench.graph(name, history), &args);
        assert!(said.well, "{}", said.text);
        bench.same("reference/all.jsonl", &format!("{name}/all.jsonl"));
        bench.same("reference/bars.jsonl", &format!("{name}/bars.jsonl"));
    }

    // Exactly behind the last archived offset: still gapless. Killed and resumed, in the history and in Kafka.
    bench.delete_before(&ends);
    let mut kills = 0;
    let first: u64 = std::env::var("TIDEMILL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    for seed in first..first + 5 {
        let name = format!("killed{seed}");
        let came = bench.run_killed(&bench.graph(&name, history), seed);
        println!("{name}: {came} kills");
        kills += came;
        bench.same("reference/all.jsonl", &format!("{name}/all.jsonl"));
        bench.same("reference/bars.jsonl", &format!("{name}/bars.jsonl"));
        // Of what it archived in turn: no gap, no double, by the numbers alone.
        let (offsets, rows) = bench.offsets(&format!("{name}/all.jsonl"));
        assert_eq!(rows, offsets.values().map(BTreeSet::len).sum::<usize>());
        for seqs in offsets.values() {
            assert_eq!(seqs.len() as u64, seqs.last().unwrap() + 1);
        }
        let place = format!("{name}/archive");
        let gaps = ["archive", "gaps", &place, "trades", "--sequence", "_seq", "--by", "_src"];
        let said = bench.tidemill(&gaps);
        assert!(said.well, "{}", said.text);
        assert!(
            said.text.contains("0 holes in 120,000 rows of 3 keys by _src")
                && said.text.contains("0 rows twice"),
            "{}",
            said.text
        );
        // The same asked of SQL: rows, steps of nothing (a row twice) and steps of more than one (a hole).
        let query = "SELECT count(*) AS rows, count(*) FILTER (WHERE step = 0) AS twice, count(*) FILTER (WHERE step > 1) AS holes \
                     FROM (SELECT _seq - lag(_seq) OVER (PARTITION BY _src ORDER BY _seq) AS step FROM trades)";
        let said = bench.tidemill(&["sql", "--archive", &place, "--format", "csv", query]);
        assert!(said.well && said.text.contains("120000,0,0"), "{}", said.text);
    }
    assert!(kills >= 6, "only {kills} kills came in time");
    println!("{kills} kills");
}

#[test]
fn what_neither_has_is_said_before_a_row_is_read() {
    let Some(bench) = bench("gap") else { return };
    bench.produce(0, 3000);
    let said = bench.run(&bench.graph("archiver", ""), &SMALL);
    assert!(said.well, "{}", said.text);
    let (offsets, _) = bench.offsets("archiver/all.jsonl");
    bench.produce(3000, 6000);
    let said = bench.run(&bench.graph("reference", ""), &SMALL);
    assert!(said.well, "{}", said.text);
    // Kafka forgets 100 messages of each partition that nobody has archived.
    let ends: BTreeMap<i32, i64> =
        offsets.iter().map(|(p, seqs)| (*p, *seqs.last().unwrap() as i64 + 1)).collect();
    bench.delete_before(&ends.iter().map(|(p, end)| (*p, end + 100)).collect());
    let said = bench.run(&bench.graph("fails", ", history: { url: archiver/archive/trades }"), &SMALL);
    let (first, last) = (ends[&0], ends[&0] + 99);
    let expected =
        format!("offsets {first} to {last} of kafka topic `{}` partition 0 are in neither", bench.topic);
    assert!(!said.well && said.text.contains(&expected), "{expected}\n{}", said.text);
    assert!(said.text.contains("history.on_gap: continue"), "{}", said.text);
    assert!(bench.lines("fails/all.jsonl").is_empty());

    let history = ", history: { url: archiver/archive/trades, on_gap: continue }";
    let said = bench.run(&bench.graph("goes_on", history), &SMALL);
    assert!(said.well && said.text.contains(&expected), "{}", said.text);
    let missing = |line: &&String| {
        let row: Value = serde_json::from_str(line).unwrap();
        let number = |name: &str| row[name].as_u64().or_else(|| row[name].as_str()?.parse().ok()).unwrap();
        let end = ends[&((number("_src") & 0xffff_ffff) as i32)] as u64;
        (end..end + 100).contains(&number("_seq"))
    };
    let wanted: Vec<String> =
        bench.lines("reference/all.jsonl").iter().filter(|l| !missing(l)).cloned().collect();
    assert!(bench.lines("goes_on/all.jsonl") == wanted, "all rows but those that are nowhere");

    // Rows that were compacted cannot be written again: going back before them is refused.
    let archive = "archiver/archive";
    let said = bench.tidemill(&["archive", "compact", archive, "--older-than", "0s", "--ended"]);
    assert!(said.well, "{}", said.text);
    let graph = bench.graph("archiver", "");
    let said = bench.run(&graph, &["--from", "none"]);
    assert!(!said.well && said.text.contains("existing: replace"), "{}", said.text);
    let again = std::fs::read_to_string(&graph)
        .unwrap()
        .replace("partition_by: [date, symbol] }", "partition_by: [date, symbol], existing: replace }");
    std::fs::write(&graph, again).unwrap();
    let said = bench.run(&graph, &["--from", "none"]);
    assert!(said.well, "{}", said.text);
    let listed = bench.tidemill(&["archive", "ls", archive, "--json"]);
    let listed: Value = serde_json::from_str(&listed.text).unwrap();
    let there = bench.lines("archiver/all.jsonl").len();
    assert_eq!(listed[0]["rows"], there);
}

/// On a real S3 server: many small files become few, and a job reads the same rows before and after.
#[test]
fn an_archive_on_s3_is_compacted_and_expired() {
    let Some(data) = data() else { return };
    let Ok(bucket) = std::env::var("TIDEMILL_TEST_S3_BUCKET") else {
        return skipped("no S3: scripts/services start s3; eval \"$(scripts/services env)\"");
    };
    let bench = Bench { brokers: String::new(), topic: unique("s3"), folder: tempfile::tempdir().unwrap() };
    let place = format!("s3://{bucket}/{}", bench.topic);
    let graph = |name: &str, text: String| {
        let path = bench.path(&format!("{name}.yaml"));
        std::fs::write(&path, format!("dataflow: {name}\nversion: 1\n{text}")).unwrap();
        path
    };
    let write = graph(
        "write",
        format!(
            "sources:\n  trades: {{ kind: parquet, with: {{ url: \"{}/equities/trades_2013100[78].parquet\", columns: [symbol, price, size] }} }}\noperators:\n  bars: {{ kind: bars, from: trades, with: {{ every: 1m, by: [symbol] }} }}\nsinks:\n  out: {{ kind: parquet, from: bars, with: {{ url: \"{place}/bars\", partition_by: [date] }} }}\n",
            data.display()
        ),
    );
    let said = bench
        .run(&write, &["--checkpoint-every", "20ms", "--chunk-rows", "2000", "--in-flight-rows", "20000"]);
    assert!(said.well, "{}", said.text);
    let read = |name: &str| {
        let text = format!(
            "sources:\n  bars: {{ kind: parquet, with: {{ url: \"{place}/bars\" }} }}\nsinks:\n  out: {{ kind: jsonl, from: bars, with: {{ path: {name}.jsonl }} }}\n"
        );
        let said = bench.run(&graph(name, text), &[]);
        assert!(said.well, "{}", said.text);
        let mut lines = bench.lines(&format!("{name}.jsonl"));
        lines.sort();
        lines
    };
    let rows = read("before");
    assert!(rows.len() > 3000);
    let said = bench.tidemill(&["archive", "compact", &place, "--older-than", "0s", "--ended"]);
    // Three days, of which the last has one file: its bars end at midnight.
    assert!(said.well && said.text.contains("are now 2"), "{}", said.text);
    assert!(read("between") == rows, "the replaced files are still there");
    let said = bench.tidemill(&["archive", "expire", &place, "--older-than", "0s", "--yes"]);
    assert!(said.well, "{}", said.text);
    assert!(read("after") == rows);
    let said = bench.tidemill(&["archive", "ls", &place, "--json"]);
    let listed: Value = serde_json::from_str(&said.text).unwrap();
    assert_eq!((&listed[0]["rows"], &listed[0]["files"]), (&json!(rows.len()), &json!(3)), "{listed}");
    let said = bench.tidemill(&["archive", "expire", &place, "bars", "--before", "2013-10-08", "--yes"]);
    assert!(said.well, "{}", said.text);
    assert!(read("later").len() < rows.len());
}

/// A plan says at once what a history lacks.
#[test]
fn a_history_that_does_not_fit_is_a_problem_of_the_graph() {
    let folder = tempfile::tempdir().unwrap();
    let graph = |with: &str| {
        format!(
            "dataflow: x\nversion: 1\nsources:\n  trades:\n    kind: kafka\n    with: {{ brokers: \"a:1\", topic: t, schema: trade, {with} }}\nsinks:\n  out: {{ kind: stdout, from: trades }}\n"
        )
    };
    let said = |with: &str| match wait_for(plan_text(&graph(with), "x.yaml", folder.path(), &registry())) {
        Ok(_) => String::new(),
        Err(errors) => errors.render(false),
    };
    // An archive that nobody has begun is no mistake.
    assert_eq!(said("history: { url: archive/trades }"), "");
    assert!(said("start: latest, history: { url: archive/trades }").contains("begins with its archive"));
    assert!(said("history: { url: \"ftp://x\" }").contains("history.url"));
    assert!(said("history: { url: a, memory_mb: 0 }").contains("history.memory_mb"));
    assert!(said("history: { urll: a }").contains("urll"));
}
