//! ICHIMOKU: middles of the high-low range over three windows. Goichi Hosoda (1969).
//!
//! tenkan (conversion) and kijun (base) over `tenkan` and `kijun` rows; span_a = (tenkan + kijun) /
//! 2 and span_b over `span_b` rows, both as drawn at this row: those of `displacement` rows ago.
//! The lagging span is the close drawn back and so needs none. Warm-up: each window; the spans
//! `displacement` rows more. State: at most 18 bytes a row of each window, each way, and 16 a row
//! of the displacement. Null rows are skipped. TA-Lib has none; some charts displace by one row
//! less.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extremes::Extremes;
use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::Delay;

pub(super) const ICHIMOKU: Spec = Spec::of::<IchimokuParams, 2, 4>(
    "ichimoku",
    &[Role::High, Role::Low],
    &["ichimoku_tenkan", "ichimoku_kijun", "ichimoku_span_a", "ichimoku_span_b"],
);

/// Ichimoku cloud: conversion line (tenkan), base line (kijun) and the cloud's two edges at this
/// row (span_a, span_b).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IchimokuParams {
    /// Rows in the window of the conversion line.
    pub tenkan: u32,
    /// Rows in the window of the base line.
    pub kijun: u32,
    /// Rows in the window of the slow edge.
    pub span_b: u32,
    /// Rows that the cloud is drawn ahead.
    pub displacement: u32,
}

impl Default for IchimokuParams {
    fn default() -> Self {
        IchimokuParams { tenkan: 9, kijun: 26, span_b: 52, displacement: 26 }
    }
}

impl Params for IchimokuParams {
    type Indicator = Ichimoku;

    fn build(&self) -> Result<Ichimoku, ParamError> {
        Ok(Ichimoku {
            windows: [
                period("tenkan", self.tenkan)?,
                period("kijun", self.kijun)?,
                period("span_b", self.span_b)?,
            ],
            displacement: period("displacement", self.displacement)?,
        })
    }
}

/// See [`IchimokuParams`].
#[derive(Clone, Debug)]
pub struct Ichimoku {
    windows: [usize; 3],
    displacement: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IchimokuState {
    windows: [Extremes; 3],
    span_a: Delay,
    span_b: Delay,
}

impl Indicator<2, 4> for Ichimoku {
    type State = IchimokuState;

    #[inline]
    fn step(&self, s: &mut IchimokuState, [high, low]: [f64; 2]) -> [f64; 4] {
        let mut middles = [f64::NAN; 3];
        for (i, window) in s.windows.iter_mut().enumerate() {
            window.push(self.windows[i], high, low);
            middles[i] = window.middle(self.windows[i]);
        }
        let [tenkan, kijun, slow] = middles;
        let span_a = s.span_a.push(self.displacement, (tenkan + kijun) / 2.0);
        let span_b = s.span_b.push(self.displacement, slow);
        [tenkan, kijun, span_a, span_b]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn the_cloud_is_of_the_past() {
        let params = IchimokuParams { tenkan: 1, kijun: 2, span_b: 3, displacement: 2 };
        let rows: Vec<_> = (0..6).map(|i| [f64::from(i) + 1.0, f64::from(i)]).collect();
        let out = run(&params.build().unwrap(), &rows);
        assert_close(&out[5], &[5.5, 5.0, (3.5 + 3.0) / 2.0, 2.5]);
        assert_close(&out[3], &[3.5, 3.0, (1.5 + 1.0) / 2.0, f64::NAN]);
    }
}
