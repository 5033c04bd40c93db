//! ROC: rate of change, 100 (x / x[period] - 1). MOM: momentum, x - x[period].
//!
//! Warm-up: `period` + 1 rows. State: 8 bytes a row of the window. Null rows are skipped. As TA-
//! Lib; NaN, not 0, where the past value is 0.
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::Delay;

pub(super) const MOM: Spec = Spec::of::<MomParams, 1, 1>("mom", &[Role::Price], &["mom"]);

pub(super) const ROC: Spec = Spec::of::<RocParams, 1, 1>("roc", &[Role::Price], &["roc"]);

/// Rate of change: how much more than `period` rows ago, in percent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RocParams {
    /// Rows to look back.
    pub period: u32,
}

impl Default for RocParams {
    fn default() -> Self {
        RocParams { period: 10 }
    }
}

impl Params for RocParams {
    type Indicator = Roc;

    fn build(&self) -> Result<Roc, ParamError> {
        Ok(Roc { period: period("period", self.period)? })
    }
}

/// Momentum: how much more than `period` rows ago.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MomParams {
    /// Rows to look back.
    pub period: u32,
}

impl Default for MomParams {
    fn default() -> Self {
        MomParams { period: 10 }
    }
}

impl Params for MomParams {
    type Indicator = Mom;

    fn build(&self) -> Result<Mom, ParamError> {
        Ok(Mom { period: period("period", self.period)? })
    }
}

/// See [`RocParams`].
#[derive(Clone, Debug)]
pub struct Roc {
    period: usize,
}

impl Indicator<1, 1> for Roc {
    type State = Delay;

    #[inline]
    fn step(&self, s: &mut Delay, [x]: [f64; 1]) -> [f64; 1] {
        [100.0 * (ratio(x, s.push(self.period, x)) - 1.0)]
    }
}

/// See [`MomParams`].
#[derive(Clone, Debug)]
pub struct Mom {
    period: usize,
}

impl Indicator<1, 1> for Mom {
    type State = Delay;

    #[inline]
    fn step(&self, s: &mut Delay, [x]: [f64; 1]) -> [f64; 1] {
        [x - s.push(self.period, x)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn against_two_rows_ago() {
        let rows = [[2.0], [0.0], [3.0], [1.0]];
        let roc = run(&Roc { period: 2 }, &rows);
        assert_close(&column(&roc, 0), &[f64::NAN, f64::NAN, 50.0, f64::NAN]);
        let mom = run(&Mom { period: 2 }, &rows);
        assert_close(&column(&mom, 0), &[f64::NAN, f64::NAN, 1.0, 1.0]);
    }
}
