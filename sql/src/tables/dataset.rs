//! One dataset as a table: which of its files a query reads.
//!
//! Files are left out by the values of their Hive folders and by the first and last time in them, before
//! any is opened; within files DataFusion leaves out row groups and pages by statistics and bloom
//! filters. `date` is a column where the dataset has it as a folder, and a folder's date bounds the times
//! of its files. Where files are sorted by `ts`, and those of a partition do not overlap, that order is
//! known to the planner, and `ORDER BY ts` needs no sort.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, DFSchema, Result, ScalarValue, Statistics};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;
use tidemill_archive::{ArchiveError, FileEntry, Snapshot, read};
use tidemill_engine::row;

use super::hive::NULL_FOLDER;

const DAY_NS: i64 = 86_400_000_000_000;

/// A snapshot whose files' rows and times are known.
#[derive(Debug)]
pub(super) struct Files {
    pub snapshot: Snapshot,
    pub entries: Vec<FileEntry>,
}

/// The table.
#[derive(Debug)]
pub(super) struct DatasetTable {
    files: Files,
    store: ObjectStoreUrl,
    /// Columns in the files, then those that are folders alone.
    schema: SchemaRef,
    in_files: SchemaRef,
    folders: Vec<FieldRef>,
}

impl DatasetTable {
    pub(super) async fn open(files: Files, store: ObjectStoreUrl) -> Result<Self, ArchiveError> {
        let snapshot = &files.snapshot;
        let all = snapshot.schema().await?;
        let mut inside: HashSet<String> =
            snapshot.layout().into_iter().flat_map(|l| l.columns.iter().map(|c| c.name.clone())).collect();
        if snapshot.layout().is_none()
            && let Some(file) = files.entries.last()
        {
            let footer = read::footer(snapshot.dataset(), file).await?;
            inside.extend(footer.schema.fields().iter().map(|f| f.name().clone()));
        }
        let partitions = snapshot.partition_columns();
        let folder_only = |name: &String| partitions.contains(name) && !inside.contains(name);
        let (folders, in_files): (Vec<&FieldRef>, Vec<&FieldRef>) =
            all.fields().iter().partition(|f| folder_only(f.name()));
        let mut folders: Vec<FieldRef> = folders.into_iter().cloned().collect();
        if partitions.iter().any(|p| p == "date") && !inside.contains("date") {
            folders.retain(|f| f.name() != "date");
            folders.push(Arc::new(Field::new("date", DataType::Date32, true)));
        }
        let in_files: SchemaRef = Arc::new(Schema::new(in_files.into_iter().cloned().collect::<Vec<_>>()));
        let schema = in_files.fields().iter().chain(&folders).cloned().collect::<Vec<_>>();
        Ok(Self { files, store, schema: Arc::new(Schema::new(schema)), in_files, folders })
    }

    /// Those files that can hold rows for which all of `filters` are true.
    fn kept(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&FileEntry>> {
        let entries = &self.files.entries;
        let Some(filter) = conjunction(filters.to_vec()) else {
            return Ok(entries.iter().collect());
        };
        let schema = DFSchema::try_from(self.schema.clone())?;
        let predicate = state.create_physical_expr(filter, &schema)?;
        // What cannot be used to leave files out is none of our business.
        let builder = PruningPredicateBuilder::new().with_file_schema(self.schema.clone());
        let Ok(predicate) = builder.try_build(predicate) else {
            return Ok(entries.iter().collect());
        };
        let keep = predicate.prune(&Bounds { table: self })?;
        Ok(entries.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| file).collect())
    }

    /// The value of a folder column.
    fn folder(&self, file: &FileEntry, name: &str, t: &DataType) -> ScalarValue {
        let text = file.partition.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let value = text.filter(|v| *v != NULL_FOLDER).map(|v| ScalarValue::from(v).cast_to(t));
        let null = || ScalarValue::try_from(t).unwrap_or(ScalarValue::Null);
        value.and_then(Result::ok).unwrap_or_else(null)
    }

    /// First and last time in a file, as far as they are known.
    fn times(&self, file: &FileEntry) -> Option<(i64, i64)> {
        file.ts.or_else(|| {
            // A folder by the date of `ts` bounds it.
            self.folders.iter().find(|f| f.name() == "date")?;
            let ScalarValue::Date32(Some(day)) = self.folder(file, "date", &DataType::Date32) else {
                return None;
            };
            let start = i64::from(day).checked_mul(DAY_NS)?;
            Some((start, start.checked_add(DAY_NS - 1)?))
        })
    }

    fn file(&self, entry: &FileEntry) -> Result<PartitionedFile> {
        let path = self.files.snapshot.path(entry);
        let meta = ObjectMeta {
            location: path.map_err(|e| DataFusionError::External(Box::new(super::archive::explain(&e))))?,
            last_modified: DateTime::from_timestamp_millis(entry.modified_ms).unwrap_or_default(),
            size: entry.bytes,
            e_tag: None,
            version: None,
        };
        let values = self.folders.iter().map(|f| self.folder(entry, f.name(), f.data_type())).collect();
        let file = PartitionedFile::new_from_meta(meta).with_partition_values(values);
        Ok(file.with_statistics(Arc::new(self.statistics(&[entry], &self.in_files))))
    }

    fn statistics(&self, files: &[&FileEntry], schema: &Schema) -> Statistics {
        let rows: Option<u64> = files.iter().map(|f| f.rows).sum();
        let bounds =
            files.iter().map(|f| self.times(f)).reduce(|a, b| Some((a?.0.min(b?.0), a?.1.max(b?.1))));
        let columns = schema.fields().iter().map(|field| {
            let mut column = ColumnStatistics::new_unknown();
            if field.name() == row::TS
                && let (Some(Some((first, last))), DataType::Timestamp(_, zone)) = (bounds, field.data_type())
            {
                let value = |ns| ScalarValue::TimestampNanosecond(Some(ns), zone.clone());
                let exact = files.iter().all(|f| f.ts.is_some());
                let say = |v| if exact { Precision::Exact(v) } else { Precision::Inexact(v) };
                column.min_value = say(value(first));
                column.max_value = say(value(last));
                if !field.is_nullable() {
                    column.null_count = Precision::Exact(0);
                }
            }
            column
        });
        Statistics {
            num_rows: rows.map_or(Precision::Absent, |rows| Precision::Exact(rows as usize)),
            total_byte_size: Precision::Absent,
            column_statistics: columns.collect(),
        }
    }

    /// The order of rows in every one of these files, if there is one by `ts`.
    fn order(&self, files: &[&FileEntry]) -> Result<Option<LexOrdering>> {
        let Some(layout) = self.files.snapshot.layout() else {
            return Ok(None);
        };
        if !files.iter().all(|f| f.own) || layout.sort.first().is_none_or(|first| first != row::TS) {
            return Ok(None);
        }
        // Only the time: that is what bounds of files can tell apart.
        let ts = col(row::TS, &self.schema)?;
        Ok(LexOrdering::new([PhysicalSortExpr::new(ts, arrow::compute::SortOptions::new(false, false))]))
    }
}

#[async_trait]
impl TableProvider for DatasetTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = self.kept(state, filters)?;
        if kept.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let partitions = state.config().target_partitions().max(1);
        let order = self.order(&kept)?;
        let files = kept.iter().map(|f| self.file(f)).collect::<Result<Vec<_>>>()?;
        let mut groups = vec![FileGroup::new(files)];
        let mut ordering = Vec::new();
        if let Some(order) = order {
            let split = FileScanConfig::split_groups_by_statistics_with_target_partitions(
                &self.schema,
                &groups,
                &order,
                partitions,
            );
            if let Ok(split) = split
                && split.len() <= partitions
            {
                groups = split;
                ordering.push(order);
            }
        }
        if ordering.is_empty() {
            groups = groups.remove(0).split_files(partitions);
        }
        let table = TableSchema::builder(self.in_files.clone())
            .with_table_partition_cols(self.folders.clone())
            .build();
        let source = Arc::new(ParquetSource::new(table));
        let config = FileScanConfigBuilder::new(self.store.clone(), source)
            .with_file_groups(groups)
            .with_statistics(self.statistics(&kept, &self.schema))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_output_ordering(ordering)
            .build();
        let options = state.table_options().parquet.clone();
        ParquetFormat::new().with_options(options).create_physical_plan(state, config).await
    }
}

/// What is known of files before they are opened.
struct Bounds<'a> {
    table: &'a DatasetTable,
}

impl Bounds<'_> {
    fn column(&self, column: &Column, last: bool) -> Option<ArrayRef> {
        let table = self.table;
        let field = table.schema.field_with_name(&column.name).ok()?;
        let value = |file: &FileEntry| {
            if field.name() == row::TS
                && let DataType::Timestamp(_, zone) = field.data_type()
            {
                let bound = table.times(file).map(|(a, b)| if last { b } else { a });
                return ScalarValue::TimestampNanosecond(bound, zone.clone());
            }
            table.folder(file, field.name(), field.data_type())
        };
        let known = field.name() == row::TS
            || table.files.entries.iter().any(|f| f.partition.iter().any(|(n, _)| n == field.name()));
        known.then(|| ScalarValue::iter_to_array(table.files.entries.iter().map(value)).ok())?
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.column(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.column(column, true)
    }

    fn num_containers(&self) -> usize {
        self.table.files.entries.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows = self.table.files.entries.iter().map(|f| f.rows);
        Some(Arc::new(rows.collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
