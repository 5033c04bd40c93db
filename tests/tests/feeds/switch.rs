//! The kill switch: commands from the command line and from a file reach the traders of a running job, though its feed has died, and hold
//! after it was killed.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tidemill_connectors::capture::serve::ServeOptions;
use tidemill_connectors::venue::frame::{Frame, FrameKind};
use tidemill_tests::binary;
use tidemill_tests::patience::hang_guard;

use super::{Running, serve};

fn graph(address: &str) -> String {
    format!(
        r#"
dataflow: desk
version: 1
sources:
  trades:
    kind: websocket
    with:
      url: "ws://{address}/feed?v=1"
      send: [{{op: subscribe}}]
      columns:
        ts: {{ path: t, type: timestamp }}
        symbol: {{ path: s, type: symbol }}
        price: {{ path: p, type: f64 }}
        size: {{ path: n, type: f64 }}
      connection: {{ stale_after: 5m }}
      idle_timeout: 100ms
  switch: {{ kind: control, with: {{ path: kill-switch }} }}
operators:
  signal: {{ kind: select, from: trades, with: {{ sql: "symbol, 'BUY' AS side", where: "size = 10" }} }}
  desk:
    kind: execution
    from: [trades, signal, switch]
    with:
      signals: signal
      control: switch
      account: {{ cash: {{ USD: 100000 }} }}
      sizing: {{ fixed: 1 }}
      order: {{ type: limit, from: last, offset: {{ ticks: 2000 }} }}
  rows: {{ kind: select, from: desk, with: {{ sql: "event, order_id, state, reason, detail", where: "event IN ('order', 'cancel', 'state', 'alert', 'rejected')" }} }}
sinks:
  told: {{ kind: jsonl, from: rows, with: {{ path: told.jsonl }} }}
"#
    )
}

/// A minute of trades up to now: the tenth is one to buy at.
fn session() -> Vec<Frame> {
    let start = chrono::Utc::now() - chrono::Duration::seconds(60);
    let frame = |i: usize, kind, data: String| Frame {
        received_ns: start.timestamp_nanos_opt().unwrap() + i as i64,
        connection: 0,
        kind,
        data: data.into(),
    };
    let mut frames = vec![
        frame(0, FrameKind::Opened, "wss://venue.example.com/feed?v=1".into()),
        frame(0, FrameKind::Sent, "{\"op\":\"subscribe\"}".into()),
    ];
    frames.extend((0..60).map(|i| {
        let at = (start + chrono::Duration::seconds(i as i64)).to_rfc3339();
        frame(i, FrameKind::Received, format!(r#"{{"t":"{at}","s":"BTC","p":"100.25","n":{i}}}"#))
    }));
    frames
}

fn start(folder: &Path) -> Running {
    let mut command = Command::new(binary());
    command.args(["run", "desk.yaml", "--progress", "off", "--checkpoint-every", "50ms"]);
    Running(command.current_dir(folder).stdin(Stdio::null()).spawn().unwrap())
}

fn control(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["control", "desk.yaml"]).args(args).current_dir(folder).output().unwrap()
}

/// Waits for a row that `is` so among those that are told; gives all.
fn told(folder: &Path, is: &dyn Fn(&Value) -> bool) -> Vec<Value> {
    let guard = hang_guard();
    loop {
        let text = std::fs::read_to_string(folder.join("told.jsonl")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let rows: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if rows.iter().any(is) {
            return rows;
        }
        guard.check(|| format!("rows so far: {text}"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn reason(row: &Value) -> &str {
    row["reason"].as_str().unwrap_or_default()
}

#[test]
fn a_command_reaches_the_desk_though_its_feed_has_died() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(serve(session(), ServeOptions::default()));
    std::fs::write(folder.join("desk.yaml"), graph(&server.address.to_string())).unwrap();
    let job = start(folder);
    told(folder, &|row| row["event"] == "order");

    let said = control(folder, &["halt", "fat", "finger", "--wait", "50s"]);
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success() && text.starts_with("switch: halt fat finger: read at 2"), "{text}");
    let rows = told(folder, &|row| reason(row) == "control.halt: fat finger");
    told(folder, &|row| row["event"] == "cancel");
    assert_eq!(rows.iter().filter(|row| row["event"] == "order").count(), 1);

    // By hand, without a line end; and a word that is none.
    std::fs::write(folder.join("kill-switch"), "halt fat finger\nresume\nstop it").unwrap();
    told(folder, &|row| row["event"] == "state" && row["state"] == "normal");
    told(folder, &|row| {
        row["event"] == "alert"
            && row["detail"].as_str().is_some_and(|text| text.contains("`stop` is no command"))
    });

    // Killed in between, and commanded while it is down.
    drop(job);
    let said = control(folder, &["reduce", "--wait", "1ms"]);
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.code() == Some(3) && text.contains("will read it when it starts"), "{text}");
    let _job = start(folder);
    let rows = told(folder, &|row| reason(row) == "control.reduce: commanded");
    let states = rows.iter().filter(|row| row["event"] == "state");
    let states: Vec<_> = states.map(|row| row["state"].as_str().unwrap()).collect();
    // A last row that no checkpoint knew is told again.
    assert!(states.starts_with(&["halted", "normal"]) && states.ends_with(&["reducing"]), "{states:?}");
}

#[test]
fn a_graph_without_a_switch_is_told_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let without =
        graph("127.0.0.1:9").replace("  switch: { kind: control, with: { path: kill-switch } }\n", "");
    std::fs::write(folder.join("desk.yaml"), without).unwrap();
    let said = control(folder, &["halt"]);
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && text.contains("has no `control` source: add one"), "{text}");
    std::fs::write(folder.join("desk.yaml"), graph("127.0.0.1:9")).unwrap();
    let said = control(folder, &["halt", "--source", "swich"]);
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && text.contains("is named `swich`; there are: switch"), "{text}");
}
