//! A local L2 book: what rests at each price, on both sides.

use crate::decimal::Decimal;
use crate::ladder::{BadLevel, Change, Ladder, Level};

/// A side of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Who wants to buy.
    Bid,
    /// Who wants to sell.
    Ask,
}

impl Side {
    /// `bid` or `ask`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bid => "bid",
            Self::Ask => "ask",
        }
    }
}

/// The levels of one message, in the order in which they were sent. Of two levels at one price the later counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels<'a> {
    /// Bids.
    pub bids: &'a [Level],
    /// Asks.
    pub asks: &'a [Level],
}

impl<'a> Levels<'a> {
    /// Bids, then asks.
    pub fn iter(self) -> impl Iterator<Item = (Side, Level)> + 'a {
        let bids = self.bids.iter().map(|level| (Side::Bid, *level));
        bids.chain(self.asks.iter().map(|level| (Side::Ask, *level)))
    }

    /// How many levels there are on both sides.
    pub fn len(self) -> usize {
        self.bids.len() + self.asks.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A local L2 book.
#[derive(Clone, Debug)]
pub struct Book {
    bids: Ladder,
    asks: Ladder,
    depth_max: Option<usize>,
}

impl Default for Book {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Book {
    /// An empty book; [`truncate`](Self::truncate) keeps at most `depth_max` levels a side.
    pub fn new(depth_max: Option<usize>) -> Self {
        Self { bids: Ladder::new(Side::Bid), asks: Ladder::new(Side::Ask), depth_max }
    }

    /// One side.
    #[inline]
    pub fn side(&self, side: Side) -> &Ladder {
        match side {
            Side::Bid => &self.bids,
            Side::Ask => &self.asks,
        }
    }

    /// The bids, highest first.
    #[inline]
    pub fn bids(&self) -> &Ladder {
        &self.bids
    }

    /// The asks, lowest first.
    #[inline]
    pub fn asks(&self) -> &Ladder {
        &self.asks
    }

    /// Sets what rests at a price; a size of zero removes the level.
    ///
    /// # Errors
    /// [`BadLevel`] for a level that no book can have; nothing changes then.
    #[inline]
    pub fn set(&mut self, side: Side, level: Level) -> Result<Change, BadLevel> {
        match side {
            Side::Bid => self.bids.set(level),
            Side::Ask => self.asks.set(level),
        }
    }

    /// Puts a whole book in place of what there was.
    ///
    /// # Errors
    /// [`BadLevel`]; the book is empty then.
    pub fn load(&mut self, levels: Levels<'_>) -> Result<(), BadLevel> {
        let loaded = self.bids.load(levels.bids).and_then(|()| self.asks.load(levels.asks));
        if loaded.is_err() {
            self.clear();
        }
        loaded
    }

    /// How many levels a side may have.
    pub fn depth_max(&self) -> Option<usize> {
        self.depth_max
    }

    /// The best bid or ask.
    #[inline]
    pub fn best(&self, side: Side) -> Option<&Level> {
        self.side(side).best()
    }

    /// Whether no level is left on either side.
    pub fn is_empty(&self) -> bool {
        self.bids.is_empty() && self.asks.is_empty()
    }

    /// Takes every level out.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    /// Cuts both sides to the most levels it may have, and hands what falls off to `cut`.
    #[inline]
    pub fn truncate(&mut self, mut cut: impl FnMut(Side, Level)) {
        if let Some(depth) = self.depth_max {
            self.bids.truncate(depth, |level| cut(Side::Bid, level));
            self.asks.truncate(depth, |level| cut(Side::Ask, level));
        }
    }

    /// Whether the best bid is at or above the best ask, as in no market that is open.
    #[inline]
    pub fn crossed(&self) -> bool {
        self.touch().is_some_and(|(bid, ask)| bid >= ask)
    }

    /// Best bid and best ask prices, where both sides have one.
    #[inline]
    pub fn touch(&self) -> Option<(Decimal, Decimal)> {
        Some((self.bids.best()?.price, self.asks.best()?.price))
    }
}
