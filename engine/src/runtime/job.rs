//! Runs a planned graph: start, workers, failures and restarts, end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use timely::{CommunicationConfig, WorkerConfig};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::manifest::{Manifest, Reason};
use crate::checkpoint::{CheckpointError, CheckpointStore, StartFrom};
use crate::clock::Clock;
use crate::connector::ConnectorError;
use crate::metrics::Metrics;
use crate::plan::{Edge, Plan, Port};
use crate::runtime::control::{Shared, Start};
use crate::runtime::coordinator::rfc3339;
use crate::runtime::worker;

/// How to run a graph. None of it changes the rows that come out.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Worker threads in this process.
    pub workers: usize,
    /// This process among several, if there are several.
    pub cluster: Option<Cluster>,
    /// Where checkpoints lie; none are written where this is `None`.
    pub checkpoints: Option<CheckpointOptions>,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// Rows of a source partition that may be on their way to the sinks.
    pub in_flight_rows: usize,
    /// Rows a source should put in a chunk.
    pub chunk_rows: usize,
    /// How batches are cut.
    pub batch_rows: BatchRows,
    /// Restarts after transient failures, in a row.
    pub restarts_max: u32,
    /// Time.
    pub clock: Clock,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            cluster: None,
            checkpoints: None,
            checkpoint_every: Duration::from_secs(10),
            in_flight_rows: 256 * 1024,
            chunk_rows: 8192,
            batch_rows: BatchRows::AsRead,
            restarts_max: 10,
            clock: Clock::System,
        }
    }
}

/// Where checkpoints lie and which one to begin from.
#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// Object storage URL or path.
    pub url: String,
    /// Relative paths start here.
    pub base: PathBuf,
    /// How many are kept.
    pub keep: usize,
    /// Which one to begin from.
    pub from: StartFrom,
}

/// One process of several.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// This process.
    pub process: usize,
    /// `host:port` of every process.
    pub addresses: Vec<String>,
    /// How the run begins, as whoever started the processes has found out.
    pub start: Start,
}

/// How batches are cut: for tests that hold the law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchRows {
    /// As sources read them.
    AsRead,
    /// Of one size.
    Fixed(usize),
    /// Of random sizes from 1 to `max`.
    Random {
        /// Largest size.
        max: usize,
        /// What the sizes depend on.
        seed: u64,
    },
}

impl BatchRows {
    /// A seed for one source instance.
    pub fn seed(self, node: u64, worker: u64) -> u64 {
        match self {
            Self::Random { seed, .. } => seed ^ (node << 32) ^ (worker << 48),
            _ => 0,
        }
    }
}

/// Why a run ended before its time.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JobError {
    /// A node's invariant broke.
    #[error("`{node}` stopped: {reason}")]
    Broken {
        /// The node.
        node: String,
        /// What broke.
        reason: String,
    },
    /// Input that could not become a row, with `on_error: fail`.
    #[error(
        "`{node}`, partition {partition}, position {position}: {reason} (set on_error to skip or dead_letter to go on without such input)"
    )]
    BadInput {
        /// The source.
        node: String,
        /// Its partition.
        partition: u32,
        /// The place.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A connection failed in a way that may pass.
    #[error("`{node}`: {reason}")]
    Transient {
        /// The node.
        node: String,
        /// What failed.
        reason: String,
    },
    /// A connection failed for good.
    #[error("`{node}`: {reason}")]
    Fatal {
        /// The node.
        node: String,
        /// What failed.
        reason: String,
    },
    /// A newer run has taken over.
    #[error("{0}")]
    Fenced(String),
    /// Checkpoints cannot be read or written.
    #[error("{0}")]
    Checkpoint(String),
    /// The run could not be set up.
    #[error("{0}")]
    Setup(String),
    /// A worker panicked: a bug.
    #[error("a worker panicked: {0}; this is a bug, please report it")]
    Panic(String),
}

impl JobError {
    /// A failure that may pass.
    pub fn transient(node: &str, reason: String) -> Self {
        Self::Transient { node: node.to_owned(), reason }
    }

    /// A connector's error at its node.
    pub fn connector(node: &str, error: ConnectorError) -> Self {
        let node = node.to_owned();
        match error {
            ConnectorError::Transient(reason) => Self::Transient { node, reason },
            ConnectorError::Fatal(reason) => Self::Fatal { node, reason },
            ConnectorError::Fenced(reason) => Self::Fenced(format!("`{node}`: {reason}")),
        }
    }

    /// Whether a restart may help.
    pub fn may_pass(&self) -> bool {
        // What an operator refuses it refuses again: its output depends on its rows alone.
        matches!(self, Self::Transient { .. } | Self::Panic(_))
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The failure, if it failed.
    pub error: Option<JobError>,
}

impl Plan {
    /// Schema of the rows on an edge.
    pub fn edge_schema(&self, edge: &Edge) -> SchemaRef {
        match edge.port {
            Port::Rows => self.nodes[edge.from].schema.clone(),
            Port::DeadLetters => crate::dead_letter::schema(),
        }
    }
}

/// Finds where a run begins and takes over the job: from then on older runs are fenced.
pub async fn begin(
    plan: &Plan,
    store: Option<&CheckpointStore>,
    from: StartFrom,
    clock: &Clock,
) -> Result<Start, JobError> {
    let Some(store) = store else {
        let now = (clock.now_ns() / 1_000_000).max(1) as u64;
        return Ok(Start {
            generation: now,
            run: now,
            fresh: true,
            resumed: false,
            checkpoint: 0,
            epoch: 1,
            manifest: None,
        });
    };
    let storage = |e: CheckpointError| JobError::Checkpoint(e.to_string());
    loop {
        let last_id = store.ids().await.map_err(storage)?.last().copied();
        let last = match last_id {
            Some(id) => store.manifest(id).await.map_err(storage)?,
            None => None,
        };
        let chosen: Option<Manifest> = match from {
            StartFrom::None => None,
            StartFrom::Latest => match &last {
                Some(m) if m.reason == Reason::Closed => {
                    tracing::info!(checkpoint = m.id, "the last run had ended: this one begins from nothing");
                    None
                }
                other => other.clone(),
            },
            StartFrom::Id(id) => match store.manifest(id).await.map_err(storage)? {
                Some(m) => Some(m),
                None => return Err(storage(CheckpointError::Missing { job: plan.job.clone(), id })),
            },
        };
        if let Some(manifest) = &chosen {
            crate::plan::compatible(&manifest.graph, plan).map_err(|problems| {
                let list: Vec<String> = problems.iter().map(|p| format!("  {p}")).collect();
                JobError::Setup(format!(
                    "the graph has changed since checkpoint {} in a way its state cannot follow:\n{}\nrun with --from none to begin from nothing",
                    manifest.id,
                    list.join("\n")
                ))
            })?;
        }
        let id = last_id.unwrap_or(0) + 1;
        // By the clock, so that it is larger even where the old checkpoints have been lost.
        let now_ms = (clock.now_ns() / 1_000_000).max(0) as u64;
        let generation = now_ms.max(last.as_ref().map_or(0, |m| m.generation) + 1);
        // Sources are in every checkpoint: where there are none, this run has committed nothing yet.
        let fresh = chosen.as_ref().is_none_or(|m| m.sources.is_empty());
        let resumed = chosen.is_some();
        let run = chosen.as_ref().map_or(generation, |m| m.run);
        let mut mark = chosen.clone().unwrap_or_else(|| Manifest {
            id,
            content: last_id.unwrap_or(0),
            job: plan.job.clone(),
            generation,
            run,
            committed_at: String::new(),
            reason: Reason::Start,
            workers: 0,
            graph: serde_json::Value::Null,
            sources: Default::default(),
            state: Default::default(),
            sinks: Default::default(),
        });
        let checkpoint = mark.content;
        mark.id = id;
        mark.generation = generation;
        mark.run = run;
        mark.reason = Reason::Start;
        mark.committed_at = rfc3339(clock.now_ns());
        mark.graph = crate::plan::describe(plan);
        match store.commit(&mark).await {
            Ok(()) => {
                return Ok(Start {
                    generation,
                    run,
                    fresh,
                    resumed,
                    checkpoint,
                    epoch: id + 1,
                    manifest: Some(mark),
                });
            }
            // An older run committed in between: look again.
            Err(CheckpointError::Fenced { .. }) => continue,
            Err(e) => return Err(storage(e)),
        }
    }
}

/// Notes that the run of `generation` has ended and has closed its sinks, if that is how it came to
/// its end.
pub async fn close(store: &CheckpointStore, generation: u64, clock: &Clock) -> Result<(), JobError> {
    let storage = |e: CheckpointError| JobError::Checkpoint(e.to_string());
    let Some(id) = store.ids().await.map_err(storage)?.last().copied() else { return Ok(()) };
    match store.manifest(id).await.map_err(storage)? {
        Some(m) if m.generation == generation && m.reason == Reason::End => {
            crate::fault::point("ended");
            let committed_at = rfc3339(clock.now_ns());
            let mark = Manifest { id: id + 1, reason: Reason::Closed, committed_at, ..m };
            store.commit(&mark).await.map_err(storage)
        }
        // It was told to stop, or a newer run has taken over.
        _ => Ok(()),
    }
}

/// Runs a graph until it ends, fails for good, or `stop` is cancelled (it then takes a last
/// checkpoint). Blocks; connectors run on `tokio`.
pub fn run(
    plan: Arc<Plan>,
    options: &RunOptions,
    metrics: Metrics,
    tokio: &Handle,
    stop: CancellationToken,
) -> Result<(), JobError> {
    let store = match &options.checkpoints {
        None => None,
        Some(c) => {
            let location =
                crate::storage::open(&c.url, &c.base).map_err(|e| JobError::Checkpoint(e.to_string()))?;
            Some(CheckpointStore::new(location, &plan.job, c.keep))
        }
    };
    let mut from = options.checkpoints.as_ref().map(|c| c.from).unwrap_or_default();
    let mut attempt = 0;
    loop {
        let start = match &options.cluster {
            Some(cluster) => cluster.start.clone(),
            None => tokio.block_on(begin(&plan, store.as_ref(), from, &options.clock))?,
        };
        let committed = metrics.checkpoints();
        let generation = start.generation;
        let error =
            match once(plan.clone(), options, metrics.clone(), tokio, stop.clone(), store.clone(), start) {
                Ok(()) => {
                    return match &store {
                        // The processes of a cluster end together.
                        Some(store) if options.cluster.is_none() => {
                            tokio.block_on(close(store, generation, &options.clock))
                        }
                        _ => Ok(()),
                    };
                }
                Err(error) => error,
            };
        if metrics.checkpoints() > committed {
            attempt = 0;
        }
        // Without checkpoints nothing can be replayed exactly once; the processes of a cluster
        // restart together, by the one who started them.
        let can = error.may_pass() && store.is_some() && options.cluster.is_none();
        if !can || attempt >= options.restarts_max || stop.is_cancelled() {
            return Err(error);
        }
        attempt += 1;
        metrics.count_restart();
        from = StartFrom::Latest;
        let wait = Duration::from_millis(200 << attempt.min(7));
        tracing::warn!(%error, attempt, wait_ms = wait.as_millis() as u64, "the job restarts from its last checkpoint");
        tokio.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn once(
    plan: Arc<Plan>,
    options: &RunOptions,
    metrics: Metrics,
    tokio: &Handle,
    stop: CancellationToken,
    store: Option<CheckpointStore>,
    start: Start,
) -> Result<(), JobError> {
    let shared = Arc::new(Shared::new(plan, options.clone(), metrics, tokio.clone(), stop, store, start));
    let communication = match &options.cluster {
        Some(cluster) => CommunicationConfig::Cluster {
            threads: options.workers,
            process: cluster.process,
            addresses: cluster.addresses.clone(),
            report: false,
            zerocopy: false,
        },
        None if options.workers <= 1 => CommunicationConfig::Thread,
        None => CommunicationConfig::Process(options.workers),
    };
    let config = timely::Config { communication, worker: WorkerConfig::default() };
    let in_worker = shared.clone();
    let guards = timely::execute(config, move |w| {
        let guard = PanicGuard(in_worker.clone());
        worker::run(w, in_worker.clone());
        std::mem::forget(guard);
    })
    .map_err(JobError::Setup)?;
    let mut panic = None;
    for outcome in guards.join() {
        if let Err(message) = outcome {
            panic.get_or_insert(message);
        }
    }
    let failure = shared.take_failure().or_else(|| panic.map(JobError::Panic));
    // Sinks finish what they were told; after a failure they have nothing more to come.
    wait_for(tokio, &shared.tasks, Duration::from_secs(10));
    shared.stop.cancel();
    wait_for(tokio, &shared.sources, Duration::from_secs(5));
    match failure.or_else(|| shared.take_failure()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Waits for each task, and ends those that take too long.
fn wait_for(tokio: &Handle, tasks: &Mutex<Vec<JoinHandle<()>>>, at_most: Duration) {
    let tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
    tokio.block_on(async {
        for task in tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout(at_most, task).await.is_err() {
                abort.abort();
            }
        }
    });
}

/// Fails the run when its worker unwinds, so that the others do not wait for it.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        self.0.fail(JobError::Panic("see the message above".into()));
    }
}
