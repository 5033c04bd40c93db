//! Reads a dataset's files: footers, and rows in batches.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tidemill_engine::row;

use crate::ArchiveError;
use crate::dataset::Dataset;
use crate::snapshot::FileEntry;

/// Bytes at a file's end that are fetched at once: most footers are smaller.
const FOOTER_BYTES: usize = 64 << 10;

/// What a footer tells.
#[derive(Clone, Debug)]
pub struct Footer {
    /// Columns, as Arrow wrote them.
    pub schema: SchemaRef,
    /// Rows.
    pub rows: u64,
    /// First and last event time (ns), where every row group's statistics tell.
    pub ts: Option<(i64, i64)>,
}

/// Reads a file's footer.
pub async fn footer(dataset: &Dataset, file: &FileEntry) -> Result<Footer, ArchiveError> {
    let metadata = open(dataset, file).await?.1;
    let rows = metadata.metadata().row_groups().iter().map(|g| g.num_rows().max(0) as u64).sum();
    let ranges = ranges(&metadata, row::TS);
    let ts = ranges.into_iter().reduce(|a, b| Some((a?.0.min(b?.0), a?.1.max(b?.1)))).flatten();
    Ok(Footer { schema: metadata.schema().clone(), rows, ts })
}

/// Smallest and largest value of a time or integer column by row group, in nanoseconds for times;
/// `None` where its statistics do not tell.
pub fn ranges(metadata: &ArrowReaderMetadata, column: &str) -> Vec<Option<(i64, i64)>> {
    let groups = metadata.metadata().row_groups();
    let unknown = || vec![None; groups.len()];
    let Ok(field) = metadata.schema().field_with_name(column) else { return unknown() };
    let scale = match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Int64 => 1,
        _ => return unknown(),
    };
    let Ok(converter) = StatisticsConverter::try_new(column, metadata.schema(), metadata.parquet_schema())
    else {
        return unknown();
    };
    let int64 = |a: ArrayRef| arrow::compute::cast(&a, &DataType::Int64).ok();
    let mins = converter.row_group_mins(groups).ok().and_then(int64);
    let maxes = converter.row_group_maxes(groups).ok().and_then(int64);
    let (Some(mins), Some(maxes)) = (mins, maxes) else { return unknown() };
    let (mins, maxes) = (mins.as_primitive::<Int64Type>(), maxes.as_primitive::<Int64Type>());
    let at = |i: usize| {
        let known = i < mins.len() && i < maxes.len() && mins.is_valid(i) && maxes.is_valid(i);
        known.then(|| (mins.value(i).saturating_mul(scale), maxes.value(i).saturating_mul(scale)))
    };
    (0..groups.len()).map(at).collect()
}

/// What of a file is read.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Columns to give, in this order and of these types: others are left out, missing nullable ones
    /// are null, and text may turn into dictionaries or back.
    pub schema: SchemaRef,
    /// Rows a batch has at most.
    pub batch_rows: usize,
    /// Row groups; all where `None`.
    pub groups: Option<Vec<usize>>,
    /// Rows of these row groups; all where `None`.
    pub rows: Option<RowSelection>,
}

impl Choice {
    /// Everything, in the columns of `schema`.
    pub fn all(schema: SchemaRef) -> Self {
        Self { schema, batch_rows: 8192, groups: None, rows: None }
    }
}

/// Reads a file's metadata; the reader can then read rows.
pub async fn open(
    dataset: &Dataset,
    file: &FileEntry,
) -> Result<(Object, ArrowReaderMetadata), ArchiveError> {
    let path = dataset.path(&file.path)?;
    let mut object = Object { store: dataset.location().store.clone(), path, bytes: file.bytes };
    let metadata = ArrowReaderMetadata::load_async(&mut object, ArrowReaderOptions::new()).await;
    let metadata = metadata.map_err(|e| ArchiveError::file(&shown(dataset, file), &e))?;
    Ok((object, metadata))
}

fn shown(dataset: &Dataset, file: &FileEntry) -> String {
    format!("{}/{}", dataset.location().display.trim_end_matches('/'), file.path)
}

/// The chosen rows of a file, in its order.
pub async fn rows(
    dataset: &Dataset,
    file: &FileEntry,
    choice: Choice,
) -> Result<BoxStream<'static, Result<RecordBatch, ArchiveError>>, ArchiveError> {
    let (object, metadata) = open(dataset, file).await?;
    rows_of(dataset, file, object, metadata, choice)
}

/// The chosen rows of a file that is open.
pub fn rows_of(
    dataset: &Dataset,
    file: &FileEntry,
    object: Object,
    metadata: ArrowReaderMetadata,
    choice: Choice,
) -> Result<BoxStream<'static, Result<RecordBatch, ArchiveError>>, ArchiveError> {
    let shown = shown(dataset, file);
    let wanted = |name: &str| choice.schema.index_of(name).is_ok();
    let own = metadata.schema().clone();
    let roots: Vec<usize> = (0..own.fields().len()).filter(|i| wanted(own.field(*i).name())).collect();
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
    let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(object, metadata)
        .with_batch_size(choice.batch_rows)
        .with_projection(mask);
    if let Some(groups) = choice.groups {
        builder = builder.with_row_groups(groups);
    }
    if let Some(rows) = choice.rows {
        builder = builder.with_row_selection(rows);
    }
    let stream = builder.build().map_err(|e| ArchiveError::file(&shown, &e))?;
    let schema = choice.schema;
    Ok(stream
        .map_err({
            let shown = shown.clone();
            move |e| ArchiveError::file(&shown, &e)
        })
        .and_then(move |batch| {
            let fitted = fit(&batch, &schema).map_err(|e| match e {
                ArchiveError::Rows { what, reason } => {
                    ArchiveError::Damaged { path: shown.clone(), reason: format!("cannot {what}: {reason}") }
                }
                other => other,
            });
            futures::future::ready(fitted)
        })
        .boxed())
}

/// `batch` in the columns of `schema`: by name, cast where the type differs, null where missing.
pub fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArchiveError> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let column = |field: &Arc<arrow::datatypes::Field>| -> Result<ArrayRef, ArchiveError> {
        match batch.column_by_name(field.name()) {
            Some(c) if c.data_type() == field.data_type() => Ok(c.clone()),
            Some(c) => {
                let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
                arrow::compute::cast_with_options(c, field.data_type(), &options)
                    .map_err(|e| ArchiveError::rows(format!("read column `{}`", field.name()), e))
            }
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), batch.num_rows())),
            None => Err(ArchiveError::rows(
                format!("read column `{}`", field.name()),
                "the rows have no such column, and it may not be null",
            )),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|e| ArchiveError::rows("fit rows to the dataset's columns", e))
}

/// A Parquet file in an object store.
#[derive(Clone, Debug)]
pub struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    bytes: u64,
}

fn external(e: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

impl AsyncFileReader for Object {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.store.get_range(&self.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let bytes = self.bytes;
            let reader = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .with_prefetch_hint(Some(FOOTER_BYTES));
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}
