//! Writes captures: files of whole blocks, one a second or so.
//!
//! Layout: `<url>/<node>/<yyyy-mm-dd>/<start of the run, ns>-<number>.frames.zst`. On a local disk blocks are
//! appended as they are made, so a killed writer loses the last second at most. An object store takes
//! only whole objects: there a file is put every ten seconds, and a killed writer loses those.
//!
//! Frames are packed and written by a task of their own behind a short queue. When the disk or the
//! store is slower than the feed the queue fills up, and the feed waits: no frame is parsed that is not on
//! its way to the capture.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use object_store::{ObjectStoreExt, PutPayload};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::storage::{self, Location};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::record::{self, Header};
use crate::venue::frame::Frame;

/// Bytes of frames that make a block.
const BLOCK_BYTES: usize = 1 << 20;
/// Longest time a frame waits for its block.
pub const FLUSH: Duration = Duration::from_secs(1);
/// Blocks on their way to the disk.
const BLOCKS_QUEUED_MAX: usize = 8;
/// A file is closed when it has so many bytes, or is so old.
const FILE_BYTES: usize = 64 << 20;
const FILE_LOCAL: Duration = Duration::from_secs(3600);
const FILE_REMOTE: Duration = Duration::from_secs(10);

/// Writes one run's frames.
pub struct CaptureWriter {
    block: Vec<u8>,
    blocks: Option<mpsc::Sender<Vec<u8>>>,
    task: Option<JoinHandle<Result<(), String>>>,
}

impl CaptureWriter {
    /// Begins a capture below `url` (in the folder `node` of `header`, where that is not empty).
    pub async fn start(url: &str, base: &Path, header: Header, clock: Clock) -> Result<Self, String> {
        let mut place = storage::open(url, base).map_err(|e| e.to_string())?;
        let mut local = storage::local_path(url, base);
        if !header.node.is_empty() {
            place.path = place.path.join(header.node.as_str());
            local = local.map(|path| path.join(&header.node));
        }
        let (blocks, queue) = mpsc::channel(BLOCKS_QUEUED_MAX);
        let mut files = Files { place, local, header, open: None, clock };
        // The first file is there at once: a place that cannot be written is found before the first frame.
        files.begin().await?;
        let task = tokio::spawn(files.write(queue));
        Ok(Self { block: Vec::new(), blocks: Some(blocks), task: Some(task) })
    }

    /// Takes a frame; waits while too much is on its way.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), String> {
        record::encode(frame, &mut self.block);
        if self.block.len() >= BLOCK_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends what was taken on its way.
    pub async fn flush(&mut self) -> Result<(), String> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let sent = match &self.blocks {
            Some(blocks) => blocks.send(block).await.is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { self.end().await }
    }

    /// Writes all that was taken and closes the file.
    pub async fn finish(mut self) -> Result<(), String> {
        self.flush().await?;
        self.blocks = None;
        self.end().await
    }

    async fn end(&mut self) -> Result<(), String> {
        match self.task.take() {
            Some(task) => task.await.map_err(|e| e.to_string())?,
            None => Err("the capture has ended".into()),
        }
    }
}

struct Files {
    place: Location,
    local: Option<PathBuf>,
    header: Header,
    open: Option<Open>,
    clock: Clock,
}

struct Open {
    to: To,
    bytes: usize,
    age: Stopwatch,
}

enum To {
    Disk(std::fs::File),
    Store(object_store::path::Path, Vec<u8>),
}

impl Files {
    async fn begin(&mut self) -> Result<(), String> {
        let now = self.clock.now_ns();
        let date = chrono::DateTime::from_timestamp_nanos(now).format("%Y-%m-%d").to_string();
        let name = format!("{:019}-{:05}.frames.zst", self.header.session_ns, self.header.number);
        let to = match &self.local {
            Some(folder) => {
                let folder = folder.join(&date);
                let file = std::fs::create_dir_all(&folder)
                    .and_then(|()| std::fs::File::create_new(folder.join(&name)));
                To::Disk(file.map_err(|e| format!("cannot write {}: {e}", folder.join(&name).display()))?)
            }
            None => To::Store(self.place.path.clone().join(date).join(name), Vec::new()),
        };
        self.open = Some(Open { to, bytes: 0, age: self.clock.start() });
        let header = self.header.block().map_err(|e| e.to_string())?;
        self.header.number += 1;
        self.append(&header)
    }

    fn append(&mut self, packed: &[u8]) -> Result<(), String> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.bytes += packed.len();
        match &mut open.to {
            To::Disk(file) => file.write_all(packed).map_err(|e| format!("cannot write the capture: {e}")),
            To::Store(_, bytes) => {
                bytes.extend_from_slice(packed);
                Ok(())
            }
        }
    }

    async fn close(&mut self) -> Result<(), String> {
        match self.open.take().map(|open| open.to) {
            Some(To::Disk(file)) => file.sync_data().map_err(|e| format!("cannot write the capture: {e}")),
            Some(To::Store(path, bytes)) => {
                let put = self.place.store.put(&path, PutPayload::from(bytes)).await;
                put.map(drop).map_err(|e| format!("cannot write the capture: {e}"))
            }
            None => Ok(()),
        }
    }

    async fn write(mut self, mut queue: mpsc::Receiver<Vec<u8>>) -> Result<(), String> {
        let file_age = if self.local.is_some() { FILE_LOCAL } else { FILE_REMOTE };
        loop {
            let block = match tokio::time::timeout(FILE_REMOTE, queue.recv()).await {
                Ok(Some(block)) => Some(block),
                Ok(None) => return self.close().await,
                // Nothing came: what an object store has not seen yet is put all the same.
                Err(_) => None,
            };
            if let Some(block) = &block {
                if self.open.is_none() {
                    self.begin().await?;
                }
                let packed = record::pack(block).map_err(|e| e.to_string())?;
                self.append(&packed)?;
            }
            let full = |open: &Open| open.bytes >= FILE_BYTES || open.age.elapsed() >= file_age;
            if self.open.as_ref().is_some_and(full) {
                self.close().await?;
            }
        }
    }
}
