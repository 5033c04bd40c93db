//! Splits and dividends.

use super::*;

/// A file of splits and dividends; gone with the value.
struct Actions(std::path::PathBuf);

impl Actions {
    /// Times are nanoseconds since 1970.
    fn new(name: &str, actions: &[(i64, &str, &str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("tidemill-risk-{}-{name}.csv", std::process::id()));
        let line = |(ts, symbol, kind, value): &(i64, &str, &str, &str)| {
            let ts = chrono::DateTime::from_timestamp_nanos(*ts).to_rfc3339();
            format!("{ts},{symbol},{kind},{value}\n")
        };
        let lines: String = actions.iter().map(line).collect();
        std::fs::write(&path, format!("ts,symbol,kind,value\n{lines}")).unwrap();
        Self(path)
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Prices and quantities in units of before and after are the same portfolio as all in units of after.
#[test]
fn a_split_is_neither_a_loss_nor_a_gain() {
    let mut split_rows = 0;
    for seed in 0..60 {
        let rng = &mut Rng(seed);
        let (positions, prices) = random(rng);
        let first = prices[0].ts.min(positions.first().map_or(i64::MAX, |p| p.ts));
        let last = prices[prices.len() - 1].ts;
        let at = match seed % 3 {
            // At a price's instant, at a sample's end, anywhere.
            0 => prices[rng.below(prices.len())].ts,
            1 => (first + rng.below((last - first) as usize + 1) as i64).div_euclid(10) * 10,
            _ => first + rng.below((last - first) as usize + 1) as i64,
        };
        // Eight for one in both directions: nothing is rounded, so every cell is the same.
        let (ratio, value) = rng.pick(&[(8.0, "8"), (0.125, "0.125")]);
        let before = |t: &&mut Tick| t.symbol == "SPY" && t.ts < at;
        let (mut held, mut priced) = (positions.clone(), prices.clone());
        held.iter_mut().filter(before).for_each(|t| t.value /= ratio);
        priced.iter_mut().filter(before).for_each(|t| t.value *= ratio);
        let file = Actions::new(&format!("split-{seed}"), &[(at, "SPY", "split", value)]);
        let when = ["sample", "change", "tick"][seed as usize / 3 % 3];
        let with = json!({
            "every": "10ns", "window": 12, "min_samples": 2, "when": when,
            "components": true, "correlations": true, "benchmark": "SPY", "stress": { "crash": { "*": -0.1 } },
            "methods": ["historical", "parametric", "filtered"],
        });
        let expect = whole(&planned(with.clone()), &[batch(&positions, "quantity"), batch(&prices, "price")]);
        let mut told = with;
        told["corporate_actions"] = json!(file.0);
        let plan = planned(told);
        let inputs = [batch(&held, "quantity"), batch(&priced, "price")];
        assert_eq!(whole(&plan, &inputs), expect, "seed {seed}");
        split_rows +=
            expect.iter().filter(|r| r.split(',').next().unwrap().parse::<i64>().unwrap() > at).count();
        check(&plan, &inputs, expect, seed);
    }
    assert!(split_rows > 3000, "{split_rows}");
}

/// Worked by hand: 100, then 50 for each of two units, then 45 after a dividend of 5 that fell due before the price came.
#[test]
fn a_dividend_is_part_of_the_return() {
    let prices = [(10, 100.0), (20, 50.0), (38, 45.0), (50, 45.0)].map(|(ts, value)| Tick {
        ts,
        symbol: "SPY",
        value,
    });
    let positions = [Tick { ts: 5, symbol: "SPY", value: 10.0 }];
    let file = Actions::new(
        "dividend",
        &[(20, "SPY", "split", "2"), (30, "SPY", "dividend", "5"), (31, "NOBODY", "split", "3")],
    );
    let plan = planned(json!({
        "every": "10ns", "window": 10, "min_samples": 2, "levels": [0.95], "methods": ["historical"],
        "corporate_actions": file.0,
    }));
    let inputs = [batch(&positions, "quantity"), batch(&prices, "price")];
    let rows = whole(&plan, &inputs);
    // No sample moved at all.
    let figures: Vec<f64> = rows
        .iter()
        .map(|r| r.split(',').collect::<Vec<_>>())
        .filter(|c| ["var", "cvar"].contains(&c[2]))
        .map(|c| c[8].parse().unwrap())
        .collect();
    assert!(figures.len() == 4 && figures.iter().all(|v| v.abs() < 1e-9), "{rows:?}");
    check(&plan, &inputs, rows, 1);
    let wrong = plan_of(json!({ "corporate_actions": "no/such.csv" })).err().unwrap();
    assert!(wrong[0].starts_with("corporate_actions: cannot read `no/such.csv`"), "{wrong:?}");
}
