//! The trader's queries of sql/queries over the real days, timed; benches/peers/sql.py runs it beside its peers.
//!
//!     "$CARGO_TARGET_DIR"/release/sql_queries [--runs N] [--threads N] [--dir DATA] [QUERY_PREFIX...]
//!
//! One JSON object a query: its name, rows, the sum of each numeric column, and the best and median time
//! from the SQL text to the last batch. The engine is opened once, as a server's is; files are read anew by every run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use serde_json::json;
use tidemill_engine::clock::Clock;
use tidemill_sql::{Engine, EngineConfig};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let (mut runs, mut threads, mut asked) = (5, 0, Vec::new());
    let root = tidemill_benches::root();
    let mut data =
        std::env::var_os("TIDEMILL_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--runs" => runs = value()?.parse()?,
            "--threads" => threads = value()?.parse()?,
            "--dir" => data = PathBuf::from(value()?),
            _ => asked.push(argument),
        }
    }
    let mut queries: Vec<PathBuf> = std::fs::read_dir(root.join("sql/queries"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    queries.sort();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = EngineConfig { target_partitions: threads, ..EngineConfig::default() };
        let engine = Engine::open(config).await?;
        for table in ["trades", "quotes"] {
            engine
                .add_table(table, &data.join(format!("equities/{table}_*.parquet")).display().to_string())
                .await?;
        }
        for path in queries {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if !asked.is_empty() && !asked.iter().any(|a| name.starts_with(a)) {
                continue;
            }
            let sql = std::fs::read_to_string(&path)?;
            println!("{}", measure(&engine, &name, &sql, runs).await?);
        }
        Ok(())
    })
}

async fn measure(engine: &Engine, name: &str, sql: &str, runs: usize) -> Result<serde_json::Value, Failure> {
    let (mut times_ms, mut batches) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(1) {
        let watch = Clock::System.start();
        batches = engine.query(sql).await?.collect().await?;
        times_ms.push(watch.elapsed().as_secs_f64() * 1e3);
    }
    times_ms.sort_by(f64::total_cmp);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    Ok(json!({
        "query": name, "rows": rows, "sums": sums(&batches)?,
        "best_ms": times_ms[0], "median_ms": times_ms[times_ms.len() / 2],
    }))
}

fn sums(batches: &[RecordBatch]) -> Result<BTreeMap<String, f64>, Failure> {
    let mut sums = BTreeMap::new();
    for batch in batches {
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if field.data_type().is_numeric() {
                let column = cast(column, &DataType::Float64)?;
                let values = column.as_primitive::<Float64Type>().iter().flatten().filter(|v| !v.is_nan());
                *sums.entry(field.name().clone()).or_insert(0.0) += values.sum::<f64>();
            }
        }
    }
    Ok(sums)
}
