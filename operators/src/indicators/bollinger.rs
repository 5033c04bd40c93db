//! BOLLINGER: SMA plus and minus `width` population standard deviations of the window.
//! BANDWIDTH: (upper - lower) / middle. PERCENT_B: where the price stands, 0 at the lower band and
//! 1 at the upper. John Bollinger, Bollinger on Bollinger Bands (2001).
//!
//! Warm-up: `period` rows. State: 8 bytes a row of the window and 40. Null rows are skipped. As
//! TA-Lib's BBANDS; PERCENT_B is NaN where the bands meet.
use schemars::JsonSchema;
use serde::Deserialize;

use super::indicator::{Indicator, ratio};
use super::moments::Moments;
use super::params::{ParamError, Params, period, positive};
use super::registry::{Role, Spec};

pub(super) const BANDWIDTH: Spec =
    Spec::of::<BandwidthParams, 1, 1>("bandwidth", &[Role::Price], &["bandwidth"]);

pub(super) const BOLLINGER: Spec = Spec::of::<BollingerParams, 1, 3>(
    "bollinger",
    &[Role::Price],
    &["bollinger_upper", "bollinger_middle", "bollinger_lower"],
);

pub(super) const PERCENT_B: Spec =
    Spec::of::<PercentBParams, 1, 1>("percent_b", &[Role::Price], &["percent_b"]);

/// Bollinger bands: the mean of the window (middle), and `width` standard deviations above (upper)
/// and
/// below (lower).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BollingerParams {
    /// Rows in the window.
    pub period: u32,
    /// Standard deviations from the middle to each band.
    pub width: f64,
}

impl Default for BollingerParams {
    fn default() -> Self {
        BollingerParams { period: 20, width: 2.0 }
    }
}

impl Params for BollingerParams {
    type Indicator = Bollinger;

    fn build(&self) -> Result<Bollinger, ParamError> {
        Bollinger::new(self.period, self.width)
    }
}

/// Distance of the Bollinger bands from each other, in parts of the middle.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BandwidthParams {
    /// Rows in the window.
    pub period: u32,
    /// Standard deviations from the middle to each band.
    pub width: f64,
}

impl Default for BandwidthParams {
    fn default() -> Self {
        BandwidthParams { period: 20, width: 2.0 }
    }
}

impl Params for BandwidthParams {
    type Indicator = Bandwidth;

    fn build(&self) -> Result<Bandwidth, ParamError> {
        Ok(Bandwidth(Bollinger::new(self.period, self.width)?))
    }
}

/// The price's place between the Bollinger bands: 0 at the lower, 1 at the upper.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PercentBParams {
    /// Rows in the window.
    pub period: u32,
    /// Standard deviations from the middle to each band.
    pub width: f64,
}

impl Default for PercentBParams {
    fn default() -> Self {
        PercentBParams { period: 20, width: 2.0 }
    }
}

impl Params for PercentBParams {
    type Indicator = PercentB;

    fn build(&self) -> Result<PercentB, ParamError> {
        Ok(PercentB(Bollinger::new(self.period, self.width)?))
    }
}

/// See [`BollingerParams`].
#[derive(Clone, Debug)]
pub struct Bollinger {
    period: usize,
    inverse: f64,
    width: f64,
}

impl Bollinger {
    fn new(rows: u32, width: f64) -> Result<Self, ParamError> {
        let period = period("period", rows)?;
        Ok(Bollinger { period, inverse: 1.0 / period as f64, width: positive("width", width)? })
    }

    /// The middle, and from there to each band; NaN until the window is full.
    #[inline]
    fn push(&self, s: &mut Moments, x: f64) -> (f64, f64) {
        match s.push(self.period, self.inverse, x) {
            Some(moment) => (moment.mean, self.width * moment.deviation(self.inverse)),
            None => (f64::NAN, f64::NAN),
        }
    }
}

impl Indicator<1, 3> for Bollinger {
    type State = Moments;

    #[inline]
    fn step(&self, s: &mut Moments, [x]: [f64; 1]) -> [f64; 3] {
        let (middle, half) = self.push(s, x);
        [middle + half, middle, middle - half]
    }
}

/// See [`BandwidthParams`].
#[derive(Clone, Debug)]
pub struct Bandwidth(Bollinger);

impl Indicator<1, 1> for Bandwidth {
    type State = Moments;

    #[inline]
    fn step(&self, s: &mut Moments, [x]: [f64; 1]) -> [f64; 1] {
        let (middle, half) = self.0.push(s, x);
        [ratio(2.0 * half, middle)]
    }
}

/// See [`PercentBParams`].
#[derive(Clone, Debug)]
pub struct PercentB(Bollinger);

impl Indicator<1, 1> for PercentB {
    type State = Moments;

    #[inline]
    fn step(&self, s: &mut Moments, [x]: [f64; 1]) -> [f64; 1] {
        let (middle, half) = self.0.push(s, x);
        [ratio(x - middle + half, 2.0 * half)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn two_deviations_each_side() {
        let rows = [[1.0], [3.0]];
        let bands = || Bollinger::new(2, 2.0).unwrap();
        assert_close(&run(&bands(), &rows)[1], &[4.0, 2.0, 0.0]);
        assert_close(&run(&Bandwidth(bands()), &rows)[1], &[2.0]);
        assert_close(&run(&PercentB(bands()), &rows)[1], &[0.75]);
    }

    #[test]
    fn a_flat_price_has_no_width() {
        let bands = || Bollinger::new(20, 2.0).unwrap();
        assert_eq!(run(&bands(), &[[0.1]; 50])[49], [0.1; 3]);
        assert_eq!(run(&Bandwidth(bands()), &[[0.1]; 50])[49], [0.0]);
        assert!(run(&PercentB(bands()), &[[0.1]; 50])[49][0].is_nan());
    }
}
