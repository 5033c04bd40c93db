//! Rows held until the watermark passes them, then handed over in total order.
//!
//! The order is `(ts, _src, _seq)`; rows equal in all three are ordered by their whole content, so
//! the result never depends on how they arrived. State: the rows between the watermark and the
//! newest row, kept as sorted runs.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use crate::row;

/// Runs beyond which they are merged into one.
const RUNS_MAX: usize = 64;

/// Held rows of one input.
#[derive(Debug)]
pub struct Hold {
    schema: SchemaRef,
    runs: Vec<RecordBatch>,
}

impl Hold {
    /// Holds rows of `schema`.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, runs: Vec::new() }
    }

    /// Takes rows in any order.
    pub fn insert(&mut self, batch: RecordBatch) -> Result<(), ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.runs.push(sorted(batch)?);
        if self.runs.len() > RUNS_MAX {
            let all = arrow::compute::concat_batches(&self.schema, &self.runs)?;
            self.runs = vec![sorted(all)?];
        }
        Ok(())
    }

    /// Rows with `ts < watermark`, in order; they are held no longer.
    pub fn release(&mut self, watermark: i64) -> Result<Option<RecordBatch>, ArrowError> {
        let mut ready = Vec::new();
        let mut first = Vec::new();
        for run in &mut self.runs {
            let n = row::ts(run).partition_point(|ts| *ts < watermark);
            if n > 0 {
                first.push((row::ts(run)[0], ready.len()));
                ready.push(run.slice(0, n));
                *run = run.slice(n, run.num_rows() - n);
            }
        }
        self.runs.retain(|run| run.num_rows() > 0);
        match ready.len() {
            0 => Ok(None),
            1 => Ok(ready.pop()),
            _ => {
                first.sort_unstable();
                let ready: Vec<RecordBatch> = first.iter().map(|(_, i)| ready[*i].clone()).collect();
                Ok(Some(sorted(arrow::compute::concat_batches(&self.schema, &ready)?)?))
            }
        }
    }

    /// How many rows are held.
    pub fn len(&self) -> usize {
        self.runs.iter().map(RecordBatch::num_rows).sum()
    }

    /// What is held, for a snapshot.
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.runs.clone()
    }
}

/// The batch in total order.
pub fn sorted(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (ts, src, seq) = (row::ts(&batch), row::src(&batch), row::seq(&batch));
    let key = |i: usize| (ts[i], src[i], seq[i]);
    if (1..ts.len()).all(|i| key(i - 1) < key(i)) {
        return Ok(batch);
    }
    let mut order: Vec<u32> = (0..ts.len() as u32).collect();
    order.sort_by_key(|i| key(*i as usize));
    let tied = order.windows(2).any(|w| key(w[0] as usize) == key(w[1] as usize));
    if tied {
        let fields = batch.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(batch.columns())?;
        order.sort_by(|a, b| {
            let (a, b) = (*a as usize, *b as usize);
            key(a).cmp(&key(b)).then_with(|| rows.row(a).cmp(&rows.row(b)))
        });
    }
    if order.iter().enumerate().all(|(i, o)| i as u32 == *o) {
        return Ok(batch);
    }
    take_record_batch(&batch, &UInt32Array::from(order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn batch(rows: &[(i64, u64, u64, i64)]) -> RecordBatch {
        let schema = row::stream_schema(&[Arc::new(Field::new("v", DataType::Int64, false))]);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            row::ts_array(rows.iter().map(|r| r.0).collect()),
            row::u64_array(rows.iter().map(|r| r.1).collect()),
            row::u64_array(rows.iter().map(|r| r.2).collect()),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.3))),
        ];
        RecordBatch::try_new(schema, columns).unwrap()
    }

    fn rows(batch: &RecordBatch) -> Vec<(i64, u64, u64, i64)> {
        let v = batch.column(3).as_any().downcast_ref::<Int64Array>().unwrap();
        (0..batch.num_rows())
            .map(|i| (row::ts(batch)[i], row::src(batch)[i], row::seq(batch)[i], v.value(i)))
            .collect()
    }

    proptest! {
        /// Given rows in any order and any batches, when watermarks pass, then what is released is
        /// the sorted rows, cut at the watermarks.
        #[test]
        fn released_rows_are_the_sorted_rows(
            all in proptest::collection::vec((0i64..50, 0u64..2, 0u64..6, 0i64..3), 1..200),
            cut in 1usize..20,
            marks in proptest::collection::vec(0i64..60, 0..6),
        ) {
            let mut hold = Hold::new(batch(&[]).schema());
            for part in all.chunks(cut) {
                hold.insert(batch(part)).unwrap();
            }
            let mut marks = marks;
            marks.sort_unstable();
            marks.push(i64::MAX);
            let mut got = Vec::new();
            for mark in marks {
                if let Some(ready) = hold.release(mark).unwrap() {
                    let ready = rows(&ready);
                    prop_assert!(ready.iter().all(|r| r.0 < mark));
                    got.extend(ready);
                }
            }
            let mut expected = all;
            expected.sort_unstable();
            prop_assert_eq!(got, expected);
            prop_assert_eq!(hold.len(), 0);
        }
    }
}
