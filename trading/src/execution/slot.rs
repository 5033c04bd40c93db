//! What the machine keeps of one instrument beside its orders.

use serde::{Deserialize, Serialize};

use super::brackets::{ASLEEP, Asked, Guard, Watch};
use crate::algo::Schedule;
use crate::event::Reason;
use crate::market::{InstrumentId, Market, Tick};
use crate::money::Decimal;
use crate::order::Side;
use crate::signal::OrderWish;

/// What made an order: with the count of its orders, what they are named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Event time of the row.
    pub ts: i64,
    /// Its origin; [`MACHINE`] where the machine itself had to act.
    pub src: u64,
    /// Its place there.
    pub seq: u64,
    /// Orders made of it so far.
    pub n: u32,
}

/// Origin of orders that no row asked for: guards, closings.
pub const MACHINE: u64 = u64::MAX;

/// A position that is wanted and not ordered yet: orders against it must be taken back first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// Units wanted, signed.
    pub target: Decimal,
    /// How orders are to be made.
    pub wish: OrderWish,
    /// What wanted it.
    pub cause: Cause,
    /// Why.
    pub reason: Reason,
}

/// A sliced order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// Of what.
    pub instrument: InstrumentId,
    /// Buy or sell.
    pub side: Side,
    /// What has been sent.
    pub schedule: Schedule,
    /// How slices are to be made.
    pub wish: OrderWish,
    /// What wanted it.
    pub cause: Cause,
}

/// Which kind of price values a position: the best that was ever seen of the instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// None yet.
    #[default]
    None,
    /// The middle of quotes.
    Quote,
    /// Trades and bars.
    Trade,
    /// The venue's mark price.
    Mark,
}

/// One instrument.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// What a position is valued at; NaN before the first price.
    pub price: f64,
    /// Guards that this machine watches.
    pub watch: Watch,
    /// Sliced orders want to know of trades.
    pub counts: bool,
    /// There is a position.
    pub held: bool,
    /// What `price` is.
    pub source: Source,
    /// Last trade.
    pub last: f64,
    /// Best bid.
    pub bid: f64,
    /// Best ask.
    pub ask: f64,
    /// Units at the best bid and ask.
    pub sizes: (f64, f64),
    /// Trading is halted by the venue.
    pub halted: bool,
    /// A bad price was told of.
    pub bad_price: bool,
    /// What is wanted and not ordered yet.
    pub goal: Option<Goal>,
    /// What guards the position.
    pub guard: Option<Guard>,
    /// What the last signals said of guards.
    pub asked: Asked,
    /// What the strategy wanted last: its direction and strength.
    pub wanted: Option<(i8, f64)>,
    /// The guard closed the position that the last wish asked for.
    pub stopped: bool,
    /// The position must go, whatever anyone wants.
    pub closing: bool,
    /// Why.
    pub closing_reason: Reason,
    /// The venue took no guard.
    pub unguarded: bool,
    /// When positions are closed before the session ends; `i64::MAX`: never.
    pub flat_at: i64,
    /// Nothing is opened before then.
    pub quiet_until: i64,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            price: f64::NAN,
            watch: ASLEEP,
            counts: false,
            held: false,
            source: Source::None,
            last: f64::NAN,
            bid: f64::NAN,
            ask: f64::NAN,
            sizes: (f64::NAN, f64::NAN),
            halted: false,
            bad_price: false,
            goal: None,
            guard: None,
            asked: Asked::default(),
            wanted: None,
            stopped: false,
            closing: false,
            closing_reason: Reason::KillSwitch,
            unguarded: false,
            flat_at: i64::MAX,
            quiet_until: i64::MIN,
        }
    }
}

/// What a tick said of prices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// A price that the position is valued at now: the value, and the span of prices since the last tick.
    Price(f64, f64, f64),
    /// Nothing that changes the value.
    Other,
    /// A price that cannot be: zero, negative or not a number.
    Bad(f64),
}

impl Slot {
    /// Fills in the side of a quote that did not change, where zero says so.
    pub fn whole(&mut self, tick: &Tick) -> Tick {
        let Market::Quote { mut bid, mut bid_size, mut ask, mut ask_size } = tick.market else {
            return *tick;
        };
        if bid == 0.0 {
            (bid, bid_size) = (self.bid, self.sizes.0);
        }
        if ask == 0.0 {
            (ask, ask_size) = (self.ask, self.sizes.1);
        }
        self.sizes = (bid_size, ask_size);
        Tick { market: Market::Quote { bid, bid_size, ask, ask_size }, ..*tick }
    }

    /// Takes the prices of a tick.
    #[inline]
    pub fn see(&mut self, market: &Market) -> Seen {
        let good = |price: f64| price > 0.0 && price < f64::INFINITY;
        match *market {
            Market::Trade { price, .. } => {
                if !good(price) {
                    return Seen::Bad(price);
                }
                self.last = price;
                self.value(Source::Trade, price, price, price)
            }
            Market::Quote { bid, ask, .. } => {
                (self.bid, self.ask) = (bid, ask);
                let (has_bid, has_ask) = (good(bid), good(ask));
                if has_bid && has_ask {
                    return self.value(Source::Quote, (bid + ask) / 2.0, bid, ask);
                }
                // A side that has no price is NaN; anything else is a mistake of the feed.
                if !has_bid {
                    self.bid = f64::NAN;
                }
                if !has_ask {
                    self.ask = f64::NAN;
                }
                match (bid.is_nan() || has_bid, ask.is_nan() || has_ask) {
                    (false, _) => Seen::Bad(bid),
                    (_, false) => Seen::Bad(ask),
                    _ => Seen::Other,
                }
            }
            Market::Bar { high, low, close, .. } => {
                if !(good(close) && good(low) && good(high) && low <= high) {
                    return Seen::Bad(close);
                }
                self.last = close;
                self.value(Source::Trade, close, low, high)
            }
            Market::Mark { price } => {
                if !good(price) {
                    return Seen::Bad(price);
                }
                self.value(Source::Mark, price, price, price)
            }
            Market::Halt(halted) => {
                self.halted = halted;
                Seen::Other
            }
            Market::BookReset => {
                (self.bid, self.ask) = (f64::NAN, f64::NAN);
                Seen::Other
            }
            Market::Level { .. } | Market::Resting { .. } | Market::Funding { .. } => Seen::Other,
        }
    }

    #[inline]
    fn value(&mut self, source: Source, price: f64, low: f64, high: f64) -> Seen {
        if source < self.source {
            return Seen::Other;
        }
        self.source = source;
        self.price = price;
        Seen::Price(price, low, high)
    }
}
