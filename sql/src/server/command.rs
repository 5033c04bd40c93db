//! Statements that are about the connection, not about data.

use datafusion::sql::parser::{ResetStatement, Statement};
use datafusion::sql::sqlparser::ast;

/// What a client asks of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `SET name = value`, `None` where nothing of it is kept.
    Set(Option<(String, String)>),
    /// `SHOW name`.
    Show(String),
    /// `RESET name`.
    Reset(Option<String>),
    /// `BEGIN`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// Nothing to do: answered by its name.
    Nothing(&'static str),
}

/// The command that a statement is; `None` where it is about data.
pub(super) fn of(statement: &Statement) -> Option<Command> {
    let statement = match statement {
        Statement::Statement(statement) => &**statement,
        Statement::Reset(ResetStatement::Variable(name)) => {
            let name = name.to_string();
            return Some(Command::Reset((!name.eq_ignore_ascii_case("all")).then_some(name)));
        }
        _ => return None,
    };
    Some(match statement {
        ast::Statement::Set(set) => Command::Set(setting(set)),
        ast::Statement::ShowVariable { variable } => {
            let words: Vec<String> = variable.iter().map(|word| word.value.to_ascii_lowercase()).collect();
            match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["transaction", "isolation", "level"] => Command::Show("transaction_isolation".into()),
                ["time", "zone"] => Command::Show("timezone".into()),
                [name] => Command::Show(name.to_owned()),
                _ => return None,
            }
        }
        ast::Statement::StartTransaction { statements, .. } if statements.is_empty() => Command::Begin,
        ast::Statement::Commit { .. } => Command::Commit,
        ast::Statement::Rollback { savepoint: None, .. } => Command::Rollback,
        ast::Statement::Rollback { .. } => Command::Nothing("ROLLBACK"),
        ast::Statement::Savepoint { .. } => Command::Nothing("SAVEPOINT"),
        ast::Statement::ReleaseSavepoint { .. } => Command::Nothing("RELEASE"),
        ast::Statement::Discard { object_type: ast::DiscardObject::ALL } => Command::Reset(None),
        ast::Statement::Discard { .. } => Command::Nothing("DISCARD"),
        ast::Statement::Deallocate { .. } => Command::Nothing("DEALLOCATE"),
        ast::Statement::UNLISTEN { .. } => Command::Nothing("UNLISTEN"),
        _ => return None,
    })
}

fn setting(set: &ast::Set) -> Option<(String, String)> {
    match set {
        ast::Set::SingleAssignment { variable, values, .. } => {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            Some((variable.to_string().replace('"', ""), values.join(", ")))
        }
        ast::Set::SetNames { charset_name, .. } => {
            Some(("client_encoding".into(), charset_name.value.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Option<Command> {
        of(&crate::statement::parse(sql).unwrap().remove(0))
    }

    #[test]
    fn what_drivers_say_before_they_ask() {
        for (sql, command) in [
            ("SET statement_timeout = '5s'", Command::Set(Some(("statement_timeout".into(), "'5s'".into())))),
            ("SET extra_float_digits TO 3", Command::Set(Some(("extra_float_digits".into(), "3".into())))),
            ("SET TIME ZONE 'UTC'", Command::Set(None)),
            ("SET TRANSACTION READ ONLY", Command::Set(None)),
            ("SHOW transaction isolation level", Command::Show("transaction_isolation".into())),
            ("show server_version", Command::Show("server_version".into())),
            ("BEGIN", Command::Begin),
            ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ", Command::Begin),
            ("commit", Command::Commit),
            ("ROLLBACK", Command::Rollback),
            ("SAVEPOINT a", Command::Nothing("SAVEPOINT")),
            ("DISCARD ALL", Command::Reset(None)),
            ("DEALLOCATE ALL", Command::Nothing("DEALLOCATE")),
        ] {
            assert_eq!(read(sql), Some(command), "{sql}");
        }
        for sql in ["SELECT 1", "SHOW TABLES", "INSERT INTO t VALUES (1)", "EXPLAIN SELECT 1"] {
            assert_eq!(read(sql), None, "{sql}");
        }
    }
}
