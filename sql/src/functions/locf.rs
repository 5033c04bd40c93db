//! `locf(x)` and `interpolate(x, ts)` over a window: what stands in for missing values.
//!
//! `locf` (last observation carried forward) gives the last value that is not null, up to the row. It
//! takes any type. `interpolate` gives the value itself where there is one, and on the straight line in
//! time between its neighbours where there is none; before the first and after the last it is null.
//! Unlike all else it looks ahead: for charts, not for signals. Both read the partition in the window's
//! order.
//!
//! ```sql
//! SELECT locf(x) OVER (ORDER BY t) AS y FROM (VALUES (1, 5), (2, NULL), (3, NULL), (4, 8)) AS v(t, x) ORDER BY t;
//! -- 5, 5, 5, 8
//! SELECT interpolate(x, t) OVER (ORDER BY t) AS y FROM (VALUES (1, 5.0), (2, NULL), (4, 8.0)) AS v(t, x) ORDER BY t;
//! -- 5.0, 6.0, 8.0
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDFImpl};
use datafusion::physical_expr::PhysicalExpr;
use tidemill_operators::columns::{floats, nullable};

/// `locf`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Locf {
    signature: Signature,
}

impl Default for Locf {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl WindowUDFImpl for Locf {
    fn name(&self) -> &str {
        "locf"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(CarryForward))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let data_type = args.get_input_field(0).map_or(DataType::Null, |f| f.data_type().clone());
        Ok(Arc::new(Field::new(args.name(), data_type, true)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

#[derive(Debug)]
struct CarryForward;

impl PartitionEvaluator for CarryForward {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let column = &values[0];
        if column.logical_null_count() == 0 {
            return Ok(column.clone());
        }
        let nulls = column.logical_nulls();
        let mut last = None;
        let from: UInt32Array = (0..rows)
            .map(|i| {
                if nulls.as_ref().is_none_or(|n| n.is_valid(i)) {
                    last = Some(i as u32);
                }
                last
            })
            .collect();
        Ok(take(column, &from, None)?)
    }
}

/// `interpolate`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Interpolate {
    signature: Signature,
}

impl Default for Interpolate {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl WindowUDFImpl for Interpolate {
    fn name(&self) -> &str {
        "interpolate"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let [value, ts] = args else {
            return plan_err!("interpolate takes a number and a time");
        };
        if !value.is_numeric() && *value != DataType::Null {
            return plan_err!("interpolate reads numbers, not {value}");
        }
        let ts = match super::time_bucket::time_type(ts) {
            Some(time) => time,
            None if ts.is_numeric() => DataType::Int64,
            None => return plan_err!("the second argument of interpolate is a time, not {ts}"),
        };
        Ok(vec![DataType::Float64, ts])
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Line))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Float64, true)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::Unknown
    }
}

#[derive(Debug)]
struct Line;

impl PartitionEvaluator for Line {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let x = floats(&values[0])?;
        let ts = cast(&values[1], &DataType::Int64)?;
        let ts = ts.as_primitive::<Int64Type>();
        let mut out = vec![f64::NAN; rows];
        let mut before: Option<usize> = None;
        for i in (0..rows).filter(|i| x[*i].is_finite() && ts.is_valid(*i)) {
            out[i] = x[i];
            if let Some(j) = before {
                let span = (ts.value(i) as f64) - (ts.value(j) as f64);
                for k in (j + 1..i).filter(|k| ts.is_valid(*k) && span > 0.0) {
                    let part = ((ts.value(k) - ts.value(j)) as f64) / span;
                    out[k] = x[j] + (x[i] - x[j]) * part;
                }
            }
            before = Some(i);
        }
        let made = nullable(out);
        debug_assert_eq!(made.as_primitive::<Float64Type>().len(), rows);
        Ok(made)
    }
}
