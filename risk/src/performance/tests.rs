//! Against empyrical and scipy (performance.json), scipy 1.17, the papers' own examples, and figures worked by hand.
use proptest::prelude::*;

use super::trades::trades;
use super::*;
use crate::oracle::{draw, reference};

fn near(ours: Option<f64>, theirs: f64, tolerance: f64) {
    let ours = ours.expect("a figure");
    assert!((ours - theirs).abs() <= tolerance, "{ours}, not {theirs}");
}

#[test]
fn figures_are_those_of_empyrical_to_1e_9() {
    let Some(text) = reference("performance.json") else { return };
    let oracle: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for (name, series) in oracle["series"].as_object().unwrap() {
        let r: Vec<f64> = series["returns"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        for (figure, theirs) in series["expected"].as_object().unwrap() {
            let ours = match figure.as_str() {
                "sharpe_252" => sharpe(&r, 252.0),
                "sortino_252" => sortino(&r, 252.0),
                "calmar" => calmar(&r, 252.0),
                "max_drawdown" => max_drawdown(&r),
                "annual_volatility" => annual_volatility(&r, 252.0),
                "annual_return" => annual_return(&r, 252.0),
                "omega_0" => omega(&r, 0.0),
                "tail_ratio" => tail_ratio(&r),
                "var_hist_95" => historical_var(&r, 0.95),
                "cvar_hist_95" => historical_cvar(&r, 0.95),
                "var_hist_99" => historical_var(&r, 0.99),
                "cvar_hist_99" => historical_cvar(&r, 0.99),
                "var_normal_95" => normal_var(&r, 0.95),
                "cvar_normal_95" => normal_cvar(&r, 0.95),
                "skew" => sample_skewness(&r),
                "excess_kurtosis" => sample_excess_kurtosis(&r),
                "var_cornish_fisher_95" => cornish_fisher_var(&r, 0.95),
                "ewma_vol_094_last" => ewma_volatility(&r, 0.94),
                other => panic!("{name} has a figure nobody computes: {other}"),
            };
            let (ours, theirs) = (ours.expect(figure), theirs.as_f64().unwrap());
            assert!((ours - theirs).abs() < 1e-12, "{name} {figure}: {ours}, not {theirs}");
            compared += 1;
        }
    }
    assert_eq!(compared, 54);
}

/// scipy 1.17 on the same drawn numbers: `linregress`, `pearsonr`, `skew`, `kurtosis`.
#[test]
fn figures_beside_a_benchmark_are_scipys() {
    let benchmark: Vec<f64> = draw(8, 60).iter().map(|x| x * 0.02).collect();
    let r: Vec<f64> = draw(7, 60).iter().zip(&benchmark).map(|(x, b)| x * 0.02 + 0.001 + 0.6 * b).collect();
    near(beta(&r, &benchmark), 0.6267253479871571, 1e-12);
    near(alpha(&r, &benchmark, 252.0), 0.21422047985125547, 1e-12);
    near(correlation(&r, &benchmark), 0.5213566034605801, 1e-12);
    near(tracking_error(&r, &benchmark, 252.0), 0.10015867898145585, 1e-12);
    near(information_ratio(&r, &benchmark, 252.0), 3.539283779221555, 1e-12);
    near(skewness(&r), -0.08888153089271734, 1e-12);
    near(kurtosis(&r), 2.1305706958427018, 1e-12);
    let sample = SharpeSample::of(&r).unwrap();
    near(probabilistic_sharpe(&sample, 0.05), 0.31642916479405647, 1e-12);
    assert_eq!(beta(&r, &benchmark[1..]), None);
    assert_eq!(beta(&r, &[0.01; 60]), None);
}

/// The examples in the papers of Bailey and Lopez de Prado, to the digits they print.
#[test]
fn a_sharpe_ratio_proves_what_the_papers_say() {
    // 2014, "A numerical example": SR 2.5 a year over 1250 days, skewness -3, kurtosis 10, the trials' variance 1/2 a year.
    let best = SharpeSample { sharpe: 2.5 / 250_f64.sqrt(), periods: 1250, skewness: -3.0, kurtosis: 10.0 };
    near(expected_max_sharpe(100, 0.5 / 250.0), 0.1132, 5e-5);
    near(deflated_sharpe(&best, 100, 0.5 / 250.0), 0.9004, 5e-5);
    near(deflated_sharpe(&best, 46, 0.5 / 250.0), 0.9505, 5e-5);
    // 2012: 24 months of a hedge fund, SR 0.458 a month.
    let fund = SharpeSample { sharpe: 0.458, periods: 24, skewness: -2.448, kurtosis: 10.164 };
    near(probabilistic_sharpe(&fund, 0.0), 0.913, 5e-4);
    near(probabilistic_sharpe(&SharpeSample { skewness: 0.0, kurtosis: 3.0, ..fund }, 0.0), 0.982, 5e-4);
    // 2012: years until SR 2 is above 1 with 95 %, of days, weeks and months; and of a skewed, fat-tailed fund.
    let years = |per_year: f64, skewness, kurtosis| {
        let sample = SharpeSample { sharpe: 2.0 / per_year.sqrt(), periods: 0, skewness, kurtosis };
        min_track_record(&sample, 1.0 / per_year.sqrt(), 0.95).map(|periods| periods / per_year)
    };
    near(years(250.0, 0.0, 3.0), 2.73, 5e-3);
    near(years(52.0, 0.0, 3.0), 2.83, 5e-3);
    near(years(12.0, 0.0, 3.0), 3.24, 5e-3);
    near(years(12.0, -0.72, 5.78), 4.99, 5e-3);
    // One trial deflates nothing; an SR below the target never proves itself.
    assert_eq!(deflated_sharpe(&fund, 1, 0.1), probabilistic_sharpe(&fund, 0.0));
    assert_eq!(min_track_record(&fund, 0.5, 0.95), None);
    assert_eq!(expected_max_sharpe(0, 0.1), None);
}

#[test]
fn a_drawdown_has_a_depth_and_a_length() {
    // Peak 120 at t=1, deepest 90 at t=3, back at 120 at t=5 (4 periods); then a new peak, and a fall that doesn't end.
    let equity = [100.0, 120.0, 100.0, 90.0, 110.0, 120.0, 130.0, 129.0];
    let mut stream = Drawdown::new();
    assert_eq!(stream.current(), None);
    let path: Vec<f64> = (0_i64..).zip(equity).map(|(t, x)| stream.observe(t * 10, x).unwrap()).collect();
    assert_eq!(path[..4], [0.0, 0.0, 100.0 / 120.0 - 1.0, -0.25]);
    assert_eq!((stream.deepest(), stream.deepest_amount()), (-0.25, -30.0));
    assert_eq!((stream.longest_periods(), stream.longest_ns()), (4, 40));
    assert_eq!(stream.peak().map(|peak| (peak.ts, peak.equity)), Some((60, 130.0)));
    // A gap in the data is no observation; the open spell counts as long as it has lasted.
    assert_eq!(stream.observe(75, f64::NAN), stream.current());
    stream.observe(200, 1.0);
    assert_eq!((stream.longest_periods(), stream.longest_ns()), (4, 140));
    assert_eq!(max_drawdown_periods(&[0.2, -0.1, -0.1, 0.5]), Some(3));
    assert_eq!(max_drawdown_periods(&[0.1, 0.1]), Some(0));
}

#[test]
fn trades_are_counted_by_hand() {
    let all = trades(&[10.0, -5.0, 0.0, 20.0, 30.0, -15.0, -5.0]).unwrap();
    assert_eq!((all.count, all.won, all.lost, all.longest_wins, all.longest_losses), (7, 3, 3, 2, 2));
    assert_eq!((all.net, all.gains, all.losses), (35.0, 60.0, 25.0));
    assert_eq!((all.win_rate, all.profit_factor, all.expectancy), (Some(3.0 / 7.0), Some(2.4), Some(5.0)));
    assert_eq!((all.mean_gain, all.mean_loss, all.payoff_ratio), (Some(20.0), Some(25.0 / 3.0), Some(2.4)));
    assert_eq!((all.best, all.worst), (Some(30.0), Some(-15.0)));
    assert_eq!(trades(&[]), Some(Trades::default()));
    assert_eq!(trades(&[1.0]).unwrap().profit_factor, None);
    assert_eq!(trades(&[f64::NAN]), None);
    assert_eq!(time_in_market(&[0.0, 5.0, -5.0, 0.0]), Some(0.5));
    assert_eq!(mean_exposure(&[50.0, -100.0], &[100.0, 100.0]), Some(0.75));
    assert_eq!(annual_turnover(4_000.0, 1_000.0, 0.5), Some(4.0));
}

#[test]
fn months_are_those_of_the_calendar() {
    const DAY: i64 = 86_400_000_000_000;
    assert_eq!(year_month(0), (1970, 1));
    assert_eq!(year_month(-1), (1969, 12));
    assert_eq!(year_month(1_709_164_800_000_000_000), (2024, 2)); // 2024-02-29
    assert_eq!(year_month(1_709_251_200_000_000_000), (2024, 3)); // 2024-03-01
    assert_eq!(year_month(951_782_400_000_000_000), (2000, 2)); // 2000-02-29
    // Every day from 1900 to 2150, against counting.
    let (mut year, mut month, mut left) = (1900, 1_u8, 31);
    for day in -25_567_i64..65_744 {
        assert_eq!(year_month(day * DAY + DAY - 1), (year, month));
        left -= 1;
        if left == 0 {
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            left = match month {
                2 => 28 + i32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
        }
    }
    let points = [(0, 100.0), (20 * DAY, 110.0), (31 * DAY, 99.0), (40 * DAY, f64::NAN), (100 * DAY, 198.0)];
    let rows: Vec<(u8, f64)> = monthly_returns(points).iter().map(|row| (row.month, row.value)).collect();
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<u8>>(), [1, 2, 4]);
    for ((_, value), hand) in rows.iter().zip([0.1, -0.1, 1.0]) {
        near(Some(*value), hand, 1e-12);
    }
}

#[test]
fn without_an_answer_there_is_none() {
    // 0.1 has no exact mean in binary: its deviation must be zero all the same.
    for bad in [&[][..], &[0.1; 7], &[f64::NAN, 0.1], &[0.1, f64::INFINITY]] {
        assert_eq!(sharpe(bad, 252.0), None);
        assert_eq!(SharpeSample::of(bad), None);
        assert_eq!(normal_var(bad, 0.95), None);
        assert_eq!(cornish_fisher_var(bad, 0.95), None);
        assert_eq!((sortino(bad, 252.0), calmar(bad, 252.0), omega(bad, 0.0)), (None, None, None));
    }
    assert_eq!(summary(&[], 252.0), Summary::default());
    assert_eq!(annual_volatility(&[0.1; 7], 252.0), Some(0.0));
    assert_eq!(annual_return(&[-1.5], 252.0), None);
    assert_eq!(annual_return(&[-1.0, 0.5], 252.0), Some(-1.0));
    assert_eq!(sharpe(&[0.1, 0.2], 0.0), None);
    assert_eq!(historical_var(&[0.1], 1.0), None);
    assert_eq!(tail_ratio(&[0.0, 0.0]), None);
    assert_eq!(returns_of(&[100.0, 0.0, 50.0]), None);
    assert_eq!(returns_of(&[100.0, 150.0, 75.0]), Some(vec![0.5, -0.5]));
    // Numbers too large to add up are no figure either.
    assert_eq!(mean(&[f64::MAX, f64::MAX, 1.0]), None);
    assert_eq!(rolling_sharpe(&[0.1, 0.2, 0.2, 0.2], 3, 1.0).len(), 2);
    assert_eq!(rolling_sharpe(&[0.1, 0.2, 0.2, 0.2], 3, 1.0)[1], None);
}

#[test]
fn a_whole_position_is_not_missed_by_rounding() {
    // (101 - 1) * (1 - 0.9) is 9.999…98: the tenth, not between the ninth and the tenth; the shortfall is of eleven.
    let values: Vec<f64> = (0..101).map(f64::from).collect();
    assert_eq!(historical_var(&values, 0.9), Some(10.0));
    assert_eq!(historical_cvar(&values, 0.9), Some(5.0));
}

proptest! {
    #[test]
    fn no_figure_is_ever_nan(values in prop::collection::vec(any::<f64>(), 0..20), per_year in any::<f64>()) {
        let all = summary(&values, per_year);
        let figures = [
            all.total_return, all.annual_return, all.annual_volatility, all.sharpe, all.sortino, all.calmar, all.omega,
            all.max_drawdown, all.tail_ratio, all.skewness, all.excess_kurtosis, all.var_95, all.cvar_95, all.best, all.worst,
            all.positive, all.probabilistic_sharpe, normal_var(&values, 0.95), cornish_fisher_var(&values, 0.99),
            ewma_volatility(&values, 0.94), beta(&values, &values), information_ratio(&values, &values, per_year),
        ];
        prop_assert!(figures.iter().flatten().all(|x| x.is_finite()), "{:?}", all);
    }

    #[test]
    fn a_quantile_is_that_of_the_sorted_numbers(mut values in prop::collection::vec(-1e3..1e3_f64, 1..50), p in 0.0..=1.0_f64) {
        let ours = quantile(&values, p).unwrap();
        values.sort_by(f64::total_cmp);
        let at = p * (values.len() - 1) as f64;
        let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
        prop_assert!((ours - (low + (high - low) * at.fract())).abs() < 1e-5);
    }

    #[test]
    fn a_streamed_drawdown_is_the_slow_one_and_survives_a_restart(
        equity in prop::collection::vec(1.0..100.0_f64, 1..60), cut in 0_usize..60
    ) {
        let mut stream = Drawdown::new();
        for (t, x) in equity.iter().enumerate() {
            if t == cut {
                stream = serde_json::from_str(&serde_json::to_string(&stream).unwrap()).unwrap();
            }
            stream.observe(t as i64, *x);
        }
        let (mut deepest, mut longest) = (0.0_f64, 0);
        for (i, peak) in equity.iter().enumerate() {
            let spell: Vec<f64> = equity[i + 1..].iter().copied().take_while(|x| x < peak).collect();
            deepest = spell.iter().fold(deepest, |d, x| d.min(x / peak - 1.0));
            let ends = i + 1 + spell.len() < equity.len();
            let highest = equity[..i].iter().all(|x| x <= peak);
            if highest && !spell.is_empty() {
                longest = longest.max(spell.len() + usize::from(ends));
            }
        }
        prop_assert_eq!(stream.deepest(), deepest);
        prop_assert_eq!(stream.longest_periods(), longest as u64);
    }
}
