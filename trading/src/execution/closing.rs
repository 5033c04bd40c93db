//! Positions that must go: their orders are taken back, they are closed at market, and that is tried again until they are gone.
//!
//! A closing that fails waits until it can succeed: for the end of a halt, for the session to open, else for a while (1 s, doubling to 1 min, in
//! event time). Only a `resume` ends one that the kill switch began, and only a new wish one that a guard or the session's end did; and
//! only while it waits. The waiting outlives both, so that a market that takes nothing gets no order with each tick.

use serde::{Deserialize, Serialize};

use super::Execution;
use super::brackets::ASLEEP;
use super::goals::side_of;
use super::orders::Purpose;
use super::send::Draft;
use crate::event::{Event, Reason, TradingState};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{OrderId, OrderType, Side, TimeInForce};
use crate::span::Span;

/// How long the first try that fails is waited after.
const WAIT_NS: i64 = 1_000_000_000;
/// The longest wait.
const WAIT_MAX_NS: i64 = 60_000_000_000;
/// Doublings that reach it.
const DOUBLINGS_MAX: u32 = 6;

/// How far the closing of a position that must go is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closing {
    /// Why it must go; `None`: it may stay.
    pub reason: Option<Reason>,
    /// It is not tried before then. `i64::MIN`: nothing is waited for; `i64::MAX`: the end of a halt.
    wait_until: i64,
    /// Tries in a row that failed.
    failed: u32,
}

impl Default for Closing {
    fn default() -> Self {
        Self { reason: None, wait_until: i64::MIN, failed: 0 }
    }
}

impl Closing {
    /// Whether the position must go.
    pub fn is_on(&self) -> bool {
        self.reason.is_some()
    }

    /// Whether it must, and nothing is done about it at `now`.
    fn waits(&self, now: i64) -> bool {
        self.is_on() && self.wait_until > now
    }

    /// When it is tried again; `i64::MAX`: not by time.
    fn due(&self) -> i64 {
        if self.is_on() && self.wait_until != i64::MIN { self.wait_until } else { i64::MAX }
    }

    /// The market takes orders.
    pub(super) fn succeeded(&mut self) {
        (self.wait_until, self.failed) = (i64::MIN, 0);
    }
}

impl Execution {
    /// The position of an instrument must go.
    pub(super) fn close(&mut self, i: InstrumentId, reason: Reason, out: &mut Vec<Event>) {
        self.drop_parents(i);
        let slot = &mut self.own.slots[i as usize];
        slot.goal = None;
        let stands = match slot.closing.reason {
            None => false,
            // Nothing that a wish may end takes the place of what it may not.
            Some(_) => !matches!(reason, Reason::KillSwitch | Reason::Liquidation),
        };
        if !stands && slot.closing.reason != Some(Reason::Liquidation) {
            slot.closing.reason = Some(reason);
        }
        self.settle_closing(i, out);
    }

    /// Everything must go, now: what is waited for is tried at once.
    pub(super) fn close_everything(&mut self, reason: Reason, out: &mut Vec<Event>) {
        for i in 0..self.own.slots.len() as InstrumentId {
            let slot = &mut self.own.slots[i as usize];
            if slot.held || self.own.orders.any(i) {
                slot.closing.succeeded();
                self.close(i, reason, out);
            }
        }
    }

    /// Goes on with closing a position.
    pub(super) fn settle_closing(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        let now = self.own.now;
        let Some(reason) = self.own.slots[i as usize].closing.reason else { return };
        let others: Vec<OrderId> = self
            .own
            .orders
            .of(i)
            .filter(|o| o.purpose != Purpose::Close && !o.stuck)
            // Guards stay beside the order that closes, where the venue cuts both: never is nothing there.
            .filter(|o| self.paper.is_none() || !o.purpose.protects())
            .map(|o| o.order.id)
            .collect();
        if !others.is_empty() {
            return others.into_iter().for_each(|id| self.cancel(id, reason, out));
        }
        if self.own.orders.of(i).any(|o| o.purpose == Purpose::Close) {
            return;
        }
        let position = self.ledger.quantity(i);
        let instrument = &self.instruments[i as usize];
        let largest = instrument.max_quantity.map_or(Decimal::MAX, |max| max.0);
        let quantity = money::floor_to(position.abs().min(largest), instrument.lot.0);
        if quantity.is_zero() {
            // What is less than a lot cannot be sold: it stays.
            return self.end_closing(i, out);
        }
        let too_small = instrument.min_quantity.is_some_and(|least| quantity < least.0);
        let slot = &mut self.own.slots[i as usize];
        if slot.halted && slot.closing.wait_until != i64::MAX {
            slot.closing.wait_until = i64::MAX;
            let symbol = &self.instruments[i as usize].symbol;
            let detail = format!(
                "{position} units are still held: {symbol} is halted, they are closed when that is over"
            );
            self.alert(Some(i), "close_waits", detail, out);
        }
        if self.own.slots[i as usize].closing.waits(now) {
            return self.find_retry();
        }
        if self.own.reconciling {
            // The snapshot that is awaited goes on with it.
            return;
        }
        self.own.slots[i as usize].closing.wait_until = i64::MIN;
        let draft = Draft {
            instrument: i,
            side: side_of(-position),
            quantity,
            order_type: OrderType::Market,
            time_in_force: TimeInForce::Gtc,
            post_only: false,
            reduce_only: true,
            purpose: Purpose::Close,
            reason,
        };
        if self.send_own(draft, out) {
            return;
        }
        if too_small {
            return self.end_closing(i, out);
        }
        self.close_failed(i, "the order was not sent", out);
    }

    /// A try to close a position failed: when it is tried again.
    pub(super) fn close_failed(&mut self, i: InstrumentId, why: &str, out: &mut Vec<Event>) {
        let (now, held) = (self.own.now, self.ledger.quantity(i));
        let clock = &mut self.sessions[i as usize];
        let opens = if clock.is_open(now) { i64::MAX } else { clock.next_open(now) };
        let slot = &mut self.own.slots[i as usize];
        let closing = &mut slot.closing;
        let when = if slot.halted {
            (closing.wait_until, closing.failed) = (i64::MAX, 0);
            "when its halt is over".to_owned()
        } else if opens != i64::MAX {
            (closing.wait_until, closing.failed) = (opens, 0);
            "when its session opens".to_owned()
        } else {
            let wait = (WAIT_NS << closing.failed).min(WAIT_MAX_NS);
            closing.wait_until = now.saturating_add(wait);
            closing.failed = (closing.failed + 1).min(DOUBLINGS_MAX);
            format!("in {}", Span::from_ns(wait))
        };
        self.find_retry();
        let detail = format!("{held} units are still held: {why}; it is tried again {when}");
        self.alert(Some(i), "close_failed", detail, out);
    }

    /// Tries again what has waited until `at`: the first of it.
    pub(super) fn retry(&mut self, at: i64, out: &mut Vec<Event>) {
        if let Some(i) = self.own.slots.iter().position(|s| s.closing.due() <= at) {
            self.own.slots[i].closing.wait_until = i64::MIN;
            self.settle_closing(i as InstrumentId, out);
        }
        self.find_retry();
    }

    /// Reckons when the first closing is tried again.
    pub(super) fn find_retry(&mut self) {
        self.retries = self.own.slots.iter().map(|s| s.closing.due()).min().unwrap_or(i64::MAX);
    }

    /// The position is gone, or as good as gone.
    fn end_closing(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        self.own.slots[i as usize].closing = Closing::default();
        self.find_retry();
        if self.ledger.quantity(i).is_zero() {
            let goes_on = self.own.slots.iter().any(|s| s.closing.is_on());
            if self.own.liquidating && !goes_on {
                self.own.liquidating = false;
                self.look_for_ruin(out);
            }
        } else {
            // Dust: neither its guard nor its margin asks for what cannot be done, until it grows.
            self.own.slots[i as usize].watch = ASLEEP;
        }
        self.settle(i, out);
    }

    /// A halt began or ended.
    pub(super) fn halted(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        let slot = &mut self.own.slots[i as usize];
        if slot.halted {
            return;
        }
        if slot.closing.wait_until == i64::MAX {
            slot.closing.wait_until = i64::MIN;
        }
        // A guard that was refused because of it.
        slot.unguarded = false;
        self.settle(i, out);
    }

    /// `resume`: what the kill switch could not close stays.
    pub(super) fn resume_closings(&mut self) {
        let now = self.own.now;
        for slot in &mut self.own.slots {
            if slot.closing.waits(now) && slot.closing.reason == Some(Reason::KillSwitch) {
                slot.closing.reason = None;
            }
        }
        self.find_retry();
    }

    /// Whether a wish for a position may count where the position must go and cannot: a new one takes the closing's place, but where the
    /// account's state or its margin asks for it. What may not is told.
    pub(super) fn may_keep(
        &mut self,
        i: InstrumentId,
        side: Side,
        fresh: bool,
        out: &mut Vec<Event>,
    ) -> bool {
        let now = self.own.now;
        let closing = self.own.slots[i as usize].closing;
        let Some(reason) = closing.reason.filter(|_| closing.waits(now)) else { return true };
        if fresh && reason != Reason::Liquidation && self.gate.state() != TradingState::Halted {
            self.own.slots[i as usize].closing.reason = None;
            self.find_retry();
            return true;
        }
        let detail = format!("{} units must be closed first, and that waits", self.ledger.quantity(i));
        self.refuse(i, side, Decimal::ZERO, "closing", detail, out);
        false
    }
}
