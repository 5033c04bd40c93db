//! A venue's protocol as a state machine over frames: no clock, no IO.
//!
//! The driver (a live feed or a replay) hands it every frame in order and carries out the actions it
//! asks for; a replay ignores them, since what came of them is in the capture.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::Value;
use tidemill_engine::source::Reject;

use super::frame::Frame;

/// What a feed connects to, and what keeps it alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The WebSocket's URL.
    pub url: String,
    /// Messages to send once it is open, in order: log-ins and subscriptions, already split by the venue's limits.
    pub hello: Vec<Outgoing>,
    /// Least time between two messages that we send on it, by the venue's limit; nanoseconds.
    pub send_gap_ns: i64,
    /// A text to send when nothing was received for half the stale time, where the venue wants its own
    /// ping; WebSocket pings are always answered, and sent, by the driver.
    pub ping: Option<String>,
    /// The connection is cut and made again when nothing at all was received for so long; nanoseconds.
    pub stale_ns: i64,
    /// Same number: connections that carry the same data, redundantly. The protocol drops what came before
    /// by its sequence.
    pub group: u32,
}

/// A message to the venue.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// As it is sent.
    pub text: String,
    /// As it may be shown and captured.
    pub shown: String,
}

impl Outgoing {
    /// A message without secrets.
    pub fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { shown: text.clone(), text }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What a protocol wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message on a connection.
    Send {
        /// Which.
        connection: u32,
        /// What.
        message: Outgoing,
    },
    /// GET a URL; the answer comes as a [`Response`](super::frame::FrameKind::Response) frame. The driver keeps to the venue's
    /// request weights, honours `Retry-After` (418, 429), retries 5xx and lost connections with backoff, and hands on what it ends with.
    Fetch {
        /// Whose frame led to it.
        connection: u32,
        /// What; the same URL is not fetched twice at once.
        url: String,
        /// Its cost in the venue's units.
        weight: u32,
    },
    /// Cut a connection and make it again, subscriptions and all.
    Reconnect {
        /// Which.
        connection: u32,
        /// Why, for the log.
        reason: String,
    },
}

/// A venue's protocol for one channel: frames in, rows and actions out.
pub trait Protocol: Send {
    /// The connections it needs; their index is `Frame::connection`. Called once.
    fn endpoints(&self) -> Vec<Endpoint>;
    /// Columns of its rows (no system columns; `ts` among them).
    fn schema(&self) -> SchemaRef;
    /// Takes the next frame. Rows are kept until [`finish`](Self::finish); what is wrong with the frame goes to
    /// `out`, never into a panic.
    fn on_frame(&mut self, frame: &Frame, out: &mut Output);
    /// What its REST requests may cost in a minute, in the venue's units.
    fn weight_per_minute(&self) -> u32 {
        1200
    }
    /// How many rows are kept.
    fn rows(&self) -> usize;
    /// The rows since the last call.
    fn finish(&mut self) -> RecordBatch;
    /// What it must know to go on after a restart (last trade ids, say), for the checkpoint. Books start afresh.
    fn state(&self) -> Value {
        Value::Null
    }
    /// Whether [`state`](Self::state) is all that it knows, once its rows are taken: a protocol restored from it
    /// would make the same of every frame to come, on connections that are open too.
    fn state_is_whole(&self) -> bool {
        false
    }
    /// Goes on from a state.
    fn restore(&mut self, _state: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// Beside the rows: what a protocol asks for, refuses and counts.
#[derive(Debug, Default)]
pub struct Output {
    /// To be done by the driver, in order.
    pub actions: Vec<Action>,
    /// Frames, or parts of them, that could not become rows: truncated JSON, an unknown message type, a
    /// negative size. `seq` is set by the driver.
    pub rejects: Vec<Reject>,
    /// What the venue told us that is no row: its error frames, refused subscriptions, an unknown symbol. Logged as warnings.
    pub notices: Vec<String>,
    /// Counts by name: `gaps`, `checksum_errors`, `resyncs`, `duplicates`, `stale_diffs`, `crossed_books`,
    /// `recovered_trades`, `venue_errors`, …: shown in the run's summary and metrics.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Output {
    /// Counts one more of `name`.
    pub fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// Refuses (a part of) a frame; `before` is how many rows the protocol kept when it did.
    pub fn reject(&mut self, frame: &Frame, before: usize, reason: impl Into<String>) {
        let reason = reason.into();
        self.rejects.push(Reject { seq: 0, before, raw: frame.data.to_vec(), key: None, reason });
    }
}
