//! One part at a time: the next is sent when the last is filled.

use serde::{Deserialize, Serialize};

use crate::money::Decimal;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Iceberg {
    display: Decimal,
    /// From when on the next part may go; `i64::MAX` while one is in the market.
    free_at: i64,
}

impl Iceberg {
    pub fn new(display: Decimal) -> Self {
        Self { display, free_at: i64::MIN }
    }

    pub fn next_due(&self) -> i64 {
        self.free_at
    }

    pub fn filled(&mut self, now: i64) {
        self.free_at = now;
    }

    pub fn by(&mut self, now: i64, sent: Decimal, total: Decimal) -> Decimal {
        if now < self.free_at {
            return sent;
        }
        self.free_at = i64::MAX;
        sent.checked_add(self.display).unwrap_or(total).min(total)
    }

    pub fn split(&mut self, ratio: Decimal) {
        self.display = self.display.checked_mul(ratio).unwrap_or(self.display);
    }
}
