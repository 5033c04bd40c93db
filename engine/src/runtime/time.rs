//! The timely timestamp: a checkpoint epoch beside an event time.
//!
//! A message at `(epoch, ts)` holds rows with event time `ts` or later that belong before checkpoint
//! `epoch`. The order is partial (both parts must be `<=`), so a source that has passed into the next
//! epoch neither waits for the others nor hides their watermark: the smallest epoch in a frontier
//! tells which checkpoint is complete, the smallest `ts` is the watermark.

use serde::{Deserialize, Serialize};
use timely::order::PartialOrder;
use timely::progress::frontier::MutableAntichain;
use timely::progress::timestamp::Refines;
use timely::progress::{PathSummary, Timestamp};

/// A point of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    /// The checkpoint that the rows belong before.
    pub epoch: u64,
    /// No row has an earlier event time, nanoseconds.
    pub ts: i64,
}

impl PartialOrder for Time {
    fn less_equal(&self, other: &Self) -> bool {
        self.epoch <= other.epoch && self.ts <= other.ts
    }
}

impl Timestamp for Time {
    type Summary = ();
    fn minimum() -> Self {
        Self { epoch: 0, ts: i64::MIN }
    }
}

impl PathSummary<Time> for () {
    fn results_in(&self, src: &Time) -> Option<Time> {
        Some(*src)
    }
    fn followed_by(&self, _: &()) -> Option<()> {
        Some(())
    }
}

impl Refines<()> for Time {
    fn to_inner((): ()) -> Self {
        Self::minimum()
    }
    fn to_outer(self) {}
    fn summarize((): ()) {}
}

/// What a set of frontiers says together; `None` where nothing more can come.
pub fn progress<'a>(frontiers: impl IntoIterator<Item = &'a MutableAntichain<Time>>) -> Option<Time> {
    frontiers.into_iter().flat_map(|f| f.frontier().to_vec()).reduce(lower)
}

/// The lower bound of two times.
pub fn lower(a: Time, b: Time) -> Time {
    Time { epoch: a.epoch.min(b.epoch), ts: a.ts.min(b.ts) }
}
