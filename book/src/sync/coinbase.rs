//! Coinbase Advanced Trade `level2`: a snapshot event, then updates, in messages whose `sequence_num` goes up by one.
//!
//! The number counts **all** messages of a connection, whatever their channel or product
//! (<https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-overview>), so it is watched once a
//! connection, by a [`Sequence`](super::Sequence), as the `heartbeat_counter` of the heartbeats channel is. A hole in
//! either means that any book of the connection may have lost an update: all of them are to be [reset](super::Rule::reset),
//! and the channel subscribed anew. A message that comes again is passed over.
//!
//! Seen: every lost or repeated message of the connection. Not seen: a wrong price or size, unless it crosses the book.

use super::local::Local;
use super::outcome::{Delta, Ignored, Outcome};
use super::{Crossing, Rule};
use crate::book::{Book, Levels};

/// The rule for one product; marks are the message's `sequence_num`.
#[derive(Clone, Debug)]
pub struct Coinbase {
    local: Local,
    id: Option<u64>,
}

impl Default for Coinbase {
    fn default() -> Self {
        Self::new(Crossing::Fault)
    }
}

impl Coinbase {
    /// Without a book yet.
    pub fn new(crossing: Crossing) -> Self {
        Self { local: Local::new(None, crossing), id: None }
    }
}

impl Rule for Coinbase {
    type SnapshotMark = u64;
    type UpdateMark = u64;

    fn snapshot(&mut self, levels: Levels<'_>, sequence: u64) -> Outcome {
        let result = self.local.load(levels).and_then(|()| self.local.uncrossed());
        self.id = Some(sequence);
        self.local.settle(result)
    }

    #[inline]
    fn update(&mut self, levels: Levels<'_>, sequence: u64) -> Outcome {
        self.local.deltas.clear();
        if !self.local.valid {
            return Outcome::Ignored(Ignored::NoSnapshot);
        }
        // One message may hold several events of a product, so the same number again is none that came twice.
        if self.id.is_some_and(|last| sequence < last) {
            return Outcome::Ignored(Ignored::Duplicate);
        }
        self.id = Some(sequence);
        let result = self.local.apply(levels).and_then(|()| self.local.uncrossed());
        self.local.settle(result)
    }

    fn reset(&mut self) {
        self.local.reset();
        self.id = None;
    }

    fn book(&self) -> &Book {
        &self.local.book
    }

    fn valid(&self) -> bool {
        self.local.valid
    }

    fn update_id(&self) -> Option<i64> {
        self.id.and_then(|id| i64::try_from(id).ok())
    }

    fn deltas(&self) -> &[Delta] {
        &self.local.deltas
    }
}
