//! STDDEV: standard deviation of the last `period` values. ZSCORE: how many of them the value is
//! from the window's mean.
//! VOLATILITY: standard deviation of log returns, times a factor to scale it (the root of the
//! periods in a year).
//!
//! Of the population, or of a sample (n - 1). Warm-up: `period` rows; for VOLATILITY one more.
//! State: 8 bytes a row of the window and 40. Null rows are skipped, for VOLATILITY prices not
//! above 0 too. As TA-Lib's STDDEV, but a flat window has exactly no deviation (and no z-score:
//! NaN), and nothing drifts (see `moments`).
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::{Indicator, ratio};
use super::moments::Moments;
use super::params::{ParamError, Params, period_from, positive};
use super::registry::{Role, Spec};

pub(super) const STDDEV: Spec = Spec::of::<StddevParams, 1, 1>("stddev", &[Role::Price], &["stddev"]);

pub(super) const VOLATILITY: Spec =
    Spec::of::<VolatilityParams, 1, 1>("volatility", &[Role::Price], &["volatility"]);

pub(super) const ZSCORE: Spec = Spec::of::<ZscoreParams, 1, 1>("zscore", &[Role::Price], &["zscore"]);

/// Standard deviation of the last `period` values.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StddevParams {
    /// Rows in the window.
    pub period: u32,
    /// Whether to divide by n - 1 (a sample) and not by n (the population).
    pub sample: bool,
}

impl Default for StddevParams {
    fn default() -> Self {
        StddevParams { period: 20, sample: false }
    }
}

impl Params for StddevParams {
    type Indicator = Stddev;

    fn build(&self) -> Result<Stddev, ParamError> {
        Ok(Stddev(Deviation::new(self.period, self.sample)?))
    }
}

/// Distance from the mean of the window in standard deviations.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ZscoreParams {
    /// Rows in the window.
    pub period: u32,
    /// Whether to divide by n - 1 (a sample) and not by n (the population).
    pub sample: bool,
}

impl Default for ZscoreParams {
    fn default() -> Self {
        ZscoreParams { period: 20, sample: false }
    }
}

impl Params for ZscoreParams {
    type Indicator = Zscore;

    fn build(&self) -> Result<Zscore, ParamError> {
        Ok(Zscore(Deviation::new(self.period, self.sample)?))
    }
}

/// Realised volatility: standard deviation of log returns in the window.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VolatilityParams {
    /// Returns in the window.
    pub period: u32,
    /// Whether to divide by n - 1 (a sample) and not by n (the population).
    pub sample: bool,
    /// Factor; the root of the periods in a year gives a yearly figure (252 days: 15.8745).
    pub scale: f64,
}

impl Default for VolatilityParams {
    fn default() -> Self {
        VolatilityParams { period: 20, sample: true, scale: 1.0 }
    }
}

impl Params for VolatilityParams {
    type Indicator = Volatility;

    fn build(&self) -> Result<Volatility, ParamError> {
        Ok(Volatility {
            deviation: Deviation::new(self.period, self.sample)?,
            scale: positive("scale", self.scale)?,
        })
    }
}

#[derive(Clone, Debug)]
struct Deviation {
    period: usize,
    inverse: f64,
    /// 1 / n or 1 / (n - 1).
    divisor: f64,
}

impl Deviation {
    fn new(period: u32, sample: bool) -> Result<Self, ParamError> {
        let period = period_from("period", period, if sample { 2 } else { 1 })?;
        let n = period as f64;
        Ok(Deviation { period, inverse: 1.0 / n, divisor: if sample { 1.0 / (n - 1.0) } else { 1.0 / n } })
    }

    /// Mean and deviation, NaN until the window is full.
    #[inline]
    fn push(&self, s: &mut Moments, x: f64) -> (f64, f64) {
        match s.push(self.period, self.inverse, x) {
            Some(moment) => (moment.mean, moment.deviation(self.divisor)),
            None => (f64::NAN, f64::NAN),
        }
    }
}

/// See [`StddevParams`].
#[derive(Clone, Debug)]
pub struct Stddev(Deviation);

impl Indicator<1, 1> for Stddev {
    type State = Moments;

    #[inline]
    fn step(&self, s: &mut Moments, [x]: [f64; 1]) -> [f64; 1] {
        [self.0.push(s, x).1]
    }
}

/// See [`ZscoreParams`].
#[derive(Clone, Debug)]
pub struct Zscore(Deviation);

impl Indicator<1, 1> for Zscore {
    type State = Moments;

    #[inline]
    fn step(&self, s: &mut Moments, [x]: [f64; 1]) -> [f64; 1] {
        let (mean, deviation) = self.0.push(s, x);
        [ratio(x - mean, deviation)]
    }
}

/// See [`VolatilityParams`].
#[derive(Clone, Debug)]
pub struct Volatility {
    deviation: Deviation,
    scale: f64,
}

impl Indicator<1, 1> for Volatility {
    type State = (Option<f64>, Moments);

    #[inline]
    fn step(&self, (last, moments): &mut Self::State, [x]: [f64; 1]) -> [f64; 1] {
        if x <= 0.0 {
            return [f64::NAN];
        }
        let Some(last) = last.replace(x) else {
            return [f64::NAN];
        };
        let (_, deviation) = self.deviation.push(moments, x.ln() - last.ln());
        [self.scale * deviation]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn equals_the_window_summed_anew() {
        windows(|period, rows| {
            let n = period as f64;
            let deviation = |w: &[f64]| {
                let mean = w.iter().sum::<f64>() / n;
                (w.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt()
            };
            let stddev = StddevParams { period: period as u32, sample: false }.build().unwrap();
            let out = run(&stddev, &rows.map(|x| [x]));
            assert_near(&column(&out, 0), &rows.windows(period, deviation), rows.scale());
            let zscore = ZscoreParams { period: period as u32, sample: false }.build().unwrap();
            let out = run(&zscore, &rows.map(|x| [x]));
            let anew = rows.windows(period, |w| (w[period - 1] - w.iter().sum::<f64>() / n) / deviation(w));
            for ((z, anew), deviation) in
                column(&out, 0).iter().zip(&anew).zip(rows.windows(period, deviation))
            {
                assert!(deviation.is_nan() || deviation < 1e-3 || (z - anew).abs() < 1e-6, "{z} for {anew}");
            }
        });
    }

    #[test]
    fn a_flat_window_has_no_deviation_and_no_score() {
        let rows: Vec<_> = (0..50).map(|i| [if i < 10 { 1e9 / f64::from(i + 1) } else { 0.1 }]).collect();
        let out = run(&StddevParams::default().build().unwrap(), &rows);
        assert_eq!(out[49], [0.0]);
        let out = run(&ZscoreParams::default().build().unwrap(), &rows);
        assert!(out[49][0].is_nan());
    }

    #[test]
    fn steady_growth_is_not_volatile_and_swings_are() {
        let params = VolatilityParams { period: 4, sample: true, scale: 2.0 };
        let swings: Vec<_> = (0..9).map(|i| [if i % 2 == 0 { 1.0 } else { 1f64.exp() }]).collect();
        let out = run(&params.build().unwrap(), &swings);
        assert!(out[3][0].is_nan());
        assert_close(&out[4], &[2.0 * (4.0_f64 / 3.0).sqrt()]);
        let out = run(&params.build().unwrap(), &[[2.0], [-1.0], [2.0], [0.0], [2.0], [2.0], [2.0]]);
        assert_close(&out[6], &[0.0]);
    }
}
