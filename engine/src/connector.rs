//! Errors of sources and sinks.

/// What went wrong at a connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// It may go away by itself: the engine restarts the job from its last checkpoint, with backoff.
    #[error("{0}")]
    Transient(String),
    /// It will not go away: the job stops.
    #[error("{0}")]
    Fatal(String),
    /// A newer run of the same job has taken over: this one stops and must not restart.
    #[error("fenced: {0}")]
    Fenced(String),
}

impl ConnectorError {
    /// A fatal error with its context.
    pub fn fatal(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Fatal(format!("{what}: {error}"))
    }

    /// A transient error with its context.
    pub fn transient(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Transient(format!("{what}: {error}"))
    }
}

impl From<crate::source::Stopped> for ConnectorError {
    fn from(stopped: crate::source::Stopped) -> Self {
        Self::Transient(stopped.to_string())
    }
}
