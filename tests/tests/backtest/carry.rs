//! What holding positions costs: funding of a perpetual, borrowed units, owed cash; over the end of a month.

use std::fmt::Write;
use std::process::Command;

use tidemill_tests::binary;

use super::{Rows, close, figure, figures, page};

const GRAPH: &str = r#"
dataflow: carry
version: 1
sources:
  signal: { kind: csv, with: { url: "signal.csv", schema: { ts: timestamp, symbol: symbol, target: f64 } } }
  prices: { kind: csv, with: { url: "prices.csv", schema: { ts: timestamp, symbol: symbol, price: f64, size: f64 } } }
  funding: { kind: csv, with: { url: "funding.csv", schema: { ts: timestamp, symbol: symbol, funding_rate: f64 } } }
operators:
  desk:
    kind: execution
    from: [signal, prices, funding]
    with:
      signals: signal
      account: { kind: margin, cash: { USD: 10000 }, leverage_max: 10, interest: 0.05 }
      instruments:
        - { symbol: PERP, class: perpetual, lot: 1 }
        - { symbol: SHORT, borrow_rate: 0.1 }
        - { symbol: LONG }
      sizing: { fixed: 1 }
      short: true
      venue: { kind: paper }
sinks:
  out: { kind: stdout, from: desk }
"#;

const MINUTE: i64 = figures::MINUTE;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2024-01-29, a Monday.
const START: i64 = 1_706_486_400_000_000_000;
const HOURS: i64 = 9 * 24 - 6;
const HELD: [(&str, f64); 3] = [("PERP", 10.0), ("SHORT", -20.0), ("LONG", 300.0)];

fn rfc3339(ts: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(ts).to_rfc3339()
}

/// The price of a symbol in an hour: ten minutes past it.
fn price(symbol: usize, hour: i64) -> f64 {
    let wave = ((hour * 7 + symbol as i64 * 3) % 11 - 5) as f64;
    [200.0 + 2.0 * wave, 50.0 + 0.25 * wave, 100.0 + 0.5 * wave + 0.02 * hour as f64][symbol]
}

fn rate(day: i64, third: i64) -> f64 {
    [0.0001, -0.0002, 0.0005][((day + third) % 3) as usize]
}

/// What must come and go, by a reading of the rules alone: payments in order of time.
fn payments() -> Vec<(i64, &'static str, f64)> {
    let mut moves = Vec::new();
    // All orders are filled by the second price.
    let mut cash = 10_000.0 - HELD[1].1 * price(1, 1) - HELD[2].1 * price(2, 1);
    for hour in 1..HOURS {
        let ts = START + hour * HOUR;
        if hour % 24 == 0 {
            // At midnight, by the last prices before it: first the owed cash, then the borrowed units.
            let owed = cash.min(0.0) * 0.05 / 365.0;
            let borrowed = HELD[1].1 * price(1, hour - 1) * 0.1 / 365.0;
            moves.extend([(ts, "borrow", owed), (ts, "borrow", borrowed)]);
            cash += owed + borrowed;
        }
        if hour % 8 == 4 {
            let paid = -HELD[0].1 * price(0, hour) * rate(hour / 24, hour % 24 / 8);
            moves.push((ts + 30 * MINUTE, "funding", paid));
            cash += paid;
        }
    }
    moves
}

fn write(folder: &std::path::Path) {
    let mut signal = String::from("ts,symbol,target\n");
    let mut prices = String::from("ts,symbol,price,size\n");
    let mut funding = String::from("ts,symbol,funding_rate\n");
    for (symbol, target) in HELD {
        let _ = writeln!(signal, "{},{symbol},{target}", rfc3339(START + 20 * MINUTE));
    }
    for hour in 0..HOURS {
        let ts = START + hour * HOUR;
        for (i, (symbol, _)) in HELD.iter().enumerate() {
            let _ = writeln!(prices, "{},{symbol},{},1000000", rfc3339(ts + 10 * MINUTE), price(i, hour));
        }
        if hour % 8 == 4 {
            let rate = rate(hour / 24, hour % 24 / 8);
            let _ = writeln!(funding, "{},PERP,{rate}", rfc3339(ts + 30 * MINUTE));
        }
    }
    for (name, text) in
        [("carry.yaml", GRAPH), ("signal.csv", &signal), ("prices.csv", &prices), ("funding.csv", &funding)]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn carry_is_funding_borrow_and_interest() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let out = folder.path().join("out");
    let output = Command::new(binary())
        .arg("backtest")
        .arg(folder.path().join("carry.yaml"))
        .args(["--json", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let summary = &told["summary"];
    let moves = payments();
    let sum = |reason: &str| moves.iter().filter(|m| m.1 == reason).map(|m| m.2).sum::<f64>();
    let (funding, borrow) = (sum("funding"), sum("borrow"));
    assert!(moves.len() == 8 * 2 + 26 && borrow < -20.0 && funding != 0.0, "{moves:?}");
    // Each is rounded to eight decimals.
    let near = |a: f64, b: f64, what: &str| assert!((a - b).abs() < 1e-6, "{what}: {a} and {b}");
    near(figure(summary, "carry"), -(funding + borrow), "carry");
    near(figure(summary, "costs"), -(funding + borrow), "costs");
    let events = Rows::of(&out.join("events.parquet"));
    let amounts = events.numbers("amount");
    assert_eq!(amounts.len(), moves.len());
    for ((amount, ts), (at, reason, expect)) in amounts.iter().zip(events.times()).zip(&moves) {
        near(*amount, *expect, reason);
        assert!((0..DAY).contains(&(ts - at)), "{reason} of {} at {}", rfc3339(*at), rfc3339(ts));
    }
    // What prices made, less what holding cost.
    let last = HOURS - 1;
    let made = |i: usize| HELD[i].1 * (price(i, last) - price(i, 1));
    let gain = made(0) + made(1) + made(2) + funding + borrow;
    near(figure(summary, "end_equity"), 10_000.0 + gain, "equity");

    // Traded at weekends: a year has 365 days of as many hours as were seen.
    let samples = Rows::of(&out.join("equity.parquet")).samples();
    let closes = figures::closes(&samples, HOUR);
    let returns = figures::returns(10_000.0, &closes);
    let mut days: Vec<i64> = closes.iter().map(|c| (c.0 - 1) / DAY).collect();
    days.dedup();
    let year = returns.len() as f64 / days.len() as f64 * 365.0;
    close(figure(summary, "sharpe"), figures::sharpe(&returns) * year.sqrt(), "Sharpe");

    let february = START + 3 * DAY;
    let text = std::fs::read_to_string(out.join("report.html")).unwrap();
    let cells = page::section(&text, "Returns by month").cells();
    let january = samples.iter().rfind(|s| s.ts < february).unwrap().equity;
    let end = samples[samples.len() - 1].equity;
    for (month, value) in
        [(0, january / 10_000.0 - 1.0), (1, end / january - 1.0), (12, end / 10_000.0 - 1.0)]
    {
        assert!(page::shows(cells[1][month], value), "{month}: {} and {value}", cells[1][month]);
    }
    let costs = page::section(&text, "Costs").text();
    for reason in ["cash: funding", "cash: borrow", "Funding, borrow, interest"] {
        assert!(costs.contains(reason), "{costs}");
    }
}
