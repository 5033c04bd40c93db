//! Worker 0's part: starts checkpoints, gathers their parts, commits them, ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use tokio::sync::mpsc;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::manifest::{Manifest, Reason, SourceState};
use crate::clock::Stopwatch;
use crate::registry::Role;
use crate::runtime::control::{Ack, Command, Report, Shared, partition_states, state_file};
use crate::runtime::job::JobError;
use crate::runtime::stall::Stalls;

/// Checkpoints that may fail one after the other before the run gives up.
const FAILURES_MAX: u32 = 5;

/// The state of a run as worker 0 knows it.
pub struct Coordinator {
    shared: Arc<Shared>,
    peers: usize,
    next_id: u64,
    since_last: Stopwatch,
    ended: BTreeSet<(usize, usize)>,
    stop_asked: bool,
    stalls: Stalls,
    open: Option<Open>,
    failures: u32,
    /// The last checkpoint is committed: there is nothing left to do.
    closed: bool,
    commits: (mpsc::UnboundedSender<Outcome>, mpsc::UnboundedReceiver<Outcome>),
}

type Outcome = (u64, Reason, Result<(), CheckpointError>);

struct Open {
    id: u64,
    reason: Reason,
    acks: Vec<Ack>,
    watch: Stopwatch,
    committing: bool,
}

impl Coordinator {
    /// The coordinator of a run of `peers` workers.
    pub fn new(shared: Arc<Shared>, peers: usize) -> Self {
        Self {
            next_id: shared.start.epoch,
            since_last: shared.clock.start(),
            peers,
            ended: BTreeSet::new(),
            stop_asked: false,
            stalls: Stalls::new(shared.options.stall_after, &shared.clock),
            open: None,
            failures: 0,
            closed: false,
            commits: mpsc::unbounded_channel(),
            shared,
        }
    }

    /// Takes a worker's report.
    pub fn report(&mut self, report: Report) {
        match report {
            Report::StopAsked => self.stop_asked = true,
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
        self.stalls.tick(&self.shared);
        while let Ok((id, reason, outcome)) = self.commits.1.try_recv() {
            self.open = None;
            self.since_last = self.shared.clock.start();
            match outcome {
                Ok(()) => {
                    self.failures = 0;
                    self.shared.metrics.count_checkpoint();
                    commands.push(Command::Committed { id });
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
        if self.open.is_none() && !self.closed {
            let sources = self.shared.plan.nodes.iter().filter(|n| n.role == Role::Source).count();
            let reason = if self.stop_asked {
                Some(Reason::Stop)
            } else if self.ended.len() == sources * self.peers {
                Some(Reason::End)
            } else if self.shared.store.is_some()
                && self.since_last.elapsed() >= self.shared.options.checkpoint_every
            {
                Some(Reason::Interval)
            } else {
                None
            };
            if let Some(reason) = reason {
                let id = self.next_id;
                self.next_id += 1;
                tracing::debug!(id, ?reason, "checkpoint begins");
                self.open = Some(Open {
                    id,
                    reason,
                    acks: Vec::new(),
                    watch: self.shared.clock.start(),
                    committing: false,
                });
                commands.push(Command::Checkpoint { id, halt: reason == Reason::Stop });
            }
        }
        commands
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
            };
            let _ = self.commits.0.send((id, reason, Err(error)));
            return;
        }
        let manifest = manifest(&self.shared, self.peers, id, reason, &open.acks);
        let (tx, store) = (self.commits.0.clone(), self.shared.store.clone());
        let took = open.watch.elapsed();
        self.shared.tokio.spawn(async move {
            crate::fault::point("before-manifest");
            let outcome = match &store {
                None => Ok(()),
                Some(store) => store.commit(&manifest).await,
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
            let _ = tx.send((id, reason, outcome));
            if let Some(store) = store
                && let Err(error) = store.prune().await
            {
                tracing::warn!(%error, "old checkpoints were not removed");
            }
        });
    }

    fn place(&self) -> String {
        self.shared.store.as_ref().map_or_else(|| "the sinks' storage".into(), |s| s.place())
    }

    fn failed(&mut self, id: u64, reason: Reason, error: CheckpointError) {
        self.failures += 1;
        let last = matches!(reason, Reason::Stop | Reason::End) || self.failures >= FAILURES_MAX;
        match error {
            fenced @ CheckpointError::Fenced { .. } => self.shared.fail(JobError::Fenced(fenced.to_string())),
            error if last => self.shared.fail(JobError::Checkpoint(error.to_string())),
            error => tracing::error!(id, %error, "a checkpoint has failed; the job goes on and tries again"),
        }
    }
}

fn manifest(shared: &Shared, peers: usize, id: u64, reason: Reason, acks: &[Ack]) -> Manifest {
    let mut manifest = Manifest {
        id,
        content: id,
        job: shared.plan.job.clone(),
        generation: shared.start.generation,
        run: shared.start.run,
        committed_at: rfc3339(shared.clock.now_ns()),
        reason,
        workers: peers,
        graph: crate::plan::describe(&shared.plan),
        sources: BTreeMap::new(),
        state: BTreeMap::new(),
        sinks: BTreeMap::new(),
    };
    // Partitions that no instance has announced yet are where they were. Instances cannot say that:
    // none knows whether another has announced and moved on.
    for (name, source) in shared.start.manifest.iter().flat_map(|m| &m.sources) {
        if shared.plan.nodes.iter().any(|n| n.role == Role::Source && n.name == *name) {
            manifest.sources.insert(name.clone(), source.clone());
        }
    }
    for ack in acks {
        let node = &shared.plan.nodes[ack.node];
        match node.role {
            Role::Source => {
                let source: &mut SourceState = manifest.sources.entry(node.name.clone()).or_default();
                source.partitions.extend(partition_states(ack));
            }
            Role::Sink => {
                let parts = ack
                    .sinks
                    .iter()
                    .map(|(shard, text)| (*shard, serde_json::from_str(text).unwrap_or_default()));
                manifest.sinks.entry(node.name.clone()).or_default().extend(parts);
            }
            Role::Operator => {}
        }
        if let Some(file) = state_file(ack) {
            manifest.state.entry(node.name.clone()).or_default().push(file);
        }
    }
    manifest
}

/// A wall-clock time as RFC 3339.
pub fn rfc3339(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Millis, true)
}
