//! `ohlc(price, ts [, seq])`: open, high, low and close as a struct.
//!
//! Open and close are the prices at the earliest and latest time; what decides between rows of equal `ts`
//! is as with `first` and `last`. Rows where price or `ts` is null do not count.
//!
//! ```sql
//! SELECT ohlc(p, t)['open'] = 5 AND ohlc(p, t)['high'] = 9 AND ohlc(p, t)['low'] = 1 AND ohlc(p, t)['close'] = 7
//!   FROM (VALUES (1, 5.0), (2, 9.0), (3, 1.0), (4, 7.0)) AS v(t, p);
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::fold::{Fold, Groups, One, Sliding, order_of, order_type, position_type};

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ohlc {
    signature: Signature,
}

impl Default for Ohlc {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn fields() -> Fields {
    ["open", "high", "low", "close"].iter().map(|n| Field::new(*n, DataType::Float64, true)).collect()
}

impl AggregateUDFImpl for Ohlc {
    fn name(&self) -> &str {
        "ohlc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        if !(2..=3).contains(&args.len()) {
            return plan_err!("ohlc takes a price, its time and maybe its position: ohlc(price, ts, _seq)");
        }
        if !args[0].is_numeric() && args[0] != DataType::Null {
            return plan_err!("the first argument of ohlc is a price, not {}", args[0]);
        }
        let Some(ts) = order_type(&args[1]) else {
            return plan_err!("the second argument of ohlc is a time, not {}", args[1]);
        };
        let mut types = vec![DataType::Float64, ts];
        if let Some(seq) = args.get(2) {
            let Some(seq) = position_type(seq) else {
                return plan_err!("the third argument of ohlc is a position such as _seq, not {seq}");
            };
            types.push(seq);
        }
        Ok(types)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field =
            |name: &str, t: DataType| Arc::new(Field::new(format_state_name(args.name, name), t, true));
        let numbers = ["open", "high", "low", "close"].map(|n| field(n, DataType::Float64));
        let places = ["open_ts", "open_seq", "close_ts", "close_seq"].map(|n| field(n, DataType::Int64));
        Ok(numbers.into_iter().chain(places).collect())
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One::new(Bars::default())))
    }

    fn create_sliding_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sliding::new(Bars::default())))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups(Bars::default())))
    }
}

/// A bar so far; `high < low` while it is empty.
#[derive(Clone, Copy, Debug)]
struct Bar {
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    opened: (i64, i64),
    closed: (i64, i64),
}

const EMPTY: Bar = Bar {
    open: f64::NAN,
    high: f64::NEG_INFINITY,
    low: f64::INFINITY,
    close: f64::NAN,
    opened: (i64::MAX, i64::MAX),
    closed: (i64::MIN, i64::MIN),
};

impl Bar {
    fn is_empty(&self) -> bool {
        self.high < self.low
    }

    fn add(&mut self, other: &Bar) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = *other;
            return;
        }
        if other.opened < self.opened || (other.opened == self.opened && other.open < self.open) {
            (self.open, self.opened) = (other.open, other.opened);
        }
        if other.closed > self.closed || (other.closed == self.closed && other.close > self.close) {
            (self.close, self.closed) = (other.close, other.closed);
        }
        self.high = self.high.max(other.high);
        self.low = self.low.min(other.low);
    }
}

#[derive(Debug, Default)]
struct Bars(Vec<Bar>);

impl Bars {
    fn numbers(&self, groups: usize) -> (Vec<ArrayRef>, NullBuffer) {
        let bars = &self.0[..groups];
        let nulls: NullBuffer = bars.iter().map(|b| !b.is_empty()).collect();
        let column = |of: fn(&Bar) -> f64| -> ArrayRef {
            let values: Vec<f64> = bars.iter().map(of).collect();
            Arc::new(Float64Array::new(values.into(), Some(nulls.clone())))
        };
        (vec![column(|b| b.open), column(|b| b.high), column(|b| b.low), column(|b| b.close)], nulls)
    }
}

impl Fold for Bars {
    fn fresh(&self) -> Self {
        Self::default()
    }

    fn resize(&mut self, groups: usize) {
        if groups > self.0.len() {
            self.0.resize(groups, EMPTY);
        }
    }

    fn update(&mut self, args: &[ArrayRef], groups: &[usize], keep: &dyn Fn(usize) -> bool) -> Result<()> {
        let price = args[0].as_primitive::<Float64Type>();
        let ts = order_of(&args[1])?;
        let seq = args.get(2).map(order_of).transpose()?;
        for (i, &group) in groups.iter().enumerate() {
            // A price that is not a number is none.
            if price.is_null(i) || ts.is_null(i) || price.value(i).is_nan() || !keep(i) {
                continue;
            }
            let position = seq.as_ref().map_or(0, |s| if s.is_null(i) { i64::MIN } else { s.value(i) });
            let (p, at) = (price.value(i), (ts.value(i), position));
            let row = Bar { open: p, high: p, low: p, close: p, opened: at, closed: at };
            self.0[group].add(&row);
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let number = |i: usize| states[i].as_primitive::<Float64Type>();
        let place = |i: usize| states[i].as_primitive::<arrow::datatypes::Int64Type>();
        for (i, &group) in groups.iter().enumerate().filter(|(i, _)| states[0].is_valid(*i)) {
            let row = Bar {
                open: number(0).value(i),
                high: number(1).value(i),
                low: number(2).value(i),
                close: number(3).value(i),
                opened: (place(4).value(i), place(5).value(i)),
                closed: (place(6).value(i), place(7).value(i)),
            };
            self.0[group].add(&row);
        }
        Ok(())
    }

    fn results(&mut self, groups: usize) -> Result<ArrayRef> {
        let (columns, nulls) = self.numbers(groups);
        Ok(Arc::new(StructArray::try_new(fields(), columns, Some(nulls))?))
    }

    fn state(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let (mut columns, _) = self.numbers(groups);
        let bars = &self.0[..groups];
        let mut place = |of: fn(&Bar) -> i64| {
            columns.push(Arc::new(Int64Array::from_iter_values(bars.iter().map(of))));
        };
        place(|b| b.opened.0);
        place(|b| b.opened.1);
        place(|b| b.closed.0);
        place(|b| b.closed.1);
        Ok(columns)
    }

    fn forget(&mut self, groups: usize) {
        self.0.drain(..groups);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn size(&self) -> usize {
        self.0.capacity() * size_of::<Bar>()
    }
}
