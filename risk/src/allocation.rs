//! How much of each instrument: Kelly, inverse volatility, equal risk contribution, minimum variance.
//!
//! A weight is the part of equity held in an instrument: 1 is all of it, negative is short, a sum above 1 is leverage. Means and
//! covariances must be of the same period. Errors of a matrix say which series is to blame.

mod risk_budget;

use nalgebra::DMatrix;
use thiserror::Error;

use crate::covariance::{CovarianceError, solve};
pub use risk_budget::{equal_risk, risk_budget};

/// Why there is no allocation.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AllocationError {
    /// The covariance is bad or singular.
    #[error(transparent)]
    Covariance(#[from] CovarianceError),
    /// A number can't be used.
    #[error("{what} {index} is {value}: {need}")]
    Bad {
        /// What is bad: `mean`, `volatility`, `budget`, `variance`, `fraction`.
        what: &'static str,
        /// Which one, from 0.
        index: usize,
        /// What it is.
        value: f64,
        /// What it should be.
        need: &'static str,
    },
    /// There are no instruments.
    #[error("an allocation over no instruments: give at least one")]
    Empty,
    /// Risk can't be split: some instruments hedge each other perfectly, so that any size of them has no risk.
    #[error(
        "risk contributions did not settle in {sweeps} sweeps: some instruments hedge each other perfectly; leave one out"
    )]
    NotConverged {
        /// Sweeps over all instruments.
        sweeps: usize,
    },
}

fn each(
    what: &'static str,
    values: &[f64],
    need: &'static str,
    good: impl Fn(f64) -> bool,
) -> Result<(), AllocationError> {
    if values.is_empty() {
        return Err(AllocationError::Empty);
    }
    match values.iter().position(|x| !(x.is_finite() && good(*x))) {
        Some(index) => Err(AllocationError::Bad { what, index, value: values[index], need }),
        None => Ok(()),
    }
}

/// Kelly's weight of one instrument: mean / variance of its returns over the risk-free rate (Thorp 2006, "The Kelly criterion in blackjack,
/// sports betting and the stock market", eq. 7.3). Negative for a negative mean.
///
/// # Errors
/// When the mean is not finite, or the variance not above zero.
pub fn kelly(mean: f64, variance: f64) -> Result<f64, AllocationError> {
    each("mean", &[mean], "it must be finite", |_| true)?;
    each("variance", &[variance], "it must be above zero", |x| x > 0.0)?;
    let weight = mean / variance;
    each("weight", &[weight], "the variance is too small for the mean", |_| true)?;
    Ok(weight)
}

/// Kelly's part of equity for a bet that wins `payoff` times the stake with probability `win_rate` and else loses it:
/// p - (1 - p) / b (Kelly 1956). Negative: don't bet.
///
/// # Errors
/// When the win rate is not within 0 to 1, or the payoff not above zero.
pub fn kelly_bet(win_rate: f64, payoff: f64) -> Result<f64, AllocationError> {
    each("win rate", &[win_rate], "it must be within 0 to 1", |x| (0.0..=1.0).contains(&x))?;
    each("payoff", &[payoff], "it must be above zero", |x| x > 0.0)?;
    Ok(win_rate - (1.0 - win_rate) / payoff)
}

/// Kelly's weights of several instruments: fraction * covariance^-1 * means (Thorp 2006, eq. 8.2). A fraction of 0.5 is half Kelly.
///
/// # Errors
/// When a number isn't finite, sizes differ, or the covariance is singular.
pub fn kelly_weights(
    means: &[f64],
    covariance: &DMatrix<f64>,
    fraction: f64,
) -> Result<Vec<f64>, AllocationError> {
    each("mean", means, "it must be finite", |_| true)?;
    each("fraction", &[fraction], "it must be zero or more", |x| x >= 0.0)?;
    Ok(solve(covariance, means)?.into_iter().map(|x| fraction * x).collect())
}

/// Weights in proportion to 1 / volatility, of sum 1: naive risk parity, which is equal risk if all correlations are equal.
///
/// # Errors
/// When a volatility is not above zero.
pub fn inverse_volatility(volatilities: &[f64]) -> Result<Vec<f64>, AllocationError> {
    each("volatility", volatilities, "it must be above zero", |x| x > 0.0)?;
    // Against the least of them, so that nothing overflows.
    let least = volatilities.iter().copied().fold(f64::INFINITY, f64::min);
    let shares: Vec<f64> = volatilities.iter().map(|x| least / x).collect();
    let sum: f64 = shares.iter().sum();
    Ok(shares.into_iter().map(|x| x / sum).collect())
}

/// The weights of sum 1 with the least variance, shorts allowed: covariance^-1 * 1, scaled (Markowitz 1952).
///
/// # Errors
/// When the covariance is bad or singular.
pub fn minimum_variance(covariance: &DMatrix<f64>) -> Result<Vec<f64>, AllocationError> {
    let x = solve(covariance, &vec![1.0; covariance.nrows()])?;
    // 1' C^-1 1 is above zero for any C that can be solved with.
    let sum: f64 = x.iter().sum();
    Ok(x.into_iter().map(|x| x / sum).collect())
}

/// The variance of a portfolio: w' C w.
///
/// # Errors
/// When there is not one weight for each row of the covariance, or one isn't finite.
pub fn portfolio_variance(covariance: &DMatrix<f64>, weights: &[f64]) -> Result<f64, AllocationError> {
    Ok(products(covariance, weights)?.iter().zip(weights).map(|(c, w)| c * w).sum())
}

/// The part that each weight has in the portfolio's variance, w_i (C w)_i / w' C w: they sum to 1 (Euler).
///
/// # Errors
/// As [`portfolio_variance`], and when the portfolio has no variance.
pub fn risk_contributions(covariance: &DMatrix<f64>, weights: &[f64]) -> Result<Vec<f64>, AllocationError> {
    let variance = portfolio_variance(covariance, weights)?;
    each("variance", &[variance], "a portfolio without risk has no contributions", |x| x > 0.0)?;
    Ok(products(covariance, weights)?.iter().zip(weights).map(|(c, w)| c * w / variance).collect())
}

fn products(covariance: &DMatrix<f64>, weights: &[f64]) -> Result<Vec<f64>, AllocationError> {
    each("weight", weights, "it must be finite", |_| true)?;
    for have in [covariance.nrows(), covariance.ncols()] {
        if have != weights.len() {
            return Err(
                CovarianceError::Size { what: "list of weights", have: weights.len(), need: have }.into()
            );
        }
    }
    Ok(covariance.column_iter().map(|column| column.iter().zip(weights).map(|(c, w)| c * w).sum()).collect())
}

#[cfg(test)]
mod tests;
