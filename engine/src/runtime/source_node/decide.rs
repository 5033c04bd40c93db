//! Decisions about a source's partitions: which joined late, which are idle, which come back.
//!
//! Each is written before it takes effect (see [`crate::checkpoint::decisions`]). Meanwhile the partition's rows wait and the others
//! flow. What a replay may not decide by the clock again it waits for: rows that an earlier attempt has read.

use super::{IDLE_LOOK, Next, SourceRun};
use crate::checkpoint::PartitionState;
use crate::checkpoint::decisions::{Decision, Floor, Rule};
use crate::operator::END;
use crate::registry::Role;
use crate::row;
use crate::runtime::control::{Local, Report};
use crate::runtime::decisions;
use crate::runtime::floors::seq_range;
use crate::runtime::intake::Intake;
use crate::runtime::job::JobError;
use crate::runtime::partition::{InFlight, Partition};
use crate::source::{Chunk, SourceEvent};
use serde_json::Value;

/// What a resumed source must respect.
#[derive(Debug, Default)]
pub struct Resumed {
    /// Partitions that come back or join begin here at the earliest: the source's watermark in the checkpoint, and what sinks have
    /// written since.
    pub floor: Option<i64>,
    /// An earlier attempt has passed all partitions below this, so each has rows up to here, or is known to be idle.
    pub passed: Option<i64>,
}

impl SourceRun {
    /// Takes over what is known once all sinks are open. Whether it is.
    pub(super) fn prepared(&mut self) -> bool {
        if self.resumed.is_some() {
            return true;
        }
        let shared = self.local.shared.clone();
        let Some(known) = shared.decisions.known() else { return false };
        let mut resumed = Resumed::default();
        let manifest = shared.start.manifest.as_ref().filter(|m| !m.sources.is_empty());
        if let Some(source) = manifest.and_then(|m| m.sources.get(&self.name)) {
            let lowest = || source.partitions.values().map(|p| self.judge(p).watermark(p.max_ts)).min();
            resumed.floor = source.watermark.or_else(lowest).max(known.horizon);
            let decided_then = manifest.is_some_and(|m| !m.follows.is_empty());
            resumed.passed = known.horizon.filter(|_| decided_then && feeds_all_sinks(&self.local, self.id));
        }
        self.resumed = Some(resumed);
        true
    }

    /// What judges rows of a partition that a checkpoint knows.
    fn judge(&self, state: &PartitionState) -> Intake {
        self.intake.bounded_by(state.out_of_orderness_ns.unwrap_or(self.intake.out_of_orderness_ns()))
    }

    /// Has rows behind checkpoint `id` judged by the source's own `max_out_of_orderness`, where an earlier run had another. Rows that an
    /// earlier attempt has written are judged as they were then: they come again, or are left out, by their times. No row is
    /// sent by the new one before a checkpoint says from where on it holds, and no watermark goes back.
    pub(super) fn change_bounds(&mut self, id: u64) {
        let horizon = self.local.shared.decisions.known().and_then(|known| known.horizon);
        for p in &mut self.partitions {
            let Some(former) = &p.former else { continue };
            let watermark = former.watermark(p.max_ts);
            let decided = p.deciding.is_none() && p.floors.is_empty();
            if p.ended || !decided || horizon.is_some_and(|written| watermark < written) {
                continue;
            }
            tracing::debug!(
                source = self.name,
                partition = p.id,
                checkpoint = id,
                "max_out_of_orderness changes"
            );
            p.former = None;
            p.changed = Some(id);
            p.raise(&self.intake, watermark);
        }
    }

    /// The floor of a partition that joins or comes back now.
    fn floor(&self) -> i64 {
        let resumed = self.resumed.as_ref().and_then(|r| r.floor);
        self.watermark.max(resumed.unwrap_or(i64::MIN))
    }

    /// Takes announced partitions.
    pub(super) fn announced(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                SourceEvent::Begins(id, position) => {
                    self.begins.insert(id, position);
                }
                SourceEvent::Ready => self.ready = true,
                SourceEvent::Partition(id, queue, ended_well) => {
                    if self.ready && self.watermark == END {
                        // This instance holds nothing back any more; a restart gives the partition a floor.
                        self.local.shared.fail(JobError::transient(
                            &self.name,
                            format!("partition {id} has appeared; the job restarts to read it"),
                        ));
                        return;
                    }
                    self.join(id, queue, ended_well);
                }
            }
        }
        if self.ready && !self.reported {
            self.reported = true;
            let _ = self.local.reports.send(Report::Ready { node: self.id, worker: self.local.index });
        }
    }

    fn join(
        &mut self,
        id: u32,
        queue: crate::source::ChunkQueue,
        ended_well: std::sync::Arc<std::sync::atomic::AtomicBool>,
    ) {
        let restored = self.restored.remove(&id);
        let begins = self.begins.remove(&id);
        let replays = begins.is_some();
        let known = self.local.shared.decisions.known();
        let floors = known.and_then(|k| k.floors.get(&(self.name.clone(), id))).cloned().unwrap_or_default();
        // Sources that were in no checkpoint begin with all that they announce at first.
        let late = restored.is_none() && floors.is_empty() && (self.in_checkpoint || self.ready);
        let next_seq = restored.as_ref().map_or(0, super::next_seq);
        let mut max_ts = restored.as_ref().map_or(i64::MIN, |p| p.max_ts);
        // One that no checkpoint knows is judged as those beside it.
        let beside = || self.partitions.iter().find_map(|p| p.former.clone());
        let now = self.intake.out_of_orderness_ns();
        let former = match &restored {
            Some(state) => Some(self.judge(state)).filter(|intake| intake.out_of_orderness_ns() != now),
            None => beside(),
        };
        let position = begins.or(restored.map(|p| p.position)).unwrap_or(Value::Null);
        let mut floors = floors;
        floors.absorb(next_seq);
        if let Some(ts) = floors.at(next_seq) {
            max_ts = former.as_ref().unwrap_or(&self.intake).raise(max_ts, ts);
        }
        tracing::debug!(source = self.name, partition = id, %position, late, "reading partition");
        self.partitions.push(Partition {
            id,
            origin: row::origin(&self.name, id),
            queue,
            stash: None,
            ended_well,
            position,
            max_ts,
            next_seq,
            floors,
            former,
            changed: None,
            replays,
            deciding: None,
            ended: false,
            idle: false,
            quiet: self.local.shared.clock.start(),
            heard: max_ts,
            in_flight: InFlight::default(),
        });
        if late {
            let i = self.partitions.len() - 1;
            let floor = Floor { from_seq: 0, rule: Rule::Joined(self.floor()) };
            self.decide(i, floor);
        }
    }

    /// Writes a decision; the partition's rows wait for it. It holds the watermark where it will begin.
    fn decide(&mut self, i: usize, floor: Floor) {
        let p = &mut self.partitions[i];
        p.deciding = Some(floor);
        if let Some(ts) = floor.rule.ts() {
            p.idle = false;
            // Rows before the floor that still wait keep their own times.
            if floor.from_seq <= p.next_seq {
                p.raise(&self.intake, ts);
                p.heard = p.max_ts;
            }
        }
        tracing::debug!(source = self.name, partition = p.id, ?floor, "deciding");
        let decision = Decision { source: self.name.clone(), partition: p.id, floor };
        let (id, done, wake) = (p.id, self.decided.0.clone(), self.wake.clone());
        decisions::write(&self.local.shared, self.epoch, decision, move || {
            let _ = done.send((id, floor));
            wake();
        });
    }

    /// Lets decisions take effect that are durable now.
    pub(super) fn take_decided(&mut self) {
        while let Ok((id, floor)) = self.decided.1.try_recv() {
            let Some(p) = self.partitions.iter_mut().find(|p| p.id == id) else { continue };
            p.deciding = None;
            p.floors.add(floor);
            p.idle = floor.rule == Rule::Idle;
        }
    }

    /// The next chunk of a partition, unless it waits for a decision. `None` where there is nothing to take.
    pub(super) fn next_chunk(
        &mut self,
        i: usize,
    ) -> Option<Result<Chunk, tokio::sync::mpsc::error::TryRecvError>> {
        let committed = self.local.committed.get();
        let p = &mut self.partitions[i];
        if p.deciding.is_some() || p.changed.is_some_and(|id| committed < id) {
            return None;
        }
        p.changed = None;
        let chunk = match p.stash.take() {
            Some(chunk) => chunk,
            None => match p.queue.try_recv() {
                Ok(chunk) => chunk,
                Err(error) => return Some(Err(error)),
            },
        };
        let mark = p.floors.open_idle();
        match (seq_range(&chunk), mark) {
            (Some((_, last)), Some(mark)) if last >= mark => {
                p.stash = Some(chunk);
                let floor = Floor { from_seq: mark, rule: Rule::Woke(self.floor()) };
                self.decide(i, floor);
                None
            }
            _ => Some(Ok(chunk)),
        }
    }

    /// Nothing to read: lets silent partitions go.
    pub(super) fn idle(&mut self) -> Next {
        let timeout = self.options.idle_timeout.map(|t| t.std());
        if let Some(timeout) = timeout {
            for i in 0..self.partitions.len() {
                let p = &self.partitions[i];
                let silent = p.stash.is_none() && p.queue.is_empty() && p.quiet.elapsed() >= timeout;
                if p.ended || p.idle || p.deciding.is_some() || p.changed.is_some() || !silent {
                    continue;
                }
                // It was idle at this place before.
                if p.floors.open_idle() == Some(p.next_seq) {
                    self.partitions[i].idle = true;
                } else if self.may_idle(p) {
                    let floor = Floor { from_seq: p.next_seq, rule: Rule::Idle };
                    self.decide(i, floor);
                }
            }
        }
        if timeout.is_some() && self.partitions.iter().any(|p| !p.ended) {
            self.activator.activate_after(IDLE_LOOK);
        }
        Next::Wake
    }

    /// Whether the clock may decide that a partition is idle: not while rows are on their way that an earlier attempt has read.
    fn may_idle(&self, p: &Partition) -> bool {
        let passed = self.resumed.as_ref().and_then(|r| r.passed);
        let behind = passed.is_some_and(|passed| p.watermark(&self.intake) < passed);
        !p.replays || !(p.floors.expects_rows(p.next_seq) || behind)
    }

    /// How far the watermark may go while no partition has rows: to the newest row seen; of a live source whose partitions are all
    /// silent, on from there as fast as the clock. One that has never had a row goes with the job's other sources and its
    /// own other instances; those of other processes are known as of their last report.
    pub(super) fn silent_watermark(&self) -> Option<i64> {
        let timeout = self.options.idle_timeout.map(|t| t.std()).unwrap_or_default();
        let open = || self.partitions.iter().filter(|p| !p.ended);
        let of = |p: &Partition| {
            let mut newest = p.max_ts;
            if !self.bounded && p.idle && p.heard > i64::MIN {
                let beyond = p.quiet.elapsed().saturating_sub(timeout).as_nanos();
                newest = newest.max(p.heard.saturating_add(i64::try_from(beyond).unwrap_or(i64::MAX)));
            }
            p.intake(&self.intake).watermark(newest)
        };
        let newest = open().map(of).max()?;
        if newest > i64::MIN || !open().all(|p| p.idle) {
            return Some(newest);
        }
        Some(self.local.shared.leads.follow(&self.local.elsewhere.borrow()).unwrap_or(newest))
    }
}

/// Whether every sink waits for this source: then what a sink has written says how far the source had come.
fn feeds_all_sinks(local: &Local, source: usize) -> bool {
    let nodes = &local.shared.plan.nodes;
    let mut behind = vec![false; nodes.len()];
    behind[source] = true;
    for node in nodes {
        if node.inputs.iter().any(|edge| behind[edge.from]) {
            behind[node.id] = true;
        }
    }
    nodes.iter().filter(|n| n.role == Role::Sink).all(|n| behind[n.id])
}
