//! Partitions that join, fall silent and come back while a job is killed again and again: a sink that leaves out what it has written
//! sees every row once, at the time that the logged decisions give it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Of each row, the running sum of its key.
    sums: Vec<i64>,
    progress: Option<i64>,
    run: u64,
}

#[derive(Debug, Clone, Default)]
struct OnceSink(Arc<Mutex<Topic>>);

struct OnceWriter {
    topic: Arc<Mutex<Topic>>,
    progress: Option<i64>,
    waiting: Vec<(i64, i64, i64)>,
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
        let (keys, sums) =
            (rows.column(3).as_primitive::<Int64Type>(), rows.column(4).as_primitive::<Int64Type>());
        let rows = (0..rows.num_rows()).map(|i| (row::ts(&rows)[i], keys.value(i), sums.value(i)));
        let progress = self.progress;
        self.waiting.extend(rows.filter(|(ts, ..)| progress.is_none_or(|p| *ts >= p)));
        Ok(())
    }

    async fn flush(&mut self, watermark: i64) -> Result<(), ConnectorError> {
        let Some((last, ..)) = self.waiting.last() else { return Ok(()) };
        let mut topic = self.topic.lock().unwrap();
        self.progress = Some(watermark.min(last + 1));
        topic.progress = self.progress;
        topic.sums.extend(self.waiting.iter().map(|(.., sum)| *sum));
        topic.rows.extend(self.waiting.drain(..).map(|(ts, key, _)| (ts, key)));
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
    lateness: Cell<i64>,
    idle: Option<&'static str>,
    /// Partitions that the graph is planned for: with one, in order, operators have its rows as they come.
    planned: usize,
    workers: usize,
    keep: usize,
    stop: RefCell<CancellationToken>,
}

impl World {
    fn new(partitions: usize, lateness: i64, idle: Option<&'static str>, workers: usize) -> Self {
        let log = Log { partitions: Mutex::new(vec![Vec::new(); partitions]), crash: AtomicBool::new(false) };
        Self {
            log: Arc::new(log),
            sink: OnceSink::default(),
            folder: tempfile::tempdir().unwrap(),
            lateness: Cell::new(lateness),
            idle,
            planned: 2,
            workers,
            keep: 100_000,
            stop: RefCell::default(),
        }
    }

    fn plan(&self) -> Plan {
        // With two partitions, rows are put in order by the watermark.
        let partitions = vec![Vec::new(); self.planned];
        let (mut plan, _) = graph(&partitions, &format!("{}ns", self.lateness.get()), true);
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
                keep: self.keep,
                from: StartFrom::Latest,
                changes: Default::default(),
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
        let stop = self.stop.borrow().clone();
        std::thread::spawn(move || execute(plan, &options, stop))
    }

    /// Stops the job in order.
    fn stop(&self, job: std::thread::JoinHandle<Result<(), JobError>>) {
        self.stop.take().cancel();
        job.join().unwrap().unwrap();
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

    /// Every row once, at the time that all decisions together give it, with its value, from scratch.
    fn timed(&self) -> Vec<(i64, usize, usize, i64, i64)> {
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = self.store();
        // Of each partition, at which positions what holds from there on: a `max_out_of_orderness`, or a watermark.
        let mut held: BTreeMap<u32, Vec<(u64, Held)>> = BTreeMap::new();
        tokio.block_on(async {
            let manifests = store.manifests().await.unwrap();
            for (id, state) in manifests.iter().flat_map(|m| m.sources.values()).flat_map(|s| &s.partitions) {
                let held = held.entry(*id).or_default();
                let bound = Held::Bound(state.out_of_orderness_ns.unwrap());
                if held.last().is_none_or(|(_, last)| *last != bound) {
                    held.push((state.next_seq.unwrap(), bound));
                }
            }
            let starts: BTreeSet<u64> = manifests.iter().map(|m| m.start).collect();
            for start in starts {
                for Decision { partition, floor, .. } in store.decisions(start).await.unwrap() {
                    let watermark = floor.rule.ts().unwrap_or(i64::MIN);
                    held.entry(partition).or_default().push((floor.from_seq, Held::Floor(watermark)));
                }
            }
        });
        // Bounds come before floors of the same position, in the order of their checkpoints.
        held.values_mut().for_each(|held| held.sort_by_key(|(from, _)| *from));
        let mut all = Vec::new();
        for (p, rows) in self.log.partitions.lock().unwrap().iter().enumerate() {
            let mut held = held.get(&(p as u32)).into_iter().flatten().peekable();
            let (mut bound, mut newest) = (self.lateness.get(), i64::MIN);
            for (seq, (ts, key, v)) in rows.iter().enumerate() {
                while let Some((_, held)) = held.next_if(|(from, _)| *from <= seq as u64) {
                    let watermark = newest.saturating_sub(bound);
                    let floor = match held {
                        Held::Bound(ns) => {
                            bound = *ns;
                            if newest == i64::MIN { newest } else { watermark }
                        }
                        Held::Floor(floor) => *floor,
                    };
                    if newest.saturating_sub(bound) < floor {
                        newest = floor + bound;
                    }
                }
                all.push(((*ts).max(newest.saturating_sub(bound)), p, seq, *key, *v));
                newest = newest.max(*ts);
            }
        }
        all.sort_unstable();
        all
    }

    /// Times and keys of [`timed`](Self::timed).
    fn expected(&self) -> Vec<(i64, i64)> {
        let mut rows: Vec<_> = self.timed().iter().map(|(ts, _, _, key, _)| (*ts, *key)).collect();
        rows.sort_unstable();
        rows
    }

    fn seen(&self) -> Vec<(i64, i64)> {
        let mut rows = self.sink.0.lock().unwrap().rows.clone();
        rows.sort_unstable();
        rows
    }
}

/// What holds from a position of a partition on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Its `max_out_of_orderness`.
    Bound(i64),
    /// Its watermark is at least this.
    Floor(i64),
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
    world.stop(job);
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
    let start = tokio
        .block_on(begin(
            &world.plan(),
            Some(&store),
            &StartFrom::Latest,
            Default::default(),
            None,
            &Clock::System,
        ))
        .unwrap();
    assert_eq!(start.follows, [last.start]);
    // Begun and killed before it took anything over: the next one follows both.
    let job = world.start(Duration::from_millis(2), 7);
    world.append(1, &[(30, 5)]);
    world.append(0, &[(1000, 6), (1001, 7)]);
    world.append(1, &[(1000, 8), (1001, 9)]);
    world.until("rows", |t| t.rows.len() >= 6);
    world.stop(job);
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
        world.stop(job);
        prop_assert_eq!(world.seen(), world.expected());
    }
}

/// Given a job whose `max_out_of_orderness` changes when it was killed, or stopped in order, when a sink leaves out what it has written,
/// then no row is lost or there twice, and operators have had them in order.
#[test]
fn a_changed_bound_of_disorder_neither_loses_nor_doubles_rows() {
    let every = Duration::from_millis(3);
    for (case, (first, then, killed)) in
        [(50, 0, true), (50, 0, false), (0, 50, true), (0, 50, false), (50, 20, true), (20, 50, true)]
            .into_iter()
            .enumerate()
    {
        let world = World { planned: 1, ..World::new(1, first, None, 1 + case % 2) };
        // Row 10 k + 9 is 35 older than the one before it.
        let ts = |i: i64| 10 * i - if i % 10 == 9 { 45 } else { 0 };
        let append = |rows: std::ops::Range<i64>| {
            world.log.partitions.lock().unwrap()[0].extend(rows.map(|i| (ts(i), i % 3, i)));
        };
        append(0..100);
        // No checkpoint but those before the first row: everything comes again.
        let job = world.start(if killed { NEVER } else { every }, 7);
        world.until("rows of the first run", |t| t.rows.len() >= 90);
        if killed {
            world.kill(job)
        } else {
            world.stop(job)
        }
        world.lateness.set(then);
        append(100..200);
        let job = world.start(every, 7);
        world.until("rows after the change", |t| t.rows.len() >= 180);
        let changed = || {
            let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let last = tokio.block_on(world.store().newest(u64::MAX)).unwrap().0.unwrap();
            last.sources["rows"].partitions[&0].out_of_orderness_ns == Some(then)
        };
        world.until("the change", |_| changed());
        append(200..300);
        append(400..401);
        world.until("rows behind the change", |t| t.rows.len() >= 300);
        world.stop(job);
        let mut sums = [0; 3];
        let expected = world.timed().into_iter().map(|(ts, _, _, key, v)| {
            let sum = &mut sums[key as usize];
            *sum = (*sum * 31 + v) % 1_000_003;
            (ts, key, *sum)
        });
        let topic = world.sink.0.lock().unwrap();
        let seen: Vec<Row> = topic.rows.iter().zip(&topic.sums).map(|(r, sum)| (r.0, r.1, *sum)).collect();
        let expected: Vec<Row> = expected.take(seen.len()).collect();
        assert_eq!(seen, expected, "{first} then {then}, killed: {killed}");
    }
}

/// Given a partition that falls silent and comes back again and again, then decisions that all kept checkpoints know are not kept, and
/// those that are left are enough to go on with after a kill.
#[test]
fn decisions_are_kept_as_long_as_checkpoints_need_them() {
    let every = Duration::from_millis(2);
    let world = World { keep: 3, ..World::new(2, 0, Some("1ms"), 2) };
    let mut job = world.start(every, 7);
    let mut key = 0;
    for _ in 0..4 {
        for _ in 0..15 {
            key += 2;
            world.append(0, &[(1000 * key, key)]);
            world.append(1, &[(1000 * key - 500, key + 1)]);
            world.until("rows", |t| t.rows.len() as i64 >= key);
        }
        let files = || {
            let folder = world.folder.path().join("checkpoints/law/decisions");
            let starts =
                std::fs::read_dir(folder).unwrap().flat_map(|s| std::fs::read_dir(s.unwrap().path()));
            starts.flatten().map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        // Both partitions are decided about in each of the 15 turns.
        let number = |name: &String| name.strip_suffix(".json")?.rsplit('-').next()?.parse::<u64>().ok();
        world.until("checkpoints", |_| files().iter().filter(|name| number(name).is_some()).count() < 15);
        world.kill(job);
        job = world.start(every, 7);
        world.until("rows after the kill", |t| t.rows.len() as i64 >= key);
    }
    key += 2;
    world.append(0, &[(1000 * key, key)]);
    world.append(1, &[(1000 * key, key + 1)]);
    world.until("the last rows", |t| t.rows.len() as i64 >= key);
    world.stop(job);
    let mut keys: Vec<i64> = world.seen().iter().map(|(_, key)| *key).collect();
    keys.sort_unstable();
    assert_eq!(keys, (2..key + 2).collect::<Vec<_>>());
}

/// Given a source that never has a row and is let go as idle, when others go on, then it goes with them for as long as they do.
#[test]
fn a_source_without_rows_goes_with_the_others_again_and_again() {
    let world = World { planned: 1, ..World::new(1, 0, Some("3ms"), 2) };
    let mut plan = world.plan();
    let silent = |id: usize| {
        let mut silent = plan.nodes[0].clone();
        (silent.id, silent.name) = (id, format!("silent{id}"));
        if let Body::Source { plan, .. } = &mut silent.body {
            *plan = MemorySource::endless(columns(), vec![partition(&[])]);
        }
        silent
    };
    let silent = [silent(1), silent(2)];
    for (node, id) in plan.nodes[1..].iter_mut().zip(3..) {
        node.id = id;
        node.inputs[0].from = id - 3;
    }
    plan.nodes[2].inputs[0].from = 3;
    plan.nodes[1].inputs =
        (0..3).map(|from| Edge { from, port: Port::Rows, exchange: Exchange::Key(vec![3]) }).collect();
    if let Body::Operator { plan, delivery } = &mut plan.nodes[1].body {
        plan.distribution = Distribution::Keyed(vec![vec!["k".into()]; 3]);
        *delivery = Delivery::Ordered;
    }
    plan.nodes.splice(1..1, silent);
    let (options, stop) = (world.options(NEVER, 7), world.stop.borrow().clone());
    let job = std::thread::spawn(move || execute(plan, &options, stop));
    for i in 0..20 {
        world.append(0, &[(10 * i, i), (10 * i + 5, i)]);
        world.until("rows", |t| t.rows.len() as i64 > 2 * i);
    }
    world.stop(job);
}

#[derive(Debug, Clone)]
enum Change {
    Rows(usize, usize),
    Pause,
    Kill(i64),
    Stop(i64),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let bound = || prop_oneof![Just(0i64), Just(300_000), Just(900_000)];
    let change = prop_oneof![
        6 => (0usize..3, 1usize..12).prop_map(|(p, n)| Change::Rows(p, n)),
        2 => Just(Change::Pause),
        2 => bound().prop_map(Change::Kill),
        1 => bound().prop_map(Change::Stop),
    ];
    proptest::collection::vec(change, 4..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 0, ..Default::default() })]

    /// Given rows, pauses, and runs with other bounds of disorder, killed or stopped, in any order, then each row is there once, at the time
    /// that the checkpoints and decisions give it.
    #[test]
    fn every_row_comes_once_whatever_its_bound_was(
        changes in changes(),
        every in 1u64..20,
        chunk in 1usize..9,
        workers in 1usize..3,
    ) {
        let world = World::new(3, 0, Some("3ms"), workers);
        let every = Duration::from_millis(every);
        let mut job = world.start(every, chunk);
        let (mut now, mut key) = (0, 0);
        for change in changes {
            match change {
                Change::Rows(p, n) => {
                    for _ in 0..n {
                        now += 100_000;
                        key += 1;
                        world.append(p, &[(now - i64::from(key % 3 == 0) * 600_000, key)]);
                    }
                }
                Change::Pause => std::thread::sleep(Duration::from_millis(8)),
                Change::Kill(bound) => {
                    std::thread::sleep(Duration::from_millis(4));
                    world.kill(job);
                    world.lateness.set(bound);
                    job = world.start(every, chunk);
                }
                Change::Stop(bound) => {
                    std::thread::sleep(Duration::from_millis(4));
                    world.stop(job);
                    world.lateness.set(bound);
                    job = world.start(every, chunk);
                }
            }
        }
        world.until("all rows", |t| t.rows.len() >= key as usize);
        std::thread::sleep(Duration::from_millis(10));
        world.stop(job);
        prop_assert_eq!(world.seen(), world.expected());
    }
}
