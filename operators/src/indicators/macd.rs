//! MACD: EMA(fast) - EMA(slow), its own EMA (the signal) and the difference of both (the
//! histogram). Gerald Appel (1979). APO: the first alone. PPO: the same in percent of the slow
//! average.
//!
//! Warm-up: `slow` rows; the signal and histogram `slow + signal - 1`. State: 60 bytes. Null rows
//! are skipped. As TA-Lib, where the fast average of the MACD is seeded with the `fast` rows that
//! end where the slow one becomes warm, those of APO and PPO with the first `fast` rows: so APO
//! differs from MACD at first. (TA-Lib gives the MACD only from where the signal is.)
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ema::{Ema, EmaState};
use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, fast_slow, period};
use super::registry::{Role, Spec};

pub(super) const APO: Spec = Spec::of::<ApoParams, 1, 1>("apo", &[Role::Price], &["apo"]);

pub(super) const MACD: Spec =
    Spec::of::<MacdParams, 1, 3>("macd", &[Role::Price], &["macd", "macd_signal", "macd_hist"]);

pub(super) const PPO: Spec = Spec::of::<PpoParams, 1, 1>("ppo", &[Role::Price], &["ppo"]);

/// Absolute price oscillator: EMA(fast) - EMA(slow).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApoParams {
    /// Period of the fast average.
    pub fast: u32,
    /// Period of the slow average.
    pub slow: u32,
}

impl Default for ApoParams {
    fn default() -> Self {
        ApoParams { fast: 12, slow: 26 }
    }
}

impl Params for ApoParams {
    type Indicator = Apo;

    fn build(&self) -> Result<Apo, ParamError> {
        Ok(Apo(Pair::new(self.fast, self.slow)?))
    }
}

/// Percentage price oscillator: EMA(fast) - EMA(slow) in percent of the latter.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PpoParams {
    /// Period of the fast average.
    pub fast: u32,
    /// Period of the slow average.
    pub slow: u32,
}

impl Default for PpoParams {
    fn default() -> Self {
        PpoParams { fast: 12, slow: 26 }
    }
}

impl Params for PpoParams {
    type Indicator = Ppo;

    fn build(&self) -> Result<Ppo, ParamError> {
        Ok(Ppo(Pair::new(self.fast, self.slow)?))
    }
}

/// Moving average convergence divergence: EMA(fast) - EMA(slow), its EMA (signal) and their
/// difference (hist).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MacdParams {
    /// Period of the fast average.
    pub fast: u32,
    /// Period of the slow average.
    pub slow: u32,
    /// Period of the signal, an average of the MACD.
    pub signal: u32,
}

impl Default for MacdParams {
    fn default() -> Self {
        MacdParams { fast: 12, slow: 26, signal: 9 }
    }
}

impl Params for MacdParams {
    type Indicator = Macd;

    fn build(&self) -> Result<Macd, ParamError> {
        let pair = Pair::aligned(self.fast, self.slow)?;
        let signal = Ema::new(period("signal", self.signal)?);
        Ok(Macd { pair, signal })
    }
}

/// Two averages.
#[derive(Clone, Debug)]
struct Pair {
    fast: Ema,
    slow: Ema,
    /// Rows at the start that only the slow one sees.
    lead: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PairState {
    lead: u32,
    fast: EmaState,
    slow: EmaState,
}

impl Pair {
    fn new(fast: u32, slow: u32) -> Result<Pair, ParamError> {
        let (fast, slow) = fast_slow(fast, slow)?;
        Ok(Pair { fast: Ema::new(fast), slow: Ema::new(slow), lead: 0 })
    }

    /// Both warm at one row.
    fn aligned(fast: u32, slow: u32) -> Result<Pair, ParamError> {
        let pair = Pair::new(fast, slow)?;
        Ok(Pair { lead: slow - fast, ..pair })
    }

    #[inline]
    fn push(&self, s: &mut PairState, x: f64) -> (f64, f64) {
        let slow = self.slow.push(&mut s.slow, x);
        if s.lead < self.lead {
            s.lead += 1;
            return (f64::NAN, slow);
        }
        (self.fast.push(&mut s.fast, x), slow)
    }
}

/// See [`ApoParams`].
#[derive(Clone, Debug)]
pub struct Apo(Pair);

impl Indicator<1, 1> for Apo {
    type State = PairState;

    #[inline]
    fn step(&self, s: &mut PairState, [x]: [f64; 1]) -> [f64; 1] {
        let (fast, slow) = self.0.push(s, x);
        [fast - slow]
    }
}

/// See [`PpoParams`].
#[derive(Clone, Debug)]
pub struct Ppo(Pair);

impl Indicator<1, 1> for Ppo {
    type State = PairState;

    #[inline]
    fn step(&self, s: &mut PairState, [x]: [f64; 1]) -> [f64; 1] {
        let (fast, slow) = self.0.push(s, x);
        [ratio(fast - slow, slow) * 100.0]
    }
}

/// See [`MacdParams`].
#[derive(Clone, Debug)]
pub struct Macd {
    pair: Pair,
    signal: Ema,
}

impl Indicator<1, 3> for Macd {
    type State = (PairState, EmaState);

    #[inline]
    fn step(&self, (pair, signal): &mut Self::State, [x]: [f64; 1]) -> [f64; 3] {
        let (fast, slow) = self.pair.push(pair, x);
        let macd = fast - slow;
        if macd.is_nan() {
            return [f64::NAN; 3];
        }
        let signal = self.signal.push(signal, macd);
        [macd, signal, macd - signal]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn both_averages_start_at_one_row() {
        let macd = MacdParams { fast: 2, slow: 3, signal: 2 }.build().unwrap();
        let out = run(&macd, &[[1.0], [2.0], [6.0], [6.0]]);
        assert_close(&out[1], &[f64::NAN; 3]);
        assert_close(&out[2], &[4.0 - 3.0, f64::NAN, f64::NAN]);
        let next = (4.0 + 2.0 * 2.0 / 3.0) - 4.5;
        assert_close(&out[3], &[next, (1.0 + next) / 2.0, next - (1.0 + next) / 2.0]);
    }

    #[test]
    fn ppo_is_apo_in_percent() {
        let rows = [[4.0], [2.0], [3.0]];
        let apo = run(&ApoParams { fast: 1, slow: 3 }.build().unwrap(), &rows);
        let ppo = run(&PpoParams { fast: 1, slow: 3 }.build().unwrap(), &rows);
        assert_close(&[apo[2][0] / 3.0 * 100.0], &ppo[2]);
    }
}
