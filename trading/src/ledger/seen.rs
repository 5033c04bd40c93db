//! Which fills were booked, so that one that comes twice is seen.
//!
//! Memory: the fills of every order that is not over, and of the last [`ORDERS_MAX`] orders that are. Of each fill 16 bytes are kept: the
//! hash of its id (two ids of one order have the same hash once in 1e38 pairs).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::order::OrderId;

/// Orders that are over and whose fills are still known.
pub const ORDERS_MAX: usize = 8192;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    orders: BTreeMap<OrderId, Fills>,
    over: VecDeque<OrderId>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Fills {
    ids: BTreeSet<u128>,
    over: bool,
}

impl Seen {
    pub fn contains(&self, order: OrderId, id: &str) -> bool {
        self.orders.get(&order).is_some_and(|fills| fills.ids.contains(&xxh3_128(id.as_bytes())))
    }

    pub fn insert(&mut self, order: OrderId, id: &str) {
        self.orders.entry(order).or_default().ids.insert(xxh3_128(id.as_bytes()));
    }

    /// No more fills of it are expected: it may be forgotten when enough others are over.
    pub fn over(&mut self, order: OrderId) {
        let Some(fills) = self.orders.get_mut(&order) else { return };
        if std::mem::replace(&mut fills.over, true) {
            return;
        }
        self.over.push_back(order);
        if self.over.len() > ORDERS_MAX
            && let Some(oldest) = self.over.pop_front()
        {
            self.orders.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_orders_that_are_over_are_forgotten() {
        let mut seen = Seen::default();
        seen.insert(OrderId(u128::MAX), "1");
        for n in 0..ORDERS_MAX as u128 + 1 {
            seen.insert(OrderId(n), "1");
            seen.over(OrderId(n));
            seen.over(OrderId(n));
        }
        assert!(!seen.contains(OrderId(0), "1"));
        assert!(seen.contains(OrderId(1), "1") && !seen.contains(OrderId(1), "2"));
        assert!(seen.contains(OrderId(u128::MAX), "1"), "an order that is not over is known for ever");
    }
}
