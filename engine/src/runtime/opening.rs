//! No sink writes before all sinks of the job are open: one that refuses to open (a folder that holds another run's files)
//! must not come after another has begun to replace what it had. With several processes the control plane carries the
//! barrier: `local` is over when this process's sinks are open, `all` when those of every process are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Counts what is still to be opened.
#[derive(Debug)]
pub struct Opening {
    left: AtomicUsize,
    failed: AtomicBool,
    /// Sinks that are being opened, with how many of their shards.
    names: Mutex<BTreeMap<String, usize>>,
    /// `i64::MIN`: no sink remembers.
    horizon: AtomicI64,
    /// Other processes have sinks too.
    clustered: bool,
    local: CancellationToken,
    over: CancellationToken,
}

impl Opening {
    /// Waits for `n` [`done`](Self::done), and with `clustered` for [`release`](Self::release).
    pub fn new(n: usize, clustered: bool) -> Self {
        let opening = Self {
            left: AtomicUsize::new(n),
            failed: AtomicBool::new(false),
            names: Mutex::default(),
            horizon: AtomicI64::new(i64::MIN),
            clustered,
            local: CancellationToken::new(),
            over: CancellationToken::new(),
        };
        if n == 0 {
            opening.local_done();
        }
        opening
    }

    /// Waits for `n` more. Not to be called after the last one was done.
    pub fn add(&self, n: usize) {
        self.left.fetch_add(n, Ordering::AcqRel);
    }

    /// A shard of `sink` begins to open.
    pub fn begins(&self, sink: &str) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner).entry(sink.to_owned()).or_default() += 1;
    }

    /// A shard of `sink` is open.
    pub fn opened(&self, sink: &str, horizon: Option<i64>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shards) = names.get_mut(sink) {
            *shards -= 1;
        }
        names.retain(|_, shards| *shards > 0);
        drop(names);
        self.done(horizon);
    }

    /// Reports sinks of this process that are not open, again and again, until they are or the run has failed: no row is written
    /// before.
    pub async fn report(&self, every: Duration) {
        let mut waited = Duration::ZERO;
        loop {
            tokio::select! {
                () = self.local.cancelled() => return,
                () = self.over.cancelled() => return,
                () = tokio::time::sleep(every) => waited += every,
            }
            let sinks = self.unopened();
            tracing::warn!(
                "no row is written before all sinks are open: after {waited:?}, {sinks} still opens"
            );
        }
    }

    /// The sinks of this process that are being opened.
    pub fn unopened(&self) -> String {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = names.keys().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    }

    /// One is done. `horizon`: the time below which it has already written everything in an earlier attempt.
    pub fn done(&self, horizon: Option<i64>) {
        self.horizon.fetch_max(horizon.unwrap_or(i64::MIN), Ordering::AcqRel);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.local_done();
        }
    }

    fn local_done(&self) {
        self.local.cancel();
        if !self.clustered {
            self.over.cancel();
        }
    }

    /// The sinks of all processes are open.
    pub fn release(&self, horizon: Option<i64>) {
        self.horizon.fetch_max(horizon.unwrap_or(i64::MIN), Ordering::AcqRel);
        self.over.cancel();
    }

    /// The run has failed: waiting ends.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.over.cancel();
    }

    /// Waits until the sinks of this process are open.
    pub async fn local(&self) {
        self.local.cancelled().await;
    }

    /// Waits until all are done; whether they are: else the run has failed.
    pub async fn all(&self) -> bool {
        self.over.cancelled().await;
        !self.failed.load(Ordering::Acquire)
    }

    /// After [`all`](Self::all): the largest time below which some sink has already written everything in an earlier
    /// attempt; `None` where no sink remembers.
    pub fn horizon(&self) -> Option<i64> {
        Some(self.horizon.load(Ordering::Acquire)).filter(|h| *h != i64::MIN)
    }
}
