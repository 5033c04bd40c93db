//! What each node counts, for progress lines, logs and the metrics endpoint.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::operator::Spilled;
use crate::registry::Role;

/// What a component counts by names of its own: a feed its gaps, checksum errors and reconnects. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    /// Adds to the count of `name`.
    pub fn add(&self, name: &'static str, n: u64) {
        *self.lock().entry(name).or_default() += n;
    }

    /// Raises the count of `name` to `value`, if it is below.
    pub fn raise(&self, name: &'static str, value: u64) {
        let mut counts = self.lock();
        let count = counts.entry(name).or_default();
        *count = value.max(*count);
    }

    /// All counts, by name.
    pub fn read(&self) -> BTreeMap<&'static str, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters of one node, over all workers of this process.
#[derive(Debug)]
pub struct NodeMetrics {
    /// The node.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Rows taken in.
    pub rows_in: AtomicU64,
    /// Rows sent on.
    pub rows_out: AtomicU64,
    /// Bytes of Arrow memory taken in.
    pub bytes_in: AtomicU64,
    /// Rows that came after their watermark.
    pub late: AtomicU64,
    /// Input that could not become a row.
    pub dead_letters: AtomicU64,
    /// Rows left out because a key column was null.
    pub null_keys: AtomicU64,
    /// Keys with state.
    pub state_keys: AtomicU64,
    /// Bytes of the last snapshot.
    pub state_bytes: AtomicU64,
    /// Keys that have left memory.
    pub spilled: SpillMetrics,
    /// Rows held until the watermark passes them.
    pub held: AtomicU64,
    /// Watermark, nanoseconds; `i64::MIN` before the first.
    pub watermark: AtomicI64,
    /// How long a source that holds the others back has been silent, milliseconds; 0 where it does not.
    pub stalled_ms: AtomicU64,
    /// Longest single stall of a worker for a snapshot, nanoseconds.
    pub stall_max_ns: AtomicU64,
    /// What the component counts by names of its own.
    pub counts: Counts,
}

/// Where the keys of a node are, over all workers of this process.
#[derive(Debug, Default)]
pub struct SpillMetrics([AtomicU64; 5]);

impl SpillMetrics {
    /// An instance that had reported `before` reports `now`.
    pub fn change(&self, before: Spilled, now: Spilled) {
        for ((count, before), now) in self.0.iter().zip(before.counts()).zip(now.counts()) {
            count.fetch_add(now.wrapping_sub(before), Relaxed);
        }
    }

    /// The sum of what instances report; `None` where none has.
    pub fn read(&self) -> Option<Spilled> {
        let counts: [u64; 5] = std::array::from_fn(|i| self.0[i].load(Relaxed));
        (counts != [0; 5]).then(|| Spilled::of(counts))
    }
}

/// A reading of a node's counters.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReading {
    /// The node.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Rows taken in.
    pub rows_in: u64,
    /// Rows sent on.
    pub rows_out: u64,
    /// Bytes taken in.
    pub bytes_in: u64,
    /// Late rows.
    pub late: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Rows with null keys.
    pub null_keys: u64,
    /// Keys with state.
    pub state_keys: u64,
    /// Bytes of the last snapshot.
    pub state_bytes: u64,
    /// Where keys are that can leave memory; `None` where memory has no limit.
    pub spilled: Option<Spilled>,
    /// Rows held.
    pub held: u64,
    /// Watermark, nanoseconds; `None` before the first and after the last row.
    pub watermark_ns: Option<i64>,
    /// Of a source: how far its watermark is behind that of the newest source, nanoseconds; `None` before its first row and after
    /// its last.
    pub watermark_lag_ns: Option<u64>,
    /// How long a source that holds the others back has been silent, milliseconds; 0 where it does not.
    pub stalled_ms: u64,
    /// Longest stall for a snapshot, nanoseconds.
    pub stall_max_ns: u64,
    /// What the component counts by names of its own.
    pub counts: BTreeMap<&'static str, u64>,
}

impl NodeMetrics {
    fn new(name: &str, kind: &str) -> Self {
        let zero = AtomicU64::default;
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            rows_in: zero(),
            rows_out: zero(),
            bytes_in: zero(),
            late: zero(),
            dead_letters: zero(),
            null_keys: zero(),
            state_keys: zero(),
            state_bytes: zero(),
            spilled: SpillMetrics::default(),
            held: zero(),
            watermark: AtomicI64::new(i64::MIN),
            stalled_ms: zero(),
            stall_max_ns: zero(),
            counts: Counts::default(),
        }
    }

    /// Reads all counters.
    pub fn read(&self) -> NodeReading {
        let watermark = self.watermark.load(Relaxed);
        NodeReading {
            name: self.name.clone(),
            kind: self.kind.clone(),
            rows_in: self.rows_in.load(Relaxed),
            rows_out: self.rows_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            late: self.late.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            null_keys: self.null_keys.load(Relaxed),
            state_keys: self.state_keys.load(Relaxed),
            state_bytes: self.state_bytes.load(Relaxed),
            spilled: self.spilled.read(),
            held: self.held.load(Relaxed),
            watermark_ns: (watermark != i64::MIN && watermark != i64::MAX).then_some(watermark),
            watermark_lag_ns: None,
            stalled_ms: self.stalled_ms.load(Relaxed),
            stall_max_ns: self.stall_max_ns.load(Relaxed),
            counts: self.counts.read(),
        }
    }
}

/// The counters of a job, node by node.
#[derive(Clone, Debug)]
pub struct Metrics {
    nodes: Arc<Vec<NodeMetrics>>,
    /// Which of them are sources.
    sources: Arc<Vec<usize>>,
    /// Checkpoints committed in this process's view.
    checkpoints: Arc<AtomicU64>,
    /// Wall-clock time of the last one, nanoseconds.
    committed_at: Arc<AtomicI64>,
    checkpoint_failures: Arc<AtomicU64>,
    restarts: Arc<AtomicU64>,
}

impl Metrics {
    /// Counters at zero for the nodes of a plan.
    pub fn new(plan: &crate::plan::Plan) -> Self {
        let nodes = plan.nodes.iter().map(|n| NodeMetrics::new(&n.name, &n.kind)).collect();
        let sources = plan.nodes.iter().filter(|n| n.role == Role::Source).map(|n| n.id).collect();
        Self {
            nodes: Arc::new(nodes),
            sources: Arc::new(sources),
            checkpoints: Arc::default(),
            committed_at: Arc::default(),
            checkpoint_failures: Arc::default(),
            restarts: Arc::default(),
        }
    }

    /// A node's counters.
    pub fn node(&self, id: usize) -> &NodeMetrics {
        &self.nodes[id]
    }

    /// Reads every node's counters, in plan order.
    pub fn read(&self) -> Vec<NodeReading> {
        let mut read: Vec<NodeReading> = self.nodes.iter().map(NodeMetrics::read).collect();
        let newest = self.sources.iter().filter_map(|id| read[*id].watermark_ns).max();
        for id in self.sources.iter() {
            let lag = |own: i64| newest.map(|newest| newest.saturating_sub(own) as u64);
            read[*id].watermark_lag_ns = read[*id].watermark_ns.and_then(lag);
        }
        read
    }

    /// Counts a checkpoint that was committed at this wall-clock time.
    pub fn checkpoint_committed(&self, now_ns: i64) {
        self.checkpoints.fetch_add(1, Relaxed);
        self.committed_at.store(now_ns, Relaxed);
    }

    /// When the last checkpoint was committed, nanoseconds since 1970; `None` before the first.
    pub fn last_checkpoint_ns(&self) -> Option<i64> {
        (self.checkpoints() > 0).then(|| self.committed_at.load(Relaxed))
    }

    /// Counts a checkpoint that failed.
    pub fn count_checkpoint_failure(&self) {
        self.checkpoint_failures.fetch_add(1, Relaxed);
    }

    /// Checkpoints that failed.
    pub fn checkpoint_failures(&self) -> u64 {
        self.checkpoint_failures.load(Relaxed)
    }

    /// Checkpoints committed.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.load(Relaxed)
    }

    /// Counts a restart.
    pub fn count_restart(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    /// Restarts so far.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }
}
