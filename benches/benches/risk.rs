//! Portfolio risk: one position changes among 1000 instruments with 2500 scenarios, then VaR and CVaR; and everything from scratch.
//!
//!     cargo bench --workspace --bench risk
//!
//! The same from scratch with NumPy on a 2-core machine (`pnl = values @ returns; np.percentile; tail mean`): 745 us.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tidemill_risk::portfolio::{Exposure, Portfolio};
use tidemill_risk::var::TailRisk;
use tidemill_risk::var::component;
use tidemill_risk::var::tail::Tail;

const INSTRUMENTS: usize = 1000;
const SCENARIOS: usize = 2500;

/// Numbers between -1 and 1 without a pattern.
fn scattered() -> impl FnMut() -> f64 {
    let mut state = 7u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Returns that are about normal: a common part and one of their own.
fn rows() -> Vec<Vec<f64>> {
    let mut next = scattered();
    let mut bell = move || (0..6).map(|_| next()).sum::<f64>() * 0.7;
    let market: Vec<f64> = (0..SCENARIOS).map(|_| 0.008 * bell()).collect();
    (0..INSTRUMENTS).map(|_| market.iter().map(|m| m + 0.015 * bell()).collect()).collect()
}

fn portfolio() -> Portfolio {
    let mut portfolio = Portfolio::with_returns(&rows());
    let mut next = scattered();
    for i in 0..INSTRUMENTS {
        portfolio.set(i, Exposure::value(1e5 * (next() + 0.5))).expect("it is a number");
    }
    portfolio
}

fn risk(c: &mut Criterion) {
    let whole = portfolio();
    let mut next = scattered();
    let changes: Vec<(usize, Exposure)> =
        (0..4096).map(|k| (k * 389 % INSTRUMENTS, Exposure::value(1e5 * (next() + 0.5)))).collect();
    let mut group = c.benchmark_group("risk_1000x2500");
    let (mut book, mut turn) = (whole.clone(), 0);
    group.bench_function("position_change", |b| {
        b.iter(|| {
            let (i, exposure) = changes[turn % changes.len()];
            turn += 1;
            book.set(i, exposure).expect("it is a number");
        });
    });
    for (name, levels) in [("var_95", vec![0.95]), ("var_95_99", vec![0.95, 0.99])] {
        let mut tail = Tail::new(levels).expect("they are levels");
        let (mut figures, mut book, mut turn): (Vec<TailRisk>, _, _) = (Vec::new(), whole.clone(), 0);
        group.bench_function(format!("position_change_and_{name}"), |b| {
            b.iter(|| {
                let (i, exposure) = changes[turn % changes.len()];
                turn += 1;
                book.set(i, exposure).expect("it is a number");
                let (older, newer) = book.newest(SCENARIOS);
                tail.measure(older, newer, &mut figures);
                black_box(figures[0])
            });
        });
    }
    // What the sum over the book costs where nothing is kept.
    let returns = rows();
    let mut tail = Tail::new(vec![0.95]).expect("it is a level");
    let (mut figures, mut profits) = (Vec::new(), Vec::new());
    group.bench_function("from_scratch_and_var_95", |b| {
        b.iter(|| {
            profits.clear();
            profits.resize(SCENARIOS, 0.0);
            for (row, (_, exposure)) in returns.iter().zip(whole.held()) {
                for (p, r) in profits.iter_mut().zip(row) {
                    *p += exposure.linear * r;
                }
            }
            tail.measure(&profits, &[], &mut figures);
            black_box(figures[0])
        });
    });
    group.bench_function("new_scenario", |b| {
        let mut book = whole.clone();
        let scenario: Vec<f64> = returns.iter().map(|row| row[0]).collect();
        b.iter(|| book.push(black_box(&scenario)));
    });
    group.bench_function("components", |b| b.iter(|| component::historical(&whole, SCENARIOS, 0.95).len()));
    group.finish();
}

criterion_group!(benches, risk);
criterion_main!(benches);
