//! Keeps a position's guard what it should be: the right orders at the venue, or the right prices watched here.

use super::Execution;
use super::brackets::{ASLEEP, Guard, Watch};
use super::orders::Purpose;
use super::send::Draft;
use crate::event::{Event, Reason, TradingState};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{OrderId, OrderType, Status, TimeInForce};

impl Execution {
    /// A position was opened, grew, shrank or turned: what guards it now.
    pub(super) fn guard_moved(&mut self, i: InstrumentId, before: Decimal) {
        self.own.orders.soften(i);
        let held = self.ledger.position(i);
        let (now, average) = (held.quantity, held.average);
        let tick = self.instruments[i as usize].tick.0;
        let params = &self.params.protect;
        let slot = &mut self.own.slots[i as usize];
        if now.is_zero() {
            (slot.guard, slot.watch, slot.unguarded) = (None, ASLEEP, false);
            return;
        }
        let same = !before.is_zero() && before.is_sign_positive() == now.is_sign_positive();
        if same && now.abs() <= before.abs() {
            return;
        }
        let long = now > Decimal::ZERO;
        let guard = Guard::new(params, long, average, &slot.asked, tick);
        slot.guard = (guard != Guard::default()).then_some(guard);
        slot.unguarded = false;
        // Where the venue holds the guard, its prices are followed too: what still enters goes when the stop is reached.
        slot.watch = match &slot.guard {
            Some(guard) => {
                let price = if slot.price > 0.0 { slot.price } else { money::to_f64(average) };
                Watch::new(guard, long, price, same.then_some(&slot.watch))
            }
            None => ASLEEP,
        };
    }

    /// Sends, changes or takes back the guard's orders.
    pub(super) fn protect(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        let slot = &self.own.slots[i as usize];
        if self.own.reconciling || (slot.guard.is_none() && !self.own.orders.any(i)) {
            return;
        }
        if slot.goal.is_some_and(|goal| self.needs_room(i, &goal)) {
            return;
        }
        let position = self.ledger.quantity(i);
        let quantity = money::floor_to(position.abs(), self.lot(i));
        let smallest =
            self.instruments[i as usize].min_quantity.unwrap_or(self.instruments[i as usize].lot).0;
        let side = super::goals::side_of(-position);
        let leaving = self.own.orders.of(i).any(|o| o.order.side == side && self.is_in_place_of_guard(o))
            || self.own.parents.values().any(|p| p.instrument == i && p.side == side && !p.closes);
        self.tell_aside(i, leaving && quantity >= smallest, out);
        let slot = &self.own.slots[i as usize];
        let stands = quantity >= smallest
            && !leaving
            && !slot.closing.is_on()
            && !slot.unguarded
            && !self.watches()
            && self.gate.state() != TradingState::Halted
            && (self.paper.is_some() || self.own.snapshot_at.is_some());
        let legs = match (&slot.guard, stands) {
            (Some(guard), true) => guard.legs(),
            _ => [None, None],
        };
        for (purpose, leg) in [Purpose::StopLoss, Purpose::TakeProfit].into_iter().zip(legs) {
            let live: Vec<OrderId> =
                self.own.orders.of(i).filter(|o| o.purpose == purpose).map(|o| o.order.id).collect();
            match (leg, live.split_first()) {
                // The paper venue ends them with the position.
                (None, _) if position.is_zero() && self.paper.is_some() => {}
                (None, _) => live.into_iter().for_each(|id| self.cancel(id, Reason::Bracket, out)),
                (Some((_, order_type)), None) => {
                    let reason =
                        if purpose == Purpose::StopLoss { Reason::StopLoss } else { Reason::TakeProfit };
                    let draft = Draft {
                        instrument: i,
                        side,
                        quantity,
                        order_type,
                        time_in_force: TimeInForce::Gtc,
                        post_only: false,
                        reduce_only: true,
                        purpose,
                        reason,
                    };
                    if !self.send_own(draft, out) {
                        // The gate's word stands until the position is another.
                        self.own.slots[i as usize].unguarded = true;
                    }
                }
                (Some((_, order_type)), Some((first, others))) => {
                    self.fit(*first, side, quantity, order_type, out);
                    others.iter().for_each(|id| self.cancel(*id, Reason::Bracket, out));
                }
            }
        }
    }

    /// Makes a guard's order fit its position.
    fn fit(
        &mut self,
        id: OrderId,
        side: crate::order::Side,
        quantity: Decimal,
        wanted: OrderType,
        out: &mut Vec<Event>,
    ) {
        let Some(order) = self.own.orders.get(id) else { return };
        if order.canceling || order.changing || order.rigid {
            return;
        }
        let same_kind = std::mem::discriminant(&order.order.order_type) == std::mem::discriminant(&wanted);
        let trail = |o: OrderType| if let OrderType::TrailingStop { trail } = o { Some(trail) } else { None };
        if order.order.side != side || !same_kind || trail(order.order.order_type) != trail(wanted) {
            return self.cancel(id, Reason::Bracket, out);
        }
        // While the venue has not spoken there is nothing to be changed.
        if !matches!(order.status, Status::Working | Status::PartlyFilled) {
            return;
        }
        let whole = order.filled() + quantity;
        let wanted = crate::order::Order { order_type: wanted, ..order.order.clone() };
        let limit = wanted.limit().filter(|l| Some(*l) != order.order.limit());
        // What has begun to close is not called back by an average that moved; it closes what came since, too.
        let stop = wanted.stop().filter(|s| Some(*s) != order.order.stop() && order.filled().is_zero());
        let quantity = (order.order.quantity != whole).then_some(whole);
        if quantity.is_some() || limit.is_some() || stop.is_some() {
            self.modify(id, quantity, limit, stop, Reason::Bracket, out);
        }
    }
}
