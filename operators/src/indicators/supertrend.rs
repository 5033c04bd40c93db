//! SUPERTREND: a stop `width` average true ranges from the middle of the bar that only moves
//! towards the price until a close beyond it turns the trend. Also the side: 1 up, -1 down. Olivier
//! Seban.
//!
//! Warm-up: `period` + 1 rows. State: 62 bytes. Null rows are skipped. As TA-Lib: the first trend
//! is up.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::atr::{Atr, AtrState};
use super::indicator::Indicator;
use super::params::{ParamError, Params, period, positive};
use super::registry::{Role, Spec};

pub(super) const SUPERTREND: Spec = Spec::of::<SupertrendParams, 3, 2>(
    "supertrend",
    &[Role::High, Role::Low, Role::Close],
    &["supertrend", "supertrend_side"],
);

/// SuperTrend: a trailing stop of `width` average true ranges, and the trend's side (1 up, -1
/// down).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SupertrendParams {
    /// Period of the average true range.
    pub period: u32,
    /// Average true ranges from the middle of the bar to the stop.
    pub width: f64,
}

impl Default for SupertrendParams {
    fn default() -> Self {
        SupertrendParams { period: 10, width: 3.0 }
    }
}

impl Params for SupertrendParams {
    type Indicator = Supertrend;

    fn build(&self) -> Result<Supertrend, ParamError> {
        Ok(Supertrend {
            atr: Atr::new(period("period", self.period)?),
            width: positive("width", self.width)?,
        })
    }
}

/// See [`SupertrendParams`].
#[derive(Clone, Debug)]
pub struct Supertrend {
    atr: Atr,
    width: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SupertrendState {
    atr: AtrState,
    trend: Option<Bands>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bands {
    upper: f64,
    lower: f64,
    close: f64,
    down: bool,
}

impl Indicator<3, 2> for Supertrend {
    type State = SupertrendState;

    #[inline]
    fn step(&self, s: &mut SupertrendState, bar: [f64; 3]) -> [f64; 2] {
        let [high, low, close] = bar;
        let atr = self.atr.push(&mut s.atr, bar);
        if atr.is_nan() {
            return [f64::NAN; 2];
        }
        let (middle, half) = ((high + low) / 2.0, self.width * atr);
        let (upper, lower) = (middle + half, middle - half);
        let Some(t) = &mut s.trend else {
            s.trend = Some(Bands { upper, lower, close, down: false });
            return [lower, 1.0];
        };
        if upper < t.upper || t.close > t.upper {
            t.upper = upper;
        }
        if lower > t.lower || t.close < t.lower {
            t.lower = lower;
        }
        t.down = if t.down { close <= t.upper } else { close < t.lower };
        t.close = close;
        if t.down { [t.upper, -1.0] } else { [t.lower, 1.0] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn a_close_beyond_the_stop_turns_the_trend() {
        let trend = SupertrendParams { period: 1, width: 1.0 }.build().unwrap();
        let out = run(&trend, &[[2.0, 1.0, 1.5], [2.0, 1.0, 1.5], [1.0, 0.0, 0.2], [9.0, 8.0, 9.0]]);
        assert_close(&out[0], &[f64::NAN; 2]);
        assert_close(&out[1], &[0.5, 1.0]);
        assert_close(&out[2], &[2.0, -1.0]);
        assert_eq!(out[3][1], 1.0);
    }
}
