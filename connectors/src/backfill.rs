//! Backfill: history into the archive, range by range.
//!
//! A [`History`] says which ranges it could bring ([`Work`]) and brings one at a time as batches of rows; the
//! [`driver`] leaves out what the dataset's log covers already, checks that nothing is missing between the rows
//! ([`continuity`]), and commits each range in one piece: it is in the archive whole, with the gaps found in
//! it, or not at all. So a backfill that is stopped, killed or run twice goes on where it was, and doubles nothing.
//!
//! Histories: [`rest`] with [`binance`], [`coinbase`], [`kraken`] (pure pagers); [`zip_dump`] (Binance's daily and
//! monthly files); [`files`] (CSV, JSON lines, Parquet by a [`mapping`]); [`kafka`] (topics by time).
//! **Rows are a function of the history alone**: not of the day on which it is fetched, of page borders or of retries.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidemill_archive::Covered;
use tokio::sync::mpsc;

pub mod binance;
pub mod coinbase;
pub mod columns;
pub mod continuity;
pub mod csv_file;
pub mod driver;
pub mod files;
pub mod jsonl_file;
pub mod kafka;
pub mod kraken;
pub mod mapping;
pub mod parquet_file;
pub mod ranges;
pub mod rest;
pub mod text;
pub mod venues;
pub mod zip_dump;
mod zip_rows;

use continuity::{Gap, Rule};
use ranges::{Cut, Span};

/// Batches between the one who reads and the one who writes.
pub const BATCHES_QUEUED_MAX: usize = 4;
/// Refused rows of a range whose reasons are kept.
const REASONS_MAX: usize = 5;

/// Why a range was not brought.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This range failed; others may not.
    #[error("{0}")]
    Range(String),
    /// There is no use in going on.
    #[error("{0}")]
    Stop(String),
    /// The user wants to stop.
    #[error("stopped")]
    Stopped,
}

/// Something that a history could bring: a symbol over a span of time, a file, a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Under what its ranges stand in the dataset's log; work of the same source and key shares them.
    pub source: String,
    /// Columns and values that all its rows have (`symbol` = `BTCUSDT`); with the source, its identity.
    pub key: Vec<(String, String)>,
    /// How it is shown.
    pub label: String,
    /// The event times that its rows may have.
    pub span: Span,
    /// The pieces it is brought in.
    pub cut: Cut,
    /// How much it is, in any unit that all work of the history shares (nanoseconds, bytes).
    pub size: u64,
    /// Its place in the history.
    pub index: usize,
}

/// A history.
#[async_trait]
pub trait History: Send + Sync {
    /// The columns of its rows; `ts` first.
    fn columns(&self) -> SchemaRef;
    /// The folders of a dataset that is made for it.
    fn partition_by(&self) -> Vec<String>;
    /// What a whole history looks like.
    fn rule(&self) -> Rule;
    /// All that it could bring of what the user asked for, in the order in which it should come; `there`: the
    /// ranges that the dataset has, for histories that must know more of them than what they leave out.
    async fn plan(&self, there: &[Covered], force: bool) -> Result<Vec<Work>, Failure>;
    /// Brings the rows of `work` in `piece`, in the history's order.
    async fn fetch(&self, work: &Work, piece: Span, out: &mut Rows) -> Result<(), Failure>;
}

/// Where a fetch puts its rows.
pub struct Rows {
    tx: mpsc::Sender<RecordBatch>,
    refused: Refused,
    gaps: Vec<Gap>,
    meter: Arc<Meter>,
    piece: Span,
}

impl Rows {
    /// Hands rows on, waiting while the archive is behind.
    pub async fn send(&mut self, rows: RecordBatch) -> Result<(), Failure> {
        self.meter.rows.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        self.tx.send(rows).await.map_err(|_| Failure::Stopped)
    }

    /// The same from a blocking thread.
    pub fn blocking_send(&mut self, rows: RecordBatch) -> Result<(), Failure> {
        self.meter.rows.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        self.tx.blocking_send(rows).map_err(|_| Failure::Stopped)
    }

    /// Counts a row that could not be read; the first reasons are kept.
    pub fn refuse(&mut self, reason: impl FnOnce() -> String) {
        self.refused.count += 1;
        if self.refused.reasons.len() < REASONS_MAX {
            self.refused.reasons.push(reason());
        }
    }

    /// Says how much of the piece is behind, in the work's unit.
    pub fn at(&mut self, done: u64) {
        self.meter.inside.store(done, Ordering::Relaxed);
    }

    /// The same where the unit is time.
    pub fn at_time(&mut self, ns: i64) {
        self.at(Span::new(self.piece.from, ns.min(self.piece.to)).length());
    }

    /// For readers that count what they have read themselves.
    fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// Itself, to be handed to another thread; what stays behind is closed.
    fn take(&mut self) -> Self {
        let (closed, _) = mpsc::channel(1);
        let closed = Self {
            tx: closed,
            refused: Refused::default(),
            gaps: Vec::new(),
            meter: self.meter.clone(),
            piece: self.piece,
        };
        std::mem::replace(self, closed)
    }

    /// Tells of something missing that the rows themselves do not show.
    pub fn gap(&mut self, gap: Gap) {
        self.gaps.push(gap);
    }
}

/// Rows that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// Why the first ones.
    pub reasons: Vec<String>,
}

/// How far a backfill is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Meter {
    /// Work in all, in the history's unit.
    pub size: AtomicU64,
    /// Work of pieces that are behind.
    pub done: AtomicU64,
    /// Work behind in the piece at hand.
    pub inside: AtomicU64,
    /// Rows read, of all pieces.
    pub rows: AtomicU64,
    /// Pieces in all.
    pub pieces: AtomicU64,
    /// Pieces behind.
    pub pieces_done: AtomicU64,
    /// Whether it has ended.
    pub ended: AtomicBool,
    label: Mutex<String>,
}

impl Meter {
    /// What is at hand.
    pub fn label(&self) -> String {
        self.label.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, label: String) {
        *self.label.lock().unwrap_or_else(PoisonError::into_inner) = label;
    }
}

/// Rows without a reader behind them, for tests of readers: what was sent is in the channel.
#[cfg(test)]
pub(crate) fn rows_for_test(queue: usize) -> (Rows, mpsc::Receiver<RecordBatch>) {
    let (tx, rx) = mpsc::channel(queue);
    let piece = ranges::WHOLE;
    (Rows { tx, refused: Refused::default(), gaps: Vec::new(), meter: Arc::default(), piece }, rx)
}
