//! TRUE_RANGE: the larger of high - low, |high - last close| and |low - last close|.
//! ATR: Wilder's average of it. NATR: that in percent of the close.
//! J. Welles Wilder, New Concepts in Technical Trading Systems (1978).
//!
//! Warm-up: 2 rows; `period` + 1 rows. State: 27 bytes. Null rows are skipped. As TA-Lib: the first
//! row has no true range, the average is seeded with the mean of the first `period` ones.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ema::{Ema, EmaState};
use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const ATR: Spec =
    Spec::of::<AtrParams, 3, 1>("atr", &[Role::High, Role::Low, Role::Close], &["atr"]);

pub(super) const NATR: Spec =
    Spec::of::<NatrParams, 3, 1>("natr", &[Role::High, Role::Low, Role::Close], &["natr"]);

pub(super) const TRUE_RANGE: Spec =
    Spec::of::<TrueRangeParams, 3, 1>("true_range", &[Role::High, Role::Low, Role::Close], &["true_range"]);

/// True range: high - low, or more where the last close lies outside.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrueRangeParams {}

impl Params for TrueRangeParams {
    type Indicator = TrueRange;

    fn build(&self) -> Result<TrueRange, ParamError> {
        Ok(TrueRange)
    }
}

/// Average true range: Wilder's average of the true range.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AtrParams {
    /// Period of the average.
    pub period: u32,
}

impl Default for AtrParams {
    fn default() -> Self {
        AtrParams { period: 14 }
    }
}

impl Params for AtrParams {
    type Indicator = Atr;

    fn build(&self) -> Result<Atr, ParamError> {
        Ok(Atr::new(period("period", self.period)?))
    }
}

/// Normalised average true range: in percent of the close.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NatrParams {
    /// Period of the average.
    pub period: u32,
}

impl Default for NatrParams {
    fn default() -> Self {
        NatrParams { period: 14 }
    }
}

impl Params for NatrParams {
    type Indicator = Natr;

    fn build(&self) -> Result<Natr, ParamError> {
        Ok(Natr(Atr::new(period("period", self.period)?)))
    }
}

/// See [`TrueRangeParams`].
#[derive(Clone, Debug)]
pub struct TrueRange;

impl TrueRange {
    /// The true range, NaN on the first row.
    #[inline]
    pub fn push(last: &mut Option<f64>, [high, low, close]: [f64; 3]) -> f64 {
        match last.replace(close) {
            Some(last) => (high - low).max((high - last).abs()).max((low - last).abs()),
            None => f64::NAN,
        }
    }
}

impl Indicator<3, 1> for TrueRange {
    type State = Option<f64>;

    #[inline]
    fn step(&self, last: &mut Option<f64>, bar: [f64; 3]) -> [f64; 1] {
        [TrueRange::push(last, bar)]
    }
}

/// See [`AtrParams`].
#[derive(Clone, Debug)]
pub struct Atr(Ema);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AtrState {
    last: Option<f64>,
    average: EmaState,
}

impl Atr {
    pub fn new(period: usize) -> Self {
        Atr(Ema::wilder(period))
    }

    /// The average, NaN until it is warm.
    #[inline]
    pub fn push(&self, s: &mut AtrState, bar: [f64; 3]) -> f64 {
        let range = TrueRange::push(&mut s.last, bar);
        if range.is_nan() {
            return range;
        }
        self.0.push(&mut s.average, range)
    }
}

impl Indicator<3, 1> for Atr {
    type State = AtrState;

    #[inline]
    fn step(&self, s: &mut AtrState, bar: [f64; 3]) -> [f64; 1] {
        [self.push(s, bar)]
    }
}

/// See [`NatrParams`].
#[derive(Clone, Debug)]
pub struct Natr(Atr);

impl Indicator<3, 1> for Natr {
    type State = AtrState;

    #[inline]
    fn step(&self, s: &mut AtrState, bar: [f64; 3]) -> [f64; 1] {
        [100.0 * ratio(self.0.push(s, bar), bar[2])]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    const BARS: [[f64; 3]; 4] = [[5.0, 3.0, 4.0], [5.0, 4.5, 4.5], [7.0, 6.0, 6.0], [6.0, 2.0, 2.0]];

    #[test]
    fn gaps_count() {
        let out = run(&TrueRange, &BARS);
        assert_close(&column(&out, 0), &[f64::NAN, 1.0, 2.5, 4.0]);
    }

    #[test]
    fn wilder_by_hand() {
        let out = run(&Atr::new(2), &BARS);
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, 1.75, 2.875]);
        let out = run(&Natr(Atr::new(2)), &BARS);
        assert_close(&out[3], &[143.75]);
    }
}
