//! Fills, what they do to the account at the venue, and the place of resting orders in the queue of their price.

use crate::instrument::Fees;
use crate::market::{InstrumentId, Market};
use crate::money::{self, Decimal};
use crate::order::Side;
use crate::paper::Paper;
use crate::paper::params::{MatchOn, Queue};
use crate::paper::state::{Phase, Work};
use crate::paper::view::Before;
use crate::report::{Fill, Said};

impl Paper {
    /// Executes `quantity` of an order at `price`.
    pub(super) fn fill(&mut self, i: usize, k: usize, price: Decimal, quantity: Decimal, maker: bool) {
        let instrument = &self.listings[i].instrument;
        let fees = Fees::of(instrument, &self.fees);
        let volume = match fees.tiers.is_empty() {
            true => Decimal::ZERO,
            false => self.state.volume.total(self.state.now),
        };
        let notional =
            price.checked_mul(quantity).and_then(|value| value.checked_mul(instrument.multiplier.0));
        let paid = &mut self.state.desks[i].orders[k].fees;
        let fee = notional.and_then(|notional| paid.next(fees, notional, quantity, maker, volume));
        let fee = fee.unwrap_or(Decimal::MAX);
        let rate = self.state.desks[i].rate.unwrap_or(Decimal::ONE);
        let value = notional.and_then(|notional| notional.checked_mul(rate));
        self.state.volume.add(self.state.now, value.unwrap_or(Decimal::MAX));
        self.state.fills += 1;
        let desk = &mut self.state.desks[i];
        let work = &mut desk.orders[k];
        work.filled += quantity;
        work.is_over = work.left().is_zero();
        desk.position = desk.position.saturating_add(work.order.side.sign() * quantity);
        let fill = Fill {
            id: format!("p{}", self.state.fills),
            order: work.order.id,
            instrument: i as InstrumentId,
            side: work.order.side,
            price,
            quantity,
            fee,
            fee_currency: instrument.quote.clone(),
            maker: Some(maker),
        };
        self.say(Said::Filled(fill));
        self.trim(i);
    }

    /// Cuts reduce-only orders to what they can reduce, and cancels those that can't any more.
    pub(super) fn trim(&mut self, i: usize) {
        let position = self.state.desks[i].position;
        for k in 0..self.state.desks[i].orders.len() {
            let work = &mut self.state.desks[i].orders[k];
            if !work.order.reduce_only || work.is_over {
                continue;
            }
            let most = work.order.side.reducible(position);
            if work.left() <= most {
                continue;
            }
            let order = work.order.id;
            if most.is_zero() {
                let reason = Some(format!("reduce_only: a position of {position} leaves nothing to reduce"));
                self.end(i, k, Said::Canceled { order, reason });
            } else {
                work.order.quantity = work.filled + most;
                let (quantity, limit, stop) = (work.order.quantity, work.order.limit(), work.order.stop());
                self.say(Said::Replaced { order, quantity, limit, stop });
            }
        }
    }

    /// An order begins to rest: what is ahead of it?
    pub(super) fn join(&mut self, i: usize, k: usize) {
        let source = self.source(i);
        let view = &self.state.views[i];
        let work = &mut self.state.desks[i].orders[k];
        let (side, limit) = (work.order.side, work.limit);
        work.front.clear();
        let ahead = match (self.params.queue, source) {
            (Queue::Exact, MatchOn::Book) if view.has_rests() => {
                work.front = view.rests_of(side, limit);
                Some(work.front.values().fold(Decimal::ZERO, |sum, size| sum.saturating_add(*size)))
            }
            (Queue::None, _) | (_, MatchOn::Trades) => Some(Decimal::ZERO),
            (_, MatchOn::Book) => money::from_f64(view.rests_at(side, limit)),
            (_, MatchOn::Quotes) => {
                let shown = if side == Side::Buy { view.bid } else { view.ask };
                place(side, limit, shown.price, shown.size)
            }
        };
        (work.phase, work.ahead, work.traded, work.passed) = (Phase::Resting, ahead, Decimal::ZERO, None);
    }

    /// What is shown changed: those ahead may be fewer.
    pub(super) fn requeue(&mut self, i: usize, market: &Market, before: Before) {
        if self.params.queue == Queue::None {
            return;
        }
        let book = self.source(i) == MatchOn::Book;
        let exact = self.params.queue == Queue::Exact;
        let proportional = self.params.queue == Queue::Proportional;
        let view = &self.state.views[i];
        for work in self.state.desks[i].orders.iter_mut().filter(|work| work.phase == Phase::Resting) {
            let (side, limit) = (work.order.side, work.limit);
            if let Market::Resting { order, bid, price, size } = *market {
                let own = (side == Side::Buy, limit);
                let now = money::from_f64(size)
                    .filter(|_| (bid, price) == own)
                    .unwrap_or_default()
                    .max(Decimal::ZERO);
                let was = before.rest.filter(|was| (was.bid, was.price) == own);
                let was = was.map_or(Decimal::ZERO, |was| was.size);
                if exact {
                    work.one_ahead(order, now);
                } else if book && was != now {
                    let level = money::from_f64(view.rests_at(side, limit)).unwrap_or(Decimal::ZERO);
                    work.shown(Some(level - now + was).filter(|_| proportional), level);
                }
                continue;
            }
            let was = if side == Side::Buy { before.bid } else { before.ask };
            let was = (was.0 == limit).then_some(was.1);
            let now = match *market {
                Market::Level { bid, price, .. } if book && bid == (side == Side::Buy) && price == limit => {
                    money::from_f64(view.rests_at(side, limit))
                }
                Market::Quote { .. } if !book => {
                    let shown = if side == Side::Buy { view.bid } else { view.ask };
                    place(side, limit, shown.price, shown.size)
                }
                _ => continue,
            };
            if let Some(now) = now
                && was.and_then(money::from_f64) != Some(now)
            {
                work.shown(was.and_then(money::from_f64).filter(|_| proportional), now);
            }
        }
    }
}

/// What is ahead of an order that joins at `limit`, where the best price of its side is `best`. `None`: nobody can tell yet.
fn place(side: Side, limit: f64, best: f64, size: f64) -> Option<Decimal> {
    let is_better = if side == Side::Buy { limit > best } else { limit < best };
    if is_better {
        Some(Decimal::ZERO)
    } else if limit == best {
        // A feed without sizes tells of nothing that is ahead.
        Some(money::from_f64(size).unwrap_or(Decimal::ZERO))
    } else {
        None
    }
}

impl Work {
    /// Its price now shows `now`. `was` is what it showed before, where cancels are to be shared between those ahead and behind.
    fn shown(&mut self, was: Option<Decimal>, now: Decimal) {
        let ahead = self.ahead.unwrap_or(now);
        // Trades took from the front already; what else is missing was cancelled.
        let rest = was.map(|was| was - self.traded).filter(|rest| *rest > now && *rest > Decimal::ZERO);
        let ahead = match rest {
            Some(rest) => ahead.checked_mul(now).and_then(|part| part.checked_div(rest)).unwrap_or(ahead),
            None => ahead,
        };
        (self.ahead, self.traded) = (Some(ahead.min(now)), Decimal::ZERO);
    }

    /// An order that may be ahead now rests with `size` at its price. One that grew went to the end of the queue.
    fn one_ahead(&mut self, order: u64, size: Decimal) {
        let Some(was) = self.front.remove(&order) else { return };
        let size = if size <= was { size } else { Decimal::ZERO };
        if size > Decimal::ZERO {
            self.front.insert(order, size);
        }
        // What trades took is accounted for already; the rest was cancelled.
        let less = was - size;
        let explained = less.min(self.traded);
        self.traded -= explained;
        self.ahead = self.ahead.map(|ahead| (ahead - (less - explained)).max(Decimal::ZERO));
    }

    /// `size` traded at its price. How much of that comes after those ahead; `None`: its place isn't known.
    pub(super) fn print(&mut self, size: Option<Decimal>) -> Option<Option<Decimal>> {
        let ahead = self.ahead?;
        let Some(size) = size else {
            self.ahead = Some(Decimal::ZERO);
            return Some(None);
        };
        self.ahead = Some((ahead - size).max(Decimal::ZERO));
        // Of those ahead that are known one by one no more than they have.
        let took = if self.front.is_empty() { size } else { size.min(ahead) };
        self.traded = self.traded.saturating_add(took);
        Some(Some((size - ahead).max(Decimal::ZERO)))
    }
}
