//! Catching up: what was missed while nobody listened, and the account as a whole.
//!
//! The stream listens already. Executions, orders that have ended and bookings are asked for and told first, so that the snapshot that
//! follows has nothing in it that was not told before. It is told only where nothing moved while it was read: no message of
//! the stream brought news, no execution and no booking came into the history, no request of the sink was on its way, and of no order more is
//! filled than was told. Otherwise it is read again. While half of a split is booked it is left for later: the position is not there meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use tidemill_engine::connector::ConnectorError;

use super::bookings::Booked;
use super::known::OVERLAP_NS;
use super::run::{Desk, End};
use crate::alpaca::trading::client::Found;
use crate::alpaca::trading::errors::Verdict;
use crate::alpaca::trading::stream::Stream;
use crate::alpaca::trading::symbols::order_symbol;
use crate::alpaca::trading::wire::{Account, Activity, Order, Position, time};
use crate::broker::reports::{Event, Report};

/// How far before now bookings are read again: they have only a day.
const BOOKINGS_NS: i64 = 7 * 86_400_000_000_000;
/// Entries of a page.
const PAGE: usize = 100;
/// Orders of a page.
const ORDERS_PAGE: usize = 500;
/// How often a snapshot is tried before it is left for later.
const TRIES_MAX: u32 = 20;
/// After reading: how long the stream may be behind what was read; with each try longer while executions are awaited.
const QUIET: Duration = Duration::from_millis(50);
/// The longest of that.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// Executions that neither the stream nor the history has told for so long after their order last changed are not waited for: before the first
/// snapshot they may be older than what is read of the history.
const LATE_NS: [i64; 2] = [60_000_000_000, 600_000_000_000];

/// Whether a snapshot must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// After a connection was made; the first one of a run is waited for, however long it takes.
    Must,
    /// To compare: left for later where the account moves.
    May,
}

/// Why it did not come to an end.
pub(super) enum CatchUpError {
    /// The connection is to be made anew.
    Again(String),
    /// The source ends.
    End(End),
}

impl From<End> for CatchUpError {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<Verdict> for CatchUpError {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::NotUs(reason) => Self::End(End::Failed(ConnectorError::Fatal(reason))),
            Verdict::Busy(_) => Self::Again("too many requests (HTTP 429)".into()),
            Verdict::Refused(reason) | Verdict::Unknown(reason) => Self::Again(reason),
            Verdict::Missing | Verdict::Duplicate | Verdict::Done => {
                Self::Again("the venue's answer is not what it documents".into())
            }
        }
    }
}

/// The account as it was read.
struct Whole {
    orders: Vec<Order>,
    positions: Vec<Position>,
    account: Account,
}

fn stamp(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl Desk {
    /// Tells what was missed, and the account.
    pub async fn catch_up(&mut self, stream: &mut Stream, mode: Mode) -> Result<(), CatchUpError> {
        for attempt in 0u32.. {
            self.executions().await?;
            self.bookings().await?;
            let whole = self.read().await?;
            let (mut moved, late) = self.ended(&whole.orders).await?;
            let quiet = if late { QUIET.saturating_mul(1 + attempt).min(QUIET_MAX) } else { QUIET };
            moved |= self.drained(stream, quiet).await?;
            moved |= self.executions().await?;
            // What was booked between is in what was read.
            let (booked, half) = self.bookings().await?;
            moved |= booked;
            // What was on its way for so long is on its way no more.
            let begun = self.log.state().begun();
            let patient = attempt < TRIES_MAX || begun;
            if half && begun {
                self.counts.add("snapshots_left", 1);
                return self.mind_clock().await;
            }
            // Taken while it was read.
            let known = self.log.state();
            moved |= self.taken.iter().any(|id| !known.knows(id));
            if !moved && !late && (self.unanswered.is_empty() || !patient) {
                let snapshot = self.snapshot(whole);
                self.tell_snapshot(snapshot).await?;
                self.settled = true;
                self.counts.add("snapshots", 1);
                return self.mind_clock().await;
            }
            self.counts.add("snapshots_read_again", 1);
            // Everything was told one by one; a snapshot only compares, unless nothing is known yet.
            if attempt >= TRIES_MAX && (mode == Mode::May || begun) {
                return self.mind_clock().await;
            }
        }
        Ok(())
    }

    /// Tells once that this machine's clock is not the venue's.
    async fn mind_clock(&mut self) -> Result<(), CatchUpError> {
        let skew = self.client.skew();
        self.counts.raise("clock_skew_ms", skew.ms().unsigned_abs());
        let words = skew.words();
        let news = words.is_some() && !self.skew_told;
        self.skew_told = words.is_some();
        if news {
            self.tell(vec![Report { reason: words, ..Report::new(Event::Alert, None) }]).await?;
        }
        Ok(())
    }

    /// Hears what the stream has until it is quiet; whether there was news.
    async fn drained(&mut self, stream: &mut Stream, quiet: Duration) -> Result<bool, CatchUpError> {
        let mut moved = false;
        let since = self.clock.start();
        while since.elapsed() < quiet {
            tokio::select! {
                heard = stream.next() => {
                    let heard = heard.map_err(CatchUpError::from)?;
                    moved |= self.hear(heard).await?;
                }
                _ = self.ticks.tick() => self.beat().await?,
            }
        }
        self.look().await?;
        Ok(moved)
    }

    async fn get<T: serde::de::DeserializeOwned>(&mut self, path: &str) -> Result<T, CatchUpError> {
        self.counts.add("requests", 1);
        let client = self.client.clone();
        let asking = client.get(path);
        tokio::pin!(asking);
        loop {
            tokio::select! {
                got = &mut asking => return Ok(got?),
                _ = self.ticks.tick() => self.beat().await?,
            }
        }
    }

    async fn pages(&mut self, query: &str) -> Result<Vec<Activity>, CatchUpError> {
        let mut all: Vec<Activity> = Vec::new();
        let mut seen = BTreeSet::new();
        loop {
            let behind = all.last().map(|a| format!("&page_token={}", a.id)).unwrap_or_default();
            let path = format!("/v2/account/activities{query}&direction=asc&page_size={PAGE}{behind}");
            let page: Vec<Activity> = self.get(&path).await?;
            let whole = page.len() >= PAGE;
            let before = all.len();
            all.extend(page.into_iter().filter(|a| seen.insert(a.id.clone())));
            // A venue that gives the same page again would be asked for ever.
            if !whole || all.len() == before {
                return Ok(all);
            }
        }
    }

    /// Tells executions that were missed; whether there were any.
    async fn executions(&mut self) -> Result<bool, CatchUpError> {
        let now = self.clock.now_ns();
        let from = self.log.state().fills_from().unwrap_or(now).min(now) - OVERLAP_NS;
        let path = format!("/FILL?after={}", stamp(from));
        let mut fills = self.pages(&path).await?;
        fills.retain(|fill| !self.log.state().knows_fill(fill));
        // Those of one millisecond come in no order of theirs.
        fills.sort_by(|a, b| {
            let key = |f: &Activity| (f.transaction_time.clone(), f.cum_qty);
            key(a).cmp(&key(b))
        });
        let moved = !fills.is_empty();
        for fill in fills {
            let Some(id) = fill.order_id.clone() else { continue };
            let order = match self.client.order(&id).await {
                Found::Order(order) => order,
                Found::Missing => {
                    let reason = format!(
                        "the account's history has a fill of order {id}, which the venue does not have"
                    );
                    self.tell(vec![Report { reason: Some(reason), ..Report::new(Event::Alert, None) }])
                        .await?;
                    continue;
                }
                Found::NotSaid(verdict) => return Err(verdict.into()),
            };
            let news = self.log.state().activity(&fill, &order);
            self.tell(news).await?;
        }
        Ok(moved)
    }

    /// Tells bookings that were missed; whether there were any, and whether half a split is among them.
    async fn bookings(&mut self) -> Result<(bool, bool), CatchUpError> {
        let now = self.clock.now_ns();
        let from = stamp(now - BOOKINGS_NS);
        let day = from.split('T').next().unwrap_or_default();
        let all = self.pages(&format!("?category=non_trade_activity&after={day}")).await?;
        let Booked { news, half } = self.log.state().booked(&all, now);
        let moved = !news.is_empty();
        self.tell(news).await?;
        Ok((moved, half))
    }

    /// Orders last: what they say is filled is in the positions, or it was filled in between.
    async fn read(&mut self) -> Result<Whole, CatchUpError> {
        let positions = self.get("/v2/positions").await?;
        let account = self.get("/v2/account").await?;
        let mut orders: Vec<Order> = Vec::new();
        loop {
            let until = orders.last().and_then(|o| o.submitted_at.clone());
            let after = until.map(|at| format!("&after={at}")).unwrap_or_default();
            let path = format!("/v2/orders?status=open&limit={ORDERS_PAGE}&direction=asc{after}");
            let page: Vec<Order> = self.get(&path).await?;
            let (whole, before) = (page.len() >= ORDERS_PAGE, orders.len());
            let known: BTreeSet<String> = orders.iter().map(|o| o.id.clone()).collect();
            orders.extend(page.into_iter().filter(|o| !known.contains(&o.id)));
            if !whole || orders.len() == before {
                break;
            }
        }
        Ok(Whole { orders, positions, account })
    }

    /// Whether executions of an order are on their way here.
    fn waits_for(&self, order: &Order) -> bool {
        let patience = LATE_NS[usize::from(self.log.state().begun())];
        let long_ago = self.clock.now_ns().saturating_sub(patience);
        let changed = time(order.updated_at.as_deref().or(order.submitted_at.as_deref()));
        self.log.state().is_behind(order) && changed.is_none_or(|at| at > long_ago)
    }

    /// Tells of orders that are there and were not known, and of those that are no more; whether there were any, and whether executions are
    /// awaited.
    async fn ended(&mut self, open: &[Order]) -> Result<(bool, bool), CatchUpError> {
        let before = self.log.last();
        let mut late = false;
        for order in open {
            let news = self.log.state().order(order);
            self.tell(news).await?;
            match self.waits_for(order) {
                true => late = true,
                false => {
                    self.behind.remove(&order.id);
                }
            }
        }
        let open: BTreeSet<&str> = open.iter().map(|o| o.id.as_str()).collect();
        let known = self.log.state();
        self.taken.retain(|id| !known.knows(id));
        let mut asked: BTreeSet<String> = known.working().into_iter().collect();
        asked.extend(self.taken.iter().chain(&self.behind).cloned());
        for id in asked.into_iter().filter(|id| !open.contains(id.as_str())) {
            let order = match self.client.order(&id).await {
                Found::Order(order) => order,
                Found::Missing => {
                    self.taken.remove(&id);
                    self.behind.remove(&id);
                    continue;
                }
                // What it has done is not known.
                Found::NotSaid(_) => {
                    late = true;
                    continue;
                }
            };
            // Its end is told behind its executions.
            if self.waits_for(&order) {
                self.behind.insert(id);
                late = true;
                continue;
            }
            self.taken.remove(&id);
            self.behind.remove(&id);
            let news = self.log.state().order(&order);
            self.tell(news).await?;
        }
        if late {
            self.counts.add("executions_awaited", 1);
        }
        Ok((self.log.last() > before, late))
    }

    fn snapshot(&self, whole: Whole) -> Vec<Report> {
        let Whole { orders, positions, account } = whole;
        let mut rows = vec![Report::new(Event::SnapshotBegin, None)];
        rows.extend(orders.iter().map(|order| self.log.state().open(order)));
        for position in positions {
            let quantity = position.signed();
            rows.push(Report {
                symbol: Some(order_symbol(&position, self.log.state().symbols())),
                quantity,
                price: position.avg_entry_price.map(|p| p.round_dp(18)),
                ..Report::new(Event::SnapshotPosition, None)
            });
        }
        let currency = if account.currency.is_empty() { "USD".to_owned() } else { account.currency };
        rows.push(Report {
            currency: Some(currency),
            cash: account.cash,
            ..Report::new(Event::SnapshotCash, None)
        });
        if account.trading_blocked
            || account.account_blocked
            || !matches!(account.status.as_str(), "ACTIVE" | "")
        {
            let reason = format!("the account takes no orders: its status is {}", account.status);
            tracing::warn!("{reason}");
            rows.push(Report { reason: Some(reason), ..Report::new(Event::Alert, None) });
        }
        rows.push(Report::new(Event::SnapshotEnd, None));
        rows
    }
}
