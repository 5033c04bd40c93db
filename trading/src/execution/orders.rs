//! The machine's book of orders: what was sent, and what the venue said of it.
//!
//! Reports may come out of order, twice, or of orders that nobody here knows. What is learned never gets lost: a fill counts whatever
//! state its order is in, an order that is over stays so, but where the venue says that it works after all. State: the orders that are not over,
//! and the last [`REMEMBERED`] that are, so that what comes late still finds its order.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::brackets::trail_after_split;
use crate::market::InstrumentId;
use crate::money::Decimal;
use crate::order::{Order, OrderId, OrderType, Side, Status};
use crate::report::Said;

/// Orders that are over and still known.
pub const REMEMBERED: usize = 4096;

/// What an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// It brings a position to where it is wanted.
    Wish,
    /// A slice of the sliced order of this number.
    Slice(u64),
    /// It cuts a position's loss.
    StopLoss,
    /// It takes a position's gain.
    TakeProfit,
    /// It closes a position that must not be there.
    Close,
    /// The venue had it; who sent it is not known.
    Adopted,
}

impl Purpose {
    /// Whether it belongs to a position and not to a wish.
    pub fn protects(self) -> bool {
        matches!(self, Self::StopLoss | Self::TakeProfit)
    }
}

/// An order that is not over, or was not long ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tracked {
    /// As it was sent, with the changes that the venue confirmed.
    pub order: Order,
    /// Where it is in its life.
    pub status: Status,
    /// Units of it that fills told of.
    booked: Decimal,
    /// Units that the venue said are filled, in a snapshot.
    told: Decimal,
    /// When it was sent.
    pub sent_at: i64,
    /// What for.
    pub purpose: Purpose,
    /// When a cancel or a change was sent last.
    pub asked_at: i64,
    /// A cancel is on its way.
    pub canceling: bool,
    /// A change is on its way.
    pub changing: bool,
    /// The venue refused to change it: it is left as it is until its position is another.
    pub rigid: bool,
    /// The venue did not take it back when asked: it is not asked again before a snapshot shows the order.
    pub stuck: bool,
}

impl Tracked {
    /// Units filled so far: what fills told of, or a snapshot, whichever knows of more.
    pub fn filled(&self) -> Decimal {
        self.booked.max(self.told)
    }

    /// Units that a snapshot has, and no fill has told of yet.
    pub fn untold(&self) -> Decimal {
        self.told.checked_sub(self.booked).unwrap_or_default().max(Decimal::ZERO)
    }

    /// Units that may still be filled.
    pub fn rest(&self) -> Decimal {
        if self.status.is_over() {
            return Decimal::ZERO;
        }
        self.order.quantity.checked_sub(self.filled()).unwrap_or_default().max(Decimal::ZERO)
    }

    /// [`rest`](Self::rest) with the sign of its side.
    pub fn signed_rest(&self) -> Decimal {
        self.order.side.sign() * self.rest()
    }

    fn working(&self) -> Status {
        if self.filled() > Decimal::ZERO { Status::PartlyFilled } else { Status::Working }
    }
}

/// What a report did to the book of orders.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The order after it, where it is known.
    pub order: Option<Tracked>,
    /// Whether its state, its fills or its terms are others than before.
    pub changed: bool,
    /// Whether it ended the order.
    pub ended: bool,
    /// Whether the order was taken for over, and works.
    pub revived: bool,
    /// What a person should look at: a word and what was found.
    pub alert: Option<(&'static str, String)>,
}

impl Applied {
    const UNKNOWN: Self = Self { order: None, changed: false, ended: false, revived: false, alert: None };
}

/// All orders of a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    /// By the number in which they were sent.
    live: BTreeMap<u64, Tracked>,
    numbers: BTreeMap<OrderId, u64>,
    by_instrument: Vec<Vec<u64>>,
    past: VecDeque<Tracked>,
    next: u64,
}

impl Orders {
    /// Notes an order that was sent, or that the venue was found to have.
    pub fn add(&mut self, order: Order, at: i64, purpose: Purpose) {
        self.insert(Tracked {
            order,
            status: Status::Pending,
            booked: Decimal::ZERO,
            told: Decimal::ZERO,
            sent_at: at,
            purpose,
            asked_at: at,
            canceling: false,
            changing: false,
            rigid: false,
            stuck: false,
        });
    }

    fn insert(&mut self, tracked: Tracked) {
        let number = self.next;
        self.next += 1;
        let i = tracked.order.instrument as usize;
        if self.by_instrument.len() <= i {
            self.by_instrument.resize_with(i + 1, Vec::new);
        }
        self.by_instrument[i].push(number);
        self.numbers.insert(tracked.order.id, number);
        self.live.insert(number, tracked);
    }

    /// Whether the order is known, over or not.
    pub fn knows(&self, id: OrderId) -> bool {
        self.numbers.contains_key(&id) || self.past.iter().any(|p| p.order.id == id)
    }

    /// An order that is not over.
    pub fn get(&self, id: OrderId) -> Option<&Tracked> {
        self.live.get(self.numbers.get(&id)?)
    }

    /// As [`get`](Self::get), to be changed.
    pub fn get_mut(&mut self, id: OrderId) -> Option<&mut Tracked> {
        self.live.get_mut(self.numbers.get(&id)?)
    }

    /// Orders that are not over, in the order in which they were sent.
    pub fn iter(&self) -> impl Iterator<Item = &Tracked> {
        self.live.values()
    }

    /// Those of an instrument.
    pub fn of(&self, instrument: InstrumentId) -> impl Iterator<Item = &Tracked> {
        let numbers = self.by_instrument.get(instrument as usize).map_or(&[][..], Vec::as_slice);
        numbers.iter().filter_map(|n| self.live.get(n))
    }

    /// Whether an instrument has any.
    pub fn any(&self, instrument: InstrumentId) -> bool {
        self.by_instrument.get(instrument as usize).is_some_and(|numbers| !numbers.is_empty())
    }

    /// Takes what the venue said of one order. What it says of the account ([`Said::Cash`] and so on) is not for this book.
    pub fn apply(&mut self, said: &Said) -> Applied {
        let (id, step): (OrderId, Step) = match said {
            Said::Accepted { order } => (*order, Step::Accepted),
            Said::Rejected { order, .. } => (*order, Step::Over(Status::Rejected)),
            Said::Canceled { order, .. } => (*order, Step::Over(Status::Canceled)),
            Said::Expired { order } => (*order, Step::Over(Status::Expired)),
            Said::Replaced { order, quantity, limit, stop } => {
                (*order, Step::Replaced(*quantity, *limit, *stop))
            }
            Said::ChangeRejected { order, .. } => (*order, Step::ChangeRejected),
            Said::Filled(fill) => (fill.order, Step::Filled(fill.side, fill.quantity)),
            Said::Cash { .. } | Said::Split { .. } | Said::Snapshot(_) | Said::Reconciling => {
                return Applied::UNKNOWN;
            }
        };
        let Some(number) = self.numbers.get(&id).copied() else {
            return self.late(id, step);
        };
        let Some(tracked) = self.live.get_mut(&number) else { return Applied::UNKNOWN };
        let before = (tracked.status, tracked.filled(), tracked.order.clone());
        let alert = take(tracked, step);
        let changed = before != (tracked.status, tracked.filled(), tracked.order.clone());
        let (ended, order) = (tracked.status.is_over(), tracked.clone());
        if ended {
            self.end(number);
        }
        Applied { order: Some(order), changed, ended, revived: false, alert }
    }

    /// What comes of an order that is over: fills, and that it works after all.
    fn late(&mut self, id: OrderId, step: Step) -> Applied {
        let Some(place) = self.past.iter().position(|p| p.order.id == id) else { return Applied::UNKNOWN };
        if matches!(step, Step::Accepted | Step::Replaced(..)) {
            return self.revive(place, step);
        }
        let past = &mut self.past[place];
        let mut alert = None;
        let mut changed = false;
        if let Step::Filled(_, quantity) = step {
            let before = past.filled();
            past.booked = past.booked.checked_add(quantity).unwrap_or(past.booked);
            changed = past.filled() != before;
            if past.filled() > past.order.quantity {
                alert = Some(overfilled(past));
            } else if past.filled() == past.order.quantity {
                // It was taken for canceled, and had been filled.
                past.status = Status::Filled;
            }
        }
        Applied { order: Some(past.clone()), changed, ended: false, revived: false, alert }
    }

    /// The venue says that an order works which was taken for over. One that is filled is over.
    fn revive(&mut self, place: usize, step: Step) -> Applied {
        let mut tracked = self.past[place].clone();
        let was = tracked.status;
        tracked.status = tracked.working();
        (tracked.canceling, tracked.changing, tracked.rigid, tracked.stuck) = (false, false, false, false);
        take(&mut tracked, step);
        if was == Status::Filled || tracked.rest().is_zero() {
            let order = Some(self.past[place].clone());
            return Applied { order, ..Applied::UNKNOWN };
        }
        self.past.remove(place);
        self.insert(tracked.clone());
        let detail =
            format!("order {} was taken for {}, and works at the venue", tracked.order.id, was.name());
        let alert = Some(("order_revived", detail));
        Applied { order: Some(tracked), changed: true, ended: false, revived: true, alert }
    }

    /// An instrument's position is another: its orders may be changed again.
    pub fn soften(&mut self, instrument: InstrumentId) {
        for number in self.by_instrument.get(instrument as usize).map_or(&[][..], Vec::as_slice) {
            if let Some(tracked) = self.live.get_mut(number) {
                tracked.rigid = false;
            }
        }
    }

    /// Ends an order of which no report came: a snapshot shows that the venue does not have it any more.
    pub fn gone(&mut self, id: OrderId, status: Status) -> Option<Tracked> {
        let number = *self.numbers.get(&id)?;
        let tracked = self.live.get_mut(&number)?;
        tracked.status = status;
        let tracked = tracked.clone();
        self.end(number);
        Some(tracked)
    }

    /// What a snapshot of `at` says of a known order: it works, and so much of it is filled. Whether that is news. What was asked of the venue before
    /// is answered by it: the order is as it is, and may be asked for again.
    pub fn confirm(&mut self, at: i64, order: &Order, filled: Decimal) -> bool {
        let Some(tracked) = self.get_mut(order.id) else { return false };
        let before = (tracked.status, tracked.filled(), tracked.order.clone());
        tracked.stuck = false;
        if tracked.asked_at < at {
            (tracked.canceling, tracked.changing, tracked.rigid) = (false, false, false);
        }
        if tracked.purpose == Purpose::Adopted && tracked.status == Status::Pending {
            // Fills from before it was known here are nobody's news any more.
            tracked.booked = filled;
        }
        tracked.told = tracked.told.max(filled);
        tracked.status = tracked.working();
        tracked.order.quantity = order.quantity;
        tracked.order.order_type = order.order_type;
        before != (tracked.status, tracked.filled(), tracked.order.clone())
    }

    /// Every unit became `ratio` units: quantities grow, prices shrink, as venues do with working orders. How far a stop follows is put on the
    /// tick as its guard's is, so that the order is not taken for another.
    pub fn split(&mut self, instrument: InstrumentId, ratio: Decimal, tick: Decimal) {
        let numbers = self.by_instrument.get(instrument as usize).cloned().unwrap_or_default();
        for number in numbers {
            let Some(t) = self.live.get_mut(&number) else { continue };
            let more = |q: Decimal| q.checked_mul(ratio).unwrap_or(q);
            let less = |p: Decimal| p.checked_div(ratio).unwrap_or(p);
            t.order.quantity = more(t.order.quantity);
            t.booked = more(t.booked);
            t.told = more(t.told);
            t.order.order_type = match t.order.order_type {
                OrderType::Limit { limit } => OrderType::Limit { limit: less(limit) },
                OrderType::Stop { stop } => OrderType::Stop { stop: less(stop) },
                OrderType::StopLimit { stop, limit } => {
                    OrderType::StopLimit { stop: less(stop), limit: less(limit) }
                }
                OrderType::TakeProfit { trigger } => OrderType::TakeProfit { trigger: less(trigger) },
                OrderType::TrailingStop { trail } => {
                    OrderType::TrailingStop { trail: trail_after_split(trail, ratio, tick) }
                }
                OrderType::Market => OrderType::Market,
            };
        }
    }

    fn end(&mut self, number: u64) {
        let Some(tracked) = self.live.remove(&number) else { return };
        self.numbers.remove(&tracked.order.id);
        if let Some(of) = self.by_instrument.get_mut(tracked.order.instrument as usize) {
            of.retain(|n| *n != number);
        }
        if self.past.len() == REMEMBERED {
            self.past.pop_front();
        }
        self.past.push_back(tracked);
    }
}

#[derive(Clone, Copy)]
enum Step {
    Accepted,
    Over(Status),
    Replaced(Decimal, Option<Decimal>, Option<Decimal>),
    ChangeRejected,
    Filled(Side, Decimal),
}

fn overfilled(tracked: &Tracked) -> (&'static str, String) {
    let (id, filled, quantity) = (tracked.order.id, tracked.filled(), tracked.order.quantity);
    ("overfilled", format!("order {id} was filled by {filled}, it was for {quantity}"))
}

/// An order's kind with other prices, where there are any.
pub(super) fn at_prices(order_type: OrderType, limit: Option<Decimal>, stop: Option<Decimal>) -> OrderType {
    match order_type {
        OrderType::Limit { limit: old } => OrderType::Limit { limit: limit.unwrap_or(old) },
        OrderType::Stop { stop: old } => OrderType::Stop { stop: stop.unwrap_or(old) },
        OrderType::StopLimit { stop: s, limit: l } => {
            OrderType::StopLimit { stop: stop.unwrap_or(s), limit: limit.unwrap_or(l) }
        }
        OrderType::TakeProfit { trigger } => OrderType::TakeProfit { trigger: stop.unwrap_or(trigger) },
        other => other,
    }
}

/// Takes a report on a live order; an alert where it makes no sense.
fn take(t: &mut Tracked, step: Step) -> Option<(&'static str, String)> {
    match step {
        Step::Accepted => {
            if matches!(t.status, Status::Pending | Status::Unknown) {
                t.status = t.working();
            }
            None
        }
        Step::Over(status) => {
            t.status = if t.filled() >= t.order.quantity { Status::Filled } else { status };
            let odd = status == Status::Rejected && t.filled() > Decimal::ZERO;
            odd.then(|| {
                (
                    "rejected_after_fill",
                    format!("order {} was rejected after {} of it were filled", t.order.id, t.filled()),
                )
            })
        }
        Step::Replaced(quantity, limit, stop) => {
            if t.rigid && t.canceling && !t.changing {
                // The change was taken, so what was refused before was the cancel behind it.
                (t.canceling, t.stuck) = (false, true);
            }
            (t.changing, t.rigid) = (false, false);
            t.order.quantity = quantity;
            t.order.order_type = at_prices(t.order.order_type, limit, stop);
            t.status = if t.filled() >= quantity { Status::Filled } else { t.working() };
            None
        }
        Step::ChangeRejected => {
            // A change is never sent behind a cancel, so it is answered first.
            if t.changing {
                (t.changing, t.rigid) = (false, true);
            } else if t.canceling {
                (t.canceling, t.stuck) = (false, true);
            }
            None
        }
        Step::Filled(side, quantity) => {
            t.booked = t.booked.checked_add(quantity).unwrap_or(t.booked);
            t.status = if t.filled() >= t.order.quantity { Status::Filled } else { Status::PartlyFilled };
            if t.filled() > t.order.quantity {
                return Some(overfilled(t));
            }
            let other = side != t.order.side;
            other
                .then(|| ("wrong_side", format!("a fill of order {} is on the other side of it", t.order.id)))
        }
    }
}

#[cfg(test)]
mod tests;
