//! The hot path: a tick.

use super::Execution;
use super::brackets::Watched;
use super::orders::Purpose;
use super::slot::{Seen, Source};
use crate::event::{Event, Reason};
use crate::market::{Fault, InstrumentId, Market, Tick};

impl Execution {
    /// Takes a tick, after all that was due.
    #[inline]
    pub(super) fn tick(&mut self, tick: &Tick, out: &mut Vec<Event>) {
        let i = tick.instrument;
        let Some(slot) = self.own.slots.get_mut(i as usize) else { return };
        self.own.seen = true;
        let whole;
        let tick = if self.params.zero_is_unchanged {
            whole = slot.whole(tick);
            &whole
        } else {
            tick
        };
        let sound;
        let tick = match tick.market.fault() {
            None => tick,
            Some(fault) => {
                self.doubt(i, fault, out);
                let Some(market) = tick.market.sound() else { return };
                sound = Tick { market, ..*tick };
                &sound
            }
        };
        let slot = &mut self.own.slots[i as usize];
        let was_halted = slot.halted;
        let seen = slot.see(&tick.market);
        self.gate.observe(tick);
        let (held, mut watched) = (slot.held, None);
        let mut slow = slot.counts
            || slot.halted != was_halted
            || matches!(tick.market, Market::Funding { .. } | Market::Level { .. } | Market::Resting { .. });
        if let Seen::Price(price, low, high) = seen {
            if low <= slot.watch.low || high >= slot.watch.high {
                watched = slot.watch.seen(low, high);
            }
            self.ledger.mark(i, price);
            self.history.observe(tick.ts, i, price);
        }
        // Looked at before the venue sees it, since what that fills now moves the guard; done after it.
        watched = watched.filter(|hit| self.acts_on(i, *hit));
        slow |= watched.is_some();
        if let Some(paper) = &mut self.paper {
            if paper.is_idle(i) {
                paper.observe(tick);
            } else {
                paper.tick(tick, &mut self.reports);
                self.due = self.due.min(paper.next_due());
                slow |= !self.reports.is_empty() || self.due <= tick.ts;
            }
        }
        if slow {
            self.slow_tick(tick, watched, out);
        }
        if held && (self.follows || self.forced) {
            self.valued(out);
        }
    }

    /// A tick is not what it should be: told once of a symbol and kind.
    #[cold]
    fn doubt(&mut self, i: InstrumentId, fault: Fault, out: &mut Vec<Event>) {
        let slot = &mut self.own.slots[i as usize];
        if slot.doubted & fault.bit() == 0 {
            slot.doubted |= fault.bit();
            let detail = fault.detail(&self.instruments[i as usize].symbol);
            self.alert(Some(i), fault.code(), detail, out);
        }
    }

    /// The position of something that is held has another value.
    fn valued(&mut self, out: &mut Vec<Event>) {
        let before = out.len();
        self.follow(out);
        if self.forced {
            self.look_for_liquidation(out);
        }
        self.look_for_debt(out);
        if out.len() > before {
            self.end(out);
        }
    }

    #[cold]
    fn slow_tick(&mut self, tick: &Tick, watched: Option<Purpose>, out: &mut Vec<Event>) {
        let i = tick.instrument;
        let mut reports = std::mem::take(&mut self.reports);
        self.take_reports(&mut reports, out);
        self.reports = reports;
        match tick.market {
            Market::Trade { size, .. } | Market::Bar { volume: size, .. }
                if self.own.slots[i as usize].counts =>
            {
                self.traded(i, size, out);
            }
            Market::Level { .. } | Market::Resting { .. } => self.book_moved(i),
            Market::Funding { rate } if self.paper.is_some() => self.funding(i, rate, out),
            Market::Halt(_) => self.halted(i, out),
            _ => {}
        }
        // A guard that is reached, now that the venue's own word is in.
        if let Some(hit) = watched
            && self.own.slots[i as usize].held
            && !self.own.slots[i as usize].closing.is_on()
        {
            let reason = if hit == Purpose::StopLoss { Reason::StopLoss } else { Reason::TakeProfit };
            self.own.slots[i as usize].stopped = true;
            self.close(i, reason, out);
        }
        self.end(out);
    }

    /// Whether a guard's price that is reached is for this machine to act on. Where the venue holds the guard, that is so only for a stop while orders
    /// still make the position larger: they go, and the position with them.
    #[cold]
    fn acts_on(&self, i: InstrumentId, hit: Purpose) -> bool {
        let side = super::goals::side_of(self.ledger.quantity(i));
        self.watches() || (hit == Purpose::StopLoss && self.still_enters(i, side))
    }

    /// The market traded: sliced orders that follow volume send more.
    fn traded(&mut self, i: InstrumentId, size: f64, out: &mut Vec<Event>) {
        let numbers: Vec<u64> =
            self.own.parents.iter().filter(|(_, p)| p.instrument == i).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(parent) = self.own.parents.get_mut(&number) {
                parent.schedule.traded(size);
            }
            self.slice(number, out);
        }
    }

    /// Where only a book is seen, its best prices are the quote.
    fn book_moved(&mut self, i: InstrumentId) {
        let Some((bid, ask)) = self.paper.as_ref().and_then(|p| p.best(i)) else { return };
        let slot = &mut self.own.slots[i as usize];
        (slot.bid, slot.ask) = (bid, ask);
        if bid > 0.0 && ask > 0.0 && slot.source <= Source::Quote {
            slot.source = Source::Quote;
            slot.price = (bid + ask) / 2.0;
            self.ledger.mark(i, slot.price);
            self.history.observe(self.own.now, i, slot.price);
        }
    }

    fn funding(&mut self, i: InstrumentId, rate: f64, out: &mut Vec<Event>) {
        match self.ledger.funding(self.own.now, i, rate) {
            Ok(Some(moved)) => {
                self.tell_cash(moved, out);
                self.look_for_debt(out);
            }
            Ok(None) => {}
            Err(why) => self.alert(Some(i), "funding_refused", why.to_string(), out),
        }
    }

    /// Whether this machine watches guards, not the venue.
    pub(super) fn watches(&self) -> bool {
        self.params.protect.at == Watched::Machine
    }
}
