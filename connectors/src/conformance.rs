//! What every bounded source owes the engine, as one check that its tests call.
//!
//! [`check_source`] drives a source by hand and asserts: positions increase and chunks fit; rows do
//! not depend on the size of chunks or the pace of the reader; from every position the rest is
//! exactly the rows not yet seen; stopping is prompt, however full the queues. [`another_input_is_refused`] asserts that a
//! position is good for the input that it counts, and for no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_engine::clock::Clock;
use tidemill_engine::component::SourcePlan;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{ChunkQueue, Position, Reject, Seqs, Source, SourceContext, SourceEvent};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How long a source may take to stop.
const STOP_MAX: Duration = Duration::from_secs(20);
/// How long an endless source that does not refuse is left running. One that does refuse must do so at its start.
const GO_ON_MAX: Duration = Duration::from_secs(2);
/// Positions that one check goes on from.
const POSITIONS_MAX: usize = 24;

/// How a source is driven.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Rows a chunk may have.
    pub chunk_rows: usize,
    /// Positions to go on from.
    pub restored: BTreeMap<u32, Position>,
    /// Time between two looks at a queue.
    pub pause: Duration,
    /// The run is stopped once a partition has given as many rows.
    pub rows_max: usize,
    /// The run that the start belongs to.
    pub run: u64,
    /// The start.
    pub generation: u64,
}

impl Default for Drive {
    fn default() -> Self {
        Self {
            chunk_rows: 8192,
            restored: BTreeMap::new(),
            pause: Duration::ZERO,
            rows_max: usize::MAX,
            run: 0,
            generation: 0,
        }
    }
}

/// What one partition gave.
#[derive(Clone, Debug)]
pub struct PartitionRead {
    /// All rows, dictionaries unpacked so that equal text is equal.
    pub rows: RecordBatch,
    /// Their positions.
    pub seqs: Vec<u64>,
    /// Refused input, `before` counted from the first row of the partition.
    pub rejects: Vec<Reject>,
    /// After each chunk: rows and rejects so far, and the position.
    pub positions: Vec<(usize, usize, Position)>,
}

/// Reads a source to its end (or `rows_max`), by partition.
pub async fn read_source(
    source: &Arc<dyn Source>,
    columns: &SchemaRef,
    drive: Drive,
) -> Result<BTreeMap<u32, PartitionRead>, ConnectorError> {
    let (cx, mut events) = context(&drive);
    let stop = cx.stop.clone();
    let source = source.clone();
    let run = tokio::spawn(async move { source.run(cx).await });
    let mut readers = Vec::new();
    while let Some(event) = events.recv().await {
        if let SourceEvent::Partition(id, queue, _) = event {
            let reader = collect(queue, columns.clone(), drive.clone(), stop.clone());
            readers.push((id, tokio::spawn(reader)));
        }
    }
    let mut partitions = BTreeMap::new();
    for (id, reader) in readers {
        partitions.insert(id, reader.await.unwrap_or_else(|e| panic!("partition {id}: {e}")));
    }
    run.await.unwrap_or_else(|e| panic!("the source panicked: {e}"))?;
    Ok(partitions)
}

fn context(drive: &Drive) -> (SourceContext, mpsc::UnboundedReceiver<SourceEvent>) {
    let (events, seen) = mpsc::unbounded_channel();
    let cx = SourceContext {
        name: "source".into(),
        instance: 0,
        instances: 1,
        restored: drive.restored.clone(),
        chunk_rows: drive.chunk_rows,
        clock: Clock::System,
        stop: CancellationToken::new(),
        // The sender goes: nothing is ever committed.
        committed: watch::channel(BTreeMap::new()).1,
        events,
        wake: Arc::new(|| ()),
        counts: Default::default(),
        run: drive.run,
        generation: drive.generation,
        log: Default::default(),
    };
    (cx, seen)
}

async fn collect(
    mut queue: ChunkQueue,
    columns: SchemaRef,
    drive: Drive,
    stop: CancellationToken,
) -> PartitionRead {
    let mut batches = Vec::new();
    let (mut seqs, mut rejects, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(chunk) = queue.recv().await {
        let n = chunk.rows.num_rows();
        assert_eq!(
            chunk.rows.schema().fields(),
            columns.fields(),
            "a chunk has other columns than were planned"
        );
        assert!(n <= drive.chunk_rows, "a chunk of {n} rows; at most {} were asked for", drive.chunk_rows);
        for reject in chunk.rejects {
            assert!(reject.before <= n, "a reject stands behind the rows of its chunk");
            rejects.push(Reject { before: reject.before + seqs.len(), ..reject });
        }
        match chunk.seqs {
            Seqs::From(first) => seqs.extend((first..).take(n)),
            Seqs::List(list) => {
                assert_eq!(list.len(), n, "as many positions as rows");
                seqs.extend(list);
            }
        }
        batches.push(chunk.rows);
        positions.push((seqs.len(), rejects.len(), chunk.position));
        if seqs.len() >= drive.rows_max {
            stop.cancel();
            break;
        }
        if !drive.pause.is_zero() {
            tokio::time::sleep(drive.pause).await;
        }
    }
    assert!(seqs.is_sorted_by(|a, b| a < b), "positions do not increase");
    let rows = arrow::compute::concat_batches(&columns, &batches).unwrap_or_else(|e| panic!("{e}"));
    PartitionRead { rows: unpacked(&rows), seqs, rejects, positions }
}

/// The rows with dictionary columns as plain values.
pub fn unpacked(rows: &RecordBatch) -> RecordBatch {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        let plain: ArrayRef = match column.data_type() {
            DataType::Dictionary(_, value) => {
                arrow::compute::cast(column, value).unwrap_or_else(|e| panic!("{e}"))
            }
            _ => column.clone(),
        };
        (field.name().clone(), plain, true)
    });
    RecordBatch::try_from_iter_with_nullable(columns.collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{e}"))
}

fn assert_rest(whole: &PartitionRead, from: (usize, usize), rest: Option<&PartitionRead>, what: &str) {
    let (rows, rejects) = from;
    let left = whole.seqs.len() - rows;
    let Some(rest) = rest else { panic!("{what}: the partition is gone") };
    assert_eq!(rest.seqs, whole.seqs[rows..], "{what}: positions differ");
    assert!(rest.rows == whole.rows.slice(rows, left), "{what}: rows differ");
    let reject = |r: &Reject, before: usize| (r.seq, r.before - before, r.raw.clone(), r.reason.clone());
    let expected: Vec<_> = whole.rejects[rejects..].iter().map(|r| reject(r, rows)).collect();
    let got: Vec<_> = rest.rejects.iter().map(|r| reject(r, 0)).collect();
    assert_eq!(got, expected, "{what}: rejects differ");
}

/// Asserts everything that a bounded source owes the engine; gives its rows.
pub async fn check_source(plan: &SourcePlan) -> BTreeMap<u32, PartitionRead> {
    let read = async |drive: Drive| {
        read_source(&plan.source, &plan.columns, drive)
            .await
            .unwrap_or_else(|e| panic!("the source failed: {e}"))
    };
    let whole = read(Drive::default()).await;
    let rows: usize = whole.values().map(|p| p.seqs.len()).sum();
    let small = Drive { chunk_rows: (rows / 300).clamp(1, 1000), ..Drive::default() };
    let cut = read(small.clone()).await;
    let slow = read(Drive {
        chunk_rows: (rows / 20).clamp(1, 8192),
        pause: Duration::from_millis(2),
        ..Drive::default()
    })
    .await;
    for (id, partition) in &whole {
        assert_rest(
            partition,
            (0, 0),
            cut.get(id),
            &format!("partition {id} in chunks of {}", small.chunk_rows),
        );
        assert_rest(partition, (0, 0), slow.get(id), &format!("partition {id}, slow reader"));
    }
    for (reading, chunk_rows) in [(&whole, 8192), (&cut, small.chunk_rows), (&cut, 8192)] {
        for (id, partition) in reading {
            let step = (partition.positions.len() / POSITIONS_MAX).max(1);
            let last = partition.positions.len().saturating_sub(1);
            for (i, (rows, rejects, position)) in partition.positions.iter().enumerate() {
                if i % step != 0 && i != last {
                    continue;
                }
                // Positions live in checkpoints as JSON text.
                let text = position.to_string();
                let stored: Position =
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("position {text}: {e}"));
                let mut restored: BTreeMap<u32, Position> = reading
                    .iter()
                    .filter_map(|(other, p)| {
                        p.positions.last().map(|(_, _, position)| (*other, position.clone()))
                    })
                    .collect();
                restored.insert(*id, stored);
                let rest = read(Drive { chunk_rows, restored, ..Drive::default() }).await;
                let what = format!("partition {id} from {text}");
                assert_rest(&whole[id], (*rows, *rejects), rest.get(id), &what);
            }
        }
    }
    check_stop(&plan.source).await;
    whole
}

/// Asserts that a source stops soon though nobody reads what it has queued.
pub async fn check_stop(source: &Arc<dyn Source>) {
    let (cx, mut events) = context(&Drive { chunk_rows: 1, ..Drive::default() });
    let stop = cx.stop.clone();
    let source = source.clone();
    let run = tokio::spawn(async move { source.run(cx).await });
    let mut queues = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            SourceEvent::Partition(_, queue, _) => queues.push(queue),
            SourceEvent::Begins(..) => {}
            SourceEvent::Ready => break,
        }
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.cancel();
    let stopped = tokio::time::timeout(STOP_MAX, run).await;
    let stopped = stopped.unwrap_or_else(|_| panic!("the source did not stop within {STOP_MAX:?}"));
    let ended = stopped.unwrap_or_else(|e| panic!("the source panicked: {e}"));
    ended.unwrap_or_else(|e| panic!("stopping is no error, but the source says: {e}"));
}

/// Asserts that whoever goes on from positions in the input of `plan` refuses that of `other` before it sends a row, for good, and with
/// `names` (what was read, what is there) and the way out in its message; and still takes its own. Gives the message.
pub async fn another_input_is_refused(
    plan: &SourcePlan,
    other: &SourcePlan,
    drive: Drive,
    names: &[&str],
) -> String {
    let read = read_source(&plan.source, &plan.columns, drive)
        .await
        .unwrap_or_else(|e| panic!("the source failed: {e}"));
    let mut message = None;
    for (id, partition) in &read {
        let chunks = partition.positions.len();
        assert!(chunks > 0, "partition {id} has no position: nothing was read");
        for i in BTreeSet::from([0, chunks / 2, chunks - 1]) {
            // Positions live in checkpoints as JSON text.
            let text = partition.positions[i].2.to_string();
            let stored: Position =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("position {text}: {e}"));
            let mut restored: BTreeMap<u32, Position> = read
                .iter()
                .filter_map(|(id, p)| p.positions.last().map(|(_, _, position)| (*id, position.clone())))
                .collect();
            restored.insert(*id, stored);
            let (error, rows) = go_on(other, restored.clone()).await;
            let Some(ConnectorError::Fatal(reason)) = error else {
                panic!(
                    "partition {id} from {text}: another input is not refused for good: {error:?}, {rows} rows"
                )
            };
            assert_eq!(rows, 0, "partition {id} from {text}: rows came before the refusal");
            for name in names.iter().chain(&["--from none"]) {
                assert!(reason.contains(name), "`{name}` is not in the message: {reason}");
            }
            message = Some(reason);
            let (error, _) = go_on(plan, restored).await;
            assert!(error.is_none(), "partition {id} from {text}: its own input is refused: {error:?}");
        }
    }
    message.unwrap_or_else(|| panic!("the source has no partition"))
}

/// Goes on from positions until the source ends or fails, or (an endless one) for a moment; its error, and how many rows it sent.
async fn go_on(plan: &SourcePlan, restored: BTreeMap<u32, Position>) -> (Option<ConnectorError>, usize) {
    let (cx, mut events) = context(&Drive { restored, ..Drive::default() });
    let stop = cx.stop.clone();
    let source = plan.source.clone();
    let mut run = tokio::spawn(async move { source.run(cx).await });
    let counting = tokio::spawn(async move {
        let mut counts = Vec::new();
        while let Some(event) = events.recv().await {
            if let SourceEvent::Partition(_, mut queue, _) = event {
                counts.push(tokio::spawn(async move {
                    let mut rows = 0;
                    while let Some(chunk) = queue.recv().await {
                        rows += chunk.rows.num_rows() + chunk.rejects.len();
                    }
                    rows
                }));
            }
        }
        let mut rows = 0;
        for count in counts {
            rows += count.await.unwrap_or(0);
        }
        rows
    });
    let ended = match plan.bounded {
        true => run.await,
        false => match tokio::time::timeout(GO_ON_MAX, &mut run).await {
            Ok(ended) => ended,
            Err(_) => {
                stop.cancel();
                run.await
            }
        },
    };
    let ended = ended.unwrap_or_else(|e| panic!("the source panicked: {e}"));
    (ended.err(), counting.await.unwrap_or_else(|e| panic!("{e}")))
}
