//! Decodes the rows of one Parquet file, from any row on, on a blocking thread.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Int64Type, SchemaRef};
use futures::StreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use tidemill_engine::connector::ConnectorError;
use tokio::runtime::Handle;

use super::footer::{self, Remote};
use super::{Input, Layout};
use crate::files::Place;

/// Batches of one file, in file order, in the source's columns.
pub struct Reader {
    rows: Rows,
    display: String,
    /// Where each of the source's columns is in the batches of this file.
    order: Vec<usize>,
    schema: SchemaRef,
}

enum Rows {
    Local(ParquetRecordBatchReader),
    Remote(Box<ParquetRecordBatchStream<Remote>>, Handle),
}

impl Reader {
    /// Opens `input` behind the first `skip` rows of its chosen row groups; whole row groups among
    /// them are not read at all.
    pub fn open(
        input: &Input,
        layout: &Layout,
        skip: u64,
        batch_rows: usize,
        runtime: &Handle,
    ) -> Result<Self, ConnectorError> {
        let display = &input.file.display;
        let fail = |e: parquet::errors::ParquetError| broken(display, &e);
        let mut skip = skip;
        let mut groups = Vec::new();
        for (i, group) in &input.groups {
            if groups.is_empty() && skip >= group.rows {
                skip -= group.rows;
            } else {
                groups.push(*i);
            }
        }
        let plain = runtime.block_on(footer::metadata(&input.file)).map_err(fail)?;
        let found: u64 = plain.row_groups().iter().map(|g| g.num_rows() as u64).sum();
        if found != input.rows {
            let now = format!("it has {found} rows now, {} when the job was planned", input.rows);
            return Err(ConnectorError::fatal(format!("`{display}` has changed"), now));
        }
        let metadata = footer::with_hint(plain).map_err(fail)?;
        let names: Vec<&str> = layout.schema.fields().iter().map(|f| f.name().as_str()).collect();
        let file_schema = metadata.schema().clone();
        let roots: Vec<usize> = (0..file_schema.fields().len())
            .filter(|i| names.contains(&file_schema.field(*i).name().as_str()))
            .collect();
        let order = names
            .iter()
            .map(|name| roots.iter().position(|r| file_schema.field(*r).name() == name))
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| ConnectorError::fatal(format!("`{display}` has changed"), "a column is gone"))?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        let rows = match &input.file.place {
            Place::Local(path) => {
                let file = std::fs::File::open(path)
                    .map_err(|e| ConnectorError::fatal(format!("cannot open `{display}`"), e))?;
                let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
                    .with_batch_size(batch_rows)
                    .with_projection(mask)
                    .with_row_groups(groups)
                    .with_offset(skip as usize);
                Rows::Local(builder.build().map_err(fail)?)
            }
            Place::Remote(store, path) => {
                let builder =
                    ParquetRecordBatchStreamBuilder::new_with_metadata(Remote::new(store, path), metadata)
                        .with_batch_size(batch_rows)
                        .with_projection(mask)
                        .with_row_groups(groups)
                        .with_offset(skip as usize);
                Rows::Remote(Box::new(builder.build().map_err(fail)?), runtime.clone())
            }
        };
        Ok(Self { rows, display: display.clone(), order, schema: layout.schema.clone() })
    }

    /// The next batch that has rows; `None` at the end of the file.
    pub fn next_rows(&mut self) -> Result<Option<RecordBatch>, ConnectorError> {
        loop {
            let batch = match &mut self.rows {
                Rows::Local(reader) => reader.next().transpose().map_err(|e| broken(&self.display, &e))?,
                Rows::Remote(stream, runtime) => {
                    runtime.block_on(stream.next()).transpose().map_err(|e| broken(&self.display, &e))?
                }
            };
            let Some(batch) = batch else { return Ok(None) };
            if batch.num_rows() == 0 {
                continue;
            }
            let columns: Vec<ArrayRef> = self.order.iter().map(|i| batch.column(*i).clone()).collect();
            let batch = RecordBatch::try_new(self.schema.clone(), columns);
            return Ok(Some(batch.map_err(|e| broken(&self.display, &e))?));
        }
    }
}

/// Bad bytes stay bad; a store that does not answer may come back.
fn broken(display: &str, error: &(dyn std::error::Error + 'static)) -> ConnectorError {
    let mut cause = Some(error);
    while let Some(e) = cause {
        if let Some(store) = e.downcast_ref::<object_store::Error>()
            && matches!(store, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
        {
            return ConnectorError::transient(format!("cannot read `{display}`"), error);
        }
        cause = e.source();
    }
    ConnectorError::fatal(format!("cannot read `{display}`: the file is damaged, or not Parquet"), error)
}

/// The times of a batch in nanoseconds. A missing one takes that of the row before it, so that it
/// stays beside its neighbours until the engine refuses it.
pub fn times(column: &ArrayRef, scale: i64, before: i64) -> Option<ScalarBuffer<i64>> {
    let ints = arrow::compute::cast(column, &arrow::datatypes::DataType::Int64).ok()?;
    let ints = ints.as_primitive_opt::<Int64Type>()?;
    if ints.null_count() == 0 && scale == 1 {
        return Some(ints.values().clone());
    }
    let mut last = before;
    let filled = ints.iter().map(|v| {
        last = v.map_or(last, |v| v.saturating_mul(scale));
        last
    });
    Some(filled.collect::<Vec<i64>>().into())
}

/// An input that is shared between the plan and its readers.
pub type Inputs = Arc<[Input]>;
