//! The source at work: reads its log again, connects, catches up, listens; and again when the connection is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::metrics::Counts;
use tidemill_engine::source::{Chunk, PartitionWriter, Position, Seqs, SourceContext};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::AccountSource;
use super::catch_up::{CatchUpError, Mode};
use super::known::Known;
use crate::alpaca::trading::Client;
use crate::alpaca::trading::stream::{Heard, Stream, StreamError};
use crate::broker::journal::{self, Entry, Kind, Outcome, Record};
use crate::broker::lines::Tail;
use crate::broker::report_log::{Logged, ReportLog};
use crate::broker::reports::{self, Event, Report};
use crate::venue::live::backoff::Backoff;

/// The partition's number.
const PARTITION: u32 = 0;
/// Bits of `_seq` that count heartbeats behind a report.
const BEAT_BITS: u32 = 32;
/// Until a run has told the account as a whole, it tries again this often.
const UNSETTLED: Duration = Duration::from_secs(5);
/// A journal in object storage is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Orders that the sink was told to be taken longer ago are in what the venue tells of.
const TAKEN_NS: i64 = 600_000_000_000;

/// Where the source stands.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Stand {
    /// The last report of the log that was sent.
    log: u64,
    /// Heartbeats behind it.
    beats: u32,
    /// `ts` of the last row.
    ts: i64,
    /// `ts` of the last report of the log that was sent; checkpoints of earlier versions do not say.
    #[serde(default)]
    log_ts: Option<i64>,
}

/// What a running source has.
pub(super) struct Desk {
    pub client: Arc<Client>,
    pub log: ReportLog<Known>,
    pub counts: Counts,
    pub clock: Clock,
    writer: PartitionWriter,
    stand: Stand,
    chunk_rows: usize,
    tail: Tail,
    /// When the journal was looked at last, where that costs a request.
    looked: Option<Stopwatch>,
    /// Requests of the sink that may be on their way.
    pub unanswered: BTreeSet<String>,
    committed: watch::Receiver<BTreeMap<u32, Position>>,
    stop: CancellationToken,
    /// When it is time for a [`beat`](Self::beat).
    pub ticks: Interval,
    /// Orders that the venue took from the sink and that no report has told of yet, by the venue's id.
    pub taken: BTreeSet<String>,
    /// Orders of which the stream said that more is filled than was told.
    pub behind: BTreeSet<String>,
    /// This run has told the account as a whole.
    pub settled: bool,
    /// It was told that this machine's clock is not the venue's.
    pub skew_told: bool,
}

/// Why the source ends.
pub(super) enum End {
    /// The job is stopping.
    Stopped,
    /// It cannot go on.
    Failed(ConnectorError),
}

impl From<ConnectorError> for End {
    fn from(error: ConnectorError) -> Self {
        Self::Failed(error)
    }
}

pub(super) async fn run(source: &AccountSource, cx: SourceContext) -> Result<(), ConnectorError> {
    match work(source, cx).await {
        Ok(()) | Err(End::Stopped) => Ok(()),
        Err(End::Failed(error)) => Err(error),
    }
}

async fn work(source: &AccountSource, cx: SourceContext) -> Result<(), End> {
    let mut writers = cx.ready(&[PARTITION]);
    let Some(writer) = writers.pop() else { return Ok(()) };
    let client = Client::new(&source.access, source.params.timeout.std(), cx.clock.clone())
        .map_err(ConnectorError::Fatal)?;
    let place = source.folder.join(&format!("{}.reports", source.node));
    let mut log = ReportLog::<Known>::open(&place).await?;
    let stand = match cx.restored.get(&PARTITION) {
        Some(position) => {
            let stand: Stand = serde_json::from_value(position.clone())
                .map_err(|e| ConnectorError::fatal("the checkpoint's position is not readable", e))?;
            if !log.reaches(stand.log) || log.last() < stand.log {
                return Err(End::Failed(ConnectorError::Fatal(format!(
                    "`{place}` does not have what the checkpoint knows: put it back, or start from none"
                ))));
            }
            if !log.may_hold(stand.log, stand.log_ts) {
                return Err(End::Failed(ConnectorError::Fatal(format!(
                    "`{place}` is not the log of reports that had been read: its report {} is another than the checkpoint knows; put it \
                     back, or run with `--from none`",
                    stand.log
                ))));
            }
            stand
        }
        // The job had committed reports before, and begins from nothing now.
        None if log.committed_to() > 0 => {
            log.forget(Known::begin_anew).await?;
            Stand { log: log.last(), beats: 0, ts: log.ts(), log_ts: None }
        }
        None => Stand::default(),
    };
    log.passed(stand.ts);
    let again = log.after(stand.log);
    let mut ticks = tokio::time::interval(source.params.heartbeat.std());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut desk = Desk {
        client: Arc::new(client),
        log,
        counts: cx.counts.clone(),
        clock: cx.clock.clone(),
        writer,
        stand,
        chunk_rows: cx.chunk_rows.max(1),
        tail: Tail::new(&source.folder.join(journal::FILE)),
        looked: None,
        unanswered: BTreeSet::new(),
        taken: BTreeSet::new(),
        behind: BTreeSet::new(),
        settled: false,
        committed: cx.committed.clone(),
        stop: cx.stop.clone(),
        ticks,
        skew_told: false,
    };
    desk.send(again).await?;
    if desk.log.state().begun() {
        // Orders that were sent after the checkpoint are not known to whoever goes on from it, where their rows do not come again.
        desk.tell(vec![Report::new(Event::Reconciling, None)]).await?;
    }
    let mut backoff =
        Backoff::new(Duration::from_millis(100), Duration::from_secs(20), cx.clock.now_ns() as u64);
    loop {
        let lasted = cx.clock.start();
        let reason = match desk.connected(source).await {
            Err(CatchUpError::End(end)) => return Err(end),
            Err(CatchUpError::Again(reason)) => reason,
            Ok(never) => match never {},
        };
        tracing::warn!(source = source.node, "the account's reports are interrupted: {reason}");
        desk.counts.add("connections_lost", 1);
        backoff.lasted(lasted.elapsed());
        let wait = cx.clock.start();
        let pause = backoff.next();
        // Time passes meanwhile, and the sink's refusals are told.
        while wait.elapsed() < pause {
            desk.ticks.tick().await;
            desk.beat().await?;
        }
    }
}

/// Nothing comes to an end here but by an error.
pub(super) enum Never {}

impl Desk {
    /// Connects, catches up and listens until the connection is lost.
    async fn connected(&mut self, source: &AccountSource) -> Result<Never, CatchUpError> {
        let opening = Stream::open(&source.access);
        tokio::pin!(opening);
        let mut stream = loop {
            tokio::select! {
                opened = &mut opening => break opened.map_err(CatchUpError::from)?,
                _ = self.ticks.tick() => self.beat().await?,
            }
        };
        tracing::info!(source = source.node, "listening to trade updates");
        self.counts.add("connections", 1);
        self.catch_up(&mut stream, Mode::Must).await?;
        let mut snapshot = self.clock.start();
        loop {
            tokio::select! {
                heard = stream.next() => {
                    let heard = heard.map_err(CatchUpError::from)?;
                    self.hear(heard).await?;
                }
                _ = self.ticks.tick() => self.beat().await?,
            }
            let every = source.params.snapshot_every.std();
            // Nothing new is sent before the first of a run.
            let every = if self.settled { every } else { every.min(UNSETTLED) };
            if snapshot.elapsed() >= every {
                snapshot = self.clock.start();
                self.catch_up(&mut stream, Mode::May).await?;
            }
        }
    }

    /// Takes a message of the stream in; whether it brought news.
    pub async fn hear(&mut self, heard: Heard) -> Result<bool, End> {
        let (text, reason) = match heard {
            Heard::Odd(text, reason) => (text, reason),
            Heard::Update(update) => {
                self.counts.add("updates", 1);
                match self.log.state().update(&update) {
                    Ok(news) => {
                        let moved = !news.is_empty();
                        self.counts.add("updates_without_news", u64::from(!moved));
                        self.tell(news).await?;
                        if self.log.state().is_behind(&update.order) {
                            self.behind.insert(update.order.id);
                        }
                        return Ok(moved);
                    }
                    Err(reason) => (format!("{update:?}"), reason),
                }
            }
        };
        self.counts.add("odd_messages", 1);
        let shown: String = text.chars().take(300).collect();
        tracing::warn!("alpaca sent something that it does not document: {reason}: {shown}");
        let alert = Report { reason: Some(format!("{reason}: {shown}")), ..Report::new(Event::Alert, None) };
        self.tell(vec![alert]).await?;
        Ok(false)
    }

    /// Logs reports and sends them; before the first snapshot of a run they are only noted.
    pub async fn tell(&mut self, news: Vec<Report>) -> Result<(), End> {
        let hidden = !self.log.state().begun();
        let news = news.into_iter().map(|report| (report, None)).collect();
        self.log_and_send(hidden, news).await
    }

    /// Logs a snapshot whole and sends it.
    pub async fn tell_snapshot(&mut self, snapshot: Vec<Report>) -> Result<(), End> {
        self.log_and_send(false, snapshot.into_iter().map(|report| (report, None)).collect()).await
    }

    async fn log_and_send(&mut self, hidden: bool, news: Vec<(Report, Option<u64>)>) -> Result<(), End> {
        let logged = self.log.append(self.clock.now_ns(), hidden, news).await?;
        tidemill_engine::fault::point("report-logged");
        self.send(logged).await
    }

    async fn send(&mut self, logged: Vec<Logged>) -> Result<(), End> {
        let told: Vec<Logged> = logged.into_iter().filter(|one| !one.hidden).collect();
        for part in told.chunks(self.chunk_rows) {
            let (Some(last), seqs) = (part.last(), part.iter().map(|one| one.n << BEAT_BITS).collect())
            else {
                continue;
            };
            let ts = last.report.ts;
            self.stand = Stand { log: last.n, beats: 0, ts, log_ts: Some(ts) };
            let rows: Vec<Report> = part.iter().map(|one| one.report.clone()).collect();
            self.emit(&rows, Seqs::List(seqs)).await?;
        }
        Ok(())
    }

    async fn emit(&mut self, reports: &[Report], seqs: Seqs) -> Result<(), End> {
        let rows =
            reports::batch(reports).map_err(|e| ConnectorError::fatal("reports do not become rows", e))?;
        let position = serde_json::json!(self.stand);
        let chunk = Chunk { rows, seqs, position, rejects: Vec::new() };
        let stop = self.stop.clone();
        tokio::select! {
            sent = self.writer.send(chunk) => sent.map_err(|_| End::Stopped),
            () = stop.cancelled() => Err(End::Stopped),
        }
    }

    /// Looks at the sink's journal and at commits, and says that time has passed. Not to be dropped before its end.
    pub async fn beat(&mut self) -> Result<(), End> {
        if self.stop.is_cancelled() {
            return Err(End::Stopped);
        }
        self.look_soon().await?;
        let now = self.clock.now_ns();
        if now > self.stand.ts && now > self.log.ts() {
            self.log.passed(now);
            self.stand.ts = now;
            self.stand.beats = self.stand.beats.saturating_add(1);
            let seq = (self.stand.log << BEAT_BITS) | u64::from(self.stand.beats);
            let report = Report { ts: now, ..Report::new(Event::Heartbeat, None) };
            self.emit(&[report], Seqs::From(seq)).await?;
        }
        Ok(())
    }

    /// As [`look`](Self::look), a journal in object storage no more often than each costs is worth.
    async fn look_soon(&mut self) -> Result<(), End> {
        let recently = self.looked.as_ref().is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        if recently && !self.tail.is_local() { Ok(()) } else { self.look().await }
    }

    /// Looks at the sink's journal and at commits.
    pub async fn look(&mut self) -> Result<(), End> {
        let entries: Vec<Entry> = self.tail.poll().await?;
        self.looked = Some(self.clock.start());
        let seen = self.log.state().journal();
        let mut news = Vec::new();
        let recent = self.clock.now_ns().saturating_sub(TAKEN_NS);
        for entry in entries {
            match &entry.record {
                Record::Intent { asked, .. } => {
                    self.unanswered.insert(asked.key.clone());
                }
                Record::Outcome { asked, outcome } => {
                    self.unanswered.remove(&asked.key);
                    if let Outcome::Accepted(Some(id)) = outcome
                        && asked.kind != Kind::Cancel
                        && entry.at > recent
                    {
                        self.taken.insert(id.clone());
                    }
                }
                Record::NotThere { asked } => {
                    self.unanswered.remove(&asked.key);
                }
                Record::Opened { .. } => {}
            }
            if entry.n > seen
                && let Record::Outcome { asked, outcome: Outcome::Rejected(reason) } = entry.record
            {
                let event = if asked.kind == Kind::Order { Event::Rejected } else { Event::ChangeRejected };
                let report = Report {
                    order_id: Some(asked.order),
                    symbol: Some(asked.symbol),
                    reason: Some(reason),
                    ..Report::new(event, Some(entry.at))
                };
                news.push((report, Some(entry.n)));
            }
        }
        if !news.is_empty() {
            self.log_and_send(false, news).await?;
        }
        if self.committed.has_changed().unwrap_or(false) {
            let committed = self.committed.borrow_and_update().get(&PARTITION).cloned();
            let stand = committed.and_then(|position| serde_json::from_value::<Stand>(position).ok());
            if let Some(stand) = stand {
                self.log.commit(stand.log).await?;
            }
        }
        Ok(())
    }
}

impl From<StreamError> for CatchUpError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Lost(reason) => Self::Again(reason),
            StreamError::NotUs(reason) => Self::End(End::Failed(ConnectorError::Fatal(reason))),
        }
    }
}
