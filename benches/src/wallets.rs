//! A source of transfers by very many wallets, made as they are read.
//!
//! The first rows name each wallet once (`fill`), so that state has its full size; after that they are drawn evenly, or so that
//! wallet number `r` comes with a probability proportional to `1 / r` (Zipf's law with exponent 1).

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;
use tidemill_engine::source::{Chunk, PartitionWriter, Seqs, Source, SourceContext};

/// 2 January 2024, nanoseconds.
const START: i64 = 1_704_153_600_000_000_000;

/// Transfers by very many wallets.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Rows in all.
    pub rows: u64,
    /// Wallets.
    pub keys: u64,
    /// Whether the first rows name each wallet once, in scattered order.
    pub fill: bool,
    /// Whether few wallets have most rows.
    pub zipf: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self { rows: 1_000_000, keys: 1_000_000, fill: false, zipf: false }
    }
}

/// The kind.
#[derive(Debug)]
pub struct Wallets;

#[async_trait]
impl SourceKind for Wallets {
    const KIND: &'static str = "wallets";
    type Params = Params;

    async fn plan(params: Params, _: &PlanContext) -> Result<SourcePlan, Problems> {
        let columns = Arc::new(Schema::new(vec![
            Field::new(row::TS, row::ts_type(), false),
            Field::new("wallet", DataType::UInt64, false),
            Field::new("price", DataType::Float64, false),
        ]));
        let source = Arc::new(WalletsSource { columns: columns.clone(), params });
        Ok(SourcePlan { columns, partitions: Partitions::Single, bounded: true, replayable: true, source })
    }
}

struct WalletsSource {
    columns: SchemaRef,
    params: Params,
}

/// SplitMix64 (Steele 2014) of a number: a bijection.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl WalletsSource {
    fn wallet(&self, row: u64) -> u64 {
        let Params { keys, fill, zipf, .. } = self.params;
        if fill && row < keys {
            return mix(row);
        }
        let drawn = mix(row ^ 0x5555_5555_5555_5555);
        let number = if zipf {
            let unit = (drawn >> 11) as f64 / (1_u64 << 53) as f64;
            ((keys as f64 + 1.0).powf(unit) as u64).clamp(1, keys) - 1
        } else {
            drawn % keys
        };
        mix(number)
    }

    async fn feed(&self, mut writer: PartitionWriter, chunk_rows: usize) -> Result<(), ConnectorError> {
        let mut sent = 0;
        while sent < self.params.rows {
            let n = chunk_rows.min((self.params.rows - sent) as usize) as u64;
            let rows = sent..sent + n;
            let columns: Vec<ArrayRef> = vec![
                row::ts_array(rows.clone().map(|row| START + row as i64 * 1000).collect()),
                Arc::new(UInt64Array::from_iter_values(rows.clone().map(|row| self.wallet(row)))),
                Arc::new(Float64Array::from_iter_values(rows.map(|row| (mix(row) % 10_000) as f64))),
            ];
            let batch = RecordBatch::try_new(self.columns.clone(), columns)
                .map_err(|e| ConnectorError::fatal("transfers", e))?;
            let chunk =
                Chunk { rows: batch, seqs: Seqs::From(sent), position: json!(sent + n), rejects: Vec::new() };
            if writer.send(chunk).await.is_err() {
                return Ok(());
            }
            sent += n;
        }
        writer.end();
        Ok(())
    }
}

#[async_trait]
impl Source for WalletsSource {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        let own: Vec<u32> = (0..1).filter(|p| *p as usize % cx.instances == cx.instance).collect();
        for writer in cx.ready(&own) {
            self.feed(writer, cx.chunk_rows).await?;
        }
        Ok(())
    }
}
