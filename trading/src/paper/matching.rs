//! Who gets what of what the market shows.

use crate::money::{self, Decimal};
use crate::order::{Side, TimeInForce};
use crate::paper::Paper;
use crate::paper::params::MatchOn;
use crate::paper::slippage::to_lots;
use crate::paper::state::{Phase, Work};
use crate::report::Said;

impl Paper {
    /// An order comes into the market: new, triggered or changed.
    pub(super) fn arrive(&mut self, i: usize, k: usize) {
        let source = self.source(i);
        let live = self.is_live(i);
        let work = &self.state.desks[i].orders[k];
        if work.is_over {
            return;
        }
        let (order, has_limit) = (work.order.clone(), !work.limit.is_nan());
        self.state.desks[i].orders[k].phase = Phase::Taking;
        if order.post_only {
            if live && self.crosses(i, &order) {
                let reason = Some(format!("post_only: {}", self.crossing(i, &order)));
                return self.end(i, k, Said::Canceled { order: order.id, reason });
            }
            return self.join(i, k);
        }
        if !live {
            return;
        }
        if source == MatchOn::Trades {
            let at_once = matches!(order.time_in_force, TimeInForce::Ioc | TimeInForce::Fok);
            let passed = self.state.desks[i].orders[k].passed.is_some();
            // As long as nothing was seen, what is shown first decides.
            let unseen = self.state.views[i].last.is_nan();
            if has_limit && !at_once && !passed && !unseen && !self.crosses(i, &order) {
                self.join(i, k);
            }
            return;
        }
        self.take(i, k, source == MatchOn::Book, false);
        self.settle(i, k);
    }

    /// After an order took what it could: its rest is cancelled, rests, or waits.
    fn settle(&mut self, i: usize, k: usize) {
        let work = &mut self.state.desks[i].orders[k];
        work.passed = None;
        if work.is_over {
            return;
        }
        let (order, has_limit) = (work.order.id, !work.limit.is_nan());
        let reason = match work.order.time_in_force {
            TimeInForce::Ioc => "immediate or cancel: there is no more",
            TimeInForce::Fok => "fill or kill: there is not enough",
            _ if has_limit => return self.join(i, k),
            _ => return,
        };
        self.end(i, k, Said::Canceled { order, reason: Some(reason.into()) });
    }

    /// Takes from the other side's levels what the order allows: at their prices, or as a maker at its own.
    fn take(&mut self, i: usize, k: usize, book: bool, maker: bool) {
        let (tick, lot) = (self.listings[i].instrument.tick.0, self.listings[i].instrument.lot.0);
        let work = &self.state.desks[i].orders[k];
        let side = work.order.side;
        if work.must_be_whole(self.params.partial_fills) && !self.has_enough(i, k, book) {
            return;
        }
        let mut depth = 0;
        loop {
            // Fills and what they do to reduce-only orders change what is left, so it is read again each time.
            let work = &self.state.desks[i].orders[k];
            let levels = self.state.views[i].opposite(side, book);
            let Some(level) = levels.iter_mut().rev().nth(depth) else { return };
            if work.is_over || !work.allows(level.price) {
                return;
            }
            depth += 1;
            let shown = level.left();
            let quantity = shown.map_or(work.left(), |shown| to_lots(shown, lot).min(work.left()));
            let Some(price) = money::from_f64(level.price).filter(|_| quantity > Decimal::ZERO) else {
                continue;
            };
            if shown.is_some() {
                level.taken += quantity;
            }
            let size = money::from_f64(level.size);
            let price = match (maker, work.order.limit()) {
                (true, Some(limit)) => limit,
                (_, limit) => {
                    let worse = self.params.slippage.worsen(side, price, quantity, size, tick);
                    within(side, worse, limit)
                }
            };
            self.fill(i, k, price, quantity, maker);
        }
    }

    /// Whether all of an order can be had at once.
    fn has_enough(&mut self, i: usize, k: usize, book: bool) -> bool {
        let lot = self.listings[i].instrument.lot.0;
        let work = &self.state.desks[i].orders[k];
        let mut missing = work.left();
        for level in self.state.views[i].opposite(work.order.side, book).iter().rev() {
            if !work.allows(level.price) {
                break;
            }
            let Some(shown) = level.left() else { return true };
            missing -= to_lots(shown, lot).min(missing);
        }
        missing.is_zero()
    }

    /// Quotes or levels changed.
    pub(super) fn on_shown(&mut self, i: usize) {
        let source = self.source(i);
        if source == MatchOn::Trades {
            return;
        }
        let book = source == MatchOn::Book;
        for k in 0..self.state.desks[i].orders.len() {
            let work = &self.state.desks[i].orders[k];
            if work.phase == Phase::Taking && !work.is_over {
                self.take(i, k, book, false);
                self.settle(i, k);
            }
        }
        for side in [Side::Buy, Side::Sell] {
            let Some(best) = self.state.views[i].opposite(side, book).last().map(|level| level.price) else {
                continue;
            };
            for k in self.reached(i, side, best) {
                self.take(i, k, book, true);
            }
        }
    }

    /// Resting orders of a side that a price reaches, the best price first, then the oldest.
    fn reached(&self, i: usize, side: Side, price: f64) -> Vec<usize> {
        let orders = &self.state.desks[i].orders;
        let is_reached = |work: &Work| {
            work.phase == Phase::Resting && !work.is_over && work.order.side == side && work.allows(price)
        };
        let mut found: Vec<usize> = (0..orders.len()).filter(|k| is_reached(&orders[*k])).collect();
        found.sort_by(|a, b| {
            let (a, b) = (&orders[*a], &orders[*b]);
            let by_price = match side {
                Side::Buy => b.limit.total_cmp(&a.limit),
                Side::Sell => a.limit.total_cmp(&b.limit),
            };
            by_price.then(a.seq.cmp(&b.seq))
        });
        found
    }

    /// A trade, or a price of a bar.
    pub(super) fn on_print(&mut self, i: usize, price: f64, size: f64) {
        let Some(exact) = money::from_f64(price).filter(|price| *price > Decimal::ZERO) else { return };
        if size <= 0.0 {
            return;
        }
        let size = if size.is_nan() { None } else { money::from_f64(size) };
        let source = self.source(i);
        let mut print = Print { exact, price, size, used: Decimal::ZERO, left: None };
        print.left = size.map(|size| size * self.params.participation.0);
        let resting = [Side::Buy, Side::Sell].map(|side| self.reached(i, side, price));
        if source == MatchOn::Trades {
            for k in 0..self.state.desks[i].orders.len() {
                let work = &self.state.desks[i].orders[k];
                if work.phase == Phase::Taking && !work.is_over {
                    self.take_print(i, k, &mut print);
                    self.settle(i, k);
                }
            }
        }
        let (bid, ask) = match source {
            MatchOn::Trades => (f64::NAN, f64::NAN),
            _ => self.state.views[i].best(source == MatchOn::Book),
        };
        let crossed = bid >= ask;
        for (side, found) in [Side::Buy, Side::Sell].into_iter().zip(resting) {
            // Who made the trade would have taken the other side.
            let made_by_own_side = !crossed && if side == Side::Buy { price >= ask } else { price <= bid };
            for k in found {
                self.give_print(i, k, made_by_own_side, &mut print);
            }
        }
    }

    /// A taking order has its part of a trade.
    fn take_print(&mut self, i: usize, k: usize, print: &mut Print) {
        let (tick, lot) = (self.listings[i].instrument.tick.0, self.listings[i].instrument.lot.0);
        let work = &self.state.desks[i].orders[k];
        let at = work.passed.unwrap_or(print.price);
        let Some(price) = work.passed.map_or(Some(print.exact), money::from_f64) else { return };
        let quantity = print.left.map_or(work.left(), |left| to_lots(left, lot).min(work.left()));
        let whole = work.must_be_whole(self.params.partial_fills);
        if !work.allows(at) || quantity <= Decimal::ZERO || (whole && quantity < work.left()) {
            return;
        }
        let side = work.order.side;
        let worse = self.params.slippage.worsen(side, price, quantity, print.size, tick);
        let price = within(side, worse, work.order.limit());
        print.take(quantity);
        self.fill(i, k, price, quantity, false);
    }

    /// A resting order that a trade reached has its part of it.
    fn give_print(&mut self, i: usize, k: usize, made_by_own_side: bool, print: &mut Print) {
        let lot = self.listings[i].instrument.lot.0;
        let whole = !self.params.partial_fills;
        let work = &mut self.state.desks[i].orders[k];
        let Some(limit) = work.order.limit().filter(|_| !work.is_over) else { return };
        let mut most = print.left;
        if work.limit == print.price {
            if made_by_own_side || !self.params.fill_at_touch {
                return;
            }
            let Some(behind) = work.print(print.size) else { return };
            let behind = behind.map(|behind| behind - print.used);
            most = [most, behind].into_iter().flatten().min();
        } else {
            // The trade went through its price, so nobody is left ahead of it.
            work.ahead = Some(Decimal::ZERO);
        }
        let quantity = most.map_or(work.left(), |most| to_lots(most, lot).min(work.left()));
        if quantity <= Decimal::ZERO || (whole && quantity < work.left()) {
            return;
        }
        print.take(quantity);
        self.fill(i, k, limit, quantity, true);
    }
}

/// A trade that is shared out.
struct Print {
    exact: Decimal,
    price: f64,
    /// `None`: the feed doesn't say.
    size: Option<Decimal>,
    /// What ours had of it.
    used: Decimal,
    /// What ours may still have of it. `None`: any quantity.
    left: Option<Decimal>,
}

impl Print {
    fn take(&mut self, quantity: Decimal) {
        self.used = self.used.saturating_add(quantity);
        self.left = self.left.map(|left| left - quantity);
    }
}

impl Work {
    /// Whether it may only be filled whole.
    fn must_be_whole(&self, partial_fills: bool) -> bool {
        !partial_fills || self.order.time_in_force == TimeInForce::Fok
    }
}

/// A price that is not beyond a limit.
fn within(side: Side, price: Decimal, limit: Option<Decimal>) -> Decimal {
    match (side, limit) {
        (_, None) => price,
        (Side::Buy, Some(limit)) => price.min(limit),
        (Side::Sell, Some(limit)) => price.max(limit),
    }
}
