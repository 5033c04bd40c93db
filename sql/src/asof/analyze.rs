//! Puts an as-of join in the place of a join that carries the marker.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinType, Result, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, Extension, Join, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use tidemill_engine::row;

use super::MARKER;
use super::node::{AsofJoin, Direction};
use crate::functions::time_bucket::Width;

/// The rule.
#[derive(Debug)]
pub(crate) struct PlanAsof;

impl AnalyzerRule for PlanAsof {
    fn name(&self) -> &str {
        "plan_asof_join"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Join(join) if marked(&join) => {
                let node = asof(join)?;
                Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: std::sync::Arc::new(node) })))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(plan.data)
    }
}

fn is_marker(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(f) if f.func.name() == MARKER)
}

fn marked(join: &Join) -> bool {
    join.filter.as_ref().is_some_and(|filter| filter.exists(|e| Ok(is_marker(e))).unwrap_or(false))
}

fn asof(join: Join) -> Result<AsofJoin> {
    let inner = match join.join_type {
        JoinType::Left => false,
        JoinType::Inner => true,
        other => return plan_err!("an as-of join is LEFT or INNER, not {other}"),
    };
    let (left, right) = (join.left.schema(), join.right.schema());
    let mut on = join.on;
    let mut marker = None;
    for part in join.filter.into_iter().flat_map(split_conjunction_owned) {
        match part {
            part if is_marker(&part) && marker.is_none() => marker = Some(part),
            Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Eq, right: b }) => {
                if of(&a, left) && of(&b, right) {
                    on.push((*a, *b));
                } else if of(&b, left) && of(&a, right) {
                    on.push((*b, *a));
                } else {
                    return plan_err!(
                        "ON of an as-of join: `{a} = {b}` must compare a left with a right column"
                    );
                }
            }
            other => {
                return plan_err!(
                    "ON of an as-of join takes only equalities, not `{other}`: put the rest into WHERE"
                );
            }
        }
    }
    let Some(Expr::ScalarFunction(ScalarFunction { args, .. })) = marker else {
        return plan_err!("an as-of join has one comparison of times, joined to the rest by AND");
    };
    let mut args = args.into_iter();
    let Some(Expr::BinaryExpr(BinaryExpr { left: a, op, right: b })) = args.next() else {
        return plan_err!("an as-of join matches by a comparison of two times: t.ts >= q.ts");
    };
    // As seen from the left side.
    let (times, op) = if of(&a, left) && of(&b, right) {
        ((*a, *b), op)
    } else if of(&b, left) && of(&a, right) {
        ((*b, *a), op.swap().unwrap_or(op))
    } else {
        return plan_err!("an as-of join compares a left with a right time, not `{a}` with `{b}`");
    };
    let direction = match op {
        Operator::GtEq => Direction { backward: true, inclusive: true },
        Operator::Gt => Direction { backward: true, inclusive: false },
        Operator::LtEq => Direction { backward: false, inclusive: true },
        Operator::Lt => Direction { backward: false, inclusive: false },
        other => return plan_err!("an as-of join compares times by >=, >, <= or <, not by {other}"),
    };
    let tolerance_ns = match args.next() {
        None => None,
        Some(Expr::Literal(value, _)) => match Width::of(&value)? {
            Width::Fixed { ns } => Some(ns),
            Width::Months(_) => return plan_err!("the tolerance of an as-of join is in days or shorter"),
        },
        Some(other) => return plan_err!("the tolerance of an as-of join is a constant, not `{other}`"),
    };
    let ties = ties(right);
    let schema = AsofJoin::schema_of(&join.left, &join.right, inner)?;
    Ok(AsofJoin {
        left: join.left,
        right: join.right,
        on,
        times,
        direction,
        tolerance_ns,
        inner,
        ties,
        schema,
    })
}

/// What decides between right rows of equal time: where they come from and their place there.
fn ties(right: &DFSchema) -> Vec<Expr> {
    let whole = |name: &str| {
        let (qualifier, field) = right.iter().find(|(_, f)| f.name() == name)?;
        field.data_type().is_integer().then(|| Expr::from((qualifier, field)))
    };
    match (whole(row::SRC), whole(row::SEQ), whole("seq")) {
        (Some(src), Some(seq), _) => vec![src, seq],
        (None, Some(seq), _) | (_, None, Some(seq)) => vec![seq],
        _ => vec![],
    }
}

/// Whether an expression has columns and all are of this side.
fn of(expr: &Expr, side: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|c| side.has_column(c))
}
