//! `drawdown(equity, ts)` and `max_drawdown(equity, ts)`: how far below its peak, as a fraction.
//!
//! Of the equity in order of time: `drawdown` is where the last row stands below the highest so far,
//! `max_drawdown` the worst of all. Zero or below: -0.2 is a loss of 20 % from the peak. Equal times go by
//! value. Rows where one of both is null do not count, nor do those before the first equity above zero: there
//! is no fraction of nothing. `drawdown(equity, ts) OVER (ORDER BY ts)` is the
//! curve under water. State: 16 bytes a row.
//!
//! ```sql
//! SELECT max_drawdown(e, t) = -0.5 AND drawdown(e, t) = -0.25 FROM (VALUES (1, 100.0), (2, 50.0), (3, 120.0), (4, 90.0)) AS v(t, e);
//! ```

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Float64Builder, Int64Builder, ListBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::fold::{Fold, Groups, One, Sliding, order_of, order_type};

/// `drawdown` or `max_drawdown`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Drawdown {
    worst: bool,
    signature: Signature,
}

impl Drawdown {
    /// `drawdown`.
    pub fn now() -> Self {
        Self { worst: false, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// `max_drawdown`.
    pub fn worst() -> Self {
        Self { worst: true, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn fold(&self) -> Curves {
        Curves { worst: self.worst, groups: Vec::new(), rows: 0 }
    }
}

impl AggregateUDFImpl for Drawdown {
    fn name(&self) -> &str {
        if self.worst { "max_drawdown" } else { "drawdown" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match args {
            [equity, ts] if equity.is_numeric() || *equity == DataType::Null => match order_type(ts) {
                Some(ts) => Ok(vec![DataType::Float64, ts]),
                None => plan_err!("the second argument of {} is a time, not {ts}", self.name()),
            },
            _ => plan_err!("{0} takes an equity and its time: {0}(equity, ts)", self.name()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |name, item| {
            let item = Arc::new(Field::new_list_field(item, true));
            Arc::new(Field::new(format_state_name(args.name, name), DataType::List(item), true))
        };
        Ok(vec![list("ts", DataType::Int64), list("equity", DataType::Float64)])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One::new(self.fold())))
    }

    fn create_sliding_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sliding::new(self.fold())))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups(self.fold())))
    }
}

/// Peak, place and worst place under it, so far.
#[derive(Clone, Copy, Debug)]
struct Water {
    peak: f64,
    now: f64,
    worst: f64,
}

impl Water {
    const NEW: Water = Water { peak: 0.0, now: f64::NAN, worst: f64::NAN };

    fn step(&mut self, equity: f64) {
        self.peak = self.peak.max(equity);
        if self.peak <= 0.0 {
            return;
        }
        self.now = equity / self.peak - 1.0;
        self.worst = self.worst.min(self.now);
    }
}

#[derive(Clone, Debug)]
struct Curve {
    rows: Vec<(i64, f64)>,
    /// What rows taken in order give; `None` once one came late.
    water: Option<Water>,
}

impl Curve {
    fn push(&mut self, row: (i64, f64)) {
        let late = self.rows.last().is_some_and(|last| compare(&row, last) == Ordering::Less);
        self.rows.push(row);
        if late {
            self.water = None;
        }
        if let Some(water) = &mut self.water {
            water.step(row.1);
        }
    }

    fn water(&mut self) -> Water {
        if let Some(water) = self.water {
            return water;
        }
        self.rows.sort_by(compare);
        let mut water = Water::NEW;
        self.rows.iter().for_each(|row| water.step(row.1));
        self.water = Some(water);
        water
    }
}

fn compare(a: &(i64, f64), b: &(i64, f64)) -> Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

#[derive(Debug)]
struct Curves {
    worst: bool,
    groups: Vec<Curve>,
    rows: usize,
}

impl Fold for Curves {
    fn fresh(&self) -> Self {
        Self { worst: self.worst, groups: Vec::new(), rows: 0 }
    }

    fn resize(&mut self, groups: usize) {
        if groups > self.groups.len() {
            self.groups.resize(groups, Curve { rows: Vec::new(), water: Some(Water::NEW) });
        }
    }

    fn update(&mut self, args: &[ArrayRef], groups: &[usize], keep: &dyn Fn(usize) -> bool) -> Result<()> {
        let equity = args[0].as_primitive::<Float64Type>();
        let ts = order_of(&args[1])?;
        for (i, &group) in groups.iter().enumerate() {
            if equity.is_valid(i) && ts.is_valid(i) && !equity.value(i).is_nan() && keep(i) {
                self.groups[group].push((ts.value(i), equity.value(i)));
                self.rows += 1;
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let (ts, equity) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for (i, &group) in groups.iter().enumerate() {
            let (ts, equity) = (ts.value(i), equity.value(i));
            let (ts, equity) = (ts.as_primitive::<Int64Type>(), equity.as_primitive::<Float64Type>());
            for (ts, equity) in ts.values().iter().zip(equity.values()) {
                self.groups[group].push((*ts, *equity));
                self.rows += 1;
            }
        }
        Ok(())
    }

    fn results(&mut self, groups: usize) -> Result<ArrayRef> {
        let worst = self.worst;
        let results = self.groups[..groups].iter_mut().map(|curve| {
            let some = !curve.rows.is_empty();
            let water = curve.water();
            let value = if worst { water.worst } else { water.now };
            Some(value).filter(|v| some && v.is_finite())
        });
        Ok(Arc::new(results.collect::<Float64Array>()))
    }

    fn state(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let mut ts = ListBuilder::new(Int64Builder::new());
        let mut equity = ListBuilder::new(Float64Builder::new());
        for curve in &self.groups[..groups] {
            for row in &curve.rows {
                ts.values().append_value(row.0);
                equity.values().append_value(row.1);
            }
            ts.append(true);
            equity.append(true);
        }
        Ok(vec![Arc::new(ts.finish()), Arc::new(equity.finish())])
    }

    fn forget(&mut self, groups: usize) {
        let gone: usize = self.groups.drain(..groups).map(|curve| curve.rows.len()).sum();
        self.rows -= gone;
    }

    fn len(&self) -> usize {
        self.groups.len()
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Curve>() + self.rows * 16
    }
}
