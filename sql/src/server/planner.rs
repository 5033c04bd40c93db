//! Texts into plans.
//!
//! Our own SQL first: with places in errors, `ASOF JOIN` and all functions. What asks of the catalog as
//! Postgres has it goes through datafusion-postgres's rewriting first, and what ours does not
//! understand goes through it second; if neither does, ours is the error that is told.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::FieldInfo;
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::{ClientInfo, Type};
use datafusion_postgres::pgwire::error::PgWireResult;

use super::command::{self, Command};
use super::settings::Settings;
use super::{Shared, encode, fault};
use crate::error::ErrorKind;

/// A statement that is ready to be asked, any number of times.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) sql: Arc<str>,
    pub(super) statement: Statement,
    pub(super) what: What,
}

/// What it comes to.
#[derive(Clone, Debug)]
pub(super) enum What {
    Command(Command),
    /// The plan when it was prepared: it tells columns and parameters. Asked again it is planned again, and
    /// sees the archive as it is then.
    Query(Box<LogicalPlan>),
}

/// Makes plans for one connection.
pub(super) struct Planner {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
}

/// Words of texts that ask of the catalog as Postgres has it.
const CATALOG_WORDS: [&str; 4] = ["pg_", "::reg", "information_schema", "current_schema"];

impl Planner {
    /// All statements of a text.
    pub(super) fn read(&self, sql: &str) -> PgWireResult<Vec<Statement>> {
        let lower = sql.to_ascii_lowercase();
        if CATALOG_WORDS.iter().any(|word| lower.contains(word))
            && let Some(statements) = self.compat(sql)
        {
            return Ok(statements);
        }
        match self.shared.engine.parse(sql) {
            Ok(statements) => Ok(statements),
            Err(error) => self.compat(sql).ok_or_else(|| fault::of(&error, sql)),
        }
    }

    fn compat(&self, sql: &str) -> Option<Vec<Statement>> {
        let statements = self.shared.compat.parse(sql).ok()?;
        Some(statements.into_iter().map(|s| Statement::Statement(Box::new(s))).collect())
    }

    /// The plan of a statement of `sql`.
    pub(super) async fn plan(&self, statement: &Statement, sql: &str) -> PgWireResult<LogicalPlan> {
        let error = match self.shared.engine.plan_statement(statement.clone()).await {
            Ok(plan) => return Ok(plan),
            Err(error) => self.shared.engine.error(&error, sql),
        };
        let other = match (error.kind, statement) {
            (ErrorKind::ReadOnly, _) => None,
            (_, Statement::Statement(own)) => Some(self.shared.compat.rewrite((**own).clone())),
            _ => None,
        };
        if let Some(other) = other
            && let Ok(plan) = self.shared.engine.plan_statement(Statement::Statement(Box::new(other))).await
        {
            return Ok(plan);
        }
        Err(fault::of(&error, sql))
    }

    pub(super) async fn prepare(&self, statement: Statement, sql: Arc<str>) -> PgWireResult<Prepared> {
        let what = match command::of(&statement) {
            Some(command) => What::Command(command),
            None => What::Query(Box::new(self.plan(&statement, &sql).await?)),
        };
        Ok(Prepared { sql, statement, what })
    }
}

/// The types of a plan's parameters `$1`, `$2`, …; `None` where nothing tells.
pub(super) fn parameters(plan: &LogicalPlan) -> PgWireResult<Vec<Option<DataType>>> {
    let found = plan.get_parameter_types().map_err(|e| fault::new("42P18", e.strip_backtrace()))?;
    let mut types = Vec::new();
    for (name, kind) in found {
        let number: usize = name.trim_start_matches('$').parse().unwrap_or(0);
        if number == 0 || number > usize::from(u16::MAX) {
            return Err(fault::new("42P02", format!("there is no parameter {name}: write $1, $2, …")));
        }
        if types.len() < number {
            types.resize(number, None);
        }
        types[number - 1] = kind;
    }
    Ok(types)
}

/// Names of the parameters that stand where an array does: `symbol = ANY($1)`.
pub(super) fn arrays(plan: &LogicalPlan) -> HashSet<String> {
    let mut found = HashSet::new();
    // The closures give no errors, so neither do the walks.
    let _ = plan.apply_with_subqueries(|node| {
        for expr in node.expressions() {
            let _ = expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.name() == "array_has"
                    && let Some(Expr::Placeholder(array)) = call.args.first()
                {
                    found.insert(array.id.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

#[async_trait]
impl QueryParser for Planner {
    type Statement = Arc<Prepared>;

    async fn parse_sql<C>(
        &self,
        _: &C,
        sql: &str,
        _: &[Option<Type>],
    ) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        if !self.settings.begun() {
            return Err(fault::fatal("28000", "not authenticated"));
        }
        let mut statements = self.read(sql)?;
        if statements.len() > 1 {
            return Err(fault::new("42601", "cannot insert multiple commands into a prepared statement"));
        }
        match statements.pop() {
            None => Ok(None),
            Some(statement) => Ok(Some(Arc::new(self.prepare(statement, sql.into()).await?))),
        }
    }

    fn get_parameter_types(&self, statement: &Self::Statement) -> PgWireResult<Vec<Type>> {
        match &statement.what {
            What::Command(_) => Ok(Vec::new()),
            What::Query(plan) => parameters(plan)?
                .iter()
                .map(|kind| kind.as_ref().map_or(Ok(Type::UNKNOWN), into_pg_type))
                .collect(),
        }
    }

    fn get_result_schema(
        &self,
        statement: &Self::Statement,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        match &statement.what {
            What::Command(Command::Show(name)) => Ok(vec![encode::shown(name)]),
            What::Command(_) => Ok(Vec::new()),
            What::Query(plan) => {
                encode::fields(plan.schema().as_arrow(), format.unwrap_or(&Format::UnifiedText))
            }
        }
    }
}
