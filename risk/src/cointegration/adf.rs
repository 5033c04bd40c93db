//! The augmented Dickey-Fuller test of a unit root (Dickey and Fuller 1979; Said and Dickey 1984):
//! s_t - s_(t-1) = [c +] g s_(t-1) + sum over k of d_k (s_(t-k) - s_(t-k-1)) + e_t. The statistic is g over its standard error.

use nalgebra::{DMatrix, DVector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CointegrationError, checked, p_value};

/// Whether the regression has a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Constant {
    /// None: for residuals, whose mean is zero.
    None,
    /// A constant: for a series that reverts to a mean other than zero.
    Constant,
}

/// How many differences the regression is augmented with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lags {
    /// So many.
    Fixed(usize),
    /// As many as Akaike's criterion finds best, up to so many, all compared on the same rows.
    Akaike(usize),
    /// As `akaike`, up to Schwert's [`default_lags`].
    Auto,
}

/// The test's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adf {
    /// The t-statistic of the level.
    pub statistic: f64,
    /// The probability of such a statistic if there is a unit root (MacKinnon 1994).
    pub p_value: f64,
    /// Differences the regression was augmented with.
    pub lags: usize,
    /// Rows of the regression.
    pub rows: usize,
}

/// Schwert's (1989) rule for the most lags, ceil(12 (n / 100)^(1/4)), but no more than leave degrees of freedom.
pub fn default_lags(n: usize, constant: Constant) -> usize {
    let rule = (12.0 * (n as f64 / 100.0).powf(0.25)).ceil() as usize;
    rule.min((n / 2).saturating_sub(constant as usize + 1))
}

/// Tests a series for a unit root.
///
/// # Errors
/// When a value isn't finite, there are too few for the lags, the series never moves, or the regression has no unique answer.
pub fn adf(series: &[f64], constant: Constant, lags: Lags) -> Result<Adf, CointegrationError> {
    checked(series, 4)?;
    if series.iter().all(|x| *x == series[0]) {
        return Err(CointegrationError::Constant);
    }
    let lags = match lags {
        Lags::Fixed(lags) => lags,
        Lags::Akaike(most) => best(series, constant, most)?,
        Lags::Auto => best(series, constant, default_lags(series.len(), constant))?,
    };
    let fit = fit(series, constant, lags, lags)?;
    let p_value = p_value(fit.t, constant, 1);
    Ok(Adf { statistic: fit.t, p_value, lags, rows: fit.rows })
}

/// The lags with the least Akaike criterion, the fewest among equals. All are fitted on the rows that the most lags leave.
fn best(series: &[f64], constant: Constant, most: usize) -> Result<usize, CointegrationError> {
    let mut best = (f64::INFINITY, 0);
    for lags in 0..=most {
        let fit = fit(series, constant, lags, most)?;
        // -2 ln L + 2 k, without the terms that all share.
        let criterion = fit.rows as f64 * (fit.squares / fit.rows as f64).ln() + 2.0 * fit.columns as f64;
        if criterion < best.0 {
            best = (criterion, lags);
        }
    }
    Ok(best.1)
}

struct Fit {
    t: f64,
    squares: f64,
    rows: usize,
    columns: usize,
}

/// Fits the regression by QR, leaving out the first `skip` differences.
fn fit(series: &[f64], constant: Constant, lags: usize, skip: usize) -> Result<Fit, CointegrationError> {
    let with_constant = constant as usize;
    // A row for each difference that has `skip` ones before it, and more rows than columns.
    let need = skip.saturating_add(lags).saturating_add(with_constant + 3);
    checked(series, need)?;
    let columns = 1 + lags + with_constant;
    let rows = series.len() - 1 - skip;
    let change = |t: usize| series[t + 1] - series[t];
    // The level is the last column: its coefficient is then q'y / r with the standard error s / |r|, r the last pivot.
    let x = DMatrix::from_fn(rows, columns, |row, column| {
        let t = row + skip;
        match column {
            c if c < lags => change(t - c - 1),
            c if c + 1 < columns => 1.0,
            _ => series[t],
        }
    });
    let scales: Vec<f64> = x.column_iter().map(|column| column.norm()).collect();
    let mut y = DVector::from_fn(rows, |row, _| change(row + skip));
    let qr = x.qr();
    let r = qr.r();
    // NaN compares as neither, and is degenerate too.
    let sound = |at: usize| r[(at, at)].abs() > 1e-12 * scales[at];
    if !(0..columns).all(sound) {
        return Err(CointegrationError::Degenerate);
    }
    let whole = y.norm_squared();
    qr.q_tr_mul(&mut y);
    let squares = y.rows(columns, rows - columns).norm_squared();
    if squares.is_nan() || squares <= 1e-24 * whole {
        return Err(CointegrationError::Degenerate);
    }
    let error = (squares / (rows - columns) as f64).sqrt();
    let pivot = r[(columns - 1, columns - 1)];
    Ok(Fit { t: y[columns - 1] * pivot.signum() / error, squares, rows, columns })
}
