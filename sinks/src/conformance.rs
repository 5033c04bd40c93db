//! What every exactly-once sink owes the engine, as one check that its tests call.
//!
//! [`check_sink`] writes the same rows undisturbed and with a crash (writers dropped, nothing
//! closed) at every step of a run: after a write, a flush, a checkpoint that was never committed,
//! a commit. Each time it starts again from the last committed checkpoint, replays what came after,
//! and asserts that the contents are those of the undisturbed run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, SchemaRef};
use serde_json::Value;
use tidemill_engine::clock::Clock;
use tidemill_engine::component::{PlanContext, SinkPlan, StreamInfo};
use tidemill_engine::row;
use tidemill_engine::sink::{Placement, SinkContext, SinkWriter};

/// 2024-01-01T00:00:00Z.
const START_NS: i64 = 1_704_067_200_000_000_000;
/// Steps of a run: each writes some rows to every shard, flushes, and takes a checkpoint.
const STEPS: usize = 4;
/// Rows each shard gets in a step.
const STEP_ROWS: usize = 60;
/// Batches each shard gets in a step.
const STEP_BATCHES: usize = 3;

/// A sink to check.
pub struct Case<'a> {
    /// Plans the sink so that it writes below a folder.
    pub plan: &'a dyn Fn(&Path) -> SinkPlan,
    /// What a reader finds below that folder: one text per row. Sorted before it is compared
    /// where the sink has several shards.
    pub contents: &'a dyn Fn(&Path) -> Vec<String>,
}

/// Where a run crashes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crash {
    Written,
    Flushed,
    /// One shard has given its word to the checkpoint, the others have not.
    HalfCheckpointed,
    Checkpointed,
    Committed,
}

/// Schema of the rows that the check writes.
pub fn schema() -> SchemaRef {
    row::stream_schema(&[
        Arc::new(Field::new("symbol", row::symbol_type(), false)),
        Arc::new(Field::new("price", DataType::Float64, true)),
    ])
}

/// The stream that the check writes.
pub fn stream() -> StreamInfo {
    StreamInfo { name: "rows".into(), schema: schema() }
}

/// Rows by number: one an hour, three symbols in turn, a null price now and then.
pub fn rows(numbers: std::ops::Range<usize>) -> RecordBatch {
    let n = numbers.len();
    let symbols: DictionaryArray<Int32Type> = numbers.clone().map(|i| ["S0", "S1", "S 2/x"][i % 3]).collect();
    let prices: Float64Array = numbers.clone().map(|i| (i % 17 != 5).then_some(i as f64 / 4.0)).collect();
    let columns: Vec<ArrayRef> = vec![
        row::ts_array(numbers.clone().map(|i| START_NS + i as i64 * 3_600_000_000_000).collect()),
        row::u64_array(vec![7; n]),
        row::u64_array(numbers.map(|i| i as u64).collect()),
        Arc::new(symbols),
        Arc::new(prices),
    ];
    RecordBatch::try_new(schema(), columns).unwrap_or_else(|e| panic!("{e}"))
}

/// A planning context for a graph in `base`.
pub fn plan_context(base: &Path) -> PlanContext {
    PlanContext { job: "job".into(), node: "out".into(), base: base.to_owned(), clock: Clock::System }
}

/// The context of shard 0 of 1.
pub fn context(base: &Path, start_checkpoint: u64, restored: Vec<(usize, Value)>) -> SinkContext {
    SinkContext {
        job: "job".into(),
        name: "out".into(),
        shard: 0,
        shards: 1,
        generation: 1,
        run: 1,
        fresh: start_checkpoint == 0,
        resumed: start_checkpoint > 0,
        replayable: true,
        start_checkpoint,
        schema: schema(),
        restored,
        former: Vec::new(),
        base: base.to_owned(),
        clock: Clock::System,
    }
}

/// What the engine would keep of a run.
#[derive(Default)]
struct Manifest {
    checkpoint: u64,
    step: usize,
    shards: BTreeMap<usize, Value>,
}

/// Asserts everything that an exactly-once sink owes the engine, in folders below `root`; gives
/// the contents.
pub async fn check_sink(root: &Path, case: &Case<'_>) -> Vec<String> {
    let whole = root.join("whole");
    let expected = contents_after(&whole, case, &[]).await;
    assert!(!expected.is_empty(), "the sink wrote nothing");
    let crashes =
        [Crash::Written, Crash::Flushed, Crash::HalfCheckpointed, Crash::Checkpointed, Crash::Committed];
    for (i, crash) in crashes.into_iter().enumerate() {
        for step in 0..STEPS {
            let folder = root.join(format!("crash-{i}-{step}"));
            let got = contents_after(&folder, case, &[(step, crash)]).await;
            assert_eq!(got, expected, "after a crash in step {step}: {crash:?}");
        }
    }
    let many: Vec<_> = crashes.into_iter().enumerate().map(|(i, c)| (i.min(STEPS - 1), c)).collect();
    assert_eq!(contents_after(&root.join("many"), case, &many).await, expected, "after {many:?}");
    expected
}

async fn contents_after(base: &Path, case: &Case<'_>, crashes: &[(usize, Crash)]) -> Vec<String> {
    std::fs::create_dir_all(base).unwrap_or_else(|e| panic!("{e}"));
    let plan = (case.plan)(base);
    let mut manifest = Manifest::default();
    for (run, crash) in crashes.iter().copied().map(Some).chain([None]).enumerate() {
        run_once(&plan, base, run as u64 + 1, &mut manifest, crash).await;
    }
    let mut contents = (case.contents)(base);
    if plan.placement == Placement::Local {
        contents.sort();
    }
    contents
}

async fn run_once(
    plan: &SinkPlan,
    base: &Path,
    generation: u64,
    manifest: &mut Manifest,
    crash: Option<(usize, Crash)>,
) {
    let shards = match &plan.placement {
        Placement::Local => 2,
        Placement::Shards { count, .. } => *count,
    };
    let mut writers: Vec<Box<dyn SinkWriter>> = Vec::new();
    for shard in 0..shards {
        let restored = manifest.shards.iter().map(|(s, v)| (*s, v.clone())).collect();
        let cx = SinkContext { shard, shards, generation, ..context(base, manifest.checkpoint, restored) };
        writers.push(plan.sink.open(cx).await.unwrap_or_else(|e| panic!("shard {shard} does not open: {e}")));
    }
    for writer in &mut writers {
        writer.started().await.unwrap_or_else(|e| panic!("{e}"));
    }
    let crashes = |step, at| crash == Some((step, at));
    let fine =
        |r: Result<(), tidemill_engine::connector::ConnectorError>| r.unwrap_or_else(|e| panic!("{e}"));
    if manifest.checkpoint == 0 {
        // A run takes a checkpoint before its first row.
        let mut shards = BTreeMap::new();
        for (shard, writer) in writers.iter_mut().enumerate() {
            shards.insert(shard, writer.checkpoint(1).await.unwrap_or_else(|e| panic!("{e}")));
        }
        *manifest = Manifest { checkpoint: 1, step: 0, shards };
        for writer in &mut writers {
            fine(writer.committed(1).await);
        }
    }
    for step in manifest.step..STEPS {
        let mut watermark = 0;
        for batch in 0..STEP_BATCHES {
            for (shard, writer) in writers.iter_mut().enumerate() {
                let first = (step * shards + shard) * STEP_ROWS + batch * STEP_ROWS / STEP_BATCHES;
                let rows = rows(first..first + STEP_ROWS / STEP_BATCHES);
                watermark = row::ts(&rows).last().map_or(watermark, |ts| watermark.max(ts + 1));
                fine(writer.write(rows).await);
            }
        }
        if crashes(step, Crash::Written) {
            return;
        }
        for writer in &mut writers {
            fine(writer.flush(watermark).await);
        }
        if crashes(step, Crash::Flushed) {
            return;
        }
        // Ids have holes: a checkpoint may have been given up.
        let id = manifest.checkpoint + 1 + generation % 2;
        let mut kept = BTreeMap::new();
        for (shard, writer) in writers.iter_mut().enumerate() {
            kept.insert(shard, writer.checkpoint(id).await.unwrap_or_else(|e| panic!("{e}")));
            if crashes(step, Crash::HalfCheckpointed) {
                return;
            }
        }
        if crashes(step, Crash::Checkpointed) {
            return;
        }
        *manifest = Manifest { checkpoint: id, step: step + 1, shards: kept };
        for writer in &mut writers {
            fine(writer.committed(id).await);
        }
        if crashes(step, Crash::Committed) {
            return;
        }
    }
    for mut writer in writers {
        fine(writer.close().await);
    }
}
