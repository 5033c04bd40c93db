//! What a paper venue accepts: the rules of an instrument, each named with its numbers where it refuses.

use crate::instrument::Instrument;
use crate::money::{self, Decimal};
use crate::order::{Command, Order, OrderType, Side, TimeInForce, Trail};
use crate::paper::Paper;
use crate::paper::params::{MatchOn, PaperParams, Slippage};
use crate::paper::slippage::to_lots;
use crate::paper::state::{Phase, Work};
use crate::report::Said;

/// The most ticks of slippage: a dollar is a hundred of a cent.
const SLIPPAGE_TICKS_MAX: u32 = 10_000;

impl PaperParams {
    /// What is wrong with these, as (path, reason).
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let part = self.participation.0;
        if part <= Decimal::ZERO || part > Decimal::ONE {
            let reason = format!("{part} is no part of a trade: write a number above 0 and at most 1");
            problems.push(("participation".into(), reason));
        }
        let bad = match self.slippage {
            Slippage::Ticks(ticks) => ticks > SLIPPAGE_TICKS_MAX,
            Slippage::Bps(bps) => bps.0 < Decimal::ZERO || bps.0 >= Decimal::from(10_000),
            Slippage::Impact(coefficient) => !(0.0..1.0).contains(&coefficient),
            Slippage::None => false,
        };
        if bad {
            let reason = format!(
                "slippage makes prices worse by less than all of them: ticks from 0 to {SLIPPAGE_TICKS_MAX}, bps from 0 to 10000, impact from 0 to 1"
            );
            problems.push(("slippage".into(), reason));
        }
        problems
    }
}

impl Paper {
    /// A command takes effect.
    pub(super) fn act(&mut self, command: Command) {
        match command {
            Command::New(order) => self.enter(order),
            Command::Modify { order, quantity, limit, stop } => self.modify(order, quantity, limit, stop),
            Command::Cancel { order } => self.cancel(order),
        }
    }

    fn enter(&mut self, order: Order) {
        let (id, i) = (order.id, order.instrument as usize);
        if self.find(id).is_some() {
            // Not `Rejected`: that would say that the order which works is over.
            let reason = "duplicate: an order of this id works already".into();
            return self.say(Said::ChangeRejected { order: id, reason });
        }
        if let Err(reason) = self.check_new(&order) {
            return self.say(Said::Rejected { order: id, reason });
        }
        let until = match order.time_in_force {
            TimeInForce::Gtd(at) => at,
            TimeInForce::Day => self.day_ends(i),
            TimeInForce::Gtc | TimeInForce::Ioc | TimeInForce::Fok => i64::MAX,
        };
        let seq = self.next_seq();
        if until != i64::MAX {
            self.state.timers.insert((until, seq, order.instrument));
        }
        self.state.index.insert(id, order.instrument);
        let armed = !matches!(order.order_type, OrderType::Market | OrderType::Limit { .. });
        let mut work = Work::new(order, seq, until);
        work.prints = self.state.views[i].prints;
        if armed {
            work.phase = Phase::Armed;
        }
        self.state.desks[i].orders.push(work);
        self.say(Said::Accepted { order: id });
        self.trim(i);
        let k = self.state.desks[i].orders.len() - 1;
        if armed {
            if self.is_live(i) {
                self.trigger(i, None);
            }
        } else {
            self.arrive(i, k);
        }
        self.sweep(i);
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.state.seqs += 1;
        self.state.seqs
    }

    fn check_new(&mut self, order: &Order) -> Result<(), String> {
        let i = order.instrument as usize;
        let Some(listing) = self.listings.get(i) else {
            return Err(format!("unknown instrument: there is no number {i}"));
        };
        listing.instrument.check(order)?;
        self.check_notional(order)?;
        let (side, position) = (order.side, self.state.desks[i].position);
        if order.reduce_only && side.reducible(position).is_zero() {
            return Err(format!("reduce_only: a {} can't reduce a position of {position}", name(side)));
        }
        if let TimeInForce::Gtd(at) = order.time_in_force
            && at <= self.state.now
        {
            return Err(format!("time_in_force: good till {at}, and it is {}", self.state.now));
        }
        let at_once = matches!(order.time_in_force, TimeInForce::Ioc | TimeInForce::Fok);
        let armed = !matches!(order.order_type, OrderType::Market | OrderType::Limit { .. });
        if !armed && (at_once || matches!(order.order_type, OrderType::Market)) && !self.is_live(i) {
            let why = if self.state.views[i].halted { "halted" } else { "closed" };
            let what = if at_once { "orders that are filled at once or not at all" } else { "market orders" };
            return Err(format!("{why}: no {what} while the instrument is not traded"));
        }
        if order.post_only && !armed && self.crosses(i, order) {
            return Err(format!("post_only: {}", self.crossing(i, order)));
        }
        Ok(())
    }

    /// The value of an order, where a price of it is known, must reach the least one. What makes a position smaller may be smaller.
    pub(super) fn check_notional(&self, order: &Order) -> Result<(), String> {
        let i = order.instrument as usize;
        let instrument = &self.listings[i].instrument;
        let price = order.limit().or_else(|| order.stop()).or_else(|| {
            let view = &self.state.views[i];
            let (bid, ask) = view.best(self.source(i) == MatchOn::Book);
            let shown = if order.side == Side::Buy { ask } else { bid };
            money::from_f64(if shown.is_nan() { view.last } else { shown })
        });
        let Some(price) = price else { return Ok(()) };
        let notional =
            price.checked_mul(order.quantity).and_then(|value| value.checked_mul(instrument.multiplier.0));
        let Some(notional) = notional else {
            return Err(format!("quantity: {} at {price} is beyond what can be reckoned", order.quantity));
        };
        match instrument.min_notional {
            Some(least) if notional < least.0 && !order.reduce_only => Err(format!(
                "min_notional: {} at {price} is worth {notional}, below {least:?}",
                order.quantity
            )),
            _ => Ok(()),
        }
    }

    /// Whether a limit order would trade at once.
    pub(super) fn crosses(&mut self, i: usize, order: &Order) -> bool {
        let limit = order.limit().map_or(f64::NAN, money::to_f64);
        let source = self.source(i);
        let view = &mut self.state.views[i];
        let other = match source {
            // At the last price nobody knows which side it was; beyond it there must be a taker.
            MatchOn::Trades => match order.side {
                Side::Buy => view.last.next_up(),
                Side::Sell => view.last.next_down(),
            },
            _ => view
                .opposite(order.side, source == MatchOn::Book)
                .last()
                .map_or(f64::NAN, |level| level.price),
        };
        match order.side {
            Side::Buy => limit >= other,
            Side::Sell => limit <= other,
        }
    }

    pub(super) fn crossing(&self, i: usize, order: &Order) -> String {
        let source = self.source(i);
        let view = &self.state.views[i];
        let limit = order.limit().unwrap_or_default();
        let (bid, ask) = view.best(source == MatchOn::Book);
        let (word, other) = match (source, order.side) {
            (MatchOn::Trades, _) => ("last trade", view.last),
            (_, Side::Buy) => ("ask", ask),
            (_, Side::Sell) => ("bid", bid),
        };
        format!("a {} at {limit} would trade at once: the {word} is {other}", name(order.side))
    }
}

pub(super) fn name(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}

impl Instrument {
    /// Whether an order keeps to the steps and sizes of the instrument.
    ///
    /// # Errors
    /// The rule that it breaks, with the numbers.
    pub(crate) fn check(&self, order: &Order) -> Result<(), String> {
        let quantity = order.quantity;
        if quantity <= Decimal::ZERO {
            return Err(format!("quantity: {quantity} is not above zero"));
        }
        if to_lots(quantity, self.lot.0) != quantity {
            return Err(format!("lot: {quantity} is not a multiple of {:?}", self.lot));
        }
        if let Some(least) = self.min_quantity
            && quantity < least.0
        {
            return Err(format!("min_quantity: {quantity} is below {least:?}"));
        }
        if let Some(most) = self.max_quantity
            && quantity > most.0
        {
            return Err(format!("max_quantity: {quantity} is above {most:?}"));
        }
        for (what, price) in [("limit", order.limit()), ("stop", order.stop())] {
            let Some(price) = price else { continue };
            self.check_price(what, price)?;
        }
        match order.order_type {
            OrderType::TrailingStop { trail: Trail::Amount(amount) } => self.check_price("trail", amount)?,
            OrderType::TrailingStop { trail: Trail::Fraction(part) }
                if part <= Decimal::ZERO || part >= Decimal::ONE =>
            {
                return Err(format!("trail: {part} is not between 0 and 1"));
            }
            _ => {}
        }
        if order.post_only {
            let rests = order.limit().is_some();
            if !rests || matches!(order.time_in_force, TimeInForce::Ioc | TimeInForce::Fok) {
                return Err("post_only: such an order can't rest".into());
            }
        }
        Ok(())
    }

    fn check_price(&self, what: &str, price: Decimal) -> Result<(), String> {
        if price <= Decimal::ZERO {
            return Err(format!("{what}: {price} is not above zero"));
        }
        match price.checked_rem(self.tick.0) {
            Some(rest) if rest.is_zero() => Ok(()),
            _ => Err(format!("tick: {what} {price} is not a multiple of {:?}", self.tick)),
        }
    }
}
