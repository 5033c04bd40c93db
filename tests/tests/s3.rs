//! Checkpoints and archive on a real S3 server: written, resumed and read back.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use tidemill_tests::*;

fn tidemill(folder: &Path, graph: &str, args: &[&str]) -> (bool, String) {
    let path = folder.join("graph.yaml");
    std::fs::write(&path, graph).unwrap();
    let output =
        Command::new(binary()).arg("run").arg(&path).args(["--progress", "off"]).args(args).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Lines of a JSON file by how often they stand there.
fn lines(path: &Path) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

#[test]
fn an_archive_on_s3_survives_a_stop_and_reads_back_as_it_was_written() {
    let Some(data) = data() else { return };
    let Ok(bucket) = std::env::var("TIDEMILL_TEST_S3_BUCKET") else {
        return skipped("no S3: scripts/services start s3; eval \"$(scripts/services env)\"");
    };
    let folder = tempfile::tempdir().unwrap();
    let place = format!("s3://{bucket}/t{}", std::process::id());
    let graph = |sink: &str| {
        format!(
            "dataflow: archive\nversion: 1\ncheckpoints: {{ url: \"{place}/checkpoints\", every: 50ms }}\nsources:\n  trades: {{ kind: parquet, with: {{ url: \"{}/equities/trades_2013100[78].parquet\", columns: [symbol, price, size] }} }}\noperators:\n  bars: {{ kind: bars, from: trades, with: {{ every: 1m, by: [symbol] }} }}\nsinks:\n  out: {sink}\n",
            data.display()
        )
    };
    let archive = graph(&format!(
        "{{ kind: parquet, from: bars, with: {{ url: \"{place}/bars\", partition_by: [date] }} }}"
    ));
    // Killed at the first checkpoint, then to the end: on two workers.
    let path = folder.path().join("graph.yaml");
    std::fs::write(&path, &archive).unwrap();
    let killed = Command::new(binary())
        .arg("run")
        .arg(&path)
        .args(["--progress", "off", "--in-flight-rows", "5000", "--chunk-rows", "500"])
        .env("TIDEMILL_FAULT", "after-manifest:2")
        .output()
        .unwrap();
    assert!(!killed.status.success());
    let (well, said) = tidemill(folder.path(), &archive, &["--workers", "2"]);
    assert!(well, "{said}");
    // A second run from nothing would double the rows: it is refused.
    let (well, said) = tidemill(folder.path(), &archive, &["--from", "none"]);
    assert!(!well && said.contains("existing: replace"), "{said}");

    let local = graph("{ kind: jsonl, from: bars, with: { path: expected.jsonl } }")
        .replace("dataflow: archive", "dataflow: local");
    let (well, said) = tidemill(folder.path(), &local, &[]);
    assert!(well, "{said}");
    let back = format!(
        "dataflow: back\nversion: 1\ncheckpoints: {{ url: \"{place}/checkpoints\" }}\nsources:\n  bars: {{ kind: parquet, with: {{ url: \"{place}/bars\" }} }}\nsinks:\n  out: {{ kind: jsonl, from: bars, with: {{ path: back.jsonl }} }}\n"
    );
    let (well, said) = tidemill(folder.path(), &back, &[]);
    assert!(well, "{said}");
    let expected = lines(&folder.path().join("expected.jsonl"));
    assert!(expected.len() > 3000);
    assert_eq!(lines(&folder.path().join("back.jsonl")), expected);
}
