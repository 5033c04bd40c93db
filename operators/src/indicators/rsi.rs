//! RSI: relative strength index, 100 G / (G + L), where G and L are Wilder's averages of gains and
//! losses.
//! CMO: Chande momentum oscillator, 100 (G - L) / (G + L), of the same averages.
//!
//! Sources: J. Welles Wilder, New Concepts in Technical Trading Systems (1978); Tushar Chande, The
//! New Technical Trader (1994), whose plain sums TA-Lib replaces by Wilder's averages, and so do
//! we.
//! Warm-up: `period` + 1 rows; seeded with the mean of the first `period` changes. State: 29 bytes.
//! Null rows are skipped. Unlike TA-Lib, which gives 0 where the price has never moved, we give
//! NaN: 0 would read as oversold.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, flush, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const CMO: Spec = Spec::of::<CmoParams, 1, 1>("cmo", &[Role::Price], &["cmo"]);

pub(super) const RSI: Spec = Spec::of::<RsiParams, 1, 1>("rsi", &[Role::Price], &["rsi"]);

/// Relative strength index: average gain in percent of average gain plus average loss.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RsiParams {
    /// Period of Wilder's averages.
    pub period: u32,
}

impl Default for RsiParams {
    fn default() -> Self {
        RsiParams { period: 14 }
    }
}

impl Params for RsiParams {
    type Indicator = Rsi;

    fn build(&self) -> Result<Rsi, ParamError> {
        Ok(Rsi::new(period("period", self.period)?))
    }
}

/// Chande momentum oscillator: average gain minus average loss in percent of their sum.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CmoParams {
    /// Period of Wilder's averages.
    pub period: u32,
}

impl Default for CmoParams {
    fn default() -> Self {
        CmoParams { period: 14 }
    }
}

impl Params for CmoParams {
    type Indicator = Cmo;

    fn build(&self) -> Result<Cmo, ParamError> {
        Ok(Cmo(Rsi::new(period("period", self.period)?)))
    }
}

/// See [`RsiParams`].
#[derive(Clone, Debug)]
pub struct Rsi {
    period: u32,
    factor: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RsiState {
    last: Option<f64>,
    changes: u32,
    /// Averages; until they are warm, sums.
    gain: f64,
    loss: f64,
}

impl Rsi {
    pub fn new(period: usize) -> Self {
        Rsi { period: period as u32, factor: 1.0 / period as f64 }
    }

    /// The average gain and loss, once they are warm.
    #[inline]
    fn averages(&self, s: &mut RsiState, x: f64) -> Option<(f64, f64)> {
        let change = x - s.last.replace(x)?;
        let (gain, loss) = (change.max(0.0), (-change).max(0.0));
        if s.changes >= self.period {
            s.gain = flush((gain - s.gain) * self.factor + s.gain);
            s.loss = flush((loss - s.loss) * self.factor + s.loss);
        } else {
            s.changes += 1;
            s.gain += gain;
            s.loss += loss;
            if s.changes < self.period {
                return None;
            }
            s.gain *= self.factor;
            s.loss *= self.factor;
        }
        Some((s.gain, s.loss))
    }

    /// The index, NaN until it is warm.
    #[inline]
    pub fn push(&self, s: &mut RsiState, x: f64) -> f64 {
        match self.averages(s, x) {
            Some((gain, loss)) => 100.0 * ratio(gain, gain + loss),
            None => f64::NAN,
        }
    }
}

impl Indicator<1, 1> for Rsi {
    type State = RsiState;

    #[inline]
    fn step(&self, s: &mut RsiState, [x]: [f64; 1]) -> [f64; 1] {
        [self.push(s, x)]
    }
}

/// See [`CmoParams`].
#[derive(Clone, Debug)]
pub struct Cmo(Rsi);

impl Indicator<1, 1> for Cmo {
    type State = RsiState;

    #[inline]
    fn step(&self, s: &mut RsiState, [x]: [f64; 1]) -> [f64; 1] {
        match self.0.averages(s, x) {
            Some((gain, loss)) => [100.0 * ratio(gain - loss, gain + loss)],
            None => [f64::NAN],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn wilder_by_hand() {
        let out = run(&Rsi::new(2), &[[1.0], [3.0], [2.0], [2.0]]);
        // Gains 2, 0, 0 and losses 0, 1, 0: averages 1 and 0.5, then 0.5 and 0.25.
        let two_thirds = 200.0 / 3.0;
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, two_thirds, two_thirds]);
        let out = run(&Cmo(Rsi::new(2)), &[[1.0], [3.0], [2.0]]);
        assert_close(&out[2], &[100.0 / 3.0]);
    }

    #[test]
    fn a_price_that_never_moved_has_no_strength() {
        let out = run(&Rsi::new(2), &[[1.0]; 5]);
        assert!(column(&out, 0).iter().all(|x| x.is_nan()));
    }
}
