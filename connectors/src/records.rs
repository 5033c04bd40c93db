//! Files of records (CSV, JSON lines) as one partition: file after file by name, gzip or not,
//! each record a row or a reject.
//!
//! A record's `_seq` is its number over all files, rejects counted, so positions are the same
//! whatever is refused. Going on from a position skips records of one file without parsing values.

use std::io::Read;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::source::{Chunk, Position, Reject, Seqs, Source, SourceContext, Stopped};

use crate::files::FileRef;

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
}

fn restore(position: &Position, files: &[FileRef]) -> Result<Stored, ConnectorError> {
    let fail = |reason: String| ConnectorError::Fatal(format!("cannot go on from the checkpoint: {reason}"));
    let stored: Stored = serde_json::from_value(position.clone())
        .map_err(|e| fail(format!("its position of the files is not readable: {e}")))?;
    match files.iter().position(|f| f.name == stored.file) {
        None => Err(fail(format!(
            "file `{}` was being read and is no longer there; put it back, or start from none",
            stored.file
        ))),
        Some(at) if at != stored.before => Err(fail(format!(
            "{} files came before `{}`, now {at} do: one was removed or added; put it back, or start from none",
            stored.before, stored.file
        ))),
        Some(_) => Ok(stored),
    }
}

#[async_trait]
impl<F: Format> Source for RecordFiles<F> {
    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        if cx.instance != 0 {
            cx.ready(&[]);
            return Ok(());
        }
        let start = cx.restored.get(&0).map(|p| restore(p, &self.files)).transpose()?;
        let mut writers = cx.ready(&[0]);
        let Some(mut writer) = writers.pop() else { return Ok(()) };
        let (files, format) = (self.files.clone(), self.format.clone());
        let read = move || {
            let runtime = tokio::runtime::Handle::current();
            let (first, mut skip, mut row) = start.map_or((0, 0, 0), |s| (s.before, s.record, s.row));
            for (before, file) in files.iter().enumerate().skip(first) {
                let mut records = format.open(&file.display, bytes(file, &runtime)?)?;
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
                    let position = Stored { file: file.name.clone(), before, record, row };
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
            }
            writer.end();
            Ok(())
        };
        crate::parquet::blocking(read).await
    }
}

/// A file's bytes, unpacked where its name ends in `.gz`.
pub fn bytes(
    file: &FileRef,
    runtime: &tokio::runtime::Handle,
) -> Result<Box<dyn Read + Send>, ConnectorError> {
    let bytes = file
        .read(runtime)
        .map_err(|e| ConnectorError::fatal(format!("cannot open `{}`", file.display), e))?;
    Ok(match file.name.ends_with(".gz") {
        true => {
            Box::new(flate2::read::MultiGzDecoder::new(std::io::BufReader::with_capacity(1 << 16, bytes)))
        }
        false => bytes,
    })
}
