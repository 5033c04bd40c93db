//! VORTEX: sums over the window of |high - last low| (plus) and |low - last high| (minus), over
//! that of the true range. Etienne Botes and Douglas Siepman, Stocks & Commodities 28:1 (2010).
//!
//! Warm-up: `period` + 1 rows. State: 24 bytes a row of the window and 75. Null rows are skipped.
//! As TA-Lib; NaN where there was no range.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::atr::TrueRange;
use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::RollingSum;

pub(super) const VORTEX: Spec = Spec::of::<VortexParams, 3, 2>(
    "vortex",
    &[Role::High, Role::Low, Role::Close],
    &["vortex_plus", "vortex_minus"],
);

/// Vortex indicator: upward (plus) and downward (minus) movement in parts of the true range.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VortexParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for VortexParams {
    fn default() -> Self {
        VortexParams { period: 14 }
    }
}

impl Params for VortexParams {
    type Indicator = Vortex;

    fn build(&self) -> Result<Vortex, ParamError> {
        Ok(Vortex { period: period("period", self.period)? })
    }
}

/// See [`VortexParams`].
#[derive(Clone, Debug)]
pub struct Vortex {
    period: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VortexState {
    high: f64,
    low: f64,
    close: Option<f64>,
    sums: [RollingSum; 3],
}

impl Indicator<3, 2> for Vortex {
    type State = VortexState;

    #[inline]
    fn step(&self, s: &mut VortexState, bar: [f64; 3]) -> [f64; 2] {
        let [high, low, _] = bar;
        let range = TrueRange::push(&mut s.close, bar);
        let up = (high - std::mem::replace(&mut s.low, low)).abs();
        let down = (low - std::mem::replace(&mut s.high, high)).abs();
        if range.is_nan() {
            return [f64::NAN; 2];
        }
        let [plus, minus, ranges] = &mut s.sums;
        let range = ranges.push(self.period, range);
        let plus = plus.push(self.period, up);
        [ratio(plus, range), ratio(minus.push(self.period, down), range)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn by_hand() {
        let vortex = Vortex { period: 1 };
        let out = run(&vortex, &[[3.0, 1.0, 2.0], [5.0, 2.0, 4.0]]);
        assert_close(&out[1], &[4.0 / 3.0, 1.0 / 3.0]);
    }
}
