//! Rolling highest and lowest in O(1) amortised: queues that hold only values that may yet become
//! the extreme (Lemire 2006, "Streaming maximum-minimum filter"). At most `period` values a queue.
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Values from the highest down, each with the count of rows when it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Queue(VecDeque<(u64, f64)>);

impl Queue {
    #[inline]
    fn push(&mut self, period: usize, now: u64, x: f64) {
        while self.0.back().is_some_and(|&(_, back)| back <= x) {
            self.0.pop_back();
        }
        self.0.push_back((now, x));
        while self.0.front().is_some_and(|&(at, _)| at.saturating_add(period as u64) <= now) {
            self.0.pop_front();
        }
    }

    #[inline]
    fn front(&self) -> (u64, f64) {
        self.0.front().copied().unwrap_or((0, f64::NAN))
    }
}

/// The highest of one series and the lowest of another over the last `period` rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Extremes {
    rows: u64,
    high: Queue,
    /// Of the negated values.
    low: Queue,
}

impl Extremes {
    #[inline]
    pub fn push(&mut self, period: usize, high: f64, low: f64) {
        self.rows = self.rows.saturating_add(1);
        self.high.push(period, self.rows, high);
        self.low.push(period, self.rows, -low);
    }

    #[inline]
    pub fn is_full(&self, period: usize) -> bool {
        self.rows >= period as u64
    }

    #[inline]
    pub fn high(&self) -> f64 {
        self.high.front().1
    }

    #[inline]
    pub fn low(&self) -> f64 {
        -self.low.front().1
    }

    /// Rows since the highest, the latest of equals.
    #[inline]
    pub fn high_age(&self) -> u64 {
        self.rows.saturating_sub(self.high.front().0)
    }

    /// Rows since the lowest, the latest of equals.
    #[inline]
    pub fn low_age(&self) -> u64 {
        self.rows.saturating_sub(self.low.front().0)
    }

    /// Halfway between the two once the window is full, else NaN.
    #[inline]
    pub fn middle(&self, period: usize) -> f64 {
        if self.is_full(period) { (self.high() + self.low()) / 2.0 } else { f64::NAN }
    }
}
