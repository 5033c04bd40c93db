//! Value at risk and correlation, against slow recounts.

use super::*;
use crate::history::{HistoryParams, Returns};

/// Returns of three instruments, as the seeds have it; the second follows the first, the third turns against it.
fn returns() -> [Vec<f64>; 3] {
    let mut seed = 42u64;
    let mut random = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let rows: Vec<[f64; 3]> = (0..60)
        .map(|_| {
            let (common, one, two) = (random(), random(), random());
            [0.04 * common, 0.03 * common + 0.01 * one, -0.02 * common + 0.03 * two]
        })
        .collect();
    [0, 1, 2].map(|i| rows.iter().map(|row| row[i]).collect())
}

/// A history in which each instrument had just these returns; `late` samples of the third are from before its first price.
fn history(returns: &[Vec<f64>; 3], late: usize, kind: Returns) -> History {
    let params =
        HistoryParams { every: "1s".parse().unwrap(), window: 50, returns: kind, ..Default::default() };
    let mut history = History::new(&params, 3).unwrap();
    let mut price = [100.0; 3];
    for n in 0..=returns[0].len() {
        for i in 0..3 {
            if n > 0 {
                price[i] *= 1.0 + returns[i][n - 1];
            }
            if i < 2 || n >= late {
                history.observe(n as i64 * 1_000_000_000, i as u32, price[i]);
            }
        }
    }
    history.advance(i64::MAX / 2);
    history
}

/// As `numpy.percentile` has it.
fn percentile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = part * (values.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    values[below] * (above as f64 - place)
        + values[above] * (place - below as f64)
        + if below == above { values[below] } else { 0.0 }
}

/// What a book of these values would have lost at `level` in the last 50 samples.
fn naive(returns: &[Vec<f64>; 3], values: [f64; 3], level: f64, parametric: bool) -> f64 {
    let profits: Vec<f64> = (10..60).map(|n| (0..3).map(|i| values[i] * returns[i][n]).sum()).collect();
    if !parametric {
        return -percentile(profits, 1.0 - level);
    }
    let mean = profits.iter().sum::<f64>() / 50.0;
    let deviation = (profits.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / 49.0).sqrt();
    // The standard normal's quantile at 5 %: scipy.stats.norm.ppf(0.05).
    -(mean - 1.6448536269514722 * deviation)
}

/// The largest order that passes, by units.
fn largest(rules: &str, book: &Book, order: impl Fn(&str) -> OrderIntent) -> u32 {
    let mut gate = gate(rules);
    (1..2000).take_while(|n| gate.check(0, &order(&n.to_string()), book).is_ok()).last().unwrap_or(0)
}

#[test]
fn value_at_risk_stops_where_a_recount_says() {
    let returns = returns();
    let mut book = Book::new(3);
    book.position = vec![d("100"), d("-40"), d("0")];
    book.history = Some(history(&returns, 0, Returns::Simple));
    for (method, parametric) in [("historical", false), ("parametric", true)] {
        let rules = format!(r#"{{"var": {{"level": 0.95, "amount": 500, "method": "{method}"}}}}"#);
        let by_hand =
            |n: u32| naive(&returns, [10_000.0 + 100.0 * f64::from(n), -4_000.0, 0.0], 0.95, parametric);
        let expected = (1..2000).take_while(|n| by_hand(*n) <= 500.0).last().unwrap();
        assert!((10..1900).contains(&expected));
        assert_eq!(largest(&rules, &book, |n| buy(0, n)), expected, "{method}");
        // 0.5 % of 100000 is as much.
        let rules = format!(r#"{{"var": {{"level": 0.95, "fraction": 0.005, "method": "{method}"}}}}"#);
        assert_eq!(largest(&rules, &book, |n| buy(0, n)), expected, "{method}");
        // Four samples ahead: twice as much, but for the mean, which is four times.
        if !parametric {
            let rules = r#"{"var": {"level": 0.95, "amount": 1000, "horizon": "4s"}}"#;
            assert_eq!(largest(rules, &book, |n| buy(0, n)), expected);
        }
    }
}

#[test]
fn log_returns_make_the_same_value_at_risk() {
    let mut book = Book::new(3);
    book.position = vec![d("100"), d("-40"), d("0")];
    let rules = r#"{"var": {"level": 0.99, "amount": 400}}"#;
    let found = [Returns::Simple, Returns::Log].map(|kind| {
        book.history = Some(history(&returns(), 0, kind));
        largest(rules, &book, |n| buy(0, n))
    });
    assert!(found[0] > 0);
    assert_eq!(found[0], found[1]);
}

#[test]
fn working_orders_count_and_hedges_pass() {
    let returns = returns();
    let mut book = Book::new(3);
    book.history = Some(history(&returns, 0, Returns::Simple));
    let rules = r#"{"var": {"level": 0.95, "amount": 500}}"#;
    let alone = largest(rules, &book, |n| buy(0, n));
    book.working[0].buys = Decimal::from(alone);
    assert_eq!(largest(rules, &book, |n| buy(0, n)), 0);
    let refusal = gate(rules).check(0, &buy(0, "5"), &book).unwrap_err();
    assert_eq!(refusal.rule, "var.amount");
    assert!(
        refusal.detail.ends_with(" USD with all working orders filled, the limit is 500 USD"),
        "{refusal}"
    );
    // A book far beyond the limit: what follows it is refused, what turns against it passes.
    book.working[0].buys = Decimal::ZERO;
    book.position[0] = d("1000");
    assert_eq!(verdict(&mut gate(rules), &book, buy(1, "10")), "var.amount");
    assert_eq!(verdict(&mut gate(rules), &book, sell(1, "10")), "");
}

#[test]
fn too_little_history_is_told() {
    let mut book = Book::new(3);
    let rules = r#"{"var": {"level": 0.95, "amount": 500}}"#;
    let detail = |rules: &str, book: &Book| gate(rules).check(0, &buy(2, "1"), book).unwrap_err().detail;
    assert_eq!(detail(rules, &book), "no history of returns is kept");
    book.history = Some(history(&returns(), 40, Returns::Simple));
    let said = "value at risk is not known yet: 20 of 30 samples that all symbols of the book have";
    assert_eq!(detail(rules, &book), said);
    book.position[0] = d("10");
    let said = "correlation of ES with the other positions is not known yet: 20 of 30 samples";
    assert_eq!(detail(r#"{"correlation": {"max": 0.5}}"#, &book), said);
    // The first has more: it is not held back by one that is not in the book.
    assert_eq!(verdict(&mut gate(rules), &book, buy(0, "1")), "");
}

#[test]
fn correlation_with_what_is_held() {
    let returns = returns();
    let mut book = Book::new(3);
    book.history = Some(history(&returns, 0, Returns::Simple));
    let pearson = |a: &[f64], b: &[f64]| {
        let n = a.len() as f64;
        let (sa, sb) = (a.iter().sum::<f64>(), b.iter().sum::<f64>());
        let ab: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        let (aa, bb) = (a.iter().map(|a| a * a).sum::<f64>(), b.iter().map(|b| b * b).sum::<f64>());
        (n * ab - sa * sb) / ((n * aa - sa * sa) * (n * bb - sb * sb)).sqrt()
    };
    let rule = |max: f64, with: &str| format!(r#"{{"correlation": {{"max": {max}, "with": "{with}"}}}}"#);
    // Nothing held: nothing to be like.
    assert_eq!(verdict(&mut gate(&rule(-0.9, "portfolio")), &book, buy(1, "1")), "");
    book.position = vec![d("10"), d("0"), d("1")];
    let portfolio: Vec<f64> = (10..60).map(|n| 1000.0 * returns[0][n] + 5000.0 * returns[2][n]).collect();
    let with_all = pearson(&returns[1][10..], &portfolio);
    let with_first = pearson(&returns[1][10..], &returns[0][10..]);
    assert!(with_first > 0.9 && with_all < with_first);
    for (value, with) in [(with_all, "portfolio"), (with_first, "positions")] {
        assert_eq!(verdict(&mut gate(&rule(value + 1e-9, with)), &book, buy(1, "1")), "");
        assert_eq!(verdict(&mut gate(&rule(value - 1e-9, with)), &book, buy(1, "1")), "correlation.max");
        // Sold, it is the other way round.
        let sold = verdict(&mut gate(&rule(-with_all + 1e-9, "portfolio")), &book, sell(1, "1"));
        assert_eq!(sold, "");
    }
    let refusal = gate(&rule(0.5, "positions")).check(0, &buy(1, "1"), &book).unwrap_err();
    assert_eq!(refusal.detail, format!("correlation of AIG with BAC is {with_first:.4}, the limit is 0.5"));
}
