//! PSAR: parabolic stop and reverse, a stop that closes in on the price the faster the longer the
//! trend makes new extremes. J. Welles Wilder, New Concepts in Technical Trading Systems (1978).
//! Also the side: 1 long, -1 short.
//!
//! sar += af (extreme - sar); af grows by `step` with each new extreme, up to `max`. The stop never
//! enters the range of the last two rows; when the price touches it, the side changes and the stop
//! restarts at the extreme.
//! Warm-up: 2 rows. State: 46 bytes. Null rows are skipped. As TA-Lib's SAR: the first side is
//! short only if the second row's low fell by more than its high rose; the first stop is the first
//! row's low (or high).
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::indicator::Indicator;
use super::params::{ParamError, Params, positive};
use super::registry::{Role, Spec};

pub(super) const PSAR: Spec =
    Spec::of::<PsarParams, 2, 2>("psar", &[Role::High, Role::Low], &["psar", "psar_side"]);

/// Parabolic stop and reverse: a trailing stop, and the side it protects (1 long, -1 short).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PsarParams {
    /// What each new extreme adds to the acceleration.
    pub step: f64,
    /// The most the acceleration can be.
    pub max: f64,
}

impl Default for PsarParams {
    fn default() -> Self {
        PsarParams { step: 0.02, max: 0.2 }
    }
}

impl Params for PsarParams {
    type Indicator = Psar;

    fn build(&self) -> Result<Psar, ParamError> {
        let max = positive("max", self.max)?;
        Ok(Psar { step: positive("step", self.step)?.min(max), max })
    }
}

/// See [`PsarParams`].
#[derive(Clone, Debug)]
pub struct Psar {
    step: f64,
    max: f64,
}

/// Prices are held mirrored (negated, high and low swapped) while short, so that one side's rules
/// serve both.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PsarState {
    rows: u8,
    short: bool,
    /// The last row.
    high: f64,
    low: f64,
    /// The stop of the next row.
    stop: f64,
    extreme: f64,
    acceleration: f64,
}

impl Indicator<2, 2> for Psar {
    type State = PsarState;

    #[inline]
    fn step(&self, s: &mut PsarState, [high, low]: [f64; 2]) -> [f64; 2] {
        if s.rows == 0 {
            (s.rows, s.high, s.low) = (1, high, low);
            return [f64::NAN; 2];
        }
        if s.rows == 1 {
            let down = s.low - low;
            s.rows = 2;
            s.short = down > 0.0 && high - s.high < down;
            s.stop = if s.short { -s.high } else { s.low };
            s.extreme = if s.short { -low } else { high };
            s.acceleration = self.step;
            // The first stop is bounded by the second row alone.
            (s.high, s.low) = (high, low);
        }
        let (last_high, last_low) = (s.high, s.low);
        (s.high, s.low) = (high, low);
        let mirror = |h: f64, l: f64, short: bool| if short { (-l, -h) } else { (h, l) };
        let (top, bottom) = mirror(high, low, s.short);
        let (_, last_bottom) = mirror(last_high, last_low, s.short);
        let shown;
        if bottom <= s.stop {
            s.short = !s.short;
            let (top, bottom) = mirror(high, low, s.short);
            let (_, last_bottom) = mirror(last_high, last_low, s.short);
            s.stop = (-s.extreme).min(last_bottom).min(bottom);
            shown = s.stop;
            s.acceleration = self.step;
            s.extreme = top;
            s.advance(last_bottom, bottom);
        } else {
            shown = s.stop;
            if top > s.extreme {
                s.extreme = top;
                s.acceleration = (s.acceleration + self.step).min(self.max);
            }
            s.advance(last_bottom, bottom);
        }
        if s.short { [-shown, -1.0] } else { [shown, 1.0] }
    }
}

impl PsarState {
    #[inline]
    fn advance(&mut self, last_bottom: f64, bottom: f64) {
        let next = self.stop + self.acceleration * (self.extreme - self.stop);
        self.stop = next.min(last_bottom).min(bottom);
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn the_stop_follows_a_rise_and_turns_when_touched() {
        let psar = PsarParams::default().build().unwrap();
        let rows = [[2.0, 1.0], [3.0, 2.0], [4.0, 3.0], [5.0, 4.0], [4.0, 0.5]];
        let out = run(&psar, &rows);
        assert_close(&out[0], &[f64::NAN; 2]);
        assert_close(&out[1], &[1.0, 1.0]);
        assert_close(&out[2], &[1.04, 1.0]);
        assert_close(&out[4], &[5.0, -1.0]);
    }
}
