//! Covariance of several series of returns: sample, exponentially weighted, shrunk, rolling; and what is done with a matrix: solving,
//! checking, repairing.
//!
//! Series come one slice per instrument, oldest return first, all of one length. A matrix is indexed by the same order. Nothing here takes
//! a NaN: a gap in a series is an error that names it.

mod ewma;
mod repair;
mod rolling;
mod shrink;
mod solve;

use nalgebra::DMatrix;
use thiserror::Error;

pub use ewma::{Ewma, ewma};
pub use repair::{condition, is_psd, nearest_psd};
pub use rolling::RollingCovariance;
pub use shrink::{Shrunk, ledoit_wolf};
pub use solve::{check, solve};

/// The slope of a regression on a benchmark: see [`crate::performance::benchmark::beta`].
pub use crate::performance::benchmark::beta;

/// Why there is no covariance, or nothing to solve with it.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CovarianceError {
    /// There is no series at all.
    #[error("a covariance of no series: give at least one")]
    NoSeries,
    /// A series has fewer returns than it takes.
    #[error("a covariance of {have} returns: it takes at least {need}")]
    TooFew {
        /// Returns there are.
        have: usize,
        /// Returns it takes.
        need: usize,
    },
    /// A series has another length than the first.
    #[error("series {series} has {have} returns and series 0 has {first}: align them")]
    Uneven {
        /// Which one, from 0.
        series: usize,
        /// Its length.
        have: usize,
        /// That of the first.
        first: usize,
    },
    /// A return is NaN or infinite.
    #[error("return {row} of series {series} is not a finite number: fill or drop it")]
    NotFinite {
        /// Which series, from 0.
        series: usize,
        /// Which return, from 0.
        row: usize,
    },
    /// A decay is not from 0 to below 1.
    #[error("a decay (lambda) of {lambda}: give 0 or more and less than 1, such as 0.94")]
    Lambda {
        /// What it is.
        lambda: f64,
    },
    /// A series never moves.
    #[error("covariance is singular: series {index} has a variance of {variance}: leave it out")]
    NoVariance {
        /// Which one, from 0.
        index: usize,
        /// Its variance.
        variance: f64,
    },
    /// A series follows from those before it: the matrix has no inverse.
    #[error(
        "covariance is singular: series {index} is a linear combination of those before it: leave it out, or shrink the covariance"
    )]
    Singular {
        /// Which one, from 0.
        index: usize,
    },
    /// The matrix has a negative eigenvalue, so it is no covariance.
    #[error("not a covariance: at series {index} it turns indefinite: repair it (nearest_psd), or shrink it")]
    Indefinite {
        /// The first one that doesn't fit those before it, from 0.
        index: usize,
    },
    /// Something has another size than the matrix.
    #[error("a {what} of {have} where the covariance has {need}")]
    Size {
        /// What has it.
        what: &'static str,
        /// Its size.
        have: usize,
        /// The size it should have.
        need: usize,
    },
    /// The matrix isn't symmetric.
    #[error("not a covariance: the entries ({row}, {column}) and ({column}, {row}) differ")]
    Asymmetric {
        /// From 0.
        row: usize,
        /// From 0.
        column: usize,
    },
}

/// The series as columns of a matrix, each less its mean, if all is well with them.
fn centred<S: AsRef<[f64]>>(series: &[S], need: usize) -> Result<DMatrix<f64>, CovarianceError> {
    let mut columns = columns(series, need)?;
    for mut column in columns.column_iter_mut() {
        let first = column[0];
        // A series that never moves has a deviation of exactly zero, whatever rounding makes of its mean.
        let mean = if column.iter().all(|x| *x == first) { first } else { column.mean() };
        column.add_scalar_mut(-mean);
    }
    Ok(columns)
}

/// The series as columns of a matrix, if all is well with them.
fn columns<S: AsRef<[f64]>>(series: &[S], need: usize) -> Result<DMatrix<f64>, CovarianceError> {
    let first = series.first().ok_or(CovarianceError::NoSeries)?.as_ref().len();
    for (index, one) in series.iter().enumerate() {
        let one = one.as_ref();
        if one.len() != first {
            return Err(CovarianceError::Uneven { series: index, have: one.len(), first });
        }
        if let Some(row) = one.iter().position(|x| !x.is_finite()) {
            return Err(CovarianceError::NotFinite { series: index, row });
        }
    }
    if first < need {
        return Err(CovarianceError::TooFew { have: first, need });
    }
    let values = series.iter().flat_map(|one| one.as_ref().iter().copied());
    Ok(DMatrix::from_iterator(first, series.len(), values))
}

/// The sample covariance (divided by n - 1) of at least two returns each.
///
/// # Errors
/// When a series is missing, short, of another length or not finite.
pub fn sample<S: AsRef<[f64]>>(series: &[S]) -> Result<DMatrix<f64>, CovarianceError> {
    let x = centred(series, 2)?;
    Ok(x.tr_mul(&x) / (x.nrows() - 1) as f64)
}

/// The correlation of a covariance: c_ij / sqrt(c_ii c_jj), within -1 to 1, exactly 1 on the diagonal.
///
/// # Errors
/// When it isn't a square, symmetric matrix, or a series never moves.
pub fn correlation(covariance: &DMatrix<f64>) -> Result<DMatrix<f64>, CovarianceError> {
    let deviations = deviations(covariance)?;
    Ok(DMatrix::from_fn(covariance.nrows(), covariance.ncols(), |i, j| {
        if i == j { 1.0 } else { (covariance[(i, j)] / deviations[i] / deviations[j]).clamp(-1.0, 1.0) }
    }))
}

/// The deviation of each series: the roots of the diagonal, all above zero.
///
/// # Errors
/// When it isn't a square, symmetric matrix, or a series never moves.
pub fn deviations(covariance: &DMatrix<f64>) -> Result<Vec<f64>, CovarianceError> {
    symmetric(covariance)?;
    let one = |(index, variance): (usize, &f64)| {
        if *variance > 0.0 {
            Ok(variance.sqrt())
        } else {
            Err(CovarianceError::NoVariance { index, variance: *variance })
        }
    };
    covariance.diagonal().iter().enumerate().map(one).collect()
}

/// An error unless the matrix is square, finite and symmetric but for rounding.
fn symmetric(matrix: &DMatrix<f64>) -> Result<(), CovarianceError> {
    let n = matrix.nrows();
    if n == 0 {
        return Err(CovarianceError::NoSeries);
    }
    if matrix.ncols() != n {
        return Err(CovarianceError::Size { what: "number of columns", have: matrix.ncols(), need: n });
    }
    for row in 0..n {
        for column in 0..=row {
            let (a, b) = (matrix[(row, column)], matrix[(column, row)]);
            if !(a.is_finite() && b.is_finite()) {
                return Err(CovarianceError::NotFinite { series: column, row });
            }
            let scale = (matrix[(row, row)].abs() * matrix[(column, column)].abs()).sqrt();
            if (a - b).abs() > 1e-9 * scale.max(a.abs()) {
                return Err(CovarianceError::Asymmetric { row, column });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
