//! The sink around a desk: rows to commands, the journal's place in checkpoints; and dry runs, which print what would be sent.

use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidemill_connectors::broker::journal::Kind;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::sink::{SinkContext, SinkWriter};

use super::Venue;
use super::command::{Columns, Command};
use super::desk::Desk;

/// What a checkpoint remembers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Remembered {
    /// The journal's last entry.
    journal: u64,
}

fn commands(columns: &Columns, rows: &RecordBatch) -> Result<Vec<Command>, ConnectorError> {
    columns.commands(rows).map_err(|e| ConnectorError::fatal("rows are not what was planned", e))
}

/// Writes orders.
pub struct OrderWriter<V> {
    desk: Desk<V>,
    columns: Columns,
    name: String,
    /// Checkpoints that are not committed yet.
    open: Vec<(u64, u64)>,
}

impl<V: Venue> OrderWriter<V> {
    /// Around a desk.
    pub fn new(desk: Desk<V>, columns: Columns, cx: &SinkContext) -> Self {
        Self { desk, columns, name: cx.name.clone(), open: Vec::new() }
    }
}

#[async_trait]
impl<V: Venue> SinkWriter for OrderWriter<V> {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        let commands = commands(&self.columns, &rows)?;
        self.desk.execute(commands).await
    }

    /// Each row was answered when `write` returned, and stands in the journal.
    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn checkpoint(&mut self, id: u64) -> Result<Value, ConnectorError> {
        let journal = self.desk.position().await;
        self.open.push((id, journal));
        Ok(json!(Remembered { journal }))
    }

    async fn committed(&mut self, id: u64) -> Result<(), ConnectorError> {
        let newest = self.open.iter().filter(|(open, _)| *open <= id).map(|(_, n)| *n).max();
        self.open.retain(|(open, _)| *open > id);
        match newest {
            Some(journal) => self.desk.committed(journal).await,
            None => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<(), ConnectorError> {
        let done = self.desk.done();
        tracing::info!(
            sink = self.name,
            taken = done.taken.load(Relaxed),
            refused = done.refused.load(Relaxed),
            replayed = done.replayed.load(Relaxed),
            unknown = done.unknown.load(Relaxed),
            "orders are closed"
        );
        Ok(())
    }
}

/// Prints the requests that would be sent, a line of JSON each, and sends nothing.
pub struct DryWriter<V> {
    venue: V,
    columns: Columns,
    out: Box<dyn Write + Send>,
}

impl<V: Venue> DryWriter<V> {
    /// Prints to `out`.
    pub fn new(venue: V, columns: Columns, out: Box<dyn Write + Send>) -> Self {
        Self { venue, columns, out }
    }
}

#[async_trait]
impl<V: Venue> SinkWriter for DryWriter<V> {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        for command in commands(&self.columns, &rows)? {
            // The venue would have given an id.
            let target = (command.asked.kind != Kind::Order).then_some("{id}");
            let encoded = command.ask.as_ref().map_err(Clone::clone);
            let line = match encoded.and_then(|_| self.venue.encode(&command, target)) {
                Ok(request) => {
                    let body = request.body.as_deref().and_then(|b| serde_json::from_str::<Value>(b).ok());
                    json!({ "order_id": command.asked.order, "method": request.method, "path": request.path, "body": body })
                }
                Err(reason) => json!({ "order_id": command.asked.order, "refused": reason }),
            };
            let written = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
            written.map_err(|e| ConnectorError::transient("cannot print", e))?;
        }
        Ok(())
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }
}
