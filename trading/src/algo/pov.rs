//! A part of what the market trades (participation of volume).

use serde::{Deserialize, Serialize};

use crate::money::{self, Decimal};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pov {
    rate: Decimal,
    min: Decimal,
    end: i64,
    over: bool,
    /// Units that the market traded since the start.
    volume: Decimal,
}

impl Pov {
    pub fn new(rate: Decimal, min: Decimal, end: i64) -> Self {
        Self { rate, min, end, over: false, volume: Decimal::ZERO }
    }

    pub fn end(&self) -> i64 {
        if self.over { i64::MAX } else { self.end }
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    pub fn traded(&mut self, size: f64) {
        let size = if size > 0.0 { money::from_f64(size) } else { None };
        self.volume = size.and_then(|size| self.volume.checked_add(size)).unwrap_or(self.volume);
    }

    /// Units that should have been sent by `now`: nothing new until it is worth a slice.
    pub fn by(&mut self, now: i64, sent: Decimal, total: Decimal) -> Decimal {
        if now >= self.end {
            self.over = true;
            return sent;
        }
        let due = self.volume.checked_mul(self.rate).unwrap_or(total).min(total);
        let last = due == total;
        if due - sent >= self.min || last { due } else { sent }
    }

    pub fn split(&mut self, ratio: Decimal) {
        for q in [&mut self.min, &mut self.volume] {
            *q = q.checked_mul(ratio).unwrap_or(*q);
        }
    }
}
