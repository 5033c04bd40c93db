//! WMA: moving average weighted 1 (oldest) to `period` (newest).
//! HMA: Hull moving average, WMA over sqrt(period) of 2 WMA(period / 2) - WMA(period); Alan Hull
//! (2005).
//!
//! Warm-up: WMA `period` rows, HMA `period` + the whole part of sqrt(period) - 1. State: 8 bytes a
//! row of each window. Null rows are skipped. As TA-Lib, without its drift (see `trend`).
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::Indicator;
use super::params::{ParamError, Params, period, period_from};
use super::registry::{Role, Spec};
use super::trend::{Trend, TrendState};

pub(super) const HMA: Spec = Spec::of::<HmaParams, 1, 1>("hma", &[Role::Price], &["hma"]);

pub(super) const WMA: Spec = Spec::of::<WmaParams, 1, 1>("wma", &[Role::Price], &["wma"]);

/// Weighted moving average: weights from 1 (oldest) to `period` (newest).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WmaParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for WmaParams {
    fn default() -> Self {
        WmaParams { period: 20 }
    }
}

impl Params for WmaParams {
    type Indicator = Wma;

    fn build(&self) -> Result<Wma, ParamError> {
        Ok(Wma::new(period("period", self.period)?))
    }
}

/// Hull moving average: a weighted average of 2 WMA(period / 2) - WMA(period) over sqrt(period).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HmaParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for HmaParams {
    fn default() -> Self {
        HmaParams { period: 20 }
    }
}

impl Params for HmaParams {
    type Indicator = Hma;

    fn build(&self) -> Result<Hma, ParamError> {
        let period = period_from("period", self.period, 2)?;
        Ok(Hma { half: Wma::new(period / 2), whole: Wma::new(period), root: Wma::new(period.isqrt()) })
    }
}

/// See [`WmaParams`].
#[derive(Clone, Debug)]
pub struct Wma(Trend);

impl Wma {
    pub fn new(period: usize) -> Self {
        Wma(Trend::new(period))
    }

    /// The average, NaN until the window is full.
    #[inline]
    pub fn push(&self, s: &mut TrendState, x: f64) -> f64 {
        self.0.push(s, x).map_or(f64::NAN, |line| line.weighted_mean)
    }
}

impl Indicator<1, 1> for Wma {
    type State = TrendState;

    #[inline]
    fn step(&self, s: &mut TrendState, [x]: [f64; 1]) -> [f64; 1] {
        [self.push(s, x)]
    }
}

/// See [`HmaParams`].
#[derive(Clone, Debug)]
pub struct Hma {
    half: Wma,
    whole: Wma,
    root: Wma,
}

impl Indicator<1, 1> for Hma {
    /// Of half, whole and root.
    type State = [TrendState; 3];

    #[inline]
    fn step(&self, [half, whole, root]: &mut Self::State, [x]: [f64; 1]) -> [f64; 1] {
        let fast = 2.0 * self.half.push(half, x) - self.whole.push(whole, x);
        if fast.is_nan() {
            return [f64::NAN];
        }
        [self.root.push(root, fast)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn weights_rise_to_the_newest() {
        let out = run(&Wma::new(3), &[[1.0], [2.0], [6.0], [0.0]]);
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, 23.0 / 6.0, 14.0 / 6.0]);
    }

    #[test]
    fn equals_the_window_summed_anew() {
        windows(|period, rows| {
            let out = run(&Wma::new(period), &rows.map(|x| [x]));
            let norm = (period * (period + 1) / 2) as f64;
            let anew = rows.windows(period, |w| {
                w.iter().enumerate().map(|(i, x)| (i + 1) as f64 * x).sum::<f64>() / norm
            });
            assert_near(&column(&out, 0), &anew, rows.scale());
        });
    }
}
