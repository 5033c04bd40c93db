//! Limits on indicator params, and the error that names the param at fault.
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// The longest window, in rows.
pub const PERIOD_MAX: u32 = 100_000;

/// A param that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ParamError {
    /// The param's name; empty where the fault is in the whole.
    pub path: String,
    pub reason: String,
}

impl ParamError {
    pub fn new(path: &str, reason: impl Into<String>) -> Self {
        ParamError { path: path.into(), reason: reason.into() }
    }
}

/// What a user writes for an indicator: every field has a default.
pub trait Params: Default + DeserializeOwned + JsonSchema {
    type Indicator;

    /// Checks the fields against each other and their limits.
    fn build(&self) -> Result<Self::Indicator, ParamError>;
}

/// Reads params from JSON; null stands for none given.
pub fn read<P: Params>(json: &serde_json::Value) -> Result<P, ParamError> {
    let fields = match json {
        serde_json::Value::Null => return Ok(P::default()),
        serde_json::Value::Object(fields) => fields,
        _ => return Err(ParamError::new("", "params must be a mapping")),
    };
    // One field at a time, as each has a default: so the error knows its field.
    for (name, value) in fields {
        let alone = serde_json::Map::from_iter([(name.clone(), value.clone())]);
        if let Err(e) = P::deserialize(serde_json::Value::Object(alone)) {
            return Err(ParamError::new(name, e.to_string()));
        }
    }
    P::deserialize(json).map_err(|e| ParamError::new("", e.to_string()))
}

/// A window of at least one row.
pub fn period(path: &str, value: u32) -> Result<usize, ParamError> {
    period_from(path, value, 1)
}

/// A window of at least `min` rows.
pub fn period_from(path: &str, value: u32, min: u32) -> Result<usize, ParamError> {
    if (min..=PERIOD_MAX).contains(&value) {
        Ok(value as usize)
    } else {
        let reason = format!("must be from {min} to {PERIOD_MAX}, not {value}");
        Err(ParamError::new(path, reason))
    }
}

/// A finite number above zero.
pub fn positive(path: &str, value: f64) -> Result<f64, ParamError> {
    if value > 0.0 && value <= 1e9 {
        Ok(value)
    } else {
        let reason = format!("must be above 0 and at most 1e9, not {value}");
        Err(ParamError::new(path, reason))
    }
}

/// Two windows of which the first must be the shorter.
pub fn fast_slow(fast: u32, slow: u32) -> Result<(usize, usize), ParamError> {
    let pair = (period("fast", fast)?, period("slow", slow)?);
    if fast < slow {
        Ok(pair)
    } else {
        let reason = format!("must be below slow ({slow}), not {fast}");
        Err(ParamError::new("fast", reason))
    }
}
