//! What the coordinator (worker 0) and the workers say to each other, over timely's own channels,
//! so that one worker and several processes take the same path.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::decisions::Floor;
use crate::checkpoint::manifest::{PartitionState, StateFile};
use crate::checkpoint::{CheckpointStore, Manifest};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::plan::{Body, Node, Plan};
use crate::registry::Role;
use crate::runtime::decisions::Decisions;
use crate::runtime::job::{JobError, RunOptions};
use crate::runtime::leads::{Lead, Leads};
use crate::runtime::opening::Opening;
use crate::runtime::restore::Restored;
use crate::runtime::stall::Progress;
use crate::runtime::tasks::Tasks;
use crate::runtime::time::Time;
use crate::state_memory::StateMemory;

/// From the coordinator to every worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Sources pass into the epoch after `id`; with `halt` they send nothing any more.
    Checkpoint { id: u64, halt: bool },
    /// Checkpoint `id` is committed; with `begun` rows may flow.
    Committed { id: u64, begun: bool },
    /// How far source instances (node and worker) have come by rows of their own, in all processes.
    Leads(Vec<((usize, usize), Lead)>),
    /// The run is over: everything lets go.
    Close,
}

/// From a worker to the coordinator. JSON values travel as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// A node on a worker has done its part of a checkpoint.
    Ack(Ack),
    /// A source instance has delivered all its rows.
    Ended { node: usize, worker: usize },
    /// A source instance has announced its partitions and where they begin.
    Ready { node: usize, worker: usize },
    /// How far a source instance is.
    Progress(Progress),
    /// This worker's process was asked to stop the job.
    StopAsked,
    /// This worker's process was asked for a checkpoint.
    CheckpointRequested,
}

/// A node's part of a checkpoint, on one worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ack {
    /// The checkpoint.
    pub id: u64,
    /// The node.
    pub node: usize,
    /// The worker.
    pub worker: usize,
    /// Partitions of a source instance: position (JSON text) and newest event time.
    pub partitions: Vec<(u32, String, i64)>,
    /// Of those partitions: next position, and floors of rows not read yet.
    pub floors: Vec<(u32, u64, Vec<Floor>)>,
    /// Of those partitions: the `max_out_of_orderness` that their rows are judged by, nanoseconds.
    pub out_of_orderness: Vec<(u32, i64)>,
    /// Watermark of a source instance that has partitions.
    pub watermark: Option<i64>,
    /// State file, where there is state: path, bytes, keys.
    pub state: Option<(String, u64, u64)>,
    /// What sink shards on this worker said (JSON text).
    pub sinks: Vec<(usize, String)>,
    /// Why the part could not be done.
    pub error: Option<String>,
}

/// What an ack tells a manifest.
pub fn partition_states(ack: &Ack) -> BTreeMap<u32, PartitionState> {
    let state = |(id, position, max_ts): &(u32, String, i64)| {
        let position = serde_json::from_str(position).unwrap_or(Value::Null);
        let floors = ack.floors.iter().find(|(of, ..)| of == id);
        let out_of_orderness = ack.out_of_orderness.iter().find(|(of, _)| of == id);
        (
            *id,
            PartitionState {
                position,
                max_ts: *max_ts,
                next_seq: floors.map(|(_, next, _)| *next),
                floors: floors.map(|(.., floors)| floors.clone()).unwrap_or_default(),
                out_of_orderness_ns: out_of_orderness.map(|(_, ns)| *ns),
            },
        )
    };
    ack.partitions.iter().map(state).collect()
}

/// The state file an ack tells of.
pub fn state_file(ack: &Ack) -> Option<StateFile> {
    ack.state.clone().map(|(path, bytes, keys)| StateFile { path, bytes, keys })
}

/// How a run begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Larger than that of any earlier start of the job.
    pub generation: u64,
    /// Generation at which this run began from nothing.
    pub run: u64,
    /// Its identity, random.
    #[serde(default)]
    pub start: u64,
    /// Earlier starts whose decisions hold for it.
    #[serde(default)]
    pub follows: Vec<u64>,
    /// Whether the run has committed no checkpoint yet.
    pub fresh: bool,
    /// Whether an earlier start began this run.
    #[serde(default)]
    pub resumed: bool,
    /// The checkpoint whose content it begins from (0: none).
    pub checkpoint: u64,
    /// The first epoch: the id its first checkpoint gets.
    pub epoch: u64,
    /// The content it begins from.
    pub manifest: Option<Manifest>,
}

/// What all workers of a process share.
pub struct Shared {
    /// The graph.
    pub plan: Arc<Plan>,
    /// How to run it.
    pub options: RunOptions,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// Where connectors run.
    pub tokio: Handle,
    /// Cancelled when connectors should return.
    pub stop: CancellationToken,
    /// Cancelled when somebody asks the job to stop in order.
    pub ask_stop: CancellationToken,
    /// Checkpoints, if there are any.
    pub store: Option<CheckpointStore>,
    /// How the run begins.
    pub start: Start,
    /// The state it begins with.
    pub restored: Restored,
    /// The memory of keyed state.
    pub memory: StateMemory,
    /// Sink tasks, to be waited for at the end.
    pub tasks: Tasks,
    /// Source tasks: a source that is to stop may still have to put away what it has read (a capture).
    pub sources: Tasks,
    /// Sinks that are not open yet: one for each sink of each worker, until it has counted its shards, and one for each shard.
    pub opening: Opening,
    /// Cancelled when the run has failed.
    pub failing: CancellationToken,
    /// Decisions about partitions.
    pub decisions: Decisions,
    /// How far the sources of this process have come by rows of their own.
    pub leads: Leads,
    failure: Mutex<Option<JobError>>,
    failed: AtomicBool,
}

impl Shared {
    /// Shared state of a run.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        plan: Arc<Plan>,
        options: RunOptions,
        metrics: Metrics,
        tokio: Handle,
        ask_stop: CancellationToken,
        store: Option<CheckpointStore>,
        start: Start,
    ) -> Self {
        let sinks = plan.nodes.iter().filter(|n| n.role == Role::Sink).count();
        Self {
            clock: options.clock.clone(),
            opening: Opening::new(sinks * options.workers, options.cluster.is_some()),
            decisions: Decisions::default(),
            leads: Leads::new(plan.nodes.len(), options.workers.max(1)),
            plan,
            options,
            metrics,
            tokio,
            stop: CancellationToken::new(),
            ask_stop,
            store,
            start,
            restored: Restored::default(),
            memory: StateMemory::default(),
            tasks: Tasks::default(),
            sources: Tasks::default(),
            failing: CancellationToken::new(),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
        }
    }

    /// Stops the run; the first failure is the one reported.
    pub fn fail(&self, error: JobError) {
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if failure.is_none() {
            tracing::debug!(%error, "run fails");
            *failure = Some(error);
        }
        drop(failure);
        self.failed.store(true, Ordering::Release);
        self.opening.fail();
        self.stop.cancel();
        self.failing.cancel();
    }

    /// Connectors at `nodes` have not ended: whatever the run ended of, this process must not go on beside them.
    pub fn lingers(&self, nodes: String, within: Duration) {
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let cause = failure.take().map(Box::new);
        let error = JobError::Lingering { nodes, within, cause };
        tracing::error!(%error, "connectors have not ended");
        *failure = Some(error);
        drop(failure);
        self.failed.store(true, Ordering::Release);
        self.failing.cancel();
    }

    /// Whether some source or sink has never been in a checkpoint, so that where its partitions begin, or what it writes to, must
    /// be written down before the first row; or a source's rows are judged by another `max_out_of_orderness` from there on.
    pub fn begins(&self) -> bool {
        let manifest = self.start.manifest.as_ref();
        let known = |node: &Node| match node.role {
            Role::Source => {
                let known = manifest.and_then(|m| m.sources.get(&node.identity));
                known.is_some_and(|s| !s.partitions.is_empty()) && self.former_bounds(node).next().is_none()
            }
            Role::Sink => manifest.is_some_and(|m| m.sinks.contains_key(&node.identity)),
            Role::Operator => true,
        };
        self.store.is_some() && !self.plan.nodes.iter().all(known)
    }

    /// The `max_out_of_orderness` of a source's partitions in the checkpoint that the run begins from, where it is not the source's now.
    pub fn former_bounds(&self, node: &Node) -> impl Iterator<Item = i64> {
        let now = match &node.body {
            Body::Source { options, .. } => options.max_out_of_orderness.ns(),
            _ => 0,
        };
        let source = self.start.manifest.as_ref().and_then(|m| m.sources.get(&node.identity));
        let bounds = source.into_iter().flat_map(|s| s.partitions.values());
        bounds.filter_map(move |p| p.out_of_orderness_ns.filter(|ns| *ns != now))
    }

    /// Whether rows may come out of order though the graph says otherwise: its sources go on with a larger `max_out_of_orderness` until a
    /// checkpoint of this run.
    pub fn still_out_of_order(&self) -> bool {
        let sources = self.plan.nodes.iter().filter(|n| n.role == Role::Source);
        sources.flat_map(|n| self.former_bounds(n)).any(|ns| ns > 0)
    }

    /// Whether the run has failed.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The failure, if the run has failed.
    pub fn failure(&self) -> Option<JobError> {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

/// Told of a committed checkpoint.
pub type OnCommit = Box<dyn FnMut(u64)>;

/// What the nodes on one worker share.
pub struct Local {
    /// Shared with the process's other workers.
    pub shared: Arc<Shared>,
    /// This worker.
    pub index: usize,
    /// All workers of the job.
    pub peers: usize,
    /// The epoch sources should be in.
    pub epoch: Cell<u64>,
    /// Grows whenever sources should report their progress.
    pub look: Cell<u64>,
    /// Sources send nothing any more.
    pub halt: Cell<bool>,
    /// Sources may send: where each begins is durable.
    pub emit: Cell<bool>,
    /// The last checkpoint that is committed.
    pub committed: Cell<u64>,
    /// How far source instances of other processes have come by rows of their own, as of the last report.
    pub elsewhere: RefCell<BTreeMap<(usize, usize), Lead>>,
    /// Everything lets go.
    pub close: Cell<bool>,
    /// Called for every committed checkpoint.
    pub on_commit: RefCell<Vec<OnCommit>>,
    /// Called when the run closes.
    pub on_close: RefCell<Vec<Box<dyn FnMut()>>>,
    /// Nodes to schedule when a command has come.
    pub activators: RefCell<Vec<timely::scheduling::Activator>>,
    /// To the coordinator.
    pub reports: UnboundedSender<Report>,
    /// The frontier past all sinks.
    pub probe: timely::dataflow::operators::probe::Handle<Time>,
}

impl Local {
    /// Fails the run.
    pub fn fail(&self, node: &str, error: impl std::fmt::Display) {
        self.shared.fail(JobError::Broken { node: node.to_owned(), reason: error.to_string() });
    }

    /// The watermark past all sinks; `i64::MAX` when nothing is in flight.
    pub fn sinks_watermark(&self) -> i64 {
        self.probe.with_frontier(|f| f.iter().map(|t| t.ts).min().unwrap_or(i64::MAX))
    }

    /// Has sources report their progress.
    pub fn look(&self) {
        self.look.set(self.look.get() + 1);
        for activator in self.activators.borrow().iter() {
            activator.activate();
        }
    }

    /// Acts on a command.
    pub fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Checkpoint { id, halt } => {
                self.epoch.set(id + 1);
                self.halt.set(self.halt.get() || halt);
            }
            Command::Committed { id, begun } => {
                self.emit.set(self.emit.get() || begun);
                self.committed.set(id);
                self.shared.options.control.committed(id);
                for told in self.on_commit.borrow_mut().iter_mut() {
                    told(id);
                }
            }
            Command::Leads(leads) => {
                let workers = self.shared.options.workers.max(1);
                let elsewhere =
                    |instance: &((usize, usize), Lead)| instance.0.1 / workers != self.index / workers;
                *self.elsewhere.borrow_mut() = leads.into_iter().filter(elsewhere).collect();
            }
            Command::Close => {
                self.close.set(true);
                for told in self.on_close.borrow_mut().iter_mut() {
                    told();
                }
            }
        }
        for activator in self.activators.borrow().iter() {
            activator.activate();
        }
    }
}
