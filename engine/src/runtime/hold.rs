//! Rows held until the watermark passes them, then handed over in total order.
//!
//! The order is `(ts, _src, _seq)`; rows equal in all three are ordered by their whole content, so
//! the result never depends on how they arrived. State: the rows between the watermark and the
//! newest row, as sorted runs. An older run has at least twice the rows of the next newer one, so there are about
//! log2(rows) runs, and a row is copied about as often however small the batches were that it came in.

use std::cmp::Ordering;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use crate::row;

/// A run is at least so many times as long as the next newer one.
const GROWTH: usize = 2;

/// Held rows of one input.
#[derive(Debug)]
pub struct Hold {
    schema: SchemaRef,
    runs: Vec<Run>,
}

/// Sorted rows.
#[derive(Debug)]
struct Run {
    rows: RecordBatch,
    /// How many rows the memory behind `rows` holds: what was released in front of them still takes room.
    allocated: usize,
}

impl Run {
    fn new(rows: RecordBatch) -> Self {
        Self { allocated: rows.num_rows(), rows }
    }

    /// Takes the rows below `watermark` off.
    fn split(&mut self, watermark: i64) -> Result<Option<RecordBatch>, ArrowError> {
        let n = row::ts(&self.rows).partition_point(|ts| *ts < watermark);
        if n == 0 {
            return Ok(None);
        }
        let ready = self.rows.slice(0, n);
        self.rows = self.rows.slice(n, self.rows.num_rows() - n);
        if self.rows.num_rows() > 0 && self.rows.num_rows() < self.allocated / 2 {
            *self = Self::new(copied(&self.rows)?);
        }
        Ok(Some(ready))
    }
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
        self.runs.push(Run::new(sorted(batch)?));
        // All runs that the growth rule would merge one after the other are merged at once.
        let (mut from, mut rows) = (self.runs.len() - 1, self.runs[self.runs.len() - 1].rows.num_rows());
        while from > 0 && self.runs[from - 1].rows.num_rows() < rows * GROWTH {
            from -= 1;
            rows += self.runs[from].rows.num_rows();
        }
        if self.runs.len() - from > 1 {
            let runs: Vec<RecordBatch> = self.runs.drain(from..).map(|run| run.rows).collect();
            self.runs.push(Run::new(merged(&self.schema, &runs)?));
        }
        Ok(())
    }

    /// Rows with `ts < watermark`, in order; they are held no longer.
    pub fn release(&mut self, watermark: i64) -> Result<Option<RecordBatch>, ArrowError> {
        let mut ready = Vec::new();
        for run in &mut self.runs {
            ready.extend(run.split(watermark)?);
        }
        self.runs.retain(|run| run.rows.num_rows() > 0);
        match ready.len() {
            0 | 1 => Ok(ready.pop()),
            _ => merged(&self.schema, &ready).map(Some),
        }
    }

    /// How many rows are held.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.rows.num_rows()).sum()
    }

    /// What is held, for a snapshot.
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.runs.iter().map(|run| run.rows.clone()).collect()
    }
}

/// The batch in total order.
pub fn sorted(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    if in_order(&batch) { Ok(batch) } else { merged(&batch.schema(), &[batch]) }
}

/// Time, source and position.
type Key = (i64, u64, u64);

fn keys(batch: &RecordBatch) -> impl Iterator<Item = Key> {
    let (ts, src, seq) = (row::ts(batch), row::src(batch), row::seq(batch));
    (0..ts.len()).map(move |i| (ts[i], src[i], seq[i]))
}

fn in_order(batch: &RecordBatch) -> bool {
    keys(batch).is_sorted_by(|a, b| a < b)
}

/// The rows of all batches in total order, each batch being in order or nearly so.
fn merged(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    if let Some(all) = joined(schema, batches)? {
        return Ok(all);
    }
    let mut order: Vec<(Key, (usize, usize))> =
        Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (i, batch) in batches.iter().enumerate() {
        order.extend(keys(batch).enumerate().map(|(row, key)| (key, (i, row))));
    }
    // The standard sort finds the runs that are sorted and merges them.
    order.sort_by_key(|(key, _)| *key);
    if order.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        let content = Content::new(schema, batches)?;
        for tied in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|tied| tied.len() > 1) {
            tied.sort_by(|a, b| content.compare(a.1, b.1));
        }
    }
    let from: Vec<&RecordBatch> = batches.iter().collect();
    let order: Vec<(usize, usize)> = order.into_iter().map(|(_, place)| place).collect();
    interleave_record_batch(&from, &order)
}

/// The batches one behind another, where that is their order already.
fn joined(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Option<RecordBatch>, ArrowError> {
    let ends = |batch: &RecordBatch| {
        let n = batch.num_rows();
        let (ts, src, seq) = (row::ts(batch), row::src(batch), row::seq(batch));
        ((ts[0], src[0], seq[0]), (ts[n - 1], src[n - 1], seq[n - 1]))
    };
    let apart = batches.windows(2).all(|pair| ends(&pair[0]).1 < ends(&pair[1]).0);
    if !apart || !batches.iter().all(in_order) {
        return Ok(None);
    }
    concat_batches(schema, batches).map(Some)
}

/// The same rows in memory of their own.
fn copied(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let all: Vec<(usize, usize)> = (0..rows.num_rows()).map(|i| (0, i)).collect();
    interleave_record_batch(&[rows], &all)
}

/// Whole rows in a form that compares.
struct Content(Vec<arrow::row::Rows>);

impl Content {
    fn new(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self, ArrowError> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let rows = batches.iter().map(|batch| converter.convert_columns(batch.columns()));
        Ok(Self(rows.collect::<Result<_, _>>()?))
    }

    fn compare(&self, a: (usize, usize), b: (usize, usize)) -> Ordering {
        self.0[a.0].row(a.1).cmp(&self.0[b.0].row(b.1))
    }
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

    /// Given many small batches, then there are few runs, and what is left of a long one does not keep its memory.
    #[test]
    fn runs_are_few_and_free_what_they_released() {
        let mut hold = Hold::new(batch(&[]).schema());
        for i in 0..10_000i64 {
            let ts = |k: i64| (i * 5 + k) * 7919 % 50_000;
            let rows: Vec<_> = (0..5).map(|k| (ts(k), 0, (i * 5 + k) as u64, k)).collect();
            hold.insert(batch(&rows)).unwrap();
            assert!(hold.runs.len() <= 16, "{} runs", hold.runs.len());
            assert!(hold.runs.windows(2).all(|w| w[0].rows.num_rows() >= GROWTH * w[1].rows.num_rows()));
        }
        assert_eq!(hold.len(), 50_000);
        let before: usize = hold.batches().iter().map(RecordBatch::get_array_memory_size).sum();
        let released = hold.release(49_000).unwrap().unwrap();
        assert!(rows(&released).is_sorted());
        assert_eq!((released.num_rows(), hold.len()), (49_000, 1_000));
        let after: usize = hold.batches().iter().map(RecordBatch::get_array_memory_size).sum();
        assert!(after < before / 10, "{after} of {before} bytes");
    }

    proptest! {
        /// Given rows in any order and any batches, when watermarks pass, then what is released is
        /// the sorted rows, cut at the watermarks.
        #[test]
        fn released_rows_are_the_sorted_rows(
            all in proptest::collection::vec((0i64..50, 0u64..2, 0u64..6, 0i64..3), 1..600),
            cuts in proptest::collection::vec(1usize..40, 1..40),
            marks in proptest::collection::vec(0i64..60, 0..6),
        ) {
            let mut hold = Hold::new(batch(&[]).schema());
            let mut rest = &all[..];
            for cut in cuts.iter().cycle() {
                let (part, later) = rest.split_at((*cut).min(rest.len()));
                hold.insert(batch(part)).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
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
