//! Binance's books: diffs that say where they belong, over a REST snapshot's `lastUpdateId`.
//!
//! Diffs wait until a snapshot comes; those it knows are dropped, the first that it does not know must follow it, and
//! from then on each must follow the one before. What *follows* means differs between the markets and is told by
//! [`Ids`]: [`binance_spot`](super::binance_spot), [`binance_futures`](super::binance_futures).

use super::local::Local;
use super::outcome::{Delta, Fault, FaultKind, Ignored, Outcome};
use super::pending::{Pending, Waiting};
use super::{Crossing, Rule};
use crate::book::{Book, Levels};

/// What a diff says of its place in the stream: all in which the two markets differ.
pub trait Ids: Copy {
    /// `U`: the first update in it.
    fn first(self) -> u64;
    /// `u`: the last update in it.
    fn last(self) -> u64;
    /// Whether a book with id `id` holds all of it.
    fn known_to(self, id: u64) -> bool;
    /// Whether nothing is missing between it and `id`: the `u` of the diff before it where `joined`, else a snapshot's id.
    fn follows(self, id: u64, joined: bool) -> bool;
    /// Whether its ids contradict each other.
    fn backwards(self) -> bool {
        false
    }
    /// Says that something is missing between `before` and it.
    fn gap(self, before: u64) -> Fault;
}

/// The rule for one symbol.
#[derive(Clone, Debug)]
pub struct Binance<I> {
    local: Local,
    /// The book's id, where it has a snapshot.
    id: Option<u64>,
    /// Whether a diff was applied to the snapshot.
    joined: bool,
    /// The largest `u` of the stream.
    seen: Option<u64>,
    pending: Pending<I>,
    /// A snapshot that came before the stream's first diff.
    early: Option<Waiting<u64>>,
}

impl<I: Ids> Default for Binance<I> {
    fn default() -> Self {
        Self::new(Crossing::Fault)
    }
}

impl<I: Ids> Binance<I> {
    /// Without a book yet.
    pub fn new(crossing: Crossing) -> Self {
        let local = Local::new(None, crossing);
        let pending = Pending::default();
        Self { local, id: None, joined: false, seen: None, pending, early: None }
    }

    /// Keeps a diff that begins after what we have.
    fn wait(&mut self, levels: Levels<'_>, ids: I) -> Outcome {
        let gap = self.seen.filter(|seen| !ids.follows(*seen, true));
        if gap.is_some() {
            self.pending.clear();
        }
        self.seen = Some(ids.last());
        let fits = self.pending.push(levels, ids);
        match gap {
            Some(seen) => Outcome::Fault(ids.gap(seen)),
            None if !fits => Outcome::Fault(too_many()),
            None => match self.early.take() {
                Some(early) => self.join(early.levels(), early.mark),
                None => Outcome::Buffered,
            },
        }
    }

    /// Puts the snapshot under the diffs that wait.
    fn join(&mut self, levels: Levels<'_>, id: u64) -> Outcome {
        let first = self.pending.iter().find(|diff| !diff.mark.known_to(id)).map(|diff| diff.mark);
        if let Some(diff) = first.filter(|diff| !diff.follows(id, false)) {
            return Outcome::Fault(old_snapshot(id, diff.first()));
        }
        let mut result = self.local.load(levels);
        let mut book_id = id;
        for diff in self.pending.iter().filter(|diff| !diff.mark.known_to(id)) {
            result = result.and_then(|()| self.local.apply(diff.levels()));
            book_id = diff.mark.last();
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

fn old_snapshot(id: u64, first: u64) -> Fault {
    let detail = format!("the snapshot is of update {id}, the oldest kept diff begins with {first}");
    Fault::new(FaultKind::OldSnapshot, detail)
}

fn too_many() -> Fault {
    let detail = format!("more than {} diffs wait for a snapshot", super::pending::PENDING_MAX);
    Fault::new(FaultKind::Overflow, detail)
}

impl<I: Ids> Rule for Binance<I> {
    type SnapshotMark = u64;
    type UpdateMark = I;

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
    fn update(&mut self, levels: Levels<'_>, ids: I) -> Outcome {
        self.local.deltas.clear();
        if ids.backwards() {
            let detail = format!("a diff from update {} to {}", ids.first(), ids.last());
            return self.fail(Fault::new(FaultKind::Gap, detail));
        }
        let seen = self.seen.is_some_and(|seen| ids.last() <= seen);
        let Some(id) = self.id else {
            return if seen { Outcome::Ignored(Ignored::Duplicate) } else { self.wait(levels, ids) };
        };
        if ids.known_to(id) || seen {
            self.seen = self.seen.max(Some(ids.last()));
            return Outcome::Ignored(if seen { Ignored::Duplicate } else { Ignored::Stale });
        }
        if !ids.follows(id, self.joined) {
            let outcome = self.fail(ids.gap(id));
            self.seen = Some(ids.last());
            self.pending.push(levels, ids);
            return outcome;
        }
        self.seen = Some(ids.last());
        self.id = Some(ids.last());
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
