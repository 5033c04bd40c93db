//! Writes a run's decisions about partitions (see [`crate::checkpoint::decisions`]), and reads those of the starts it follows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::decisions::Decision;
use crate::checkpoint::manifest::Manifest;
use crate::runtime::control::Shared;
use crate::runtime::floors::Floors;
use crate::runtime::job::JobError;

/// How often writing or reading decisions is tried before the run gives up.
const ATTEMPTS: u32 = 8;

/// What a run knows of decisions.
#[derive(Debug, Default)]
pub struct Decisions {
    known: OnceLock<Known>,
    files: AtomicU64,
}

/// What holds from the start of the run on.
#[derive(Debug, Default)]
pub struct Known {
    /// Floors of earlier starts, by source and partition.
    pub floors: BTreeMap<(String, u32), Floors>,
    /// Some sink has written all rows below this in an earlier attempt.
    pub horizon: Option<i64>,
}

/// Whether the run goes on from a checkpoint.
fn resumed(manifest: Option<&Manifest>) -> bool {
    manifest.is_some_and(|m| !m.sources.is_empty())
}

impl Decisions {
    /// What earlier starts decided; `None` until that is known. Sources announce nothing before it.
    pub fn known(&self) -> Option<&Known> {
        self.known.get()
    }
}

/// Finds what earlier starts decided. Where there are any, that waits until all sinks are open: then no older process can write any
/// more, and what it decided before that is complete.
pub fn load(shared: &Arc<Shared>) {
    if shared.store.is_none() || !resumed(shared.start.manifest.as_ref()) {
        let _ = shared.decisions.known.set(Known::default());
        return;
    }
    let shared = shared.clone();
    let tokio = shared.tokio.clone();
    tokio.spawn(async move {
        let sinks = shared.plan.nodes.iter().any(|n| n.role == crate::registry::Role::Sink);
        if sinks && !shared.opening.all().await {
            return;
        }
        let mut all = Vec::new();
        for (source, state) in shared.start.manifest.iter().flat_map(|m| &m.sources) {
            for (partition, state) in &state.partitions {
                let decision = |floor| Decision { source: source.clone(), partition: *partition, floor };
                all.extend(state.floors.iter().copied().map(decision));
            }
        }
        for start in &shared.start.follows {
            match read(&shared, *start).await {
                Ok(more) => all.extend(more),
                Err(error) => return failed(&shared, &error),
            }
        }
        // They are this start's from now on: the next one need not follow further back.
        let process = process(&shared);
        if let Err(error) = put(&shared, &format!("{process}-followed"), &all).await {
            return failed(&shared, &error);
        }
        let mut known = Known { floors: BTreeMap::new(), horizon: shared.opening.horizon() };
        for Decision { source, partition, floor } in all {
            known.floors.entry((source, partition)).or_default().add(floor);
        }
        let _ = shared.decisions.known.set(known);
    });
}

/// Makes a decision durable, then calls `done`; checkpoint `epoch` is the first to know of it. Where the job has no checkpoints it
/// takes effect at once.
pub fn write(shared: &Arc<Shared>, epoch: u64, decision: Decision, done: impl FnOnce() + Send + 'static) {
    if shared.store.is_none() {
        return done();
    }
    let shared = shared.clone();
    let tokio = shared.tokio.clone();
    tokio.spawn(async move {
        crate::fault::point("before-decision");
        let n = shared.decisions.files.fetch_add(1, Ordering::Relaxed);
        let name = format!("{epoch:020}-{}-{n}", process(&shared));
        match put(&shared, &name, &[decision]).await {
            Ok(()) => {
                crate::fault::point("after-decision");
                done();
            }
            Err(error) => failed(&shared, &error),
        }
    });
}

fn process(shared: &Shared) -> usize {
    shared.options.cluster.as_ref().map_or(0, |c| c.process)
}

async fn put(shared: &Shared, name: &str, decisions: &[Decision]) -> Result<(), CheckpointError> {
    let (Some(store), false) = (&shared.store, decisions.is_empty()) else { return Ok(()) };
    let mut attempt = 0;
    loop {
        match store.put_decisions(shared.start.start, name, decisions).await {
            Err(error) if again(shared, &mut attempt, &error).await => {}
            outcome => return outcome,
        }
    }
}

async fn read(shared: &Shared, start: u64) -> Result<Vec<Decision>, CheckpointError> {
    let Some(store) = &shared.store else { return Ok(Vec::new()) };
    let mut attempt = 0;
    loop {
        match store.decisions(start).await {
            Err(error) if again(shared, &mut attempt, &error).await => {}
            outcome => return outcome,
        }
    }
}

/// Waits before another attempt; whether there is to be one.
async fn again(shared: &Shared, attempt: &mut u32, error: &CheckpointError) -> bool {
    if *attempt >= ATTEMPTS || shared.failed() {
        return false;
    }
    let wait = Duration::from_millis(50 << *attempt);
    *attempt += 1;
    tracing::warn!(%error, attempt, wait_ms = wait.as_millis() as u64, "trying again");
    tokio::time::sleep(wait).await;
    true
}

fn failed(shared: &Shared, error: &CheckpointError) {
    shared.fail(JobError::transient("checkpoints", error.to_string()));
}
