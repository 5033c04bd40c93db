//! The memory of keyed state: one budget for the process, shared by the instances of its stateful nodes.
//!
//! Each instance of a node that can spill may always use an equal share of the budget, and besides what the others
//! leave unused; it gives that back when they need it, at its next call. What is beyond goes to a store on a local disk
//! ([`Scratch`]). Where no folder is set, a run whose state outgrows the budget fails with a reason, before the
//! operating system ends it without one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operator::OperatorError;
use crate::size::Size;

mod scratch;

pub use scratch::{Scratch, Table, View, Writes};

/// How much memory keyed state may take.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct StateOptions {
    /// Most memory for keyed state in a process, all its nodes and workers together: `512MiB`, `2GiB`. Left out, there
    /// is no limit. A run that needs more keeps the rest in `spill`; without `spill` it fails.
    pub memory: Option<Size>,
    /// Folder on a fast local disk for the state of keys that have had no row for a while. It holds nothing that must
    /// last: it is emptied when a run begins. Relative to the graph's file.
    pub spill: Option<String>,
}

impl StateOptions {
    /// With a folder that does not depend on where the process runs.
    pub fn at(&self, base: &Path) -> Self {
        let spill = self.spill.as_ref().map(|folder| base.join(folder).display().to_string());
        Self { spill, ..self.clone() }
    }
}

/// Why state cannot be kept as the graph says.
#[derive(Debug, thiserror::Error)]
pub enum StateMemoryError {
    /// Another live process has the folder.
    #[error(
        "the folder `{0}` is used by another running process of this job; give each its own `state.spill`"
    )]
    InUse(PathBuf),
    /// The folder cannot be used.
    #[error("state cannot be spilled to `{folder}`: {reason}; `state.spill` names a folder on a local disk")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// The disk is full.
    #[error(
        "the disk of `{0}` is full: state cannot be spilled; free space, set `state.spill` to a larger disk, or raise `state.memory`"
    )]
    Full(PathBuf),
    /// The store failed.
    #[error("spilled state in `{folder}` cannot be read or written: {reason}")]
    Store {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
}

impl From<StateMemoryError> for OperatorError {
    fn from(error: StateMemoryError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// The budget of a process. The default has no limit.
#[derive(Clone, Debug, Default)]
pub struct StateMemory(Option<Arc<Budget>>);

#[derive(Debug)]
struct Budget {
    /// As the user has set it.
    memory: Size,
    /// What of it keys in memory may take: the rest is for the store's buffers and cache.
    bytes: u64,
    scratch: Option<Scratch>,
    /// What instances have reported.
    used: AtomicU64,
    /// Instances that can spill.
    instances: AtomicU64,
}

impl StateMemory {
    /// The budget of `options`. A scratch folder is locked and emptied; `name` tells the job's processes apart.
    pub fn open(options: &StateOptions, name: &str) -> Result<Self, StateMemoryError> {
        let Some(memory) = options.memory else { return Ok(Self::default()) };
        let bytes = memory.bytes();
        let scratch = match &options.spill {
            Some(folder) => Some(Scratch::open(&Path::new(folder).join(name), bytes / 4)?),
            None => None,
        };
        let bytes = if scratch.is_some() { bytes - bytes / 4 } else { bytes };
        let (used, instances) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self(Some(Arc::new(Budget { memory, bytes, scratch, used, instances }))))
    }

    /// The part of one instance of a node; `None` where memory has no limit. `can_spill`: its keys may leave memory.
    pub fn part(&self, node: &str, can_spill: bool) -> Result<Option<StatePart>, StateMemoryError> {
        let Some(budget) = &self.0 else { return Ok(None) };
        let table = match &budget.scratch {
            Some(scratch) if can_spill => {
                budget.instances.fetch_add(1, Relaxed);
                Some(scratch.table()?)
            }
            _ => None,
        };
        Ok(Some(StatePart { node: node.to_owned(), budget: budget.clone(), reported: 0, table }))
    }
}

/// What one instance of a node may use of the budget.
#[derive(Debug)]
pub struct StatePart {
    node: String,
    reported: u64,
    /// Let go before the store.
    table: Option<Table>,
    budget: Arc<Budget>,
}

impl StatePart {
    /// Where its keys may go.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Reports how many bytes the instance takes; how many it may take. An error where that is more and it cannot spill.
    pub fn report(&mut self, bytes: u64) -> Result<u64, OperatorError> {
        let budget = &*self.budget;
        budget.used.fetch_add(bytes.wrapping_sub(self.reported), Relaxed);
        self.reported = bytes;
        let used = budget.used.load(Relaxed);
        let others = used.saturating_sub(bytes);
        if self.table.is_some() {
            let share = budget.bytes / budget.instances.load(Relaxed).max(1);
            return Ok(share.max(budget.bytes.saturating_sub(others)));
        }
        let memory = budget.memory;
        let node = &self.node;
        match &budget.scratch {
            None if used > budget.bytes => Err(OperatorError::Invalid(format!(
                "keyed state takes {} MiB, more than `state.memory: {memory}`; set `state.spill: FOLDER` on a fast local disk, or raise `state.memory`",
                used >> 20
            ))),
            Some(_) if bytes > budget.bytes => Err(OperatorError::Invalid(format!(
                "the state of `{node}` takes {} MiB of `state.memory: {memory}`, and this kind of node keeps all keys in memory; raise `state.memory`",
                bytes >> 20
            ))),
            _ => Ok(u64::MAX),
        }
    }
}

impl Drop for StatePart {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.reported, Relaxed);
        if let Some(table) = self.table.take() {
            self.budget.instances.fetch_sub(1, Relaxed);
            if let Err(error) = table.remove() {
                tracing::debug!(node = self.node, %error, "spilled keys were not removed");
            }
        }
    }
}

#[cfg(test)]
mod tests;
