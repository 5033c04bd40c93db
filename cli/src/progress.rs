//! What a run shows while it runs: a live line per node on a terminal, log lines elsewhere, a
//! summary at the end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::metrics::{Metrics, NodeReading};

use crate::commands::run::ShowProgress;

/// How often live lines change.
const REDRAW: Duration = Duration::from_millis(250);
/// How often a log line is written where there is no terminal.
const LOG: Duration = Duration::from_secs(10);

/// Watches a run until it is finished.
pub struct Progress {
    job: String,
    metrics: Metrics,
    watch: Stopwatch,
    show: ShowProgress,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to watch.
    pub fn start(job: &str, metrics: Metrics, clock: Clock, show: ShowProgress) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let live = show == ShowProgress::Auto && std::io::stderr().is_terminal();
        let thread = (show != ShowProgress::Off).then(|| {
            let (metrics, clock, stop) = (metrics.clone(), clock.clone(), stop.clone());
            let job = job.to_owned();
            std::thread::spawn(move || {
                if live { draw(&metrics, &clock, &stop) } else { log(&job, &metrics, &clock, &stop) }
            })
        });
        Self { job: job.to_owned(), metrics, watch: clock.start(), show, stop, thread }
    }

    /// Ends watching and prints the summary to standard error.
    pub fn finish(mut self, well: bool) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if self.show != ShowProgress::Off || !well {
            eprint!("{}", summary(&self.job, &self.metrics, self.watch.elapsed(), well));
        }
    }
}

fn draw(metrics: &Metrics, clock: &Clock, stop: &AtomicBool) {
    let lines = MultiProgress::new();
    crate::logging::above(Some(lines.clone()));
    let style = ProgressStyle::with_template("{prefix:<20} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bars: Vec<ProgressBar> = metrics
        .read()
        .into_iter()
        .map(|node| lines.add(ProgressBar::no_length().with_style(style.clone()).with_prefix(node.name)))
        .collect();
    let mut rates = Rates::new(clock);
    while !stop.load(Ordering::Relaxed) {
        for ((node, rate), bar) in rates.read(metrics).into_iter().zip(&bars) {
            bar.set_message(line(&node, rate, clock));
            bar.tick();
        }
        std::thread::sleep(REDRAW);
    }
    bars.iter().for_each(ProgressBar::finish_and_clear);
    crate::logging::above(None);
}

fn log(job: &str, metrics: &Metrics, clock: &Clock, stop: &AtomicBool) {
    let mut rates = Rates::new(clock);
    let mut since = clock.start();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        if since.elapsed() < LOG {
            continue;
        }
        since = clock.start();
        for (node, rate) in rates.read(metrics) {
            tracing::info!(job, node = node.name, "{}", line(&node, rate, clock));
        }
    }
}

/// Rows per second between two readings.
struct Rates {
    watch: Stopwatch,
    clock: Clock,
    before: Vec<u64>,
}

impl Rates {
    fn new(clock: &Clock) -> Self {
        Self { watch: clock.start(), clock: clock.clone(), before: Vec::new() }
    }

    fn read(&mut self, metrics: &Metrics) -> Vec<(NodeReading, f64)> {
        let now = metrics.read();
        let seconds = self.watch.elapsed().as_secs_f64().max(1e-3);
        self.watch = self.clock.start();
        let rates: Vec<f64> = now
            .iter()
            .enumerate()
            .map(|(i, node)| (node.rows_in - self.before.get(i).copied().unwrap_or(0)) as f64 / seconds)
            .collect();
        self.before = now.iter().map(|n| n.rows_in).collect();
        now.into_iter().zip(rates).collect()
    }
}

fn line(node: &NodeReading, rate: f64, clock: &Clock) -> String {
    let mut line = format!("{:>9} rows/s {:>12} rows", short(rate), node.rows_in);
    if let Some(ns) = node.watermark_ns {
        line += &format!("  watermark {}  lag {}", time(ns), lag(clock.now_ns() - ns));
    }
    for (what, n) in [
        ("held", node.held),
        ("late", node.late),
        ("dead letters", node.dead_letters),
        ("null keys", node.null_keys),
    ] {
        if n > 0 {
            line += &format!("  {what} {n}");
        }
    }
    line
}

fn time(ns: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(ns).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// How far event time is behind the clock; over a day it is history, not lag.
fn lag(ns: i64) -> String {
    match ns {
        ns if ns > 86_400_000_000_000 => "-".into(),
        ns if ns >= 1_000_000_000 => format!("{:.1}s", ns as f64 / 1e9),
        ns => format!("{}ms", ns.max(0) / 1_000_000),
    }
}

fn short(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.0}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// The closing table of a run.
pub fn summary(job: &str, metrics: &Metrics, took: Duration, well: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["node", "kind", "rows in", "rows out", "late", "dead letters", "null keys", "keys"]);
    for node in metrics.read() {
        let numbers =
            [node.rows_in, node.rows_out, node.late, node.dead_letters, node.null_keys, node.state_keys];
        let row = [node.name, node.kind].into_iter().chain(numbers.iter().map(|n| n.to_string()));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let read: u64 = metrics.read().iter().filter(|n| n.rows_in > 0).map(|n| n.rows_in).next().unwrap_or(0);
    let seconds = took.as_secs_f64();
    let mut counts = String::new();
    for node in metrics.read().iter().filter(|node| !node.counts.is_empty()) {
        let parts: Vec<String> =
            node.counts.iter().map(|(name, n)| format!("{} {n}", name.replace('_', " "))).collect();
        counts += &format!("{}: {}\n", node.name, parts.join(", "));
    }
    format!(
        "\n{job} {} after {seconds:.2}s: {} rows/s read first, {} checkpoints, {} restarts\n{table}\n{counts}",
        if well { "ended" } else { "failed" },
        short(read as f64 / seconds.max(1e-9)),
        metrics.checkpoints(),
        metrics.restarts(),
    )
}
