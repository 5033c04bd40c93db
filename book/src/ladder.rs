//! One side of a book: its levels by price, the best at the end.
//!
//! Sort keys (integers at one scale, negated for asks, so that the best is the largest), beside each the place of its
//! level, and the levels as they were sent, in no order. A search is a binary search over packed `i64`s; an insert or
//! a removal moves 12 bytes for each better level, and most are near the best. Memory: as many levels as there ever were at once.

use crate::book::Side;
use crate::decimal::Decimal;

/// A price level: how much rests at a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The price, above zero.
    pub price: Decimal,
    /// The whole amount that rests there; zero removes the level.
    pub size: Decimal,
}

impl Level {
    /// A level from the texts of price and size.
    ///
    /// # Errors
    /// Where one of them is no decimal. What a book refuses (a negative size) is judged by the book.
    pub fn parse(price: &[u8], size: &[u8]) -> Result<Self, crate::BadDecimal> {
        Ok(Self { price: Decimal::parse(price)?, size: Decimal::parse(size)? })
    }
}

/// What setting a level did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A price that wasn't there.
    Added,
    /// Another size.
    Changed,
    /// The same size as before.
    Unchanged,
    /// It is gone.
    Removed,
    /// It was to be removed but wasn't there, which venues call normal.
    Absent,
}

impl Change {
    /// Whether the book is another than before.
    pub fn is_change(self) -> bool {
        matches!(self, Self::Added | Self::Changed | Self::Removed)
    }
}

/// A level that can't be in any book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLevel {
    /// Zero or below.
    #[error("price {0} is not above zero")]
    Price(Decimal),
    /// Below zero.
    #[error("size {size} at price {price} is negative")]
    Size {
        /// Where.
        price: Decimal,
        /// What.
        size: Decimal,
    },
    /// Prices of one side must fit an `i64` at the finest scale among them.
    #[error("price {0} does not go with the others: more than 18 digits at their finest scale")]
    Range(Decimal),
}

/// One side of a book.
#[derive(Clone, Debug)]
pub struct Ladder {
    side: Side,
    scale: u8,
    keys: Vec<i64>,
    /// Where the level of each key stands.
    places: Vec<u32>,
    levels: Vec<Level>,
    /// Places that no key has.
    free: Vec<u32>,
}

impl Ladder {
    /// An empty side.
    pub fn new(side: Side) -> Self {
        let (keys, places, levels, free) = Default::default();
        Self { side, scale: 0, keys, places, levels, free }
    }

    /// Sets what rests at a price; a size of zero removes the level.
    ///
    /// # Errors
    /// [`BadLevel`], and nothing changes.
    #[inline]
    pub fn set(&mut self, level: Level) -> Result<Change, BadLevel> {
        Self::check(&level)?;
        let key = self.key(level.price)?;
        let at = self.keys.partition_point(|k| *k < key);
        let there = self.keys.get(at) == Some(&key);
        if level.size.is_zero() {
            if !there {
                return Ok(Change::Absent);
            }
            self.keys.remove(at);
            self.free.push(self.places.remove(at));
            return Ok(Change::Removed);
        }
        if there {
            let place = self.places[at] as usize;
            let old = std::mem::replace(&mut self.levels[place], level);
            let same = old.size == level.size;
            return Ok(if same { Change::Unchanged } else { Change::Changed });
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.levels[place as usize] = level;
                place
            }
            None => {
                self.levels.push(level);
                (self.levels.len() - 1) as u32
            }
        };
        self.keys.insert(at, key);
        self.places.insert(at, place);
        Ok(Change::Added)
    }

    /// Puts these levels in place of what there was, in O(n) where they come in price order either way. Of two at one price the
    /// later counts; sizes of zero are left out.
    ///
    /// # Errors
    /// [`BadLevel`]; the side is empty then.
    pub fn load(&mut self, levels: &[Level]) -> Result<(), BadLevel> {
        self.clear();
        self.scale = levels.iter().map(|level| level.price.scale()).max().unwrap_or(0);
        let mut sorted = Vec::with_capacity(levels.len());
        for level in levels {
            Self::check(level)?;
            sorted.push((self.key(level.price)?, *level));
        }
        // Stable, so that of two at one price the later stays behind.
        sorted.sort_by_key(|(key, _)| *key);
        // Of each price the last, and none that is empty.
        for pair in sorted.chunk_by(|a, b| a.0 == b.0).filter_map(<[_]>::last) {
            if !pair.1.size.is_zero() {
                self.keys.push(pair.0);
                self.places.push(self.levels.len() as u32);
                self.levels.push(pair.1);
            }
        }
        Ok(())
    }

    /// The size at a price; `None` where nothing rests there.
    pub fn size_at(&self, price: Decimal) -> Option<Decimal> {
        let mantissa = i64::try_from(price.mantissa_at(self.scale)?).ok()?;
        let at = self.keys.binary_search(&self.sign(mantissa)).ok()?;
        Some(self.levels[self.places[at] as usize].size)
    }

    /// The best level: the highest bid, the lowest ask.
    #[inline]
    pub fn best(&self) -> Option<&Level> {
        self.places.last().map(|place| &self.levels[*place as usize])
    }

    /// Levels, best first.
    #[inline]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Level> + ExactSizeIterator + Clone {
        self.places.iter().rev().map(|place| &self.levels[*place as usize])
    }

    /// How many levels there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes every level out.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.places.clear();
        self.levels.clear();
        self.free.clear();
        self.scale = 0;
    }

    /// Keeps the best `depth` levels and hands the others to `cut`, worst first.
    #[inline]
    pub fn truncate(&mut self, depth: usize, mut cut: impl FnMut(Level)) {
        let Some(extra) = self.len().checked_sub(depth).filter(|n| *n > 0) else { return };
        self.keys.drain(..extra);
        for place in self.places.drain(..extra) {
            cut(self.levels[place as usize]);
            self.free.push(place);
        }
    }

    #[inline]
    fn check(level: &Level) -> Result<(), BadLevel> {
        if level.price.mantissa() <= 0 {
            return Err(BadLevel::Price(level.price));
        }
        if level.size.is_negative() {
            return Err(BadLevel::Size { price: level.price, size: level.size });
        }
        Ok(())
    }

    #[inline]
    fn key(&mut self, price: Decimal) -> Result<i64, BadLevel> {
        if price.scale() > self.scale {
            self.refine(price)?;
        }
        let mantissa = price.mantissa_at(self.scale).and_then(|m| i64::try_from(m).ok());
        mantissa.map(|m| self.sign(m)).ok_or(BadLevel::Range(price))
    }

    #[inline]
    fn sign(&self, mantissa: i64) -> i64 {
        match self.side {
            Side::Bid => mantissa,
            Side::Ask => -mantissa,
        }
    }

    /// Takes the keys to the finer scale of `price`. Rare: the first price, and where a venue drops trailing zeros.
    #[cold]
    fn refine(&mut self, price: Decimal) -> Result<(), BadLevel> {
        let range = || BadLevel::Range(price);
        i64::try_from(price.mantissa()).map_err(|_| range())?;
        if !self.keys.is_empty() {
            let by = 10i64.checked_pow(u32::from(price.scale() - self.scale)).ok_or_else(range)?;
            let finer = self.keys.iter().map(|k| k.checked_mul(by)).collect::<Option<Vec<_>>>();
            self.keys = finer.ok_or_else(range)?;
        }
        self.scale = price.scale();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn level(price: &str, size: &str) -> Level {
        Level::parse(price.as_bytes(), size.as_bytes()).unwrap()
    }

    #[test]
    fn a_price_is_the_same_however_many_zeros_it_has() {
        let mut asks = Ladder::new(Side::Ask);
        assert_eq!(asks.set(level("7.5", "1")), Ok(Change::Added));
        assert_eq!(asks.set(level("7.5000", "2")), Ok(Change::Changed));
        assert_eq!(asks.set(level("7.50", "2.0")), Ok(Change::Unchanged));
        assert_eq!(asks.set(level("7.4999", "3")), Ok(Change::Added));
        assert_eq!(asks.best().unwrap().price.to_string(), "7.4999");
        assert_eq!(asks.set(level("7.50000", "0.000")), Ok(Change::Removed));
        assert_eq!(asks.set(level("7.5", "0")), Ok(Change::Absent));
        assert_eq!(asks.len(), 1);
    }

    #[test]
    fn what_no_book_can_have_is_refused_and_changes_nothing() {
        let mut bids = Ladder::new(Side::Bid);
        bids.set(level("100", "1")).unwrap();
        assert!(matches!(bids.set(level("0", "1")), Err(BadLevel::Price(_))));
        assert!(matches!(bids.set(level("-1", "1")), Err(BadLevel::Price(_))));
        assert!(matches!(bids.set(level("99", "-1")), Err(BadLevel::Size { .. })));
        assert!(matches!(bids.set(level("0.00000000000000000001", "1")), Err(BadLevel::Range(_))));
        assert!(matches!(bids.set(level("99999999999999999999", "1")), Err(BadLevel::Range(_))));
        let kept: Vec<_> = bids.iter().copied().collect();
        assert_eq!(kept, [level("100", "1")]);
        assert_eq!(bids.size_at(level("100.00", "0").price), Some(level("1", "1").size));
        assert_eq!(bids.size_at(level("100.01", "0").price), None);
    }

    /// A level of price `ticks` / 100, written with some number of trailing zeros.
    fn written(ticks: i64, zeros: u8, size: i64) -> Level {
        let price = Decimal::new(i128::from(ticks), 2).rescale(2 + zeros).unwrap();
        Level { price, size: Decimal::new(i128::from(size), 3) }
    }

    fn ladder_of(side: Side, truth: &BTreeMap<i64, i64>) -> Vec<Level> {
        let levels = truth.iter().map(|(ticks, size)| written(*ticks, 0, *size));
        match side {
            Side::Bid => levels.rev().collect(),
            Side::Ask => levels.collect(),
        }
    }

    proptest! {
        /// Given any changes, a ladder is what a sorted map of ticks says at every step.
        #[test]
        fn a_ladder_is_a_sorted_map(
            bid in any::<bool>(),
            changes in proptest::collection::vec((1i64..60, 0u8..4, 0i64..4), 1..300),
            depth in 1usize..40,
        ) {
            let side = if bid { Side::Bid } else { Side::Ask };
            let mut ladder = Ladder::new(side);
            let mut truth = BTreeMap::new();
            for (i, (ticks, zeros, size)) in changes.iter().enumerate() {
                let before = truth.get(ticks).copied();
                let change = ladder.set(written(*ticks, *zeros, *size)).unwrap();
                if *size == 0 { truth.remove(ticks); } else { truth.insert(*ticks, *size); }
                prop_assert_eq!(change, match (before, *size) {
                    (None, 0) => Change::Absent,
                    (Some(_), 0) => Change::Removed,
                    (None, _) => Change::Added,
                    (Some(old), new) if old == new => Change::Unchanged,
                    _ => Change::Changed,
                });
                if i % 7 == 6 {
                    let mut cut = Vec::new();
                    ladder.truncate(depth, |level| cut.push(level));
                    while truth.len() > depth {
                        let worst = match side { Side::Bid => truth.pop_first(), Side::Ask => truth.pop_last() };
                        let (ticks, size) = worst.unwrap();
                        prop_assert_eq!(cut.remove(0), written(ticks, 0, size));
                    }
                    prop_assert!(cut.is_empty());
                }
                prop_assert_eq!(ladder.iter().copied().collect::<Vec<_>>(), ladder_of(side, &truth));
                prop_assert_eq!(ladder.best().copied(), ladder_of(side, &truth).first().copied());
            }
        }

        /// A whole side loads to the same as setting its levels one by one, in whatever order it comes.
        #[test]
        fn loading_is_setting_one_by_one(
            levels in proptest::collection::vec((1i64..60, 0u8..4, 0i64..4), 0..80),
        ) {
            let levels: Vec<_> = levels.iter().map(|(t, z, s)| written(*t, *z, *s)).collect();
            let (mut one, mut other) = (Ladder::new(Side::Ask), Ladder::new(Side::Ask));
            one.set(written(1000, 0, 5)).unwrap();
            one.load(&levels).unwrap();
            for level in &levels {
                other.set(*level).unwrap();
            }
            let all = |l: &Ladder| l.iter().copied().collect::<Vec<_>>();
            prop_assert_eq!(all(&one), all(&other));
            // The keys hold too: every level is found again.
            for level in all(&other) {
                prop_assert_eq!(one.size_at(level.price), Some(level.size));
            }
        }
    }
}
