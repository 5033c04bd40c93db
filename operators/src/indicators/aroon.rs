//! AROON: how long ago the highest high (up) and the lowest low (down) of the last `period` + 1
//! rows were: 100 when now, 0 when `period` rows ago; and up - down. Tushar Chande, Stocks &
//! Commodities 13:9 (1995).
//!
//! Warm-up: `period` + 1 rows. State: at most 18 bytes a row of the window, each way. Null rows are
//! skipped. As TA-Lib: the latest of equals counts.
use schemars::JsonSchema;
use serde::Deserialize;

use super::extremes::Extremes;
use super::indicator::Indicator;
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};

pub(super) const AROON: Spec = Spec::of::<AroonParams, 2, 3>(
    "aroon",
    &[Role::High, Role::Low],
    &["aroon_up", "aroon_down", "aroon_osc"],
);

/// Aroon: how recent the highest high (up) and the lowest low (down) of the window are, from 100 to
/// 0, and their difference (osc).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AroonParams {
    /// Rows to look back.
    pub period: u32,
}

impl Default for AroonParams {
    fn default() -> Self {
        AroonParams { period: 25 }
    }
}

impl Params for AroonParams {
    type Indicator = Aroon;

    fn build(&self) -> Result<Aroon, ParamError> {
        Ok(Aroon { period: period("period", self.period)? })
    }
}

/// See [`AroonParams`].
#[derive(Clone, Debug)]
pub struct Aroon {
    period: usize,
}

impl Indicator<2, 3> for Aroon {
    type State = Extremes;

    #[inline]
    fn step(&self, s: &mut Extremes, [high, low]: [f64; 2]) -> [f64; 3] {
        let rows = self.period + 1;
        s.push(rows, high, low);
        if !s.is_full(rows) {
            return [f64::NAN; 3];
        }
        let n = self.period as f64;
        let up = 100.0 * (n - s.high_age() as f64) / n;
        let down = 100.0 * (n - s.low_age() as f64) / n;
        [up, down, up - down]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn equals_the_window_searched_anew() {
        windows(|period, rows| {
            // Few distinct values, so that there are ties.
            let round = |x: f64| (x / 20.0).round();
            let out = run(&Aroon { period }, &rows.map(|x| [round(x), round(x)]));
            let place = |w: &[f64], better: fn(f64, f64) -> bool| {
                let mut best = 0;
                for i in 1..w.len() {
                    if !better(round(w[best]), round(w[i])) {
                        best = i;
                    }
                }
                100.0 * best as f64 / period as f64
            };
            let up = rows.windows(period + 1, |w| place(w, |a, b| a > b));
            let down = rows.windows(period + 1, |w| place(w, |a, b| a < b));
            assert_near(&column(&out, 0), &up, 1.0);
            assert_near(&column(&out, 1), &down, 1.0);
        });
    }
}
