//! SMA: simple moving average, the mean of the last `period` values.
//!
//! Warm-up: `period` rows. State: 8 bytes a row of the window. Null rows are skipped. As TA-Lib's
//! SMA, but the sum is compensated, so it does not drift however long the run.
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::RollingSum;

pub(super) const SMA: Spec = Spec::of::<SmaParams, 1, 1>("sma", &[Role::Price], &["sma"]);

/// Simple moving average: the mean of the last `period` values.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmaParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for SmaParams {
    fn default() -> Self {
        SmaParams { period: 20 }
    }
}

impl Params for SmaParams {
    type Indicator = Sma;

    fn build(&self) -> Result<Sma, ParamError> {
        Ok(Sma::new(period("period", self.period)?))
    }
}

/// See [`SmaParams`].
#[derive(Clone, Debug)]
pub struct Sma {
    period: usize,
    inverse: f64,
}

impl Sma {
    pub fn new(period: usize) -> Self {
        Sma { period, inverse: 1.0 / period as f64 }
    }

    /// The mean, NaN until the window is full.
    #[inline]
    pub fn push(&self, s: &mut RollingSum, x: f64) -> f64 {
        s.push(self.period, x) * self.inverse
    }
}

impl Indicator<1, 1> for Sma {
    type State = RollingSum;

    #[inline]
    fn step(&self, s: &mut RollingSum, [x]: [f64; 1]) -> [f64; 1] {
        [self.push(s, x)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn mean_of_the_last_three() {
        let out = run(&Sma::new(3), &[[1.0], [2.0], [3.0], [7.0]]);
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, 2.0, 4.0]);
    }
}
