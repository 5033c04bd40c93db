//! Whether orders pass: commands, breakers, liquidation.

use super::Execution;
use super::goals::side_of;
use crate::event::{Event, Happened, Reason, TradingState};
use crate::gate::Action;
use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::{OrderId, Side};
use crate::signal::Control;

impl Execution {
    /// A command from outside.
    pub(super) fn command(&mut self, control: Control, why: &str, out: &mut Vec<Event>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.gate.control(self.own.now, control, why, &mut actions);
        if control == Control::Resume {
            self.resume_closings();
        }
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
    pub(super) fn cancel_opening(&mut self, out: &mut Vec<Event>) {
        for i in 0..self.own.slots.len() as InstrumentId {
            let position = self.ledger.quantity(i);
            let opens = |side: Side, units: Decimal| units > side.reducible(position);
            if self.own.slots[i as usize].goal.is_some_and(|g| {
                g.target.abs() > position.abs()
                    || opens(
                        side_of(g.target.saturating_sub(position)),
                        (g.target.saturating_sub(position)).abs(),
                    )
            }) {
                self.own.slots[i as usize].goal = None;
            }
            // All that stays may be filled: together it closes no more than what is held. What came first stays first.
            let mut left = position.abs();
            let mut stays = |side: Side, units: Decimal| {
                let stays = !side.reducible(position).is_zero() && units <= left;
                left -= if stays { units } else { Decimal::ZERO };
                stays
            };
            let orders = self.own.orders.of(i).filter(|o| !o.order.reduce_only);
            let ids: Vec<OrderId> =
                orders.filter(|o| !stays(o.order.side, o.rest())).map(|o| o.order.id).collect();
            let parents = self.own.parents.iter().filter(|(_, p)| p.instrument == i);
            let parents: Vec<u64> = parents
                .filter(|(_, p)| !stays(p.side, p.schedule.rest()))
                .map(|(number, _)| *number)
                .collect();
            parents.into_iter().for_each(|number| self.drop_parent(number));
            ids.into_iter().for_each(|id| self.cancel(id, Reason::KillSwitch, out));
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

    /// All positions were closed because the margin was used up: whether anything is left.
    pub(super) fn look_for_ruin(&mut self, out: &mut Vec<Event>) {
        let equity = self.ledger.equity();
        if equity <= 0.0 {
            let detail = format!(
                "equity is {equity:.2} {} after all positions were closed, for the price had passed the liquidation price by far: nothing can be opened any more, and a broker would ask for what is owed",
                self.params.account.currency
            );
            self.alert(None, "ruined", detail, out);
        }
    }
}
