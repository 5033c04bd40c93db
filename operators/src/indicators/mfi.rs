//! MFI: money flow index, an RSI weighted by volume: flow on rises in percent of all flow in the
//! window. Gene Quong and Avrum Soudack, Stocks & Commodities 7:3 (1989).
//!
//! flow = |typical price * volume| of a row whose typical price rose or fell by more than rounding
//! (1e-14 of it).
//! Warm-up: `period` + 1 rows. State: 8 bytes a row of the window and 49. Null rows are skipped. As
//! TA-Lib, but NaN in place of 0 where there was no flow.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, ratio};
use super::params::{ParamError, Params, period};
use super::registry::{Role, Spec};
use super::ring::{Ring, WindowSum};

pub(super) const MFI: Spec =
    Spec::of::<MfiParams, 4, 1>("mfi", &[Role::High, Role::Low, Role::Close, Role::Volume], &["mfi"]);

/// Money flow index: price times volume of rises in percent of that of rises and falls.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MfiParams {
    /// Rows in the window.
    pub period: u32,
}

impl Default for MfiParams {
    fn default() -> Self {
        MfiParams { period: 14 }
    }
}

impl Params for MfiParams {
    type Indicator = Mfi;

    fn build(&self) -> Result<Mfi, ParamError> {
        Ok(Mfi { period: period("period", self.period)? })
    }
}

/// See [`MfiParams`].
#[derive(Clone, Debug)]
pub struct Mfi {
    period: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MfiState {
    last: Option<f64>,
    /// Flows, negative for falls.
    flows: Ring,
    up: WindowSum,
    down: WindowSum,
}

impl Indicator<4, 1> for Mfi {
    type State = MfiState;

    #[inline]
    fn step(&self, s: &mut MfiState, [high, low, close, volume]: [f64; 4]) -> [f64; 1] {
        let price = (high + low + close) / 3.0;
        let Some(last) = s.last.replace(price) else {
            return [f64::NAN];
        };
        let flow = (price * volume).abs();
        let change = price - last;
        let flow = if change.abs() <= 1e-14 * (price.abs() + last.abs()) {
            0.0
        } else if change > 0.0 {
            flow
        } else {
            -flow
        };
        let (up, down) = (|x: f64| x.max(0.0), |x: f64| (-x).max(0.0));
        let left = s.flows.push(self.period, flow);
        if left.is_some() && s.flows.is_at_start() {
            s.up = WindowSum::of(s.flows.items().iter().copied().map(up));
            s.down = WindowSum::of(s.flows.items().iter().copied().map(down));
        } else {
            if let Some(left) = left {
                s.up.leave(up(left));
                s.down.leave(down(left));
            }
            s.up.enter(up(flow));
            s.down.enter(down(flow));
        }
        if !s.flows.is_full(self.period) {
            return [f64::NAN];
        }
        let up = s.up.value();
        [100.0 * ratio(up, up + s.down.value())]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn equals_the_window_summed_anew() {
        windows(|period, rows| {
            let bars = rows.map(|x| [x + 200.0; 3]);
            let bars: Vec<_> = bars.iter().map(|&[h, l, c]| [h, l, c, 3.0]).collect();
            let out = run(&Mfi { period }, &bars);
            let anew = rows.windows(period + 1, |w| {
                let flow = |up: bool| -> f64 {
                    let moves = w.windows(2).filter(|p| if up { p[1] > p[0] } else { p[1] < p[0] });
                    moves.map(|p| (p[1] + 200.0).abs()).sum()
                };
                100.0 * flow(true) / (flow(true) + flow(false))
            });
            assert_near(&column(&out, 0), &anew, 100.0);
        });
    }
}
