//! DONCHIAN: the highest high and the lowest low of the last `period` rows, and halfway between.
//! Richard Donchian (1960). MAX, MIN: the same of one series.
//!
//! Warm-up: `period` rows. State: at most 18 bytes a row of the window, each way. Null rows are
//! skipped. As TA-Lib; the row itself is within the window, so a breakout is told by comparing with
//! the row before.
use schemars::JsonSchema;
use serde::Deserialize;

use super::extremes::Extremes;
use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const DONCHIAN: Spec = Spec::of::<DonchianParams, 2, 3>(
    "donchian",
    &[Role::High, Role::Low],
    &["donchian_upper", "donchian_middle", "donchian_lower"],
);

pub(super) const MAX: Spec = Spec::of::<MaxParams, 1, 1>("max", &[Role::Price], &["max"]);

pub(super) const MIN: Spec = Spec::of::<MinParams, 1, 1>("min", &[Role::Price], &["min"]);

/// Donchian channel: the highest high (upper) and lowest low (lower) of the window, and halfway
/// between (middle).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DonchianParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for DonchianParams {
    fn default() -> Self {
        DonchianParams { period: 20 }
    }
}

impl Params for DonchianParams {
    type Indicator = Donchian;

    fn build(&self) -> Result<Donchian, ParamError> {
        Ok(Donchian { period: period("period", self.period)? })
    }
}

/// The highest value in the window.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MaxParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for MaxParams {
    fn default() -> Self {
        MaxParams { period: 20 }
    }
}

impl Params for MaxParams {
    type Indicator = Max;

    fn build(&self) -> Result<Max, ParamError> {
        Ok(Max { period: period("period", self.period)? })
    }
}

/// The lowest value in the window.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MinParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for MinParams {
    fn default() -> Self {
        MinParams { period: 20 }
    }
}

impl Params for MinParams {
    type Indicator = Min;

    fn build(&self) -> Result<Min, ParamError> {
        Ok(Min { period: period("period", self.period)? })
    }
}

/// See [`DonchianParams`].
#[derive(Clone, Debug)]
pub struct Donchian {
    period: usize,
}

impl Indicator<2, 3> for Donchian {
    type State = Extremes;

    #[inline]
    fn step(&self, s: &mut Extremes, [high, low]: [f64; 2]) -> [f64; 3] {
        s.push(self.period, high, low);
        if !s.is_full(self.period) {
            return [f64::NAN; 3];
        }
        [s.high(), s.middle(self.period), s.low()]
    }
}

/// See [`MaxParams`].
#[derive(Clone, Debug)]
pub struct Max {
    period: usize,
}

impl Indicator<1, 1> for Max {
    type State = Extremes;

    #[inline]
    fn step(&self, s: &mut Extremes, [x]: [f64; 1]) -> [f64; 1] {
        // Nothing asks for the lowest: one constant keeps its queue at one entry.
        s.push(self.period, x, 0.0);
        [if s.is_full(self.period) { s.high() } else { f64::NAN }]
    }
}

/// See [`MinParams`].
#[derive(Clone, Debug)]
pub struct Min {
    period: usize,
}

impl Indicator<1, 1> for Min {
    type State = Extremes;

    #[inline]
    fn step(&self, s: &mut Extremes, [x]: [f64; 1]) -> [f64; 1] {
        s.push(self.period, 0.0, x);
        [if s.is_full(self.period) { s.low() } else { f64::NAN }]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn equals_the_window_searched_anew() {
        windows(|period, rows| {
            let out = run(&Donchian { period }, &rows.map(|x| [x + 1.0, x]));
            let high = rows.windows(period, |w| 1.0 + w.iter().fold(f64::MIN, |a, &b| a.max(b)));
            let low = rows.windows(period, |w| w.iter().fold(f64::MAX, |a, &b| a.min(b)));
            assert_same(&column(&out, 0), &high);
            assert_same(&column(&out, 2), &low);
            assert_same(&column(&run(&Min { period }, &rows.map(|x| [x])), 0), &low);
            assert_same(&column(&run(&Max { period }, &rows.map(|x| [x + 1.0])), 0), &high);
        });
    }
}
