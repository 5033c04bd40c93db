//! Finds, in the checkpoint a run starts from, the part of each node that belongs to each worker of this process.
//!
//! Everything is read and checked before the dataflow is built: each file once, several at a time. What cannot be read
//! ends the run with the file's name and the node's, and never leaves half a dataflow behind.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use futures::{StreamExt, TryStreamExt};

use crate::checkpoint::CheckpointStore;
use crate::checkpoint::manifest::StateFile;
use crate::checkpoint::state_file::NodeState;
use crate::component::Distribution;
use crate::keys::{KeyReader, owner};
use crate::plan::{Body, Exchange, Node, Plan};
use crate::registry::Role;
use crate::runtime::control::Shared;
use crate::runtime::exchange::shard;
use crate::runtime::job::JobError;
use crate::runtime::rows;

/// State files that are read and decoded at once.
const FILES_AT_ONCE: usize = 4;

/// The state of this process's workers, until each has taken its own.
#[derive(Debug, Default)]
pub struct Restored(Mutex<BTreeMap<(usize, usize), NodeState>>);

impl Restored {
    /// The state of a node on a worker; nothing where it has none, or has taken it.
    pub fn take(&self, node: usize, worker: usize) -> NodeState {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.remove(&(node, worker)).unwrap_or_default()
    }

    fn add(&self, node: usize, part: Part) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (worker, mut part) in part {
            let state = states.entry((node, worker)).or_default();
            state.groups.append(&mut part.groups);
            state.held.resize_with(state.held.len().max(part.held.len()), Vec::new);
            for (port, mut batches) in part.held.into_iter().enumerate() {
                state.held[port].append(&mut batches);
            }
        }
    }
}

/// What a file holds, by worker.
type Part = BTreeMap<usize, NodeState>;

/// Reads the state of all nodes for the workers of this process.
pub fn load(shared: &Shared) -> Result<(), JobError> {
    let (Some(manifest), Some(store)) = (&shared.start.manifest, &shared.store) else { return Ok(()) };
    let workers = shared.options.workers.max(1);
    let (process, processes) =
        shared.options.cluster.as_ref().map_or((0, 1), |c| (c.process, c.addresses.len().max(1)));
    let split =
        Split { plan: shared.plan.clone(), first: process * workers, workers, peers: processes * workers };
    let mut files = Vec::new();
    for (name, parts) in &manifest.state {
        let of = |n: &&Node| n.identity == *name && n.role != Role::Source;
        let node = shared.plan.nodes.iter().find(of).map(|node| node.id);
        match node {
            Some(node) => files.extend(parts.iter().map(|file| (node, file))),
            // A sink that is gone leaves the rows it held.
            None => tracing::warn!(node = name, "the graph has this node no more: its state is left out"),
        }
    }
    shared.tokio.block_on(async {
        let reads = files.into_iter().map(|(node, file)| {
            let split = split.clone();
            async move {
                let part = read(store, node, file, split).await?;
                shared.restored.add(node, part);
                Ok::<_, JobError>(())
            }
        });
        futures::stream::iter(reads).buffer_unordered(FILES_AT_ONCE).try_collect::<()>().await
    })
}

async fn read(
    store: &CheckpointStore,
    node: usize,
    file: &StateFile,
    split: Split,
) -> Result<Part, JobError> {
    let bytes = store.get_state(&file.path).await?;
    let name = split.plan.nodes[node].name.clone();
    let done = tokio::task::spawn_blocking(move || split.part(node, &bytes)).await;
    let part = done.unwrap_or_else(|e| Err(e.to_string()));
    part.map_err(|reason| {
        JobError::Checkpoint(format!(
            "the state of `{name}` cannot be restored from `{}` in {}: {reason}; run with --from ID to begin from an older \
             checkpoint (`tidemill checkpoints` lists them)",
            file.path,
            store.place()
        ))
    })
}

/// Which workers take what.
#[derive(Clone)]
struct Split {
    plan: std::sync::Arc<Plan>,
    /// The first worker of this process.
    first: usize,
    workers: usize,
    peers: usize,
}

impl Split {
    fn part(&self, node: usize, bytes: &[u8]) -> Result<Part, String> {
        let node = &self.plan.nodes[node];
        let state = NodeState::decode(bytes).map_err(|e| e.to_string())?;
        let mine = |worker: usize| (self.first..self.first + self.workers).contains(&worker);
        let mut part = Part::new();
        for (group, bytes) in state.groups {
            let worker = owner(group, self.peers);
            if mine(worker) {
                part.entry(worker).or_default().groups.push((group, bytes));
            }
        }
        for (port, batches) in state.held.into_iter().enumerate() {
            let edge = node.inputs.get(port);
            if edge.is_none() && !batches.is_empty() {
                return Err(format!("it holds rows of input {port}, which `{}` does not have", node.name));
            }
            let exchange = &self.brought_by(node, port);
            for bytes in batches {
                let Some(batch) = rows::decode(&bytes).map_err(|e| e.to_string())? else { continue };
                for worker in (self.first..self.first + self.workers).filter(|w| mine(*w)) {
                    let Some(rows) = self.rows_of(worker, exchange, &batch)? else { continue };
                    let held = &mut part.entry(worker).or_default().held;
                    held.resize_with(held.len().max(port + 1), Vec::new);
                    held[port].push(rows::encode(&rows));
                }
            }
        }
        Ok(part)
    }

    /// How rows of an input come to their worker. Those of an operator by key are with its keys' owner, also where they need not
    /// move to get there.
    fn brought_by(&self, node: &Node, port: usize) -> Exchange {
        let Some(edge) = node.inputs.get(port) else { return Exchange::Stay };
        match (&edge.exchange, &node.body) {
            (Exchange::Stay, Body::Operator { plan, .. }) => match &plan.distribution {
                Distribution::Keyed(by) => {
                    let schema = self.plan.edge_schema(edge);
                    let names = by.get(port).into_iter().flatten();
                    Exchange::Key(names.filter_map(|name| schema.index_of(name).ok()).collect())
                }
                Distribution::Local => Exchange::Stay,
            },
            (exchange, _) => exchange.clone(),
        }
    }

    /// The rows of a batch that `exchange` would bring to a worker. Rows that stay where they are have no owner: the first
    /// worker takes them.
    fn rows_of(
        &self,
        worker: usize,
        exchange: &Exchange,
        batch: &RecordBatch,
    ) -> Result<Option<RecordBatch>, String> {
        let worker_of = |group: u16| match exchange {
            Exchange::Key(_) => owner(group, self.peers),
            Exchange::Shard { shards, .. } => shard(group, *shards) % self.peers,
            Exchange::Stay => 0,
        };
        let columns = match exchange {
            Exchange::Key(columns) | Exchange::Shard { by: columns, .. } => columns.clone(),
            Exchange::Stay => Vec::new(),
        };
        let mut groups = Vec::new();
        KeyReader::new(columns).groups(batch, &mut groups);
        let mask: BooleanArray = groups.iter().map(|g| Some(worker_of(*g) == worker)).collect();
        if mask.true_count() == 0 {
            return Ok(None);
        }
        arrow::compute::filter_record_batch(batch, &mask).map(Some).map_err(|e| e.to_string())
    }
}
