//! A feed from its capture: the same frames to the same protocol, so the same rows.
//!
//! A position counts rows from the capture's beginning, so it says which files it counts: they must be there, first
//! and unchanged, when it is gone on from. A session that went on from another begins with the number behind it. One that went
//! on from a checkpoint without reading the capture had forgotten the rows behind the checkpoint, and the replay leaves them out
//! as well. A run that began from nothing is numbered on.

use serde_json::{Value, json};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{PartitionWriter, SourceContext};

use super::counts::Counts;
use super::emit::{Numbering, restored};
use super::feed::Feed;
use super::protocol::{Output, Protocol};
use crate::capture::counted::Counted;
use crate::capture::reader::Capture;
use crate::capture::session::{Session, SessionReader, sessions};

/// One session of the feed in its capture.
struct Run {
    session: Session,
    /// The number of its first row, and of the first that it must not give.
    from: Option<u64>,
    to: u64,
}

/// Replays `url` to its end.
pub(crate) async fn run(feed: &Feed, url: &str, cx: SourceContext) -> Result<(), ConnectorError> {
    let fatal = |e: String| ConnectorError::Fatal(format!("source `{}`: {e}", feed.node));
    let capture = Capture::open(url, &feed.base, &feed.node).await.map_err(fatal)?;
    let skip = restored(cx.restored.get(&0)).map_err(fatal)?.rows;
    if let Some(position) = cx.restored.get(&0) {
        Counted::check(&capture, position).await.map_err(fatal)?;
    }
    let Some(writer) = cx.ready(&[0]).pop() else { return Ok(()) };
    let runs = runs(sessions(&capture, 0..capture.files.len()).await);
    let mut replay = Replay {
        cx: &cx,
        writer,
        numbering: Numbering { next: 0 },
        skip,
        to: u64::MAX,
        counts: Counts::new(&feed.node, cx.counts.clone()),
        out: Output::default(),
        protocol: (feed.make)(),
        counted: Counted::none_of(&capture).await,
    };
    // Where the numbers of a row of runs that went on from one another begin.
    let mut base = 0;
    for run in runs {
        replay.protocol = machine(feed, &run.session.header.state).map_err(fatal)?;
        if run.from.is_none() {
            base = replay.numbering.next;
        }
        replay.numbering.next = base + run.from.unwrap_or(0);
        replay.to = base.saturating_add(run.to);
        if let Some(last) = run.session.files.end.checked_sub(1) {
            replay.counted.extend(&capture.files, last);
        }
        if !replay.session(SessionReader::new(&capture, &run.session)).await? {
            return Ok(());
        }
        if !replay.emit().await {
            return Ok(());
        }
    }
    replay.counts.tell();
    replay.writer.end();
    Ok(())
}

/// A protocol at the beginning of a session.
pub(super) fn machine(feed: &Feed, state: &Value) -> Result<Box<dyn Protocol>, String> {
    let mut protocol = (feed.make)();
    let _ = protocol.endpoints();
    if !state.is_null() {
        protocol.restore(state)?;
    }
    Ok(protocol)
}

fn runs(sessions: Vec<Session>) -> Vec<Run> {
    let run = |session: Session| {
        let from = session.header.restored.then_some(session.header.rows);
        Run { session, from, to: u64::MAX }
    };
    let mut runs: Vec<Run> = sessions.into_iter().map(run).collect();
    let mut to = u64::MAX;
    for run in runs.iter_mut().rev() {
        run.to = to;
        to = run.from.map_or(u64::MAX, |from| from.min(to));
    }
    runs
}

struct Replay<'a> {
    cx: &'a SourceContext,
    protocol: Box<dyn Protocol>,
    writer: PartitionWriter,
    numbering: Numbering,
    /// Rows below this number were there before.
    skip: u64,
    /// Rows from this number on were forgotten by the run that came next.
    to: u64,
    counts: Counts,
    out: Output,
    /// The files that were begun.
    counted: Counted,
}

impl Replay<'_> {
    /// Reads a session; false when the job stops.
    async fn session(&mut self, mut reader: SessionReader<'_>) -> Result<bool, ConnectorError> {
        while let Some(frames) = reader.next().await {
            for frame in frames {
                self.counts.frame();
                self.protocol.on_frame(&frame, &mut self.out);
                self.out.actions.clear();
                self.counts.take(&mut self.out);
                let waiting = self.protocol.rows().max(self.out.rejects.len());
                if waiting >= self.cx.chunk_rows && !self.emit().await {
                    return Ok(false);
                }
            }
            self.counts.settle();
            if self.cx.stop.is_cancelled() {
                return Ok(false);
            }
        }
        for reason in &reader.torn {
            tracing::warn!("{reason}: what is behind is lost");
            self.counts.add("torn_files", 1);
        }
        Ok(true)
    }

    /// Hands on the rows there are; false when the job stops.
    async fn emit(&mut self) -> bool {
        let numbered = self.numbering.number(self.protocol.finish(), std::mem::take(&mut self.out.rejects));
        let counted = json!(self.counted);
        for chunk in numbered.within(self.skip, self.to).chunks(self.cx.chunk_rows, &counted) {
            let sent = tokio::select! {
                biased;
                () = self.cx.stop.cancelled() => return false,
                sent = self.writer.send(chunk) => sent,
            };
            if sent.is_err() {
                return false;
            }
        }
        true
    }
}
