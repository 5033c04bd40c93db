//! What a strategy wants, and what an operator of the system commands.

use serde::{Deserialize, Serialize};

use crate::market::InstrumentId;
use crate::money::Decimal;

/// A wish of a strategy: one row of the signal stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// When; UTC nanoseconds.
    pub ts: i64,
    /// Origin of the row: with `ts` what orders are named by.
    pub src: u64,
    /// Place in the origin.
    pub seq: u64,
    /// Of what.
    pub instrument: InstrumentId,
    /// What for.
    pub want: Want,
    /// Scales the size that the sizing rule gives; 1 where the signal says nothing.
    pub strength: f64,
    /// How the order is to be made, where it differs from the graph's `order:`.
    pub order: OrderWish,
    /// The instrument's average true range in price, for sizing by it.
    pub atr: Option<f64>,
    /// The instrument's volatility a year (0.2: 20 %), for sizing by it; else it is measured.
    pub volatility: Option<f64>,
    /// The expected excess return a year of the instrument, signed, for Kelly sizing.
    pub expected: Option<f64>,
    /// Price at which a loss is cut, for an order that opens or grows a position.
    pub stop_loss: Option<f64>,
    /// Price at which a gain is taken.
    pub take_profit: Option<f64>,
}

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Want {
    /// A long position of the size that the sizing rule gives (`BUY`, `LONG`).
    Long,
    /// A short one (`SELL`, `SHORT`); flat where shorts are not allowed.
    Short,
    /// No position (`FLAT`, `EXIT`, `CLOSE`); working orders of the instrument are cancelled.
    Flat,
    /// A position of so many units, signed (column `target`).
    Target(Decimal),
    /// A position worth this part of equity, signed (column `weight`).
    Weight(f64),
    /// An order of so many units, signed, whatever the position is (column `quantity`).
    Trade(Decimal),
    /// Nothing but that working orders of the instrument are cancelled (`CANCEL`).
    Cancel,
}

/// How an order is to be made; what is `None` is as the graph's `order:` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OrderWish {
    /// Limit price.
    pub limit: Option<f64>,
    /// Trigger price.
    pub stop: Option<f64>,
    /// Distance of a trailing stop in price.
    pub trail: Option<f64>,
}

impl OrderWish {
    /// Every unit became `ratio` units, so prices are smaller by it.
    pub fn split(&mut self, ratio: f64) {
        for price in [&mut self.limit, &mut self.stop, &mut self.trail].into_iter().flatten() {
            *price /= ratio;
        }
    }
}

/// A command to the machine, from a control topic, a file or the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Cancels all orders; nothing is sent any more until `Resume`.
    Halt,
    /// Cancels all orders, closes all positions at market, then as `Halt`.
    Flatten,
    /// Only orders that make positions smaller pass until `Resume`.
    Reduce,
    /// Back to normal.
    Resume,
}
