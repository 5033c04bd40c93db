//! Whether a VaR forecast is right: how often it failed (Kupiec 1995), and whether failures come in runs (Christoffersen 1998).
//!
//! Statistics are likelihood ratios, asymptotically chi-square: with one degree of freedom for [`coverage`](VarTest::coverage) and
//! [`independence`](VarTest::independence), two for [`conditional`](VarTest::conditional). State: four counts.

use serde::{Deserialize, Serialize};

use crate::distribution::chi_square_survival;
use crate::var::{is_level, tail_of};

/// A test's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// Likelihood ratio.
    pub statistic: f64,
    /// Probability of one as large, if the forecast is right.
    pub p_value: f64,
}

/// Counts of periods in which the loss was within VaR, or beyond it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VarTest {
    /// Periods.
    pub periods: u64,
    /// Periods whose loss was beyond VaR.
    pub failures: u64,
    /// Pairs of periods in a row by (failed before, failed after): `[n00, n01, n10, n11]`.
    pub pairs: [u64; 4],
    /// Whether the last one failed.
    last: Option<bool>,
}

/// `count x ln(p)`, where no count makes nothing whatever `p` is.
fn times_ln(count: u64, p: f64) -> f64 {
    if count == 0 { 0.0 } else { count as f64 * p.ln() }
}

fn part(of: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { of as f64 / whole as f64 }
}

impl VarTest {
    /// Of counts made elsewhere: `pairs` as in [`VarTest::pairs`].
    pub fn of(periods: u64, failures: u64, pairs: [u64; 4]) -> Self {
        Self { periods, failures, pairs, last: None }
    }

    /// Takes the next period: its profit, and VaR as it was forecast (a profit too: see [`crate::var`]). It failed where the profit is lower. Numbers
    /// that aren't finite are passed over.
    pub fn observe(&mut self, profit: f64, var: f64) {
        if !(profit.is_finite() && var.is_finite()) {
            return;
        }
        let failed = profit < var;
        self.periods += 1;
        self.failures += u64::from(failed);
        if let Some(before) = self.last.replace(failed) {
            self.pairs[2 * usize::from(before) + usize::from(failed)] += 1;
        }
    }

    /// Kupiec's proportion of failures: is it `1 - level`? `None` before the first period.
    pub fn coverage(&self, level: f64) -> Option<TestResult> {
        if self.periods == 0 || self.failures > self.periods || !is_level(level) {
            return None;
        }
        let (fine, failed) = (self.periods - self.failures, self.failures);
        let (expected, seen) = (tail_of(level), part(failed, self.periods));
        let forecast = times_ln(fine, 1.0 - expected) + times_ln(failed, expected);
        let best = times_ln(fine, 1.0 - seen) + times_ln(failed, seen);
        Some(result(best, forecast, 1))
    }

    /// Christoffersen's independence: is a failure as likely after a failure as after none? `None` before the second period.
    pub fn independence(&self) -> Option<TestResult> {
        let [n00, n01, n10, n11] = self.pairs;
        let all = n00 + n01 + n10 + n11;
        if all == 0 {
            return None;
        }
        let (after_none, after_one) = (part(n01, n00 + n01), part(n11, n10 + n11));
        let either = part(n01 + n11, all);
        let apart = times_ln(n00, 1.0 - after_none)
            + times_ln(n01, after_none)
            + times_ln(n10, 1.0 - after_one)
            + times_ln(n11, after_one);
        let alike = times_ln(n00 + n10, 1.0 - either) + times_ln(n01 + n11, either);
        Some(result(apart, alike, 1))
    }

    /// Christoffersen's conditional coverage: both at once.
    pub fn conditional(&self, level: f64) -> Option<TestResult> {
        let statistic = self.coverage(level)?.statistic + self.independence()?.statistic;
        Some(TestResult { statistic, p_value: chi_square_survival(statistic, 2) })
    }
}

fn result(free: f64, bound: f64, degrees: u32) -> TestResult {
    // The free likelihood is never smaller; rounding may say so.
    let statistic = (2.0 * (free - bound)).max(0.0);
    TestResult { statistic, p_value: chi_square_survival(statistic, degrees) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_figures() {
        // MATLAB Risk Management Toolbox, "VaR Backtesting Workflow": Normal95 of the S&P 500.
        let test = VarTest::of(1043, 57, [932, 53, 53, 4]);
        let (pof, cci) = (test.coverage(0.95).unwrap(), test.independence().unwrap());
        assert!((pof.statistic - 0.46147).abs() < 5e-6, "{pof:?}");
        assert!((cci.statistic - 0.25866).abs() < 5e-6, "{cci:?}");
        // p-values by the complementary error function, computed apart.
        assert!((pof.p_value - 0.496_939_447_680_39).abs() < 1e-12);
        assert!((cci.p_value - 0.611_040_077_847_94).abs() < 1e-12);
        let both = test.conditional(0.95).unwrap();
        assert!((both.p_value - (-0.5 * (pof.statistic + cci.statistic)).exp()).abs() < 1e-15);
    }

    #[test]
    fn counts_are_kept_as_periods_come() {
        let mut test = VarTest::default();
        assert_eq!((test.coverage(0.99), test.independence(), test.conditional(0.99)), (None, None, None));
        for profit in [1.0, -3.0, -4.0, f64::NAN, 0.0, -2.0, -5.0] {
            test.observe(profit, -2.0);
        }
        // -2 is VaR, not beyond it; NaN is no period.
        assert_eq!((test.periods, test.failures, test.pairs), (6, 3, [1, 2, 1, 1]));
        assert_eq!(VarTest { last: None, ..test }, VarTest::of(6, 3, [1, 2, 1, 1]));
    }

    #[test]
    fn no_failure_and_nothing_but_failures_have_finite_figures() {
        let none = VarTest::of(250, 0, [249, 0, 0, 0]);
        let expected = -2.0 * 250.0 * 0.99f64.ln();
        assert!((none.coverage(0.99).unwrap().statistic - expected).abs() < 1e-12);
        assert_eq!(none.independence().unwrap(), TestResult { statistic: 0.0, p_value: 1.0 });
        let all = VarTest::of(3, 3, [0, 0, 0, 2]);
        assert!((all.coverage(0.99).unwrap().statistic + 6.0 * 0.01f64.ln()).abs() < 1e-12);
    }
}
