//! Copies of the real trades, each a week later than the one before: enough rows to time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

const WEEK_NS: i64 = 7 * 86_400 * 1_000_000_000;

/// Writes `weeks` copies of `equities/trades_*.parquet` into `folder`, compressed as they are.
pub fn write(data: &Path, folder: &Path, weeks: i64) -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(data.join("equities"))?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("trades_")));
    files.sort();
    for (day, file) in files.iter().enumerate() {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file)?)?;
        let groups = reader.metadata().row_groups();
        let compression = groups.first().map_or(Compression::UNCOMPRESSED, |g| g.column(0).compression());
        let group_rows = groups.iter().map(|g| g.num_rows()).max().unwrap_or(1 << 20) as usize;
        let batches: Vec<RecordBatch> = reader.with_batch_size(65_536).build()?.collect::<Result<_, _>>()?;
        let Some(first) = batches.first() else { continue };
        let at = first.schema().index_of("ts")?;
        for week in 0..weeks {
            let properties = WriterProperties::builder()
                .set_compression(compression)
                .set_max_row_group_row_count(Some(group_rows))
                .build();
            let path = folder.join(format!("trades_{week:03}_{day}.parquet"));
            let mut writer =
                ArrowWriter::try_new(std::fs::File::create(path)?, first.schema(), Some(properties))?;
            for batch in &batches {
                let mut columns = batch.columns().to_vec();
                let ns = cast(&columns[at], &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
                let later =
                    ns.as_primitive::<TimestampNanosecondType>().values().iter().map(|t| t + week * WEEK_NS);
                let later: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(later));
                columns[at] = cast(&later, batch.schema().field(at).data_type())?;
                writer.write(&RecordBatch::try_new(batch.schema(), columns)?)?;
            }
            writer.close()?;
        }
    }
    Ok(())
}
