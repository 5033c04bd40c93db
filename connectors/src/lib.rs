//! Sources, one folder or file per system. A system's wire types and settings live here once, for
//! its source and its sink.

use tidemill_engine::registry::Registry;

pub mod alpaca;
pub mod backfill;
pub mod binance;
pub mod broker;
pub mod capture;
pub mod coinbase;
pub mod conformance;
pub mod control;
pub mod csv;
pub mod files;
pub mod jsonl;
pub mod kafka;
pub mod kraken;
pub mod parquet;
pub mod records;
pub mod sim_market;
pub mod venue;
pub mod websocket;

/// Adds every source kind.
pub fn register(registry: &mut Registry) {
    registry.source::<alpaca::Alpaca>();
    registry.source::<alpaca::account::AlpacaAccount>();
    registry.source::<binance::Binance>();
    registry.source::<capture::Capture>();
    registry.source::<coinbase::Coinbase>();
    registry.source::<control::Control>();
    registry.source::<csv::Csv>();
    registry.source::<jsonl::Jsonl>();
    registry.source::<kafka::Kafka>();
    registry.source::<kraken::Kraken>();
    registry.source::<parquet::Parquet>();
    registry.source::<sim_market::SimMarket>();
    registry.source::<websocket::Websocket>();
}
