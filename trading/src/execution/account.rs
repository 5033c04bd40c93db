//! The account as others see it: the gate's and the sizing rules' view, and the rows of samples.

use super::Execution;
use super::orders::{Orders, Tracked};
use super::slot::Slot;
use crate::event::{EquityRow, Event, Happened, PositionRow};
use crate::gate::{View, Working};
use crate::history::History;
use crate::ledger::{AccountKind, Ledger};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{Order, Side};

/// The account with its working orders.
pub(super) struct Account<'a> {
    pub ledger: &'a Ledger,
    pub orders: &'a Orders,
    pub slots: &'a [Slot],
    pub history: &'a History,
}

impl View for Account<'_> {
    fn currency(&self) -> &str {
        &self.ledger.params().currency
    }

    fn equity(&self) -> f64 {
        self.ledger.equity()
    }

    fn position(&self, instrument: InstrumentId) -> Decimal {
        self.ledger.quantity(instrument)
    }

    fn working(&self, instrument: InstrumentId) -> Working {
        let mut working = Working::default();
        for order in self.orders.of(instrument) {
            let sum = sum_of(&mut working, order.order.side, order.order.reduce_only);
            *sum = sum.saturating_add(order.rest());
        }
        working
    }

    fn price(&self, instrument: InstrumentId) -> f64 {
        self.slots.get(instrument as usize).map_or(f64::NAN, |slot| slot.price)
    }

    fn rate(&self, instrument: InstrumentId) -> Option<Decimal> {
        self.ledger.rate(instrument)
    }

    fn history(&self) -> Option<&History> {
        Some(self.history)
    }
}

/// The account as it would be without one of its working orders.
pub(super) struct Without<'a> {
    pub account: Account<'a>,
    pub order: &'a Tracked,
}

impl View for Without<'_> {
    fn currency(&self) -> &str {
        self.account.currency()
    }

    fn equity(&self) -> f64 {
        self.account.equity()
    }

    fn position(&self, instrument: InstrumentId) -> Decimal {
        self.account.position(instrument)
    }

    fn working(&self, instrument: InstrumentId) -> Working {
        let mut working = self.account.working(instrument);
        let Order { instrument: own, side, reduce_only, .. } = self.order.order;
        if instrument == own {
            let sum = sum_of(&mut working, side, reduce_only);
            *sum = sum.saturating_sub(self.order.rest());
        }
        working
    }

    fn price(&self, instrument: InstrumentId) -> f64 {
        self.account.price(instrument)
    }

    fn rate(&self, instrument: InstrumentId) -> Option<Decimal> {
        self.account.rate(instrument)
    }

    fn history(&self) -> Option<&History> {
        self.account.history()
    }
}

fn sum_of(working: &mut Working, side: Side, reduce_only: bool) -> &mut Decimal {
    match (side, reduce_only) {
        (Side::Buy, false) => &mut working.buys,
        (Side::Sell, false) => &mut working.sells,
        (Side::Buy, true) => &mut working.reducing_buys,
        (Side::Sell, true) => &mut working.reducing_sells,
    }
}

impl Execution {
    /// The account as a whole, now.
    pub fn equity(&mut self) -> EquityRow {
        let equity = self.ledger.equity();
        if equity.is_finite() {
            self.own.peak = self.own.peak.max(equity);
        }
        let peak = self.own.peak;
        EquityRow {
            equity,
            cash: self.ledger.cash_total(),
            gross: self.ledger.gross(),
            net: self.ledger.net(),
            margin: self.ledger.margin_used(),
            realized: money::to_f64(self.ledger.realized_total()),
            unrealized: self.ledger.unrealized_total(),
            fees: money::to_f64(self.ledger.fees_total()),
            drawdown: if peak > 0.0 { 1.0 - equity / peak } else { 0.0 },
        }
    }

    /// A position, now.
    pub fn position(&self, i: InstrumentId) -> PositionRow {
        let held = self.ledger.position(i);
        PositionRow {
            instrument: i,
            quantity: held.quantity,
            average: held.average,
            price: self.own.slots[i as usize].price,
            realized: held.realized,
            unrealized: self.ledger.unrealized(i),
            fees: held.fees,
            value: self.ledger.value(i),
            liquidation: self.ledger.liquidation_price(i),
            liquidation_distance: self.ledger.liquidation_distance(i),
        }
    }

    /// Tells, once, that the account owes what it has not: a cash account in a currency, a margin account (whose cash may be borrowed) as a
    /// whole. Once it is paid, the next time is told again.
    pub(super) fn look_for_debt(&mut self, out: &mut Vec<Event>) {
        if self.params.account.kind == AccountKind::Margin {
            let equity = self.ledger.equity();
            let currency = &self.params.account.currency;
            if equity >= 0.0 {
                self.own.owed.clear();
            } else if equity < 0.0 && self.own.owed.insert(currency.clone()) {
                let detail = format!("equity is {equity:.2} {currency}: the account owes more than it has");
                self.alert(None, "negative_balance", detail, out);
            }
            return;
        }
        let ledger = &self.ledger;
        if !self.own.owed.is_empty() {
            self.own.owed.retain(|currency| ledger.cash(currency) < Decimal::ZERO);
        }
        let mut told = Vec::new();
        for (currency, cash) in ledger.negative_cash() {
            if self.own.owed.insert(currency.to_owned()) {
                told.push(format!("{cash} {currency} are left in a cash account"));
            }
        }
        for detail in told {
            self.alert(None, "negative_balance", detail, out);
        }
    }

    pub(super) fn tell_position(&self, i: InstrumentId, out: &mut Vec<Event>) {
        self.tell(Happened::Position(self.position(i)), out);
    }

    /// The rows of a sample: positions that are held, then the account.
    pub(super) fn sample(&mut self, out: &mut Vec<Event>) {
        for i in 0..self.own.slots.len() {
            if self.own.slots[i].held {
                self.tell_position(i as InstrumentId, out);
            }
        }
        self.follow(out);
        self.look_for_debt(out);
        let row = self.equity();
        self.own.sampled = Some((self.own.now, row));
        self.tell(Happened::Equity(row), out);
    }
}
