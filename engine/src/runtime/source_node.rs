//! Runs one source instance on one worker: reads its partitions in event-time balance, stamps rows,
//! keeps watermarks, stops when too much is in flight, and remembers positions at every epoch.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use timely::container::NoopBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::scheduling::Activator;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::watch;

use crate::checkpoint::PartitionState;
use crate::checkpoint::decisions::Floor;
use crate::clock::Stopwatch;
use crate::component::Partitions;
use crate::dead_letter::{self, DeadLetter};
use crate::operator::END;
use crate::plan::{Body, Node};
use crate::runtime::control::{Ack, Local, Report};
use crate::runtime::floors::seq_range;
use crate::runtime::input::RowStream;
use crate::runtime::intake::{Intake, lift};
use crate::runtime::job::{BatchRows, JobError};
use crate::runtime::leads::Lead;
use crate::runtime::partition::Partition;
use crate::runtime::rows::Rows;
use crate::runtime::split_mix::SplitMix;
use crate::runtime::stall::Progress;
use crate::runtime::time::Time;
use crate::source::{Chunk, Position, SourceContext, SourceEvent, SourceLog};
use crate::spec::{OnError, SourceOptions};

mod coalesce;
mod decide;

/// Longest time a source holds its worker before others get a turn.
const TURN: Duration = Duration::from_millis(4);
/// How often a throttled source looks again.
const THROTTLE: Duration = Duration::from_micros(200);
/// How often a silent source looks how long it has been silent.
const IDLE_LOOK: Duration = Duration::from_millis(20);

/// The two streams of a source.
pub struct SourceStreams<'scope> {
    /// Its rows.
    pub rows: RowStream<'scope>,
    /// Its dead letters.
    pub dead_letters: RowStream<'scope>,
}

/// Adds `node` to the dataflow; spawns its connector where this worker runs an instance.
pub fn add<'scope>(
    scope: Scope<'scope, Time>,
    local: &Rc<Local>,
    node: &Node,
) -> Result<SourceStreams<'scope>, String> {
    let Body::Source { plan, options, ts_range } = &node.body else {
        return Err(format!("{} is no source", node.name));
    };
    let mut builder = OperatorBuilder::new(node.name.clone(), scope);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(address.clone());
    local.activators.borrow_mut().push(scope.activator_for(address.clone()));
    let (rows_out, rows) = builder.new_output::<Rows>();
    let (letters_out, dead_letters) = builder.new_output::<Rows>();
    let intake = Intake::new(&plan.columns, &node.schema, options, *ts_range).map_err(|e| e.to_string())?;
    let single = plan.partitions == Partitions::Single;
    let home = node.id % local.peers;
    let (instance, instances) = match single {
        true => (0, 1),
        false => (local.index, local.peers),
    };
    let reads = !single || local.index == home;
    let restored: BTreeMap<u32, PartitionState> = local
        .shared
        .start
        .manifest
        .iter()
        .filter_map(|m| m.sources.get(&node.identity))
        .flat_map(|s| s.partitions.iter().map(|(id, p)| (*id, p.clone())))
        .collect();
    let (event_tx, events) = mpsc::unbounded_channel();
    let wake = Mutex::new(scope.worker().sync_activator_for(address.to_vec()));
    let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        if let Ok(wake) = wake.lock() {
            let _ = wake.activate();
        }
    });
    let (commit_tx, commit_rx) = watch::channel(BTreeMap::new());
    let finished = Arc::new(AtomicBool::new(false));
    let positions: Uncommitted = Rc::default();
    let log = SourceLog::default();
    if reads {
        let context = SourceContext {
            name: node.identity.clone(),
            instance,
            instances,
            restored: restored
                .iter()
                .filter(|(_, p)| !p.position.is_null())
                .map(|(id, p)| (*id, p.position.clone()))
                .collect(),
            chunk_rows: local.shared.options.chunk_rows,
            clock: local.shared.clock.clone(),
            stop: local.shared.stop.clone(),
            committed: commit_rx,
            events: event_tx,
            wake: wake.clone(),
            counts: local.shared.metrics.node(node.id).counts.clone(),
            run: local.shared.start.run,
            generation: local.shared.start.generation,
            log: log.clone(),
        };
        let source = plan.source.clone();
        let shared = local.shared.clone();
        let name = node.name.clone();
        let wake_end = context.wake.clone();
        let well = finished.clone();
        let running = local.shared.tokio.spawn(async move { source.run(context).await });
        let reading = running.abort_handle();
        let task = local.shared.tokio.spawn(async move {
            let outcome = running.await;
            match outcome {
                Ok(Err(error)) if shared.stop.is_cancelled() => {
                    tracing::warn!(source = name, %error, "a source has not ended well");
                }
                _ if shared.stop.is_cancelled() => {}
                Ok(Ok(())) => well.store(true, Ordering::Release),
                Ok(Err(error)) => shared.fail(JobError::connector(&name, error)),
                Err(panic) => shared.fail(JobError::Panic(format!("source `{name}`: {panic}"))),
            }
            wake_end();
        });
        local.shared.sources.add(&node.name, task, reading);
        let told = positions.clone();
        local.on_commit.borrow_mut().push(Box::new(move |id| {
            let mut told = told.borrow_mut();
            while let Some((at, positions)) = told.pop_front() {
                if at == id {
                    let _ = commit_tx.send(positions);
                }
                if at >= id {
                    break;
                }
            }
        }));
    } else {
        drop(event_tx);
    }
    let seed = local.shared.options.batch_rows.seed(node.id as u64, local.index as u64);
    let epoch = local.shared.start.epoch;
    let mut run = SourceRun {
        local: local.clone(),
        id: node.id,
        name: node.identity.clone(),
        options: options.clone(),
        intake,
        events,
        finished,
        in_checkpoint: !restored.is_empty(),
        restored,
        begins: BTreeMap::new(),
        resumed: None,
        decided: mpsc::unbounded_channel(),
        wake,
        reported: false,
        partitions: Vec::new(),
        ready: !reads,
        reads,
        bounded: plan.bounded,
        epoch,
        watermark: i64::MIN,
        ended: false,
        rows_out: OutputBuilder::from(rows_out),
        letters_out: OutputBuilder::from(letters_out),
        capabilities: None,
        activator,
        positions,
        log,
        split: SplitMix::new(seed),
        opened: local.shared.clock.start(),
        looked: 0,
    };
    builder.build(move |capabilities| {
        let start = Time { epoch, ts: i64::MIN };
        let mut capabilities = capabilities.into_iter().map(|c| c.delayed(&start));
        run.capabilities = capabilities.next().zip(capabilities.next());
        move |_| run.schedule()
    });
    Ok(SourceStreams { rows, dead_letters })
}

/// Positions by partition, of checkpoints that are not committed yet.
type Uncommitted = Rc<RefCell<VecDeque<(u64, BTreeMap<u32, Position>)>>>;

/// A partition, and a decision about it that is durable.
type Decided = (u32, Floor);

struct SourceRun {
    local: Rc<Local>,
    id: usize,
    name: String,
    options: SourceOptions,
    intake: Intake,
    events: mpsc::UnboundedReceiver<SourceEvent>,
    /// The connector has returned well.
    finished: Arc<AtomicBool>,
    /// Partitions of the checkpoint that have not been announced yet.
    restored: BTreeMap<u32, PartitionState>,
    /// The checkpoint has partitions of this source.
    in_checkpoint: bool,
    /// Where partitions begin that are announced next.
    begins: BTreeMap<u32, Position>,
    /// What earlier attempts require; `None` until it is known.
    resumed: Option<decide::Resumed>,
    /// Decisions that are durable.
    decided: (mpsc::UnboundedSender<Decided>, mpsc::UnboundedReceiver<Decided>),
    wake: Arc<dyn Fn() + Send + Sync>,
    /// The coordinator knows that this instance is ready.
    reported: bool,
    partitions: Vec<Partition>,
    ready: bool,
    reads: bool,
    /// It ends by itself: however slow it is, its time is that of its rows.
    bounded: bool,
    epoch: u64,
    watermark: i64,
    ended: bool,
    rows_out: OutputBuilder<Time, NoopBuilder<Rows>>,
    letters_out: OutputBuilder<Time, NoopBuilder<Rows>>,
    /// For rows and for dead letters; dropped when the run is over.
    capabilities: Option<(Capability<Time>, Capability<Time>)>,
    activator: Activator,
    /// Positions of epochs not committed yet.
    positions: Uncommitted,
    /// What the connector keeps of what it cannot read again.
    log: SourceLog,
    split: SplitMix,
    opened: Stopwatch,
    /// As of the last report of progress.
    looked: u64,
}

impl SourceRun {
    fn schedule(&mut self) {
        if self.local.close.get() || self.local.shared.failed() {
            self.capabilities = None;
            self.partitions.clear();
            self.events.close();
            return;
        }
        if self.capabilities.is_none() {
            return;
        }
        if !self.prepared() {
            self.activator.activate_after(THROTTLE);
            return;
        }
        self.announced();
        self.take_decided();
        while self.epoch < self.local.epoch.get() {
            self.pass_epoch();
        }
        if self.ended || self.local.halt.get() || !self.ready || !self.local.emit.get() {
            self.report_progress();
            return;
        }
        match self.read() {
            Err(error) => self.local.shared.fail(error),
            Ok(next) => {
                self.pass_watermark();
                self.report_progress();
                match next {
                    Next::Again => self.activator.activate(),
                    Next::Later => self.activator.activate_after(THROTTLE),
                    Next::Wake => {}
                }
            }
        }
    }

    fn report_progress(&mut self) {
        if std::mem::replace(&mut self.looked, self.local.look.get()) == self.looked {
            return;
        }
        let (node, worker) = (self.id, self.local.index);
        let mut progress = match self.ready {
            true => Progress::of(node, worker, &self.partitions, &self.intake),
            false => Progress::opening(node, worker, &self.opened),
        };
        // A partition that is let go as idle is not waited for.
        if self.ready && self.options.idle_timeout.is_some() && self.watermark > i64::MIN {
            progress.behind = None;
        }
        progress.lead = self.lead();
        let _ = self.local.reports.send(Report::Progress(progress));
    }

    /// How far it has come by rows of its own, if it has had some.
    fn lead(&self) -> Option<Lead> {
        let newest = self.partitions.iter().map(|p| p.max_ts).max().filter(|newest| *newest > i64::MIN);
        // Of what has ended only the last row counts; an instance whose other partitions have no rows follows.
        let runs = self.partitions.iter().any(|p| !p.ended && p.max_ts > i64::MIN);
        newest.map(|newest| Lead { watermark: if runs { self.watermark } else { END }, newest })
    }

    fn pass_epoch(&mut self) {
        let id = self.epoch;
        self.epoch += 1;
        self.change_bounds(id);
        let mut ack = Ack { id, node: self.id, worker: self.local.index, ..Default::default() };
        let mut positions = BTreeMap::new();
        for p in &self.partitions {
            ack.partitions.push((p.id, p.position.to_string(), p.max_ts));
            // Also one that is still being written: a run that goes on from here decides the same.
            let floors = p.floors.list().into_iter().chain(p.deciding).collect();
            ack.floors.push((p.id, p.next_seq, floors));
            ack.out_of_orderness.push((p.id, p.intake(&self.intake).out_of_orderness_ns()));
            positions.insert(p.id, p.position.clone());
        }
        ack.watermark = Some(self.watermark).filter(|w| *w != END && !self.partitions.is_empty());
        self.positions.borrow_mut().push_back((id, positions));
        let at = Time { epoch: self.epoch, ts: self.watermark };
        if let Some((rows, letters)) = &mut self.capabilities {
            rows.downgrade(&at);
            letters.downgrade(&at);
        }
        self.acknowledge(ack);
    }

    /// Acknowledges a checkpoint, once the connector's own log holds what lies before its positions.
    fn acknowledge(&self, mut ack: Ack) {
        let reports = self.local.reports.clone();
        let Some(log) = self.log.get().cloned() else {
            let _ = reports.send(Report::Ack(ack));
            return;
        };
        self.local.shared.tokio.spawn(async move {
            if let Err(error) = log.sync().await {
                ack.error = Some(error.to_string());
            }
            let _ = reports.send(Report::Ack(ack));
        });
    }

    /// The watermark of a partition: no row of it will be older.
    fn partition_watermark(&self, p: &Partition) -> i64 {
        if p.ended { END } else { p.watermark(&self.intake) }
    }

    fn read(&mut self) -> Result<Next, JobError> {
        let turn = self.local.shared.clock.start();
        let sinks = self.local.sinks_watermark();
        let options = &self.local.shared.options;
        let (rows_max, bytes_max) = (options.in_flight_rows, options.in_flight_bytes);
        self.partitions.iter_mut().for_each(|p| p.in_flight.passed(sinks));
        let mut throttled = false;
        let mut order: Vec<usize> = (0..self.partitions.len()).collect();
        loop {
            // The partition that is furthest behind in event time goes first.
            order.sort_by_key(|i| self.partition_watermark(&self.partitions[*i]));
            let mut took = false;
            let bytes: usize = self.partitions.iter().map(|p| p.in_flight.bytes).sum();
            for i in &order {
                let p = &self.partitions[*i];
                if p.ended {
                    continue;
                }
                // One that everybody waits for is never throttled: nothing else could pass.
                let much = p.in_flight.rows > rows_max || bytes > bytes_max;
                if much && self.partition_watermark(p) > sinks {
                    throttled = true;
                    continue;
                }
                match self.next_chunk(*i) {
                    None | Some(Err(TryRecvError::Empty)) => {}
                    Some(Ok(chunk)) => {
                        let p = &mut self.partitions[*i];
                        let room = p.in_flight.room(rows_max, bytes_max.saturating_sub(bytes));
                        let chunk = coalesce::with_waiting(p, chunk, room).map_err(|e| JobError::Broken {
                            node: self.name.clone(),
                            reason: e.to_string(),
                        })?;
                        self.take(*i, chunk)?;
                        took = true;
                        break;
                    }
                    Some(Err(TryRecvError::Disconnected)) => {
                        let well = &self.partitions[*i].ended_well;
                        if well.load(Ordering::Acquire) || self.finished.load(Ordering::Acquire) {
                            self.partitions[*i].ended = true;
                            took = true;
                            break;
                        }
                    }
                }
            }
            if !took {
                // Silent partitions are let go also while the others wait for room: they may wait for these.
                let next = self.idle();
                return Ok(if throttled { Next::Later } else { next });
            }
            if turn.elapsed() > TURN {
                return Ok(Next::Again);
            }
        }
    }

    fn take(&mut self, i: usize, chunk: Chunk) -> Result<(), JobError> {
        let p = &mut self.partitions[i];
        p.position = chunk.position.clone();
        if let Some((_, last)) = seq_range(&chunk) {
            p.next_seq = last + 1;
        }
        if p.floors.is_empty() {
            return self.take_piece(i, chunk);
        }
        // All pieces at once: no checkpoint may come between them.
        for (floor, piece) in p.floors.pieces(chunk) {
            let p = &mut self.partitions[i];
            if let Some(floor) = floor {
                p.raise(&self.intake, floor);
            }
            self.take_piece(i, piece)?;
        }
        let p = &mut self.partitions[i];
        p.floors.absorb(p.next_seq);
        Ok(())
    }

    fn take_piece(&mut self, i: usize, chunk: Chunk) -> Result<(), JobError> {
        let metrics = self.local.shared.metrics.node(self.id);
        let p = &mut self.partitions[i];
        let broken =
            |e: arrow::error::ArrowError| JobError::Broken { node: self.name.clone(), reason: e.to_string() };
        let mut taken = p.intake(&self.intake).take(chunk, p.origin, p.max_ts).map_err(broken)?;
        // Floors have seen to it that nothing is sent below the watermark; should one be missing, this does.
        if self.watermark > i64::MIN && self.watermark != END {
            let (rows, late) = lift(taken.rows, self.watermark).map_err(broken)?;
            taken.rows = rows;
            taken.late += late;
        }
        p.max_ts = taken.max_ts;
        p.heard = taken.max_ts;
        p.quiet = self.local.shared.clock.start();
        metrics.late.fetch_add(taken.late, Relaxed);
        let mut letters = taken.diverted;
        if !taken.refused.is_empty() {
            metrics.dead_letters.fetch_add(taken.refused.len() as u64, Relaxed);
            match &self.options.on_error {
                OnError::Fail => {
                    let first = &taken.refused[0];
                    return Err(JobError::BadInput {
                        node: self.name.clone(),
                        partition: p.id,
                        position: first.seq,
                        reason: first.reason.clone(),
                    });
                }
                OnError::Skip => {}
                OnError::DeadLetter(_) => letters.extend(taken.refused),
            }
        }
        letters.sort_by_key(|l| l.seq);
        let rows = taken.rows.num_rows();
        p.in_flight.push(taken.max_ts, &taken.rows);
        metrics.rows_in.fetch_add(rows as u64, Relaxed);
        metrics.bytes_in.fetch_add(taken.rows.get_array_memory_size() as u64, Relaxed);
        metrics.rows_out.fetch_add(rows as u64, Relaxed);
        self.send(taken.rows);
        if !letters.is_empty() {
            self.send_letters(i, &letters);
        }
        Ok(())
    }

    fn send(&mut self, rows: RecordBatch) {
        let Some((capability, _)) = &self.capabilities else { return };
        let mut session = self.rows_out.activate();
        let mut start = 0;
        while start < rows.num_rows() {
            let size = match self.local.shared.options.batch_rows {
                BatchRows::AsRead => rows.num_rows(),
                BatchRows::Fixed(n) => n.max(1),
                BatchRows::Random { max, .. } => 1 + (self.split.next() % max.max(1) as u64) as usize,
            };
            let size = size.min(rows.num_rows() - start);
            session.session_with_builder(capability).give_container(&mut Rows::from(rows.slice(start, size)));
            start += size;
        }
    }

    fn send_letters(&mut self, i: usize, letters: &[DeadLetter]) {
        let Some((_, capability)) = &self.capabilities else { return };
        let floor = capability.time().ts;
        let letters: Vec<DeadLetter> =
            letters.iter().cloned().map(|l| DeadLetter { ts: l.ts.max(floor), ..l }).collect();
        let batch = dead_letter::batch(&self.name, self.partitions[i].id, &letters);
        self.letters_out.activate().session_with_builder(capability).give_container(&mut Rows::from(batch));
    }

    fn pass_watermark(&mut self) {
        let all_ended = self.partitions.iter().all(|p| p.ended)
            && (!self.partitions.is_empty() || !self.reads || self.finished.load(Ordering::Acquire));
        let awake = self.partitions.iter().filter(|p| !p.idle || p.ended);
        let lowest = awake.map(|p| self.partition_watermark(p)).min();
        let watermark = match lowest {
            Some(END) if !all_ended => self.silent_watermark().unwrap_or(END),
            Some(lowest) => lowest,
            None => self.silent_watermark().unwrap_or(END),
        };
        if watermark > self.watermark {
            self.watermark = watermark;
            let at = Time { epoch: self.epoch, ts: watermark };
            if let Some((rows, letters)) = &mut self.capabilities {
                rows.downgrade(&at);
                letters.downgrade(&at);
            }
            // An instance that reads nothing is at its end at once: that says nothing of the source.
            if !self.partitions.is_empty() {
                self.local.shared.metrics.node(self.id).watermark.store(watermark, Relaxed);
            }
        }
        if let Some(lead) = self.lead() {
            self.local.shared.leads.set(self.id, self.local.index, lead);
        }
        if all_ended && !self.ended && self.watermark == END {
            self.ended = true;
            let _ = self.local.reports.send(Report::Ended { node: self.id, worker: self.local.index });
        }
    }
}

enum Next {
    /// There is more: as soon as others have had a turn.
    Again,
    /// Too much is in flight.
    Later,
    /// The connector wakes the worker.
    Wake,
}

/// One more than the last position that a partition had read. Old manifests say it by positions that count rows.
fn next_seq(state: &PartitionState) -> u64 {
    let counted = || state.position.get("offset").unwrap_or(&state.position).as_u64();
    state.next_seq.or_else(counted).unwrap_or(0)
}
