//! Runs the filling of gaps: rows in order of key and time go through, with the missing ones between them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray, UInt32Array, make_comparator,
};
use arrow::compute::{SortOptions, concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef, TimestampNanosecondType};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties,
};
use futures::TryStreamExt;
use tokio::sync::mpsc::Sender;

use crate::functions::time_bucket::Width;

/// The most rows that one partition adds: beyond it the interval is a mistake.
const ADDED_MAX: u64 = 1_000_000_000;

/// How to fill.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub ts: usize,
    pub keys: Vec<usize>,
    pub width: Width,
    pub from: Option<i64>,
    pub to: Option<i64>,
}

/// The operation.
#[derive(Debug)]
pub(crate) struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    terms: Arc<Terms>,
    order: LexOrdering,
    properties: Arc<PlanProperties>,
}

impl GapFillExec {
    pub(crate) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        terms: Arc<Terms>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let options = SortOptions { descending: false, nulls_first: true };
        let columns = terms.keys.iter().chain([&terms.ts]);
        let columns = columns.map(|i| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(*i).name(), *i));
            PhysicalSortExpr::new(column, options)
        });
        let Some(order) = LexOrdering::new(columns) else {
            return internal_err!("gap_fill without a column of time");
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, [order.clone()]),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(Self { input, terms, order, properties: Arc::new(properties) })
    }
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GapFillExec: [{}] every {:?}", self.order, self.terms.width)
    }
}

impl ExecutionPlan for GapFillExec {
    fn name(&self) -> &str {
        "GapFillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let keys: Vec<_> = self.order.iter().take(self.terms.keys.len()).map(|e| e.expr.clone()).collect();
        InputDistributionRequirements::new(vec![match keys.is_empty() {
            true => Distribution::SinglePartition,
            false => Distribution::KeyPartitioned(keys),
        }])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![Some(OrderingRequirements::from(self.order.clone()))]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for sort in self.order.iter() {
            if f(&sort.expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("gap_fill has one input");
        };
        Ok(Arc::new(Self::try_new(input, self.terms.clone(), self.schema())?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size();
        let mut input = self.input.execute(partition, context)?;
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema(), 2);
        let mut filler = Filler {
            terms: self.terms.clone(),
            schema: self.schema(),
            batch_rows,
            out: builder.tx(),
            last: None,
            made: Made::default(),
            added: 0,
        };
        builder.spawn(async move {
            while let Some(batch) = input.try_next().await? {
                if !filler.batch(batch).await? {
                    return Ok(());
                }
            }
            filler.finish().await
        });
        Ok(builder.build())
    }
}

/// Rows to come: where their values are from, where their keys, and their time.
#[derive(Debug, Default)]
struct Made {
    values: Vec<Option<u32>>,
    keys: Vec<u32>,
    ts: Vec<i64>,
}

struct Filler {
    terms: Arc<Terms>,
    schema: SchemaRef,
    batch_rows: usize,
    out: Sender<Result<RecordBatch>>,
    /// The last row, for the rows after it.
    last: Option<RecordBatch>,
    made: Made,
    added: u64,
}

impl Filler {
    /// Takes a batch; false once nobody wants rows any more.
    async fn batch(&mut self, batch: RecordBatch) -> Result<bool> {
        let carried = usize::from(self.last.is_some());
        let batch = match self.last.take() {
            Some(last) => concat_batches(&batch.schema(), [&last, &batch])?,
            None => batch,
        };
        let n = batch.num_rows();
        let times = batch.column(self.terms.ts).as_primitive::<TimestampNanosecondType>().clone();
        let columns = self.terms.keys.iter().map(|k| batch.column(*k));
        let same =
            columns.map(|c| make_comparator(c, c, SortOptions::default())).collect::<Result<Vec<_>, _>>()?;
        let mut before: Option<usize> = (carried == 1).then_some(0);
        for i in carried..n {
            if times.is_null(i) {
                continue;
            }
            let new_key = before.is_none_or(|b| same.iter().any(|compare| compare(b, i).is_ne()));
            if new_key {
                if let Some(before) = before
                    && !self.tail(&batch, before, times.value(before)).await?
                {
                    return Ok(false);
                }
                if let Some(from) = self.terms.from
                    && !self.fill(&batch, i, Some(from), times.value(i)).await?
                {
                    return Ok(false);
                }
            } else if let Some(before) = before {
                let next = self.terms.width.next(times.value(before));
                if !self.fill(&batch, i, next, times.value(i)).await? {
                    return Ok(false);
                }
            }
            self.made.values.push(Some(i as u32));
            self.made.keys.push(i as u32);
            self.made.ts.push(times.value(i));
            if self.made.ts.len() >= self.batch_rows && !self.flush(&batch).await? {
                return Ok(false);
            }
            before = Some(i);
        }
        if !self.flush(&batch).await? {
            return Ok(false);
        }
        self.last = before.map(|b| batch.slice(b, 1));
        Ok(true)
    }

    async fn finish(&mut self) -> Result<()> {
        if let Some(last) = self.last.take() {
            let ts = last.column(self.terms.ts).as_primitive::<TimestampNanosecondType>().value(0);
            if self.tail(&last, 0, ts).await? {
                self.flush(&last).await?;
            }
        }
        Ok(())
    }

    /// Rows after a key's last, up to `to`.
    async fn tail(&mut self, batch: &RecordBatch, row: usize, ts: i64) -> Result<bool> {
        match self.terms.to {
            Some(to) => {
                let next = self.terms.width.next(ts);
                self.fill(batch, row, next, to).await
            }
            None => Ok(true),
        }
    }

    /// Rows from `next` on, before `end`, with the key of `row`.
    async fn fill(
        &mut self,
        batch: &RecordBatch,
        row: usize,
        mut next: Option<i64>,
        end: i64,
    ) -> Result<bool> {
        while let Some(ts) = next.filter(|ts| *ts < end) {
            self.made.values.push(None);
            self.made.keys.push(row as u32);
            self.made.ts.push(ts);
            self.added += 1;
            if self.added > ADDED_MAX {
                return exec_err!("gap_fill would add more than {ADDED_MAX} rows: use a longer interval");
            }
            if self.made.ts.len() >= self.batch_rows && !self.flush(batch).await? {
                return Ok(false);
            }
            next = self.terms.width.next(ts);
        }
        Ok(true)
    }

    /// Sends what is made; false where nobody listens.
    async fn flush(&mut self, batch: &RecordBatch) -> Result<bool> {
        let made = std::mem::take(&mut self.made);
        if made.ts.is_empty() {
            return Ok(true);
        }
        let (values, keys) = (UInt32Array::from(made.values), UInt32Array::from(made.keys));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
        for (i, column) in batch.columns().iter().enumerate() {
            columns.push(if i == self.terms.ts {
                let zone = match column.data_type() {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                Arc::new(TimestampNanosecondArray::from(made.ts.clone()).with_timezone_opt(zone))
            } else if self.terms.keys.contains(&i) {
                take(column, &keys, None)?
            } else {
                take(column, &values, None)?
            });
        }
        let out = RecordBatch::try_new(self.schema.clone(), columns)?;
        Ok(self.out.send(Ok(out)).await.is_ok())
    }
}
