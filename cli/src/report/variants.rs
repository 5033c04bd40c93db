//! The parts of a report that compare variants: a sweep, and a walk-forward.

use super::chart::{Chart, Series, Shape, X};
use super::table::{Cell, Heat, Table};
use super::{Report, SweepPart, section, text};
use crate::backtest::summary::Figure;
use crate::backtest::sweep::{Trial, ranked};
use crate::backtest::tables::chosen;
use crate::backtest::walk_forward::Walk;

/// Variants that are listed.
const LISTED: usize = 25;
/// Rows or columns that a heat map has at most.
const HEAT_MAX: usize = 60;
/// Figures shown of a variant.
const FIGURES: [&str; 7] =
    ["total_return", "sharpe", "sortino", "max_drawdown", "profit_factor", "trades", "costs"];

/// Both, where they are there.
pub fn write(out: &mut String, report: &Report) {
    if let Some(sweep) = &report.sweep {
        swept(out, report, sweep);
    }
    if let Some((walk, metric)) = report.walk {
        walked(out, walk, metric);
    }
}

fn figure<'a>(trial: &'a Trial, name: &str) -> Option<&'a Figure> {
    trial.outcome.as_ref().ok()?.figures.iter().find(|f| f.name == name)
}

fn shown(trial: &Trial, name: &str) -> Cell {
    match figure(trial, name) {
        Some(f) if f.name.ends_with("return") => Cell::signed(f.value.unwrap_or(0.0), f.text()),
        Some(f) => Cell::text(f.text()),
        None => Cell::text(text::NONE),
    }
}

fn swept(out: &mut String, report: &Report, sweep: &SweepPart) {
    let failed = sweep.trials.iter().filter(|t| t.outcome.is_err()).count();
    let deflated = report.summary.figures.iter().find(|f| f.name == "deflated_sharpe").map(Figure::text);
    let about = format!(
        "{} variants, ordered by {}; {failed} could not be run. This report is of the best. After so many trials the probability that its \
         true Sharpe ratio is above zero is {} (deflated Sharpe ratio).",
        sweep.trials.len(),
        sweep.metric,
        deflated.unwrap_or_default()
    );
    let mut inner = heat(sweep).unwrap_or_default();
    let names: Vec<String> = sweep
        .trials
        .first()
        .map_or(Vec::new(), |t| t.task.sets.iter().map(|s| format!("<{}", s.0)).collect());
    let mut heads: Vec<&str> = names.iter().map(String::as_str).collect();
    let figures: Vec<&str> = std::iter::once(sweep.metric).chain(FIGURES).collect();
    let figures: Vec<&str> =
        figures.iter().enumerate().filter(|(i, f)| !figures[..*i].contains(f)).map(|(_, f)| *f).collect();
    let labels: Vec<String> = figures.iter().map(|f| f.replace('_', " ")).collect();
    heads.extend(labels.iter().map(String::as_str));
    let mut table = Table::new(&heads);
    for trial in ranked(sweep.trials, sweep.metric).into_iter().take(LISTED) {
        let mut row: Vec<Cell> = trial.task.sets.iter().map(|s| Cell::text(&s.1)).collect();
        match &trial.outcome {
            Ok(_) => row.extend(figures.iter().map(|f| shown(trial, f))),
            Err(why) => row.push(Cell::wrapped(why)),
        }
        table.row(&row);
    }
    if sweep.trials.len() > LISTED {
        inner += &format!("<h3>The best {LISTED}; all are in sweep.parquet</h3>");
    }
    inner += &table.html();
    section(out, "Sweep", &text::escape(&about), &inner);
}

/// A map of the first two variables: of each pair the best by the others.
fn heat(sweep: &SweepPart) -> Option<String> {
    let sets = &sweep.trials.first()?.task.sets;
    if sets.len() < 2 {
        return None;
    }
    let distinct = |axis: usize| {
        let mut values: Vec<&str> = Vec::new();
        for trial in sweep.trials {
            let value = trial.task.sets[axis].1.as_str();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    };
    let (rows, columns) = (distinct(0), distinct(1));
    if rows.len() > HEAT_MAX || columns.len() > HEAT_MAX {
        return None;
    }
    let best = |row: &str, column: &str| {
        let there = sweep.trials.iter().filter(|t| t.task.sets[0].1 == row && t.task.sets[1].1 == column);
        let trials: Vec<Trial> = there.cloned().collect();
        ranked(&trials, sweep.metric).first().and_then(|t| t.get(sweep.metric))
    };
    let percent = sweep
        .trials
        .iter()
        .find_map(|t| figure(t, sweep.metric))
        .is_some_and(|f| f.unit == crate::backtest::summary::Unit::Percent);
    let map = Heat {
        corner: &format!("{} \\ {}", sets[0].0, sets[1].0),
        columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        rows: rows.iter().map(|r| ((*r).to_owned(), columns.iter().map(|c| best(r, c)).collect())).collect(),
        format: if percent { |v| text::percent(v, 2) } else { |v| text::number(v, 2) },
    };
    Some(format!(
        "<h3>{} by {} and {}</h3>{}",
        text::escape(sweep.metric),
        text::escape(&sets[0].0),
        text::escape(&sets[1].0),
        map.html()
    ))
}

fn walked(out: &mut String, walk: &Walk, metric: &str) {
    let or_none = |v: Option<f64>, f: fn(f64, usize) -> String| v.map_or(text::NONE.into(), |v| f(v, 2));
    let about = format!(
        "Each fold's variant was chosen by its {metric} in training, and judged by the test after it. Out of sample: return {}, Sharpe {}, \
         deepest drawdown {}. Tests kept {} of the {metric} that training promised.",
        or_none(walk.total_return(), text::percent),
        or_none(walk.sharpe(), text::number),
        or_none(walk.max_drawdown(), text::percent),
        or_none(walk.kept(metric), text::percent),
    );
    let chart = Chart {
        label: "equity out of sample".into(),
        x: X::Time,
        y_format: text::number,
        zero: false,
        height: 230.0,
        half: false,
        series: vec![Series {
            name: String::new(),
            class: "d",
            shape: Shape::Line,
            points: walk.curve.iter().map(|p| (p.ts as f64, p.equity)).collect(),
        }],
        lines: walk.folds.iter().map(|f| (f.fold.test.0 as f64, String::new(), "b")).collect(),
    };
    let labels = [format!("{metric} in training"), format!("{metric} in test")];
    let mut table = Table::new(&[
        "<train from",
        "<to",
        "<test from",
        "<to",
        "<chosen",
        &labels[0],
        &labels[1],
        "return",
        "drawdown",
        "trades",
    ]);
    for fold in &walk.folds {
        let of = |trial: &Option<Trial>, name: &str| {
            trial.as_ref().map_or(Cell::text(text::NONE), |t| shown(t, name))
        };
        table.row(&[
            Cell::text(text::minute(fold.fold.train.0)),
            Cell::text(text::minute(fold.fold.train.1)),
            Cell::text(text::minute(fold.fold.test.0)),
            Cell::text(text::minute(fold.fold.test.1)),
            Cell::text(chosen(&fold.train)),
            of(&fold.train, metric),
            of(&fold.test, metric),
            of(&fold.test, "total_return"),
            of(&fold.test, "max_drawdown"),
            of(&fold.test, "trades"),
        ]);
    }
    section(out, "Walk-forward", &text::escape(&about), &format!("{}{}", chart.svg(), table.html()));
}
