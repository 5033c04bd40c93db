//! Two transactional producers in turn: one is filled while the transaction of the other commits.
//!
//! What holds, whatever fails:
//! - **Logs are in order.** Transaction N + 1 produces its first record after the brokers have acknowledged every record of
//!   N, its progress included. So in every partition all records of N lie before those of N + 1, and a `read_committed`
//!   consumer reads them in this order: nothing behind the first record of an open transaction is handed out, so N + 1 is
//!   not read before the marker of N is there, even where its own marker was written first.
//! - **Commits are in order.** The commit of N + 1 is sent after the brokers have confirmed the commit of N. So at any
//!   instant the committed transactions are N of the first N, at most two are open, and where the outcome of one is
//!   not known, the next is not committed.
//! - **A failure is final.** After the first error nothing is begun or committed.

use arrow::array::RecordBatch;
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tokio::task::JoinHandle;

use super::progress::Progress;
use super::transaction::{TRANSACTION_TIMEOUT, Transactional};

/// A transaction whose commit is under way.
struct Committing {
    opened: Stopwatch,
    commit: JoinHandle<Result<(), ConnectorError>>,
}

/// Two producers in turn.
pub(super) struct Turns<T> {
    producers: [T; 2],
    /// The producer that takes rows.
    current: usize,
    /// Since when the current producer has a transaction open.
    open: Option<Stopwatch>,
    /// The commit of the other one.
    committing: Option<Committing>,
    /// The error that ended it.
    failed: Option<ConnectorError>,
    topic: String,
    clock: Clock,
}

impl<T: Transactional> Turns<T> {
    /// Both producers must have fenced their predecessors.
    pub(super) fn new(producers: [T; 2], topic: &str, clock: Clock) -> Self {
        Self {
            producers,
            current: 0,
            open: None,
            committing: None,
            failed: None,
            topic: topic.to_owned(),
            clock,
        }
    }

    /// Whether rows have been written that no flush has taken.
    pub(super) fn has_rows(&self) -> bool {
        self.open.is_some()
    }

    /// Whether no commit is under way, and none has failed.
    pub(super) fn is_settled(&self) -> bool {
        self.committing.is_none() && self.failed.is_none()
    }

    /// Produces rows in the open transaction, or in a new one.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        self.check()?;
        let producer = &mut self.producers[self.current];
        let opened = match &self.open {
            Some(opened) => opened.clone(),
            None => {
                let opened = self.clock.start();
                if let Err(error) = producer.begin() {
                    return Err(self.fail(error, &opened).await);
                }
                self.open.insert(opened).clone()
            }
        };
        match self.producers[self.current].write(rows).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(error, &opened).await),
        }
    }

    /// Completes the open transaction with `progress`, waits for the commit before, and lets its own run beside what follows.
    pub(super) async fn begin_commit(&mut self, progress: &Progress) -> Result<(), ConnectorError> {
        self.check()?;
        let Some(opened) = self.open.clone() else { return Ok(()) };
        if let Err(error) = self.producers[self.current].complete(progress).await {
            return Err(self.fail(error, &opened).await);
        }
        self.settle().await?;
        let commit = tokio::spawn(self.producers[self.current].commit());
        self.committing = Some(Committing { opened, commit });
        self.open = None;
        self.current = 1 - self.current;
        Ok(())
    }

    /// Waits for the commit that is under way. Safe to drop at any await and to call again.
    pub(super) async fn settle(&mut self) -> Result<(), ConnectorError> {
        self.check()?;
        let Some(Committing { commit, .. }) = &mut self.committing else { return Ok(()) };
        let result = commit
            .await
            .unwrap_or_else(|error| Err(ConnectorError::transient("a kafka commit did not finish", error)));
        // No await lies between the result and this.
        match (self.committing.take(), result) {
            (Some(Committing { opened, .. }), Err(error)) => Err(self.fail(error, &opened).await),
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<(), ConnectorError> {
        self.failed.as_ref().map_or(Ok(()), |error| Err(copy(error)))
    }

    async fn abort(&self, producer: usize) -> Result<(), ConnectorError> {
        if producer != self.current && self.committing.is_some() {
            return Ok(());
        }
        self.producers[producer].abort().await
    }

    /// Ends it with `error`, aborts what is open as far as that can be done, and classifies the error.
    async fn fail(&mut self, error: ConnectorError, opened: &Stopwatch) -> ConnectorError {
        // First, for this future may be dropped while it aborts.
        self.failed = Some(copy(&error));
        self.open = None;
        let error = match error {
            // Brokers fence the writer of a transaction that took too long just as an old one.
            ConnectorError::Fenced(reason) => match opened.elapsed() {
                long if long >= TRANSACTION_TIMEOUT => ConnectorError::Transient(format!(
                    "a transaction to kafka topic `{}` was open for {} s, and brokers abort them after {}",
                    self.topic,
                    long.as_secs(),
                    TRANSACTION_TIMEOUT.as_secs()
                )),
                _ => ConnectorError::Fenced(reason),
            },
            other => {
                // A commit that is under way goes on: its transaction is whole, and comes before the one that failed.
                let [first, second] = [0, 1].map(|i| self.abort(i));
                let (first, second) = tokio::join!(first, second);
                let fenced = |r: &Result<(), ConnectorError>| matches!(r, Err(ConnectorError::Fenced(_)));
                // Should a newer run be the reason, that is the better error.
                match [first, second].into_iter().find(fenced) {
                    Some(Err(newer)) => newer,
                    _ => other,
                }
            }
        };
        self.failed = Some(copy(&error));
        error
    }
}

fn copy(error: &ConnectorError) -> ConnectorError {
    match error {
        ConnectorError::Transient(reason) => ConnectorError::Transient(reason.clone()),
        ConnectorError::Fatal(reason) => ConnectorError::Fatal(reason.clone()),
        ConnectorError::Fenced(reason) => ConnectorError::Fenced(reason.clone()),
    }
}
