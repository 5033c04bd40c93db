//! Whether orders pass, and positions that must go: commands, breakers, the session's end, liquidation.

use super::Execution;
use super::goals::side_of;
use super::orders::Purpose;
use super::send::Draft;
use crate::event::{Event, Happened, Reason, TradingState};
use crate::gate::Action;
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{OrderId, OrderType, TimeInForce};
use crate::signal::Control;

impl Execution {
    /// A command from outside.
    pub(super) fn command(&mut self, control: Control, out: &mut Vec<Event>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.gate.control(self.own.now, control, &mut actions);
        self.act(&mut actions, out);
        self.actions = actions;
    }

    /// Tells the gate what the account is worth.
    pub(super) fn follow(&mut self, out: &mut Vec<Event>) {
        if !self.follows {
            return;
        }
        let equity = self.ledger.equity();
        let mut actions = std::mem::take(&mut self.actions);
        self.gate.mark(self.own.now, equity, &mut actions);
        self.act(&mut actions, out);
        self.actions = actions;
    }

    /// Does what the gate says.
    pub(super) fn act(&mut self, actions: &mut Vec<Action>, out: &mut Vec<Event>) {
        let mut passes = false;
        for action in actions.drain(..) {
            match action {
                Action::State { state, reason } => {
                    passes = state != TradingState::Halted;
                    self.tell(Happened::State { state, reason }, out);
                }
                Action::CancelOpening => self.cancel_opening(out),
                Action::CancelAll => {
                    for i in 0..self.own.slots.len() as InstrumentId {
                        self.own.slots[i as usize].goal = None;
                        self.cancel_all(i, true, out);
                    }
                }
                Action::Flatten => self.close_everything(Reason::KillSwitch, out),
            }
        }
        if passes {
            // Guards that a halt took back stand again.
            for i in 0..self.own.slots.len() as InstrumentId {
                if self.own.slots[i as usize].held {
                    self.settle(i, out);
                }
            }
        }
    }

    /// Takes back what could make a position larger.
    fn cancel_opening(&mut self, out: &mut Vec<Event>) {
        for i in 0..self.own.slots.len() as InstrumentId {
            let position = self.ledger.quantity(i);
            let opens = |side: crate::order::Side, units: Decimal| {
                let reduces = !position.is_zero() && side != side_of(position);
                !reduces || units > position.abs()
            };
            if self.own.slots[i as usize].goal.is_some_and(|g| {
                g.target.abs() > position.abs()
                    || opens(
                        side_of(g.target.saturating_sub(position)),
                        (g.target.saturating_sub(position)).abs(),
                    )
            }) {
                self.own.slots[i as usize].goal = None;
            }
            let parents: Vec<u64> = self
                .own
                .parents
                .iter()
                .filter(|(_, p)| p.instrument == i && opens(p.side, p.schedule.rest()))
                .map(|(number, _)| *number)
                .collect();
            parents.into_iter().for_each(|number| self.drop_parent(number));
            let orders =
                self.own.orders.of(i).filter(|o| !o.order.reduce_only && opens(o.order.side, o.rest()));
            let ids: Vec<OrderId> = orders.map(|o| o.order.id).collect();
            ids.into_iter().for_each(|id| self.cancel(id, Reason::KillSwitch, out));
        }
    }

    fn close_everything(&mut self, reason: Reason, out: &mut Vec<Event>) {
        for i in 0..self.own.slots.len() as InstrumentId {
            if self.own.slots[i as usize].held || self.own.orders.any(i) {
                self.close(i, reason, out);
            }
        }
    }

    /// The position of an instrument must go: its orders are taken back, then it is closed at market.
    pub(super) fn close(&mut self, i: InstrumentId, reason: Reason, out: &mut Vec<Event>) {
        let slot = &mut self.own.slots[i as usize];
        slot.goal = None;
        self.drop_parents(i);
        let slot = &mut self.own.slots[i as usize];
        if !std::mem::replace(&mut slot.closing, true) {
            slot.closing_reason = reason;
        }
        self.settle_closing(i, out);
    }

    /// Goes on with closing a position.
    pub(super) fn settle_closing(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        let reason = self.own.slots[i as usize].closing_reason;
        let others: Vec<OrderId> = self
            .own
            .orders
            .of(i)
            .filter(|o| o.purpose != Purpose::Close && !o.stuck)
            .map(|o| o.order.id)
            .collect();
        if !others.is_empty() {
            return others.into_iter().for_each(|id| self.cancel(id, reason, out));
        }
        if self.own.orders.of(i).any(|o| o.purpose == Purpose::Close) {
            return;
        }
        let position = self.ledger.quantity(i);
        let largest = self.instruments[i as usize].max_quantity.map_or(Decimal::MAX, |max| max.0);
        let quantity = money::floor_to(position.abs().min(largest), self.lot(i));
        let draft = Draft {
            instrument: i,
            side: side_of(-position),
            quantity,
            order_type: OrderType::Market,
            time_in_force: TimeInForce::Gtc,
            post_only: false,
            reduce_only: true,
            purpose: Purpose::Close,
            reason,
        };
        // What is less than a lot cannot be sold: it stays.
        if quantity.is_zero() || !self.send_own(draft, out) {
            self.own.slots[i as usize].closing = false;
            self.own.liquidating &= self.own.slots.iter().any(|s| s.closing);
            self.settle(i, out);
        }
    }

    /// Closes everything once the margin is used up, where the paper venue does so.
    pub(super) fn look_for_liquidation(&mut self, out: &mut Vec<Event>) {
        if self.own.liquidating || !self.ledger.is_liquidated() {
            return;
        }
        self.own.liquidating = true;
        let detail = format!(
            "equity of {:.2} is below the maintenance margin of {:.2}: all positions are closed",
            self.ledger.equity(),
            self.ledger.margin_maintenance()
        );
        self.alert(None, "liquidated", detail, out);
        self.close_everything(Reason::Liquidation, out);
    }
}
