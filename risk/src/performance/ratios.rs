//! Returns of a whole run and the ratios of return to risk. Returns are simple and per period; `per_year` is how many periods a year has
//! (252 for trading days). Definitions as empyrical has them, with a target return of zero.
//!
//! None where there is no answer: no returns, one that isn't finite, or nothing to divide by (a constant series has no Sharpe ratio, one
//! without a loss no Sortino ratio).

use super::drawdown::max_drawdown;
use super::moments::{checked, deviation, finite, mean, ratio, spread};

fn years(returns: &[f64], per_year: f64) -> Option<f64> {
    (per_year > 0.0 && per_year.is_finite())
        .then(|| returns.len() as f64 / per_year)
        .filter(|years| *years > 0.0)
}

/// The simple returns between consecutive values of equity, which must all be above zero.
pub fn returns_of(equity: &[f64]) -> Option<Vec<f64>> {
    if checked(equity, 2)?.iter().any(|x| *x <= 0.0) {
        return None;
    }
    equity.windows(2).map(|pair| finite(pair[1] / pair[0] - 1.0)).collect()
}

/// What one unit became, less one: prod(1 + r) - 1.
pub fn total_return(returns: &[f64]) -> Option<f64> {
    finite(checked(returns, 1)?.iter().map(|r| 1.0 + r).product::<f64>() - 1.0)
}

/// The compound annual growth rate: prod(1 + r)^(1 / years) - 1. None once more than everything is lost.
pub fn annual_return(returns: &[f64], per_year: f64) -> Option<f64> {
    let years = years(checked(returns, 1)?, per_year)?;
    growth(1.0, 1.0 + total_return(returns)?, years)
}

/// The compound annual growth rate from the first to the last equity over so many years: (last / first)^(1 / years) - 1.
pub fn growth(first: f64, last: f64, years: f64) -> Option<f64> {
    let sound = first > 0.0 && last >= 0.0 && years > 0.0;
    if sound { finite((last / first).powf(1.0 / years) - 1.0) } else { None }
}

/// Annual volatility: the sample deviation (n - 1) * sqrt(per_year).
pub fn annual_volatility(returns: &[f64], per_year: f64) -> Option<f64> {
    years(returns, per_year)?;
    finite(deviation(returns)? * per_year.sqrt())
}

/// The Sharpe ratio a year (Sharpe 1994): mean / deviation * sqrt(per_year), of returns over the risk-free rate.
pub fn sharpe(returns: &[f64], per_year: f64) -> Option<f64> {
    years(returns, per_year)?;
    finite(ratio(mean(returns)?, spread(returns)?)? * per_year.sqrt())
}

/// The downside deviation a year: sqrt(mean(min(r, 0)^2)) * sqrt(per_year), all periods counted (Sortino and Price 1994).
pub fn downside_deviation(returns: &[f64], per_year: f64) -> Option<f64> {
    years(checked(returns, 1)?, per_year)?;
    let squares: f64 = returns.iter().map(|r| r.min(0.0).powi(2)).sum();
    finite((squares / returns.len() as f64).sqrt() * per_year.sqrt())
}

/// The Sortino ratio: the mean return a year / the downside deviation a year.
pub fn sortino(returns: &[f64], per_year: f64) -> Option<f64> {
    ratio(mean(returns)? * per_year, downside_deviation(returns, per_year)?)
}

/// The Calmar ratio (Young 1991): annual growth / the maximum drawdown over the whole run.
pub fn calmar(returns: &[f64], per_year: f64) -> Option<f64> {
    ratio(annual_return(returns, per_year)?, -max_drawdown(returns)?)
}

/// Omega (Keating and Shadwick 2002) at a threshold per period: the sum of what is above it / the sum of what is below it.
pub fn omega(returns: &[f64], threshold: f64) -> Option<f64> {
    let over = checked(returns, 1)?.iter().map(|r| r - threshold);
    let (mut gains, mut losses) = (0.0, 0.0);
    over.for_each(|x| if x > 0.0 { gains += x } else { losses -= x });
    ratio(gains, losses)
}

/// The Sharpe ratio a year of each window of returns: one per return from the `window`-th on, each from scratch; none inside where the
/// window is constant. Empty if there are fewer returns than that, or the window is below two.
pub fn rolling_sharpe(returns: &[f64], window: usize, per_year: f64) -> Vec<Option<f64>> {
    if window < 2 {
        return Vec::new();
    }
    returns.windows(window).map(|part| sharpe(part, per_year)).collect()
}
