//! The writer of one shard: a file per folder, encoded on a blocking thread.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::{Value, json};
use tidemill_archive::partition::{Column, Splitter};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::row;
use tidemill_engine::sink::{SinkContext, SinkWriter};
use tidemill_engine::storage::Location;

use super::name::FileName;
use super::upload::{self, Upload};
use super::{Existing, Params, Replaced, remove_leftovers};

/// Folders whose file is open at once; with one more, the file that was written longest ago is closed, and a later row of its
/// folder begins another.
const OPEN_MAX: usize = 128;
/// Closed files whose bytes may wait in memory for the checkpoint; those beyond are sent as far as they are.
const CLOSED_WAITING_MAX: usize = 64;

/// How files are encoded.
pub fn properties(compression: Compression, params: &Params, schema: &Schema) -> WriterProperties {
    let sorted = SortingColumn { column_idx: 0, descending: false, nulls_first: false };
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(params.row_group_rows))
        .set_dictionary_enabled(params.dictionary)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(vec![sorted]))
        .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).into());
    // Times and positions rise: their differences are small, and a dictionary of them is a waste.
    for name in [row::TS, row::SEQ] {
        let path = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    let sort = [row::TS.to_owned()];
    let blooms = tidemill_archive::encode::blooms;
    blooms(properties, schema, params.row_group_rows, &params.partition_by, &sort).build()
}

/// A file that takes rows.
struct Open {
    parquet: ArrowWriter<Vec<u8>>,
    upload: Upload,
    relative: String,
    rows: usize,
    range: (i64, i64),
    /// When it was last written, as the number of a write.
    used: u64,
}

/// A file that waits for its checkpoint.
struct Closed {
    upload: Upload,
    relative: String,
    rows: usize,
    range: (i64, i64),
}

/// The writer of one shard.
pub struct Writer {
    location: Location,
    local: Option<PathBuf>,
    columns: Vec<Column>,
    splitter: Option<Splitter>,
    properties: WriterProperties,
    file_bytes: usize,
    cx: SinkContext,
    /// The last checkpoint.
    after: u64,
    /// Files begun since.
    files: usize,
    open: BTreeMap<String, Open>,
    closed: Vec<Closed>,
    /// Writes so far.
    writes: u64,
    swept: bool,
    /// Files of earlier runs to be removed.
    replaced: Replaced,
}

impl Writer {
    /// A writer with no file yet.
    pub(super) fn new(
        location: Location,
        local: Option<PathBuf>,
        columns: Vec<Column>,
        properties: WriterProperties,
        file_bytes: usize,
        cx: SinkContext,
        replaced: Replaced,
    ) -> Self {
        Self {
            location,
            local,
            columns,
            splitter: None,
            properties,
            file_bytes,
            after: cx.start_checkpoint,
            cx,
            files: 0,
            open: BTreeMap::new(),
            closed: Vec::new(),
            writes: 0,
            swept: false,
            replaced,
        }
    }

    fn begin(&mut self, folder: &str) -> Result<Open, ConnectorError> {
        let file = FileName {
            after: self.after,
            shard: self.cx.shard,
            number: self.files,
            generation: self.cx.generation,
        };
        self.files += 1;
        let relative = format!("{folder}{}", file.name(&self.cx.job, &self.cx.name));
        // The folder is spelled out already; `join` would do it once more.
        let path = format!("{}/{relative}", self.location.path);
        let path =
            Path::parse(path).map_err(|e| ConnectorError::fatal(format!("cannot begin `{relative}`"), e))?;
        let parquet = ArrowWriter::try_new(Vec::new(), self.cx.schema.clone(), Some(self.properties.clone()))
            .map_err(|e| ConnectorError::fatal(format!("cannot begin `{relative}`"), e))?;
        Ok(Open {
            parquet,
            upload: Upload::new(path),
            relative,
            rows: 0,
            range: (i64::MAX, i64::MIN),
            used: 0,
        })
    }

    async fn append(&mut self, folder: String, rows: RecordBatch) -> Result<(), ConnectorError> {
        let mut file = match self.open.remove(&folder) {
            Some(file) => file,
            None => {
                self.make_room().await?;
                self.begin(&folder)?
            }
        };
        self.writes += 1;
        file.used = self.writes;
        file.rows += rows.num_rows();
        let ts = row::ts(&rows);
        if let (Some(min), Some(max)) = (ts.iter().min(), ts.iter().max()) {
            file.range = (file.range.0.min(*min), file.range.1.max(*max));
        }
        let (mut file, bytes) = encode(file, move |parquet| parquet.write(&rows)).await?;
        file.upload.push(self.location.store.as_ref(), bytes).await?;
        let big = file.upload.bytes() + file.parquet.in_progress_size() >= self.file_bytes;
        if big {
            self.close_file(file).await?;
        } else {
            self.open.insert(folder, file);
        }
        Ok(())
    }

    /// Closes the file that was written longest ago, where as many as may be are open.
    async fn make_room(&mut self) -> Result<(), ConnectorError> {
        if self.open.len() < OPEN_MAX {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, file)| file.used).map(|(folder, _)| folder.clone());
        match oldest.and_then(|folder| self.open.remove(&folder)) {
            Some(file) => self.close_file(file).await,
            None => Ok(()),
        }
    }

    /// Ends a file before its checkpoint.
    async fn close_file(&mut self, file: Open) -> Result<(), ConnectorError> {
        let mut closed = self.finish(file).await?;
        if self.closed.len() >= CLOSED_WAITING_MAX {
            closed.upload.send_rest(self.location.store.as_ref()).await?;
        }
        self.closed.push(closed);
        Ok(())
    }

    async fn finish(&mut self, file: Open) -> Result<Closed, ConnectorError> {
        let (mut file, bytes) = encode(file, |parquet| parquet.finish().map(drop)).await?;
        file.upload.push(self.location.store.as_ref(), bytes).await?;
        let Open { upload, relative, rows, range, .. } = file;
        Ok(Closed { upload, relative, rows, range })
    }
}

/// Runs `work` on a blocking thread; gives the file back with the bytes that came out.
async fn encode(
    mut file: Open,
    work: impl FnOnce(&mut ArrowWriter<Vec<u8>>) -> parquet::errors::Result<()> + Send + 'static,
) -> Result<(Open, Vec<u8>), ConnectorError> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut file.parquet);
        let bytes = std::mem::take(file.parquet.inner_mut());
        match result {
            Ok(()) => Ok((file, bytes)),
            Err(e) => Err(ConnectorError::fatal(format!("cannot encode `{}`", file.relative), e)),
        }
    });
    done.await.unwrap_or_else(|e| Err(ConnectorError::fatal("the Parquet encoder stopped", e)))
}

#[async_trait]
impl SinkWriter for Writer {
    async fn started(&mut self) -> Result<(), ConnectorError> {
        std::mem::take(&mut self.replaced).remove(&self.location, &self.cx.name).await
    }

    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let fail = |e| ConnectorError::fatal("cannot split rows by folder", e);
        let splitter = match &self.splitter {
            Some(splitter) => splitter,
            None => self.splitter.insert(Splitter::new(self.columns.clone(), &self.cx.schema).map_err(fail)?),
        };
        for (folder, rows) in splitter.split(&rows).map_err(fail)? {
            self.append(folder, rows).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn checkpoint(&mut self, id: u64) -> Result<Value, ConnectorError> {
        for file in std::mem::take(&mut self.open).into_values() {
            let closed = self.finish(file).await?;
            self.closed.push(closed);
        }
        let mut files = Vec::new();
        for file in self.closed.drain(..) {
            let (bytes, path) = (file.upload.bytes(), file.upload.path().clone());
            file.upload.complete(self.location.store.as_ref()).await?;
            tidemill_engine::fault::point("parquet-put");
            if let Some(root) = self.local.clone() {
                let relative = file.relative.clone();
                let synced = tokio::task::spawn_blocking(move || upload::sync(&root, &relative)).await;
                let synced = synced.map_err(std::io::Error::other).and_then(|r| r);
                synced.map_err(|e| crate::jsonl::failed(std::path::Path::new(path.as_ref()), &e))?;
            }
            let (min, max) = file.range;
            files.push(json!({"path": file.relative, "rows": file.rows, "min_ts": min, "max_ts": max, "bytes": bytes}));
        }
        self.after = id;
        self.files = 0;
        Ok(json!({ "files": files }))
    }

    async fn committed(&mut self, _: u64) -> Result<(), ConnectorError> {
        // A zombie that was writing while this run opened has lost every commit by now.
        if self.cx.shard == 0 && !std::mem::replace(&mut self.swept, true) {
            remove_leftovers(&self.location, &self.cx, Existing::Append).await.map(drop)?;
        }
        Ok(())
    }
}
