//! STOCH: stochastic oscillator, where the close stands in the range of the last `period` rows, in
//! percent.
//! STOCH_RSI: the same of the RSI. George Lane (1984); Chande and Kroll, The New Technical Trader
//! (1994).
//!
//! fast = 100 (close - lowest) / (highest - lowest); k = SMA(fast, smooth); d = SMA(k, signal).
//! Warm-up: period + smooth - 1 rows for k, signal - 1 more for d (TA-Lib gives k only from there
//! on); for STOCH_RSI `rsi_period` rows more. State: 8 to 32 bytes a row of the window. Null rows are
//! skipped, and so are those where the range is zero, which give NaN (TA-Lib: 0, which would read
//! as oversold). smooth = 1 gives TA-Lib's STOCHF and its STOCHRSI.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extremes::Extremes;
use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::RollingSum;
use super::rsi::{Rsi, RsiState};
use super::sma::Sma;

pub(super) const STOCH: Spec =
    Spec::of::<StochParams, 3, 2>("stoch", &[Role::High, Role::Low, Role::Close], &["stoch_k", "stoch_d"]);

pub(super) const STOCH_RSI: Spec =
    Spec::of::<StochRsiParams, 1, 2>("stoch_rsi", &[Role::Price], &["stoch_rsi_k", "stoch_rsi_d"]);

/// Stochastic oscillator: where the close stands in the range of the last `period` rows, in percent
/// (k), and its average (d).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StochParams {
    /// Rows in the window.
    pub period: u32,
    /// Rows that k is averaged over; 1 gives the fast stochastic.
    pub smooth: u32,
    /// Rows of k that d is the average of.
    pub signal: u32,
}

impl Default for StochParams {
    fn default() -> Self {
        StochParams { period: 14, smooth: 3, signal: 3 }
    }
}

impl Params for StochParams {
    type Indicator = Stoch;

    fn build(&self) -> Result<Stoch, ParamError> {
        Stoch::new(self.period, self.smooth, self.signal)
    }
}

/// Stochastic oscillator of the relative strength index.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StochRsiParams {
    /// Rows of RSI in the window.
    pub period: u32,
    /// Period of the RSI.
    pub rsi_period: u32,
    /// Rows that k is averaged over.
    pub smooth: u32,
    /// Rows of k that d is the average of.
    pub signal: u32,
}

impl Default for StochRsiParams {
    fn default() -> Self {
        StochRsiParams { period: 14, rsi_period: 14, smooth: 3, signal: 3 }
    }
}

impl Params for StochRsiParams {
    type Indicator = StochRsi;

    fn build(&self) -> Result<StochRsi, ParamError> {
        Ok(StochRsi {
            rsi: Rsi::new(period("rsi_period", self.rsi_period)?),
            stoch: Stoch::new(self.period, self.smooth, self.signal)?,
        })
    }
}

/// See [`StochParams`].
#[derive(Clone, Debug)]
pub struct Stoch {
    period: usize,
    smooth: Sma,
    signal: Sma,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StochState {
    range: Extremes,
    k: RollingSum,
    d: RollingSum,
}

impl Stoch {
    fn new(window: u32, smooth: u32, signal: u32) -> Result<Stoch, ParamError> {
        Ok(Stoch {
            period: period("period", window)?,
            smooth: Sma::new(period("smooth", smooth)?),
            signal: Sma::new(period("signal", signal)?),
        })
    }
}

impl Indicator<3, 2> for Stoch {
    type State = StochState;

    #[inline]
    fn step(&self, s: &mut StochState, [high, low, close]: [f64; 3]) -> [f64; 2] {
        s.range.push(self.period, high, low);
        if !s.range.is_full(self.period) {
            return [f64::NAN; 2];
        }
        let (high, low) = (s.range.high(), s.range.low());
        let fast = 100.0 * ratio(close - low, high - low);
        if fast.is_nan() {
            return [f64::NAN; 2];
        }
        let k = self.smooth.push(&mut s.k, fast);
        if k.is_nan() {
            return [f64::NAN; 2];
        }
        [k, self.signal.push(&mut s.d, k)]
    }
}

/// See [`StochRsiParams`].
#[derive(Clone, Debug)]
pub struct StochRsi {
    rsi: Rsi,
    stoch: Stoch,
}

impl Indicator<1, 2> for StochRsi {
    type State = (RsiState, StochState);

    #[inline]
    fn step(&self, (rsi, stoch): &mut Self::State, [x]: [f64; 1]) -> [f64; 2] {
        let rsi = self.rsi.push(rsi, x);
        if rsi.is_nan() {
            return [f64::NAN; 2];
        }
        self.stoch.step(stoch, [rsi; 3])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn place_in_the_range() {
        let stoch = StochParams { period: 2, smooth: 1, signal: 2 }.build().unwrap();
        let out = run(&stoch, &[[4.0, 0.0, 2.0], [3.0, 1.0, 3.0], [3.0, 2.0, 2.5]]);
        assert_close(&out[1], &[75.0, f64::NAN]);
        assert_close(&out[2], &[75.0, 75.0]);
    }

    #[test]
    fn no_range_no_answer() {
        let stoch = StochParams { period: 2, smooth: 1, signal: 1 }.build().unwrap();
        let out = run(&stoch, &[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 1.0, 2.0]]);
        assert_close(&out[1], &[f64::NAN; 2]);
        assert_close(&out[2], &[100.0; 2]);
    }
}
