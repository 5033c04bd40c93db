//! Sessions served live and traded on paper, and the captures of them as backtests: the same orders. One session is made, the other was
//! recorded at Kraken: ten books, every difference.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidemill_connectors::capture::info::info;
use tidemill_connectors::capture::reader::Capture;
use tidemill_connectors::capture::serve::ServeOptions;
use tidemill_tests::binary;
use tidemill_tests::patience::hang_guard;

use super::rebuild::KRAKEN_LEVELS;
use super::sessions::{KRAKEN, Session};
use super::{Running, count_lines, serve, session};
use tidemill_connectors::venue::frame::{Frame, FrameKind};

const MESSAGES: usize = 3000;
/// Orders, changes and cancels that may be as old as a session's newest message.
const AT_THE_END: usize = 4;
/// The connection of the recorded session that has the books.
const BOOKS: u32 = 2;

/// A cross of averages of every trade, limit orders a little away, brackets, a gate: orders, changes and cancels of all kinds.
fn graph(address: &str, connection: Value) -> String {
    let with = json!({
        "url": format!("ws://{address}/feed?v=1"),
        "send": [{"op": "subscribe"}],
        "rows": "d",
        "where": {"$.ch": "t"},
        "columns": {
            "ts": {"path": "t", "type": "timestamp"},
            "symbol": {"path": "s", "type": "symbol"},
            "price": {"path": "p", "type": "f64"},
            "size": {"path": "n", "type": "f64"},
        },
        "connection": connection,
    });
    format!(
        r#"
dataflow: traded
version: 1
sources:
  trades: {{ kind: websocket, with: {with} }}
operators:
  studies: {{ kind: indicators, from: trades, with: {{ by: [symbol], columns: {{ close: price }}, add: {{ fast: {{ kind: ema, period: 2 }}, slow: {{ kind: ema, period: 5 }} }} }} }}
  signal: {{ kind: crossover, from: studies, with: {{ by: [symbol], fast: fast, slow: slow }} }}
  desk:
    kind: execution
    from: [trades, signal]
    with:
      signals: signal
      account: {{ kind: margin, leverage_max: 4, cash: {{ USD: 100000 }}, fees: {{ taker: 0.0005 }} }}
      short: true
      sizing: {{ equity: 0.1 }}
      order: {{ type: limit, from: last, offset: {{ ticks: 1 }} }}
      protect: {{ stop_loss: {{ fraction: 0.02 }}, take_profit: {{ fraction: 0.02 }} }}
      venue: {{ kind: paper, latency: 3ms }}
      risk: {{ leverage: 2, rate: {{ orders: 50, per: 1s }} }}
  sent: {{ kind: select, from: desk, with: {{ sql: "event, symbol, order_id, side, type, quantity, price, stop", where: "event IN ('order', 'modify', 'cancel')" }} }}
sinks:
  orders: {{ kind: jsonl, from: sent, with: {{ path: orders.jsonl }} }}
"#
    )
}

/// An order as text, whatever wrote it.
fn told(row: &Value) -> String {
    let ts = chrono::DateTime::parse_from_rfc3339(row["ts"].as_str().unwrap()).unwrap();
    let text = |name: &str| match &row[name] {
        Value::String(text) if text.contains('.') => {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields = ["event", "symbol", "order_id", "side", "type", "quantity", "price", "stop"];
    format!("{} {}", ts.timestamp_nanos_opt().unwrap(), fields.map(text).join(" "))
}

fn tidemill(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).current_dir(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

#[test]
fn orders_of_a_live_run_are_those_of_the_backtest_of_its_capture() {
    let graph = |address: &str, connection| graph(address, connection);
    live_is_backtest(session(0, MESSAGES), "trades", &graph, 100);
}

/// Ten books of a venue, each traded by which side of it is heavy: market data are the books' differences, fills eat levels.
fn book_graph(address: &str, connection: Value) -> String {
    let with = json!({
        "symbols": KRAKEN.symbols, "channel": "book", "protocol": "v1", "book": { "output": "deltas", "levels": KRAKEN_LEVELS },
        "ws_url": format!("ws://{address}"), "connection": connection,
    });
    format!(
        r#"
dataflow: traded
version: 1
sources:
  books: {{ kind: kraken, with: {with} }}
operators:
  liquidity: {{ kind: book_metrics, from: books, with: {{ by: [venue, symbol], metrics: [mid, {{ imbalance: {{ levels: 5 }} }}] }} }}
  stance: {{ kind: select, from: liquidity, with: {{ sql: "symbol, CASE WHEN imbalance_5 > 0.2 THEN 'BUY' WHEN imbalance_5 < -0.2 THEN 'SELL' ELSE 'FLAT' END AS side", where: "imbalance_5 IS NOT NULL" }} }}
  signal: {{ kind: crossover, from: stance, with: {{ by: [symbol], on: side, initial: true }} }}
  desk:
    kind: execution
    from: [books, signal]
    with:
      signals: signal
      market: [books]
      account: {{ kind: margin, leverage_max: 4, cash: {{ USD: 1000000 }}, fees: {{ taker: 0.0026 }} }}
      default_instrument: {{ symbol: ANY, quote: USD, tick: 0.0000001, lot: 0.0001 }}
      short: true
      sizing: {{ equity: 0.01 }}
      order: {{ type: limit, from: mid }}
      protect: {{ stop_loss: {{ fraction: 0.01 }}, take_profit: {{ fraction: 0.01 }} }}
      venue: {{ kind: paper, latency: 30ms }}
      risk: {{ leverage: 2, rate: {{ orders: 50, per: 1s }} }}
  sent: {{ kind: select, from: desk, with: {{ sql: "event, symbol, order_id, side, type, quantity, price, stop", where: "event IN ('order', 'modify', 'cancel')" }} }}
sinks:
  orders: {{ kind: jsonl, from: sent, with: {{ path: orders.jsonl }} }}
"#
    )
}

#[test]
fn orders_of_a_recorded_venue_session_are_those_of_the_backtest_of_its_capture() {
    let Some(sessions) = Session::folder() else { return };
    let frames = KRAKEN.frames(&sessions).into_iter().filter(|frame| frame.connection == BOOKS).collect();
    live_is_backtest(frames, "books", &book_graph, 100);
}

/// Serves `frames` to the source `feed` of a graph, which captures what it hears; holds the run's orders against those of the backtest of
/// the capture.
fn live_is_backtest(
    frames: Vec<Frame>,
    feed: &str,
    graph: &dyn Fn(&str, Value) -> String,
    orders_min: usize,
) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let messages = frames.iter().filter(|frame| frame.kind == FrameKind::Received).count() as u64;
    let server = runtime.block_on(serve(frames, ServeOptions::default()));
    let address = server.address.to_string();
    let live = graph(&address, json!({ "capture": "captures", "stale_after": "5m" }));
    std::fs::write(folder.join("live.yaml"), live).unwrap();
    std::fs::write(folder.join("past.yaml"), graph(&address, json!({ "replay": "captures" }))).unwrap();
    let mut run = Running(
        tidemill(folder, &["run", "live.yaml", "--progress", "off", "--checkpoints", "off"]).spawn().unwrap(),
    );
    let captured = || {
        tidemill_tests::wait_for(async { info(&Capture::open("captures", folder, feed).await?).await })
            .map_or(0, |info| info.received)
    };
    hang_guard().wait_until(|| format!("{} of {messages} captured", captured()), || captured() >= messages);
    let backtest = ["backtest", "past.yaml", "--keep", "sent", "--out", "out", "--json"];
    assert!(tidemill(folder, &backtest).stdout(Stdio::null()).status().unwrap().success());
    // One thread reads the file in its order, which is that of the run.
    let query = "SELECT * FROM sent";
    let args = [
        "sql",
        "--table",
        "sent=out/sent.parquet",
        "--format",
        "jsonl",
        "--max-rows",
        "0",
        "--threads",
        "1",
        query,
    ];
    let past = String::from_utf8(tidemill(folder, &args).output().unwrap().stdout).unwrap();
    let read = |text: &str| -> Vec<String> {
        text.lines().map(|line| told(&serde_json::from_str(line).unwrap())).collect()
    };
    let past = read(&past);
    // Live, an order is written when time has passed it: not what is as old as the newest message.
    let now = || count_lines(&folder.join("orders.jsonl"));
    hang_guard().wait_until(
        || format!("{} orders live, {} in the backtest", now(), past.len()),
        || now() + AT_THE_END >= past.len(),
    );
    Command::new("kill").args(["-TERM", &run.0.id().to_string()]).status().unwrap();
    assert!(run.0.wait().unwrap().success());
    let live = read(&std::fs::read_to_string(folder.join("orders.jsonl")).unwrap());
    assert!(live.len() > orders_min, "only {} orders", live.len());
    let (ours, theirs) = (live.len(), past.len());
    assert!((ours..=ours + AT_THE_END).contains(&theirs), "{ours} live, {theirs} in the backtest");
    assert_eq!(live, past[..live.len()]);
    eprintln!("{} orders, changes and cancels live, {} in the backtest, the same", live.len(), past.len());
}
