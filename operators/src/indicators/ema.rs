//! EMA: exponential moving average, `ema += (x - ema) * 2 / (period + 1)`.
//! RMA: the same with `1 / period`, the smoothing of J. Welles Wilder, New Concepts in Technical
//! Trading Systems (1978); also called SMMA.
//!
//! Warm-up: `period` rows; seeded with their mean, as TA-Lib does by default (others take the first
//! value). State: 16 bytes. Null rows are skipped.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, flush};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const EMA: Spec = Spec::of::<EmaParams, 1, 1>("ema", &[Role::Price], &["ema"]);

pub(super) const RMA: Spec = Spec::of::<RmaParams, 1, 1>("rma", &[Role::Price], &["rma"]);

/// Exponential moving average, with a smoothing factor of 2 / (period + 1).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmaParams {
    /// Rows whose mean is the first value; sets the smoothing factor.
    pub period: u32,
}

impl Default for EmaParams {
    fn default() -> Self {
        EmaParams { period: 20 }
    }
}

impl Params for EmaParams {
    type Indicator = Ema;

    fn build(&self) -> Result<Ema, ParamError> {
        Ok(Ema::new(period("period", self.period)?))
    }
}

/// Wilder's moving average: exponential with a smoothing factor of 1 / period.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RmaParams {
    /// Rows whose mean is the first value; sets the smoothing factor.
    pub period: u32,
}

impl Default for RmaParams {
    fn default() -> Self {
        RmaParams { period: 14 }
    }
}

impl Params for RmaParams {
    type Indicator = Ema;

    fn build(&self) -> Result<Ema, ParamError> {
        Ok(Ema::wilder(period("period", self.period)?))
    }
}

/// See [`EmaParams`] and [`RmaParams`]; also the smoothing inside other indicators.
#[derive(Clone, Debug)]
pub struct Ema {
    period: u32,
    factor: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EmaState {
    seen: u32,
    /// The average; until it is warm, the sum.
    value: f64,
}

impl Ema {
    pub fn new(period: usize) -> Self {
        Ema { period: period as u32, factor: 2.0 / (period as f64 + 1.0) }
    }

    pub fn wilder(period: usize) -> Self {
        Ema { period: period as u32, factor: 1.0 / period as f64 }
    }

    /// The average, NaN until it is warm.
    #[inline]
    pub fn push(&self, s: &mut EmaState, x: f64) -> f64 {
        if s.seen >= self.period {
            s.value = flush((x - s.value) * self.factor + s.value);
            return s.value;
        }
        s.seen += 1;
        s.value += x;
        if s.seen < self.period {
            return f64::NAN;
        }
        s.value /= f64::from(self.period);
        s.value
    }
}

impl Indicator<1, 1> for Ema {
    type State = EmaState;

    #[inline]
    fn step(&self, s: &mut EmaState, [x]: [f64; 1]) -> [f64; 1] {
        [self.push(s, x)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn seeded_with_the_mean() {
        let out = run(&Ema::new(3), &[[1.0], [2.0], [3.0], [4.0], [0.0]]);
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, 2.0, 3.0, 1.5]);
        let out = run(&Ema::wilder(2), &[[1.0], [3.0], [4.0]]);
        assert_close(&column(&out, 0), &[f64::NAN, 2.0, 3.0]);
    }

    #[test]
    fn zeros_for_ever_end_at_zero() {
        let ema = Ema::new(2);
        let mut s = EmaState::default();
        (0..2).for_each(|_| _ = ema.push(&mut s, 1.0));
        let last = (0..1000).map(|_| ema.push(&mut s, 0.0)).last();
        assert_eq!(last, Some(0.0));
    }
}
