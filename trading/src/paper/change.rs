//! Working orders that are changed, taken back, run out, or are met by a split.

use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::{Order, OrderId, OrderType, Side, Trail};
use crate::paper::Paper;
use crate::paper::slippage::{to_lots, to_tick};
use crate::paper::state::{Phase, Work};
use crate::report::Said;

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
        let (side, per) = (order.side, |price: Decimal| price.checked_div(ratio));
        let limit_of = |price: Decimal| per(price).and_then(|price| to_tick(price, tick, side == Side::Sell));
        let nearest = |price: Decimal| per(price)?.checked_div(tick)?.round().checked_mul(tick);
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
