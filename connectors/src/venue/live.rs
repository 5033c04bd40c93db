//! The live driver: connections and requests become one ordered stream of frames, which goes to the
//! capture, then to the protocol; what the protocol asks for is done. A capture on a local disk is the feed's log:
//! rows leave when their frames are in it, and a restart reads it first (`recover.rs`).
//!
//! Frames wait in one bounded queue. When the worker is behind, rows wait here, the queue fills up, and
//! sockets are not read any more: TCP tells the venue to wait (which may cut a reader that is too slow), and
//! nothing is ever dropped here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{PartitionWriter, Reject, SourceContext};
use tidemill_engine::storage;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::address::{addresses, check};
use super::counts::Counts;
use super::emit::{Numbering, logged, restored};
use super::feed::Feed;
use super::frame::{Frame, FrameKind};
use super::protocol::{Action, Output, Protocol};
use super::replay::machine;
use crate::capture::record::Header;
use crate::capture::writer::{CaptureWriter, FLUSH};

pub(crate) mod backoff;
mod connection;
pub(crate) mod fetch;
mod recover;
#[cfg(test)]
mod tests;

use connection::{Command, Connection, Shared};
use fetch::Fetcher;
use recover::Recovery;

/// Frames that may wait for the protocol.
const FRAMES_QUEUED_MAX: usize = 4096;
/// Time between two log lines of counts.
const TELL: Duration = Duration::from_secs(60);

/// What connections and requests send.
pub(crate) enum Arrived {
    /// A frame, in its place in the stream.
    Frame(Frame),
    /// A count of the driver's own.
    Count(&'static str, u64),
    /// The venue's clock less ours, milliseconds.
    Skew(i64),
}

/// How much of a feed's log a restart reads at most, where the protocol allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    pub frames: u64,
    pub age: Duration,
}

/// About a second of reading, or an hour of the feed.
pub(crate) const SESSION: SessionLimits = SessionLimits { frames: 1_000_000, age: Duration::from_secs(3600) };

/// Runs a feed until it is told to stop.
pub(crate) async fn run(feed: &Feed, cx: SourceContext) -> Result<(), ConnectorError> {
    let fatal = |e: String| ConnectorError::Fatal(format!("source `{}`: {e}", feed.node));
    let position = restored(cx.restored.get(&0)).map_err(fatal)?;
    let addresses = addresses(&(feed.make)().endpoints());
    check("the checkpoint", &position.addresses, &addresses).map_err(fatal)?;
    let mut header = Header {
        job: feed.job.clone(),
        node: feed.node.clone(),
        restored: cx.restored.contains_key(&0),
        rows: position.rows,
        state: position.state.clone(),
        session_ns: cx.clock.now_ns(),
        run: cx.run,
        generation: cx.generation,
        addresses: addresses.clone(),
        ..Header::default()
    };
    let capture = feed.params.capture.as_deref();
    let log = capture.filter(|url| storage::local_path(url, &feed.base).is_some());
    let found = match log {
        Some(url) => Some(Recovery::find(feed, url, &position, &cx).await.map_err(fatal)?),
        None if position.cut.is_some() => {
            tracing::warn!(
                source = feed.node,
                "the checkpoint goes on in a capture that the graph doesn't name any more: what was received behind it is not read"
            );
            None
        }
        None => None,
    };
    let Some(mut writer) = cx.ready(&[0]).pop() else { return Ok(()) };
    let mut counts = Counts::new(&feed.node, cx.counts.clone());
    if let Some(found) = found {
        header.session_ns = header.session_ns.max(found.session_ns_min);
        if let Some(recovery) = found.recovery {
            let Some(end) = recovery.run(feed, &cx, &mut writer, &mut counts, position.rows).await? else {
                return Ok(());
            };
            header = Header {
                restored: true,
                rows: end.rows,
                state: end.state,
                after: Some(end.at),
                // Its clock may have gone back since.
                session_ns: header.session_ns.max(end.at.session_ns + 1),
                ..header
            };
        }
    }
    let mut protocol = (feed.make)();
    if !header.state.is_null() {
        protocol.restore(&header.state).map_err(fatal)?;
    }
    let rows = header.rows;
    let capture = match capture {
        None => None,
        Some(url) => {
            let started = CaptureWriter::start(url, &feed.base, header, cx.clock.clone()).await;
            Some(started.map_err(fatal)?)
        }
    };
    if let Some(log) = capture.as_ref().filter(|c| c.is_log()).and_then(CaptureWriter::log) {
        let _ = cx.log.set(Arc::new(log));
    }
    let fetcher = Fetcher::new(&feed.params, protocol.weight_per_minute(), cx.clock.clone(), &feed.node);
    let (frames, queue) = mpsc::channel(FRAMES_QUEUED_MAX);
    let mut driver = Driver {
        feed,
        node: &feed.node,
        addresses,
        writer,
        numbering: Numbering { next: rows },
        fetcher: fetcher.map_err(fatal)?,
        frames,
        queue,
        commands: Vec::new(),
        opened: Vec::new(),
        open: BTreeSet::new(),
        asked: BTreeSet::new(),
        tasks: JoinSet::new(),
        counts,
        out: Output::default(),
        rejects: Vec::new(),
        skew_max_ms: feed.params.clock_skew_max.ns() / 1_000_000,
        skewed: false,
        capture,
        session: cx.clock.start(),
        flushed: cx.clock.start(),
        told: cx.clock.start(),
        protocol,
        cx: &cx,
    };
    driver.connect(feed);
    let outcome = driver.drive().await;
    driver.counts.tell();
    let captured = match driver.capture.take() {
        Some(capture) => capture.finish().await,
        None => Ok(()),
    };
    outcome.and(captured.map_err(ConnectorError::Transient))
}

struct Driver<'a> {
    feed: &'a Feed,
    node: &'a str,
    /// Which feed it is.
    addresses: Vec<String>,
    cx: &'a SourceContext,
    protocol: Box<dyn Protocol>,
    writer: PartitionWriter,
    numbering: Numbering,
    fetcher: Arc<Fetcher>,
    frames: mpsc::Sender<Arrived>,
    queue: mpsc::Receiver<Arrived>,
    /// To each connection. Unbounded: a connection takes commands even while the queue of frames is full, and a
    /// protocol asks for few.
    commands: Vec<mpsc::UnboundedSender<(u64, Command)>>,
    /// How often each connection was opened, as far as the protocol has seen.
    opened: Vec<u64>,
    /// Connections that are open, as far as the protocol has seen.
    open: BTreeSet<u32>,
    /// URLs that are being fetched.
    asked: BTreeSet<String>,
    tasks: JoinSet<()>,
    counts: Counts,
    out: Output,
    rejects: Vec<Reject>,
    skew_max_ms: i64,
    skewed: bool,
    capture: Option<CaptureWriter>,
    /// Since the session of the log began.
    session: Stopwatch,
    flushed: Stopwatch,
    told: Stopwatch,
}

impl Driver<'_> {
    fn connect(&mut self, feed: &Feed) {
        let shared = Arc::new(Shared {
            node: feed.node.clone(),
            params: feed.params.clone(),
            clock: self.cx.clock.clone(),
            frames: self.frames.clone(),
        });
        for (index, endpoint) in self.protocol.endpoints().into_iter().enumerate() {
            let (commands, queue) = mpsc::unbounded_channel();
            self.commands.push(commands);
            self.opened.push(0);
            let connection = Connection::new(index as u32, endpoint, shared.clone(), queue);
            self.tasks.spawn(connection.run());
        }
    }

    async fn drive(&mut self) -> Result<(), ConnectorError> {
        let stop = self.cx.stop.clone();
        loop {
            let arrived = match self.queue.try_recv() {
                Ok(arrived) => arrived,
                Err(_) => {
                    // Nothing waits: what there is goes on at once.
                    if !self.emit().await? {
                        return Ok(());
                    }
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        Some(arrived) = self.queue.recv() => arrived,
                        Some(Err(e)) = self.tasks.join_next() => {
                            return Err(ConnectorError::fatal("a connection's task failed", e));
                        }
                        () = tokio::time::sleep(FLUSH) => {
                            self.keep().await?;
                            continue;
                        }
                    }
                }
            };
            match arrived {
                Arrived::Frame(frame) => self.take(frame).await?,
                Arrived::Count(name, n) => self.counts.add(name, n),
                Arrived::Skew(ms) => self.skew(ms),
            }
            self.keep().await?;
            let waiting = self.protocol.rows().max(self.rejects.len());
            if waiting >= self.cx.chunk_rows && !self.emit().await? {
                return Ok(());
            }
            if self.session_is_over() && !self.begin_session().await? {
                return Ok(());
            }
        }
    }

    /// Whether the log is long enough for a restart, and the protocol could begin here from its state.
    fn session_is_over(&self) -> bool {
        let Some(capture) = self.capture.as_ref().filter(|capture| capture.is_log()) else { return false };
        let frames = capture.at().frames;
        let limits = self.feed.session;
        frames > 0
            && (frames >= limits.frames || self.session.elapsed() >= limits.age)
            && self.asked.is_empty()
            && (self.open.is_empty() || self.protocol.state_is_whole())
    }

    /// Begins another session of the log, with a protocol that goes on from its state; false when the job stops.
    async fn begin_session(&mut self) -> Result<bool, ConnectorError> {
        if !self.emit().await? {
            return Ok(false);
        }
        let Some(capture) = &mut self.capture else { return Ok(true) };
        let (state, after) = (self.protocol.state(), capture.at());
        let protocol = machine(self.feed, &state);
        let header = Header {
            job: self.feed.job.clone(),
            node: self.feed.node.clone(),
            session_ns: self.cx.clock.now_ns().max(after.session_ns + 1),
            restored: true,
            rows: self.numbering.next,
            state,
            run: self.cx.run,
            generation: self.cx.generation,
            addresses: self.addresses.clone(),
            after: Some(after),
            open: self.open.iter().copied().collect(),
            ..Header::default()
        };
        capture.roll(header).await.map_err(ConnectorError::Transient)?;
        self.protocol =
            protocol.map_err(|e| ConnectorError::Fatal(format!("source `{}`: {e}", self.node)))?;
        self.session = self.cx.clock.start();
        Ok(true)
    }

    /// Writes what was captured when a second has passed; logs counts now and then.
    async fn keep(&mut self) -> Result<(), ConnectorError> {
        if self.flushed.elapsed() >= FLUSH {
            self.flushed = self.cx.clock.start();
            self.counts.settle();
            if let Some(capture) = &mut self.capture {
                capture.flush().await.map_err(ConnectorError::Transient)?;
            }
            if self.told.elapsed() >= TELL {
                self.told = self.cx.clock.start();
                self.counts.tell();
            }
        }
        Ok(())
    }

    async fn take(&mut self, frame: Frame) -> Result<(), ConnectorError> {
        if let Some(capture) = &mut self.capture {
            capture.write(&frame).await.map_err(ConnectorError::Transient)?;
        }
        self.counts.frame();
        match &frame.kind {
            FrameKind::Opened => {
                if let Some(opened) = self.opened.get_mut(frame.connection as usize) {
                    *opened += 1;
                }
                self.open.insert(frame.connection);
            }
            FrameKind::Closed => drop(self.open.remove(&frame.connection)),
            FrameKind::Response { url, .. } => drop(self.asked.remove(url)),
            _ => {}
        }
        self.protocol.on_frame(&frame, &mut self.out);
        for action in std::mem::take(&mut self.out.actions) {
            self.act(action);
        }
        self.rejects.append(&mut self.out.rejects);
        self.counts.take(&mut self.out);
        Ok(())
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { connection, message } => self.command(connection, Command::Send(message)),
            Action::Reconnect { connection, reason } => {
                self.counts.add("reconnects_asked", 1);
                self.command(connection, Command::Reconnect(reason));
            }
            Action::Fetch { connection, url, weight } => {
                if !self.asked.insert(url.clone()) {
                    return;
                }
                let (fetcher, frames, clock) =
                    (self.fetcher.clone(), self.frames.clone(), self.cx.clock.clone());
                self.tasks.spawn(fetch(fetcher, frames, clock, connection, url, weight));
            }
        }
    }

    fn command(&mut self, connection: u32, command: Command) {
        let i = connection as usize;
        if let (Some(commands), Some(opened)) = (self.commands.get(i), self.opened.get(i)) {
            let _ = commands.send((*opened, command));
        }
    }

    fn skew(&mut self, ms: i64) {
        self.counts.raise("clock_skew_ms", ms.unsigned_abs());
        if ms.abs() > self.skew_max_ms && !std::mem::replace(&mut self.skewed, true) {
            let (amount, which) = (ms.abs(), if ms > 0 { "behind" } else { "ahead of" });
            tracing::warn!(
                source = self.node,
                "this machine's clock is {amount} ms {which} the venue's: receive times are off by that"
            );
        }
    }

    /// Hands on the rows there are; false when the job stops.
    async fn emit(&mut self) -> Result<bool, ConnectorError> {
        if self.protocol.rows() == 0 && self.rejects.is_empty() {
            return Ok(true);
        }
        let numbered = self.numbering.number(self.protocol.finish(), std::mem::take(&mut self.rejects));
        if numbered.is_empty() {
            return Ok(true);
        }
        // No row leaves before the frames that made it are in the log: a killed process would take them along.
        let mut cut = None;
        if let Some(capture) = self.capture.as_mut().filter(|capture| capture.is_log()) {
            capture.flush().await.map_err(ConnectorError::Transient)?;
            cut = Some(capture.at());
        }
        // One chunk, even if a frame made more rows than were requested: the state is that behind all of them.
        let chunk = numbered.chunk(logged(self.numbering.next, self.protocol.state(), cut, &self.addresses));
        tokio::select! {
            biased;
            () = self.cx.stop.cancelled() => Ok(false),
            sent = self.writer.send(chunk) => Ok(sent.is_ok()),
        }
    }
}

async fn fetch(
    fetcher: Arc<Fetcher>,
    frames: mpsc::Sender<Arrived>,
    clock: Clock,
    connection: u32,
    url: String,
    weight: u32,
) {
    let fetched = fetcher.get(&url, weight, clock.now_ns() as u64).await;
    for (name, n) in [("http_refusals", fetched.refused), ("http_errors", fetched.failed), ("requests", 1)] {
        if n > 0 {
            let _ = frames.send(Arrived::Count(name, n)).await;
        }
    }
    if let Some(ms) = fetched.skew_ms {
        let _ = frames.send(Arrived::Skew(ms)).await;
    }
    // The URL is the protocol's own name for its question; it holds no secret (see `Action::Fetch`).
    let frame = Frame {
        received_ns: clock.now_ns(),
        connection,
        kind: FrameKind::Response { url, status: fetched.status },
        data: fetched.body,
    };
    let _ = frames.send(Arrived::Frame(frame)).await;
}
