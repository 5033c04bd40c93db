//! Every method against its function.

use tidemill_risk::covariance;
use tidemill_risk::portfolio::Exposure;
use tidemill_risk::var::moments::{self, Moments};
use tidemill_risk::var::monte_carlo::Draws;
use tidemill_risk::var::{TailRisk, cornish_fisher, ewma, normal, parametric, tail, weighted};

use super::*;

const METHODS: [&str; 7] =
    ["historical", "age_weighted", "filtered", "parametric", "cornish_fisher", "ewma", "monte_carlo"];
const LEVEL: f64 = 0.9;
const DECAY: f64 = 0.9;
const AGE_DECAY: f64 = 0.97;
const WINDOW: usize = 25;

/// Positions now and then, prices of each symbol most of the time.
fn market(rng: &mut Rng) -> (Vec<Tick>, Vec<Tick>) {
    let (mut positions, mut prices, mut last) = (Vec::new(), Vec::new(), [100.0; 4]);
    for step in 0..60i64 {
        for (i, symbol) in SYMBOLS.into_iter().enumerate() {
            // The first step names all symbols in this order, which is that of the draws.
            if step > 0 && rng.below(4) == 0 {
                continue;
            }
            last[i] *= 1.0 + (rng.below(100_001) as f64 / 1e6 - 0.049);
            prices.push(Tick { ts: step * 10 + i as i64, symbol, value: last[i] });
        }
        if rng.below(6) == 0 || step == 0 {
            let symbol = SYMBOLS[rng.below(4)];
            positions.push(Tick { ts: step * 10 + 7, symbol, value: rng.pick(&[0.0, 100.0, -40.0, 7.5]) });
        }
    }
    (positions, prices)
}

/// Drawn from the covariance of what is held.
fn drawn(oracle: &Oracle<'_>, at: i64, values: &Values, n: usize, kind: &str, seed: u64, h: f64) -> Vec<f64> {
    let of = |symbol: &str| -> Vec<f64> {
        let all = oracle.returns(symbol, at);
        all[all.len() - n..].iter().map(|r| r.unwrap()).collect()
    };
    let returns: Vec<Vec<f64>> = values.iter().map(|(symbol, _)| of(symbol)).collect();
    let matrix = match kind {
        "sample" => nalgebra::DMatrix::from_fn(returns.len(), returns.len(), |i, j| {
            moments::covariance(&returns[i], &returns[j]).unwrap()
        }),
        "ewma" => covariance::ewma(&returns, DECAY).unwrap(),
        _ => covariance::ledoit_wolf(&returns).unwrap().covariance,
    };
    let means: Vec<f64> = returns.iter().map(|r| r.iter().sum::<f64>() / r.len() as f64).collect();
    let exposures: Vec<Exposure> = values.iter().map(|(_, v)| Exposure::value(*v)).collect();
    let draw = Draw { paths: 500, seed, degrees: Some(5.0) };
    let mut out = Vec::new();
    Draws::new(&draw, &matrix).unwrap().profits(&exposures, &means, h, &mut out);
    out
}

fn of_profits(method: &str, profits: &[f64], h: f64) -> Option<TailRisk> {
    let moments = Moments::of(profits).unwrap();
    match method {
        "historical" => tail::historical(profits, LEVEL).map(|r| r.over(h)),
        "age_weighted" => weighted::age_weighted(profits, AGE_DECAY, LEVEL).map(|r| r.over(h)),
        "filtered" => {
            let mut scaled = Vec::new();
            ewma::filtered(profits, DECAY, &mut scaled);
            tail::historical(&scaled, LEVEL).map(|r| r.over(h))
        }
        "parametric" => parametric(&moments, LEVEL, h),
        "cornish_fisher" => cornish_fisher(&moments, LEVEL, h),
        _ => normal(ewma::deviation(profits, DECAY).unwrap(), LEVEL, h),
    }
}

/// The window is the one that a from-scratch reading of all rows finds.
#[test]
fn every_method_is_its_function_on_the_window() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..12 {
        let (positions, prices) = market(&mut Rng(seed));
        let kind = ["sample", "ewma", "ledoit_wolf"][seed as usize % 3];
        let plan = planned(json!({
            "every": "10ns", "window": WINDOW, "min_samples": 12, "levels": [LEVEL], "horizons": [1, 10], "methods": METHODS,
            "decay": DECAY, "age_decay": AGE_DECAY, "covariance": kind,
            "monte_carlo": { "paths": 500, "seed": seed, "degrees": 5.0 },
        }));
        let oracle = Oracle {
            positions: &positions,
            prices: prices.clone(),
            every: 10,
            window: WINDOW,
            min_samples: 12,
            level: LEVEL,
            z: 0.0,
        };
        for line in whole(&plan, &[batch(&positions, "quantity"), batch(&prices, "price")]) {
            let c: Vec<&str> = line.split(',').collect();
            if !["var", "cvar"].contains(&c[2]) {
                continue;
            }
            let (at, h): (i64, f64) = (c[0].parse().unwrap(), c[5].parse().unwrap());
            let values = oracle.values(at).unwrap();
            let profits = oracle.profits(at, &values);
            let found = match c[3] {
                "monte_carlo" => {
                    tail::historical(&drawn(&oracle, at, &values, profits.len(), kind, seed, h), LEVEL)
                }
                method => of_profits(method, &profits, h),
            };
            let found = found.unwrap();
            let expect = if c[2] == "var" { found.var } else { found.cvar };
            assert!(near(c[8].parse().unwrap(), expect), "seed {seed}, {line}: not {expect}");
            *seen.entry(c[3].to_owned()).or_default() += 1;
        }
    }
    assert!(METHODS.iter().all(|m| seen.get(*m).is_some_and(|n| *n > 500)), "{seen:?}");
}
