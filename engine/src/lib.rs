//! Tidemill's engine: from a graph in YAML to rows that are the same however it is run.
//!
//! `spec` -> `plan` -> `runtime` on timely dataflow, with checkpoints on object storage. The engine
//! names no component, does no IO but through object_store (and the scratch of [`state_memory`]), and reads time only through [`clock`].

pub mod checkpoint;
pub mod clock;
pub mod component;
pub mod connector;
pub mod dead_letter;
pub mod fault;
pub mod json;
pub mod keyed;
pub mod keys;
pub mod memory;
pub mod metrics;
pub mod operator;
pub mod params;
pub mod plan;
pub mod problem;
pub mod registry;
pub mod row;
pub mod runtime;
pub mod schema;
pub mod sink;
pub mod size;
pub mod source;
pub mod spec;
pub mod state_memory;
pub mod storage;
pub mod testing;

pub use tidemill_span as duration;
