//! dataflows/momentum.yaml over four real days gives one output, however it is run.
//!
//! The first run's rows are compared with bars that another program computed, and every other run
//! with the first: two workers, two processes, random batch sizes, Kafka as input, and stopped at
//! half and resumed on three workers.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidemill_tests::*;

/// What the graph made: signal lines as written, bar lines sorted.
#[derive(PartialEq, Eq)]
struct Made {
    signals: Vec<String>,
    bars: Vec<String>,
}

/// The momentum graph with real trades in and files out.
fn graph(folder: &Path, source: &str) -> PathBuf {
    let text = dataflow("momentum");
    let text = with_node(&text, "trades", source);
    let text = with_node(
        &text,
        "signals",
        "  signals: { kind: jsonl, from: signal, with: { path: signals.jsonl } }",
    );
    let text =
        with_node(&text, "history", "  history: { kind: jsonl, from: bars, with: { path: bars.jsonl } }");
    let text = text.split("\ntests:").next().unwrap_or_default().to_owned();
    let path = folder.join("momentum.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

fn parquet(data: &Path) -> String {
    format!(
        "  trades: {{ kind: parquet, with: {{ url: \"{}/equities/trades_*.parquet\", columns: [symbol, price, size] }} }}",
        data.display()
    )
}

fn tidemill(args: &[&str], graph: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("run").arg(graph).args(["--progress", "off"]).args(args);
    command
}

fn made(folder: &Path) -> Made {
    let lines = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let mut bars = lines("bars.jsonl");
    // Bars of several symbols end at the same instant; which is first goes by origin, and origins
    // differ between a file and a topic.
    bars.sort_unstable();
    let mut signals = lines("signals.jsonl");
    signals.sort_unstable();
    Made { signals, bars }
}

fn run(source: &str, args: &[&str]) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path(), source);
    let output = tidemill(args, &graph).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    made(folder.path())
}

/// Where two outputs differ, for a message of readable length.
fn assert_same(name: &str, reference: &Made, other: &Made) {
    for (what, a, b) in
        [("signals", &reference.signals, &other.signals), ("bars", &reference.bars, &other.bars)]
    {
        assert_eq!(a.len(), b.len(), "{name}: number of {what}");
        let first = a.iter().zip(b).find(|(a, b)| a != b);
        assert!(first.is_none(), "{name}: {what} differ: {first:?}");
    }
}

#[test]
fn momentum_over_four_real_days_gives_one_output_however_it_is_run() {
    let Some(data) = data() else { return };
    let source = parquet(&data);
    let reference = run(&source, &[]);
    assert!(
        reference.signals.len() > 50 && reference.bars.len() > 5000,
        "{} signals, {} bars",
        reference.signals.len(),
        reference.bars.len()
    );
    for args in [
        &["--workers", "2"][..],
        &["--workers", "3", "--chunk-rows", "500"],
        &["--processes", "2"],
        &["--random-batches", "8192:1"],
        &["--random-batches", "100:2", "--workers", "2"],
        &["--random-batches", "8192:3", "--chunk-rows", "4000", "--processes", "2", "--workers", "2"],
    ] {
        assert_same(&args.join(" "), &reference, &run(&source, args));
    }
    assert_same("stopped and resumed", &reference, &stopped_and_resumed(&source));
    bars_equal_another_programs(&data, &reference);
}

/// Runs on one worker, is told to stop somewhere in the middle, goes on with three.
fn stopped_and_resumed(source: &str) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path(), source);
    let mut stops = 0;
    for workers in ["1", "2", "3", "1"] {
        let mut child =
            tidemill(&["--workers", workers, "--in-flight-rows", "20000", "--chunk-rows", "1000"], &graph)
                .spawn()
                .unwrap();
        if workers != "1" || stops == 0 {
            // Somewhere in the middle: when the output has grown a good deal.
            let before = size(&folder.path().join("bars.jsonl"));
            while size(&folder.path().join("bars.jsonl")) < before + 120_000
                && child.try_wait().unwrap().is_none()
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            stops += 1;
        }
        assert!(child.wait().unwrap().success());
    }
    made(folder.path())
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Polars-free oracle: one-minute SPY bars of 8 October 2013, computed beside the TA-Lib reference.
fn bars_equal_another_programs(data: &Path, reference: &Made) {
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;
    let file = std::fs::File::open(data.join("oracles/talib_spy_1m_20131008.parquet")).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    let oracle = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let column = |name: &str| {
        let array =
            arrow::compute::cast(oracle.column_by_name(name).unwrap(), &arrow::datatypes::DataType::Float64)
                .unwrap();
        array.as_primitive::<Float64Type>().values().to_vec()
    };
    let ours: Vec<serde_json::Value> = reference
        .bars
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|bar| bar["symbol"] == "SPY" && bar["start"].as_str().unwrap().starts_with("2013-10-08"))
        .collect();
    assert_eq!(ours.len(), oracle.num_rows());
    for name in ["open", "high", "low", "close", "volume"] {
        for (i, (want, bar)) in column(name).iter().zip(&ours).enumerate() {
            let got = bar[name].as_f64().unwrap();
            assert!((want - got).abs() <= 1e-9 * want.abs(), "{name} of bar {i}: oracle {want}, got {got}");
        }
    }
}

#[test]
fn kafka_as_input_gives_what_parquet_gives() {
    let (Some(data), Some(brokers)) = (data(), kafka()) else { return };
    let reference = run(&parquet(&data), &[]);
    let topic = format!("golden-{}", std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let feed = format!(
        "dataflow: feed\nversion: 1\nsources:\n{}\nsinks:\n  out: {{ kind: kafka, from: trades, with: {{ brokers: \"{brokers}\", topic: {topic}, key: [symbol], partitions: 3, delivery: at_least_once }} }}\n",
        parquet(&data)
    );
    let path = folder.path().join("feed.yaml");
    std::fs::write(&path, feed).unwrap();
    let fed = tidemill(&[], &path).output().unwrap();
    assert!(fed.status.success(), "{}", String::from_utf8_lossy(&fed.stderr));
    let source = |keyed: &str| {
        format!(
            "  trades: {{ kind: kafka, with: {{ brokers: \"{brokers}\", topic: {topic}, format: json, schema: trade, stop: end, ahead_max: 3650d{keyed} }} }}"
        )
    };
    // By key as rows come; and by the watermark, as for a topic of which nothing is promised.
    assert_same("kafka, keyed", &reference, &run(&source(", keyed_by: [symbol]"), &["--workers", "2"]));
    assert_same("kafka, ordered by the watermark", &reference, &run(&source(""), &[]));
}
