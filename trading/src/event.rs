//! What an execution machine tells: each is a row of its output, in the order in which it happened.

use serde::{Deserialize, Serialize};

use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::{Command, OrderId, Side, Status};
use crate::report::{CashReason, Fill};

/// Something that happened at `ts` (UTC nanoseconds).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub ts: i64,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Happened {
    /// A command left for the venue: what a broker sink sends (row `event`: `order`, `modify` or `cancel`).
    Sent {
        /// The command.
        command: Command,
        /// Of what.
        instrument: InstrumentId,
        /// Why.
        reason: Reason,
    },
    /// The gate refused an order before it was sent (row `rejection`).
    Refused {
        /// Of what.
        instrument: InstrumentId,
        /// Buy or sell.
        side: Side,
        /// Units asked for.
        quantity: Decimal,
        /// Name of the rule.
        rule: String,
        /// What it compared, with numbers.
        detail: String,
    },
    /// An order's state changed (row `status`).
    Order {
        /// Which.
        order: OrderId,
        /// Of what.
        instrument: InstrumentId,
        /// Its state now.
        status: Status,
        /// Units filled so far.
        filled: Decimal,
        /// The venue's words, where it gave any.
        reason: Option<String>,
    },
    /// An execution (row `fill`), with what it did to the account.
    Filled {
        /// The execution.
        fill: Fill,
        /// Profit that it made real, in the account's currency, before fees.
        realized: Decimal,
        /// Units held after it.
        position: Decimal,
        /// Average price of these.
        average: Decimal,
        /// Its fee in the account's currency; `None` where no rate is known yet.
        fee: Option<Decimal>,
        /// What one unit of the instrument's quote currency was worth in the account's; `None` where that is not known.
        rate: Option<Decimal>,
    },
    /// Cash came or went (row `cash`).
    Cash {
        /// Currency.
        currency: String,
        /// Signed.
        amount: Decimal,
        /// What for.
        reason: CashReason,
        /// Of which instrument.
        instrument: Option<InstrumentId>,
        /// What one unit of the currency was worth in the account's; `None` where that is not known.
        rate: Option<Decimal>,
    },
    /// A position, at each sample and after each change (row `position`).
    Position(PositionRow),
    /// The account as a whole, at each sample (row `equity`).
    Equity(EquityRow),
    /// The machine's state changed (row `state`): `normal`, `reducing` or `halted`.
    State {
        /// Its state now.
        state: TradingState,
        /// Which rule or command, and why.
        reason: String,
    },
    /// Something that a person should look at (row `alert`): a fill of an unknown order, a difference found while reconciling.
    Alert {
        /// Of what.
        instrument: Option<InstrumentId>,
        /// A word for it: `unknown_fill`, `duplicate_fill`, `position_differs`, `cash_differs`, `unknown_order`, `negative_balance`, ….
        code: String,
        /// What was found, with numbers.
        detail: String,
    },
}

/// A position, valued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionRow {
    /// Of what.
    pub instrument: InstrumentId,
    /// Units, negative when short.
    pub quantity: Decimal,
    /// Average price.
    pub average: Decimal,
    /// The price it is valued at; NaN where none is known.
    pub price: f64,
    /// Profit made real since the start, in the account's currency, before fees.
    pub realized: Decimal,
    /// Profit at `price`, in the account's currency.
    pub unrealized: f64,
    /// Fees paid since the start, in the account's currency.
    pub fees: Decimal,
    /// Value at `price`, signed, in the account's currency.
    pub value: f64,
    /// Price at which the venue would close it, for margin positions.
    pub liquidation: Option<f64>,
    /// How far `price` is from it, as a fraction of `price`: 0.1 is 10 % to go.
    pub liquidation_distance: Option<f64>,
}

/// An account, valued, in its currency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EquityRow {
    /// Cash and positions.
    pub equity: f64,
    /// Cash.
    pub cash: f64,
    /// Sum of the absolute values of positions.
    pub gross: f64,
    /// Sum of the values of positions.
    pub net: f64,
    /// Margin in use.
    pub margin: f64,
    /// Profit made real since the start, before fees.
    pub realized: f64,
    /// Profit of open positions.
    pub unrealized: f64,
    /// Fees since the start.
    pub fees: f64,
    /// One minus equity by its peak.
    pub drawdown: f64,
}

/// Whether orders pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TradingState {
    /// All orders pass.
    #[default]
    Normal,
    /// Only orders that make positions smaller.
    Reducing,
    /// None.
    Halted,
}

/// Why a command was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A strategy wanted it.
    Signal,
    /// A position's loss was cut.
    StopLoss,
    /// A position's gain was taken.
    TakeProfit,
    /// The other leg of a bracket or OCO pair was filled.
    Bracket,
    /// A slice of a larger order.
    Slice,
    /// The state of the machine: halt, flatten, drawdown.
    KillSwitch,
    /// A newer wish took its place.
    Replaced,
    /// The session is about to end.
    SessionClose,
    /// The margin is used up.
    Liquidation,
}
