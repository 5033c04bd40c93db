//! The distribution of Dickey-Fuller statistics by MacKinnon's response surfaces: p-values of "Approximate asymptotic distribution functions for
//! unit-root and cointegration tests" (JBES 12(2), 1994), critical values of "Critical values for cointegration tests" (Queen's University
//! working paper 1227, 2010). With a constant for one or two series, without one for a single series.

use serde::{Deserialize, Serialize};

use super::Constant;
use crate::distribution::normal_cdf;

/// Below which a statistic must be to reject a unit root.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CriticalValues {
    /// At 1 %.
    pub one: f64,
    /// At 5 %.
    pub five: f64,
    /// At 10 %.
    pub ten: f64,
}

/// A p-value is cdf(polynomial(statistic)), with other coefficients left and right of `split`; 0 below `least` and 1 above `most`.
struct Surface {
    least: f64,
    split: f64,
    most: f64,
    left: [f64; 3],
    right: [f64; 4],
    /// Of 1 / rows, at 1, 5 and 10 %.
    critical: [[f64; 4]; 3],
}

const NONE: Surface = Surface {
    least: -19.04,
    split: -1.04,
    most: f64::INFINITY,
    left: [0.6344, 1.2378, 0.032496],
    right: [0.4797, 0.93557, -0.06999, 0.033066],
    critical: [
        [-2.56574, -2.2358, -3.627, 0.0],
        [-1.94100, -0.2686, -3.365, 31.223],
        [-1.61682, 0.2656, -2.714, 25.364],
    ],
};

const ONE: Surface = Surface {
    least: -18.83,
    split: -1.61,
    most: 2.74,
    left: [2.1659, 1.4412, 0.038269],
    right: [1.7339, 0.93202, -0.12745, -0.010368],
    critical: [
        [-3.43035, -6.5393, -16.786, -79.433],
        [-2.86154, -2.8903, -4.234, -40.040],
        [-2.56677, -1.5384, -2.809, 0.0],
    ],
};

const TWO: Surface = Surface {
    least: -18.86,
    split: -2.62,
    most: 0.92,
    left: [2.92, 1.5012, 0.039796],
    right: [2.1945, 0.64695, -0.29198, -0.042377],
    critical: [
        [-3.89644, -10.9519, -33.527, 0.0],
        [-3.33613, -6.1101, -6.823, 0.0],
        [-3.04445, -4.2412, -2.720, 0.0],
    ],
};

/// The surface; residuals of two series (or more, which there is none for) had a constant in their line.
fn surface(constant: Constant, series: usize) -> &'static Surface {
    match (constant, series) {
        (Constant::None, 0 | 1) => &NONE,
        (Constant::Constant, 0 | 1) => &ONE,
        _ => &TWO,
    }
}

fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// The asymptotic probability of a statistic this low if there is a unit root: of one series' own test, or (2) of the residuals of a line through
/// two. NaN for NaN.
pub fn p_value(statistic: f64, constant: Constant, series: usize) -> f64 {
    let s = surface(constant, series);
    if statistic > s.most {
        return 1.0;
    }
    if statistic < s.least {
        return 0.0;
    }
    let coefficients: &[f64] = if statistic <= s.split { &s.left } else { &s.right };
    normal_cdf(polynomial(coefficients, statistic))
}

/// The critical values for a sample of so many rows; asymptotic ones for 0.
pub fn critical_values(constant: Constant, series: usize, rows: usize) -> CriticalValues {
    let x = if rows == 0 { 0.0 } else { 1.0 / rows as f64 };
    let [one, five, ten] = surface(constant, series).critical.map(|c| polynomial(&c, x));
    CriticalValues { one, five, ten }
}
