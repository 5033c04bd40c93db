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

/// Given a job whose checkpoints and commands are in object storage, when its machine is lost and another one goes on with it, then commands
/// reach it there, from a folder that has nothing but the graph; and where only the checkpoints are there, that is said.
#[test]
fn commands_reach_a_job_on_whatever_machine_it_runs() {
    let Some((_, bucket)) = s3() else { return };
    let machines = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let unique = machines[0].path().file_name().unwrap().to_str().unwrap();
    let place = format!("s3://{bucket}/control/{unique}-{}", std::process::id());
    let graph = |switch: &str| {
        format!(
            "dataflow: switched\nversion: 1\ncheckpoints: {{ url: \"{place}/checkpoints\", every: 200ms }}\nsources:\n  switch: {{ kind: control, with: {{ path: \"{switch}\" }} }}\nsinks:\n  out: {{ kind: \"null\", from: switch }}\n"
        )
    };
    let said = |machine: usize, args: &[&str]| {
        let output =
            Command::new(binary()).args(args).current_dir(machines[machine].path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    for machine in &machines {
        std::fs::write(machine.path().join("graph.yaml"), graph(&format!("{place}/switch"))).unwrap();
        std::fs::write(machine.path().join("local.yaml"), graph("kill-switch")).unwrap();
    }
    let (code, text) = said(0, &["validate", "graph.yaml"]);
    assert!(code == Some(0) && !text.contains("this machine"), "{text}");
    for command in ["validate", "plan"] {
        let (code, text) = said(0, &[command, "local.yaml"]);
        let warned =
            text.contains("source `switch` keeps") && text.contains("kill-switch` on this machine's disk");
        assert!(code == Some(0) && warned, "{text}");
    }
    // Commanded before it runs: it reads that when it starts.
    let (code, text) = said(1, &["control", "graph.yaml", "halt", "before", "--wait", "1ms"]);
    assert!(code == Some(3) && text.contains("the job does not run"), "{text}");
    for (machine, command) in [(0, "reduce"), (1, "resume")] {
        let mut job = Command::new(binary())
            .args(["run", "graph.yaml", "--progress", "off"])
            .current_dir(machines[machine].path())
            .spawn()
            .unwrap();
        // From the other machine.
        let (code, text) = said(1 - machine, &["control", "graph.yaml", command, "why", "--wait", "4m"]);
        job.kill().unwrap();
        job.wait().unwrap();
        assert!(code == Some(0) && text.contains(&format!("switch: {command} why: read at")), "{text}");
    }
    for machine in &machines {
        assert!(!machine.path().join(".tidemill").exists(), "nothing is on its disk");
    }
}
