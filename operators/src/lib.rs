//! Operators, one file each: rows in, rows out, no IO and no clock.

use tidemill_engine::registry::Registry;

pub mod columns;

#[cfg(test)]
mod check;

pub mod asof_join;
pub mod bars;
pub mod book_metrics;
pub mod crossover;
pub mod dedupe;
pub mod indicators;
pub mod select;
pub mod union;

/// Adds every operator kind.
pub fn register(registry: &mut Registry) {
    registry
        .operator::<asof_join::AsofJoin>()
        .operator::<bars::Bars>()
        .operator::<book_metrics::BookMetrics>()
        .operator::<crossover::Crossover>()
        .operator::<dedupe::Dedupe>()
        .operator::<indicators::Indicators>()
        .operator::<select::Select>()
        .operator::<union::Union>();
}
