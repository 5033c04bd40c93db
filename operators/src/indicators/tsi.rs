//! TSI: true strength index, 100 EMA(EMA(change)) / EMA(EMA(|change|)).
//! William Blau, Momentum, Direction and Divergence (1995).
//!
//! Warm-up: slow + fast rows. State: 73 bytes. Null rows are skipped. As TA-Lib; NaN, not 0, where
//! the price has never moved.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ema::{Ema, EmaState};
use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const TSI: Spec = Spec::of::<TsiParams, 1, 1>("tsi", &[Role::Price], &["tsi"]);

/// True strength index: change in percent of absolute change, each smoothed twice.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TsiParams {
    /// Period of the first smoothing.
    pub slow: u32,
    /// Period of the second smoothing.
    pub fast: u32,
}

impl Default for TsiParams {
    fn default() -> Self {
        TsiParams { slow: 25, fast: 13 }
    }
}

impl Params for TsiParams {
    type Indicator = Tsi;

    fn build(&self) -> Result<Tsi, ParamError> {
        Ok(Tsi { slow: Ema::new(period("slow", self.slow)?), fast: Ema::new(period("fast", self.fast)?) })
    }
}

/// See [`TsiParams`].
#[derive(Clone, Debug)]
pub struct Tsi {
    slow: Ema,
    fast: Ema,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TsiState {
    last: Option<f64>,
    change: [EmaState; 2],
    size: [EmaState; 2],
}

impl Tsi {
    #[inline]
    fn smooth(&self, [slow, fast]: &mut [EmaState; 2], x: f64) -> f64 {
        let x = self.slow.push(slow, x);
        if x.is_nan() {
            return x;
        }
        self.fast.push(fast, x)
    }
}

impl Indicator<1, 1> for Tsi {
    type State = TsiState;

    #[inline]
    fn step(&self, s: &mut TsiState, [x]: [f64; 1]) -> [f64; 1] {
        let Some(last) = s.last.replace(x) else {
            return [f64::NAN];
        };
        let change = self.smooth(&mut s.change, x - last);
        let size = self.smooth(&mut s.size, (x - last).abs());
        [100.0 * ratio(change, size)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn one_way_is_a_hundred() {
        let rows: Vec<_> = (0..50).map(|i| [f64::from(i * i)]).collect();
        let tsi = TsiParams::default().build().unwrap();
        assert_close(&run(&tsi, &rows)[49], &[100.0]);
        assert_eq!(warm_after(&tsi, &rows), 38);
    }
}
