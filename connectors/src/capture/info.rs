//! What is in a capture, counted.

use std::collections::BTreeMap;

use super::reader::Capture;
use super::session::{SessionReader, sessions};
use crate::venue::frame::FrameKind;

/// What a capture holds.
#[derive(Clone, Debug, Default, serde::Serialize, PartialEq)]
pub struct Info {
    /// The feed's folder, empty where the capture has none.
    pub feed: String,
    /// Files and their bytes.
    pub files: usize,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes of all frames.
    pub frame_bytes: u64,
    /// Runs of the feed that wrote it.
    pub runs: usize,
    /// Connections.
    pub connections: usize,
    /// Frames of each kind.
    pub opened: u64,
    /// Connections lost.
    pub closed: u64,
    /// Messages received.
    pub received: u64,
    /// Messages sent.
    pub sent: u64,
    /// Answers to requests.
    pub responses: u64,
    /// First and last time, nanoseconds.
    pub first_ns: Option<i64>,
    /// The latter.
    pub last_ns: Option<i64>,
    /// Files that are torn or damaged, and how.
    pub torn: Vec<String>,
}

/// Reads a whole capture.
pub async fn info(capture: &Capture) -> Result<Info, String> {
    let mut info = Info { feed: capture.feed.clone(), files: capture.files.len(), ..Info::default() };
    let mut connections: BTreeMap<u32, ()> = BTreeMap::new();
    info.bytes = capture.files.iter().map(|file| file.size).sum();
    let sessions = sessions(capture, 0..capture.files.len()).await;
    for (i, session) in sessions.iter().enumerate() {
        info.runs += usize::from(session.begins_run(i.checked_sub(1).map(|i| &sessions[i])));
        let mut reader = SessionReader::new(capture, session);
        while let Some(frames) = reader.next().await {
            for frame in frames {
                connections.insert(frame.connection, ());
                info.frame_bytes += frame.data.len() as u64;
                info.first_ns = Some(info.first_ns.unwrap_or(i64::MAX).min(frame.received_ns));
                info.last_ns = Some(info.last_ns.unwrap_or(i64::MIN).max(frame.received_ns));
                match frame.kind {
                    FrameKind::Opened => info.opened += 1,
                    FrameKind::Closed => info.closed += 1,
                    FrameKind::Received => info.received += 1,
                    FrameKind::Sent => info.sent += 1,
                    FrameKind::Response { .. } => info.responses += 1,
                }
            }
        }
        info.torn.append(&mut reader.torn);
    }
    info.connections = connections.len();
    Ok(info)
}
