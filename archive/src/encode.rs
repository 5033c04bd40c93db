//! How the archive's files are encoded.
//!
//! zstd; statistics by page, so that readers skip pages by time; differences for times and positions;
//! bloom filters where an equality can be asked that sorting and folders do not answer: text with few
//! values (symbols, venues) and text identifiers (`*_id`, `*hash`). A filter of a symbol column is
//! about a kilobyte per row group. Whole numbers have none: identifiers that are numbers mostly rise
//! with time, and their statistics tell more.

use arrow::datatypes::{DataType, Schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tidemill_engine::row;

/// Distinct values a symbol column's filter is made for, per row group.
const SYMBOLS: u64 = 1024;

/// Properties of the archive's own files: `zstd` level (1 to 22), rows a row group has at most, the
/// columns that are folders, and those the rows are sorted by.
pub fn properties(
    schema: &Schema,
    zstd: i32,
    row_group_rows: usize,
    partition_by: &[String],
    sort: &[String],
) -> WriterProperties {
    let level = ZstdLevel::try_new(zstd).unwrap_or_default();
    let sorting = sort.iter().filter_map(|name| {
        let column_idx = schema.index_of(name).ok()? as i32;
        Some(SortingColumn { column_idx, descending: false, nulls_first: true })
    });
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(row_group_rows.max(1)))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting.collect()))
        .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).into());
    // Times and positions rise: their differences are small, and a dictionary of them is a waste.
    for name in [row::TS, row::SEQ] {
        if schema.index_of(name).is_ok() {
            let path = ColumnPath::from(name);
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    blooms(builder, schema, row_group_rows, partition_by, sort).build()
}

/// Adds bloom filters where they are useful.
pub fn blooms(
    mut builder: WriterPropertiesBuilder,
    schema: &Schema,
    row_group_rows: usize,
    partition_by: &[String],
    sort: &[String],
) -> WriterPropertiesBuilder {
    for field in schema.fields() {
        let name = field.name();
        // Folders and statistics answer for these.
        if partition_by.contains(name) || sort.first() == Some(name) {
            continue;
        }
        let identifier = name == "id" || name.ends_with("_id") || name.ends_with("hash");
        let ndv = match field.data_type() {
            DataType::Utf8 | DataType::Dictionary(..) if identifier => row_group_rows as u64,
            DataType::Dictionary(..) => SYMBOLS,
            _ => continue,
        };
        let path = ColumnPath::from(name.as_str());
        builder = builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), 0.01)
            .set_column_bloom_filter_max_ndv(path, ndv);
    }
    builder
}
