//! Kraken, v1 and v2: a snapshot, then updates with a CRC32 over the digits of the ten best levels of both sides.
//!
//! After <https://docs.kraken.com/api/docs/guides/spot-ws-book-v2> and <https://docs.kraken.com/api/docs/guides/spot-ws-book-v1>: an
//! update's levels are set in the order sent, both sides are cut to the subscribed depth (no removal is sent for what
//! falls off), then the checksum is taken: asks from low to high, bids from high to low, each level's price and size without
//! the point and leading zeros, **trailing zeros as sent**. That is the decimal's mantissa.
//!
//! Seen: any changed digit of the top ten, and every lost or repeated update that leaves the top ten different, at the next
//! checksum. Not seen: what is wrong below the tenth level, until it comes up.

use super::local::Local;
use super::outcome::{Delta, Fault, FaultKind, Ignored, Outcome};
use super::{Crossing, Rule};
use crate::book::{Book, Levels};
use crate::ladder::Ladder;

/// Levels a side that the checksum covers.
pub const CHECKSUM_LEVELS: usize = 10;

/// The rule for one symbol; marks are the message's checksum, where it has one (v1 snapshots have none).
#[derive(Clone, Debug)]
pub struct Kraken {
    local: Local,
    digits: Option<Digits>,
}

/// Digits after the point of a symbol's prices and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits {
    /// `price_precision` of the `instrument` channel.
    pub price: u8,
    /// `qty_precision` of the `instrument` channel.
    pub size: u8,
}

impl Kraken {
    /// Without a book yet; `depth` is the subscribed one (10, 25, 100, 500 or 1000).
    pub fn new(depth: usize) -> Self {
        Self { local: Local::new(Some(depth), Crossing::Fault), digits: None }
    }

    /// With the given rule for crossed books.
    pub fn crossing(mut self, crossing: Crossing) -> Self {
        self.local = Local::new(self.local.book.depth_max(), crossing);
        self
    }

    /// Takes the checksum at these precisions, in place of the digits as sent: for messages whose trailing zeros were lost on the way.
    pub fn set_digits(&mut self, digits: Digits) {
        self.digits = Some(digits);
    }

    fn verify(&self, checksum: Option<u32>) -> Result<(), Fault> {
        let Some(theirs) = checksum else { return Ok(()) };
        let ours = checksum_of(&self.local.book, self.digits);
        if ours == theirs {
            return Ok(());
        }
        let detail = format!("the venue's is {theirs}, the book's {ours}");
        Err(Fault::new(FaultKind::Checksum, detail))
    }

    fn prove(&mut self, result: Result<(), Fault>, checksum: Option<u32>) -> Outcome {
        let result = result.and_then(|()| self.verify(checksum));
        let result = result.and_then(|()| self.local.uncrossed());
        self.local.settle(result)
    }
}

/// The CRC32 over the ten best levels of both sides; `digits` in place of the precision as sent.
pub fn checksum_of(book: &Book, digits: Option<Digits>) -> u32 {
    let mut text = Text { bytes: [0; TEXT_MAX], len: 0 };
    text.side(book.asks(), digits);
    text.side(book.bids(), digits);
    crc32fast::hash(&text.bytes[..text.len])
}

/// Two sides, ten levels, two numbers of at most 39 digits.
const TEXT_MAX: usize = 2 * CHECKSUM_LEVELS * 2 * 39;

struct Text {
    bytes: [u8; TEXT_MAX],
    len: usize,
}

impl Text {
    fn side(&mut self, side: &Ladder, digits: Option<Digits>) {
        for level in side.iter().take(CHECKSUM_LEVELS) {
            let (price, size) = (level.price, level.size);
            // A precision that doesn't hold the digits can't be right: the digits as sent are the better guess.
            let at = |n: crate::Decimal, scale: Option<u8>| {
                scale.and_then(|scale| n.mantissa_at(scale)).unwrap_or(n.mantissa())
            };
            self.number(at(price, digits.map(|d| d.price)));
            self.number(at(size, digits.map(|d| d.size)));
        }
    }

    /// Digits of a number above zero.
    fn number(&mut self, number: i128) {
        let mut digits = [0; 39];
        let mut at = digits.len();
        let mut rest = number.unsigned_abs();
        // Wide divisions are slow; nearly every number fits 64 bits.
        while rest > u128::from(u64::MAX) {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let mut rest = rest as u64;
        while rest > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let digits = &digits[at..];
        self.bytes[self.len..self.len + digits.len()].copy_from_slice(digits);
        self.len += digits.len();
    }
}

impl Rule for Kraken {
    type SnapshotMark = Option<u32>;
    type UpdateMark = Option<u32>;

    fn snapshot(&mut self, levels: Levels<'_>, checksum: Option<u32>) -> Outcome {
        let result = self.local.load(levels);
        self.prove(result, checksum)
    }

    #[inline]
    fn update(&mut self, levels: Levels<'_>, checksum: Option<u32>) -> Outcome {
        self.local.deltas.clear();
        if !self.local.valid {
            return Outcome::Ignored(Ignored::NoSnapshot);
        }
        let result = self.local.apply(levels);
        self.prove(result, checksum)
    }

    fn reset(&mut self) {
        self.local.reset();
    }

    fn book(&self) -> &Book {
        &self.local.book
    }

    fn valid(&self) -> bool {
        self.local.valid
    }

    fn update_id(&self) -> Option<i64> {
        None
    }

    fn deltas(&self) -> &[Delta] {
        &self.local.deltas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    fn levels(pairs: &[(&str, &str)]) -> Vec<Level> {
        pairs.iter().map(|(p, q)| Level::parse(p.as_bytes(), q.as_bytes()).unwrap()).collect()
    }

    /// The example of <https://docs.kraken.com/api/docs/guides/spot-ws-book-v1>.
    const V1_ASKS: [&str; 10] = [
        "0.05005", "0.05010", "0.05015", "0.05020", "0.05025", "0.05030", "0.05035", "0.05040", "0.05045",
        "0.05050",
    ];
    const V1_BIDS: [&str; 10] = [
        "0.05000", "0.04995", "0.04990", "0.04980", "0.04975", "0.04970", "0.04965", "0.04960", "0.04955",
        "0.04950",
    ];

    #[test]
    fn the_documented_v1_example_has_its_documented_checksum() {
        let (asks, bids) = (V1_ASKS.map(|p| (p, "0.00000500")), V1_BIDS.map(|p| (p, "0.00000500")));
        let (asks, bids) = (levels(&asks), levels(&bids));
        let mut rule = Kraken::new(1000);
        let all = Levels { bids: &bids, asks: &asks };
        assert_eq!(rule.snapshot(all, None), Outcome::Applied);
        assert_eq!(checksum_of(rule.book(), None), 974_947_235);
        assert_eq!(rule.update(Levels::default(), Some(974_947_235)), Outcome::Applied);
        let one_off = levels(&[("0.05000", "0.00000501")]);
        let changed = rule.update(Levels { bids: &one_off, asks: &[] }, Some(974_947_235));
        assert!(matches!(changed, Outcome::Fault(Fault { kind: FaultKind::Checksum, .. })));
        assert!(!rule.valid() && rule.book().is_empty());
        assert_eq!(rule.update(Levels::default(), None), Outcome::Ignored(Ignored::NoSnapshot));
        assert_eq!(rule.snapshot(all, Some(974_947_235)), Outcome::Applied);
    }

    /// The example of <https://docs.kraken.com/api/docs/guides/spot-ws-book-v2>.
    #[test]
    fn the_documented_v2_example_has_its_documented_checksum() {
        let asks = levels(&[
            ("45285.2", "0.00100000"),
            ("45286.4", "1.54571953"),
            ("45286.6", "1.54571109"),
            ("45289.6", "1.54560911"),
            ("45290.2", "0.15890660"),
            ("45291.8", "1.54553491"),
            ("45294.7", "0.04454749"),
            ("45296.1", "0.35380000"),
            ("45297.5", "0.09945542"),
            ("45299.5", "0.18772827"),
        ]);
        let bids = levels(&[
            ("45283.5", "0.10000000"),
            ("45283.4", "1.54582015"),
            ("45282.1", "0.10000000"),
            ("45281.0", "0.10000000"),
            ("45280.3", "1.54592586"),
            ("45279.0", "0.07990000"),
            ("45277.6", "0.03310103"),
            ("45277.5", "0.30000000"),
            ("45277.3", "1.54602737"),
            ("45276.6", "0.15445238"),
        ]);
        let mut rule = Kraken::new(10);
        let all = Levels { bids: &bids, asks: &asks };
        assert_eq!(rule.snapshot(all, Some(3_310_070_434)), Outcome::Applied);
        let unlike = rule.snapshot(all, Some(3_310_070_435));
        assert!(matches!(unlike, Outcome::Fault(Fault { kind: FaultKind::Checksum, .. })));
        // The same levels after a JSON reader that drops trailing zeros, put right by the instrument's digits.
        let short = |levels: &[Level]| -> Vec<Level> {
            let trim = |n: crate::Decimal| (0..8).find_map(|scale| n.rescale(scale)).unwrap_or(n);
            levels.iter().map(|l| Level { price: trim(l.price), size: trim(l.size) }).collect()
        };
        let (bids, asks) = (short(&bids), short(&asks));
        let all = Levels { bids: &bids, asks: &asks };
        assert!(matches!(rule.snapshot(all, Some(3_310_070_434)), Outcome::Fault(_)));
        rule.set_digits(Digits { price: 1, size: 8 });
        assert_eq!(rule.snapshot(all, Some(3_310_070_434)), Outcome::Applied);
    }

    #[test]
    fn what_falls_off_the_subscribed_depth_is_told() {
        let mut rule = Kraken::new(2);
        let bids = levels(&[("100.0", "1.0"), ("99.0", "2.0"), ("98.0", "3.0")]);
        rule.snapshot(Levels { bids: &bids, asks: &[] }, None);
        assert_eq!(rule.book().bids().len(), 2);
        let better = levels(&[("99.5", "5.0")]);
        assert_eq!(rule.update(Levels { bids: &better, asks: &[] }, None), Outcome::Applied);
        let told: Vec<_> =
            rule.deltas().iter().map(|d| (d.level.price.to_string(), d.level.size.to_string())).collect();
        assert_eq!(told, [("99.5".into(), "5.0".into()), ("99.0".into(), "0".into())]);
    }

    #[test]
    fn wide_numbers_are_written_in_full() {
        let bids = levels(&[("1.00000001", "123456789012345678901234567890.12345678")]);
        let mut rule = Kraken::new(10);
        rule.snapshot(Levels { bids: &bids, asks: &[] }, None);
        let digits = b"10000000112345678901234567890123456789012345678";
        assert_eq!(checksum_of(rule.book(), None), crc32fast::hash(digits));
    }
}
