//! From a signal to the bytes that a broker gets: the `execution` operator with account, sizing and a gate of ten rules decides, the Alpaca sink's
//! encoder writes. In process, one signal at a time; the quote of its symbol comes before it and is not timed.
//!
//!     cargo bench --workspace --bench orders

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, RecordBatch};
use arrow::datatypes::Int32Type;
use serde_json::json;
use tidemill_connectors::alpaca::trading::{Access, Client};
use tidemill_engine::clock::Clock;
use tidemill_engine::component::{OperatorKind, PlanContext, StreamInfo};
use tidemill_engine::operator::Output;
use tidemill_engine::row;
use tidemill_operators::execution::Execution;
use tidemill_sinks::alpaca::ReduceOnly;
use tidemill_sinks::alpaca::venue::AlpacaVenue;
use tidemill_sinks::broker::Venue;
use tidemill_sinks::broker::command::Columns;

const SIGNALS: usize = 50_000;
const WARM_UP: usize = 5_000;
const SYMBOLS: [&str; 8] = ["SPY", "QQQ", "IWM", "DIA", "BAC", "IBM", "AIG", "XOM"];

fn stream(ts: i64, src: u64, seq: u64, symbol: &str, columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let symbol: ArrayRef = Arc::new([Some(symbol)].into_iter().collect::<DictionaryArray<Int32Type>>());
    let named = std::iter::once(("symbol", symbol)).chain(columns);
    let (mut fields, mut arrays) =
        (Vec::new(), vec![row::ts_array(vec![ts]), row::u64_array(vec![src]), row::u64_array(vec![seq])]);
    for (name, array) in named {
        fields.push(Arc::new(arrow::datatypes::Field::new(name, array.data_type().clone(), false)));
        arrays.push(array);
    }
    RecordBatch::try_new(row::stream_schema(&fields), arrays).expect("columns fit their schema")
}

fn quote(ts: i64, seq: u64, symbol: &str, mid: f64) -> RecordBatch {
    let number = |x: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![x])) };
    let columns = vec![
        ("bid", number(mid - 0.01)),
        ("bid_size", number(5000.0)),
        ("ask", number(mid + 0.01)),
        ("ask_size", number(5000.0)),
    ];
    stream(ts, 1, seq, symbol, columns)
}

fn signal(ts: i64, seq: u64, symbol: &str, side: &str) -> RecordBatch {
    let side: ArrayRef = Arc::new([Some(side)].into_iter().collect::<DictionaryArray<Int32Type>>());
    stream(ts, 2, seq, symbol, vec![("side", side)])
}

fn main() {
    let names = ["quotes", "signals"];
    let schemas = [quote(0, 0, "SPY", 100.0).schema(), signal(0, 0, "SPY", "BUY").schema()];
    let inputs: Vec<StreamInfo> =
        names.iter().zip(schemas).map(|(name, schema)| StreamInfo { name: (*name).into(), schema }).collect();
    let params = json!({
        "signals": "signals",
        "account": { "kind": "margin", "leverage_max": 4, "cash": { "USD": 10_000_000 }, "fees": { "per_unit": 0.0035, "minimum": 0.35 } },
        "short": true,
        "sample": "0s",
        "venue": { "kind": "paper" },
        "sizing": { "equity": 0.05 },
        "risk": {
            "order": { "max_quantity": 100_000, "max_notional": 5_000_000 },
            "position": { "max_notional": 5_000_000 },
            "gross": 40_000_000, "net": 40_000_000, "leverage": 4, "concentration": { "max": 1 },
            "rate": { "orders": 1_000_000, "per": "1s" }, "collar": { "bps": 100 }, "stale": "10s",
            "daily_loss": { "fraction": 0.9 }, "drawdown": { "max": 0.9 },
        },
    });
    let params = serde_json::from_value(params).expect("these are parameters");
    let cx =
        PlanContext { job: "bench".into(), node: "trade".into(), base: ".".into(), clock: Clock::System };
    let plan = Execution::plan(params, &inputs, &cx).expect("it can be planned");
    let columns = Columns::plan(&StreamInfo { name: "trade".into(), schema: plan.schema.clone() })
        .expect("a sink can read it");
    let access: Access =
        serde_json::from_value(json!({ "requests_per_minute": 150, "key": "none", "secret": "none" }))
            .expect("these are keys");
    let client =
        Client::new(&access, Duration::from_secs(1), Clock::System).expect("a client needs no network");
    let venue = AlpacaVenue::new(client, ReduceOnly::Plain, false);
    let mut operator = (plan.build)();
    let mut out = Output::new(plan.schema.clone());
    let mut took = Vec::with_capacity(SIGNALS);
    let (mut orders, mut bytes) = (0, 0);
    for i in 0..SIGNALS as u64 {
        let ts = 1_700_000_000_000_000_000 + i as i64 * 1_000_000;
        let symbol = SYMBOLS[i as usize % SYMBOLS.len()];
        let mid = 100.0 + (i % 97) as f64 * 0.01;
        operator.process(&[Some(quote(ts, i, symbol, mid)), None], &mut out).expect("a quote is taken");
        out.drain().for_each(drop);
        let side = if (i / SYMBOLS.len() as u64).is_multiple_of(2) { "BUY" } else { "SELL" };
        let row = signal(ts, i, symbol, side);
        let start = Clock::System.start();
        operator.process(&[None, Some(row)], &mut out).expect("a signal is taken");
        for batch in out.drain() {
            for command in columns.commands(&batch).expect("rows are commands") {
                let request = venue.encode(&command, None).expect("alpaca has market orders");
                orders += 1;
                bytes += request.body.map_or(0, |b| b.len());
            }
        }
        if i as usize >= WARM_UP {
            took.push(start.elapsed());
        }
    }
    took.sort_unstable();
    let at = |p: f64| took[((took.len() - 1) as f64 * p) as usize].as_nanos() as f64 / 1000.0;
    println!(
        "signal to wire bytes: p50 {:.1} us, p99 {:.1}, p99.9 {:.1}, max {:.1} ({orders} orders of {SIGNALS} signals, {} bytes each; target: p99 < 100)",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        bytes / orders.max(1),
    );
}
