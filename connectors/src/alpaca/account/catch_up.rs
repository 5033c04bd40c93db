//! Catching up: what was missed while nobody listened, and the account as a whole.
//!
//! The stream listens already. Executions, orders that have ended and bookings are asked for and told first, so that the snapshot that
//! follows has nothing in it that was not told before. It is told only where nothing moved while it was read: no message of
//! the stream brought news, no execution came into the history, no request of the sink was on its way. Otherwise it is read again.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use tidemill_engine::connector::ConnectorError;

use super::run::{Desk, End};
use crate::alpaca::trading::client::Found;
use crate::alpaca::trading::errors::Verdict;
use crate::alpaca::trading::stream::Stream;
use crate::alpaca::trading::wire::{Account, Activity, Order, Position};
use crate::broker::reports::{Event, Report};

/// How far before the last execution the history is read again: the venue may book late, and not in order.
const OVERLAP_NS: i64 = 3_600_000_000_000;
/// How far before now bookings are read again: they have only a day.
const BOOKINGS_NS: i64 = 7 * 86_400_000_000_000;
/// Entries of a page.
const PAGE: usize = 100;
/// Orders of a page.
const ORDERS_PAGE: usize = 500;
/// How often a snapshot is tried before it is left for later.
const TRIES_MAX: usize = 20;
/// After reading: how long the stream may be behind what was read.
const QUIET: Duration = Duration::from_millis(50);

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
        for attempt in 0.. {
            self.executions().await?;
            self.bookings().await?;
            let whole = self.read().await?;
            let mut moved = self.ended(&whole.orders).await?;
            moved |= self.drained(stream).await?;
            moved |= self.executions().await?;
            // What was on its way for so long is on its way no more.
            let patient = attempt < TRIES_MAX || self.log.state().begun();
            if !moved && (self.unanswered.is_empty() || !patient) {
                let snapshot = self.snapshot(whole);
                self.tell_snapshot(snapshot).await?;
                self.counts.add("snapshots", 1);
                return Ok(());
            }
            self.counts.add("snapshots_read_again", 1);
            // Everything was told one by one; a snapshot only compares, unless nothing is known yet.
            if attempt >= TRIES_MAX && (mode == Mode::May || self.log.state().begun()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hears what the stream has until it is quiet; whether there was news.
    async fn drained(&mut self, stream: &mut Stream) -> Result<bool, CatchUpError> {
        let mut moved = false;
        let quiet = self.clock.start();
        while quiet.elapsed() < QUIET {
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

    /// Tells bookings that were missed.
    async fn bookings(&mut self) -> Result<(), CatchUpError> {
        let from = stamp(self.clock.now_ns() - BOOKINGS_NS);
        let day = from.split('T').next().unwrap_or_default();
        let all = self.pages(&format!("?category=non_trade_activity&after={day}")).await?;
        let news: Vec<Report> =
            all.iter().filter_map(|booking| self.log.state().booking(booking, "USD")).collect();
        self.tell(news).await?;
        Ok(())
    }

    async fn read(&mut self) -> Result<Whole, CatchUpError> {
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
        Ok(Whole {
            orders,
            positions: self.get("/v2/positions").await?,
            account: self.get("/v2/account").await?,
        })
    }

    /// Tells of orders that are there and were not known, and of those that are no more; whether there were any.
    async fn ended(&mut self, open: &[Order]) -> Result<bool, CatchUpError> {
        let before = self.log.last();
        for order in open {
            let news = self.log.state().order(order);
            self.tell(news).await?;
        }
        let open: BTreeSet<&str> = open.iter().map(|o| o.id.as_str()).collect();
        for id in self.log.state().working() {
            if !open.contains(id.as_str())
                && let Found::Order(order) = self.client.order(&id).await
            {
                let news = self.log.state().order(&order);
                self.tell(news).await?;
            }
        }
        Ok(self.log.last() > before)
    }

    fn snapshot(&self, whole: Whole) -> Vec<Report> {
        let Whole { orders, positions, account } = whole;
        let mut rows = vec![Report::new(Event::SnapshotBegin, None)];
        rows.extend(orders.iter().map(|order| self.log.state().open(order)));
        for position in positions {
            let quantity = position.qty.map(|q| if position.side == "short" { -q.abs() } else { q });
            rows.push(Report {
                symbol: Some(position.symbol),
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
