use nalgebra::DMatrix;
use proptest::prelude::*;

use super::component::{historical as historical_parts, parametric as parametric_parts};
use super::moments::covariance;
use super::monte_carlo::{Draw, DrawError, Draws, factor};
use super::tail::{Tail, historical};
use super::weighted::age_weighted;
use super::*;
use crate::performance::benchmark;
use crate::portfolio::{Exposure, Portfolio};

/// `../shared/data/oracles/performance.json`, or none where it is absent (in CI it must be there).
fn oracle() -> Option<serde_json::Value> {
    let folder = std::env::var_os("TIDEMILL_DATA")
        .map_or_else(|| "../../shared/data".into(), std::path::PathBuf::from);
    let path = folder.join("oracles/performance.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(
            !std::env::var("CI").is_ok_and(|ci| ci == "true"),
            "{} is absent and CI=true",
            path.display()
        );
        eprintln!("SKIPPED: no {}", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn figures_are_empyricals_and_scipys() {
    let Some(oracle) = oracle() else { return };
    for (name, series) in oracle["series"].as_object().unwrap() {
        let returns: Vec<f64> = serde_json::from_value(series["returns"].clone()).unwrap();
        let expect = |figure: &str| series["expected"][figure].as_f64().unwrap();
        let near =
            |got: f64, figure: &str| assert!((got - expect(figure)).abs() < 1e-12, "{name} {figure}: {got}");
        let moments = Moments::of(&returns).unwrap();
        for (level, word) in [(0.95, "95"), (0.99, "99")] {
            let risk = historical(&returns, level).unwrap();
            near(risk.var, &format!("var_hist_{word}"));
            near(risk.cvar, &format!("cvar_hist_{word}"));
        }
        let normal = parametric(&moments, 0.95, 1.0).unwrap();
        near(normal.var, "var_normal_95");
        near(normal.cvar, "cvar_normal_95");
        near(moments.skewness.unwrap(), "skew");
        near(moments.excess_kurtosis.unwrap(), "excess_kurtosis");
        near(cornish_fisher(&moments, 0.95, 1.0).unwrap().var, "var_cornish_fisher_95");
        near(ewma::deviation(&returns, ewma::DAILY).unwrap(), "ewma_vol_094_last");
    }
}

/// The tail by sorting everything, as empyrical does it.
fn sorted(sample: &[f64], level: f64) -> TailRisk {
    let mut sample = sample.to_vec();
    sample.sort_by(f64::total_cmp);
    let h = ((sample.len() - 1) as f64 * tail_of(level) * 1e9).round() / 1e9;
    let (below, part) = (h as usize, h.fract());
    let next = sample[(below + 1).min(sample.len() - 1)];
    let cvar = sample[..=below].iter().sum::<f64>() / (below + 1) as f64;
    TailRisk { var: sample[below] + (next - sample[below]) * part, cvar }
}

proptest! {
    /// However a sample changes between two questions, the answer is the one by sorting: to the last bit, whatever is remembered.
    #[test]
    fn selection_is_sorting(
        start in proptest::collection::vec(prop_oneof![-100.0..100.0f64, Just(0.0), Just(-0.0), Just(-7.5)], 1..400),
        moves in proptest::collection::vec((0.0..3.0f64, -50.0..50.0f64, 0usize..400), 0..25),
        split in 0usize..400,
    ) {
        let levels = vec![0.9, 0.95, 0.99, 0.5];
        let mut tail = Tail::new(levels.clone()).unwrap();
        let (mut sample, mut out) = (start, Vec::new());
        for (scale, shift, only) in moves {
            let (older, newer) = sample.split_at(split.min(sample.len()));
            tail.measure(older, newer, &mut out);
            for (got, level) in out.iter().zip(&levels) {
                let by_sorting = sorted(&sample, *level);
                prop_assert_eq!(got.cvar, by_sorting.cvar);
                prop_assert!((got.var - by_sorting.var).abs() <= 1e-6 * by_sorting.var.abs().max(1.0));
            }
            match only % 3 {
                0 => sample.iter_mut().for_each(|x| *x = *x * scale + shift),
                1 => sample.truncate((only % sample.len()).max(1)),
                _ => { let at = only % sample.len(); sample[at] = shift; }
            }
        }
    }

    /// Parts sum to the whole, with options in the book too.
    #[test]
    fn components_sum_to_the_figure(
        rows in proptest::collection::vec(proptest::collection::vec(-0.1..0.1f64, 60), 1..6),
        held in proptest::collection::vec((-1e5..1e5f64, prop_oneof![Just(0.0), -1e5..1e5f64]), 6),
        level in prop_oneof![Just(0.95), Just(0.99), 0.5..0.999f64],
        n in 2usize..60,
    ) {
        let mut portfolio = Portfolio::with_returns(&rows);
        for (i, (linear, quadratic)) in held.into_iter().enumerate().take(rows.len()) {
            portfolio.set(i, Exposure { linear, quadratic }).unwrap();
        }
        let mut profits = Vec::new();
        portfolio.profits(n, &mut profits);
        let close = |parts: Vec<component::Component>, whole: TailRisk| {
            let sum = |f: fn(&component::Component) -> f64| parts.iter().map(f).sum::<f64>();
            let scale = 1e-12 * 1e6;
            prop_assert!((sum(|c| c.var) - whole.var).abs() < scale, "{} {}", sum(|c| c.var), whole.var);
            prop_assert!((sum(|c| c.cvar) - whole.cvar).abs() < scale, "{} {}", sum(|c| c.cvar), whole.cvar);
            Ok(())
        };
        close(historical_parts(&portfolio, n, level), historical(&profits, level).unwrap())?;
        let moments = Moments::of(&profits).unwrap();
        close(parametric_parts(&portfolio, n, level), parametric(&moments, level, 1.0).unwrap())?;
        // Marginal VaR is the derivative: a little more of one instrument changes VaR by as much.
        let marginal = parametric_parts(&portfolio, n, level)[0].marginal_var;
        let mut with = Vec::new();
        let step = |by: f64, with: &mut Vec<f64>| {
            let Exposure { linear, quadratic } = portfolio.exposure(0);
            portfolio.profits_with(0, Exposure { linear: linear + by, quadratic }, n, with).unwrap();
            parametric(&Moments::of(with).unwrap(), level, 1.0).unwrap().var
        };
        let slope = (step(1.0, &mut with) - step(-1.0, &mut with)) / 2.0;
        prop_assert!((slope - marginal).abs() < 1e-4, "{} {}", slope, marginal);
    }

    /// Weights that do not decay are plain historical simulation, without interpolation.
    #[test]
    fn without_decay_age_does_not_matter(sample in proptest::collection::vec(-5.0..5.0f64, 1..200)) {
        let risk = age_weighted(&sample, 1.0, 0.95).unwrap();
        let mut sorted = sample.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = ((sample.len() as f64 * 0.05 - 1e-9).ceil() as usize).max(1) - 1;
        prop_assert_eq!(risk.var, sorted[rank]);
        prop_assert!(risk.cvar <= risk.var + 1e-12);
    }
}

#[test]
fn newer_outcomes_are_likelier() {
    // Weights of 4/7, 2/7, 1/7 from the newest: worked by hand at a tail of 1/2.
    let risk = age_weighted(&[-4.0, 2.0, -1.0], 0.5, 0.5).unwrap();
    assert_eq!(risk.var, -1.0);
    assert!((risk.cvar - (-4.0 / 7.0 - (0.5 - 1.0 / 7.0)) / 0.5).abs() < 1e-15);
    assert_eq!(age_weighted(&[f64::NAN], 0.9, 0.9), None);
    assert_eq!(age_weighted(&[1.0], 1.5, 0.9), None);
}

#[test]
fn outcomes_are_scaled_to_todays_volatility() {
    let mut out = Vec::new();
    // By hand: v0 = 14/3, v1 = (v0 + 1)/2, v2 = (v1 + 4)/2, today (v2 + 9)/2.
    ewma::filtered(&[1.0, -2.0, 3.0], 0.5, &mut out);
    let v0: f64 = 14.0 / 3.0;
    let v1: f64 = 0.5 * v0 + 0.5;
    let v2: f64 = 0.5 * v1 + 2.0;
    let today: f64 = 0.5 * v2 + 4.5;
    for (got, expect) in out.iter().zip([1.0 / v0.sqrt(), -2.0 / v1.sqrt(), 3.0 / v2.sqrt()]) {
        assert!((got - expect * today.sqrt()).abs() < 1e-14);
    }
    ewma::filtered(&[0.0, 0.0], 0.94, &mut out);
    assert_eq!(out, [0.0, 0.0]);
    overlapping(&[1.0, 2.0, 4.0, 8.0], 3, &mut out);
    assert_eq!(out, [7.0, 14.0]);
    overlapping(&[1.0], 3, &mut out);
    assert!(out.is_empty());
}

#[test]
fn the_expansions_cvar_is_the_mean_of_its_quantiles() {
    let moments = Moments { mean: 0.001, deviation: 0.02, skewness: Some(-0.4), excess_kurtosis: Some(1.3) };
    for level in [0.95, 0.99] {
        for horizon in [1.0, 10.0] {
            let steps = 20_000;
            let tail = tail_of(level);
            let quantile = |k: u32| {
                let at = 1.0 - (f64::from(k) + 0.5) / f64::from(steps) * tail;
                cornish_fisher(&moments, at, horizon).unwrap().var
            };
            let mean = (0..steps).map(quantile).sum::<f64>() / f64::from(steps);
            let cvar = cornish_fisher(&moments, level, horizon).unwrap().cvar;
            assert!((mean - cvar).abs() < 2e-4 * cvar.abs(), "{mean} {cvar}");
        }
    }
}

#[test]
fn samples_that_tell_nothing_give_nothing() {
    assert_eq!(historical(&[], 0.95), None);
    assert_eq!(historical(&[1.0, f64::NAN], 0.95), None);
    assert_eq!((historical(&[1.0], 1.0), historical(&[1.0], 0.0)), (None, None));
    assert_eq!(historical(&[-3.0], 0.99), Some(TailRisk { var: -3.0, cvar: -3.0 }));
    assert_eq!((Moments::of(&[1.0]), Moments::of(&[1.0, f64::INFINITY])), (None, None));
    let constant = Moments::of(&[2.0; 9]).unwrap();
    assert_eq!((constant.deviation, constant.skewness, constant.excess_kurtosis), (0.0, None, None));
    assert_eq!(cornish_fisher(&constant, 0.95, 1.0), None);
    assert_eq!(benchmark::beta(&[1.0, 2.0], &[3.0, 3.0]), None);
    assert!((benchmark::correlation(&[1.0, 2.0], &[2.0, 4.0]).unwrap() - 1.0).abs() < 1e-15);
}

#[test]
fn draws_have_the_covariance_they_are_drawn_from() {
    // Two instruments that move as one: a covariance without an inverse.
    let covariance_of =
        DMatrix::from_row_slice(3, 3, &[4e-4, 1e-4, 4e-4, 1e-4, 9e-4, 1e-4, 4e-4, 1e-4, 4e-4]);
    let l = factor(&covariance_of).unwrap();
    assert!((&l * l.transpose() - &covariance_of).abs().max() < 1e-18);
    for degrees in [None, Some(6.0)] {
        let draw = Draw { paths: 200_000, seed: 7, degrees };
        let draws = Draws::new(&draw, &covariance_of).unwrap();
        for i in 0..3 {
            for j in 0..3 {
                let got = covariance(draws.of(i), draws.of(j)).unwrap();
                assert!((got - covariance_of[(i, j)]).abs() < 2e-5, "{degrees:?} {i} {j} {got}");
            }
        }
        let exposures = [100.0, -50.0, 30.0].map(Exposure::value);
        let mut profits = Vec::new();
        draws.profits(&exposures, &[1e-3, 0.0, -1e-3], 4.0, &mut profits);
        let variance = 130.0f64.powi(2) * 4e-4 + 2500.0 * 9e-4 - 2.0 * 130.0 * 50.0 * 1e-4;
        let moments = Moments::of(&profits).unwrap();
        assert!((moments.mean - 0.28).abs() < 0.05, "{}", moments.mean);
        assert!((moments.deviation / (2.0 * variance.sqrt()) - 1.0).abs() < 0.02);
        let kurtosis = moments.excess_kurtosis.unwrap();
        // Student's t has 6 / (degrees - 4): 3.
        assert!(
            if degrees.is_some() { (1.5..6.0).contains(&kurtosis) } else { kurtosis.abs() < 0.1 },
            "{kurtosis}"
        );
        let again = Draws::new(&draw, &covariance_of).unwrap();
        assert_eq!(draws.of(1), again.of(1));
    }
    let plain =
        Draws::new(&Draw { paths: 200_000, ..Draw::default() }, &DMatrix::from_element(1, 1, 1.0)).unwrap();
    let risk = historical(plain.of(0), 0.99).unwrap();
    let exact = normal(1.0, 0.99, 1.0).unwrap();
    assert!(
        (risk.var - exact.var).abs() < 0.03 && (risk.cvar - exact.cvar).abs() < 0.03,
        "{risk:?} {exact:?}"
    );
}

#[test]
fn what_cannot_be_drawn_from_is_named() {
    let draws = |m: &[f64], n: usize| {
        Draws::new(&Draw { paths: 1, ..Draw::default() }, &DMatrix::from_row_slice(n, n, m)).err()
    };
    assert!(matches!(draws(&[1.0, 2.0, 2.0, 1.0], 2), Some(DrawError::NotPositive { at: 1, .. })));
    assert_eq!(draws(&[f64::NAN], 1), Some(DrawError::NotSquare));
    let fat = Draw { paths: 1, degrees: Some(2.0), ..Draw::default() };
    assert_eq!(Draws::new(&fat, &DMatrix::from_element(1, 1, 1.0)).err(), Some(DrawError::Degrees(2.0)));
}
