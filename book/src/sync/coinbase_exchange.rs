//! Coinbase Exchange (the "pro" feed) `level2`: a snapshot, then `l2update` messages without any number.
//!
//! The venue promises delivery and gives nothing to check it by
//! (<https://docs.cdp.coinbase.com/exchange/websocket-feed/channels#level2-channel>). What can be seen: a book that is crossed after
//! an update, and the product's `time` going backwards. What cannot: a lost or repeated `l2update` that crosses nothing.

use super::local::Local;
use super::outcome::{Delta, Fault, FaultKind, Ignored, Outcome};
use super::{Crossing, Rule};
use crate::book::{Book, Levels};

/// The rule for one product; an update's mark is its `time`, nanoseconds since the epoch, where it has one.
#[derive(Clone, Debug)]
pub struct CoinbaseExchange {
    local: Local,
    time_ns: Option<i64>,
}

impl Default for CoinbaseExchange {
    fn default() -> Self {
        Self::new(Crossing::Fault)
    }
}

impl CoinbaseExchange {
    /// Without a book yet.
    pub fn new(crossing: Crossing) -> Self {
        Self { local: Local::new(None, crossing), time_ns: None }
    }
}

impl Rule for CoinbaseExchange {
    type SnapshotMark = ();
    type UpdateMark = Option<i64>;

    fn snapshot(&mut self, levels: Levels<'_>, (): ()) -> Outcome {
        self.time_ns = None;
        let result = self.local.load(levels).and_then(|()| self.local.uncrossed());
        self.local.settle(result)
    }

    #[inline]
    fn update(&mut self, levels: Levels<'_>, time_ns: Option<i64>) -> Outcome {
        self.local.deltas.clear();
        if !self.local.valid {
            return Outcome::Ignored(Ignored::NoSnapshot);
        }
        if let (Some(time), Some(last)) = (time_ns, self.time_ns)
            && time < last
        {
            let detail = format!("an update is {} ns older than the one before it", last - time);
            return self.local.settle(Err(Fault::new(FaultKind::TimeBackwards, detail)));
        }
        self.time_ns = time_ns.or(self.time_ns);
        let result = self.local.apply(levels).and_then(|()| self.local.uncrossed());
        self.local.settle(result)
    }

    fn reset(&mut self) {
        self.local.reset();
        self.time_ns = None;
    }

    fn book(&self) -> &Book {
        &self.local.book
    }

    fn valid(&self) -> bool {
        self.local.valid
    }

    fn update_id(&self) -> Option<i64> {
        None
    }

    fn deltas(&self) -> &[Delta] {
        &self.local.deltas
    }
}
