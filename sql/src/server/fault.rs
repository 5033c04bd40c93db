//! Errors as Postgres clients know them: a code, a place in the text, a hint.
//!
//! Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>

use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};

use crate::error::{ErrorKind, SqlError};

/// An error of ours.
pub(super) fn of(error: &SqlError, sql: &str) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".into(), code(error.kind).into(), error.message.clone());
    info.hint = error.hint.clone();
    info.position =
        error.place.and_then(|place| position(sql, place.line, place.column)).map(|n| n.to_string());
    PgWireError::UserError(Box::new(info))
}

/// An error by code and message.
pub(super) fn new(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".into(), code.into(), message.into())))
}

/// An error that ends the connection.
pub(super) fn fatal(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), code.into(), message.into())))
}

fn code(kind: ErrorKind) -> &'static str {
    match kind {
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

/// The number of the character at a line and column, all from 1.
fn position(sql: &str, line: usize, column: usize) -> Option<usize> {
    let before: usize =
        sql.split_inclusive('\n').take(line.checked_sub(1)?).map(|line| line.chars().count()).sum();
    Some(before + column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        assert_eq!(position("SELECT 1", 1, 8), Some(8));
        assert_eq!(position("-- ü\nSELECT x", 2, 8), Some(13));
        assert_eq!(position("x", 0, 1), None);
    }
}
