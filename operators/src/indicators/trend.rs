//! Rolling sums weighted by position, for WMA and linear regression: O(1) amortised, no drift.
//!
//! As in `moments`, values are deviations from an anchor, all is computed anew once every `period`
//! updates, and also when the trend has shrunk to what may be rounding. A flat window gives exactly
//! its value and exactly no trend.
use serde::{Deserialize, Serialize};

use super::ring::Ring;

/// Positions in a window of `period` values run from 0 (oldest) to `period - 1` (newest).
#[derive(Clone, Debug)]
pub struct Trend {
    pub period: usize,
    last: f64,
    middle: f64,
    /// Part of the peak below which a trend is computed anew.
    trusted: f64,
    /// 1 / sum of squared distances of the positions from their middle.
    spread_inverse: f64,
    inverse: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TrendState {
    ring: Ring,
    anchor: f64,
    sum: f64,
    by_position: f64,
    peak: f64,
}

/// A line fitted to a window.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Mean of the values.
    pub mean: f64,
    /// Rise from one position to the next; NaN for a window of one.
    pub slope: f64,
    /// Mean of the values weighted 1 (oldest) to `period` (newest).
    pub weighted_mean: f64,
}

impl Trend {
    pub fn new(period: usize) -> Self {
        let n = period as f64;
        Trend {
            period,
            last: n - 1.0,
            middle: (n - 1.0) / 2.0,
            // Rounding grows with the root of the updates; ten digits are to be left.
            trusted: n.sqrt() * 2e-6,
            spread_inverse: 12.0 / (n * (n * n - 1.0)),
            inverse: 1.0 / n,
        }
    }

    /// Adds a value; gives the window's line once it is full.
    #[inline]
    pub fn push(&self, s: &mut TrendState, x: f64) -> Option<Line> {
        let left = s.ring.push(self.period, x);
        if let Some(left) = left
            && !s.ring.is_at_start()
        {
            let (new, old) = (x - s.anchor, left - s.anchor);
            // Those that stay each move one position down.
            s.by_position += self.last * new - (s.sum - old);
            s.sum += new - old;
            s.peak = s.peak.max(s.by_position.abs());
            let trend = s.by_position - self.middle * s.sum;
            if trend.abs() >= self.trusted * s.peak {
                return Some(self.line(s, trend));
            }
        }
        if !s.ring.is_full(self.period) {
            return None;
        }
        s.recompute(x);
        Some(self.line(s, s.by_position - self.middle * s.sum))
    }

    #[inline]
    fn line(&self, s: &TrendState, trend: f64) -> Line {
        let mean = s.sum * self.inverse;
        let weights = (self.last + 2.0) * 0.5;
        Line {
            mean: s.anchor + mean,
            slope: trend * self.spread_inverse,
            weighted_mean: s.anchor + (s.by_position + s.sum) * self.inverse / weights,
        }
    }
}

impl TrendState {
    #[cold]
    fn recompute(&mut self, newest: f64) {
        self.anchor = newest;
        (self.sum, self.by_position) = (0.0, 0.0);
        for (position, x) in self.ring.in_order().enumerate() {
            let x = x - newest;
            self.sum += x;
            self.by_position += position as f64 * x;
        }
        self.peak = self.by_position.abs();
    }
}
