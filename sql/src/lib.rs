//! SQL over the archive: DataFusion, functions for traders, and a server that speaks the Postgres protocol.
//!
//! [`Engine`] is the door: it opens an archive, takes files as tables, and answers read-only SQL within
//! a memory limit. What it adds to DataFusion's SQL: the functions of [`functions`], `ASOF JOIN` and the
//! table functions `asof_join` and `gap_fill`.
//!
//! Never: writes anything, or gives other rows for other partitions, batch sizes or memory limits.

mod asof;
pub mod config;
pub mod engine;
pub mod error;
pub mod functions;
pub mod output;
pub mod rows;
#[cfg(feature = "server")]
pub mod server;
pub mod tables;

mod gap_fill;
mod intervals;
mod planner;
mod relations;
mod statement;

pub use config::EngineConfig;
pub use engine::{Engine, TableInfo};
pub use error::{ErrorKind, SqlError};
pub use rows::Rows;
