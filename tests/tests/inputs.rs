//! A job that is resumed over another input than it had read, and a job of which one source is silent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use tidemill_tests::*;

/// 20,000 rows in two files of the same names and sizes, whatever the price.
fn input(folder: &Path, price: usize) {
    std::fs::create_dir_all(folder).unwrap();
    for (file, first) in [("one.csv", 0), ("two.csv", 10_000)] {
        let lines: String = (first..first + 10_000).map(|i| format!("{:08},{price}.5\n", i * 1000)).collect();
        std::fs::write(folder.join(file), format!("ts,price\n{lines}")).unwrap();
    }
}

fn run(graph: &Path, dir: &str, fault: Option<&str>, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary());
    command.arg("run").arg(graph).args(["--set", &format!("dir={dir}"), "--progress", "off"]);
    command.args(["--chunk-rows", "100", "--in-flight-rows", "500"]).args(args);
    if let Some(fault) = fault {
        command.env("TIDEMILL_FAULT", fault);
    }
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Given a job that was killed on its way through one folder, when it is resumed over another, then it refuses and writes nothing;
/// resumed over its own, it comes to its end as if nothing had been.
#[test]
fn another_folder_is_refused_and_the_own_one_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    input(&folder.path().join("a"), 1);
    input(&folder.path().join("b"), 2);
    let graph = folder.path().join("graph.yaml");
    let text = "dataflow: inputs\nversion: 1\nvars: { dir: a }\ncheckpoints: { every: 20ms }\n\
        sources:\n  prices: { kind: csv, with: { url: \"${dir}/*.csv\", schema: { ts: timestamp, price: f64 } } }\n\
        sinks:\n  out: { kind: jsonl, from: prices, with: { path: out.jsonl } }\n";
    std::fs::write(&graph, text).unwrap();
    let (well, _) = run(&graph, "a", Some("after-manifest:3"), &[]);
    assert!(!well, "the run was to be killed at its third checkpoint");
    let written = || std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap_or_default();
    let before = written();

    let (well, log) = run(&graph, "b", None, &[]);
    assert!(!well, "another folder was read on: {log}");
    for part in ["`prices`", "/b/", "had been read", "--from none"] {
        assert!(log.contains(part), "no `{part}` in {log}");
    }
    assert!(
        before.starts_with(&written()) && !written().contains("2.5"),
        "rows were written before the refusal"
    );

    let (well, log) = run(&graph, "a", None, &[]);
    assert!(well, "{log}");
    assert_eq!(written().lines().count(), 20_000);
    assert_eq!(written().matches("1.5").count(), 20_000);

    std::fs::remove_file(folder.path().join("out.jsonl")).unwrap();
    let (well, log) = run(&graph, "b", None, &["--from", "none"]);
    assert!(well, "{log}");
}
