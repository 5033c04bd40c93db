//! What the benchmarks share: whole graphs, planned from YAML and run in this process, timed.
//!
//! Numbers and the commands that make them stand in docs/benchmarks.md. Timings never decide a test.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemill_engine::clock::Clock;
use tidemill_engine::metrics::{Metrics, NodeReading};
use tidemill_engine::plan;
use tidemill_engine::registry::Registry;
use tidemill_engine::runtime::{self, RunOptions};
use tidemill_engine::spec::Spec;
use tokio_util::sync::CancellationToken;

pub mod looping;
pub mod weeks;

/// `with:` of the five indicators that the comparisons use; the deviation and the mean are those of
/// the Bollinger bands.
pub const FIVE: &str = "add: { macd: { column: price }, rsi: { period: 14, column: price }, \
     mean: { kind: sma, period: 20, column: price }, deviation: { kind: stddev, period: 20, column: price }, \
     vwap: { columns: { close: price, volume: size } } }";

/// Every kind, and the benchmarks' own.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    tidemill_connectors::register(&mut registry);
    tidemill_operators::register(&mut registry);
    tidemill_sinks::register(&mut registry);
    registry.source::<looping::Looping>();
    registry
}

/// One finished run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Rows that the sources gave.
    pub rows: u64,
    /// From the start of the job to its end.
    pub took: Duration,
    /// Longest time in which the last sink took no row, from row [`run`]'s `settled` to the last.
    pub gap: Duration,
    /// Checkpoints that were committed.
    pub checkpoints: u64,
    /// Counters at the end.
    pub nodes: Vec<NodeReading>,
}

impl Run {
    /// Rows a second, in millions.
    pub fn millions(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64() / 1e6
    }
}

/// Plans a graph and runs it to its end; gaps count once the sink has taken `settled` rows.
pub fn run(graph: &str, options: &RunOptions, settled: u64) -> Result<Run, String> {
    let io = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .map_err(|e| e.to_string())?;
    let spec = Spec::parse(graph, "bench.yaml", &[], &|_| None).map_err(|e| e.to_string())?;
    let planned = io.block_on(plan::plan(&spec, &registry(), PathBuf::from("."), Clock::System));
    let planned = Arc::new(planned.map_err(|problems| spec.errors(problems).to_string())?);
    let metrics = Metrics::new(&planned);
    let sources: Vec<usize> = planned.nodes.iter().filter(|n| n.inputs.is_empty()).map(|n| n.id).collect();
    let sink = planned.nodes.len() - 1;
    let done = Arc::new(AtomicBool::new(false));
    let watch = std::thread::spawn({
        let (metrics, done) = (metrics.clone(), done.clone());
        move || longest_gap(&metrics, sink, settled, &done)
    });
    let clock = Clock::System.start();
    let outcome = runtime::run(planned, options, metrics.clone(), io.handle(), CancellationToken::new());
    let took = clock.elapsed();
    done.store(true, Ordering::Release);
    let gap = watch.join().unwrap_or_default();
    outcome.map_err(|e| e.to_string())?;
    let nodes = metrics.read();
    let rows = sources.iter().map(|id| nodes[*id].rows_out).sum();
    Ok(Run { rows, took, gap, checkpoints: metrics.checkpoints(), nodes })
}

/// Looks every half millisecond whether a node has taken rows since.
fn longest_gap(metrics: &Metrics, node: usize, settled: u64, done: &AtomicBool) -> Duration {
    let taken = || metrics.node(node).rows_in.load(Ordering::Relaxed);
    let mut last = 0;
    let mut since = Clock::System.start();
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_micros(500));
        let now = taken();
        if now != last {
            if last > settled {
                longest = longest.max(since.elapsed());
            }
            (last, since) = (now, Clock::System.start());
        }
    }
    longest
}

/// Runs a graph several times; the best first.
pub fn best_of(times: usize, graph: &str, options: &RunOptions) -> Result<Vec<Run>, String> {
    let mut runs = Vec::new();
    for _ in 0..times.max(1) {
        runs.push(run(graph, options, 0)?);
    }
    runs.sort_by(|a, b| b.millions().total_cmp(&a.millions()));
    Ok(runs)
}

/// One line of a table: the best and the median, beside the target.
pub fn line(name: &str, target: Option<f64>, runs: &[Run]) -> String {
    let mut text = String::new();
    let (best, median) = (runs[0].millions(), runs[runs.len() / 2].millions());
    let _ = write!(text, "{name:<58} best {best:>7.2}  median {median:>7.2} M rows/s");
    if let Some(target) = target {
        let _ = write!(text, "  target {target:>5.1}  {}", if best >= target { "met" } else { "MISSED" });
    }
    let _ = write!(text, "  ({} rows, load {})", runs[0].rows, load());
    text
}

/// The machine's load over the last minute: other work makes numbers worse than they are.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// The root of the repository.
pub fn root() -> PathBuf {
    // Asked when the bench runs: another checkout may have compiled it.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    package.parent().map(Path::to_owned).unwrap_or_default()
}

/// The folder of real market data, if it is here.
pub fn data() -> Option<PathBuf> {
    let folder =
        std::env::var_os("TIDEMILL_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    folder.is_dir().then(|| folder.canonicalize().ok()).flatten()
}
