//! What the machine keeps of one instrument beside its orders.

use serde::{Deserialize, Serialize};

use super::brackets::{ASLEEP, Asked, Guard, Watch};
use super::closing::Closing;
use crate::algo::Schedule;
use crate::event::Reason;
use crate::market::{InstrumentId, Market, Tick};
use crate::money::Decimal;
use crate::order::Side;
use crate::signal::{OrderWish, Want};

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
    /// It only closes a position, beside its guard.
    pub closes: bool,
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
    /// The best bid and ask as they were shown last, whether they can be or not, where zero means unchanged.
    pub shown: (f64, f64),
    /// Units at these.
    pub sizes: (f64, f64),
    /// Trading is halted by the venue.
    pub halted: bool,
    /// The kinds of faults of its ticks that were told of, by their bits.
    pub doubted: u8,
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
    /// Whether the position must go, whatever anyone wants.
    pub closing: Closing,
    /// The last wish that could not change what works for it, which was told of.
    pub ignored: Option<OrderWish>,
    /// The venue took no guard.
    pub unguarded: bool,
    /// The position has not the guard that was asked for, which was told.
    pub bare: bool,
    /// An order that rests stands in the guard's place, which was told.
    pub aside: bool,
    /// The last wish that was refused as it came, and by which rule, which was told.
    pub refused: Option<(Want, String)>,
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
            shown: (f64::NAN, f64::NAN),
            sizes: (f64::NAN, f64::NAN),
            halted: false,
            doubted: 0,
            goal: None,
            guard: None,
            asked: Asked::default(),
            wanted: None,
            stopped: false,
            closing: Closing::default(),
            ignored: None,
            unguarded: false,
            bare: false,
            aside: false,
            refused: None,
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
}

impl Slot {
    /// Fills in the side of a quote that did not change, where zero says so.
    pub fn whole(&mut self, tick: &Tick) -> Tick {
        let Market::Quote { mut bid, mut bid_size, mut ask, mut ask_size } = tick.market else {
            return *tick;
        };
        if bid == 0.0 {
            (bid, bid_size) = (self.shown.0, self.sizes.0);
        }
        if ask == 0.0 {
            (ask, ask_size) = (self.shown.1, self.sizes.1);
        }
        (self.shown, self.sizes) = ((bid, ask), (bid_size, ask_size));
        Tick { market: Market::Quote { bid, bid_size, ask, ask_size }, ..*tick }
    }

    /// Takes the prices of a tick that is [`sound`](Market::sound).
    #[inline]
    pub fn see(&mut self, market: &Market) -> Seen {
        match *market {
            Market::Trade { price, .. } => {
                self.last = price;
                self.value(Source::Trade, price, price, price)
            }
            Market::Quote { bid, ask, .. } => {
                (self.bid, self.ask) = (bid, ask);
                if bid.is_nan() || ask.is_nan() {
                    return Seen::Other;
                }
                self.value(Source::Quote, (bid + ask) / 2.0, bid, ask)
            }
            Market::Bar { high, low, close, .. } => {
                self.last = close;
                self.value(Source::Trade, close, low, high)
            }
            Market::Mark { price } => self.value(Source::Mark, price, price, price),
            Market::Halt(halted) => {
                self.halted = halted;
                Seen::Other
            }
            Market::BookReset => {
                (self.bid, self.ask, self.shown) = (f64::NAN, f64::NAN, (f64::NAN, f64::NAN));
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
