//! Sample covariance over the last `window` rows, kept up as rows come and go (Welford's update and its reverse): O(n^2) a row instead of
//! O(n^2 * window).
//!
//! Adding and removing leaves rounding behind. So after every `window` removals the sums are computed anew from the rows held, which costs
//! O(n^2) a row on average and bounds the drift to that of one window. When that happens depends on the count of rows alone.

use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

use super::CovarianceError;

/// The covariance of the last rows. Its whole state is saved with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RollingCovariance {
    n: usize,
    window: usize,
    /// The rows held, one after another, n numbers each; a ring once it is full.
    rows: Vec<f64>,
    /// Where the oldest row of a full ring starts, in rows.
    oldest: usize,
    /// Removals since the sums were computed from the rows.
    removed: usize,
    mean: Vec<f64>,
    /// Sums of products of deviations, by columns, n * n.
    products: Vec<f64>,
}

impl RollingCovariance {
    /// One of `n` series over `window` rows, at least two.
    ///
    /// # Errors
    /// When there is no series, or the window is below two.
    pub fn new(n: usize, window: usize) -> Result<Self, CovarianceError> {
        if n == 0 {
            return Err(CovarianceError::NoSeries);
        }
        if window < 2 {
            return Err(CovarianceError::TooFew { have: window, need: 2 });
        }
        let (mean, products) = (vec![0.0; n], vec![0.0; n * n]);
        Ok(Self { n, window, rows: Vec::new(), oldest: 0, removed: 0, mean, products })
    }

    /// Rows held: at most the window.
    pub fn len(&self) -> usize {
        self.rows.len() / self.n
    }

    /// True before the first row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes one return of each series, and lets go of the oldest row of a full window.
    ///
    /// # Errors
    /// When they aren't as many as the series, or not finite: the state is then as it was.
    pub fn push(&mut self, row: &[f64]) -> Result<(), CovarianceError> {
        if row.len() != self.n {
            return Err(CovarianceError::Size { what: "row of returns", have: row.len(), need: self.n });
        }
        if let Some(series) = row.iter().position(|x| !x.is_finite()) {
            return Err(CovarianceError::NotFinite { series, row: self.len() });
        }
        if self.len() < self.window {
            self.rows.extend_from_slice(row);
            self.weigh(row, self.len(), 1.0);
            return Ok(());
        }
        let at = self.oldest * self.n;
        let gone = self.rows[at..at + self.n].to_vec();
        self.rows[at..at + self.n].copy_from_slice(row);
        self.oldest = (self.oldest + 1) % self.window;
        self.removed += 1;
        if self.removed == self.window {
            self.rebuild();
        } else {
            self.weigh(&gone, self.window - 1, -1.0);
            self.weigh(row, self.window, 1.0);
        }
        Ok(())
    }

    /// Adds (1) or removes (-1) a row, after which there are `count`.
    fn weigh(&mut self, row: &[f64], count: usize, sign: f64) {
        // With d the deviation from the mean before: the mean moves by sign * d / count, the products by sign * d d' (count - sign) / count.
        let count = count as f64;
        let share = sign * (count - sign) / count;
        for (j, column) in self.products.chunks_exact_mut(self.n).enumerate() {
            let b = share * (row[j] - self.mean[j]);
            for (i, cell) in column.iter_mut().enumerate() {
                *cell += b * (row[i] - self.mean[i]);
            }
        }
        self.mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += sign * (x - *mean) / count);
    }

    fn rebuild(&mut self) {
        self.removed = 0;
        self.mean.fill(0.0);
        self.products.fill(0.0);
        let rows = std::mem::take(&mut self.rows);
        // From the oldest on, as if they had just come.
        let (newer, older) = rows.split_at(self.oldest * self.n);
        for (count, row) in older.chunks_exact(self.n).chain(newer.chunks_exact(self.n)).enumerate() {
            self.weigh(row, count + 1, 1.0);
        }
        self.rows = rows;
    }

    /// The mean of each series over the rows held; zeros before the first.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The sample covariance (n - 1) of the rows held.
    ///
    /// # Errors
    /// When there are fewer than two.
    pub fn covariance(&self) -> Result<DMatrix<f64>, CovarianceError> {
        if self.len() < 2 {
            return Err(CovarianceError::TooFew { have: self.len(), need: 2 });
        }
        let divisor = (self.len() - 1) as f64;
        let mut out = DMatrix::from_column_slice(self.n, self.n, &self.products) / divisor;
        for i in 0..self.n {
            // What removal left of a variance of zero must not be negative; and both halves must agree.
            out[(i, i)] = out[(i, i)].max(0.0);
            for j in 0..i {
                out[(i, j)] = out[(j, i)];
            }
        }
        Ok(out)
    }
}
