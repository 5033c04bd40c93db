//! The paper venue: orders matched against market data, the same way in every run.
//!
//! **Time.** A command that leaves at `t` takes effect at `t` + latency, before what the market shows at that very time; a report of what
//! happens at `t` is given out, and dated, when the client learns of it. Messages of one way never overtake each other. At one time
//! orders expire first, then commands take effect, then the market moves. There is no other source of time or chance, so what
//! comes out is a function of the calls; [`Paper::state`] and [`Paper::restore`] at any point change nothing.
//!
//! **Taking.** A marketable order takes from the levels of the book, else from the last quote, else (where only trades or bars are seen)
//! from the next trade. What was taken from a quote or level is gone until that side or level is shown with another price or size,
//! and a trade's size is had once by all orders together. What isn't shown isn't there: the rest of a market order waits for the next
//! quote, the rest of a limit order rests, that of IOC is cancelled. A size of NaN (a feed without sizes) stands for any quantity.
//!
//! **Resting.** A limit order is filled at its limit, never better: by a quote or level of the other side that reaches it, by a trade beyond
//! it, and by trades at it once those ahead in the queue ([`Queue`]) had theirs. A trade at or above the ask was made by a buyer: it
//! fills no buys at that price (and the other way round). Among ours: market orders first, then by price, then by time; buys before
//! sells. Orders of one account do not meet each other.
//!
//! **Bars** are four trades of a quarter of the volume each ([`Bars`]). A bar that is longer than an order is old may hold prices from before
//! the order: give orders their time between bars.
//!
//! **Halts and hours.** Outside of them nothing is filled or triggered; market, IOC and FOK orders are rejected, others wait. A limit order
//! that came then takes from what is shown first. DAY orders end with the session that they are in or the next one; where an instrument
//! has no sessions, with the UTC day.
//!
//! **What is not known** is not there: a [`Market::BookReset`] takes levels and quotes away until they are shown again, and so does a halt
//! with quotes. Prices that are none ([`is_price`]) are passed over, and what has a size of zero fills nothing.
//!
//! **Fees** are those of the whole order: its `minimum` is paid with its first fill, and counts for the later ones.
//!
//! State: working orders, messages on their way, the book's levels and 30 sums of value traded.

mod accept;
mod book;
mod change;
mod latency;
mod matching;
mod params;
mod slippage;
mod state;
#[cfg(test)]
mod tests;
mod trigger;
mod view;

use std::sync::Arc;

pub use latency::Latency;
pub use params::{BarPath, Bars, MatchOn, PaperParams, Queue, Slippage, StopTrigger};
pub use state::PaperState;

use crate::instrument::{Fees, Instrument};
use crate::market::{InstrumentId, Market, Tick, is_price};
use crate::money::Decimal;
use crate::order::{Command, OrderId};
use crate::report::{Open, Report, Said};
use crate::session::{NEVER, Session, SessionClock};
use state::{Desk, Phase, Work};
use view::{Before, View};

/// A paper venue with one account. See the [module](self).
#[derive(Clone, Debug)]
pub struct Paper {
    params: PaperParams,
    fees: Fees,
    listings: Vec<Listing>,
    /// When something is due: the least of what `state` holds.
    next: i64,
    state: PaperState,
}

/// What a venue knows of an instrument, which is no state.
#[derive(Clone, Debug)]
struct Listing {
    instrument: Instrument,
    clock: SessionClock,
}

impl Paper {
    /// A venue for these instruments; `fees` are those of instruments that have none of their own.
    ///
    /// # Errors
    /// Everything that is wrong, as (path below the venue's block or `instruments[n]…`, reason).
    pub fn new(
        params: &PaperParams,
        instruments: Arc<[Instrument]>,
        fees: Fees,
    ) -> Result<Self, Vec<(String, String)>> {
        let mut problems = params.problems();
        let mut paper = Self {
            params: params.clone(),
            fees,
            listings: Vec::new(),
            next: i64::MAX,
            state: PaperState::default(),
        };
        for (n, instrument) in instruments.iter().enumerate() {
            if let Err(more) = paper.add(instrument) {
                problems.extend(
                    more.into_iter().map(|(path, reason)| (format!("instruments[{n}].{path}"), reason)),
                );
            }
        }
        if problems.is_empty() { Ok(paper) } else { Err(problems) }
    }

    /// Lists another instrument; its number is the next one.
    ///
    /// # Errors
    /// What is wrong with it, as (path below it, reason); then it is not listed.
    pub fn add(&mut self, instrument: &Instrument) -> Result<InstrumentId, Vec<(String, String)>> {
        let mut problems = Vec::new();
        let steps =
            [("tick", instrument.tick), ("lot", instrument.lot), ("multiplier", instrument.multiplier)];
        for (path, step) in steps {
            if step.0 <= Decimal::ZERO {
                problems.push((path.to_string(), format!("{step:?} is not above zero")));
            }
        }
        let session = instrument.session.as_ref().map(Session::new).transpose().unwrap_or_else(|reason| {
            problems.push(("session".into(), reason));
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let clock = SessionClock::new(session.map(Arc::new));
        self.listings.push(Listing { instrument: instrument.clone(), clock });
        self.grow();
        Ok((self.listings.len() - 1) as InstrumentId)
    }

    /// Sends a command at `now`: it takes effect when its latency is over.
    pub fn command(&mut self, now: i64, command: &Command) {
        let n = self.state.commands_sent;
        self.state.commands_sent += 1;
        let at = self.params.latency.order_arrives(now, n).max(self.state.last_command);
        self.state.last_command = at;
        self.state.commands.push_back((at, command.clone()));
        self.next = self.next.min(at);
    }

    /// Takes in what the market shows, after everything that is due at or before it. Reports go to `out`.
    #[inline]
    pub fn tick(&mut self, tick: &Tick, out: &mut Vec<Report>) {
        if self.next <= tick.ts {
            self.advance(tick.ts, out);
        }
        let Some(view) = self.state.views.get_mut(tick.instrument as usize) else { return };
        let before = view.observe(&tick.market);
        if !view.is_quiet(&tick.market, &before) {
            self.touched(tick, before, out);
        }
    }

    /// Takes in what the market shows while [`Paper::is_idle`] says that it can't concern any order. O(1) but for book levels; no allocation
    /// but for those.
    #[inline]
    pub fn observe(&mut self, tick: &Tick) {
        if let Some(view) = self.state.views.get_mut(tick.instrument as usize) {
            view.observe(&tick.market);
        }
    }

    /// Whether nothing works for an instrument and no command is on its way, so that [`Paper::observe`] does for a tick of it what
    /// [`Paper::tick`] does. Reports on their way are another matter: see [`Paper::next_due`].
    #[inline]
    pub fn is_idle(&self, instrument: InstrumentId) -> bool {
        self.state.commands.is_empty()
            && self.state.desks.get(instrument as usize).is_none_or(|desk| desk.orders.is_empty())
    }

    /// Lets time pass until `to`, which itself is over then: commands take effect, orders expire, reports are given out.
    pub fn advance(&mut self, to: i64, out: &mut Vec<Report>) {
        loop {
            let command = self.state.commands.front().map_or(i64::MAX, |(at, _)| *at);
            let timer = self.state.timers.first().copied();
            match timer {
                Some((at, seq, i)) if at <= command && at <= to => {
                    self.state.now = self.state.now.max(at);
                    self.expire(i as usize, seq);
                }
                _ if command <= to => {
                    self.state.now = self.state.now.max(command);
                    let Some((_, command)) = self.state.commands.pop_front() else { break };
                    self.act(command);
                }
                _ => break,
            }
        }
        self.give(to, out);
    }

    /// When something is due, so that [`Paper::advance`] should be called. `i64::MAX`: nothing.
    #[inline]
    pub fn next_due(&self) -> i64 {
        self.next
    }

    /// Best bid and ask of the instrument's book, NaN where a side is empty; `None` where no book is seen.
    pub fn best(&self, instrument: InstrumentId) -> Option<(f64, f64)> {
        self.state.views.get(instrument as usize).filter(|view| view.has_book).map(|view| view.best(true))
    }

    /// Units held at the venue.
    pub fn position(&self, instrument: InstrumentId) -> Decimal {
        self.state.desks.get(instrument as usize).map_or(Decimal::ZERO, |desk| desk.position)
    }

    /// Sets what is held at the venue, such as what an account began with. Reduce-only orders go by it.
    pub fn set_position(&mut self, instrument: InstrumentId, units: Decimal) {
        if let Some(desk) = self.state.desks.get_mut(instrument as usize) {
            desk.position = units;
        }
    }

    /// Sets what one unit of an instrument's quote currency is worth in the account's, by which value traded is counted for fee tiers.
    pub fn set_rate(&mut self, instrument: InstrumentId, rate: Decimal) {
        if let Some(desk) = self.state.desks.get_mut(instrument as usize) {
            desk.rate = Some(rate);
        }
    }

    /// Working orders, by instrument and then by priority.
    pub fn working(&self) -> Vec<Open> {
        let orders = self.state.desks.iter().flat_map(|desk| &desk.orders);
        orders.map(|work| Open { order: work.order.clone(), filled: work.filled }).collect()
    }

    /// Every unit becomes `ratio` units at `now`: working orders are multiplied and their prices divided by it, as exchanges do. Quantities
    /// are cut to lots (an order of which less than a lot is left is cancelled), limits are rounded to the tick so that they ask for no
    /// less than before, triggers to the nearest tick. Orders keep their priority; prices seen before are forgotten. Commands and reports that are
    /// on their way arrive in new units. A ratio that isn't above zero does nothing.
    pub fn split(&mut self, now: i64, instrument: InstrumentId, ratio: Decimal) {
        let i = instrument as usize;
        if ratio <= Decimal::ZERO || i >= self.state.desks.len() {
            return;
        }
        self.state.now = self.state.now.max(now);
        self.split_messages(i, ratio);
        self.split_orders(i, ratio);
        self.state.views[i].forget();
        self.sweep(i);
    }

    /// All that it remembers, to be saved.
    pub fn state(&self) -> &PaperState {
        &self.state
    }

    /// Goes on from what [`Paper::state`] gave, with the same parameters and instruments (or more of them).
    pub fn restore(&mut self, state: PaperState) {
        self.state = state;
        self.grow();
        self.find_next();
    }

    /// Makes place for all that is listed.
    fn grow(&mut self) {
        let n = self.listings.len().max(self.state.desks.len());
        self.state.views.resize_with(n, View::default);
        self.state.desks.resize_with(n, Desk::default);
    }

    /// A tick that may concern working orders.
    #[cold]
    fn touched(&mut self, tick: &Tick, before: Before, out: &mut Vec<Report>) {
        let i = tick.instrument as usize;
        self.state.now = self.state.now.max(tick.ts);
        let live = self.is_live(i);
        match tick.market {
            Market::Trade { price, size } if live => {
                self.on_print(i, price, size);
                self.trigger(i, None);
            }
            Market::Bar { open, high, low, close, volume } if live => {
                let mut from = None;
                for price in self.params.bars.path.prices(open, high, low, close) {
                    if !is_price(price) {
                        continue;
                    }
                    self.state.views[i].last = price;
                    self.trigger(i, from);
                    self.on_print(i, price, volume / 4.0);
                    from = Some(price);
                }
            }
            Market::Quote { .. } | Market::Level { .. } | Market::Resting { .. } => {
                self.requeue(i, &tick.market, before);
                if live {
                    self.on_shown(i);
                    self.trigger(i, None);
                }
            }
            Market::Mark { .. } if live => self.trigger(i, None),
            _ => {}
        }
        self.sweep(i);
        self.give(tick.ts, out);
    }

    /// Whether the instrument is traded now.
    fn is_live(&mut self, i: usize) -> bool {
        !self.state.views[i].halted
            && self.listings.get_mut(i).is_some_and(|l| l.clock.is_open(self.state.now))
    }

    /// Whether taking orders go by the book, by quotes, or wait for trades.
    fn source(&self, i: usize) -> MatchOn {
        let view = &self.state.views[i];
        match self.params.match_on {
            Some(source) => source,
            None if view.has_book => MatchOn::Book,
            None if view.has_quote => MatchOn::Quotes,
            None => MatchOn::Trades,
        }
    }

    /// Sends a report.
    fn say(&mut self, what: Said) {
        let n = self.state.reports_sent;
        self.state.reports_sent += 1;
        let ts = self.params.latency.report_arrives(self.state.now, n).max(self.state.last_report);
        self.state.last_report = ts;
        self.state.reports.push_back(Report { ts, what });
        self.next = self.next.min(ts);
    }

    /// Gives out the reports that have arrived.
    fn give(&mut self, to: i64, out: &mut Vec<Report>) {
        while self.state.reports.front().is_some_and(|report| report.ts <= to) {
            out.extend(self.state.reports.pop_front());
        }
        self.find_next();
    }

    fn find_next(&mut self) {
        let command = self.state.commands.front().map_or(i64::MAX, |(at, _)| *at);
        let report = self.state.reports.front().map_or(i64::MAX, |report| report.ts);
        let timer = self.state.timers.first().map_or(i64::MAX, |(at, ..)| *at);
        self.next = command.min(report).min(timer);
    }

    /// Takes out what is over and reckons anew which prices would touch the rest.
    fn sweep(&mut self, i: usize) {
        let live = self.is_live(i);
        let PaperState { desks, views, index, timers, .. } = &mut self.state;
        desks[i].orders.retain(|work| {
            if work.is_over {
                index.remove(&work.order.id);
                timers.remove(&(work.until, work.seq, i as InstrumentId));
            }
            !work.is_over
        });
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        for work in &desks[i].orders {
            let (down, up) = work.bounds();
            (low, high) = (low.max(down), high.min(up));
        }
        if !live && !desks[i].orders.is_empty() {
            // What was missed meanwhile is looked at with the first tick after it, whichever that is.
            (low, high) = (f64::INFINITY, f64::NEG_INFINITY);
        }
        (views[i].low, views[i].high) = (low, high);
        self.find_next();
    }

    /// The place of a working order.
    fn find(&self, id: OrderId) -> Option<(usize, usize)> {
        let i = *self.state.index.get(&id)? as usize;
        let k = self.state.desks[i].orders.iter().position(|work| work.order.id == id)?;
        Some((i, k))
    }

    /// When an order of `i` that lasts for the day ends.
    fn day_ends(&mut self, i: usize) -> i64 {
        let now = self.state.now;
        match self.listings[i].clock.next_close(now) {
            NEVER if self.listings[i].instrument.session.is_none() => {
                const DAY: i64 = 86_400_000_000_000;
                now.div_euclid(DAY).saturating_add(1).saturating_mul(DAY)
            }
            close => close,
        }
    }
}

impl Work {
    /// The prices at or below which, and at or above which, something happens to the order.
    fn bounds(&self) -> (f64, f64) {
        let nothing = (f64::NEG_INFINITY, f64::INFINITY);
        match self.phase {
            Phase::Taking => (f64::INFINITY, f64::NEG_INFINITY),
            Phase::Resting if self.order.side == crate::order::Side::Buy => (self.limit, nothing.1),
            Phase::Resting => (nothing.0, self.limit),
            Phase::Armed if !self.best.is_nan() => match self.triggers_up() {
                // A trailing stop also moves when there is a new best price.
                true => (self.best.next_down(), self.trigger),
                false => (self.trigger, self.best.next_up()),
            },
            // A trailing stop that has seen no price yet.
            Phase::Armed if self.trigger.is_nan() => (f64::INFINITY, f64::NEG_INFINITY),
            Phase::Armed if self.triggers_up() => (nothing.0, self.trigger),
            Phase::Armed => (self.trigger, nothing.1),
        }
    }
}
