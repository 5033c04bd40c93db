//! What is known of the account's orders and fills, and what is news: pure. A report is made for what changes it, and for nothing
//! else; so whatever comes twice, late, or over the stream and by asking, is told once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidemill_trading::Decimal;

use super::bookings::{Booked, booked};
use crate::alpaca::trading::wire::{Activity, Order, TradeUpdate, time};
use crate::broker::report_log::{Logged, State};
use crate::broker::reports::{Event, Report};

/// Orders that are over are remembered for so long: what is told of them later is still no news.
const REMEMBER_NS: i64 = 3 * 86_400_000_000_000;
/// How far before the last execution the history is read again: the venue may book late, and not in order.
pub(super) const OVERLAP_NS: i64 = 3_600_000_000_000;
/// Bookings that are remembered.
const BOOKINGS_MAX: usize = 10_000;

/// An order at the venue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tracked {
    /// Its name in the graph; orders that took each other's place share it.
    name: String,
    symbol: String,
    /// What had been filled of the order after each execution that was told.
    fills: BTreeSet<Decimal>,
    /// The venue's time of the last of them.
    #[serde(default)]
    filled_at: Option<i64>,
    /// What had been filled of it in the first snapshot: executions from before are nobody's news.
    #[serde(default)]
    begun_with: Decimal,
    /// When it was over.
    over: Option<i64>,
}

impl Tracked {
    /// Units of the order that were told as filled.
    fn told(&self) -> Decimal {
        self.fills.last().copied().unwrap_or_default().max(self.begun_with)
    }

    /// Whether the execution after which so much was filled is known.
    fn knows(&self, filled: Decimal) -> bool {
        filled <= self.begun_with || self.fills.contains(&filled)
    }
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// By the venue's id.
    orders: BTreeMap<String, Tracked>,
    /// The venue's time of the newest execution that was told; before one was, when the first snapshot was told.
    fills_from: Option<i64>,
    /// Bookings that were told, by their id.
    bookings: BTreeSet<String>,
    /// The last entry of the sink's journal that was looked at.
    journal: u64,
    /// A snapshot was told: what comes from now on is told too. Before, it is only noted: the snapshot has it.
    begun: bool,
}

impl State for Known {
    fn apply(&mut self, logged: &Logged) {
        let report = &logged.report;
        self.journal = self.journal.max(logged.journal.unwrap_or(0));
        if report.event == Event::SnapshotEnd {
            self.begun = true;
            self.fills_from = self.fills_from.or(Some(report.ts));
        }
        if matches!(report.event, Event::Cash | Event::Split | Event::Alert) {
            self.bookings.extend(report.fill_id.clone());
            while self.bookings.len() > BOOKINGS_MAX {
                self.bookings.pop_first();
            }
        }
        let (Some(id), Some(name)) = (&report.venue_order_id, &report.order_id) else { return };
        if report.event == Event::Alert {
            return;
        }
        let (fresh, begun) = (!self.orders.contains_key(id), self.begun);
        let tracked = self.orders.entry(id.clone()).or_default();
        tracked.name.clone_from(name);
        if let Some(symbol) = &report.symbol {
            tracked.symbol.clone_from(symbol);
        }
        match report.event {
            Event::Filled => {
                tracked.fills.extend(report.filled);
                if report.quantity.is_some() && report.quantity <= report.filled {
                    tracked.over = Some(report.ts);
                }
                tracked.filled_at = tracked.filled_at.max(report.at.or(Some(report.ts)));
                self.fills_from = self.fills_from.max(report.at);
            }
            Event::Rejected | Event::Canceled | Event::Expired => tracked.over = Some(report.ts),
            Event::SnapshotOrder if !begun => tracked.begun_with = report.filled.unwrap_or_default(),
            // A replacement that never came to be.
            Event::ChangeRejected if fresh => tracked.over = Some(report.ts),
            // The one whose place it took has another id.
            Event::Replaced => {
                for (other, tracked) in &mut self.orders {
                    if other != id && &tracked.name == name && tracked.over.is_none() {
                        tracked.over = Some(report.ts);
                    }
                }
            }
            _ => {}
        }
        let forgotten = report.ts.saturating_sub(REMEMBER_NS);
        if self.orders.len() > 1000 {
            // Executions that are read again must be known, however long ago the last one was.
            let read_again = self.fills_from.map_or(i64::MAX, |at| at.saturating_sub(OVERLAP_NS));
            self.orders.retain(|_, t| {
                t.over.is_none_or(|at| at > forgotten) || t.filled_at.is_some_and(|at| at >= read_again)
            });
        }
    }
}

impl Known {
    /// Another run begins, which knows nothing: it needs a snapshot first.
    pub fn begin_anew(&mut self) {
        self.begun = false;
    }

    /// Whether a snapshot was told before.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// The last entry of the sink's journal that was looked at.
    pub fn journal(&self) -> u64 {
        self.journal
    }

    /// The newest execution that was told, by the venue's time.
    pub fn fills_from(&self) -> Option<i64> {
        self.fills_from
    }

    /// Whether an order is known.
    pub fn knows(&self, venue_id: &str) -> bool {
        self.orders.contains_key(venue_id)
    }

    /// The symbols of orders that are known.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.orders.values().map(|t| t.symbol.as_str())
    }

    /// Whether the venue has filled more of an order than was told: executions are on their way here.
    pub fn is_behind(&self, order: &Order) -> bool {
        let told = self.orders.get(&order.id).map_or(Decimal::ZERO, Tracked::told);
        // A replacement may count what was filled before it.
        order.filled() > told.max(self.filled_before(order))
    }

    /// Orders that are not over as far as is known, by the venue's id.
    pub fn working(&self) -> Vec<String> {
        self.orders.iter().filter(|(_, t)| t.over.is_none()).map(|(id, _)| id.clone()).collect()
    }

    /// The name of an order of the venue's.
    fn name(&self, order: &Order) -> String {
        let known = |id: &str| self.orders.get(id).map(|t| t.name.clone());
        known(&order.id).or_else(|| order.replaces.as_deref().and_then(known)).unwrap_or_else(|| order.name())
    }

    fn report(&self, event: Event, order: &Order, at: Option<i64>) -> Report {
        Report {
            order_id: Some(self.name(order)),
            venue_order_id: Some(order.id.clone()),
            symbol: Some(order.symbol.clone()),
            ..Report::new(event, at)
        }
    }

    fn is_over(&self, id: &str) -> bool {
        self.orders.get(id).is_some_and(|t| t.over.is_some())
    }

    /// Units of the orders before `order` in its chain that were told as filled.
    fn filled_before(&self, order: &Order) -> Decimal {
        let name = self.name(order);
        let before = self.orders.iter().filter(|(id, t)| **id != order.id && t.name == name);
        before.map(|(_, t)| t.told()).max().unwrap_or_default()
    }

    /// The order is there: news where it was not known.
    fn there(&self, order: &Order, at: Option<i64>, news: &mut Vec<Report>) {
        if self.knows(&order.id) {
            return;
        }
        if order.replaces.is_none() {
            return news.push(self.report(Event::Accepted, order, at));
        }
        // FIX counts what was filled before a replacement into its quantity; where the venue begins to count anew, it is added.
        let before = self.filled_before(order);
        let left_out = if order.filled() < before { before } else { Decimal::ZERO };
        news.push(Report {
            quantity: order.qty.and_then(|qty| qty.checked_add(left_out)),
            price: order.limit_price,
            stop: order.stop_price,
            trail: order.trail_price,
            ..self.report(Event::Replaced, order, at)
        });
    }

    fn over(
        &self,
        event: Event,
        order: &Order,
        at: Option<i64>,
        reason: Option<String>,
        news: &mut Vec<Report>,
    ) {
        if !self.is_over(&order.id) {
            news.push(Report { reason, ..self.report(event, order, at) });
        }
    }

    /// What a message of the stream brings that is new.
    pub fn update(&self, update: &TradeUpdate) -> Result<Vec<Report>, String> {
        let (order, at) = (&update.order, time(update.timestamp.as_deref().or(order_time(&update.order))));
        let mut news = Vec::new();
        match update.event.as_str() {
            "new" => self.there(order, at, &mut news),
            // A replacement may still be rejected; then the order stands as it was.
            "accepted" | "pending_new" | "held" | "restated" if order.replaces.is_some() => {}
            "accepted" | "pending_new" | "held" | "restated" => self.there(order, at, &mut news),
            "fill" | "partial_fill" => {
                let (Some(price), Some(quantity)) = (update.price, update.qty) else {
                    return Err("an execution without price or quantity".into());
                };
                let id = update.execution_id.clone().unwrap_or_default();
                self.there(order, at, &mut news);
                self.filled(order, order.filled(), (price, quantity), (id, at), &mut news);
            }
            "canceled" | "expired" => {
                let event = if update.event == "canceled" { Event::Canceled } else { Event::Expired };
                self.there(order, at, &mut news);
                self.over(event, order, at, None, &mut news);
            }
            "rejected" if order.replaces.is_some() && !self.knows(&order.id) => {
                let reason =
                    Some("alpaca rejected the replacement; the order stands as it was, or is filled".into());
                news.push(Report { reason, ..self.report(Event::ChangeRejected, order, at) });
            }
            "rejected" => {
                let reason = Some("alpaca rejected the order after it was taken".into());
                self.over(Event::Rejected, order, at, reason, &mut news);
            }
            "order_replace_rejected" | "order_cancel_rejected" => {
                let what = if update.event.contains("replace") { "change" } else { "cancel" };
                let reason = Some(format!("alpaca rejected the {what}"));
                news.push(Report { reason, ..self.report(Event::ChangeRejected, order, at) });
            }
            // The new order says what it is now.
            "replaced" | "done_for_day" | "pending_cancel" | "pending_replace" | "stopped" | "calculated"
            | "suspended" => {}
            "trade_bust" | "trade_correct" => {
                let reason = format!(
                    "alpaca took an execution back or corrected it ({}): compare the account",
                    update.event
                );
                news.push(Report { reason: Some(reason), ..self.report(Event::Alert, order, at) });
            }
            other => return Err(format!("unknown event `{other}`")),
        }
        Ok(news)
    }

    fn filled(
        &self,
        order: &Order,
        filled: Decimal,
        (price, quantity): (Decimal, Decimal),
        (id, at): (String, Option<i64>),
        news: &mut Vec<Report>,
    ) {
        // An execution is told by its order and what is filled with it: its id has other forms on the stream and in the history.
        if self.orders.get(&order.id).is_some_and(|t| t.knows(filled)) {
            return;
        }
        let side = if order.side.starts_with("sell") { "sell" } else { "buy" };
        news.push(Report {
            side: Some(side.into()),
            fill_id: Some(if id.is_empty() { format!("{}/{}", order.id, filled.normalize()) } else { id }),
            fill_price: Some(price),
            fill_quantity: Some(quantity),
            filled: Some(filled.normalize()),
            quantity: order.qty,
            // Commissions are none; what regulators take is booked later, and told as cash.
            fee: Some(Decimal::ZERO),
            fee_currency: Some("USD".into()),
            ..self.report(Event::Filled, order, at)
        });
    }

    /// Whether an execution of the account's history was told.
    pub fn knows_fill(&self, activity: &Activity) -> bool {
        let (Some(id), Some(cum)) = (&activity.order_id, activity.cum_qty) else { return false };
        self.orders.get(id).is_some_and(|t| t.knows(cum))
    }

    /// What an execution of the account's history brings that is new; `order` is the one it belongs to.
    pub fn activity(&self, activity: &Activity, order: &Order) -> Vec<Report> {
        let mut news = Vec::new();
        let (Some(price), Some(quantity), Some(cum)) = (activity.price, activity.qty, activity.cum_qty)
        else {
            return news;
        };
        let at = time(activity.transaction_time.as_deref());
        let id = activity.id.rsplit("::").next().unwrap_or_default().to_owned();
        self.there(order, at, &mut news);
        self.filled(order, cum, (price, quantity), (id, at), &mut news);
        news
    }

    /// What the order as the venue has it brings that is new, its executions left out.
    pub fn order(&self, order: &Order) -> Vec<Report> {
        let mut news = Vec::new();
        let at = time(order_time(order));
        match order.status.as_str() {
            "rejected" if order.replaces.is_some() => {}
            "rejected" => {
                self.over(Event::Rejected, order, at, Some("alpaca rejected the order".into()), &mut news)
            }
            "canceled" | "expired" | "done_for_day" => {
                self.there(order, at, &mut news);
                let event = if order.status == "canceled" { Event::Canceled } else { Event::Expired };
                // An order that stays for more days is only done for today.
                if order.status != "done_for_day" || order.time_in_force == "day" {
                    self.over(event, order, at, None, &mut news);
                }
            }
            "replaced" => {}
            "accepted" | "pending_new" | "held" | "pending_replace" if order.replaces.is_some() => {}
            _ => self.there(order, at, &mut news),
        }
        news
    }

    /// A working order of a snapshot.
    pub fn open(&self, order: &Order) -> Report {
        let percent = Decimal::ONE_HUNDRED;
        Report {
            side: Some(if order.side.starts_with("sell") { "sell" } else { "buy" }.into()),
            order_type: Some(order.order_type.clone()),
            time_in_force: Some(order.time_in_force.clone()),
            quantity: order.qty,
            price: order.limit_price,
            stop: order.stop_price,
            trail: order.trail_price,
            trail_fraction: order.trail_percent.and_then(|p| p.checked_div(percent)),
            filled: Some(order.filled()),
            ..self.report(Event::SnapshotOrder, order, time(order_time(order)))
        }
    }

    /// What the account's bookings bring that is new.
    pub(super) fn booked(&self, all: &[Activity], now: i64) -> Booked {
        booked(all, &self.bookings, now, "USD")
    }
}

fn order_time(order: &Order) -> Option<&str> {
    order.updated_at.as_deref().or(order.submitted_at.as_deref())
}

#[cfg(test)]
mod tests;
