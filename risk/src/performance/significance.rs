//! How much a Sharpe ratio proves: probabilistic and deflated Sharpe ratio, and the track record it takes.
//!
//! Bailey and Lopez de Prado, "The Sharpe ratio efficient frontier" (Journal of Risk 15(2), 2012) and "The deflated Sharpe ratio" (Journal
//! of Portfolio Management 40(5), 2014). All Sharpe ratios here are **per period**, not per year: divide one a year by sqrt(per_year).

use serde::{Deserialize, Serialize};

use super::moments::{finite, kurtosis, mean, ratio, skewness, spread};
use crate::distribution::{normal_cdf, normal_quantile};

/// Euler's constant.
const EULER: f64 = 0.577_215_664_901_532_9;

/// A Sharpe ratio and what its error depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharpeSample {
    /// The Sharpe ratio per period.
    pub sharpe: f64,
    /// Periods it was measured over.
    pub periods: usize,
    /// Skewness of the returns.
    pub skewness: f64,
    /// Kurtosis of the returns: 3 for the normal distribution (not the excess).
    pub kurtosis: f64,
}

impl SharpeSample {
    /// That of some returns: mean / sample deviation, with the population's skewness and kurtosis. None if they are fewer than two,
    /// not finite, or all equal.
    pub fn of(returns: &[f64]) -> Option<Self> {
        Some(Self {
            sharpe: ratio(mean(returns)?, spread(returns)?)?,
            periods: returns.len(),
            skewness: skewness(returns)?,
            kurtosis: kurtosis(returns)?,
        })
    }

    /// The variance of the estimate times (periods - 1): 1 - skewness * SR + (kurtosis - 1) / 4 * SR^2 (Mertens 2002). Above zero for any
    /// distribution there is; none for numbers that belong to no distribution.
    fn scaled_variance(&self) -> Option<f64> {
        let sr = self.sharpe;
        finite(1.0 - self.skewness * sr + 0.25 * (self.kurtosis - 1.0) * sr * sr).filter(|v| *v > 0.0)
    }
}

/// The probabilistic Sharpe ratio: the probability that the true Sharpe ratio is above `benchmark`,
/// cdf((SR - benchmark) * sqrt(n - 1) / sqrt(1 - skewness * SR + (kurtosis - 1) / 4 * SR^2)).
pub fn probabilistic_sharpe(sample: &SharpeSample, benchmark: f64) -> Option<f64> {
    if sample.periods < 2 {
        return None;
    }
    let root = ((sample.periods - 1) as f64).sqrt();
    finite(normal_cdf(finite((sample.sharpe - benchmark) * root / sample.scaled_variance()?.sqrt())?))
}

/// The Sharpe ratio that the best of `trials` independent ones without any skill is expected to show:
/// sqrt(variance) * ((1 - g) * z(1 - 1/N) + g * z(1 - 1/(N e))), g Euler's constant, z the normal quantile. `variance` is that of the
/// trials' Sharpe ratios (per period). One trial: 0.
pub fn expected_max_sharpe(trials: usize, variance: f64) -> Option<f64> {
    if trials == 0 || !(variance >= 0.0 && variance.is_finite()) {
        return None;
    }
    if trials == 1 {
        return Some(0.0);
    }
    let share = 1.0 / trials as f64;
    // z(1 - p) = -z(p), which keeps the digits of a small p.
    let best = -(1.0 - EULER) * normal_quantile(share) - EULER * normal_quantile(share / std::f64::consts::E);
    finite(variance.sqrt() * best)
}

/// The deflated Sharpe ratio: the probability that the true Sharpe ratio is above zero after choosing the best of `trials`; the
/// [`probabilistic_sharpe`] against [`expected_max_sharpe`]. `variance` is that of all trials' Sharpe ratios per period.
pub fn deflated_sharpe(sample: &SharpeSample, trials: usize, variance: f64) -> Option<f64> {
    probabilistic_sharpe(sample, expected_max_sharpe(trials, variance)?)
}

/// The periods it takes until a Sharpe ratio like this is above `benchmark` with this `confidence` (such as 0.95):
/// 1 + (1 - skewness * SR + (kurtosis - 1) / 4 * SR^2) * (z / (SR - benchmark))^2. None if it isn't above it at all.
pub fn min_track_record(sample: &SharpeSample, benchmark: f64, confidence: f64) -> Option<f64> {
    if !(0.5..1.0).contains(&confidence) || sample.sharpe <= benchmark {
        return None;
    }
    let z = normal_quantile(confidence);
    finite(1.0 + sample.scaled_variance()? * (z / (sample.sharpe - benchmark)).powi(2))
}
