//! What every rule has: the book, whether it holds, and what the last input changed.

use super::Crossing;
use super::outcome::{Delta, Fault, FaultKind, Outcome};
use crate::book::{Book, Levels};
use crate::decimal::Decimal;
use crate::ladder::Level;

/// A book and its standing.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) book: Book,
    pub(super) valid: bool,
    pub(super) deltas: Vec<Delta>,
    crossing: Crossing,
}

impl Local {
    pub(super) fn new(depth_max: Option<usize>, crossing: Crossing) -> Self {
        Self { book: Book::new(depth_max), valid: false, deltas: Vec::new(), crossing }
    }

    /// Puts a snapshot in place of what there was. It is not valid by that alone.
    pub(super) fn load(&mut self, levels: Levels<'_>) -> Result<(), Fault> {
        self.deltas.clear();
        self.book.load(levels).map_err(|e| Fault::new(FaultKind::BadLevel, e.to_string()))?;
        self.book.truncate(|_, _| {});
        Ok(())
    }

    /// Sets the levels of an update and notes what changed.
    #[inline]
    pub(super) fn apply(&mut self, levels: Levels<'_>) -> Result<(), Fault> {
        self.deltas.clear();
        for (side, level) in levels.iter() {
            match self.book.set(side, level) {
                Ok(change) if change.is_change() => self.deltas.push(Delta { side, level }),
                Ok(_) => {}
                Err(e) => return Err(Fault::new(FaultKind::BadLevel, e.to_string())),
            }
        }
        let deltas = &mut self.deltas;
        self.book.truncate(|side, Level { price, .. }| {
            deltas.push(Delta { side, level: Level { price, size: Decimal::ZERO } });
        });
        Ok(())
    }

    /// Whether the book may be crossed, if it is.
    #[inline]
    pub(super) fn uncrossed(&self) -> Result<(), Fault> {
        match self.book.touch() {
            Some((bid, ask)) if bid >= ask && self.crossing == Crossing::Fault => {
                Err(Fault::new(FaultKind::Crossed, format!("best bid {bid}, best ask {ask}")))
            }
            _ => Ok(()),
        }
    }

    /// Ends an input: valid, or faulty and empty.
    #[inline]
    pub(super) fn settle(&mut self, result: Result<(), Fault>) -> Outcome {
        match result {
            Ok(()) => {
                self.valid = true;
                Outcome::Applied
            }
            Err(fault) => {
                self.reset();
                Outcome::Fault(fault)
            }
        }
    }

    pub(super) fn reset(&mut self) {
        self.book.clear();
        self.deltas.clear();
        self.valid = false;
    }
}
