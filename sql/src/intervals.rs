//! A time plus or minus a constant interval, by adding nanoseconds.
//!
//! Arrow adds intervals through the calendar, row by row, since months differ in length and days may where a zone
//! has summer time. Without months, and in UTC or no zone, an interval is a number of nanoseconds: adding it is then
//! what a column of them costs. The rule rewrites `ts ± INTERVAL '…'` of that kind to a function of our own.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

const DAY_NS: i64 = 86_400_000_000_000;

static SHIFT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Shift::default())));

/// The rule.
#[derive(Debug)]
pub(crate) struct AddNanoseconds;

impl OptimizerRule for AddNanoseconds {
    fn name(&self) -> &str {
        "add_intervals_as_nanoseconds"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        // A table's own filters are matched against its statistics: they stay as they are written.
        if matches!(plan, LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| {
                Ok(match shifted(&expr, &schema) {
                    Some(other) => Transformed::yes(other),
                    None => Transformed::no(expr),
                })
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    }
}

fn shifted(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    let (time, span, sign) = match (op, &**left, &**right) {
        (Operator::Plus, time, Expr::Literal(span, _)) => (time, span, 1),
        (Operator::Plus, Expr::Literal(span, _), time) => (time, span, 1),
        (Operator::Minus, time, Expr::Literal(span, _)) => (time, span, -1),
        _ => return None,
    };
    let ScalarValue::IntervalMonthDayNano(Some(span)) = span else { return None };
    let ns = i64::from(span.days).checked_mul(DAY_NS)?.checked_add(span.nanoseconds)?.checked_mul(sign)?;
    let DataType::Timestamp(TimeUnit::Nanosecond, zone) = time.get_type(schema).ok()? else { return None };
    let plain = zone.is_none_or(|z| matches!(&*z, "UTC" | "+00:00" | "Z"));
    (span.months == 0 && plain)
        .then(|| SHIFT.call(vec![time.clone(), Expr::Literal(ScalarValue::Int64(Some(ns)), None)]))
}

/// A time and a constant number of nanoseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shift {
    signature: Signature,
}

impl Default for Shift {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Shift {
    fn name(&self) -> &str {
        "shift_by_nanoseconds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args[0].clone())
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(inputs[0].sort_properties)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time, ColumnarValue::Scalar(ScalarValue::Int64(Some(ns)))] = &args.args[..] else {
            return exec_err!("shift_by_nanoseconds takes a time and a constant");
        };
        match time {
            ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(ts, zone)) => {
                let ts = ts.map(|ts| add(ts, *ns)).transpose()?;
                Ok(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(ts, zone.clone())))
            }
            ColumnarValue::Array(array) => {
                let ts = array.as_primitive::<TimestampNanosecondType>();
                let shifted: PrimitiveArray<TimestampNanosecondType> = ts.try_unary(|ts| add(ts, *ns))?;
                let shifted: ArrayRef = Arc::new(shifted.with_data_type(array.data_type().clone()));
                Ok(ColumnarValue::Array(shifted))
            }
            other => exec_err!("shift_by_nanoseconds got {} for a time", other.data_type()),
        }
    }
}

fn add(ts: i64, ns: i64) -> Result<i64, arrow::error::ArrowError> {
    let beyond =
        || arrow::error::ArrowError::ArithmeticOverflow(format!("{ts} ns moved by {ns} ns is out of range"));
    ts.checked_add(ns).ok_or_else(beyond)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray};
    use arrow::datatypes::TimestampNanosecondType;

    use crate::{Engine, EngineConfig};

    #[tokio::test]
    async fn sums_are_those_of_the_calendar() {
        // Through a text of the interval that is no constant to the planner, Arrow's own sum is the oracle.
        let engine = Engine::open(EngineConfig::default()).await.unwrap();
        let ts = [Some(1_380_000_000_123_456_789), None, Some(-1), Some(0)];
        let array: ArrayRef = Arc::new(TimestampNanosecondArray::from(ts.to_vec()).with_timezone("UTC"));
        let batch = RecordBatch::try_from_iter([("ts", array)]).unwrap();
        engine.add_rows("t", batch.schema(), vec![vec![batch]]).unwrap();
        for interval in ["14 hours", "3 days 2 seconds", "-1 day", "1 month"] {
            for op in ["+", "-"] {
                let sql = format!(
                    "SELECT ts {op} INTERVAL '{interval}' AS fast, ts {op} CASE WHEN random() >= 0 THEN INTERVAL '{interval}' END AS slow FROM t"
                );
                let batches = engine.query(&sql).await.unwrap().collect().await.unwrap();
                for batch in batches {
                    let column = |i| batch.column(i).as_primitive::<TimestampNanosecondType>().clone();
                    assert_eq!(column(0), column(1), "{sql}");
                }
                let plan = engine.query(&format!("EXPLAIN {sql}")).await.unwrap().collect().await.unwrap();
                let plan = arrow::util::pretty::pretty_format_batches(&plan).unwrap().to_string();
                assert_eq!(plan.contains("shift_by_nanoseconds"), interval != "1 month", "{plan}");
            }
        }
        let sql = "SELECT ts + INTERVAL '106000 days' FROM t";
        let far = engine.query(sql).await.unwrap().collect().await.unwrap_err();
        assert!(far.message.contains("out of range"), "{far}");
    }
}
