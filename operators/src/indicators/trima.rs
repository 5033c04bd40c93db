//! TRIMA: triangular moving average, an SMA of an SMA: the middle of the window weighs most.
//!
//! Warm-up: `period` rows. State: 8 bytes a row of the window. Null rows are skipped. As TA-Lib.
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::RollingSum;
use super::sma::Sma;

pub(super) const TRIMA: Spec = Spec::of::<TrimaParams, 1, 1>("trima", &[Role::Price], &["trima"]);

/// Triangular moving average: an average of averages, the middle of the window weighs most.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrimaParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for TrimaParams {
    fn default() -> Self {
        TrimaParams { period: 20 }
    }
}

impl Params for TrimaParams {
    type Indicator = Trima;

    fn build(&self) -> Result<Trima, ParamError> {
        let period = period("period", self.period)?;
        let first = period.div_ceil(2);
        Ok(Trima { first: Sma::new(first), second: Sma::new(period + 1 - first) })
    }
}

/// See [`TrimaParams`].
#[derive(Clone, Debug)]
pub struct Trima {
    first: Sma,
    second: Sma,
}

impl Indicator<1, 1> for Trima {
    type State = [RollingSum; 2];

    #[inline]
    fn step(&self, [first, second]: &mut Self::State, [x]: [f64; 1]) -> [f64; 1] {
        let mean = self.first.push(first, x);
        if mean.is_nan() {
            return [mean];
        }
        [self.second.push(second, mean)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn the_middle_weighs_most() {
        let trima = TrimaParams { period: 4 }.build().unwrap();
        let out = run(&trima, &[[6.0], [0.0], [12.0], [0.0]]);
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, f64::NAN, 5.0]);
    }
}
