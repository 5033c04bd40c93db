//! What a report draws is what its tables say.

use super::figures::{self, Sample};
use super::{Rows, Setup, page};

/// A time as pages write it.
fn shown(ts: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(ts).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Every value under the pointer, and every point of the line, is one of `points`, in their order.
fn agrees(section: &page::Section<'_>, name: &str, class: &str, points: &[(i64, f64)]) {
    let hovers = section.hovers(name);
    assert!(hovers.len() > 60, "{name}: {}", hovers.len());
    for (x, text) in &hovers {
        let any = points.iter().any(|(ts, value)| shown(*ts) == *x && page::shows(text, *value));
        let near: Vec<_> = points.iter().filter(|p| shown(p.0) == *x).collect();
        assert!(any, "{name}: {text} at {x}, but {near:?}");
    }
    let (drawn, exact) = section.line(class);
    assert_eq!(drawn.len(), points.len(), "{name}");
    for (drawn, (ts, value)) in drawn.iter().zip(points) {
        assert!((drawn - value).abs() <= exact, "{name} at {}: {drawn} and {value}, {exact}", shown(*ts));
    }
}

#[test]
fn charts_are_drawn_from_the_tables() {
    let Some(setup) = Setup::new() else { return };
    setup.json("out", &[]);
    let text = std::fs::read_to_string(setup.path("out").join("report.html")).unwrap();
    let samples = Rows::of(&setup.table("out", "equity")).samples();
    let of = |value: &dyn Fn(&Sample) -> f64| -> Vec<(i64, f64)> {
        samples.iter().map(|s| (s.ts, value(s))).collect()
    };
    agrees(&page::section(&text, "Equity"), "equity", "a", &of(&|s| s.equity));
    let equity: Vec<f64> = samples.iter().map(|s| s.equity).collect();
    let down = figures::drawdowns(1e6, &equity);
    let points: Vec<(i64, f64)> = samples.iter().map(|s| s.ts).zip(down).collect();
    agrees(&page::section(&text, "Drawdown"), "drawdown", "loss", &points);
    let exposure = page::section(&text, "Exposure");
    agrees(&exposure, "gross", "c", &of(&|s| s.gross / s.equity));
    agrees(&exposure, "net", "a", &of(&|s| s.net / s.equity));

    let closes = figures::closes(&samples, figures::MINUTE);
    let returns = figures::returns(1e6, &closes);
    let year = returns.len() as f64 * 252.0;
    let window = (returns.len() / 5).clamp(10, 126);
    // Before the first trade nothing varies: there is no ratio.
    let rolling: Vec<(i64, f64)> = (window..=returns.len())
        .map(|to| (closes[to - 1].0, figures::sharpe(&returns[to - window..to]) * year.sqrt()))
        .filter(|(_, ratio)| ratio.is_finite())
        .collect();
    agrees(&page::section(&text, "Rolling Sharpe"), "Sharpe ratio", "d", &rolling);

    // The loss that a twentieth of the returns before was beyond, and what the period brought.
    let risk = page::section(&text, "VaR against gains");
    let window = (returns.len() / 4).clamp(20, 250);
    let before = |i: usize| if i == 0 { 1e6 } else { closes[i - 1].1 };
    let var = |i: usize| figures::quantile(&returns[i - window..i], 0.05);
    let all = || window..returns.len();
    let limits: Vec<(i64, f64)> = all().map(|i| (closes[i].0, var(i) * before(i))).collect();
    agrees(&risk, "VaR 95 %", "b", &limits);
    for (x, gain) in risk.hovers("gain") {
        let i = closes.iter().position(|c| shown(c.0) == x).unwrap();
        assert!(page::shows(gain, closes[i].1 - before(i)), "{gain} at {x}");
    }
    let breaches = all().filter(|i| returns[*i] < var(*i)).count();
    assert!(breaches > 0);
    assert_eq!(risk.count("<circle"), breaches);
    let said = format!("{breaches} of {} periods lost more than the VaR of the {window} before", all().len());
    assert!(risk.text().contains(&said), "{said}");

    let months = page::section(&text, "Returns by month").cells();
    let total = samples[samples.len() - 1].equity / 1e6 - 1.0;
    // October, the year, and the one day.
    for cell in [months[1][9], months[1][12], months[3][0]] {
        assert!(page::shows(cell, total), "{cell} and {total}");
    }
}
