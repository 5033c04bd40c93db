//! Users and their passwords, from a file.
//!
//! A line is `user:password`; empty lines and lines that begin with `#` are passed over. As with
//! `~/.pgpass`, nobody but its owner may read the file. What stays in memory is what SCRAM needs: each
//! password salted and hashed (RFC 5802), not the password.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::sasl::scram::{
    SCRAM_ITERATIONS, gen_salted_password, random_nonce,
};
use datafusion_postgres::pgwire::api::auth::{AuthSource, LoginInfo, Password};
use datafusion_postgres::pgwire::error::PgWireResult;

use super::ServerError;

/// Users and their passwords.
#[derive(Clone)]
pub struct Passwords {
    users: Arc<BTreeMap<String, Password>>,
    /// Stands in for users that are not there, so that they fail as late as a wrong password does.
    nobody: Password,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Passwords").field(&self.users.keys()).finish()
    }
}

impl Passwords {
    /// Reads a password file.
    pub fn read(path: &Path) -> Result<Self, ServerError> {
        let failed = |reason: String| ServerError::Passwords { path: path.to_owned(), reason };
        private(path).map_err(failed)?;
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, password) =
                line.split_once(':').ok_or_else(|| format!("line {} is not `user:password`", number + 1))?;
            if user.is_empty() || password.is_empty() {
                return Err(format!("line {} has an empty user or password", number + 1));
            }
            if users.insert(user.to_owned(), salted(password)).is_some() {
                return Err(format!("line {} names user `{user}` again", number + 1));
            }
        }
        if users.is_empty() {
            return Err("it names no user; write lines of `user:password`".to_owned());
        }
        Ok(Self { users: Arc::new(users), nobody: salted(&random_nonce()) })
    }
}

fn salted(password: &str) -> Password {
    let salt = random_nonce().into_bytes();
    let hash = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
    Password::new(Some(salt), hash)
}

#[cfg(unix)]
fn private(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(|e| e.to_string())?.permissions().mode();
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(format!("others may read it (mode {:o}); run chmod 600 on it", mode & 0o777)),
    }
}

#[cfg(not(unix))]
fn private(_: &Path) -> Result<(), String> {
    Ok(())
}

#[async_trait]
impl AuthSource for Passwords {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let known = login.user().and_then(|user| self.users.get(user));
        Ok(known.unwrap_or(&self.nobody).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users_and_what_is_wrong_is_said_without_the_password() {
        let read = Passwords::parse("# traders\nann:with:colon\n\nbob:x\r\n").unwrap();
        assert_eq!(read.users.keys().collect::<Vec<_>>(), ["ann", "bob"]);
        assert!(!format!("{read:?}").contains("colon"));
        for (text, reason) in [
            ("", "it names no user; write lines of `user:password`"),
            ("hunter2", "line 1 is not `user:password`"),
            ("a:b\nc:", "line 2 has an empty user or password"),
            ("a:b\na:c", "line 2 names user `a` again"),
        ] {
            assert_eq!(Passwords::parse(text).unwrap_err(), reason);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords");
        std::fs::write(&file, "a:b\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Passwords::read(&file).unwrap_err().to_string();
        assert!(refused.contains("others may read it (mode 640); run chmod 600 on it"), "{refused}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        Passwords::read(&file).unwrap();
    }
}
