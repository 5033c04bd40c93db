//! FORCE: Elder's force index, EMA of (price change * volume). Alexander Elder, Trading for a
//! Living (1993).
//!
//! Warm-up: `period` + 1 rows. State: 25 bytes. Null rows are skipped. As TA-Lib's EFI.
use schemars::JsonSchema;
use serde::Deserialize;

use super::ema::{Ema, EmaState};
use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const FORCE: Spec =
    Spec::of::<ForceParams, 2, 1>("force", &[Role::Price, Role::Volume], &["force"]);

/// Force index: exponential average of price change times volume.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ForceParams {
    /// Period of the average.
    pub period: u32,
}

impl Default for ForceParams {
    fn default() -> Self {
        ForceParams { period: 13 }
    }
}

impl Params for ForceParams {
    type Indicator = Force;

    fn build(&self) -> Result<Force, ParamError> {
        Ok(Force(Ema::new(period("period", self.period)?)))
    }
}

/// See [`ForceParams`].
#[derive(Clone, Debug)]
pub struct Force(Ema);

impl Indicator<2, 1> for Force {
    type State = (Option<f64>, EmaState);

    #[inline]
    fn step(&self, (last, average): &mut Self::State, [price, volume]: [f64; 2]) -> [f64; 1] {
        match last.replace(price) {
            Some(last) => [self.0.push(average, (price - last) * volume)],
            None => [f64::NAN],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn change_times_volume() {
        let out = run(&Force(Ema::new(2)), &[[1.0, 9.0], [2.0, 4.0], [1.5, 4.0]]);
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, 1.0]);
    }
}
