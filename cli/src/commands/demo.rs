//! `tidemill demo`: the main job on embedded defaults, with signals appearing as it runs.
//!
//! A simulated market feeds the embedded broker's `trades` topic; the shipped momentum graph reads
//! it and writes `signals`, which this command reads as any consumer would. The graph also archives its
//! bars, and the demo ends with a question to that archive, in SQL.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;
use tidemill_connectors::kafka::embedded;
use tidemill_engine::clock::Clock;
use tidemill_engine::metrics::Metrics;
use tidemill_engine::plan::Plan;
use tidemill_engine::runtime::{CheckpointOptions, RunOptions, run};
use tidemill_engine::spec::Spec;
use tidemill_sql::{Engine, EngineConfig};
use tokio_util::sync::CancellationToken;

use super::run::{runtime, stop_on_signal};
use super::sql::table;

const MARKET: &str = include_str!("../../../dataflows/market.yaml");
const MOMENTUM: &str = include_str!("../../../dataflows/momentum.yaml");

/// The question at the end.
const QUESTION: &str = "\
SELECT symbol, count(*) AS bars, round(vwap(close, volume), 4) AS vwap,
       round(100 * (last(close, ts) / first(open, ts) - 1), 2) AS move_pct,
       round(100 * max_drawdown(close, ts), 2) AS drawdown_pct
FROM bars
GROUP BY symbol
ORDER BY move_pct DESC";

/// Shows the momentum graph at work on a simulated market, with no server
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many times faster than real time the market goes
    #[arg(long, default_value_t = 720)]
    speed: u32,
    /// How much market time is shown
    #[arg(long, default_value = "4h")]
    duration: String,
}

/// Exit code 1 where something fails.
pub fn run_demo(args: Args) -> anyhow::Result<ExitCode> {
    let clock = Clock::System;
    let watch = clock.start();
    let folder = std::env::temp_dir().join(format!("tidemill-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("cannot make a folder for the demo")?;
    let runtime = runtime(1)?;
    let address = embedded::embedded_address()?;
    embedded::create_topic("trades", 1)?;
    embedded::create_topic("signals", 1)?;
    let archive = folder.join("archive").display().to_string();
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let market = plan(
        MARKET,
        "market.yaml",
        &[
            set("brokers", "embedded"),
            set("pace", &format!("{}x", args.speed)),
            set("duration", &args.duration),
        ],
        &runtime,
    )?;
    let momentum =
        plan(MOMENTUM, "momentum.yaml", &[set("brokers", "embedded"), set("archive", &archive)], &runtime)?;

    println!(
        "a simulated market of four symbols feeds kafka topic `trades` at {} times real time;",
        args.speed
    );
    println!("dataflows/momentum.yaml turns trades into one-minute bars, MACD and RSI, and signals.");
    println!("the broker runs in this process. read it from another terminal while it does:");
    println!("  kcat -C -b {address} -t signals -o beginning\n");
    println!("{:<20} {:<8} {:<5} {:>12} {:>7} {:>10}", "time", "symbol", "side", "close", "rsi", "macd_hist");

    let stop = CancellationToken::new();
    runtime.spawn(stop_on_signal(stop.clone()));
    let (market_stop, momentum_stop, reader_stop) =
        (stop.child_token(), stop.child_token(), CancellationToken::new());
    let reader = std::thread::spawn({
        let (address, stop) = (address.clone(), reader_stop.clone());
        move || show_signals(&address, &stop)
    });
    let handle = runtime.handle().clone();
    let momentum = Arc::new(momentum);
    let metrics = Metrics::new(&momentum);
    let job = std::thread::spawn({
        let (plan, metrics, stop, handle) =
            (momentum.clone(), metrics.clone(), momentum_stop.clone(), handle.clone());
        let options = RunOptions {
            checkpoints: Some(CheckpointOptions {
                url: "checkpoints".into(),
                base: folder.clone(),
                keep: 3,
                from: Default::default(),
                changes: Default::default(),
            }),
            checkpoint_every: Duration::from_secs(5),
            ..RunOptions::default()
        };
        move || run(plan, &options, metrics, &handle, stop)
    });
    let market = Arc::new(market);
    let market_metrics = Metrics::new(&market);
    let options = RunOptions { checkpoints: None, ..RunOptions::default() };
    run(market, &options, market_metrics.clone(), &handle, market_stop).context("the market failed")?;
    // The job reads what the market has sent, then stops with a last checkpoint.
    let sent = market_metrics.read().first().map_or(0, |n| n.rows_out);
    while !job.is_finished() && !stop.is_cancelled() && metrics.read().first().map_or(0, |n| n.rows_in) < sent
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    momentum_stop.cancel();
    job.join().map_err(|_| anyhow::anyhow!("the job panicked"))?.context("the momentum job failed")?;
    std::thread::sleep(Duration::from_millis(300));
    reader_stop.cancel();
    let signals = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    print!("{}", crate::progress::summary("momentum", &metrics, watch.elapsed(), true));
    println!("{signals} signals read from topic `signals`; bars are archived as parquet in {archive}\n");
    ask(&archive, &runtime)?;
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(ExitCode::SUCCESS)
}

/// Asks the archive, and prints question and answer.
fn ask(archive: &str, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    println!("tidemill sql --archive {archive} answers questions about them:\n\n{QUESTION};\n");
    let config = EngineConfig { archive: Some(archive.to_owned()), ..EngineConfig::default() };
    let watch = Clock::System.start();
    let (schema, batches) = runtime.block_on(async {
        let rows = Engine::open(config).await?.query(QUESTION).await?;
        anyhow::Ok((rows.schema(), rows.collect().await?))
    })?;
    println!("{}\n({})", table::render(&schema, &batches)?, table::time(watch.elapsed()));
    Ok(())
}

fn plan(
    text: &str,
    name: &str,
    sets: &[(String, String)],
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<Plan> {
    let spec =
        Spec::parse(text, name, sets, &|_| None).map_err(|e| anyhow::anyhow!("{}", e.render(false)))?;
    let registry = crate::registry::registry();
    runtime
        .block_on(tidemill_engine::plan::plan(&spec, &registry, std::env::temp_dir(), Clock::System))
        .map_err(|problems| anyhow::anyhow!("{}", spec.errors(problems).render(false)))
}

/// Prints signals as they come; how many there were.
fn show_signals(address: &str, stop: &CancellationToken) -> anyhow::Result<usize> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "tidemill-demo")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset("signals", 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let mut count = 0;
    while !stop.is_cancelled() {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let Ok(row) = serde_json::from_slice::<Value>(message.payload().unwrap_or_default()) else {
            continue;
        };
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        count += 1;
        println!(
            "{:<20} {:<8} {:<5} {:>12} {:>7.1} {:>10}",
            text("ts").chars().take(19).collect::<String>(),
            text("symbol"),
            text("side"),
            digits(number("close"), 6),
            number("rsi"),
            digits(number("macd_hist"), 2),
        );
    }
    Ok(count)
}

/// A number with this many significant digits, and at least two decimals: 60123.00, 1.08314.
fn digits(value: f64, significant: i32) -> String {
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = (significant - 1 - magnitude).clamp(2, 9) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn prices_of_every_size_show_what_moves() {
        let shown = [60123.0, 470.5, 1.083142, -0.000012345, 0.0].map(|v| digits(v, 6));
        assert_eq!(shown, ["60123.00", "470.500", "1.08314", "-0.000012345", "0.00000"]);
        assert_eq!(digits(f64::NAN, 2), "NaN");
    }
}
