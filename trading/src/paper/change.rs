//! Working orders that are changed, taken back, run out, or are met by a split.

use std::collections::{BTreeMap, BTreeSet};

use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::{Command, Order, OrderId, OrderType, Side, Trail};
use crate::paper::Paper;
use crate::paper::slippage::{to_lots, to_tick};
use crate::paper::state::{Phase, Work};
use crate::report::Said;

/// Decimals of units that accounts keep after a split.
const UNIT_DIGITS: u32 = 18;

impl Paper {
    pub(super) fn cancel(&mut self, id: OrderId) {
        match self.find(id) {
            Some((i, k)) => {
                self.end(i, k, Said::Canceled { order: id, reason: None });
                self.sweep(i);
            }
            None => self.refuse(id, "unknown: no such order works here; it may be filled or over".into()),
        }
    }

    fn refuse(&mut self, order: OrderId, reason: String) {
        self.say(Said::ChangeRejected { order, reason });
    }

    /// Ends an order with these words.
    pub(super) fn end(&mut self, i: usize, k: usize, said: Said) {
        self.state.desks[i].orders[k].is_over = true;
        self.say(said);
    }

    /// The time of the order with priority `seq` is over.
    pub(super) fn expire(&mut self, i: usize, seq: u64) {
        self.state.timers.pop_first();
        if let Some(k) = self.state.desks[i].orders.iter().position(|work| work.seq == seq) {
            let order = self.state.desks[i].orders[k].order.id;
            self.end(i, k, Said::Expired { order });
            self.sweep(i);
        }
    }

    pub(super) fn modify(
        &mut self,
        id: OrderId,
        quantity: Option<Decimal>,
        limit: Option<Decimal>,
        stop: Option<Decimal>,
    ) {
        let Some((i, k)) = self.find(id) else {
            return self.refuse(id, "unknown: no such order works here; it may be filled or over".into());
        };
        let changed = match self.changed(i, k, quantity, limit, stop) {
            Ok(changed) => changed,
            Err(reason) => return self.refuse(id, reason),
        };
        let work = &mut self.state.desks[i].orders[k];
        let keeps_place =
            changed.order_type == work.order.order_type && changed.quantity <= work.order.quantity;
        if changed.stop() != work.order.stop() {
            work.prints = self.state.views[i].prints;
        }
        work.order = changed;
        work.reprice();
        let order = work.order.clone();
        let (limit, stop) = (order.limit(), order.stop());
        self.say(Said::Replaced { order: id, quantity: order.quantity, limit, stop });
        self.trim(i);
        if !keeps_place {
            let last = self.requeue_last(i, k);
            if self.state.desks[i].orders[last].phase != Phase::Armed {
                self.arrive(i, last);
            } else if self.is_live(i) {
                self.trigger(i, None);
            }
        }
        self.sweep(i);
    }

    /// Gives an order the last place in time.
    fn requeue_last(&mut self, i: usize, k: usize) -> usize {
        let seq = self.next_seq();
        let mut work = self.state.desks[i].orders.remove(k);
        if self.state.timers.remove(&(work.until, work.seq, i as InstrumentId)) {
            self.state.timers.insert((work.until, seq, i as InstrumentId));
        }
        work.seq = seq;
        self.state.desks[i].orders.push(work);
        self.state.desks[i].orders.len() - 1
    }

    /// The order as it would be, or why it can't be so.
    fn changed(
        &mut self,
        i: usize,
        k: usize,
        quantity: Option<Decimal>,
        new_limit: Option<Decimal>,
        new_stop: Option<Decimal>,
    ) -> Result<Order, String> {
        let work = &self.state.desks[i].orders[k];
        let (filled, phase) = (work.filled, work.phase);
        let mut order = work.order.clone();
        if let Some(quantity) = quantity {
            if quantity <= filled {
                return Err(format!("quantity: {quantity} is not above the {filled} that are filled"));
            }
            order.quantity = quantity;
        }
        if let Some(new) = new_limit {
            match &mut order.order_type {
                OrderType::Limit { limit } | OrderType::StopLimit { limit, .. } => *limit = new,
                _ => return Err("limit: the order has none".into()),
            }
        }
        if let Some(new) = new_stop {
            if phase != Phase::Armed {
                return Err("stop: the order has none, or it was triggered".into());
            }
            match &mut order.order_type {
                OrderType::Stop { stop } | OrderType::StopLimit { stop, .. } => *stop = new,
                OrderType::TakeProfit { trigger } => *trigger = new,
                _ => return Err("stop: the order has no fixed one".into()),
            }
        }
        self.listings[i].instrument.check(&order)?;
        self.check_notional(&order)?;
        if order.post_only && phase != Phase::Armed && new_limit.is_some() && self.crosses(i, &order) {
            return Err(format!("post_only: {}", self.crossing(i, &order)));
        }
        Ok(order)
    }

    /// What is on its way was said in old units: it arrives in new ones. What cannot be had in lots and ticks is told as of working orders.
    pub(super) fn split_messages(&mut self, i: usize, ratio: Decimal) {
        let mut of: BTreeSet<OrderId> =
            self.state.index.iter().filter(|(_, at)| **at as usize == i).map(|(id, _)| *id).collect();
        for report in &self.state.reports {
            if let Said::Filled(fill) = &report.what
                && fill.instrument as usize == i
            {
                of.insert(fill.order);
            }
        }
        let (more, less) =
            (|q: Decimal| q.checked_mul(ratio).unwrap_or(q), |p: Decimal| p.checked_div(ratio).unwrap_or(p));
        for report in &mut self.state.reports {
            match &mut report.what {
                Said::Filled(fill) if fill.instrument as usize == i => {
                    (fill.quantity, fill.price) =
                        (more(fill.quantity).round_dp(UNIT_DIGITS), less(fill.price));
                }
                Said::Replaced { order, quantity, limit, stop } if of.contains(order) => {
                    (*quantity, *limit, *stop) = (more(*quantity), limit.map(less), stop.map(less));
                }
                _ => {}
            }
        }
        let (tick, lot) = (self.listings[i].instrument.tick.0, self.listings[i].instrument.lot.0);
        let works = self.state.desks[i].orders.iter().map(|work| (work.order.id, work.order.side));
        let mut sides: BTreeMap<OrderId, Side> = works.collect();
        let mut commands = std::mem::take(&mut self.state.commands);
        commands.retain_mut(|(_, command)| match command {
            Command::New(order) if order.instrument as usize == i => {
                sides.insert(order.id, order.side);
                self.split_new(order, ratio, tick, lot)
            }
            Command::Modify { order, quantity, limit, stop } => {
                if let Some(side) = sides.get(order) {
                    *quantity = quantity.map(|q| to_lots(more(q), lot));
                    *limit = limit.map(|p| limit_after(p, ratio, tick, *side).unwrap_or_default());
                    *stop = stop.map(|p| nearest_after(p, ratio, tick).unwrap_or_default());
                }
                true
            }
            _ => true,
        });
        self.state.commands = commands;
    }

    /// An order that is on its way. Whether anything is left of it.
    fn split_new(&mut self, order: &mut Order, ratio: Decimal, tick: Decimal, lot: Decimal) -> bool {
        let mut work = Work::new(order.clone(), 0, i64::MAX);
        if !work.split(ratio, tick, lot) {
            let reason = format!("split: less than a lot or a tick is left of it after {ratio} for 1");
            self.say(Said::Rejected { order: order.id, reason });
            return false;
        }
        let per = |price: Option<Decimal>| price.and_then(|price| price.checked_div(ratio));
        let exact = (order.quantity.checked_mul(ratio), per(order.limit()), per(order.stop()));
        *order = work.order;
        let (quantity, limit, stop) = (order.quantity, order.limit(), order.stop());
        if exact != (Some(quantity), limit, stop) {
            self.say(Said::Replaced { order: order.id, quantity, limit, stop });
        }
        true
    }

    pub(super) fn split_orders(&mut self, i: usize, ratio: Decimal) {
        let (tick, lot) = (self.listings[i].instrument.tick.0, self.listings[i].instrument.lot.0);
        let desk = &mut self.state.desks[i];
        desk.position = desk.position.checked_mul(ratio).unwrap_or(desk.position);
        for k in 0..self.state.desks[i].orders.len() {
            let work = &mut self.state.desks[i].orders[k];
            let id = work.order.id;
            if work.is_over {
                continue;
            }
            if work.split(ratio, tick, lot) {
                let Order { quantity, .. } = work.order;
                let (limit, stop) = (work.order.limit(), work.order.stop());
                self.say(Said::Replaced { order: id, quantity, limit, stop });
            } else {
                let reason =
                    Some(format!("split: less than a lot or a tick is left of it after {ratio} for 1"));
                self.end(i, k, Said::Canceled { order: id, reason });
            }
        }
    }
}

/// A limit after a split, on the tick: it asks for no less.
fn limit_after(price: Decimal, ratio: Decimal, tick: Decimal, side: Side) -> Option<Decimal> {
    to_tick(price.checked_div(ratio)?, tick, side == Side::Sell)
}

/// Another price after a split, on the nearest tick.
fn nearest_after(price: Decimal, ratio: Decimal, tick: Decimal) -> Option<Decimal> {
    price.checked_div(ratio)?.checked_div(tick)?.round().checked_mul(tick)
}

impl Work {
    /// Makes `ratio` units of each. Whether anything is left of the order.
    fn split(&mut self, ratio: Decimal, tick: Decimal, lot: Decimal) -> bool {
        let order = &mut self.order;
        let left = (order.quantity - self.filled)
            .checked_mul(ratio)
            .map_or(Decimal::ZERO, |left| to_lots(left, lot));
        let Some(filled) = self.filled.checked_mul(ratio) else { return false };
        let Some(quantity) = filled.checked_add(left) else { return false };
        if left.is_zero() {
            return false;
        }
        let side = order.side;
        let limit_of = |price: Decimal| limit_after(price, ratio, tick, side);
        let nearest = |price: Decimal| nearest_after(price, ratio, tick);
        let order_type = match order.order_type {
            OrderType::Market => Some(OrderType::Market),
            OrderType::Limit { limit } => limit_of(limit).map(|limit| OrderType::Limit { limit }),
            OrderType::Stop { stop } => nearest(stop).map(|stop| OrderType::Stop { stop }),
            OrderType::StopLimit { stop, limit } => {
                nearest(stop).zip(limit_of(limit)).map(|(stop, limit)| OrderType::StopLimit { stop, limit })
            }
            OrderType::TakeProfit { trigger } => {
                nearest(trigger).map(|trigger| OrderType::TakeProfit { trigger })
            }
            OrderType::TrailingStop { trail: Trail::Amount(amount) } => nearest(amount)
                .filter(|amount| *amount > Decimal::ZERO)
                .map(|amount| OrderType::TrailingStop { trail: Trail::Amount(amount) }),
            same @ OrderType::TrailingStop { .. } => Some(same),
        };
        let Some(order_type) = order_type else { return false };
        order.order_type = order_type;
        if [order.limit(), order.stop()].into_iter().flatten().any(|price| price <= Decimal::ZERO) {
            return false;
        }
        order.quantity = quantity;
        self.filled = filled;
        self.reprice();
        self.split_best(ratio);
        // What was shown at the price, and what traded there, is of the time before.
        (self.ahead, self.traded) = (None, Decimal::ZERO);
        self.front.clear();
        true
    }
}
