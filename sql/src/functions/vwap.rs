//! `vwap(price, size)`: the average price weighted by size; null where no size was traded.
//!
//! Rows where one of both is null or NaN do not count. Over a frame it is a rolling VWAP; nothing is ever
//! subtracted, so rows that have left a frame leave nothing behind. State of a frame: 16 bytes a row.
//!
//! ```sql
//! SELECT vwap(p, s) = 11.5 FROM (VALUES (10.0, 1), (12.0, 3), (99.0, NULL)) AS v(p, s);
//! SELECT vwap(p, s) IS NULL FROM (VALUES (10.0, 0)) AS v(p, s);
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::fold::{Fold, Groups, One};

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Vwap {
    signature: Signature,
}

impl Default for Vwap {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Vwap {
    fn name(&self) -> &str {
        "vwap"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match args {
            [price, size] if [price, size].iter().all(|t| t.is_numeric() || **t == DataType::Null) => {
                Ok(vec![DataType::Float64; 2])
            }
            _ => plan_err!("vwap takes a price and a size, both numbers: vwap(price, size)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |name| Arc::new(Field::new(format_state_name(args.name, name), DataType::Float64, true));
        Ok(vec![field("value"), field("size")])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One::new(Sums::default())))
    }

    fn create_sliding_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Rolling::default()))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups(Sums::default())))
    }
}

/// Per group: what was traded in money and in size.
#[derive(Debug, Default)]
struct Sums(Vec<(f64, f64)>);

impl Sums {
    fn rows(args: &[ArrayRef], mut each: impl FnMut(usize, f64, f64)) {
        let (price, size) = (args[0].as_primitive::<Float64Type>(), args[1].as_primitive::<Float64Type>());
        let nulls = price.null_count() + size.null_count() > 0;
        for (i, (p, s)) in price.values().iter().zip(size.values()).enumerate() {
            let counts = !nulls || (price.is_valid(i) && size.is_valid(i));
            if counts && !p.is_nan() && !s.is_nan() {
                each(i, *p, *s);
            }
        }
    }
}

impl Fold for Sums {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn resize(&mut self, groups: usize) {
        if groups > self.0.len() {
            self.0.resize(groups, (0.0, 0.0));
        }
    }

    fn update(&mut self, args: &[ArrayRef], groups: &[usize], keep: &dyn Fn(usize) -> bool) -> Result<()> {
        Self::rows(args, |i, price, size| {
            if keep(i) {
                let sums = &mut self.0[groups[i]];
                sums.0 += price * size;
                sums.1 += size;
            }
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let (value, size) =
            (states[0].as_primitive::<Float64Type>(), states[1].as_primitive::<Float64Type>());
        for (i, &group) in groups.iter().enumerate() {
            let sums = &mut self.0[group];
            sums.0 += value.value(i);
            sums.1 += size.value(i);
        }
        Ok(())
    }

    fn results(&mut self, groups: usize) -> Result<ArrayRef> {
        Ok(Arc::new(self.0[..groups].iter().copied().map(average).collect::<Float64Array>()))
    }

    fn state(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let sums = &self.0[..groups];
        let value = Float64Array::from_iter_values(sums.iter().map(|s| s.0));
        let size = Float64Array::from_iter_values(sums.iter().map(|s| s.1));
        Ok(vec![Arc::new(value), Arc::new(size)])
    }

    fn forget(&mut self, groups: usize) {
        self.0.drain(..groups);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn size(&self) -> usize {
        self.0.capacity() * 16
    }
}

fn average((value, size): (f64, f64)) -> Option<f64> {
    Some(value / size).filter(|v| v.is_finite())
}

/// Over a sliding frame. Taking rows back by subtraction would leave rounding errors, which are all there is
/// once nothing is traded in the frame. So the frame is two stacks: sums from each older row up to the newest
/// of the older ones, and the newer rows with their sum; when the older ones are used up, the newer
/// take their place. Each row is added twice, whatever the length of the frame.
#[derive(Debug, Default)]
struct Rolling {
    /// The oldest last, each with the sums of itself and all that are newer in here.
    older: Vec<(f64, f64)>,
    newer: Vec<(f64, f64)>,
    newer_sums: (f64, f64),
}

fn add(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (a.0 + b.0, a.1 + b.1)
}

impl Rolling {
    fn sums(&self) -> (f64, f64) {
        add(self.older.last().copied().unwrap_or_default(), self.newer_sums)
    }

    fn turn(&mut self) {
        let mut sums = (0.0, 0.0);
        while let Some(row) = self.newer.pop() {
            sums = add(row, sums);
            self.older.push(sums);
        }
        self.newer_sums = (0.0, 0.0);
    }
}

impl Accumulator for Rolling {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        Sums::rows(values, |_, price, size| {
            let row = (price * size, size);
            self.newer.push(row);
            self.newer_sums = add(self.newer_sums, row);
        });
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        Sums::rows(values, |_, _, _| {
            if self.older.is_empty() {
                self.turn();
            }
            self.older.pop();
        });
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(average(self.sums())))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (value, size) = self.sums();
        Ok(vec![ScalarValue::Float64(Some(value)), ScalarValue::Float64(Some(size))])
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        datafusion::common::not_impl_err!("a sliding aggregate is not merged")
    }

    fn size(&self) -> usize {
        size_of::<Self>() + (self.older.capacity() + self.newer.capacity()) * 16
    }
}
