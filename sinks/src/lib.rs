//! Sinks, one folder or file per system.

use tidemill_engine::registry::Registry;

pub mod alpaca;
pub mod broker;
pub mod conformance;
pub mod jsonl;
pub mod kafka;
pub mod null;
pub mod parquet;
pub mod stdout;

/// Adds every sink kind.
pub fn register(registry: &mut Registry) {
    registry.sink::<alpaca::Alpaca>();
    registry.sink::<jsonl::Jsonl>();
    registry.sink::<kafka::Kafka>();
    registry.sink::<null::Null>();
    registry.sink::<parquet::Parquet>();
    registry.sink::<stdout::Stdout>();
}
