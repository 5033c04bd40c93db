//! LINREG: the line of least squares through the last `period` values: its end at this row, its
//! slope a row, its start (intercept, at the oldest row) and where it points next (forecast). TA-
//! Lib: LINEARREG, _SLOPE, _INTERCEPT, TSF.
//!
//! Warm-up: `period` rows. State: 8 bytes a row of the window and 33. Null rows are skipped. As TA-
//! Lib, without its drift (see `trend`).
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::Indicator;
use super::params::{ParamError, Params, period_from};
use super::registry::{Role, Spec};
use super::trend::{Trend, TrendState};

pub(super) const LINREG: Spec = Spec::of::<LinregParams, 1, 4>(
    "linreg",
    &[Role::Price],
    &["linreg", "linreg_slope", "linreg_intercept", "linreg_forecast"],
);

/// Linear regression over the window: the line's end at this row, its slope a row, its start
/// (intercept) and its next value (forecast).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinregParams {
    /// Rows in the window, at least 2.
    pub period: u32,
}

impl Default for LinregParams {
    fn default() -> Self {
        LinregParams { period: 14 }
    }
}

impl Params for LinregParams {
    type Indicator = Linreg;

    fn build(&self) -> Result<Linreg, ParamError> {
        Ok(Linreg(Trend::new(period_from("period", self.period, 2)?)))
    }
}

/// See [`LinregParams`].
#[derive(Clone, Debug)]
pub struct Linreg(Trend);

impl Indicator<1, 4> for Linreg {
    type State = TrendState;

    #[inline]
    fn step(&self, s: &mut TrendState, [x]: [f64; 1]) -> [f64; 4] {
        let Some(line) = self.0.push(s, x) else {
            return [f64::NAN; 4];
        };
        let half = line.slope * (self.0.period as f64 - 1.0) / 2.0;
        let end = line.mean + half;
        [end, line.slope, line.mean - half, end + line.slope]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn equals_the_window_summed_anew() {
        windows(|period, rows| {
            if period < 2 {
                return;
            }
            let out = run(&Linreg(Trend::new(period)), &rows.map(|x| [x]));
            let n = period as f64;
            let slope = |w: &[f64]| {
                let (middle, mean) = ((n - 1.0) / 2.0, w.iter().sum::<f64>() / n);
                let at = |i: usize| i as f64 - middle;
                let up: f64 = w.iter().enumerate().map(|(i, x)| at(i) * (x - mean)).sum();
                up / (0..period).map(|i| at(i) * at(i)).sum::<f64>()
            };
            assert_near(&column(&out, 1), &rows.windows(period, slope), rows.scale());
            let end = rows.windows(period, |w| w.iter().sum::<f64>() / n + slope(w) * (n - 1.0) / 2.0);
            assert_near(&column(&out, 0), &end, rows.scale());
        });
    }

    #[test]
    fn a_line_is_found() {
        let rows: Vec<_> = (0..9).map(|i| [3.0 * f64::from(i) - 1.0]).collect();
        assert_close(&run(&Linreg(Trend::new(4)), &rows)[8], &[23.0, 3.0, 14.0, 26.0]);
    }
}
