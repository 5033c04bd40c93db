//! The control of a run from inside its process: what a server or a controller watches and steers it by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{CheckpointError, CheckpointStore, Manifest, SavepointName};
use crate::runtime::job::JobError;

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has not begun.
    #[default]
    Waiting,
    /// It runs.
    Running,
    /// It takes its last checkpoint.
    Stopping,
    /// It has failed in a way that may pass, and starts again.
    Restarting,
    /// It has ended in order.
    Ended,
    /// It has failed.
    Failed,
}

/// A reading of a run's status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Where it stands.
    pub phase: Phase,
    /// The last checkpoint that this process knows to be committed.
    pub checkpoint: Option<u64>,
    /// Restarts after failures that may pass.
    pub restarts: u64,
    /// The last failure.
    pub error: Option<JobError>,
}

/// A handle of one run. Clones steer the same run; put one into [`RunOptions`](crate::runtime::RunOptions) and keep another.
#[derive(Clone, Debug)]
pub struct Control {
    stop: CancellationToken,
    checkpoint: Arc<AtomicBool>,
    status: Arc<watch::Sender<Status>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            stop: CancellationToken::new(),
            checkpoint: Arc::default(),
            status: Arc::new(watch::Sender::new(Status::default())),
        }
    }
}

impl Control {
    /// Stops the job in order, in all its processes: it takes a last checkpoint.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Asks for a checkpoint as soon as none is under way; [`watch`](Self::watch) shows when it is committed.
    /// Does nothing in a job without checkpoints.
    pub fn checkpoint_now(&self) {
        self.checkpoint.store(true, Ordering::Release);
    }

    /// Takes a checkpoint and keeps it under `name` in `store`, the job's checkpoints. `None` where the run ended before one was committed.
    ///
    /// # Errors
    /// As [`CheckpointStore::pin`].
    pub async fn savepoint(
        &self,
        store: &CheckpointStore,
        name: &SavepointName,
        replace: bool,
    ) -> Result<Option<Manifest>, CheckpointError> {
        let mut status = self.watch();
        let before = status.borrow_and_update().checkpoint;
        self.checkpoint_now();
        let done = status
            .wait_for(|now| now.checkpoint > before || matches!(now.phase, Phase::Ended | Phase::Failed))
            .await;
        if done.is_ok_and(|now| now.checkpoint <= before) {
            return Ok(None);
        }
        store.pin(name, replace).await
    }

    /// The status now. Rows and lags are in the run's [`Metrics`](crate::metrics::Metrics).
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows the status.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether a checkpoint was asked for since the last look.
    pub(crate) fn take_checkpoint_request(&self) -> bool {
        // Read first: the workers look all the time.
        self.checkpoint.load(Ordering::Acquire) && self.checkpoint.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.status.send_modify(|status| {
            status.restarts += u64::from(phase == Phase::Restarting);
            status.phase = phase;
        });
    }

    pub(crate) fn failed(&self, error: &JobError) {
        self.status.send_modify(|status| status.error = Some(error.clone()));
    }

    pub(crate) fn committed(&self, id: u64) {
        self.status.send_if_modified(|status| {
            let newer = status.checkpoint.is_none_or(|known| id > known);
            if newer {
                status.checkpoint = Some(id);
            }
            newer
        });
    }
}
