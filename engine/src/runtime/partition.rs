//! A partition of a source on its worker: how far it has come, and what happens to time when it says nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::mpsc;

use crate::clock::Stopwatch;
use crate::runtime::floors::Floors;
use crate::source::{Chunk, Position};

/// One partition of a source.
pub struct Partition {
    /// Its number.
    pub id: u32,
    /// `_src` of its rows.
    pub origin: u64,
    /// Chunks that wait.
    pub queue: mpsc::Receiver<Chunk>,
    /// A chunk that waits for a decision.
    pub stash: Option<Chunk>,
    /// A closed queue is the end of the data.
    pub ended_well: Arc<AtomicBool>,
    /// Where to go on after the last chunk.
    pub position: Position,
    /// The time that it has reached.
    pub max_ts: i64,
    /// One more than the last position read.
    pub next_seq: u64,
    /// Decisions that hold for its next rows.
    pub floors: Floors,
    /// Read again from its position, it gives the same rows.
    pub replays: bool,
    /// A decision about it is being written.
    pub waiting: bool,
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
