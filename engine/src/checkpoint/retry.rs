//! Storage that fails for a while is tried again: a checkpoint is worth some patience.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};

use crate::checkpoint::CheckpointError;

/// Tries after the first.
const TIMES: usize = 6;
/// Pause before the second try; each is twice the one before, give or take some chance, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(4);

impl CheckpointError {
    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Storage { may_pass: true, .. })
    }
}

/// Repeats `call` while it fails in a way that may pass, for some seconds in all: who asks again has patience of their own.
pub async fn retried<T, F>(mut call: impl FnMut() -> F) -> Result<T, CheckpointError>
where
    F: Future<Output = Result<T, CheckpointError>>,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(PAUSE)
        .with_max_delay(PAUSE_MAX)
        .with_max_times(TIMES)
        .with_jitter();
    (|| call())
        .retry(pauses)
        .when(CheckpointError::may_pass)
        .notify(|error, pause| tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "trying again"))
        .await
}
