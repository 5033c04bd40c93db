//! How many orders left in a span of time: a sliding window, exact.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::params::Rate;

/// Times of the newest orders, oldest first: never more than a rule allows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct RateWindow(VecDeque<i64>);

impl RateWindow {
    /// Counts an order at `now`, unless the span that ends with `now` (its start left out) is full. A `free` one is only counted.
    pub(super) fn pass(&mut self, now: i64, rate: &Rate, free: bool) -> Result<(), Refusal> {
        let start = now.saturating_sub(rate.per.ns());
        while self.0.front().is_some_and(|ts| *ts <= start) {
            self.0.pop_front();
        }
        let most = rate.orders as usize;
        if self.0.len() >= most {
            if !free {
                let (orders, per) = (self.0.len(), rate.per);
                let detail = format!("{orders} orders left in the last {per}, the limit is {most}");
                return Err(Refusal::new("rate.orders", detail));
            }
            // Only the newest matter, however many were free.
            while self.0.len() >= most {
                self.0.pop_front();
            }
        }
        self.0.push_back(now);
        Ok(())
    }
}
