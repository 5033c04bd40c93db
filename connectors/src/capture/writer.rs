//! Writes captures: files of whole blocks, one a second or so.
//!
//! Layout: `<url>/<node>/<yyyy-mm-dd>/<start of the session, ns>-<number>.frames.zst`. A session is a row of frames that
//! one state machine takes, from its start on (see [`Header`]).
//!
//! On a local disk a capture is the log of its feed: [`CaptureWriter::flush`] returns when all frames are with the
//! operating system, where a killed process does not take them along; [`CaptureLog`] makes them survive a power
//! cut. An object store takes only whole objects: there a file is put every ten seconds, and a killed writer loses
//! those.
//!
//! Frames are packed and written by a task of their own behind a short queue. When the disk or the
//! store is slower than the feed the queue fills up, and the feed waits.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::{ObjectStoreExt, PutPayload};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::DurableLog;
use tidemill_engine::storage::{self, Location};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::record::{self, Cut, Header, LiveBlock};
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

/// Writes a feed's frames.
pub struct CaptureWriter {
    records: Vec<u8>,
    /// Frames in `records`.
    taken: u64,
    session: Cut,
    orders: Option<mpsc::Sender<Order>>,
    task: Option<JoinHandle<()>>,
    ended: Ended,
    local: bool,
}

/// How the task has ended, once it has.
type Ended = watch::Receiver<Option<Result<(), String>>>;

/// What the task is to do.
enum Order {
    /// Append records of so many frames, then answer.
    Append(Vec<u8>, u64, oneshot::Sender<()>),
    /// Begin another session.
    Session(Box<Header>),
    /// Make everything appended survive a power cut, then answer.
    Sync(oneshot::Sender<Result<(), String>>),
    /// End the file, and itself.
    Finish,
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
        let session = Cut { session_ns: header.session_ns, frames: header.first.unwrap_or(0) };
        let is_local = local.is_some();
        let (orders, queue) = mpsc::channel(BLOCKS_QUEUED_MAX);
        let mut files =
            Files { place, local, header, frames: session.frames, open: None, unsynced: Vec::new(), clock };
        // The first file is there at once: a place that cannot be written is found before the first frame.
        files.begin().await?;
        let (end, ended) = watch::channel(None);
        let task = tokio::spawn(async move { drop(end.send(Some(files.write(queue).await))) });
        Ok(Self {
            records: Vec::new(),
            taken: 0,
            session,
            orders: Some(orders),
            task: Some(task),
            ended,
            local: is_local,
        })
    }

    /// Whether a killed process leaves everything that was flushed.
    pub fn is_log(&self) -> bool {
        self.local
    }

    /// Where the next frame goes.
    pub fn at(&self) -> Cut {
        self.session
    }

    /// What makes the capture survive a power cut.
    pub fn log(&self) -> Option<CaptureLog> {
        self.orders
            .as_ref()
            .map(|orders| CaptureLog { orders: orders.downgrade(), ended: self.ended.clone() })
    }

    /// Takes a frame; waits while too much is on its way.
    pub async fn write(&mut self, frame: &Frame) -> Result<(), String> {
        record::encode(frame, &mut self.records);
        self.taken += 1;
        self.session.frames += 1;
        if self.records.len() >= BLOCK_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Writes what was taken; returns when the operating system (or the memory of an object to be put) has it.
    pub async fn flush(&mut self) -> Result<(), String> {
        if self.records.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let (records, taken) = (std::mem::take(&mut self.records), std::mem::take(&mut self.taken));
        self.order(Order::Append(records, taken, done)).await?;
        match answer.await {
            Ok(()) => Ok(()),
            Err(_) => self.end().await.and(Err(ENDED.into())),
        }
    }

    /// Begins another session, in a file of its own.
    pub async fn roll(&mut self, header: Header) -> Result<(), String> {
        self.flush().await?;
        self.session = Cut { session_ns: header.session_ns, frames: 0 };
        self.order(Order::Session(Box::new(header))).await
    }

    /// Writes all that was taken and closes the file.
    pub async fn finish(mut self) -> Result<(), String> {
        self.flush().await?;
        self.order(Order::Finish).await?;
        self.end().await
    }

    async fn order(&mut self, order: Order) -> Result<(), String> {
        let sent = match &self.orders {
            Some(orders) => orders.send(order).await.is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { self.end().await.and(Err(ENDED.into())) }
    }

    async fn end(&mut self) -> Result<(), String> {
        self.orders = None;
        if let Some(task) = self.task.take() {
            task.await.map_err(|e| e.to_string())?;
        }
        outcome(&self.ended).await
    }
}

/// Waits for the task's end.
async fn outcome(ended: &Ended) -> Result<(), String> {
    match ended.clone().wait_for(Option::is_some).await {
        Ok(ended) => ended.clone().unwrap_or(Ok(())),
        Err(_) => Err(ENDED.into()),
    }
}

const ENDED: &str = "the capture has ended";

/// Makes what a [`CaptureWriter`] has flushed survive a power cut.
pub struct CaptureLog {
    orders: mpsc::WeakSender<Order>,
    ended: Ended,
}

#[async_trait]
impl DurableLog for CaptureLog {
    async fn sync(&self) -> Result<(), ConnectorError> {
        let (done, answer) = oneshot::channel();
        let ordered = match self.orders.upgrade() {
            Some(orders) => orders.send(Order::Sync(done)).await.is_ok(),
            None => false,
        };
        let synced = match answer.await {
            Ok(synced) if ordered => synced,
            // A writer that has ended has closed and synced its file, or has failed.
            _ => outcome(&self.ended).await,
        };
        synced.map_err(ConnectorError::Transient)
    }
}

struct Files {
    place: Location,
    local: Option<PathBuf>,
    header: Header,
    /// Frames of the session so far.
    frames: u64,
    open: Option<Open>,
    /// Folders that a file was made in since the last sync.
    unsynced: Vec<PathBuf>,
    clock: Clock,
}

struct Open {
    to: To,
    bytes: usize,
    age: Stopwatch,
    block: Option<(LiveBlock, Stopwatch)>,
}

enum To {
    Disk(Arc<std::fs::File>),
    Store(object_store::path::Path, Vec<u8>),
}

impl Files {
    async fn begin(&mut self) -> Result<(), String> {
        let now = self.clock.now_ns();
        let date = chrono::DateTime::from_timestamp_nanos(now).format("%Y-%m-%d").to_string();
        let name = format!("{:019}-{:05}.frames.zst", self.header.session_ns, self.header.number);
        let to = match &self.local {
            Some(root) => {
                let folder = root.join(&date);
                let file = std::fs::create_dir_all(&folder)
                    .and_then(|()| std::fs::File::create_new(folder.join(&name)));
                let file = file.map_err(|e| {
                    let hint = match e.kind() {
                        std::io::ErrorKind::AlreadyExists => ": another process goes on with this capture",
                        _ => "",
                    };
                    format!("cannot write {}: {e}{hint}", folder.join(&name).display())
                })?;
                self.unsynced.extend([folder, root.clone()]);
                self.unsynced.extend(root.parent().map(Path::to_owned));
                To::Disk(Arc::new(file))
            }
            None => To::Store(self.place.path.clone().join(date).join(name), Vec::new()),
        };
        self.open = Some(Open { to, bytes: 0, age: self.clock.start(), block: None });
        self.header.first = Some(self.frames);
        let header = self.header.block().map_err(|e| e.to_string())?;
        self.header.number += 1;
        self.put(&header)
    }

    fn put(&mut self, packed: &[u8]) -> Result<(), String> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.bytes += packed.len();
        match &mut open.to {
            To::Disk(file) => file.as_ref().write_all(packed).map_err(failed),
            To::Store(_, bytes) => {
                bytes.extend_from_slice(packed);
                Ok(())
            }
        }
    }

    async fn append(&mut self, records: &[u8], frames: u64) -> Result<(), String> {
        if self.open.is_none() {
            self.begin().await?;
        }
        let clock = self.clock.clone();
        let Some(open) = &mut self.open else { return Ok(()) };
        let (block, _) = match &mut open.block {
            Some(block) => block,
            None => open.block.insert((LiveBlock::new().map_err(failed)?, clock.start())),
        };
        let packed = block.push(records).map_err(failed)?;
        self.put(&packed)?;
        self.frames += frames;
        Ok(())
    }

    /// Ends the block that is growing.
    fn end_block(&mut self) -> Result<(), String> {
        match self.open.as_mut().and_then(|open| open.block.take()) {
            Some((block, _)) => {
                let packed = block.finish().map_err(failed)?;
                self.put(&packed)
            }
            None => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<(), String> {
        self.end_block()?;
        match self.open.take().map(|open| open.to) {
            Some(To::Disk(file)) => sync(file, std::mem::take(&mut self.unsynced)).await,
            Some(To::Store(path, bytes)) => {
                let put = self.place.store.put(&path, PutPayload::from(bytes)).await;
                put.map(drop).map_err(|e| format!("cannot write the capture: {e}"))
            }
            None => Ok(()),
        }
    }

    async fn write(mut self, mut queue: mpsc::Receiver<Order>) -> Result<(), String> {
        let file_age = if self.local.is_some() { FILE_LOCAL } else { FILE_REMOTE };
        loop {
            // Where nothing comes, blocks end and objects are put all the same.
            let order = tokio::time::timeout(FLUSH, queue.recv()).await;
            match order {
                Ok(Some(Order::Append(records, frames, done))) => {
                    self.append(&records, frames).await?;
                    let _ = done.send(());
                }
                Ok(Some(Order::Session(header))) => {
                    self.close().await?;
                    self.header = *header;
                    self.frames = 0;
                    self.begin().await?;
                }
                Ok(Some(Order::Sync(done))) => match self.open.as_ref().map(|open| &open.to) {
                    Some(To::Disk(file)) => {
                        let synced = sync(file.clone(), std::mem::take(&mut self.unsynced));
                        tokio::spawn(async move { done.send(synced.await) });
                    }
                    _ => drop(done.send(Ok(()))),
                },
                Ok(Some(Order::Finish) | None) => return self.close().await,
                Err(_) => {}
            }
            let grown = |open: &Open| {
                open.block
                    .as_ref()
                    .is_some_and(|(block, age)| block.plain_bytes() >= BLOCK_BYTES || age.elapsed() >= FLUSH)
            };
            if self.open.as_ref().is_some_and(grown) {
                self.end_block()?;
            }
            let full = |open: &Open| open.bytes >= FILE_BYTES || open.age.elapsed() >= file_age;
            if self.open.as_ref().is_some_and(full) {
                self.close().await?;
            }
        }
    }
}

fn failed(e: std::io::Error) -> String {
    format!("cannot write the capture: {e}")
}

/// Makes a file, and the folders that it was made in, survive a power cut.
async fn sync(file: Arc<std::fs::File>, folders: Vec<PathBuf>) -> Result<(), String> {
    let synced = tokio::task::spawn_blocking(move || {
        file.sync_data()?;
        folders.iter().try_for_each(|folder| std::fs::File::open(folder)?.sync_all())
    });
    synced.await.map_err(std::io::Error::other).and_then(|synced| synced).map_err(failed)
}
