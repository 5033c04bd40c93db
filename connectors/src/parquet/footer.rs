//! What a Parquet file's footer tells before any row is read: columns, row groups, their times.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, MetadataSuffixFetch};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tidemill_engine::row;

use crate::files::{FileRef, Place};

/// What is known of one file.
#[derive(Clone, Debug)]
pub struct Footer {
    /// Its columns as the source delivers them: text as [`row::symbol_type`], no metadata.
    pub schema: SchemaRef,
    /// Its row groups in order.
    pub groups: Vec<Group>,
}

/// One row group.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// How many rows it has.
    pub rows: u64,
    /// First and last time in nanoseconds, where the statistics say.
    pub range: Option<(i64, i64)>,
}

impl Footer {
    /// Rows in the file.
    pub fn rows(&self) -> u64 {
        self.groups.iter().map(|g| g.rows).sum()
    }
}

/// Nanoseconds in one unit of a time column; `None` where the type holds no time.
pub fn time_scale(t: &DataType) -> Option<i64> {
    Some(match t {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Int64 => 1,
        _ => return None,
    })
}

/// The type that a column is read as.
fn read_as(t: &DataType) -> DataType {
    match t {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => row::symbol_type(),
        DataType::Dictionary(_, value) => match value.as_ref() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => row::symbol_type(),
            other => other.clone(),
        },
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// Reader metadata whose schema has every text column as [`row::symbol_type`].
pub fn with_hint(metadata: Arc<ParquetMetaData>) -> Result<ArrowReaderMetadata, ParquetError> {
    let plain = ArrowReaderMetadata::try_new(metadata.clone(), ArrowReaderOptions::new())?;
    let fields: Vec<Field> = plain
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_data_type(read_as(f.data_type())))
        .collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, plain.schema().metadata().clone()));
    ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new().with_schema(schema))
}

/// Reads a file's footer.
pub async fn metadata(file: &FileRef) -> Result<Arc<ParquetMetaData>, ParquetError> {
    match &file.place {
        Place::Local(path) => {
            let path = path.clone();
            let read = move || ParquetMetaDataReader::new().parse_and_finish(&std::fs::File::open(path)?);
            let done = tokio::task::spawn_blocking(read).await;
            Ok(Arc::new(done.map_err(|e| ParquetError::External(Box::new(e)))??))
        }
        Place::Remote(store, path) => Remote::new(store, path).get_metadata(None).await,
    }
}

/// Reads a footer and the time ranges of column `time`.
pub async fn read(file: &FileRef, time: &str) -> Result<Footer, ParquetError> {
    let metadata = with_hint(metadata(file).await?)?;
    let fields: Vec<Field> = metadata
        .schema()
        .fields()
        .iter()
        .map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable()))
        .collect();
    let ranges = ranges(&metadata, time);
    let groups = metadata.metadata().row_groups().iter().enumerate();
    let groups =
        groups.map(|(i, g)| Group { rows: g.num_rows() as u64, range: ranges.get(i).copied().flatten() });
    Ok(Footer { groups: groups.collect(), schema: Arc::new(Schema::new(fields)) })
}

/// Time ranges by row group; shorter where the statistics cannot be read.
fn ranges(metadata: &ArrowReaderMetadata, time: &str) -> Vec<Option<(i64, i64)>> {
    let scale = metadata.schema().field_with_name(time).ok().and_then(|f| time_scale(f.data_type()));
    let (Some(scale), Ok(converter)) =
        (scale, StatisticsConverter::try_new(time, metadata.schema(), metadata.parquet_schema()))
    else {
        return Vec::new();
    };
    let groups = metadata.metadata().row_groups();
    let int64 = |a| arrow::compute::cast(&a, &DataType::Int64).ok();
    let mins = converter.row_group_mins(groups).ok().and_then(int64);
    let maxes = converter.row_group_maxes(groups).ok().and_then(int64);
    let (Some(mins), Some(maxes)) = (mins, maxes) else { return Vec::new() };
    let (mins, maxes) = (mins.as_primitive::<Int64Type>(), maxes.as_primitive::<Int64Type>());
    let ns = |v: i64| v.saturating_mul(scale);
    (0..mins.len().min(maxes.len()))
        .map(|i| (mins.is_valid(i) && maxes.is_valid(i)).then(|| (ns(mins.value(i)), ns(maxes.value(i)))))
        .collect()
}

/// A Parquet file in an object store.
#[derive(Clone, Debug)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl Remote {
    /// The file at `path`.
    pub fn new(store: &Arc<dyn ObjectStore>, path: &Path) -> Self {
        Self { store: store.clone(), path: path.clone() }
    }
}

fn external(e: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(e))
}

impl AsyncFileReader for Remote {
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
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_via_suffix_and_finish(self).await?))
        }
        .boxed()
    }
}

impl MetadataSuffixFetch for &mut Remote {
    fn fetch_suffix(&mut self, suffix: usize) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        let options = GetOptions { range: Some(GetRange::Suffix(suffix as u64)), ..Default::default() };
        async move {
            let got = self.store.get_opts(&self.path, options).await.map_err(external)?;
            got.bytes().await.map_err(external)
        }
        .boxed()
    }
}
