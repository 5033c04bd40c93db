//! Files as a table: Parquet or CSV, one file, a folder, or a pattern. Hive folders (`date=…/`) are columns.

use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use tidemill_engine::storage;

use super::hive::HiveTable;
use crate::error::{ErrorKind, SqlError};

/// Opens `path`, relative to `base`, or a URL of an object store.
pub(crate) async fn open(
    context: &SessionContext,
    path: &str,
    base: &Path,
) -> Result<Arc<dyn TableProvider>, SqlError> {
    let shown = storage::redact(path);
    let fail = |reason: String| SqlError::new(ErrorKind::Storage, format!("cannot read `{shown}`: {reason}"));
    let explain = |e: DataFusionError| fail(SqlError::of(&e, "", &Default::default()).message);
    let url = match storage::local_path(path, base) {
        Some(local) => {
            let local = std::path::absolute(&local).map_err(|e| fail(e.to_string()))?;
            let text = local.to_string_lossy();
            let pattern = text.contains(['*', '?', '[']);
            if !pattern && !local.exists() {
                return Err(fail("there is no such file".into()));
            }
            let folder = if local.is_dir() && !text.ends_with('/') { "/" } else { "" };
            ListingTableUrl::parse(format!("{text}{folder}")).map_err(explain)?
        }
        None => {
            let location = storage::open(path, base).map_err(|e| fail(e.to_string()))?;
            let url = ListingTableUrl::parse(path).map_err(explain)?;
            context.register_object_store(url.object_store().as_ref(), location.store);
            url
        }
    };
    let csv = path.ends_with(".csv");
    let (format, extension): (Arc<dyn FileFormat>, &str) = match csv {
        true => (Arc::new(CsvFormat::default().with_has_header(true)), ".csv"),
        false => (Arc::new(ParquetFormat::default()), ".parquet"),
    };
    if path.ends_with(".gz") || path.ends_with(".zst") {
        return Err(fail("compressed CSV is not read".into())
            .hint("unpack it, or `tidemill backfill` it into the archive"));
    }
    let state = context.state();
    let options =
        ListingOptions::new(format).with_file_extension(if url.is_collection() { extension } else { "" });
    let config = ListingTableConfig::new(url.clone())
        .with_listing_options(options)
        .infer_partitions_from_path(&state)
        .await
        .map_err(explain)?
        .infer_schema(&state)
        .await
        .map_err(explain)?;
    let Some(in_files) = config.file_schema.clone().filter(|s| !s.fields().is_empty()) else {
        return Err(fail(format!("no {extension} files are there")));
    };
    if let Some(options) = &config.options {
        let path: Vec<String> = options.table_partition_cols.iter().map(|(name, _)| name.clone()).collect();
        if path.iter().any(|name| in_files.field_with_name(name).is_ok()) {
            let (format, extension) = (options.format.clone(), options.file_extension.clone());
            return Ok(Arc::new(HiveTable::new(url, format, extension, path, in_files)));
        }
    }
    let cache = state.runtime_env().cache_manager.get_file_statistic_cache();
    let table = ListingTable::try_new(config).map_err(explain)?.with_cache(cache);
    Ok(Arc::new(table))
}
