//! At least once: rows go out as they come; a flush waits until the brokers have them.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::sink::{SinkContext, SinkWriter};

use super::Target;
use super::outbox::Outbox;

pub(super) struct AtLeastOnce(Outbox);

pub(super) async fn open(target: &Target, cx: SinkContext) -> Result<AtLeastOnce, ConnectorError> {
    Ok(AtLeastOnce(Outbox::open(target, &cx.job, cx.schema, &[]).await?))
}

#[async_trait]
impl SinkWriter for AtLeastOnce {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        self.0.write(&rows).await
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        self.0.drain().await
    }
}
