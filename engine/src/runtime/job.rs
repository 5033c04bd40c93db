//! Runs a planned graph: start, workers, failures and restarts, end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::{AllocatorBuilder, Hooks, WorkerGuards};
use timely::execute::execute_from;
use timely::worker::Worker;
use timely::{CommunicationConfig, WorkerConfig};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{CheckpointStore, StartFrom};
use crate::clock::Clock;
use crate::connector::ConnectorError;
use crate::metrics::Metrics;
use crate::plan::{Edge, Plan, Port, StateChanges};
use crate::runtime::begin::{begin, close, still_ours};
use crate::runtime::cluster::{Cluster, Link};
use crate::runtime::control::Shared;
use crate::runtime::failure::FailureClass;
use crate::runtime::steering::{Control, Phase};
use crate::runtime::{decisions, restore, worker};
use crate::state_memory::{StateMemory, StateOptions};

/// How to run a graph. None of it changes the rows that come out.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Worker threads in this process.
    pub workers: usize,
    /// This process among several, if there are several.
    pub cluster: Option<Cluster>,
    /// How much memory keyed state may take.
    pub state: StateOptions,
    /// Where checkpoints lie; none are written where this is `None`.
    pub checkpoints: Option<CheckpointOptions>,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// Rows of a source partition that may be on their way to the sinks.
    pub in_flight_rows: usize,
    /// Bytes of a source instance's rows that may be on their way to the sinks.
    pub in_flight_bytes: usize,
    /// A source that is silent for so long while others have moved on is reported.
    pub stall_after: Duration,
    /// Rows a source should put in a chunk.
    pub chunk_rows: usize,
    /// How batches are cut.
    pub batch_rows: BatchRows,
    /// Restarts after transient failures, in a row.
    pub restarts_max: u32,
    /// Sinks that have not ended so long after the run has failed may still be writing: this process does not start the job again.
    pub end_within: Duration,
    /// Time.
    pub clock: Clock,
    /// Watches and steers the run.
    pub control: Control,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            cluster: None,
            state: StateOptions::default(),
            checkpoints: None,
            checkpoint_every: Duration::from_secs(10),
            in_flight_rows: 256 * 1024,
            in_flight_bytes: 256 << 20,
            stall_after: Duration::from_secs(20),
            chunk_rows: 8192,
            batch_rows: BatchRows::AsRead,
            restarts_max: 10,
            end_within: Duration::from_secs(90),
            clock: Clock::System,
            control: Control::default(),
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
    /// Changes of state that are allowed then.
    pub changes: StateChanges,
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
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Another process of the job is gone, and did not say why.
    #[error("process {process} is lost: {reason}")]
    Lost {
        /// The process.
        process: usize,
        /// What was seen of it.
        reason: String,
    },
    /// Connectors did not end with the run.
    #[error(
        "`{nodes}` did not end within {within:?} of the run and may still be writing, so the job does not go on in this process{}",
        .cause.as_ref().map_or_else(String::new, |cause| format!("; the run failed because of {cause}"))
    )]
    Lingering {
        /// Their nodes.
        nodes: String,
        /// How long they were waited for.
        within: Duration,
        /// Why the run had ended, if it failed.
        cause: Option<Box<JobError>>,
    },
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

    /// What a supervisor should do about it.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Transient { .. } | Self::Panic(_) | Self::Lost { .. } => FailureClass::Transient,
            // Another process can start the job again, if what ended this run may pass.
            Self::Lingering { cause, .. } => {
                cause.as_ref().map_or(FailureClass::Transient, |cause| cause.class())
            }
            Self::Fenced(_) => FailureClass::Fenced,
            // What an operator refuses it refuses again: its output depends on its rows alone.
            Self::Broken { .. }
            | Self::BadInput { .. }
            | Self::Fatal { .. }
            | Self::Checkpoint(_)
            | Self::Setup(_) => FailureClass::Fatal,
        }
    }

    /// Whether a restart may help.
    pub fn may_pass(&self) -> bool {
        self.class() == FailureClass::Transient
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

/// Runs a graph until it ends, fails for good, or `stop` is cancelled (it then takes a last
/// checkpoint). Blocks; connectors run on `tokio`.
pub fn run(
    plan: Arc<Plan>,
    options: &RunOptions,
    metrics: Metrics,
    tokio: &Handle,
    stop: CancellationToken,
) -> Result<(), JobError> {
    let (control, stopping) = (options.control.clone(), stop.clone());
    let stop_link = tokio.spawn(async move {
        control.stopped().cancelled().await;
        stopping.cancel();
    });
    let outcome = run_again(plan, options, metrics, tokio, stop);
    stop_link.abort();
    if let Err(error) = &outcome {
        options.control.failed(error);
    }
    options.control.enter(if outcome.is_ok() { Phase::Ended } else { Phase::Failed });
    outcome
}

/// Runs a graph, from the last checkpoint after each failure that may pass.
fn run_again(
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
    let process = options.cluster.as_ref().map_or(0, |cluster| cluster.process);
    let memory = StateMemory::open(&options.state, &format!("{}-{process}", plan.job))
        .map_err(|e| JobError::Setup(e.to_string()))?;
    let mut from = options.checkpoints.as_ref().map(|c| c.from.clone()).unwrap_or_default();
    let changes = options.checkpoints.as_ref().map(|c| c.changes).unwrap_or_default();
    let mut attempt = 0;
    let mut before: Option<u64> = None;
    loop {
        let committed = metrics.checkpoints();
        let begun = match &options.cluster {
            Some(cluster) => Ok(cluster.start.clone()),
            None => tokio.block_on(begin(&plan, store.as_ref(), &from, changes, before, &options.clock)),
        };
        let ended = begun.and_then(|start| {
            before = Some(start.start);
            options.control.enter(Phase::Running);
            let mut shared = Shared::new(
                plan.clone(),
                options.clone(),
                metrics.clone(),
                tokio.clone(),
                stop.clone(),
                store.clone(),
                start,
            );
            shared.memory = memory.clone();
            once(Arc::new(shared))
        });
        let error = match (ended, &store) {
            // The processes of a cluster end together.
            (Ok(()), Some(store)) if options.cluster.is_none() => {
                return tokio.block_on(close(store, before.unwrap_or_default(), &options.clock));
            }
            (Ok(()), _) => return Ok(()),
            (Err(error), Some(store)) if options.cluster.is_none() => {
                tokio.block_on(still_ours(store, before, error))
            }
            (Err(error), _) => error,
        };
        if metrics.checkpoints() > committed {
            attempt = 0;
        }
        // Without checkpoints nothing can be replayed exactly once; the processes of a cluster
        // restart together, by the one who started them.
        let lingers = matches!(error, JobError::Lingering { .. });
        let can = error.may_pass() && !lingers && store.is_some() && options.cluster.is_none();
        if !can || attempt >= options.restarts_max || stop.is_cancelled() {
            return Err(error);
        }
        attempt += 1;
        metrics.count_restart();
        options.control.failed(&error);
        options.control.enter(Phase::Restarting);
        if before.is_some() {
            from = StartFrom::Latest;
        }
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

fn once(shared: Arc<Shared>) -> Result<(), JobError> {
    let opening = shared.clone();
    shared.tokio.spawn(async move { opening.opening.report(opening.options.stall_after).await });
    match &shared.options.cluster {
        Some(cluster) => {
            // Before the state is read: that may take one process much longer than another.
            let (links, control) = cluster.join(&shared)?;
            match restore::load(&shared) {
                Ok(()) => {
                    decisions::load(&shared);
                    once_of_several(&shared, cluster, links);
                }
                Err(error) => shared.fail(error),
            }
            control.finish(&shared);
        }
        None => {
            restore::load(&shared)?;
            decisions::load(&shared);
            once_alone(&shared);
        }
    }
    match shared.failure() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// All workers are threads of this process: each is joined, whatever happens.
fn once_alone(shared: &Arc<Shared>) {
    let communication = match shared.options.workers {
        0 | 1 => CommunicationConfig::Thread,
        workers => CommunicationConfig::Process(workers),
    };
    let started = communication.try_build().and_then(|(builders, others)| {
        let in_worker = shared.clone();
        execute_from(builders, others, WorkerConfig::default(), move |w| work(w, &in_worker))
    });
    match started {
        Ok(guards) => drop(guards.join()),
        Err(error) => shared.fail(JobError::Setup(error)),
    }
    let_go(shared);
}

/// Other processes have workers too: after a failure, timely's threads here may wait for them for ever, so they are not
/// joined. The control plane ends the run in order.
fn once_of_several(shared: &Arc<Shared>, cluster: &Cluster, links: Vec<Option<Link>>) {
    let (over, ends) = mpsc::channel();
    match start_of_several(shared, cluster, links, over) {
        Ok(guards) => {
            wait_for_workers(shared, &ends);
            // Joining would wait for the other processes: the control plane does, and notices their loss.
            std::mem::forget(guards);
        }
        Err(error) => shared.fail(JobError::Setup(error)),
    }
    let_go(shared);
}

fn start_of_several(
    shared: &Arc<Shared>,
    cluster: &Cluster,
    links: Vec<Option<Link>>,
    over: mpsc::Sender<()>,
) -> Result<WorkerGuards<()>, String> {
    let (workers, hooks) = (shared.options.workers.max(1), Hooks::default());
    let local = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), hooks.spill.clone());
    let (builders, threads) =
        initialize_networking_from_sockets(local, links, cluster.process, workers, hooks)
            .map_err(|e| format!("the links between the processes cannot be set up: {e}"))?;
    let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
    let in_worker = shared.clone();
    execute_from(builders, Box::new(threads), WorkerConfig::default(), move |w| {
        let _over = AtEnd(over.clone());
        work(w, &in_worker);
    })
}

/// Says that a worker has ended, however it did.
struct AtEnd(mpsc::Sender<()>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Waits for the workers of this process; after a failure not for ever.
fn wait_for_workers(shared: &Shared, ends: &mpsc::Receiver<()>) {
    const STEP: Duration = Duration::from_millis(50);
    const STEPS_AFTER_FAILURE: u32 = 60;
    let (mut left, mut steps) = (shared.options.workers.max(1), 0);
    while left > 0 && steps < STEPS_AFTER_FAILURE {
        match ends.recv_timeout(STEP) {
            Ok(()) => left -= 1,
            Err(mpsc::RecvTimeoutError::Timeout) => steps += u32::from(shared.failed()),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Runs a worker; a panic fails the run, so that the others do not wait for it.
fn work(worker: &mut Worker, shared: &Arc<Shared>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker::run(worker, shared.clone()))) {
        shared.fail(JobError::Panic(message(&*panic)));
        // Its dataflow may be in any state: the thread ends here.
        resume_unwind(panic);
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "it gave no message".to_owned(),
    }
}

/// How long sources are waited for: longer where they may have to put away what they have read.
const SOURCES_END: Duration = Duration::from_secs(30);
const SOURCES_END_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Sinks finish what they have got; after a failure nothing more comes. Then sources return.
fn let_go(shared: &Shared) {
    let within = shared.options.end_within;
    let lingering = shared.tokio.block_on(shared.tasks.end(within));
    shared.stop.cancel();
    // What one reads or logs after its run counts for nothing, so the job may go on beside it.
    let patience = if shared.failed() { SOURCES_END_AFTER_FAILURE } else { SOURCES_END };
    let sources = shared.tokio.block_on(shared.sources.end(patience));
    if !sources.is_empty() {
        tracing::warn!(sources = sources.join(", "), "sources have not ended with the run, and are aborted");
    }
    if !lingering.is_empty() {
        shared.lingers(lingering.join("`, `"), within);
    }
}
