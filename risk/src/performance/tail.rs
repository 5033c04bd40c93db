//! The tails of a sample of returns. Losses are negative here, as in the returns themselves; `level` is the confidence, such as 0.95.
//!
//! Figures as empyrical computes them: quantiles interpolate linearly (Hyndman and Fan 1996, type 7, NumPy's default), the expected
//! shortfall is the mean of the floor((n - 1)(1 - level)) + 1 least returns.

use super::moments::{checked, finite, mean, ratio, sample_excess_kurtosis, sample_skewness, spread};
use crate::distribution::{normal_pdf, normal_quantile};

/// Where the quantile `p` lies in a sorted sample: whole part and fraction. A whole number that rounding missed is taken as whole, so that
/// 1 - 0.9 of 101 numbers is the tenth.
fn position(n: usize, p: f64) -> (usize, f64) {
    let exact = (n - 1) as f64 * p;
    let near = exact.round();
    let exact = if (exact - near).abs() < 1e-9 { near } else { exact };
    // p is within 0 to 1, so this is within 0 to n - 1.
    (exact.floor() as usize, exact - exact.floor())
}

fn level_tail(level: f64) -> Option<f64> {
    (level > 0.0 && level < 1.0).then_some(1.0 - level)
}

/// The quantile `p` (0 to 1) of at least one number, interpolated linearly between the two nearest. In O(n), of any order.
pub fn quantile(values: &[f64], p: f64) -> Option<f64> {
    checked(values, 1)?;
    if !(0.0..=1.0).contains(&p) {
        return None;
    }
    let (index, part) = position(values.len(), p);
    let mut values = values.to_vec();
    let (_, at, above) = values.select_nth_unstable_by(index, f64::total_cmp);
    let at = *at;
    let next = above.iter().copied().min_by(f64::total_cmp).unwrap_or(at);
    finite(if part < 0.5 { at + (next - at) * part } else { next - (next - at) * (1.0 - part) })
}

/// Historical value at risk: the return that is not undercut at the confidence `level`. A loss is negative.
pub fn historical_var(returns: &[f64], level: f64) -> Option<f64> {
    quantile(returns, level_tail(level)?)
}

/// Historical expected shortfall (CVaR): the mean of the returns at and beyond the value at risk. A loss is negative.
pub fn historical_cvar(returns: &[f64], level: f64) -> Option<f64> {
    checked(returns, 1)?;
    let (index, _) = position(returns.len(), level_tail(level)?);
    let mut values = returns.to_vec();
    values.select_nth_unstable_by(index, f64::total_cmp);
    // Sorted, so that the sum does not depend on the order of the returns.
    values.truncate(index + 1);
    values.sort_unstable_by(f64::total_cmp);
    mean(&values)
}

/// Normal value at risk: mean + z * deviation (n - 1), z the normal quantile of 1 - level.
pub fn normal_var(returns: &[f64], level: f64) -> Option<f64> {
    finite(mean(returns)? + normal_quantile(level_tail(level)?) * spread(returns)?)
}

/// Normal expected shortfall: mean - deviation * pdf(z) / (1 - level).
pub fn normal_cvar(returns: &[f64], level: f64) -> Option<f64> {
    let tail = level_tail(level)?;
    finite(mean(returns)? - spread(returns)? * normal_pdf(normal_quantile(tail)) / tail)
}

/// The normal quantile corrected for skewness and excess kurtosis (Cornish and Fisher 1938, to the third order).
pub fn cornish_fisher_quantile(p: f64, skewness: f64, excess_kurtosis: f64) -> Option<f64> {
    let z = normal_quantile(p);
    finite(
        z + (z * z - 1.0) * skewness / 6.0 + (z.powi(3) - 3.0 * z) * excess_kurtosis / 24.0
            - (2.0 * z.powi(3) - 5.0 * z) * skewness * skewness / 36.0,
    )
}

/// Modified value at risk: as [`normal_var`] with the quantile of Cornish and Fisher and the sample's corrected skewness and kurtosis.
pub fn cornish_fisher_var(returns: &[f64], level: f64) -> Option<f64> {
    let (skewness, kurtosis) = (sample_skewness(returns)?, sample_excess_kurtosis(returns)?);
    let z = cornish_fisher_quantile(level_tail(level)?, skewness, kurtosis)?;
    finite(mean(returns)? + z * spread(returns)?)
}

/// |quantile 95 %| / |quantile 5 %|: above 1 where the good days are larger than the bad ones.
pub fn tail_ratio(returns: &[f64]) -> Option<f64> {
    ratio(quantile(returns, 0.95)?.abs(), quantile(returns, 0.05)?.abs())
}

/// One step of an exponentially weighted variance around zero: lambda * variance + (1 - lambda) * r^2 (RiskMetrics 1996).
pub fn ewma_step(variance: f64, value: f64, lambda: f64) -> f64 {
    lambda * variance + (1.0 - lambda) * value * value
}

/// Exponentially weighted volatility per period after the last return, started with the first one's square; lambda from 0 up to below 1
/// (RiskMetrics 1996 has 0.94 for days).
pub fn ewma_volatility(returns: &[f64], lambda: f64) -> Option<f64> {
    checked(returns, 1)?;
    if !(0.0..1.0).contains(&lambda) {
        return None;
    }
    let first = returns[0] * returns[0];
    finite(returns[1..].iter().fold(first, |variance, r| ewma_step(variance, *r, lambda)).sqrt())
}
