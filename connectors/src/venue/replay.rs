//! A feed from its capture: the same frames to the same protocol, so the same rows.
//!
//! A position counts rows from the capture's beginning, so it says which files it counts: they must be there, first
//! and unchanged, when it is gone on from. A run of the feed that went on from a checkpoint had forgotten the rows behind it; its part of the
//! capture says so, and the replay leaves those rows out as well. A run that began afresh is numbered on.

use serde_json::json;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{PartitionWriter, SourceContext};

use super::counts::Counts;
use super::emit::{Numbering, restored};
use super::feed::Feed;
use super::protocol::{Output, Protocol};
use crate::capture::counted::Counted;
use crate::capture::reader::Capture;
use crate::capture::record::Header;

/// One run of the feed in its capture.
struct Run {
    header: Header,
    files: std::ops::Range<usize>,
    /// The number of its first row, and of the first that it must not give.
    from: Option<u64>,
    to: u64,
}

/// Replays `url` to its end.
pub(crate) async fn run(feed: &Feed, url: &str, cx: SourceContext) -> Result<(), ConnectorError> {
    let fatal = |e: String| ConnectorError::Fatal(format!("source `{}`: {e}", feed.node));
    let capture = Capture::open(url, &feed.base, &feed.node).await.map_err(fatal)?;
    let (skip, _) = restored(cx.restored.get(&0)).map_err(fatal)?;
    if let Some(position) = cx.restored.get(&0) {
        Counted::check(&capture, position).await.map_err(fatal)?;
    }
    let Some(writer) = cx.ready(&[0]).pop() else { return Ok(()) };
    let runs = runs(&capture).await.map_err(fatal)?;
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
        replay.protocol = (feed.make)();
        let _ = replay.protocol.endpoints();
        if !run.header.state.is_null() {
            replay.protocol.restore(&run.header.state).map_err(fatal)?;
        }
        if run.from.is_none() {
            base = replay.numbering.next;
        }
        replay.numbering.next = base + run.from.unwrap_or(0);
        replay.to = base.saturating_add(run.to);
        for i in run.files {
            if !replay.file(&capture, i).await? {
                return Ok(());
            }
        }
        if !replay.emit().await {
            return Ok(());
        }
    }
    replay.counts.tell();
    replay.writer.end();
    Ok(())
}

async fn runs(capture: &Capture) -> Result<Vec<Run>, String> {
    let mut runs: Vec<Run> = Vec::new();
    for (i, file) in capture.files.iter().enumerate() {
        let begins = file.begins_run() || runs.is_empty();
        let header = if begins { capture.header(i).await.map(Some) } else { Ok(None) };
        match header {
            Ok(Some(header)) => {
                let from = header.restored.then_some(header.rows);
                runs.push(Run { header, files: i..i + 1, from, to: u64::MAX });
            }
            // A run that was killed before it had written anything.
            Err(reason) => tracing::warn!("{reason}: the file is passed over"),
            Ok(None) => {
                if let Some(run) = runs.last_mut() {
                    run.files.end = i + 1;
                }
            }
        }
    }
    let mut to = u64::MAX;
    for run in runs.iter_mut().rev() {
        run.to = to;
        to = run.from.map_or(u64::MAX, |from| from.min(to));
    }
    Ok(runs)
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
    /// Reads a file; false when the job stops.
    async fn file(&mut self, capture: &Capture, i: usize) -> Result<bool, ConnectorError> {
        self.counted.extend(&capture.files, i);
        let mut file = match capture.file(i).await {
            Ok(file) => file,
            Err(reason) => {
                tracing::warn!("{reason}: the file is passed over");
                self.counts.add("torn_files", 1);
                return Ok(true);
            }
        };
        loop {
            let frames = match file.frames() {
                Ok(Some(frames)) => frames,
                Ok(None) => return Ok(true),
                Err(reason) => {
                    tracing::warn!("{}: {reason}: what is behind is lost", capture.files[i].path);
                    self.counts.add("torn_files", 1);
                    return Ok(true);
                }
            };
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
