//! One transactional producer: what [`Turns`](super::turns::Turns) calls, and librdkafka's part of it.

use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};
use tidemill_connectors::kafka::client::blocking;
use tidemill_engine::connector::ConnectorError;

use super::outbox::{Outbox, drain, failed};
use super::progress::Progress;

/// Brokers abort a transaction that is open for longer.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one attempt to fence, commit or abort may take; they are repeated.
const ATTEMPT: Duration = Duration::from_secs(10);
const ATTEMPTS: usize = 6;

/// A producer with a transactional id. A failed call leaves the transaction open: [`abort`](Self::abort) it.
#[async_trait]
pub(super) trait Transactional: Send + Sync {
    /// Opens a transaction. The one before must have been committed.
    fn begin(&mut self) -> Result<(), ConnectorError>;

    /// Produces rows within the open transaction.
    async fn write(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError>;

    /// Produces `progress` as the last record of the open transaction, and waits until the brokers have acknowledged
    /// all of its records.
    async fn complete(&mut self, progress: &Progress) -> Result<(), ConnectorError>;

    /// Commits the completed transaction. The future borrows nothing, so that it runs beside the other producer's work.
    fn commit(&self) -> BoxFuture<'static, Result<(), ConnectorError>>;

    /// Aborts what is open, as far as that can be done.
    async fn abort(&self) -> Result<(), ConnectorError>;
}

/// A librdkafka producer.
pub(super) struct Producer {
    out: Outbox,
    progress_topic: String,
}

impl Producer {
    /// Fences every older producer with the transactional id of `out`: a transaction that it had open is aborted, one about
    /// to be committed is completed.
    pub(super) async fn fence(out: Outbox, progress_topic: &str) -> Result<Self, ConnectorError> {
        let producer = out.producer.clone();
        let fenced = blocking(move || Ok(attempt(|| producer.init_transactions(ATTEMPT)))).await?;
        fenced.map_err(|e| out.failed("start transactions", &e))?;
        Ok(Self { out, progress_topic: progress_topic.to_owned() })
    }
}

#[async_trait]
impl Transactional for Producer {
    fn begin(&mut self) -> Result<(), ConnectorError> {
        self.out.producer.begin_transaction().map_err(|e| self.out.failed("write", &e))
    }

    async fn write(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        self.out.write(rows).await
    }

    async fn complete(&mut self, progress: &Progress) -> Result<(), ConnectorError> {
        let value =
            serde_json::to_vec(progress).map_err(|e| ConnectorError::fatal("cannot write progress", e))?;
        let key = format!("{}/{}/{}", progress.job, progress.sink, progress.shard);
        loop {
            let record = BaseRecord::to(&self.progress_topic)
                .partition(progress.shard as i32)
                .key(key.as_bytes())
                .payload(&value[..]);
            match self.out.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err((error, _)) => return Err(self.out.failed("write progress", &error)),
            }
        }
        self.out.drain().await
    }

    fn commit(&self) -> BoxFuture<'static, Result<(), ConnectorError>> {
        let (producer, ear) = (self.out.producer.clone(), self.out.ear.clone());
        let (job, topic) = (self.out.job.clone(), self.out.topic.clone());
        blocking(move || {
            tidemill_engine::fault::point("kafka-before-commit");
            let committed = drain(&producer).and_then(|()| attempt(|| producer.commit_transaction(ATTEMPT)));
            tidemill_engine::fault::point("kafka-after-commit");
            match committed {
                Ok(()) => ear.well(),
                Err(error) => return Err(failed(&producer, &ear, &job, &topic, "commit", &error)),
            }
            Ok(())
        })
        .boxed()
    }

    async fn abort(&self) -> Result<(), ConnectorError> {
        let producer = self.out.producer.clone();
        let aborted = blocking(move || Ok(producer.abort_transaction(ATTEMPT))).await?;
        aborted.map_err(|error| self.out.failed("abort", &error))
    }
}

/// Repeats a call that may succeed when it is called again.
fn attempt(call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let mut attempts = 1;
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && attempts < ATTEMPTS => {
                attempts += 1
            }
            done => return done,
        }
    }
}
