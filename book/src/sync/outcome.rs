//! What came of an input.

use std::fmt;

use crate::book::Side;
use crate::ladder::Level;

/// One changed level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Its side.
    pub side: Side,
    /// Its price and new size; zero where it is gone.
    pub level: Level,
}

/// What came of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the book, and the book is valid.
    Applied,
    /// Kept until a snapshot comes (an update), or until the first update comes (a snapshot).
    Buffered,
    /// Nothing was done, and nothing is wrong.
    Ignored(Ignored),
    /// Something is wrong.
    Fault(Fault),
}

/// Why an input was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The stream brought it already.
    Duplicate,
    /// It is older than the snapshot.
    Stale,
    /// There is no snapshot yet, and the venue sends one by itself.
    NoSnapshot,
}

/// Something is wrong, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of which kind.
    pub kind: FaultKind,
    /// With numbers: lowercase, no full stop.
    pub detail: String,
}

impl Fault {
    /// A fault.
    pub fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// Updates are missing.
    Gap,
    /// The venue's checksum is another than the book's.
    Checksum,
    /// The best bid is at or above the best ask.
    Crossed,
    /// A negative size, a price that isn't above zero.
    BadLevel,
    /// A snapshot older than the updates that are to follow it: fetch another. The book is as it was.
    OldSnapshot,
    /// More updates wait for a snapshot than are kept.
    Overflow,
    /// Time goes backwards on a stream that has no numbers.
    TimeBackwards,
    /// The connection was lost.
    Disconnected,
}

impl FaultKind {
    /// As it stands in the `reason` column: `gap`, `checksum`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Checksum => "checksum",
            Self::Crossed => "crossed",
            Self::BadLevel => "bad_level",
            Self::OldSnapshot => "old_snapshot",
            Self::Overflow => "overflow",
            Self::TimeBackwards => "time_backwards",
            Self::Disconnected => "disconnected",
        }
    }
}
