//! What kind of failure ended a run, and the exit code that says it.

use serde::{Deserialize, Serialize};

/// What a supervisor should do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// It may pass: a restart may help.
    Transient,
    /// It comes again with every restart, until a person changes something.
    Fatal,
    /// A newer run has taken over: this one must not start again.
    Fenced,
}

impl FailureClass {
    /// The exit code of a process that ends with such a failure (0: finished or stopped in order, 2: wrong usage or graph).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Fatal => 1,
            // EX_TEMPFAIL of sysexits.h.
            Self::Transient => 75,
            Self::Fenced => 76,
        }
    }
}
