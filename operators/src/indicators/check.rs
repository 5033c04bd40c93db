//! What the indicators' tests have in common.
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::indicator::Indicator;

/// Feeds one key's rows.
pub fn run<T: Indicator<I, O>, const I: usize, const O: usize>(
    indicator: &T,
    rows: &[[f64; I]],
) -> Vec<[f64; O]> {
    let mut state = T::State::default();
    rows.iter().map(|&x| indicator.update(&mut state, x)).collect()
}

/// Rows until the first output is a number.
pub fn warm_after<T: Indicator<I, O>, const I: usize, const O: usize>(
    indicator: &T,
    rows: &[[f64; I]],
) -> usize {
    let out = run(indicator, rows);
    out.iter().position(|y| !y[0].is_nan()).expect("never warm") + 1
}

pub fn column<const O: usize>(out: &[[f64; O]], at: usize) -> Vec<f64> {
    out.iter().map(|y| y[at]).collect()
}

/// Equal but for rounding.
#[track_caller]
pub fn assert_close(got: &[f64], want: &[f64]) {
    assert_near(got, want, 1e-3);
}

/// Equal but for rounding of values about as large as `scale`.
#[track_caller]
pub fn assert_near(got: &[f64], want: &[f64], scale: f64) {
    assert_eq!(got.len(), want.len());
    for (row, (a, b)) in got.iter().zip(want).enumerate() {
        let same = a.is_nan() && b.is_nan();
        let near = (a - b).abs() <= 1e-9 * b.abs().max(scale);
        assert!(same || near, "row {row}: {a}, not {b}");
    }
}

/// Equal to the bit (NaN to NaN).
#[track_caller]
pub fn assert_same(got: &[f64], want: &[f64]) {
    for (row, (a, b)) in got.iter().zip(want).enumerate() {
        assert!(a == b || a.is_nan() && b.is_nan(), "row {row}: {a}, not {b}");
    }
    assert_eq!(got.len(), want.len());
}

/// A random series.
#[derive(Debug)]
pub struct Rows(Vec<f64>);

impl Rows {
    pub fn map<const I: usize>(&self, f: impl Fn(f64) -> [f64; I]) -> Vec<[f64; I]> {
        self.0.iter().map(|&x| f(x)).collect()
    }

    /// The largest magnitude, to which rounding is relative.
    pub fn scale(&self) -> f64 {
        self.0.iter().fold(1e-9, |a, x| a.max(x.abs()))
    }

    /// `f` of each full window, NaN before the first.
    pub fn windows(&self, period: usize, f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let warm = (period - 1).min(self.0.len());
        let full = self.0.windows(period).map(f);
        std::iter::repeat_n(f64::NAN, warm).chain(full).collect()
    }
}

/// Runs `f` for many periods and random series, with flat stretches, jumps and ties.
pub fn windows(f: impl Fn(usize, &Rows)) {
    let value = prop_oneof![4 => -100.0..100.0, 1 => Just(7.3), 1 => -1e4..1e4];
    let series = proptest::collection::vec((value, 1..6_usize), 1..40);
    let strategy = (1..12_usize, series);
    let mut runner = TestRunner::new_with_rng(
        Config::with_cases(200),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let outcome = runner.run(&strategy, |(period, runs)| {
        let rows = runs.iter().flat_map(|&(x, times)| std::iter::repeat_n(x, times));
        f(period, &Rows(rows.collect()));
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}
