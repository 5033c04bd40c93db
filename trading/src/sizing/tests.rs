use super::*;
use crate::gate::Working;
use crate::history::HistoryParams;
use crate::signal::OrderWish;

struct Account {
    equity: f64,
    rate: Option<Decimal>,
    position: Decimal,
}

impl View for Account {
    fn equity(&self) -> f64 {
        self.equity
    }
    fn currency(&self) -> &str {
        "USD"
    }
    fn position(&self, _: InstrumentId) -> Decimal {
        self.position
    }
    fn working(&self, _: InstrumentId) -> Working {
        Working::default()
    }
    fn price(&self, _: InstrumentId) -> f64 {
        f64::NAN
    }
    fn rate(&self, _: InstrumentId) -> Option<Decimal> {
        self.rate
    }
    fn history(&self) -> Option<&History> {
        None
    }
}

fn account() -> Account {
    Account { equity: 100_000.0, rate: Some(Decimal::ONE), position: Decimal::from(7) }
}

fn d(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

fn instruments() -> Arc<[Instrument]> {
    let of = |text: &str| serde_json::from_str(text).unwrap();
    [
        of(r#"{"symbol": "SPY"}"#),
        of(r#"{"symbol": "BTC", "lot": 0.001}"#),
        of(r#"{"symbol": "ES", "class": "future", "multiplier": 50}"#),
    ]
    .into()
}

fn signal(instrument: InstrumentId, want: Want) -> Signal {
    Signal {
        ts: 0,
        src: 0,
        seq: 0,
        instrument,
        want,
        strength: 1.0,
        order: OrderWish::default(),
        atr: None,
        volatility: None,
        expected: None,
        stop_loss: None,
        take_profit: None,
    }
}

fn sizing(rule: &str) -> Sizing {
    Sizing::new(Some(&serde_json::from_str(rule).unwrap()), instruments()).unwrap()
}

fn empty() -> History {
    History::new(&HistoryParams::default(), 3).unwrap()
}

/// Returns of 60 samples; a sample is a year / 252.
fn returns() -> [Vec<f64>; 3] {
    let mut seed = 5u64;
    let mut random = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let mut all = [vec![], vec![], vec![]];
    for _ in 0..60 {
        let (common, one, two) = (random(), random(), random());
        all[0].push(0.04 * common);
        all[1].push(0.03 * common + 0.02 * one);
        all[2].push(-0.01 * common + 0.03 * two);
    }
    all
}

fn history(returns: &[Vec<f64>; 3]) -> History {
    let params = HistoryParams { periods_per_year: Some(252.0), window: 60, ..Default::default() };
    let mut history = History::new(&params, 3).unwrap();
    let mut price = [100.0; 3];
    for n in 0..=60 {
        for i in 0..3 {
            if n > 0 {
                price[i] *= 1.0 + returns[i][n - 1];
            }
            history.observe(n as i64 * params.every.ns(), i as u32, price[i]);
        }
    }
    history.advance(i64::MAX / 2);
    history
}

#[track_caller]
fn check(rule: &str, signal: &Signal, price: f64, units: &str) {
    let mut sizing = sizing(rule);
    sizing.note(signal);
    assert_eq!(sizing.size(signal, price, &account(), &empty()).unwrap(), d(units), "{rule}");
}

#[test]
fn formulas_worked_by_hand() {
    let (long, short) = (signal(0, Want::Long), signal(0, Want::Short));
    check(r#"{"fixed": 100}"#, &long, 50.0, "100");
    check(r#"{"fixed": 100}"#, &short, 50.0, "-100");
    // 10000 / 169.15 = 59.1…
    check(r#"{"notional": 10000}"#, &long, 169.15, "59");
    check(r#"{"notional": 10000}"#, &short, 169.15, "-59");
    check(r#"{"notional": 10000}"#, &signal(1, Want::Long), 30_000.0, "0.333");
    // A contract at 20 is worth 1000.
    check(r#"{"notional": 10000}"#, &signal(2, Want::Long), 20.0, "10");
    // A tenth of 100000 at 40.
    check(r#"{"equity": 0.1}"#, &long, 40.0, "250");
    // 0.15 / 0.6 = a quarter.
    let volatile = Signal { volatility: Some(0.6), ..long.clone() };
    check(r#"{"volatility": {"target": 0.15}}"#, &volatile, 100.0, "250");
    let calm = Signal { volatility: Some(0.05), ..long.clone() };
    check(r#"{"volatility": {"target": 0.15}}"#, &calm, 100.0, "1000");
    check(r#"{"volatility": {"target": 0.15, "max_leverage": 2.5}}"#, &calm, 100.0, "2500");
    // One percent of 100000 is 1000, lost when the price moves 2 x 2.5: 200 units.
    let ranged = Signal { atr: Some(2.5), ..short.clone() };
    check(r#"{"atr": {"risk": 0.01}}"#, &ranged, 100.0, "-200");
    check(r#"{"atr": {"risk": 0.01, "multiple": 4}}"#, &ranged, 100.0, "-100");
    check(r#"{"atr": {"risk": 0.5}}"#, &ranged, 100.0, "-1000");
    // Of a contract: 1000 / (2 x 2.5 x 50) = 4.
    let ranged = Signal { atr: Some(2.5), ..signal(2, Want::Long) };
    check(r#"{"atr": {"risk": 0.01}}"#, &ranged, 100.0, "4");
    // 0.5 x 0.04 / 0.2^2 = a half.
    let expecting = Signal { expected: Some(0.04), volatility: Some(0.2), ..long.clone() };
    check(r#"{"kelly": {}}"#, &expecting, 100.0, "500");
    check(r#"{"kelly": {"fraction": 1, "max": 0.8}}"#, &expecting, 100.0, "800");
    // An expectation against the signal's side asks for nothing.
    check(r#"{"kelly": {}}"#, &Signal { expected: Some(-0.04), ..expecting.clone() }, 100.0, "0");
    let rising = Signal { expected: Some(0.04), volatility: Some(0.2), ..short.clone() };
    check(r#"{"kelly": {}}"#, &rising, 100.0, "0");
    let falling = Signal { expected: Some(-0.04), volatility: Some(0.2), ..short.clone() };
    check(r#"{"kelly": {}}"#, &falling, 100.0, "-500");
}

#[test]
fn strength_scales_and_lots_are_whole() {
    let weak = |strength| Signal { strength, ..signal(0, Want::Short) };
    check(r#"{"fixed": 99}"#, &weak(0.5), 1.0, "-49");
    check(r#"{"fixed": 99}"#, &weak(0.0), 1.0, "0");
    for strength in [-1.0, f64::NAN, f64::INFINITY] {
        let error = sizing(r#"{"fixed": 99}"#).size(&weak(strength), 1.0, &account(), &empty()).unwrap_err();
        assert!(matches!(error.cause, Cause::Strength(_)), "{error}");
    }
}

#[test]
fn wishes_that_bring_their_own_size() {
    let rule = r#"{"fixed": 1}"#;
    check(rule, &signal(0, Want::Flat), 0.0, "0");
    check(rule, &signal(0, Want::Target(d("-12.7"))), 0.0, "-12");
    check(rule, &signal(0, Want::Trade(d("3"))), 0.0, "10");
    check(rule, &signal(0, Want::Cancel), 0.0, "7");
    check(rule, &signal(0, Want::Weight(-0.25)), 100.0, "-250");
    let error = sizing(rule).size(&signal(0, Want::Weight(f64::NAN)), 1.0, &account(), &empty()).unwrap_err();
    assert_eq!((error.rule(), error.to_string().as_str()), ("weight", "NaN is no part of equity"));
}

#[test]
fn what_is_missing_is_named() {
    let long = signal(0, Want::Long);
    let with = |rule: &str, signal: &Signal, price: f64, account: &Account| {
        let error = sizing(rule).size(signal, price, account, &empty()).unwrap_err();
        format!("{}: {error}", error.rule())
    };
    let poor = Account { equity: 0.0, ..account() };
    let foreign = Account { rate: None, ..account() };
    for (found, expected) in [
        (
            with(r#"{"notional": 5}"#, &long, f64::NAN, &account()),
            "sizing.notional: no price of SPY is known",
        ),
        (
            with(r#"{"notional": 5}"#, &long, 1.0, &foreign),
            "sizing.notional: no rate of SPY's currency is known",
        ),
        (with(r#"{"equity": 1}"#, &long, 1.0, &poor), "sizing.equity: equity is 0, so it has no parts"),
        (with(r#"{"atr": {"risk": 0.01}}"#, &long, 1.0, &account()), "sizing.atr: the signal has no `atr`"),
        (
            with(r#"{"atr": {"risk": 0.01}}"#, &Signal { atr: Some(0.0), ..long.clone() }, 1.0, &account()),
            "sizing.atr: atr 0 of the signal is not a number above zero",
        ),
        (
            with(r#"{"kelly": {}}"#, &long, 1.0, &account()),
            "sizing.kelly: the signal has no `expected` return",
        ),
        (
            with(r#"{"volatility": {"target": 0.1}}"#, &long, 1.0, &account()),
            "sizing.volatility: the volatility of SPY is not known: the signal has none, and too few returns were sampled",
        ),
        (
            with(
                r#"{"volatility": {"target": 0.1}}"#,
                &Signal { volatility: Some(0.0), ..long.clone() },
                1.0,
                &account(),
            ),
            "sizing.volatility: the volatility of SPY is zero: its price did not move",
        ),
        (
            with(r#"{"equal_risk": {}}"#, &long, 1.0, &account()),
            "sizing.equal_risk: 0 of 20 samples that all of SPY have are too few for their covariance",
        ),
        (
            with(r#"{"notional": 70000000000000000000000000000}"#, &long, 1e-9, &account()),
            "sizing.notional: the numbers are too large to reckon with",
        ),
    ] {
        assert_eq!(found, expected);
    }
    let wrong = Sizing::new(
        Some(&serde_json::from_str(r#"{"kelly": {"fraction": 0, "max": -1}}"#).unwrap()),
        instruments(),
    );
    let paths: Vec<String> = wrong.unwrap_err().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["kelly.fraction", "kelly.max"]);
}

#[test]
fn volatility_is_measured_where_the_signal_has_none() {
    let returns = returns();
    let history = history(&returns);
    let mean = returns[0].iter().sum::<f64>() / 60.0;
    let variance = returns[0].iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 59.0 * 252.0;
    let units =
        sizing(r#"{"volatility": {"target": 0.05}}"#).size(&signal(0, Want::Long), 1.0, &account(), &history);
    let expected = (100_000.0 * 0.05 / variance.sqrt()).floor();
    assert_eq!(units.unwrap(), Decimal::from(expected as i64));
}

/// Solves by Cramer's rule, with the shrunk covariance as its authors write it (Ledoit and Wolf 2004, lemma 3.2 to 3.4), a year.
fn covariance(series: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (n, p) = (60.0, series.len());
    let mean: Vec<f64> = series.iter().map(|s| s.iter().sum::<f64>() / n).collect();
    let x = |t: usize| -> Vec<f64> { (0..p).map(|i| series[i][t] - mean[i]).collect() };
    let cell = |i: usize, j: usize| (0..60).map(|t| x(t)[i] * x(t)[j]).sum::<f64>() / n;
    let sample: Vec<Vec<f64>> = (0..p).map(|i| (0..p).map(|j| cell(i, j)).collect()).collect();
    let m = (0..p).map(|i| sample[i][i]).sum::<f64>() / p as f64;
    let target = |i: usize, j: usize| if i == j { m } else { 0.0 };
    let mut distance = 0.0;
    let mut noise = 0.0;
    for (i, j) in (0..p).flat_map(|i| (0..p).map(move |j| (i, j))) {
        let of_both = sample[i][j];
        distance += (of_both - target(i, j)).powi(2);
        noise += (0..60).map(|t| (x(t)[i] * x(t)[j] - of_both).powi(2)).sum::<f64>() / (n * n);
    }
    let shrinkage = if distance > 0.0 { (noise / distance).min(1.0) } else { 0.0 };
    let cell = |i: usize, j: usize| 252.0 * (shrinkage * target(i, j) + (1.0 - shrinkage) * sample[i][j]);
    (0..p).map(|i| (0..p).map(|j| cell(i, j)).collect()).collect()
}

fn determinant(a: &[Vec<f64>]) -> f64 {
    a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1]) - a[0][1] * (a[1][0] * a[2][2] - a[1][2] * a[2][0])
        + a[0][2] * (a[1][0] * a[2][1] - a[1][1] * a[2][0])
}

#[test]
fn joint_kelly_is_the_direct_solution() {
    let returns = returns();
    let history = history(&returns);
    let mut sizing = sizing(r#"{"kelly": {"fraction": 0.5, "max": 50, "joint": true}}"#);
    let expecting = |i, want, expected| Signal { expected: Some(expected), ..signal(i, want) };
    let signals =
        [expecting(0, Want::Long, 0.05), expecting(1, Want::Short, -0.02), expecting(2, Want::Long, 0.06)];
    signals.iter().for_each(|signal| sizing.note(signal));
    let covariance = covariance(&returns);
    let mu = [0.05, -0.02, 0.06];
    let whole = determinant(&covariance);
    for (i, signal) in signals.iter().enumerate() {
        let mut replaced = covariance.clone();
        (0..3).for_each(|row| replaced[row][i] = mu[row]);
        let weight = 0.5 * determinant(&replaced) / whole;
        // A price of 1 with a multiplier of 1 (50): units are equity's parts.
        let price = if i == 2 { 0.02 } else { 1.0 };
        let expected = 100_000.0 * weight;
        assert!(if i == 1 { expected < -1000.0 } else { expected > 1000.0 }, "{expected}");
        let units = to_f64(sizing.size(signal, price, &account(), &history).unwrap());
        assert!((units - expected).abs() <= 1.001, "{units} {expected}");
    }
    // All together no more than `max`.
    sizing.rule = serde_json::from_str(r#"{"kelly": {"fraction": 0.5, "max": 0.4, "joint": true}}"#).unwrap();
    let units = |i: usize| {
        to_f64(sizing.size(&signals[i], if i == 2 { 0.02 } else { 1.0 }, &account(), &history).unwrap())
    };
    let gross: f64 = (0..3).map(|i| units(i).abs()).sum();
    assert!((gross - 40_000.0).abs() < 4.0, "{gross}");
}

#[test]
fn a_joint_solution_against_the_signal_is_nothing() {
    let history = history(&returns());
    let mut sizing = sizing(r#"{"kelly": {"joint": true}}"#);
    // The first two move alike; the second's small expectation makes it the first's hedge.
    let strong = Signal { expected: Some(0.5), ..signal(0, Want::Long) };
    let weak = Signal { expected: Some(0.001), ..signal(1, Want::Long) };
    sizing.note(&strong);
    sizing.note(&weak);
    assert_eq!(sizing.size(&weak, 1.0, &account(), &history).unwrap(), Decimal::ZERO);
    // Once the first is flat it stands alone.
    sizing.note(&signal(0, Want::Flat));
    assert!(sizing.size(&weak, 1.0, &account(), &history).unwrap() > Decimal::ZERO);
}

#[test]
fn what_speaks_against_its_signal_is_no_part_of_a_joint_solution() {
    let history = history(&returns());
    let mut sizing = sizing(r#"{"kelly": {"joint": true}}"#);
    let fine = Signal { expected: Some(0.05), ..signal(0, Want::Long) };
    let against = Signal { expected: Some(0.02), ..signal(1, Want::Short) };
    sizing.note(&fine);
    let alone = sizing.size(&fine, 1.0, &account(), &history).unwrap();
    assert!(alone > Decimal::ZERO);
    sizing.note(&against);
    assert_eq!(sizing.size(&against, 1.0, &account(), &history).unwrap(), Decimal::ZERO);
    assert_eq!(sizing.size(&fine, 1.0, &account(), &history).unwrap(), alone);
}

#[test]
fn a_covariance_that_cannot_be_used_is_told() {
    let mut returns = returns();
    returns[1] = vec![0.0; 60];
    let history = history(&returns);
    for rule in [r#"{"kelly": {"joint": true}}"#, r#"{"equal_risk": {}}"#, r#"{"risk_parity": {}}"#] {
        let mut sizing = sizing(rule);
        let expecting = |i| Signal { expected: Some(0.1), ..signal(i, Want::Long) };
        sizing.note(&expecting(1));
        let error = sizing.size(&expecting(0), 1.0, &account(), &history).unwrap_err();
        assert_eq!(error.cause, Cause::ZeroVolatility("BTC".into()), "{rule}");
    }
}

#[test]
fn risk_parity_goes_by_the_inverse_of_volatility() {
    let returns = returns();
    let history = history(&returns);
    let deviation = |i: usize| {
        let mean = returns[i].iter().sum::<f64>() / 60.0;
        (returns[i].iter().map(|r| (r - mean).powi(2)).sum::<f64>()).sqrt()
    };
    let mut sizing = sizing(r#"{"risk_parity": {"target": 1.5}}"#);
    let (first, second) = (signal(0, Want::Long), signal(1, Want::Short));
    sizing.note(&first);
    assert_eq!(sizing.size(&first, 1.0, &account(), &history).unwrap(), d("150000"));
    sizing.note(&second);
    let expected = -150_000.0 / deviation(1) / (1.0 / deviation(0) + 1.0 / deviation(1));
    let units = to_f64(sizing.size(&second, 1.0, &account(), &history).unwrap());
    assert!((units - expected).abs() < 0.01, "{units} {expected}");
}

#[test]
fn equal_risk_contributions_are_equal() {
    let returns = returns();
    let history = history(&returns);
    let sizing = sizing(r#"{"equal_risk": {"symbols": ["SPY", "BTC", "ES"]}}"#);
    let covariance = covariance(&returns);
    let price = [0.0001, 0.0001, 0.000002];
    let weights = [0, 1, 2].map(|i| {
        let units = sizing.size(&signal(i, Want::Long), price[i as usize], &account(), &history).unwrap();
        to_f64(units) * 1e-9
    });
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    let risk = [0, 1, 2].map(|i| weights[i] * (0..3).map(|j| covariance[i][j] * weights[j]).sum::<f64>());
    assert!(risk.iter().all(|part| (part / risk[0] - 1.0).abs() < 1e-5), "{risk:?}");
}

#[test]
fn what_was_noted_is_saved() {
    let mut one = sizing(r#"{"risk_parity": {}}"#);
    one.note(&signal(2, Want::Short));
    let bytes = postcard::to_stdvec(&one.save()).unwrap();
    let mut other = sizing(r#"{"risk_parity": {}}"#);
    other.restore(postcard::from_bytes(&bytes).unwrap());
    assert_eq!(one.save(), other.save());
    assert_eq!(other.sharing(0), [0, 2]);
}
