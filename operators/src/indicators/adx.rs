//! ADX: average directional index, with the directional indicators +DI and -DI.
//! J. Welles Wilder, New Concepts in Technical Trading Systems (1978), without his rounding.
//!
//! DM is the part of a bar's range beyond the last bar's, on the larger side; DI = 100 sum(DM) /
//! sum(TR) under Wilder's smoothing `sum -= sum / period; sum += x`; DX = 100 |+DI - -DI| / (+DI +
//! -DI); ADX Wilder's average of DX.
//! Warm-up: `period` + 1 rows for the DIs, 2 period rows for the ADX. State: 75 bytes. Null rows
//! are skipped. As TA-Lib: the first sums hold period - 1 moves, a row without movement leaves the
//! ADX as it was; but the DIs are NaN, not 0, where there was no range at all.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::atr::TrueRange;
use super::indicator::{Indicator, flush, ratio};
use super::params::{ParamError, Params, period_from};
use super::registry::{Role, Spec};

pub(super) const ADX: Spec = Spec::of::<AdxParams, 3, 3>(
    "adx",
    &[Role::High, Role::Low, Role::Close],
    &["adx", "plus_di", "minus_di"],
);

/// Average directional index (how strong a trend is), and the directional indicators plus_di and
/// minus_di (which way it goes).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdxParams {
    /// Period of the smoothing, at least 2.
    pub period: u32,
}

impl Default for AdxParams {
    fn default() -> Self {
        AdxParams { period: 14 }
    }
}

impl Params for AdxParams {
    type Indicator = Adx;

    fn build(&self) -> Result<Adx, ParamError> {
        let period = period_from("period", self.period, 2)?;
        Ok(Adx { period: period as u32, factor: 1.0 / period as f64 })
    }
}

/// See [`AdxParams`].
#[derive(Clone, Debug)]
pub struct Adx {
    period: u32,
    factor: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AdxState {
    rows: u32,
    high: f64,
    low: f64,
    close: Option<f64>,
    plus: f64,
    minus: f64,
    range: f64,
    /// The sum of DX, then its average.
    adx: f64,
}

impl Indicator<3, 3> for Adx {
    type State = AdxState;

    #[inline]
    fn step(&self, s: &mut AdxState, bar: [f64; 3]) -> [f64; 3] {
        let [high, low, _] = bar;
        let range = TrueRange::push(&mut s.close, bar);
        let up = high - std::mem::replace(&mut s.high, high);
        let down = std::mem::replace(&mut s.low, low) - low;
        let warm = 2 * self.period;
        s.rows = s.rows.saturating_add(1).min(warm + 1);
        if s.rows == 1 {
            return [f64::NAN; 3];
        }
        if s.rows > self.period {
            s.plus = flush(s.plus - s.plus * self.factor);
            s.minus = flush(s.minus - s.minus * self.factor);
            s.range = flush(s.range - s.range * self.factor);
        }
        if down > 0.0 && up < down {
            s.minus += down;
        } else if up > 0.0 && up > down {
            s.plus += up;
        }
        s.range += range;
        if s.rows <= self.period {
            return [f64::NAN; 3];
        }
        let plus = 100.0 * ratio(s.plus, s.range);
        let minus = 100.0 * ratio(s.minus, s.range);
        let dx = 100.0 * ratio((plus - minus).abs(), plus + minus);
        if s.rows <= warm {
            s.adx += if dx.is_nan() { 0.0 } else { dx };
            if s.rows < warm {
                return [f64::NAN, plus, minus];
            }
            s.adx *= self.factor;
        } else if !dx.is_nan() {
            s.adx = (dx - s.adx) * self.factor + s.adx;
        }
        [s.adx, plus, minus]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn a_rising_market_goes_one_way() {
        let adx = AdxParams { period: 2 }.build().unwrap();
        let rows: Vec<_> = (0..6).map(f64::from).map(|x| [x + 1.0, x, x + 0.5]).collect();
        let out = run(&adx, &rows);
        assert_eq!(warm_after(&adx, &rows), 4);
        assert!(out[1][1].is_nan() && out[2][1] > 0.0);
        assert_eq!((out[5][0], out[5][2]), (100.0, 0.0));
    }

    #[test]
    fn no_movement_no_direction() {
        let out = run(&AdxParams::default().build().unwrap(), &[[1.0; 3]; 40]);
        assert!(out[39][1].is_nan() && out[39][2].is_nan());
    }
}
