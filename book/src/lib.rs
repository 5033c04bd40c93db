//! Order books and the rules by which venues let one prove them right: plain Rust, no engine types, no IO.
//!
//! [`Book`] is a local L2 book; [`sync`] has one file for each venue's rule: which diffs follow which
//! snapshot, what a gap is, what a checksum must be. A rule owns its book and never calls a
//! book valid that the venue's protocol lets one see to be wrong.

pub mod book;
pub mod decimal;
pub mod ladder;
pub mod sync;

pub use book::{Book, Levels, Side};
pub use decimal::{BadDecimal, Decimal};
pub use ladder::{BadLevel, Change, Ladder, Level};
