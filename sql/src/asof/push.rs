//! Moves filters below an as-of join.
//!
//! What is asked of the left side alone may be asked before the join. What is asked of keys holds of the
//! right side's keys too; and of a left time before an instant follows that the right row is (for a join
//! that looks back) before it as well. A filter on right columns stays: rows that it would take away
//! decide which row matches.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, Extension, Filter, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::node::AsofJoin;

/// The rule.
#[derive(Debug)]
pub(crate) struct PushThroughAsof;

impl OptimizerRule for PushThroughAsof {
    fn name(&self) -> &str {
        "push_filter_through_asof_join"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let LogicalPlan::Filter(filter) = &plan else {
            return Ok(Transformed::no(plan));
        };
        let LogicalPlan::Extension(extension) = &*filter.input else {
            return Ok(Transformed::no(plan));
        };
        let Some(join) = extension.node.as_any().downcast_ref::<AsofJoin>() else {
            return Ok(Transformed::no(plan));
        };
        let parts = split_conjunction_owned(filter.predicate.clone());
        let side = join.left.schema();
        let (down, stay): (Vec<Expr>, Vec<Expr>) = parts.into_iter().partition(|e| of_left(e, side));
        if down.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let mut right: Vec<Expr> = down.iter().filter_map(|e| of_keys(e, join)).collect();
        right.extend(down.iter().filter_map(|e| of_time(e, join)));
        let mut join = join.clone();
        if let Some(predicate) = conjunction(down) {
            join.left = Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, join.left)?));
        }
        if let Some(predicate) = conjunction(right) {
            join.right = Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, join.right)?));
        }
        let joined = LogicalPlan::Extension(Extension { node: Arc::new(join) });
        Ok(Transformed::yes(match conjunction(stay) {
            Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(joined))?),
            None => joined,
        }))
    }
}

fn of_left(expr: &Expr, side: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|c| side.has_column(c)) && !expr.is_volatile()
}

/// The same of the right side's keys, where the expression is of keys alone.
fn of_keys(expr: &Expr, join: &AsofJoin) -> Option<Expr> {
    let known = |e: &Expr| join.on.iter().find(|(l, _)| l == e).map(|(_, r)| r.clone());
    if !expr.column_refs().into_iter().all(|c| known(&Expr::Column(c.clone())).is_some()) {
        return None;
    }
    let replaced = expr.clone().transform(|e| {
        Ok(match known(&e) {
            Some(right) => Transformed::yes(right),
            None => Transformed::no(e),
        })
    });
    replaced.ok().map(|t| t.data)
}

/// What `left time < constant` says of the right time.
fn of_time(expr: &Expr, join: &AsofJoin) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return None;
    };
    let (op, value) = match (&**left, &**right) {
        (l, Expr::Literal(value, _)) if *l == join.times.0 => (*op, value),
        (Expr::Literal(value, _), r) if *r == join.times.0 => (op.swap()?, value),
        _ => return None,
    };
    let ScalarValue::TimestampNanosecond(Some(ns), zone) = value else {
        return None;
    };
    let bound = |op: Operator, ns: i64| {
        let value = Expr::Literal(ScalarValue::TimestampNanosecond(Some(ns), zone.clone()), None);
        Expr::BinaryExpr(BinaryExpr::new(Box::new(join.times.1.clone()), op, Box::new(value)))
    };
    let back = join.direction.backward;
    match (op, join.tolerance_ns) {
        (Operator::Lt | Operator::LtEq, _) if back => Some(bound(op, *ns)),
        (Operator::Gt | Operator::GtEq, _) if !back => Some(bound(op, *ns)),
        (Operator::Gt | Operator::GtEq, Some(tolerance)) => Some(bound(op, ns.checked_sub(tolerance)?)),
        (Operator::Lt | Operator::LtEq, Some(tolerance)) => Some(bound(op, ns.checked_add(tolerance)?)),
        _ => None,
    }
}
