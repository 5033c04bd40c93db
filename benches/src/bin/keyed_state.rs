//! An EMA by wallet for very many wallets, with a limit on the memory of its state.
//!
//!     "$CARGO_TARGET_DIR"/release/keyed_state --keys 100 --rows 200 --memory 1GiB --spill DIR [--zipf] [--fill] [--every SECONDS]
//!
//! `--keys` and `--rows` are millions. Without `--spill` state may take any memory; `--every` takes checkpoints. The highest resident size is read from
//! /proc at the end.

use std::time::Duration;

use tidemill_benches::{load, run};
use tidemill_engine::runtime::{CheckpointOptions, RunOptions};
use tidemill_engine::state_memory::StateOptions;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let (mut keys, mut rows, mut zipf, mut fill) = (1.0, 2.0, false, false);
    let mut options = RunOptions { chunk_rows: 65_536, ..RunOptions::default() };
    let mut state = StateOptions::default();
    let mut every = 0;
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        let mut value = || given.next().ok_or("a value follows the option");
        match arg.as_str() {
            "--keys" => keys = value()?.parse()?,
            "--rows" => rows = value()?.parse()?,
            "--memory" => state.memory = Some(value()?.parse()?),
            "--spill" => state.spill = Some(value()?),
            "--workers" => options.workers = value()?.parse()?,
            "--every" => every = value()?.parse()?,
            "--zipf" => zipf = true,
            "--fill" => fill = true,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    options.state = state;
    let folder = tempfile::tempdir()?;
    if every > 0 {
        options.checkpoint_every = Duration::from_secs(every);
        options.checkpoints = Some(CheckpointOptions {
            url: "checkpoints".into(),
            base: folder.path().into(),
            keep: 1,
            from: Default::default(),
        });
    }
    let (keys, rows) = ((keys * 1e6) as u64, (rows * 1e6) as u64);
    let graph = format!(
        "dataflow: wallets\n\
         sources:\n  transfers: {{ kind: wallets, with: {{ rows: {rows}, keys: {keys}, fill: {fill}, zipf: {zipf} }} }}\n\
         operators:\n  ema: {{ kind: indicators, from: transfers, with: {{ by: [wallet], add: {{ ema: {{ period: 20, column: price }} }} }} }}\n\
         sinks:\n  out: {{ kind: \"null\", from: ema }}\n"
    );
    let done = run(&graph, &options, 0)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim();
    println!(
        "{keys} keys, {rows} rows ({}) in {:.1} s: {:.3} M rows/s, at most {peak} resident, {} checkpoints, load {}",
        if zipf { "zipf" } else { "uniform" },
        done.took.as_secs_f64(),
        done.millions(),
        done.checkpoints,
        load()
    );
    for node in done.nodes.iter().filter(|node| node.spilled.is_some()) {
        println!("  {}: {:?}", node.name, node.spilled);
    }
    Ok(())
}
