//! Reconciling: the venue told of its whole account, and its word is the truth.
//!
//! - A working order of the venue's that is not known here is adopted: nobody sends it again, and it can be cancelled.
//! - An order that the venue had, and has no more, is over. How it ended is not known; what it did is in the positions.
//! - An order that was sent, and of which nothing was heard, may still be on its way though a snapshot does not have it: it becomes
//!   [`Status::Unknown`], is never sent again, and counts as working until the venue (or the sink, which asks it) says what became of it.
//! - Reports that begin again ([`Said::Reconciling`](crate::report::Said::Reconciling)) may follow orders that were sent and that a restored machine
//!   does not know: up to the next snapshot no new order is sent. Wishes for a position, closings, guards and slices wait for it; cancels and changes of
//!   known orders go.
//! - Positions and cash become the venue's; each difference is an alert, but for the first snapshot of a machine that knows of nothing yet.
//! - Limits of loss go by what the account is worth once all of it is the venue's, and begin with the first snapshot. Cash that differs where no
//!   position does counts as transferred: the day's start and the peak move with it.

use std::collections::BTreeMap;

use super::Execution;
use super::orders::{Purpose, Tracked};
use crate::event::Event;
use crate::ledger::{CashMove, Position};
use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::{OrderId, Status};
use crate::report::{CashReason, Snapshot};

/// How many units became of one, where a position's cost is what it was but its units are not: a split that nobody told of. What was paid for
/// fractions (less than a unit) may be missing.
fn split_between(before: &Position, now: &Position) -> Option<Decimal> {
    if before.average <= Decimal::ZERO || now.average <= Decimal::ZERO {
        return None;
    }
    let ratio = before.average.checked_div(now.average)?;
    let expected = before.quantity.checked_mul(ratio)?;
    let off = expected.checked_sub(now.quantity)?.abs();
    let fits = off.checked_mul(Decimal::from(50))? <= expected.abs();
    let moves = (ratio - Decimal::ONE).abs() > Decimal::new(5, 2);
    (fits && moves).then(|| ratio.round_dp(9).normalize())
}

impl Execution {
    /// Takes the account as the venue has it.
    pub(super) fn reconcile(&mut self, ts: i64, snapshot: &Snapshot, out: &mut Vec<Event>) {
        let first = self.own.snapshot_at.is_none();
        self.own.snapshot_at = Some(ts.max(self.own.snapshot_at.unwrap_or(i64::MIN)));
        let mut touched = self.reconcile_orders(ts, snapshot, out);
        let moved = self.reconcile_positions(first, snapshot, out);
        // Where units are others than before, trades brought or cost the cash too.
        let transfers = !first && moved.is_empty();
        self.reconcile_cash(first, transfers, snapshot, out);
        if first {
            // What the account is worth is known from now on only.
            self.gate.begin_anew();
            self.own.peak = f64::NAN;
        }
        // Not before all of it is as the venue has it: positions without their cash would be a gain or a loss.
        self.follow(out);
        moved.iter().for_each(|i| self.hold_flat(*i, out));
        touched.extend(moved);
        if std::mem::take(&mut self.own.reconciling) {
            // What waited for it goes on.
            touched.extend(0..self.own.slots.len() as InstrumentId);
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().for_each(|i| self.settle(i, out));
    }

    fn reconcile_orders(&mut self, ts: i64, snapshot: &Snapshot, out: &mut Vec<Event>) -> Vec<InstrumentId> {
        let mut touched = Vec::new();
        for open in &snapshot.orders {
            let (id, i) = (open.order.id, open.order.instrument);
            if i as usize >= self.own.slots.len() {
                self.alert(
                    None,
                    "unknown_instrument",
                    format!("the venue has order {id} of an instrument that is not known"),
                    out,
                );
                continue;
            }
            let fresh = self.own.orders.get(id).is_none();
            if fresh {
                self.own.orders.add(open.order.clone(), ts, Purpose::Adopted);
                let order = &open.order;
                let symbol = &self.instruments[i as usize].symbol;
                let detail = format!(
                    "order {id} to {} {} of {symbol} works at the venue and was not known here: it is adopted",
                    if order.side == crate::order::Side::Buy { "buy" } else { "sell" },
                    order.quantity,
                );
                self.alert(Some(i), "unknown_order", detail, out);
            }
            if (self.own.orders.confirm(ts, &open.order, open.filled) || fresh)
                && let Some(order) = self.own.orders.get(id).cloned()
            {
                self.tell_order(&order, Some("as the venue has it".into()), out);
            }
            if let Some(order) = self.own.orders.get(id).cloned() {
                self.reserve(&order);
            }
            touched.push(i);
        }
        let missing: Vec<Tracked> = self
            .own
            .orders
            .iter()
            .filter(|o| !snapshot.orders.iter().any(|open| open.order.id == o.order.id))
            .cloned()
            .collect();
        touched.extend(missing.iter().map(|order| order.order.instrument));
        for order in missing {
            self.miss(order, out);
        }
        touched
    }

    /// An order that the venue does not have.
    fn miss(&mut self, order: Tracked, out: &mut Vec<Event>) {
        let id: OrderId = order.order.id;
        if matches!(order.status, Status::Pending | Status::Unknown) {
            if let Some(order) = self.own.orders.get_mut(id) {
                order.status = Status::Unknown;
            }
            if order.status == Status::Pending
                && let Some(order) = self.own.orders.get(id).cloned()
            {
                self.tell_order(
                    &order,
                    Some("the venue does not have it yet: it is not sent again".into()),
                    out,
                );
            }
            return;
        }
        let why = "the venue has it no more";
        if let Some(order) = self.own.orders.gone(id, Status::Canceled) {
            self.tell_order(&order, Some(why.into()), out);
            self.ended(&order, order.canceling, Some(why.into()), out);
        }
    }

    fn reconcile_positions(
        &mut self,
        first: bool,
        snapshot: &Snapshot,
        out: &mut Vec<Event>,
    ) -> Vec<InstrumentId> {
        let mut told: BTreeMap<InstrumentId, (Decimal, Option<Decimal>)> = BTreeMap::new();
        for (i, quantity, average) in &snapshot.positions {
            if (*i as usize) < self.own.slots.len() {
                told.insert(*i, (*quantity, *average));
            } else {
                self.alert(
                    None,
                    "unknown_instrument",
                    format!("the venue holds {quantity} units of an instrument that is not known"),
                    out,
                );
            }
        }
        let mut touched = Vec::new();
        for i in 0..self.own.slots.len() as InstrumentId {
            let before = self.ledger.position(i);
            let ours = before.quantity;
            let (theirs, average) = told.get(&i).copied().unwrap_or_default();
            if ours == theirs {
                continue;
            }
            // A machine that begins takes what is there; nothing differs from what it knew.
            if !(first && ours.is_zero()) {
                let symbol = &self.instruments[i as usize].symbol;
                let detail =
                    format!("{ours} units of {symbol} were known here, the venue has {theirs}, which counts");
                self.alert(Some(i), "position_differs", detail, out);
            }
            touched.push(i);
            if let Err(why) = self.ledger.adopt_position(self.own.now, i, theirs, average) {
                self.alert(Some(i), "position_refused", why.to_string(), out);
                continue;
            }
            self.adopted(i, &before, out);
        }
        touched
    }

    /// A position is what the venue says it is: what guards it goes by its quantity and average price of now. A stop that follows the best
    /// price begins anew with the next one, since nobody knows which of those before were of such units.
    fn adopted(&mut self, i: InstrumentId, before: &Position, out: &mut Vec<Event>) {
        let now = self.ledger.position(i);
        let slot = &mut self.own.slots[i as usize];
        if let Some(ratio) = split_between(before, &now) {
            slot.asked.split(ratio);
            let detail = format!(
                "{} units at {} are {} at {} now: prices that signals gave for the guard are divided by {ratio}",
                before.quantity, before.average, now.quantity, now.average
            );
            self.alert(Some(i), "position_split", detail, out);
        }
        // Nothing was held before, as far as its guard goes: it is made anew.
        self.own.slots[i as usize].guard = None;
        self.moved_quietly(i, Decimal::ZERO, out);
        if !before.quantity.is_zero() {
            self.own.slots[i as usize].watch.forget();
        }
    }

    /// `transfers`: what differs is no gain and no loss.
    fn reconcile_cash(&mut self, first: bool, transfers: bool, snapshot: &Snapshot, out: &mut Vec<Event>) {
        for (currency, theirs) in &snapshot.cash {
            let ours = self.ledger.cash(currency);
            let Some(difference) = theirs.checked_sub(ours) else {
                let detail = format!("the venue has {theirs} {currency}, too much to be held against {ours}");
                self.alert(None, "cash_refused", detail, out);
                continue;
            };
            if difference.is_zero() {
                continue;
            }
            let reason = if first { CashReason::Transfer } else { CashReason::Other };
            if !first {
                let detail =
                    format!("{ours} {currency} were known here, the venue has {theirs}, which counts");
                self.alert(None, "cash_differs", detail, out);
            }
            match self.ledger.cash_move(currency, difference, reason, None) {
                Ok(()) => {
                    if transfers {
                        self.transferred(currency, difference);
                    }
                    let moved = CashMove {
                        ts: self.own.now,
                        currency: currency.clone(),
                        amount: difference,
                        reason,
                        instrument: None,
                    };
                    self.tell_cash(moved, out);
                }
                Err(why) => self.alert(None, "cash_refused", why.to_string(), out),
            }
        }
        self.look_for_debt(out);
    }
}
