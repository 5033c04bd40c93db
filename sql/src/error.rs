//! What can go wrong with a query: what, where in its text, and what to do.
//!
//! Messages are lowercase without a full stop. [`SqlError::render`] puts the place under the text, as
//! compilers do.

use std::fmt;

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use tidemill_engine::problem::nearest;

use crate::engine::Limits;

mod place;

pub use place::Place;
use place::{find_word, line_column, names_in, offset, quoted_in};

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The text is no SQL.
    Syntax,
    /// There is no such table.
    UnknownTable,
    /// There is no such column.
    UnknownColumn,
    /// There is no such function, or not with such arguments.
    UnknownFunction,
    /// The query makes no sense: types, grouping, an argument.
    Plan,
    /// It would write.
    ReadOnly,
    /// It needs more memory than it may have.
    Memory,
    /// A file or the archive cannot be read.
    Storage,
    /// A value could not be computed.
    Execution,
    /// It is a bug.
    Internal,
}

impl ErrorKind {
    /// The SQLSTATE that Postgres would give.
    pub fn sqlstate(self) -> &'static str {
        match self {
            ErrorKind::Syntax => "42601",
            ErrorKind::UnknownTable => "42P01",
            ErrorKind::UnknownColumn => "42703",
            ErrorKind::UnknownFunction => "42883",
            ErrorKind::Plan => "42000",
            ErrorKind::ReadOnly => "25006",
            ErrorKind::Memory => "53200",
            ErrorKind::Storage => "58030",
            ErrorKind::Execution => "22000",
            ErrorKind::Internal => "XX000",
        }
    }
}

/// A query that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SqlError {
    /// What kind of thing it is.
    pub kind: ErrorKind,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the text, if known.
    pub place: Option<Place>,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "line {}, column {}: ", place.line, place.column)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl SqlError {
    /// An error without a place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, place: None }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The message with the line of `sql` it is about and a caret under the place.
    pub fn render(&self, sql: &str) -> String {
        let mut out = format!("error: {}\n", self.message);
        if let Some(place) = self.place
            && let Some(line) = sql.lines().nth(place.line.saturating_sub(1))
        {
            let number = place.line.to_string();
            let pad = " ".repeat(number.len());
            let lead: String =
                line.chars().take(place.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let carets = "^".repeat(place.width.max(1));
            out += &format!(" {pad} |\n {number} | {line}\n {pad} | {lead}{carets}\n");
        }
        if let Some(hint) = &self.hint {
            out += &format!("hint: {hint}\n");
        }
        out
    }

    /// What DataFusion says of `sql`, in our words.
    pub(crate) fn of(error: &DataFusionError, sql: &str, limits: &Limits) -> Self {
        let mut span = None;
        let mut root = error;
        loop {
            root = match root {
                DataFusionError::Diagnostic(diagnostic, inner) => {
                    span = span.or(diagnostic.span);
                    inner
                }
                DataFusionError::Context(_, inner) => inner,
                DataFusionError::Shared(inner) => inner,
                DataFusionError::Collection(errors) if !errors.is_empty() => &errors[0],
                _ => break,
            };
        }
        let mut found = Self::of_root(root, sql, limits);
        if found.place.is_none()
            && let Some(span) = span.filter(|s| s.start.line > 0)
        {
            let (line, column) = (span.start.line as usize, span.start.column as usize);
            let width = if span.end.line == span.start.line {
                (span.end.column as usize).saturating_sub(column)
            } else {
                1
            };
            found.place = Some(Place { line, column, width: width.max(1) });
        }
        if found.place.is_none() {
            // Some errors come without a place but name what they are about.
            let called = calls_in(&found.message, &limits.functions);
            let names = quoted_in(&found.message).into_iter().chain(called);
            found.place = names.into_iter().find_map(|name| find_word(sql, name));
        }
        found
    }

    fn of_root(root: &DataFusionError, sql: &str, limits: &Limits) -> Self {
        match root {
            DataFusionError::SQL(parser, _) => Self::of_parser(parser, sql),
            DataFusionError::SchemaError(schema, _) => Self::of_schema(schema),
            DataFusionError::ResourcesExhausted(detail) => {
                let what = consumer(detail).map(|c| format!(" ({c})")).unwrap_or_default();
                if detail.contains("disk") || detail.contains("temporary") {
                    return Self::new(
                        ErrorKind::Memory,
                        format!("the query spilled more to disk than it may: {}", plain(detail)),
                    );
                }
                Self::new(
                    ErrorKind::Memory,
                    format!(
                        "the query needs more memory than its limit of {}{what}",
                        bytes(limits.memory_bytes)
                    ),
                )
                .hint(
                    "read fewer columns or a shorter range of time, or raise the limit with `--memory 8GiB`",
                )
            }
            DataFusionError::Plan(text) => Self::of_plan(text, limits),
            DataFusionError::NotImplemented(text) => {
                Self::new(ErrorKind::Plan, format!("not supported: {}", plain(text)))
            }
            DataFusionError::Execution(text) => Self::new(ErrorKind::Execution, plain(text)),
            DataFusionError::Configuration(text) => Self::new(ErrorKind::Plan, plain(text)),
            DataFusionError::ArrowError(e, _) => {
                let text = e.to_string();
                let text = text.split_once("error: ").map_or(text.as_str(), |(_, rest)| rest);
                Self::new(ErrorKind::Execution, plain(text))
            }
            DataFusionError::ParquetError(_)
            | DataFusionError::IoError(_)
            | DataFusionError::ObjectStore(_) => {
                Self::new(ErrorKind::Storage, plain(&root.strip_backtrace()))
            }
            DataFusionError::External(e) => match e.downcast_ref::<SqlError>() {
                Some(ours) => ours.clone(),
                None => Self::new(ErrorKind::Storage, plain(&e.to_string())),
            },
            DataFusionError::Internal(text) => {
                Self::new(ErrorKind::Internal, plain(text.split("\nThis issue").next().unwrap_or(text)))
            }
            other => Self::new(ErrorKind::Execution, plain(&other.strip_backtrace())),
        }
    }

    fn of_parser(parser: &ParserError, sql: &str) -> Self {
        let text = match parser {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.as_str(),
            ParserError::RecursionLimitExceeded => "expressions nest too deeply",
        };
        let (text, place) = place::cut(text);
        let place = place.map(|(line, column)| {
            let width = offset(sql, line, column).map_or(1, |at| place::word_at(sql, at));
            Place { line, column, width }
        });
        // At the end of the text there is no token to point at.
        let place =
            place.or_else(|| text.contains("found: EOF").then(|| line_column(sql, sql.trim_end().len())));
        let text = text.replace("found: EOF", "found the end of the text");
        Self { kind: ErrorKind::Syntax, message: plain(&text), hint: None, place }
    }

    fn of_schema(schema: &SchemaError) -> Self {
        match schema {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let mut error = Self::new(
                    ErrorKind::UnknownColumn,
                    format!("there is no column `{}`", field.flat_name()),
                );
                let names: Vec<String> = valid_fields.iter().map(|c| c.name.clone()).collect();
                let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
                names.sort_unstable();
                names.dedup();
                let near = nearest(&field.name.to_lowercase(), &names);
                error.hint = match near {
                    Some(name) if name.eq_ignore_ascii_case(&field.name) => {
                        Some(format!("names in double quotes keep their case: write \"{name}\""))
                    }
                    Some(name) => Some(format!("did you mean `{name}`?")),
                    None if names.is_empty() => None,
                    None => Some(format!("there are: {}", some(&names))),
                };
                error
            }
            SchemaError::AmbiguousReference { field } => {
                Self::new(ErrorKind::Plan, format!("`{}` could be a column of several tables", field.name))
                    .hint(format!("say which: `table.{}`", field.name))
            }
            other => Self::new(ErrorKind::Plan, plain(&other.to_string())),
        }
    }

    fn of_plan(text: &str, limits: &Limits) -> Self {
        if let Some(table) = text.strip_prefix("table '").and_then(|t| t.strip_suffix("' not found")) {
            let name = table.rsplit('.').next().unwrap_or(table);
            let names: Vec<&str> = limits.tables.iter().map(String::as_str).collect();
            let error = Self::new(ErrorKind::UnknownTable, format!("there is no table `{name}`"));
            return match nearest(name, &names) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None if names.is_empty() => {
                    error.hint("there are none: name an archive (--archive URL) or files (--table NAME=PATH)")
                }
                None => error.hint(format!("there are: {}", some(&names))),
            };
        }
        if let Some(rest) = text.strip_prefix("Invalid function '")
            && let Some((name, rest)) = rest.split_once('\'')
        {
            if limits.functions.iter().any(|f| f == name) {
                let message = format!("`{name}` is a function over a window");
                return Self::new(ErrorKind::UnknownFunction, message)
                    .hint(format!("`{name}(…) OVER (PARTITION BY symbol ORDER BY ts)`"));
            }
            let error = Self::new(ErrorKind::UnknownFunction, format!("there is no function `{name}`"));
            let names: Vec<&str> = limits.functions.iter().map(String::as_str).collect();
            let near = nearest(name, &names).or_else(|| names_in(rest).into_iter().next());
            return match near {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            };
        }
        if let Some(name) = text.strip_prefix("There is no window function named ") {
            let error =
                Self::new(ErrorKind::UnknownFunction, format!("there is no window function `{name}`"));
            let names: Vec<&str> = limits.functions.iter().map(String::as_str).collect();
            return match nearest(name, &names) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            };
        }
        if let Some((_, rest)) = text.split_once("must be in GROUP BY or an aggregate function")
            && let Some(column) = rest.split('"').nth(1)
        {
            let message = format!("`{column}` must be in GROUP BY, or inside an aggregate");
            return Self::new(ErrorKind::Plan, message)
                .hint(format!("`GROUP BY …, {column}`, or `last({column}, ts)`, say"));
        }
        if let Some((_, rest)) = text.split_once("No function matches the given name and argument types '")
            && let Some((call, rest)) = rest.split_once('\'')
            && !rest.contains("(UserDefined)")
            && let Some((name, types)) = call.split_once('(')
        {
            let message = format!("`{name}` does not take ({types}");
            let error = Self::new(ErrorKind::UnknownFunction, message);
            let known: Vec<&str> = rest.lines().map(str::trim).filter(|l| l.starts_with(name)).collect();
            return if known.is_empty() { error } else { error.hint(format!("it takes: {}", some(&known))) };
        }
        let (text, _) = place::cut(text);
        Self::new(ErrorKind::Plan, plain(&text))
    }
}

/// Functions that a message begins with or calls: `macd: fast must be …`.
fn calls_in<'a>(message: &'a str, functions: &[String]) -> impl Iterator<Item = &'a str> {
    let words = message.split(|c: char| !c.is_alphanumeric() && c != '_');
    let known: Vec<&str> =
        words.filter(|w| functions.binary_search_by(|f| f.as_str().cmp(w)).is_ok()).collect();
    known.into_iter()
}

/// At most a dozen of the names.
fn some(names: &[&str]) -> String {
    match names.len() {
        0..=12 => names.join(", "),
        n => format!("{}, … ({n} in all)", names[..12].join(", ")),
    }
}

/// The first line of a message, as we write ours.
fn plain(text: &str) -> String {
    let mut text = text.trim();
    // What one of our functions says of its arguments stands alone.
    if let Some((_, said)) = text.split_once("coercion failed with: ") {
        text = said;
    }
    // DataFusion adds what it knows of signatures, which for ours is nothing.
    if let Some((said, rest)) = text.split_once(" No function matches the given name and argument types")
        && rest.contains("(UserDefined)")
    {
        text = said;
    }
    if let Some((said, _)) = text.split_once(". Cannot infer schema from an empty location") {
        text = said;
    }
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Parquet error: ",
        "External error: ",
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return plain(rest);
        }
    }
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // A name in capitals (`ASOF`) stays as it is.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// Which operation ran out of memory, from DataFusion's message.
fn consumer(detail: &str) -> Option<String> {
    let after = detail.split("Failed to allocate additional ").nth(1)?;
    let name = after.split(" for ").nth(1)?.split(" with ").next()?;
    Some(format!("in {}", name.split(['[', '#']).next().unwrap_or(name).trim()))
}

/// A number of bytes for people.
pub fn bytes(n: usize) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, "bytes");
    for name in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, name);
    }
    if value.fract() == 0.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(2 << 30), "2 GiB");
        assert_eq!(bytes(1536 << 20), "1.5 GiB");
        assert_eq!(bytes(12), "12 bytes");
    }

    #[test]
    fn a_caret_stands_under_the_place() {
        let mut error = SqlError::new(ErrorKind::Syntax, "odd").hint("do it so");
        error.place = Some(Place { line: 2, column: 6, width: 3 });
        assert_eq!(
            error.render("SELECT 1\nFROM tab"),
            "error: odd\n   |\n 2 | FROM tab\n   |      ^^^\nhint: do it so\n"
        );
    }
}
