//! What a paper venue keeps: all of it, so that a venue that was saved and restored goes on as if nothing had been.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::fees::{OrderFees, Volume};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{Command, Order, OrderId, OrderType, Side};
use crate::paper::view::View;
use crate::report::Report;

/// Where a working order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Waits for its trigger.
    Armed,
    /// Takes from what is shown next.
    Taking,
    /// Rests at its limit.
    Resting,
}

/// A working order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// As it stands now: its quantity is the whole one, filled part included.
    pub order: Order,
    /// Time priority.
    pub seq: u64,
    pub filled: Decimal,
    /// What its fills cost.
    pub fees: OrderFees,
    pub phase: Phase,
    /// The limit as market data are compared with it; NaN: none.
    pub limit: f64,
    /// The trigger; NaN: none, or none yet.
    pub trigger: f64,
    /// Trades that were before it came, or was changed.
    pub prints: u64,
    /// Best price since the order began, of a trailing stop; NaN: none yet.
    pub best: f64,
    /// What is ahead of it at its price. `None`: not known yet.
    pub ahead: Option<Decimal>,
    /// What traded at its price since what is shown there changed.
    pub traded: Decimal,
    /// Those ahead of it, one by one, where the feed tells of each and the queue is to be exact.
    pub front: BTreeMap<u64, Decimal>,
    /// When it expires; `i64::MAX`: never.
    pub until: i64,
    /// The price at which it was triggered on the way from one price of a bar to the next.
    pub passed: Option<f64>,
    /// Over; goes with the next sweep.
    pub is_over: bool,
}

impl Work {
    pub fn new(order: Order, seq: u64, until: i64) -> Self {
        let mut work = Self {
            order,
            seq,
            filled: Decimal::ZERO,
            fees: OrderFees::default(),
            phase: Phase::Taking,
            limit: f64::NAN,
            trigger: f64::NAN,
            prints: 0,
            best: f64::NAN,
            ahead: None,
            traded: Decimal::ZERO,
            front: BTreeMap::new(),
            until,
            passed: None,
            is_over: false,
        };
        work.reprice();
        work
    }

    /// Reads the prices of the order anew.
    pub fn reprice(&mut self) {
        self.limit = self.order.limit().map_or(f64::NAN, money::to_f64);
        if !matches!(self.order.order_type, OrderType::TrailingStop { .. }) {
            self.trigger = self.order.stop().map_or(f64::NAN, money::to_f64);
        }
    }

    pub fn left(&self) -> Decimal {
        self.order.quantity - self.filled
    }

    /// Whether the order may trade at a price.
    pub fn allows(&self, price: f64) -> bool {
        match self.order.side {
            _ if self.limit.is_nan() => true,
            Side::Buy => price <= self.limit,
            Side::Sell => price >= self.limit,
        }
    }

    /// Whether it is triggered by prices at or above the trigger, rather than at or below.
    pub fn triggers_up(&self) -> bool {
        let takes_profit = matches!(self.order.order_type, OrderType::TakeProfit { .. });
        (self.order.side == Side::Buy) != takes_profit
    }
}

/// What a venue has of one instrument.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Desk {
    /// Working orders; a new one goes to the end.
    pub orders: Vec<Work>,
    /// Units that the account holds here.
    pub position: Decimal,
    /// What one unit of the quote currency is worth in the account's; `None`: as much, as far as anyone has said.
    pub rate: Option<Decimal>,
}

/// All that a paper venue remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PaperState {
    pub(crate) now: i64,
    /// Commands on their way, with the time at which they arrive.
    pub(crate) commands: VecDeque<(i64, Command)>,
    /// Reports on their way; `ts` is when they arrive.
    pub(crate) reports: VecDeque<Report>,
    /// When working orders expire: time, priority, instrument.
    pub(crate) timers: BTreeSet<(i64, u64, InstrumentId)>,
    pub(crate) last_command: i64,
    pub(crate) last_report: i64,
    /// How many commands, reports, priorities and fills there were.
    pub(crate) commands_sent: u64,
    pub(crate) reports_sent: u64,
    pub(crate) seqs: u64,
    pub(crate) fills: u64,
    pub(crate) views: Vec<View>,
    pub(crate) desks: Vec<Desk>,
    /// Working orders by name.
    pub(crate) index: BTreeMap<OrderId, InstrumentId>,
    /// Value traded in 30 days, for fees by tier.
    pub(crate) volume: Volume,
}
