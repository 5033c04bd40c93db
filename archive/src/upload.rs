//! Writes sorted rows into files, one folder at a time. Nothing counts before the log says so.

use std::path::Path as FsPath;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tidemill_engine::row;
use tokio::runtime::Handle;

use crate::ArchiveError;
use crate::dataset::{Dataset, unique_id};
use crate::log::{Added, Origin};
use crate::name::OWN_SUFFIX;
use crate::partition::{Column, Splitter};

/// Bytes of one part; a file smaller than this is put at once.
const PART_BYTES: usize = 8 << 20;

/// Makes a completed local file survive a power cut.
pub(crate) fn sync(file: &FsPath) -> std::io::Result<()> {
    std::fs::File::open(file)?.sync_all()?;
    match file.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes rows that come folder by folder; for use on a blocking thread of `runtime`.
pub(crate) struct FileWriter {
    dataset: Dataset,
    runtime: Handle,
    schema: SchemaRef,
    splitter: Splitter,
    /// The folder of all files, with a slash behind it; rows are not split then.
    fixed: Option<String>,
    properties: WriterProperties,
    file_bytes: usize,
    id: String,
    count: usize,
    open: Option<Open>,
    done: Vec<Added>,
    origin: Origin,
}

struct Open {
    folder: String,
    relative: String,
    path: Path,
    parquet: ArrowWriter<Vec<u8>>,
    parts: Option<Box<dyn MultipartUpload>>,
    sent: usize,
    rows: u64,
    ts: (i64, i64),
}

impl FileWriter {
    pub(crate) fn new(
        dataset: &Dataset,
        runtime: Handle,
        schema: SchemaRef,
        partition_by: &[String],
        properties: WriterProperties,
        file_bytes: usize,
        origin: Origin,
    ) -> Result<Self, ArchiveError> {
        let fail = |e| ArchiveError::rows("split rows by folder", e);
        let columns = Column::of(partition_by, &schema).map_err(fail)?;
        let splitter = Splitter::new(columns, &schema).map_err(fail)?;
        let id = unique_id(&dataset.clock, dataset.name());
        Ok(Self {
            dataset: dataset.clone(),
            runtime,
            schema,
            splitter,
            fixed: None,
            properties,
            file_bytes: file_bytes.max(1),
            id,
            count: 0,
            open: None,
            done: Vec::new(),
            origin,
        })
    }

    /// Puts all files in one folder (empty, or with a slash behind it).
    pub(crate) fn in_folder(mut self, folder: &str) -> Self {
        self.fixed = Some(folder.to_owned());
        self
    }

    /// Takes rows, whose folders must come one after another.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<(), ArchiveError> {
        if let Some(folder) = self.fixed.clone() {
            return self.append(folder, rows);
        }
        let split = self.splitter.split(rows).map_err(|e| ArchiveError::rows("split rows by folder", e))?;
        for (folder, rows) in split {
            self.append(folder, &rows)?;
        }
        Ok(())
    }

    fn append(&mut self, folder: String, rows: &RecordBatch) -> Result<(), ArchiveError> {
        if self.open.as_ref().is_some_and(|open| open.folder != folder) {
            self.close()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(folder)?,
        };
        let ts = rows.column_by_name(row::TS).unwrap_or_else(|| rows.column(0));
        let ts =
            arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampNanosecondType>(ts).values();
        for t in ts {
            open.ts = (open.ts.0.min(*t), open.ts.1.max(*t));
        }
        open.rows += rows.num_rows() as u64;
        open.parquet.write(rows).map_err(|e| ArchiveError::rows("encode rows", e))?;
        self.push(&mut open, false)?;
        let big = open.sent + open.parquet.inner().len() + open.parquet.in_progress_size() >= self.file_bytes;
        self.open = Some(open);
        if big { self.close() } else { Ok(()) }
    }

    fn begin(&mut self, folder: String) -> Result<Open, ArchiveError> {
        let relative = format!("{folder}{}-{:04}{OWN_SUFFIX}", self.id, self.count);
        self.count += 1;
        let path = self.dataset.path(&relative)?;
        let parquet = ArrowWriter::try_new(Vec::new(), self.schema.clone(), Some(self.properties.clone()))
            .map_err(|e| ArchiveError::rows("encode rows", e))?;
        let ts = (i64::MAX, i64::MIN);
        Ok(Open { folder, relative, path, parquet, parts: None, sent: 0, rows: 0, ts })
    }

    /// Sends what is encoded: full parts, or everything at the end.
    fn push(&self, open: &mut Open, last: bool) -> Result<(), ArchiveError> {
        let store = self.dataset.location().store.as_ref();
        let fail = |e| ArchiveError::storage("write", open.path.to_string(), &e);
        while open.parquet.inner().len() >= PART_BYTES {
            let buffer = open.parquet.inner_mut();
            let rest = buffer.split_off(PART_BYTES);
            let part = Bytes::from(std::mem::replace(buffer, rest));
            open.sent += part.len();
            let sent = self.runtime.block_on(async {
                let parts = match &mut open.parts {
                    Some(parts) => parts,
                    none => none.insert(store.put_multipart(&open.path).await?),
                };
                parts.put_part(part.into()).await
            });
            sent.map_err(fail)?;
        }
        if last {
            let rest = std::mem::take(open.parquet.inner_mut());
            open.sent += rest.len();
            let put = self.runtime.block_on(async {
                match &mut open.parts {
                    None => {
                        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
                        store.put_opts(&open.path, PutPayload::from(rest), options).await.map(drop)
                    }
                    Some(parts) => {
                        if !rest.is_empty() {
                            parts.put_part(rest.into()).await?;
                        }
                        parts.complete().await.map(drop)
                    }
                }
            });
            put.map_err(fail)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), ArchiveError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.parquet.finish().map_err(|e| ArchiveError::rows("encode rows", e))?;
        self.push(&mut open, true)?;
        if let Some(root) = &self.dataset.local {
            sync(&root.join(&open.relative))
                .map_err(|e| ArchiveError::rows(format!("write `{}`", open.relative), e))?;
        }
        tidemill_engine::fault::point("archive-file");
        self.done.push(Added {
            path: open.relative,
            bytes: open.sent as u64,
            rows: open.rows,
            ts: open.ts,
            origin: self.origin.clone(),
        });
        Ok(())
    }

    /// Completes the last file; all files, which nobody sees yet.
    pub(crate) fn finish(mut self) -> Result<Vec<Added>, ArchiveError> {
        self.close()?;
        Ok(std::mem::take(&mut self.done))
    }
}
