//! AD: accumulation/distribution line, the sum of money flow volume, ((close - low) - (high -
//! close)) / (high - low) * volume.
//! ADOSC: EMA(fast) - EMA(slow) of it. CMF: Chaikin money flow, its sum over that of volume in a
//! window. Marc Chaikin.
//!
//! A bar without range has no flow. Warm-up: none, `slow` rows, `period` rows. State: 16 bytes, 36
//! bytes, 16 bytes a row of the window. Null rows are skipped. As TA-Lib: the averages of ADOSC
//! start with the first value; but CMF is NaN, not 0, where no volume traded.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, fast_slow, period};
use super::registry::{Role, Spec};
use super::ring::{RollingSum, Sum};

pub(super) const AD: Spec =
    Spec::of::<AdParams, 4, 1>("ad", &[Role::High, Role::Low, Role::Close, Role::Volume], &["ad"]);

pub(super) const ADOSC: Spec =
    Spec::of::<AdoscParams, 4, 1>("adosc", &[Role::High, Role::Low, Role::Close, Role::Volume], &["adosc"]);

pub(super) const CMF: Spec =
    Spec::of::<CmfParams, 4, 1>("cmf", &[Role::High, Role::Low, Role::Close, Role::Volume], &["cmf"]);

/// Accumulation/distribution line: volume weighted by where the bar closes in its range, summed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdParams {}

impl Params for AdParams {
    type Indicator = Ad;

    fn build(&self) -> Result<Ad, ParamError> {
        Ok(Ad)
    }
}

/// Chaikin oscillator: EMA(fast) - EMA(slow) of the accumulation/distribution line.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdoscParams {
    /// Period of the fast average.
    pub fast: u32,
    /// Period of the slow average.
    pub slow: u32,
}

impl Default for AdoscParams {
    fn default() -> Self {
        AdoscParams { fast: 3, slow: 10 }
    }
}

impl Params for AdoscParams {
    type Indicator = Adosc;

    fn build(&self) -> Result<Adosc, ParamError> {
        let (fast, slow) = fast_slow(self.fast, self.slow)?;
        Ok(Adosc { fast: 2.0 / (fast as f64 + 1.0), slow: 2.0 / (slow as f64 + 1.0), warm: slow as u32 })
    }
}

/// Chaikin money flow: volume weighted by where the bar closes in its range, in parts of all volume
/// in the window.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CmfParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for CmfParams {
    fn default() -> Self {
        CmfParams { period: 20 }
    }
}

impl Params for CmfParams {
    type Indicator = Cmf;

    fn build(&self) -> Result<Cmf, ParamError> {
        Ok(Cmf { period: period("period", self.period)? })
    }
}

#[inline]
fn flow([high, low, close, volume]: [f64; 4]) -> f64 {
    let range = high - low;
    let flow = (close - low - (high - close)) / range * volume;
    if range > 0.0 && flow.is_finite() { flow } else { 0.0 }
}

/// See [`AdParams`].
#[derive(Clone, Debug)]
pub struct Ad;

impl Indicator<4, 1> for Ad {
    type State = Sum;

    #[inline]
    fn step(&self, s: &mut Sum, bar: [f64; 4]) -> [f64; 1] {
        s.add(flow(bar));
        [s.value()]
    }
}

/// See [`AdoscParams`].
#[derive(Clone, Debug)]
pub struct Adosc {
    fast: f64,
    slow: f64,
    warm: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AdoscState {
    rows: u32,
    line: Sum,
    fast: f64,
    slow: f64,
}

impl Indicator<4, 1> for Adosc {
    type State = AdoscState;

    #[inline]
    fn step(&self, s: &mut AdoscState, bar: [f64; 4]) -> [f64; 1] {
        s.line.add(flow(bar));
        let line = s.line.value();
        if s.rows == 0 {
            (s.fast, s.slow) = (line, line);
        } else {
            s.fast += (line - s.fast) * self.fast;
            s.slow += (line - s.slow) * self.slow;
        }
        s.rows = s.rows.saturating_add(1);
        if s.rows < self.warm {
            return [f64::NAN];
        }
        [s.fast - s.slow]
    }
}

/// See [`CmfParams`].
#[derive(Clone, Debug)]
pub struct Cmf {
    period: usize,
}

impl Indicator<4, 1> for Cmf {
    /// Of flow and of volume.
    type State = [RollingSum; 2];

    #[inline]
    fn step(&self, [flows, volumes]: &mut Self::State, bar: [f64; 4]) -> [f64; 1] {
        let flow = flows.push(self.period, flow(bar));
        [ratio(flow, volumes.push(self.period, bar[3]))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn a_close_at_the_high_takes_all_volume() {
        let rows = [[2.0, 1.0, 2.0, 10.0], [2.0, 1.0, 1.25, 8.0], [1.0, 1.0, 1.0, 7.0]];
        assert_close(&column(&run(&Ad, &rows), 0), &[10.0, 6.0, 6.0]);
        let out = run(&AdoscParams { fast: 1, slow: 3 }.build().unwrap(), &rows);
        assert_close(&column(&out, 0), &[f64::NAN, f64::NAN, 6.0 - 7.0]);
    }

    #[test]
    fn equals_the_window_summed_anew() {
        windows(|period, rows| {
            let bars = rows.map(|x| [2.0, 1.0, 1.0 + x.abs() / 1e4, 5.0]);
            let out = run(&Cmf { period }, &bars);
            let anew = rows.windows(period, |w| {
                w.iter().map(|x| 2.0 * x.abs() / 1e4 - 1.0).sum::<f64>() / period as f64
            });
            assert_near(&column(&out, 0), &anew, 1.0);
        });
    }
}
