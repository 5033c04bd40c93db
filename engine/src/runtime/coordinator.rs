//! Worker 0's part: starts checkpoints, gathers their parts, commits them, ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use tokio::sync::mpsc;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::manifest::{Manifest, Reason, SourceState};
use crate::clock::Stopwatch;
use crate::plan::{Body, Node};
use crate::registry::Role;
use crate::runtime::control::{Ack, Command, Report, Shared, partition_states, state_file};
use crate::runtime::leads::Lead;
use crate::runtime::stall::Stalls;

/// How often the last checkpoint of a run is tried, for some minutes in all.
const LAST_TRIES: u32 = 10;
/// Pause after a failed checkpoint, doubled with each failure in a row up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A checkpoint that is not complete after this long is reported, again and again, with what it waits for.
const SLOW: Duration = Duration::from_secs(60);
/// The last checkpoint is too old when it is older than this and than three intervals.
const OLD: Duration = Duration::from_secs(30);

/// The state of a run as worker 0 knows it.
pub struct Coordinator {
    shared: Arc<Shared>,
    peers: usize,
    next_id: u64,
    since_last: Stopwatch,
    /// Since the last one that was committed, or a warning that none was.
    since_committed: Stopwatch,
    ended: BTreeSet<(usize, usize)>,
    /// Source instances that have announced where they begin.
    ready: BTreeSet<(usize, usize)>,
    /// Since the run began, or sources that are not open were last reported.
    since_opening: Stopwatch,
    /// Checkpoints to commit before the first row: they fix where sources begin and what sinks write to. Two, so that one that
    /// is damaged later leaves another.
    begins: u8,
    stop_asked: bool,
    checkpoint_requested: bool,
    stalls: Stalls,
    /// Some source may have to go with sources of other processes.
    follows: bool,
    /// As other processes know them.
    leads: BTreeMap<(usize, usize), Lead>,
    open: Option<Open>,
    /// The last checkpoint of this start; where it has none of its own, the one that it began with.
    last: Option<Manifest>,
    failures: u32,
    /// Old checkpoints are being removed.
    pruning: Arc<AtomicBool>,
    /// The last checkpoint is committed: there is nothing left to do.
    closed: bool,
    commits: (mpsc::UnboundedSender<Outcome>, mpsc::UnboundedReceiver<Outcome>),
}

type Outcome = (u64, Reason, Result<Manifest, CheckpointError>);

struct Open {
    id: u64,
    reason: Reason,
    acks: Vec<Ack>,
    watch: Stopwatch,
    /// Since it began, or was last reported as slow.
    reported: Stopwatch,
    committing: bool,
}

impl Coordinator {
    /// The coordinator of a run of `peers` workers.
    pub fn new(shared: Arc<Shared>, peers: usize) -> Self {
        Self {
            next_id: shared.start.epoch,
            since_last: shared.clock.start(),
            since_committed: shared.clock.start(),
            peers,
            ended: BTreeSet::new(),
            ready: BTreeSet::new(),
            since_opening: shared.clock.start(),
            begins: if shared.begins() { 2 } else { 0 },
            stop_asked: false,
            checkpoint_requested: false,
            follows: shared.options.cluster.is_some() && shared.plan.nodes.iter().any(may_idle),
            leads: BTreeMap::new(),
            stalls: Stalls::new(shared.options.stall_after, &shared.clock),
            open: None,
            last: shared.start.manifest.clone(),
            failures: 0,
            pruning: Arc::default(),
            closed: false,
            commits: mpsc::unbounded_channel(),
            shared,
        }
    }

    /// Takes a worker's report.
    pub fn report(&mut self, report: Report) {
        match report {
            Report::StopAsked => self.stop_asked = true,
            Report::Ready { node, worker } => {
                self.ready.insert((node, worker));
            }
            Report::CheckpointRequested => self.checkpoint_requested = true,
            Report::Progress(progress) => self.stalls.take(progress),
            Report::Ended { node, worker } => {
                self.ended.insert((node, worker));
            }
            Report::Ack(ack) => match &mut self.open {
                Some(open) if open.id == ack.id => open.acks.push(ack),
                _ => {}
            },
        }
    }

    /// Does what is due; the commands to send.
    pub fn tick(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.stalls.tick(&self.shared) && self.follows {
            let leads = self.stalls.leads();
            if leads != self.leads {
                commands
                    .push(Command::Leads(leads.iter().map(|(instance, lead)| (*instance, *lead)).collect()));
                self.leads = leads;
            }
        }
        while let Ok((id, reason, outcome)) = self.commits.1.try_recv() {
            self.open = None;
            self.since_last = self.shared.clock.start();
            match outcome {
                Ok(manifest) => {
                    self.failures = 0;
                    self.last = Some(manifest);
                    self.begins = self.begins.saturating_sub(1);
                    self.since_committed = self.shared.clock.start();
                    self.shared.metrics.checkpoint_committed(self.shared.clock.now_ns());
                    commands.push(Command::Committed { id, begun: self.begins == 0 });
                    if matches!(reason, Reason::Stop | Reason::End) {
                        commands.push(Command::Close);
                        self.closed = true;
                        return commands;
                    }
                }
                Err(error) => self.failed(id, reason, error),
            }
        }
        let complete = self.open.as_ref().is_some_and(|o| !o.committing && o.acks.len() == self.parts());
        if complete {
            self.commit();
        }
        self.report_slow();
        if let Some(sources) = self.unopened() {
            let secs = self.shared.options.stall_after.as_secs();
            tracing::warn!(
                sources,
                "no row flows before all sources are open: after {secs} s and more these still open"
            );
        }
        if self.open.is_none() && !self.closed && self.may_try() {
            let sources = self.shared.plan.nodes.iter().filter(|n| n.role == Role::Source).count();
            let reason = if self.stop_asked {
                Some(Reason::Stop)
            } else if self.begins > 0 {
                // The first one, so that a run which is killed at once begins at the same places again.
                (self.ready.len() == sources * self.peers).then_some(Reason::Interval)
            } else if self.ended.len() == sources * self.peers {
                Some(Reason::End)
            } else if self.shared.store.is_some()
                && (self.checkpoint_requested
                    || self.since_last.elapsed() >= self.shared.options.checkpoint_every)
            {
                Some(Reason::Interval)
            } else {
                None
            };
            if let Some(reason) = reason {
                let id = self.next_id;
                self.next_id += 1;
                self.checkpoint_requested = false;
                tracing::debug!(id, ?reason, "checkpoint begins");
                self.open = Some(Open {
                    id,
                    reason,
                    acks: Vec::new(),
                    watch: self.shared.clock.start(),
                    reported: self.shared.clock.start(),
                    committing: false,
                });
                commands.push(Command::Checkpoint { id, halt: reason == Reason::Stop });
            }
        }
        commands
    }

    /// Sources that some worker still opens, where that takes long and is to be reported: before a run's first checkpoint all others
    /// wait for them.
    pub fn unopened(&mut self) -> Option<String> {
        let sources = self.shared.plan.nodes.iter().filter(|n| n.role == Role::Source);
        let open = |node: usize| self.ready.iter().filter(|(n, _)| *n == node).count() == self.peers;
        if self.begins == 0 || self.since_opening.elapsed() < self.shared.options.stall_after {
            return None;
        }
        let names: Vec<String> = sources.filter(|n| !open(n.id)).map(|n| format!("`{}`", n.name)).collect();
        self.since_opening = self.shared.clock.start();
        Some(names.join(", ")).filter(|names| !names.is_empty())
    }

    /// Whether the pause after a failure is over.
    fn may_try(&self) -> bool {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures == 0 || self.since_last.elapsed() >= pause
    }

    /// Warns of a checkpoint that takes long, and of one that has become old.
    fn report_slow(&mut self) {
        let (peers, plan, clock) = (self.peers, &self.shared.plan, &self.shared.clock);
        if let Some(open) = self.open.as_mut().filter(|open| open.reported.elapsed() >= SLOW) {
            let done = |node: usize| open.acks.iter().filter(|ack| ack.node == node).count() == peers;
            let waits: Vec<&str> =
                plan.nodes.iter().filter(|n| !done(n.id)).map(|n| n.name.as_str()).collect();
            let (id, secs) = (open.id, open.watch.elapsed().as_secs());
            match open.committing {
                true => tracing::warn!(id, secs, "a checkpoint is being written for long"),
                false => {
                    tracing::warn!(id, secs, waits_for = waits.join(", "), "a checkpoint is not complete")
                }
            }
            open.reported = clock.start();
        }
        let old = OLD.max(self.shared.options.checkpoint_every.saturating_mul(3));
        if self.shared.store.is_some() && !self.closed && self.since_committed.elapsed() >= old {
            let failures = self.failures;
            tracing::warn!(failures, "no checkpoint has been committed for {} s", old.as_secs());
            self.since_committed = clock.start();
        }
    }

    /// Every node acknowledges once per worker.
    fn parts(&self) -> usize {
        self.shared.plan.nodes.len() * self.peers
    }

    fn commit(&mut self) {
        let Some(open) = &mut self.open else { return };
        open.committing = true;
        let id = open.id;
        let reason = open.reason;
        if let Some(broken) = open.acks.iter().find_map(|ack| ack.error.clone()) {
            let error = CheckpointError::Storage {
                what: format!("write checkpoint {id}"),
                place: self.place(),
                reason: broken,
                may_pass: true,
            };
            let _ = self.commits.0.send((id, reason, Err(error)));
            return;
        }
        let manifest = manifest(&self.shared, self.peers, id, reason, &open.acks);
        let (tx, store) = (self.commits.0.clone(), self.shared.store.clone());
        let (took, last, pruning) = (open.watch.elapsed(), self.last.clone(), self.pruning.clone());
        self.shared.tokio.spawn(async move {
            crate::fault::point("before-manifest");
            let outcome = match (&store, &last) {
                (None, _) => Ok(()),
                (Some(store), Some(last)) => store.commit_after(last, &manifest).await,
                (Some(store), None) => store.commit(&manifest).await,
            };
            crate::fault::point("after-manifest");
            if outcome.is_ok() {
                tracing::debug!(
                    id,
                    ms = took.as_millis() as u64,
                    bytes = manifest.state_bytes(),
                    keys = manifest.state_keys(),
                    "checkpoint committed"
                );
            }
            let _ = tx.send((id, reason, outcome.map(|()| manifest)));
            // One at a time: storage that is slow to list must not be asked for more and more lists.
            let last = matches!(reason, Reason::Stop | Reason::End);
            let busy = pruning.swap(true, Ordering::AcqRel);
            if let Some(store) = store.filter(|_| last || !busy) {
                if let Err(error) = store.prune().await {
                    tracing::warn!(%error, "old checkpoints were not removed");
                }
                pruning.store(false, Ordering::Release);
            }
        });
    }

    fn place(&self) -> String {
        self.shared.store.as_ref().map_or_else(|| "the sinks' storage".into(), |s| s.place())
    }

    /// A run goes on without a checkpoint, and tries the next; only its last one it cannot do without.
    fn failed(&mut self, id: u64, reason: Reason, error: CheckpointError) {
        self.failures += 1;
        self.shared.metrics.count_checkpoint_failure();
        let last = matches!(reason, Reason::Stop | Reason::End);
        match error {
            fenced @ CheckpointError::Fenced { .. } => self.shared.fail(fenced.into()),
            error if last && (self.failures >= LAST_TRIES || !error.may_pass()) => {
                self.shared.fail(error.into());
            }
            error => {
                tracing::error!(id, %error, failures = self.failures, "a checkpoint has failed; the job goes on and tries again")
            }
        }
    }
}

/// Whether a node is a source whose silent partitions are let go.
fn may_idle(node: &Node) -> bool {
    matches!(&node.body, Body::Source { options, .. } if options.idle_timeout.is_some())
}

fn manifest(shared: &Shared, peers: usize, id: u64, reason: Reason, acks: &[Ack]) -> Manifest {
    let mut manifest = Manifest {
        id,
        content: id,
        job: shared.plan.job.clone(),
        generation: shared.start.generation,
        run: shared.start.run,
        start: shared.start.start,
        follows: Vec::new(),
        committed_at: rfc3339(shared.clock.now_ns()),
        reason,
        workers: peers,
        graph: crate::plan::describe(&shared.plan),
        sources: BTreeMap::new(),
        state: BTreeMap::new(),
        sinks: BTreeMap::new(),
        former: BTreeMap::new(),
    };
    // Partitions that no instance has announced yet are where they were. Instances cannot say that:
    // none knows whether another has announced and moved on.
    for (name, source) in shared.start.manifest.iter().flat_map(|m| &m.sources) {
        if shared.plan.nodes.iter().any(|n| n.role == Role::Source && n.identity == *name) {
            manifest.sources.insert(name.clone(), source.clone());
        }
    }
    let mut watermarks: BTreeMap<&String, i64> = BTreeMap::new();
    for ack in acks {
        let node = &shared.plan.nodes[ack.node];
        match node.role {
            Role::Source => {
                let source: &mut SourceState = manifest.sources.entry(node.identity.clone()).or_default();
                source.partitions.extend(partition_states(ack));
                if let Some(watermark) = ack.watermark {
                    watermarks
                        .entry(&node.identity)
                        .and_modify(|w| *w = watermark.min(*w))
                        .or_insert(watermark);
                }
            }
            Role::Sink => {
                let parts = ack
                    .sinks
                    .iter()
                    .map(|(shard, text)| (*shard, serde_json::from_str(text).unwrap_or_default()));
                manifest.sinks.entry(node.identity.clone()).or_default().extend(parts);
            }
            Role::Operator => {}
        }
        if let Some(file) = state_file(ack) {
            manifest.state.entry(node.identity.clone()).or_default().push(file);
        }
    }
    for (name, watermark) in watermarks {
        if let Some(source) = manifest.sources.get_mut(name) {
            source.watermark = Some(watermark);
        }
    }
    manifest
}

/// A wall-clock time as RFC 3339.
pub fn rfc3339(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Millis, true)
}
