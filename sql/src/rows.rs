//! The answer to a query, as it is computed.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;

use crate::engine::Limits;
use crate::error::SqlError;

/// Batches of rows; dropping it stops the query.
pub struct Rows {
    sql: String,
    limits: Limits,
    plan: Arc<dyn ExecutionPlan>,
    stream: SendableRecordBatchStream,
}

impl Rows {
    pub(crate) fn new(
        sql: String,
        limits: Limits,
        plan: Arc<dyn ExecutionPlan>,
        stream: SendableRecordBatchStream,
    ) -> Self {
        Self { sql, limits, plan, stream }
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// What is being executed, with its metrics so far.
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }

    /// The next batch that has rows; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, SqlError>> {
        loop {
            match self.stream.next().await? {
                Ok(batch) if batch.num_rows() == 0 => {}
                Ok(batch) => return Some(Ok(batch)),
                Err(e) => return Some(Err(SqlError::of(&e, &self.sql, &self.limits))),
            }
        }
    }

    /// All batches.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, SqlError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("sql", &self.sql).field("schema", &self.schema()).finish_non_exhaustive()
    }
}
