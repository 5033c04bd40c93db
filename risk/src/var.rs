//! Value at risk and expected shortfall of a sample of profits or returns, by several methods.
//!
//! **Signs.** Everything here is a profit: a loss is negative. VaR at 95 % is the profit that five percent of outcomes are worse than, CVaR
//! (expected shortfall) the mean of those; both are negative numbers for any book that can lose. Samples are oldest first.
//!
//! | method | what it takes outcomes to be |
//! |---|---|
//! | [`historical`](tail::historical) | the sample itself; percentile with linear interpolation, as NumPy's and empyrical's |
//! | [`age_weighted`](weighted::age_weighted) | the sample, newer outcomes likelier (Boudoukh, Richardson, Whitelaw 1998) |
//! | [`filtered`](ewma::filtered) | the sample, each outcome scaled from its time's volatility to today's (Hull, White 1998) |
//! | [`parametric`] | normal, with the sample's mean and deviation |
//! | [`cornish_fisher`] | near normal, with the sample's skewness and kurtosis too |
//! | [`ewma`] | normal without a mean, volatility by exponential weights (RiskMetrics 1996) |
//! | [`monte_carlo`] | drawn from a covariance, normal or Student's t |

pub mod component;
pub mod ewma;
pub mod moments;
pub mod monte_carlo;
pub mod tail;
pub mod weighted;

#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::distribution::{normal_pdf, normal_quantile};
use moments::Moments;

/// VaR and CVaR as profits: losses are negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TailRisk {
    /// The profit that a part `1 - level` of outcomes is worse than.
    pub var: f64,
    /// Mean of the outcomes there.
    pub cvar: f64,
}

impl TailRisk {
    /// Over `horizon` periods by the square root of time, which takes outcomes to be independent and without a mean.
    pub fn over(self, horizon: f64) -> Self {
        let root = horizon.sqrt();
        Self { var: self.var * root, cvar: self.cvar * root }
    }
}

/// How VaR is found. See [the module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Outcomes of the window as they were.
    Historical,
    /// As `historical`, newer outcomes likelier.
    AgeWeighted,
    /// As `historical`, outcomes scaled from the volatility of their time to today's.
    Filtered,
    /// Normal, with the window's mean and deviation.
    Parametric,
    /// Near normal, with the window's skewness and kurtosis.
    CornishFisher,
    /// Normal without a mean, with an exponentially weighted deviation.
    Ewma,
    /// Drawn from the window's covariance.
    MonteCarlo,
}

impl Method {
    /// The word in graphs and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Historical => "historical",
            Self::AgeWeighted => "age_weighted",
            Self::Filtered => "filtered",
            Self::Parametric => "parametric",
            Self::CornishFisher => "cornish_fisher",
            Self::Ewma => "ewma",
            Self::MonteCarlo => "monte_carlo",
        }
    }
}

/// The part of outcomes beyond `level`: 0.95 gives 0.05 to the last digit, which `1.0 - 0.95` is not.
pub fn tail_of(level: f64) -> f64 {
    ((1.0 - level) * 1e12).round() / 1e12
}

/// Whether VaR has a meaning there: above 0, below 1.
pub fn is_level(level: f64) -> bool {
    level > 0.0 && level < 1.0 && tail_of(level) > 0.0
}

/// Normal outcomes over `horizon` periods: `h mean + z sqrt(h) deviation`. `None` where the level is none.
pub fn parametric(moments: &Moments, level: f64, horizon: f64) -> Option<TailRisk> {
    let tail = is_level(level).then(|| tail_of(level))?;
    let z = normal_quantile(tail);
    let (mean, deviation) = (moments.mean * horizon, moments.deviation * horizon.sqrt());
    Some(TailRisk { var: mean + z * deviation, cvar: mean - deviation * normal_pdf(z) / tail })
}

/// Normal outcomes without a mean, of this deviation a period.
pub fn normal(deviation: f64, level: f64, horizon: f64) -> Option<TailRisk> {
    parametric(&Moments { deviation, ..Moments::default() }, level, horizon)
}

/// Outcomes over `horizon` periods by Cornish and Fisher's expansion (1938): `z` is moved by skewness `s` and excess kurtosis `k`,
/// `z + (z^2 - 1) s / 6 + (z^3 - 3 z) k / 24 - (2 z^3 - 5 z) s^2 / 36`.
///
/// CVaR is the expansion's mean beyond `z` (Maillard 2012; by the integrals of Hermite polynomials). Over `h` independent periods skewness is
/// `s / sqrt(h)` and kurtosis `k / h`. `None` where the level is none, or the sample too small or constant for a skewness and kurtosis.
pub fn cornish_fisher(moments: &Moments, level: f64, horizon: f64) -> Option<TailRisk> {
    let tail = is_level(level).then(|| tail_of(level))?;
    let (s, k) = (moments.skewness? / horizon.sqrt(), moments.excess_kurtosis? / horizon);
    let z = normal_quantile(tail);
    let (z2, z3) = (z * z, z * z * z);
    let moved = z + (z2 - 1.0) * s / 6.0 + (z3 - 3.0 * z) * k / 24.0 - (2.0 * z3 - 5.0 * z) * s * s / 36.0;
    let beyond = 1.0 + z * s / 6.0 + (z2 - 1.0) * k / 24.0 - (2.0 * z2 - 1.0) * s * s / 36.0;
    let (mean, deviation) = (moments.mean * horizon, moments.deviation * horizon.sqrt());
    Some(TailRisk { var: mean + deviation * moved, cvar: mean - deviation * normal_pdf(z) / tail * beyond })
}

/// Sums of `horizon` outcomes in a row, one for each start: a sample of outcomes over that horizon, which overlap.
pub fn overlapping(sample: &[f64], horizon: usize, out: &mut Vec<f64>) {
    out.clear();
    out.extend(sample.windows(horizon.max(1)).map(|w| w.iter().sum::<f64>()));
}
