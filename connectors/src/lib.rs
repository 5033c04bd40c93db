//! Sources, one folder or file per system. A system's wire types and settings live here once, for
//! its source and its sink.

use tidemill_engine::registry::Registry;

pub mod conformance;
pub mod csv;
pub mod files;
pub mod jsonl;
pub mod kafka;
pub mod parquet;
pub mod records;
pub mod sim_market;

/// Adds every source kind.
pub fn register(registry: &mut Registry) {
    registry.source::<csv::Csv>();
    registry.source::<jsonl::Jsonl>();
    registry.source::<kafka::Kafka>();
    registry.source::<parquet::Parquet>();
    registry.source::<sim_market::SimMarket>();
}
