//! From a wish to orders: what position is wanted, what of it is missing, what works against it.

use super::Execution;
use super::brackets::Asked;
use super::orders::Purpose;
use super::params::{Mode, Turn};
use super::slot::{Cause, Goal, Parent};
use crate::algo::Schedule;
use crate::event::{Event, Happened, Reason};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{OrderId, Side, Status};
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
        let decimal = |x: Option<f64>| x.filter(|x| *x > 0.0).and_then(money::from_f64);
        let asked = Asked {
            stop_loss: decimal(signal.stop_loss),
            take_profit: decimal(signal.take_profit),
            atr: decimal(signal.atr),
        };
        if let Want::Trade(quantity) = signal.want {
            if quantity.abs() > UNITS_MAX {
                return self.refuse_units(i, quantity, out);
            }
            self.own.slots[i as usize].asked = asked;
            self.order(i, quantity, signal.order, cause, Reason::Signal, out);
            return self.protect(i, out);
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
        let sided = matches!(signal.want, Want::Long | Want::Short);
        if self.params.mode == Mode::Trade && sided {
            let Some(units) = self.size(signal, out) else { return };
            let slot = &mut self.own.slots[i as usize];
            (slot.asked, slot.wanted, slot.stopped) = (asked, Some(wanted), false);
            self.order(i, self.allowed(i, units), signal.order, cause, Reason::Signal, out);
            return self.protect(i, out);
        }
        let coming = self.coming(i);
        if sided && !fresh && self.params.rebalance.is_none() && direction_of(coming) == direction {
            // The position is there, or on its way.
            return self.reprice(i, coming, signal.order, cause, out);
        }
        let Some(units) = self.size(signal, out) else { return };
        let target = self.allowed(i, units);
        let slot = &mut self.own.slots[i as usize];
        (slot.asked, slot.wanted, slot.stopped) = (asked, Some(wanted), false);
        let near = self.params.rebalance.is_some_and(|band| {
            let off = target.saturating_sub(coming).abs();
            !target.is_zero()
                && direction_of(coming) == direction_of(target)
                && band.0.checked_mul(target.abs()).is_some_and(|band| off <= band)
        });
        if near || target == coming {
            self.own.slots[i as usize].goal = None;
            return self.reprice(i, coming, signal.order, cause, out);
        }
        self.own.slots[i as usize].goal =
            Some(Goal { target, wish: signal.order, cause, reason: Reason::Signal });
        self.settle(i, out);
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
            self.sizing.size(signal, price, &view, &self.history)
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
        let orders = self.own.orders.of(i).filter(|o| !o.purpose.protects()).map(|o| o.signed_rest());
        let parents = self.own.parents.values().filter(|p| p.instrument == i);
        let unsent = parents.map(|p| p.side.sign() * p.schedule.rest());
        orders.chain(unsent).fold(self.ledger.quantity(i), Decimal::saturating_add)
    }

    /// The wish is as before but for its limit: the one order that works for it follows.
    fn reprice(
        &mut self,
        i: InstrumentId,
        coming: Decimal,
        wish: OrderWish,
        cause: Cause,
        out: &mut Vec<Event>,
    ) {
        let tick = self.instruments[i as usize].tick.0;
        let Some(limit) = wish.limit.and_then(money::from_f64) else { return };
        let orders: Vec<_> = self.own.orders.of(i).filter(|o| o.purpose == Purpose::Wish).collect();
        let [order] = orders[..] else { return };
        let order = order.clone();
        let up = order.order.side == Side::Sell;
        let Some(limit) = super::brackets::on_tick(limit, tick, up) else { return };
        let settled = matches!(order.status, Status::Working | Status::PartlyFilled)
            && !order.changing
            && !order.canceling;
        let differs = order.order.limit().is_some_and(|now| now != limit);
        if differs && settled {
            let id = order.order.id;
            self.modify(id, None, Some(limit), None, Reason::Replaced, out);
        } else if differs {
            // It is on its way there or back: what is wanted is settled when the venue has spoken.
            self.own.slots[i as usize].goal =
                Some(Goal { target: coming, wish, cause, reason: Reason::Replaced });
        }
    }

    /// Brings orders nearer to the goal: takes back what works against it, then sends what is missing.
    pub(super) fn settle(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        if self.own.slots[i as usize].closing {
            return self.settle_closing(i, out);
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
        // Guards stand in the way of an order that makes the position smaller: both could be filled.
        let reduces = !position.is_zero() && side_of(position) != side_of(missing) && !missing.is_zero();
        let stale: Vec<OrderId> = self
            .own
            .orders
            .of(i)
            .filter(|o| if o.purpose.protects() { reduces } else { against(o.order.side) || o.canceling })
            .map(|o| o.order.id)
            .collect();
        if !stale.is_empty() {
            let reason = if goal.reason == Reason::Signal { Reason::Replaced } else { goal.reason };
            stale.into_iter().for_each(|id| self.cancel(id, reason, out));
            return;
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
        if turns && self.params.order.turn == Turn::Two {
            if coming == position {
                let mut cause = goal.cause;
                if self.order_now(i, -position, goal.wish, &mut cause, goal.reason, out) {
                    // What is left of the goal goes on once the position is closed.
                    self.own.slots[i as usize].goal = Some(Goal { cause, ..goal });
                } else {
                    self.own.slots[i as usize].goal = None;
                }
            }
            return;
        }
        self.own.slots[i as usize].goal = None;
        self.order(i, missing, goal.wish, goal.cause, goal.reason, out);
        self.protect(i, out);
    }

    /// An order of so many signed units, sliced where the graph says so.
    pub(super) fn order(
        &mut self,
        i: InstrumentId,
        units: Decimal,
        wish: OrderWish,
        mut cause: Cause,
        reason: Reason,
        out: &mut Vec<Event>,
    ) {
        let units = money::floor_to(units, self.lot(i));
        if units.is_zero() {
            return;
        }
        let Some(algo) = &self.params.order.algo else {
            self.order_now(i, units, wish, &mut cause, reason, out);
            return;
        };
        let schedule = Schedule::new(algo, self.own.now, units.abs(), self.lot(i));
        let number = self.own.next_parent;
        self.own.next_parent += 1;
        self.own
            .parents
            .insert(number, Parent { instrument: i, side: side_of(units), schedule, wish, cause });
        self.own.slots[i as usize].counts = true;
        self.slice(number, out);
    }

    /// Sends what is due of a sliced order.
    pub(super) fn slice(&mut self, number: u64, out: &mut Vec<Event>) {
        let now = self.own.now;
        let Some(parent) = self.own.parents.get_mut(&number) else { return };
        let units = parent.schedule.due(now);
        let (i, side, wish, mut cause) = (parent.instrument, parent.side, parent.wish, parent.cause);
        let over = parent.schedule.rest().is_zero();
        if !units.is_zero() {
            let sent =
                self.send_wish(i, side, units, wish, Purpose::Slice(number), &mut cause, Reason::Slice, out);
            if let Some(parent) = self.own.parents.get_mut(&number) {
                parent.cause = cause;
            }
            if !sent {
                self.drop_parent(number);
            }
        }
        if over {
            self.drop_parent(number);
        }
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
