//! Against scipy, against what defines each allocation, and by hand.
use proptest::prelude::*;

use super::*;
use crate::covariance::{ledoit_wolf, sample};
use crate::oracle::draw;

/// The covariance of `covariance/tests.rs`, four series of forty returns.
fn covariance() -> DMatrix<f64> {
    let mut x: Vec<Vec<f64>> =
        (1..=4).map(|seed| draw(seed, 40).iter().map(|x| x * 0.02).collect()).collect();
    let add = |from: Vec<f64>, to: &mut Vec<f64>, load: f64| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += load * from);
    };
    add(x[0].clone(), &mut x[1], 0.5);
    add(x[2].clone(), &mut x[3], -0.3);
    sample(&x).unwrap()
}

fn close(ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len());
    let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off <= tolerance, "{ours:?} is not {theirs:?}");
}

#[test]
fn kelly_is_thorps() {
    // Thorp 2006: an excess return of 5 % at 15 % volatility.
    close(&[kelly(0.05, 0.0225).unwrap()], &[0.05 / 0.0225], 1e-15);
    assert_eq!(kelly_bet(0.6, 1.0).unwrap(), 0.6 - 0.4);
    assert!(kelly(0.05, 0.0).is_err() && kelly(f64::NAN, 1.0).is_err() && kelly_bet(1.5, 1.0).is_err());
    // numpy.linalg.solve
    let means = [0.001, -0.0005, 0.002, 0.0003];
    let theirs = [59.376509596929985, -30.83026796353455, 88.3902869538699, 6.955677440199745];
    close(&kelly_weights(&means, &covariance(), 1.0).unwrap(), &theirs, 1e-10);
    close(&kelly_weights(&means, &covariance(), 0.5).unwrap(), &theirs.map(|x| 0.5 * x), 1e-10);
}

#[test]
fn minimum_variance_is_numpys() {
    let theirs = [0.2615550207867938, 0.12613944173348005, 0.32960177641384925, 0.28270376106587697];
    close(&minimum_variance(&covariance()).unwrap(), &theirs, 1e-12);
}

#[test]
fn inverse_volatility_is_by_hand() {
    close(&inverse_volatility(&[0.1, 0.2, 0.4]).unwrap(), &[4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0], 1e-15);
    let error = inverse_volatility(&[0.1, 0.0]).unwrap_err().to_string();
    assert_eq!(error, "volatility 1 is 0: it must be above zero");
}

#[test]
fn equal_risk_is_scipys_root_and_equal() {
    let weights = equal_risk(&covariance()).unwrap();
    // scipy.optimize.root on x_i (C x)_i = 1/4
    let theirs = [0.24518099764821064, 0.19373495010158312, 0.28929187737580386, 0.27179217487440244];
    close(&weights, &theirs, 1e-12);
    close(&risk_contributions(&covariance(), &weights).unwrap(), &[0.25; 4], 1e-12);
    // Two series: by their volatilities, whatever the correlation.
    let two = DMatrix::from_row_slice(2, 2, &[0.04, -0.018, -0.018, 0.01]);
    close(&equal_risk(&two).unwrap(), &[1.0 / 3.0, 2.0 / 3.0], 1e-12);
    let budgets = risk_budget(&covariance(), &[4.0, 3.0, 2.0, 1.0]).unwrap();
    close(&risk_contributions(&covariance(), &budgets).unwrap(), &[0.4, 0.3, 0.2, 0.1], 1e-12);
}

#[test]
fn a_singular_covariance_says_which() {
    let twice = DMatrix::from_row_slice(3, 3, &[1.0, 0.2, 2.0, 0.2, 1.0, 0.4, 2.0, 0.4, 4.0]);
    let singular = Err(AllocationError::Covariance(CovarianceError::Singular { index: 2 }));
    assert_eq!(kelly_weights(&[0.1; 3], &twice, 1.0), singular);
    assert_eq!(minimum_variance(&twice), singular);
    // Equal risk needs no inverse.
    close(&risk_contributions(&twice, &equal_risk(&twice).unwrap()).unwrap(), &[1.0 / 3.0; 3], 1e-12);
    let hedge = DMatrix::from_row_slice(2, 2, &[1.0, -1.0, -1.0, 1.0]);
    assert!(matches!(equal_risk(&hedge), Err(AllocationError::NotConverged { .. })));
    let still = DMatrix::from_row_slice(2, 2, &[1.0, 0.0, 0.0, 0.0]);
    let still = equal_risk(&still).unwrap_err();
    assert_eq!(still, CovarianceError::NoVariance { index: 1, variance: 0.0 }.into());
    assert!(
        risk_budget(&covariance(), &[1.0, 0.0, 1.0, 1.0]).is_err()
            && risk_budget(&covariance(), &[1.0]).is_err()
    );
    assert!(equal_risk(&DMatrix::zeros(0, 0)).is_err() && risk_contributions(&twice, &[0.0; 3]).is_err());
}

proptest! {
    #[test]
    fn risk_is_equal_and_variance_least(seed in 1_u64..1_000_000, n in 1_usize..12, scale in 1e-4..1e2_f64) {
        let factor = draw(seed + 99, 60);
        let series: Vec<Vec<f64>> = (0..n as u64)
            .map(|i| {
                let (load, size) = (0.4 * i as f64 - 1.0, scale * (1.0 + i as f64));
                draw(seed * 31 + i * 7_919, 60).iter().zip(&factor).map(|(x, f)| size * (x + load * f)).collect()
            })
            .collect();
        let covariance = ledoit_wolf(&series).unwrap().covariance;
        let weights = equal_risk(&covariance).unwrap();
        prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12 && weights.iter().all(|w| *w > 0.0));
        for part in risk_contributions(&covariance, &weights).unwrap() {
            prop_assert!((part - 1.0 / n as f64).abs() < 1e-10);
        }
        // No other weights of sum 1 have less variance than the least.
        let least = portfolio_variance(&covariance, &minimum_variance(&covariance).unwrap()).unwrap();
        prop_assert!(least <= portfolio_variance(&covariance, &weights).unwrap() * (1.0 + 1e-9));
        prop_assert!(least <= portfolio_variance(&covariance, &vec![1.0 / n as f64; n]).unwrap() * (1.0 + 1e-9));
    }
}
