//! The last `period` values of a key, and sums over them that do not drift.
//!
//! The period belongs to the indicator, which all keys share, so it is passed in. Memory: 8 bytes
//! a value, grown as values come, never beyond the period.
use serde::{Deserialize, Serialize};

/// The last `period` values.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ring {
    items: Vec<f64>,
    /// Where the oldest value is, once full.
    oldest: u32,
}

impl Ring {
    /// Adds a value; gives back the one that leaves the window.
    #[inline]
    pub fn push(&mut self, period: usize, x: f64) -> Option<f64> {
        if self.items.len() < period {
            if self.items.len() == self.items.capacity() {
                let more = self.items.len().max(4);
                self.items.reserve_exact(more.min(period - self.items.len()));
            }
            self.items.push(x);
            return None;
        }
        let at = self.oldest as usize;
        let left = std::mem::replace(self.items.get_mut(at)?, x);
        self.oldest = if at + 1 == period { 0 } else { at as u32 + 1 };
        Some(left)
    }

    #[inline]
    pub fn is_full(&self, period: usize) -> bool {
        self.items.len() >= period
    }

    /// Whether the last push began a new round: once every `period` pushes, the moment to compute
    /// anew what would drift.
    #[inline]
    pub fn is_at_start(&self) -> bool {
        self.oldest == 0
    }

    /// The values in no particular order.
    #[inline]
    pub fn items(&self) -> &[f64] {
        &self.items
    }

    /// The values, oldest first.
    pub fn in_order(&self) -> impl Iterator<Item = f64> {
        let oldest = self.items.len().min(self.oldest as usize);
        let (new, old) = self.items.split_at(oldest);
        old.iter().chain(new).copied()
    }
}

/// A sum with about twice the precision of f64 (Knuth's two-sum), so that what is added and later
/// taken away again leaves nothing behind, unless magnitudes are some 1e16 apart and of three
/// sizes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    #[inline]
    pub fn add(&mut self, x: f64) {
        let high = self.high + x;
        let part = high - self.high;
        self.low += (self.high - (high - part)) + (x - part);
        self.high = high;
    }

    #[inline]
    pub fn value(&self) -> f64 {
        self.high + self.low
    }
}

/// A [`Sum`] of values that come and go; of nothing but zeros it is exactly zero. Its owner
/// computes it anew once a round ([`Ring::is_at_start`]), so that no rounding outlives the window.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct WindowSum {
    sum: Sum,
    nonzero: u32,
}

impl WindowSum {
    #[inline]
    pub fn enter(&mut self, x: f64) {
        self.nonzero = self.nonzero.saturating_add(u32::from(x != 0.0));
        self.sum.add(x);
    }

    #[inline]
    pub fn leave(&mut self, x: f64) {
        self.nonzero = self.nonzero.saturating_sub(u32::from(x != 0.0));
        self.sum.add(-x);
        if self.nonzero == 0 {
            self.sum = Sum::default();
        }
    }

    /// The sum of these alone.
    pub fn of(items: impl Iterator<Item = f64>) -> Self {
        let mut sum = WindowSum::default();
        items.for_each(|x| sum.enter(x));
        sum
    }

    #[inline]
    pub fn value(&self) -> f64 {
        self.sum.value()
    }
}

/// The sum of the last `period` values.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RollingSum {
    ring: Ring,
    sum: WindowSum,
}

impl RollingSum {
    /// Adds a value and gives the sum, NaN until the window is full.
    #[inline]
    pub fn push(&mut self, period: usize, x: f64) -> f64 {
        match self.ring.push(period, x) {
            Some(_) if self.ring.is_at_start() => {
                self.sum = WindowSum::of(self.ring.items().iter().copied());
                return self.sum.value();
            }
            Some(left) => self.sum.leave(left),
            None => {}
        }
        self.sum.enter(x);
        if self.ring.is_full(period) { self.sum.value() } else { f64::NAN }
    }
}

/// The value `lag` pushes ago.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Delay(Ring);

impl Delay {
    /// Adds a value and gives the one `lag` pushes before it, NaN until there is one.
    #[inline]
    pub fn push(&mut self, lag: usize, x: f64) -> f64 {
        if lag == 0 {
            return x;
        }
        self.0.push(lag, x).unwrap_or(f64::NAN)
    }
}

/// The sum of `f` over a slice, in four lanes: always in the same order, four times as fast.
#[inline]
pub fn sum_of(items: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0; 4];
    let fours = items.chunks_exact(4);
    let rest: f64 = fours.remainder().iter().map(|&x| f(x)).sum();
    for four in fours {
        for (lane, &x) in lanes.iter_mut().zip(four) {
            *lane += f(x);
        }
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_gives_back_what_leaves() {
        let mut ring = Ring::default();
        let left: Vec<_> = (1..=5).map(|x| ring.push(3, x as f64)).collect();
        assert_eq!(left, [None, None, None, Some(1.0), Some(2.0)]);
        assert_eq!(ring.in_order().collect::<Vec<_>>(), [3.0, 4.0, 5.0]);
    }

    #[test]
    fn a_spike_leaves_no_trace_in_a_sum() {
        let mut sum = RollingSum::default();
        for x in [0.1, 1e18, 0.2, 0.3] {
            sum.push(3, x);
        }
        assert_eq!(sum.push(3, 0.5), 0.2 + 0.3 + 0.5);
        for _ in 0..3 {
            sum.push(3, 0.0);
        }
        assert_eq!(sum.push(3, 0.0), 0.0);
    }

    #[test]
    fn rounding_does_not_outlive_the_window() {
        let mut sum = RollingSum::default();
        for x in [1e75, 7.0, 1e18, 3.0, 1e40, -1e75, 0.5, 0.25, 0.125] {
            sum.push(3, x);
        }
        for _ in 0..3 {
            sum.push(3, 0.1);
        }
        assert_eq!(sum.push(3, 0.2), 0.1 + 0.1 + 0.2);
    }

    #[test]
    fn a_delay_gives_what_was() {
        let mut delay = Delay::default();
        let out: Vec<_> = (0..5).map(|x| delay.push(2, x as f64)).collect();
        assert!(out[0].is_nan() && out[1].is_nan());
        assert_eq!(out[2..], [0.0, 1.0, 2.0]);
    }
}
