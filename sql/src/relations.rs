//! Table functions that take tables: `asof_join(trades, quotes, 'symbol')`, `gap_fill((SELECT …), ts, '1m')`.
//!
//! A table is given by name, as a query in parentheses, or either of them as text. DataFusion's own table
//! functions take constants only; so names and texts first become queries ([`as_queries`], while the
//! statement is rewritten), and [`Relations`] plans the calls.

mod asof;
mod fill;

use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, ObjectName, Query, SetExpr, Statement, TableAlias, TableFactor, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// How many tables a table function takes first, if it is one of ours.
pub(crate) fn inputs(name: &str) -> Option<usize> {
    match name {
        "asof_join" => Some(2),
        "gap_fill" => Some(1),
        _ => None,
    }
}

/// Makes queries of the first `n` arguments.
pub(crate) fn as_queries(name: &str, n: usize, args: &mut [FunctionArg]) -> Result<()> {
    if args.len() < n {
        let usage = if n == 2 { asof::USAGE } else { fill::USAGE };
        return plan_err!("{name} needs more arguments: {usage}");
    }
    for arg in &mut args[..n] {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
            return plan_err!("{name} takes a table, or a query in parentheses, not `{arg}`");
        };
        let query = match expr {
            ast::Expr::Subquery(_) => continue,
            ast::Expr::Identifier(ident) => select_all(ObjectName::from(vec![ident.clone()])),
            ast::Expr::CompoundIdentifier(idents) => select_all(ObjectName::from(idents.clone())),
            ast::Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => parse(name, text)?,
                other => return plan_err!("{name} takes a table, or a query in parentheses, not {other}"),
            },
            other => return plan_err!("{name} takes a table, or a query in parentheses, not `{other}`"),
        };
        *expr = ast::Expr::Subquery(Box::new(query));
    }
    Ok(())
}

/// A query, or the name of a table, as text.
fn parse(name: &str, text: &str) -> Result<Query> {
    let word = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    let whole = if matches!(word.as_str(), "select" | "with" | "values") {
        text.to_owned()
    } else {
        format!("SELECT * FROM {text}")
    };
    match Parser::parse_sql(&GenericDialect {}, &whole) {
        Ok(mut statements) => match (statements.pop(), statements.is_empty()) {
            (Some(Statement::Query(query)), true) => Ok(*query),
            _ => plan_err!("{name} takes one query, not `{text}`"),
        },
        Err(e) => plan_err!("in the query given to {name}: {e}"),
    }
}

fn select_all(table: ObjectName) -> Query {
    let text = format!("SELECT * FROM {table}");
    let parsed = Parser::parse_sql(&GenericDialect {}, &text).ok().and_then(|mut s| s.pop());
    match parsed {
        Some(Statement::Query(mut query)) => {
            // The place of the name in the user's text stays.
            if let SetExpr::Select(select) = &mut *query.body
                && let Some(from) = select.from.first_mut()
                && let TableFactor::Table { name, .. } = &mut from.relation
            {
                *name = table;
            }
            *query
        }
        _ => unreachable!("a name that was parsed parses again"),
    }
}

/// Plans our table functions.
#[derive(Debug)]
pub(crate) struct Relations;

impl RelationPlanner for Relations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let name = name.to_string().to_ascii_lowercase();
        let Some(n) = inputs(&name) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let mut args = args.args.clone();
        // Front ends that do not rewrite statements find tables by name only.
        as_queries(&name, n, &mut args)?;
        let mut tables = Vec::new();
        let mut others = Vec::new();
        for (i, arg) in args.into_iter().enumerate() {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
                return plan_err!("{name} takes its arguments in order, not `{arg}`");
            };
            match expr {
                ast::Expr::Subquery(subquery) if i < n => {
                    tables.push(context.plan(derived(*subquery, ["l", "r"][i.min(1)]))?);
                }
                // The name of a column may stand without quotes.
                ast::Expr::Identifier(ident) => {
                    others.push(Expr::Literal(ScalarValue::from(context.normalize_ident(ident)), None));
                }
                expr => others.push(context.sql_to_expr(expr, &datafusion::common::DFSchema::empty())?),
            }
        }
        let plan = match name.as_str() {
            "asof_join" => asof::plan(tables, others, context)?,
            _ => fill::plan(tables, others)?,
        };
        let plan = unqualified(plan)?;
        let alias = alias.clone().or_else(|| Some(alias_of(&name)));
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn alias_of(name: &str) -> TableAlias {
    TableAlias { explicit: false, name: ast::Ident::new(name), columns: vec![], at: None }
}

fn derived(query: Query, alias: &str) -> TableFactor {
    TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(alias_of(alias)),
        sample: None,
    }
}

/// The plan with its columns' bare names.
fn unqualified(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns: Vec<Expr> =
        plan.schema().iter().map(|(q, f)| Expr::from((q, f)).alias(f.name().clone())).collect();
    datafusion::logical_expr::LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// A constant argument as text.
fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => Some(text),
        _ => None,
    }
}

/// Names in a text, separated by commas.
fn names(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|n| !n.is_empty()).collect()
}
