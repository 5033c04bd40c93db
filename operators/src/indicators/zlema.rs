//! ZLEMA: zero-lag EMA, the EMA of `2 x - x[lag]` where lag = (period - 1) / 2.
//! John Ehlers and Ric Way, "Zero lag (well, almost)" (2010).
//!
//! Warm-up: `period` + lag rows. State: 8 bytes a row of the lag. Null rows are skipped. As TA-Lib.
use schemars::JsonSchema;
use serde::Deserialize;

use super::ema::{Ema, EmaState};
use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::Delay;

pub(super) const ZLEMA: Spec = Spec::of::<ZlemaParams, 1, 1>("zlema", &[Role::Price], &["zlema"]);

/// Zero-lag exponential moving average: of the price plus its move over half the period.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ZlemaParams {
    /// Period of the average.
    pub period: u32,
}

impl Default for ZlemaParams {
    fn default() -> Self {
        ZlemaParams { period: 20 }
    }
}

impl Params for ZlemaParams {
    type Indicator = Zlema;

    fn build(&self) -> Result<Zlema, ParamError> {
        let period = period("period", self.period)?;
        Ok(Zlema { ema: Ema::new(period), lag: (period - 1) / 2 })
    }
}

/// See [`ZlemaParams`].
#[derive(Clone, Debug)]
pub struct Zlema {
    ema: Ema,
    lag: usize,
}

impl Indicator<1, 1> for Zlema {
    type State = (Delay, EmaState);

    #[inline]
    fn step(&self, (delay, ema): &mut Self::State, [x]: [f64; 1]) -> [f64; 1] {
        let past = delay.push(self.lag, x);
        if past.is_nan() {
            return [past];
        }
        [self.ema.push(ema, 2.0 * x - past)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn a_line_is_followed_without_lag() {
        let rows: Vec<_> = (0..90).map(|i| [f64::from(i)]).collect();
        let out = run(&ZlemaParams { period: 5 }.build().unwrap(), &rows);
        assert_close(&[out[89][0]], &[89.0]);
    }
}
