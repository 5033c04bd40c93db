//! Operators, one file each: rows in, rows out, no IO and no clock.

use tidemill_engine::registry::Registry;

pub mod columns;

#[cfg(test)]
mod check;

pub mod asof_join;
pub mod bars;
pub mod book_metrics;
pub mod cointegration;
pub mod crossover;
pub mod dedupe;
pub mod execution;
pub mod indicators;
pub mod risk;
pub mod select;
mod ttl;
pub mod union;

/// Adds every operator kind.
pub fn register(registry: &mut Registry) {
    registry
        .operator::<asof_join::AsofJoin>()
        .operator::<bars::Bars>()
        .operator::<book_metrics::BookMetrics>()
        .operator::<cointegration::Cointegration>()
        .operator::<crossover::Crossover>()
        .operator::<dedupe::Dedupe>()
        .operator::<execution::Execution>()
        .operator::<indicators::Indicators>()
        .operator::<risk::Risk>()
        .operator::<select::Select>()
        .operator::<union::Union>();
}
