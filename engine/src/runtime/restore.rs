//! Finds, in the checkpoint a run starts from, the part of a node that belongs to one worker.

use arrow::array::{BooleanArray, RecordBatch};

use crate::checkpoint::state_file::NodeState;
use crate::keys::{KeyReader, owner};
use crate::plan::{Exchange, Node};
use crate::runtime::control::Local;
use crate::runtime::exchange::shard;
use crate::runtime::rows;

/// State of `node` for this worker, from whatever number of workers wrote it.
pub fn node_state(local: &Local, node: &Node) -> Result<NodeState, String> {
    let mut mine = NodeState::default();
    let (Some(manifest), Some(store)) = (&local.shared.start.manifest, &local.shared.store) else {
        return Ok(mine);
    };
    for file in manifest.state.get(&node.name).into_iter().flatten() {
        let bytes = local.shared.tokio.block_on(store.get_state(&file.path)).map_err(|e| e.to_string())?;
        let state = NodeState::decode(&bytes).map_err(|e| format!("{}: {e}", file.path))?;
        mine.groups
            .extend(state.groups.into_iter().filter(|(group, _)| owner(*group, local.peers) == local.index));
        for (port, batches) in state.held.into_iter().enumerate() {
            mine.held.resize_with(mine.held.len().max(port + 1), Vec::new);
            for bytes in batches {
                let batch = rows::decode(&bytes).map_err(|e| format!("{}: {e}", file.path))?;
                let Some(batch) = batch else { continue };
                let exchange = node.inputs.get(port).map_or(&Exchange::Stay, |edge| &edge.exchange);
                if let Some(part) = own_rows(local, exchange, &batch)? {
                    mine.held[port].push(rows::encode(&part));
                }
            }
        }
    }
    Ok(mine)
}

/// The rows of a batch that `exchange` would bring to this worker. Rows that stay where they are
/// have no owner: the first worker takes them.
fn own_rows(local: &Local, exchange: &Exchange, batch: &RecordBatch) -> Result<Option<RecordBatch>, String> {
    let worker_of = |group: u16| match exchange {
        Exchange::Key(_) => owner(group, local.peers),
        Exchange::Shard { shards, .. } => shard(group, *shards) % local.peers,
        Exchange::Stay => 0,
    };
    let columns = match exchange {
        Exchange::Key(columns) | Exchange::Shard { by: columns, .. } => columns.clone(),
        Exchange::Stay => Vec::new(),
    };
    let mut groups = Vec::new();
    KeyReader::new(columns).groups(batch, &mut groups);
    let mask: BooleanArray = groups.iter().map(|g| Some(worker_of(*g) == local.index)).collect();
    if mask.true_count() == 0 {
        return Ok(None);
    }
    arrow::compute::filter_record_batch(batch, &mask).map(Some).map_err(|e| e.to_string())
}
