//! What can go wrong in an archive.

/// An error of the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Storage failed.
    #[error("cannot {what} in `{place}`: {reason}")]
    Storage {
        /// What was tried.
        what: String,
        /// Where.
        place: String,
        /// What the store said.
        reason: String,
        /// Whether trying again may help.
        passing: bool,
    },
    /// Somebody else has committed a change that this one does not know of.
    #[error("another writer was faster in `{place}`: {reason}")]
    Conflict {
        /// The dataset.
        place: String,
        /// What has changed.
        reason: String,
    },
    /// A file does not hold what it should.
    #[error("`{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was asked for cannot be done.
    #[error("{0}")]
    Invalid(String),
    /// Rows could not be sorted, converted or encoded.
    #[error("cannot {what}: {reason}")]
    Rows {
        /// What was tried.
        what: String,
        /// Why not.
        reason: String,
    },
}

impl ArchiveError {
    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Storage { passing: true, .. } | Self::Conflict { .. })
    }

    pub(crate) fn storage(
        what: impl Into<String>,
        place: impl Into<String>,
        error: &object_store::Error,
    ) -> Self {
        use object_store::Error as E;
        let lasting = matches!(
            error,
            E::PermissionDenied { .. }
                | E::Unauthenticated { .. }
                | E::InvalidPath { .. }
                | E::NotSupported { .. }
                | E::NotImplemented { .. }
                | E::NotFound { .. }
        );
        Self::Storage { what: what.into(), place: place.into(), reason: innermost(error), passing: !lasting }
    }

    pub(crate) fn rows(what: impl Into<String>, error: impl std::fmt::Display) -> Self {
        Self::Rows { what: what.into(), reason: error.to_string() }
    }

    /// An error met while a Parquet file was read: of the store underneath, or of the file.
    pub(crate) fn file(path: &str, error: &parquet::errors::ParquetError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(e) = cause {
            if let Some(store) = e.downcast_ref::<object_store::Error>() {
                return Self::storage("read", path, store);
            }
            cause = e.source();
        }
        Self::Damaged { path: path.to_owned(), reason: error.to_string() }
    }
}

/// The cause at the bottom: object_store wraps what matters.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason = cause.to_string();
        source = cause.source();
    }
    reason
}
