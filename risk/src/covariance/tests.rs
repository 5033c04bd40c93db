//! Against numpy 2.4 and scikit-learn 1.9 on drawn numbers, and against computing anew.
use super::*;
use crate::oracle::draw;

/// Four series of forty returns that numpy can draw too.
fn series() -> Vec<Vec<f64>> {
    let mut x: Vec<Vec<f64>> =
        (1..=4).map(|seed| draw(seed, 40).iter().map(|x| x * 0.02).collect()).collect();
    let add = |from: Vec<f64>, to: &mut Vec<f64>, load: f64| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += load * from);
    };
    add(x[0].clone(), &mut x[1], 0.5);
    add(x[2].clone(), &mut x[3], -0.3);
    x
}

/// The same with a common factor.
fn with_factor(n: usize) -> Vec<Vec<f64>> {
    let (factor, mut x) = (draw(9, 40), series());
    for (one, load) in x.iter_mut().zip([1.0, 0.8, 1.2, 0.5]) {
        one.iter_mut().zip(&factor).for_each(|(x, f)| *x += f * load * 0.02);
        one.truncate(n);
    }
    x
}

fn close(ours: &DMatrix<f64>, theirs: &[f64], tolerance: f64) {
    let theirs = DMatrix::from_row_slice(ours.nrows(), ours.ncols(), theirs);
    assert!((ours - &theirs).amax() <= tolerance * theirs.amax(), "{ours} is not {theirs}");
}

#[test]
fn sample_correlation_and_condition_are_numpys() {
    let covariance = sample(&series()).unwrap();
    #[rustfmt::skip]
    close(&covariance, &[
        2.7982147075242173e-05, 9.758805568808913e-06, -4.20310319717541e-06, 1.5667581085155045e-06,
        9.758805568808913e-06, 3.962153006850465e-05, 1.7525160368817938e-06, -1.8412036606156136e-06,
        -4.20310319717541e-06, 1.7525160368817938e-06, 2.6093597527097465e-05, -4.0606206250760963e-07,
        1.5667581085155045e-06, -1.8412036606156136e-06, -4.0606206250760963e-07, 2.675490830728127e-05,
    ], 1e-13);
    let correlation = correlation(&covariance).unwrap();
    assert_eq!(correlation[(2, 2)], 1.0);
    assert!((correlation[(1, 0)] - 0.2930829312960846).abs() < 1e-12);
    assert!((condition(&covariance).unwrap() - 2.3768504174847784).abs() < 1e-12);
}

#[test]
fn shrinkage_is_scikit_learns() {
    let shrunk = ledoit_wolf(&with_factor(40)).unwrap();
    assert!((shrunk.shrinkage - 0.10825426422388178).abs() < 1e-12);
    #[rustfmt::skip]
    close(&shrunk.covariance, &[
        7.023070137519655e-05, 3.5565207799491186e-05, 3.6830146057454845e-05, 1.2868417900392721e-05,
        3.5565207799491186e-05, 5.854955214880931e-05, 2.8283153586694896e-05, 5.259031765071908e-06,
        3.6830146057454845e-05, 2.8283153586694896e-05, 6.885136726012396e-05, 9.868729755018158e-06,
        1.2868417900392721e-05, 5.259031765071908e-06, 9.868729755018158e-06, 3.102835963670621e-05,
    ], 1e-12);
    let shrunk = ledoit_wolf(&with_factor(10)).unwrap();
    assert!((shrunk.shrinkage - 0.8139956787743323).abs() < 1e-12);
    assert!((shrunk.covariance[(1, 0)] - 4.737847199822828e-06).abs() < 1e-17);
    // All the way where correlation is noise, and not at all for a single series.
    let whole = ledoit_wolf(&series()).unwrap();
    assert_eq!(whole.shrinkage, 1.0);
    assert!((whole.covariance[(3, 3)] - 2.9360219600918108e-05).abs() < 1e-17);
    assert_eq!(ledoit_wolf(&series()[..1]).unwrap().shrinkage, 0.0);
}

#[test]
fn shrinkage_makes_a_singular_covariance_solvable() {
    // Four series of three returns, one of them twice another.
    let mut x = with_factor(3);
    x[3] = x[0].iter().map(|x| 2.0 * x).collect();
    assert!(matches!(check(&sample(&x).unwrap()), Err(CovarianceError::Singular { .. })));
    assert_eq!(check(&ledoit_wolf(&x).unwrap().covariance), Ok(()));
}

#[test]
fn ewma_is_riskmetrics() {
    #[rustfmt::skip]
    close(&ewma(&series(), 0.94).unwrap(), &[
        2.510527128591047e-05, 1.2736047463647333e-05, -3.9459558980482494e-06, 1.402222692317567e-06,
        1.2736047463647333e-05, 4.5937765278935834e-05, 4.079002494316215e-06, 9.522952098001452e-06,
        -3.9459558980482494e-06, 4.079002494316215e-06, 2.9229755924160084e-05, 4.011598883183729e-06,
        1.402222692317567e-06, 9.522952098001452e-06, 4.011598883183729e-06, 2.8432046231248645e-05,
    ], 1e-13);
    assert_eq!(ewma(&series(), 1.0), Err(CovarianceError::Lambda { lambda: 1.0 }));
}

#[test]
fn rolling_is_the_sample_of_the_window_and_survives_a_restart() {
    let series: Vec<Vec<f64>> =
        (1..=3).map(|seed| draw(seed, 500).iter().map(|x| 50.0 + x).collect()).collect();
    let mut rolling = RollingCovariance::new(3, 20).unwrap();
    let mut saved = rolling.clone();
    for t in 0..500 {
        let row = [series[0][t], series[1][t], series[2][t]];
        rolling.push(&row).unwrap();
        // Bad rows leave no trace.
        assert!(rolling.push(&[1.0, f64::NAN, 1.0]).is_err() && rolling.push(&[1.0]).is_err());
        saved = serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap();
        saved.push(&row).unwrap();
        assert_eq!(saved, rolling);
        if t > 0 {
            let window: Vec<&[f64]> = series.iter().map(|x| &x[(t + 1).saturating_sub(20)..=t]).collect();
            close(&rolling.covariance().unwrap(), sample(&window).unwrap().as_slice(), 1e-11);
        }
    }
    assert_eq!(rolling.len(), 20);
}

#[test]
fn solving_is_numpys_and_singular_ones_are_named() {
    let mut x = series();
    let theirs = [59.376509596929985, -30.83026796353455, 88.3902869538699, 6.955677440199745];
    for (ours, theirs) in
        solve(&sample(&x).unwrap(), &[0.001, -0.0005, 0.002, 0.0003]).unwrap().iter().zip(theirs)
    {
        assert!((ours - theirs).abs() < 1e-10, "{ours}, not {theirs}");
    }
    x[2] = x[0].iter().zip(&x[1]).map(|(a, b)| 3.0 * a - b).collect();
    let error = solve(&sample(&x).unwrap(), &[1.0; 4]).unwrap_err();
    assert_eq!(error, CovarianceError::Singular { index: 2 });
    assert!(error.to_string().contains("series 2 is a linear combination"));
    x[1] = vec![0.1; 40];
    let error = solve(&sample(&x).unwrap(), &[1.0; 4]).unwrap_err();
    assert_eq!(error, CovarianceError::NoVariance { index: 1, variance: 0.0 });
    let size = solve(&DMatrix::identity(2, 2), &[1.0]).unwrap_err();
    assert_eq!(size, CovarianceError::Size { what: "vector", have: 1, need: 2 });
    // Units don't make a matrix singular: one series in millionths beside one in millions.
    let units = DMatrix::from_row_slice(2, 2, &[1e-12, 0.3, 0.3, 1e12]);
    assert_eq!(check(&units), Ok(()));
}

#[test]
fn what_is_no_covariance_is_repaired() {
    let broken = DMatrix::from_row_slice(3, 3, &[1.0, 0.9, -0.9, 0.9, 1.0, 0.9, -0.9, 0.9, 1.0]);
    assert_eq!(check(&broken), Err(CovarianceError::Indefinite { index: 2 }));
    assert_eq!(is_psd(&broken), Ok(false));
    let nearest = nearest_psd(&broken, 0.0).unwrap();
    let (big, small) = (1.2666666666666666, 0.6333333333333333);
    close(&nearest, &[big, small, -small, small, big, small, -small, small, big], 1e-12);
    assert_eq!(is_psd(&nearest), Ok(true));
    assert_eq!(check(&nearest_psd(&broken, 1e-6).unwrap()), Ok(()));
    let fine = sample(&series()).unwrap();
    assert_eq!(nearest_psd(&fine, 0.0).unwrap(), fine);
}

#[test]
fn bad_series_are_named() {
    let none: [&[f64]; 0] = [];
    assert_eq!(sample(&none), Err(CovarianceError::NoSeries));
    assert_eq!(sample(&[[0.1]]), Err(CovarianceError::TooFew { have: 1, need: 2 }));
    let uneven: [&[f64]; 2] = [&[0.1, 0.2], &[0.1]];
    assert_eq!(sample(&uneven), Err(CovarianceError::Uneven { series: 1, have: 1, first: 2 }));
    assert_eq!(ledoit_wolf(&[[0.1, f64::NAN]]), Err(CovarianceError::NotFinite { series: 0, row: 1 }));
    let lopsided = DMatrix::from_row_slice(2, 2, &[1.0, 0.5, 0.4, 1.0]);
    assert_eq!(check(&lopsided), Err(CovarianceError::Asymmetric { row: 1, column: 0 }));
    assert!(check(&DMatrix::zeros(0, 0)).is_err() && check(&DMatrix::zeros(2, 3)).is_err());
}
