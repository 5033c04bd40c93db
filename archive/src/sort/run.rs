//! A sorted run on disk.

use std::io::BufReader;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::InMemory;
use crate::ArchiveError;

/// Bytes of a read or a write.
const BUFFER_BYTES: usize = 256 << 10;

/// A sorted run.
pub struct Run {
    path: PathBuf,
}

/// An error of the temporary folder.
pub fn failed(what: &str, error: &dyn std::fmt::Display) -> ArchiveError {
    let reason = format!("{error} (TMPDIR names another place with more room)");
    ArchiveError::rows(format!("{what} a temporary file to sort rows"), reason)
}

impl Run {
    /// Writes sorted batches.
    pub fn write(path: PathBuf, schema: &SchemaRef, sorted: InMemory) -> Result<Self, ArchiveError> {
        let file = std::fs::File::create(&path).map_err(|e| failed("make", &e))?;
        let out = std::io::BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut writer = StreamWriter::try_new(out, schema).map_err(|e| failed("write", &e))?;
        for batch in sorted {
            writer.write(&batch?).map_err(|e| failed("write", &e))?;
        }
        writer.finish().map_err(|e| failed("write", &e))?;
        let out = writer.into_inner().map_err(|e| failed("write", &e))?;
        out.into_inner().map_err(|e| failed("write", &e))?;
        Ok(Self { path })
    }

    /// Reads it from its beginning.
    pub fn read(&self) -> Result<RunReader, ArchiveError> {
        let file = std::fs::File::open(&self.path).map_err(|e| failed("read", &e))?;
        let input = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(RunReader(StreamReader::try_new(input, None).map_err(|e| failed("read", &e))?))
    }
}

/// A run that is being read.
pub struct RunReader(StreamReader<BufReader<std::fs::File>>);

impl RunReader {
    /// The next batch with rows.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArchiveError> {
        loop {
            match self.0.next().transpose().map_err(|e| failed("read", &e))? {
                Some(batch) if batch.num_rows() == 0 => {}
                other => return Ok(other),
            }
        }
    }
}
