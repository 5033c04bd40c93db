//! Shrinkage towards a multiple of the identity: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
//! (Journal of Multivariate Analysis 88, 2004). The numbers are those of scikit-learn's `ledoit_wolf`.

use nalgebra::DMatrix;

use super::{CovarianceError, centred};

/// A shrunk covariance, and how far it was shrunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk {
    /// (1 - shrinkage) * S + shrinkage * m * I, where S is the covariance divided by n (not n - 1) and m the mean of its diagonal.
    /// It has an inverse whenever any series moves and shrinkage is above zero.
    pub covariance: DMatrix<f64>,
    /// 0 (the sample's own) to 1 (no correlation, one variance for all).
    pub shrinkage: f64,
}

/// The shrunk covariance of at least two returns each, with the shrinkage that is best in expectation.
///
/// # Errors
/// When a series is missing, short, of another length or not finite.
pub fn ledoit_wolf<S: AsRef<[f64]>>(series: &[S]) -> Result<Shrunk, CovarianceError> {
    let x = centred(series, 2)?;
    let (rows, p) = (x.nrows() as f64, x.ncols() as f64);
    let mut covariance = x.tr_mul(&x) / rows;
    let mu = covariance.trace() / p;
    // How far the sample is from the target, and how far it may be from the truth (the paper's d^2 and b^2, lemma 3.3 and 3.4).
    let square = covariance.norm_squared();
    let distance = square / p - mu * mu;
    let fourth: f64 = x.row_iter().map(|row| row.norm_squared().powi(2)).sum();
    let error = ((fourth / rows - square) / (p * rows)).min(distance);
    let shrinkage = if x.ncols() == 1 || error <= 0.0 || distance <= 0.0 {
        0.0
    } else {
        (error / distance).clamp(0.0, 1.0)
    };
    covariance *= 1.0 - shrinkage;
    for at in 0..x.ncols() {
        covariance[(at, at)] += shrinkage * mu;
    }
    Ok(Shrunk { covariance, shrinkage })
}
