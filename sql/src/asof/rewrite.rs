//! `ASOF JOIN … MATCH_CONDITION (…) ON …` as `LEFT JOIN … ON … AND asof_match(…)`.

use datafusion::common::{Result, plan_err};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, JoinConstraint, JoinOperator, ObjectName, Select,
};

use super::MARKER;

/// Rewrites the joins of one SELECT.
pub(crate) fn joins(select: &mut Select) -> Result<()> {
    for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
        operator(&mut join.join_operator)?;
    }
    Ok(())
}

/// Rewrites one join's operator.
pub(crate) fn operator(operator: &mut JoinOperator) -> Result<()> {
    let JoinOperator::AsOf { match_condition, constraint } = operator else {
        return Ok(());
    };
    let (times, tolerance) = split(match_condition)?;
    let mut args = vec![times];
    args.extend(tolerance);
    let mut on = call(MARKER, args);
    match constraint {
        JoinConstraint::None => {}
        JoinConstraint::On(keys) => {
            on =
                Expr::BinaryOp { left: Box::new(keys.clone()), op: BinaryOperator::And, right: Box::new(on) };
        }
        JoinConstraint::Using(_) | JoinConstraint::Natural => {
            return plan_err!("ASOF JOIN takes ON and no USING: ON t.symbol = q.symbol");
        }
    }
    *operator = JoinOperator::LeftOuter(JoinConstraint::On(on));
    Ok(())
}

/// The comparison of times, and the tolerance if there is one.
fn split(condition: &Expr) -> Result<(Expr, Option<Expr>)> {
    let condition = bare(condition);
    let Expr::BinaryOp { left, op: BinaryOperator::And, right } = condition else {
        return Ok((condition.clone(), None));
    };
    for (times, bound) in [(left, right), (right, left)] {
        if let Some(tolerance) = tolerance(bare(times), bare(bound)) {
            return Ok((bare(times).clone(), Some(tolerance)));
        }
    }
    plan_err!(
        "MATCH_CONDITION is a comparison of two times, and maybe a bound: \
         (t.ts >= q.ts AND t.ts - q.ts <= INTERVAL '5 seconds')"
    )
}

/// The tolerance that `bound` puts on `times`: `a - b <= TOLERANCE` or `b >= a - TOLERANCE`.
fn tolerance(times: &Expr, bound: &Expr) -> Option<Expr> {
    let (later, earlier) = match times {
        Expr::BinaryOp { left, op: BinaryOperator::GtEq | BinaryOperator::Gt, right } => (left, right),
        Expr::BinaryOp { left, op: BinaryOperator::LtEq | BinaryOperator::Lt, right } => (right, left),
        _ => return None,
    };
    let minus = |e: &Expr| match bare(e) {
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } => {
            Some((bare(left).clone(), bare(right).clone()))
        }
        _ => None,
    };
    let (small, great) = match bound {
        Expr::BinaryOp { left, op: BinaryOperator::LtEq, right } => (left, right),
        Expr::BinaryOp { left, op: BinaryOperator::GtEq, right } => (right, left),
        _ => return None,
    };
    if let Some((a, b)) = minus(small)
        && a == **later
        && b == **earlier
    {
        return Some(bare(great).clone());
    }
    // later - TOLERANCE <= earlier
    match minus(small) {
        Some((a, tolerance)) if a == **later && bare(great) == &**earlier => Some(tolerance),
        _ => None,
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => bare(inner),
        other => other,
    }
}

/// A call of a function.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
