//! What the venue said: to the account, to the orders, and to what follows from it.

use super::Execution;
use super::orders::{Purpose, Tracked};
use crate::event::{Event, Happened};
use crate::ledger::{AccountKind, CashMove, LedgerError};
use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::Status;
use crate::report::{Fill, Report, Said};

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
                        let (currency, amount, reason, instrument) =
                            (currency.clone(), *amount, *reason, *instrument);
                        self.tell_cash(
                            CashMove { ts: self.own.now, currency, amount, reason, instrument },
                            out,
                        );
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
            Said::Filled(_) | Said::Cash { .. } | Said::Split { .. } | Said::Snapshot(_) => return,
        };
        let asked = self.own.orders.get(*id).is_some_and(|o| o.canceling);
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
        } else if matches!(said, Said::Replaced { .. }) {
            self.reserve(&order);
        }
        if matches!(said, Said::ChangeRejected { .. }) && order.stuck {
            self.stuck(&order, out);
        }
        self.settle(order.order.instrument, out);
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
                if filled && let Some(parent) = self.own.parents.get_mut(&number) {
                    parent.schedule.slice_filled(now);
                } else if order.status == Status::Rejected {
                    // What the venue does not take now, it would not take in the next slice.
                    self.drop_parent(number);
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
                self.own.slots[i as usize].closing = false;
                let why = reason.unwrap_or_else(|| order.status.name().to_owned());
                let held = self.ledger.quantity(i);
                if !held.is_zero() {
                    self.alert(Some(i), "close_failed", format!("{held} units are still held: {why}"), out);
                }
            }
            Purpose::Wish if !filled && !asked => {
                // The venue ended it: the goal behind it is not tried again by itself.
                self.own.slots[i as usize].goal = None;
            }
            _ => {}
        }
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
        let quote = self.instruments[i as usize].quote.clone();
        let cash_before = self.ledger.cash(&quote);
        // A fill from before a snapshot is in the positions that it told of.
        let counted = self.paper.is_none() && self.own.snapshot_at.is_some_and(|at| ts < at);
        let booked = if counted {
            let detail =
                format!("fill {} is older than the venue's last snapshot, which has it already", fill.id);
            self.alert(Some(i), "late_fill", detail, out);
            None
        } else {
            match self.ledger.fill(self.own.now, fill) {
                Ok(booked) => Some(booked),
                Err(LedgerError::Duplicate { .. }) => {
                    return self.alert(
                        Some(i),
                        "duplicate_fill",
                        format!("fill {} of order {} came again", fill.id, fill.order),
                        out,
                    );
                }
                Err(why) => {
                    return self.alert(Some(i), "fill_refused", format!("fill {}: {why}", fill.id), out);
                }
            }
        };
        let asked = self.own.orders.get(fill.order).is_some_and(|o| o.canceling);
        let applied = self.own.orders.apply(&Said::Filled(fill.clone()));
        if let Some(booked) = booked {
            let (realized, position, average) = (booked.realized, booked.position, booked.average);
            self.tell(Happened::Filled { fill: fill.clone(), realized, position, average }, out);
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
                let guard = order.purpose.protects() && fill.side == order.order.side;
                if guard && self.ledger.quantity(i).is_zero() {
                    self.own.slots[i as usize].stopped = true;
                }
                if applied.ended {
                    self.ended(order, asked, None, out);
                }
            }
        }
        let cash = self.ledger.cash(&quote);
        if self.params.account.kind == AccountKind::Cash
            && cash < Decimal::ZERO
            && cash_before >= Decimal::ZERO
        {
            let detail = format!("a fill left {cash} {quote} in a cash account");
            self.alert(Some(i), "negative_balance", detail, out);
        }
        self.moved(i, before, out);
        self.settle(i, out);
    }

    /// A position is another than before.
    pub(super) fn moved(&mut self, i: InstrumentId, before: Decimal, out: &mut Vec<Event>) {
        self.own.slots[i as usize].held = !self.ledger.quantity(i).is_zero();
        self.tell_position(i, out);
        self.guard_moved(i, before);
        self.follow(out);
    }
}
