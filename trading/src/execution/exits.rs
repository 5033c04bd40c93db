//! Exits: orders that only close what is held. They stand beside the position's guard, which stays as long as they rest.
//!
//! Both are reduce-only: the venue cuts each to what is still held, so that they never close more than that together, whichever is filled first.
//! That is the paper venue's rule, and that of exchanges that know reduce-only orders; for an external venue the machine cuts them too, since a
//! sink may send them without the condition.
//!
//! Only two kinds of orders need the guard out of the way first: one that turns the position at market (it cannot be reduce-only), and a market order
//! for an external venue, since brokers of shares take no second order for shares that are in one already. A turn by an order that rests is sent in two
//! parts, so that the first may stand beside the guard.

use super::Execution;
use super::goals::side_of;
use super::orders::{Purpose, Tracked};
use super::params::{Turn, TypeParams};
use super::slot::Goal;
use crate::event::{Event, Reason};
use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::{OrderId, OrderType, Side, Status};
use crate::signal::OrderWish;

impl Execution {
    /// Whether the venue holds orders that guard the position, or will.
    pub(super) fn is_guarded(&self, i: InstrumentId) -> bool {
        let guards = self.own.slots[i as usize].guard.is_some() && !self.watches();
        guards || self.own.orders.of(i).any(|o| o.purpose.protects())
    }

    /// Whether a wish is for one market order.
    fn is_immediate(&self, wish: OrderWish) -> bool {
        wish == OrderWish::default()
            && self.params.order.algo.is_none()
            && self.params.order.order_type == TypeParams::Market
    }

    /// Whether an exit by such a wish may stand beside the guard.
    fn stands_beside(&self, wish: OrderWish) -> bool {
        self.paper.is_some() || !self.is_immediate(wish)
    }

    /// Whether the position is turned in two parts: the graph says so, or its guard stands beside the first.
    pub(super) fn turns_in_two(&self, i: InstrumentId, wish: OrderWish) -> bool {
        self.params.order.turn == Turn::Two || (self.is_guarded(i) && !self.is_immediate(wish))
    }

    /// Whether a goal needs the guard out of the way.
    pub(super) fn needs_room(&self, i: InstrumentId, goal: &Goal) -> bool {
        let position = self.ledger.quantity(i);
        let missing = goal.target.saturating_sub(self.coming(i));
        if position.is_zero() || missing.is_zero() || side_of(position) == side_of(missing) {
            return false;
        }
        let turns = !goal.target.is_zero() && side_of(position) != side_of(goal.target);
        !self.stands_beside(goal.wish) || (turns && !self.turns_in_two(i, goal.wish))
    }

    /// Units that orders of a side, guards apart, may still trade; with what is not sent of sliced ones.
    fn works(&self, i: InstrumentId, side: Side, unsent: bool) -> Decimal {
        let orders = self.own.orders.of(i).filter(|o| !o.purpose.protects() && o.order.side == side);
        let parents = self.own.parents.values().filter(|p| unsent && p.instrument == i && p.side == side);
        let rests = orders.map(Tracked::rest).chain(parents.map(|p| p.schedule.rest()));
        rests.fold(Decimal::ZERO, Decimal::saturating_add)
    }

    /// Units of a side that close what is held, and that no other order does; `unsent`: nor one that is to be sent.
    pub(super) fn closable(&self, i: InstrumentId, side: Side, unsent: bool) -> Decimal {
        let position = self.ledger.quantity(i);
        if position.is_zero() || side == side_of(position) {
            return Decimal::ZERO;
        }
        position.abs().saturating_sub(self.works(i, side, unsent)).max(Decimal::ZERO)
    }

    /// Whether such an order is an exit that goes beside the guard, reduce-only.
    pub(super) fn goes_beside(
        &self,
        i: InstrumentId,
        side: Side,
        quantity: Decimal,
        wish: OrderWish,
        unsent: bool,
    ) -> bool {
        self.is_guarded(i) && self.stands_beside(wish) && quantity <= self.closable(i, side, unsent)
    }

    /// Whether an order that closes stands in the guard's place: the venue would not cut it, or not take both.
    pub(super) fn is_in_place_of_guard(&self, order: &Tracked) -> bool {
        let locks = self.paper.is_none() && order.order.order_type == OrderType::Market;
        !order.purpose.protects()
            && (!order.order.reduce_only || (locks && !matches!(order.purpose, Purpose::Slice(_))))
    }

    /// Takes back exits, sent and unsent: what is wanted now is more than to leave.
    pub(super) fn cancel_exits(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        self.drop_exit_parents(i);
        let is_exit =
            |o: &&Tracked| o.order.reduce_only && matches!(o.purpose, Purpose::Wish | Purpose::Slice(_));
        let ids: Vec<OrderId> = self.own.orders.of(i).filter(is_exit).map(|o| o.order.id).collect();
        ids.into_iter().for_each(|id| self.cancel(id, Reason::Replaced, out));
    }

    fn drop_exit_parents(&mut self, i: InstrumentId) {
        let parents = self.own.parents.iter().filter(|(_, p)| p.instrument == i && p.closes);
        let numbers: Vec<u64> = parents.map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.drop_parent(number));
    }

    /// A position is another: exits are for no more than what is left of it. The paper venue cuts its own.
    pub(super) fn fit_exits(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        let position = self.ledger.quantity(i);
        if position.is_zero() {
            self.drop_exit_parents(i);
        }
        if self.paper.is_some() || self.params.order.reduce_only {
            return;
        }
        let exits: Vec<Tracked> = self
            .own
            .orders
            .of(i)
            .filter(|o| o.order.reduce_only && matches!(o.purpose, Purpose::Wish | Purpose::Slice(_)))
            .cloned()
            .collect();
        let mut left = position.abs();
        for exit in exits {
            let closes = !position.is_zero() && exit.order.side != side_of(position);
            let most = if closes { exit.rest().min(left) } else { Decimal::ZERO };
            left = left.saturating_sub(most);
            if most.is_zero() {
                self.cancel(exit.order.id, Reason::Bracket, out);
            } else if most < exit.rest()
                && !exit.rigid
                && matches!(exit.status, Status::Working | Status::PartlyFilled)
            {
                let whole = exit.filled().saturating_add(most);
                self.modify(exit.order.id, Some(whole), None, None, Reason::Bracket, out);
            }
        }
    }

    /// Whether anything may still make a position larger on this side.
    pub(super) fn still_enters(&self, i: InstrumentId, side: Side) -> bool {
        let orders = self.own.orders.of(i).filter(|o| !o.purpose.protects() && !o.order.reduce_only);
        let mut sides = orders
            .map(|o| o.order.side)
            .chain(self.own.parents.values().filter(|p| p.instrument == i && !p.closes).map(|p| p.side));
        let grows = self.own.slots[i as usize].goal.is_some_and(|g| {
            g.target.abs() > self.ledger.quantity(i).abs() && !g.target.is_zero() && side_of(g.target) == side
        });
        grows || sides.any(|s| s == side)
    }
}
