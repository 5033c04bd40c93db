//! Feeds against a served capture: what a venue, a network or a machine may do to them, and that a
//! replay of what was captured gives the same rows.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use tidemill_connectors::capture::info::{Info, info};
use tidemill_connectors::capture::reader::Capture;
use tidemill_connectors::capture::serve::{Fault, Faults, ServeOptions, Server};
use tidemill_connectors::conformance::{Drive, PartitionRead, read_source};
use tidemill_connectors::venue::feed::{FeedParams, plan_feed};
use tidemill_connectors::venue::frame::{Frame, FrameKind};
use tidemill_connectors::venue::protocol::{Action, Endpoint, Output, Protocol};
use tidemill_connectors::websocket::Websocket;
use tidemill_engine::component::{PlanContext, SourceKind, SourcePlan};
use tidemill_engine::duration::Span;
use tidemill_engine::json::{Decoder, EncodeOptions, Encoder};
use tidemill_engine::schema::SchemaSpec;
use tidemill_engine::spec::TimeUnitName;
use tidemill_tests::patience::{guarded, hang_guard};
use tidemill_tests::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[path = "feeds/killed.rs"]
mod killed;
#[path = "feeds/rebuild.rs"]
mod rebuild;
#[path = "feeds/served.rs"]
mod served;
#[path = "feeds/sessions.rs"]
mod sessions;
#[path = "feeds/switch.rs"]
mod switch;
#[path = "feeds/told.rs"]
mod told;
#[path = "feeds/traded.rs"]
mod traded;

const START_NS: i64 = 1_700_000_000_000_000_000;

/// A captured session: a subscription, its answer, then `n` messages of a trade each, a millisecond apart.
fn session(connection: u32, n: usize) -> Vec<Frame> {
    let frame = |i: usize, kind, data: String| Frame {
        received_ns: START_NS + i as i64 * 1_000_000,
        connection,
        kind,
        data: data.into(),
    };
    let mut frames = vec![
        frame(0, FrameKind::Opened, "wss://venue.example.com/feed?v=1".into()),
        frame(0, FrameKind::Sent, "{\"op\":\"subscribe\"}".into()),
    ];
    frames.extend((0..n).map(|i| frame(i, FrameKind::Received, message(i))));
    frames
}

fn message(i: usize) -> String {
    let at = chrono::DateTime::from_timestamp_nanos(START_NS + i as i64 * 1_000_000).to_rfc3339();
    let symbol = ["BTC", "ETH"][i % 2];
    format!(
        r#"{{"ch":"t","d":[{{"t":"{at}","s":"{symbol}","p":"{}.25","n":{}}}]}}"#,
        100 + i % 7,
        100_000 + i
    )
}

async fn serve(frames: Vec<Frame>, options: ServeOptions) -> Server {
    Server::start(frames, TcpListener::bind("127.0.0.1:0").await.unwrap(), options).unwrap()
}

fn faults(at: &[(usize, Fault)]) -> ServeOptions {
    ServeOptions {
        faults: Faults { at: at.iter().copied().collect(), ..Faults::default() },
        ..ServeOptions::default()
    }
}

fn context(base: &Path) -> PlanContext {
    PlanContext { job: "j".into(), node: "trades".into(), base: base.into(), clock: Default::default() }
}

/// A `websocket` source of the session at `address`.
async fn source(address: &str, base: &Path, connection: Value) -> SourcePlan {
    let with = json!({
        "url": format!("ws://{address}/feed?v=1"),
        "send": [{"op": "subscribe"}],
        "rows": "d",
        "where": {"$.ch": "t"},
        "columns": {
            "ts": {"path": "t", "type": "timestamp"},
            "symbol": {"path": "s", "type": "symbol"},
            "price": {"path": "p", "type": "f64"},
            "n": "i64",
            "received_at": {"path": "$(received)", "type": "timestamp"},
        },
        "once": (connection["redundant"] == 2).then(|| json!({"sequence": "n"})),
        "connection": connection,
    });
    Websocket::plan(serde_json::from_value(with).unwrap(), &context(base)).await.unwrap()
}

async fn read(plan: &SourcePlan, rows_max: usize) -> PartitionRead {
    let reading = read_source(&plan.source, &plan.columns, Drive { rows_max, ..Drive::default() });
    guarded("rows are missing", reading).await.unwrap().remove(&0).unwrap()
}

/// The messages whose rows have come, in order.
fn numbers(read: &PartitionRead) -> Vec<usize> {
    lines(&read.rows).iter().map(|row| row["n"].as_u64().unwrap() as usize - 100_000).collect()
}

fn lines(rows: &RecordBatch) -> Vec<Value> {
    let mut encoder = Encoder::new(rows.schema(), EncodeOptions::default());
    encoder.encode(rows).iter().map(|row| serde_json::from_slice(row).unwrap()).collect()
}

async fn captured(base: &Path) -> Info {
    info(&Capture::open("captures", base, "trades").await.unwrap()).await.unwrap()
}

#[track_caller]
fn assert_same(live: &PartitionRead, replayed: &PartitionRead) {
    assert_eq!(live.seqs, replayed.seqs);
    assert!(live.rows == replayed.rows, "rows differ");
    let rejects = |read: &PartitionRead| -> Vec<_> {
        read.rejects.iter().map(|r| (r.seq, r.before, r.raw.clone(), r.reason.clone())).collect()
    };
    assert_eq!(rejects(live), rejects(replayed));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_messages_the_rest_comes_and_a_replay_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = [
        (100, Fault::Cut),
        (300, Fault::Stall),
        (500, Fault::Truncate),
        (600, Fault::Duplicate),
        (700, Fault::Drop),
        (800, Fault::Reorder),
    ];
    let server = serve(session(0, 1000), faults(&wrong)).await;
    let connection = json!({"capture": "captures", "stale_after": "400ms", "backoff_min": "10ms"});
    let plan = source(&server.address.to_string(), folder.path(), connection).await;
    assert!(!plan.bounded);
    let live = read(&plan, 997).await;
    let mut expected: Vec<usize> = (0..1000).filter(|i| ![100, 300, 500, 700].contains(i)).collect();
    expected.insert(expected.iter().position(|i| *i == 600).unwrap(), 600);
    let at = expected.iter().position(|i| *i == 800).unwrap();
    expected.swap(at, at + 1);
    assert_eq!(numbers(&live), expected);
    assert_eq!(live.rejects.len(), 1);
    assert!(live.rejects[0].reason.contains("not valid JSON") && live.rejects[0].raw.starts_with(b"{\"ch\""));
    let served = server.served();
    assert_eq!(served.faults, wrong);
    assert_eq!(
        (served.opened, served.heard.len()),
        (3, 3),
        "subscribed anew after the cut and after the stall"
    );
    let info = captured(folder.path()).await;
    assert_eq!((info.opened, info.closed, info.sent, info.received, info.torn.len()), (3, 2, 3, 998, 0));
    let plan = source("nowhere.invalid", folder.path(), json!({"replay": "captures"})).await;
    assert!(plan.bounded);
    assert_same(&live, &read(&plan, usize::MAX).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_waited_for_and_subscribed_to_again() {
    let folder = tempfile::tempdir().unwrap();
    let frames = session(0, 400);
    let first = serve(frames[..202].to_vec(), ServeOptions::default()).await;
    let address = first.address;
    let connection = json!({"backoff_min": "5ms", "backoff_max": "50ms"});
    let plan = source(&address.to_string(), folder.path(), connection).await;
    let reading = tokio::spawn(async move { read(&plan, 400).await });
    let guard = hang_guard();
    while first.served().ended == 0 {
        guard.check(|| "the first server does not send all".to_owned());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.stop().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut rest = frames[..2].to_vec();
    rest.extend_from_slice(&frames[202..]);
    let listener = TcpListener::bind(address).await.unwrap();
    let second = Server::start(rest, listener, ServeOptions::default()).unwrap();
    let live = reading.await.unwrap();
    assert_eq!(numbers(&live), (0..400).collect::<Vec<_>>());
    assert_eq!(second.served().heard, ["{\"op\":\"subscribe\"}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections_the_loss_of_either_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut frames = session(0, 600);
    frames.extend(session(1, 600));
    // The second connection's messages are numbered on from 600.
    let wrong = [(100, Fault::Cut), (200, Fault::Drop), (900, Fault::Cut), (950, Fault::Truncate)];
    let options = ServeOptions { speed: Some(1.0), ..faults(&wrong) };
    let server = serve(frames, options).await;
    let connection = json!({"redundant": 2, "capture": "captures", "backoff_min": "10ms"});
    let plan = source(&server.address.to_string(), folder.path(), connection).await;
    let live = read(&plan, 600).await;
    let mut got = numbers(&live);
    got.sort_unstable();
    assert_eq!(got, (0..600).collect::<Vec<_>>(), "each once");
    let plan = source("nowhere.invalid", folder.path(), json!({"replay": "captures", "redundant": 2})).await;
    let replayed = read(&plan, usize::MAX).await;
    // Live, the reader left at the last row it wanted.
    assert_eq!(replayed.seqs[..live.seqs.len()], live.seqs);
    assert!(replayed.rows.slice(0, 600) == live.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_numbers_on_and_a_replay_of_both_runs_is_one_stream() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(session(0, 300), ServeOptions { speed: Some(1.0), ..ServeOptions::default() }).await;
    let plan = source(&server.address.to_string(), folder.path(), json!({"capture": "captures"})).await;
    let first = read(&plan, 100).await;
    // As if the last checkpoint had been taken a while before the end.
    let (rows, _, position) = first.positions.iter().find(|(rows, _, _)| *rows >= 60).unwrap().clone();
    assert_eq!(position["rows"], rows as u64);
    let drive = Drive { restored: BTreeMap::from([(0, position)]), rows_max: 100, ..Drive::default() };
    let second = read_source(&plan.source, &plan.columns, drive).await.unwrap().remove(&0).unwrap();
    assert_eq!(second.seqs[0], rows as u64);
    let plan = source("nowhere.invalid", folder.path(), json!({"replay": "captures"})).await;
    let replayed = read(&plan, usize::MAX).await;
    assert_eq!(replayed.seqs, (0..replayed.seqs.len() as u64).collect::<Vec<_>>());
    assert!(
        replayed.rows.slice(0, rows) == first.rows.slice(0, rows),
        "what the checkpoint knew of the first run"
    );
    let again = second.seqs.len();
    assert!(replayed.rows.slice(rows, again) == second.rows.slice(0, again), "then the second run");
}

/// Asks for URLs when the first message comes; every answer is a row.
struct Asking {
    base: String,
    paths: Vec<&'static str>,
    columns: SchemaRef,
    decoder: Decoder,
    url: String,
}

impl Asking {
    fn new(socket: &str, base: &str, paths: &[&'static str]) -> Self {
        let columns = json!({"ts": "timestamp", "url": "string", "status": "i64", "body": "string"});
        let columns = SchemaSpec::Columns(columns.as_object().unwrap().clone()).resolve("").unwrap();
        Self {
            base: base.into(),
            paths: paths.to_vec(),
            decoder: Decoder::new(columns.clone(), TimeUnitName::Ns),
            columns,
            url: format!("ws://{socket}/feed?v=1"),
        }
    }
}

impl Protocol for Asking {
    fn endpoints(&self) -> Vec<Endpoint> {
        let hello = vec![tidemill_connectors::venue::protocol::Outgoing::plain("hello")];
        let stale_ns = 30_000_000_000;
        vec![Endpoint { url: self.url.clone(), hello, send_gap_ns: 0, ping: None, stale_ns, group: 0 }]
    }

    fn schema(&self) -> SchemaRef {
        self.columns.clone()
    }

    fn on_frame(&mut self, frame: &Frame, out: &mut Output) {
        match &frame.kind {
            FrameKind::Received => {
                for path in &self.paths {
                    let url =
                        if path.starts_with('/') { format!("{}{path}", self.base) } else { path.to_string() };
                    out.actions.push(Action::Fetch { connection: 0, url, weight: 5 });
                }
            }
            FrameKind::Response { url, status } => {
                let url = url.strip_prefix(&self.base).unwrap_or(url);
                let body = String::from_utf8_lossy(&frame.data);
                let row = json!({"ts": frame.received_ns, "url": url, "status": status, "body": body});
                self.decoder.push(row.to_string().as_bytes()).unwrap();
            }
            _ => {}
        }
    }

    fn rows(&self) -> usize {
        self.decoder.len()
    }

    fn finish(&mut self) -> RecordBatch {
        self.decoder.finish()
    }
}

type Requests = Arc<Mutex<Vec<(String, Instant)>>>;

/// Answers each path with its script, line by line, the last one again and again; an empty answer cuts the connection.
async fn scripted(script: BTreeMap<&'static str, Vec<&'static str>>) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests: Requests = Arc::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, script) = (seen.clone(), script.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_err() {
                        return;
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let before = {
                    let mut seen = seen.lock().unwrap();
                    seen.push((path.clone(), Instant::now()));
                    seen.iter().filter(|(p, _)| *p == path).count() - 1
                };
                let answers = &script[path.as_str()];
                let answer = answers[before.min(answers.len() - 1)];
                let (head, body) = answer.split_once('|').unwrap_or((answer, ""));
                if !head.is_empty() {
                    let length = body.len();
                    let text = format!(
                        "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                    );
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_venue_that_refuses_fails_or_bans_is_asked_with_patience() {
    let script = BTreeMap::from([
        ("/fine", vec!["200 OK|yes"]),
        ("/limited", vec!["429 Too Many Requests\r\nretry-after: 1|slow down", "200 OK|limited"]),
        ("/banned", vec!["418 I'm a teapot\r\nretry-after: 1|banned", "200 OK|unbanned"]),
        ("/shaky", vec!["500 Internal Server Error", "", "503 Service Unavailable", "200 OK|shaky"]),
        ("/unknown", vec!["400 Bad Request|{\"code\":-1121,\"msg\":\"Invalid symbol.\"}"]),
        ("/broken", vec!["502 Bad Gateway|down"]),
    ]);
    let (base, requests) = scripted(script).await;
    let server = serve(session(0, 1), ServeOptions::default()).await;
    let folder = tempfile::tempdir().unwrap();
    // A port at which nobody listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody: &'static str = Box::leak(format!("http://{closed}/x").into_boxed_str());
    let paths = ["/fine", "/fine", "/limited", "/banned", "/shaky", "/unknown", "/broken", nobody];
    let span = |ms: i64| Span::from_ns(ms * 1_000_000);
    let connection = FeedParams {
        backoff_min: span(5),
        backoff_max: span(40),
        timeout: span(2000),
        capture: Some("captures".into()),
        ..FeedParams::default()
    };
    let socket = server.address.to_string();
    let make = move |connection| {
        let (socket, base) = (socket.clone(), base.clone());
        plan_feed(move || Box::new(Asking::new(&socket, &base, &paths)), connection, &context(folder.path()))
            .unwrap()
    };
    let live = read(&make(connection), 7).await;
    let answers: BTreeMap<String, (i64, String)> = lines(&live.rows)
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (text("url"), (row["status"].as_i64().unwrap(), text("body")))
        })
        .collect();
    let answer = |url: &str| (answers[url].0, answers[url].1.as_str());
    assert_eq!(answer("/fine"), (200, "yes"));
    assert_eq!(answer("/limited"), (200, "limited"));
    assert_eq!(answer("/banned"), (200, "unbanned"));
    assert_eq!(answer("/shaky"), (200, "shaky"));
    assert_eq!(answer("/unknown"), (400, "{\"code\":-1121,\"msg\":\"Invalid symbol.\"}"));
    assert_eq!(answer("/broken"), (502, "down"));
    assert_eq!(answer(nobody).0, 0);
    {
        let requests = requests.lock().unwrap();
        let times = |path: &str| -> Vec<Instant> {
            requests.iter().filter(|(p, _)| p == path).map(|(_, t)| *t).collect()
        };
        assert_eq!((times("/fine").len(), times("/unknown").len(), times("/broken").len()), (1, 1, 6));
        for path in ["/limited", "/banned"] {
            let times = times(path);
            assert_eq!(times.len(), 2);
            assert!(
                times[1] - times[0] >= Duration::from_secs(1),
                "{path} is asked again after its Retry-After"
            );
        }
    }
    let replay = FeedParams { replay: Some("captures".into()), ..FeedParams::default() };
    assert_same(&live, &read(&make(replay), usize::MAX).await);
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn count_lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// The whole graph by the command line: garbage among the messages, dead letters, capture, replay.
#[test]
fn tidemill_replay_writes_the_bytes_that_the_live_run_wrote() {
    const N: usize = 3000;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let garbage: Faults = "truncate=0.05,corrupt=0.05".parse().unwrap();
    let options = ServeOptions { faults: Faults { seed: 11, ..garbage }, ..ServeOptions::default() };
    let server = runtime.block_on(serve(session(0, N), options));
    let graph = format!(
        r#"dataflow: replayed
version: 1
vars: {{ out: live }}
sources:
  trades:
    kind: websocket
    with:
      url: "ws://{}/feed?v=1"
      send: [ {{ op: subscribe }} ]
      rows: d
      where: {{ $.ch: t }}
      columns: {{ ts: {{ path: $(received), type: timestamp }}, at: {{ path: t, type: timestamp }}, symbol: {{ path: s, type: symbol }}, price: {{ path: p, type: f64 }}, n: i64 }}
      connection: {{ capture: captures, backoff_min: 10ms }}
      on_error: {{ dead_letter: refused }}
sinks:
  rows: {{ kind: jsonl, from: trades, with: {{ path: $out.jsonl }} }}
  refused: {{ kind: jsonl, from: trades.dead_letters, with: {{ path: $out.refused.jsonl }} }}
"#,
        server.address
    );
    std::fs::write(folder.path().join("graph.yaml"), graph).unwrap();
    let tidemill = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.args(args).current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    };
    let live = tidemill(&["run", "graph.yaml", "--progress", "off", "--checkpoints", "off"]);
    let mut live = Running({ live }.spawn().unwrap());
    let file = |name: &str| folder.path().join(name);
    // Rows show as the watermark passes them.
    hang_guard().wait_until(
        || format!("{:?}, {}", server.served(), count_lines(&file("live.jsonl"))),
        || server.served().ended > 0 && count_lines(&file("live.jsonl")) >= N / 2,
    );
    std::thread::sleep(Duration::from_millis(500));
    Command::new("kill").args(["-TERM", &live.0.id().to_string()]).status().unwrap();
    assert!(live.0.wait().unwrap().success());
    let replay = ["replay", "captures", "graph.yaml", "--progress", "off", "--set", "out=replayed"];
    assert!(tidemill(&replay).status().unwrap().success());
    for name in ["jsonl", "refused.jsonl"] {
        let bytes = |run: &str| std::fs::read_to_string(file(&format!("{run}.{name}"))).unwrap();
        let (live, replayed) = (bytes("live"), bytes("replayed"));
        assert!(!live.is_empty() && replayed.starts_with(&live), "{name}: the live run's lines come first");
    }
    // Stopped, a run leaves what its watermark has not passed; the replay ran to the end.
    assert_eq!(count_lines(&file("replayed.jsonl")) + count_lines(&file("replayed.refused.jsonl")), N);
    let served = server.served();
    let truncated = served.faults.iter().filter(|(_, fault)| *fault == Fault::Truncate).count();
    assert!(count_lines(&file("replayed.refused.jsonl")) >= truncated && truncated > N / 30);
    let info = tidemill(&["capture", "info", "captures", "--json"]).output().unwrap();
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!((&info[0]["received"], &info[0]["feed"]), (&json!(N), &json!("trades")));
}
