use super::*;

const S: i64 = 1_000_000_000;

fn params(window: usize) -> HistoryParams {
    let every = "10s".parse().unwrap();
    HistoryParams { every, window, periods_per_year: Some(100.0), min_samples: 2, ..Default::default() }
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (found, expected) in found.iter().zip(expected) {
        let same = (found - expected).abs() < 1e-12 || (found.is_nan() && expected.is_nan());
        assert!(same, "{found} is not {expected}");
    }
}

#[test]
fn a_point_has_the_last_price_at_or_before_it() {
    let mut history = History::new(&params(5), 2).unwrap();
    history.observe(3 * S, 0, 100.0);
    history.observe(10 * S, 0, 110.0); // At the point: it belongs to it.
    history.observe(10 * S + 1, 0, 50.0); // After it.
    close(history.returns(0), &[]);
    history.observe(12 * S, 1, 7.0);
    history.observe(19 * S, 0, 121.0);
    close(history.returns(0), &[]);
    history.advance(20 * S);
    close(history.returns(0), &[]); // More may come at 20 s.
    history.advance(20 * S + 1);
    close(history.returns(0), &[0.1]);
    close(history.returns(1), &[f64::NAN]); // Its first price has no return.
    history.observe(25 * S, 1, 14.0);
    history.advance(31 * S);
    close(history.returns(0), &[0.1, 0.0]); // Carried forward.
    close(history.returns(1), &[f64::NAN, 1.0]);
}

#[test]
fn points_in_which_nothing_was_seen_are_left_out() {
    let mut history = History::new(&params(5), 2).unwrap();
    history.observe(5 * S, 0, 100.0);
    history.observe(15 * S, 0, 110.0);
    history.observe(9_999 * S, 0, 99.0);
    history.observe(10_011 * S, 0, 1.0);
    close(history.returns(0), &[0.1, -0.1]);
}

#[test]
fn what_is_no_price_is_passed_over() {
    let mut history = History::new(&params(5), 1).unwrap();
    for price in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        history.observe(S, 0, price);
    }
    history.observe(S, 7, 5.0); // No such instrument.
    history.advance(100 * S);
    close(history.returns(0), &[]);
    assert_eq!(history.volatility(0), None);
}

#[test]
fn a_split_makes_no_return() {
    let mut history = History::new(&params(5), 1).unwrap();
    history.observe(5 * S, 0, 100.0);
    history.observe(15 * S, 0, 110.0);
    history.split(0, Decimal::TWO);
    history.observe(25 * S, 0, 55.0);
    history.advance(31 * S);
    close(history.returns(0), &[0.1, 0.0]);
}

#[test]
fn volatility_is_the_deviation_a_year() {
    let mut history = History::new(&params(50), 1).unwrap();
    let mut price = 100.0;
    for (n, r) in [0.0, 0.01, -0.02, 0.03].into_iter().enumerate() {
        price *= 1.0 + r;
        history.observe(n as i64 * 10 * S, 0, price);
    }
    history.advance(99 * S);
    // numpy.std([0.01, -0.02, 0.03], ddof=1) * sqrt(100)
    close(&[history.volatility(0).unwrap()], &[0.2516611478423583]);
    // A year of all hours has 3153600 spans of ten seconds.
    let all = HistoryParams { periods_per_year: None, ..params(5) };
    assert_eq!(History::new(&all, 1).unwrap().periods_per_year(), 3_153_600.0);
    let wrong =
        HistoryParams { every: Span::from_ns(0), window: 1, periods_per_year: Some(-1.0), ..params(5) };
    assert_eq!(History::new(&wrong, 1).unwrap_err().len(), 3);
}

/// All windows are as a recount from all prices has them, through saving and restoring, with instruments that come late.
#[test]
fn windows_are_as_a_recount_has_them() {
    for kind in [Returns::Simple, Returns::Log] {
        let with = HistoryParams { returns: kind, ..params(7) };
        let mut history = History::new(&with, 2).unwrap();
        let mut seen: Vec<(i64, u32, f64)> = Vec::new();
        let (mut seed, mut now) = (1u64, 0i64);
        for n in 0..600 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let random = seed >> 33;
            now += (random % 9) as i64 * S;
            if n == 100 {
                history.add();
            }
            let instrument = if n < 20 { 0 } else { random as u32 % if n < 100 { 2 } else { 3 } };
            let price = 50.0 + (random % 1000) as f64 / 10.0;
            if n % 37 == 0 {
                let bytes = postcard::to_stdvec(history.state()).unwrap();
                let instruments = history.len();
                history = History::new(&with, instruments).unwrap();
                history.restore(postcard::from_bytes(&bytes).unwrap());
            }
            history.observe(now, instrument, price);
            seen.push((now, instrument, price));
            for i in 0..history.len() as u32 {
                close(history.returns(i), &recount(&seen, now, i, kind));
            }
        }
    }
}

fn recount(seen: &[(i64, u32, f64)], now: i64, instrument: u32, kind: Returns) -> Vec<f64> {
    // Points before now in whose ten seconds (the start left out) anything was seen.
    let points = (0..).map(|n| n * 10 * S).take_while(|point| *point < now);
    let kept = points.filter(|point| seen.iter().any(|(ts, ..)| *ts <= *point && *ts > *point - 10 * S));
    let price = |point: i64| {
        let of = seen.iter().rev().find(|(ts, i, _)| *ts <= point && *i == instrument);
        of.map_or(f64::NAN, |(.., price)| *price)
    };
    let prices: Vec<f64> = kept.map(price).collect();
    let returns = prices.windows(2).map(|pair| match kind {
        Returns::Simple => pair[1] / pair[0] - 1.0,
        Returns::Log => (pair[1] / pair[0]).ln(),
    });
    let returns: Vec<f64> = returns.collect();
    returns[returns.len().saturating_sub(7)..].to_vec()
}

#[test]
fn what_instruments_have_in_common() {
    let mut history = History::new(&params(5), 2).unwrap();
    for n in 0..5 {
        history.observe(n * 10 * S, 0, 100.0 + n as f64);
        if n >= 2 {
            history.observe(n * 10 * S, 1, 7.0);
        }
    }
    history.advance(99 * S);
    let common = history.common(&[0, 1]);
    close(common[0], &[103.0 / 102.0 - 1.0, 104.0 / 103.0 - 1.0]);
    close(common[1], &[0.0, 0.0]);
    assert_eq!(history.common(&[0])[0].len(), 4);
}
