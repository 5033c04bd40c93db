//! KELTNER: EMA of the typical price plus and minus `width` times the ATR.
//! Chester Keltner, How to Make Money in Commodities (1960), in Linda Raschke's form.
//!
//! Warm-up: the longer of `period` and `atr_period` + 1 rows. State: 47 bytes. Null rows are
//! skipped. As TA-Lib's
//! KC: both averages are seeded with the rows that end where both can first be known.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::atr::{Atr, AtrState};
use super::ema::{Ema, EmaState};
use super::indicator::Indicator;
use super::params::{ParamError, Params, period, positive};
use super::registry::{Role, Spec};

pub(super) const KELTNER: Spec = Spec::of::<KeltnerParams, 3, 3>(
    "keltner",
    &[Role::High, Role::Low, Role::Close],
    &["keltner_upper", "keltner_middle", "keltner_lower"],
);

/// Keltner channel: EMA of the typical price (middle), and `width` average true ranges above
/// (upper) and below (lower).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeltnerParams {
    /// Period of the middle.
    pub period: u32,
    /// Period of the average true range.
    pub atr_period: u32,
    /// Average true ranges from the middle to each band.
    pub width: f64,
}

impl Default for KeltnerParams {
    fn default() -> Self {
        KeltnerParams { period: 20, atr_period: 10, width: 2.0 }
    }
}

impl Params for KeltnerParams {
    type Indicator = Keltner;

    fn build(&self) -> Result<Keltner, ParamError> {
        let ema = period("period", self.period)?;
        let atr = period("atr_period", self.atr_period)?;
        let warm = ema.max(atr + 1);
        Ok(Keltner {
            ema_from: (warm - ema) as u32,
            ema: Ema::new(ema),
            atr_from: (warm - atr - 1) as u32,
            atr: Atr::new(atr),
            width: positive("width", self.width)?,
        })
    }
}

/// See [`KeltnerParams`].
#[derive(Clone, Debug)]
pub struct Keltner {
    /// Rows that the average does not see.
    ema_from: u32,
    ema: Ema,
    atr_from: u32,
    atr: Atr,
    width: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KeltnerState {
    rows: u32,
    ema: EmaState,
    atr: AtrState,
}

impl Indicator<3, 3> for Keltner {
    type State = KeltnerState;

    #[inline]
    fn step(&self, s: &mut KeltnerState, bar: [f64; 3]) -> [f64; 3] {
        let (mut middle, mut atr) = (f64::NAN, f64::NAN);
        if s.rows >= self.ema_from {
            middle = self.ema.push(&mut s.ema, (bar[0] + bar[1] + bar[2]) / 3.0);
        }
        if s.rows >= self.atr_from {
            atr = self.atr.push(&mut s.atr, bar);
        }
        s.rows = s.rows.saturating_add(1);
        if atr.is_nan() {
            return [f64::NAN; 3];
        }
        let half = self.width * atr;
        [middle + half, middle, middle - half]
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::*;
    use super::*;

    #[test]
    fn bands_are_ranges_wide() {
        let keltner = KeltnerParams::default().build().unwrap();
        let out = run(&keltner, &[[11.0, 9.0, 10.0]; 25]);
        assert_close(&out[18], &[f64::NAN; 3]);
        assert_close(&out[19], &[14.0, 10.0, 6.0]);
        assert_close(&out[24], &[14.0, 10.0, 6.0]);
    }
}
