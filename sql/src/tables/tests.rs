//! Datasets as tables: what is read, in which order, and that new files are seen.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Float64Array, RecordBatch, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use tidemill_archive::{Catalog, Layout, RangeKey, RangeWriter, WriteOptions};
use tidemill_engine::row;

use crate::{Engine, EngineConfig};

const DAY: i64 = 86_400_000_000_000;
/// 2013-10-07.
const MONDAY: i64 = 15_985 * DAY;
const PER_DAY: i64 = 20_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", row::ts_type(), false),
        Field::new("_seq", DataType::UInt64, false),
        Field::new("symbol", row::symbol_type(), false),
        Field::new("price", DataType::Float64, false),
    ]))
}

fn day(day: i64) -> RecordBatch {
    let n = PER_DAY;
    let symbols: DictionaryArray<Int32Type> =
        (0..n).map(|i| Some(["AIG", "BAC", "IBM", "SPY"][(i % 4) as usize])).collect();
    let ts = (0..n).map(|i| MONDAY + day * DAY + i * (DAY / n));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(ts).with_timezone("UTC")),
        Arc::new(UInt64Array::from_iter_values((0..n as u64).map(|i| day as u64 * 1_000_000 + i))),
        Arc::new(symbols),
        Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

async fn fill(archive: &Path, name: &str, days: std::ops::Range<i64>) {
    let catalog = Catalog::open(&archive.to_string_lossy(), Path::new("/")).unwrap();
    let dataset = catalog.dataset(name).unwrap();
    dataset.create_or_open(&Layout::new(&schema(), &["date"])).await.unwrap();
    for d in days {
        let (from, to) = (MONDAY + d * DAY, MONDAY + (d + 1) * DAY);
        let options = WriteOptions { row_group_rows: 4_000, ..WriteOptions::default() };
        let mut writer =
            RangeWriter::new(&dataset, "test", RangeKey::all(), from, to, options).await.unwrap();
        writer.write(day(d)).await.unwrap();
        writer.finish(true).await.unwrap();
    }
}

async fn open(archive: &Path) -> Engine {
    let config = EngineConfig {
        archive: Some(archive.to_string_lossy().into_owned()),
        target_partitions: 2,
        ..EngineConfig::default()
    };
    Engine::open(config).await.unwrap()
}

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

/// Dates of the files in a plan.
fn dates(plan: &str) -> BTreeSet<&str> {
    plan.split("date=").skip(1).map(|rest| &rest[..10]).collect()
}

async fn plan(engine: &Engine, sql: &str) -> String {
    text(engine, &format!("EXPLAIN {sql}")).await.into_iter().map(|r| r[1].clone()).collect()
}

#[tokio::test]
async fn only_files_that_can_hold_an_answer_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), "trades", 0..4).await;
    let engine = open(folder.path()).await;
    assert_eq!(text(&engine, "SELECT count(*) FROM trades").await, [["80000"]]);
    for (condition, expected, rows) in [
        ("date = '2013-10-08'", vec!["2013-10-08"], 20_000),
        ("date >= '2013-10-09'", vec!["2013-10-09", "2013-10-10"], 40_000),
        (
            "ts >= '2013-10-08T12:00:00Z' AND ts < '2013-10-09T06:00:00Z'",
            vec!["2013-10-08", "2013-10-09"],
            15_000,
        ),
        ("ts < TIMESTAMP '2013-10-08T00:00:00Z'", vec!["2013-10-07"], 20_000),
        ("ts > '2014-01-01'", vec![], 0),
    ] {
        let sql = format!("SELECT count(*) FROM (SELECT price FROM trades WHERE {condition})");
        assert_eq!(text(&engine, &sql).await, [[rows.to_string()]], "{condition}");
        let plan = plan(&engine, &format!("SELECT price FROM trades WHERE {condition}")).await;
        assert_eq!(dates(&plan), expected.into_iter().collect(), "{condition}: {plan}");
    }
}

/// The value of a metric in an executed plan, summed over its nodes.
fn metric(plan: &Arc<dyn datafusion::physical_plan::ExecutionPlan>, name: &str) -> String {
    let mut found = String::new();
    if let Some(metrics) = plan.metrics() {
        for value in metrics.iter().map(|m| m.value()).filter(|v| v.name() == name) {
            found += &format!("{value} ");
        }
    }
    for child in plan.children() {
        found += &metric(child, name);
    }
    found
}

#[tokio::test]
async fn row_groups_are_left_out_within_a_file() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), "trades", 0..2).await;
    let engine = open(folder.path()).await;
    // Five row groups a day: this hour is in one of them.
    let sql = "SELECT price FROM trades WHERE ts >= '2013-10-08T12:00:00Z' AND ts < '2013-10-08T13:00:00Z'";
    let mut rows = engine.query(sql).await.unwrap();
    let plan = rows.plan().clone();
    let mut n = 0;
    while let Some(batch) = rows.next().await {
        n += batch.unwrap().num_rows();
    }
    assert_eq!(n, 834);
    let pruned = metric(&plan, "row_groups_pruned_statistics");
    assert!(pruned.contains("5 total") && pruned.contains("1 matched"), "{pruned}");
    let bytes = metric(&plan, "bytes_scanned");
    assert!(!bytes.is_empty(), "{bytes}");
}

#[tokio::test]
async fn order_by_time_needs_no_sort_and_is_right() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), "trades", 0..3).await;
    let engine = open(folder.path()).await;
    let sql = "SELECT ts, price FROM trades ORDER BY ts";
    let plan = plan(&engine, sql).await;
    assert!(!plan.contains("SortExec"), "{plan}");
    let batches = engine.query(sql).await.unwrap().collect().await.unwrap();
    let mut last = i64::MIN;
    let mut n = 0;
    for batch in batches {
        let ts = arrow::compute::cast(batch.column(0), &DataType::Int64).unwrap();
        for t in ts.as_primitive::<Int64Type>().values() {
            assert!(last <= *t);
            last = *t;
            n += 1;
        }
    }
    assert_eq!(n, 3 * PER_DAY);
}

#[tokio::test]
async fn a_query_sees_the_files_there_are_when_it_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), "trades", 0..1).await;
    let engine = open(folder.path()).await;
    let count = "SELECT count(*), count(DISTINCT symbol) FROM trades";
    assert_eq!(text(&engine, count).await, [["20000", "4"]]);
    fill(folder.path(), "trades", 1..2).await;
    assert_eq!(text(&engine, count).await, [["40000", "4"]]);
    // Written twice, there once.
    fill(folder.path(), "trades", 1..2).await;
    assert_eq!(text(&engine, count).await, [["40000", "4"]]);
    // A new dataset, whose name needs no quotes in SQL.
    fill(folder.path(), "binance-trades.v2", 0..1).await;
    assert_eq!(text(&engine, "SELECT count(*) FROM binance_trades_v2").await, [["20000"]]);
    let names: Vec<String> = engine.tables().await.unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["binance_trades_v2", "trades"]);
    assert_eq!(
        text(&engine, "SELECT arrow_typeof(symbol) FROM trades LIMIT 1").await,
        [["Dictionary(Int32, Utf8)"]]
    );
    let listed = text(
        &engine,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
    )
    .await;
    assert_eq!(listed, [["binance_trades_v2"], ["trades"]]);
}

#[tokio::test]
async fn a_folder_that_is_a_column_in_the_files_too_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in ["AIG", "SPY"].into_iter().enumerate() {
        let folder = dir.path().join(format!("symbol={name}/part={i}"));
        std::fs::create_dir_all(&folder).unwrap();
        let symbols: ArrayRef = Arc::new([name, name].into_iter().collect::<DictionaryArray<Int32Type>>());
        let prices: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0 + i as f64]));
        let batch = RecordBatch::try_from_iter([("symbol", symbols), ("price", prices)]).unwrap();
        let file = std::fs::File::create(folder.join("rows.parquet")).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
    let engine = Engine::open(EngineConfig::default()).await.unwrap();
    engine.add_table("l", &dir.path().display().to_string()).await.unwrap();
    let sql = "SELECT symbol, part, sum(price) AS s FROM l WHERE symbol <> 'AIG' OR part = '0' GROUP BY ALL ORDER BY symbol";
    let rows = engine.query(sql).await.unwrap().collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    for expected in ["| AIG    | 0    | 3.0 |", "| SPY    | 1    | 4.0 |"] {
        assert!(shown.contains(expected), "{shown}");
    }
}
