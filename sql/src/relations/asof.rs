//! `asof_join(left, right, keys [, tolerance])`.

use datafusion::common::{Column, JoinType, Result, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use tidemill_engine::row;

use super::{names, text};
use crate::asof::MARKER;

pub(super) const USAGE: &str = "asof_join(trades, quotes, 'symbol' [, '5s'])";

/// The left table's columns, then the right one's but its keys and the engine's; names that are there
/// already get `right_` before them.
pub(super) fn plan(
    tables: Vec<LogicalPlan>,
    args: Vec<Expr>,
    context: &dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let (Ok([left, right]), 1..=2) = (<[LogicalPlan; 2]>::try_from(tables), args.len()) else {
        return plan_err!("asof_join takes two tables, keys and maybe a tolerance: {USAGE}");
    };
    let Some(keys) = text(&args[0]).map(names) else {
        return plan_err!("the third argument of asof_join names the keys: {USAGE}");
    };
    for name in keys.iter().copied().chain([row::TS]) {
        for (table, which) in [(&left, "first"), (&right, "second")] {
            if !table.schema().has_column_with_unqualified_name(name) {
                return plan_err!("the {which} table of asof_join has no column `{name}`");
            }
        }
    }
    let l = |name: &str| Expr::Column(Column::new(Some("l"), name));
    let r = |name: &str| Expr::Column(Column::new(Some("r"), name));
    let Some(marker) = context.context_provider().get_function_meta(MARKER) else {
        return plan_err!("the function {MARKER} is missing");
    };
    let mut matching = vec![l(row::TS).gt_eq(r(row::TS))];
    matching.extend(args.get(1).cloned());
    let marker = Expr::ScalarFunction(ScalarFunction::new_udf(marker, matching));
    let on = keys.iter().map(|k| l(k).eq(r(k))).chain([marker]);
    let mut columns: Vec<Expr> = left.schema().fields().iter().map(|f| l(f.name())).collect();
    for field in right.schema().fields() {
        let name = field.name();
        if keys.contains(&name.as_str()) || matches!(name.as_str(), row::SRC | row::SEQ) {
            continue;
        }
        let taken = left.schema().has_column_with_unqualified_name(name);
        columns.push(if taken { r(name).alias(format!("right_{name}")) } else { r(name) });
    }
    LogicalPlanBuilder::from(left).join_on(right, JoinType::Left, on)?.project(columns)?.build()
}
