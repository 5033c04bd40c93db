//! The archive: datasets of Hive-partitioned Parquet on object storage, with a small catalog.
//!
//! An archive is a folder; each sub-folder is a dataset. A dataset's files are of two kinds:
//! - *foreign* files, put there whole by whoever (the `parquet` sink, another tool): they count as soon
//!   as they are there, unless the log has removed them;
//! - the archive's *own* files (`*.tm.parquet`, of backfills and compactions): they count only once the
//!   log in `<dataset>/_tidemill/` adds them.
//!
//! So work half done is invisible, and a compaction swaps many files for few in one atomic commit.
//! [`catalog`] finds datasets, [`dataset`] opens one, commits and takes snapshots, [`log`] is its
//! history, [`range`] writes rows that replace a range, [`compact`] and [`expire`] keep house,
//! [`holes`] looks for what is missing. Nothing here knows a connector or a graph.

pub mod catalog;
pub mod compact;
pub mod dataset;
pub mod encode;
mod error;
pub mod expire;
pub mod holes;
pub mod layout;
pub mod log;
pub mod name;
pub mod partition;
pub mod range;
pub mod read;
pub mod snapshot;
pub mod sort;
mod upload;

pub use catalog::Catalog;
pub use dataset::{Change, Dataset};
pub use error::ArchiveError;
pub use layout::Layout;
pub use log::{Covered, Gap, Origin, RangeKey};
pub use range::{RangeReport, RangeWriter, WriteOptions};
pub use snapshot::{FileEntry, Snapshot};

#[cfg(test)]
mod tests;
