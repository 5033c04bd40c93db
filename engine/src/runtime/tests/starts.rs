//! Starts that cannot tie, zombies that stay down, and checkpoints that are damaged or out of reach for a while.

use std::sync::atomic::{AtomicI64, Ordering};

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::flaky::Flaky;
use super::*;
use crate::checkpoint::manifest::{Manifest, Reason};
use crate::checkpoint::{CheckpointError, CheckpointStore};
use crate::clock::Clock;
use crate::runtime::control::{Ack, Command, Report, Shared};
use crate::runtime::coordinator::Coordinator;
use crate::storage::Location;

struct Bench {
    files: Arc<Flaky>,
    store: CheckpointStore,
    plan: Plan,
    now: Arc<AtomicI64>,
}

impl Bench {
    fn new() -> Self {
        let files = Arc::new(Flaky::default());
        let store: Arc<dyn ObjectStore> = files.clone();
        let location = Location { store, path: Path::from("c"), display: "memory:c".into(), local: false };
        let now = Arc::new(AtomicI64::new(1_700_000_000_000_000_000));
        Self {
            files,
            store: CheckpointStore::new(location, "law", 5),
            plan: graph(&[vec![]], "0", false).0,
            now,
        }
    }

    async fn begin(&self, before: Option<u64>) -> Result<Start, JobError> {
        begin(
            &self.plan,
            Some(&self.store),
            &StartFrom::Latest,
            Default::default(),
            before,
            &Clock::Manual(self.now.clone()),
        )
        .await
    }

    /// Commits the next checkpoint of a start.
    async fn checkpoint(&self, start: &Start, id: u64) -> Result<(), CheckpointError> {
        let begun = start.manifest.clone().unwrap();
        let sources = [("rows".to_owned(), Default::default())].into();
        self.store.commit(&Manifest { id, content: id, reason: Reason::Interval, sources, ..begun }).await
    }

    async fn overwrite(&self, id: u64, with: &'static [u8]) {
        let path = Path::from(format!("c/law/manifests/{id:020}.json"));
        self.files.put(&path, with.into()).await.unwrap();
    }
}

#[tokio::test]
async fn two_starts_in_one_instant_are_told_apart() {
    let bench = Bench::new();
    for _ in 0..20 {
        let (a, b) = tokio::join!(bench.begin(None), bench.begin(None));
        let (mut a, mut b) = (a.unwrap(), b.unwrap());
        if a.epoch > b.epoch {
            std::mem::swap(&mut a, &mut b);
        }
        assert!(a.start != b.start && a.generation < b.generation && a.epoch < b.epoch);
        let fenced = bench.checkpoint(&a, a.epoch).await.unwrap_err();
        assert!(matches!(fenced, CheckpointError::Fenced { .. }), "{fenced}");
        bench.checkpoint(&b, b.epoch).await.unwrap();
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_fences_only_the_past() {
    let bench = Bench::new();
    bench.now.fetch_add(400 * 86_400 * 1_000_000_000, Ordering::SeqCst);
    let ahead = bench.begin(None).await.unwrap();
    bench.now.store(1_700_000_000_000_000_000, Ordering::SeqCst);
    let a = bench.begin(None).await.unwrap();
    let b = bench.begin(None).await.unwrap();
    assert!(ahead.generation < a.generation && a.generation < b.generation);
    assert!(bench.checkpoint(&a, a.epoch).await.is_err());
    bench.checkpoint(&b, b.epoch).await.unwrap();
}

#[tokio::test]
async fn a_superseded_run_does_not_begin_again() {
    let bench = Bench::new();
    let a = bench.begin(None).await.unwrap();
    bench.checkpoint(&a, a.epoch).await.unwrap();
    // Its own restart after a failure is fine.
    let a = bench.begin(Some(a.start)).await.unwrap();
    let b = bench.begin(None).await.unwrap();
    let again = bench.begin(Some(a.start)).await.unwrap_err();
    assert!(matches!(again, JobError::Fenced(_)), "{again}");
    let failed = || JobError::transient("out", "input/output error".into());
    assert!(matches!(still_ours(&bench.store, Some(a.start), failed()).await, JobError::Fenced(_)));
    assert!(still_ours(&bench.store, Some(b.start), failed()).await.may_pass());
    // One that a late zombie has fenced is still the job's own.
    let fenced = JobError::Fenced("a newer run has taken over topic `t`".into());
    assert!(still_ours(&bench.store, Some(b.start), fenced.clone()).await.may_pass());
    assert!(matches!(still_ours(&bench.store, Some(a.start), fenced).await, JobError::Fenced(_)));
    bench.begin(Some(b.start)).await.unwrap();
}

/// Given a run whose checkpoints failed while another start took over, when its store answers again, then it is fenced, however
/// many ids it has passed over; where none has taken over it goes on.
#[tokio::test]
async fn checkpoints_that_failed_leave_no_way_back_into_the_job() {
    let bench = Bench::new();
    let a = bench.begin(None).await.unwrap();
    let commit = async |last: &Manifest, id: u64| {
        let manifest = Manifest { id, content: id, reason: Reason::Interval, ..last.clone() };
        bench.store.commit_after(last, &manifest).await.map(|()| manifest)
    };
    let second = commit(a.manifest.as_ref().unwrap(), 2).await.unwrap();
    // 3 and 4 have failed.
    let fifth = commit(&second, 5).await.unwrap();
    let contents = |all: Vec<Manifest>| all.into_iter().map(|m| (m.id, m.content)).collect::<Vec<_>>();
    let all = bench.store.manifests().await.unwrap();
    assert_eq!(
        contents(all),
        [(1, 0), (2, 2), (3, 2), (4, 2), (5, 5)],
        "what failed is taken by what was there"
    );
    // 6 and 7 have failed; meanwhile another start takes the job.
    let b = bench.begin(None).await.unwrap();
    assert_eq!((b.checkpoint, b.epoch), (5, 7));
    let lost = commit(&fifth, 8).await.unwrap_err();
    assert!(matches!(lost, CheckpointError::Fenced { .. }), "{lost}");
    let seventh = commit(b.manifest.as_ref().unwrap(), 7).await.unwrap();
    assert_eq!(seventh.start, b.start);
    // Also where all that it would meet has been pruned.
    let mut last = seventh;
    for id in 8..20 {
        last = commit(&last, id).await.unwrap();
    }
    bench.store.prune().await.unwrap();
    let lost = commit(&fifth, 9).await.unwrap_err();
    assert!(matches!(lost, CheckpointError::Fenced { .. }), "{lost}");
    assert_eq!(bench.begin(None).await.unwrap().checkpoint, 19);
}

/// The same through the coordinator: its parts of a checkpoint fail, another start begins, its parts are fine again.
#[test]
fn a_coordinator_whose_checkpoints_failed_is_fenced_by_the_start_that_came_meanwhile() {
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let bench = Bench::new();
    for taken_over in [false, true] {
        let start = tokio.block_on(bench.begin(None)).unwrap();
        let options = RunOptions { clock: Clock::Manual(bench.now.clone()), ..Default::default() };
        let (plan, store) = (Arc::new(bench.plan.clone()), Some(bench.store.clone()));
        let (metrics, stop) = (Metrics::new(&plan), CancellationToken::new());
        let shared = Shared::new(plan, options, metrics, tokio.handle().clone(), stop, store, start.clone());
        let shared = Arc::new(shared);
        let mut coordinator = Coordinator::new(shared.clone(), 1);
        coordinator.report(Report::Ready { node: 0, worker: 0 });
        let mut opened = None;
        // Ends the next checkpoint with `error`, or well.
        let mut checkpoint = |error: Option<&str>| {
            let failures = shared.metrics.checkpoint_failures();
            let mut ended = None;
            for _ in 0..120_000 {
                bench.now.fetch_add(1_000_000_000, Ordering::SeqCst);
                for command in coordinator.tick() {
                    match command {
                        Command::Checkpoint { id, .. } => opened = Some(id),
                        Command::Committed { id, .. } => ended = ended.max(Some(id)),
                        Command::Close | Command::Leads(_) => {}
                    }
                }
                if ended.is_some() || shared.metrics.checkpoint_failures() > failures {
                    return ended;
                }
                if let Some(id) = opened.take() {
                    for node in 0..3 {
                        let error = error.map(str::to_owned).filter(|_| node == 1);
                        coordinator.report(Report::Ack(Ack { id, node, error, ..Default::default() }));
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("it hangs");
        };
        assert_eq!(checkpoint(None), Some(start.epoch));
        assert_eq!(checkpoint(Some("input/output error")), None);
        if taken_over {
            tokio.block_on(bench.begin(None)).unwrap();
        }
        let last = checkpoint(None);
        match taken_over {
            true => assert!(matches!(shared.failure(), Some(JobError::Fenced(_))), "{:?}", shared.failure()),
            false => assert_eq!(last, Some(start.epoch + 2)),
        }
    }
}

/// Given a source that does not open before a run's first checkpoint, when that takes long, then it is named, again and again.
#[test]
fn a_source_that_does_not_open_is_named() {
    let (tokio, bench) = (tokio::runtime::Runtime::new().unwrap(), Bench::new());
    let start = tokio.block_on(bench.begin(None)).unwrap();
    let options = RunOptions { clock: Clock::Manual(bench.now.clone()), ..Default::default() };
    let (plan, store) = (Arc::new(bench.plan.clone()), Some(bench.store.clone()));
    let (metrics, stop) = (Metrics::new(&plan), CancellationToken::new());
    let shared = Shared::new(plan, options, metrics, tokio.handle().clone(), stop, store, start);
    let mut coordinator = Coordinator::new(Arc::new(shared), 2);
    coordinator.report(Report::Ready { node: 0, worker: 1 });
    let mut after = |seconds: i64| {
        bench.now.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
        coordinator.unopened()
    };
    assert_eq!((after(19), after(1), after(1)), (None, Some("`rows`".into()), None));
    assert_eq!((after(18), after(1)), (None, Some("`rows`".into())));
    coordinator.report(Report::Ready { node: 0, worker: 0 });
    bench.now.fetch_add(100_000_000_000, Ordering::SeqCst);
    assert_eq!(coordinator.unopened(), None);
    let sinks = crate::runtime::opening::Opening::new(0, true);
    sinks.begins("out");
    sinks.begins("out");
    sinks.add(2);
    sinks.opened("out", None);
    assert_eq!(sinks.unopened(), "`out`");
    sinks.opened("out", None);
    assert_eq!(sinks.unopened(), "");
}

#[tokio::test]
async fn the_checkpoint_before_a_damaged_one_counts() {
    let damages: [&[u8]; 3] = [b"", b"{\"id\": 3, \"conte", b"\0\0\0\0\0\0\0\0"];
    for damage in damages {
        let bench = Bench::new();
        let a = bench.begin(None).await.unwrap();
        bench.checkpoint(&a, 2).await.unwrap();
        bench.checkpoint(&a, 3).await.unwrap();
        bench.overwrite(3, damage).await;
        let b = bench.begin(None).await.unwrap();
        assert_eq!((b.checkpoint, b.epoch), (2, 5), "it begins from 2, above the damaged 3");
        assert!(b.generation > a.generation && !b.fresh);
        bench.checkpoint(&b, 5).await.unwrap();
        bench.store.prune().await.unwrap();
        close(&bench.store, b.start, &Clock::System).await.unwrap();
        assert_eq!(bench.store.manifests().await.unwrap().len(), 4);
    }
}

#[tokio::test]
async fn a_missing_state_file_sends_a_run_to_the_checkpoint_before() {
    let bench = Bench::new();
    let a = bench.begin(None).await.unwrap();
    let whole = bench.store.put_state(2, 1, "sum", 0, vec![1, 2, 3]).await.unwrap();
    let mut begun = a.manifest.clone().unwrap();
    begun.sources = [("rows".to_owned(), Default::default())].into();
    for (id, path) in [(2, whole.as_str()), (3, "state/3/gone.bin")] {
        let file = crate::checkpoint::manifest::StateFile { path: path.into(), bytes: 3, keys: 1 };
        let state = [("sum".to_owned(), vec![file])].into();
        let manifest = Manifest { id, content: id, reason: Reason::Interval, state, ..begun.clone() };
        bench.store.commit(&manifest).await.unwrap();
    }
    assert_eq!(bench.begin(None).await.unwrap().checkpoint, 2);
    let from = StartFrom::Id(3);
    let chosen = begin(&bench.plan, Some(&bench.store), &from, Default::default(), None, &Clock::System)
        .await
        .unwrap_err();
    assert!(chosen.to_string().contains("state/3/gone.bin"), "{chosen}");
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    let bench = Bench::new();
    bench.files.unconditional.store(true, Ordering::SeqCst);
    let refused = bench.begin(None).await.unwrap_err();
    assert!(refused.to_string().contains("memory:c/law does not keep a file"), "{refused}");
    assert_eq!(refused.class(), FailureClass::Fatal);
}

#[tokio::test]
async fn storage_that_fails_for_a_while_only_delays() {
    let bench = Bench::new();
    bench.files.failures.store(3, Ordering::SeqCst);
    let a = bench.begin(None).await.unwrap();
    for lost in 1..4 {
        // Made, though the answer was lost: met again by the retry, it is our own.
        bench.files.lost_answers.store(lost, Ordering::SeqCst);
        bench.checkpoint(&a, a.epoch + lost as u64 - 1).await.unwrap();
        bench.files.lost_answers.store(0, Ordering::SeqCst);
    }
    // Another start with the same generation is not us, whatever stands there.
    let b = Start {
        start: a.start ^ 1,
        manifest: a.manifest.clone().map(|m| Manifest { start: a.start ^ 1, ..m }),
        ..a.clone()
    };
    assert!(matches!(bench.checkpoint(&b, a.epoch).await, Err(CheckpointError::Fenced { .. })));
}

/// Given a job that holds rows for the watermark, when it is stopped and goes on with another lateness, under which rows are
/// taken as they come (or the other way round), then every row comes out once, and none panics.
#[test]
fn held_rows_survive_a_change_of_lateness() {
    let rows: Vec<Vec<Row>> = vec![(0..6000).map(|i| (i / 3, (3 * i) % 17, i)).collect()];
    for (first, then) in [("40ns", "0"), ("0", "40ns")] {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for (lateness, workers, last) in [(first, 2, false), (then, 1, true)] {
            let (plan, out) = graph(&rows, lateness, !last);
            let options = RunOptions {
                workers,
                chunk_rows: 64,
                in_flight_rows: 256,
                checkpoints: Some(CheckpointOptions {
                    url: "checkpoints".into(),
                    base: folder.path().into(),
                    keep: 2,
                    from: StartFrom::Latest,
                    changes: Default::default(),
                }),
                ..Default::default()
            };
            let stop = CancellationToken::new();
            if !last {
                let (stop, out) = (stop.clone(), out.clone());
                std::thread::spawn(move || {
                    while taken(&out).len() < 2000 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    stop.cancel();
                });
            }
            execute(plan, &options, stop).unwrap();
            seen.extend(taken(&out));
        }
        let mut expected = oracle(&rows, 0);
        expected.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen.len(), expected.len(), "{first} then {then}");
        assert_eq!(seen, expected, "{first} then {then}");
    }
}

/// Given a state file that was changed on disk, when a run begins from it, then it ends with the file's name, and no panic.
#[test]
fn a_changed_state_file_ends_a_run_by_name() {
    let rows: Vec<Vec<Row>> = vec![(0..500).map(|i| (i, i % 7, i)).collect()];
    let folder = tempfile::tempdir().unwrap();
    let options = RunOptions {
        workers: 2,
        checkpoints: Some(CheckpointOptions {
            url: "checkpoints".into(),
            base: folder.path().into(),
            keep: 2,
            from: StartFrom::Latest,
            changes: Default::default(),
        }),
        ..Default::default()
    };
    let (plan, out) = graph(&rows, "0", true);
    let stop = CancellationToken::new();
    let (seen, stopping) = (out.clone(), stop.clone());
    std::thread::spawn(move || {
        while taken(&seen).len() < 400 {
            std::thread::sleep(Duration::from_millis(1));
        }
        stopping.cancel();
    });
    execute(plan, &options, stop).unwrap();
    let state = folder.path().join("checkpoints/law/state");
    let mut files = Vec::new();
    for checkpoint in std::fs::read_dir(&state).unwrap() {
        files.extend(std::fs::read_dir(checkpoint.unwrap().path()).unwrap().map(|f| f.unwrap().path()));
    }
    for file in &files {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }
    let error = execute(graph(&rows, "0", false).0, &options, CancellationToken::new()).unwrap_err();
    assert!(
        error.to_string().contains("cannot be restored from `state/") && error.to_string().contains(".bin"),
        "{error}"
    );
    assert!(matches!(error, JobError::Checkpoint(_)), "{error:?}");
}
