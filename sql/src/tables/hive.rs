//! Files in Hive folders whose columns are in the files as well, as tools leave them that do not take them out.
//!
//! DataFusion's own table of files makes every folder a column, and fails where the files have one of its
//! name. Here the file's column is the one that counts; folders that are in no file are columns of text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::helpers::parse_partitions_for_path;
use datafusion::datasource::listing::{ListingTableUrl, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::TryStreamExt;

/// The folder of rows without a value, as Hive calls it.
pub(super) const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// The table.
#[derive(Debug)]
pub(super) struct HiveTable {
    url: ListingTableUrl,
    format: Arc<dyn FileFormat>,
    extension: String,
    /// Names of the folders, from the outermost.
    path: Vec<String>,
    in_files: SchemaRef,
    /// Columns that are folders alone.
    folders: Vec<FieldRef>,
    /// Columns in the files, then those that are folders alone.
    schema: SchemaRef,
}

impl HiveTable {
    /// A table of the files below `url` in folders `path`, with columns `in_files`.
    pub(super) fn new(
        url: ListingTableUrl,
        format: Arc<dyn FileFormat>,
        extension: String,
        path: Vec<String>,
        in_files: SchemaRef,
    ) -> Self {
        let text = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
        let alone = path.iter().filter(|name| in_files.field_with_name(name).is_err());
        let folders: Vec<FieldRef> =
            alone.map(|name| Arc::new(Field::new(name, text.clone(), true))).collect();
        let fields: Vec<FieldRef> = in_files.fields().iter().chain(&folders).cloned().collect();
        Self { url, format, extension, path, in_files, folders, schema: Arc::new(Schema::new(fields)) }
    }

    /// The values of those columns that are folders alone; `None` for a file that does not lie in such folders.
    fn values(&self, location: &object_store::path::Path) -> Option<Vec<ScalarValue>> {
        let names = self.path.iter().map(String::as_str);
        let values = parse_partitions_for_path(&self.url, location, names)?;
        let value = |field: &FieldRef| {
            let i = self.path.iter().position(|name| name == field.name())?;
            let text = values.get(i)?;
            let value = (*text != NULL_FOLDER).then(|| text.clone().into_owned());
            ScalarValue::Utf8(value).cast_to(field.data_type()).ok()
        };
        self.folders.iter().map(value).collect()
    }
}

#[async_trait]
impl TableProvider for HiveTable {
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
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let store = state.runtime_env().object_store(&self.url)?;
        let listed = self.url.list_all_files(state, store.as_ref(), &self.extension).await?;
        let mut files = Vec::new();
        for object in listed.try_collect::<Vec<_>>().await? {
            if object.size > 0
                && let Some(values) = self.values(&object.location)
            {
                files.push(PartitionedFile::new_from_meta(object).with_partition_values(values));
            }
        }
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let groups = FileGroup::new(files).split_files(state.config().target_partitions().max(1));
        let table = TableSchema::builder(self.in_files.clone())
            .with_table_partition_cols(self.folders.clone())
            .build();
        let config = FileScanConfigBuilder::new(self.url.object_store(), self.format.file_source(table))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        self.format.create_physical_plan(state, config).await
    }
}
