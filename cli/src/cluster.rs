//! Several processes of one job on this machine: one starts, watches and restarts the others.
//!
//! The launcher finds where the run begins (so that all members agree). Launcher and member talk in lines of JSON over a
//! socket pair that is the member's standard input: the member listens on a port of its own choice and reports it, the
//! launcher then hands every member the list, a fresh secret and the start. When the socket closes, the launcher is gone
//! and the member ends at once. If a member fails, it reports the cause; all are ended, and start again together from the
//! last checkpoint if the failure may pass.

use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tidemill_engine::checkpoint::{CheckpointStore, StartFrom};
use tidemill_engine::plan::Plan;
use tidemill_engine::runtime::{FailureClass, JobError, RunOptions, Secret, Start, begin, close, still_ours};
use tokio_util::sync::CancellationToken;

use crate::commands::run::{Args, runtime, stop_on_signal};

mod member;
mod members;

pub use member::member;
use members::Members;

/// Restarts of all members in a row.
const RESTARTS_MAX: u32 = 10;

/// From the launcher to a member.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToMember {
    /// How the run begins.
    Welcome(Box<Welcome>),
    /// The job is to stop in order.
    Stop,
}

#[derive(Clone, Serialize, Deserialize)]
struct Welcome {
    process: usize,
    addresses: Vec<String>,
    secret: Secret,
    start: Start,
}

/// From a member to the launcher.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromMember {
    /// It listens.
    Listening { address: String },
    /// The run has failed.
    Failed { error: JobError },
}

/// How the members of a job have ended.
enum End {
    /// All of them in order.
    Done,
    /// Before the run had begun, because the job was to stop.
    NotBegun,
    /// With a cause.
    Failed(JobError),
    /// With an exit code, after a message of their own.
    Code(u8),
}

/// Starts the members of a job and waits for them.
pub fn launch(args: &Args, plan: Plan, options: RunOptions) -> anyhow::Result<ExitCode> {
    let runtime = runtime(1)?;
    let stop = CancellationToken::new();
    runtime.spawn(stop_on_signal(stop.clone()));
    let store = match &options.checkpoints {
        None => None,
        Some(c) => {
            let location = tidemill_engine::storage::open(&c.url, &c.base)?;
            Some(CheckpointStore::new(location, &plan.job, c.keep))
        }
    };
    let mut from = args.how.from.clone();
    let (mut attempt, mut begun_at, mut before) = (0, None, None);
    loop {
        let begun =
            runtime.block_on(begin(&plan, store.as_ref(), &from, args.how.changes(), before, &options.clock));
        let end = match begun {
            Err(error) => End::Failed(error),
            Ok(start) => {
                before = Some(start.start);
                from = StartFrom::Latest;
                // Failures count while nothing is committed between them.
                if begun_at.replace(start.checkpoint) != Some(start.checkpoint) {
                    attempt = 0;
                }
                Members::start(args.how.processes.into(), options.clock.clone())?.run(start, &stop)?
            }
        };
        let error = match end {
            End::Done => {
                if let (Some(store), Some(ours)) = (&store, before) {
                    runtime.block_on(close(store, ours, &options.clock))?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            End::NotBegun => return Ok(ExitCode::SUCCESS),
            End::Code(code) => return Ok(code.into()),
            End::Failed(error) => error,
        };
        let error = match &store {
            Some(store) => runtime.block_on(still_ours(store, before, error)),
            None => error,
        };
        let passes = error.class() == FailureClass::Transient;
        if !passes || store.is_none() || stop.is_cancelled() || attempt == RESTARTS_MAX {
            return Err(error).with_context(|| match attempt {
                0 => format!("job `{}` failed", plan.job),
                n => format!("job `{}` failed {} times in a row", plan.job, n + 1),
            });
        }
        let wait = Duration::from_millis(200 << attempt.min(6));
        attempt += 1;
        tracing::warn!(%error, attempt, "all processes restart from the last checkpoint");
        runtime.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// What a member's exit says where the member said nothing.
fn exited(process: usize, status: ExitStatus) -> End {
    const PANICKED: i32 = 101;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) if code != FailureClass::Transient.exit_code() && i32::from(code) != PANICKED => {
            End::Code(code)
        }
        _ => End::Failed(lost(process, status)),
    }
}

fn lost(process: usize, status: ExitStatus) -> JobError {
    JobError::Lost { process, reason: format!("it ended: {status}") }
}
