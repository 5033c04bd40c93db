//! Statements: which may run, and what SQL is made of those that DataFusion does not know.

use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{self, TableFactor, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::GenericDialect;

use crate::asof;
use crate::relations;

/// How deep expressions may nest.
const RECURSION_MAX: usize = 64;

/// Reads all statements of a text.
pub(crate) fn parse(sql: &str) -> Result<Vec<Statement>, DataFusionError> {
    let dialect = GenericDialect {};
    let mut parser =
        DFParserBuilder::new(sql).with_dialect(&dialect).with_recursion_limit(RECURSION_MAX).build()?;
    Ok(parser.parse_statements()?.into())
}

/// The verb of a statement that is no reading; `None` where it may run.
pub(crate) fn refused(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Statement(statement) => refused_sql(statement),
        Statement::Explain(explain) => refused(&explain.statement),
        Statement::CopyTo(_) => Some("COPY".into()),
        Statement::CreateExternalTable(_) => Some("CREATE EXTERNAL TABLE".into()),
        Statement::Reset(_) => Some("RESET".into()),
    }
}

fn refused_sql(statement: &ast::Statement) -> Option<String> {
    match statement {
        ast::Statement::Query(query) => refused_query(&query.body),
        ast::Statement::Explain { statement, .. } => refused_sql(statement),
        ast::Statement::ExplainTable { .. }
        | ast::Statement::ShowTables { .. }
        | ast::Statement::ShowColumns { .. }
        | ast::Statement::ShowFunctions { .. }
        | ast::Statement::ShowVariable { .. } => None,
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            let two = matches!(words.first(), Some(&("CREATE" | "DROP" | "ALTER")));
            Some(words[..if two { words.len() } else { 1.min(words.len()) }].join(" "))
        }
    }
}

/// `SELECT … INTO`, and `INSERT` in the place of a query.
fn refused_query(body: &ast::SetExpr) -> Option<String> {
    match body {
        ast::SetExpr::Select(select) => select.into.as_ref().map(|_| "SELECT INTO".into()),
        ast::SetExpr::Query(query) => refused_query(&query.body),
        ast::SetExpr::SetOperation { left, right, .. } => {
            refused_query(left).or_else(|| refused_query(right))
        }
        ast::SetExpr::Values(_) | ast::SetExpr::Table(_) => None,
        other => other.to_string().split_whitespace().next().map(str::to_owned),
    }
}

/// Whether it lists tables, so that the list must be fresh. A table that is named is looked up anyway.
pub(crate) fn asks_for_tables(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => match &**statement {
            ast::Statement::Query(query) => {
                let text = query.to_string().to_ascii_lowercase();
                text.contains("information_schema") || text.contains("pg_")
            }
            _ => true,
        },
        Statement::Explain(explain) => asks_for_tables(&explain.statement),
        _ => true,
    }
}

/// Puts what DataFusion's planner knows in place of what it does not: `ASOF JOIN`, and tables and queries
/// as arguments of table functions.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<(), DataFusionError> {
    match statement {
        Statement::Statement(statement) => match statement.visit(&mut Rewriter) {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(()),
        },
        Statement::Explain(explain) => rewrite(&mut explain.statement),
        _ => Ok(()),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = DataFusionError;

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<Self::Break> {
        match asof::rewrite::joins(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        let result = match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => table_with_joins
                .joins
                .iter_mut()
                .try_for_each(|j| asof::rewrite::operator(&mut j.join_operator)),
            TableFactor::Table { name, args: Some(args), .. } => {
                let name = name.to_string().to_ascii_lowercase();
                relations::inputs(&name).map_or(Ok(()), |n| relations::as_queries(&name, n, &mut args.args))
            }
            _ => Ok(()),
        };
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}
