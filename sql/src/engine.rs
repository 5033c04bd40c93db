//! The engine: a DataFusion session over an archive and files, read-only, within limits.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::SchemaProvider;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;

use crate::config::EngineConfig;
use crate::error::{ErrorKind, SqlError};
use crate::rows::Rows;
use crate::tables::Tables;
use crate::{functions, statement, tables};

/// The catalog's name in SQL.
pub const CATALOG: &str = "tidemill";
/// The schema's name in SQL.
pub const SCHEMA: &str = "public";

/// What an error message may need to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub memory_bytes: usize,
    pub tables: Vec<String>,
    pub functions: Arc<Vec<String>>,
}

/// A table, as `\d` lists it.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Its name in SQL.
    pub name: String,
    /// Where its rows are: a dataset of the archive, or files.
    pub origin: String,
    /// Its columns.
    pub schema: SchemaRef,
}

/// Answers SQL. Cheap to clone; clones share tables and limits.
#[derive(Clone)]
pub struct Engine {
    context: SessionContext,
    tables: Arc<Tables>,
    memory_bytes: usize,
    functions: Arc<Vec<String>>,
    base: PathBuf,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("tables", &self.tables.table_names()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the archive, if one is named, and gets ready.
    pub async fn open(config: EngineConfig) -> Result<Self, SqlError> {
        let no_limits = Limits::default();
        let fail = |e: DataFusionError| SqlError::of(&e, "", &no_limits);
        let context = SessionContext::new_with_state(state(&config).map_err(fail)?);
        let tables = Arc::new(Tables::open(&config, &context).await?);
        let catalog = Arc::new(datafusion::catalog::MemoryCatalogProvider::new());
        datafusion::catalog::CatalogProvider::register_schema(&*catalog, SCHEMA, tables.clone())
            .map_err(fail)?;
        context.register_catalog(CATALOG, catalog);
        let functions = Arc::new(functions::names(&context.state()));
        Ok(Self { context, tables, memory_bytes: config.memory_limit_bytes, functions, base: config.base })
    }

    /// Makes files a table: a Parquet or CSV file, a folder of them, or a pattern (`data/trades_*.parquet`).
    pub async fn add_table(&self, name: &str, path: &str) -> Result<(), SqlError> {
        let table = tables::files::open(&self.context, path, &self.base)
            .await
            .map_err(|e| SqlError { message: format!("table `{name}`: {}", e.message), ..e })?;
        self.tables.add(name, path, table)
    }

    /// Makes rows in memory a table; partitions are read side by side.
    pub fn add_rows(
        &self,
        name: &str,
        schema: SchemaRef,
        partitions: Vec<Vec<RecordBatch>>,
    ) -> Result<(), SqlError> {
        let table = MemTable::try_new(schema, partitions).map_err(|e| self.error(&e, ""))?;
        self.tables.add(name, "memory", Arc::new(table))
    }

    /// The session, for what this type does not offer. What runs there directly is not held to reading:
    /// plan with [`Engine::plan_statement`].
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// All tables, by name, as they are now.
    pub async fn tables(&self) -> Result<Vec<TableInfo>, SqlError> {
        self.tables.refresh().await?;
        self.tables.list().await
    }

    /// Names of all functions.
    pub fn function_names(&self) -> &[String] {
        &self.functions
    }

    /// Reads a text of one or more statements, separated by `;`.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>, SqlError> {
        statement::parse(sql).map_err(|e| self.error(&e, sql))
    }

    /// Plans one statement: sees the archive as it is now, refuses what would write. For other front
    /// ends that parse for themselves; [`Engine::error`] explains what it gives back.
    pub async fn plan_statement(&self, mut statement: Statement) -> Result<LogicalPlan, DataFusionError> {
        if let Some(verb) = statement::refused(&statement) {
            let error = SqlError::new(ErrorKind::ReadOnly, format!("{verb} is refused: SQL here only reads"))
                .hint("sinks, `tidemill backfill` and `tidemill archive` write the archive");
            return Err(DataFusionError::External(Box::new(error)));
        }
        statement::rewrite(&mut statement)?;
        if statement::asks_for_tables(&statement) {
            self.tables.refresh().await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        }
        let plan = self.context.state().statement_to_plan(statement).await?;
        let options =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        options.verify_plan(&plan)?;
        Ok(plan)
    }

    /// Plans and starts one statement.
    pub async fn query(&self, sql: &str) -> Result<Rows, SqlError> {
        let mut statements = self.parse(sql)?;
        if statements.len() != 1 {
            let message = format!("expected one statement, found {}", statements.len());
            return Err(SqlError::new(ErrorKind::Syntax, message));
        }
        let statement = statements.remove(0);
        self.run(statement, sql).await
    }

    /// Plans and starts a parsed statement of `sql`.
    pub async fn run(&self, statement: Statement, sql: &str) -> Result<Rows, SqlError> {
        let plan = match self.plan_statement(statement).await {
            Ok(plan) => plan,
            Err(e) => {
                // For the hint to name what there is now; that it fails too would hide the error.
                let _ = self.tables.refresh().await;
                return Err(self.error(&e, sql));
            }
        };
        let frame = self.context.execute_logical_plan(plan).await.map_err(|e| self.error(&e, sql))?;
        let plan = frame.create_physical_plan().await.map_err(|e| self.error(&e, sql))?;
        let task = self.context.task_ctx();
        let stream = execute_stream(plan.clone(), task).map_err(|e| self.error(&e, sql))?;
        Ok(Rows::new(sql.to_owned(), self.limits(), plan, stream))
    }

    /// What DataFusion says of `sql`, in our words and with its place.
    pub fn error(&self, error: &DataFusionError, sql: &str) -> SqlError {
        SqlError::of(error, sql, &self.limits())
    }

    fn limits(&self) -> Limits {
        let mut tables = self.tables.table_names();
        tables.sort_unstable();
        Limits { memory_bytes: self.memory_bytes, tables, functions: self.functions.clone() }
    }
}

/// DataFusion's rules, and ours after its own pushing of filters: before projections come between.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let at = rules.iter().position(|r| r.name() == "push_down_filter").map_or(rules.len(), |at| at + 1);
    rules.insert(at, Arc::new(crate::asof::push::PushThroughAsof));
    // Last: simplification has made constants of what can be one, and filters are where they belong.
    rules.push(Arc::new(crate::intervals::AddNanoseconds));
    rules
}

fn state(config: &EngineConfig) -> Result<SessionState, DataFusionError> {
    let disk = match &config.spill_dir {
        None => DiskManagerBuilder::default(),
        Some(dir) => DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![dir.clone()])),
    };
    let consumers = std::num::NonZeroUsize::new(5).expect("five is not zero");
    let pool = TrackConsumersPool::new(FairSpillPool::new(config.memory_limit_bytes), consumers);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk.with_max_temp_directory_size(config.spill_limit_bytes))
        .build_arc()?;
    let mut session = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_batch_size(config.batch_rows.max(1));
    if config.target_partitions > 0 {
        session = session.with_target_partitions(config.target_partitions);
    }
    let options = session.options_mut();
    options.sql_parser.collect_spans = true;
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    options.execution.split_file_groups_by_statistics = true;
    let mut builder = SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_analyzer_rule(Arc::new(crate::asof::analyze::PlanAsof))
        .with_optimizer_rules(optimizer_rules())
        .with_query_planner(Arc::new(crate::planner::Planner))
        .with_relation_planners(vec![Arc::new(crate::relations::Relations)]);
    functions::register(&mut builder);
    Ok(builder.build())
}
