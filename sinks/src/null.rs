//! Takes rows and forgets them: for benchmarks and dry runs. The engine counts them like any sink's.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{PlanContext, Problems, SinkKind, SinkPlan, StreamInfo};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::sink::{Delivery, FlushPolicy, Placement, Sink, SinkContext, SinkWriter};

/// Takes rows and forgets them.
///
/// For benchmarks and dry runs: everything before it runs, nothing is kept.
///
/// ```yaml
/// sinks:
///   nowhere: { kind: "null", from: trades }
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Rows as they come, or held until they are in order.
    pub delivery: Order,
}

/// In which order rows come.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As they come.
    #[default]
    Eager,
    /// In the order of time.
    Ordered,
}

/// The kind.
pub struct Null;

impl SinkKind for Null {
    const KIND: &'static str = "null";
    type Params = Params;

    fn plan(params: Params, _: &StreamInfo, _: &PlanContext) -> Result<SinkPlan, Problems> {
        let delivery = match params.delivery {
            Order::Eager => Delivery::Eager,
            Order::Ordered => Delivery::Ordered,
        };
        Ok(SinkPlan {
            delivery,
            placement: Placement::Local,
            flush: FlushPolicy::default(),
            sink: Arc::new(Null),
        })
    }
}

#[async_trait]
impl Sink for Null {
    async fn open(&self, _: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Null))
    }
}

#[async_trait]
impl SinkWriter for Null {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }
}
