//! After a restart: what the feed's log holds behind the checkpoint.
//!
//! The sessions from the checkpoint's on are read by protocols that begin as those of the live feed began, so
//! they make the same rows; those behind the checkpoint's place are emitted again, under the same numbers. Then the
//! connections that were open are closed, in the log too, and the feed goes on from the protocol's state in
//! a session of its own: books are asked for again, as after any lost connection.
//!
//! A process was killed before it wrote a frame: nothing of it has left the feed. Between that and the row: the frame is in
//! the log, and its row comes from there. Nothing of a log is changed, only added to: a process that was believed dead
//! may still write, and what it adds counts for nothing (see [`session`](crate::capture::session)).

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::Value;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{PartitionWriter, Reject, SourceContext};
use tidemill_engine::storage;

use crate::capture::reader::Capture;
use crate::capture::record::{Cut, Header};
use crate::capture::session::{Session, SessionReader, sessions};
use crate::capture::writer::CaptureWriter;
use crate::venue::address::{addresses, check};
use crate::venue::counts::Counts;
use crate::venue::emit::{Numbering, Restored, logged};
use crate::venue::feed::Feed;
use crate::venue::frame::{Frame, FrameKind};
use crate::venue::protocol::{Output, Protocol};
use crate::venue::replay::machine;

/// What a feed's log holds behind a checkpoint.
pub(super) struct Recovery {
    capture: Capture,
    /// From the checkpoint's session to the last one.
    sessions: Vec<Session>,
    /// Frames of the first that the checkpoint knows.
    known: u64,
    url: String,
}

/// What was found of a feed's log.
pub(super) struct Found {
    /// What is to be read.
    pub recovery: Option<Recovery>,
    /// A new session begins no earlier.
    pub session_ns_min: i64,
}

/// Where the log ends.
pub(super) struct End {
    /// Rows and refused input so far.
    pub rows: u64,
    /// What a protocol goes on from.
    pub state: Value,
    /// The place.
    pub at: Cut,
}

impl Recovery {
    /// Looks for what lies behind `position` in the log at `url`.
    pub async fn find(
        feed: &Feed,
        url: &str,
        position: &Restored,
        cx: &SourceContext,
    ) -> Result<Found, String> {
        let missing = |cut: Cut, what: &str| {
            format!(
                "the checkpoint goes on behind frame {} of session {} of the capture of `{}` in {url}, {what}: put \
                 its files back, or begin from nothing (--from none)",
                cut.frames, cut.session_ns, feed.node
            )
        };
        let Some(capture) = Capture::own(url, &feed.base, &feed.node).await? else {
            return match position.cut {
                Some(cut) => Err(missing(cut, "which is not there")),
                None => Ok(Found { recovery: None, session_ns_min: i64::MIN }),
            };
        };
        let newest = capture.files.iter().filter_map(|file| file.session_ns()).max();
        let session_ns_min = newest.map_or(i64::MIN, |ns| ns.saturating_add(1));
        let from = match position.cut {
            Some(cut) => capture.files.iter().position(|file| file.session_ns() == Some(cut.session_ns)),
            None => run_begins(&capture, cx.run).await,
        };
        let sessions = match from {
            Some(from) => sessions(&capture, from..capture.files.len()).await,
            None => Vec::new(),
        };
        let restored = cx.restored.contains_key(&0);
        let first = sessions.iter().rposition(|s| match position.cut {
            Some(cut) => s.header.session_ns == cut.session_ns,
            // One that began at this very position, and was killed before a checkpoint named it.
            None => {
                let Header { run, after, restored: r, rows, .. } = &s.header;
                *run == cx.run && after.is_none() && *r == restored && *rows == position.rows
            }
        });
        let Some(first) = first else {
            return match position.cut {
                Some(cut) => Err(missing(cut, "which has no such session")),
                None => Ok(Found { recovery: None, session_ns_min }),
            };
        };
        let known = position.cut.map_or(0, |cut| cut.frames);
        if let Some(cut) = position.cut.filter(|cut| cut.frames > sessions[first].frames_max) {
            return Err(missing(cut, "which a later start went on from before that"));
        }
        let mut chain = vec![sessions[first].clone()];
        let next = |session_ns: i64| {
            let goes_on = |s: &&Session| s.header.after.is_some_and(|cut| cut.session_ns == session_ns);
            sessions.iter().find(goes_on)
        };
        while let Some(session) = chain.last().and_then(|last| next(last.header.session_ns)) {
            chain.push(session.clone());
        }
        let what = format!("the capture of `{}` in {url}", feed.node);
        let addresses = addresses(&(feed.make)().endpoints());
        for session in &chain {
            check(&what, &session.header.addresses, &addresses)?;
        }
        let recovery = Recovery { capture, sessions: chain, known, url: url.to_owned() };
        Ok(Found { recovery: Some(recovery), session_ns_min })
    }

    /// Emits what lies behind the checkpoint, which knows `rows` rows; nothing when the job stops meanwhile.
    pub async fn run(
        self,
        feed: &Feed,
        cx: &SourceContext,
        writer: &mut PartitionWriter,
        counts: &mut Counts,
        rows: u64,
    ) -> Result<Option<End>, ConnectorError> {
        let fatal = |e: String| ConnectorError::Fatal(format!("source `{}`: {e}", feed.node));
        self.sync(feed).await.map_err(ConnectorError::Transient)?;
        let watch = cx.clock.start();
        let (mut end, mut frames): (Option<End>, u64) = (None, 0);
        for (i, session) in self.sessions.iter().enumerate() {
            let known = if i == 0 { self.known } else { 0 };
            let Header { session_ns, state, open, rows: first, .. } = &session.header;
            let next = match &end {
                Some(End { rows, .. }) => *rows,
                None if known == 0 => rows,
                None => *first,
            };
            let mut reading = Reading {
                feed,
                cx,
                writer: &mut *writer,
                counts: &mut *counts,
                protocol: machine(feed, state).map_err(fatal)?,
                numbering: Numbering { next },
                addresses: addresses(&(feed.make)().endpoints()),
                open: open.iter().copied().collect(),
                at: Cut { session_ns: *session_ns, frames: 0 },
                out: Output::default(),
                rejects: Vec::new(),
            };
            let mut reader = SessionReader::new(&self.capture, session);
            while let Some(part) = reader.next().await {
                for frame in part {
                    reading.take(&frame);
                    if reading.at.frames == known {
                        reading.skip();
                        reading.arrive_at(rows);
                    } else if reading.at.frames < known {
                        reading.skip_some();
                    } else if !reading.emit_some().await {
                        return Ok(None);
                    }
                }
                if cx.stop.is_cancelled() {
                    return Ok(None);
                }
            }
            for reason in &reader.torn {
                tracing::info!(source = feed.node, "{reason}: the process that wrote it was killed there");
            }
            if reading.at.frames < known {
                return Err(fatal(format!(
                    "the checkpoint knows {known} frames of session {session_ns} of the capture in {}, which has {}: \
                     put its files back, or begin from nothing (--from none)",
                    self.url, reading.at.frames
                )));
            }
            if i + 1 == self.sessions.len() {
                self.close(session, &mut reading).await.map_err(ConnectorError::Transient)?;
            }
            if !reading.emit().await {
                return Ok(None);
            }
            frames += reading.at.frames;
            end = Some(End { rows: reading.numbering.next, state: reading.protocol.state(), at: reading.at });
        }
        if let Some(end) = &end {
            let again = end.rows.saturating_sub(rows);
            counts.add("rows_from_capture", again);
            tracing::info!(
                source = feed.node,
                frames,
                took = ?watch.elapsed(),
                "the capture has been read to its end: {again} rows behind the checkpoint come from it"
            );
        }
        Ok(end)
    }

    /// Closes, in the log, the connections that were open when it ended.
    async fn close(&self, session: &Session, reading: &mut Reading<'_>) -> Result<(), String> {
        if reading.open.is_empty() {
            return Ok(());
        }
        let number = |i: usize| self.capture.files.get(i)?.number();
        let last = session.files.end.checked_sub(1).and_then(number);
        let header = Header {
            number: last.map_or(1, |last| last + 1),
            first: Some(reading.at.frames),
            ..session.header.clone()
        };
        let clock = reading.cx.clock.clone();
        let received_ns = clock.now_ns();
        let mut writer = CaptureWriter::start(&self.url, &reading.feed.base, header, clock).await?;
        for connection in std::mem::take(&mut reading.open) {
            let data = Bytes::from_static(b"the process that had opened it ended");
            let frame = Frame { received_ns, connection, kind: FrameKind::Closed, data };
            writer.write(&frame).await?;
            reading.take(&frame);
        }
        writer.finish().await
    }

    /// Makes the log survive a power cut as it was found: checkpoints are about to name places in it.
    async fn sync(&self, feed: &Feed) -> Result<(), String> {
        let Some(root) = storage::local_path(&self.url, &feed.base) else { return Ok(()) };
        let root = root.join(&feed.node);
        let file = |i: usize| -> Option<PathBuf> {
            let file = self.capture.files.get(i)?;
            let parts: Vec<_> = file.path.parts().collect();
            let date = parts.len().checked_sub(2).and_then(|i| parts.get(i))?;
            Some(root.join(date.as_ref()).join(&file.name))
        };
        let files: Vec<PathBuf> =
            self.sessions.iter().flat_map(|s| s.files.clone()).filter_map(file).collect();
        let synced = tokio::task::spawn_blocking(move || {
            let folders: BTreeSet<PathBuf> =
                files.iter().filter_map(|file| Some(file.parent()?.to_owned())).chain([root]).collect();
            files.iter().chain(&folders).try_for_each(|path| std::fs::File::open(path)?.sync_all())
        });
        let synced = synced.await.map_err(std::io::Error::other).and_then(|synced| synced);
        synced.map_err(|e| format!("cannot sync the capture in {}: {e}", self.url))
    }
}

/// A session that is being read.
struct Reading<'a> {
    feed: &'a Feed,
    cx: &'a SourceContext,
    writer: &'a mut PartitionWriter,
    counts: &'a mut Counts,
    protocol: Box<dyn Protocol>,
    numbering: Numbering,
    addresses: Vec<String>,
    open: BTreeSet<u32>,
    at: Cut,
    out: Output,
    rejects: Vec<Reject>,
}

impl Reading<'_> {
    fn take(&mut self, frame: &Frame) {
        self.at.frames += 1;
        match &frame.kind {
            FrameKind::Opened => drop(self.open.insert(frame.connection)),
            FrameKind::Closed => drop(self.open.remove(&frame.connection)),
            _ => {}
        }
        self.protocol.on_frame(frame, &mut self.out);
        // What came of its actions is in the log; what did not come is requested again by those that need it.
        self.out.actions.clear();
        self.rejects.append(&mut self.out.rejects);
        // Counted when the frame came.
        self.out.counts.clear();
        self.out.notices.clear();
    }

    fn waiting(&self) -> usize {
        self.protocol.rows().max(self.rejects.len())
    }

    /// Passes over rows that the checkpoint knows.
    fn skip(&mut self) {
        let _ = self.numbering.number(self.protocol.finish(), std::mem::take(&mut self.rejects));
    }

    fn skip_some(&mut self) {
        if self.waiting() >= self.cx.chunk_rows {
            self.skip();
        }
    }

    /// The checkpoint's place: from here on rows are numbered behind those it knows.
    fn arrive_at(&mut self, rows: u64) {
        if self.numbering.next != rows {
            tracing::warn!(
                source = self.feed.node,
                "the capture gives {} rows up to the checkpoint, which knows {rows}: the source's settings have changed, and what \
                 lies behind the checkpoint is read with the new ones",
                self.numbering.next
            );
            self.numbering.next = rows;
        }
    }

    async fn emit_some(&mut self) -> bool {
        self.waiting() < self.cx.chunk_rows || self.emit().await
    }

    /// Hands on the rows there are; false when the job stops.
    async fn emit(&mut self) -> bool {
        let numbered = self.numbering.number(self.protocol.finish(), std::mem::take(&mut self.rejects));
        self.counts.settle();
        if numbered.is_empty() {
            return true;
        }
        let chunk = numbered.chunk(logged(
            self.numbering.next,
            self.protocol.state(),
            Some(self.at),
            &self.addresses,
        ));
        tokio::select! {
            biased;
            () = self.cx.stop.cancelled() => false,
            sent = self.writer.send(chunk) => sent.is_ok(),
        }
    }
}

/// The first file of the oldest session of run `run`, as far as its sessions are the newest in the capture.
async fn run_begins(capture: &Capture, run: u64) -> Option<usize> {
    let mut first = None;
    for i in (0..capture.files.len()).rev().filter(|_| run != 0) {
        if !capture.files[i].begins_run() {
            continue;
        }
        match capture.header(i).await {
            Ok(header) if header.run == run => first = Some(i),
            Ok(_) => break,
            Err(_) => {}
        }
    }
    first
}
