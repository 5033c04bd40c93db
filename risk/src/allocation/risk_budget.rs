//! Weights that carry given parts of a portfolio's risk, by cyclical coordinate descent.
//!
//! The long-only portfolio whose risk contributions are the budgets b minimises x'Cx / 2 - sum(b_i ln x_i), which is strictly convex
//! (Spinu 2013, "An algorithm for computing risk parity weights"). With all but x_i fixed its minimum is the positive root of
//! c_ii x_i^2 + (sum over j != i of c_ij x_j) x_i - b_i = 0; taking them in turn converges (Griveau-Billion, Richard and Roncalli 2013,
//! "A fast algorithm for computing high-dimensional risk parity portfolios"). It runs on correlations, where all x are of one size.

use nalgebra::DMatrix;

use super::{AllocationError, each};
use crate::covariance::{CovarianceError, correlation, deviations};

/// Sweeps over all instruments; ten to a hundred are usual.
const SWEEPS_MAX: usize = 20_000;

/// How far a contribution may be from its budget, as a part of the whole.
const TOLERANCE: f64 = 1e-13;

/// The long weights of sum 1 with equal risk contributions (Maillard, Roncalli and Teiletche 2010). For a short leg, turn the signs of its row
/// and column of the covariance, and then that of its weight.
///
/// A singular covariance is no trouble as such (of two equal series each gets half), but a series that never moves is, and series
/// that hedge each other perfectly are.
///
/// # Errors
/// When the matrix is bad, a series never moves, or there is no such portfolio.
pub fn equal_risk(covariance: &DMatrix<f64>) -> Result<Vec<f64>, AllocationError> {
    risk_budget(covariance, &vec![1.0; covariance.nrows()])
}

/// The long weights of sum 1 whose risk contributions are in the proportion of the budgets, all above zero.
///
/// # Errors
/// As [`equal_risk`], and when a budget is not above zero or there aren't as many as series.
pub fn risk_budget(covariance: &DMatrix<f64>, budgets: &[f64]) -> Result<Vec<f64>, AllocationError> {
    let (deviations, c) = (deviations(covariance)?, correlation(covariance)?);
    let n = c.nrows();
    each("budget", budgets, "it must be above zero", |x| x > 0.0)?;
    if budgets.len() != n {
        return Err(CovarianceError::Size { what: "list of budgets", have: budgets.len(), need: n }.into());
    }
    let whole: f64 = budgets.iter().sum();
    let budgets: Vec<f64> = budgets.iter().map(|b| b / whole).collect();
    let mut x: Vec<f64> = budgets.iter().map(|b| b.sqrt()).collect();
    for _ in 0..SWEEPS_MAX {
        for i in 0..n {
            let others: f64 = c.column(i).iter().zip(&x).map(|(c, x)| c * x).sum::<f64>() - x[i];
            let root = (others * others + 4.0 * budgets[i]).sqrt();
            // The form without cancellation, whichever sign the others have.
            x[i] = if others > 0.0 { 2.0 * budgets[i] / (others + root) } else { 0.5 * (root - others) };
        }
        let risk = |i: usize| x[i] * c.column(i).iter().zip(&x).map(|(c, x)| c * x).sum::<f64>();
        // NaN counts as not there yet.
        if (0..n).all(|i| (risk(i) - budgets[i]).abs() <= TOLERANCE) {
            let weights: Vec<f64> = x.iter().zip(&deviations).map(|(x, s)| x / s).collect();
            let sum: f64 = weights.iter().sum();
            return Ok(weights.into_iter().map(|w| w / sum).collect());
        }
    }
    Err(AllocationError::NotConverged { sweeps: SWEEPS_MAX })
}
