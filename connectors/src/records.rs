//! Files of records (CSV, JSON lines) as one partition: file after file by name, gzip or not,
//! each record a row or a reject.
//!
//! A record's `_seq` is its number over all files, rejects counted, so positions are the same
//! whatever is refused. Going on from a position skips records of one file without parsing values. A
//! position says which files it counts ([`identity`]): the one being read may have grown
//! since, those before it must be what they were, and none may have come between.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{Chunk, Position, Reject, Seqs, Source, SourceContext, Stopped};

use crate::files::FileRef;
use crate::files::identity::{self, Difference, Finished, Identity, Seen};

/// Rejects that a chunk may have beside its rows.
const REJECTS_MAX: usize = 1024;

/// Makes readers of one format.
pub trait Format: Send + Sync + 'static {
    /// Begins a file; `name` is how messages call it.
    fn open(&self, name: &str, bytes: Box<dyn Read + Send>) -> Result<Box<dyn Records>, ConnectorError>;
}

/// The records of one file.
pub trait Records: Send {
    /// Reads the next record; a row is kept for [`finish`](Self::finish).
    fn next(&mut self) -> Result<Next, ConnectorError>;
    /// Passes over records; they have been read before.
    fn skip(&mut self, records: u64) -> Result<(), ConnectorError>;
    /// The rows since the last call.
    fn finish(&mut self) -> RecordBatch;
}

/// What a record is.
pub enum Next {
    /// A row.
    Row,
    /// Not a row: its bytes, and why.
    Bad(Vec<u8>, String),
    /// The end of the file.
    End,
}

/// Files of one format.
pub struct RecordFiles<F> {
    /// The files in order.
    pub files: Arc<[FileRef]>,
    /// How they are read.
    pub format: Arc<F>,
}

/// A position.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The file that is being read.
    file: String,
    /// How many files come before it.
    before: usize,
    /// Records of it that are behind.
    record: u64,
    /// Records of all files that are behind: the next `_seq`.
    row: u64,
    /// What the files were; checkpoints of earlier versions do not say.
    #[serde(default)]
    input: Option<Counted>,
}

/// The files that a position counts.
#[derive(Clone, Serialize, Deserialize)]
struct Counted {
    /// What was read of the file that is being read.
    read: Identity,
    /// The files before it.
    finished: Finished,
}

/// Reads a position back, against the files that are there now.
async fn restore(position: &Position, files: &[FileRef]) -> Result<Stored, ConnectorError> {
    let fail = |reason: String| {
        let remedy = identity::REMEDY;
        ConnectorError::Fatal(format!("cannot go on from the checkpoint: {reason}; {remedy}"))
    };
    let stored: Stored = serde_json::from_value(position.clone())
        .map_err(|e| fail(format!("its position of the files is not readable: {e}")))?;
    let at = files.iter().position(|f| f.name == stored.file);
    let Some(at) = at.filter(|at| *at == stored.before) else {
        return Err(fail(match (at, files.first()) {
            (Some(at), _) => format!(
                "{} files came before `{}`, now {at} do: one was removed or added",
                stored.before, stored.file
            ),
            (None, first) => format!(
                "file `{}` was being read and is no longer there ({} files now, the first is `{}`)",
                stored.file,
                files.len(),
                first.map_or("", |f| f.display.as_str())
            ),
        }));
    };
    let Some(input) = &stored.input else {
        tracing::warn!(
            file = stored.file,
            "the checkpoint is of a version that did not note which files it counts: that they are the same is not checked"
        );
        return Ok(stored);
    };
    let before: Vec<&FileRef> = files[..at].iter().collect();
    let same = async {
        input.finished.check(&before).await?;
        input.read.check(&files[at], false).await
    };
    match same.await {
        Ok(()) => Ok(stored),
        Err(Difference::Other(reason)) => Err(fail(reason)),
        Err(Difference::Unreadable(reason)) => Err(ConnectorError::Transient(reason)),
    }
}

/// Notes what passes through.
struct Traced {
    bytes: Box<dyn Read + Send>,
    seen: Arc<Mutex<Seen>>,
}

impl Read for Traced {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..n]);
        Ok(n)
    }
}

#[async_trait]
impl<F: Format> Source for RecordFiles<F> {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        if cx.instance != 0 {
            cx.ready(&[]);
            return Ok(());
        }
        let start = match cx.restored.get(&0).cloned() {
            None => None,
            Some(position) => {
                let (files, runtime) = (self.files.clone(), tokio::runtime::Handle::current());
                let looking =
                    tokio::task::spawn_blocking(move || runtime.block_on(restore(&position, &files)));
                let looked = looking.await;
                Some(looked.map_err(|e| ConnectorError::fatal("the files could not be compared", e))??)
            }
        };
        let mut writers = cx.ready(&[0]);
        let Some(mut writer) = writers.pop() else { return Ok(()) };
        let (files, format) = (self.files.clone(), self.format.clone());
        let read = move || {
            let runtime = tokio::runtime::Handle::current();
            let (first, mut skip, mut row, mut finished) = match start {
                None => (0, 0, 0, Finished::default()),
                Some(s) => {
                    let finished = match s.input {
                        Some(input) => input.finished,
                        None => runtime.block_on(found(&files[..s.before]))?,
                    };
                    (s.before, s.record, s.row, finished)
                }
            };
            for (before, file) in files.iter().enumerate().skip(first) {
                let seen = Arc::<Mutex<Seen>>::default();
                let read = || seen.lock().unwrap_or_else(PoisonError::into_inner).identity();
                let mut records = format.open(&file.display, traced(file, &runtime, &seen)?)?;
                let mut record = std::mem::take(&mut skip);
                records.skip(record)?;
                let mut ended = false;
                while !ended {
                    let from = row;
                    let (mut seqs, mut rejects) = (Vec::new(), Vec::new());
                    while seqs.len() < cx.chunk_rows && rejects.len() < REJECTS_MAX && !ended {
                        match records.next()? {
                            Next::Row => seqs.push(row),
                            Next::Bad(raw, reason) => {
                                rejects.push(Reject { seq: row, before: seqs.len(), raw, key: None, reason });
                            }
                            Next::End => ended = true,
                        }
                        row += u64::from(!ended);
                    }
                    record += row - from;
                    if seqs.is_empty() && rejects.is_empty() {
                        break;
                    }
                    let input = Some(Counted { read: read(), finished: finished.clone() });
                    let position = Stored { file: file.name.clone(), before, record, row, input };
                    let position = serde_json::to_value(position).unwrap_or_default();
                    let seqs = if rejects.is_empty() { Seqs::From(from) } else { Seqs::List(seqs) };
                    let chunk = Chunk { rows: records.finish(), seqs, position, rejects };
                    let sent = runtime.block_on(async {
                        tokio::select! {
                            biased;
                            () = cx.stop.cancelled() => Err(Stopped),
                            sent = writer.send(chunk) => sent,
                        }
                    });
                    if sent.is_err() {
                        return Ok(());
                    }
                }
                finished.push(&file.name, read());
            }
            writer.end();
            Ok(())
        };
        crate::parquet::blocking(read).await
    }
}

/// What files are now that a checkpoint of an earlier version counts.
async fn found(files: &[FileRef]) -> Result<Finished, ConnectorError> {
    let mut finished = Finished::default();
    for file in files {
        finished.push(&file.name, Identity::of(file).await.map_err(ConnectorError::Transient)?);
    }
    Ok(finished)
}

/// A file's bytes, unpacked where its name ends in `.gz`.
pub fn bytes(
    file: &FileRef,
    runtime: &tokio::runtime::Handle,
) -> Result<Box<dyn Read + Send>, ConnectorError> {
    traced(file, runtime, &Arc::default())
}

/// The same; `seen` notes the bytes as they lie in the file.
fn traced(
    file: &FileRef,
    runtime: &tokio::runtime::Handle,
    seen: &Arc<Mutex<Seen>>,
) -> Result<Box<dyn Read + Send>, ConnectorError> {
    let bytes = file
        .read(runtime)
        .map_err(|e| ConnectorError::fatal(format!("cannot open `{}`", file.display), e))?;
    let bytes = Box::new(Traced { bytes, seen: seen.clone() });
    Ok(match file.name.ends_with(".gz") {
        true => {
            Box::new(flate2::read::MultiGzDecoder::new(std::io::BufReader::with_capacity(1 << 16, bytes)))
        }
        false => bytes,
    })
}
