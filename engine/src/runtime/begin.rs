//! Where a run begins, and how it takes over the job: every start appends a manifest of its own.
//!
//! A start has a random identity, so two starts are told apart whatever their clocks say. Only one of two that begin at once
//! gets an id; the other looks again and takes over in turn, and the first is fenced at its next checkpoint. A process that
//! begins again after a failure may do so only while its own start is the newest: else another process has taken over, and
//! it must not take the job back.

use crate::checkpoint::manifest::{Manifest, Reason};
use crate::checkpoint::{CheckpointError, CheckpointStore, StartFrom};
use crate::clock::Clock;
use crate::plan::{Plan, StateChanges};
use crate::runtime::control::Start;
use crate::runtime::coordinator::rfc3339;
use crate::runtime::job::JobError;

impl From<CheckpointError> for JobError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Fenced { .. } => Self::Fenced(error.to_string()),
            passing if passing.may_pass() => Self::transient("checkpoints", passing.to_string()),
            lasting => Self::Checkpoint(lasting.to_string()),
        }
    }
}

/// A number that no other start has.
fn identity() -> u64 {
    rand::random::<u64>().max(1)
}

/// Finds where a run begins and takes over the job: from then on older runs are fenced. `changes` of state are allowed. `before` is the identity of this
/// process's previous start, if it had one: the answer is `Fenced` where another start has come since.
pub async fn begin(
    plan: &Plan,
    store: Option<&CheckpointStore>,
    from: &StartFrom,
    changes: StateChanges,
    before: Option<u64>,
    clock: &Clock,
) -> Result<Start, JobError> {
    let start = identity();
    let now_ms = (clock.now_ns() / 1_000_000).max(1) as u64;
    let Some(store) = store else {
        let (generation, run) = (now_ms, now_ms);
        let follows = Vec::new();
        return Ok(Start {
            generation,
            run,
            start,
            follows,
            fresh: true,
            resumed: false,
            checkpoint: 0,
            epoch: 1,
            manifest: None,
        });
    };
    store.probe(start).await?;
    loop {
        let last_id = store.ids().await?.last().copied().unwrap_or(0);
        let (last, damaged) = store.newest(u64::MAX).await?;
        if let (Some(before), Some(last)) = (before, &last)
            && last.start != before
        {
            return Err(superseded(&plan.job, last));
        }
        let chosen = choose(plan, store, from, last.as_ref()).await?;
        if let Some(manifest) = &chosen {
            crate::plan::compatible(&manifest.graph, plan, changes).map_err(|problems| {
                let list: Vec<String> = problems.iter().map(|p| format!("  {p}")).collect();
                JobError::Setup(format!(
                    "the graph has changed since checkpoint {} in a way its state cannot follow:\n{}\nrun with --from none to begin from nothing",
                    manifest.id,
                    list.join("\n")
                ))
            })?;
        }
        let id = last_id + 1;
        // Larger than any before; by the clock too, for what is left where the old checkpoints have been lost.
        let generation = now_ms.max(last.as_ref().map_or(0, |m| m.generation) + 1 + damaged);
        // Sources are in every checkpoint: where there are none, this run has committed nothing yet.
        let fresh = chosen.as_ref().is_none_or(|m| m.sources.is_empty());
        let resumed = chosen.is_some();
        let run = chosen.as_ref().map_or(generation, |m| m.run);
        let follows = match &chosen {
            Some(manifest) => followed(store, manifest, from).await?,
            None => Vec::new(),
        };
        let former = match (&chosen, last) {
            (Some(manifest), _) => manifest.former.clone(),
            (None, Some(last)) if last.sinks.is_empty() => last.former,
            (None, last) => last.map(|m| m.sinks).unwrap_or_default(),
        };
        let mut mark = chosen.unwrap_or_else(|| Manifest {
            id,
            content: last_id,
            job: plan.job.clone(),
            generation,
            run,
            start,
            follows: Vec::new(),
            committed_at: String::new(),
            reason: Reason::Start,
            workers: 0,
            graph: serde_json::Value::Null,
            sources: Default::default(),
            state: Default::default(),
            sinks: Default::default(),
            former,
        });
        let checkpoint = mark.content;
        mark.id = id;
        mark.generation = generation;
        mark.run = run;
        mark.start = start;
        mark.follows = follows.clone();
        mark.reason = Reason::Start;
        mark.committed_at = rfc3339(clock.now_ns());
        mark.graph = crate::plan::describe(plan);
        match store.commit(&mark).await {
            Ok(()) => {
                let manifest = Some(mark);
                let epoch = id + 1;
                return Ok(Start {
                    generation,
                    run,
                    start,
                    follows,
                    fresh,
                    resumed,
                    checkpoint,
                    epoch,
                    manifest,
                });
            }
            // Another run committed in between: look again.
            Err(CheckpointError::Fenced { .. }) => continue,
            Err(e) => return Err(e.into()),
        }
    }
}

/// Starts whose decisions hold for a run that goes on from `chosen`: of the one that wrote it, of those which that had not taken over
/// yet, and of the later ones of its run.
async fn followed(
    store: &CheckpointStore,
    chosen: &Manifest,
    from: &StartFrom,
) -> Result<Vec<u64>, JobError> {
    let mut starts = std::collections::BTreeSet::from([chosen.start]);
    starts.extend(&chosen.follows);
    if let StartFrom::Savepoint(name) = from {
        starts.extend(store.starts_since(name).await?);
    }
    for later in store.manifests().await?.into_iter().filter(|m| m.id > chosen.id && m.run == chosen.run) {
        starts.insert(later.start);
        starts.extend(&later.follows);
    }
    starts.remove(&0);
    Ok(starts.into_iter().collect())
}

/// The manifest whose content the run begins with.
async fn choose(
    plan: &Plan,
    store: &CheckpointStore,
    from: &StartFrom,
    last: Option<&Manifest>,
) -> Result<Option<Manifest>, JobError> {
    let mut candidate = match from {
        StartFrom::None => return Ok(None),
        StartFrom::Id(id) => {
            let missing = || CheckpointError::Missing { job: plan.job.clone(), id: *id };
            let manifest = store.manifest(*id).await?.ok_or_else(missing)?;
            return whole(store, manifest, format!("checkpoint {id}")).await;
        }
        StartFrom::Savepoint(name) => {
            return whole(store, store.savepoint(name).await?, format!("savepoint `{name}`")).await;
        }
        StartFrom::Latest => last.cloned(),
    };
    while let Some(manifest) = candidate {
        if manifest.reason == Reason::Closed {
            tracing::info!(checkpoint = manifest.id, "the last run had ended: this one begins from nothing");
            return Ok(None);
        }
        let Some(file) = store.lacks(&manifest).await? else { return Ok(Some(manifest)) };
        tracing::warn!(
            checkpoint = manifest.id,
            file,
            "a state file is missing or cut short: the checkpoint before it counts"
        );
        candidate = store.newest(manifest.id).await?.0;
        if candidate.is_none() {
            return Err(JobError::Checkpoint(format!(
                "no checkpoint in {} has all its state files; put them back, or run with --from none to begin from nothing",
                store.place()
            )));
        }
    }
    Ok(None)
}

/// A manifest that was asked for by name, if all its state files are there.
async fn whole(
    store: &CheckpointStore,
    manifest: Manifest,
    what: String,
) -> Result<Option<Manifest>, JobError> {
    match store.lacks(&manifest).await? {
        None => Ok(Some(manifest)),
        Some(file) => Err(JobError::Checkpoint(format!(
            "{what} cannot be used: its state file `{file}` is missing or cut short; `tidemill checkpoints` lists the others"
        ))),
    }
}

fn superseded(job: &str, by: &Manifest) -> JobError {
    JobError::Fenced(format!(
        "job `{job}` has been taken over by a newer run (generation {}, {}); this one must not begin again",
        by.generation, by.committed_at
    ))
}

/// What a failure of the start `ours` means, now that the newest manifest is looked at. A run that was fenced by one that has lost itself
/// (an older process that woke up late) is still the job's own, and may begin again; one that failed after it was superseded is
/// fenced, whatever it failed of.
pub async fn still_ours(store: &CheckpointStore, ours: Option<u64>, error: JobError) -> JobError {
    let (Some(ours), Ok((Some(last), _))) = (ours, store.newest(u64::MAX).await) else { return error };
    match (&error, last.start == ours) {
        (JobError::Fenced(reason), true) => JobError::transient("checkpoints", reason.clone()),
        (JobError::Fenced(_), false) => error,
        (_, false) if error.may_pass() => superseded(&last.job, &last),
        _ => error,
    }
}

/// Notes that the run which began with the start `ours` has ended and has closed its sinks, if that is how it came to its end.
pub async fn close(store: &CheckpointStore, ours: u64, clock: &Clock) -> Result<(), JobError> {
    let (Some(last), _) = store.newest(u64::MAX).await? else { return Ok(()) };
    // Stopped before its end, or a newer run has taken over.
    if last.start != ours || last.reason != Reason::End {
        return Ok(());
    }
    crate::fault::point("ended");
    let committed_at = rfc3339(clock.now_ns());
    let id = store.ids().await?.last().map_or(last.id, |id| *id) + 1;
    let mark = Manifest { id, reason: Reason::Closed, committed_at, ..last };
    Ok(store.commit(&mark).await?)
}
