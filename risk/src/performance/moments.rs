//! Mean, deviation and shape of a sample. Two passes over it, so no digits are lost to a large mean.
//!
//! Every function gives none where it has no answer: too few numbers, one that is not finite, or (for shapes) numbers that are all equal.

/// The numbers if there are at least `least` and all are finite.
pub(super) fn checked(values: &[f64], least: usize) -> Option<&[f64]> {
    (values.len() >= least && values.iter().all(|x| x.is_finite())).then_some(values)
}

/// The number if it is one.
pub(super) fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

/// The quotient, or none where it isn't a finite number.
pub(super) fn ratio(a: f64, b: f64) -> Option<f64> {
    if b == 0.0 { None } else { finite(a / b) }
}

/// True if all numbers are the same: their deviation is then exactly zero, whatever rounding makes of it.
fn constant(values: &[f64]) -> bool {
    values.iter().all(|x| *x == values[0])
}

/// The arithmetic mean of at least one number.
pub fn mean(values: &[f64]) -> Option<f64> {
    checked(values, 1)?;
    if constant(values) {
        return Some(values[0]);
    }
    finite(values.iter().sum::<f64>() / values.len() as f64)
}

/// The k-th central moment's sum.
fn power_sum(values: &[f64], mean: f64, k: i32) -> f64 {
    values.iter().map(|x| (x - mean).powi(k)).sum()
}

/// The sample variance (divided by n - 1) of at least two numbers.
pub fn variance(values: &[f64]) -> Option<f64> {
    checked(values, 2)?;
    let mean = mean(values)?;
    finite(power_sum(values, mean, 2) / (values.len() - 1) as f64)
}

/// The sample standard deviation (n - 1) of at least two numbers; exactly zero if all are equal.
pub fn deviation(values: &[f64]) -> Option<f64> {
    variance(values).map(f64::sqrt)
}

/// The deviation, or none where it is zero: for use below a fraction line.
pub(super) fn spread(values: &[f64]) -> Option<f64> {
    deviation(values).filter(|s| *s > 0.0)
}

/// m_k / m_2^(k/2) of the population, of numbers that are not all equal.
fn standardised(values: &[f64], k: i32) -> Option<f64> {
    spread(values)?;
    let (mean, n) = (mean(values)?, values.len() as f64);
    // Scaled first: the squares of tiny returns must not underflow.
    let scale = values.iter().map(|x| (x - mean).abs()).fold(0.0, f64::max);
    let scaled: Vec<f64> = values.iter().map(|x| (x - mean) / scale).collect();
    let second = power_sum(&scaled, 0.0, 2) / n;
    ratio(power_sum(&scaled, 0.0, k) / n, second.powf(0.5 * f64::from(k)))
}

/// The skewness m3 / m2^1.5 of the population (no correction for the size of the sample).
pub fn skewness(values: &[f64]) -> Option<f64> {
    standardised(values, 3)
}

/// The kurtosis m4 / m2^2 of the population: 3 for the normal distribution.
pub fn kurtosis(values: &[f64]) -> Option<f64> {
    standardised(values, 4)
}

/// The skewness, corrected for the size of the sample: sqrt(n (n - 1)) / (n - 2) * m3 / m2^1.5, for at least three numbers (the G1 of
/// Joanes and Gill 1998; scipy's `skew(bias=False)`).
pub fn sample_skewness(values: &[f64]) -> Option<f64> {
    let n = checked(values, 3)?.len() as f64;
    finite((n * (n - 1.0)).sqrt() / (n - 2.0) * skewness(values)?)
}

/// The excess kurtosis, corrected for the size of the sample: (n - 1) / ((n - 2)(n - 3)) * ((n + 1) m4 / m2^2 - 3 (n - 1)), for at least
/// four numbers (the G2 of Joanes and Gill 1998; scipy's `kurtosis(bias=False)`). 0 for the normal distribution.
pub fn sample_excess_kurtosis(values: &[f64]) -> Option<f64> {
    let n = checked(values, 4)?.len() as f64;
    finite((n - 1.0) / ((n - 2.0) * (n - 3.0)) * ((n + 1.0) * kurtosis(values)? - 3.0 * (n - 1.0)))
}
