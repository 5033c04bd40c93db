//! European options: Black-Scholes-Merton with a continuous dividend yield (Merton 1973, "Theory of rational option pricing").
//!
//! Rates and yields are continuously compounded and per year, volatility is per square root of a year, time is in years. Vega is for
//! 1.00 of volatility, rho for 1.00 of the rate, theta per year of passing time (so negative where value decays).
//!
//! With no time or no volatility left the price is its limit, the discounted intrinsic value of the forward, and so are the greeks;
//! only exactly at the money they have no limit, and [`OptionError::Kink`] says so.

mod implied;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::distribution::{normal_cdf, normal_pdf};
pub use implied::implied_vol;

/// A right to buy or to sell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptionKind {
    /// The right to buy.
    Call,
    /// The right to sell.
    Put,
}

impl OptionKind {
    /// 1 for a call, -1 for a put.
    pub const fn sign(self) -> f64 {
        match self {
            Self::Call => 1.0,
            Self::Put => -1.0,
        }
    }
}

/// A European option and the market it is valued in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct European {
    /// Call or put.
    pub kind: OptionKind,
    /// Price of the underlying, above zero.
    pub spot: f64,
    /// Strike, above zero.
    pub strike: f64,
    /// Interest rate a year, continuously compounded: 0.05 is five percent.
    pub rate: f64,
    /// Dividend yield a year, continuously compounded; for a currency the foreign rate.
    pub dividend: f64,
    /// Volatility a year: 0.2 is twenty percent. Not read by [`implied_vol`].
    pub vol: f64,
    /// Years to expiry; zero is now.
    pub years: f64,
}

/// Derivatives of an option's price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Greeks {
    /// By the price of the underlying.
    pub delta: f64,
    /// Of delta by the price of the underlying.
    pub gamma: f64,
    /// By volatility, for 1.00 of it.
    pub vega: f64,
    /// By passing time, per year.
    pub theta: f64,
    /// By the interest rate, for 1.00 of it.
    pub rho: f64,
}

/// Why an option has no value, greeks or implied volatility.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum OptionError {
    /// A number is NaN or infinite.
    #[error("an option's {field} is {value}: give a finite number")]
    NotFinite {
        /// Which number.
        field: &'static str,
        /// What it is.
        value: f64,
    },
    /// The spot or the strike is not above zero.
    #[error("an option's {field} is {value}: it must be above zero")]
    NotPositive {
        /// Which number.
        field: &'static str,
        /// What it is.
        value: f64,
    },
    /// The volatility or the time is below zero.
    #[error("an option's {field} is {value}: it must not be below zero")]
    Negative {
        /// Which number.
        field: &'static str,
        /// What it is.
        value: f64,
    },
    /// The forward is the strike and there is no time or no volatility: delta jumps there.
    #[error("an option at the money without time or volatility has no greeks: its delta jumps at {strike}")]
    Kink {
        /// The strike.
        strike: f64,
    },
    /// Nothing is implied by the price of an option that expires now.
    #[error("an option that expires now has no implied volatility")]
    Expired,
    /// The price is below what the option is worth without volatility.
    #[error(
        "an option's price of {price} is below its no-arbitrage bound of {bound}: no volatility gives it"
    )]
    BelowBound {
        /// The price.
        price: f64,
        /// The discounted intrinsic value of the forward.
        bound: f64,
    },
    /// The price is not below what the option is worth at infinite volatility.
    #[error("an option's price of {price} reaches its no-arbitrage bound of {bound}: no volatility gives it")]
    AboveBound {
        /// The price.
        price: f64,
        /// The discounted spot of a call, the discounted strike of a put.
        bound: f64,
    },
    /// A number left the range of `f64` on the way, such as a rate of 1000 over 10 years.
    #[error(
        "an option's {what} is out of the range of numbers: check its rate, dividend, volatility and years"
    )]
    OutOfRange {
        /// What was to be computed.
        what: &'static str,
    },
}

/// What both the price and the greeks stand on.
struct Terms {
    sign: f64,
    /// The spot, discounted at the dividend yield.
    asset: f64,
    /// The strike, discounted at the interest rate.
    cash: f64,
    /// vol * sqrt(years)
    deviation: f64,
}

impl European {
    fn terms(&self) -> Result<Terms, OptionError> {
        let numbers = [
            ("spot", self.spot),
            ("strike", self.strike),
            ("rate", self.rate),
            ("dividend", self.dividend),
            ("vol", self.vol),
            ("years", self.years),
        ];
        if let Some((field, value)) = numbers.into_iter().find(|(_, value)| !value.is_finite()) {
            return Err(OptionError::NotFinite { field, value });
        }
        if let Some((field, value)) = numbers[..2].iter().copied().find(|(_, value)| *value <= 0.0) {
            return Err(OptionError::NotPositive { field, value });
        }
        if let Some((field, value)) = numbers[4..].iter().copied().find(|(_, value)| *value < 0.0) {
            return Err(OptionError::Negative { field, value });
        }
        let terms = Terms {
            sign: self.kind.sign(),
            asset: self.spot * (-self.dividend * self.years).exp(),
            cash: self.strike * (-self.rate * self.years).exp(),
            deviation: self.vol * self.years.sqrt(),
        };
        let usable = |x: f64| x.is_finite() && x > 0.0;
        if usable(terms.asset) && usable(terms.cash) && terms.deviation.is_finite() {
            Ok(terms)
        } else {
            Err(OptionError::OutOfRange { what: "discounted forward" })
        }
    }

    /// The two arguments of the normal distribution in the formula; the deviation must not be zero.
    fn d1_d2(&self, terms: &Terms) -> (f64, f64) {
        let d1 = (terms.asset / terms.cash).ln() / terms.deviation + 0.5 * terms.deviation;
        (d1, d1 - terms.deviation)
    }
}

/// The price of an option, in the currency of its spot.
///
/// # Errors
/// When a number is not finite, or the spot or strike not above zero, or the volatility or time below zero.
pub fn price(option: &European) -> Result<f64, OptionError> {
    let terms = option.terms()?;
    let Terms { sign, asset, cash, deviation } = terms;
    if deviation == 0.0 {
        return Ok((sign * (asset - cash)).max(0.0));
    }
    let (d1, d2) = option.d1_d2(&terms);
    // Rounding must not take a worthless option below zero.
    Ok((sign * (asset * normal_cdf(sign * d1) - cash * normal_cdf(sign * d2))).max(0.0))
}

/// The greeks of an option.
///
/// # Errors
/// As [`price`], and [`OptionError::Kink`] at the money with neither time nor volatility.
pub fn greeks(option: &European) -> Result<Greeks, OptionError> {
    let terms = option.terms()?;
    let Terms { sign, asset, cash, deviation } = terms;
    let (rate, dividend, years) = (option.rate, option.dividend, option.years);
    let yielded = asset / option.spot;
    if deviation == 0.0 {
        let inside = sign * (asset - cash);
        if inside == 0.0 {
            return Err(OptionError::Kink { strike: option.strike });
        }
        if inside < 0.0 {
            return Ok(Greeks::default());
        }
        return Ok(Greeks {
            delta: sign * yielded,
            gamma: 0.0,
            vega: 0.0,
            theta: sign * (dividend * asset - rate * cash),
            rho: sign * years * cash,
        });
    }
    let (d1, d2) = option.d1_d2(&terms);
    let (density, root) = (normal_pdf(d1), years.sqrt());
    let (n1, n2) = (normal_cdf(sign * d1), normal_cdf(sign * d2));
    let greeks = Greeks {
        delta: sign * yielded * n1,
        gamma: yielded * density / (option.spot * deviation),
        vega: asset * density * root,
        theta: -0.5 * asset * density * option.vol / root + sign * (dividend * asset * n1 - rate * cash * n2),
        rho: sign * years * cash * n2,
    };
    let all = [greeks.delta, greeks.gamma, greeks.vega, greeks.theta, greeks.rho];
    if all.iter().all(|x| x.is_finite()) {
        Ok(greeks)
    } else {
        Err(OptionError::OutOfRange { what: "greeks" })
    }
}

#[cfg(test)]
mod tests;
