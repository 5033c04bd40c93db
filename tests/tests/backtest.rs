//! Backtests as users run them, on real trades: what is left on disk agrees with what is said.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tidemill_sql::{Engine, EngineConfig};
use tidemill_tests::{binary, data, wait_for};

#[path = "backtest/carry.rs"]
mod carry;
#[path = "backtest/charts.rs"]
mod charts;
#[path = "backtest/figures.rs"]
mod figures;
#[path = "backtest/page.rs"]
mod page;

/// A MACD on one-minute bars, long and short, with a gate and fees.
const GRAPH: &str = r#"
dataflow: turns
version: 1
description: follows the turns of a MACD on one-minute bars
vars: { data: ".", fast: 12, slow: 26, units: 100 }
sources:
  trades: { kind: parquet, with: { url: "$data/equities/trades_*.parquet", columns: [symbol, price, size] } }
operators:
  bars: { kind: bars, from: trades, with: { every: 1m, by: [symbol] } }
  studies: { kind: indicators, from: bars, with: { by: [symbol], add: { macd: { fast: $fast, slow: $slow, signal: 9 } } } }
  stance:
    kind: select
    from: studies
    with: { sql: "symbol, CASE WHEN macd_hist > 0 THEN 'LONG' ELSE 'SHORT' END AS side", where: "macd_hist IS NOT NULL" }
  signal: { kind: crossover, from: stance, with: { by: [symbol], on: side } }
  desk:
    kind: execution
    from: [signal, trades]
    with:
      signals: signal
      market: [trades]
      account: { kind: margin, cash: { USD: 1000000 }, leverage_max: 4, fees: { per_unit: 0.005 } }
      sizing: { fixed: $units }
      short: true
      risk: { position: { max_notional: 200000 } }
      venue: { kind: paper, latency: 5ms }
sinks:
  fills: { kind: stdout, from: desk }
"#;

struct Setup {
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Setup {
    fn new() -> Option<Self> {
        let data = data()?;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("turns.yaml"), GRAPH).unwrap();
        Some(Self { folder, data })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a backtest of half a day into the folder `out`.
    fn backtest(&self, out: &str, args: &[&str]) -> Output {
        Command::new(binary())
            .arg("backtest")
            .arg(self.path("turns.yaml"))
            .args(["--from", "2013-10-08T13:30:00Z", "--to", "2013-10-08T17:00:00Z"])
            .args(["--set", &format!("data={}", self.data.display()), "--json", "--out"])
            .arg(self.path(out))
            .args(args)
            .output()
            .unwrap()
    }

    fn json(&self, out: &str, args: &[&str]) -> Value {
        let output = self.backtest(out, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"))
    }

    fn table(&self, out: &str, name: &str) -> PathBuf {
        self.path(out).join(format!("{name}.parquet"))
    }
}

/// A table of a run.
struct Rows(RecordBatch);

impl Rows {
    fn of(path: &Path) -> Self {
        let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let schema = reader.schema().clone();
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        Self(arrow::compute::concat_batches(&schema, &batches).unwrap())
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let column = arrow::compute::cast(self.0.column_by_name(name).unwrap(), &DataType::Float64).unwrap();
        column.as_primitive::<Float64Type>().values().to_vec()
    }

    fn times(&self) -> Vec<i64> {
        let column = arrow::compute::cast(self.0.column_by_name("ts").unwrap(), &DataType::Int64).unwrap();
        column.as_primitive::<Int64Type>().values().to_vec()
    }

    /// Of an `equity` table.
    fn samples(&self) -> Vec<figures::Sample> {
        let (equity, gross, net) = (self.numbers("equity"), self.numbers("gross"), self.numbers("net"));
        let at = |(i, ts)| figures::Sample { ts, equity: equity[i], gross: gross[i], net: net[i] };
        self.times().into_iter().enumerate().map(at).collect()
    }
}

/// One number from SQL over the tables of a run.
fn ask(setup: &Setup, out: &str, sql: &str) -> f64 {
    wait_for(async {
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        for table in
            ["fills", "trades", "equity", "positions", "orders", "rejections", "events", "sweep", "folds"]
        {
            let path: &Path = &setup.table(out, table);
            if path.is_file() {
                engine.add_table(table, &path.display().to_string()).await.unwrap();
            }
        }
        let answer = engine.query(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
        let batches = answer.collect().await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
        let column = arrow::compute::cast(batches[0].column(0), &DataType::Float64).unwrap();
        column.as_primitive::<Float64Type>().value(0)
    })
}

fn figure(summary: &Value, name: &str) -> f64 {
    summary[name].as_f64().unwrap_or_else(|| panic!("{name}: {summary:#}"))
}

fn close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0), "{what}: {a} and {b}");
}

#[test]
fn tables_and_report_agree_with_the_summary() {
    let Some(setup) = Setup::new() else { return };
    let told = setup.json("out", &["--benchmark", "SPY", "--keep", "bars"]);
    let summary = &told["summary"];
    let sql = |text: &str| ask(&setup, "out", text);
    assert!(figure(summary, "fills") > 20.0, "{summary:#}");
    close(figure(summary, "fills"), sql("SELECT count(*) FROM fills"), "fills");
    close(figure(summary, "orders"), sql("SELECT count(*) FROM orders WHERE event = 'order'"), "orders");
    close(
        figure(summary, "traded"),
        sql("SELECT sum(fill_price * fill_quantity) FROM fills"),
        "value traded",
    );
    close(figure(summary, "trades"), sql("SELECT count(*) FROM trades"), "round trips");
    close(
        figure(summary, "win_rate"),
        sql("SELECT avg(CASE WHEN net > 0 THEN 1.0 ELSE 0.0 END) FROM trades"),
        "win rate",
    );
    close(
        figure(summary, "profit_factor"),
        sql(
            "SELECT sum(CASE WHEN net > 0 THEN net ELSE 0 END)::double / -sum(CASE WHEN net < 0 THEN net ELSE 0 END)::double FROM trades",
        ),
        "profit factor",
    );
    // Up to the last sample: cash is what fills left of it, equity is that and what is held at its last price.
    let until = "(SELECT max(ts) FROM equity)";
    let cash = sql(&format!(
        "SELECT 1000000 + sum(CASE WHEN side ILIKE 'buy' THEN -1 ELSE 1 END * fill_price::double * fill_quantity::double - fee::double) \
         FROM fills WHERE ts <= {until}"
    ));
    let held =
        sql("SELECT sum(v) FROM (SELECT last_value(value ORDER BY ts) AS v FROM positions GROUP BY symbol)");
    let end = figure(summary, "end_equity");
    assert!((cash + held - end).abs() < 0.01, "{cash} + {held} is not {end}");
    close(figure(summary, "start_equity"), 1e6, "start");
    close(figure(summary, "total_return"), end / 1e6 - 1.0, "total return");
    close(figure(summary, "max_drawdown"), -sql("SELECT max(drawdown) FROM equity").abs(), "drawdown");
    let fees = sql(&format!("SELECT sum(fee)::double FROM fills WHERE ts <= {until}"));
    close(figure(summary, "fees"), fees, "fees");
    // What positions made, after fees, is the gain.
    let gross = sql(
        "SELECT sum(v) FROM (SELECT last_value(realized + unrealized ORDER BY ts) AS v FROM positions GROUP BY symbol)",
    );
    assert!((gross - fees - (end - 1e6)).abs() < 0.01, "{gross} - {fees} is not {}", end - 1e6);
    // The minute's returns, and their Sharpe ratio.
    close(
        figure(summary, "sharpe"),
        sql(&format!(
            "SELECT avg(r) / stddev(r) * sqrt({} * 252) FROM (SELECT e / coalesce(lag(e) OVER (ORDER BY b), 1000000) - 1 AS r FROM \
             (SELECT date_trunc('minute', ts - INTERVAL '1 nanosecond') AS b, last_value(equity ORDER BY ts) AS e FROM equity GROUP BY 1))",
            figure(summary, "periods")
        )),
        "Sharpe",
    );
    // What SPY went, from its first price to its last before the end of the last period.
    let held = wait_for(async {
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        let day = setup.data.join("equities/trades_20131008.parquet");
        engine.add_table("market", &day.display().to_string()).await.unwrap();
        let end = format!(
            "date_trunc('minute', TIMESTAMP '{}' + INTERVAL '59.999999999 seconds')",
            summary["to"].as_str().unwrap()
        );
        let sql = format!(
            "SELECT last_value(price ORDER BY ts, seq) / first_value(price ORDER BY ts, seq) - 1 FROM market \
             WHERE symbol = 'SPY' AND ts >= '2013-10-08T13:30:00Z' AND ts < {end}"
        );
        let answer = engine.query(&sql).await.unwrap_or_else(|e| panic!("{}", e.render(&sql)));
        let batches = answer.collect().await.unwrap();
        batches[0].column(0).as_primitive::<Float64Type>().value(0)
    });
    close(figure(summary, "benchmark_return"), held, "benchmark");
    assert!(figure(summary, "beta").is_finite());
    let page = std::fs::read_to_string(setup.path("out").join("report.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for part in [
        "Equity",
        "Drawdown",
        "Exposure",
        "Rolling Sharpe",
        "VaR against gains",
        "Returns by month",
        "Round trips",
        "kind: execution",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    // Nothing is fetched, nothing is undefined.
    for never in ["http://", "https://", "<script", "NaN", "src="] {
        assert!(!page.contains(never), "{never}");
    }
    assert!(setup.table("out", "bars").is_file() && page.len() < 3_000_000);
}

#[test]
fn figures_are_those_of_the_tables_from_scratch() {
    let Some(setup) = Setup::new() else { return };
    let told = setup.json("out", &["--benchmark", "SPY", "--trials", "25"]);
    let is = |name: &str, value: f64| close(figure(&told["summary"], name), value, name);
    let samples = Rows::of(&setup.table("out", "equity")).samples();
    let equity: Vec<f64> = samples.iter().map(|s| s.equity).collect();
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    let years = (last.ts - first.ts) as f64 / 1e9 / 86_400.0 / 365.2425;
    let cagr = (last.equity / 1e6).powf(1.0 / years) - 1.0;
    let deepest = figures::drawdowns(1e6, &equity).into_iter().fold(0.0, f64::min);
    is("cagr", cagr);
    is("max_drawdown", deepest);
    is("calmar", cagr / -deepest);
    let closes = figures::closes(&samples, figures::MINUTE);
    let returns = figures::returns(1e6, &closes);
    let year = returns.len() as f64 * 252.0;
    is("periods", returns.len() as f64);
    is("sharpe", figures::sharpe(&returns) * year.sqrt());
    is("sortino", figures::sortino(&returns, year));
    is("tail_ratio", (figures::quantile(&returns, 0.95) / figures::quantile(&returns, 0.05)).abs());
    is("var_95", figures::quantile(&returns, 0.05));
    let deflated = figures::deflated_sharpe(&returns, 25.0, 1.0 / returns.len() as f64);
    let shown = figure(&told["summary"], "deflated_sharpe");
    assert!((shown - deflated).abs() < 1e-6, "deflated: {shown} and {deflated}");
    let fills = Rows::of(&setup.table("out", "fills"));
    let traded: f64 =
        fills.numbers("fill_price").iter().zip(fills.numbers("fill_quantity")).map(|(p, q)| p * q).sum();
    is("turnover", traded / 2.0 / figures::mean(&equity) / years);
    let part = |of: &dyn Fn(&figures::Sample) -> f64| -> Vec<f64> { samples.iter().map(of).collect() };
    let gross = part(&|s| s.gross / s.equity);
    is("exposure", figures::mean(&part(&|s| if s.gross != 0.0 { 1.0 } else { 0.0 })));
    is("gross_exposure", figures::mean(&gross));
    is("gross_exposure_max", gross.iter().copied().fold(0.0, f64::max));
    is("net_exposure", figures::mean(&part(&|s| s.net / s.equity)));
    // The minute's returns of SPY, from its last trade of each.
    let market = wait_for(async {
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        let day = setup.data.join("equities/trades_20131008.parquet");
        engine.add_table("market", &day.display().to_string()).await.unwrap();
        let sql = "SELECT ts, price FROM market WHERE symbol = 'SPY' AND ts >= '2013-10-08T13:30:00Z' \
                   AND ts < '2013-10-08T17:00:00Z' ORDER BY ts, seq";
        let answer = engine.query(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
        let batches = answer.collect().await.unwrap();
        Rows(arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap())
    });
    let (times, prices) = (market.times(), market.numbers("price"));
    let at = |end: i64| times.partition_point(|ts| *ts <= end).checked_sub(1).map(|i| prices[i]);
    assert!(at(closes[0].0).is_some(), "SPY is traded from the first minute on");
    let spy: Vec<(i64, f64)> = closes.iter().map(|(end, _)| (*end, at(*end).unwrap())).collect();
    let spy = figures::returns(prices[0], &spy);
    let (beta, alpha) = figures::line(&returns, &spy);
    is("beta", beta);
    is("alpha", alpha * year);
    is(
        "correlation",
        beta * figures::sharpe(&returns) * figures::mean(&spy)
            / (figures::sharpe(&spy) * figures::mean(&returns)),
    );
}

#[test]
fn nothing_in_a_graph_knows_the_future() {
    let Some(setup) = Setup::new() else { return };
    let output = setup.backtest("out", &["--look-ahead-check=3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_sweep_gives_what_single_runs_give() {
    let Some(setup) = Setup::new() else { return };
    let told = setup.json("sweep", &["--sweep", "fast=8,30", "--sweep", "slow=20..24:4", "--threads", "2"]);
    let trials = told["sweep"]["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 4);
    // A MACD whose fast average is the slower one cannot be: said of the point, and the others go on.
    let (failed, ran): (Vec<_>, Vec<_>) = trials.iter().partition(|t| t.get("error").is_some());
    assert_eq!((failed.len(), ran.len()), (2, 2));
    assert!(failed.iter().all(|t| t["error"].as_str().unwrap().contains("must be below slow")), "{failed:?}");
    for trial in ran {
        let set = &trial["set"];
        let (fast, slow) = (set["fast"].as_str().unwrap(), set["slow"].as_str().unwrap());
        let single =
            setup.json("single", &["--set", &format!("fast={fast}"), "--set", &format!("slow={slow}")]);
        let (mut own, mut swept) = (single["summary"].clone(), trial["summary"].clone());
        // Only the best is deflated by the others.
        for summary in [&mut own, &mut swept] {
            summary.as_object_mut().unwrap().shift_remove("deflated_sharpe");
        }
        assert_eq!(own, swept, "fast {fast}, slow {slow}");
    }
    let count = |what: &str| ask(&setup, "sweep", &format!("SELECT count(*) FROM sweep WHERE {what}"));
    assert_eq!((count("fast > 0"), count("error IS NULL")), (4.0, 2.0));
    let best = ask(&setup, "sweep", "SELECT max(sharpe) FROM sweep");
    close(figure(&told["summary"], "sharpe"), best, "the best");
    close(figure(&told["summary"], "trials"), 2.0, "trials");
    // The best is deflated by how the two differ: ratios a minute, of a day's minutes by 252 days.
    let rows = Rows::of(&setup.table("sweep", "sweep"));
    let by_minute: Vec<f64> = rows
        .numbers("sharpe")
        .into_iter()
        .zip(rows.numbers("periods"))
        .filter(|(_, periods)| *periods > 0.0)
        .map(|(sharpe, periods)| sharpe / (periods * 252.0).sqrt())
        .collect();
    let half = (by_minute[0] - by_minute[1]) / 2.0;
    let closes = figures::closes(&Rows::of(&setup.table("sweep", "equity")).samples(), figures::MINUTE);
    let deflated = figures::deflated_sharpe(&figures::returns(1e6, &closes), 2.0, 2.0 * half * half);
    let told = figure(&told["summary"], "deflated_sharpe");
    assert!((told - deflated).abs() < 1e-6, "deflated: {told} and {deflated}");
    let page = std::fs::read_to_string(setup.path("sweep").join("report.html")).unwrap();
    assert!(page.contains("sharpe by fast and slow"));
}

#[test]
fn a_walk_forward_is_judged_by_what_it_has_not_seen() {
    let Some(setup) = Setup::new() else { return };
    let folds = "folds=3,purge=5m,embargo=5m,warmup=30m";
    let told =
        setup.json("walk", &["--sweep", "fast=6,12", "--walk-forward", folds, "--metric", "total_return"]);
    let walk = &told["walk_forward"];
    let folds = walk["folds"].as_array().unwrap();
    assert_eq!(folds.len(), 3);
    let time = |v: &Value| chrono::DateTime::parse_from_rfc3339(v.as_str().unwrap()).unwrap();
    let mut grown = 1.0;
    for (i, fold) in folds.iter().enumerate() {
        let gap = time(&fold["test"]["from"]) - time(&fold["train"]["to"]);
        assert_eq!(gap, chrono::TimeDelta::minutes(10));
        if i > 0 {
            assert!(time(&folds[i - 1]["test"]["to"]) <= time(&fold["test"]["from"]));
        }
        assert_eq!(fold["tried"], 2);
        let test = &fold["in_test"]["summary"];
        assert!(
            time(&test["from"]) >= time(&fold["test"]["from"])
                && time(&test["to"]) < time(&fold["test"]["to"])
        );
        grown *= 1.0 + figure(test, "total_return");
    }
    close(walk["total_return"].as_f64().unwrap(), grown - 1.0, "out of sample");
    close(3.0, ask(&setup, "walk", "SELECT count(*) FROM folds"), "folds");
}

#[test]
fn what_cannot_be_run_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("g.yaml");
    let live = GRAPH.replace(
        "{ kind: parquet, with: { url: \"$data/equities/trades_*.parquet\", columns: [symbol, price, size] } }",
        "{ kind: kafka, with: { brokers: embedded, topic: trades, format: json, schema: trade } }",
    );
    std::fs::write(&graph, &live).unwrap();
    let said = |args: &[&str]| {
        let output = Command::new(binary()).arg("backtest").arg(&graph).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = said(&[]);
    assert!(text.contains("has no end") && text.contains("--archive DIR with a dataset `trades`"), "{text}");
    assert!(text.contains("g.yaml:"), "{text}");
    let text = said(&["--source", "trade=x.parquet"]);
    assert!(text.contains("--source trade") && text.contains("did you mean `trades`?"), "{text}");
    let text = said(&["--from", "2013-10-08", "--to", "2013-10-08"]);
    assert!(text.contains("--from is not before --to"), "{text}");
    std::fs::write(&graph, live.replace("kind: execution", "kind: union")).unwrap();
    assert!(said(&[]).contains("no `execution` operator"));
}
