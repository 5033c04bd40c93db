//! WILLIAMS_R: Williams %R, how far the close is below the highest high of the window, in percent
//! of its range (0 to -100). Larry Williams, How I Made One Million Dollars (1973).
//!
//! Warm-up: `period` rows. State: at most 18 bytes a row of the window, each way. Null rows are
//! skipped. As TA-Lib, but NaN in place of 0 where there is no range.
use schemars::JsonSchema;
use serde::Deserialize;

use super::extremes::Extremes;
use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const WILLIAMS_R: Spec =
    Spec::of::<WilliamsRParams, 3, 1>("williams_r", &[Role::High, Role::Low, Role::Close], &["williams_r"]);

/// Williams %R: how far the close is below the highest high, in percent of the range of the window
/// (0 to -100).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WilliamsRParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for WilliamsRParams {
    fn default() -> Self {
        WilliamsRParams { period: 14 }
    }
}

impl Params for WilliamsRParams {
    type Indicator = WilliamsR;

    fn build(&self) -> Result<WilliamsR, ParamError> {
        Ok(WilliamsR { period: period("period", self.period)? })
    }
}

/// See [`WilliamsRParams`].
#[derive(Clone, Debug)]
pub struct WilliamsR {
    period: usize,
}

impl Indicator<3, 1> for WilliamsR {
    type State = Extremes;

    #[inline]
    fn step(&self, s: &mut Extremes, [high, low, close]: [f64; 3]) -> [f64; 1] {
        s.push(self.period, high, low);
        if !s.is_full(self.period) {
            return [f64::NAN];
        }
        [-100.0 * ratio(s.high() - close, s.high() - s.low())]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn distance_below_the_high() {
        let out = run(&WilliamsR { period: 2 }, &[[4.0, 0.0, 2.0], [3.0, 1.0, 3.0]]);
        assert_close(&column(&out, 0), &[f64::NAN, -25.0]);
    }
}
