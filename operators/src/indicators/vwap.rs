//! VWAP: volume-weighted average price, sum(price volume) / sum(volume), since the start or over
//! `period` rows.
//! VWMA: the same over a window, by its other name.
//!
//! Warm-up: none; with a period, that many rows. State: 36 bytes, or 16 a row of the window; the
//! sums are compensated, so a year of trades loses nothing. Null rows are skipped. NaN where no
//! volume has traded, and never below zero volume. TA-Lib's VWAP is of the typical price, (high +
//! low + close) / 3: give that as the price. A session's start is the bank's `reset`.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::{RollingSum, Sum};

pub(super) const VWAP: Spec = Spec::of::<VwapParams, 2, 1>("vwap", &[Role::Price, Role::Volume], &["vwap"]);

pub(super) const VWMA: Spec = Spec::of::<VwmaParams, 2, 1>("vwma", &[Role::Price, Role::Volume], &["vwma"]);

/// Volume-weighted average price since the start, or of the last `period` rows.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VwapParams {
    /// Rows in the window; without it, all since the start.
    pub period: Option<u32>,
}

impl Params for VwapParams {
    type Indicator = Vwap;

    fn build(&self) -> Result<Vwap, ParamError> {
        let period = self.period.map(|p| period("period", p)).transpose()?;
        Ok(Vwap { period })
    }
}

/// Volume-weighted moving average of the last `period` values.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VwmaParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for VwmaParams {
    fn default() -> Self {
        VwmaParams { period: 20 }
    }
}

impl Params for VwmaParams {
    type Indicator = Vwap;

    fn build(&self) -> Result<Vwap, ParamError> {
        let period = Some(period("period", self.period)?);
        Ok(Vwap { period })
    }
}

/// See [`VwapParams`] and [`VwmaParams`].
#[derive(Clone, Debug)]
pub struct Vwap {
    period: Option<usize>,
}

/// Sums of price times volume, and of volume.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VwapState {
    all: [Sum; 2],
    window: Option<Box<[RollingSum; 2]>>,
}

impl Indicator<2, 1> for Vwap {
    type State = VwapState;

    #[inline]
    fn step(&self, s: &mut VwapState, [price, volume]: [f64; 2]) -> [f64; 1] {
        let [value, weight] = match self.period {
            None => {
                let [value, weight] = &mut s.all;
                value.add(price * volume);
                weight.add(volume);
                [value.value(), weight.value()]
            }
            Some(period) => {
                let [value, weight] = &mut **s.window.get_or_insert_default();
                [value.push(period, price * volume), weight.push(period, volume)]
            }
        };
        [ratio(value, weight)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn volume_weighs() {
        let rows = [[1.0, 0.0], [2.0, 1.0], [5.0, 3.0], [1.0, 2.0]];
        let all = run(&Vwap { period: None }, &rows);
        assert_close(&column(&all, 0), &[f64::NAN, 2.0, 17.0 / 4.0, 19.0 / 6.0]);
        let two = run(&Vwap { period: Some(2) }, &rows);
        assert_close(&column(&two, 0), &[f64::NAN, 2.0, 17.0 / 4.0, 17.0 / 5.0]);
    }
}
