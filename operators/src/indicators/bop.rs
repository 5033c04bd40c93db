//! BOP: balance of power, (close - open) / (high - low). Igor Livshin, Stocks & Commodities 19:8
//! (2001).
//!
//! Warm-up: none. State: none. Null rows are skipped. As TA-Lib: a bar without range has no power,
//! 0.
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::Indicator;
use super::params::{ParamError, Params};
use super::registry::{Role, Spec};

pub(super) const BOP: Spec =
    Spec::of::<BopParams, 4, 1>("bop", &[Role::Open, Role::High, Role::Low, Role::Close], &["bop"]);

/// Balance of power: how far the close is above the open, in parts of the bar's range.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BopParams {}

impl Params for BopParams {
    type Indicator = Bop;

    fn build(&self) -> Result<Bop, ParamError> {
        Ok(Bop)
    }
}

/// See [`BopParams`].
#[derive(Clone, Debug)]
pub struct Bop;

impl Indicator<4, 1> for Bop {
    type State = ();

    #[inline]
    fn step(&self, (): &mut (), [open, high, low, close]: [f64; 4]) -> [f64; 1] {
        let range = high - low;
        [if range > 0.0 { (close - open) / range } else { 0.0 }]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn part_of_the_range() {
        let out = run(&Bop, &[[1.0, 4.0, 0.0, 3.0], [1.0, 1.0, 1.0, 1.0]]);
        assert_close(&column(&out, 0), &[0.5, 0.0]);
    }
}
