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

use super::binance::{Binance, Ids};
use super::outcome::{Fault, FaultKind};

/// The ids of a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpotIds {
    /// `U`: the first update in it.
    pub first: u64,
    /// `u`: the last update in it.
    pub last: u64,
}

/// The rule for one symbol.
pub type BinanceSpot = Binance<SpotIds>;

impl Ids for SpotIds {
    fn first(self) -> u64 {
        self.first
    }

    fn last(self) -> u64 {
        self.last
    }

    fn known_to(self, id: u64) -> bool {
        self.last <= id
    }

    fn follows(self, id: u64, _joined: bool) -> bool {
        self.first <= id.saturating_add(1)
    }

    fn backwards(self) -> bool {
        self.first > self.last
    }

    fn gap(self, before: u64) -> Fault {
        let detail =
            format!("update {} was to come, {} to {} came", before.saturating_add(1), self.first, self.last);
        Fault::new(FaultKind::Gap, detail)
    }
}
