//! The risk gate: what every order must pass before it is sent, and the states in which the account may trade.
//!
//! Rules are looked at in the order of [`GateParams`]' table below; the first that fails names the refusal. A refused order leaves no trace in the
//! gate. Exposure is reckoned exactly; equity, value at risk and correlation are analytics (`f64`).
//!
//! 1. `state`, `control.*`, `daily_loss.*`, `drawdown.max`: whether the account may trade at all
//! 2. `stale`, `collar.bps`: whether the market is known, and the price near it
//! 3. `order.*`, `position.*`, `sector`, `venue`, `gross`, `net`, `leverage`, `concentration.max`: worst-case exposure
//! 4. `var.*`, `correlation.max`: what the book would be like
//! 5. `rate.orders`: last, since it counts what passed
//!
//! State: for each instrument its last prices; the times of the newest orders (at most `rate.orders`); the breakers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::TradingState;
use crate::instrument::Instrument;
use crate::market::{InstrumentId, Tick};
use crate::money::{Decimal, to_f64};
use crate::order::{OrderType, Side};
use crate::signal::Control;

pub mod params;
pub mod view;

mod book_risk;
mod breakers;
mod exposure;
mod limits;
mod names;
mod rate;
mod rules;
mod seen;

pub use breakers::Action;
pub use params::GateParams;
pub use view::{View, Working};

use breakers::Breakers;
use exposure::Effect;
use limits::Limits;
use rate::RateWindow;
use seen::Seen;

/// What is wrong in a graph: where below the block, and why.
pub type Wrong = Vec<(String, String)>;

/// An order that is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrderIntent {
    /// Of what.
    pub instrument: InstrumentId,
    /// Buy or sell.
    pub side: Side,
    /// Units, above zero; of a change to a working order, the units that it adds.
    pub quantity: Decimal,
    /// The price that is expected: the limit where there is one, else the stop, else the market's.
    pub price: Decimal,
    /// How.
    pub order_type: OrderType,
    /// Whether the venue, or the machine in its stead, cuts it where it would make a position larger or turn it.
    pub reduce_only: bool,
    /// Whether it protects a position (stop-loss, take-profit): while it only makes one smaller it passes `stale`, `collar` and `rate`. It is
    /// counted for `rate` all the same.
    pub protective: bool,
}

/// Why an order was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Refusal {
    /// The rule, by its path in the graph.
    pub rule: &'static str,
    /// What was compared, with the numbers.
    pub detail: String,
}

impl Refusal {
    pub(crate) fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}

/// The gate of one account.
#[derive(Clone, Debug)]
pub struct Gate {
    params: GateParams,
    limits: Limits,
    breakers: Breakers,
    seen: Vec<Seen>,
    rate: RateWindow,
}

/// What a gate remembers: all that a snapshot must hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GateState {
    breakers: breakers::BreakerState,
    seen: Vec<Seen>,
    rate: RateWindow,
}

impl Gate {
    /// A gate for these instruments and no others: names in the rules that none of them has are errors.
    ///
    /// # Errors
    /// All that is wrong in the parameters, each with its path below the block.
    pub fn new(params: &GateParams, instruments: Arc<[Instrument]>) -> Result<Self, Wrong> {
        let mut wrong = names::unknown_symbols(params, &instruments);
        match Self::open(params, &instruments, None) {
            Ok(gate) if wrong.is_empty() => Ok(gate),
            Ok(_) => Err(wrong),
            Err(more) => {
                wrong.extend(more);
                Err(wrong)
            }
        }
    }

    /// A gate to which instruments like `template` may be [added](Self::add) later, so limits may name symbols that are not there yet.
    ///
    /// # Errors
    /// As [`Gate::new`].
    pub fn open(
        params: &GateParams,
        instruments: &[Instrument],
        template: Option<&Instrument>,
    ) -> Result<Self, Wrong> {
        let mut wrong = names::unknown_groups(params, instruments.iter().chain(template));
        wrong.extend(limits::check(params));
        let breakers = Breakers::new(params, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut gate = Self {
            params: params.clone(),
            limits: Limits::default(),
            breakers,
            seen: Vec::new(),
            rate: RateWindow::default(),
        };
        instruments.iter().for_each(|instrument| gate.add(instrument));
        Ok(gate)
    }

    /// One more instrument, numbered on.
    pub fn add(&mut self, instrument: &Instrument) {
        self.limits.add(&self.params, instrument);
        if self.seen.len() < self.limits.len() {
            self.seen.push(Seen::default());
        }
    }

    /// The market showed something. Two stores; nothing for rules that are not there.
    #[inline]
    pub fn observe(&mut self, tick: &Tick) {
        if let Some(seen) = self.seen.get_mut(tick.instrument as usize) {
            seen.observe(tick);
        }
    }

    /// Every unit became `ratio` units: prices that were seen before are divided by it.
    pub fn split(&mut self, instrument: InstrumentId, ratio: Decimal) {
        if let Some(seen) = self.seen.get_mut(instrument as usize) {
            seen.split(to_f64(ratio));
        }
    }

    /// Whether the order may be sent. One that passes is counted for `rate`: ask once, and last.
    ///
    /// # Errors
    /// The first rule that it fails.
    pub fn check(&mut self, now: i64, order: &OrderIntent, view: &dyn View) -> Result<(), Refusal> {
        let reduces = self.check_terms(now, order, view)?;
        match &self.params.rate {
            Some(rate) => self.rate.pass(now, rate, reduces && order.protective),
            None => Ok(()),
        }
    }

    /// Whether a working order may become `order` (what is left of it, at its new prices). The view is without it. Changes are not counted for
    /// `rate`.
    ///
    /// # Errors
    /// The first rule that it fails.
    pub fn check_change(&self, now: i64, order: &OrderIntent, view: &dyn View) -> Result<(), Refusal> {
        self.check_terms(now, order, view).map(drop)
    }

    /// All rules but `rate`. Whether the order can but make a position smaller.
    fn check_terms(&self, now: i64, order: &OrderIntent, view: &dyn View) -> Result<bool, Refusal> {
        let Some(known) = self.limits.get(order.instrument) else {
            return Err(Refusal::new("order.symbol", "nothing is known of the instrument"));
        };
        if order.quantity <= Decimal::ZERO {
            return Err(Refusal::new("order.quantity", format!("{} is not above zero", order.quantity)));
        }
        if order.price <= Decimal::ZERO {
            return Err(Refusal::new("order.price", format!("{} is not above zero", order.price)));
        }
        let Effect { reduces, raises } = Effect::of(order, view);
        self.breakers.check(now, reduces)?;
        if !(reduces && order.protective) {
            let seen = &self.seen[order.instrument as usize];
            seen.check_stale(now, self.params.stale, &known.symbol)?;
            seen.check_collar(
                order,
                self.params.collar.as_ref(),
                view.price(order.instrument),
                &known.symbol,
            )?;
        }
        if raises {
            rules::check(&self.params, &self.limits, order, reduces, view)?;
        }
        if !reduces {
            book_risk::check(&self.params, &self.limits, order, view)?;
        }
        Ok(reduces)
    }

    /// What the account is worth now: at each sample and after each fill. NaN is passed over.
    pub fn mark(&mut self, now: i64, equity: f64, out: &mut Vec<Action>) {
        self.breakers.mark(now, equity, out);
    }

    /// So much came to the account, or went from it (below zero), that nobody earned or lost: the day's start and the peak move with it.
    pub fn transferred(&mut self, amount: f64) {
        self.breakers.transferred(amount);
    }

    /// What the account is worth was not known before: the day's loss and the drawdown begin anew with the next mark.
    pub fn begin_anew(&mut self) {
        self.breakers.begin_anew();
    }

    /// Whether a hold says that nothing may be held at all.
    pub fn flattens(&self, now: i64) -> bool {
        self.breakers.flattens(now)
    }

    /// Time has come to `now`: holds that are over end.
    pub fn advance(&mut self, now: i64, out: &mut Vec<Action>) {
        self.breakers.advance(now, out);
    }

    /// When [`Gate::advance`] next has something to do; `i64::MAX`: never.
    pub fn next_due(&self) -> i64 {
        self.breakers.next_due()
    }

    /// A command. `Resume` ends every hold but the graph's own `state`, and lets the day's loss and the drawdown begin anew from the last
    /// equity. `why` is told wherever it stops an order.
    pub fn control(&mut self, now: i64, control: Control, why: &str, out: &mut Vec<Action>) {
        self.breakers.control(now, control, why, out);
    }

    /// The state now.
    pub fn state(&self) -> TradingState {
        self.breakers.state()
    }

    /// What a snapshot holds.
    pub fn save(&self) -> GateState {
        GateState { breakers: self.breakers.save(), seen: self.seen.clone(), rate: self.rate.clone() }
    }

    /// Goes on from a snapshot, with the rules of now.
    pub fn restore(&mut self, state: GateState) {
        self.breakers.restore(state.breakers);
        let instruments = self.seen.len().max(state.seen.len());
        self.seen = state.seen;
        self.seen.resize(instruments, Seen::default());
        self.rate = state.rate;
    }
}

#[cfg(test)]
mod tests;
