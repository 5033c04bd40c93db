//! Binance spot: diffs with the first and last update id they cover (`U`, `u`), over a REST snapshot's `lastUpdateId`.
//!
//! After "How to manage a local order book correctly"
//! (<https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#how-to-manage-a-local-order-book-correctly>):
//! diffs are buffered until a snapshot comes; a snapshot older than the buffered diffs (`lastUpdateId < U - 1`) is of no use and
//! another must be fetched; diffs with `u <= lastUpdateId` are dropped; then each diff must begin no later than one after the
//! book's id, which becomes its `u`. A diff that overlaps (`U <= id < u`) is applied, as the document says: sizes are
//! absolute, so the part that is known changes nothing.
//!
//! Seen: every lost diff (a gap in the ids), every repeated or late one (`u` at or below the book's id, passed over). Not
//! seen: a wrong price or size within a diff, unless it crosses the book. Levels beyond the snapshot's
//! limit (5000 a side at most) are known only once they change.

use super::local::Local;
use super::outcome::{Delta, Fault, FaultKind, Ignored, Outcome};
use super::pending::{Pending, Waiting};
use super::{Crossing, Rule};
use crate::book::{Book, Levels};

/// The ids of a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpotIds {
    /// `U`: the first update in it.
    pub first: u64,
    /// `u`: the last update in it.
    pub last: u64,
}

/// The rule for one symbol.
#[derive(Clone, Debug)]
pub struct BinanceSpot {
    local: Local,
    /// The book's id, where it has a snapshot.
    id: Option<u64>,
    /// The largest `u` of the stream.
    seen: Option<u64>,
    pending: Pending<SpotIds>,
    /// A snapshot that came before the stream's first diff.
    early: Option<Waiting<u64>>,
}

impl Default for BinanceSpot {
    fn default() -> Self {
        Self::new(Crossing::Fault)
    }
}

impl BinanceSpot {
    /// Without a book yet.
    pub fn new(crossing: Crossing) -> Self {
        let local = Local::new(None, crossing);
        Self { local, id: None, seen: None, pending: Pending::default(), early: None }
    }

    /// Keeps a diff that begins after what we have.
    fn wait(&mut self, levels: Levels<'_>, ids: SpotIds) -> Outcome {
        let gap = self.seen.filter(|seen| ids.first > seen + 1);
        if gap.is_some() {
            self.pending.clear();
        }
        self.seen = Some(ids.last);
        let fits = self.pending.push(levels, ids);
        match gap {
            Some(seen) => Outcome::Fault(gap_after(seen, ids)),
            None if !fits => Outcome::Fault(too_many()),
            None => match self.early.take() {
                Some(early) => self.join(early.levels(), early.mark),
                None => Outcome::Buffered,
            },
        }
    }

    /// Puts the snapshot under the diffs that wait.
    fn join(&mut self, levels: Levels<'_>, id: u64) -> Outcome {
        let first = self.pending.iter().find(|diff| diff.mark.last > id).map(|diff| diff.mark);
        if let Some(diff) = first.filter(|diff| diff.first > id + 1) {
            return Outcome::Fault(old_snapshot(id, diff.first));
        }
        let mut result = self.local.load(levels);
        let mut book_id = id;
        for diff in self.pending.iter().filter(|diff| diff.mark.last > id) {
            result = result.and_then(|()| self.local.apply(diff.levels()));
            book_id = diff.mark.last;
        }
        result = result.and_then(|()| self.local.uncrossed());
        self.id = result.is_ok().then_some(book_id);
        self.pending.clear();
        self.local.settle(result)
    }

    fn fail(&mut self, fault: Fault) -> Outcome {
        self.id = None;
        self.early = None;
        self.pending.clear();
        self.local.settle(Err(fault))
    }
}

pub(super) fn gap_after(seen: u64, ids: SpotIds) -> Fault {
    let detail = format!("update {} was to come, {} to {} came", seen + 1, ids.first, ids.last);
    Fault::new(FaultKind::Gap, detail)
}

pub(super) fn old_snapshot(id: u64, first: u64) -> Fault {
    let detail = format!("the snapshot is of update {id}, the oldest kept diff begins with {first}");
    Fault::new(FaultKind::OldSnapshot, detail)
}

pub(super) fn too_many() -> Fault {
    let detail = format!("more than {} diffs wait for a snapshot", super::pending::PENDING_MAX);
    Fault::new(FaultKind::Overflow, detail)
}

impl Rule for BinanceSpot {
    type SnapshotMark = u64;
    type UpdateMark = SpotIds;

    fn snapshot(&mut self, levels: Levels<'_>, id: u64) -> Outcome {
        self.local.deltas.clear();
        if self.local.valid {
            return Outcome::Ignored(Ignored::Stale);
        }
        if self.seen.is_none() {
            self.early = Some(Waiting::new(levels, id));
            return Outcome::Buffered;
        }
        self.join(levels, id)
    }

    #[inline]
    fn update(&mut self, levels: Levels<'_>, ids: SpotIds) -> Outcome {
        self.local.deltas.clear();
        if ids.first > ids.last {
            let detail = format!("a diff from update {} to {}", ids.first, ids.last);
            return self.fail(Fault::new(FaultKind::Gap, detail));
        }
        let seen = self.seen.is_some_and(|seen| ids.last <= seen);
        let Some(id) = self.id else {
            return if seen { Outcome::Ignored(Ignored::Duplicate) } else { self.wait(levels, ids) };
        };
        if ids.last <= id {
            self.seen = self.seen.max(Some(ids.last));
            return Outcome::Ignored(if seen { Ignored::Duplicate } else { Ignored::Stale });
        }
        if ids.first > id + 1 {
            let outcome = self.fail(gap_after(id, ids));
            self.seen = Some(ids.last);
            self.pending.push(levels, ids);
            return outcome;
        }
        self.seen = Some(ids.last);
        self.id = Some(ids.last);
        match self.local.apply(levels).and_then(|()| self.local.uncrossed()) {
            Ok(()) => self.local.settle(Ok(())),
            Err(fault) => self.fail(fault),
        }
    }

    fn reset(&mut self) {
        self.local.reset();
        (self.id, self.seen, self.early) = (None, None, None);
        self.pending.clear();
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
