//! KAMA: an EMA whose factor follows the efficiency ratio (net move / path) of the last `period`
//! rows. Perry Kaufman, Smarter Trading (1995).
//!
//! ratio r, factor = (r (2/(fast+1) - 2/(slow+1)) + 2/(slow+1))^2, kama += factor (x - kama).
//! Warm-up: `period` + 1 rows, seeded with the row before. State: 16 bytes a row of the window.
//! Null rows are skipped. As TA-Lib, whose fast and slow are fixed at 2 and 30.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::indicator::Indicator;
use super::params::{ParamError, Params, fast_slow, period};
use super::registry::{Role, Spec};
use super::ring::{Delay, RollingSum};

pub(super) const KAMA: Spec = Spec::of::<KamaParams, 1, 1>("kama", &[Role::Price], &["kama"]);

/// Kaufman's adaptive moving average: fast in a trend, slow in noise.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KamaParams {
    /// Rows over which the trend is told from noise.
    pub period: u32,
    /// EMA period in a pure trend.
    pub fast: u32,
    /// EMA period in pure noise.
    pub slow: u32,
}

impl Default for KamaParams {
    fn default() -> Self {
        KamaParams { period: 10, fast: 2, slow: 30 }
    }
}

impl Params for KamaParams {
    type Indicator = Kama;

    fn build(&self) -> Result<Kama, ParamError> {
        let period = period("period", self.period)?;
        let (fast, slow) = fast_slow(self.fast, self.slow)?;
        let slow = 2.0 / (slow as f64 + 1.0);
        let range = 2.0 / (fast as f64 + 1.0) - slow;
        Ok(Kama { period, slow, range })
    }
}

/// See [`KamaParams`].
#[derive(Clone, Debug)]
pub struct Kama {
    period: usize,
    slow: f64,
    range: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KamaState {
    past: Delay,
    path: RollingSum,
    last: Option<f64>,
    kama: Option<f64>,
}

impl Indicator<1, 1> for Kama {
    type State = KamaState;

    #[inline]
    fn step(&self, s: &mut KamaState, [x]: [f64; 1]) -> [f64; 1] {
        let past = s.past.push(self.period, x);
        let Some(last) = s.last.replace(x) else {
            return [f64::NAN];
        };
        let path = s.path.push(self.period, (x - last).abs());
        if past.is_nan() {
            return [f64::NAN];
        }
        let net = (x - past).abs();
        let ratio = if path <= net { 1.0 } else { net / path };
        let factor = ratio * self.range + self.slow;
        let kama = s.kama.unwrap_or(last);
        let kama = (x - kama) * (factor * factor) + kama;
        s.kama = Some(kama);
        [kama]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn a_trend_is_followed_fast_and_noise_slowly() {
        let kama = KamaParams { period: 3, ..Default::default() }.build().unwrap();
        let out = run(&kama, &[[1.0], [2.0], [3.0], [4.0], [3.0]]);
        let fast = 3.0 + (2.0_f64 / 3.0).powi(2);
        assert_close(&[out[3][0]], &[fast]);
        let slow = 2.0 / 31.0;
        let factor = (1.0_f64 / 3.0 * (2.0 / 3.0 - slow) + slow).powi(2);
        assert_close(&[out[4][0]], &[fast + factor * (3.0 - fast)]);
    }
}
