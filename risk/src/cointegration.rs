//! Pairs that move together: hedge ratio, Engle-Granger's test, half-life of mean reversion.
//!
//! Prices (or their logarithms) go in, oldest first. The figures are those of statsmodels' `coint` and `adfuller`.

mod adf;
mod mackinnon;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use adf::{Adf, Constant, Lags, adf, default_lags};
pub use mackinnon::{CriticalValues, critical_values, p_value};

/// Why there is no test.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CointegrationError {
    /// The two series have different lengths.
    #[error("two series of {left} and {right} values: align them")]
    Uneven {
        /// Length of the first.
        left: usize,
        /// Length of the second.
        right: usize,
    },
    /// There are fewer values than it takes.
    #[error("{have} values: it takes at least {need}")]
    TooFew {
        /// Values there are.
        have: usize,
        /// Values it takes.
        need: usize,
    },
    /// A value is NaN or infinite.
    #[error("value {row} is not a finite number: fill or drop it")]
    NotFinite {
        /// Which value, from 0.
        row: usize,
    },
    /// A series never moves.
    #[error("a series never moves: there is nothing to regress on")]
    Constant,
    /// The regressors depend on each other, or leave nothing unexplained.
    #[error("the regression is degenerate: its regressors depend on each other, or explain everything")]
    Degenerate,
}

/// A straight line through pairs of values: y = alpha + beta * x.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Where it starts.
    pub alpha: f64,
    /// Units of x that hedge one of y.
    pub beta: f64,
    /// The part of the variance of y that it explains, 0 to 1; 0 if y never moves.
    pub r_squared: f64,
}

impl Line {
    /// What the line leaves: y - alpha - beta * x.
    pub fn residual(&self, y: f64, x: f64) -> f64 {
        y - self.alpha - self.beta * x
    }
}

fn checked(values: &[f64], need: usize) -> Result<(), CointegrationError> {
    if let Some(row) = values.iter().position(|x| !x.is_finite()) {
        return Err(CointegrationError::NotFinite { row });
    }
    if values.len() < need {
        return Err(CointegrationError::TooFew { have: values.len(), need });
    }
    Ok(())
}

/// The hedge ratio of y on x by ordinary least squares with a constant, of at least three pairs.
///
/// # Errors
/// When lengths differ, a value isn't finite, there are too few, or x never moves.
pub fn hedge_ratio(y: &[f64], x: &[f64]) -> Result<Line, CointegrationError> {
    if y.len() != x.len() {
        return Err(CointegrationError::Uneven { left: y.len(), right: x.len() });
    }
    checked(y, 3)?;
    checked(x, 3)?;
    if x.iter().all(|one| *one == x[0]) {
        return Err(CointegrationError::Constant);
    }
    let n = x.len() as f64;
    let (mean_y, mean_x) = (y.iter().sum::<f64>() / n, x.iter().sum::<f64>() / n);
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (y, x) in y.iter().zip(x) {
        let (y, x) = (y - mean_y, x - mean_x);
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    let beta = xy / xx;
    let alpha = mean_y - beta * mean_x;
    if !(beta.is_finite() && alpha.is_finite()) {
        return Err(CointegrationError::Degenerate);
    }
    let r_squared = if yy > 0.0 { (beta * xy / yy).clamp(0.0, 1.0) } else { 0.0 };
    Ok(Line { alpha, beta, r_squared })
}

/// Engle and Granger's test of two series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngleGranger {
    /// y on x.
    pub line: Line,
    /// The augmented Dickey-Fuller statistic of what the line leaves: the more negative, the more it reverts.
    pub statistic: f64,
    /// Differences the test was augmented with.
    pub lags: usize,
    /// The probability of such a statistic if the two are not cointegrated (MacKinnon 1994).
    pub p_value: f64,
    /// Below which the statistic must be at 1, 5 and 10 % (MacKinnon 2010).
    pub critical: CriticalValues,
    /// Half-life of the residual, in periods; none if it doesn't revert.
    pub half_life: Option<f64>,
}

/// Tests whether y - alpha - beta * x reverts to its mean (Engle and Granger 1987): the line has a constant, so the Dickey-Fuller regression
/// of its residuals has none. Critical values and p-value are those for two series with a constant.
///
/// # Errors
/// When lengths differ, a value isn't finite, there are too few for the lags, x never moves, or y is a line of x but for rounding.
pub fn engle_granger(y: &[f64], x: &[f64], lags: Lags) -> Result<EngleGranger, CointegrationError> {
    let line = hedge_ratio(y, x)?;
    // statsmodels' bound too: residuals that are rounding revert at once, and mean nothing.
    if line.r_squared >= 1.0 - 100.0 * f64::EPSILON.sqrt() {
        return Err(CointegrationError::Degenerate);
    }
    let residuals: Vec<f64> = y.iter().zip(x).map(|(y, x)| line.residual(*y, *x)).collect();
    let Adf { statistic, lags, .. } = adf(&residuals, Constant::None, lags)?;
    Ok(EngleGranger {
        line,
        statistic,
        lags,
        p_value: p_value(statistic, Constant::Constant, 2),
        critical: critical_values(Constant::Constant, 2, y.len() - 1),
        half_life: half_life(&residuals),
    })
}

/// Periods until half of a deviation from the mean is expected to be gone: ln(1/2) / ln(1 + b), where b is the slope of the changes on the
/// levels before them, s_t - s_(t-1) = a + b s_(t-1). That is exact for a first-order autoregression; Chan (2013, "Algorithmic trading",
/// ch. 2) has -ln 2 / b, the same where b is small. None unless -1 < b < 0, for fewer than four values, and for a series that never moves.
pub fn half_life(series: &[f64]) -> Option<f64> {
    checked(series, 4).ok()?;
    let changes: Vec<f64> = series.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let slope = hedge_ratio(&changes, &series[..series.len() - 1]).ok()?.beta;
    (slope > -1.0 && slope < 0.0).then(|| -std::f64::consts::LN_2 / slope.ln_1p())
}

#[cfg(test)]
mod tests;
