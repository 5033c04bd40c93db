//! Books of a feed: one rule a symbol, what came of each message as rows, and what to do where a book is wrong.
//!
//! A venue's protocol hands over snapshots and updates; this decides what downstream is told:
//!
//! | output | rows |
//! |---|---|
//! | `deltas` | a row a changed level, in the order sent (`last` on a message's last); levels set to what they were are no rows |
//! | `snapshots` | a row for each message that changed one of the best `depth` levels of a side |
//! | `quotes` | a row for each message that changed a best price or its size |
//!
//! When a book stops being valid, exactly one row says so, at the event that showed it; nothing follows for the symbol until
//! the book is whole again: then all of it (`snapshot` rows, or one row). A symbol that was never valid says nothing before its
//! first whole book.
//!
//! **Resync.** A book that was found wrong is asked for anew at once, and again when what came was of no use or nothing came.
//! There is no clock here, so waits are counted in updates of the symbol: after n questions 2^n (at most 1024) where an
//! answer was of no use or the book was soon wrong again, [`PATIENCE`] times 2^(n-1) (at most 8000) where no answer came. A book that was
//! right for [`SETTLED`] updates is asked for at once again.
//!
//! Counts: `gaps`, `checksum_errors`, `crossed_books`, `bad_levels`, `old_snapshots`, `buffer_overflows`, `time_backwards`,
//! `disconnected_books` by what was wrong; `duplicates`, `stale_diffs`, `diffs_before_snapshot`, `unneeded_snapshots` by what was passed over;
//! `book_requests` for what was asked, `resyncs` for books that were wrong and are right again.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_book::sync::{Fault, FaultKind, Ignored, Outcome, Rule};
use tidemill_book::{Book, Level, Levels};
use tidemill_engine::problem::Problem;

use super::frame::Frame;
use super::protocol::{Action, Outgoing, Output};
use super::tables::Head;
use rows::{News, Rows};

mod rows;
#[cfg(test)]
mod tests;

/// Updates that are waited for an answer at the first try.
pub const PATIENCE: u64 = 500;
/// Updates after which a healed book is trusted again.
pub const SETTLED: u64 = 1000;
const PATIENCE_MAX: u64 = 8000;
const WAIT_MAX: u64 = 1024;

/// What rows a feed of books gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BookParams {
    /// `deltas`: a row a changed level; `snapshots`: the best levels when one of them changed; `quotes`: best bid and ask when one changed.
    pub output: BookOutput,
    /// Levels a side of `snapshots`, 1 to 1000.
    pub depth: usize,
}

impl Default for BookParams {
    fn default() -> Self {
        Self { output: BookOutput::Deltas, depth: 10 }
    }
}

impl BookParams {
    /// What is wrong with it, at `path`.
    pub fn problem(&self, path: &str) -> Option<Problem> {
        if (1..=1000).contains(&self.depth) {
            return None;
        }
        let reason = format!("must be 1 to 1000 levels, it is {}", self.depth);
        Some(Problem::new(format!("{path}.depth"), reason))
    }
}

/// Kinds of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BookOutput {
    /// A row a changed level.
    #[default]
    Deltas,
    /// The best levels of both sides.
    Snapshots,
    /// Best bid and ask.
    Quotes,
}

/// What is made for a symbol.
pub type OfSymbol<T> = Box<dyn Fn(&str) -> T + Send>;

/// How a venue is asked for a whole book.
pub enum Resync {
    /// GET of a URL, for a symbol: the URL and its cost in the venue's units.
    Fetch(OfSymbol<(String, u32)>),
    /// Messages that end a symbol's subscription and begin it again; the venue sends a snapshot by itself.
    Resubscribe(OfSymbol<Vec<Outgoing>>),
    /// The connection is made again: every book on it begins anew.
    Reconnect,
}

/// Where an input belongs.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The instrument as the venue calls it.
    pub symbol: &'a str,
    /// The venue's time of the event, nanoseconds; the time of receipt where there is none.
    pub ts_ns: i64,
    /// The frame that brought it.
    pub frame: &'a Frame,
}

impl<'a> At<'a> {
    fn head(&self) -> Head<'a> {
        Head { ts_ns: self.ts_ns, symbol: self.symbol, received_ns: self.frame.received_ns }
    }
}

/// The books of a feed, and their rows.
pub struct Books<R> {
    venue: String,
    make: OfSymbol<R>,
    resync: Resync,
    index: BTreeMap<String, usize>,
    slots: Vec<Slot<R>>,
    rows: Rows,
    reconnecting: BTreeSet<u32>,
}

struct Slot<R> {
    symbol: String,
    rule: R,
    told: Told,
    /// Open connections that brought something of it.
    carriers: Vec<u32>,
    /// The latest event time of it.
    last_ns: i64,
    /// Updates to wait before the book is asked for again.
    wait: u64,
    tries: u32,
    /// Updates applied since it was last made whole.
    applied: u64,
    /// What it was fetched by.
    url: Option<String>,
    /// The best levels as they were last told.
    top: [Vec<Level>; 2],
}

/// What downstream knows of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Valid,
    Invalid,
}

/// Which kind of message led to an outcome.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Snapshot,
    Update,
}

impl<R: Rule> Books<R> {
    /// No books yet; `make` gives the rule of a symbol when it is first heard of.
    pub fn new(
        venue: &str,
        params: &BookParams,
        resync: Resync,
        make: impl Fn(&str) -> R + Send + 'static,
    ) -> Self {
        Self {
            venue: venue.to_owned(),
            make: Box::new(make),
            resync,
            index: BTreeMap::new(),
            slots: Vec::new(),
            rows: Rows::new(venue, params),
            reconnecting: BTreeSet::new(),
        }
    }

    /// The columns of its rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// Rows kept.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Takes the rows.
    pub fn finish(&mut self) -> RecordBatch {
        self.rows.finish()
    }

    /// A change from the venue. What came of it is told by rows, actions and counts; the outcome is also handed back.
    pub fn update(
        &mut self,
        at: At<'_>,
        levels: Levels<'_>,
        mark: R::UpdateMark,
        out: &mut Output,
    ) -> Outcome {
        let i = self.slot(at);
        let outcome = self.slots[i].rule.update(levels, mark);
        self.settle(i, at, Input::Update, &outcome, out);
        outcome
    }

    /// A whole book from the venue.
    pub fn snapshot(
        &mut self,
        at: At<'_>,
        levels: Levels<'_>,
        mark: R::SnapshotMark,
        out: &mut Output,
    ) -> Outcome {
        let i = self.slot(at);
        let outcome = self.slots[i].rule.snapshot(levels, mark);
        self.settle(i, at, Input::Snapshot, &outcome, out);
        outcome
    }

    /// The fetch of a symbol's book ended without one: an error status, or no answer. It is asked for again after a wait.
    pub fn fetch_failed(&mut self, symbol: &str) {
        if let Some(i) = self.index.get(symbol) {
            self.slots[*i].useless();
        }
    }

    /// The symbol whose book was asked for by this URL.
    pub fn symbol_of_url(&self, url: &str) -> Option<&str> {
        let slot = self.slots.iter().find(|slot| slot.url.as_deref() == Some(url))?;
        Some(&slot.symbol)
    }

    /// Something outside one book's rule shows that it can't be believed (a message of it could not be read, say).
    pub fn invalidate(&mut self, at: At<'_>, fault: &Fault, out: &mut Output) {
        let i = self.slot(at);
        self.slots[i].rule.reset();
        self.faulty(i, at.head(), fault, out);
        self.begin_anew(i, at.frame.connection, out);
    }

    /// No book of a connection can be believed: its sequence has a hole. Counted once, and asked for anew symbol by symbol.
    pub fn invalidate_connection(&mut self, frame: &Frame, ts_ns: i64, fault: &Fault, out: &mut Output) {
        out.count(count_of(fault.kind));
        out.notices.push(format!("{}: connection {}: {fault}", self.venue, frame.connection));
        for i in 0..self.slots.len() {
            if !self.slots[i].carriers.contains(&frame.connection) {
                continue;
            }
            self.slots[i].rule.reset();
            self.tell_invalid(i, ts_ns, frame.received_ns, fault.kind);
            self.begin_anew(i, frame.connection, out);
        }
    }

    /// A frame of no symbol came (a heartbeat): it counts as an update of every book of its connection that is waited for, so that
    /// one whose symbol is quiet, or whose subscription was refused, is asked for again too.
    pub fn heartbeat(&mut self, frame: &Frame, out: &mut Output) {
        for i in 0..self.slots.len() {
            let slot = &mut self.slots[i];
            // What nothing came of yet is fetched with its first update, not before.
            let waits = !slot.rule.valid() && (slot.wait > 0 || slot.tries > 0);
            if !waits || !slot.carriers.contains(&frame.connection) {
                continue;
            }
            if slot.wait == 0 {
                self.ask(i, frame.connection, out);
            } else {
                slot.wait -= 1;
            }
        }
    }

    /// A connection was lost: books that no other connection carries are invalid, and begin anew when one carries them again.
    /// Told at the event time of a symbol's last message: nothing is known after it, and this machine's clock has no say.
    pub fn closed(&mut self, frame: &Frame, out: &mut Output) {
        for i in 0..self.slots.len() {
            let slot = &mut self.slots[i];
            let before = slot.carriers.len();
            slot.carriers.retain(|c| *c != frame.connection);
            if slot.carriers.len() == before || !slot.carriers.is_empty() {
                continue;
            }
            slot.rule.reset();
            slot.begin(&self.resync);
            if slot.told == Told::Valid {
                out.count(count_of(FaultKind::Disconnected));
            }
            let last_ns = slot.last_ns;
            self.tell_invalid(i, last_ns, frame.received_ns, FaultKind::Disconnected);
        }
    }

    /// A connection was made.
    pub fn opened(&mut self, frame: &Frame) {
        self.reconnecting.remove(&frame.connection);
    }

    /// A symbol's book, where it is valid.
    pub fn book(&self, symbol: &str) -> Option<&Book> {
        let rule = self.rule(symbol)?;
        rule.valid().then(|| rule.book())
    }

    /// A symbol's rule.
    pub fn rule(&self, symbol: &str) -> Option<&R> {
        self.index.get(symbol).map(|i| &self.slots[*i].rule)
    }

    /// A symbol's rule, to set what the venue says of the symbol (digits); made if it wasn't there.
    pub fn rule_mut(&mut self, symbol: &str) -> &mut R {
        let i = self.make_slot(symbol);
        &mut self.slots[i].rule
    }

    fn make_slot(&mut self, symbol: &str) -> usize {
        if let Some(i) = self.index.get(symbol) {
            return *i;
        }
        let mut slot = Slot {
            symbol: symbol.to_owned(),
            rule: (self.make)(symbol),
            told: Told::Nothing,
            carriers: Vec::new(),
            last_ns: i64::MIN,
            wait: 0,
            tries: 0,
            applied: 0,
            url: None,
            top: [Vec::new(), Vec::new()],
        };
        slot.begin(&self.resync);
        self.slots.push(slot);
        self.index.insert(symbol.to_owned(), self.slots.len() - 1);
        self.slots.len() - 1
    }

    fn slot(&mut self, at: At<'_>) -> usize {
        let i = self.make_slot(at.symbol);
        let slot = &mut self.slots[i];
        slot.last_ns = slot.last_ns.max(at.ts_ns);
        if !slot.carriers.contains(&at.frame.connection) {
            slot.carriers.push(at.frame.connection);
        }
        i
    }

    fn settle(&mut self, i: usize, at: At<'_>, input: Input, outcome: &Outcome, out: &mut Output) {
        match outcome {
            Outcome::Applied => return self.applied(i, at, input, out),
            Outcome::Buffered => {}
            Outcome::Ignored(why) => out.count(match (why, input) {
                (_, Input::Snapshot) => "unneeded_snapshots",
                (Ignored::Duplicate, _) => "duplicates",
                (Ignored::Stale, _) => "stale_diffs",
                (Ignored::NoSnapshot, _) => "diffs_before_snapshot",
            }),
            Outcome::Fault(fault) => {
                self.faulty(i, at.head(), fault, out);
                if fault.kind == FaultKind::BadLevel {
                    out.reject(at.frame, self.rows(), format!("{}: {}", at.symbol, fault.detail));
                }
                let slot = &mut self.slots[i];
                if input == Input::Snapshot {
                    return slot.useless();
                }
                // A broken chain of diffs that wait for a snapshot on its way: it may still fit.
                let on_its_way = slot.url.is_some() && slot.told != Told::Valid && slot.wait > 0;
                if !on_its_way || fault.kind == FaultKind::OldSnapshot {
                    return self.begin_anew(i, at.frame.connection, out);
                }
            }
        }
        let slot = &mut self.slots[i];
        if slot.rule.valid() || input == Input::Snapshot {
            return;
        }
        if slot.wait == 0 {
            return self.ask(i, at.frame.connection, out);
        }
        slot.wait -= 1;
    }

    fn applied(&mut self, i: usize, at: At<'_>, input: Input, out: &mut Output) {
        let slot = &mut self.slots[i];
        let healed = slot.told != Told::Valid;
        if healed {
            match slot.told {
                Told::Invalid => out.count("resyncs"),
                _ => slot.tries = 0,
            }
            slot.told = Told::Valid;
            slot.applied = 0;
            slot.url = None;
            slot.top = [Vec::new(), Vec::new()];
        }
        slot.applied += 1;
        if slot.applied == SETTLED {
            slot.tries = 0;
        }
        let news = News {
            book: slot.rule.book(),
            update_id: slot.rule.update_id(),
            deltas: slot.rule.deltas(),
            whole: healed || input == Input::Snapshot,
            fresh: healed,
        };
        self.rows.tell(at.head(), &news, &mut slot.top);
    }

    /// Counts a fault and tells of it once.
    fn faulty(&mut self, i: usize, head: Head<'_>, fault: &Fault, out: &mut Output) {
        out.count(count_of(fault.kind));
        out.notices.push(format!("{}: {}: {fault}", self.venue, head.symbol));
        if !self.slots[i].rule.valid() {
            self.tell_invalid(i, head.ts_ns, head.received_ns, fault.kind);
        }
    }

    fn tell_invalid(&mut self, i: usize, ts_ns: i64, received_ns: i64, kind: FaultKind) {
        let slot = &mut self.slots[i];
        if slot.told != Told::Valid {
            return;
        }
        slot.told = Told::Invalid;
        let head = Head { ts_ns, symbol: &slot.symbol, received_ns };
        self.rows.push_invalid(head, kind.name());
    }

    /// A book was found wrong: asks at once, or after a wait where that happens again and again.
    fn begin_anew(&mut self, i: usize, connection: u32, out: &mut Output) {
        if self.slots[i].tries == 0 {
            return self.ask(i, connection, out);
        }
        self.slots[i].useless();
    }

    /// Asks the venue for a whole book.
    fn ask(&mut self, i: usize, connection: u32, out: &mut Output) {
        let slot = &mut self.slots[i];
        slot.wait = (PATIENCE << slot.tries.min(8)).min(PATIENCE_MAX);
        slot.tries += 1;
        match &self.resync {
            Resync::Fetch(url) => {
                let (url, weight) = url(&slot.symbol);
                slot.url = Some(url.clone());
                out.actions.push(Action::Fetch { connection, url, weight });
            }
            Resync::Resubscribe(messages) => {
                let send = |message| Action::Send { connection, message };
                out.actions.extend(messages(&slot.symbol).into_iter().map(send));
            }
            Resync::Reconnect => {
                if !self.reconnecting.insert(connection) {
                    return;
                }
                let reason = format!("the book of {} is to begin anew", slot.symbol);
                out.actions.push(Action::Reconnect { connection, reason });
            }
        }
        out.count("book_requests");
    }
}

impl<R> Slot<R> {
    /// Waits as at the beginning: a snapshot that is to be fetched is asked for with the first update, one that comes by
    /// itself is awaited.
    fn begin(&mut self, resync: &Resync) {
        self.wait = if matches!(resync, Resync::Fetch(_)) { 0 } else { PATIENCE };
        self.url = None;
    }

    /// An answer that was of no use: the next question comes after a wait.
    fn useless(&mut self) {
        self.wait = (1 << self.tries.min(20)).min(WAIT_MAX);
        self.url = None;
    }
}

fn count_of(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Gap => "gaps",
        FaultKind::Checksum => "checksum_errors",
        FaultKind::Crossed => "crossed_books",
        FaultKind::BadLevel => "bad_levels",
        FaultKind::OldSnapshot => "old_snapshots",
        FaultKind::Overflow => "buffer_overflows",
        FaultKind::TimeBackwards => "time_backwards",
        FaultKind::Disconnected => "disconnected_books",
    }
}
