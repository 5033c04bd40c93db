//! What the market shows, as one tick.

use serde::{Deserialize, Serialize};

mod fault;

pub use fault::{Fault, PRICE_MAX, PRICE_MIN, is_price};

/// An instrument's number: its place in the list that a machine was made with.
pub type InstrumentId = u32;

/// One thing that the market showed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// UTC nanoseconds.
    pub ts: i64,
    /// Of what.
    pub instrument: InstrumentId,
    /// What.
    pub market: Market,
}

/// What was seen. Prices and sizes are as the feed gives them. NaN: the feed has none, such as the price of an empty side, or sizes
/// that it does not tell of. See [`Market::fault`] for numbers that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Market {
    /// A trade.
    Trade {
        /// Price of one unit.
        price: f64,
        /// Units.
        size: f64,
    },
    /// The best bid and ask.
    Quote {
        /// Best bid price.
        bid: f64,
        /// Units there.
        bid_size: f64,
        /// Best ask price.
        ask: f64,
        /// Units there.
        ask_size: f64,
    },
    /// A bar, at its end.
    Bar {
        /// First price.
        open: f64,
        /// Highest price.
        high: f64,
        /// Lowest price.
        low: f64,
        /// Last price.
        close: f64,
        /// Units traded.
        volume: f64,
    },
    /// One level of an order book was set to `size` (0: removed).
    Level {
        /// Which side of the book.
        bid: bool,
        /// The level.
        price: f64,
        /// Units there now.
        size: f64,
    },
    /// One order of a feed that tells of each: what rests of it now, and where (0: it is gone). The orders at a price make its level.
    /// A trade is told before what it left of the orders that it took from.
    Resting {
        /// The feed's number of it.
        order: u64,
        /// Which side of the book.
        bid: bool,
        /// Its price.
        price: f64,
        /// Units that rest of it.
        size: f64,
    },
    /// The order book is no longer known to be right, or begins anew: all levels go.
    BookReset,
    /// The venue's mark price, by which margin and funding are reckoned.
    Mark {
        /// The price.
        price: f64,
    },
    /// Funding falls due: a long position pays `rate` x its value at the mark, a short one receives it.
    Funding {
        /// A fraction (0.0001 is one basis point).
        rate: f64,
    },
    /// Trading of the instrument stopped (`true`) or began again.
    Halt(bool),
}
