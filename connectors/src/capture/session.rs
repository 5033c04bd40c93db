//! Sessions of a capture: which frames count, and in which order.
//!
//! A session is a row of frames that one state machine took from its start on, over one or several files. A session
//! that went on from another says how many frames of that it knows; what the other has beyond was written by a
//! process that had been given up, and is no part of the feed. Of two sessions that went on from the same one, the
//! later start counts.

use std::collections::BTreeMap;
use std::ops::Range;

use super::reader::Capture;
use super::record::{FileReader, Header};
use crate::venue::frame::Frame;

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    /// What its first file says.
    pub header: Header,
    /// Its files, in [`Capture::files`].
    pub files: Range<usize>,
    /// Frames of it that count.
    pub frames_max: u64,
}

impl Session {
    /// Whether a start of the feed began with it (else it went on in the same process).
    pub fn begins_run(&self, before: Option<&Session>) -> bool {
        let goes_on = |before: &Session| {
            self.header.after.is_some_and(|cut| cut.session_ns == before.header.session_ns)
                && self.header.generation == before.header.generation
        };
        !before.is_some_and(goes_on)
    }
}

/// The sessions in `files` of a capture, in order; files whose beginning cannot be read are passed over.
pub async fn sessions(capture: &Capture, files: Range<usize>) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for i in files {
        let file = &capture.files[i];
        let same = |s: &Session| Some(s.header.session_ns) == file.session_ns();
        if let Some(session) = sessions.last_mut().filter(|s| same(s)) {
            session.files.end = i + 1;
            continue;
        }
        match capture.header(i).await {
            Ok(header) => sessions.push(Session { header, files: i..i + 1, frames_max: u64::MAX }),
            // A process that was killed before it had written anything.
            Err(reason) => tracing::warn!("{reason}: the file is passed over"),
        }
    }
    choose(sessions)
}

/// Leaves out sessions that were superseded, and bounds those that others went on from.
fn choose(mut sessions: Vec<Session>) -> Vec<Session> {
    // By the session that was gone on from: the latest start that did.
    let mut next: BTreeMap<i64, (u64, i64, u64)> = BTreeMap::new();
    for Header { after, generation, session_ns, .. } in sessions.iter().map(|s| &s.header) {
        let Some(cut) = after else { continue };
        let this = (*generation, *session_ns, cut.frames);
        let latest = next.entry(cut.session_ns).or_insert(this);
        *latest = this.max(*latest);
    }
    sessions.retain(|s| match s.header.after {
        Some(cut) => next.get(&cut.session_ns).is_some_and(|latest| latest.1 == s.header.session_ns),
        None => true,
    });
    for session in &mut sessions {
        if let Some((_, _, frames)) = next.get(&session.header.session_ns) {
            session.frames_max = *frames;
        }
    }
    sessions
}

/// Reads the frames of a session that count.
pub struct SessionReader<'a> {
    capture: &'a Capture,
    /// Files that are not open yet.
    files: Range<usize>,
    frames_max: u64,
    current: Option<(usize, FileReader)>,
    next: Option<(usize, FileReader)>,
    /// Frames so far.
    pub frames: u64,
    /// What could not be read.
    pub torn: Vec<String>,
}

impl<'a> SessionReader<'a> {
    /// At the session's beginning.
    pub fn new(capture: &'a Capture, session: &Session) -> Self {
        Self {
            capture,
            files: session.files.clone(),
            frames_max: session.frames_max,
            current: None,
            next: None,
            frames: 0,
            torn: Vec::new(),
        }
    }

    /// Opens the next file that can be read.
    async fn open(&mut self) -> Option<(usize, FileReader)> {
        for i in self.files.by_ref() {
            match self.capture.file(i).await {
                Ok(file) => return Some((i, file)),
                Err(reason) => self.torn.push(reason),
            }
        }
        None
    }

    /// The next frames; `None` at the end.
    pub async fn next(&mut self) -> Option<Vec<Frame>> {
        loop {
            if self.current.is_none() {
                self.current = match self.next.take() {
                    Some(file) => Some(file),
                    None => self.open().await,
                };
                self.next = self.open().await;
                let first = self.current.as_ref().and_then(|(_, file)| file.header.first);
                if let Some(first) = first.filter(|first| *first > self.frames) {
                    self.torn.push(format!("{} frames of a session are missing", first - self.frames));
                    self.frames = first;
                }
            }
            let (i, file) = self.current.as_mut()?;
            let begins = self.next.as_ref().and_then(|(_, file)| file.header.first);
            let end = begins.unwrap_or(u64::MAX).min(self.frames_max);
            let read = if self.frames < end { file.frames() } else { Ok(None) };
            match read {
                Ok(Some(mut frames)) => {
                    frames.truncate((end - self.frames).try_into().unwrap_or(usize::MAX));
                    self.frames += frames.len() as u64;
                    return Some(frames);
                }
                Ok(None) => self.current = None,
                Err(reason) => {
                    // What was written behind it says that this is all there is.
                    if end == u64::MAX {
                        self.torn.push(format!("{}: {reason}", self.capture.files[*i].path));
                    }
                    self.current = None;
                }
            }
        }
    }
}
