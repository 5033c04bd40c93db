//! SQL as users meet it: real days as tables, errors worth reading, nothing written, memory held.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::process::Command;
use std::sync::Arc;

use arrow::array::{AsArray, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::util::display::array_value_to_string;
use expect_test::{Expect, expect};
use tidemill_sql::{Engine, EngineConfig, ErrorKind};
use tidemill_tests::{binary, data, root, wait_for};

async fn text(engine: &Engine, sql: &str) -> Vec<Vec<String>> {
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

async fn real() -> Option<Engine> {
    let folder = data()?.join("equities");
    let engine = Engine::open(EngineConfig::default()).await.unwrap();
    for table in ["trades", "quotes"] {
        engine.add_table(table, &format!("{}/{table}_*.parquet", folder.display())).await.unwrap();
    }
    Some(engine)
}

#[test]
fn four_real_days_answer_the_traders_queries() {
    wait_for(async {
        let Some(engine) = real().await else { return };
        assert_eq!(text(&engine, "SELECT count(*) FROM trades").await, [["2345448"]]);
        for entry in std::fs::read_dir(root().join("sql/queries")).unwrap() {
            let path = entry.unwrap().path();
            let sql = std::fs::read_to_string(&path).unwrap();
            let rows = text(&engine, &sql).await;
            assert!(rows.len() >= 2, "{}: {} rows", path.display(), rows.len());
        }
    });
}

/// The same asked of DuckDB 2.0 (arg_min and arg_max by `(ts, seq)`, time_bucket, ASOF LEFT JOIN).
#[test]
fn real_answers_equal_those_of_duckdb() {
    wait_for(async {
        let Some(engine) = real().await else { return };
        let number = |sql: &'static str| {
            let engine = engine.clone();
            async move { text(&engine, sql).await[0][0].parse::<f64>().unwrap() }
        };
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
        let sql = "SELECT time_bucket('5m', ts) AS b, ohlc(price, ts, seq) AS o, sum(size)::bigint, count(*) FROM trades \
                   WHERE symbol = 'IBM' AND ts >= '2013-10-08T13:30:00Z' AND ts < '2013-10-08T13:45:00Z' GROUP BY b ORDER BY b";
        let bar = |o: f64, h: f64, l: f64, c: f64| {
            format!("{{open: {o:?}, high: {h:?}, low: {l:?}, close: {c:?}}}")
        };
        assert_eq!(
            text(&engine, sql).await,
            [
                ["2013-10-08T13:30:00Z", &bar(181.89, 181.99, 181.5, 181.61), "200281", "658"],
                ["2013-10-08T13:35:00Z", &bar(181.6, 181.6, 181.18, 181.38), "104909", "663"],
                ["2013-10-08T13:40:00Z", &bar(181.37, 181.72, 181.29, 181.5), "72666", "433"],
            ]
        );
        let sql = "SELECT vwap(price, size) FROM trades WHERE symbol = 'BAC' AND time_bucket('1d', ts) = '2013-10-08T00:00:00Z'";
        assert!(close(number(sql).await, 13.775057816680352));
        let sql = "SELECT count(*) FROM (SELECT symbol, time_bucket('1m', ts) FROM trades GROUP BY 1, 2)";
        assert_eq!(number(sql).await, 9165.0);
        let sql = "SELECT stddev(r) * sqrt(252 * 390) FROM (SELECT ln(c / lag(c) OVER (ORDER BY m)) AS r FROM \
                   (SELECT time_bucket('1m', ts) AS m, last(price, ts, seq) AS c FROM trades WHERE symbol = 'IBM' GROUP BY 1))";
        assert!(close(number(sql).await, 0.2705717758570317));
        let effective = std::fs::read_to_string(root().join("sql/queries/04_effective_spread.sql")).unwrap();
        let rows = text(&engine, &effective).await;
        let row = |i: usize| rows[i].iter().map(|v| v.parse::<f64>().unwrap_or(f64::NAN)).collect::<Vec<_>>();
        assert_eq!(rows.iter().map(|r| r[0].as_str()).collect::<Vec<_>>(), ["AIG", "BAC", "IBM", "SPY"]);
        assert_eq!(row(1)[1..3], [461_443.0, 461_443.0]);
        assert_eq!(row(3)[1..3], [1_601_855.0, 0.0]);
        assert!(close(row(1)[3], 0.25268818192707154) && close(row(1)[4], 0.011458923420798697), "{rows:?}");
        assert!(close(row(2)[3], 1.5400432690030526) && close(row(2)[4], 2.7733962158505063), "{rows:?}");
        // Seconds from the first trade of each symbol to its last.
        let filled = std::fs::read_to_string(root().join("sql/queries/10_gap_filled_ema.sql")).unwrap();
        let filled = format!("SELECT count(*) FROM ({})", filled.trim().trim_end_matches(';'));
        assert_eq!(text(&engine, &filled).await, [["1260669"]]);
    });
}

/// Ratios as empyrical computed them (performance.json).
#[test]
fn ratios_equal_empyrical() {
    wait_for(async {
        let Some(folder) = data() else { return };
        let file = std::fs::read_to_string(folder.join("oracles/performance.json")).unwrap();
        let oracle: serde_json::Value = serde_json::from_str(&file).unwrap();
        for (name, series) in oracle["series"].as_object().unwrap() {
            let returns: Vec<f64> =
                series["returns"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let engine =
                Engine::open(EngineConfig { target_partitions: 2, ..EngineConfig::default() }).await.unwrap();
            let schema = Arc::new(Schema::new(vec![
                Field::new("day", DataType::UInt64, false),
                Field::new("r", DataType::Float64, false),
            ]));
            let parts = returns.chunks(100).enumerate().map(|(i, part)| {
                let days = (0..part.len() as u64).map(|d| 1 + i as u64 * 100 + d);
                let columns: Vec<arrow::array::ArrayRef> = vec![
                    Arc::new(UInt64Array::from_iter_values(days)),
                    Arc::new(Float64Array::from(part.to_vec())),
                ];
                vec![RecordBatch::try_new(schema.clone(), columns).unwrap()]
            });
            engine.add_rows("returns", schema.clone(), parts.collect()).unwrap();
            let equity = "(SELECT CAST(0 AS BIGINT UNSIGNED) AS day, 1.0 AS e UNION ALL SELECT day, exp(sum(ln(1 + r)) OVER (ORDER BY day)) FROM returns)";
            for (sql, expected) in [
                ("SELECT sharpe(r) FROM returns".to_owned(), "sharpe_252"),
                ("SELECT sortino(r, 252) FROM returns".to_owned(), "sortino_252"),
                (format!("SELECT max_drawdown(e, day) FROM {equity}"), "max_drawdown"),
            ] {
                let got: f64 = text(&engine, &sql).await[0][0].parse().unwrap();
                let expected = series["expected"][expected].as_f64().unwrap();
                assert!((got - expected).abs() < 1e-12, "{name}: {sql}: {got} {expected}");
            }
        }
    });
}

#[test]
fn real_bars_do_not_depend_on_threads_or_batches() {
    wait_for(async {
        let Some(folder) = data() else { return };
        let mut answers = Vec::new();
        for (target_partitions, batch_rows) in [(1, 8192), (4, 1000)] {
            let engine =
                Engine::open(EngineConfig { target_partitions, batch_rows, ..EngineConfig::default() })
                    .await
                    .unwrap();
            engine
                .add_table("trades", &format!("{}/equities/trades_20131007.parquet", folder.display()))
                .await
                .unwrap();
            let sql = "SELECT symbol, time_bucket('5m', ts) AS b, ohlc(price, ts, seq) AS o, first(size, ts), \
                       last(exchange, ts, seq), count(*) FROM trades GROUP BY 1, 2 ORDER BY 1, 2";
            answers.push(text(&engine, sql).await);
        }
        assert!(answers[0].len() > 100);
        assert_eq!(answers[0], answers[1]);
    });
}

fn small() -> (Arc<Schema>, Vec<RecordBatch>) {
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("ts", utc, false),
        Field::new("_src", DataType::UInt64, false),
        Field::new("_seq", DataType::UInt64, false),
        Field::new("symbol", DataType::Utf8, false),
        Field::new("close", DataType::Float64, true),
    ]));
    let n = 700_u64;
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(
                TimestampNanosecondArray::from_iter_values((0..n as i64).map(|i| i * 1_000_000_000))
                    .with_timezone("UTC"),
            ),
            Arc::new(UInt64Array::from_iter_values((0..n).map(|_| 0))),
            Arc::new(UInt64Array::from_iter_values(0..n)),
            Arc::new(StringArray::from_iter_values((0..n).map(|i| ["x", "y", "z"][(i * i % 3) as usize]))),
            Arc::new(
                (0..n)
                    .map(|i| (i % 11 != 7).then(|| 100.0 + (i as f64 * 0.7).sin() * 5.0))
                    .collect::<Float64Array>(),
            ),
        ],
    );
    (schema, vec![batch.unwrap()])
}

#[test]
fn indicators_in_sql_equal_the_indicators_operator() {
    use tidemill_operators::indicators::{all, find};
    wait_for(async {
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        let (schema, batches) = small();
        engine.add_rows("bars", schema, vec![batches.clone()]).unwrap();
        let symbols = batches[0].column(3).as_string::<i32>();
        let close = batches[0].column(4).as_primitive::<Float64Type>();
        let names = ["x", "y", "z"];
        let slots: Vec<u32> =
            symbols.iter().map(|s| names.iter().position(|n| Some(*n) == s).unwrap() as u32).collect();
        let input: Vec<f64> = close.iter().map(|v| v.unwrap_or(f64::NAN)).collect();
        let mut compared = 0;
        for spec in all().iter().filter(|s| s.inputs.len() == 1) {
            // What the operator runs: one bank, one slot a key, rows as they come.
            let mut bank = find(spec.name).unwrap().build(&serde_json::Value::Null).unwrap();
            bank.reserve(3);
            let mut made = vec![Vec::new(); spec.outputs.len()];
            bank.update(&slots, &[&input], &mut made);
            for (output, expected) in spec.outputs.iter().zip(made) {
                let sql = format!(
                    "SELECT ta_{output}(close) OVER (PARTITION BY symbol ORDER BY ts) AS v FROM bars ORDER BY ts"
                );
                let batches = engine.query(&sql).await.unwrap().collect().await.unwrap();
                let got: Vec<Option<f64>> = batches
                    .iter()
                    .flat_map(|b| b.column(0).as_primitive::<Float64Type>().iter().collect::<Vec<_>>())
                    .collect();
                let expected: Vec<Option<f64>> =
                    expected.into_iter().map(|v| v.is_finite().then_some(v)).collect();
                assert_eq!(got, expected, "{output}");
                compared += 1;
            }
        }
        assert!(compared > 30, "{compared}");
    });
}

fn check(sql: &str, expect: Expect) {
    wait_for(async {
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        let (schema, batches) = small();
        engine.add_rows("trades", schema.clone(), vec![batches.clone()]).unwrap();
        engine.add_rows("quotes", schema, vec![batches]).unwrap();
        let error = match engine.query(sql).await {
            Err(error) => error,
            Ok(rows) => rows.collect().await.unwrap_err(),
        };
        expect.assert_eq(&error.render(sql));
    });
}

#[test]
fn wrong_sql_points_at_the_place() {
    check(
        "SELECT symbol, close\nFORM trades",
        expect![[r#"
        error: expected: end of statement, found: trades
           |
         2 | FORM trades
           |      ^^^^^^
    "#]],
    );
    check(
        "SELECT symbol,\n       clsoe\nFROM trades",
        expect![[r#"
        error: there is no column `clsoe`
           |
         2 |        clsoe
           |        ^^^^^
        hint: did you mean `close`?
    "#]],
    );
    check(
        "SELECT * FROM trade",
        expect![[r#"
        error: there is no table `trade`
           |
         1 | SELECT * FROM trade
           |               ^^^^^
        hint: did you mean `trades`?
    "#]],
    );
    check(
        "SELECT vwpa(close, 1) FROM trades",
        expect![[r#"
        error: there is no function `vwpa`
           |
         1 | SELECT vwpa(close, 1) FROM trades
           |        ^^^^
        hint: did you mean `vwap`?
    "#]],
    );
    check(
        "SELECT symbol, close FROM trades GROUP BY symbol",
        expect![[r#"
        error: `trades.close` must be in GROUP BY, or inside an aggregate
           |
         1 | SELECT symbol, close FROM trades GROUP BY symbol
           |                ^^^^^
        hint: `GROUP BY …, trades.close`, or `last(trades.close, ts)`, say
    "#]],
    );
    check(
        "SELECT ts FROM trades JOIN quotes USING (symbol)",
        expect![[r#"
        error: `ts` could be a column of several tables
           |
         1 | SELECT ts FROM trades JOIN quotes USING (symbol)
           |        ^^
        hint: say which: `table.ts`
    "#]],
    );
    check(
        "SELECT time_bucket('1 parsec', ts) FROM trades",
        expect![[r#"
        error: `1 parsec` is not an interval: write '1m', '1h30m', '5 minutes' or '1 month'
           |
         1 | SELECT time_bucket('1 parsec', ts) FROM trades
           |                     ^^^^^^^^
    "#]],
    );
    check(
        "SELECT sum(symbol) FROM trades",
        expect![[r#"
        error: `sum` does not take (Utf8)
           |
         1 | SELECT sum(symbol) FROM trades
           |        ^^^
        hint: it takes: sum(Decimal), sum(UInt64), sum(Int64), sum(Float64), sum(Duration), sum(Interval)
    "#]],
    );
    check(
        "SELECT * FROM trades t\nASOF JOIN quotes q MATCH_CONDITION (t.ts >= q.ts) ON t.symbol > q.symbol",
        expect![[r#"
            error: ON of an as-of join takes only equalities, not `t.symbol > q.symbol`: put the rest into WHERE
               |
             2 | ASOF JOIN quotes q MATCH_CONDITION (t.ts >= q.ts) ON t.symbol > q.symbol
               |                                                      ^^^^^^^^^^^^^^^^^^^
        "#]],
    );
    check(
        "SELECT * FROM trades t ASOF JOIN quotes q ON t.symbol = q.symbol",
        expect![[r#"
        error: expected: MATCH_CONDITION, found: ON
           |
         1 | SELECT * FROM trades t ASOF JOIN quotes q ON t.symbol = q.symbol
           |                                           ^^
    "#]],
    );
    check(
        "SELECT macd(close, 26, 12) OVER (ORDER BY ts) FROM trades",
        expect![[r#"
        error: macd: fast: must be below slow (12), not 26 (macd(close, [fast = 12], [slow = 26], [signal = 9]))
           |
         1 | SELECT macd(close, 26, 12) OVER (ORDER BY ts) FROM trades
           |        ^^^^
    "#]],
    );
    check(
        "SELECT rsi(close) FROM trades",
        expect![[r#"
        error: `rsi` is a function over a window
           |
         1 | SELECT rsi(close) FROM trades
           |        ^^^
        hint: `rsi(…) OVER (PARTITION BY symbol ORDER BY ts)`
    "#]],
    );
    check(
        "SELECT close / 0::int, CAST('abc' AS DOUBLE) FROM trades",
        expect![[r#"
        error: cannot cast string 'abc' to value of Float64 type
           |
         1 | SELECT close / 0::int, CAST('abc' AS DOUBLE) FROM trades
           |                              ^^^
    "#]],
    );
    check(
        "SELECT 'abc FROM trades",
        expect![[r#"
        error: unterminated string literal
           |
         1 | SELECT 'abc FROM trades
           |        ^
    "#]],
    );
}

#[test]
fn writes_are_refused() {
    wait_for(async {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        let (schema, batches) = small();
        engine.add_rows("trades", schema, vec![batches]).unwrap();
        let file = folder.path().join("x.parquet");
        for sql in [
            "INSERT INTO trades SELECT * FROM trades".to_owned(),
            "CREATE TABLE x AS SELECT 1".into(),
            "CREATE VIEW x AS SELECT 1".into(),
            "CREATE OR REPLACE TABLE trades AS SELECT 1".into(),
            "DROP TABLE trades".into(),
            "DELETE FROM trades".into(),
            "UPDATE trades SET close = 1".into(),
            "TRUNCATE TABLE trades".into(),
            format!("COPY trades TO '{}'", file.display()),
            format!("COPY (SELECT 1) TO '{}'", file.display()),
            format!("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '{}'", file.display()),
            "SET datafusion.execution.batch_size = 1".into(),
            "BEGIN".into(),
            "PREPARE p AS SELECT 1".into(),
            "EXPLAIN ANALYZE INSERT INTO trades SELECT * FROM trades".into(),
            "SELECT 1 AS a INTO x".into(),
            "WITH a AS (SELECT 1) INSERT INTO trades SELECT * FROM trades".into(),
            "CREATE FUNCTION f() RETURNS INT RETURN 1".into(),
        ] {
            let error = engine.query(&sql).await.map(|_| ()).unwrap_err();
            // What the parser does not know is no harm either.
            assert!(matches!(error.kind, ErrorKind::ReadOnly | ErrorKind::Syntax), "{sql}: {error:?}");
        }
        assert!(!file.exists());
        assert_eq!(text(&engine, "SELECT count(*) FROM trades").await, [["700"]]);
        let error = engine.query("DROP TABLE trades").await.unwrap_err();
        assert_eq!(error.message, "DROP TABLE is refused: SQL here only reads");
        let error = engine.query("SELECT * FROM '/etc/passwd'").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::UnknownTable, "{error}");
    });
}

#[test]
fn a_query_that_needs_too_much_memory_ends_with_a_message() {
    wait_for(async {
        let config =
            EngineConfig { memory_limit_bytes: 4 << 20, target_partitions: 2, ..EngineConfig::default() };
        let engine = Engine::open(config).await.unwrap();
        // A grouping by everything, one state a row, cannot spill its lists of values.
        let sql = "SELECT array_agg(v ORDER BY v DESC) FROM (SELECT v, v % 7 AS g FROM generate_series(1, 3000000) AS s(v)) GROUP BY g";
        let error = match engine.query(sql).await {
            Err(error) => error,
            Ok(rows) => rows.collect().await.unwrap_err(),
        };
        assert_eq!(error.kind, ErrorKind::Memory, "{error:?}");
        assert!(error.message.starts_with("the query needs more memory than its limit of 4 MiB"), "{error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains("--memory"), "{error}");
        // A sort of more than that spills and is right.
        let sql = "SELECT v FROM (SELECT v * 7919 % 1000003 AS v FROM generate_series(1, 1000002) AS s(v)) ORDER BY v";
        let config =
            EngineConfig { memory_limit_bytes: 12 << 20, target_partitions: 1, ..EngineConfig::default() };
        let engine = Engine::open(config).await.unwrap();
        let mut rows = engine.query(sql).await.unwrap();
        let mut next = 1;
        while let Some(batch) = rows.next().await {
            for v in batch.unwrap().column(0).as_primitive::<arrow::datatypes::Int64Type>().values() {
                assert_eq!(*v, next);
                next += 1;
            }
        }
        assert_eq!(next, 1_000_003);
    });
}

#[test]
fn the_command_prints_every_format() {
    let Some(data) = data() else { return };
    let trades = format!("trades={}/equities/trades_2013*.parquet", data.display());
    let run = |args: &[&str]| {
        let out = Command::new(binary()).args(["sql", "--table", &trades]).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.success(), text(&out.stdout), text(&out.stderr))
    };
    let sql = "SELECT symbol, min(ts) AS first, count(*) AS n FROM trades GROUP BY symbol ORDER BY symbol";
    let (good, out, err) = run(&[sql]);
    assert!(good, "{err}");
    expect![[r#"
         symbol   first                            n
        ─────────────────────────────────────────────
         AIG      2013-10-07T08:00:00.688Z    175019
         BAC      2013-10-07T08:00:00.614Z    461443
         IBM      2013-10-07T08:00:30.270Z    107131
         SPY      2013-10-07T08:00:00.464Z   1601855
        4 rows
    "#]]
    .assert_eq(&out);
    expect![[r#"
        symbol,first,n
        AIG,2013-10-07T08:00:00.688Z,175019
        BAC,2013-10-07T08:00:00.614Z,461443
        IBM,2013-10-07T08:00:30.270Z,107131
        SPY,2013-10-07T08:00:00.464Z,1601855
    "#]]
    .assert_eq(&run(&[sql, "--format", "csv"]).1);
    expect![[r#"
        {"symbol":"AIG","first":"2013-10-07T08:00:00.688Z","n":175019}
        {"symbol":"BAC","first":"2013-10-07T08:00:00.614Z","n":461443}
        {"symbol":"IBM","first":"2013-10-07T08:00:30.270Z","n":107131}
        {"symbol":"SPY","first":"2013-10-07T08:00:00.464Z","n":1601855}
    "#]]
    .assert_eq(&run(&[sql, "--format", "jsonl"]).1);
    let json: serde_json::Value = serde_json::from_str(&run(&[sql, "--format", "json"]).1).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 4);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n.parquet");
    let (good, _, err) = run(&[sql, "-o", &file.to_string_lossy()]);
    assert!(good && err.contains("4 rows"), "{err}");
    let again = format!("n={}", file.display());
    let out = Command::new(binary())
        .args(["sql", "--table", &again, "SELECT sum(n) AS n FROM n", "--format", "csv"])
        .output();
    assert_eq!(String::from_utf8_lossy(&out.unwrap().stdout), "n\n2345448\n");
    // Several statements; the first that fails ends it, and says where.
    let (good, out, err) =
        run(&["SELECT 1 AS a;\nSELECT 2 AS b;\nSELECT c;\nSELECT 3 AS d", "--format", "csv"]);
    assert!(!good);
    assert_eq!(out, "a\n1\nb\n2\n");
    assert!(err.contains("there is no column `c`") && err.contains("3 | SELECT c;"), "{err}");
    let (good, out, _) = run(&["EXPLAIN SELECT count(*) FROM trades", "--max-rows", "1"]);
    assert!(good && out.contains("2 rows; the first 1 are shown: --max-rows 0 shows all"), "{out}");
}
