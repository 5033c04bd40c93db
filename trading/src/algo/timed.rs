//! Slices at equal steps of time: TWAP with equal weights, VWAP with those of a profile.

use serde::{Deserialize, Serialize};

use crate::money::Decimal;

/// Slice `k` of `n` goes out at `start + k x over / n`; by then, the weights up to it have been sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    start: i64,
    over: i64,
    /// Sums of the weights: what part of the last one is to be sent by each slice.
    cumulative: Vec<Decimal>,
    next: u32,
}

impl Timed {
    pub fn new(start: i64, over: i64, weights: Vec<Decimal>) -> Self {
        let mut sum = Decimal::ZERO;
        let cumulative = weights
            .iter()
            .map(|w| {
                sum = sum.checked_add(*w).unwrap_or(sum);
                sum
            })
            .collect();
        Self { start, over, cumulative, next: 0 }
    }

    fn time(&self, slice: u32) -> i64 {
        let part = i128::from(self.over) * i128::from(slice) / self.cumulative.len().max(1) as i128;
        self.start.saturating_add(part as i64)
    }

    pub fn next_due(&self) -> i64 {
        if (self.next as usize) < self.cumulative.len() { self.time(self.next) } else { i64::MAX }
    }

    /// Units that should have been sent by `now`.
    pub fn by(&mut self, now: i64, total: Decimal) -> Decimal {
        while self.next_due() <= now {
            self.next += 1;
        }
        let Some(last) = (self.next as usize).checked_sub(1) else { return Decimal::ZERO };
        if self.next as usize == self.cumulative.len() {
            return total;
        }
        let whole = self.cumulative.last().copied().unwrap_or(Decimal::ONE);
        // Divided first where the product does not fit.
        let (weight, or) = (self.cumulative[last], Decimal::ZERO);
        let exact = total.checked_mul(weight).and_then(|product| product.checked_div(whole));
        exact.or_else(|| weight.checked_div(whole)?.checked_mul(total)).unwrap_or(or).min(total)
    }
}
