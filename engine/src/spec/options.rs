//! The `with:` fields that every source has, whatever its kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Span;

/// Fields of a source's `with:` block that the engine handles.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SourceOptions {
    /// Column that holds the event time. Default `ts`.
    pub event_time: String,
    /// Unit of the event time where the column is a plain integer.
    pub event_time_unit: TimeUnitName,
    /// How far behind the newest row of its partition a row may come and still be in time.
    /// Zero (the default) promises that partitions are in order of time.
    pub max_out_of_orderness: Span,
    /// What happens to rows older than that.
    pub late: LatePolicy,
    /// What happens to input that cannot become a row.
    pub on_error: OnError,
    /// A partition without rows for this long (wall clock) stops holding the watermark back. Where all
    /// partitions of a feed are silent, its time goes on at the speed of the clock, this far behind. Off by
    /// default: with it, what is late can depend on arrival. A stalled partition is reported either way.
    pub idle_timeout: Option<Span>,
    /// Rows before this are refused. Default 1900-01-01T00:00:00Z.
    pub ts_min: Option<String>,
    /// Rows at or after this are refused: a wrong unit must not drag the watermark into the
    /// future. Default 2200-01-01T00:00:00Z.
    pub ts_max: Option<String>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            event_time: crate::row::TS.into(),
            event_time_unit: TimeUnitName::Ns,
            max_out_of_orderness: Span::default(),
            late: LatePolicy::Admit,
            on_error: OnError::default(),
            idle_timeout: None,
            ts_min: None,
            ts_max: None,
        }
    }
}

/// Names that fields of [`SourceOptions`] had before, and their names now; both are accepted.
pub const FORMER_NAMES: [(&str, &str); 1] = [("lateness", "max_out_of_orderness")];

/// Units of integer times.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnitName {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    #[default]
    Ns,
}

impl TimeUnitName {
    /// Nanoseconds in one.
    pub fn nanoseconds(self) -> i64 {
        match self {
            Self::S => 1_000_000_000,
            Self::Ms => 1_000_000,
            Self::Us => 1_000,
            Self::Ns => 1,
        }
    }
}

/// What happens to a row older than its partition's watermark. All three are counted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LatePolicy {
    /// It joins the stream at the watermark: its `ts` becomes the watermark (an event time column
    /// of another name keeps the original).
    #[default]
    Admit,
    /// It goes to the dead letters, with the reason `late`.
    Divert,
    /// It is left out.
    Drop,
}

/// What happens to input that cannot become a row: malformed, wrong types, missing fields, a time
/// out of range.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The job stops with the place and the reason.
    #[default]
    Fail,
    /// It is counted and left out.
    Skip,
    /// It goes to the sink of this name, with its raw bytes, origin and reason.
    DeadLetter(String),
}
