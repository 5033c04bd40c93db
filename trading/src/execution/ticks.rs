//! The hot path: a tick.

use super::Execution;
use super::brackets::Watched;
use super::orders::Purpose;
use super::slot::{Seen, Source};
use crate::event::{Event, Reason};
use crate::market::{InstrumentId, Market, Tick};

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
        let seen = slot.see(&tick.market);
        if let Seen::Bad(price) = seen {
            self.bad_price(i, price, out);
            return;
        }
        self.gate.observe(tick);
        let (held, mut watched) = (slot.held, None);
        let mut slow = slot.counts
            || matches!(tick.market, Market::Funding { .. } | Market::Level { .. } | Market::Resting { .. });
        if let Seen::Price(price, low, high) = seen {
            if low <= slot.watch.low || high >= slot.watch.high {
                watched = Some((low, high));
                slow = true;
            }
            self.ledger.mark(i, price);
            self.history.observe(tick.ts, i, price);
        }
        // The venue sees the tick before anything is done about it.
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

    #[cold]
    fn bad_price(&mut self, i: InstrumentId, price: f64, out: &mut Vec<Event>) {
        let slot = &mut self.own.slots[i as usize];
        if !std::mem::replace(&mut slot.bad_price, true) {
            let symbol = &self.instruments[i as usize].symbol;
            let detail =
                format!("a price of {symbol} is {price}: such rows are passed over, this is told once");
            self.alert(Some(i), "bad_price", detail, out);
        }
    }

    /// The position of something that is held has another value.
    fn valued(&mut self, out: &mut Vec<Event>) {
        let before = out.len();
        self.follow(out);
        if self.forced {
            self.look_for_liquidation(out);
        }
        if out.len() > before {
            self.end(out);
        }
    }

    #[cold]
    fn slow_tick(&mut self, tick: &Tick, watched: Option<(f64, f64)>, out: &mut Vec<Event>) {
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
            _ => {}
        }
        // A guard that is reached, now that the venue's own word is in.
        if let Some((low, high)) = watched
            && let Some(hit) = self.own.slots[i as usize].watch.seen(low, high)
        {
            let reason = if hit == Purpose::StopLoss { Reason::StopLoss } else { Reason::TakeProfit };
            self.own.slots[i as usize].stopped = true;
            self.close(i, reason, out);
        }
        self.end(out);
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
            Ok(Some(moved)) => self.tell_cash(moved, out),
            Ok(None) => {}
            Err(why) => self.alert(Some(i), "funding_refused", why.to_string(), out),
        }
    }

    /// Whether this machine watches guards, not the venue.
    pub(super) fn watches(&self) -> bool {
        self.params.protect.at == Watched::Machine
    }
}
