//! Runs one sink on one worker: aligns rows, hands them to the shards' tasks, and lets the run's
//! progress pass only as fast as the writers take them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::checkpoint::state_file::NodeState;
use crate::keys::KeyReader;
use crate::plan::{Body, Exchange, Node};
use crate::runtime::align::Align;
use crate::runtime::control::{Ack, Local};
use crate::runtime::exchange::shard;
use crate::runtime::hold::sorted;
use crate::runtime::input::{self, Input, RowStream};
use crate::runtime::job::JobError;
use crate::runtime::operator_node::store_state;
use crate::runtime::rows::{self, Rows};
use crate::runtime::sink_task::{SinkMessage, SinkTask};
use crate::runtime::time::{Time, progress};
use crate::sink::{Delivery, Placement, SinkContext};

/// Restores the rows that this worker's instance of `node` held.
pub fn prepare(local: &Local, node: &Node) -> Result<Align, String> {
    let Body::Sink { plan } = &node.body else { return Err(format!("{} is no sink", node.name)) };
    let epoch = local.shared.start.epoch;
    // A null key is a shard's business, not a reason to leave a row out: no key columns here.
    let ports = node.inputs.iter().map(|_| (node.schema.clone(), Vec::new())).collect();
    let mut align = Align::new(ports, plan.delivery == Delivery::Ordered, epoch);
    for (port, batches) in local.shared.restored.take(node.id, local.index).held.iter().enumerate() {
        for bytes in batches {
            if let Some(batch) = rows::decode(bytes).map_err(|e| e.to_string())? {
                align.restore(port, batch).map_err(|e| e.to_string())?;
            }
        }
    }
    Ok(align)
}

/// Adds `node` to the dataflow; the stream it gives carries no rows, only progress.
pub fn add<'scope>(
    scope: Scope<'scope, Time>,
    local: &Rc<Local>,
    node: &Node,
    align: Align,
    streams: Vec<RowStream<'scope>>,
) -> Result<RowStream<'scope>, String> {
    let Body::Sink { plan } = &node.body else { return Err(format!("{} is no sink", node.name)) };
    let mut builder = OperatorBuilder::new(node.name.clone(), scope);
    let address = builder.operator_info().address;
    let inputs: Vec<Input> = streams
        .into_iter()
        .zip(&node.inputs)
        .map(|(stream, edge)| input::add(&mut builder, stream, &edge.exchange, local.peers))
        .collect();
    let (_output, stream) = builder.new_output::<Rows>();
    let epoch = local.shared.start.epoch;
    let (count, by) = match &plan.placement {
        Placement::Local => (local.peers, Vec::new()),
        Placement::Shards { count, .. } => {
            let by = node.inputs.first().map(|e| &e.exchange);
            let by = if let Some(Exchange::Shard { by, .. }) = by { by.clone() } else { Vec::new() };
            ((*count).max(1), by)
        }
    };
    let own: Vec<usize> = match plan.placement {
        Placement::Local => vec![local.index],
        Placement::Shards { .. } => (0..count).filter(|s| s % local.peers == local.index).collect(),
    };
    let checkpoints = Rc::new(RefCell::new(Collected {
        local: local.clone(),
        node: node.id,
        name: node.name.clone(),
        shards: own.len(),
        open: BTreeMap::new(),
    }));
    local.shared.opening.add(own.len());
    local.shared.opening.done(None);
    let (part_tx, part_rx) = mpsc::unbounded_channel();
    let mut shards = Vec::new();
    for shard in own {
        let wake = Mutex::new(scope.worker().sync_activator_for(address.to_vec()));
        let wake = Arc::new(move || {
            if let Ok(wake) = wake.lock() {
                let _ = wake.activate();
            }
        });
        let (tx, messages) = mpsc::unbounded_channel();
        let done = Arc::new(AtomicI64::new(i64::MIN));
        let parts = part_tx.clone();
        let wake_parts = wake.clone();
        let task = SinkTask {
            shard,
            messages,
            done: done.clone(),
            wake: Box::new(move || wake()),
            checkpointed: Box::new(move |id, value| {
                let _ = parts.send((id, shard, value));
                wake_parts();
            }),
            policy: plan.flush,
            delivery: plan.delivery,
            clock: local.shared.clock.clone(),
        };
        spawn(local, node, plan.sink.clone(), task, count);
        shards.push(Shard { number: shard, tx, done });
    }
    for told in shards.iter().map(|s| s.tx.clone()) {
        let closed = told.clone();
        local.on_commit.borrow_mut().push(Box::new(move |id| drop(told.send(SinkMessage::Committed(id)))));
        local.on_close.borrow_mut().push(Box::new(move || drop(closed.send(SinkMessage::Close))));
    }
    let mut run = SinkRun {
        local: local.clone(),
        id: node.id,
        inputs,
        align,
        by: KeyReader::new(by),
        count,
        shards,
        capability: None,
        watermark: i64::MIN,
        ended: false,
        parts: part_rx,
        checkpoints,
    };
    builder.build(move |mut capabilities| {
        run.capability = capabilities.pop().map(|c| c.delayed(&Time { epoch, ts: i64::MIN }));
        move |frontiers| run.schedule(frontiers)
    });
    Ok(stream)
}

fn spawn(local: &Rc<Local>, node: &Node, sink: Arc<dyn crate::sink::Sink>, task: SinkTask, shards: usize) {
    let shared = local.shared.clone();
    let start = &shared.start;
    let of = |sinks: &std::collections::BTreeMap<String, Vec<(usize, serde_json::Value)>>| {
        sinks.get(&node.identity).cloned()
    };
    let restored = start.manifest.as_ref().and_then(|m| of(&m.sinks)).unwrap_or_default();
    let former = start.manifest.as_ref().and_then(|m| of(&m.former)).unwrap_or_default();
    let context = SinkContext {
        job: shared.plan.job.clone(),
        name: node.identity.clone(),
        shard: task.shard,
        shards,
        generation: start.generation,
        run: start.run,
        fresh: start.fresh,
        resumed: start.resumed,
        replayable: shared.plan.unreplayable(node.id).is_empty(),
        start_checkpoint: start.checkpoint,
        schema: node.schema.clone(),
        restored,
        former,
        base: shared.plan.base.clone(),
        clock: shared.clock.clone(),
    };
    let (name, opens) = (node.name.clone(), node.name.clone());
    let (failing, opening) = (shared.clone(), shared.clone());
    shared.opening.begins(&node.name);
    let running = async move {
        let mut writer = sink.open(context).await?;
        opening.opening.opened(&opens, writer.horizon());
        match opening.opening.all().await {
            true => {
                writer.started().await?;
                task.run(writer).await
            }
            false => Ok(()),
        }
    };
    let handle = local.shared.tokio.spawn(async move {
        if let Err(error) = running.await {
            failing.fail(JobError::connector(&name, error));
        }
    });
    let writing = handle.abort_handle();
    local.shared.tasks.add(&node.name, handle, writing);
}

struct Shard {
    number: usize,
    tx: UnboundedSender<SinkMessage>,
    done: Arc<AtomicI64>,
}

struct SinkRun {
    local: Rc<Local>,
    id: usize,
    inputs: Vec<Input>,
    align: Align,
    by: KeyReader,
    count: usize,
    shards: Vec<Shard>,
    capability: Option<Capability<Time>>,
    watermark: i64,
    /// The inputs have ended; the capability goes when the writers have taken everything.
    ended: bool,
    parts: mpsc::UnboundedReceiver<(u64, usize, serde_json::Value)>,
    checkpoints: Rc<RefCell<Collected>>,
}

impl SinkRun {
    fn schedule(&mut self, frontiers: &[MutableAntichain<Time>]) {
        if self.local.shared.failed() {
            self.capability = None;
            self.shards.clear();
        }
        while let Ok((id, shard, value)) = self.parts.try_recv() {
            self.checkpoints.borrow_mut().shard_done(id, shard, &value);
        }
        if self.capability.is_none() {
            self.inputs.iter_mut().for_each(|input| input(&mut |_, _| {}));
            return;
        }
        if let Err(error) = self.step(frontiers) {
            let name = self.checkpoints.borrow().name.clone();
            self.local.fail(&name, error);
        }
    }

    fn step(&mut self, frontiers: &[MutableAntichain<Time>]) -> Result<(), arrow::error::ArrowError> {
        for (_, batch) in self.align.early()? {
            self.send(batch)?;
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
            None => self.ended = true,
            Some(now) => loop {
                self.advance(self.align.watermark(now.ts))?;
                if now.epoch <= self.align.epoch {
                    break;
                }
                self.checkpoint();
                for (time, port, batch) in self.align.next_epoch() {
                    self.take(time, port, batch)?;
                }
            },
        }
        let taken =
            self.shards.iter().map(|s| s.done.load(Ordering::Acquire)).min().unwrap_or(self.watermark);
        if self.ended {
            // Closing (or END) lets go at once: the tasks are waited for by the job.
            self.capability = None;
        } else if let Some(capability) = &mut self.capability {
            let at =
                Time { epoch: self.align.epoch, ts: taken.min(self.watermark).max(capability.time().ts) };
            capability.downgrade(&at);
        }
        Ok(())
    }

    fn take(&mut self, time: Time, port: usize, batch: RecordBatch) -> Result<(), arrow::error::ArrowError> {
        if let (Some((_, batch)), _) = self.align.accept(time, port, batch)? {
            self.send(batch)?;
        }
        Ok(())
    }

    fn advance(&mut self, watermark: i64) -> Result<(), arrow::error::ArrowError> {
        if watermark <= self.watermark {
            return Ok(());
        }
        let ready: Vec<RecordBatch> =
            self.align.release(watermark)?.into_iter().flatten().flatten().collect();
        match ready.as_slice() {
            [] => {}
            [one] => self.send(one.clone())?,
            many => {
                let all = arrow::compute::concat_batches(&many[0].schema(), many)?;
                self.send(sorted(all)?)?;
            }
        }
        self.watermark = watermark;
        let metrics = self.local.shared.metrics.node(self.id);
        metrics.watermark.store(watermark, Relaxed);
        metrics.held.store(self.align.held() as u64, Relaxed);
        for shard in &self.shards {
            let _ = shard.tx.send(SinkMessage::Watermark(watermark));
        }
        Ok(())
    }

    fn send(&mut self, batch: RecordBatch) -> Result<(), arrow::error::ArrowError> {
        let rows = batch.num_rows() as u64;
        self.local.shared.metrics.node(self.id).rows_out.fetch_add(rows, Relaxed);
        if let [only] = self.shards.as_slice() {
            let _ = only.tx.send(SinkMessage::Rows(batch));
            return Ok(());
        }
        let mut groups = Vec::new();
        self.by.groups(&batch, &mut groups);
        for target in &self.shards {
            let rows: Vec<u32> = (0..groups.len() as u32)
                .filter(|row| shard(groups[*row as usize], self.count) == target.number)
                .collect();
            if !rows.is_empty() {
                let part = take_record_batch(&batch, &UInt32Array::from(rows))?;
                let _ = target.tx.send(SinkMessage::Rows(part));
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) {
        let id = self.align.epoch;
        let held = self.align.snapshot();
        let held = held.iter().map(|port| port.iter().map(rows::encode).collect()).collect();
        self.checkpoints.borrow_mut().begin(id, NodeState { groups: Vec::new(), held });
        for shard in &self.shards {
            let _ = shard.tx.send(SinkMessage::Checkpoint(id));
        }
    }
}

/// Gathers the shards' parts of a checkpoint; acknowledges when they are complete.
struct Collected {
    local: Rc<Local>,
    node: usize,
    name: String,
    shards: usize,
    open: BTreeMap<u64, (NodeState, Ack)>,
}

impl Collected {
    fn begin(&mut self, id: u64, state: NodeState) {
        let ack = Ack { id, node: self.node, worker: self.local.index, ..Default::default() };
        self.open.insert(id, (state, ack));
        self.close_if_complete(id);
    }

    fn shard_done(&mut self, id: u64, shard: usize, value: &serde_json::Value) {
        let Some((_, ack)) = self.open.get_mut(&id) else { return };
        ack.sinks.push((shard, value.to_string()));
        self.close_if_complete(id);
    }

    fn close_if_complete(&mut self, id: u64) {
        if self.open.get(&id).is_some_and(|(_, ack)| ack.sinks.len() == self.shards)
            && let Some((state, ack)) = self.open.remove(&id)
        {
            store_state(&self.local, &self.name, ack, state, 0);
        }
    }
}
