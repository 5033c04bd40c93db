//! The manifest: one checkpoint, by reference to its parts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decisions::Floor;

/// One checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Its id; ids of a job increase by one.
    pub id: u64,
    /// Id of the checkpoint whose content it has: its own, unless a run began with it.
    pub content: u64,
    /// The job.
    pub job: String,
    /// The generation that wrote it.
    pub generation: u64,
    /// The generation at which this run began from nothing.
    pub run: u64,
    /// Identity of the start that wrote it, random; 0 in old manifests.
    #[serde(default)]
    pub start: u64,
    /// Earlier starts whose decisions this one had not taken over yet when it was written.
    #[serde(default)]
    pub follows: Vec<u64>,
    /// When it was committed, RFC 3339.
    pub committed_at: String,
    /// Why it was written.
    pub reason: Reason,
    /// Workers that wrote it.
    pub workers: usize,
    /// What the graph looked like (see [`crate::plan::describe`]).
    pub graph: Value,
    /// Sources by node name.
    pub sources: BTreeMap<String, SourceState>,
    /// State files by node name, relative to the job's folder.
    pub state: BTreeMap<String, Vec<StateFile>>,
    /// What sink shards said, by node name.
    pub sinks: BTreeMap<String, Vec<(usize, Value)>>,
    /// Where a run began from nothing and has committed nothing of its own: what sink shards gave to the last checkpoint
    /// of the run before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub former: BTreeMap<String, Vec<(usize, Value)>>,
}

/// Why a checkpoint was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A run began (its content is that of the checkpoint it began from).
    Start,
    /// The interval had passed.
    Interval,
    /// The job was told to stop.
    Stop,
    /// All sources had ended.
    End,
    /// The run has let go of everything after its end; the next one begins from nothing. (A run
    /// killed between `End` and this goes on, and ends again without having written anything.)
    Closed,
}

/// Where a source stood.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct SourceState {
    /// Its watermark over all instances; `None` where it was not known or had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Its partitions.
    pub partitions: BTreeMap<u32, PartitionState>,
}

/// Where a partition stood.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PartitionState {
    /// Where to read on; null before the first chunk.
    pub position: Value,
    /// Newest event time seen, nanoseconds.
    pub max_ts: i64,
    /// One more than the last position read; `None` in old manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_seq: Option<u64>,
    /// Decisions that hold for rows which have not been read yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floors: Vec<Floor>,
    /// The `max_out_of_orderness` that its rows are judged by, nanoseconds; `None` in old manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_orderness_ns: Option<i64>,
}

/// One file of a node's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateFile {
    /// Where it is.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Keys in it.
    pub keys: u64,
}

impl Manifest {
    /// Bytes of state it refers to.
    pub fn state_bytes(&self) -> u64 {
        self.state.values().flatten().map(|f| f.bytes).sum()
    }

    /// Keys it holds state of.
    pub fn state_keys(&self) -> u64 {
        self.state.values().flatten().map(|f| f.keys).sum()
    }
}
