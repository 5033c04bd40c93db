//! Commands to the venue: the price an order asks for, the venue's sizes, the gate, the name, and out.

use super::Execution;
use super::account::Account;
use super::brackets::{on_tick, trail_on_tick};
use super::orders::Purpose;
use super::params::{From, TypeParams};
use super::slot::{Cause, MACHINE};
use crate::event::{Event, Happened, Reason};
use crate::gate::OrderIntent;
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{Command, Order, OrderId, OrderType, Side, TimeInForce, Trail};
use crate::signal::OrderWish;

/// The most orders that one too large for its venue is cut into.
const PARTS_MAX: usize = 100;

/// How an order is to be sent, but for its name.
pub(super) struct Draft {
    pub instrument: InstrumentId,
    pub side: Side,
    pub quantity: Decimal,
    pub order_type: OrderType,
    pub time_in_force: TimeInForce,
    pub post_only: bool,
    pub reduce_only: bool,
    pub purpose: Purpose,
    pub reason: Reason,
}

impl Execution {
    /// An order of so many signed units at once; whether it went out.
    pub(super) fn order_now(
        &mut self,
        i: InstrumentId,
        units: Decimal,
        wish: OrderWish,
        cause: &mut Cause,
        reason: Reason,
        out: &mut Vec<Event>,
    ) -> bool {
        self.send_wish(i, super::goals::side_of(units), units.abs(), wish, Purpose::Wish, cause, reason, out)
    }

    /// An order as the graph and the signal want it; whether all of it went out.
    #[expect(clippy::too_many_arguments, reason = "each is a plain value")]
    pub(super) fn send_wish(
        &mut self,
        i: InstrumentId,
        side: Side,
        quantity: Decimal,
        wish: OrderWish,
        purpose: Purpose,
        cause: &mut Cause,
        reason: Reason,
        out: &mut Vec<Event>,
    ) -> bool {
        let position = self.ledger.quantity(i);
        let reducible = side.reducible(position);
        let opens = quantity > reducible;
        let (now, quiet_until) = (self.own.now, self.own.slots[i as usize].quiet_until);
        if opens && now < quiet_until {
            let detail = format!("the session ends in {} s", (quiet_until - now) / 1_000_000_000);
            self.refuse(i, side, quantity, "flat_at_close", detail, out);
            return false;
        }
        let order_type = match self.order_type(i, side, wish) {
            Ok(order_type) => order_type,
            Err(why) => {
                self.refuse(i, side, quantity, "order.price", why, out);
                return false;
            }
        };
        let asked = quantity;
        let quantity = match self.params.order.reduce_only {
            true => quantity.min(money::floor_to(reducible, self.lot(i))),
            false => quantity,
        };
        if quantity.is_zero() {
            let detail = format!("{position} units are held: there is nothing that it could reduce");
            self.refuse(i, side, asked, "order.reduce_only", detail, out);
            return false;
        }
        let largest = self.instruments[i as usize].max_quantity.map_or(Decimal::MAX, |max| max.0);
        let (mut rest, mut parts) = (quantity, 0);
        while rest > Decimal::ZERO {
            let part = if rest > largest { money::floor_to(largest, self.lot(i)) } else { rest };
            parts += 1;
            if part <= Decimal::ZERO || parts > PARTS_MAX {
                let detail = format!(
                    "{rest} units are left of {quantity}: the venue takes at most {largest} at a time"
                );
                self.refuse(i, side, rest, "instrument.max_quantity", detail, out);
                return false;
            }
            let params = &self.params.order;
            let limited = matches!(order_type, OrderType::Limit { .. } | OrderType::StopLimit { .. });
            let draft = Draft {
                instrument: i,
                side,
                quantity: part,
                order_type,
                time_in_force: params.time_in_force.at(now),
                post_only: params.post_only && limited,
                reduce_only: params.reduce_only || self.goes_beside(i, side, part, wish, false),
                purpose,
                reason,
            };
            if !self.send(draft, cause, out) {
                return false;
            }
            rest -= part;
        }
        true
    }

    /// Sends an order that no row asked for.
    pub(super) fn send_own(&mut self, draft: Draft, out: &mut Vec<Event>) -> bool {
        let mut cause = Cause { ts: self.own.now, src: MACHINE, seq: self.own.made, n: 0 };
        self.own.made += 1;
        self.send(draft, &mut cause, out)
    }

    /// Checks an order and sends it; whether it went out.
    fn send(&mut self, draft: Draft, cause: &mut Cause, out: &mut Vec<Event>) -> bool {
        let (i, side, quantity) = (draft.instrument, draft.side, draft.quantity);
        let instrument = &self.instruments[i as usize];
        if self.paper.is_none() && self.own.snapshot_at.is_none() {
            let detail = "the venue has not told of its account yet: nothing is sent before".to_owned();
            self.refuse(i, side, quantity, "venue.snapshot", detail, out);
            return false;
        }
        if self.own.reconciling {
            let detail =
                "the venue's reports have begun again: nothing is sent before they told of its account"
                    .to_owned();
            self.refuse(i, side, quantity, "venue.snapshot", detail, out);
            return false;
        }
        let smallest = instrument.min_quantity.unwrap_or(instrument.lot).0;
        if quantity < smallest {
            let detail = format!(
                "{quantity} units of {} are less than the least order of {smallest}",
                instrument.symbol
            );
            self.refuse(i, side, quantity, "instrument.min_quantity", detail, out);
            return false;
        }
        if self.own.slots[i as usize].halted && draft.purpose != Purpose::Close && !draft.purpose.protects() {
            let detail = format!("the venue has halted {}", instrument.symbol);
            self.refuse(i, side, quantity, "halted", detail, out);
            return false;
        }
        let price = self.expected(i, side, &draft.order_type);
        // What must go, goes, whatever it costs; the venue has its own say.
        let forced = draft.purpose == Purpose::Close;
        if !forced {
            let Some(price) = price else {
                let detail = format!("no price of {} has been seen", instrument.symbol);
                self.refuse(i, side, quantity, "order.price", detail, out);
                return false;
            };
            let notional = price.checked_mul(quantity).and_then(|n| n.checked_mul(instrument.multiplier.0));
            if let Some(least) = instrument.min_notional
                && notional.is_some_and(|notional| notional < least.0)
            {
                let (worth, currency) = (notional.unwrap_or_default(), &instrument.quote);
                let detail = format!(
                    "{quantity} units of {} are worth {worth} {currency}, the least order is {least:?}",
                    instrument.symbol
                );
                self.refuse(i, side, quantity, "instrument.min_notional", detail, out);
                return false;
            }
            let intent = OrderIntent {
                instrument: i,
                side,
                quantity,
                price,
                order_type: draft.order_type,
                reduce_only: draft.reduce_only,
                protective: draft.purpose.protects(),
            };
            if !draft.purpose.protects()
                && let Err(short) = self.ledger.can_bear(i, side, quantity, &draft.order_type, price)
            {
                self.refuse(i, side, quantity, short.rule(), short.to_string(), out);
                return false;
            }
            let view = Account {
                ledger: &self.ledger,
                orders: &self.own.orders,
                slots: &self.own.slots,
                history: &self.history,
            };
            if let Err(refusal) = self.gate.check(self.own.now, &intent, &view) {
                self.refuse(i, side, quantity, refusal.rule, refusal.detail, out);
                return false;
            }
        }
        let id = self.name_order(i, cause);
        let order = Order {
            id,
            instrument: i,
            side,
            quantity,
            order_type: draft.order_type,
            time_in_force: draft.time_in_force,
            post_only: draft.post_only,
            reduce_only: draft.reduce_only,
        };
        self.own.orders.add(order.clone(), self.own.now, draft.purpose);
        self.ledger.reserve(&order, price.unwrap_or_default());
        self.dispatch(Command::New(order), i, draft.reason, out);
        true
    }

    /// Asks the venue to take an order back, once.
    pub(super) fn cancel(&mut self, id: OrderId, reason: Reason, out: &mut Vec<Event>) {
        let Some(order) = self.own.orders.get_mut(id) else { return };
        if order.canceling || order.stuck {
            return;
        }
        (order.canceling, order.asked_at) = (true, self.own.now);
        let i = order.order.instrument;
        self.dispatch(Command::Cancel { order: id }, i, reason, out);
    }

    /// Asks the venue to change an order. One change at a time.
    pub(super) fn modify(
        &mut self,
        id: OrderId,
        quantity: Option<Decimal>,
        limit: Option<Decimal>,
        stop: Option<Decimal>,
        reason: Reason,
        out: &mut Vec<Event>,
    ) {
        let Some(order) = self.own.orders.get_mut(id) else { return };
        if order.canceling || order.changing {
            return;
        }
        (order.changing, order.asked_at) = (true, self.own.now);
        let i = order.order.instrument;
        self.dispatch(Command::Modify { order: id, quantity, limit, stop }, i, reason, out);
    }

    fn dispatch(&mut self, command: Command, instrument: InstrumentId, reason: Reason, out: &mut Vec<Event>) {
        if let Some(paper) = &mut self.paper {
            if let Some(rate) = self.ledger.rate(instrument) {
                paper.set_rate(instrument, rate);
            }
            paper.command(self.own.now, &command);
        }
        self.tell(Happened::Sent { command, instrument, reason }, out);
    }

    /// Takes back all orders of an instrument but those that close what must go, and what is not sent of sliced ones.
    pub(super) fn cancel_all(&mut self, i: InstrumentId, guards_too: bool, out: &mut Vec<Event>) {
        self.drop_parents(i);
        // What must go, goes.
        let closing = self.own.slots[i as usize].closing.is_on();
        let orders = self.own.orders.of(i).filter(|o| guards_too || !o.purpose.protects());
        let orders = orders.filter(|o| !(closing && o.purpose == Purpose::Close));
        let ids: Vec<OrderId> = orders.map(|o| o.order.id).collect();
        let reason = if guards_too { Reason::KillSwitch } else { Reason::Signal };
        ids.into_iter().for_each(|id| self.cancel(id, reason, out));
    }

    /// The price that an order is expected to have.
    pub(super) fn expected(&self, i: InstrumentId, side: Side, order_type: &OrderType) -> Option<Decimal> {
        let slot = &self.own.slots[i as usize];
        match *order_type {
            OrderType::Limit { limit } | OrderType::StopLimit { limit, .. } => return Some(limit),
            OrderType::Stop { stop } => return Some(stop),
            OrderType::TakeProfit { trigger } => return Some(trigger),
            OrderType::Market | OrderType::TrailingStop { .. } => {}
        }
        let shown = if side == Side::Buy { slot.ask } else { slot.bid };
        let price = [shown, slot.last, slot.price].into_iter().find(|p| *p > 0.0).and_then(money::from_f64);
        // A position that the venue told of, before any price: what it cost.
        price.or_else(|| Some(self.ledger.position(i).average).filter(|p| *p > Decimal::ZERO))
    }

    /// The kind of an order and its prices, on the tick.
    pub(super) fn order_type(
        &self,
        i: InstrumentId,
        side: Side,
        wish: OrderWish,
    ) -> Result<OrderType, String> {
        let (params, tick, slot) =
            (&self.params.order, self.instruments[i as usize].tick.0, &self.own.slots[i as usize]);
        let buys = side == Side::Buy;
        let symbol = &self.instruments[i as usize].symbol;
        let given = |price: f64, name: &str, up: bool| {
            let exact = if price > 0.0 { money::from_f64(price) } else { None };
            exact
                .and_then(|p| on_tick(p, tick, up))
                .filter(|p| *p > Decimal::ZERO)
                .ok_or_else(|| format!("a {name} of {price} is no price of {symbol}"))
        };
        // A limit is rounded to ask for no less, a trigger to come no earlier.
        let limit = wish.limit.map(|p| given(p, "limit", !buys)).transpose()?;
        let stop = wish.stop.map(|p| given(p, "stop", buys)).transpose()?;
        match (limit, stop, wish.trail) {
            (_, _, Some(trail)) => {
                let amount = if trail > 0.0 { money::from_f64(trail) } else { None };
                let amount = amount.ok_or_else(|| format!("a trail of {trail} is no distance"))?;
                let amount = trail_on_tick(amount, tick);
                return Ok(OrderType::TrailingStop { trail: Trail::Amount(amount) });
            }
            (Some(limit), Some(stop), None) => return Ok(OrderType::StopLimit { stop, limit }),
            (Some(limit), None, None) => return Ok(OrderType::Limit { limit }),
            (None, Some(stop), None) => return Ok(OrderType::Stop { stop }),
            (None, None, None) => {}
        }
        let unknown = || format!("no price of {symbol} has been seen");
        let last = || {
            let price = if slot.last > 0.0 { slot.last } else { slot.price };
            if price > 0.0 { money::from_f64(price) } else { None }.ok_or_else(unknown)
        };
        let (near, far) = if buys { (slot.bid, slot.ask) } else { (slot.ask, slot.bid) };
        let shown = match params.from {
            From::Near => near,
            From::Far => far,
            From::Mid => (near + far) / 2.0,
            From::Last => f64::NAN,
        };
        let limit = || {
            let base = if shown > 0.0 { money::from_f64(shown).ok_or_else(unknown)? } else { last()? };
            let away = params.offset.price(base, tick).ok_or_else(unknown)?;
            let price = base.checked_sub(side.sign() * away).and_then(|p| on_tick(p, tick, !buys));
            price
                .filter(|p| *p > Decimal::ZERO)
                .ok_or_else(|| format!("the limit would be {away} from {base}"))
        };
        // A stop lies beyond the market, a take-profit before it.
        let trigger = |beyond: bool| {
            let base = last()?;
            let away = params.trigger.price(base, tick).ok_or_else(unknown)?;
            let up = buys == beyond;
            let price = if up { base.checked_add(away) } else { base.checked_sub(away) };
            let price = price.and_then(|p| on_tick(p, tick, up));
            price
                .filter(|p| *p > Decimal::ZERO)
                .ok_or_else(|| format!("the trigger would be {away} from {base}"))
        };
        Ok(match params.order_type {
            TypeParams::Market => OrderType::Market,
            TypeParams::Limit => OrderType::Limit { limit: limit()? },
            TypeParams::Stop => OrderType::Stop { stop: trigger(true)? },
            TypeParams::StopLimit => {
                let stop = trigger(true)?;
                let away = params.offset.price(stop, tick).ok_or_else(unknown)?;
                // Behind the trigger, so that there is room to be filled.
                let limit = stop.checked_add(side.sign() * away.abs()).and_then(|p| on_tick(p, tick, !buys));
                OrderType::StopLimit {
                    stop,
                    limit: limit.filter(|p| *p > Decimal::ZERO).ok_or_else(unknown)?,
                }
            }
            TypeParams::TrailingStop => {
                OrderType::TrailingStop { trail: params.trigger.trail(tick).ok_or_else(unknown)? }
            }
            TypeParams::TakeProfit => OrderType::TakeProfit { trigger: trigger(false)? },
        })
    }
}
