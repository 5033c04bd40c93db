//! SQL expressions of `select`: text to DataFusion's physical expressions, or problems.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, SchemaError};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{ExprWithAlias, Ident, SelectItem, WildcardAdditionalOptions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tidemill_engine::component::{Problems, StreamInfo};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;

/// The longest text, in words and signs: expressions nest no deeper than the stack bears.
pub const TOKENS_MAX: usize = 1000;

const DIALECT: GenericDialect = GenericDialect {};

/// An output column.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// The input column that it is, unchanged.
    pub column: Option<String>,
    /// What computes it.
    pub expr: Arc<dyn PhysicalExpr>,
    /// Its type, one that graphs know where there is one.
    pub data_type: DataType,
    /// Whether it can be null.
    pub nullable: bool,
}

/// Reads SQL against one stream's columns.
pub struct Reader<'a> {
    input: &'a StreamInfo,
    schema: DFSchema,
    session: SessionState,
}

impl<'a> Reader<'a> {
    /// A reader for expressions over `input`.
    pub fn new(input: &'a StreamInfo) -> Result<Self, Problems> {
        let schema = DFSchema::try_from(input.schema.as_ref().clone())
            .map_err(|e| vec![Problem::new("", tidy(&e.to_string()))])?;
        let session = SessionStateBuilder::new().with_default_features().build();
        Ok(Self { input, schema, session })
    }

    /// Reads a list of expressions. System columns in it are passed over.
    pub fn list(&self, path: &str, sql: &str) -> Result<Vec<Item>, Problems> {
        let mut problems = Problems::new();
        let mut items: Vec<Item> = Vec::new();
        for item in
            parse(path, sql, |p| p.parse_comma_separated(Parser::parse_select_item)).map_err(|p| vec![p])?
        {
            match self.item(path, item) {
                Ok(more) => items.extend(more),
                Err(problem) => problems.push(problem),
            }
        }
        for (i, item) in items.iter().enumerate() {
            if items[..i].iter().any(|other| other.name == item.name) {
                let reason = format!("there are two columns `{}`", item.name);
                problems.push(Problem::new(path, reason).hint("rename one: `… AS name`"));
            }
        }
        if problems.is_empty() { Ok(items) } else { Err(problems) }
    }

    /// Reads a condition.
    pub fn condition(&self, path: &str, sql: &str) -> Result<Arc<dyn PhysicalExpr>, Problem> {
        let expr = parse(path, sql, |p| p.parse_expr())?;
        let expr = self.logical(path, ExprWithAlias { expr, alias: None })?;
        let item = self.physical(path, String::new(), expr)?;
        match item.data_type {
            DataType::Boolean => Ok(item.expr),
            t => {
                let t = tidemill_engine::schema::type_name(&t);
                Err(Problem::new(path, format!("a condition must be true or false, this is {t}")))
            }
        }
    }

    fn item(&self, path: &str, item: SelectItem) -> Result<Vec<Item>, Problem> {
        let (expr, alias) = match item {
            SelectItem::Wildcard(options) if options == WildcardAdditionalOptions::default() => {
                let columns = self.input.user_columns().map(|f| f.name().clone());
                return columns
                    .map(|n| self.physical(path, n.clone(), Expr::Column(Column::from_name(n))))
                    .collect();
            }
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
            other => {
                let reason = format!("`{other}` is not supported");
                return Err(Problem::new(path, reason).hint("write `*`, or the columns one by one"));
            }
        };
        let text = expr.to_string();
        let logical = self.logical(path, ExprWithAlias { expr, alias: None })?;
        let name = match (alias, &logical) {
            (Some(alias), _) => ident(alias),
            (None, Expr::Column(column)) => column.name.clone(),
            (None, _) => {
                return Err(
                    Problem::new(path, format!("`{text}` has no name")).hint(format!("`{text} AS name`"))
                );
            }
        };
        if row::is_system(&name) {
            return match &logical {
                Expr::Column(column) if column.name == name => Ok(Vec::new()),
                _ => Err(Problem::new(path, format!("`{name}` cannot be another value than it is"))
                    .hint("rows keep their event time and origin; give the expression another name")),
            };
        }
        Ok(vec![self.physical(path, name, logical)?])
    }

    fn logical(&self, path: &str, sql: ExprWithAlias) -> Result<Expr, Problem> {
        let text = sql.expr.to_string();
        let expr = self
            .session
            .create_logical_expr_from_sql_expr(sql, &self.schema)
            .map_err(|e| self.problem(path, &e))?;
        let mut refused = None;
        let walk = expr.apply(|part| {
            let reason = match part {
                Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                    Some(format!("`{}()` gives another value each time", f.func.name()))
                }
                Expr::AggregateFunction(f) => Some(format!("`{}()` needs many rows", f.func.name())),
                Expr::WindowFunction(f) => Some(format!("`{}()` needs many rows", f.fun.name())),
                Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
                    Some("there is no other table to query".to_owned())
                }
                Expr::ScalarVariable(..) | Expr::Placeholder(_) => {
                    Some(format!("`{part}` is a variable without a value"))
                }
                Expr::Unnest(_) | Expr::GroupingSet(_) | Expr::OuterReferenceColumn(..) => {
                    Some(format!("`{text}` is not an expression over one row"))
                }
                _ => None,
            };
            refused = reason;
            Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        walk.map_err(|e| self.problem(path, &e))?;
        match refused {
            None => Ok(expr),
            Some(reason) => Err(Problem::new(path, reason)
                .hint("`select` computes each row from that row alone; `bars` and `indicators` look back")),
        }
    }

    fn physical(&self, path: &str, name: String, logical: Expr) -> Result<Item, Problem> {
        let column = match &logical {
            Expr::Column(column) => Some(column.name.clone()),
            _ => None,
        };
        let fail = |e: DataFusionError| self.problem(path, &e);
        let expr = self.session.create_physical_expr(logical, &self.schema).map_err(fail)?;
        let made = expr.data_type(&self.input.schema).map_err(fail)?;
        let nullable = expr.nullable(&self.input.schema).map_err(fail)?;
        if made == DataType::Null {
            let problem = Problem::new(path, format!("`{name}` is always null, so it has no type"));
            return Err(problem.hint("cast it: `CAST(NULL AS DOUBLE)`"));
        }
        let data_type = if column.is_some() { made } else { known_type(made) };
        Ok(Item { name, column, expr, data_type, nullable })
    }

    fn problem(&self, path: &str, error: &DataFusionError) -> Problem {
        if let DataFusionError::SchemaError(inner, _) = error.find_root()
            && let SchemaError::FieldNotFound { field, .. } = inner.as_ref()
        {
            let names: Vec<&str> = self.input.schema.fields().iter().map(|f| f.name().as_str()).collect();
            if let Some(name) =
                names.iter().find(|n| n.eq_ignore_ascii_case(field.name()) && **n != field.name())
            {
                return Problem::new(path, format!("`{}` has no column `{}`", self.input.name, field.name()))
                    .hint(format!(
                        "did you mean `{name}`? write \"{name}\" in double quotes to keep its capitals"
                    ));
            }
            if let Err(problem) = self.input.column(path, field.name()) {
                return problem;
            }
        }
        Problem::new(path, tidy(&error.find_root().to_string()))
    }
}

/// SQL's own rule: names are lower case unless quoted.
fn ident(ident: Ident) -> String {
    if ident.quote_style.is_some() { ident.value } else { ident.value.to_lowercase() }
}

fn parse<T>(
    path: &str,
    sql: &str,
    read: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Result<T, Problem> {
    let broken = |e: ParserError| {
        let problem = Problem::new(path, tidy(&e.to_string()));
        problem.hint(format!("in `{}`", sql.trim()))
    };
    let tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location();
    let tokens = tokens.map_err(|e| broken(ParserError::TokenizerError(e.to_string())))?;
    if tokens.len() > TOKENS_MAX {
        let reason = format!("more than {TOKENS_MAX} words and signs");
        return Err(Problem::new(path, reason).hint("split it over two `select` nodes"));
    }
    let subquery = |t: &Token| matches!(t, Token::Word(w) if w.keyword == Keyword::SELECT);
    if let Some(found) = tokens.iter().find(|t| subquery(&t.token)) {
        let problem = Problem::new(
            path,
            format!("SELECT at line {}, column {}", found.span.start.line, found.span.start.column),
        );
        return Err(problem.hint("write expressions alone; there is no other table to query"));
    }
    let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
    let parsed = read(&mut parser).map_err(broken)?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let reason = format!(
            "unexpected `{}` at line {}, column {}",
            rest.token, rest.span.start.line, rest.span.start.column
        );
        return Err(Problem::new(path, reason).hint("write expressions alone; a condition goes to `where`"));
    }
    Ok(parsed)
}

/// The type that graphs have a name for, where values fit.
fn known_type(t: DataType) -> DataType {
    match t {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::UInt64,
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        t => t,
    }
}

/// DataFusion's words in the house's manner.
fn tidy(message: &str) -> String {
    let mut text = message.trim();
    for prefix in [
        "Error during planning: ",
        "sql parser error: ",
        "Schema error: ",
        "Invalid or Unsupported Configuration: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let text = text.trim_end_matches('.').replace("Line: ", "line ").replace("Column: ", "column ");
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text,
    }
}
