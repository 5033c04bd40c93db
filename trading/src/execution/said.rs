//! What the venue said: to the account, to the orders, and to what follows from it.

use super::Execution;
use super::orders::{Purpose, Tracked};
use super::slot::Parent;
use crate::event::{Event, Happened, Reason, TradingState};
use crate::ledger::{Booked, CashMove, LedgerError};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::Status;
use crate::report::{CashReason, Fill, Report, Said};

impl Execution {
    /// Takes reports of the paper venue, each at its own time.
    pub(super) fn take_reports(&mut self, reports: &mut Vec<Report>, out: &mut Vec<Event>) {
        for report in reports.drain(..) {
            self.own.now = self.own.now.max(report.ts);
            self.said(&report, out);
        }
    }

    /// Takes a report.
    pub(super) fn said(&mut self, report: &Report, out: &mut Vec<Event>) {
        self.own.seen = true;
        match &report.what {
            Said::Filled(fill) => self.filled(report.ts, fill, out),
            Said::Cash { currency, amount, reason, instrument } => {
                match self.ledger.cash_move(currency, *amount, *reason, *instrument) {
                    Ok(()) => {
                        if *reason == CashReason::Transfer {
                            self.transferred(currency, *amount);
                        }
                        let (currency, amount, reason, instrument) =
                            (currency.clone(), *amount, *reason, *instrument);
                        self.tell_cash(
                            CashMove { ts: self.own.now, currency, amount, reason, instrument },
                            out,
                        );
                        self.look_for_debt(out);
                    }
                    Err(why) => self.alert(*instrument, "cash_refused", why.to_string(), out),
                }
            }
            Said::Split { instrument, ratio }
                if (*instrument as usize) < self.own.slots.len() && *ratio > Decimal::ZERO =>
            {
                self.split(*instrument, *ratio, out);
            }
            Said::Split { instrument, ratio } => {
                self.alert(None, "split_refused", format!("instrument {instrument}, ratio {ratio}"), out);
            }
            Said::Snapshot(snapshot) => self.reconcile(report.ts, snapshot, out),
            Said::Reconciling => self.own.reconciling = true,
            said => self.progressed(said, out),
        }
    }

    /// An order went on in its life, but for fills.
    fn progressed(&mut self, said: &Said, out: &mut Vec<Event>) {
        let (id, reason, told) = match said {
            Said::Accepted { order } | Said::Expired { order } => (order, None, false),
            Said::Rejected { order, reason } => (order, Some(reason.clone()), false),
            Said::ChangeRejected { order, reason } => (order, Some(reason.clone()), true),
            Said::Canceled { order, reason } => (order, reason.clone(), false),
            Said::Replaced { order, .. } => (order, None, true),
            Said::Filled(_)
            | Said::Cash { .. }
            | Said::Split { .. }
            | Said::Snapshot(_)
            | Said::Reconciling => return,
        };
        let before = self.own.orders.get(*id);
        let (asked, stuck) = before.map_or((false, false), |o| (o.canceling, o.stuck));
        let changing = before.is_some_and(|o| o.changing);
        let applied = self.own.orders.apply(said);
        let Some(order) = applied.order else {
            let what = format!("the venue tells of order {id}, which is not known here: {said:?}");
            return self.alert(None, "unknown_order", what, out);
        };
        if let Some((code, detail)) = applied.alert {
            self.alert(Some(order.order.instrument), code, detail, out);
        }
        if applied.changed || told {
            self.tell_order(&order, reason.clone(), out);
        }
        if applied.ended {
            self.ended(&order, asked, reason, out);
        } else if !order.status.is_over()
            && (applied.revived || matches!(said, Said::Replaced { .. } | Said::ChangeRejected { .. }))
        {
            self.reserve(&order);
        }
        if order.stuck && !stuck {
            self.stuck(&order, out);
        }
        if changing && order.rigid {
            self.unfit(&order, out);
        }
        if applied.revived {
            match self.gate.state() {
                TradingState::Normal => {}
                TradingState::Reducing => self.cancel_opening(out),
                TradingState::Halted => self.cancel(order.order.id, Reason::KillSwitch, out),
            }
        }
        self.settle(order.order.instrument, out);
    }

    /// The venue did not change a guard: what of the position it leaves bare is told.
    fn unfit(&mut self, order: &Tracked, out: &mut Vec<Event>) {
        let i = order.order.instrument;
        let (held, guarded) = (self.ledger.quantity(i), order.rest());
        if order.purpose.protects() && guarded < held.abs() {
            let detail = format!(
                "the venue did not change the position's guard, order {}: it is for {guarded} of the {held} units that are held",
                order.order.id
            );
            self.alert(Some(i), "unguarded", detail, out);
        }
    }

    pub(super) fn tell_order(&self, order: &Tracked, reason: Option<String>, out: &mut Vec<Event>) {
        let what = Happened::Order {
            order: order.order.id,
            instrument: order.order.instrument,
            status: order.status,
            filled: order.filled(),
            reason,
        };
        self.tell(what, out);
    }

    /// An order is over; `asked`: we had asked for it to be cancelled.
    pub(super) fn ended(
        &mut self,
        order: &Tracked,
        asked: bool,
        reason: Option<String>,
        out: &mut Vec<Event>,
    ) {
        let i = order.order.instrument;
        self.ledger.release(order.order.id);
        let filled = order.status == Status::Filled;
        match order.purpose {
            Purpose::Slice(number) => {
                let now = self.own.now;
                if filled {
                    if let Some(parent) = self.own.parents.get_mut(&number) {
                        parent.schedule.slice_filled(now);
                    }
                } else {
                    self.slice_ended(number, order, asked, reason, out);
                }
            }
            Purpose::StopLoss | Purpose::TakeProfit if !filled && !asked => {
                // A reduce-only leg ends by itself when the position is gone.
                let held = !self.ledger.quantity(i).is_zero();
                if held && order.status == Status::Rejected {
                    self.own.slots[i as usize].unguarded = true;
                    let why = reason.unwrap_or_else(|| "without a reason".into());
                    self.alert(
                        Some(i),
                        "unguarded",
                        format!("the venue did not take the position's guard: {why}"),
                        out,
                    );
                }
            }
            Purpose::Close if !filled => {
                let why = reason.unwrap_or_else(|| order.status.name().to_owned());
                let held = self.ledger.quantity(i);
                if held.is_zero() {
                    // Something else closed it.
                } else if self.own.slots[i as usize].closing.is_on() {
                    self.close_failed(i, &why, out);
                } else if !asked {
                    self.alert(Some(i), "close_failed", format!("{held} units are still held: {why}"), out);
                }
            }
            // An exit that ends because its position is gone leaves the goal behind it as it is.
            Purpose::Wish if order.order.reduce_only && self.ledger.quantity(i).is_zero() => {}
            Purpose::Wish if !filled && !asked => {
                // The venue ended it: the goal behind it is not tried again by itself.
                self.own.slots[i as usize].goal = None;
            }
            _ => {}
        }
    }

    /// A slice is over before it was filled.
    fn slice_ended(
        &mut self,
        number: u64,
        order: &Tracked,
        asked: bool,
        reason: Option<String>,
        out: &mut Vec<Event>,
    ) {
        // What the venue does not take now, it would not take in the next slice; and where the next one comes when this one is filled, none does.
        let ends = |parent: &Parent| order.status == Status::Rejected || parent.schedule.is_one_at_a_time();
        let Some(parent) = self.own.parents.get(&number).filter(|parent| ends(parent)) else { return };
        let rest = parent.schedule.rest();
        self.drop_parent(number);
        if asked {
            return;
        }
        let i = order.order.instrument;
        // As with an order that is not sliced: the goal behind it is not tried again by itself.
        self.own.slots[i as usize].goal = None;
        let why = reason.unwrap_or_else(|| order.status.name().to_owned());
        let detail =
            format!("{rest} units are not sent any more, for a slice before them ended unfilled: {why}");
        self.alert(Some(i), "slices_ended", detail, out);
    }

    /// What is left of an order reserves cash or margin anew: its terms are others now.
    pub(super) fn reserve(&mut self, order: &Tracked) {
        let mut rest = order.order.clone();
        rest.quantity = order.rest();
        let price = self.expected(rest.instrument, rest.side, &rest.order_type);
        self.ledger.reserve(&rest, price.unwrap_or_default());
    }

    /// The venue did not take an order back.
    fn stuck(&mut self, order: &Tracked, out: &mut Vec<Event>) {
        let i = order.order.instrument;
        let slot = &mut self.own.slots[i as usize];
        if slot.goal.take().is_some() {
            let detail =
                format!("order {} works against what is wanted and could not be taken back", order.order.id);
            self.alert(Some(i), "cancel_rejected", detail, out);
        }
    }

    fn came_again(&self, fill: &Fill, out: &mut Vec<Event>) {
        let detail = format!("fill {} of order {} came again", fill.id, fill.order);
        self.alert(Some(fill.instrument), "duplicate_fill", detail, out);
    }

    /// What of a fill is not in the positions and the cash that the last snapshot told of: nothing of one from before it, nor of the units of
    /// its order that the snapshot has as filled and no fill has told of.
    fn not_counted(&self, ts: i64, fill: &Fill) -> Fill {
        let mut part = fill.clone();
        if self.paper.is_some() {
            return part;
        }
        let older = self.own.snapshot_at.is_some_and(|at| ts < at);
        let untold = self.own.orders.get(fill.order).map_or(Decimal::ZERO, Tracked::untold);
        let counted = if older { fill.quantity } else { untold.min(fill.quantity) };
        if counted > Decimal::ZERO {
            part.quantity = fill.quantity.saturating_sub(counted);
            // Its fee is shared by the units, as its cash is.
            let fee = fill.fee.checked_mul(part.quantity).and_then(|fee| fee.checked_div(fill.quantity));
            part.fee = fee.unwrap_or(fill.fee);
        }
        part
    }

    /// Money came or went that nobody earned or lost.
    pub(super) fn transferred(&mut self, currency: &str, amount: Decimal) {
        let Some(rate) = self.ledger.currency_rate(currency) else { return };
        let amount = money::to_f64(amount) * money::to_f64(rate);
        self.gate.transferred(amount);
        self.own.peak += amount;
    }

    /// An execution.
    fn filled(&mut self, ts: i64, fill: &Fill, out: &mut Vec<Event>) {
        let i = fill.instrument;
        if i as usize >= self.own.slots.len() {
            return self.alert(
                None,
                "unknown_instrument",
                format!("fill {} is of an instrument that is not known", fill.id),
                out,
            );
        }
        let before = self.ledger.quantity(i);
        let part = self.not_counted(ts, fill);
        let booked = if part.quantity.is_zero() && !fill.quantity.is_zero() {
            if !self.ledger.pass_over(fill) {
                return self.came_again(fill, out);
            }
            let detail =
                format!("fill {} came after the venue's last snapshot, which has it already", fill.id);
            self.alert(Some(i), "late_fill", detail, out);
            None
        } else {
            match self.ledger.fill(self.own.now, &part) {
                Ok(booked) => Some(booked),
                Err(LedgerError::Duplicate { .. }) => return self.came_again(fill, out),
                Err(why) => {
                    return self.alert(Some(i), "fill_refused", format!("fill {}: {why}", fill.id), out);
                }
            }
        };
        let asked = self.own.orders.get(fill.order).is_some_and(|o| o.canceling);
        let mut guarded_out = None;
        let applied = self.own.orders.apply(&Said::Filled(fill.clone()));
        if let Some(booked) = booked {
            let Booked { realized, position, average, fee, rate } = booked;
            self.tell(Happened::Filled { fill: part, realized, position, average, fee, rate }, out);
        }
        match &applied.order {
            None => {
                let detail = format!(
                    "fill {} of {} units belongs to order {}, which is not known here",
                    fill.id, fill.quantity, fill.order
                );
                self.alert(Some(i), "unknown_fill", detail, out);
                self.ledger.release(fill.order);
            }
            Some(order) => {
                if let Some((code, detail)) = applied.alert {
                    self.alert(Some(i), code, detail, out);
                }
                if applied.changed {
                    self.tell_order(order, None, out);
                }
                if order.purpose == Purpose::Close {
                    self.own.slots[i as usize].closing.succeeded();
                    self.find_retry();
                }
                let guard = order.purpose.protects() && fill.side == order.order.side;
                if guard && (order.purpose == Purpose::StopLoss || self.ledger.quantity(i).is_zero()) {
                    // It says no to the wish for what it closed, not to one for the other side.
                    let held: i8 = if before > Decimal::ZERO { 1 } else { -1 };
                    let slot = &mut self.own.slots[i as usize];
                    slot.stopped = slot.wanted.is_none_or(|(direction, _)| direction == held);
                }
                let over = order.purpose == Purpose::StopLoss || self.ledger.quantity(i).is_zero();
                if guard && over && self.still_enters(i, order.order.side.opposite()) {
                    let stops = order.purpose == Purpose::StopLoss;
                    guarded_out = Some(if stops { Reason::StopLoss } else { Reason::TakeProfit });
                }
                if applied.ended {
                    self.ended(order, asked, None, out);
                }
            }
        }
        self.look_for_debt(out);
        self.moved(i, before, out);
        self.fit_exits(i, out);
        if let Some(reason) = guarded_out.filter(|_| !self.own.slots[i as usize].closing.is_on()) {
            // Orders still make larger what the guard closed: they go, and what they get meanwhile is closed with it.
            self.own.slots[i as usize].stopped = true;
            return self.close(i, reason, out);
        }
        self.settle(i, out);
    }

    /// A position is another than before.
    pub(super) fn moved(&mut self, i: InstrumentId, before: Decimal, out: &mut Vec<Event>) {
        self.moved_quietly(i, before, out);
        self.follow(out);
        self.hold_flat(i, out);
    }

    /// As [`moved`](Self::moved), where the gate is told later what the account is worth.
    pub(super) fn moved_quietly(&mut self, i: InstrumentId, before: Decimal, out: &mut Vec<Event>) {
        self.own.slots[i as usize].held = !self.ledger.quantity(i).is_zero();
        self.tell_position(i, out);
        self.guard_moved(i, before);
        self.tell_bare(i, out);
    }

    /// While nothing may be held at all, what comes late is closed.
    pub(super) fn hold_flat(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        let slot = &self.own.slots[i as usize];
        if slot.held && !slot.closing.is_on() && self.gate.flattens(self.own.now) {
            self.close(i, Reason::KillSwitch, out);
        }
    }
}
