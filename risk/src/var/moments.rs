//! Mean, deviation, skewness and kurtosis of a sample, in two passes.

use serde::{Deserialize, Serialize};

/// Moments of a sample, corrected for bias as SciPy does with `bias=False`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (divided by n - 1).
    pub deviation: f64,
    /// Skewness; none for less than three outcomes or where all are equal.
    pub skewness: Option<f64>,
    /// Kurtosis less the normal distribution's 3; none for less than four outcomes or where all are equal.
    pub excess_kurtosis: Option<f64>,
}

impl Moments {
    /// `None` for less than two outcomes, or where one is not finite.
    pub fn of(sample: &[f64]) -> Option<Self> {
        if sample.len() < 2 {
            return None;
        }
        let n = sample.len() as f64;
        let mean = mean(sample);
        let (mut m2, mut m3, mut m4) = (0.0, 0.0, 0.0);
        for x in sample {
            let d = x - mean;
            let square = d * d;
            m2 += square;
            m3 += square * d;
            m4 += square * square;
        }
        let deviation = (m2 / (n - 1.0)).sqrt();
        if !deviation.is_finite() {
            return None;
        }
        let (m2, m3, m4) = (m2 / n, m3 / n, m4 / n);
        let skewness = (n > 2.0 && m2 > 0.0).then(|| m3 / m2.powf(1.5) * (n * (n - 1.0)).sqrt() / (n - 2.0));
        let excess_kurtosis = (n > 3.0 && m2 > 0.0).then(|| {
            let plain = m4 / (m2 * m2) - 3.0;
            (n - 1.0) / ((n - 2.0) * (n - 3.0)) * ((n + 1.0) * plain + 6.0)
        });
        let finite = |x: &f64| x.is_finite();
        Some(Self {
            mean,
            deviation,
            skewness: skewness.filter(finite),
            excess_kurtosis: excess_kurtosis.filter(finite),
        })
    }
}

/// The mean; NaN of nothing.
pub fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len() as f64
}

/// Covariance of two samples taken together (divided by n - 1). `None` for less than two pairs, or where it is not finite.
pub fn covariance(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len().min(b.len());
    if n < 2 {
        return None;
    }
    let (a, b) = (&a[..n], &b[..n]);
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum: f64 = a.iter().zip(b).map(|(x, y)| (x - mean_a) * (y - mean_b)).sum();
    Some(sum / (n - 1) as f64).filter(|c| c.is_finite())
}
