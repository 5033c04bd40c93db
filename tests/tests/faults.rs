//! Exactly once under faults: whatever is killed, stopped, slow, full, lost or changed on the way, what readers find is
//! what an undisturbed run gives them.
//!
//! A plan (`faults/plan.rs`) follows from its seed: a job over a real broker, and what goes wrong in each of its
//! runs. Afterwards the job runs to its end, and everything it wrote is compared. `TIDEMILL_PLANS` says how many plans
//! there are, `TIDEMILL_SEED` the first one's seed, `TIDEMILL_JOBS` how many run side by side.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and chooses instants of faults by the clock"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use perform::Performance;
use world::World;

#[path = "faults/copied.rs"]
mod copied;
#[path = "faults/input.rs"]
mod input;
#[path = "faults/job.rs"]
mod job;
#[path = "faults/perform.rs"]
mod perform;
#[path = "faults/plan.rs"]
mod plan;
#[path = "faults/running.rs"]
mod running;
#[path = "faults/world.rs"]
mod world;

/// Plans of a run without `TIDEMILL_PLANS`.
const PLANS: u64 = 40;
/// Failures after which no further plan begins.
const FAILURES_MAX: usize = 20;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn whatever_goes_wrong_readers_see_each_row_once() {
    let (seed, plans) = (number("TIDEMILL_SEED", 0), number("TIDEMILL_PLANS", PLANS));
    let jobs = number("TIDEMILL_JOBS", 4);
    let folder = tempfile::tempdir().unwrap();
    let Some(world) = World::new(folder.path().to_owned()) else { return };
    let (next, alone) = (AtomicU64::new(0), RwLock::new(()));
    let (failures, counts) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::<String, usize>::new()));
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= plans || failures.lock().unwrap().len() >= FAILURES_MAX {
                return;
            }
            let plan = plan::plan(seed + i);
            if plan.s3 && world.bucket.is_none() {
                continue;
            }
            // A broker that is restarted is every job's.
            let (_exclusive, _shared) = match plan.is_alone() {
                true => (Some(alone.write().unwrap()), None),
                false => (None, Some(alone.read().unwrap())),
            };
            let mut performance = Performance::new(&plan, &world);
            let outcome = performance.run();
            let story = performance.story.join("; ");
            for step in &plan.steps {
                *counts.lock().unwrap().entry(step.fault.name()).or_default() += 1;
            }
            match outcome {
                Ok(()) => {
                    eprintln!("{plan}\n  as undisturbed: {story}");
                    let _ = std::fs::remove_dir_all(&performance.job.folder);
                }
                Err(wrong) => {
                    let again = format!(
                        "TIDEMILL_SEED={} TIDEMILL_PLANS=1 cargo test --workspace --test faults -- --nocapture",
                        plan.seed
                    );
                    eprintln!(
                        "FAILED {plan}\n  {story}\n{wrong}\n{}\nfiles: {}\nto repeat: {again}\n",
                        performance.job.log_tail(),
                        performance.job.folder.display()
                    );
                    failures.lock().unwrap().push(format!("plan {}: {wrong}", plan.seed));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    let done = next.into_inner().min(plans);
    eprintln!("{done} plans, {} of them failed: {:?}", failures.len(), counts.into_inner().unwrap());
    if !failures.is_empty() {
        let kept = folder.keep();
        panic!(
            "{} of {done} plans failed; files are in {}\n{}",
            failures.len(),
            kept.display(),
            failures.join("\n")
        );
    }
}
