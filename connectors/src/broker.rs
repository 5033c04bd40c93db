//! What every broker has in common, for its source of reports and its sink of orders.
//!
//! | module | what it is |
//! |---|---|
//! | [`reports`] | the rows of a report stream: what `execution` reads as `reports` |
//! | [`report_log`] | a durable log of these rows, so that a restart reads again what it had read |
//! | [`journal`] | what a sink is about to send, has sent, and was told: written before anything is sent |
//! | [`lines`] | a log of checked lines, in a local file or in object storage ([`segments`]) |
//! | [`place`] | which of the two |
//!
//! A venue's wire types live in its own folder.

pub mod journal;
pub mod lines;
pub mod place;
pub mod report_log;
pub mod reports;
pub mod segments;
