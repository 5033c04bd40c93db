//! What a backtest prints.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::backtest::look_ahead::Checked;
use crate::backtest::runner::Run;
use crate::backtest::summary::{Figure, Summary, rfc3339};
use crate::backtest::sweep::{Trial, ranked};
use crate::backtest::tables::chosen;
use crate::backtest::walk_forward::{Walk, figures};
use crate::report::text;

/// Variants that are printed.
const LISTED: usize = 15;

/// The figures of a run.
pub fn text(summary: &Summary, run: &Run, notes: &[String]) -> String {
    let mut out = String::new();
    for note in notes {
        let _ = writeln!(out, "{note}");
    }
    let seconds = run.took.as_secs_f64();
    let _ = writeln!(
        out,
        "{} events in {seconds:.2}s: {} M/s\n{} to {} UTC",
        text::number(run.events as f64, 0),
        text::number(run.events as f64 / seconds.max(1e-9) / 1e6, 2),
        text::time(summary.range.0),
        text::time(summary.range.1),
    );
    // Three columns of pairs, read downwards.
    let rows = summary.figures.len().div_ceil(3);
    let mut table = plain();
    for i in 0..rows {
        let pair = |figure: Option<&Figure>| {
            figure.map_or([String::new(), String::new()], |f| [f.label.to_owned(), f.text()])
        };
        table.add_row((0..3).flat_map(|c| pair(summary.figures.get(i + c * rows))));
    }
    right(&mut table, &[1, 3, 5]);
    let _ = writeln!(out, "{table}");
    out
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

const FIGURES: [&str; 5] = ["total_return", "sharpe", "max_drawdown", "trades", "costs"];

fn shown(summary: Option<&Summary>, name: &str) -> String {
    let figure = summary.and_then(|s| s.figures.iter().find(|f| f.name == name));
    figure.map_or(text::NONE.into(), Figure::text)
}

/// The best of a sweep.
pub fn sweep(trials: &[Trial], metric: &str) -> String {
    let mut table = plain();
    let own = trials.first().map_or(Vec::new(), |t| t.task.sets.iter().map(|s| s.0.clone()).collect());
    let figures: Vec<&str> =
        std::iter::once(metric).chain(FIGURES.into_iter().filter(|f| *f != metric)).collect();
    table.set_header(own.iter().cloned().chain(figures.iter().map(|f| f.replace('_', " "))));
    for trial in ranked(trials, metric).into_iter().take(LISTED) {
        let sets = trial.task.sets.iter().map(|s| s.1.clone());
        match &trial.outcome {
            Ok(summary) => table.add_row(sets.chain(figures.iter().map(|f| shown(Some(summary), f)))),
            Err(why) => table.add_row(sets.chain([why.clone()])),
        };
    }
    right(&mut table, &(own.len()..own.len() + figures.len()).collect::<Vec<_>>());
    let failed = trials.iter().filter(|t| t.outcome.is_err()).count();
    format!(
        "\n{} variants by {metric}, {failed} could not be run; the figures above are of the best\n{table}\n",
        trials.len()
    )
}

/// The folds of a walk-forward.
pub fn walk(walk: &Walk, metric: &str) -> String {
    let mut table = plain();
    let (train, test) = (format!("{metric} train"), format!("{metric} test"));
    table.set_header(["test from", "to", "chosen", &train, &test, "return", "drawdown", "trades"]);
    for fold in &walk.folds {
        let of = |name: &str| shown(figures(&fold.test), name);
        table.add_row([
            text::minute(fold.fold.test.0),
            text::minute(fold.fold.test.1),
            chosen(&fold.train),
            shown(figures(&fold.train), metric),
            of(metric),
            of("total_return"),
            of("max_drawdown"),
            of("trades"),
        ]);
    }
    right(&mut table, &[3, 4, 5, 6, 7]);
    let or_none = |v: Option<f64>, f: fn(f64, usize) -> String| v.map_or(text::NONE.into(), |v| f(v, 2));
    format!(
        "\nwalk-forward, out of sample: return {}, Sharpe {}, deepest drawdown {}\n{table}\n",
        or_none(walk.total_return(), text::percent),
        or_none(walk.sharpe(), text::number),
        or_none(walk.max_drawdown(), text::percent),
    )
}

/// What the look-ahead check has seen.
pub fn checked(checked: &Checked) -> String {
    let mut out = String::new();
    for finding in &checked.findings {
        let _ = writeln!(out, "{finding}");
    }
    let verdict = match checked.findings.len() {
        0 => "no row knew the future".to_owned(),
        n => format!("at {n} of them a row knew the future"),
    };
    let _ = writeln!(
        out,
        "look-ahead check: {} rows of {} operators compared at {} instants: {verdict}",
        text::number(checked.rows as f64, 0),
        checked.nodes,
        checked.cuts.len()
    );
    out
}

/// The same as JSON.
pub fn checked_json(checked: &Checked) -> Value {
    let findings = checked.findings.iter().map(|f| {
        json!({ "node": f.node, "row": f.row, "ts": rfc3339(f.ts), "cut": rfc3339(f.cut), "message": f.to_string() })
    });
    json!({
        "rows": checked.rows,
        "operators": checked.nodes,
        "instants": checked.cuts.iter().map(|c| rfc3339(*c)).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn variables(trial: &Trial) -> Value {
    Value::Object(trial.task.sets.iter().map(|(n, v)| (n.clone(), json!(v))).collect::<Map<_, _>>())
}

fn outcome(trial: &Trial) -> Value {
    match &trial.outcome {
        Ok(summary) => json!({ "set": variables(trial), "summary": summary.json() }),
        Err(why) => json!({ "set": variables(trial), "error": why }),
    }
}

/// All trials, from best to worst.
pub fn sweep_json(trials: &[Trial], metric: &str) -> Value {
    let ranked: Vec<Value> = ranked(trials, metric).into_iter().map(outcome).collect();
    json!({ "metric": metric, "trials": ranked })
}

/// All folds.
pub fn walk_json(walk: &Walk, metric: &str) -> Value {
    let window = |range: (i64, i64)| json!({ "from": rfc3339(range.0), "to": rfc3339(range.1) });
    let folds = walk.folds.iter().map(|f| {
        json!({
            "train": window(f.fold.train),
            "test": window(f.fold.test),
            "tried": f.tried,
            "chosen": f.train.as_ref().map(variables),
            "in_training": f.train.as_ref().map(outcome),
            "in_test": f.test.as_ref().map(outcome),
        })
    });
    json!({
        "metric": metric,
        "total_return": walk.total_return(),
        "sharpe": walk.sharpe(),
        "max_drawdown": walk.max_drawdown(),
        "kept": walk.kept(metric),
        "folds": folds.collect::<Vec<_>>(),
    })
}
