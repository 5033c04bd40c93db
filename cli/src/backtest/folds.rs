//! The folds of a walk-forward: train, a gap, test; then all of it moved on by the length of a test.
//!
//! ```text
//! |------ train ------|purge|embargo|-- test --|
//!            |------ train ------|purge|embargo|-- test --|
//! ```
//! `purge` is cut off the end of training, so that nothing that began there ends in the test. `embargo` is cut off the
//! beginning of the test, whose first rows still carry what training saw. Tests never overlap; training never reaches
//! into a test of its own or of a later fold. With `warmup`, rows before a window are run, and do not count.

use tidemill_engine::duration::Span;

use super::range::Range;

/// As the command line has it: `folds=5,train=3d,test=1d,purge=1h,embargo=1h,warmup=1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folds {
    /// How many.
    pub folds: usize,
    /// Length of training; default: three tests.
    pub train: Option<Span>,
    /// Length of a test; default: what fills the history.
    pub test: Option<Span>,
    /// Left out at the end of training.
    pub purge: Span,
    /// Left out at the beginning of a test.
    pub embargo: Span,
    /// Run before each window.
    pub warmup: Span,
}

impl std::str::FromStr for Folds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut folds = Self {
            folds: 5,
            train: None,
            test: None,
            purge: Span::default(),
            embargo: Span::default(),
            warmup: Span::default(),
        };
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}`: write NAME=VALUE"))?;
            let span = || {
                value.parse::<Span>().map_err(|_| format!("`{value}` is not a span of time: write 6h or 30d"))
            };
            match name {
                "folds" => {
                    let count = value.parse().ok().filter(|n| (1..=1000).contains(n));
                    folds.folds =
                        count.ok_or_else(|| format!("`{value}` is not a number of folds: 1 to 1000"))?;
                }
                "train" => folds.train = Some(span()?),
                "test" => folds.test = Some(span()?),
                "purge" => folds.purge = span()?,
                "embargo" => folds.embargo = span()?,
                "warmup" => folds.warmup = span()?,
                other => {
                    return Err(format!(
                        "unknown `{other}`: one of folds, train, test, purge, embargo, warmup"
                    ));
                }
            }
        }
        Ok(folds)
    }
}

/// One fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// Rows to choose by.
    pub train: Range,
    /// Rows to judge by.
    pub test: Range,
    /// Where rows begin that are run before either, but do not count.
    pub warmup: i64,
}

impl Fold {
    /// What is read for a window that counts.
    pub fn read(&self, counts: Range) -> Range {
        (counts.0.saturating_sub(self.warmup), counts.1)
    }
}

impl Folds {
    /// The folds over a history; what is wrong, if it is too short for them.
    pub fn over(&self, history: Range) -> Result<Vec<Fold>, String> {
        let whole = history.1.saturating_sub(history.0);
        let n = self.folds as i64;
        let (purge, embargo) = (self.purge.ns(), self.embargo.ns());
        let test = match (self.test, self.train) {
            (Some(test), _) => test.ns(),
            (None, Some(train)) => whole.saturating_sub(train.ns()) / n,
            (None, None) => whole / (n + 3),
        };
        let train = self.train.map_or_else(
            || if self.test.is_some() { whole.saturating_sub(n.saturating_mul(test)) } else { 3 * test },
            Span::ns,
        );
        if test <= embargo || train <= purge {
            return Err(format!(
                "{} folds do not fit: a test would last {} with an embargo of {embargo_s}, training {} with a purge of {purge_s}; take fewer folds or a longer history",
                self.folds,
                show(test),
                show(train),
                embargo_s = show(embargo),
                purge_s = show(purge),
            ));
        }
        if n.saturating_mul(test).saturating_add(train) > whole {
            return Err(format!(
                "{} folds need {} of training and {} tests of {}, but the history has {}",
                self.folds,
                show(train),
                self.folds,
                show(test),
                show(whole)
            ));
        }
        let fold = |i: i64| {
            let begin = history.0 + i * test;
            let split = begin + train;
            Fold {
                train: (begin, split - purge),
                test: (split + embargo, split + test),
                warmup: self.warmup.ns(),
            }
        };
        Ok((0..n).map(fold).collect())
    }
}

fn show(ns: i64) -> String {
    crate::report::text::span(ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folds_walk_forward_through_the_whole_history() {
        let folds: Folds = "folds=2,purge=1ns,embargo=2ns".parse().unwrap();
        let told = folds.over((0, 50)).unwrap();
        assert_eq!(told[0], Fold { train: (0, 29), test: (32, 40), warmup: 0 });
        assert_eq!(told[1], Fold { train: (10, 39), test: (42, 50), warmup: 0 });
        assert!("folds=0".parse::<Folds>().is_err());
        assert!("gap=1h".parse::<Folds>().unwrap_err().contains("one of folds"));
        assert!(folds.over((0, 5)).is_err());
        assert!("train=1h".parse::<Folds>().unwrap().over((0, 50)).is_err());
    }

    proptest! {
        #[test]
        fn tests_never_overlap_and_never_touch_their_training(
            n in 1usize..12, train in proptest::option::of(1i64..500), test in proptest::option::of(1i64..200),
            purge in 0i64..20, embargo in 0i64..20, from in -1000i64..1000, length in 1i64..5000,
        ) {
            let span = Span::from_ns;
            let folds = Folds { folds: n, train: train.map(span), test: test.map(span), purge: span(purge), embargo: span(embargo), warmup: span(3) };
            let history = (from, from + length);
            let Ok(told) = folds.over(history) else { return Ok(()) };
            prop_assert_eq!(told.len(), n);
            for fold in &told {
                prop_assert!(history.0 <= fold.train.0 && fold.train.0 < fold.train.1);
                prop_assert!(fold.train.1 + purge + embargo <= fold.test.0);
                prop_assert!(fold.test.0 < fold.test.1 && fold.test.1 <= history.1);
            }
            for pair in told.windows(2) {
                prop_assert!(pair[0].test.1 <= pair[1].test.0);
                prop_assert!(pair[0].train.0 < pair[1].train.0);
            }
        }
    }
}
