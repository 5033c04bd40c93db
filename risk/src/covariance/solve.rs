//! Solving with a covariance by Cholesky's factors, where a singular matrix is an error that says which series is to blame.

use nalgebra::DMatrix;

use super::{CovarianceError, correlation, deviations};

/// What of a series' variance the ones before it must leave unexplained (1 - R^2): below this the digits of a solution are gone.
const UNEXPLAINED_MIN: f64 = 1e-12;

/// Cholesky's factor of the correlation, or which series has none.
fn factor(covariance: &DMatrix<f64>) -> Result<DMatrix<f64>, CovarianceError> {
    // Scaled to correlations first: then a pivot is 1 - R^2 of a series on those before it, whatever its units.
    let mut l = correlation(covariance)?;
    let n = l.nrows();
    for j in 0..n {
        let pivot = l[(j, j)] - (0..j).map(|k| l[(j, k)].powi(2)).sum::<f64>();
        // Rounding alone can take a pivot of zero a little below it.
        if pivot < -1e-9 {
            return Err(CovarianceError::Indefinite { index: j });
        }
        if pivot < UNEXPLAINED_MIN {
            return Err(CovarianceError::Singular { index: j });
        }
        let pivot = pivot.sqrt();
        l[(j, j)] = pivot;
        for i in j + 1..n {
            let sum: f64 = (0..j).map(|k| l[(i, k)] * l[(j, k)]).sum();
            l[(i, j)] = (l[(i, j)] - sum) / pivot;
            l[(j, i)] = 0.0;
        }
    }
    Ok(l)
}

/// An error that says which series makes the covariance singular, if one does.
///
/// # Errors
/// When the matrix isn't square and symmetric, a series never moves, or one follows from those before it (its 1 - R^2 on them is below
/// 1e-12).
pub fn check(covariance: &DMatrix<f64>) -> Result<(), CovarianceError> {
    factor(covariance).map(|_| ())
}

/// The x with covariance * x = b.
///
/// # Errors
/// As [`check`], and when `b` has another size or isn't finite.
pub fn solve(covariance: &DMatrix<f64>, b: &[f64]) -> Result<Vec<f64>, CovarianceError> {
    let l = factor(covariance)?;
    let n = l.nrows();
    if b.len() != n {
        return Err(CovarianceError::Size { what: "vector", have: b.len(), need: n });
    }
    if let Some(series) = b.iter().position(|x| !x.is_finite()) {
        return Err(CovarianceError::NotFinite { series, row: 0 });
    }
    let deviations = deviations(covariance)?;
    let mut x: Vec<f64> = b.iter().zip(&deviations).map(|(b, s)| b / s).collect();
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| l[(i, k)] * x[k]).sum();
        x[i] = (x[i] - sum) / l[(i, i)];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| l[(k, i)] * x[k]).sum();
        x[i] = (x[i] - sum) / l[(i, i)];
    }
    x.iter_mut().zip(&deviations).for_each(|(x, s)| *x /= s);
    Ok(x)
}
