//! A book kept from rows of a `deltas` table.
//!
//! Prices are `f64` here; equal decimals are equal floats, since venues' prices are rounded correctly. State: every level, and the
//! best ones of the book before.

use serde::{Deserialize, Serialize};

use super::metric::{Flow, Levels};

/// What a row of `deltas` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A level of a whole book.
    Snapshot,
    /// A level that changed.
    Delta,
    /// The book is not to be believed.
    Invalid,
}

/// A level of a row: whether it is a bid, its price and size.
pub type Placed = (bool, f64, f64);

/// How far a book is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Not at all.
    #[default]
    Unknown,
    /// Some rows of a whole book have come.
    Loading,
    /// It is whole.
    Valid,
}

/// One key's book. For tables that hold whole books, only the flow is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    phase: Phase,
    bids: Side,
    asks: Side,
    /// For order-flow imbalance.
    pub flow: Flow,
}

/// One side's levels by price, the best at the end: asks have their sign changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    levels: Vec<(f64, f64)>,
    ask: bool,
}

impl Side {
    fn set(&mut self, price: f64, size: f64) {
        let key = if self.ask { -price } else { price };
        let at = self.levels.partition_point(|(k, _)| *k < key);
        let there = self.levels.get(at).is_some_and(|(k, _)| *k == key);
        match (there, size > 0.0) {
            (true, true) => self.levels[at].1 = size,
            (true, false) => drop(self.levels.remove(at)),
            (false, true) => self.levels.insert(at, (key, size)),
            (false, false) => {}
        }
    }
}

impl Levels for Side {
    fn best_first(&self) -> impl Iterator<Item = (f64, f64)> + Clone {
        let sign = if self.ask { -1.0 } else { 1.0 };
        self.levels.iter().rev().map(move |(key, size)| (sign * key, *size))
    }

    fn whole(&self) -> bool {
        true
    }
}

impl Kept {
    /// Takes a row; `last` where it ends its message.
    pub fn take(&mut self, event: Event, level: Option<Placed>, last: bool) {
        match event {
            Event::Invalid => return self.forget(),
            Event::Snapshot if self.phase != Phase::Loading => {
                self.clear();
                self.phase = Phase::Loading;
            }
            // A whole book that breaks off is none.
            Event::Delta if self.phase != Phase::Valid => return self.forget(),
            _ => {}
        }
        if let Some((bid, price, size)) = level.filter(|(_, price, size)| !price.is_nan() && !size.is_nan()) {
            let side = if bid { &mut self.bids } else { &mut self.asks };
            side.set(price, size);
        }
        if last && self.phase == Phase::Loading {
            self.phase = Phase::Valid;
        }
    }

    /// Both sides, where the book is whole.
    pub fn sides(&self) -> Option<(&Side, &Side)> {
        (self.phase == Phase::Valid).then_some((&self.bids, &self.asks))
    }

    fn forget(&mut self) {
        self.clear();
        self.phase = Phase::Unknown;
        self.flow.reset();
    }

    fn clear(&mut self) {
        self.bids.levels.clear();
        self.asks.levels.clear();
        self.asks.ask = true;
    }
}
