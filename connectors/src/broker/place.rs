//! Where a journal or a log is kept: a folder of this machine, or a place in object storage.

use std::path::{Path, PathBuf};

use tidemill_engine::connector::ConnectorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::storage::{self, Location};

/// A folder or file, on this machine or in object storage.
#[derive(Clone, Debug)]
pub enum Place {
    /// A path of this machine.
    Local(PathBuf),
    /// A place in object storage.
    Store(Location),
}

impl Place {
    /// The place that `url` names: `s3://`, `gs://`, `az://`, `file://`, or a path relative to `base`. `at` is the parameter, for
    /// the problem where there is none.
    pub fn parse(url: &str, base: &Path, at: &str) -> Result<Self, Problem> {
        if url.is_empty() {
            return Err(Problem::new(at, "must not be empty"));
        }
        if let Some(path) = storage::local_path(url, base) {
            return Ok(Self::Local(base.join(path)));
        }
        let problem = |reason: String| {
            Problem::new(at, reason)
                .hint("a folder of this machine, or s3://, gs:// or az:// with a bucket and a folder")
        };
        if url.starts_with("memory:") {
            return Err(problem(format!("`{url}` does not last")));
        }
        storage::open(url, base).map(Self::Store).map_err(|e| problem(e.to_string()))
    }

    /// A place below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(name)),
            Self::Store(location) => Self::Store(Location {
                path: location.path.clone().join(name),
                display: format!("{}/{name}", location.display.trim_end_matches('/')),
                ..location.clone()
            }),
        }
    }

    /// The path, where it is one of this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Store(_) => None,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Store(location) => f.write_str(&location.display),
        }
    }
}

/// An error of object storage at `what`.
pub fn store_failed(what: impl std::fmt::Display, error: &object_store::Error) -> ConnectorError {
    match storage::may_pass(error) {
        true => ConnectorError::transient(what, error),
        false => ConnectorError::fatal(what, error),
    }
}
