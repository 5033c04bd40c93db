//! Whole graphs, timed: see docs/benchmarks.md.
//!
//!     cargo bench --workspace --bench pipelines -- [PART...] [--runs N] [--rows MILLIONS]
//!
//! Parts: memory, parquet, batches, workers, hold, checkpoint. Default: all.

use std::time::Duration;

use tidemill_benches::{FIVE, Run, best_of, data, line, load, weeks};
use tidemill_engine::checkpoint::StartFrom;
use tidemill_engine::runtime::{CheckpointOptions, RunOptions};

/// Copies of the real trades: 8 times 2.35 M.
const WEEKS: i64 = 8;

struct Args {
    parts: Vec<String>,
    runs: usize,
    millions: u64,
}

type Part = fn(&Args) -> Result<(), String>;

fn args() -> Args {
    let mut args = Args { parts: Vec::new(), runs: 5, millions: 20 };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        let mut number = || given.next().and_then(|n| n.parse().ok()).expect("a number follows the option");
        match arg.as_str() {
            // What cargo adds by itself.
            "--bench" => {}
            "--runs" => args.runs = number() as usize,
            "--rows" => args.millions = number(),
            part => args.parts.push(part.to_owned()),
        }
    }
    args
}

fn main() {
    let args = args();
    let wanted = |part: &str| args.parts.is_empty() || args.parts.iter().any(|p| p == part);
    println!("load before: {}", load());
    let parts: [(&str, Part); 6] = [
        ("memory", memory),
        ("parquet", parquet),
        ("batches", batches),
        ("workers", workers),
        ("hold", hold),
        ("checkpoint", checkpoint),
    ];
    let mut failed = false;
    for (name, part) in parts {
        if wanted(name)
            && let Err(error) = part(&args)
        {
            println!("{name}: {error}");
            failed = true;
        }
    }
    if failed {
        std::process::exit(1);
    }
}

/// `source` -> five indicators -> nowhere.
fn five(source: &str, sink: &str) -> String {
    format!(
        "dataflow: bench\nversion: 1\nsources:\n  trades: {source}\noperators:\n  studies: {{ kind: indicators, from: trades, with: {{ by: [symbol], {FIVE} }} }}\n\
         sinks:\n  nowhere: {{ kind: \"null\", from: studies{sink} }}\n"
    )
}

fn looping(with: &str) -> String {
    format!("{{ kind: looping, with: {{ {with} }} }}")
}

fn report(name: &str, target: Option<f64>, runs: &[Run]) {
    println!("{}", line(name, target, runs));
}

fn memory(args: &Args) -> Result<(), String> {
    let rows = args.millions * 1_000_000;
    let options = RunOptions::default();
    let source = looping(&format!("rows: {rows}"));
    let bare = format!(
        "dataflow: bench\nversion: 1\nsources:\n  trades: {source}\nsinks:\n  nowhere: {{ kind: \"null\", from: trades }}\n"
    );
    report("memory -> nothing (the engine alone)", None, &best_of(args.runs, &bare, &options)?);
    report("memory -> five indicators", Some(20.0), &best_of(args.runs, &five(&source, ""), &options)?);
    Ok(())
}

fn parquet(args: &Args) -> Result<(), String> {
    let Some(data) = data() else { return Err("no market data in ../shared/data".into()) };
    let folder = tempfile::Builder::new().prefix("tidemill-bench-").tempdir().map_err(|e| e.to_string())?;
    weeks::write(&data, folder.path(), WEEKS).map_err(|e| e.to_string())?;
    let places = [
        ("2.35 M rows", format!("{}/equities/trades_*.parquet", data.display())),
        ("8 x 2.35 M rows", format!("{}/trades_*.parquet", folder.path().display())),
    ];
    for (what, url) in &places {
        let source =
            format!("{{ kind: parquet, with: {{ url: \"{url}\", columns: [symbol, price, size] }} }}");
        let bare = format!(
            "dataflow: bench\nversion: 1\nsources:\n  trades: {source}\nsinks:\n  nowhere: {{ kind: \"null\", from: trades }}\n"
        );
        let bars = format!(
            "dataflow: bench\nversion: 1\nsources:\n  trades: {source}\noperators:\n  bars: {{ kind: bars, from: trades, with: {{ every: 1m, by: [symbol] }} }}\n\
             sinks:\n  nowhere: {{ kind: \"null\", from: bars }}\n"
        );
        let options = RunOptions::default();
        report(&format!("Parquet -> nothing, {what}"), None, &best_of(args.runs, &bare, &options)?);
        report(
            &format!("Parquet -> five indicators, {what}"),
            Some(5.0),
            &best_of(args.runs, &five(&source, ""), &options)?,
        );
        report(
            &format!("Parquet -> 1-minute bars, {what}"),
            Some(12.0),
            &best_of(args.runs, &bars, &options)?,
        );
    }
    Ok(())
}

fn batches(args: &Args) -> Result<(), String> {
    for (chunk_rows, share) in [(10, 20), (100, 4), (1000, 1), (8192, 1)] {
        let rows = args.millions * 1_000_000 / share;
        let options = RunOptions { chunk_rows, ..RunOptions::default() };
        report(
            &format!("memory -> five indicators, {chunk_rows} rows a batch"),
            None,
            &best_of(args.runs, &five(&looping(&format!("rows: {rows}")), ""), &options)?,
        );
    }
    Ok(())
}

fn workers(args: &Args) -> Result<(), String> {
    let rows = args.millions * 1_000_000;
    let options = RunOptions { workers: 2, ..RunOptions::default() };
    for (what, with) in
        [("one partition, split", ""), ("two partitions by key", ", partitions: 2, keyed: true")]
    {
        report(
            &format!("memory -> five indicators, 2 workers, {what}"),
            None,
            &best_of(args.runs, &five(&looping(&format!("rows: {rows}{with}")), ""), &options)?,
        );
    }
    Ok(())
}

fn hold(args: &Args) -> Result<(), String> {
    let rows = args.millions * 1_000_000 / 2;
    let options = RunOptions::default();
    let with = format!("rows: {rows}, partitions: 3, disorder_ns: 5000000, max_out_of_orderness: 5ms");
    report(
        "memory, 3 partitions out of order -> hold -> five",
        None,
        &best_of(args.runs, &five(&looping(&with), ""), &options)?,
    );
    let with = format!("rows: {rows}, partitions: 3");
    report(
        "memory, 3 partitions in order -> hold -> five",
        None,
        &best_of(args.runs, &five(&looping(&with), ""), &options)?,
    );
    report(
        "memory -> five -> ordered sink",
        None,
        &best_of(
            args.runs,
            &five(&looping(&format!("rows: {rows}")), ", with: { delivery: ordered }"),
            &options,
        )?,
    );
    Ok(())
}

/// All keys are known after the first million rows; gaps count from the second on, so that what is
/// seen is the checkpoints, not tables that grow.
fn checkpoint(args: &Args) -> Result<(), String> {
    let rows = args.millions * 1_000_000;
    for (what, add) in [("one EMA a key", "add: { ema: { column: price } }"), ("five indicators a key", FIVE)]
    {
        let graph = format!(
            "dataflow: bench\nversion: 1\nsources:\n  trades: {}\noperators:\n  studies: {{ kind: indicators, from: trades, with: {{ by: [account], {add} }} }}\n\
             sinks:\n  nowhere: {{ kind: \"null\", from: studies }}\n",
            looping(&format!("rows: {rows}, accounts: 1000000")),
        );
        for every in [None, Some(Duration::from_millis(1500))] {
            let folder =
                tempfile::Builder::new().prefix("tidemill-bench-").tempdir().map_err(|e| e.to_string())?;
            let checkpoints = every.map(|_| CheckpointOptions {
                url: folder.path().display().to_string(),
                base: ".".into(),
                keep: 2,
                from: StartFrom::None,
                changes: Default::default(),
            });
            let options = RunOptions {
                checkpoints,
                checkpoint_every: every.unwrap_or_default(),
                ..RunOptions::default()
            };
            for _ in 0..args.runs.min(3) {
                let run = tidemill_benches::run(&graph, &options, 2_000_000)?;
                let stall = run.nodes.iter().map(|n| n.stall_max_ns).max().unwrap_or_default() as f64 / 1e6;
                let state = run.nodes.iter().map(|n| n.state_bytes).max().unwrap_or_default() as f64 / 1e6;
                let keys = run.nodes.iter().map(|n| n.state_keys).max().unwrap_or_default();
                println!(
                    "1 M keys, {what}, {}: {:.2} M rows/s, longest gap at the sink {:.1} ms, longest slice {stall:.1} ms, {} checkpoints, {keys} keys, {state:.0} MB (target: stall < 250 ms, load {})",
                    if every.is_some() { "checkpoint every 1.5 s" } else { "no checkpoints" },
                    run.millions(),
                    run.gap.as_secs_f64() * 1e3,
                    run.checkpoints,
                    load(),
                );
            }
        }
    }
    Ok(())
}
