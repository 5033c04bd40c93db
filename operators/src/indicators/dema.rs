//! DEMA and TEMA: double and triple exponential moving averages, which lag less.
//!
//! DEMA = 2 e1 - e2 and TEMA = 3 e1 - 3 e2 + e3, where e1 = EMA(x), e2 = EMA(e1), e3 = EMA(e2).
//! Patrick Mulloy, "Smoothing data with faster moving averages", Stocks & Commodities 12:1 (1994).
//!
//! Warm-up: 2 period - 1 and 3 period - 2 rows. State: 16 bytes an average. Null rows are skipped.
//! As TA-Lib.
use schemars::JsonSchema;
use serde::Deserialize;

use super::ema::{Ema, EmaState};
use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const DEMA: Spec = Spec::of::<DemaParams, 1, 1>("dema", &[Role::Price], &["dema"]);

pub(super) const TEMA: Spec = Spec::of::<TemaParams, 1, 1>("tema", &[Role::Price], &["tema"]);

/// Double exponential moving average: 2 EMA - EMA of EMA.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DemaParams {
    /// Period of each average.
    pub period: u32,
}

impl Default for DemaParams {
    fn default() -> Self {
        DemaParams { period: 20 }
    }
}

impl Params for DemaParams {
    type Indicator = Dema;

    fn build(&self) -> Result<Dema, ParamError> {
        Ok(Dema(Ema::new(period("period", self.period)?)))
    }
}

/// Triple exponential moving average: 3 EMA - 3 EMA of EMA + EMA of EMA of EMA.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TemaParams {
    /// Period of each average.
    pub period: u32,
}

impl Default for TemaParams {
    fn default() -> Self {
        TemaParams { period: 20 }
    }
}

impl Params for TemaParams {
    type Indicator = Tema;

    fn build(&self) -> Result<Tema, ParamError> {
        Ok(Tema(Ema::new(period("period", self.period)?)))
    }
}

/// See [`DemaParams`].
#[derive(Clone, Debug)]
pub struct Dema(Ema);

/// See [`TemaParams`].
#[derive(Clone, Debug)]
pub struct Tema(Ema);

/// Averages x, then the averages, and so on; NaN from the first that is not warm.
#[inline]
pub fn nest<const N: usize>(ema: &Ema, states: &mut [EmaState; N], x: f64) -> [f64; N] {
    let mut out = [f64::NAN; N];
    let mut x = x;
    for (state, out) in states.iter_mut().zip(&mut out) {
        x = ema.push(state, x);
        *out = x;
        if x.is_nan() {
            break;
        }
    }
    out
}

impl Indicator<1, 1> for Dema {
    type State = [EmaState; 2];

    #[inline]
    fn step(&self, s: &mut Self::State, [x]: [f64; 1]) -> [f64; 1] {
        let [e1, e2] = nest(&self.0, s, x);
        [2.0 * e1 - e2]
    }
}

impl Indicator<1, 1> for Tema {
    type State = [EmaState; 3];

    #[inline]
    fn step(&self, s: &mut Self::State, [x]: [f64; 1]) -> [f64; 1] {
        let [e1, e2, e3] = nest(&self.0, s, x);
        [3.0 * e1 - 3.0 * e2 + e3]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn a_line_is_followed_without_lag() {
        let rows: Vec<_> = (0..60).map(|i| [f64::from(i)]).collect();
        for out in [run(&Dema(Ema::new(3)), &rows), run(&Tema(Ema::new(3)), &rows)] {
            assert_close(&[out[59][0]], &[59.0]);
        }
    }

    #[test]
    fn warm_after_two_and_three_windows() {
        let rows = [[1.0]; 8];
        assert_eq!(warm_after(&Dema(Ema::new(3)), &rows), 5);
        assert_eq!(warm_after(&Tema(Ema::new(3)), &rows), 7);
    }
}
