//! CCI: commodity channel index, (tp - mean) / (0.015 mean absolute deviation), of tp = (high + low
//! + close) / 3. Donald Lambert, Commodities magazine (1980).
//!
//! Warm-up: `period` rows. State: 8 bytes a row of the window. Null rows are skipped. The mean
//! absolute deviation has no update in constant time, so a row costs O(period), vectorised, and the
//! period is at most 1000. As TA-Lib, but NaN in place of 0 where the window is flat.
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::{Ring, sum_of};

pub(super) const CCI: Spec =
    Spec::of::<CciParams, 3, 1>("cci", &[Role::High, Role::Low, Role::Close], &["cci"]);

/// Commodity channel index: distance of the typical price from its mean, in mean deviations of
/// 0.015.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CciParams {
    /// Rows in the window, at most 1000.
    pub period: u32,
}

impl Default for CciParams {
    fn default() -> Self {
        CciParams { period: 20 }
    }
}

impl Params for CciParams {
    type Indicator = Cci;

    fn build(&self) -> Result<Cci, ParamError> {
        let period = period("period", self.period)?;
        if period > 1000 {
            let reason = format!("must be from 1 to 1000, not {period}");
            return Err(ParamError::new("period", reason));
        }
        Ok(Cci { period })
    }
}

/// See [`CciParams`].
#[derive(Clone, Debug)]
pub struct Cci {
    period: usize,
}

impl Indicator<3, 1> for Cci {
    type State = Ring;

    #[inline]
    fn step(&self, s: &mut Ring, [high, low, close]: [f64; 3]) -> [f64; 1] {
        let price = (high + low + close) / 3.0;
        s.push(self.period, price);
        if !s.is_full(self.period) {
            return [f64::NAN];
        }
        let n = self.period as f64;
        // About the newest, so that a flat window has no deviation at all.
        let mean = price + sum_of(s.items(), |x| x - price) / n;
        let deviation = sum_of(s.items(), |x| (x - mean).abs()) / n;
        // (a + b + c) / 3 of equal bars may differ in the last digit: that is no deviation.
        if deviation <= 1e-15 * price.abs() {
            return [f64::NAN];
        }
        [ratio(price - mean, 0.015 * deviation)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn equals_the_window_summed_anew() {
        windows(|period, rows| {
            let out = run(&Cci { period }, &rows.map(|x| [x + 1.0, x - 1.0, x]));
            let anew = rows.windows(period, |w| {
                let mean = w.iter().sum::<f64>() / period as f64;
                let deviation = w.iter().map(|x| (x - mean).abs()).sum::<f64>() / period as f64;
                (w[period - 1] - mean) / (0.015 * deviation)
            });
            for (a, b) in column(&out, 0).iter().zip(&anew) {
                // In a window that is all but flat the reference itself is rounding.
                assert!(a.is_nan() || b.is_nan() || (a - b).abs() < 1e-4, "{a} for {b}");
            }
        });
    }

    #[test]
    fn a_flat_window_has_no_index() {
        let out = run(&Cci { period: 3 }, &[[0.1; 3]; 4]);
        assert!(out[3][0].is_nan());
    }
}
