//! Sends commands to a venue, each once, whatever happens on the way; see the [module above](super).
//!
//! Memory: the journal's, and the commands of one batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::StreamExt;
use tidemill_connectors::broker::journal::{Asked, Journal, Kind, Knowledge, Outcome, Request};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::fault;
use tokio::sync::Mutex;

use super::command::{Ask, Command};
use super::{Answer, Found, Leave, Venue};

/// How a desk works.
#[derive(Clone, Copy, Debug)]
pub struct DeskOptions {
    /// An order or a change whose row is older than this when it is about to be sent is refused; zero: never.
    pub max_age: Duration,
    /// Longest wait for an answer: for so long after it a sending may still be on its way.
    pub timeout: Duration,
    /// A request of which the venue does not say for so long whether it was taken ends the run, which starts again.
    pub give_up_after: Duration,
    /// Requests that are under way at once, of different symbols.
    pub parallel: usize,
}

/// What a desk has done.
#[derive(Debug, Default)]
pub struct Done {
    /// Requests that were taken.
    pub taken: AtomicU64,
    /// Requests that were refused, by the venue or before they were sent.
    pub refused: AtomicU64,
    /// Rows that were replays of requests that had been answered.
    pub replayed: AtomicU64,
    /// Times that nobody knew whether a request was taken.
    pub unknown: AtomicU64,
}

/// Sends commands.
pub struct Desk<V> {
    venue: V,
    journal: Mutex<Journal>,
    clock: Clock,
    options: DeskOptions,
    done: Arc<Done>,
}

/// Waits between two tries.
fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Waits between askings whether an order may be sent, when the answer is no: positions may be behind the fills that led to the order.
const LEAVE_WAITS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(600)];

/// How a try ended that says nothing.
struct NotSaid {
    reason: String,
    wait: Option<Duration>,
}

impl<V: Venue> Desk<V> {
    /// Takes a journal over: asks the venue about each request in it that may have been sent and was not answered.
    pub async fn open(
        venue: V,
        journal: Journal,
        clock: Clock,
        options: DeskOptions,
    ) -> Result<Self, ConnectorError> {
        let unanswered = journal.unanswered();
        let desk = Self { venue, journal: Mutex::new(journal), clock, options, done: Arc::default() };
        let since = desk.clock.start();
        for (asked, _) in unanswered {
            fault::point("order-reconcile");
            // A cancel leaves nothing to be found; it may be sent again as often as one likes.
            let found = match asked.kind {
                Kind::Cancel => None,
                Kind::Order | Kind::Modify => desk.find_late(&asked.key, &since).await?,
            };
            fault::point("order-reconciled");
            match found {
                Some(id) => {
                    tracing::info!(
                        order = asked.order,
                        id,
                        "the venue has an order that was sent before the restart"
                    );
                    desk.conclude(asked, Outcome::Accepted(Some(id))).await?;
                }
                None => desk.journal.lock().await.not_there(desk.clock.now_ns(), asked).await?,
            }
        }
        Ok(desk)
    }

    /// What it has done.
    pub fn done(&self) -> Arc<Done> {
        self.done.clone()
    }

    /// The number of the journal's last entry.
    pub async fn position(&self) -> u64 {
        self.journal.lock().await.last()
    }

    /// A checkpoint that knew the journal up to entry `n` is committed.
    pub async fn committed(&self, n: u64) -> Result<(), ConnectorError> {
        self.journal.lock().await.committed(n, self.clock.now_ns()).await
    }

    /// Does what commands ask for, those of one symbol in their order. When it returns, each was answered.
    pub async fn execute(&self, commands: Vec<Command>) -> Result<(), ConnectorError> {
        if commands.is_empty() {
            return Ok(());
        }
        fault::point("order-before-journal");
        let commands = self.intend(commands).await?;
        fault::point("order-journalled");
        let mut lanes: BTreeMap<String, Vec<(Command, Option<Request>, bool)>> = BTreeMap::new();
        for command in commands {
            lanes.entry(command.0.asked.symbol.clone()).or_default().push(command);
        }
        let lanes = lanes.into_values().map(|lane| async move {
            for (command, request, sent) in lane {
                match request {
                    Some(request) => self.order(command, request, sent).await?,
                    None => self.change(command).await?,
                }
            }
            Ok::<_, ConnectorError>(())
        });
        let mut running = futures::stream::iter(lanes).buffer_unordered(self.options.parallel.max(1));
        while let Some(ended) = running.next().await {
            ended?;
        }
        Ok(())
    }

    /// Leaves out what was answered, refuses what cannot be sent, and writes new orders into the journal, all at once. With each
    /// order that is left its request, and whether it may have been sent before; changes and cancels get theirs when it is their turn.
    async fn intend(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<(Command, Option<Request>, bool)>, ConnectorError> {
        let mut journal = self.journal.lock().await;
        let now = self.clock.now_ns();
        let (mut left, mut intents, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let mut keys = std::collections::BTreeSet::new();
        for command in commands {
            let twice = !keys.insert(command.asked.key.clone());
            let known = journal.know(&command.asked.key);
            if twice || matches!(known, Knowledge::Over(_)) {
                self.done.replayed.fetch_add(1, Relaxed);
                continue;
            }
            if let Err(reason) = &command.ask {
                refused.push((command.asked, reason.clone()));
                continue;
            }
            if command.asked.kind != Kind::Order {
                left.push((command, None, false));
                continue;
            }
            match known {
                Knowledge::Unknown(request) => left.push((command, Some(request), true)),
                _ => match self.fresh(&command).and_then(|()| self.venue.encode(&command, None)) {
                    Ok(request) => {
                        intents.push((command.asked.clone(), request.clone()));
                        left.push((command, Some(request), false));
                    }
                    Err(reason) => refused.push((command.asked, reason)),
                },
            }
        }
        if !intents.is_empty() {
            journal.intend(now, intents).await?;
        }
        drop(journal);
        for (asked, reason) in refused {
            self.refuse(asked, reason).await?;
        }
        Ok(left)
    }

    /// Refuses an order or a change that comes too late: what was right then may be wrong now.
    fn fresh(&self, command: &Command) -> Result<(), String> {
        let age = self.clock.now_ns().saturating_sub(command.ts).max(0);
        let max = self.options.max_age;
        if max.is_zero() || age <= max.as_nanos() as i64 {
            return Ok(());
        }
        let seconds = age / 1_000_000_000;
        let clock = self.venue.clock().map(|words| format!("; {words}")).unwrap_or_default();
        let what = if command.asked.kind == Kind::Order { "order" } else { "change" };
        Err(format!("not sent: the {what} is {seconds} s old, and max_age is {} s{clock}", max.as_secs_f64()))
    }

    /// Whether the account as it stands lets an order go. Where the venue does not say, it goes: what must be closed is closed, and
    /// who made the order has limited it.
    async fn leave(&self, command: &Command) -> Result<Result<(), String>, ConnectorError> {
        let mut waits = LEAVE_WAITS.into_iter();
        loop {
            match self.venue.leave(command).await {
                Leave::Yes => return Ok(Ok(())),
                Leave::No(reason) => match waits.next() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Ok(Err(reason)),
                },
                Leave::Unknown(reason) => {
                    tracing::warn!(order = command.asked.order, "sent without being checked: {reason}");
                    return Ok(Ok(()));
                }
                Leave::Fatal(reason) => return Err(ConnectorError::Fatal(reason)),
            }
        }
    }

    async fn refuse(&self, asked: Asked, reason: String) -> Result<(), ConnectorError> {
        tracing::warn!(order = asked.order, symbol = asked.symbol, "{:?} refused: {reason}", asked.kind);
        self.conclude(asked, Outcome::Rejected(reason)).await
    }

    async fn conclude(&self, asked: Asked, outcome: Outcome) -> Result<(), ConnectorError> {
        let done =
            if matches!(outcome, Outcome::Accepted(_)) { &self.done.taken } else { &self.done.refused };
        done.fetch_add(1, Relaxed);
        self.journal.lock().await.conclude(self.clock.now_ns(), asked, outcome).await?;
        fault::point("order-concluded");
        Ok(())
    }

    /// Sends a new order.
    async fn order(&self, command: Command, request: Request, sent: bool) -> Result<(), ConnectorError> {
        let outcome = self.settle(&command, &request, sent).await?;
        match outcome {
            Outcome::Rejected(reason) => self.refuse(command.asked, reason).await,
            accepted => self.conclude(command.asked, accepted).await,
        }
    }

    /// Changes or cancels an order.
    async fn change(&self, command: Command) -> Result<(), ConnectorError> {
        let (known, target) = {
            let journal = self.journal.lock().await;
            (journal.know(&command.asked.key), journal.venue_id(&command.asked.order).map(str::to_owned))
        };
        let (sent, cancel) = (matches!(known, Knowledge::Unknown(_)), matches!(command.ask, Ok(Ask::Cancel)));
        // What is to be taken back is taken back however late; what may have been sent is looked for first.
        if !sent
            && !cancel
            && let Err(reason) = self.fresh(&command)
        {
            return self.refuse(command.asked, reason).await;
        }
        let target = match target {
            Some(target) => Some(target),
            None => self.resolve(&command.asked.order).await?.map(|(id, _)| id),
        };
        let Some(target) = target else {
            return self.refuse(command.asked, "the venue has no order of this name".into()).await;
        };
        let mut request = match self.venue.encode(&command, Some(&target)) {
            Ok(request) => request,
            Err(reason) => return self.refuse(command.asked, reason).await,
        };
        // A change whose order has been given another id meanwhile is the same change: what was journalled is what was sent.
        if let Knowledge::Unknown(was) = known {
            request = if command.asked.kind == Kind::Modify { was } else { request };
        } else {
            let intent = vec![(command.asked.clone(), request.clone())];
            self.journal.lock().await.intend(self.clock.now_ns(), intent).await?;
            fault::point("change-journalled");
        }
        let mut outcome = match cancel {
            true => self.cancel(&request).await?,
            false => self.settle(&command, &request, sent).await?,
        };
        if cancel
            && matches!(outcome, Outcome::Rejected(_))
            && let Some((now, over)) = self.resolve(&command.asked.order).await?
        {
            if now != target
                && let Ok(request) = self.venue.encode(&command, Some(&now))
            {
                // The order was replaced by somebody else: by the venue's own hand, or by a change that was found late.
                outcome = self.cancel(&request).await?;
            }
            // A cancel crosses a fill on its way, or a first sending of it, of which nothing was heard, has done it: there is nothing
            // to be taken back any more. How the order ended, its reports say.
            if over {
                outcome = Outcome::Accepted(None);
            }
        }
        match outcome {
            Outcome::Rejected(reason) => self.refuse(command.asked, reason).await,
            // Which order stands now is told by the change, not by the cancel.
            Outcome::Accepted(_) if cancel => self.conclude(command.asked, Outcome::Accepted(None)).await,
            accepted => self.conclude(command.asked, accepted).await,
        }
    }

    /// Sends a new order or a change until it is known what came of it, as long as it may be sent; asks the venue before it is sent a second
    /// time.
    async fn settle(
        &self,
        command: &Command,
        request: &Request,
        sent: bool,
    ) -> Result<Outcome, ConnectorError> {
        let key = &command.asked.key;
        let (mut waits, started, mut ask) = (waits(), self.clock.start(), sent);
        loop {
            // Before it is looked for: what a first sending of it has done meanwhile is found then, and is no reason to refuse it.
            let leave = self.leave(command).await?;
            if ask {
                match self.find(key).await? {
                    Some(id) => return Ok(Outcome::Accepted(Some(id))),
                    None => tracing::info!(key, "the venue does not have it: it is sent"),
                }
            }
            if let Err(reason) = leave.and_then(|()| self.fresh(command)) {
                return self.rejected(key, ask, reason).await;
            }
            let not_said = match self.send(request).await? {
                Answer::Taken(id) => return Ok(Outcome::Accepted(id)),
                Answer::Refused(reason) => return self.rejected(key, ask, reason).await,
                Answer::Fatal(reason) => return Err(ConnectorError::Fatal(reason)),
                Answer::Busy(wait) => {
                    NotSaid { reason: "the venue wants us to wait".into(), wait: Some(wait) }
                }
                Answer::Duplicate => {
                    ask = true;
                    NotSaid {
                        reason: "the venue has an order of this name".into(),
                        wait: Some(Duration::ZERO),
                    }
                }
                Answer::Unknown(reason) => {
                    ask = true;
                    self.done.unknown.fetch_add(1, Relaxed);
                    NotSaid { reason, wait: None }
                }
            };
            self.pause(key, not_said, &mut waits, &started).await?;
        }
    }

    /// A request is not to be: not sent, or refused. Where an earlier sending of it was not answered (`unanswered`), that may still arrive, and may
    /// be why this one was refused: it holds what both need. Then it is looked for until it can be on its way no more.
    async fn rejected(&self, key: &str, unanswered: bool, reason: String) -> Result<Outcome, ConnectorError> {
        if unanswered && let Some(id) = self.find_late(key, &self.clock.start()).await? {
            tracing::info!(
                key,
                id,
                "an earlier sending has arrived: what was said of the last one is void: {reason}"
            );
            return Ok(Outcome::Accepted(Some(id)));
        }
        Ok(Outcome::Rejected(reason))
    }

    /// What the venue made of a request that may still be on its way: looked for until it is there, or `timeout` has passed `since`.
    async fn find_late(&self, key: &str, since: &Stopwatch) -> Result<Option<String>, ConnectorError> {
        let mut waits = waits();
        loop {
            let left = self.options.timeout.saturating_sub(since.elapsed());
            let found = self.find(key).await?;
            if found.is_some() || left.is_zero() {
                return Ok(found);
            }
            tokio::time::sleep(waits.next().map_or(left, |wait| wait.min(left))).await;
        }
    }

    /// Sends a cancel until it is known what came of it: twice does no harm.
    async fn cancel(&self, request: &Request) -> Result<Outcome, ConnectorError> {
        let (mut waits, started) = (waits(), self.clock.start());
        loop {
            let not_said = match self.send(request).await? {
                Answer::Taken(id) => return Ok(Outcome::Accepted(id)),
                Answer::Duplicate => return Ok(Outcome::Accepted(None)),
                Answer::Refused(reason) => return Ok(Outcome::Rejected(reason)),
                Answer::Fatal(reason) => return Err(ConnectorError::Fatal(reason)),
                Answer::Busy(wait) => {
                    NotSaid { reason: "the venue wants us to wait".into(), wait: Some(wait) }
                }
                Answer::Unknown(reason) => {
                    self.done.unknown.fetch_add(1, Relaxed);
                    NotSaid { reason, wait: None }
                }
            };
            self.pause(&request.path, not_said, &mut waits, &started).await?;
        }
    }

    async fn send(&self, request: &Request) -> Result<Answer, ConnectorError> {
        self.journal.lock().await.check_ours().await?;
        fault::point("order-before-send");
        let answer = self.venue.send(request).await;
        fault::point("order-answered");
        Ok(answer)
    }

    /// What the venue made of a request; asked until it says.
    async fn find(&self, key: &str) -> Result<Option<String>, ConnectorError> {
        let (mut waits, started) = (waits(), self.clock.start());
        loop {
            let found = self.venue.find(key).await;
            if let Some(said) = self.said(key, found, &mut waits, &started).await? {
                return Ok(said.0.map(|(id, _)| id));
            }
        }
    }

    /// The order that stands under a name now, and whether it is over; asked until the venue says.
    async fn resolve(&self, order: &str) -> Result<Option<(String, bool)>, ConnectorError> {
        let (mut waits, started) = (waits(), self.clock.start());
        loop {
            let found = self.venue.resolve(order).await;
            if let Some(said) = self.said(order, found, &mut waits, &started).await? {
                return Ok(said.0);
            }
        }
    }

    async fn said(
        &self,
        what: &str,
        found: Found,
        waits: &mut impl Iterator<Item = Duration>,
        started: &Stopwatch,
    ) -> Result<Option<Said>, ConnectorError> {
        let not_said = match found {
            Found::There { id, over } => return Ok(Some(Said(Some((id, over))))),
            Found::Missing => return Ok(Some(Said(None))),
            Found::Fatal(reason) => return Err(ConnectorError::Fatal(reason)),
            Found::Busy(wait) => NotSaid { reason: "the venue wants us to wait".into(), wait: Some(wait) },
            Found::Unknown(reason) => NotSaid { reason, wait: None },
        };
        self.pause(what, not_said, waits, started).await?;
        Ok(None)
    }

    async fn pause(
        &self,
        what: &str,
        not_said: NotSaid,
        waits: &mut impl Iterator<Item = Duration>,
        started: &Stopwatch,
    ) -> Result<(), ConnectorError> {
        let NotSaid { reason, wait } = not_said;
        let least = waits.next().unwrap_or(Duration::from_secs(5));
        let wait = wait.map_or(least, |wait| wait.max(least));
        if started.elapsed() + wait > self.options.give_up_after {
            let what = format!("the venue has not said for {:?} what came of {what}", started.elapsed());
            return Err(ConnectorError::transient(what, reason));
        }
        tracing::warn!(what, "{reason}: again in {wait:.1?}");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// What the venue said: an id and whether the order is over, or that there is none.
struct Said(Option<(String, bool)>);
