//! `first(value, ts [, seq])` and `last(value, ts [, seq])`: the value at the earliest and latest time.
//!
//! Of rows with equal `ts` the one with the lowest (first) or highest (last) `seq` counts; where these are
//! equal or not given, the smallest or greatest value, so that the answer does not hang on the order in
//! which files are read. Rows where the value or `ts` is null do not count. Any type of value.
//!
//! ```sql
//! SELECT first(x, t) = 5 AND last(x, t) = 7 FROM (VALUES (2, 6), (1, 5), (3, 7), (4, NULL)) AS v(t, x);
//! SELECT last(x, t, s) = 'b' FROM (VALUES (1, 2, 'b'), (1, 1, 'z')) AS v(t, s, x);
//! ```

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};

use super::fold::{Fold, Groups, One, Sliding, order_of, order_type, position_type};

/// `first` or `last`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct FirstLast {
    last: bool,
    signature: Signature,
}

impl FirstLast {
    /// `first`.
    pub fn first() -> Self {
        Self { last: false, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// `last`.
    pub fn last() -> Self {
        Self { last: true, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn fold(&self, args: &AccumulatorArgs) -> Best {
        Best::new(self.last, args.return_type().clone())
    }
}

impl AggregateUDFImpl for FirstLast {
    fn name(&self) -> &str {
        if self.last { "last" } else { "first" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        coerce(self.name(), args)
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(args[0].clone())
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field =
            |name: &str, t: DataType| Arc::new(Field::new(format_state_name(args.name, name), t, true));
        Ok(vec![
            field("value", args.return_field.data_type().clone()),
            field("ts", DataType::Int64),
            field("seq", DataType::Int64),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One::new(self.fold(&args))))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sliding::new(self.fold(&args))))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups(self.fold(&args))))
    }
}

/// Checks `(value, ts [, seq])`.
fn coerce(name: &str, args: &[DataType]) -> Result<Vec<DataType>> {
    let (value, ts, seq) = match args {
        [value, ts] => (value, ts, None),
        [value, ts, seq] => (value, ts, Some(seq)),
        _ => {
            return plan_err!(
                "{name} takes a value, its time and maybe its position: {name}(price, ts, _seq)"
            );
        }
    };
    let Some(ts) = order_type(ts) else {
        return plan_err!("the second argument of {name} is a time, not {ts}");
    };
    let mut types = vec![value.clone(), ts];
    if let Some(seq) = seq {
        let Some(seq) = position_type(seq) else {
            return plan_err!("the third argument of {name} is a position such as _seq, not {seq}");
        };
        types.push(seq);
    }
    Ok(types)
}

#[derive(Debug)]
struct Best {
    last: bool,
    data_type: DataType,
    values: Vec<ScalarValue>,
    at: Vec<(i64, i64)>,
    /// The row of the batch at hand that a group's best is in; `NONE`: not in this batch.
    row: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Best {
    fn new(last: bool, data_type: DataType) -> Self {
        Self { last, data_type, values: Vec::new(), at: Vec::new(), row: Vec::new() }
    }

    fn take(
        &mut self,
        values: &ArrayRef,
        ts: &Int64Array,
        seq: Option<&Int64Array>,
        groups: &[usize],
        keep: &dyn Fn(usize) -> bool,
    ) -> Result<()> {
        let nulls = values.logical_nulls();
        let mut compare = None;
        let mut touched = Vec::new();
        let wins = if self.last { Ordering::Greater } else { Ordering::Less };
        for (i, &group) in groups.iter().enumerate() {
            if ts.is_null(i) || nulls.as_ref().is_some_and(|n| n.is_null(i)) || !keep(i) {
                continue;
            }
            let position = seq.map_or(0, |s| if s.is_null(i) { i64::MIN } else { s.value(i) });
            let at = (ts.value(i), position);
            let best = self.row[group];
            let empty = best == NONE && self.values[group].is_null();
            let mut order = if empty { wins } else { at.cmp(&self.at[group]) };
            if order == Ordering::Equal {
                order = if best == NONE {
                    let value = ScalarValue::try_from_array(values, i)?;
                    value.partial_cmp(&self.values[group]).unwrap_or(Ordering::Equal)
                } else {
                    if compare.is_none() {
                        compare = Some(make_comparator(values, values, SortOptions::default())?);
                    }
                    compare.as_ref().map_or(Ordering::Equal, |compare| compare(i, best as usize))
                };
            }
            if order == wins {
                if best == NONE {
                    touched.push(group);
                }
                self.row[group] = i as u32;
                self.at[group] = at;
            }
        }
        for group in touched {
            self.values[group] = ScalarValue::try_from_array(values, self.row[group] as usize)?;
            // A slice would keep the whole batch alive.
            self.values[group].compact();
            self.row[group] = NONE;
        }
        Ok(())
    }

    fn column(&self, groups: usize) -> Result<ArrayRef> {
        if groups == 0 {
            return Ok(arrow::array::new_empty_array(&self.data_type));
        }
        ScalarValue::iter_to_array(self.values[..groups].iter().cloned())
    }
}

impl Fold for Best {
    fn fresh(&self) -> Self {
        Self::new(self.last, self.data_type.clone())
    }

    fn resize(&mut self, groups: usize) {
        if groups > self.values.len() {
            let null = ScalarValue::try_from(&self.data_type).unwrap_or(ScalarValue::Null);
            self.values.resize(groups, null);
            self.at.resize(groups, (0, 0));
            self.row.resize(groups, NONE);
        }
    }

    fn update(&mut self, args: &[ArrayRef], groups: &[usize], keep: &dyn Fn(usize) -> bool) -> Result<()> {
        let seq = args.get(2).map(order_of).transpose()?;
        self.take(&args[0], &order_of(&args[1])?, seq.as_ref(), groups, keep)
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let seq = order_of(&states[2])?;
        self.take(&states[0], &order_of(&states[1])?, Some(&seq), groups, &|_| true)
    }

    fn results(&mut self, groups: usize) -> Result<ArrayRef> {
        self.column(groups)
    }

    fn state(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let at = &self.at[..groups];
        let ts = Int64Array::from_iter_values(at.iter().map(|(ts, _)| *ts));
        let seq = Int64Array::from_iter_values(at.iter().map(|(_, seq)| *seq));
        Ok(vec![self.column(groups)?, Arc::new(ts), Arc::new(seq)])
    }

    fn forget(&mut self, groups: usize) {
        self.values.drain(..groups);
        self.at.drain(..groups);
        self.row.drain(..groups);
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn size(&self) -> usize {
        self.values.capacity() * (size_of::<ScalarValue>() + 20)
    }
}
