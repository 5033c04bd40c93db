//! What the planner knows of order, and what follows: how rows find their worker and whether an
//! operator may have them as they come.
//!
//! A source with one ordered partition gives a total order; one whose partitions each hold whole
//! keys gives an order per key. Either lets an operator keyed by (at least) those keys work as
//! rows arrive. Everything else waits for the watermark.

use crate::component::{Distribution, OperatorPlan, Partitions, Problems, StreamInfo};
use crate::duration::Span;
use crate::plan::{Exchange, Order};
use crate::problem::Problem;
use crate::sink::{Delivery, Placement};

/// A stream's order, and whether its rows are where the empty key's group is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub order: Order,
    /// All rows are on the worker that owns the empty key.
    pub at_empty_key: bool,
}

impl Placed {
    pub const NOWHERE: Self = Self { order: Order::None, at_empty_key: false };
}

/// The order of a source's rows.
pub(super) fn of_source(
    partitions: &Partitions,
    out_of_orderness: Span,
    schema: &arrow::datatypes::Schema,
) -> Placed {
    let order = match partitions {
        // A late row is admitted at the watermark, diverted or dropped: what is left is in order
        // only where nothing waits for stragglers.
        _ if out_of_orderness.ns() > 0 => Order::None,
        Partitions::Single => Order::Total,
        Partitions::Many { keyed_by: Some(by) }
            if !by.is_empty() && by.iter().all(|name| schema.index_of(name).is_ok()) =>
        {
            Order::PerKey { by: by.clone(), partitioned: false }
        }
        Partitions::Many { .. } => Order::None,
    };
    Placed { order, at_empty_key: false }
}

/// The names under which `columns` leave; `None` where one of them doesn't.
fn passed(columns: &[String], passes: &[(String, String)]) -> Option<Vec<String>> {
    columns
        .iter()
        .map(|name| passes.iter().find(|(from, _)| from == name).map(|(_, to)| to.clone()))
        .collect()
}

/// The order of an operator's rows, from that of its inputs.
pub(super) fn of_operator(plan: &OperatorPlan, inputs: &[&Placed]) -> Placed {
    match &plan.distribution {
        Distribution::Keyed(by) => match by.first() {
            Some(by) if by.is_empty() => Placed { order: Order::Total, at_empty_key: true },
            Some(by) => Placed {
                order: match passed(by, &plan.passes) {
                    Some(by) => Order::PerKey { by, partitioned: true },
                    None => Order::None,
                },
                at_empty_key: false,
            },
            None => Placed::NOWHERE,
        },
        Distribution::Local => match inputs {
            [Placed { order: Order::Total, at_empty_key }] => {
                Placed { order: Order::Total, at_empty_key: *at_empty_key }
            }
            [Placed { order: Order::PerKey { by, partitioned }, .. }] => Placed {
                order: match passed(by, &plan.passes) {
                    Some(by) => Order::PerKey { by, partitioned: *partitioned },
                    None => Order::None,
                },
                at_empty_key: false,
            },
            _ => Placed::NOWHERE,
        },
    }
}

/// How one input's rows find the worker that owns their key.
pub(super) fn exchange(by: &[String], columns: Vec<usize>, input: &Placed) -> Exchange {
    let there = match &input.order {
        Order::PerKey { by: spread, partitioned: true } => spread == by,
        Order::Total => by.is_empty() && input.at_empty_key,
        _ => false,
    };
    if there { Exchange::Stay } else { Exchange::Key(columns) }
}

/// Whether an operator has its rows as they come.
pub(super) fn delivery(plan: &OperatorPlan, inputs: &[&Placed]) -> Delivery {
    let keys = match &plan.distribution {
        Distribution::Keyed(by) => by.as_slice(),
        Distribution::Local => &[],
    };
    let in_order = match inputs {
        [Placed { order: Order::Total, .. }] => true,
        // Rows equal in `by` are equal in a part of `by`, so they came down one ordered stream.
        [Placed { order: Order::PerKey { by: spread, .. }, .. }] => {
            let by = keys.first().map_or(&[][..], Vec::as_slice);
            !spread.is_empty() && spread.iter().all(|name| by.contains(name))
        }
        _ => false,
    };
    if !plan.ordered || in_order { Delivery::Eager } else { Delivery::Ordered }
}

/// How rows find their sink's writer.
pub(super) fn shards(placement: &Placement, input: &StreamInfo) -> Result<Exchange, Problems> {
    match placement {
        Placement::Local => Ok(Exchange::Stay),
        Placement::Shards { count: 0, .. } => {
            Err(vec![Problem::new("", "the sink has no shards to write to")])
        }
        Placement::Shards { count, by } => Ok(Exchange::Shard { by: input.keys("", by)?, shards: *count }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn placed(order: Order) -> Placed {
        Placed { order, at_empty_key: false }
    }

    fn per_key(by: &[&str], partitioned: bool) -> Order {
        Order::PerKey { by: names(by), partitioned }
    }

    fn names(by: &[&str]) -> Vec<String> {
        by.iter().map(|n| (*n).to_owned()).collect()
    }

    fn operator(distribution: Distribution, passes: &[(&str, &str)]) -> OperatorPlan {
        OperatorPlan {
            schema: crate::row::stream_schema([]),
            ordered: distribution != Distribution::Local,
            distribution,
            passes: passes.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            build: Arc::new(|| unreachable!("never built")),
        }
    }

    fn keyed(by: &[&str]) -> OperatorPlan {
        operator(Distribution::Keyed(vec![names(by)]), &[("s", "s"), ("v", "venue")])
    }

    #[test]
    fn one_ordered_partition_is_enough_to_work_as_rows_come() {
        let total = placed(Order::Total);
        assert_eq!(delivery(&keyed(&["s"]), &[&total]), Delivery::Eager);
        assert_eq!(exchange(&names(&["s"]), vec![3], &total), Exchange::Key(vec![3]));
        // All on one worker, but not on the one that owns the empty key.
        assert_eq!(exchange(&[], vec![], &total), Exchange::Key(vec![]));
        let after = of_operator(&keyed(&[]), &[&total]);
        assert_eq!(exchange(&[], vec![], &after), Exchange::Stay);
    }

    #[test]
    fn a_key_within_the_operators_keys_is_ordered_and_one_beyond_them_is_not() {
        for (spread, by, expected) in [
            (&["s"][..], &["s", "v"][..], Delivery::Eager),
            (&["s", "v"], &["s"], Delivery::Ordered),
            (&["s"], &["v"], Delivery::Ordered),
            (&["s"], &[], Delivery::Ordered),
        ] {
            assert_eq!(
                delivery(&keyed(by), &[&placed(per_key(spread, false))]),
                expected,
                "{spread:?} {by:?}"
            );
        }
        assert_eq!(delivery(&keyed(&["s"]), &[&placed(Order::None)]), Delivery::Ordered);
        let join = operator(Distribution::Keyed(vec![names(&["s"]), names(&["s"])]), &[]);
        assert_eq!(delivery(&join, &[&placed(Order::Total), &placed(Order::Total)]), Delivery::Ordered);
    }

    #[test]
    fn rows_stay_only_where_they_were_spread_by_the_same_list() {
        let by = names(&["s", "v"]);
        assert_eq!(exchange(&by, vec![3, 4], &placed(per_key(&["s", "v"], true))), Exchange::Stay);
        for other in [per_key(&["s", "v"], false), per_key(&["v", "s"], true), per_key(&["s"], true)] {
            assert_eq!(exchange(&by, vec![3, 4], &placed(other)), Exchange::Key(vec![3, 4]));
        }
    }

    #[test]
    fn order_passes_a_stateless_operator_under_the_names_its_columns_leave_by() {
        let local = operator(Distribution::Local, &[("s", "s"), ("v", "venue")]);
        assert_eq!(of_operator(&local, &[&placed(Order::Total)]).order, Order::Total);
        assert_eq!(of_operator(&local, &[&placed(per_key(&["v"], true))]).order, per_key(&["venue"], true));
        assert_eq!(of_operator(&local, &[&placed(per_key(&["x"], true))]).order, Order::None);
        let total = placed(Order::Total);
        assert_eq!(of_operator(&local, &[&total, &total]).order, Order::None);
    }

    #[test]
    fn a_source_promises_order_only_where_nothing_may_be_late() {
        let schema = crate::row::stream_schema([]);
        let of = |partitions: &Partitions, out_of_orderness| {
            of_source(partitions, Span::from_ns(out_of_orderness), &schema).order
        };
        assert_eq!(of(&Partitions::Single, 0), Order::Total);
        assert_eq!(of(&Partitions::Single, 1), Order::None);
        assert_eq!(of(&Partitions::Many { keyed_by: None }, 0), Order::None);
        let keyed = Partitions::Many { keyed_by: Some(names(&["ts"])) };
        assert_eq!(of(&keyed, 0), per_key(&["ts"], false));
        assert_eq!(of(&keyed, 5), Order::None);
    }
}
