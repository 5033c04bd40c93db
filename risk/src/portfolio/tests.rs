use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Call {
    Set(usize, f64, f64),
    Push(Vec<Option<f64>>),
    Add,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let money = prop_oneof![Just(0.0), -1e6..1e6f64, -1.0..1.0f64, Just(3e12)];
    let call = prop_oneof![
        6 => (0usize..6, money, prop_oneof![3 => Just(0.0), 1 => -1e5..1e5f64]).prop_map(|(i, l, q)| Call::Set(i, l, q)),
        3 => proptest::collection::vec(proptest::option::weighted(0.9, -0.1..0.1f64), 6).prop_map(Call::Push),
        1 => Just(Call::Add),
    ];
    proptest::collection::vec(call, 1..120)
}

/// A book kept the slow way: every scenario whole.
#[derive(Default)]
struct Slow {
    scenarios: Vec<Vec<Option<f64>>>,
    exposures: Vec<Exposure>,
}

impl Slow {
    fn profits(&self, n: usize) -> Vec<f64> {
        let newest = &self.scenarios[self.scenarios.len() - n..];
        let profit = |scenario: &Vec<Option<f64>>| {
            let terms = self.exposures.iter().enumerate();
            terms.map(|(i, e)| e.profit(scenario.get(i).copied().flatten().unwrap_or(0.0))).sum()
        };
        newest.iter().map(profit).collect()
    }

    fn samples(&self, i: usize, most: usize) -> usize {
        let known = |s: &&Vec<Option<f64>>| s.get(i).copied().flatten().is_some();
        self.scenarios.iter().rev().take_while(known).count().min(most)
    }
}

fn joined((older, newer): (&[f64], &[f64])) -> Vec<f64> {
    [older, newer].concat()
}

fn play(portfolio: &mut Portfolio, slow: &mut Slow, call: &Call) {
    match call {
        Call::Set(i, linear, quadratic) => {
            let exposure = Exposure { linear: *linear, quadratic: *quadratic };
            if portfolio.set(*i, exposure).is_ok() {
                slow.exposures[*i] = exposure;
            } else {
                assert!(*i >= slow.exposures.len());
            }
        }
        Call::Push(returns) => {
            let own: Vec<f64> = returns.iter().map(|r| r.unwrap_or(f64::NAN)).collect();
            portfolio.push(&own[..own.len().min(portfolio.instruments())]);
            let mut scenario = returns.clone();
            scenario.truncate(slow.exposures.len());
            slow.scenarios.push(scenario);
        }
        Call::Add => {
            portfolio.add();
            slow.exposures.push(Exposure::default());
        }
    }
}

proptest! {
    /// Whatever happens to a book, its profits are those computed from scratch: to the last bit by the same sum, and as near as
    /// `f64` sums are by another.
    #[test]
    fn what_is_kept_is_what_would_be_computed(calls in calls(), cut in 0usize..120) {
        let mut portfolio = Portfolio::new(17);
        let mut slow = Slow::default();
        for _ in 0..3 {
            play(&mut portfolio, &mut slow, &Call::Add);
        }
        let mut restored: Option<Portfolio> = None;
        for (at, call) in calls.iter().enumerate() {
            if at == cut {
                let bytes = serde_json::to_string(&portfolio).unwrap();
                restored = Some(serde_json::from_str(&bytes).unwrap());
            }
            play(&mut portfolio, &mut slow, call);
            if let Some(restored) = &mut restored {
                let mut aside = Slow { scenarios: Vec::new(), exposures: vec![Exposure::default(); restored.instruments()] };
                play(restored, &mut aside, call);
            }
            let mut scratch = vec![0.0; portfolio.pnl.len()];
            portfolio.compute(&mut scratch);
            prop_assert_eq!(&scratch, &portfolio.pnl);
            let n = portfolio.len();
            prop_assert_eq!(n, slow.scenarios.len().min(17));
            let extent: f64 = slow.exposures.iter().map(|e| e.extent(0.1)).sum();
            for (kept, slow) in joined(portfolio.newest(n)).iter().zip(slow.profits(n)) {
                prop_assert!((kept - slow).abs() <= 1e-12 * extent, "{} {}", kept, slow);
            }
            for i in 0..slow.exposures.len() {
                prop_assert_eq!(portfolio.samples(i), slow.samples(i, 17));
            }
        }
        if let Some(restored) = restored {
            prop_assert_eq!(restored, portfolio);
        }
    }
}

#[test]
fn order_does_not_show() {
    let rows: Vec<Vec<f64>> =
        (0..40).map(|i| (0..50).map(|s| ((i * 31 + s * 17) % 101) as f64 / 1e3 - 0.05).collect()).collect();
    let value = |i: usize| Exposure::value((i as f64 - 20.0) * 1234.567);
    let mut there = Portfolio::with_returns(&rows);
    // Both books have been as large, so they have the same quantum.
    there.set(0, Exposure::value(1e6)).unwrap();
    let mut back = there.clone();
    (1..40).for_each(|i| there.set(i, value(i)).unwrap());
    (1..40).rev().for_each(|i| back.set(i, value(i)).unwrap());
    assert_eq!(there.pnl, back.pnl);
}

#[test]
fn a_window_forgets_its_oldest_scenario() {
    let mut portfolio = Portfolio::new(3);
    let i = portfolio.add();
    portfolio.set(i, Exposure::value(100.0)).unwrap();
    for r in [0.5, 0.25, -0.5, 0.125] {
        portfolio.push(&[r]);
    }
    assert_eq!(joined(portfolio.newest(9)), [25.0, -50.0, 12.5]);
    assert_eq!(joined(portfolio.newest(2)), [-50.0, 12.5]);
    assert_eq!(joined(portfolio.returns(i, 3)), [0.25, -0.5, 0.125]);
    let j = portfolio.add();
    portfolio.set(j, Exposure::value(8.0)).unwrap();
    assert_eq!(portfolio.common(), 0);
    portfolio.push(&[0.0, 0.5]);
    assert_eq!((portfolio.common(), joined(portfolio.newest(1))), (1, vec![4.0]));
    let mut other = Vec::new();
    portfolio.profits_with(j, Exposure::value(16.0), 2, &mut other).unwrap();
    assert_eq!(other, [12.5, 8.0]);
}

#[test]
fn numbers_that_cannot_be_summed_are_refused() {
    let mut portfolio = Portfolio::new(2);
    let i = portfolio.add();
    for bad in [f64::NAN, f64::INFINITY, 1e300] {
        assert!(matches!(portfolio.set(i, Exposure::value(bad)), Err(PortfolioError::Exposure(_))));
    }
    assert_eq!(portfolio.set(7, Exposure::value(1.0)), Err(PortfolioError::Unknown(7)));
    portfolio.set(i, Exposure::value(1e249)).unwrap();
    portfolio.push(&[f64::INFINITY]);
    portfolio.push(&[1e300]);
    assert_eq!((portfolio.samples(i), joined(portfolio.newest(2))), (0, vec![0.0, 0.0]));
}
