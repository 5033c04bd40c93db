//! Binance USD-M futures: diffs that name the one before them (`pu`), over a REST snapshot's `lastUpdateId`.
//!
//! After "How to manage a local order book correctly"
//! (<https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/How-to-manage-a-local-order-book-correctly>):
//! diffs are buffered until a snapshot comes; those with `u < lastUpdateId` are dropped; the first applied has `U <=
//! lastUpdateId <= u`; then each diff's `pu` must be the `u` before it.
//!
//! Ids are shared by all symbols, so a snapshot's id often lies between two diffs of its symbol (`pu <= lastUpdateId < U`), where
//! the document's test fails although nothing is missing: no update of the symbol has an id between `pu` and `U`. So the
//! first applied diff needs `pu <= lastUpdateId <= u` here, of which the document's condition is a part.
//!
//! Seen: every lost diff (the chain breaks), every repeated or late one. Not seen: a wrong price or size within a
//! diff, unless it crosses the book.

use super::binance_spot::{old_snapshot, too_many};
use super::local::Local;
use super::outcome::{Delta, Fault, FaultKind, Ignored, Outcome};
use super::pending::{Pending, Waiting};
use super::{Crossing, Rule};
use crate::book::{Book, Levels};

/// The ids of a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FuturesIds {
    /// `U`: the first update in it.
    pub first: u64,
    /// `u`: the last update in it.
    pub last: u64,
    /// `pu`: the `u` of the symbol's diff before it.
    pub previous: u64,
}

/// The rule for one symbol.
#[derive(Clone, Debug)]
pub struct BinanceFutures {
    local: Local,
    /// The book's id, where it has a snapshot.
    id: Option<u64>,
    /// Whether a diff was applied to the snapshot: from then on the chain must be exact.
    joined: bool,
    /// The largest `u` of the stream.
    seen: Option<u64>,
    pending: Pending<FuturesIds>,
    /// A snapshot that came before the stream's first diff.
    early: Option<Waiting<u64>>,
}

impl Default for BinanceFutures {
    fn default() -> Self {
        Self::new(Crossing::Fault)
    }
}

impl BinanceFutures {
    /// Without a book yet.
    pub fn new(crossing: Crossing) -> Self {
        let local = Local::new(None, crossing);
        let pending = Pending::default();
        Self { local, id: None, joined: false, seen: None, pending, early: None }
    }

    fn wait(&mut self, levels: Levels<'_>, ids: FuturesIds) -> Outcome {
        let gap = self.seen.filter(|seen| ids.previous != *seen);
        if gap.is_some() {
            self.pending.clear();
        }
        self.seen = Some(ids.last);
        let fits = self.pending.push(levels, ids);
        match gap {
            Some(seen) => Outcome::Fault(broken_chain(seen, ids)),
            None if !fits => Outcome::Fault(too_many()),
            None => match self.early.take() {
                Some(early) => self.join(early.levels(), early.mark),
                None => Outcome::Buffered,
            },
        }
    }

    fn join(&mut self, levels: Levels<'_>, id: u64) -> Outcome {
        let first = self.pending.iter().find(|diff| diff.mark.last >= id).map(|diff| diff.mark);
        if let Some(diff) = first.filter(|diff| diff.previous > id) {
            return Outcome::Fault(old_snapshot(id, diff.first));
        }
        let mut result = self.local.load(levels);
        let mut book_id = id;
        for diff in self.pending.iter().filter(|diff| diff.mark.last >= id) {
            result = result.and_then(|()| self.local.apply(diff.levels()));
            book_id = diff.mark.last;
        }
        result = result.and_then(|()| self.local.uncrossed());
        self.id = result.is_ok().then_some(book_id);
        self.joined = first.is_some();
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

fn broken_chain(seen: u64, ids: FuturesIds) -> Fault {
    let FuturesIds { first, last, previous } = ids;
    let detail = format!("update {seen} was the last, {first} to {last} follows {previous}");
    Fault::new(FaultKind::Gap, detail)
}

impl Rule for BinanceFutures {
    type SnapshotMark = u64;
    type UpdateMark = FuturesIds;

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
    fn update(&mut self, levels: Levels<'_>, ids: FuturesIds) -> Outcome {
        self.local.deltas.clear();
        let seen = self.seen.is_some_and(|seen| ids.last <= seen);
        let Some(id) = self.id else {
            return if seen { Outcome::Ignored(Ignored::Duplicate) } else { self.wait(levels, ids) };
        };
        if ids.last < id || seen {
            self.seen = self.seen.max(Some(ids.last));
            return Outcome::Ignored(if seen { Ignored::Duplicate } else { Ignored::Stale });
        }
        let follows = if self.joined { ids.previous == id } else { ids.previous <= id };
        if !follows {
            let outcome = self.fail(broken_chain(id, ids));
            self.seen = Some(ids.last);
            self.pending.push(levels, ids);
            return outcome;
        }
        self.seen = Some(ids.last);
        self.id = Some(ids.last);
        self.joined = true;
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
