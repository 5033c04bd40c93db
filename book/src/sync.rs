//! Venues' rules by which a local book is kept right, one file each.
//!
//! A rule is a state machine that owns its book. It takes the venue's snapshots and updates in the order in which
//! they came, says after each what came of it, and whether the book may be believed. The inputs' *marks* are
//! what the venue sends to prove the order: update ids, a checksum, a time.

pub mod binance;
pub mod binance_futures;
pub mod binance_spot;
pub mod coinbase;
pub mod coinbase_exchange;
#[cfg(test)]
mod faults;
pub mod kraken;
mod local;
pub mod outcome;
mod pending;
#[cfg(test)]
mod recorded;
pub mod sequence;

pub use binance_futures::{BinanceFutures, FuturesIds};
pub use binance_spot::{BinanceSpot, SpotIds};
pub use coinbase::Coinbase;
pub use coinbase_exchange::CoinbaseExchange;
pub use kraken::Kraken;
pub use outcome::{Delta, Fault, FaultKind, Ignored, Outcome};
pub use sequence::{Sequence, Step};

use crate::book::{Book, Levels};

/// A venue's rule for one book.
///
/// After a [`Fault`] the book is invalid and stays so until a snapshot heals it. [`OldSnapshot`](FaultKind::OldSnapshot)
/// is the one fault that leaves things as they are: another snapshot must be fetched.
pub trait Rule {
    /// What comes with a snapshot.
    type SnapshotMark: Copy;
    /// What comes with an update.
    type UpdateMark: Copy;

    /// A whole book from the venue.
    fn snapshot(&mut self, levels: Levels<'_>, mark: Self::SnapshotMark) -> Outcome;
    /// A change from the venue.
    fn update(&mut self, levels: Levels<'_>, mark: Self::UpdateMark) -> Outcome;
    /// The stream was cut, or something outside the rule (a connection's sequence) says that the book can't be
    /// believed: the book is emptied, and whatever was buffered is forgotten.
    fn reset(&mut self);
    /// The book as far as it is known; only to be believed where [`valid`](Self::valid).
    fn book(&self) -> &Book;
    /// Whether the book is right as far as the venue lets one see.
    fn valid(&self) -> bool;
    /// The venue's number of the last update in the book, where it has one.
    fn update_id(&self) -> Option<i64>;
    /// What the last input changed, in order, levels that fell off a book of limited depth among them (with size 0). Of use after
    /// [`Outcome::Applied`] by an update of a book that was valid before; else the whole book is news.
    fn deltas(&self) -> &[Delta];
}

/// Whether a book may be crossed after an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crossing {
    /// Best bid at or above best ask is a fault.
    #[default]
    Fault,
    /// It can happen on this venue (auctions, halted markets).
    Allow,
}
