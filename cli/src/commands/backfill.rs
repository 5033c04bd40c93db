//! `tidemill backfill`: history into the archive.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidemill_archive::Catalog;
use tidemill_connectors::backfill::driver::{self, Options, Outcome, Report};
use tidemill_connectors::backfill::ranges::{Span, parse_time};
use tidemill_connectors::backfill::{History, Meter};
use tidemill_engine::clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::stop_requests::StopRequests;

mod files;
mod topics;
mod venues;

/// How often the bar changes.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a log line is written where there is no terminal.
const LOG: Duration = Duration::from_secs(10);
/// Gaps and failures that the summary lists.
const LISTED_MAX: usize = 20;

/// Brings history into the archive, range by range
///
/// What the archive has already is left out, so a backfill that was stopped goes on where it was, and a second run
/// changes nothing. Each range (a symbol's day, a file, a stretch of a partition) is committed in one piece. Holes in
/// trade ids and missing bars are reported and kept in the dataset's log. Ctrl-C stops after the current range.
/// Exit code 1: some ranges failed, or it was stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// Binance: klines, trades and aggregate trades over REST, or its public dumps
    #[command(subcommand)]
    Binance(venues::Binance),
    /// Coinbase Exchange trades over REST
    #[command(subcommand)]
    Coinbase(venues::Coinbase),
    /// Kraken trades over REST
    #[command(subcommand)]
    Kraken(venues::Kraken),
    /// CSV files by a mapping of their columns
    Csv(files::Csv),
    /// JSON lines files by a mapping of their fields
    Jsonl(files::Jsonl),
    /// Parquet files, as they are or by a mapping
    Parquet(files::Parquet),
    /// Daily bars as Yahoo Finance gives them: Date,Open,High,Low,Close,Adj Close,Volume
    Yahoo(files::Yahoo),
    /// The JSON messages of a Kafka topic between two times
    Kafka(topics::Kafka),
}

/// Where to, and how.
#[derive(Clone, Debug, clap::Args)]
struct Into {
    /// The archive: a folder or URL (s3://, gs://, az://, file://)
    #[arg(long = "into", value_name = "ARCHIVE_URL")]
    url: String,
    /// The dataset; default: by what is brought in (trades, agg_trades, bars_1m, …)
    #[arg(long)]
    dataset: Option<String>,
    /// Brings in again what the archive has, and replaces it
    #[arg(long)]
    force: bool,
    /// Columns that become folders of a new dataset (date: the day of ts)
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    partition_by: Option<Vec<String>>,
    /// Order of rows in the files of a new dataset
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    sort: Option<Vec<String>>,
    /// Memory for sorting, in megabytes; what is above goes to disk
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    memory_mb: u32,
    /// Shows no progress
    #[arg(long)]
    quiet: bool,
}

/// A span of time on the command line.
#[derive(Clone, Debug, clap::Args)]
struct Times {
    /// From this time on: 2024-01-02, or 2024-01-02T03:04:05Z
    #[arg(long, value_parser = parse_time)]
    from: i64,
    /// Up to this time, exclusive; default: now
    #[arg(long, value_parser = parse_time)]
    to: Option<i64>,
}

impl Times {
    fn span(&self) -> anyhow::Result<Span> {
        let span = Span::new(self.from, self.to.unwrap_or_else(|| Clock::System.now_ns()));
        if span.is_empty() {
            bail!("--to must be later than --from");
        }
        Ok(span)
    }
}

/// A history and what the command says of it.
struct Chosen {
    history: Box<dyn History>,
    into: Into,
    /// The dataset where the user names none.
    dataset: String,
    /// Stops the history's waits, and the run after the current range.
    stop: CancellationToken,
}

/// Exit code 1 where a range failed, or not all was brought in.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = super::run::runtime(1)?;
    let stop = CancellationToken::new();
    let code = runtime.block_on(async {
        let base = std::env::current_dir().context("cannot tell the current folder")?;
        let chosen = choose(args.kind, &base, &stop).await?;
        bring(chosen, &base).await
    });
    // A client that still retries in the background must not hold up the exit.
    runtime.shutdown_background();
    code
}

async fn choose(kind: Kind, base: &Path, stop: &CancellationToken) -> anyhow::Result<Chosen> {
    match kind {
        Kind::Binance(args) => args.chosen(base, stop).await,
        Kind::Coinbase(args) => args.chosen(stop),
        Kind::Kraken(args) => args.chosen(stop),
        Kind::Csv(args) => args.chosen(base, stop).await,
        Kind::Jsonl(args) => args.chosen(base, stop).await,
        Kind::Parquet(args) => args.chosen(base, stop).await,
        Kind::Yahoo(args) => args.chosen(base, stop).await,
        Kind::Kafka(args) => args.chosen(stop),
    }
}

async fn bring(chosen: Chosen, base: &Path) -> anyhow::Result<ExitCode> {
    let Chosen { history, into, dataset, stop } = chosen;
    let name = into.dataset.clone().unwrap_or(dataset);
    let dataset = Catalog::open(&into.url, base)?.dataset(&name)?;
    let mut options = Options {
        force: into.force,
        partition_by: into.partition_by,
        sort: into.sort,
        write: Default::default(),
    };
    options.write.memory_bytes = (into.memory_mb as usize) << 20;
    let signal = tokio::spawn(stop_on_signal(stop.clone()));
    let (meter, clock) = (Arc::<Meter>::default(), Clock::System);
    let shown = (!into.quiet).then(|| show(meter.clone(), clock.clone()));
    let watch = clock.start();
    let quiet = into.quiet;
    let mut each = |outcome: &Outcome| tell(outcome, quiet);
    let report = driver::run(history.as_ref(), &dataset, &options, &meter, &clock, &stop, &mut each).await;
    meter.ended.store(true, Ordering::Relaxed);
    if let Some(shown) = shown {
        let _ = tokio::task::spawn_blocking(move || shown.join()).await;
    }
    signal.abort();
    let report = report.map_err(|e| anyhow!("{e}"))?;
    print!("{}", summary(&name, &report, watch.elapsed()));
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Cancels `stop` at Ctrl-C or SIGTERM; the second time, exits at once, which loses only the current range.
async fn stop_on_signal(stop: CancellationToken) {
    let Ok(mut requests) = StopRequests::watch() else { return };
    requests.next().await;
    tracing::info!("stopping after the current range (once more: stop at once)");
    stop.cancel();
    requests.next().await;
    eprintln!("stopped within a range: it will be brought in again");
    std::process::exit(130);
}

/// A line for a piece that has ended, where something is to be said.
fn tell(outcome: &Outcome, quiet: bool) {
    let Outcome { label, rows, gaps, refused, backwards, .. } = outcome;
    for reason in &refused.reasons {
        tracing::warn!("refused: {reason}");
    }
    if refused.count > refused.reasons.len() as u64 {
        tracing::warn!("{label}: {} rows refused in all", refused.count);
    }
    if *backwards > 0 {
        tracing::warn!("{label}: {backwards} rows come after one that they should precede");
    }
    match &outcome.error {
        Some(error) => tracing::error!("{label}: {error}"),
        None if !quiet => {
            let gaps = if gaps.is_empty() { String::new() } else { format!(", {} gaps", gaps.len()) };
            tracing::info!("{label}: {rows} rows in {:.1?}{gaps}", outcome.took);
        }
        None => {}
    }
}

/// Shows progress until it has ended: a bar on a terminal, log lines elsewhere.
fn show(meter: Arc<Meter>, clock: Clock) -> std::thread::JoinHandle<()> {
    let live = std::io::stderr().is_terminal();
    std::thread::spawn(move || if live { draw(&meter, &clock) } else { log(&meter, &clock) })
}

fn draw(meter: &Meter, clock: &Clock) {
    let lines = MultiProgress::new();
    crate::logging::above(Some(lines.clone()));
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}% eta {eta} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = lines.add(ProgressBar::new(1).with_style(style));
    let watch = clock.start();
    while !meter.ended.load(Ordering::Relaxed) {
        let size = meter.size.load(Ordering::Relaxed);
        let done = meter.done.load(Ordering::Relaxed) + meter.inside.load(Ordering::Relaxed);
        bar.set_length(size.max(1));
        bar.set_position(done.min(size));
        bar.set_message(line(meter, watch.elapsed()));
        std::thread::sleep(REDRAW);
    }
    bar.finish_and_clear();
    crate::logging::above(None);
}

fn log(meter: &Meter, clock: &Clock) {
    let watch = clock.start();
    let mut since = clock.start();
    while !meter.ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        if since.elapsed() >= LOG {
            since = clock.start();
            tracing::info!("{}", line(meter, watch.elapsed()));
        }
    }
}

fn line(meter: &Meter, elapsed: Duration) -> String {
    let rows = meter.rows.load(Ordering::Relaxed);
    format!(
        "{} of {} ranges, {rows} rows, {} rows/s: {}",
        meter.pieces_done.load(Ordering::Relaxed),
        meter.pieces.load(Ordering::Relaxed),
        rate(rows, elapsed),
        meter.label()
    )
}

fn rate(rows: u64, took: Duration) -> u64 {
    (rows as f64 / took.as_secs_f64().max(1e-3)) as u64
}

/// What a backfill has done.
fn summary(dataset: &str, report: &Report, took: Duration) -> String {
    let good = || report.outcomes.iter().filter(|o| o.error.is_none());
    let rows: u64 = good().map(|o| o.rows).sum();
    let gaps: Vec<_> = good().flat_map(|o| &o.gaps).collect();
    let refused: u64 = report.outcomes.iter().map(|o| o.refused.count).sum();
    let failed: Vec<_> = report.outcomes.iter().filter(|o| o.error.is_some()).collect();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["dataset", "ranges", "rows", "rows/s", "skipped", "gaps", "refused", "failed", "left"]);
    let numbers = [
        good().count() as u64,
        rows,
        rate(rows, took),
        report.skipped,
        gaps.len() as u64,
        refused,
        failed.len() as u64,
        report.left,
    ];
    table.add_row([dataset.to_owned()].into_iter().chain(numbers.iter().map(u64::to_string)));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = format!("{table}\n");
    let mut list = |title: &str, lines: Vec<String>| {
        if lines.is_empty() {
            return;
        }
        out += &format!("\n{title}\n");
        lines.iter().take(LISTED_MAX).for_each(|line| out += &format!("  {line}\n"));
        if lines.len() > LISTED_MAX {
            out += &format!("  and {} more: tidemill archive gaps\n", lines.len() - LISTED_MAX);
        }
    };
    list("gaps", gaps.iter().map(|g| format!("{}: {}, {}", g.key, g.reason, g.span)).collect());
    let told = |o: &&Outcome| format!("{}: {}", o.label, o.error.as_deref().unwrap_or_default());
    list("failed", failed.iter().map(told).collect());
    if let Some(reason) = &report.stopped {
        out += &format!("\nended early, {} ranges are left: {reason}\n", report.left);
    }
    out
}
