//! Exponentially weighted covariance around zero (RiskMetrics Technical Document, 4th ed., 1996, section 5.2):
//! C_0 = r_0 r_0', then C_t = lambda C_(t-1) + (1 - lambda) r_t r_t'. RiskMetrics takes lambda 0.94 for days, 0.97 for months.

use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use super::{CovarianceError, columns};

/// The exponentially weighted covariance after the last of at least one return each.
///
/// # Errors
/// When a series is missing, empty, of another length or not finite, or lambda is not from 0 to below 1.
pub fn ewma<S: AsRef<[f64]>>(series: &[S], lambda: f64) -> Result<DMatrix<f64>, CovarianceError> {
    let x = columns(series, 1)?;
    let mut stream = Ewma::new(x.ncols(), lambda)?;
    let mut row = vec![0.0; x.ncols()];
    for at in 0..x.nrows() {
        row.iter_mut().zip(x.row(at).iter()).for_each(|(to, from)| *to = *from);
        stream.push(&row)?;
    }
    stream.covariance()
}

/// The same as a stream: O(n^2) for a row of n returns, no window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ewma {
    n: usize,
    lambda: f64,
    rows: u64,
    /// By columns, n * n.
    covariance: Vec<f64>,
}

impl Ewma {
    /// One of `n` series that has seen nothing.
    ///
    /// # Errors
    /// When there is no series, or lambda is not from 0 to below 1.
    pub fn new(n: usize, lambda: f64) -> Result<Self, CovarianceError> {
        if n == 0 {
            return Err(CovarianceError::NoSeries);
        }
        if !(0.0..1.0).contains(&lambda) {
            return Err(CovarianceError::Lambda { lambda });
        }
        Ok(Self { n, lambda, rows: 0, covariance: vec![0.0; n * n] })
    }

    /// Takes one return of each series.
    ///
    /// # Errors
    /// When they aren't as many as the series, or not finite: the state is then as it was.
    pub fn push(&mut self, row: &[f64]) -> Result<(), CovarianceError> {
        if row.len() != self.n {
            return Err(CovarianceError::Size { what: "row of returns", have: row.len(), need: self.n });
        }
        if let Some(series) = row.iter().position(|x| !x.is_finite()) {
            return Err(CovarianceError::NotFinite { series, row: self.rows as usize });
        }
        let (keep, add) = if self.rows == 0 { (0.0, 1.0) } else { (self.lambda, 1.0 - self.lambda) };
        for (column, b) in self.covariance.chunks_exact_mut(self.n).zip(row) {
            for (cell, a) in column.iter_mut().zip(row) {
                *cell = keep * *cell + add * (a * b);
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// The covariance now.
    ///
    /// # Errors
    /// When no row was pushed yet.
    pub fn covariance(&self) -> Result<DMatrix<f64>, CovarianceError> {
        if self.rows == 0 {
            return Err(CovarianceError::TooFew { have: 0, need: 1 });
        }
        Ok(DMatrix::from_column_slice(self.n, self.n, &self.covariance))
    }
}
