//! What an [`crate::Engine`] is opened with.

use std::path::PathBuf;

/// Default memory limit of all queries together: 2 GiB.
pub const MEMORY_LIMIT_BYTES: usize = 2 << 30;

/// Default limit of what queries may spill to disk: 100 GiB.
pub const SPILL_LIMIT_BYTES: u64 = 100 << 30;

/// Settings of an engine; `EngineConfig::default()` is an engine without an archive.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// URL of the archive whose datasets are tables (`./archive`, `s3://bucket/prefix`).
    pub archive: Option<String>,
    /// Where relative paths start.
    pub base: PathBuf,
    /// What all queries that run at once may hold in memory, in bytes. Sorts, joins and groupings spill
    /// to disk before they reach it; a query that cannot do with it ends with an error.
    pub memory_limit_bytes: usize,
    /// Where queries spill; `None`: the system's folder for temporary files.
    pub spill_dir: Option<PathBuf>,
    /// The most that is spilled at once, in bytes.
    pub spill_limit_bytes: u64,
    /// How many threads' worth of work a query is split into; 0: the machine's cores.
    pub target_partitions: usize,
    /// Rows a batch.
    pub batch_rows: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            archive: None,
            base: PathBuf::from("."),
            memory_limit_bytes: MEMORY_LIMIT_BYTES,
            spill_dir: None,
            spill_limit_bytes: SPILL_LIMIT_BYTES,
            target_partitions: 0,
            batch_rows: 8192,
        }
    }
}
