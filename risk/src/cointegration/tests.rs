//! Against statsmodels 0.15 (`coint`, `adfuller`, `OLS`) on drawn numbers.
use super::*;
use crate::oracle::draw;

fn walk(seed: u64, n: usize, start: f64) -> Vec<f64> {
    let sum = |at: &mut f64, x: f64| {
        *at += x;
        Some(start + *at)
    };
    draw(seed, n).into_iter().scan(0.0, sum).collect()
}

/// A random walk, an autoregression of 0.8, and a walk bound to the first by the second.
fn pair() -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let x = walk(11, 300, 50.0);
    let mut e = vec![0.0; 300];
    let u = draw(12, 300);
    (1..300).for_each(|t| e[t] = 0.8 * e[t - 1] + u[t]);
    let y = x.iter().zip(&e).map(|(x, e)| 3.0 + 1.7 * x + e).collect();
    (y, x, e)
}

fn near(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= 1e-9 * theirs.abs().max(1e-3), "{ours}, not {theirs}");
}

#[test]
fn engle_granger_is_statsmodels() {
    let (y, x, _) = pair();
    for (lags, statistic, p_value, used) in [
        (Lags::Fixed(0), -6.143343871974294, 7.915081191644504e-07, 0),
        (Lags::Fixed(1), -5.368012303793706, 3.2798423416423844e-05, 1),
        (Lags::Akaike(5), -6.143343871974294, 7.915081191644504e-07, 0),
        (Lags::Auto, -5.368012303793706, 3.2798423416423844e-05, 1),
    ] {
        let test = engle_granger(&y, &x, lags).unwrap();
        near(test.statistic, statistic);
        near(test.p_value, p_value);
        assert_eq!(test.lags, used, "{lags:?}");
        near(test.line.alpha, 3.499941171513804);
        near(test.line.beta, 1.6890183478372234);
        near(test.line.r_squared, 0.9814865255375405);
        near(test.critical.one, -3.933443446270176);
        near(test.critical.five, -3.35664143611369);
        near(test.critical.ten, -3.0586650401002227);
    }
    // Two walks of their own are not bound.
    let apart = engle_granger(&walk(22, 200, 0.0), &walk(21, 200, 0.0), Lags::Auto).unwrap();
    near(apart.statistic, -2.568779694940252);
    near(apart.p_value, 0.24960552967809763);
}

#[test]
fn dickey_fuller_is_statsmodels() {
    let (_, x, e) = pair();
    let (none, constant) = (Constant::None, Constant::Constant);
    for (series, with, lags, statistic, p_value, used, rows) in [
        (&x, none, Lags::Fixed(0), -1.4715109981098653, 0.13206745211935772, 0, 299),
        (&x, none, Lags::Fixed(3), -1.4359138414988284, 0.14096981748316717, 3, 296),
        (&x, none, Lags::Auto, -1.538022867360155, 0.11653361461648343, 1, 298),
        (&x, constant, Lags::Fixed(0), -1.552829978894134, 0.5072342805260274, 0, 299),
        (&x, constant, Lags::Fixed(3), -1.2795775241215788, 0.6384630650967038, 3, 296),
        (&x, constant, Lags::Auto, -1.4621832124526872, 0.5521289887336933, 1, 298),
        (&e, none, Lags::Fixed(0), -6.131573189203905, 4.917923072227896e-09, 0, 299),
        (&e, none, Lags::Fixed(3), -5.055385287357514, 8.229293800044608e-07, 3, 296),
        (&e, constant, Lags::Fixed(3), -5.049506637733692, 1.7694908867299096e-05, 3, 296),
        (&e, constant, Lags::Auto, -5.344219714292318, 4.431522525941711e-06, 1, 298),
    ] {
        let test = adf(series, with, lags).unwrap();
        near(test.statistic, statistic);
        near(test.p_value, p_value);
        assert_eq!((test.lags, test.rows), (used, rows));
    }
    near(critical_values(none, 1, 299).five, -1.9419347991101983);
    near(critical_values(constant, 1, 296).one, -3.452636878592149);
}

#[test]
fn half_life_is_that_of_an_autoregression() {
    // Without noise: 0.9^t around 10 halves in ln 0.5 / ln 0.9 periods.
    let decay: Vec<f64> = (0..50).map(|t| 10.0 + 0.9_f64.powi(t)).collect();
    near(half_life(&decay).unwrap(), 0.5_f64.ln() / 0.9_f64.ln());
    // numpy.polyfit of the changes on the levels, drawn with 0.8.
    let (_, _, e) = pair();
    near(half_life(&e).unwrap(), 2.7283621793836965);
    let away: Vec<f64> = (0..50).map(|t| 1.1_f64.powi(t)).collect();
    assert_eq!(half_life(&away), None);
    assert_eq!(half_life(&[1.0; 10]), None);
    assert_eq!(half_life(&[1.0, f64::NAN, 1.0, 2.0]), None);
}

#[test]
fn what_cannot_be_tested_is_named() {
    let (y, x, _) = pair();
    assert_eq!(hedge_ratio(&y, &x[1..]), Err(CointegrationError::Uneven { left: 300, right: 299 }));
    assert_eq!(hedge_ratio(&y, &[1.0; 300]), Err(CointegrationError::Constant));
    assert_eq!(hedge_ratio(&[1.0], &[1.0]), Err(CointegrationError::TooFew { have: 1, need: 3 }));
    let line: Vec<f64> = x.iter().map(|x| 2.0 * x + 1.0).collect();
    assert_eq!(engle_granger(&line, &x, Lags::Auto), Err(CointegrationError::Degenerate));
    assert_eq!(adf(&[1.0; 50], Constant::None, Lags::Fixed(0)), Err(CointegrationError::Constant));
    assert!(matches!(
        adf(&x[..10], Constant::Constant, Lags::Fixed(8)),
        Err(CointegrationError::TooFew { .. })
    ));
    assert!(matches!(
        adf(&x, Constant::None, Lags::Fixed(usize::MAX)),
        Err(CointegrationError::TooFew { .. })
    ));
    let straight: Vec<f64> = (0..50).map(f64::from).collect();
    assert_eq!(adf(&straight, Constant::Constant, Lags::Fixed(1)), Err(CointegrationError::Degenerate));
    assert_eq!(
        adf(&[1.0, f64::NAN, 2.0, 3.0], Constant::None, Lags::Auto),
        Err(CointegrationError::NotFinite { row: 1 })
    );
}
