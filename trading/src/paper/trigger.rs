//! Orders that wait for a price: stops, take-profits, and stops that follow the best price.

use crate::money::{self, Decimal};
use crate::order::{OrderType, Side, Trail};
use crate::paper::Paper;
use crate::paper::params::{MatchOn, StopTrigger};
use crate::paper::state::{Phase, Work};

impl Paper {
    /// Triggers what the market as it is now triggers, the oldest order first. `from` is the price that came before on a bar's way:
    /// what is triggered between it and the last price is so at its trigger.
    pub(super) fn trigger(&mut self, i: usize, from: Option<f64>) {
        if self.state.desks[i].orders.iter().all(|work| work.phase != Phase::Armed) {
            return;
        }
        let (buys, sells) = (self.trigger_price(i, Side::Buy), self.trigger_price(i, Side::Sell));
        let (bid, ask) = self.state.views[i].best(self.source(i) == MatchOn::Book);
        let (by_last, prints) = (self.params.stop_trigger == StopTrigger::Last, self.state.views[i].prints);
        for k in 0..self.state.desks[i].orders.len() {
            let work = &mut self.state.desks[i].orders[k];
            if work.is_over || work.phase != Phase::Armed {
                continue;
            }
            let price = if work.order.side == Side::Buy { buys } else { sells };
            let shown = if work.order.side == Side::Buy { ask } else { bid };
            // A trade from before the order may be an old one, of a market that is elsewhere since: the quote, where there is one, must say the same.
            let doubted = by_last && work.prints == prints && !shown.is_nan();
            work.follow(if doubted && bid <= ask { price.clamp(bid, ask) } else { price });
            if work.is_triggered_by(price) && (!doubted || work.is_triggered_by(shown)) {
                work.phase = Phase::Taking;
                work.passed = from.map(|_| work.trigger);
                self.arrive(i, k);
            }
        }
    }

    /// The price that triggers orders of a side; NaN: none is known.
    fn trigger_price(&self, i: usize, side: Side) -> f64 {
        let view = &self.state.views[i];
        let quote = || {
            let (bid, ask) = view.best(self.source(i) == MatchOn::Book);
            if side == Side::Buy { ask } else { bid }
        };
        match self.params.stop_trigger {
            StopTrigger::Last if view.last.is_nan() => quote(),
            StopTrigger::Last => view.last,
            StopTrigger::Quote => quote(),
            StopTrigger::Mark => view.mark,
        }
    }
}

impl Work {
    fn is_triggered_by(&self, price: f64) -> bool {
        if self.triggers_up() { price >= self.trigger } else { price <= self.trigger }
    }

    /// Moves a trailing stop after a new best price.
    fn follow(&mut self, price: f64) {
        let OrderType::TrailingStop { trail } = self.order.order_type else { return };
        let is_best = match self.order.side {
            _ if self.best.is_nan() => true,
            Side::Buy => price < self.best,
            Side::Sell => price > self.best,
        };
        if is_best && !price.is_nan() {
            self.best = price;
            self.trigger = trigger(self.order.side, trail, price);
        }
    }

    /// After a split of each unit into `ratio`.
    pub(super) fn split_best(&mut self, ratio: Decimal) {
        let OrderType::TrailingStop { trail } = self.order.order_type else { return };
        if !self.best.is_nan() {
            let best = money::from_f64(self.best).and_then(|best| best.checked_div(ratio));
            self.best = best.map_or(self.best / money::to_f64(ratio), money::to_f64);
            self.trigger = trigger(self.order.side, trail, self.best);
        }
    }
}

/// The trigger behind a best price: reckoned exactly, as market data are compared with it.
fn trigger(side: Side, trail: Trail, best: f64) -> f64 {
    let behind = money::from_f64(best).and_then(|best| {
        let distance = match trail {
            Trail::Amount(amount) => amount,
            Trail::Fraction(part) => best.checked_mul(part)?,
        };
        if side == Side::Buy { best.checked_add(distance) } else { best.checked_sub(distance) }
    });
    behind.map_or(f64::NAN, money::to_f64)
}
