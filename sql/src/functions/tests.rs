//! The examples in the heads of files, and oracles written from scratch.

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::util::display::array_value_to_string;
use std::sync::Arc;

use crate::{Engine, EngineConfig};

/// What a query gives, as text.
async fn rows(engine: &Engine, sql: &str) -> Vec<Vec<String>> {
    let answer = engine.query(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let batches = answer.collect().await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let mut rows = Vec::new();
    for batch in batches {
        for i in 0..batch.num_rows() {
            rows.push(batch.columns().iter().map(|c| array_value_to_string(c, i).unwrap()).collect());
        }
    }
    rows
}

async fn numbers(engine: &Engine, sql: &str) -> Vec<Option<f64>> {
    let answer = engine.query(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let batches = answer.collect().await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let columns = batches.iter().map(|b| b.column(b.num_columns() - 1).as_primitive::<Float64Type>().clone());
    columns.flat_map(|c| c.iter().collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn the_examples_in_the_manuals_hold() {
    let manuals = [
        include_str!("time_bucket.rs"),
        include_str!("first_last.rs"),
        include_str!("ohlc.rs"),
        include_str!("vwap.rs"),
        include_str!("returns.rs"),
        include_str!("drawdown.rs"),
        include_str!("locf.rs"),
    ];
    let engine = Engine::open(EngineConfig::default()).await.unwrap();
    let mut ran = 0;
    for manual in manuals {
        let lines = manual.lines().map_while(|l| l.strip_prefix("//!")).map(str::trim_start);
        let block: Vec<&str> =
            lines.skip_while(|l| *l != "```sql").skip(1).take_while(|l| *l != "```").collect();
        let mut sql = String::new();
        let mut answer: Vec<Vec<String>> = Vec::new();
        for line in block {
            if let Some(expected) = line.strip_prefix("-- ") {
                let got: Vec<&str> = answer.iter().map(|r| r[0].as_str()).collect();
                assert_eq!(got.join(", "), expected, "{sql}");
                continue;
            }
            if sql.ends_with(';') {
                sql.clear();
            }
            sql += line;
            sql += " ";
            if line.ends_with(';') {
                sql.pop();
                answer = rows(&engine, &sql).await;
                ran += 1;
                if answer.len() == 1 {
                    assert!(answer[0].iter().all(|v| v == "true"), "{sql}: {answer:?}");
                }
            }
        }
    }
    assert!(ran >= 15, "{ran}");
}

/// A walk of prices for three symbols, with nulls, in so many partitions.
fn walk(n: usize, partitions: usize) -> (Arc<Schema>, Vec<Vec<RecordBatch>>) {
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("ts", utc, false),
        Field::new("symbol", DataType::Utf8, false),
        Field::new("price", DataType::Float64, true),
        Field::new("size", DataType::Float64, false),
    ]));
    let mut seed = 42_u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / (1_u64 << 31) as f64
    };
    let mut price = [100.0, 50.0, 10.0];
    let mut all: Vec<(i64, &str, Option<f64>, f64)> = Vec::new();
    for i in 0..n {
        let k = (random() * 3.0) as usize % 3;
        price[k] *= 1.0 + (random() - 0.5) / 100.0;
        let value = (random() > 0.05).then_some(price[k]);
        // Pairs of rows share a time.
        all.push(((i as i64 / 2) * 7_000_000_000, ["a", "b", "c"][k], value, (random() * 100.0).floor()));
    }
    let batches = all.chunks(97).map(|rows| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(
                TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.0)).with_timezone("UTC"),
            ),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            Arc::new(rows.iter().map(|r| r.2).collect::<Float64Array>()),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.3))),
        ];
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    });
    let mut parts = vec![Vec::new(); partitions];
    batches.enumerate().for_each(|(i, batch)| parts[i % partitions].push(batch));
    (schema, parts)
}

fn flat(parts: &[Vec<RecordBatch>]) -> Vec<(i64, String, Option<f64>, f64)> {
    let mut rows = Vec::new();
    for batch in parts.iter().flatten() {
        let ts = batch.column(0).as_primitive::<arrow::datatypes::TimestampNanosecondType>();
        let (price, size) =
            (batch.column(2).as_primitive::<Float64Type>(), batch.column(3).as_primitive::<Float64Type>());
        for i in 0..batch.num_rows() {
            let price = price.is_valid(i).then(|| price.value(i));
            rows.push((
                ts.value(i),
                batch.column(1).as_string::<i32>().value(i).to_owned(),
                price,
                size.value(i),
            ));
        }
    }
    rows
}

#[tokio::test]
async fn bars_equal_a_loop_whatever_the_partitions_and_batches() {
    let (_, whole) = walk(5000, 1);
    let mut bars = std::collections::BTreeMap::<(i64, String), Vec<_>>::new();
    for (ts, symbol, price, size) in flat(&whole) {
        let group = bars.entry((ts.div_euclid(60_000_000_000) * 60_000_000_000, symbol)).or_default();
        if let Some(price) = price {
            group.push((ts, price, size));
        }
    }
    let mut expected = Vec::new();
    for ((start, symbol), mut rows) in bars {
        // Equal times: the smallest value opens, the greatest closes.
        rows.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let prices = || rows.iter().map(|r| r.1);
        let (high, low) = (prices().fold(f64::MIN, f64::max), prices().fold(f64::MAX, f64::min));
        let (open, close) = (rows.first().map(|r| r.1), rows.last().map(|r| r.1));
        expected.push((
            start,
            symbol,
            open,
            (open.is_some()).then_some(high),
            (open.is_some()).then_some(low),
            close,
        ));
    }
    for (partitions, target, batch_rows) in [(1, 1, 8192), (3, 4, 10), (5, 2, 1)] {
        let config = EngineConfig { target_partitions: target, batch_rows, ..EngineConfig::default() };
        let engine = Engine::open(config).await.unwrap();
        let (schema, parts) = walk(5000, partitions);
        engine.add_rows("t", schema, parts).unwrap();
        let sql = "SELECT b::bigint AS b, symbol, o['open'] AS o, o['high'] AS h, o['low'] AS l, o['close'] AS c, f, z \
                   FROM (SELECT time_bucket('1m', ts) AS b, symbol, ohlc(price, ts) AS o, first(price, ts) AS f, \
                   last(price, ts) AS z FROM t GROUP BY 1, 2) ORDER BY 1, 2";
        let answer = engine.query(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
        let batches = answer.collect().await.unwrap();
        let mut got = Vec::new();
        for batch in &batches {
            let column = |i: usize| batch.column(i).as_primitive::<Float64Type>();
            let value = |i: usize, row: usize| column(i).is_valid(row).then(|| column(i).value(row));
            let starts = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
            for row in 0..batch.num_rows() {
                let symbol = array_value_to_string(batch.column(1), row).unwrap();
                assert_eq!(value(6, row), value(2, row), "first is open");
                assert_eq!(value(7, row), value(5, row), "last is close");
                got.push((
                    starts.value(row),
                    symbol,
                    value(2, row),
                    value(3, row),
                    value(4, row),
                    value(5, row),
                ));
            }
        }
        assert_eq!(got, expected, "{partitions} partitions");
    }
}

#[tokio::test]
async fn vwap_drawdown_and_ratios_equal_a_loop() {
    let engine =
        Engine::open(EngineConfig { target_partitions: 3, ..EngineConfig::default() }).await.unwrap();
    let (schema, parts) = walk(2000, 4);
    engine.add_rows("t", schema, parts.clone()).unwrap();
    let mut a: Vec<_> = flat(&parts).into_iter().filter(|r| r.1 == "a").collect();
    a.sort_by(|x, y| x.0.cmp(&y.0).then(x.2.partial_cmp(&y.2).unwrap()));
    let priced: Vec<(f64, f64)> = a.iter().filter_map(|r| Some((r.2?, r.3))).collect();
    let value: f64 = priced.iter().map(|(p, s)| p * s).sum();
    let size: f64 = priced.iter().map(|(_, s)| s).sum();
    let (mut peak, mut worst, mut now) = (f64::MIN, 0.0_f64, 0.0);
    for (p, _) in &priced {
        peak = peak.max(*p);
        now = p / peak - 1.0;
        worst = worst.min(now);
    }
    let returns: Vec<f64> = priced.windows(2).map(|w| w[1].0 / w[0].0 - 1.0).collect();
    let n = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let var = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let down = returns.iter().map(|r| r.min(0.0).powi(2)).sum::<f64>() / n;
    let expected =
        [value / size, worst, now, mean / var.sqrt() * 252_f64.sqrt(), mean / down.sqrt() * 12_f64.sqrt()];
    let from = "FROM t WHERE symbol = 'a' AND price IS NOT NULL";
    let returns = format!("(SELECT price / lag(price) OVER (ORDER BY ts, price) - 1 AS r {from})");
    let queries = [
        format!("SELECT vwap(price, size) {from}"),
        format!("SELECT max_drawdown(price, ts) {from}"),
        format!("SELECT drawdown(price, ts) {from}"),
        format!("SELECT sharpe(r) FROM {returns}"),
        format!("SELECT sortino(r, 12) FROM {returns}"),
    ];
    for (sql, expected) in queries.iter().zip(expected) {
        let got = numbers(&engine, sql).await[0].unwrap();
        assert!((got - expected).abs() <= 1e-11 * expected.abs().max(1.0), "{sql}: {got} {expected}");
    }
    // Over windows: the curve under water, and a rolling VWAP.
    let sql = format!("SELECT drawdown(price, ts) OVER (ORDER BY ts, price) AS d {from} ORDER BY ts, price");
    let got = numbers(&engine, &sql).await;
    let mut peak = f64::MIN;
    for ((p, _), d) in priced.iter().zip(&got) {
        peak = peak.max(*p);
        assert_eq!(d.unwrap(), p / peak - 1.0);
    }
    let window = "(ORDER BY ts, price, size ROWS BETWEEN 9 PRECEDING AND CURRENT ROW)";
    let sql = format!("SELECT vwap(price, size) OVER {window} AS v {from} ORDER BY ts, price, size");
    let got = numbers(&engine, &sql).await;
    let mut by_size = priced.clone();
    let mut order: Vec<usize> = (0..by_size.len()).collect();
    let keys: Vec<i64> = a.iter().filter(|r| r.2.is_some()).map(|r| r.0).collect();
    order.sort_by(|x, y| keys[*x].cmp(&keys[*y]).then(priced[*x].partial_cmp(&priced[*y]).unwrap()));
    by_size = order.into_iter().map(|i| by_size[i]).collect();
    for (i, v) in got.iter().enumerate() {
        let rows = &by_size[i.saturating_sub(9)..=i];
        let size: f64 = rows.iter().map(|r| r.1).sum();
        let expected = rows.iter().map(|r| r.0 * r.1).sum::<f64>() / size;
        assert!((v.unwrap() - expected).abs() < 1e-9, "{i}");
    }
    let sql = format!("SELECT max_drawdown(price, ts) OVER {window} AS v {from} ORDER BY ts, price, size");
    let got = numbers(&engine, &sql).await;
    for (i, v) in got.iter().enumerate() {
        let (mut peak, mut worst) = (f64::MIN, 0.0_f64);
        for row in &by_size[i.saturating_sub(9)..=i] {
            peak = peak.max(row.0);
            worst = worst.min(row.0 / peak - 1.0);
        }
        assert_eq!(v.unwrap(), worst, "{i}");
    }
}

#[tokio::test]
async fn rows_that_left_a_frame_leave_nothing_behind() {
    let engine = Engine::open(EngineConfig::default()).await.unwrap();
    let rolling = |rows: &str, before: usize| {
        format!(
            "SELECT vwap(p, s) OVER (ORDER BY i ROWS BETWEEN {before} PRECEDING AND CURRENT ROW) AS v \
             FROM (VALUES {rows}) AS v(i, p, s) ORDER BY i"
        )
    };
    // 0.1 + 0.2 + 0.3 - 0.1 - 0.2 - 0.3 is not 0: where nothing is traded there is no price.
    let rows = "(1, 10.0, 0.1), (2, 11.0, 0.2), (3, 12.0, 0.3), (4, 13.0, 0.0), (5, 13.0, 0.0), (6, 13.0, 0.0), \
                (7, 20.0, 0.1)";
    let got = numbers(&engine, &rolling(rows, 2)).await;
    assert_eq!(got[5..], [None, Some(20.0)]);
    // 1e17 + 0.5 - 1e17 is 0: a large trade must not swallow the small ones that come after it.
    let rows = "(1, 10.0, 1e17), (2, 11.0, 0.5), (3, 12.0, 0.5), (4, 13.0, 0.5)";
    let got = numbers(&engine, &rolling(rows, 1)).await;
    assert_eq!(got, [Some(10.0), Some(10.0), Some(11.5), Some(12.5)]);
    // NaN and null do not count, and are not missed when they leave.
    let rows = "(1, 10.0, 1.0), (2, 'NaN'::double, 1.0), (3, 12.0, 1.0), (4, NULL, 1.0), (5, 14.0, 3.0), (6, 15.0, 1.0)";
    let got = numbers(&engine, &rolling(rows, 1)).await;
    assert_eq!(got, [Some(10.0), Some(10.0), Some(12.0), Some(12.0), Some(14.0), Some(14.25)]);
}

#[tokio::test]
async fn there_is_no_drawdown_below_a_peak_that_is_not_above_zero() {
    let engine = Engine::open(EngineConfig::default()).await.unwrap();
    let values = "(VALUES (1, -5.0), (2, -10.0), (3, 0.0), (4, 10.0), (5, 5.0), (6, -5.0)) AS v(i, e)";
    for (name, expected) in [
        ("drawdown", [None, None, None, Some(0.0), Some(-0.5), Some(-1.5)]),
        ("max_drawdown", [None, None, None, Some(0.0), Some(-0.5), Some(-1.5)]),
    ] {
        let sql = format!("SELECT {name}(e, i) OVER (ORDER BY i) AS d FROM {values} ORDER BY i");
        assert_eq!(numbers(&engine, &sql).await, expected, "{name}");
    }
}

#[tokio::test]
async fn every_indicator_is_a_window_function() {
    let engine = Engine::open(EngineConfig::default()).await.unwrap();
    let (schema, parts) = walk(600, 2);
    engine.add_rows("t", schema, parts.clone()).unwrap();
    let bars = "(SELECT ts, symbol, price AS close, price * 1.01 AS high, price * 0.99 AS low, \
                price * 0.999 AS open, size + 1 AS volume FROM t)";
    for spec in tidemill_operators::indicators::all() {
        let columns = spec.default_inputs().join(", ");
        for output in spec.outputs {
            let sql = format!(
                "SELECT count(x), count(*) FROM (SELECT ta_{output}({columns}) OVER \
                 (PARTITION BY symbol ORDER BY ts, close) AS x FROM {bars})"
            );
            let got = rows(&engine, &sql).await;
            assert_eq!(got[0][1], "600");
            assert!(got[0][0].parse::<u32>().unwrap() > 100, "{output}: {got:?}");
        }
    }
    // A parameter by position, the struct of all outputs, and errors that say how it is called.
    let same = "SELECT bool_and(b['upper'] = u) FROM (SELECT bollinger(close, 5) OVER w AS b, \
                bollinger_upper(close, 5) OVER w AS u FROM {bars} WINDOW w AS (PARTITION BY symbol ORDER BY ts, close))";
    assert_eq!(rows(&engine, &same.replace("{bars}", bars)).await[0][0], "true");
    for (call, said) in [
        ("rsi(close, 0)", "rsi: period: must be from 1 to 100000, not 0 (rsi(close, [period = 14]))"),
        ("rsi(close, 1, 2)", "rsi takes rsi(close, [period = 14]), not 3 arguments"),
        ("rsi(symbol)", "rsi reads a number as `close`, not Utf8"),
    ] {
        let sql = format!("SELECT {call} OVER (ORDER BY ts) FROM {bars}");
        let error = match engine.query(&sql).await {
            Err(error) => error,
            Ok(answer) => answer.collect().await.unwrap_err(),
        };
        assert!(error.message.contains(said), "{call}: {}", error.message);
    }
}
