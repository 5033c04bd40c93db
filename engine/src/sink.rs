//! What a sink is: async code that makes rows durable, shard by shard.

use std::path::PathBuf;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde_json::Value;

use crate::clock::Clock;
use crate::connector::ConnectorError;

/// In which order a sink's rows reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// As they come: per key in event order, at once.
    Eager,
    /// In the total order `(ts, _src, _seq)` per shard, each as soon as the watermark passes it.
    Ordered,
}

/// What a sink promises of a row when the job is killed and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Readers find it once.
    ExactlyOnce,
    /// Readers find it, perhaps more than once.
    AtLeastOnce,
}

/// How rows are spread over writers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// One writer a worker, rows stay where they are.
    Local,
    /// A fixed number of writers whatever the number of workers; rows go by the hash of `by`
    /// (all to shard 0 where it is empty).
    Shards { count: usize, by: Vec<String> },
}

/// A sink, ready to be opened by each of its shards.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What it promises of rows that come again after a restart, as long as the sources can be read again.
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    /// The place on this machine where it keeps what a restart needs beside the checkpoint, as users call it.
    fn kept_here(&self) -> Option<String> {
        None
    }

    /// The place that no other sink may write, as `(field of with:, place)`; two spellings of one place are equal. A graph with two
    /// sinks of one kind at one place is refused. `None` where several sinks may share a place.
    fn exclusive(&self) -> Option<(&'static str, String)> {
        None
    }

    /// Opens one shard. It fences older writers of the same shard, and puts what they left
    /// half-done right, before it returns.
    async fn open(&self, cx: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError>;
}

/// What the engine hands a shard.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// Name of the job.
    pub job: String,
    /// Name of the node in the graph.
    pub name: String,
    /// This shard.
    pub shard: usize,
    /// How many there are in this run.
    pub shards: usize,
    /// The generation of this run; larger than that of any earlier run of the job.
    pub generation: u64,
    /// The generation at which this run began from nothing; a restart keeps it. What an earlier run
    /// left outside (progress in a topic, files) has a smaller number.
    pub run: u64,
    /// Whether the run has committed no checkpoint yet (it may have been started more than once).
    pub fresh: bool,
    /// Whether this start goes on with a run that an earlier start began, even one that committed nothing.
    pub resumed: bool,
    /// Whether every source that feeds the sink can be read again from the checkpoint. Where not, what the
    /// sink wrote behind the checkpoint stays: nothing will bring it again, and what comes is new.
    pub replayable: bool,
    /// Id of the checkpoint this run starts from; 0 where it starts from none.
    pub start_checkpoint: u64,
    /// Rows' schema, system columns first.
    pub schema: SchemaRef,
    /// What every shard of the sink gave to the checkpoint the run starts from, by shard.
    pub restored: Vec<(usize, Value)>,
    /// Where the run begins from nothing: what every shard gave to the last checkpoint of the run before, by shard. What is
    /// remembered there is the sink's own, though it is not gone on with.
    pub former: Vec<(usize, Value)>,
    /// The folder of the graph's file: relative paths start here.
    pub base: PathBuf,
    /// Time, for connectors that need it.
    pub clock: Clock,
}

/// The writer of one shard. Calls never overlap.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes rows, in the order the sink's [`Delivery`] promises. May buffer.
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError>;

    /// Makes all rows written so far durable, together with the progress: every row with
    /// `ts < watermark` has been written. Called when the linger has passed since the first row
    /// not yet flushed, at the row limit, and before every checkpoint.
    async fn flush(&mut self, watermark: i64) -> Result<(), ConnectorError>;

    /// Everything before checkpoint `id` has been written and flushed; gives what the checkpoint
    /// should remember of this shard. Files become visible here.
    async fn checkpoint(&mut self, _id: u64) -> Result<Value, ConnectorError> {
        Ok(Value::Null)
    }

    /// Just after opening: the time below which it has written all rows in an earlier attempt of this run, so that it leaves them out
    /// when they come again. `None` where it remembers nothing.
    fn horizon(&self) -> Option<i64> {
        None
    }

    /// All sinks of the job are open, in every process, and nothing was written: what an earlier run left, and this one is to
    /// replace, may be removed now. Not before, as a sink that refuses to open would leave the job without both.
    async fn started(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// Checkpoint `id` is committed.
    async fn committed(&mut self, _id: u64) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// The run has ended in order (after a last checkpoint and its commit).
    async fn close(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
}

/// When written rows are flushed.
#[derive(Clone, Copy, Debug)]
pub struct FlushPolicy {
    /// Longest time a row waits for a flush; zero flushes as soon as the queue is empty.
    pub linger: Duration,
    /// Most rows that wait for a flush.
    pub rows_max: usize,
}

impl Default for FlushPolicy {
    fn default() -> Self {
        Self { linger: Duration::from_millis(5), rows_max: 65_536 }
    }
}
