//! Orders and their life.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::market::InstrumentId;
use crate::money::Decimal;

/// An order's name, chosen before it is sent: the same decision has the same name in every run, so that sending it twice is
/// seen. Shown as 32 hexadecimal digits, which is what venues get as client order id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderId(pub u128);

impl OrderId {
    /// The name of the `n`th order that `strategy` of `job` makes from the row `(ts, src, seq)` for `symbol`.
    pub fn derive(job: &str, strategy: &str, symbol: &str, ts: i64, src: u64, seq: u64, n: u32) -> Self {
        let mut bytes = Vec::with_capacity(job.len() + strategy.len() + symbol.len() + 40);
        for text in [job, strategy, symbol] {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&ts.to_le_bytes());
        bytes.extend_from_slice(&src.to_le_bytes());
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(&n.to_le_bytes());
        Self(xxhash_rust::xxh3::xxh3_128(&bytes))
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OrderId {
    type Err = std::num::ParseIntError;
    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Bought or sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Bought.
    Buy,
    /// Sold.
    Sell,
}

impl Side {
    /// +1 or -1.
    pub fn sign(self) -> Decimal {
        match self {
            Self::Buy => Decimal::ONE,
            Self::Sell => Decimal::NEGATIVE_ONE,
        }
    }

    /// The other one.
    pub fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }

    /// Units that an order of this side can take off a position; what is beyond them opens one, or makes it larger.
    pub fn reducible(self, position: Decimal) -> Decimal {
        (-self.sign() * position).max(Decimal::ZERO)
    }
}

/// How an order is executed. Prices are of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderType {
    /// At whatever price there is.
    Market,
    /// At `limit` or better.
    Limit {
        /// The worst price.
        limit: Decimal,
    },
    /// A market order once the market trades at `stop` or beyond (buy: at or above; sell: at or below).
    Stop {
        /// The trigger.
        stop: Decimal,
    },
    /// A limit order once the market trades at `stop` or beyond.
    StopLimit {
        /// The trigger.
        stop: Decimal,
        /// The worst price.
        limit: Decimal,
    },
    /// A stop that follows the best price since the order began, at a distance.
    TrailingStop {
        /// How far behind.
        trail: Trail,
    },
    /// A market order once the market trades at `trigger` or better (buy: at or below; sell: at or above).
    TakeProfit {
        /// The trigger.
        trigger: Decimal,
    },
}

/// The distance of a trailing stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trail {
    /// In price.
    Amount(Decimal),
    /// As a fraction of the best price (0.01 is one percent).
    Fraction(Decimal),
}

/// How long an order stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeInForce {
    /// Until it is cancelled.
    #[default]
    Gtc,
    /// Until this time (UTC nanoseconds).
    Gtd(i64),
    /// What cannot be filled at once is cancelled.
    Ioc,
    /// All of it at once, or nothing.
    Fok,
    /// Until the session of the instrument ends.
    Day,
}

/// An order as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its name.
    pub id: OrderId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Buy or sell.
    pub side: Side,
    /// Units, above zero.
    pub quantity: Decimal,
    /// How.
    pub order_type: OrderType,
    /// How long.
    pub time_in_force: TimeInForce,
    /// Only as a maker: refused where it would trade at once.
    pub post_only: bool,
    /// Only to make a position smaller: cut or cancelled where it would make one larger or turn it.
    pub reduce_only: bool,
}

impl Order {
    /// Its limit price, where it has one.
    pub fn limit(&self) -> Option<Decimal> {
        match self.order_type {
            OrderType::Limit { limit } | OrderType::StopLimit { limit, .. } => Some(limit),
            _ => None,
        }
    }

    /// Its trigger price, where it has a fixed one.
    pub fn stop(&self) -> Option<Decimal> {
        match self.order_type {
            OrderType::Stop { stop } | OrderType::StopLimit { stop, .. } => Some(stop),
            OrderType::TakeProfit { trigger } => Some(trigger),
            _ => None,
        }
    }
}

/// What is sent to a venue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A new order.
    New(Order),
    /// Change a working order: what is `None` stays.
    Modify {
        /// Which.
        order: OrderId,
        /// The whole quantity, filled part included.
        quantity: Option<Decimal>,
        /// Limit price.
        limit: Option<Decimal>,
        /// Trigger price.
        stop: Option<Decimal>,
    },
    /// Take a working order back.
    Cancel {
        /// Which.
        order: OrderId,
    },
}

/// Where an order is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Decided and sent; the venue has not said anything.
    Pending,
    /// The venue has it.
    Working,
    /// Partly filled, the rest works on.
    PartlyFilled,
    /// All filled: over.
    Filled,
    /// Over, taken back.
    Canceled,
    /// Over, its time ran out.
    Expired,
    /// Over, refused by the venue.
    Rejected,
    /// Nobody knows: a send timed out. Only the venue can tell, so it is asked; never sent again blindly.
    Unknown,
}

impl Status {
    /// Whether nothing more can happen to the order.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Filled | Self::Canceled | Self::Expired | Self::Rejected)
    }

    /// The word in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Working => "working",
            Self::PartlyFilled => "partly_filled",
            Self::Filled => "filled",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}
