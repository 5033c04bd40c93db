//! What falls due by time alone, in order of time. At one time: corporate actions, interest, the venue, the gate, slices,
//! closings that failed, those of the day, samples.

use super::Execution;
use super::corporate::{CorporateAction, CorporateKind};
use super::slot::Parent;
use crate::event::{Event, Happened, Reason};
use crate::ledger::CashMove;
use crate::market::InstrumentId;
use crate::money;
use crate::span::Span;

/// The first multiple of `step` after `ts`; never where `step` is zero.
fn next_multiple(ts: i64, step: Span) -> i64 {
    match step.ns() {
        0 => i64::MAX,
        step => ts.div_euclid(step).saturating_add(1).saturating_mul(step),
    }
}

impl Execution {
    /// Does all that is due at or before `to`, each at its time.
    #[cold]
    pub(super) fn run(&mut self, to: i64, out: &mut Vec<Event>) {
        if self.own.now == i64::MIN {
            self.start(to);
        }
        self.schedule();
        let mut rounds = 0;
        while self.due <= to {
            rounds += 1;
            debug_assert!(rounds < 100_000, "something stays due: {:?}", self.dues());
            // What is overdue (zero latency, or from before the start) happens now.
            let at = self.due.max(self.own.now);
            self.own.now = at;
            self.step(at, to, out);
            self.schedule();
        }
    }

    /// Time begins.
    fn start(&mut self, ts: i64) {
        self.own.now = ts;
        // The account begins with the first row: that is its first sample. An external one is not known before its first snapshot.
        (self.own.next_sample, self.own.seen) = match self.params.sample.ns() {
            0 => (i64::MAX, false),
            _ if self.paper.is_some() => (ts, true),
            _ => (next_multiple(ts.saturating_sub(1), self.params.sample), false),
        };
        if self.paper.is_some() {
            // The first call says when the account began.
            self.interest(ts, &mut Vec::new());
        }
        for i in 0..self.instruments.len() {
            self.plan_close(i as InstrumentId);
        }
        self.find_close();
        // What happened to shares before the run is in their prices already.
        self.own.corporate_done = self.corporate.partition_point(|a| a.ts < ts);
    }

    /// The first of what is due at `at`; inputs come at `to`.
    fn step(&mut self, at: i64, to: i64, out: &mut Vec<Event>) {
        if self.corporate.get(self.own.corporate_done).is_some_and(|a| a.ts <= at) {
            self.own.corporate_done += 1;
            self.happen(self.own.corporate_done - 1, out);
        } else if self.paper.is_some() && self.ledger.next_accrual() <= at {
            self.interest(at, out);
        } else if self.paper.as_ref().is_some_and(|p| p.next_due() <= at) {
            let mut reports = std::mem::take(&mut self.reports);
            if let Some(paper) = &mut self.paper {
                paper.advance(at, &mut reports);
            }
            self.take_reports(&mut reports, out);
            self.reports = reports;
        } else if self.gate.next_due() <= at {
            let mut actions = std::mem::take(&mut self.actions);
            self.gate.advance(at, &mut actions);
            self.act(&mut actions, out);
            self.actions = actions;
        } else if let Some(number) =
            self.own.parents.iter().find(|(_, p)| self.slice_due(p) <= at).map(|(n, _)| *n)
        {
            self.slice(number, out);
        } else if self.retries <= at {
            self.retry(at, out);
        } else if let Some(i) = self.own.slots.iter().position(|s| s.flat_at <= at) {
            self.close_for_the_day(i as InstrumentId, out);
        } else if self.own.next_sample <= at {
            self.own.next_sample = if std::mem::take(&mut self.own.seen) {
                self.sample(out);
                next_multiple(at, self.params.sample)
            } else {
                // Nothing can be seen before what falls due next: silence costs one look, however long it is.
                self.own.next_sample = i64::MAX;
                let wakes = self.dues().into_iter().fold(to, i64::min);
                next_multiple(at.max(wakes.saturating_sub(1)), self.params.sample)
            };
        }
    }

    /// Reckons when something next falls due.
    pub(super) fn schedule(&mut self) {
        if self.own.now == i64::MIN {
            self.due = i64::MIN;
            return;
        }
        self.due = self.dues().into_iter().min().unwrap_or(i64::MAX);
    }

    /// When what kind of thing next falls due.
    fn dues(&self) -> [i64; 8] {
        let corporate = self.corporate.get(self.own.corporate_done).map_or(i64::MAX, |a| a.ts);
        let paper = self.paper.as_ref().map_or(i64::MAX, |p| p.next_due());
        let interest = self.paper.as_ref().map_or(i64::MAX, |_| self.ledger.next_accrual());
        let parents = self.own.parents.values().map(|p| self.slice_due(p)).min().unwrap_or(i64::MAX);
        let gate = self.gate.next_due();
        [corporate, paper, parents, self.retries, self.closes, self.own.next_sample, interest, gate]
    }

    /// When the next slice is due; none is while the venue's snapshot is awaited.
    fn slice_due(&self, parent: &Parent) -> i64 {
        if self.own.reconciling { i64::MAX } else { parent.schedule.next_due() }
    }

    /// When the instrument's position is to be closed next.
    pub(super) fn plan_close(&mut self, i: InstrumentId) {
        let Some(clock) = self.sessions.get_mut(i as usize) else { return };
        if !self.params.flat_at_close || self.own.now == i64::MIN {
            return;
        }
        let before = self.params.flat_before.ns();
        let mut close = clock.next_close(self.own.now);
        // Closed for this one already, or too late for it: nothing is opened any more, and the next one counts.
        while close != i64::MAX && close.saturating_sub(before) <= self.own.now {
            let slot = &mut self.own.slots[i as usize];
            slot.quiet_until = slot.quiet_until.max(close);
            let next = clock.next_close(close);
            close = if next > close { next } else { i64::MAX };
        }
        let slot = &mut self.own.slots[i as usize];
        slot.flat_at = if close == i64::MAX { i64::MAX } else { close.saturating_sub(before) };
    }

    /// Reckons when the first position is to be closed for the day.
    pub(super) fn find_close(&mut self) {
        self.closes = self.own.slots.iter().map(|s| s.flat_at).min().unwrap_or(i64::MAX);
    }

    fn close_for_the_day(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        self.plan_close(i);
        self.find_close();
        self.close(i, Reason::SessionClose, out);
    }

    /// A corporate action falls due.
    fn happen(&mut self, number: usize, out: &mut Vec<Event>) {
        let action = self.corporate[number].clone();
        let Some(i) = self.ids.get(&action.symbol).copied() else {
            let CorporateAction { symbol, value, .. } = action;
            let what = match action.kind {
                CorporateKind::Split => "split",
                CorporateKind::Dividend => "dividend",
            };
            let detail = format!(
                "a {what} of {symbol} ({value}) falls due, and no row has shown this symbol: it changes nothing"
            );
            return self.alert(None, "unknown_symbol", detail, out);
        };
        self.own.seen = true;
        match action.kind {
            CorporateKind::Split => self.split(i, action.value, out),
            CorporateKind::Dividend => match self.ledger.dividend(self.own.now, i, action.value) {
                Ok(Some(moved)) => {
                    self.tell_cash(moved, out);
                    self.look_for_debt(out);
                }
                Ok(None) => {}
                Err(why) => self.alert(Some(i), "dividend_refused", why.to_string(), out),
            },
        }
    }

    /// Every unit became `ratio` units: in the account, in working orders, in what guards and wishes say.
    pub(super) fn split(&mut self, i: InstrumentId, ratio: money::Decimal, out: &mut Vec<Event>) {
        let before = self.ledger.quantity(i);
        // Brokers of shares pay for what is no whole lot; an external one says so itself.
        let in_lieu = match self.ledger.split(self.own.now, i, ratio, self.paper.is_some()) {
            Ok(in_lieu) => in_lieu,
            Err(why) => return self.alert(Some(i), "split_refused", why.to_string(), out),
        };
        let tick = self.instruments[i as usize].tick.0;
        self.own.orders.split(i, ratio, tick);
        self.history.split(i, ratio);
        self.gate.split(i, ratio);
        if let Some(paper) = &mut self.paper {
            paper.split(self.own.now, i, ratio);
        }
        let by = money::to_f64(ratio);
        for parent in self.own.parents.values_mut().filter(|p| p.instrument == i) {
            parent.schedule.split(ratio);
            parent.wish.split(by);
        }
        let slot = &mut self.own.slots[i as usize];
        slot.asked.split(ratio);
        if let Some(guard) = &mut slot.guard {
            guard.split(ratio, before > money::Decimal::ZERO, tick);
        }
        if let Some(goal) = &mut slot.goal {
            goal.target = goal.target.checked_mul(ratio).unwrap_or(goal.target);
            goal.wish.split(by);
        }
        (slot.sizes.0, slot.sizes.1) = (slot.sizes.0 * by, slot.sizes.1 * by);
        let shown = [&mut slot.shown.0, &mut slot.shown.1];
        let seen = [&mut slot.price, &mut slot.last, &mut slot.bid, &mut slot.ask];
        for price in seen.into_iter().chain(shown) {
            *price /= by;
        }
        slot.watch = slot.watch.split(by);
        let detail = format!("one unit became {ratio}: {before} units are {} now", self.ledger.quantity(i));
        self.alert(Some(i), "split", detail, out);
        if let Some(moved) = in_lieu {
            self.tell_cash(moved, out);
            self.look_for_debt(out);
        }
        let held = self.ledger.quantity(i);
        self.own.slots[i as usize].held = !held.is_zero();
        if let Some(paper) = &mut self.paper {
            // Fills that are on their way are in the venue's position already: only what was paid in cash is gone from it.
            let paid =
                before.checked_mul(ratio).and_then(|units| units.checked_sub(held)).unwrap_or_default();
            paper.set_position(i, paper.position(i).saturating_sub(paid));
        }
        self.tell_position(i, out);
        self.settle(i, out);
    }

    /// A UTC day is over: what borrowing cost.
    fn interest(&mut self, at: i64, out: &mut Vec<Event>) {
        let mut moves = Vec::new();
        if let Err(why) = self.ledger.accrue(at, &mut moves) {
            self.alert(None, "interest_refused", why.to_string(), out);
        }
        self.own.seen |= !moves.is_empty();
        moves.into_iter().for_each(|moved| self.tell_cash(moved, out));
        self.look_for_debt(out);
    }

    pub(super) fn tell_cash(&self, moved: CashMove, out: &mut Vec<Event>) {
        let CashMove { currency, amount, reason, instrument, .. } = moved;
        let rate = self.ledger.currency_rate(&currency);
        self.tell(Happened::Cash { currency, amount, reason, instrument, rate }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_point_of_a_grid() {
        assert_eq!(next_multiple(59, Span::from_ns(60)), 60);
        assert_eq!(next_multiple(60, Span::from_ns(60)), 120);
        assert_eq!(next_multiple(-1, Span::from_ns(60)), 0);
        assert_eq!(next_multiple(5, Span::from_ns(0)), i64::MAX);
        assert_eq!(next_multiple(i64::MAX - 1, Span::from_ns(60)), i64::MAX);
    }
}
