//! Runs one operator on one worker: aligns its inputs, calls it, sends what it makes, snapshots it.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use timely::container::NoopBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::Activator;

use crate::checkpoint::state_file::NodeState;
use crate::clock::Stopwatch;
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, OperatorError, Output, Spilled};
use crate::plan::{Body, Exchange, Node};
use crate::runtime::align::Align;
use crate::runtime::control::{Ack, Local, Report};
use crate::runtime::input::{self, Input, RowStream};
use crate::runtime::rows::{self, Rows};
use crate::runtime::time::{Time, progress};
use crate::sink::Delivery;

/// Bytes of state encoded between two looks at the inputs.
const SNAPSHOT_SLICE_BYTES: usize = 256 * 1024;
/// Calls of the operator between two updates of the metrics of spilled keys.
const SPILLED_EVERY: u32 = 64;

/// An operator with what a checkpoint knows of it.
pub struct Prepared {
    operator: Box<dyn Operator>,
    align: Align,
}

/// Makes this worker's instance of `node` and restores it.
pub fn prepare(local: &Local, node: &Node) -> Result<Prepared, String> {
    let Body::Operator { plan, delivery } = &node.body else {
        return Err(format!("{} is no operator", node.name));
    };
    let schemas: Vec<_> = node.inputs.iter().map(|e| local.shared.plan.edge_schema(e)).collect();
    let keys = node.inputs.iter().zip(&schemas).enumerate().map(|(i, (edge, schema))| {
        let columns = match (&edge.exchange, &plan.distribution) {
            (Exchange::Key(columns), _) => columns.clone(),
            (_, crate::component::Distribution::Keyed(by)) => {
                by[i].iter().filter_map(|name| schema.index_of(name).ok()).collect()
            }
            _ => Vec::new(),
        };
        (schema.clone(), columns)
    });
    let epoch = local.shared.start.epoch;
    let ordered = *delivery == Delivery::Ordered || (plan.ordered && local.shared.still_out_of_order());
    let mut align = Align::new(keys.collect(), ordered, epoch);
    let mut operator = (plan.build)();
    if let Some(state) = operator.state() {
        let memory = &local.shared.memory;
        let part = memory.part(&node.name, state.can_spill()).map_err(|e| e.to_string())?;
        if let Some(part) = part {
            state.limit(part).map_err(|e| format!("{}: {e}", node.name))?;
        }
    }
    let state = local.shared.restored.take(node.id, local.index);
    for (group, bytes) in &state.groups {
        let target = operator
            .state()
            .ok_or_else(|| format!("{}: a checkpoint holds state, but it has none", node.name))?;
        target.restore(*group, bytes).map_err(|e| format!("{}: {e}", node.name))?;
    }
    for (port, batches) in state.held.iter().enumerate() {
        for bytes in batches {
            let batch = rows::decode(bytes).map_err(|e| e.to_string())?;
            if let Some(batch) = batch {
                align.restore(port, batch).map_err(|e| e.to_string())?;
            }
        }
    }
    Ok(Prepared { operator, align })
}

/// Adds `node` to the dataflow.
pub fn add<'scope>(
    scope: Scope<'scope, Time>,
    local: &Rc<Local>,
    node: &Node,
    prepared: Prepared,
    streams: Vec<RowStream<'scope>>,
) -> Result<RowStream<'scope>, String> {
    let epoch = local.shared.start.epoch;
    let mut builder = OperatorBuilder::new(node.name.clone(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let inputs: Vec<Input> = streams
        .into_iter()
        .zip(&node.inputs)
        .map(|(stream, edge)| input::add(&mut builder, stream, &edge.exchange, local.peers))
        .collect();
    let Prepared { operator, align } = prepared;
    let (output, stream) = builder.new_output::<Rows>();
    let output = OutputBuilder::<Time, NoopBuilder<Rows>>::from(output);
    let mut run = OperatorRun {
        local: local.clone(),
        id: node.id,
        name: node.name.clone(),
        inputs,
        align,
        operator,
        made: Output::new(node.schema.clone()),
        output,
        capability: None,
        watermark: i64::MIN,
        snapshot: None,
        activator,
        spilled: Spilled::default(),
        trims: 0,
    };
    builder.build(move |mut capabilities| {
        let start = Time { epoch, ts: i64::MIN };
        run.capability = capabilities.pop().map(|c| c.delayed(&start));
        move |frontiers| run.schedule(frontiers)
    });
    Ok(stream)
}

struct OperatorRun {
    local: Rc<Local>,
    id: usize,
    name: String,
    inputs: Vec<Input>,
    align: Align,
    operator: Box<dyn Operator>,
    made: Output,
    output: OutputBuilder<Time, NoopBuilder<Rows>>,
    /// Dropped when the run is over.
    capability: Option<Capability<Time>>,
    watermark: i64,
    snapshot: Option<Snapshot>,
    activator: Activator,
    /// What metrics know of spilled keys.
    spilled: Spilled,
    trims: u32,
}

struct Snapshot {
    id: u64,
    state: NodeState,
    bytes: usize,
    longest: std::time::Duration,
}

impl OperatorRun {
    fn metrics(&self) -> &NodeMetrics {
        self.local.shared.metrics.node(self.id)
    }

    fn schedule(&mut self, frontiers: &[MutableAntichain<Time>]) {
        if self.capability.is_none() || self.local.shared.failed() {
            self.capability = None;
            let mut drop_rows = |_, _| {};
            self.inputs.iter_mut().for_each(|input| input(&mut drop_rows));
            return;
        }
        if let Err(error) = self.step(frontiers) {
            self.local.fail(&self.name, error);
        }
    }

    fn step(&mut self, frontiers: &[MutableAntichain<Time>]) -> Result<(), OperatorError> {
        for (port, batch) in self.align.early()? {
            let mut inputs = vec![None; self.inputs.len()];
            inputs[port] = Some(batch);
            self.operator.process(&inputs, &mut self.made)?;
            self.send();
            self.trim()?;
        }
        let mut arrived = Vec::new();
        for (port, input) in self.inputs.iter_mut().enumerate() {
            input(&mut |time, batch| arrived.push((time, port, batch)));
        }
        for (time, port, batch) in arrived {
            let metrics = self.local.shared.metrics.node(self.id);
            metrics.rows_in.fetch_add(batch.num_rows() as u64, Relaxed);
            metrics.bytes_in.fetch_add(batch.get_array_memory_size() as u64, Relaxed);
            self.take(time, port, batch)?;
        }
        match progress(frontiers) {
            None => {
                // Nothing more can come: what is due has been sent when the watermark said END.
                self.capability = None;
            }
            Some(now) => {
                loop {
                    self.advance(self.align.watermark(now.ts))?;
                    if now.epoch <= self.align.epoch {
                        break;
                    }
                    self.begin_snapshot()?;
                    let rows = self.align.next_epoch();
                    // What these rows make is not in the snapshot, so it must not be in those behind:
                    // under the old epoch they would take it in, and a restart make it again.
                    let at = Time { epoch: self.align.epoch, ts: self.watermark };
                    if let Some(capability) = &mut self.capability {
                        capability.downgrade(&at);
                    }
                    for (time, port, batch) in rows {
                        self.take(time, port, batch)?;
                    }
                }
                let at = Time { epoch: self.align.epoch, ts: self.watermark };
                if let Some(capability) = &mut self.capability {
                    capability.downgrade(&at);
                }
            }
        }
        self.continue_snapshot()
    }

    fn take(&mut self, time: Time, port: usize, batch: RecordBatch) -> Result<(), OperatorError> {
        let (ready, null_keys) = self.align.accept(time, port, batch)?;
        if null_keys > 0 {
            let before = self.metrics().null_keys.fetch_add(null_keys, Relaxed);
            if before == 0 {
                tracing::warn!(
                    node = self.name,
                    "rows with a null in a key column are left out; they are counted as null_keys"
                );
            }
        }
        if let Some((port, batch)) = ready {
            let mut inputs = vec![None; self.inputs.len()];
            inputs[port] = Some(batch);
            self.operator.process(&inputs, &mut self.made)?;
            self.send();
            self.trim()?;
        }
        Ok(())
    }

    /// Makes the state's memory follow its limit.
    fn trim(&mut self) -> Result<(), OperatorError> {
        let Some(state) = self.operator.state() else { return Ok(()) };
        state.trim()?;
        self.trims = self.trims.wrapping_add(1);
        if self.trims.is_multiple_of(SPILLED_EVERY) {
            self.count_spilled();
        }
        Ok(())
    }

    fn count_spilled(&mut self) {
        let Some(now) = self.operator.state().and_then(|state| state.spilled()) else { return };
        let before = std::mem::replace(&mut self.spilled, now);
        self.metrics().spilled.change(before, now);
    }

    fn advance(&mut self, watermark: i64) -> Result<(), OperatorError> {
        if watermark <= self.watermark {
            return Ok(());
        }
        if let Some(ready) = self.align.release(watermark)? {
            self.operator.process(&ready, &mut self.made)?;
        }
        self.operator.advance(watermark, &mut self.made)?;
        self.send();
        self.trim()?;
        self.watermark = watermark;
        let held = self.align.held() as u64;
        let metrics = self.metrics();
        metrics.watermark.store(watermark, Relaxed);
        metrics.held.store(held, Relaxed);
        Ok(())
    }

    /// Sends what the operator has made, at the time of the last watermark it acted on: no row it
    /// makes is older.
    fn send(&mut self) {
        let Some(capability) = &self.capability else { return };
        let mut sent = 0;
        let mut session = self.output.activate();
        for batch in self.made.drain() {
            sent += batch.num_rows() as u64;
            session.session_with_builder(capability).give_container(&mut Rows::from(batch));
        }
        self.local.shared.metrics.node(self.id).rows_out.fetch_add(sent, Relaxed);
    }

    fn begin_snapshot(&mut self) -> Result<(), OperatorError> {
        // The coordinator starts no checkpoint before the last is committed, so none is under way.
        self.finish_snapshot_now()?;
        if let Some(state) = self.operator.state() {
            state.begin();
        }
        let held = self.align.snapshot();
        let held = held.iter().map(|port| port.iter().map(rows::encode).collect()).collect();
        self.snapshot = Some(Snapshot {
            id: self.align.epoch,
            state: NodeState { groups: Vec::new(), held },
            bytes: 0,
            longest: std::time::Duration::ZERO,
        });
        Ok(())
    }

    fn finish_snapshot_now(&mut self) -> Result<(), OperatorError> {
        while self.snapshot.is_some() {
            self.continue_snapshot()?;
        }
        Ok(())
    }

    /// Encodes another slice; the last one sends the whole off.
    fn continue_snapshot(&mut self) -> Result<(), OperatorError> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(()) };
        let watch: Stopwatch = self.local.shared.clock.start();
        let more = match self.operator.state() {
            Some(state) => state.next(SNAPSHOT_SLICE_BYTES)?,
            None => None,
        };
        snapshot.longest = snapshot.longest.max(watch.elapsed());
        if let Some(groups) = more {
            snapshot.bytes += groups.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            snapshot.state.groups.extend(groups);
            self.activator.activate();
            return Ok(());
        }
        let Some(snapshot) = self.snapshot.take() else { return Ok(()) };
        self.count_spilled();
        let keys = self.operator.state().map_or(0, |s| s.keys()) as u64;
        let metrics = self.metrics();
        metrics.state_keys.store(keys, Relaxed);
        metrics.state_bytes.store(snapshot.bytes as u64, Relaxed);
        metrics.stall_max_ns.fetch_max(snapshot.longest.as_nanos() as u64, Relaxed);
        let ack = Ack { id: snapshot.id, node: self.id, worker: self.local.index, ..Default::default() };
        store_state(&self.local, &self.name, ack, snapshot.state, keys);
        Ok(())
    }
}

/// Writes a node's state, then acknowledges. Nothing is written where there is nothing.
pub fn store_state(local: &Local, node: &str, mut ack: Ack, state: NodeState, keys: u64) {
    let reports = local.reports.clone();
    let store = local.shared.store.clone();
    let generation = local.shared.start.generation;
    let node = node.to_owned();
    let (Some(store), false) = (store, state.is_empty()) else {
        let _ = reports.send(Report::Ack(ack));
        return;
    };
    local.shared.tokio.spawn(async move {
        let encoded = tokio::task::spawn_blocking(move || state.encode()).await;
        let written = match encoded {
            Ok(Ok(bytes)) => {
                let size = bytes.len() as u64;
                let put = store.put_state(ack.id, generation, &node, ack.worker, bytes).await;
                put.map(|path| (path, size, keys)).map_err(|e| e.to_string())
            }
            Ok(Err(e)) => Err(e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        crate::fault::point("state-written");
        match written {
            Ok(state) => ack.state = Some(state),
            Err(e) => ack.error = Some(e),
        }
        let _ = reports.send(Report::Ack(ack));
    });
}
