//! OBV: on-balance volume, volume added when the price rises and taken away when it falls.
//! Joseph Granville, New Key to Stock Market Profits (1963).
//! PVT: price volume trend, volume times the relative change, summed.
//!
//! Warm-up: OBV none, it starts with the first row's volume, as TA-Lib's does; PVT none, it starts
//! at 0. State: 25 bytes; the sums are compensated. Null rows are skipped, and PVT skips those that
//! follow a price of 0.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params};
use super::registry::{Role, Spec};
use super::ring::Sum;

pub(super) const OBV: Spec = Spec::of::<ObvParams, 2, 1>("obv", &[Role::Price, Role::Volume], &["obv"]);

pub(super) const PVT: Spec = Spec::of::<PvtParams, 2, 1>("pvt", &[Role::Price, Role::Volume], &["pvt"]);

/// On-balance volume: volume of rises minus volume of falls, summed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ObvParams {}

impl Params for ObvParams {
    type Indicator = Obv;

    fn build(&self) -> Result<Obv, ParamError> {
        Ok(Obv)
    }
}

/// Price volume trend: volume times relative change, summed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PvtParams {}

impl Params for PvtParams {
    type Indicator = Pvt;

    fn build(&self) -> Result<Pvt, ParamError> {
        Ok(Pvt)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ObvState {
    last: Option<f64>,
    sum: Sum,
}

/// See [`ObvParams`].
#[derive(Clone, Debug)]
pub struct Obv;

impl Indicator<2, 1> for Obv {
    type State = ObvState;

    #[inline]
    fn step(&self, s: &mut ObvState, [price, volume]: [f64; 2]) -> [f64; 1] {
        match s.last.replace(price) {
            Some(last) if price < last => s.sum.add(-volume),
            Some(last) if price == last => {}
            _ => s.sum.add(volume),
        }
        [s.sum.value()]
    }
}

/// See [`PvtParams`].
#[derive(Clone, Debug)]
pub struct Pvt;

impl Indicator<2, 1> for Pvt {
    type State = ObvState;

    #[inline]
    fn step(&self, s: &mut ObvState, [price, volume]: [f64; 2]) -> [f64; 1] {
        if let Some(last) = s.last.replace(price) {
            let flow = ratio(price - last, last) * volume;
            s.sum.add(if flow.is_finite() { flow } else { 0.0 });
        }
        [s.sum.value()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn rises_add_and_falls_take_away() {
        let rows = [[1.0, 5.0], [2.0, 3.0], [2.0, 9.0], [1.0, 4.0]];
        assert_close(&column(&run(&Obv, &rows), 0), &[5.0, 8.0, 8.0, 4.0]);
        assert_close(&column(&run(&Pvt, &rows), 0), &[0.0, 3.0, 3.0, 1.0]);
    }
}
