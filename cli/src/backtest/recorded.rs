//! History that is read once and run many times: a source's chunks, kept in memory as they came.
//!
//! Rows, positions and refused input are the source's own, so a run from memory is the run from files. What is too
//! large for memory is read anew by each run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tidemill_engine::clock::Clock;
use tidemill_engine::component::SourcePlan;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::metrics::Counts;
use tidemill_engine::plan::{Body, Plan};
use tidemill_engine::source::{Chunk, PartitionWriter, Reject, Seqs, Source, SourceContext, SourceEvent};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Memory that history may take.
pub const BYTES_MAX: usize = 4 << 30;
/// Rows of a chunk: few chunks make little work of each run.
const CHUNK_ROWS: usize = 32 * 1024;

/// A chunk that can be given out again.
struct Kept {
    rows: RecordBatch,
    seqs: KeptSeqs,
    position: serde_json::Value,
    rejects: Vec<Reject>,
}

enum KeptSeqs {
    From(u64),
    List(Vec<u64>),
}

impl Kept {
    fn new(chunk: Chunk) -> Self {
        let seqs = match chunk.seqs {
            Seqs::From(first) => KeptSeqs::From(first),
            Seqs::List(list) => KeptSeqs::List(list),
        };
        Self { rows: chunk.rows, seqs, position: chunk.position, rejects: chunk.rejects }
    }

    fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.rejects.iter().map(|r| r.raw.len()).sum::<usize>()
    }

    fn again(&self) -> Chunk {
        let seqs = match &self.seqs {
            KeptSeqs::From(first) => Seqs::From(*first),
            KeptSeqs::List(list) => Seqs::List(list.clone()),
        };
        Chunk {
            rows: self.rows.clone(),
            seqs,
            position: self.position.clone(),
            rejects: self.rejects.clone(),
        }
    }
}

/// A source's history in memory.
struct Recorded {
    partitions: BTreeMap<u32, Vec<Kept>>,
}

#[async_trait]
impl Source for Recorded {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        let own: Vec<u32> =
            self.partitions.keys().copied().filter(|p| *p as usize % cx.instances == cx.instance).collect();
        let feeds = cx.ready(&own).into_iter().map(|writer| feed(writer, &self.partitions));
        futures::future::join_all(feeds).await;
        Ok(())
    }
}

async fn feed(mut writer: PartitionWriter, partitions: &BTreeMap<u32, Vec<Kept>>) {
    for chunk in partitions.get(&writer.id()).into_iter().flatten() {
        if writer.send(chunk.again()).await.is_err() {
            return;
        }
    }
    writer.end();
}

/// Sources that have been read, by what they are. Shared by the runs of a sweep.
#[derive(Clone, Default)]
pub struct Library(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// `None`: too large.
    sources: BTreeMap<String, Option<SourcePlan>>,
    bytes: usize,
}

impl Library {
    /// Puts history from memory in place of the sources of `plan`, reading those that have not been read yet. Planning
    /// has seen to it that all of them end.
    pub async fn serve(&self, plan: &mut Plan) -> Result<(), ConnectorError> {
        for node in &mut plan.nodes {
            let Body::Source { plan: source, options, .. } = &mut node.body else { continue };
            let key = serde_json::json!([node.name, node.kind, node.with, options]).to_string();
            let known = self.lock().sources.get(&key).cloned();
            let known = match known {
                Some(known) => known,
                None => {
                    let room = BYTES_MAX - self.lock().bytes.min(BYTES_MAX);
                    let recorded = record(&node.name, source, room).await?;
                    let mut state = self.lock();
                    let planned = recorded.map(|(recorded, bytes)| {
                        state.bytes += bytes;
                        SourcePlan { source: Arc::new(recorded), ..source.clone() }
                    });
                    state.sources.insert(key, planned.clone());
                    planned
                }
            };
            if let Some(known) = known {
                *source = known;
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a source to its end; `None` where it is larger than `room` bytes.
async fn record(
    name: &str,
    plan: &SourcePlan,
    room: usize,
) -> Result<Option<(Recorded, usize)>, ConnectorError> {
    let (events, mut announced) = mpsc::unbounded_channel();
    // Committed positions never come.
    let (_commits, committed) = watch::channel(BTreeMap::new());
    let stop = CancellationToken::new();
    let context = SourceContext {
        name: name.to_owned(),
        instance: 0,
        instances: 1,
        restored: BTreeMap::new(),
        chunk_rows: CHUNK_ROWS,
        clock: Clock::System,
        stop: stop.clone(),
        committed,
        events,
        wake: Arc::new(|| ()),
        counts: Counts::default(),
        run: 0,
        generation: 0,
        log: Default::default(),
    };
    let source = plan.source.clone();
    let reading = tokio::spawn(async move { source.run(context).await });
    let mut readers = tokio::task::JoinSet::new();
    let bytes = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let full = Arc::new(AtomicBool::new(false));
    while let Some(event) = announced.recv().await {
        let SourceEvent::Partition(id, mut queue, _) = event else { continue };
        let (bytes, full, stop) = (bytes.clone(), full.clone(), stop.clone());
        readers.spawn(async move {
            let mut chunks = Vec::new();
            while let Some(chunk) = queue.recv().await {
                let kept = Kept::new(chunk);
                let held = bytes.fetch_add(kept.bytes(), Ordering::Relaxed) + kept.bytes();
                if held > room {
                    full.store(true, Ordering::Relaxed);
                    stop.cancel();
                    break;
                }
                chunks.push(kept);
            }
            (id, chunks)
        });
    }
    let mut partitions = BTreeMap::new();
    while let Some(read) = readers.join_next().await {
        let (id, chunks) = read.map_err(|e| ConnectorError::fatal("the reader of history stopped", e))?;
        partitions.insert(id, chunks);
    }
    reading.await.map_err(|e| ConnectorError::fatal("the reader of history stopped", e))??;
    if full.load(Ordering::Relaxed) {
        return Ok(None);
    }
    Ok(Some((Recorded { partitions }, bytes.load(Ordering::Relaxed))))
}
