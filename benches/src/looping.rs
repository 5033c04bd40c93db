//! A source that gives prepared trades over and over, so that a run costs what comes behind it.
//!
//! Symbols, prices and sizes are made once and sent again; only `ts` is written for every row. Times
//! are 1 µs apart. With several partitions rows alternate between them, and `disorder` puts them out of
//! order within each.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;
use tidemill_engine::source::{Chunk, PartitionWriter, Seqs, Source, SourceContext};

/// Rows that are prepared: enough to keep indicators busy, few enough for the caches of one core.
const PREPARED: usize = 65_536;
/// 2 January 2024, nanoseconds.
const START: i64 = 1_704_153_600_000_000_000;
/// Between two rows of the whole source.
const STEP_NS: i64 = 1_000;

/// Prepared trades, over and over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Rows in all.
    pub rows: u64,
    /// Symbols.
    pub keys: usize,
    /// Partitions; more than one promises no order.
    pub partitions: usize,
    /// Whether a symbol's rows are all in one partition, and the source says so.
    pub keyed: bool,
    /// Rows are up to so many nanoseconds out of order within their partition.
    pub disorder_ns: i64,
    /// Adds a column `account` of so many values, in turn.
    pub accounts: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { rows: 1_000_000, keys: 64, partitions: 1, keyed: false, disorder_ns: 0, accounts: 0 }
    }
}

/// The kind.
#[derive(Debug)]
pub struct Looping;

#[async_trait]
impl SourceKind for Looping {
    const KIND: &'static str = "looping";
    type Params = Params;

    async fn plan(params: Params, _: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut fields = vec![
            Field::new(row::TS, row::ts_type(), false),
            Field::new("symbol", row::symbol_type(), false),
            Field::new("price", DataType::Float64, false),
            Field::new("size", DataType::Float64, false),
        ];
        if params.accounts > 0 {
            fields.push(Field::new("account", DataType::Int64, false));
        }
        let columns = Arc::new(Schema::new(fields));
        let partitions = match params.partitions {
            1 => Partitions::Single,
            _ => Partitions::Many { keyed_by: params.keyed.then(|| vec!["symbol".to_owned()]) },
        };
        let source = Arc::new(LoopingSource { columns: columns.clone(), params });
        Ok(SourcePlan { columns, partitions, bounded: true, replayable: true, source })
    }
}

struct LoopingSource {
    columns: SchemaRef,
    params: Params,
}

/// Xorshift64* (Vigna 2016): the same rows every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// What one partition sends again and again.
struct Prepared {
    symbol: ArrayRef,
    price: ArrayRef,
    size: ArrayRef,
    /// What is taken off each row's time.
    back: Vec<i64>,
}

impl LoopingSource {
    fn prepare(&self, partition: usize) -> Prepared {
        let Params { keys, partitions, keyed, disorder_ns, .. } = self.params;
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (partition as u64 + 1));
        let mut prices = vec![100.0; keys];
        let own: Vec<usize> = (0..keys).filter(|k| !keyed || k % partitions == partition).collect();
        let mut codes = Vec::with_capacity(PREPARED);
        let mut price = Vec::with_capacity(PREPARED);
        let mut size = Vec::with_capacity(PREPARED);
        let mut back = Vec::with_capacity(PREPARED);
        for _ in 0..PREPARED {
            let key = own[(random.next() >> 33) as usize % own.len()];
            let step = ((random.next() >> 40) as f64 / (1u64 << 24) as f64 - 0.5) * 0.1;
            prices[key] = (prices[key] + step).clamp(50.0, 200.0);
            codes.push(key as i32);
            price.push((prices[key] * 100.0).round() / 100.0);
            size.push((1 + (random.next() >> 40) % 500) as f64);
            back.push(if disorder_ns > 0 { (random.next() >> 1) as i64 % disorder_ns } else { 0 });
        }
        let names = StringArray::from_iter_values((0..keys).map(|k| format!("S{k:04}")));
        let symbol = DictionaryArray::<Int32Type>::new(Int32Array::from(codes), Arc::new(names));
        Prepared {
            symbol: Arc::new(symbol),
            price: Arc::new(Float64Array::from(price)),
            size: Arc::new(Float64Array::from(size)),
            back,
        }
    }

    async fn feed(&self, mut writer: PartitionWriter, chunk_rows: usize) -> Result<(), ConnectorError> {
        let partition = u64::from(writer.id());
        let partitions = self.params.partitions as u64;
        let prepared = self.prepare(partition as usize);
        let rows = self.params.rows / partitions;
        let mut sent = 0;
        while sent < rows {
            let from = (sent % PREPARED as u64) as usize;
            let n = chunk_rows.min(PREPARED - from).min((rows - sent) as usize);
            let number = |i: usize| (sent + i as u64) * partitions + partition;
            let back = &prepared.back[from..from + n];
            let times =
                back.iter().enumerate().map(|(i, back)| START + number(i) as i64 * STEP_NS - back).collect();
            let mut columns = vec![
                row::ts_array(times),
                prepared.symbol.slice(from, n),
                prepared.price.slice(from, n),
                prepared.size.slice(from, n),
            ];
            if self.params.accounts > 0 {
                columns.push(Arc::new(Int64Array::from_iter_values(
                    (0..n).map(|i| (number(i) % self.params.accounts) as i64),
                )));
            }
            let batch = RecordBatch::try_new(self.columns.clone(), columns)
                .map_err(|e| ConnectorError::fatal("prepared rows", e))?;
            let position = json!(sent + n as u64);
            if writer
                .send(Chunk { rows: batch, seqs: Seqs::From(sent), position, rejects: Vec::new() })
                .await
                .is_err()
            {
                return Ok(());
            }
            sent += n as u64;
        }
        writer.end();
        Ok(())
    }
}

#[async_trait]
impl Source for LoopingSource {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        let own: Vec<u32> = (0..self.params.partitions as u32)
            .filter(|p| *p as usize % cx.instances == cx.instance)
            .collect();
        let mut feeds = tokio::task::JoinSet::new();
        for writer in cx.ready(&own) {
            let this = Self { columns: self.columns.clone(), params: self.params.clone() };
            let chunk_rows = cx.chunk_rows;
            feeds.spawn(async move { this.feed(writer, chunk_rows).await });
        }
        while let Some(fed) = feeds.join_next().await {
            fed.map_err(|e| ConnectorError::fatal("a partition stopped", e))??;
        }
        Ok(())
    }
}
