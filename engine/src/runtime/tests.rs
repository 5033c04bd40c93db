//! The law, held on a small graph: memory -> running sum by key -> memory.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::prelude::*;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::checkpoint::StartFrom;
use crate::component::{Distribution, OperatorPlan};
use crate::connector::ConnectorError;
use crate::keyed::KeyedState;
use crate::memory::{CollectSink, Collected, MemorySource};
use crate::metrics::Metrics;
use crate::operator::{Operator, OperatorError, Output, State};
use crate::plan::{Body, Edge, Exchange, Node, Order, Plan, Port};
use crate::registry::Role;
use crate::row;
use crate::sink::Delivery;
use crate::size::Size;
use crate::spec::SourceOptions;
use crate::state_memory::StateOptions;

mod decided;
mod flaky;
mod processes;
mod restored;
mod starts;

struct RunningSum(KeyedState<Vec<i64>>);

impl Operator for RunningSum {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        for batch in inputs.iter().flatten() {
            let values = batch.column(4).as_primitive::<Int64Type>().values().clone();
            let (slots, sums) = self.0.rows(batch)?;
            let column: Int64Array = slots
                .iter()
                .zip(values.iter())
                .map(|(slot, v)| {
                    sums[*slot as usize] = (sums[*slot as usize] * 31 + v) % 1_000_003;
                    sums[*slot as usize]
                })
                .collect();
            let mut columns = batch.columns().to_vec();
            columns[4] = Arc::new(column);
            out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        }
        Ok(())
    }
    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.0)
    }
}

type Row = (i64, i64, i64);

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", row::ts_type(), false),
        Field::new("k", DataType::Int64, false),
        Field::new("v", DataType::Int64, false),
    ]))
}

fn partition(rows: &[Row]) -> RecordBatch {
    let arrays: Vec<ArrayRef> = vec![
        row::ts_array(rows.iter().map(|r| r.0).collect()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))),
    ];
    RecordBatch::try_new(columns(), arrays).unwrap()
}

fn graph(parts: &[Vec<Row>], lateness: &str, endless: bool) -> (Plan, Collected) {
    let batches = parts.iter().map(|p| partition(p)).collect();
    let source = if endless {
        MemorySource::endless(columns(), batches)
    } else {
        MemorySource::plan(columns(), batches)
    };
    let schema = row::stream_schema(columns().fields());
    let by = vec!["k".to_owned()];
    let in_order = parts.len() == 1 && lateness == "0";
    let for_build = schema.clone();
    let operator = OperatorPlan {
        schema: schema.clone(),
        distribution: Distribution::Keyed(vec![by.clone()]),
        ordered: true,
        passes: Vec::new(),
        build: Arc::new(move || {
            Box::new(RunningSum(KeyedState::new(vec![3], &for_build, Vec::new()).spillable()))
        }),
    };
    let (sink, rows) = CollectSink::plan();
    let node = |id: usize, name: &str, role, body, inputs| Node {
        id,
        name: name.into(),
        identity: name.into(),
        kind: name.into(),
        role,
        with: Value::Null,
        inputs,
        schema: schema.clone(),
        order: Order::None,
        body,
    };
    let edge = |from, exchange| Edge { from, port: Port::Rows, exchange };
    let options = SourceOptions { max_out_of_orderness: lateness.parse().unwrap(), ..Default::default() };
    let delivery = if in_order { Delivery::Eager } else { Delivery::Ordered };
    let nodes = vec![
        node(
            0,
            "rows",
            Role::Source,
            Body::Source { plan: source, options, ts_range: (i64::MIN, i64::MAX) },
            vec![],
        ),
        node(
            1,
            "sum",
            Role::Operator,
            Body::Operator { plan: operator, delivery },
            vec![edge(0, Exchange::Key(vec![3]))],
        ),
        node(
            2,
            "out",
            Role::Sink,
            Body::Sink { plan: sink },
            vec![edge(1, Exchange::Shard { by: vec![], shards: 1 })],
        ),
    ];
    (Plan { job: "law".into(), version: 1, base: ".".into(), nodes }, rows)
}

/// The same, from scratch: every row in total order, one after the other. Late rows are lifted.
fn oracle(parts: &[Vec<Row>], lateness: i64) -> Vec<Row> {
    let mut all = Vec::new();
    for (p, rows) in parts.iter().enumerate() {
        let mut newest = i64::MIN;
        for (i, (ts, k, v)) in rows.iter().enumerate() {
            let watermark = if newest == i64::MIN { i64::MIN } else { newest - lateness };
            all.push(((*ts).max(watermark), p, i, *k, *v));
            newest = newest.max(*ts);
        }
    }
    all.sort_unstable();
    let mut sums = std::collections::HashMap::new();
    all.iter()
        .map(|(ts, _, _, k, v)| {
            let sum: &mut i64 = sums.entry(*k).or_default();
            *sum = (*sum * 31 + v) % 1_000_003;
            (*ts, *k, *sum)
        })
        .collect()
}

fn taken(rows: &Collected) -> Vec<Row> {
    let mut all = Vec::new();
    for batch in rows.lock().unwrap().iter() {
        let (k, v) =
            (batch.column(3).as_primitive::<Int64Type>(), batch.column(4).as_primitive::<Int64Type>());
        all.extend((0..batch.num_rows()).map(|i| (row::ts(batch)[i], k.value(i), v.value(i))));
    }
    all
}

fn execute(plan: Plan, options: &RunOptions, stop: CancellationToken) -> Result<(), JobError> {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let metrics = Metrics::new(&plan);
    run(Arc::new(plan), options, metrics, tokio.handle(), stop)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    proptest::collection::vec((0i64..40, 0i64..5, 0i64..100), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]

    /// Given partitions with rows out of order, when the graph runs with any workers and batches,
    /// then the rows are those of the oracle.
    #[test]
    fn rows_do_not_depend_on_workers_or_batches(
        parts in proptest::collection::vec(rows(), 1..4),
        lateness in 0i64..10,
        seed in any::<u64>(),
    ) {
        let expected = oracle(&parts, lateness);
        for workers in [1, 2, 3] {
            let (plan, out) = graph(&parts, &format!("{lateness}ns"), false);
            let options = RunOptions {
                workers,
                chunk_rows: 1 + (seed % 9) as usize,
                in_flight_rows: 16,
                batch_rows: BatchRows::Random { max: 7, seed },
                ..Default::default()
            };
            execute(plan, &options, CancellationToken::new()).unwrap();
            let mut got = taken(&out);
            let mut expected = expected.clone();
            // Rows equal in time from several partitions: the sink's order is (ts, _src, _seq), and
            // partitions have hashed origins; compare as sets.
            got.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&got, &expected, "{} workers", workers);
        }
    }
}

/// Given a feed that has died, when its idle timeout is over, then its time goes on: what waited for it comes out, while the job runs.
#[test]
fn time_goes_on_behind_a_feed_that_died() {
    let rows = vec![vec![(0, 1, 5), (10, 1, 6)]];
    let (mut plan, out) = graph(&rows, "1us", true);
    let Body::Source { options, .. } = &mut plan.nodes[0].body else {
        panic!("the first node is the source")
    };
    options.idle_timeout = Some("20ms".parse().unwrap());
    let stop = CancellationToken::new();
    let (seen, told) = (out.clone(), stop.clone());
    let waiting = std::thread::spawn(move || {
        while taken(&seen).len() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        told.cancel();
    });
    execute(plan, &RunOptions::default(), stop).unwrap();
    waiting.join().unwrap();
    assert_eq!(taken(&out), oracle(&rows, 1000));
}

/// Given a partition that is silent and another with more rows than may be in flight, when the idle timeout is over, then the silent one
/// is let go and all rows come out.
#[test]
fn a_silent_partition_is_let_go_while_the_others_wait_for_room() {
    let rows: Vec<Row> = (0..2000).map(|i| (i, i % 7, i)).collect();
    let (mut plan, out) = graph(&[rows, Vec::new()], "0", true);
    let Body::Source { options, .. } = &mut plan.nodes[0].body else {
        panic!("the first node is the source")
    };
    options.idle_timeout = Some("20ms".parse().unwrap());
    let options = RunOptions { chunk_rows: 10, in_flight_rows: 20, ..Default::default() };
    // The newest instant waits for a later row, or for the clock.
    run_until(plan, options, |_| taken(&out).len() >= 1999);
}

/// Two sources with the columns of [`columns`], in front of one sink in total order.
fn two_sources(
    first: crate::component::SourcePlan,
    second: crate::component::SourcePlan,
) -> (Plan, Collected) {
    let (mut plan, out) = graph(&[vec![]], "0", false);
    let source = |id: usize, name: &str, with: crate::component::SourcePlan| {
        let mut node = plan.nodes[0].clone();
        (node.id, node.name, node.identity) = (id, name.into(), name.into());
        if let Body::Source { plan, .. } = &mut node.body {
            *plan = with;
        }
        node
    };
    let sources = [source(0, "first", first), source(1, "second", second)];
    let mut sink = plan.nodes.remove(2);
    sink.inputs = (0..2)
        .map(|from| Edge { from, port: Port::Rows, exchange: Exchange::Shard { by: vec![], shards: 1 } })
        .collect();
    plan.nodes = [&sources[..], &[sink]].concat();
    (plan, out)
}

/// Runs `plan` until `done` says so of its metrics, which must be within minutes.
fn run_until(plan: Plan, options: RunOptions, done: impl Fn(&Metrics) -> bool) -> Metrics {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (metrics, stop) = (Metrics::new(&plan), CancellationToken::new());
    let (counted, stopped) = (metrics.clone(), stop.clone());
    let running =
        std::thread::spawn(move || run(Arc::new(plan), &options, counted, tokio.handle(), stopped).unwrap());
    for _ in 0..120_000 {
        if done(&metrics) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let reached = done(&metrics);
    stop.cancel();
    running.join().unwrap();
    assert!(reached, "not reached within two minutes: {:?}", metrics.read());
    metrics
}

fn many_rows(n: i64) -> RecordBatch {
    partition(&(0..n).map(|i| (i, i % 7, i)).collect::<Vec<_>>())
}

/// Given a union of a source with rows and one without any, when nothing comes for a while, then the silent one is the one reported.
#[test]
fn a_silent_source_is_reported_not_the_one_that_waits_for_it() {
    let rows = MemorySource::endless(columns(), vec![many_rows(100)]);
    let silent = MemorySource::endless(columns(), vec![many_rows(0)]);
    let (plan, out) = two_sources(rows, silent);
    let options = RunOptions { stall_after: Duration::from_millis(200), workers: 2, ..Default::default() };
    let metrics = run_until(plan, options, |m| m.read()[1].stalled_ms >= 200);
    assert_eq!(metrics.read()[0].stalled_ms, 0);
    assert_eq!((metrics.read()[0].watermark_lag_ns, metrics.read()[1].watermark_lag_ns), (Some(0), None));
    // It waits for the silent one until the job stops.
    assert_eq!(taken(&out).len(), 0);
}

/// Given a fast source that waits for a stalled one, when either limit is reached, then no more of it is read.
#[test]
fn a_fast_source_does_not_fill_memory_while_another_stalls() {
    let row_bytes = 5 * 8;
    for (in_flight_rows, in_flight_bytes, rows_max) in
        [(1000, usize::MAX, 1000), (usize::MAX, 1000 * row_bytes, 1000)]
    {
        // Chunks are slices of one large batch: only their own rows may count.
        let fast = MemorySource::endless(columns(), vec![many_rows(200_000)]);
        let stalled = MemorySource::endless(columns(), vec![many_rows(0)]);
        let (plan, _) = two_sources(fast, stalled);
        let options = RunOptions { in_flight_rows, in_flight_bytes, chunk_rows: 100, ..Default::default() };
        let stop = AtTheLimit::default();
        let metrics = run_until(plan, options, |m| stop.is_still(m.read()[0].rows_in));
        let read = metrics.read()[0].rows_in;
        assert!(read > 0 && read <= rows_max + 100, "{read} rows of at most {rows_max} and a chunk");
    }
}

/// Given the same limits and a source that is slow, but not stalled, when it has come to its end, then every row has passed.
#[test]
fn the_partition_that_others_wait_for_is_never_throttled() {
    let batches = |n: i64| (0..3).map(|_| many_rows(n)).collect::<Vec<_>>();
    let (fast, slow) =
        (MemorySource::plan(columns(), batches(3000)), MemorySource::plan(columns(), batches(3000)));
    let (plan, out) = two_sources(fast, slow);
    let options = RunOptions {
        in_flight_rows: 1,
        in_flight_bytes: 1,
        chunk_rows: 50,
        workers: 2,
        ..Default::default()
    };
    execute(plan, &options, CancellationToken::new()).unwrap();
    assert_eq!(taken(&out).len(), 18_000);
}

/// Given a source that has ended and one that stays open without a row, when that is let go as idle, then all rows come out.
#[test]
fn an_idle_source_does_not_keep_the_last_rows_of_one_that_has_ended() {
    let rows = MemorySource::plan(columns(), vec![many_rows(100)]);
    let silent = MemorySource::endless(columns(), vec![many_rows(0)]);
    let (mut plan, out) = two_sources(rows, silent);
    if let Body::Source { options, .. } = &mut plan.nodes[1].body {
        options.idle_timeout = Some("20ms".parse().unwrap());
    }
    run_until(plan, RunOptions { workers: 2, ..Default::default() }, |_| taken(&out).len() == 100);
}

/// Writes for ever, once it has begun.
#[derive(Clone, Default)]
struct NeverEnds(Arc<std::sync::atomic::AtomicBool>);

#[async_trait::async_trait]
impl crate::sink::Sink for NeverEnds {
    async fn open(
        &self,
        _: crate::sink::SinkContext,
    ) -> Result<Box<dyn crate::sink::SinkWriter>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl crate::sink::SinkWriter for NeverEnds {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        std::future::pending().await
    }
    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// Fails when the sink writes.
struct FailsSoon {
    writes: NeverEnds,
    runs: std::sync::atomic::AtomicU32,
}

#[async_trait::async_trait]
impl crate::source::Source for FailsSoon {
    async fn run(&self, cx: crate::source::SourceContext) -> Result<(), ConnectorError> {
        self.runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut writer = cx.ready(&[0]).remove(0);
        let rows = crate::source::Chunk {
            rows: many_rows(100),
            seqs: crate::source::Seqs::From(0),
            position: Value::from(100),
            rejects: Vec::new(),
        };
        let _ = writer.send(rows).await;
        while !self.writes.0.load(std::sync::atomic::Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(ConnectorError::Transient("the venue is gone".into()))
    }
}

/// Given a sink that is still writing long after the run has failed, then this process does not start the job again beside it, and
/// the error names the sink and what the run had failed of.
#[test]
fn a_job_does_not_start_again_beside_a_sink_that_still_writes() {
    let (mut plan, _) = graph(&[vec![]], "0", true);
    let writes = NeverEnds::default();
    let source = Arc::new(FailsSoon { writes: writes.clone(), runs: Default::default() });
    if let Body::Source { plan, .. } = &mut plan.nodes[0].body {
        plan.source = source.clone();
    }
    if let Body::Sink { plan } = &mut plan.nodes[2].body {
        plan.sink = Arc::new(writes);
    }
    let folder = tempfile::tempdir().unwrap();
    let options = RunOptions {
        end_within: Duration::from_millis(200),
        checkpoints: Some(CheckpointOptions {
            url: "checkpoints".into(),
            base: folder.path().into(),
            keep: 2,
            from: StartFrom::Latest,
            changes: Default::default(),
        }),
        ..Default::default()
    };
    let error = execute(plan, &options, CancellationToken::new()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`out` did not end within 200ms") && text.contains("the venue is gone"), "{text}");
    assert_eq!(error.class(), FailureClass::Transient);
    assert_eq!(source.runs.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// Whether a count has not changed for a while.
#[derive(Default)]
struct AtTheLimit(std::cell::Cell<(u64, u32)>);

impl AtTheLimit {
    fn is_still(&self, count: u64) -> bool {
        let (last, looks) = self.0.get();
        let looks = if count == last && count > 0 { looks + 1 } else { 0 };
        self.0.set((count, looks));
        looks > 300
    }
}

struct Refuses;

#[async_trait::async_trait]
impl crate::sink::Sink for Refuses {
    async fn open(
        &self,
        _: crate::sink::SinkContext,
    ) -> Result<Box<dyn crate::sink::SinkWriter>, ConnectorError> {
        // Long after the other sink could have written.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Err(ConnectorError::Fatal("it holds files of another run".into()))
    }
}

/// Given two sinks, when one refuses to open, then the other has written nothing: what it had from an earlier run is still there.
#[test]
fn no_sink_writes_before_all_are_open() {
    let (mut plan, out) = graph(&[vec![(0, 1, 5), (10, 1, 6)]], "0", false);
    let mut refuses = plan.nodes[2].clone();
    (refuses.id, refuses.name) = (3, "refuses".into());
    if let Body::Sink { plan } = &mut refuses.body {
        plan.sink = Arc::new(Refuses);
    }
    plan.nodes.push(refuses);
    let error = execute(plan, &RunOptions::default(), CancellationToken::new()).unwrap_err();
    assert!(error.to_string().contains("another run"), "{error}");
    assert_eq!(taken(&out), []);
}

/// Given a live source, when the job is stopped and resumed on other workers again and again, then
/// what its sink saw, up to what each run's last checkpoint covers, is the undisturbed output.
#[test]
fn a_stopped_job_goes_on_where_it_stood() {
    stopped_and_resumed(&StateOptions::default());
}

/// Given the same and no memory for keys between batches, then the output is the same.
#[test]
fn a_stopped_job_goes_on_with_spilled_keys() {
    let folder = tempfile::tempdir().unwrap();
    let spill = Some(folder.path().display().to_string());
    stopped_and_resumed(&StateOptions { memory: Some(Size::from_bytes(600)), spill });
}

/// Given state that does not fit its memory and no folder, then the job fails for good and says what to set.
#[test]
fn too_much_state_without_a_folder_ends_the_job_with_its_reason() {
    let rows = (0..1000).map(|i| (i, i, i)).collect();
    let (plan, _) = graph(&[rows], "0", false);
    let state = StateOptions { memory: Some(Size::from_bytes(10_000)), spill: None };
    let options = RunOptions { state, chunk_rows: 50, ..Default::default() };
    let error = execute(plan, &options, CancellationToken::new()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`sum`") && text.contains("state.memory") && text.contains("state.spill"),
        "{text}"
    );
    assert_eq!(error.class(), FailureClass::Fatal);
}

fn stopped_and_resumed(state: &StateOptions) {
    // Several partitions: on two workers and more, none knows where the others' stand.
    let rows: Vec<Vec<Row>> =
        (0..3).map(|p| (0..7000).map(|i| (i / 3, (3 * i + p) % 17, 3 * i + p)).collect()).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for (attempt, workers) in [1usize, 3, 2, 1].into_iter().enumerate() {
        let last = attempt == 3;
        let (plan, out) = graph(&rows, "0", !last);
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
            checkpoint_every: Duration::from_millis(5),
            state: state.clone(),
            ..Default::default()
        };
        let stop = CancellationToken::new();
        if !last {
            let (stop, out) = (stop.clone(), out.clone());
            std::thread::spawn(move || {
                while taken(&out).len() < 3000 {
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
    assert_eq!(seen.len(), expected.len());
    assert_eq!(seen, expected);
}
