//! T3: a smooth average with little lag, six nested EMAs weighted by a volume factor v.
//! Tim Tillson, "Better moving averages", Stocks & Commodities 16:1 (1998).
//!
//! Warm-up: 6 period - 5 rows. State: six times 16 bytes. Null rows are skipped. As TA-Lib.
use schemars::JsonSchema;
use serde::Deserialize;

use super::dema::nest;
use super::ema::{Ema, EmaState};
use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const T3: Spec = Spec::of::<T3Params, 1, 1>("t3", &[Role::Price], &["t3"]);

/// Tillson's T3: six nested exponential averages, smooth with little lag.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct T3Params {
    /// Period of each average.
    pub period: u32,
    /// Volume factor: 0 gives a plain EMA of EMA of EMA, 1 the fastest.
    pub factor: f64,
}

impl Default for T3Params {
    fn default() -> Self {
        T3Params { period: 5, factor: 0.7 }
    }
}

impl Params for T3Params {
    type Indicator = T3;

    fn build(&self) -> Result<T3, ParamError> {
        if !(0.0..=1.0).contains(&self.factor) {
            let reason = format!("must be from 0 to 1, not {}", self.factor);
            return Err(ParamError::new("factor", reason));
        }
        let (v, ema) = (self.factor, Ema::new(period("period", self.period)?));
        let weights = [
            -v * v * v,
            3.0 * (v * v + v * v * v),
            -6.0 * v * v - 3.0 * (v + v * v * v),
            1.0 + 3.0 * v + v * v * v + 3.0 * v * v,
        ];
        Ok(T3 { ema, weights })
    }
}

/// See [`T3Params`].
#[derive(Clone, Debug)]
pub struct T3 {
    ema: Ema,
    /// Of the sixth average down to the third.
    weights: [f64; 4],
}

impl Indicator<1, 1> for T3 {
    type State = [EmaState; 6];

    #[inline]
    fn step(&self, s: &mut Self::State, [x]: [f64; 1]) -> [f64; 1] {
        let [.., e3, e4, e5, e6] = nest(&self.ema, s, x);
        let [w6, w5, w4, w3] = self.weights;
        [w6 * e6 + w5 * e5 + w4 * e4 + w3 * e3]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn a_flat_price_stays() {
        let t3 = T3Params::default().build().unwrap();
        let out = run(&t3, &[[5.0]; 40]);
        assert_close(&[out[39][0]], &[5.0]);
        assert_eq!(warm_after(&t3, &[[5.0]; 40]), 25);
    }
}
