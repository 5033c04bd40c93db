//! `gap_fill(table, ts, interval [, keys [, from, to]])`.

use std::sync::Arc;

use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan};

use super::{names, text};
use crate::functions::time_bucket::Width;
use crate::gap_fill::node::GapFill;

pub(super) const USAGE: &str = "gap_fill((SELECT …), ts, '1m' [, 'symbol' [, from, to]])";

pub(super) fn plan(mut tables: Vec<LogicalPlan>, args: Vec<Expr>) -> Result<LogicalPlan> {
    let (Some(input), 2..=5) = (tables.pop(), args.len()) else {
        return plan_err!("gap_fill takes a table, its time and an interval: {USAGE}");
    };
    let Some(ts) = text(&args[0]) else {
        return plan_err!("the second argument of gap_fill names the column of time: {USAGE}");
    };
    let Expr::Literal(width, _) = &args[1] else {
        return plan_err!("the third argument of gap_fill is an interval: {USAGE}");
    };
    let width = Width::of(width)?;
    let keys = match args.get(2) {
        None | Some(Expr::Literal(ScalarValue::Null, _)) => vec![],
        Some(arg) => match text(arg) {
            Some(keys) => names(keys),
            None => return plan_err!("the fourth argument of gap_fill names the keys: {USAGE}"),
        },
    };
    let bound = |i: usize| match args.get(i) {
        None => Ok(None),
        Some(expr) => time(expr),
    };
    let (from, to) = (bound(3)?, bound(4)?);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        let shown = |ns| chrono::DateTime::from_timestamp_nanos(ns).to_rfc3339();
        return plan_err!("`from` of gap_fill, {}, is after its `to`, {}: {USAGE}", shown(from), shown(to));
    }
    let node = GapFill::try_new(input, ts, width, &keys, from, to)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// A constant time in nanoseconds; null: none.
fn time(expr: &Expr) -> Result<Option<i64>> {
    let value = match expr {
        Expr::Literal(value, _) => value.clone(),
        Expr::Cast(cast) => match (&*cast.expr, cast.field.data_type()) {
            (Expr::Literal(value, _), t) => value.cast_to(t)?,
            _ => return plan_err!("`from` and `to` of gap_fill are constants, not `{expr}`"),
        },
        _ => return plan_err!("`from` and `to` of gap_fill are constants, not `{expr}`"),
    };
    if value.is_null() {
        return Ok(None);
    }
    let ns = arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None);
    match value.cast_to(&ns) {
        Ok(ScalarValue::TimestampNanosecond(ns, _)) => Ok(ns),
        _ => plan_err!("`from` and `to` of gap_fill are times, not {value}"),
    }
}
