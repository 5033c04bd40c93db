//! ULTIMATE: ultimate oscillator, buying pressure in percent of true range over three windows,
//! weighted 4, 2 and 1. Larry Williams, Stocks & Commodities 3:4 (1985).
//!
//! Buying pressure = close - min(low, last close). Warm-up: `slow` + 1 rows. State: 16 bytes a row
//! of each window. Null rows are skipped. As TA-Lib's ULTOSC; NaN where a window has no range,
//! which TA-Lib leaves out.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::atr::TrueRange;
use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, fast_slow, period};
use super::registry::{Role, Spec};
use super::ring::RollingSum;

pub(super) const ULTIMATE: Spec =
    Spec::of::<UltimateParams, 3, 1>("ultimate", &[Role::High, Role::Low, Role::Close], &["ultimate"]);

/// Ultimate oscillator: buying pressure in percent of true range, over three windows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UltimateParams {
    /// Rows in the window that weighs 4.
    pub fast: u32,
    /// Rows in the window that weighs 2.
    pub middle: u32,
    /// Rows in the window that weighs 1.
    pub slow: u32,
}

impl Default for UltimateParams {
    fn default() -> Self {
        UltimateParams { fast: 7, middle: 14, slow: 28 }
    }
}

impl Params for UltimateParams {
    type Indicator = Ultimate;

    fn build(&self) -> Result<Ultimate, ParamError> {
        let (fast, slow) = fast_slow(self.fast, self.slow)?;
        let middle = period("middle", self.middle)?;
        Ok(Ultimate([fast, middle, slow]))
    }
}

/// See [`UltimateParams`].
#[derive(Clone, Debug)]
pub struct Ultimate([usize; 3]);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UltimateState {
    last: Option<f64>,
    pressure: [RollingSum; 3],
    range: [RollingSum; 3],
}

impl Indicator<3, 1> for Ultimate {
    type State = UltimateState;

    #[inline]
    fn step(&self, s: &mut UltimateState, bar: [f64; 3]) -> [f64; 1] {
        let [_, low, close] = bar;
        let pressure = close - s.last.map_or(low, |last| low.min(last));
        let range = TrueRange::push(&mut s.last, bar);
        if range.is_nan() {
            return [f64::NAN];
        }
        let mut total = 0.0;
        for (i, weight) in [4.0, 2.0, 1.0].into_iter().enumerate() {
            let pressure = s.pressure[i].push(self.0[i], pressure);
            total += weight * ratio(pressure, s.range[i].push(self.0[i], range));
        }
        [total * 100.0 / 7.0]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn closes_at_the_high_are_all_buying() {
        let ultimate = UltimateParams { fast: 1, middle: 2, slow: 3 }.build().unwrap();
        let out = run(&ultimate, &[[2.0, 1.0, 2.0]; 5]);
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, f64::NAN, 100.0, 100.0]);
    }
}
