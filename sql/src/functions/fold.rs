//! How our aggregates are written: a [`Fold`] keeps the state of many groups in columns; here it becomes
//! what DataFusion wants: an aggregate by groups, one over all rows, and one over a sliding frame.

use std::collections::VecDeque;
use std::fmt::Debug;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// The state of an aggregate over many groups.
pub(crate) trait Fold: Debug + Send + Sync + 'static {
    /// The same aggregate with no groups.
    fn fresh(&self) -> Self
    where
        Self: Sized;

    /// Makes room for groups `0..groups`; new ones are empty.
    fn resize(&mut self, groups: usize);

    /// Takes rows: arguments as columns, each row's group; only rows for which `keep` holds.
    fn update(&mut self, args: &[ArrayRef], groups: &[usize], keep: &dyn Fn(usize) -> bool) -> Result<()>;

    /// Takes other states: columns of [`Fold::state`].
    fn merge(&mut self, states: &[ArrayRef], groups: &[usize]) -> Result<()>;

    /// The results of the first `groups` groups.
    fn results(&mut self, groups: usize) -> Result<ArrayRef>;

    /// The states of the first `groups` groups.
    fn state(&mut self, groups: usize) -> Result<Vec<ArrayRef>>;

    /// Forgets the first `groups` groups; the others move down.
    fn forget(&mut self, groups: usize);

    /// How many groups there are.
    fn len(&self) -> usize;

    /// Bytes held.
    fn size(&self) -> usize;
}

/// By groups.
pub(crate) struct Groups<F>(pub F);

impl<F: Fold> Groups<F> {
    fn count(&self, emit: EmitTo) -> usize {
        match emit {
            EmitTo::All => self.0.len(),
            EmitTo::First(n) => n,
        }
    }
}

impl<F: Fold> GroupsAccumulator for Groups<F> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.0.resize(total);
        match filter {
            None => self.0.update(values, groups, &|_| true),
            Some(filter) => self.0.update(values, groups, &|i| filter.is_valid(i) && filter.value(i)),
        }
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let n = self.count(emit);
        let results = self.0.results(n)?;
        self.0.forget(n);
        Ok(results)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let n = self.count(emit);
        let states = self.0.state(n)?;
        self.0.forget(n);
        Ok(states)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.0.resize(total);
        self.0.merge(values, groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |v| v.len());
        let mut each = Groups(self.0.fresh());
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        each.0.state(rows)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// Over all rows.
#[derive(Debug)]
pub(crate) struct One<F>(F);

impl<F: Fold> One<F> {
    pub(crate) fn new(mut fold: F) -> Self {
        fold.resize(1);
        One(fold)
    }
}

impl<F: Fold> Accumulator for One<F> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update(values, &vec![0; values[0].len()], &|_| true)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0.results(1)?, 0)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state(1)?.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge(states, &vec![0; states[0].len()])
    }
}

/// Over a sliding frame, for what cannot take rows back: keeps the frame's rows and looks at them all.
#[derive(Debug)]
pub(crate) struct Sliding<F> {
    fold: F,
    chunks: VecDeque<Vec<ArrayRef>>,
}

impl<F: Fold> Sliding<F> {
    pub(crate) fn new(fold: F) -> Self {
        Self { fold, chunks: VecDeque::new() }
    }

    fn filled(&self) -> Result<F> {
        let mut fold = self.fold.fresh();
        fold.resize(1);
        for chunk in &self.chunks {
            fold.update(chunk, &vec![0; chunk[0].len()], &|_| true)?;
        }
        Ok(fold)
    }
}

impl<F: Fold> Accumulator for Sliding<F> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if !values[0].is_empty() {
            self.chunks.push_back(values.to_vec());
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut rows = values[0].len();
        while rows > 0
            && let Some(mut chunk) = self.chunks.pop_front()
        {
            let here = chunk[0].len();
            if here > rows {
                chunk.iter_mut().for_each(|column| *column = column.slice(rows, here - rows));
                self.chunks.push_front(chunk);
            }
            rows = rows.saturating_sub(here);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.filled()?.results(1)?, 0)
    }

    fn size(&self) -> usize {
        self.chunks.iter().flatten().map(|column| column.get_array_memory_size()).sum()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.filled()?.state(1)?.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        datafusion::common::not_impl_err!("a sliding aggregate is not merged")
    }
}

/// A column of times or positions as numbers that compare alike; `UInt64` is moved so that all fit.
pub(crate) fn order_of(column: &ArrayRef) -> Result<Int64Array> {
    if let DataType::UInt64 = column.data_type() {
        let column = column.as_primitive::<arrow::datatypes::UInt64Type>();
        return Ok(column.unary(|v| (v ^ (1 << 63)) as i64));
    }
    let cast = cast(column, &DataType::Int64)?;
    Ok(cast.as_primitive::<Int64Type>().clone())
}

/// The type a position argument is brought to; `None` where it is no number.
pub(crate) fn position_type(t: &DataType) -> Option<DataType> {
    match t {
        t if t.is_unsigned_integer() => Some(DataType::UInt64),
        t if t.is_signed_integer() => Some(DataType::Int64),
        DataType::Null => Some(DataType::Int64),
        _ => None,
    }
}

/// The type an argument that orders rows is brought to: a time or a whole number.
pub(crate) fn order_type(t: &DataType) -> Option<DataType> {
    position_type(t).or_else(|| super::time_bucket::time_type(t))
}
