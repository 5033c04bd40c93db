use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use serde_json::{Value, json};
use tidemill_engine::operator::END;

use super::*;
use crate::check::{Rng, check, numbers, plan, stream, symbols, whole};

mod corporate;
mod methods;

const SYMBOLS: [&str; 4] = ["SPY", "BAC", "IBM", "AIG"];

#[derive(Clone, Copy, Debug)]
struct Tick {
    ts: i64,
    symbol: &'static str,
    value: f64,
}

fn batch(rows: &[Tick], column: &str) -> RecordBatch {
    let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.ts, i as u64)).collect();
    let fields = [
        Arc::new(arrow::datatypes::Field::new("symbol", row::symbol_type(), false)),
        Arc::new(arrow::datatypes::Field::new(column, arrow::datatypes::DataType::Float64, true)),
    ];
    let columns = vec![
        ("symbol", symbols(rows.iter().map(|r| r.symbol))),
        (column, numbers(rows.iter().map(|r| Some(r.value)))),
    ];
    RecordBatch::try_new(row::stream_schema(&fields), stream(&at, columns).columns().to_vec()).unwrap()
}

fn planned(with: Value) -> OperatorPlan {
    plan_of(with).unwrap()
}

fn plan_of(with: Value) -> Result<OperatorPlan, Vec<String>> {
    plan::<Risk>(with, &[batch(&[], "quantity").schema(), batch(&[], "price").schema()])
}

/// Positions and prices as they might come: ties in time, gaps, a symbol that comes late, prices that are none.
fn random(rng: &mut Rng) -> (Vec<Tick>, Vec<Tick>) {
    let (mut positions, mut prices) = (Vec::new(), Vec::new());
    let (mut ts, mut last) = (rng.pick(&[0, -350, 1_000_000]), [100.0; 4]);
    let late = rng.below(60);
    for step in 0..20 + rng.below(150) {
        ts += rng.pick(&[0, 1, 3, 5, 10, 10, 35]);
        let i = rng.below(if step < late { 3 } else { 4 });
        match rng.below(8) {
            0 | 1 => {
                positions.push(Tick { ts, symbol: SYMBOLS[i], value: rng.pick(&[0.0, 100.0, -40.0, 7.5]) })
            }
            2 if rng.below(5) == 0 => {
                prices.push(Tick {
                    ts,
                    symbol: SYMBOLS[i],
                    value: rng.pick(&[f64::NAN, 0.0, -1.0, f64::INFINITY]),
                });
            }
            _ => {
                last[i] *= 1.0 + (rng.below(100_001) as f64 / 1e6 - 0.049);
                prices.push(Tick { ts, symbol: SYMBOLS[i], value: last[i] });
            }
        }
    }
    (positions, prices)
}

/// Everything told by a from-scratch reading of all rows up to each instant: by what a row is of.
struct Oracle<'a> {
    positions: &'a [Tick],
    prices: Vec<Tick>,
    every: i64,
    window: usize,
    min_samples: usize,
    level: f64,
    z: f64,
}

type Figures = BTreeMap<String, f64>;
type Values = Vec<(&'static str, f64)>;

impl Oracle<'_> {
    fn end(&self, ts: i64) -> i64 {
        ts + (self.every - ts.rem_euclid(self.every)) % self.every
    }

    /// Ends of intervals with a price.
    fn samples(&self) -> Vec<i64> {
        let mut ends: Vec<i64> = self.prices.iter().map(|p| self.end(p.ts)).collect();
        ends.dedup();
        ends
    }

    fn price(&self, symbol: &str, at: i64) -> Option<f64> {
        self.prices.iter().rfind(|p| p.symbol == symbol && p.ts <= at).map(|p| p.value)
    }

    fn quantity(&self, symbol: &str, at: i64) -> f64 {
        self.positions.iter().rfind(|p| p.symbol == symbol && p.ts <= at).map_or(0.0, |p| p.value)
    }

    /// Values held; none where one is not known.
    fn values(&self, at: i64) -> Option<Values> {
        let held = SYMBOLS.into_iter().map(|s| (s, self.quantity(s, at))).filter(|(_, q)| *q != 0.0);
        held.map(|(s, q)| Some((s, q * self.price(s, at)?))).collect()
    }

    /// Returns of a symbol over each pair of samples up to `at`: known from the first sample with a price on.
    fn returns(&self, symbol: &str, at: i64) -> Vec<Option<f64>> {
        let ends: Vec<i64> = self.samples().into_iter().filter(|e| *e <= at).collect();
        let one = |w: &[i64]| Some(self.price(symbol, w[1])? / self.price(symbol, w[0])? - 1.0);
        ends.windows(2).map(one).collect()
    }

    /// Profits of what is held at `at` in the samples that everything held has.
    fn profits(&self, at: i64, values: &[(&'static str, f64)]) -> Vec<f64> {
        let rows: Vec<Vec<Option<f64>>> = values.iter().map(|(s, _)| self.returns(s, at)).collect();
        // A sample counts from the first one on in which any symbol has a return.
        let any: Vec<Vec<Option<f64>>> = SYMBOLS.iter().map(|s| self.returns(s, at)).collect();
        let all = any[0].len();
        let first = (0..all).find(|k| any.iter().any(|r| r[*k].is_some())).unwrap_or(all);
        let known = |k: &usize| rows.iter().all(|r| r[*k].is_some());
        let n = (first..all).rev().take_while(known).count().min(self.window);
        let profit =
            |k: usize| values.iter().zip(&rows).map(|((_, v), r)| v * r[k].unwrap_or_default()).sum();
        (all - n..all).map(profit).collect()
    }

    fn forecast(&self, at: i64) -> Option<(Values, f64, f64)> {
        let values = self.values(at)?;
        let mut profits = self.profits(at, &values);
        if profits.len() < self.min_samples {
            return None;
        }
        profits.sort_by(f64::total_cmp);
        let h = (profits.len() - 1) as f64 * ((1.0 - self.level) * 1e9).round() / 1e9;
        let (below, part) = (h as usize, h.fract());
        let var = profits[below] * (1.0 - part) + profits[(below + 1).min(profits.len() - 1)] * part;
        Some((values, var, profits[..=below].iter().sum::<f64>() / (below + 1) as f64))
    }

    fn figures(&self, changes: bool) -> Figures {
        let mut at = self.samples();
        if changes {
            let mut held: BTreeMap<&str, f64> = BTreeMap::new();
            for p in self.positions {
                if held.insert(p.symbol, p.value).unwrap_or(0.0) != p.value {
                    at.push(p.ts);
                }
            }
        }
        at.sort_unstable();
        at.dedup();
        let mut figures = Figures::new();
        let (mut failures, mut periods) = (0, 0);
        let mut before: Option<(Vec<(&str, f64)>, f64)> = None;
        for at in at {
            let sampled = self.samples().contains(&at);
            if sampled
                && let Some((held, var)) = before.take()
                && !held.is_empty()
            {
                let last = |s: &str| self.returns(s, at).last().copied().flatten().unwrap_or(f64::NAN);
                let profit: f64 = held.iter().map(|(s, v)| v * last(s)).sum();
                periods += 1;
                failures += usize::from(profit < var);
            }
            let Some(values) = self.values(at) else { continue };
            let banks: f64 = values.iter().map(|(s, v)| v * if *s == "SPY" { -0.2 } else { -0.1 }).sum();
            figures.insert(format!("{at} stress crash"), banks);
            let Some((values, var, cvar)) = self.forecast(at) else { continue };
            let profits = self.profits(at, &values);
            let n = profits.len() as f64;
            let mean = profits.iter().sum::<f64>() / n;
            let deviation = (profits.iter().map(|p| (p - mean) * (p - mean)).sum::<f64>() / (n - 1.0)).sqrt();
            for h in [1.0f64, 10.0] {
                figures.insert(format!("{at} var historical {h}"), var * h.sqrt());
                figures.insert(format!("{at} cvar historical {h}"), cvar * h.sqrt());
                figures.insert(format!("{at} var parametric {h}"), mean * h + self.z * deviation * h.sqrt());
                figures.insert(format!("{at} volatility parametric {h}"), deviation * h.sqrt());
            }
            if sampled {
                before = Some((values, var));
                if periods > 0 {
                    figures.insert(format!("{at} exceedances historical"), failures as f64);
                    figures.insert(format!("{at} var_samples historical"), periods as f64);
                }
            }
        }
        figures
    }
}

/// The rows that the oracle has an opinion on.
fn told(plan: &OperatorPlan, inputs: &[RecordBatch]) -> Figures {
    let mut figures = Figures::new();
    for line in whole(plan, inputs) {
        let cells: Vec<&str> = line.split(',').collect();
        let [ts, _, measure, method, _, horizon, symbol, _, value, _] = cells[..] else { panic!("{line}") };
        let key = match measure {
            _ if symbol != "null" => continue,
            "var" | "cvar" if method == "historical" => format!("{ts} {measure} {method} {horizon}"),
            "var" | "volatility" if method == "parametric" => format!("{ts} {measure} {method} {horizon}"),
            "exceedances" | "var_samples" if method == "historical" => format!("{ts} {measure} {method}"),
            "stress" => format!("{ts} {measure} {method}"),
            _ => continue,
        };
        let before = figures.insert(key, value.parse().unwrap());
        assert!(before.is_none(), "twice: {line}");
    }
    figures
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs())
}

#[test]
fn figures_are_those_from_scratch_however_rows_come() {
    let mut seen = 0;
    for seed in 0..120 {
        let rng = &mut Rng(seed);
        let (positions, prices) = random(rng);
        let (level, z) = rng.pick(&[(0.95, -1.6448536269514722), (0.8, -0.8416212335729143)]);
        let (window, min_samples) = rng.pick(&[(8, 2), (20, 5), (500, 3)]);
        let changes = seed % 2 == 0;
        let covariance = ["sample", "ewma", "ledoit_wolf"][seed as usize % 3];
        let plan = planned(json!({
            "every": "10ns", "window": window, "min_samples": min_samples, "levels": [level],
            "horizons": [1, 10], "components": true, "correlations": true, "benchmark": "SPY",
            "methods": ["historical", "parametric", "cornish_fisher", "ewma", "filtered", "age_weighted", "monte_carlo"],
            "monte_carlo": { "paths": 50, "degrees": 5.0 }, "covariance": covariance, "overlapping": seed % 3 == 0 && !changes,
            "stress": { "crash": { "SPY": -0.2, "*": -0.1 } }, "when": if changes { "change" } else { "sample" },
        }));
        let inputs = [batch(&positions, "quantity"), batch(&prices, "price")];
        let good = prices.iter().copied().filter(|p| p.value > 0.0 && p.value.is_finite()).collect();
        let oracle = Oracle { positions: &positions, prices: good, every: 10, window, min_samples, level, z };
        let mut expect = oracle.figures(changes);
        let mut got = told(&plan, &inputs);
        if seed % 3 == 0 && !changes {
            // Sums of samples in a row are not the oracle's.
            got.retain(|key, _| !key.contains("historical 10"));
            expect.retain(|key, _| !key.contains("historical 10"));
        }
        let keys = |figures: &Figures| figures.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&got), keys(&expect), "seed {seed}");
        for (key, value) in &got {
            assert!(near(*value, expect[key]), "seed {seed}, {key}: {value} and not {}", expect[key]);
        }
        seen += got.len();
        check(&plan, &inputs, whole(&plan, &inputs), seed);
    }
    assert!(seen > 5000, "{seen}");
}

#[test]
fn every_price_may_be_told_and_parts_sum_to_the_whole() {
    for seed in 0..30 {
        let (positions, prices) = random(&mut Rng(seed));
        let plan = planned(json!({
            "every": "10ns", "window": 30, "min_samples": 4, "when": "tick", "components": true,
            "stress": { "crash": { "*": -0.1 } }, "backtest": false,
        }));
        let inputs = [batch(&positions, "quantity"), batch(&prices, "price")];
        let rows = whole(&plan, &inputs);
        let (mut wholes, mut parts) = (Figures::new(), Figures::new());
        for line in &rows {
            let c: Vec<&str> = line.split(',').collect();
            let (key, value) = (format!("{} {} {}", c[0], c[3], c[4]), c[8].parse::<f64>().unwrap());
            match (c[2], c[6]) {
                ("var", _) => wholes.insert(format!("var {key}"), value),
                ("cvar", _) => wholes.insert(format!("cvar {key}"), value),
                ("stress", "null") => wholes.insert(format!("stress {key}"), value),
                (measure, _) => {
                    if let Some(of) =
                        measure.strip_prefix("component_").or((measure == "stress").then_some("stress"))
                    {
                        *parts.entry(format!("{of} {key}")).or_default() += value;
                    }
                    None
                }
            };
        }
        for (key, whole) in &wholes {
            let sum = parts.get(key).copied().unwrap_or(0.0);
            assert!(near(sum, *whole), "seed {seed}, {key}: {sum} and not {whole}");
        }
        check(&plan, &inputs, rows, seed);
    }
}

/// Worked by hand: two samples, one position.
#[test]
fn a_small_book() {
    let prices = [(10, 100.0), (20, 110.0), (30, 99.0)].map(|(ts, value)| Tick { ts, symbol: "SPY", value });
    let positions = [Tick { ts: 5, symbol: "SPY", value: 10.0 }];
    let plan = planned(json!({
        "every": "10ns", "window": 10, "min_samples": 2, "levels": [0.5], "methods": ["historical"],
        "backtest": false, "multipliers": { "SPY": 2.0 },
    }));
    let rows = whole(&plan, &[batch(&positions, "quantity"), batch(&prices, "price")]);
    // 20 units at 99 that went up and down by a tenth: the middle is nought, the worst half loses 198.
    let values: Vec<(&str, f64)> = rows
        .iter()
        .map(|r| r.split(',').collect::<Vec<_>>())
        .map(|c| (if c[2] == "var" { "var" } else { "cvar" }, c[8].parse().unwrap()))
        .collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|r| r.starts_with("30,2,")), "{rows:?}");
    assert!(values[0].0 == "var" && values[0].1.abs() < 1e-9, "{values:?}");
    assert!(values[1].0 == "cvar" && (values[1].1 + 198.0).abs() < 1e-9, "{values:?}");
}

#[test]
fn options_move_by_their_greeks_and_are_valued_anew_under_stress() {
    use tidemill_risk::options::{European, greeks, price};
    let day = 86_400_000_000_000;
    let prices: Vec<Tick> = (0..30)
        .map(|i| Tick { ts: (i + 1) * day, symbol: "SPY", value: 100.0 + ((i * 7) % 11) as f64 })
        .collect();
    let positions =
        [Tick { ts: 0, symbol: "SPY_PUT", value: -3.0 }, Tick { ts: 0, symbol: "SPY", value: 50.0 }];
    let plan = planned(json!({
        "min_samples": 10, "window": 20, "levels": [0.9], "methods": ["historical"], "backtest": false,
        "stress": { "crash": { "*": -0.3, "vol": 0.1 } }, "multipliers": { "SPY_PUT": 100.0 },
        "options": { "SPY_PUT": { "underlying": "SPY", "strike": 101.0, "expiry": "1970-03-01", "kind": "put", "volatility": 0.25, "rate": 0.01 } },
    }));
    let inputs = [batch(&positions, "quantity"), batch(&prices, "price")];
    let rows = whole(&plan, &inputs);
    let last = 30 * day;
    let value = |measure: &str, ts: i64| -> f64 {
        let found =
            rows.iter().find(|r| r.starts_with(&format!("{ts},")) && r.split(',').nth(2) == Some(measure));
        found.unwrap_or_else(|| panic!("no {measure}")).split(',').nth(8).unwrap().parse().unwrap()
    };
    // Gone with the end of March 1st, 60 days after New Year.
    let option = European {
        kind: OptionKind::Put,
        spot: prices[29].value,
        strike: 101.0,
        rate: 0.01,
        dividend: 0.0,
        vol: 0.25,
        years: 30.0 / 365.0,
    };
    let one = greeks(&option).unwrap();
    assert!(near(value("delta", last), -300.0 * one.delta) && near(value("vega", last), -300.0 * one.vega));
    let crashed = European { spot: option.spot * 0.7, vol: 0.35, ..option };
    let loss = -300.0 * (price(&crashed).unwrap() - price(&option).unwrap()) - 0.3 * 50.0 * option.spot;
    assert!(near(value("stress", last), loss), "{} {loss}", value("stress", last));
    let profit = |r: f64| {
        let ds = option.spot * r;
        -300.0 * (one.delta * ds + 0.5 * one.gamma * ds * ds) + 50.0 * ds
    };
    let mut profits: Vec<f64> =
        prices[9..].windows(2).map(|w| profit(w[1].value / w[0].value - 1.0)).collect();
    profits.sort_by(f64::total_cmp);
    let expect = profits[1] + (profits[2] - profits[1]) * 0.9;
    assert_eq!(profits.len(), 20);
    assert!(near(value("var", last), expect), "{} {expect}", value("var", last));
    check(&plan, &inputs, rows.clone(), 3);
}

#[test]
fn what_execution_tells_is_read() {
    let text = |values: &[Option<&str>]| -> arrow::array::ArrayRef {
        Arc::new(
            values.iter().copied().collect::<arrow::array::DictionaryArray<arrow::datatypes::Int32Type>>(),
        )
    };
    let positions = stream(
        &[(1, 0), (1, 1), (2, 2), (9, 3)],
        vec![
            ("event", text(&[Some("fill"), Some("position"), Some("equity"), Some("order")])),
            ("symbol", text(&[Some("SPY"), Some("SPY"), None, Some("SPY")])),
            ("quantity", numbers([Some(99.0), None, None, Some(7.0)])),
            ("position", numbers([Some(50.0), Some(10.0), None, Some(1.0)])),
            ("equity", numbers([None, None, Some(5000.0), None])),
        ],
    );
    let prices: Vec<Tick> =
        (1..5).map(|i| Tick { ts: i * 10, symbol: "SPY", value: 100.0 - i as f64 }).collect();
    let prices = batch(&prices, "close");
    let with = json!({ "every": "10ns", "min_samples": 2, "methods": ["parametric"], "stress": { "down": { "*": -0.5 } } });
    let plan = plan::<Risk>(with, &[positions.schema(), prices.schema()]).unwrap();
    let inputs = [positions, prices];
    let mut operator = (plan.build)();
    let mut out = Output::new(plan.schema.clone());
    let both: Vec<_> = inputs.iter().cloned().map(Some).collect();
    operator.process(&both, &mut out).unwrap();
    operator.advance(END, &mut out).unwrap();
    let all: Vec<RecordBatch> = out.drain().collect();
    let all = arrow::compute::concat_batches(&plan.schema, &all).unwrap();
    let stress: Vec<usize> =
        (0..all.num_rows()).filter(|i| row::text(all.column(3), *i) == Some("stress")).collect();
    let (value, fraction) =
        (all.column(9).as_primitive::<Float64Type>(), all.column(10).as_primitive::<Float64Type>());
    // Ten units at 99: half of their value, and that by 5000.
    assert_eq!((value.value(stress[0]), fraction.value(stress[0])), (-495.0, -0.099));
    assert_eq!(stress.len(), 4);
}

/// The page's example, as the graph reader gives it.
#[test]
fn the_manuals_example_plans() {
    let page = schemars::schema_for!(Params).to_value()["description"].as_str().unwrap().to_owned();
    let yaml = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let graph = format!("dataflow: example\nsources: {{}}\nsinks: {{}}\n{yaml}");
    let (spec, _) = tidemill_engine::spec::Spec::parse_lenient(&graph, "example.yaml", &[], &|_| None)
        .unwrap_or_else(|errors| panic!("{errors}"));
    planned(spec.nodes[0].with.clone());
}

#[test]
fn problems_say_what_to_do() {
    let schemas = [batch(&[], "quantity").schema(), batch(&[], "price").schema()];
    let problems = |with: Value| plan::<Risk>(with, &schemas).err().unwrap();
    assert_eq!(
        problems(json!({ "positions": "lefd" })),
        ["positions: `lefd` is not among the streams of `from` (did you mean `left`?)"]
    );
    assert_eq!(
        problems(
            json!({ "levels": [95.0], "stress": { "crash": { "SPY": -1.5, "sector:x": 0.1 } }, "min_samples": 1 })
        ),
        [
            "min_samples: must be at least 2, and not above `window` (`min_samples: 100`, say)",
            "levels: a level is above 0 and below 1 (`levels: [0.95, 0.99]`)",
            "stress.crash.SPY: takes prices below nought: at least -1 (`-0.2` is a fall by a fifth)",
            "stress.crash.sector:x: there is no sector `x` (list its symbols under `sectors`)",
        ]
    );
    let option = json!({ "underlying": "P", "strike": 0.0, "expiry": "soon", "kind": "put" });
    assert_eq!(
        problems(json!({ "options": { "P": option } })),
        [
            "options.P.strike: must be a price above 0 (`strike: 150`, say)",
            "options.P.underlying: is an option itself (name what has a price of its own)",
            "options.P.expiry: is not a time (write 2025-12-19 or 2025-12-19T21:00:00Z)",
        ]
    );
    let swapped = [schemas[1].clone(), schemas[0].clone()];
    let found = plan::<Risk>(json!({}), &swapped).err().unwrap();
    assert!(found[0].starts_with("quantity: `left` has no column `quantity`"), "{found:?}");
}
