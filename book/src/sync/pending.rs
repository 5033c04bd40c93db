//! Updates that wait for a snapshot.

use std::collections::VecDeque;

use crate::book::Levels;
use crate::ladder::Level;

/// Updates of one symbol that may wait for a snapshot; at Binance's ten a second that is 17 minutes.
pub const PENDING_MAX: usize = 10_000;

/// An update that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting<M> {
    pub(super) mark: M,
    bids: Vec<Level>,
    asks: Vec<Level>,
}

impl<M> Waiting<M> {
    pub(super) fn new(levels: Levels<'_>, mark: M) -> Self {
        Self { mark, bids: levels.bids.to_vec(), asks: levels.asks.to_vec() }
    }

    pub(super) fn levels(&self) -> Levels<'_> {
        Levels { bids: &self.bids, asks: &self.asks }
    }
}

/// Updates that wait, an unbroken chain.
#[derive(Clone, Debug)]
pub(super) struct Pending<M> {
    waiting: VecDeque<Waiting<M>>,
}

impl<M> Default for Pending<M> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<M> Pending<M> {
    /// Keeps one more; `false` where there are too many, and only this one was kept.
    pub(super) fn push(&mut self, levels: Levels<'_>, mark: M) -> bool {
        let fits = self.waiting.len() < PENDING_MAX;
        if !fits {
            self.waiting.clear();
        }
        self.waiting.push_back(Waiting::new(levels, mark));
        fits
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting<M>> {
        self.waiting.iter()
    }
}
