//! What traders need of SQL beyond DataFusion's own functions, one file each; the head of each file is
//! its manual, and its `sql` examples are tests.

use std::sync::Arc;

use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

pub(crate) use fold::order_of;

pub mod drawdown;
pub mod first_last;
mod fold;
pub mod locf;
pub mod ohlc;
pub mod returns;
pub mod studies;
pub mod time_bucket;
pub mod vwap;

#[cfg(test)]
mod tests;

/// Adds them all.
pub(crate) fn register(builder: &mut SessionStateBuilder) {
    let scalars = [
        ScalarUDF::from(time_bucket::TimeBucket::default()),
        ScalarUDF::from(crate::asof::AsofMatch::default()),
    ];
    builder.scalar_functions().get_or_insert_default().extend(scalars.map(Arc::new));
    let aggregates = [
        AggregateUDF::from(first_last::FirstLast::first()),
        AggregateUDF::from(first_last::FirstLast::last()),
        AggregateUDF::from(ohlc::Ohlc::default()),
        AggregateUDF::from(vwap::Vwap::default()),
        AggregateUDF::from(returns::Ratio::sharpe()),
        AggregateUDF::from(returns::Ratio::sortino()),
        AggregateUDF::from(drawdown::Drawdown::now()),
        AggregateUDF::from(drawdown::Drawdown::worst()),
    ];
    builder.aggregate_functions().get_or_insert_default().extend(aggregates.map(Arc::new));
    let windows = [WindowUDF::from(locf::Locf::default()), WindowUDF::from(locf::Interpolate::default())];
    let windows = windows.into_iter().chain(studies::functions()).map(Arc::new);
    builder.window_functions().get_or_insert_default().extend(windows);
}

/// Names of all functions, in order.
pub(crate) fn names(state: &SessionState) -> Vec<String> {
    let mut names: Vec<String> = state
        .scalar_functions()
        .keys()
        .chain(state.aggregate_functions().keys())
        .chain(state.window_functions().keys())
        .chain(state.table_functions().keys())
        .cloned()
        .collect();
    names.extend(["asof_join", "gap_fill"].map(String::from));
    names.sort_unstable();
    names.dedup();
    names
}
