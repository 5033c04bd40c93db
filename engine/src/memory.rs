//! A source of rows in memory and a sink into memory: for the tests of graphs and of the engine.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::component::{Partitions, SinkPlan, SourcePlan};
use crate::connector::ConnectorError;
use crate::sink::{Delivery, FlushPolicy, Placement, Sink, SinkContext, SinkWriter};
use crate::source::{Chunk, PartitionWriter, Seqs, Source, SourceContext};

/// Gives the rows of a list of partitions, each once, in order.
#[derive(Debug)]
pub struct MemorySource {
    partitions: Vec<RecordBatch>,
    /// Never ends, as a live feed does not.
    endless: bool,
}

impl MemorySource {
    /// A bounded source of these partitions; rows of a key must not be in two of them.
    pub fn plan(columns: SchemaRef, partitions: Vec<RecordBatch>) -> SourcePlan {
        Self::planned(columns, partitions, false)
    }

    /// Like [`plan`](Self::plan), but the source stays open after its last row.
    pub fn endless(columns: SchemaRef, partitions: Vec<RecordBatch>) -> SourcePlan {
        Self::planned(columns, partitions, true)
    }

    fn planned(columns: SchemaRef, partitions: Vec<RecordBatch>, endless: bool) -> SourcePlan {
        let many = partitions.len() > 1;
        SourcePlan {
            columns,
            partitions: if many { Partitions::Many { keyed_by: None } } else { Partitions::Single },
            bounded: !endless,
            replayable: true,
            source: Arc::new(Self { partitions, endless }),
        }
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        let own: Vec<u32> =
            (0..self.partitions.len() as u32).filter(|p| *p as usize % cx.instances == cx.instance).collect();
        // Each partition is fed by itself: the engine holds back those that are ahead.
        let feeds = cx.ready(&own).into_iter().map(|writer| {
            let start = cx.restored.get(&writer.id()).and_then(Value::as_u64).unwrap_or(0) as usize;
            feed(writer, &self.partitions, start, cx.chunk_rows, !self.endless)
        });
        futures::future::join_all(feeds).await;
        if self.endless {
            cx.stop.cancelled().await;
        }
        Ok(())
    }
}

async fn feed(
    mut writer: PartitionWriter,
    partitions: &[RecordBatch],
    mut start: usize,
    chunk_rows: usize,
    ends: bool,
) {
    let rows = &partitions[writer.id() as usize];
    while start < rows.num_rows() {
        let size = chunk_rows.min(rows.num_rows() - start);
        let chunk = Chunk {
            rows: rows.slice(start, size),
            seqs: Seqs::From(start as u64),
            position: json!(start + size),
            rejects: Vec::new(),
        };
        if writer.send(chunk).await.is_err() {
            return;
        }
        start += size;
    }
    if ends {
        writer.end();
    }
}

/// Rows that a [`CollectSink`] has taken.
pub type Collected = Arc<Mutex<Vec<RecordBatch>>>;

/// Keeps every row it is given.
#[derive(Debug, Default)]
pub struct CollectSink {
    rows: Collected,
}

impl CollectSink {
    /// A sink in total order, and where its rows will be.
    pub fn plan() -> (SinkPlan, Collected) {
        let rows = Collected::default();
        let sink = Self { rows: rows.clone() };
        let plan = SinkPlan {
            delivery: Delivery::Ordered,
            placement: Placement::Shards { count: 1, by: Vec::new() },
            flush: FlushPolicy::default(),
            sink: Arc::new(sink),
        };
        (plan, rows)
    }
}

#[async_trait]
impl Sink for CollectSink {
    async fn open(&self, _: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Collecting(self.rows.clone())))
    }
}

struct Collecting(Collected);

#[async_trait]
impl SinkWriter for Collecting {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(rows);
        Ok(())
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }
}
