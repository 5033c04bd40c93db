//! TRIX: one-row rate of change, in percent, of a triple EMA. Jack Hutson, Stocks & Commodities
//! (1983).
//!
//! Warm-up: 3 period - 1 rows. State: 57 bytes. Null rows are skipped. As TA-Lib.
use schemars::JsonSchema;
use serde::Deserialize;

use super::dema::nest;
use super::ema::{Ema, EmaState};
use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const TRIX: Spec = Spec::of::<TrixParams, 1, 1>("trix", &[Role::Price], &["trix"]);

/// One-row rate of change, in percent, of a triple exponential average.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrixParams {
    /// Period of each average.
    pub period: u32,
}

impl Default for TrixParams {
    fn default() -> Self {
        TrixParams { period: 15 }
    }
}

impl Params for TrixParams {
    type Indicator = Trix;

    fn build(&self) -> Result<Trix, ParamError> {
        Ok(Trix(Ema::new(period("period", self.period)?)))
    }
}

/// See [`TrixParams`].
#[derive(Clone, Debug)]
pub struct Trix(Ema);

impl Indicator<1, 1> for Trix {
    type State = ([EmaState; 3], Option<f64>);

    #[inline]
    fn step(&self, (averages, last): &mut Self::State, [x]: [f64; 1]) -> [f64; 1] {
        let [.., smooth] = nest(&self.0, averages, x);
        if smooth.is_nan() {
            return [f64::NAN];
        }
        let last = last.replace(smooth).unwrap_or(f64::NAN);
        [100.0 * (ratio(smooth, last) - 1.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn steady_growth_shows_as_it_is() {
        let rows: Vec<_> = (0..200).map(|i| [1.01_f64.powi(i)]).collect();
        let out = run(&Trix(Ema::new(3)), &rows);
        assert!(out[6][0].is_nan() && !out[7][0].is_nan());
        assert_close(&out[199], &[1.0]);
    }
}
