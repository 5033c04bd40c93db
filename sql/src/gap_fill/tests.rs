//! Filled gaps against a loop.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;

use crate::{Engine, EngineConfig};

const S: i64 = 1_000_000_000;

async fn engine(target_partitions: usize, batch_rows: usize) -> (Engine, Vec<(i64, &'static str, f64)>) {
    let config = EngineConfig { target_partitions, batch_rows, ..EngineConfig::default() };
    let engine = Engine::open(config).await.unwrap();
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("ts", utc, false),
        Field::new("symbol", DataType::Utf8, false),
        Field::new("close", DataType::Float64, false),
    ]));
    let mut rows = Vec::new();
    let mut seed = 5_u64;
    for i in 0..400_i64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (seed >> 40).is_multiple_of(5) {
            rows.push((i * 60 * S, if (seed >> 50).is_multiple_of(2) { "a" } else { "b" }, i as f64));
        }
    }
    let batch = |rows: &[(i64, &str, f64)]| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(
                TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.0)).with_timezone("UTC"),
            ),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2))),
        ];
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    };
    let parts = rows.chunks(9).map(|rows| vec![batch(rows)]).collect();
    engine.add_rows("bars", schema.clone(), parts).unwrap();
    (engine, rows)
}

async fn text(engine: &Engine, sql: &str) -> Vec<String> {
    let answer = engine.query(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let batches = answer.collect().await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let mut rows = Vec::new();
    for batch in batches {
        for i in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| array_value_to_string(c, i).unwrap());
            rows.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    rows
}

#[tokio::test]
async fn missing_minutes_appear_once_by_key_in_order() {
    for (partitions, batch_rows) in [(1, 8192), (3, 7), (2, 1)] {
        let (engine, rows) = engine(partitions, batch_rows).await;
        let mut expected = Vec::new();
        for symbol in ["a", "b"] {
            let mine: Vec<_> = rows.iter().filter(|r| r.1 == symbol).collect();
            let (first, last) = (mine[0].0, mine[mine.len() - 1].0);
            for ts in (first..=last).step_by(60 * S as usize) {
                let close = mine.iter().find(|r| r.0 == ts).map_or(String::new(), |r| format!("{:?}", r.2));
                expected.push(format!("{symbol} {} {close}", ts / S));
            }
        }
        let sql = "SELECT symbol, ts::bigint / 1000000000 AS s, close FROM gap_fill(bars, ts, '1m', 'symbol') ORDER BY 1, 2";
        assert_eq!(text(&engine, sql).await, expected, "{partitions} partitions");
        // With both ends every key has every minute; a query as text; a column alone is asked for.
        let sql = "SELECT symbol, count(*), count(close) FROM gap_fill('SELECT symbol, ts, close FROM bars', 'ts', \
                   INTERVAL '1 minute', symbol, TIMESTAMP '1970-01-01T00:00:00Z', TIMESTAMP '1970-01-01T07:00:00Z') \
                   GROUP BY 1 ORDER BY 1";
        let count = |s: &str| rows.iter().filter(|r| r.1 == s).count();
        assert_eq!(
            text(&engine, sql).await,
            [format!("a 420 {}", count("a")), format!("b 420 {}", count("b"))]
        );
    }
}

#[tokio::test]
async fn carried_forward_there_are_no_nulls() {
    let (engine, _) = engine(2, 16).await;
    let sql = "SELECT count(*) - count(c) AS nulls FROM (SELECT locf(close) OVER (PARTITION BY symbol ORDER BY ts) AS c \
               FROM gap_fill(bars, ts, '1m', 'symbol'))";
    assert_eq!(text(&engine, sql).await, ["0"]);
    let error = engine.query("SELECT * FROM gap_fill(bars, time, '1m')").await.unwrap_err();
    assert!(error.message.contains("has no column `time`: it has"), "{error}");
    let error = engine.query("SELECT * FROM gap_fill(bars, ts, '1m', 'venue')").await.unwrap_err();
    assert!(error.message.contains("has no column `venue`"), "{error}");
    let turned = "SELECT * FROM gap_fill(bars, ts, '1m', 'symbol', TIMESTAMP '1970-01-01T07:00:00Z', TIMESTAMP '1970-01-01T00:00:00Z')";
    let error = engine.query(turned).await.unwrap_err();
    assert!(error.message.contains("1970-01-01T07:00:00+00:00, is after its `to`"), "{error}");
}
