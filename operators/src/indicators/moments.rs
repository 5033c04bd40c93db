//! Rolling mean and sum of squared deviations in O(1) amortised, without drift.
//!
//! Values are held as deviations from an anchor near the window's mean, so squares do not swamp
//! the variance. All is computed anew from the window once every `period` updates, and also when
//! the squares have shrunk to a thousandth of their peak since the last time (a spike left, or the
//! level moved far from the anchor): what is left is then mostly rounding. Between two such moments
//! the squares must fall a thousandfold, so the cost stays O(1) amortised. A flat window gives
//! exactly its value and exactly zero.
use serde::{Deserialize, Serialize};

use super::ring::{Ring, sum_of};

/// Below this part of the peak the squares are computed anew.
const TRUSTED: f64 = 1e-3;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Moments {
    ring: Ring,
    anchor: f64,
    sum: f64,
    squares: f64,
    peak: f64,
}

/// Mean, and sum of squared deviations from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    pub mean: f64,
    pub squares: f64,
}

impl Moments {
    /// Adds a value; gives the window's moments once it is full. `inverse` is `1 / period`.
    #[inline]
    pub fn push(&mut self, period: usize, inverse: f64, x: f64) -> Option<Moment> {
        let left = self.ring.push(period, x);
        if let Some(left) = left
            && !self.ring.is_at_start()
        {
            let (new, old) = (x - self.anchor, left - self.anchor);
            self.sum += new - old;
            self.squares += new * new - old * old;
            self.peak = self.peak.max(self.squares);
            let moment = self.moment(inverse);
            if moment.squares >= TRUSTED * self.peak {
                return Some(moment);
            }
        }
        if !self.ring.is_full(period) {
            return None;
        }
        self.recompute(x, inverse);
        Some(self.moment(inverse))
    }

    #[inline]
    fn moment(&self, inverse: f64) -> Moment {
        let shift = self.sum * inverse;
        Moment { mean: self.anchor + shift, squares: self.squares - self.sum * shift }
    }

    #[cold]
    fn recompute(&mut self, newest: f64, inverse: f64) {
        let items = self.ring.items();
        // About the newest value, so that the anchor of a flat window is its value exactly.
        let anchor = newest + sum_of(items, |x| x - newest) * inverse;
        self.anchor = anchor;
        self.sum = sum_of(items, |x| x - anchor);
        self.squares = sum_of(items, |x| (x - anchor) * (x - anchor));
        self.peak = self.squares;
    }
}

impl Moment {
    /// The standard deviation; `inverse` is 1/n for a population, 1/(n-1) for a sample.
    #[inline]
    pub fn deviation(&self, inverse: f64) -> f64 {
        (self.squares.max(0.0) * inverse).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_window_has_no_deviation_whatever_came_before() {
        let mut moments = Moments::default();
        for x in [1e9, 0.1, 7.3, -1e12] {
            moments.push(3, 1.0 / 3.0, x);
        }
        let last = (0..3).filter_map(|_| moments.push(3, 1.0 / 3.0, 0.1)).last();
        assert_eq!(last, Some(Moment { mean: 0.1, squares: 0.0 }));
    }

    #[test]
    fn a_step_in_level_does_not_spoil_what_follows() {
        let mut moments = Moments::default();
        let mut window = std::collections::VecDeque::new();
        for i in 0..200 {
            let level = if i < 110 { 100.0 } else { 1e5 };
            let x = level + 1e-3 * ((i * 7919) % 13) as f64;
            window.push_back(x);
            if window.len() > 20 {
                window.pop_front();
            }
            if let Some(moment) = moments.push(20, 1.0 / 20.0, x) {
                let mean = window.iter().map(|x| x - 1e5).sum::<f64>() / 20.0;
                let squares: f64 = window.iter().map(|x| (x - 1e5 - mean).powi(2)).sum();
                let off = (moment.squares / squares - 1.0).abs();
                assert!(off < 1e-9, "row {i}: {} for {squares}", moment.squares);
            }
        }
    }
}
