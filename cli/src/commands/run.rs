//! `tidemill run`: runs a graph until its sources end, it fails for good, or it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tidemill_engine::checkpoint::StartFrom;
use tidemill_engine::clock::Clock;
use tidemill_engine::duration::Span;
use tidemill_engine::metrics::Metrics;
use tidemill_engine::plan::{Plan, StateChanges};
use tidemill_engine::runtime::{BatchRows, CheckpointOptions, RunOptions};
use tidemill_engine::spec::Spec;
use tokio_util::sync::CancellationToken;

use super::{GraphArgs, load_or_explain};
use crate::cluster;
use crate::progress::Progress;
use crate::stop_requests::StopRequests;

/// Exit code where the graph or the command line is wrong, as clap's.
const WRONG_USAGE: u8 = 2;

/// Runs a graph
///
/// Exit code 0 when all sources have ended or the job was stopped (Ctrl-C, SIGTERM: a last
/// checkpoint is taken first), 1 when it failed for good, 2 when the graph or the command line is wrong, 75 when it failed
/// in a way that may pass, 76 when a newer run has taken over. Run again, it goes on where it stood.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub graph: GraphArgs,
    #[command(flatten)]
    pub how: HowArgs,
    /// Joins the processes of a job (set by the process that starts them)
    #[arg(long, hide = true)]
    pub member: bool,
}

/// How a graph is run. None of it changes the rows that come out.
#[derive(Clone, Debug, clap::Args)]
pub struct HowArgs {
    /// Worker threads of each process
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Processes on this machine
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub processes: u16,
    /// Which checkpoint to begin from: latest, none, an id that `tidemill checkpoints` lists, or savepoint:NAME
    #[arg(long, default_value = "latest")]
    pub from: StartFrom,
    /// Operators with state that the checkpoint does not know begin without it
    #[arg(long)]
    pub allow_new_state: bool,
    /// Leaves the state of operators and the positions of sources behind that the graph has no more
    #[arg(long)]
    pub allow_gone_state: bool,
    /// Where checkpoints are kept, a path or URL, or `off`; default: the graph's, else .tidemill beside it
    #[arg(long, value_name = "URL")]
    pub checkpoints: Option<String>,
    /// Time between checkpoints; default: the graph's, else 10s
    #[arg(long, value_name = "SPAN")]
    pub checkpoint_every: Option<Span>,
    /// Rows a source puts in a batch
    #[arg(long, default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub chunk_rows: u32,
    /// Rows of a source partition that may be in flight
    #[arg(long, default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight_rows: u32,
    /// Memory that rows of a source may take on each worker while they are in flight
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub in_flight_bytes: usize,
    /// Cuts batches to random sizes up to ROWS, to show that they do not matter
    #[arg(long, value_name = "ROWS[:SEED]", hide = true, value_parser = random_batches)]
    pub random_batches: Option<BatchRows>,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ShowProgress::Auto)]
    pub progress: ShowProgress,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ShowProgress {
    /// Live lines on a terminal, log lines elsewhere.
    Auto,
    /// A log line every few seconds.
    Log,
    /// Nothing, unless the job fails.
    Off,
}

fn random_batches(text: &str) -> Result<BatchRows, String> {
    let (max, seed) = text.split_once(':').unwrap_or((text, "1"));
    let bad = |_| format!("`{text}` is not ROWS or ROWS:SEED");
    Ok(BatchRows::Random { max: max.parse().map_err(bad)?, seed: seed.parse().map_err(bad)? })
}

/// A number of bytes above 0: 65536, 64KiB, 256MiB, 2GiB.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => 64,
    };
    let bytes = number.parse::<usize>().ok().and_then(|n| n.checked_mul(1usize.checked_shl(shift)?));
    bytes.filter(|n| *n > 0).ok_or_else(|| format!("`{text}` is not a size above 0: write 256MiB or 2GiB"))
}

impl HowArgs {
    /// Where a graph's checkpoints are kept, and the folder that is relative to; `None`: nowhere.
    pub fn place(chosen: Option<&str>, spec: &Spec) -> Option<(String, PathBuf)> {
        match (chosen, &spec.checkpoints.url) {
            (Some("off"), _) => None,
            // What the command line names is relative to where the command is run.
            (Some(url), _) => Some((url.to_owned(), PathBuf::from("."))),
            (None, Some(url)) => Some((url.clone(), spec.base.clone())),
            (None, None) => Some((".tidemill".to_owned(), spec.base.clone())),
        }
    }

    /// Changes of state that are allowed.
    pub fn changes(&self) -> StateChanges {
        StateChanges { new: self.allow_new_state, gone: self.allow_gone_state }
    }

    /// The engine's options for a graph.
    pub fn options(&self, spec: &Spec) -> RunOptions {
        let url = Self::place(self.checkpoints.as_deref(), spec);
        RunOptions {
            workers: self.workers.into(),
            checkpoints: url.map(|(url, base)| CheckpointOptions {
                url,
                base,
                keep: spec.checkpoints.keep,
                from: self.from.clone(),
                changes: self.changes(),
            }),
            checkpoint_every: self.checkpoint_every.unwrap_or(spec.checkpoints.every).std(),
            in_flight_rows: self.in_flight_rows as usize,
            in_flight_bytes: self.in_flight_bytes,
            chunk_rows: self.chunk_rows as usize,
            batch_rows: self.random_batches.unwrap_or(BatchRows::AsRead),
            state: spec.state.at(&spec.base),
            clock: Clock::System,
            ..RunOptions::default()
        }
    }
}

/// Exit code 2 where the graph has a problem; a failed job's is its failure's.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let Some((spec, plan)) = load_or_explain(&args.graph.graph, &args.graph.vars, &registry)? else {
        return Ok(ExitCode::from(WRONG_USAGE));
    };
    let mut options = args.how.options(&spec);
    if args.member {
        return cluster::member(plan, options, &args.how);
    }
    for kept in options.checkpoints.iter().flat_map(|checkpoints| plan.kept_here(&checkpoints.url)) {
        tracing::warn!("{kept}");
    }
    if args.how.processes > 1 {
        return cluster::launch(&args, plan, options);
    }
    options.cluster = None;
    let runtime = runtime(options.workers)?;
    let stop = CancellationToken::new();
    runtime.spawn(stop_on_signal(stop.clone()));
    let outcome = run_plan(plan, &options, &runtime, stop, args.how.progress);
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// Runs a plan on this thread with its progress shown; prints the summary.
pub fn run_plan(
    plan: Plan,
    options: &RunOptions,
    runtime: &tokio::runtime::Runtime,
    stop: CancellationToken,
    show: ShowProgress,
) -> anyhow::Result<ExitCode> {
    let plan = Arc::new(plan);
    let metrics = Metrics::new(&plan);
    let progress = Progress::start(&plan.job, metrics.clone(), options.clock.clone(), show);
    let outcome = tidemill_engine::runtime::run(plan.clone(), options, metrics, runtime.handle(), stop);
    progress.finish(outcome.is_ok());
    outcome.with_context(|| format!("job `{}` failed", plan.job))?;
    Ok(ExitCode::SUCCESS)
}

/// Threads that connectors have at least: one that decodes must not keep the others from their connections.
const IO_THREADS_MIN: usize = 2;

/// The runtime that connectors of `workers` workers run on. Partitions are decoded and rows encoded on it, so it has as many threads as
/// there are workers, up to the number of cores.
pub fn runtime(workers: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(IO_THREADS_MIN, Into::into);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers.min(cores).max(IO_THREADS_MIN))
        .thread_name("tidemill-io")
        .build()
        .context("cannot start the async runtime")
}

/// Cancels `stop` at Ctrl-C or SIGTERM; the second time, exits at once.
pub async fn stop_on_signal(stop: CancellationToken) {
    let Ok(mut requests) = StopRequests::watch() else { return };
    requests.next().await;
    tracing::info!("stopping: a last checkpoint is taken (once more: stop at once)");
    stop.cancel();
    requests.next().await;
    eprintln!("stopped without a last checkpoint");
    std::process::exit(130);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        let read = |text| size(text).ok();
        assert_eq!(
            (read("65536"), read("64KiB"), read("256MiB"), read("2 GiB")),
            (Some(65536), Some(65536), Some(1 << 28), Some(2 << 30))
        );
        for bad in ["", "0", "MiB", "-1", "1.5GiB", "10 apples", "99999999999999GiB"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn threads_grow_with_workers_up_to_the_cores() {
        let threads = |workers| runtime(workers).unwrap().metrics().num_workers();
        let cores: usize = std::thread::available_parallelism().unwrap().into();
        assert_eq!((threads(1), threads(2), threads(64)), (2, 2, cores.clamp(2, 64)));
    }
}
