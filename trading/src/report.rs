//! What a venue says: of orders, and of the account as a whole.

use serde::{Deserialize, Serialize};

use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::{Order, OrderId, Side};

/// Something a venue said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When, by the venue; UTC nanoseconds.
    pub ts: i64,
    /// What.
    pub what: Said,
}

/// What it said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// The order is in the book, or waits for its trigger.
    Accepted {
        /// Which.
        order: OrderId,
    },
    /// The order was refused, and is over.
    Rejected {
        /// Which.
        order: OrderId,
        /// The venue's words.
        reason: String,
    },
    /// Part of the order, or all of it, was executed.
    Filled(Fill),
    /// The order now has this quantity (filled part included) and prices.
    Replaced {
        /// Which.
        order: OrderId,
        /// The whole quantity.
        quantity: Decimal,
        /// Limit price.
        limit: Option<Decimal>,
        /// Trigger price.
        stop: Option<Decimal>,
    },
    /// A change or a cancel was refused; the order stands as it was.
    ChangeRejected {
        /// Which.
        order: OrderId,
        /// The venue's words.
        reason: String,
    },
    /// What was left of the order is cancelled.
    Canceled {
        /// Which.
        order: OrderId,
        /// By whom or why, where the venue says so.
        reason: Option<String>,
    },
    /// Its time is over.
    Expired {
        /// Which.
        order: OrderId,
    },
    /// Cash came or went that no fill accounts for: funding, dividends, interest, deposits, fees booked later.
    Cash {
        /// Which currency.
        currency: String,
        /// Signed: what was added.
        amount: Decimal,
        /// What for.
        reason: CashReason,
        /// Of which instrument, where it belongs to one.
        instrument: Option<InstrumentId>,
    },
    /// Every unit became `ratio` units (2: a two-for-one split); prices are divided by it.
    Split {
        /// Of what.
        instrument: InstrumentId,
        /// New units for an old one.
        ratio: Decimal,
    },
    /// The account as the venue has it now, whole: on start, and after a reconnect.
    Snapshot(Snapshot),
    /// Who reports has started again, and may have missed what was sent meanwhile: up to the next snapshot orders may work that nobody here knows.
    Reconciling,
}

/// Why cash moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CashReason {
    /// Funding of a perpetual.
    Funding,
    /// Interest on borrowed cash or units.
    Borrow,
    /// A dividend.
    Dividend,
    /// Put in or taken out.
    Transfer,
    /// A fee that was not part of a fill.
    Fee,
    /// Paid for fractions of units that a split left.
    InLieu,
    /// Anything else.
    Other,
}

/// An execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    /// The venue's id of it: a fill that comes twice has the same.
    pub id: String,
    /// Whose.
    pub order: OrderId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Bought or sold.
    pub side: Side,
    /// Price of one unit.
    pub price: Decimal,
    /// Units, above zero.
    pub quantity: Decimal,
    /// What it cost (negative: a rebate), in `fee_currency`.
    pub fee: Decimal,
    /// Currency of the fee.
    pub fee_currency: String,
    /// Whether the order rested in the book: known where the venue says so.
    pub maker: Option<bool>,
}

/// An account as a venue has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Working orders, with what of them is filled.
    pub orders: Vec<Open>,
    /// Units held of each instrument that has any; negative is short. With the average price, where known.
    pub positions: Vec<(InstrumentId, Decimal, Option<Decimal>)>,
    /// Cash by currency.
    pub cash: Vec<(String, Decimal)>,
}

/// A working order at a venue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// The order.
    pub order: Order,
    /// Units filled so far.
    pub filled: Decimal,
}
