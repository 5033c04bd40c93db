//! Implied volatility: the inverse of Black-Scholes in volatility.
//!
//! As Jäckel ("Let's be rational", 2015) the price is brought to an out-of-the-money one over sqrt(asset * cash), so that it depends on the
//! log-moneyness x and the total deviation s alone, and the objective is the logarithm of the price below the inflection s = sqrt(2|x|) and
//! of the distance to the upper bound above it: nearly straight lines, on which Newton's method takes 3 to 8 steps. Each step is kept in a
//! bracket and halved where it leaves it, so it always ends.

use std::f64::consts::PI;

use super::{European, OptionError, OptionKind};
use crate::distribution::normal_cdf;

/// Steps are far fewer; halving a bracket of any two numbers ends within these.
const STEPS_MAX: usize = 200;

/// The volatility a year at which `option` has this price; its own `vol` is not read. A price that is the discounted intrinsic value,
/// but for rounding, gives zero.
///
/// Far in the money the answer is as good as the price: what volatility adds may be below its last digit.
///
/// # Errors
/// When a number is bad (see [`super::price`]), the option expires now, or the price lies outside of its no-arbitrage bounds.
pub fn implied_vol(option: &European, price: f64) -> Result<f64, OptionError> {
    if !price.is_finite() {
        return Err(OptionError::NotFinite { field: "price", value: price });
    }
    let terms = European { vol: 0.0, ..*option }.terms()?;
    if option.years == 0.0 {
        return Err(OptionError::Expired);
    }
    let inside = terms.sign * (terms.asset - terms.cash);
    let bound = inside.max(0.0);
    // The bound is itself a rounded number: a price within a few of its last digits is the bound.
    let rounding = 4.0 * f64::EPSILON * if bound > 0.0 { terms.asset + terms.cash } else { 0.0 };
    if price < bound - rounding {
        return Err(OptionError::BelowBound { price, bound });
    }
    if price <= bound {
        return Ok(0.0);
    }
    let bound = match option.kind {
        OptionKind::Call => terms.asset,
        OptionKind::Put => terms.cash,
    };
    if price >= bound {
        return Err(OptionError::AboveBound { price, bound });
    }
    let value = (price - inside.max(0.0)) / (terms.asset.sqrt() * terms.cash.sqrt());
    let deviation = deviation((terms.asset / terms.cash).ln(), value)
        .ok_or(OptionError::OutOfRange { what: "implied volatility" })?;
    Ok(deviation / option.years.sqrt())
}

/// The out-of-the-money price of log-moneyness `x` <= 0 at deviation `s` > 0, and its distance to the upper bound e^(x/2).
fn normalised(x: f64, s: f64) -> (f64, f64) {
    let (up, down) = ((0.5 * x).exp(), (-0.5 * x).exp());
    let (d1, d2) = (x / s + 0.5 * s, x / s - 0.5 * s);
    (up * normal_cdf(d1) - down * normal_cdf(d2), up * normal_cdf(-d1) + down * normal_cdf(d2))
}

/// The deviation at which the normalised out-of-the-money price is `value`, or none where that isn't a number any more.
fn deviation(x: f64, value: f64) -> Option<f64> {
    let x = -x.abs();
    let room = (0.5 * x).exp() - value;
    if !(value > 0.0 && room > 0.0) {
        return None;
    }
    let inflection = (-2.0 * x).sqrt();
    let low = inflection > 0.0 && value < normalised(x, inflection).0;
    let (mut least, mut most) = if low { (0.0, inflection) } else { (inflection, f64::INFINITY) };
    // At the money the price is s / sqrt(2 pi) for small s: a start that is never zero.
    let mut s = if inflection > 0.0 { inflection } else { value * (2.0 * PI).sqrt() };
    let mut last = f64::INFINITY;
    for _ in 0..STEPS_MAX {
        let (price, rest) = normalised(x, s);
        let slope = (-0.5 * ((x / s).powi(2) + 0.25 * s * s)).exp() / (2.0 * PI).sqrt();
        if price < value {
            least = s;
        } else {
            most = s;
        }
        let step = if low { price * (price / value).ln() / slope } else { rest * (room / rest).ln() / slope };
        let mut next = s - step;
        if !(next > least && next < most) {
            // NaN comes here too: prices that underflow have no logarithm.
            next = if most.is_finite() { 0.5 * (least + most) } else { 2.0 * s };
        }
        // Near the root the steps shrink until only rounding is left of them.
        let moved = (next - s).abs();
        if moved <= 2.0 * f64::EPSILON * s || (moved < 1e-12 * s && moved >= last) {
            return Some(next);
        }
        (s, last) = (next, moved);
    }
    Some(s)
}
