//! What is traded.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::{Decimal, Exact};

/// An instrument as a graph describes it.
///
/// Only `symbol` and `quote` are needed for a stock paid in full; the rest has the defaults that are told with each field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instrument {
    /// Its name in the streams.
    pub symbol: String,
    /// `spot` (shares, coins), `perpetual`, `future` or `option`.
    #[serde(default)]
    pub class: Class,
    /// Currency that one unit of it is, for coins and currency pairs (`BTC` of `BTCUSDT`): a fee in it is taken from the units.
    #[serde(default)]
    pub base: Option<String>,
    /// Currency that it is priced and paid in.
    #[serde(default = "usd")]
    pub quote: String,
    /// Smallest step of a price.
    #[serde(default = "cent")]
    pub tick: Exact,
    /// Smallest step of a quantity.
    #[serde(default = "one")]
    pub lot: Exact,
    /// Smallest quantity of an order; default: one lot.
    #[serde(default)]
    pub min_quantity: Option<Exact>,
    /// Largest quantity of an order.
    #[serde(default)]
    pub max_quantity: Option<Exact>,
    /// Smallest value of an order, in `quote`.
    #[serde(default)]
    pub min_notional: Option<Exact>,
    /// Value of one unit at a price of one (contract size).
    #[serde(default = "one")]
    pub multiplier: Exact,
    /// Part of a position's value that must be there to open it (1: paid in full; 0.1: ten times leverage).
    #[serde(default = "one")]
    pub initial_margin: Exact,
    /// Part of a position's value that must stay there; below it the venue closes the position. Default: half of `initial_margin`, and
    /// 0.25 where that is 1 and the account is a margin account.
    #[serde(default)]
    pub maintenance_margin: Option<Exact>,
    /// Whether it may be sold short.
    #[serde(default = "yes")]
    pub shortable: bool,
    /// What borrowing units to sell short costs, a fraction of their value a year.
    #[serde(default)]
    pub borrow_rate: Exact,
    /// What is paid for trading; default: the account's `fees`.
    #[serde(default)]
    pub fees: Option<Fees>,
    /// When it is traded; default: always.
    #[serde(default)]
    pub session: Option<SessionSpec>,
    /// A group for limits, such as an industry.
    #[serde(default)]
    pub sector: Option<String>,
    /// Where it is traded, for limits by venue.
    #[serde(default)]
    pub venue: Option<String>,
}

fn usd() -> String {
    "USD".into()
}
fn cent() -> Exact {
    Exact(Decimal::new(1, 2))
}
fn one() -> Exact {
    Exact(Decimal::ONE)
}
fn yes() -> bool {
    true
}

/// What kind of thing it is: whether holding it means having paid for it (`spot`), or owing gains and losses (the others but `option`,
/// whose premium is paid).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Shares, coins, currencies: bought with cash.
    #[default]
    Spot,
    /// A perpetual future: gains and losses in `quote`, funding.
    Perpetual,
    /// A dated future: gains and losses in `quote`.
    Future,
    /// An option: its premium is paid with cash.
    Option,
}

/// Fees by how much was traded: the last tier whose `from` has been reached counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fees {
    /// A fraction of the value, for orders that rested in the book (negative: a rebate, of 0.01 at most).
    #[serde(default)]
    pub maker: Exact,
    /// A fraction of the value, for orders that took what was in the book.
    #[serde(default)]
    pub taker: Exact,
    /// An amount for each unit, on top (negative: a rebate, of 0.1 at most).
    #[serde(default)]
    pub per_unit: Exact,
    /// The least that an order costs, all of its fills together; paid with the first of them. An order that is sent in slices is as many orders.
    #[serde(default)]
    pub minimum: Exact,
    /// Better rates for those who trade much, by the value traded in the last 30 days.
    #[serde(default)]
    pub tiers: Vec<Tier>,
}

/// Rates from a value traded in the last 30 days on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Value traded in the last 30 days, in the account's currency.
    pub from: Exact,
    /// As in [`Fees`].
    pub maker: Exact,
    /// As in [`Fees`].
    pub taker: Exact,
}

/// When an instrument is traded: the hours of a market that has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// Time zone of the hours, such as `America/New_York`.
    pub zone: String,
    /// Start of the day's session, `HH:MM`.
    pub open: String,
    /// End of the day's session, `HH:MM`; before `open`: on the next day.
    pub close: String,
    /// Days of the week; default: Monday to Friday (`[mon, tue, wed, thu, fri]`).
    #[serde(default)]
    pub days: Option<Vec<String>>,
    /// Dates without a session, `YYYY-MM-DD`.
    #[serde(default)]
    pub holidays: Vec<String>,
    /// Pauses in each session, such as `["11:30-12:30"]`. Nothing trades in one, and no session ends with it: orders for the day and positions
    /// that are closed at the close stay.
    #[serde(default)]
    pub breaks: Vec<String>,
    /// Sessions that end early, by the date on which they open: `{ 2013-11-29: "13:00" }`.
    #[serde(default)]
    pub early_close: BTreeMap<String, String>,
}
