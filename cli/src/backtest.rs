//! A backtest is the graph as it runs live, with history in place of its sources and the venue on paper.
//!
//! [`graph`] and [`sources`] change the graph before it is planned, [`runner`] plans and runs it, [`tap`] takes its rows.
//! [`account`] reads them, [`summary`] makes figures of them, [`tables`] Parquet, [`report`](crate::report) a page.
//! [`sweep`] and [`walk_forward`] run many variants, [`look_ahead`] asks whether anything knew the future.

pub mod account;
pub mod columns;
pub mod curve;
pub mod folds;
pub mod graph;
pub mod grid;
pub mod look_ahead;
pub mod notes;
pub mod pairing;
pub mod range;
pub mod recorded;
pub mod runner;
pub mod sources;
pub mod summary;
pub mod sweep;
pub mod tables;
pub mod tap;
pub mod walk_forward;
