//! Runs a planned graph on timely dataflow.
//!
//! A row's way: `source_node` (stamped, watermarked) -> `exchange` (to its key's worker) ->
//! `operator_node` (aligned, ordered, processed) -> `sink_node` -> `sink_task` (written). Beside it
//! `coordinator` cuts checkpoints through all of them.

mod align;
mod begin;
mod cluster;
mod control;
mod coordinator;
mod decisions;
mod exchange;
mod failure;
mod floors;
mod hold;
mod input;
mod intake;
pub mod job;
mod leads;
mod opening;
mod operator_node;
mod partition;
mod restore;
mod rows;
mod sink_node;
mod sink_task;
mod source_node;
mod split_mix;
mod stall;
mod steering;
mod tasks;
mod time;
mod worker;

pub use begin::{begin, close, still_ours};
pub use cluster::{Cluster, Secret, Timing};
pub use control::Start;
pub use failure::FailureClass;
pub use job::{BatchRows, CheckpointOptions, JobError, RunOptions, run};
pub(crate) use partition::bytes;
pub use steering::{Control, Phase, Status};

#[cfg(test)]
mod tests;
