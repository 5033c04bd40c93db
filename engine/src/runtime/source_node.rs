//! Runs one source instance on one worker: reads its partitions in event-time balance, stamps rows,
//! keeps watermarks, stops when too much is in flight, and remembers positions at every epoch.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use serde_json::Value;
use timely::container::NoopBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::scheduling::Activator;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::watch;

use crate::clock::Stopwatch;
use crate::component::Partitions;
use crate::dead_letter::{self, DeadLetter};
use crate::operator::END;
use crate::plan::{Body, Node};
use crate::row;
use crate::runtime::control::{Ack, Local, Report};
use crate::runtime::input::RowStream;
use crate::runtime::intake::{Intake, lift};
use crate::runtime::job::{BatchRows, JobError};
use crate::runtime::partition::{self, Partition};
use crate::runtime::rows::Rows;
use crate::runtime::split_mix::SplitMix;
use crate::runtime::time::Time;
use crate::source::{Chunk, Position, SourceContext, SourceEvent, SourceLog};
use crate::spec::{OnError, SourceOptions};

/// Longest time a source holds its worker before others get a turn.
const TURN: Duration = Duration::from_millis(4);
/// How often a throttled source looks again.
const THROTTLE: Duration = Duration::from_micros(200);
/// How often a silent source looks how long it has been silent.
const IDLE_LOOK: Duration = Duration::from_millis(20);
/// A partition that holds the watermark back for this long is reported.
const STALL_REPORT: Duration = Duration::from_secs(30);

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
    let restored: BTreeMap<u32, (Position, i64)> = local
        .shared
        .start
        .manifest
        .iter()
        .filter_map(|m| m.sources.get(&node.name))
        .flat_map(|s| s.partitions.iter().map(|(id, p)| (*id, (p.position.clone(), p.max_ts))))
        .collect();
    let (event_tx, events) = mpsc::unbounded_channel();
    let (commit_tx, commit_rx) = watch::channel(BTreeMap::new());
    let finished = Arc::new(AtomicBool::new(false));
    let positions: Uncommitted = Rc::default();
    let log = SourceLog::default();
    if reads {
        let wake = scope.worker().sync_activator_for(address.to_vec());
        let wake = std::sync::Mutex::new(wake);
        let context = SourceContext {
            name: node.name.clone(),
            instance,
            instances,
            restored: restored
                .iter()
                .filter(|(_, (p, _))| !p.is_null())
                .map(|(id, (p, _))| (*id, p.clone()))
                .collect(),
            chunk_rows: local.shared.options.chunk_rows,
            clock: local.shared.clock.clone(),
            stop: local.shared.stop.clone(),
            committed: commit_rx,
            events: event_tx,
            wake: Arc::new(move || {
                if let Ok(wake) = wake.lock() {
                    let _ = wake.activate();
                }
            }),
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
        let task = local.shared.tokio.spawn(async move {
            let outcome = running.await;
            match outcome {
                _ if shared.stop.is_cancelled() => {}
                Ok(Ok(())) => well.store(true, Ordering::Release),
                Ok(Err(error)) => shared.fail(JobError::connector(&name, error)),
                Err(panic) => shared.fail(JobError::Panic(format!("source `{name}`: {panic}"))),
            }
            wake_end();
        });
        local.shared.sources.lock().unwrap_or_else(PoisonError::into_inner).push(task);
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
        name: node.name.clone(),
        options: options.clone(),
        intake,
        events,
        finished,
        restored,
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
        stalled: None,
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
    restored: BTreeMap<u32, (Position, i64)>,
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
    stalled: Option<Stopwatch>,
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
        self.announced();
        while self.epoch < self.local.epoch.get() {
            self.pass_epoch();
        }
        if self.ended || self.local.halt.get() || !self.ready {
            return;
        }
        match self.read() {
            Err(error) => self.local.shared.fail(error),
            Ok(next) => {
                self.pass_watermark();
                match next {
                    Next::Again => self.activator.activate(),
                    Next::Later => self.activator.activate_after(THROTTLE),
                    Next::Wake => {}
                }
            }
        }
    }

    fn announced(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                SourceEvent::Ready => self.ready = true,
                SourceEvent::Partition(id, queue, ended_well) => {
                    let (position, max_ts) =
                        self.restored.remove(&id).unwrap_or((Value::Null, self.watermark));
                    if self.ready && self.watermark == END {
                        // Nobody waits for this instance any more; a restart reads it from the beginning.
                        self.local.shared.fail(JobError::transient(
                            &self.name,
                            format!("partition {id} has appeared; the job restarts to read it"),
                        ));
                        return;
                    }
                    tracing::debug!(source = self.name, partition = id, %position, "reading partition");
                    self.partitions.push(Partition {
                        id,
                        origin: row::origin(&self.name, id),
                        queue,
                        ended_well,
                        position,
                        max_ts,
                        ended: false,
                        idle: false,
                        quiet: self.local.shared.clock.start(),
                        heard: max_ts,
                        in_flight: VecDeque::new(),
                        in_flight_rows: 0,
                    });
                }
            }
        }
    }

    fn pass_epoch(&mut self) {
        let id = self.epoch;
        self.epoch += 1;
        let mut ack = Ack { id, node: self.id, worker: self.local.index, ..Default::default() };
        let mut positions = BTreeMap::new();
        for p in &self.partitions {
            ack.partitions.push((p.id, p.position.to_string(), p.max_ts));
            positions.insert(p.id, p.position.clone());
        }
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
        if p.ended { END } else { self.intake.watermark(p.max_ts) }
    }

    fn read(&mut self) -> Result<Next, JobError> {
        let turn = self.local.shared.clock.start();
        let sinks = self.local.sinks_watermark();
        let limit = self.local.shared.options.in_flight_rows;
        for p in &mut self.partitions {
            while p.in_flight.front().is_some_and(|(ts, _)| *ts < sinks) {
                p.in_flight_rows -= p.in_flight.pop_front().map_or(0, |(_, rows)| rows);
            }
        }
        let mut throttled = false;
        let mut order: Vec<usize> = (0..self.partitions.len()).collect();
        loop {
            // The partition that is furthest behind in event time goes first.
            order.sort_by_key(|i| self.partition_watermark(&self.partitions[*i]));
            let mut took = false;
            for i in &order {
                let p = &self.partitions[*i];
                if p.ended {
                    continue;
                }
                // One that everybody waits for is never throttled: nothing else could pass.
                if p.in_flight_rows > limit && self.partition_watermark(p) > sinks {
                    throttled = true;
                    continue;
                }
                match self.partitions[*i].queue.try_recv() {
                    Ok(chunk) => {
                        self.take(*i, chunk)?;
                        took = true;
                        break;
                    }
                    Err(TryRecvError::Disconnected) => {
                        let well = &self.partitions[*i].ended_well;
                        if well.load(Ordering::Acquire) || self.finished.load(Ordering::Acquire) {
                            self.partitions[*i].ended = true;
                            took = true;
                            break;
                        }
                    }
                    Err(TryRecvError::Empty) => {}
                }
            }
            if !took {
                return Ok(if throttled { Next::Later } else { self.idle() });
            }
            if turn.elapsed() > TURN {
                return Ok(Next::Again);
            }
        }
    }

    /// Nothing to read: lets silent partitions go, or says who holds the watermark back.
    fn idle(&mut self) -> Next {
        let timeout = self.options.idle_timeout.map(|t| t.std());
        if let Some(timeout) = timeout {
            partition::let_go(&mut self.partitions, timeout, self.bounded);
        }
        if self.partitions.len() > 1 && timeout.is_none() {
            let newest = self.partitions.iter().map(|p| p.max_ts).max().unwrap_or(i64::MIN);
            let behind = |p: &&Partition| !p.ended && p.max_ts < newest && p.quiet.elapsed() > STALL_REPORT;
            let report = self.stalled.as_ref().is_none_or(|s| s.elapsed() > STALL_REPORT);
            if report && let Some(p) = self.partitions.iter().find(behind) {
                tracing::warn!(
                    source = self.name,
                    partition = p.id,
                    "a partition without rows holds the watermark back; set idle_timeout if that is expected"
                );
                self.stalled = Some(self.local.shared.clock.start());
            }
        }
        if timeout.is_some() && self.partitions.iter().any(|p| !p.ended) {
            self.activator.activate_after(IDLE_LOOK);
        }
        Next::Wake
    }

    fn take(&mut self, i: usize, chunk: Chunk) -> Result<(), JobError> {
        let metrics = self.local.shared.metrics.node(self.id);
        let p = &mut self.partitions[i];
        let position = chunk.position.clone();
        let broken =
            |e: arrow::error::ArrowError| JobError::Broken { node: self.name.clone(), reason: e.to_string() };
        let mut taken = self.intake.take(chunk, p.origin, p.max_ts).map_err(broken)?;
        // A partition that was let go as idle comes back: nothing may be sent below the watermark.
        if self.watermark > i64::MIN && self.watermark != END {
            let (rows, late) = lift(taken.rows, self.watermark).map_err(broken)?;
            taken.rows = rows;
            taken.late += late;
        }
        p.position = position;
        p.max_ts = taken.max_ts;
        p.heard = taken.max_ts;
        p.quiet = self.local.shared.clock.start();
        p.idle = false;
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
        if rows > 0 {
            p.in_flight.push_back((taken.max_ts, rows));
            p.in_flight_rows += rows;
        }
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
        // All idle: the newest row seen is as far as anyone may go.
        let newest =
            || self.partitions.iter().filter(|p| !p.ended).map(|p| self.intake.watermark(p.max_ts)).max();
        let watermark = match lowest {
            Some(END) if !all_ended => newest().unwrap_or(END),
            Some(lowest) => lowest,
            None => newest().unwrap_or(END),
        };
        if watermark > self.watermark {
            self.watermark = watermark;
            let at = Time { epoch: self.epoch, ts: watermark };
            if let Some((rows, letters)) = &mut self.capabilities {
                rows.downgrade(&at);
                letters.downgrade(&at);
            }
            self.local.shared.metrics.node(self.id).watermark.store(watermark, Relaxed);
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
