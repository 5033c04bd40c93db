//! Returns beside those of a benchmark, period by period: two series of one length.

use super::moments::{checked, finite, mean, ratio, spread};
use super::ratios::annual_return;

/// Covariance over the benchmark's variance: how many units a unit of the benchmark moves it (the slope of the regression).
pub fn beta(returns: &[f64], benchmark: &[f64]) -> Option<f64> {
    let (r, b) = pair(returns, benchmark)?;
    spread(b)?;
    let (mean_r, mean_b) = (mean(r)?, mean(b)?);
    let both: f64 = r.iter().zip(b).map(|(r, b)| (r - mean_r) * (b - mean_b)).sum();
    let own: f64 = b.iter().map(|b| (b - mean_b).powi(2)).sum();
    ratio(both, own)
}

/// Jensen's alpha a year (Jensen 1968), arithmetic: (mean(r) - beta * mean(b)) * per_year, of returns over the risk-free rate.
pub fn alpha(returns: &[f64], benchmark: &[f64], per_year: f64) -> Option<f64> {
    finite((mean(returns)? - beta(returns, benchmark)? * mean(benchmark)?) * per_year)
}

/// Pearson's correlation with the benchmark.
pub fn correlation(returns: &[f64], benchmark: &[f64]) -> Option<f64> {
    let slope = beta(returns, benchmark)?;
    ratio(slope * spread(benchmark)?, spread(returns)?).map(|x| x.clamp(-1.0, 1.0))
}

/// The tracking error a year: the sample deviation of the difference * sqrt(per_year).
pub fn tracking_error(returns: &[f64], benchmark: &[f64], per_year: f64) -> Option<f64> {
    super::annual_volatility(&active(returns, benchmark)?, per_year)
}

/// The information ratio a year: the Sharpe ratio of the difference (Grinold and Kahn 2000).
pub fn information_ratio(returns: &[f64], benchmark: &[f64], per_year: f64) -> Option<f64> {
    super::sharpe(&active(returns, benchmark)?, per_year)
}

/// Treynor's ratio: the mean return a year over beta.
pub fn treynor(returns: &[f64], benchmark: &[f64], per_year: f64) -> Option<f64> {
    ratio(mean(returns)? * per_year, beta(returns, benchmark)?)
}

/// Annual growth less that of the benchmark.
pub fn excess_return(returns: &[f64], benchmark: &[f64], per_year: f64) -> Option<f64> {
    let (returns, benchmark) = pair(returns, benchmark)?;
    finite(annual_return(returns, per_year)? - annual_return(benchmark, per_year)?)
}

fn pair<'a>(returns: &'a [f64], benchmark: &'a [f64]) -> Option<(&'a [f64], &'a [f64])> {
    let both = (checked(returns, 2)?, checked(benchmark, 2)?);
    (returns.len() == benchmark.len()).then_some(both)
}

fn active(returns: &[f64], benchmark: &[f64]) -> Option<Vec<f64>> {
    let (returns, benchmark) = pair(returns, benchmark)?;
    Some(returns.iter().zip(benchmark).map(|(r, b)| r - b).collect())
}
