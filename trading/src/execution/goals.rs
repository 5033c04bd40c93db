//! From a wish to orders: what position is wanted, what of it is missing, what works against it.

use super::Execution;
use super::orders::Purpose;
use super::params::Mode;
use super::slot::{Cause, Goal, Parent};
use crate::algo::Schedule;
use crate::event::{Event, Happened, Reason};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{OrderId, Side};
use crate::signal::{OrderWish, Signal, Want};

/// The most units that a signal may ask for.
const UNITS_MAX: Decimal = Decimal::from_parts(2_764_472_320, 232_830, 0, false, 0);

/// The side of an order of so many signed units.
pub(super) fn side_of(quantity: Decimal) -> Side {
    if quantity > Decimal::ZERO { Side::Buy } else { Side::Sell }
}

impl Execution {
    /// A strategy wants something.
    pub(super) fn wish(&mut self, signal: &Signal, out: &mut Vec<Event>) {
        let i = signal.instrument;
        if i as usize >= self.own.slots.len() {
            return;
        }
        self.sizing.note(signal);
        let cause = Cause { ts: signal.ts, src: signal.src, seq: signal.seq, n: 0 };
        let direction = match signal.want {
            Want::Long => 1,
            Want::Short => -1,
            Want::Flat => 0,
            Want::Target(q) => direction_of(q),
            Want::Weight(w) if w.is_finite() => direction_of(Decimal::from(if w > 0.0 {
                1
            } else if w < 0.0 {
                -1
            } else {
                0
            })),
            Want::Weight(w) => {
                return self.refuse(
                    i,
                    Side::Buy,
                    Decimal::ZERO,
                    "signal.weight",
                    format!("{w} is no part of equity"),
                    out,
                );
            }
            Want::Trade(q) => direction_of(q),
            Want::Cancel => {
                self.own.slots[i as usize].goal = None;
                self.cancel_all(i, false, out);
                return;
            }
        };
        if let Want::Trade(quantity) = signal.want {
            if quantity.abs() > UNITS_MAX {
                return self.refuse_units(i, quantity, out);
            }
            let position = self.ledger.quantity(i);
            let grows = position.is_zero() || direction_of(position) == direction;
            if grows && !self.may_keep(i, side_of(quantity), true, out) {
                return;
            }
            if self.is_dust(signal, quantity, out) {
                return;
            }
            return self.trade(signal, quantity, cause, out);
        }
        let slot = &self.own.slots[i as usize];
        let wanted = (direction, signal.strength);
        let fresh = slot.wanted.is_none_or(|(was, strength)| {
            was != direction || (strength - signal.strength).abs() > f64::EPSILON
        });
        if slot.stopped && !fresh && direction != 0 && !self.params.protect.reenter {
            // The guard said no to this very wish.
            return;
        }
        let side = if direction < 0 { Side::Sell } else { Side::Buy };
        if direction != 0 && !self.may_keep(i, side, fresh, out) {
            return;
        }
        let sided = matches!(signal.want, Want::Long | Want::Short);
        if self.params.mode == Mode::Trade && sided {
            let Some(units) = self.size(signal, out) else { return };
            if self.is_dust(signal, units, out) {
                return;
            }
            let slot = &mut self.own.slots[i as usize];
            (slot.wanted, slot.stopped) = (Some(wanted), false);
            return self.trade(signal, self.allowed(i, units), cause, out);
        }
        let coming = self.coming(i);
        if sided && !fresh && self.params.rebalance.is_none() && direction_of(coming) == direction {
            // The position is there, or on its way.
            let names = signal.stop_loss.is_some() || signal.take_profit.is_some();
            let missing = coming.saturating_sub(self.ledger.quantity(i));
            if !self.may_trigger(signal, missing, out) || (names && !self.may_aim(signal, coming, out)) {
                return;
            }
            self.reprice(i, coming, signal.order, cause, out);
            return if names {
                self.reguard(i, out)
            };
        }
        let Some(units) = self.size(signal, out) else { return };
        let mut target = self.allowed(i, units);
        let mut refused = target.is_zero() && self.may_hold(i, units) && self.is_dust(signal, units, out);
        if !self.may_trigger(signal, target.saturating_sub(coming), out) {
            return;
        }
        if !self.may_aim(signal, target, out) {
            let position = self.ledger.quantity(i);
            if position.is_zero() || side_of(position) == side_of(target) {
                return;
            }
            // What it was to be turned from is not wanted any more.
            (target, refused) = (Decimal::ZERO, true);
        }
        let slot = &mut self.own.slots[i as usize];
        (slot.wanted, slot.stopped) = (Some(wanted), false);
        if !refused {
            slot.refused = None;
        }
        let near = self.params.rebalance.is_some_and(|band| {
            let off = target.saturating_sub(coming).abs();
            !target.is_zero()
                && direction_of(coming) == direction_of(target)
                && band.0.checked_mul(target.abs()).is_some_and(|band| off <= band)
        });
        if near || target == coming {
            self.own.slots[i as usize].goal = None;
            self.reprice(i, coming, signal.order, cause, out);
        } else {
            let position = self.ledger.quantity(i);
            let turns = !target.is_zero() && !position.is_zero() && side_of(target) != side_of(position);
            if turns {
                self.cancel_exits(i, out);
            }
            self.own.slots[i as usize].goal =
                Some(Goal { target, wish: signal.order, cause, reason: Reason::Signal });
            self.settle(i, out);
        }
        if signal.stop_loss.is_some() || signal.take_profit.is_some() {
            self.reguard(i, out);
        }
    }

    /// A wish for an order of so many signed units, whatever is held.
    fn trade(&mut self, signal: &Signal, mut units: Decimal, cause: Cause, out: &mut Vec<Event>) {
        let i = signal.instrument;
        let position = self.ledger.quantity(i);
        if !self.may_trigger(signal, units, out) {
            return;
        }
        let mut refused = false;
        if !self.may_aim(signal, position.saturating_add(units), out) {
            if position.is_zero() || side_of(position) == side_of(units) {
                return;
            }
            // It may still close what is held.
            (units, refused) = (-position, true);
        }
        if !refused {
            self.own.slots[i as usize].refused = None;
        }
        self.order(i, units, signal.order, cause, Reason::Signal, out);
        self.protect(i, out);
        if signal.stop_loss.is_some() || signal.take_profit.is_some() {
            self.reguard(i, out);
        }
    }

    /// Whether a position of this sign may be held at all.
    fn may_hold(&self, i: InstrumentId, units: Decimal) -> bool {
        units > Decimal::ZERO || self.may_short(i) || self.params.mode == Mode::Trade
    }

    /// The position that a wish asks for, before what is allowed.
    fn size(&mut self, signal: &Signal, out: &mut Vec<Event>) -> Option<Decimal> {
        let i = signal.instrument;
        match signal.want {
            Want::Flat => return Some(Decimal::ZERO),
            Want::Short if self.params.mode == Mode::Target && !self.may_short(i) => {
                return Some(Decimal::ZERO);
            }
            Want::Target(units) if units.abs() <= UNITS_MAX => return Some(units),
            Want::Target(units) => {
                self.refuse_units(i, units, out);
                return None;
            }
            _ => {}
        }
        let side = if signal.want == Want::Short { Side::Sell } else { Side::Buy };
        let price = self.own.slots[i as usize].price;
        if !price.is_finite() {
            let symbol = &self.instruments[i as usize].symbol;
            let detail =
                format!("no price of {symbol} has been seen, so nothing tells how many units it should be");
            self.refuse(i, side, Decimal::ZERO, "sizing.price", detail, out);
            return None;
        }
        let sized = {
            let view = super::account::Account {
                ledger: &self.ledger,
                orders: &self.own.orders,
                slots: &self.own.slots,
                history: &self.history,
            };
            match self.sizing.size(signal, price, &view, &self.history) {
                // How far below a lot it is, is told.
                Ok(none) if none.is_zero() => self.sizing.units(signal, price, &view, &self.history),
                sized => sized,
            }
        };
        match sized {
            Ok(units) => Some(units),
            Err(why) => {
                self.refuse(i, side, Decimal::ZERO, why.rule(), why.to_string(), out);
                None
            }
        }
    }

    fn may_short(&self, i: InstrumentId) -> bool {
        self.params.short && self.ledger.can_short(i)
    }

    /// What of a signed number of units may be had: whole lots, and no short position where there must be none.
    fn allowed(&self, i: InstrumentId, units: Decimal) -> Decimal {
        let short = self.may_short(i);
        let units = money::floor_to(units, self.lot(i));
        if units < Decimal::ZERO && !short && self.params.mode == Mode::Target {
            Decimal::ZERO
        } else {
            units
        }
    }

    /// What will be held once all that works is filled, guards apart.
    pub(super) fn coming(&self, i: InstrumentId) -> Decimal {
        let position = self.ledger.quantity(i);
        let all_reduce = self.params.order.reduce_only;
        let orders = self.own.orders.of(i).filter(|o| !o.purpose.protects());
        let orders = orders.map(|o| (o.order.reduce_only && !all_reduce, o.signed_rest()));
        let parents = self.own.parents.values().filter(|p| p.instrument == i);
        let unsent = parents.map(|p| (p.closes, p.side.sign() * p.schedule.rest()));
        let (mut others, mut exits) = (Decimal::ZERO, Decimal::ZERO);
        for (exit, units) in orders.chain(unsent) {
            let sum = if exit { &mut exits } else { &mut others };
            *sum = sum.saturating_add(units);
        }
        // Exits close no more than what is held when they are filled.
        let (least, most) = ((-position).min(Decimal::ZERO), (-position).max(Decimal::ZERO));
        position.saturating_add(exits.clamp(least, most)).saturating_add(others)
    }

    /// Brings orders nearer to the goal: takes back what works against it, then sends what is missing.
    pub(super) fn settle(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        if self.own.slots[i as usize].closing.is_on() {
            return self.settle_closing(i, out);
        }
        if self.own.reconciling {
            // What is wanted waits for the snapshot.
            return;
        }
        let Some(goal) = self.own.slots[i as usize].goal else { return self.protect(i, out) };
        let position = self.ledger.quantity(i);
        let coming = self.coming(i);
        let missing = goal.target.saturating_sub(coming);
        let against = |side: Side| !missing.is_zero() && side != side_of(missing);
        let turned: Vec<u64> = self
            .own
            .parents
            .iter()
            .filter(|(_, p)| p.instrument == i && against(p.side))
            .map(|(n, _)| *n)
            .collect();
        if !turned.is_empty() {
            turned.iter().for_each(|number| self.drop_parent(*number));
            return self.settle(i, out);
        }
        let needs_room = self.needs_room(i, &goal);
        let stale: Vec<OrderId> = self
            .own
            .orders
            .of(i)
            .filter(|o| if o.purpose.protects() { needs_room } else { against(o.order.side) || o.canceling })
            .map(|o| o.order.id)
            .collect();
        if !stale.is_empty() {
            let reason = if goal.reason == Reason::Signal { Reason::Replaced } else { goal.reason };
            stale.into_iter().for_each(|id| self.cancel(id, reason, out));
            return self.protect(i, out);
        }
        if missing.is_zero() {
            self.own.slots[i as usize].goal = None;
            if goal.reason == Reason::Replaced {
                self.reprice(i, coming, goal.wish, goal.cause, out);
            }
            return self.protect(i, out);
        }
        let turns =
            !position.is_zero() && !goal.target.is_zero() && side_of(position) != side_of(goal.target);
        if turns && self.turns_in_two(i, goal.wish) {
            if coming == position {
                // What is left of the goal goes on once the position is closed.
                let cause = self.order(i, -position, goal.wish, goal.cause, goal.reason, out);
                self.own.slots[i as usize].goal = cause.map(|cause| Goal { cause, ..goal });
            }
            return self.protect(i, out);
        }
        self.own.slots[i as usize].goal = None;
        self.order(i, missing, goal.wish, goal.cause, goal.reason, out);
        self.protect(i, out);
    }

    /// An order of so many signed units, sliced where the graph says so. Where it went out: the cause, with the count of its orders.
    pub(super) fn order(
        &mut self,
        i: InstrumentId,
        units: Decimal,
        wish: OrderWish,
        mut cause: Cause,
        reason: Reason,
        out: &mut Vec<Event>,
    ) -> Option<Cause> {
        let units = money::floor_to(units, self.lot(i));
        if units.is_zero() {
            return None;
        }
        let Some(algo) = &self.params.order.algo else {
            return self.order_now(i, units, wish, &mut cause, reason, out).then_some(cause);
        };
        let closes = self.goes_beside(i, side_of(units), units.abs(), wish, true);
        let schedule = Schedule::new(algo, self.own.now, units.abs(), self.lot(i));
        let number = self.own.next_parent;
        self.own.next_parent += 1;
        self.own
            .parents
            .insert(number, Parent { instrument: i, side: side_of(units), schedule, wish, cause, closes });
        self.own.slots[i as usize].counts = true;
        self.slice(number, out)
    }

    /// Sends what is due of a sliced order.
    /// The cause, with the count of its orders, where nothing of it was refused.
    pub(super) fn slice(&mut self, number: u64, out: &mut Vec<Event>) -> Option<Cause> {
        let now = self.own.now;
        if self.own.reconciling {
            return self.own.parents.get(&number).map(|parent| parent.cause);
        }
        let parent = self.own.parents.get_mut(&number)?;
        let mut units = parent.schedule.due(now);
        let (i, side, wish, mut cause) = (parent.instrument, parent.side, parent.wish, parent.cause);
        let mut over = parent.schedule.rest().is_zero();
        let mut refused = false;
        if parent.closes {
            // Its guard may have closed a part meanwhile.
            let left = self.closable(i, side, false);
            over |= units > left;
            units = units.min(left);
        }
        if !units.is_zero() {
            let sent =
                self.send_wish(i, side, units, wish, Purpose::Slice(number), &mut cause, Reason::Slice, out);
            if let Some(parent) = self.own.parents.get_mut(&number) {
                parent.cause = cause;
            }
            refused = !sent;
        }
        if over || refused {
            self.drop_parent(number);
        }
        (!refused).then_some(cause)
    }

    /// Gives up what is not sent of a sliced order.
    pub(super) fn drop_parent(&mut self, number: u64) {
        let Some(parent) = self.own.parents.remove(&number) else { return };
        let i = parent.instrument;
        self.own.slots[i as usize].counts = self.own.parents.values().any(|p| p.instrument == i);
    }

    /// Gives up all sliced orders of an instrument.
    pub(super) fn drop_parents(&mut self, i: InstrumentId) {
        let numbers: Vec<u64> =
            self.own.parents.iter().filter(|(_, p)| p.instrument == i).map(|(n, _)| *n).collect();
        numbers.into_iter().for_each(|number| self.drop_parent(number));
    }

    fn refuse_units(&self, i: InstrumentId, units: Decimal, out: &mut Vec<Event>) {
        let detail = format!("{units} units are more than {UNITS_MAX}");
        self.refuse(i, side_of(units), units.abs(), "signal.units", detail, out);
    }

    pub(super) fn refuse(
        &self,
        instrument: InstrumentId,
        side: Side,
        quantity: Decimal,
        rule: &str,
        detail: String,
        out: &mut Vec<Event>,
    ) {
        self.tell(Happened::Refused { instrument, side, quantity, rule: rule.to_owned(), detail }, out);
    }
}

fn direction_of(units: Decimal) -> i8 {
    match units.cmp(&Decimal::ZERO) {
        std::cmp::Ordering::Less => -1,
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Greater => 1,
    }
}
