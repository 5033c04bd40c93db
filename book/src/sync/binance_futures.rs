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

use super::binance::{Binance, Ids};
use super::outcome::{Fault, FaultKind};

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
pub type BinanceFutures = Binance<FuturesIds>;

impl Ids for FuturesIds {
    fn first(self) -> u64 {
        self.first
    }

    fn last(self) -> u64 {
        self.last
    }

    fn known_to(self, id: u64) -> bool {
        self.last < id
    }

    fn follows(self, id: u64, joined: bool) -> bool {
        if joined { self.previous == id } else { self.previous <= id }
    }

    fn gap(self, before: u64) -> Fault {
        let FuturesIds { first, last, previous } = self;
        let detail = format!("update {before} was the last, {first} to {last} follows {previous}");
        Fault::new(FaultKind::Gap, detail)
    }
}
