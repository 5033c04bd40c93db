//! No sink writes before all sinks of the process are open: one that refuses to open (a folder that holds another run's files) must not
//! come after another has begun to replace what it had.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

/// Counts what is still to be opened.
#[derive(Debug)]
pub struct Opening {
    left: AtomicUsize,
    failed: AtomicBool,
    /// Largest so far; `i64::MIN`: none.
    horizon: AtomicI64,
    over: CancellationToken,
}

impl Opening {
    /// Waits for `n` [`done`](Self::done).
    pub fn new(n: usize) -> Self {
        Self {
            left: AtomicUsize::new(n),
            failed: AtomicBool::new(false),
            horizon: AtomicI64::new(i64::MIN),
            over: CancellationToken::new(),
        }
    }

    /// Waits for `n` more. Not to be called after the last one was done.
    pub fn add(&self, n: usize) {
        self.left.fetch_add(n, Ordering::AcqRel);
    }

    /// One is done, and remembers that it has written all rows below `horizon` in an earlier attempt.
    pub fn done(&self, horizon: Option<i64>) {
        self.horizon.fetch_max(horizon.unwrap_or(i64::MIN), Ordering::AcqRel);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.over.cancel();
        }
    }

    /// Once all are open: the largest time below which some sink has written everything in an earlier attempt.
    pub fn horizon(&self) -> Option<i64> {
        Some(self.horizon.load(Ordering::Acquire)).filter(|h| *h > i64::MIN)
    }

    /// The run has failed: nobody waits any more.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.over.cancel();
    }

    /// Waits until all are done; whether they are: else the run has failed.
    pub async fn all(&self) -> bool {
        self.over.cancelled().await;
        !self.failed.load(Ordering::Acquire)
    }
}
