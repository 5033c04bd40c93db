//! Whether a symmetric matrix is a covariance at all (no negative eigenvalue), how near it is to singular, and the nearest one that is.

use nalgebra::{DMatrix, SymmetricEigen};

use super::{CovarianceError, symmetric};

fn eigen(matrix: &DMatrix<f64>) -> Result<SymmetricEigen<f64, nalgebra::Dyn>, CovarianceError> {
    symmetric(matrix)?;
    let even = (matrix + matrix.transpose()) * 0.5;
    Ok(SymmetricEigen::new(even))
}

/// The largest eigenvalue over the smallest: 1 at best, infinite if one is zero or negative. Above 1e12 a solution has few digits left.
///
/// # Errors
/// When the matrix isn't square, finite and symmetric.
pub fn condition(matrix: &DMatrix<f64>) -> Result<f64, CovarianceError> {
    let values = eigen(matrix)?.eigenvalues;
    let (least, most) = (values.min(), values.max());
    Ok(if least > 0.0 { most / least } else { f64::INFINITY })
}

/// True if no eigenvalue is below zero, but for rounding (1e-12 of the largest).
///
/// # Errors
/// When the matrix isn't square, finite and symmetric.
pub fn is_psd(matrix: &DMatrix<f64>) -> Result<bool, CovarianceError> {
    let values = eigen(matrix)?.eigenvalues;
    Ok(values.min() >= -1e-12 * values.amax())
}

/// The symmetric matrix nearest to this one (in the Frobenius norm) whose eigenvalues are all at least `floor` times the largest: 0 gives the
/// nearest covariance (Higham 1988, "Computing a nearest symmetric positive semidefinite matrix"), 1e-8 one that can be solved with.
///
/// # Errors
/// When the matrix isn't square, finite and symmetric.
pub fn nearest_psd(matrix: &DMatrix<f64>, floor: f64) -> Result<DMatrix<f64>, CovarianceError> {
    let mut eigen = eigen(matrix)?;
    let least = eigen.eigenvalues.max().max(0.0) * floor.clamp(0.0, 1.0);
    if eigen.eigenvalues.min() >= least {
        return Ok((matrix + matrix.transpose()) * 0.5);
    }
    eigen.eigenvalues.apply(|x| *x = x.max(least));
    let out = eigen.recompose();
    Ok((&out + out.transpose()) * 0.5)
}
