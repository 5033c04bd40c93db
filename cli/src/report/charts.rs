//! The charts of a report: how the account went.

use tidemill_risk::performance::{self, Drawdown};
use tidemill_risk::var_test::VarTest;

use super::chart::{Chart, Series, Shape, X};
use super::table::Heat;
use super::{Report, section, text};
use crate::backtest::curve::{self, DAY, Point, Returns};

/// Confidence of the VaR that is shown.
const LEVEL: f64 = 0.95;
/// Returns that a VaR is measured from, at the least.
const VAR_WINDOW_MIN: usize = 20;

/// All charts of the account.
pub fn write(out: &mut String, report: &Report) {
    if report.account.curve.len() < 2 {
        section(
            out,
            "Nothing happened",
            "The account has fewer than two samples: there is nothing to draw.",
            "",
        );
        return;
    }
    let returns = &report.summary.returns;
    equity(out, report);
    drawdown(out, report);
    out.push_str("<div class=\"grid2\">");
    exposure(out, report);
    rolling(out, returns);
    histogram(out, returns);
    value_at_risk(out, returns, report.account.start);
    out.push_str("</div>");
    months(out, report);
}

fn time(points: &[Point], value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    points.iter().map(|p| (p.ts as f64, value(p))).collect()
}

fn show(out: &mut String, title: &str, about: &str, chart: &Chart) {
    let legend = chart.legend();
    let about = match (legend.is_empty(), about.is_empty()) {
        (true, _) => text::escape(about),
        (false, true) => legend,
        (false, false) => format!("{legend}{}", text::escape(about)),
    };
    section(out, title, &about, &chart.svg());
}

fn series(name: &str, class: &'static str, shape: Shape, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), class, shape, points }
}

fn equity(out: &mut String, report: &Report) {
    let account = report.account;
    let mut lines = Vec::new();
    if let Some((symbol, prices)) = report.benchmark {
        let (from, to) = report.summary.range;
        let inside = || prices.iter().filter(|p| (from..=to).contains(&p.0));
        if let Some(first) = inside().next() {
            let points = inside().map(|p| (p.0 as f64, account.start * p.1 / first.1)).collect();
            lines.push(series(&format!("{symbol}, held"), "c", Shape::Line, points));
        }
    }
    lines.push(series("equity", "a", Shape::Line, time(&account.curve, |p| p.equity)));
    let chart = Chart {
        label: "equity".into(),
        x: X::Time,
        y_format: text::number,
        zero: false,
        height: 320.0,
        half: false,
        series: lines,
        lines: Vec::new(),
    };
    show(out, "Equity", "", &chart);
}

fn drawdown(out: &mut String, report: &Report) {
    let mut stream = Drawdown::new();
    stream.observe(report.summary.range.0, report.account.start);
    let points = report.account.curve.iter().map(|p| {
        let down = stream.observe(p.ts, p.equity).unwrap_or(f64::NAN);
        (p.ts as f64, down)
    });
    let chart = Chart {
        label: "drawdown".into(),
        x: X::Time,
        y_format: |v, d| text::percent(v, d.saturating_sub(2)),
        zero: true,
        height: 170.0,
        half: false,
        series: vec![series("", "loss", Shape::Area, points.collect())],
        lines: Vec::new(),
    };
    show(out, "Drawdown", "Equity below its peak.", &chart);
}

fn exposure(out: &mut String, report: &Report) {
    let over = |value: f64, p: &Point| if p.equity > 0.0 { value / p.equity } else { f64::NAN };
    let curve = &report.account.curve;
    let chart = Chart {
        label: "exposure".into(),
        x: X::Time,
        y_format: |v, d| text::percent(v, d.saturating_sub(2)),
        zero: true,
        height: 230.0,
        half: true,
        series: vec![
            series("gross", "c", Shape::Area, time(curve, |p| over(p.gross, p))),
            series("net", "a", Shape::Line, time(curve, |p| over(p.net, p))),
        ],
        lines: Vec::new(),
    };
    show(out, "Exposure", "as part of equity", &chart);
}

fn rolling(out: &mut String, returns: &Returns) {
    let n = returns.values.len();
    let window = (n / 5).clamp(10, 126);
    let values = performance::rolling_sharpe(&returns.values, window, returns.per_year);
    if values.len() < 2 {
        return section(out, "Rolling Sharpe", "Too few periods.", "");
    }
    let ends = returns.ends.iter().skip(window - 1);
    let points = ends.zip(&values).map(|(end, v)| (*end as f64, v.unwrap_or(f64::NAN))).collect();
    let chart = Chart {
        label: "Sharpe ratio".into(),
        x: X::Time,
        y_format: text::number,
        zero: true,
        height: 230.0,
        half: true,
        series: vec![series("", "d", Shape::Line, points)],
        lines: Vec::new(),
    };
    let about = format!("A year, over the last {window} periods of {}.", text::span(returns.every));
    show(out, "Rolling Sharpe", &about, &chart);
}

fn histogram(out: &mut String, returns: &Returns) {
    let values = &returns.values;
    let (low, high) = super::scale::extent(values.iter().copied());
    if values.len() < 5 || low == high {
        return section(out, "Returns", "Too few periods.", "");
    }
    let bins = ((values.len() as f64).sqrt() * 1.5).clamp(10.0, 60.0) as usize;
    let width = (high - low) / bins as f64;
    let mut counts = vec![0u32; bins];
    for v in values {
        counts[(((v - low) / width) as usize).min(bins - 1)] += 1;
    }
    let points =
        counts.iter().enumerate().map(|(i, n)| (low + (i as f64 + 0.5) * width, f64::from(*n))).collect();
    let line = |level: f64, class| {
        let name = format!("VaR {} %", level * 100.0);
        performance::historical_var(values, level).map(|v| (v, name, class))
    };
    let chart = Chart {
        label: "periods".into(),
        x: X::Number,
        y_format: |v, _| text::number(v, 0),
        zero: true,
        height: 230.0,
        half: true,
        series: vec![series("", "a", Shape::Bars, points)],
        lines: [line(0.95, "b"), line(0.99, "loss")].into_iter().flatten().collect(),
    };
    let about = format!("How often each return came, by period of {}.", text::span(returns.every));
    show(out, "Returns", &about, &chart);
}

/// VaR by the returns before each period, against what the period brought.
fn value_at_risk(out: &mut String, returns: &Returns, start: f64) {
    let n = returns.values.len();
    let window = (n / 4).clamp(VAR_WINDOW_MIN, 250);
    if n < window + 5 {
        return section(out, "VaR against gains", "Too few periods.", "");
    }
    let mut test = VarTest::default();
    let (mut limit, mut breaches, mut gains) = (Vec::new(), Vec::new(), Vec::new());
    // Equity before the period is what the gain is a return of.
    let mut before = start + returns.gains[..window].iter().sum::<f64>();
    for i in window..n {
        let (r, gain) = (returns.values[i], returns.gains[i]);
        let equity = before;
        before += gain;
        let Some(var) = performance::historical_var(&returns.values[i - window..i], LEVEL) else { continue };
        test.observe(r, var);
        let x = returns.ends[i] as f64;
        limit.push((x, var * equity));
        if r < var {
            breaches.push((x, gain));
        }
        gains.push((x, gain));
    }
    let p = test.coverage(LEVEL).map_or(text::NONE.into(), |t| text::number(t.p_value, 3));
    let about = format!(
        "{} of {} periods lost more than the VaR of the {window} before ({} expected); Kupiec p = {p}",
        test.failures,
        test.periods,
        text::number(test.periods as f64 * (1.0 - LEVEL), 1),
    );
    let chart = Chart {
        label: "gain".into(),
        x: X::Time,
        y_format: text::number,
        zero: true,
        height: 230.0,
        half: true,
        series: vec![
            series("gain", "c", Shape::Bars, gains),
            series("VaR 95 %", "b", Shape::Step, limit),
            series("breach", "loss", Shape::Marks, breaches),
        ],
        lines: Vec::new(),
    };
    show(out, "VaR against gains", &about, &chart);
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Returns by month, and by day where the history is short.
fn months(out: &mut String, report: &Report) {
    let (from, to) = report.summary.range;
    let start = std::iter::once((from, report.account.start));
    let points = start.chain(report.account.curve.iter().map(|p| (p.ts, p.equity)));
    let months = performance::monthly_returns(points);
    let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    for month in &months {
        let year = month.year.to_string();
        if rows.last().is_none_or(|r| r.0 != year) {
            rows.push((year, vec![None; 13]));
        }
        if let Some((_, row)) = rows.last_mut() {
            row[usize::from(month.month - 1)] = Some(month.value);
            let so_far = row[12].unwrap_or(0.0);
            row[12] = Some((1.0 + so_far) * (1.0 + month.value) - 1.0);
        }
    }
    let columns = MONTHS.iter().map(|m| (*m).to_owned()).chain(["Year".to_owned()]).collect();
    let heat = Heat { corner: "", columns, rows, format: |v| text::percent(v, 2) };
    let mut inner = heat.html();
    if to - from < 100 * DAY {
        let daily = curve::Periods {
            every: Some(tidemill_engine::duration::Span::from_ns(DAY)),
            year_days: Some(report.summary.returns.year_days),
        };
        let fills: Vec<i64> = report.account.fills.iter().map(|f| f.ts).collect();
        let days = curve::returns(&report.account.curve, &fills, report.account.start, daily);
        let row = days.values.iter().map(|v| Some(*v)).collect();
        let columns = days
            .ends
            .iter()
            .map(|end| chrono::DateTime::from_timestamp_nanos(end - 1).format("%b %-d").to_string());
        // One line of at most a month's days is still a line.
        if days.values.len() <= 31 {
            let heat = Heat {
                corner: "Days",
                columns: columns.collect(),
                rows: vec![("".into(), row)],
                format: |v| text::percent(v, 2),
            };
            inner += &heat.html();
        }
    }
    section(out, "Returns by month", "", &inner);
}
