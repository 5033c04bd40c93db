//! A partition of a source on its worker: how far it has come, and what happens to time when it says nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Stopwatch;
use crate::source::{Chunk, Position};

/// One partition of a source.
pub struct Partition {
    /// Its number.
    pub id: u32,
    /// `_src` of its rows.
    pub origin: u64,
    /// Chunks that wait.
    pub queue: mpsc::Receiver<Chunk>,
    /// A closed queue is the end of the data.
    pub ended_well: Arc<AtomicBool>,
    /// Where to go on after the last chunk.
    pub position: Position,
    /// The time that it has reached.
    pub max_ts: i64,
    /// There is no more.
    pub ended: bool,
    /// It has been silent for so long that it holds nobody back.
    pub idle: bool,
    /// Since the last chunk.
    pub quiet: Stopwatch,
    /// `max_ts` as of the last chunk.
    pub heard: i64,
    /// Rows sent whose effects may not have passed the sinks: newest `ts` and number.
    pub in_flight: VecDeque<(i64, usize)>,
    /// Their rows in all.
    pub in_flight_rows: usize,
}

/// Partitions silent for `timeout` hold nobody back. Where all of a live source's are, its time goes on from their newest rows, as
/// fast as the clock: what waits for it (another feed, a command to stop trading) is not held for ever by a feed that died.
pub fn let_go(partitions: &mut [Partition], timeout: Duration, bounded: bool) {
    for p in partitions.iter_mut() {
        p.idle = p.quiet.elapsed() >= timeout;
    }
    let silent = partitions.iter().all(|p| p.idle || p.ended);
    if bounded || !silent {
        return;
    }
    for p in partitions.iter_mut().filter(|p| !p.ended && p.heard > i64::MIN) {
        let beyond = p.quiet.elapsed().saturating_sub(timeout).as_nanos();
        p.max_ts = p.max_ts.max(p.heard.saturating_add(i64::try_from(beyond).unwrap_or(i64::MAX)));
    }
}
