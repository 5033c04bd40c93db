//! Partitions that join, fall silent and come back while a job is killed again and again: a sink that leaves out what it has written
//! sees every row once, at the time that the logged decisions give it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::checkpoint::CheckpointStore;
use crate::checkpoint::decisions::{Decision, Floor, Rule};
use crate::clock::Clock;
use crate::component::{Partitions, SourcePlan};
use crate::sink::{Sink, SinkContext, SinkWriter};
use crate::source::{Chunk, PartitionWriter, Position, Seqs, Source, SourceContext};

/// Partitions that a test appends to, as brokers keep them.
#[derive(Debug, Default)]
struct Log {
    partitions: Mutex<Vec<Vec<Row>>>,
    crash: AtomicBool,
}

#[derive(Debug)]
struct LogSource(Arc<Log>);

#[async_trait]
impl Source for LogSource {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        let start = |p: u32| cx.restored.get(&p).and_then(Value::as_u64).unwrap_or(0) as usize;
        let mut known = self.0.partitions.lock().unwrap().len();
        let mine = |p: &u32| *p as usize % cx.instances == cx.instance;
        let begins: Vec<(u32, Position)> =
            (0..known as u32).filter(mine).map(|p| (p, json!(start(p)))).collect();
        let mut open: Vec<(PartitionWriter, usize)> =
            cx.ready_at(&begins).into_iter().map(|w| (start(w.id()), w)).map(|(at, w)| (w, at)).collect();
        loop {
            if self.0.crash.load(Ordering::Acquire) {
                return Err(ConnectorError::Fatal("killed".into()));
            }
            if cx.stop.is_cancelled() {
                return Ok(());
            }
            let count = self.0.partitions.lock().unwrap().len();
            for p in (known as u32..count as u32).filter(mine) {
                open.push((cx.add_partition_at(p, json!(start(p))), start(p)));
            }
            known = count;
            for (writer, at) in &mut open {
                let rows: Vec<Row> = {
                    let all = self.0.partitions.lock().unwrap();
                    let rows = &all[writer.id() as usize][*at..];
                    rows[..rows.len().min(cx.chunk_rows)].to_vec()
                };
                if rows.is_empty() {
                    continue;
                }
                let chunk = Chunk {
                    rows: partition(&rows),
                    seqs: Seqs::From(*at as u64),
                    position: json!(*at + rows.len()),
                    rejects: Vec::new(),
                };
                tokio::select! {
                    sent = writer.send(chunk) => if sent.is_ok() { *at += rows.len() },
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

/// A topic with the progress of its writer: what is in it survives every crash.
#[derive(Debug, Default)]
struct Topic {
    rows: Vec<(i64, i64)>,
    progress: Option<i64>,
    run: u64,
}

#[derive(Debug, Clone, Default)]
struct OnceSink(Arc<Mutex<Topic>>);

struct OnceWriter {
    topic: Arc<Mutex<Topic>>,
    progress: Option<i64>,
    waiting: Vec<(i64, i64)>,
}

#[async_trait]
impl Sink for OnceSink {
    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let mut topic = self.0.lock().unwrap();
        if topic.run != cx.run {
            (topic.run, topic.progress) = (cx.run, None);
        }
        Ok(Box::new(OnceWriter { topic: self.0.clone(), progress: topic.progress, waiting: Vec::new() }))
    }
}

#[async_trait]
impl SinkWriter for OnceWriter {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        let keys = rows.column(3).as_primitive::<Int64Type>();
        let rows = (0..rows.num_rows()).map(|i| (row::ts(&rows)[i], keys.value(i)));
        let progress = self.progress;
        self.waiting.extend(rows.filter(|(ts, _)| progress.is_none_or(|p| *ts >= p)));
        Ok(())
    }

    async fn flush(&mut self, watermark: i64) -> Result<(), ConnectorError> {
        let Some((last, _)) = self.waiting.last() else { return Ok(()) };
        let mut topic = self.topic.lock().unwrap();
        self.progress = Some(watermark.min(last + 1));
        topic.progress = self.progress;
        topic.rows.append(&mut self.waiting);
        Ok(())
    }

    fn horizon(&self) -> Option<i64> {
        self.progress
    }
}

struct World {
    log: Arc<Log>,
    sink: OnceSink,
    folder: tempfile::TempDir,
    lateness: i64,
    idle: Option<&'static str>,
    workers: usize,
    stop: CancellationToken,
}

impl World {
    fn new(partitions: usize, lateness: i64, idle: Option<&'static str>, workers: usize) -> Self {
        let log = Log { partitions: Mutex::new(vec![Vec::new(); partitions]), crash: AtomicBool::new(false) };
        Self {
            log: Arc::new(log),
            sink: OnceSink::default(),
            folder: tempfile::tempdir().unwrap(),
            lateness,
            idle,
            workers,
            stop: CancellationToken::new(),
        }
    }

    fn plan(&self) -> Plan {
        // Two partitions: rows are put in order by the watermark.
        let (mut plan, _) = graph(&[Vec::new(), Vec::new()], &format!("{}ns", self.lateness), true);
        if let Body::Source { plan, options, .. } = &mut plan.nodes[0].body {
            *plan = SourcePlan {
                replayable: true,
                columns: columns(),
                partitions: Partitions::Many { keyed_by: None },
                bounded: false,
                source: Arc::new(LogSource(self.log.clone())),
            };
            options.idle_timeout = self.idle.map(|t| t.parse().unwrap());
        }
        if let Body::Sink { plan } = &mut plan.nodes[2].body {
            plan.sink = Arc::new(self.sink.clone());
        }
        plan
    }

    fn options(&self, checkpoint_every: Duration, chunk_rows: usize) -> RunOptions {
        RunOptions {
            workers: self.workers,
            chunk_rows,
            checkpoints: Some(CheckpointOptions {
                url: "checkpoints".into(),
                base: self.folder.path().into(),
                keep: 100_000,
                from: StartFrom::Latest,
            }),
            checkpoint_every,
            ..Default::default()
        }
    }

    fn store(&self) -> CheckpointStore {
        let location = crate::storage::open("checkpoints", self.folder.path()).unwrap();
        CheckpointStore::new(location, "law", 100_000)
    }

    fn append(&self, p: usize, rows: &[(i64, i64)]) {
        let rows = rows.iter().map(|(ts, key)| (*ts, *key, 0));
        self.log.partitions.lock().unwrap()[p].extend(rows);
    }

    /// Starts the job; `run` ends when `stop` is cancelled or it is killed.
    fn start(&self, every: Duration, chunk_rows: usize) -> std::thread::JoinHandle<Result<(), JobError>> {
        let (plan, options) = (self.plan(), self.options(every, chunk_rows));
        let stop = self.stop.clone();
        std::thread::spawn(move || execute(plan, &options, stop))
    }

    fn kill(&self, job: std::thread::JoinHandle<Result<(), JobError>>) {
        self.log.crash.store(true, Ordering::Release);
        assert!(job.join().unwrap().is_err());
        self.log.crash.store(false, Ordering::Release);
    }

    fn until(&self, what: &str, done: impl Fn(&Topic) -> bool) {
        let waiting = Clock::System.start();
        while !done(&self.sink.0.lock().unwrap()) {
            assert!(
                waiting.elapsed() < Duration::from_secs(600),
                "{what}: {:?}",
                self.sink.0.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Every row once, at the time that all decisions together give it, from scratch.
    fn expected(&self) -> Vec<(i64, i64)> {
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = self.store();
        let mut floors: BTreeMap<u32, Vec<Floor>> = BTreeMap::new();
        tokio.block_on(async {
            let manifests = store.manifests().await.unwrap();
            let starts: std::collections::BTreeSet<u64> = manifests.iter().map(|m| m.start).collect();
            for start in starts {
                for Decision { partition, floor, .. } in store.decisions(start).await.unwrap() {
                    floors.entry(partition).or_default().push(floor);
                }
            }
        });
        let mut all = Vec::new();
        for (p, rows) in self.log.partitions.lock().unwrap().iter().enumerate() {
            let mut watermark = i64::MIN;
            for (seq, (ts, key, _)) in rows.iter().enumerate() {
                for floor in floors.get(&(p as u32)).into_iter().flatten() {
                    if floor.from_seq <= seq as u64 {
                        watermark = watermark.max(floor.rule.ts().unwrap_or(i64::MIN));
                    }
                }
                all.push(((*ts).max(watermark), *key));
                watermark = watermark.max(ts - self.lateness);
            }
        }
        all.sort_unstable();
        all
    }

    fn seen(&self) -> Vec<(i64, i64)> {
        let mut rows = self.sink.0.lock().unwrap().rows.clone();
        rows.sort_unstable();
        rows
    }
}

const NEVER: Duration = Duration::from_secs(3600);

/// Given a partition that joins a running job, when the job is killed before any checkpoint knows it, then none of its rows is lost
/// or there twice.
#[test]
fn a_partition_that_joined_late_survives_a_kill() {
    let world = World::new(1, 0, None, 1);
    let job = world.start(NEVER, 7);
    let first: Vec<(i64, i64)> = (0..20).map(|i| (i * 10, i)).collect();
    world.append(0, &first);
    world.until("rows of the first partition", |t| t.rows.len() >= 19);
    world.log.partitions.lock().unwrap().push(Vec::new());
    // Older than all that has been written.
    let joined: Vec<(i64, i64)> = (0..30).map(|i| (i, 100 + i)).collect();
    world.append(1, &joined);
    world.append(1, &[(1000, 200), (1001, 201)]);
    world.append(0, &[(1000, 202), (1001, 203)]);
    world.until("rows of the second partition", |t| t.rows.len() >= 50);
    world.kill(job);
    let job = world.start(NEVER, 3);
    world.append(0, &[(2000, 300), (2001, 301)]);
    world.append(1, &[(2000, 302), (2001, 303)]);
    world.until("rows after the kill", |t| t.rows.len() >= 56);
    world.stop.cancel();
    job.join().unwrap().unwrap();
    let seen: Vec<i64> = world.sink.0.lock().unwrap().rows.iter().map(|r| r.1).collect();
    let unique: std::collections::BTreeSet<i64> = seen.iter().copied().collect();
    assert_eq!(seen.len(), unique.len(), "doubled: {seen:?}");
    let written = |key: i64| unique.contains(&key);
    assert!((0..20).chain(100..130).chain(200..204).all(written), "{unique:?}");
}

/// Given an older start that is not followed, then what it decides does not count; what a followed one decides after the new one has
/// begun does.
#[test]
fn decisions_count_only_of_starts_that_are_followed() {
    let world = World::new(2, 0, None, 1);
    let job = world.start(Duration::from_millis(2), 7);
    world.append(0, &[(10, 1), (20, 2)]);
    world.append(1, &[(10, 3), (20, 4)]);
    world.until("rows", |t| t.rows.len() >= 2);
    world.kill(job);
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = world.store();
    let last = tokio.block_on(store.manifests()).unwrap().pop().unwrap();
    let woke = |ts| Decision {
        source: "rows".into(),
        partition: 1,
        floor: Floor { from_seq: 2, rule: Rule::Woke(ts) },
    };
    tokio.block_on(store.put_decisions(last.start, "0-77", &[woke(50)])).unwrap();
    tokio.block_on(store.put_decisions(last.start ^ 1, "0-0", &[woke(500)])).unwrap();
    let start =
        tokio.block_on(begin(&world.plan(), Some(&store), StartFrom::Latest, None, &Clock::System)).unwrap();
    assert_eq!(start.follows, [last.start]);
    // Begun and killed before it took anything over: the next one follows both.
    let job = world.start(Duration::from_millis(2), 7);
    world.append(1, &[(30, 5)]);
    world.append(0, &[(1000, 6), (1001, 7)]);
    world.append(1, &[(1000, 8), (1001, 9)]);
    world.until("rows", |t| t.rows.len() >= 6);
    world.stop.cancel();
    job.join().unwrap().unwrap();
    assert!(world.seen().contains(&(50, 5)), "{:?}", world.seen());
}

/// Given a run that has begun, when it is killed before its first row, then where its partitions begin is in a checkpoint.
#[test]
fn where_a_run_begins_is_durable_before_its_first_row() {
    let world = World::new(2, 0, None, 2);
    world.append(0, &[(10, 1), (20, 2)]);
    world.append(1, &[(10, 3), (20, 4)]);
    let job = world.start(NEVER, 7);
    world.until("rows", |t| !t.rows.is_empty());
    world.kill(job);
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let last = tokio.block_on(world.store().manifests()).unwrap().pop().unwrap();
    let positions: Vec<_> = last.sources["rows"].partitions.values().map(|p| p.position.clone()).collect();
    assert_eq!(positions, [json!(0), json!(0)]);
}

#[derive(Debug, Clone)]
enum Step {
    Rows(usize, usize),
    Join,
    Pause,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..4, 1usize..12).prop_map(|(p, n)| Step::Rows(p, n)),
        1 => Just(Step::Join),
        3 => Just(Step::Pause),
        2 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 4..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 0, ..Default::default() })]

    /// Given rows, pauses, new partitions and kills in any order, when the job has run to the end, then each row is there once, at
    /// the time that the decisions which are logged give it.
    #[test]
    fn every_row_comes_once_whatever_the_clock_decided(
        steps in steps(),
        lateness in prop_oneof![Just(0i64), Just(500_000)],
        every in 1u64..40,
        chunk in 1usize..9,
        workers in 1usize..3,
    ) {
        let world = World::new(2, lateness, Some("3ms"), workers);
        let every = Duration::from_millis(every);
        let mut job = world.start(every, chunk);
        let (mut now, mut key) = (0, 0);
        for step in steps {
            match step {
                Step::Rows(p, n) => {
                    let p = p % world.log.partitions.lock().unwrap().len();
                    for _ in 0..n {
                        now += 100_000;
                        key += 1;
                        // Every third row is older than the one before it.
                        world.append(p, &[(now - i64::from(key % 3 == 0) * 400_000, key)]);
                    }
                }
                Step::Join => world.log.partitions.lock().unwrap().push(Vec::new()),
                Step::Pause => std::thread::sleep(Duration::from_millis(8)),
                Step::Kill => {
                    std::thread::sleep(Duration::from_millis(4));
                    world.kill(job);
                    job = world.start(every, chunk);
                }
            }
        }
        world.until("all rows", |t| t.rows.len() >= key as usize);
        std::thread::sleep(Duration::from_millis(10));
        world.stop.cancel();
        job.join().unwrap().unwrap();
        prop_assert_eq!(world.seen(), world.expected());
    }
}
