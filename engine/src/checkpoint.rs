//! Checkpoints: what a job needs to go on as if nothing had happened.
//!
//! Under `<url>/<job>/` lie `manifests/<id>.json` (create-if-absent; the last one counts) and
//! `state/<id>/<generation>-<node>-<worker>.bin`, the decisions of each start (see [`decisions`]), and savepoints (see [`savepoint`]). A manifest is written last, so a checkpoint is whole
//! or absent. Every start appends a manifest of its own: from then on an older process of the job
//! (a zombie) finds its next id taken and learns that it is fenced.

pub mod decisions;
pub mod manifest;
mod retry;
pub mod savepoint;
pub mod state_file;
pub mod store;

pub use manifest::{Manifest, PartitionState, SourceState};
pub use savepoint::SavepointName;
pub use store::{CheckpointError, CheckpointStore, StartFrom};
