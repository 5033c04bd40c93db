//! Runs an as-of join: the right side becomes an index once; left rows stream past it, in their order.

use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, is_not_null, take};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};

use super::index::{Index, Prober};
use super::node::Direction;
use crate::functions::order_of;

type Exprs = Vec<Arc<dyn PhysicalExpr>>;
type Building = Shared<BoxFuture<'static, Result<Arc<Index>, Arc<DataFusionError>>>>;

/// What is joined by what.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub left_keys: Exprs,
    pub right_keys: Exprs,
    pub left_ts: Arc<dyn PhysicalExpr>,
    pub right_ts: Arc<dyn PhysicalExpr>,
    pub ties: Exprs,
    pub direction: Direction,
    pub tolerance_ns: Option<i64>,
    pub inner: bool,
}

/// The operation.
pub(crate) struct AsofJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    terms: Arc<Terms>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    building: Mutex<Option<Building>>,
}

impl fmt::Debug for AsofJoinExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsofJoinExec").field("terms", &self.terms).finish_non_exhaustive()
    }
}

impl AsofJoinExec {
    pub(crate) fn try_new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        terms: Arc<Terms>,
        schema: SchemaRef,
    ) -> Result<Self> {
        // Left columns come first, so what is known of their order holds of the output.
        let orderings = left.equivalence_properties().oeq_class().iter().cloned().collect::<Vec<_>>();
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, orderings),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(
                left.output_partitioning().partition_count(),
            ),
            left.pipeline_behavior(),
            left.boundedness(),
        );
        Ok(Self {
            left,
            right,
            terms,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            building: Mutex::new(None),
        })
    }

    /// The index, built by whichever partition asks first.
    fn index(&self, context: &Arc<TaskContext>) -> Building {
        let mut building = self.building.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        building
            .get_or_insert_with(|| {
                let (right, terms, context) = (self.right.clone(), self.terms.clone(), context.clone());
                let time = MetricBuilder::new(&self.metrics).subset_time("build_time", 0);
                let rows = MetricBuilder::new(&self.metrics).counter("build_rows", 0);
                async move {
                    let batches = collect(right, &context).await?;
                    let timer = time.timer();
                    let index = build(batches, &terms)?;
                    timer.done();
                    rows.add(index.batch.num_rows());
                    Ok(Arc::new(index))
                }
                .map(|result: Result<_>| result.map_err(Arc::new))
                .boxed()
                .shared()
            })
            .clone()
    }
}

struct Collected {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    reservation: MemoryReservation,
}

/// All rows, partition by partition: so their order is that of the files.
async fn collect(plan: Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<Collected> {
    let schema = plan.schema();
    let reservation = Arc::new(MemoryConsumer::new("ASOF JOIN").register(context.memory_pool()));
    let partitions = plan.output_partitioning().partition_count();
    let tasks = (0..partitions).map(|partition| {
        let (plan, context, reservation) = (plan.clone(), context.clone(), reservation.clone());
        datafusion::common::runtime::SpawnedTask::spawn(async move {
            let mut stream = plan.execute(partition, context)?;
            let mut batches = Vec::new();
            while let Some(batch) = stream.try_next().await? {
                // The rows, once more where they are put end to end, and the index.
                reservation.try_grow(2 * bytes(&batch) + Index::bytes(batch.num_rows()))?;
                batches.push(batch);
            }
            Ok::<_, DataFusionError>(batches)
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut batches = Vec::new();
    for task in tasks {
        batches.extend(task.join().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??);
    }
    let reservation = Arc::try_unwrap(reservation)
        .or_else(|_| internal_err!("a finished task of an as-of join holds on to memory"))?;
    Ok(Collected { schema, batches, reservation })
}

/// What a batch's own rows take: buffers that batches share are not counted again for each.
fn bytes(batch: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => 16 * column.len() + column.as_string_view().total_buffer_bytes_used(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    };
    batch.columns().iter().map(of).sum()
}

fn build(collected: Collected, terms: &Terms) -> Result<Index> {
    let batch = concat_batches(&collected.schema, &collected.batches)?;
    drop(collected.batches);
    let keys = columns(&terms.right_keys, &batch)?;
    let ts = order_of(&column(&terms.right_ts, &batch)?)?;
    let ties = columns(&terms.ties, &batch)?.iter().map(order_of).collect::<Result<Vec<_>>>()?;
    let mut index = Index::new(batch, &keys, &ts, &ties)?;
    collected.reservation.try_resize(bytes(&index.batch) + Index::bytes(index.batch.num_rows()))?;
    index.hold(collected.reservation);
    Ok(index)
}

fn column(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch)?.into_array(batch.num_rows())
}

fn columns(exprs: &Exprs, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| column(e, batch)).collect()
}

/// Joins one left batch.
fn join(
    left: &RecordBatch,
    index: &Index,
    prober: &mut Prober,
    terms: &Terms,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let n = left.num_rows();
    let slots = index.slots(&columns(&terms.left_keys, left)?, n)?;
    let ts: Int64Array = order_of(&column(&terms.left_ts, left)?)?;
    let nulls = ts.null_count() > 0;
    let found: UInt32Array = slots
        .iter()
        .zip(ts.values())
        .enumerate()
        .map(|(i, (slot, t))| if nulls && ts.is_null(i) { None } else { prober.find(*slot, *t) })
        .collect();
    let mut all = left.columns().to_vec();
    for column in index.batch.columns() {
        all.push(take(column, &found, None)?);
    }
    let matched = terms.inner && found.null_count() > 0;
    if !matched {
        return Ok(RecordBatch::try_new(schema.clone(), all)?);
    }
    // Not yet of the output's schema: a right column that is never null has nulls until they are dropped.
    let keep = is_not_null(&found)?;
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let loose = Arc::new(arrow::datatypes::Schema::new(fields));
    let kept = filter_record_batch(&RecordBatch::try_new(loose, all)?, &keep)?;
    Ok(RecordBatch::try_new(schema.clone(), kept.columns().to_vec())?)
}

impl DisplayAs for AsofJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let terms = &self.terms;
        write!(f, "AsofJoinExec: {} {} {}", terms.left_ts, terms.direction, terms.right_ts)?;
        for (l, r) in terms.left_keys.iter().zip(&terms.right_keys) {
            write!(f, ", {l} = {r}")?;
        }
        if let Some(ns) = terms.tolerance_ns {
            write!(f, ", within {}", tidemill_engine::duration::Span::from_ns(ns))?;
        }
        f.write_str(if terms.inner { ", inner" } else { "" })
    }
}

impl ExecutionPlan for AsofJoinExec {
    fn name(&self) -> &str {
        "AsofJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // The right side's order decides between equal times: it must not be dealt out.
        vec![true, false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let terms = &self.terms;
        let all = terms.left_keys.iter().chain(&terms.right_keys).chain(&terms.ties);
        for expr in all.chain([&terms.left_ts, &terms.right_ts]) {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([left, right]) = <[Arc<dyn ExecutionPlan>; 2]>::try_from(children) else {
            return internal_err!("an as-of join has two inputs");
        };
        let schema = self.schema();
        Ok(Arc::new(Self::try_new(left, right, self.terms.clone(), schema)?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let building = self.index(&context);
        let left = self.left.execute(partition, context)?;
        let (terms, schema) = (self.terms.clone(), self.schema());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let out = schema.clone();
        let stream = async move {
            let index = building.await.map_err(DataFusionError::Shared)?;
            let mut prober = Prober::new(index.clone(), terms.direction, terms.tolerance_ns);
            Ok::<_, DataFusionError>(left.map(move |batch| {
                let batch = batch?;
                let timer = metrics.elapsed_compute().timer();
                let joined = join(&batch, &index, &mut prober, &terms, &schema)?;
                timer.done();
                metrics.record_output(joined.num_rows());
                Ok(joined)
            }))
        }
        .try_flatten_stream();
        Ok(Box::pin(RecordBatchStreamAdapter::new(out, stream)))
    }
}
