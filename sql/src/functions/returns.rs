//! `sharpe(returns [, periods_per_year])` and `sortino(returns [, periods_per_year])`: return for risk, a year.
//!
//! Sharpe: mean / standard deviation (of the sample) * sqrt(periods). Sortino: mean / downside deviation
//! (root of the mean of squared returns below zero, over all returns) * sqrt(periods). Periods default to
//! 252: daily returns. Null returns do not count; null where there is nothing to divide by. W. F. Sharpe,
//! The Sharpe Ratio (1994); F. A. Sortino, L. N. Price (1994).
//!
//! ```sql
//! SELECT round(sharpe(r, 1), 12) = round(0.02 / sqrt(0.0007), 12) FROM (VALUES (0.01), (0.05), (0.0)) AS v(r);
//! SELECT round(sortino(r, 1), 12) = round(0.01 / sqrt(0.0004 / 2), 12) FROM (VALUES (0.04), (-0.02)) AS v(r);
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

use super::fold::{Fold, Groups, One, Sliding};

/// `sharpe` or `sortino`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ratio {
    downside: bool,
    signature: Signature,
}

impl Ratio {
    /// `sharpe`.
    pub fn sharpe() -> Self {
        Self { downside: false, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// `sortino`.
    pub fn sortino() -> Self {
        Self { downside: true, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn fold(&self, args: &AccumulatorArgs) -> Result<Moments> {
        let periods = match args.exprs.get(1) {
            None => 252.0,
            Some(expr) => match expr.downcast_ref::<Literal>().map(Literal::value) {
                Some(ScalarValue::Float64(Some(periods))) if *periods > 0.0 => *periods,
                _ => return plan_err!("the periods a year of {} must be a number above 0", self.name()),
            },
        };
        Ok(Moments { downside: self.downside, periods, groups: Vec::new() })
    }
}

impl AggregateUDFImpl for Ratio {
    fn name(&self) -> &str {
        if self.downside { "sortino" } else { "sharpe" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let numbers = args.iter().all(|t| t.is_numeric() || *t == DataType::Null);
        if !numbers || !(1..=2).contains(&args.len()) {
            return plan_err!("{0} takes returns and maybe periods a year: {0}(r, 252)", self.name());
        }
        Ok(vec![DataType::Float64; args.len()])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name| Arc::new(Field::new(format_state_name(args.name, name), DataType::Float64, true));
        Ok(vec![field("count"), field("mean"), field("squares")])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One::new(self.fold(&args)?)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sliding::new(self.fold(&args)?)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups(self.fold(&args)?)))
    }
}

/// Count, mean, and squares: around the mean (Welford, merged by Chan's formula), or of those below zero.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    count: f64,
    mean: f64,
    squares: f64,
}

#[derive(Debug)]
struct Moments {
    downside: bool,
    periods: f64,
    groups: Vec<Moment>,
}

impl Moments {
    fn add(&mut self, group: usize, other: Moment) {
        let one = &mut self.groups[group];
        if other.count == 0.0 {
            return;
        }
        let count = one.count + other.count;
        let delta = other.mean - one.mean;
        let between = if self.downside { 0.0 } else { delta * delta * one.count * other.count / count };
        one.mean += delta * (other.count / count);
        one.squares += other.squares + between;
        one.count = count;
    }

    fn ratio(&self, m: &Moment) -> Option<f64> {
        let over = if self.downside { m.count } else { m.count - 1.0 };
        let risk = (m.squares / over).sqrt();
        Some(m.mean / risk * self.periods.sqrt()).filter(|r| r.is_finite())
    }
}

impl Fold for Moments {
    fn fresh(&self) -> Self {
        Self { groups: Vec::new(), ..*self }
    }

    fn resize(&mut self, groups: usize) {
        if groups > self.groups.len() {
            self.groups.resize(groups, Moment::default());
        }
    }

    fn update(&mut self, args: &[ArrayRef], groups: &[usize], keep: &dyn Fn(usize) -> bool) -> Result<()> {
        let returns = args[0].as_primitive::<Float64Type>();
        for (i, &group) in groups.iter().enumerate() {
            if returns.is_null(i) || returns.value(i).is_nan() || !keep(i) {
                continue;
            }
            let r = returns.value(i);
            let squares = if self.downside { r.min(0.0).powi(2) } else { 0.0 };
            self.add(group, Moment { count: 1.0, mean: r, squares });
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let column = |i: usize| states[i].as_primitive::<Float64Type>();
        let (count, mean, squares) = (column(0), column(1), column(2));
        for (i, &group) in groups.iter().enumerate() {
            let other = Moment { count: count.value(i), mean: mean.value(i), squares: squares.value(i) };
            self.add(group, other);
        }
        Ok(())
    }

    fn results(&mut self, groups: usize) -> Result<ArrayRef> {
        let ratios: Float64Array = self.groups[..groups].iter().map(|m| self.ratio(m)).collect();
        Ok(Arc::new(ratios))
    }

    fn state(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let column = |of: fn(&Moment) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(self.groups[..groups].iter().map(of)))
        };
        Ok(vec![column(|m| m.count), column(|m| m.mean), column(|m| m.squares)])
    }

    fn forget(&mut self, groups: usize) {
        self.groups.drain(..groups);
    }

    fn len(&self) -> usize {
        self.groups.len()
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Moment>()
    }
}
