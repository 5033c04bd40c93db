//! Many runs of one graph with other values of its variables, on all cores.
//!
//! Each run is single and in this process, over history that is read once. Results stand in the order of the grid,
//! whichever run ended first. A point that cannot be planned (its values make no sense together) or fails is a result too.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use tidemill_risk::performance;

use super::account::{self, Terms};
use super::columns::Rows;
use super::curve::Periods;
use super::notes;
use super::range::Range;
use super::runner::{Planned, Run, Runner, Set};
use super::summary::{LESS_IS_BETTER, Summary};
use crate::commands::run::ShowProgress;

/// A point of a grid over some range of time.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its variables.
    pub sets: Vec<Set>,
    /// Rows that are read.
    pub range: Range,
    /// Rows that count, within it.
    pub counts: Range,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The point.
    pub task: Task,
    /// Its figures, or why there are none.
    pub outcome: Result<Summary, String>,
}

impl Trial {
    /// Its figure of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.outcome.as_ref().ok()?.get(name)
    }
}

/// Reads the account out of a run.
pub fn account(planned: &Planned, run: &Run, range: Range) -> anyhow::Result<(account::Account, Terms)> {
    let name = planned.changed.execution.as_deref().unwrap_or_default();
    let with = planned.spec.node(name).map(|n| &n.written).unwrap_or(&serde_json::Value::Null);
    let mut terms = Terms::new(with);
    // As it was traded: the venue is the one that the backtest put there.
    terms.free = planned.spec.node(name).map(|n| notes::free(&n.with)).unwrap_or_default();
    let (schema, batches) =
        run.rows.get(name).ok_or_else(|| anyhow::anyhow!("nothing was captured of `{name}`"))?;
    let rows = Rows::new(schema, batches)?;
    Ok((account::read(&rows, &terms, range), terms))
}

/// Runs one point.
fn trial(runner: &Runner, task: &Task, periods: Periods) -> Result<Summary, String> {
    let planned = match runner.plan(&task.sets).map_err(|e| format!("{e:#}"))? {
        Ok(planned) => planned,
        Err(errors) => {
            let first = errors.problems.first().map(|p| p.problem.to_string());
            return Err(first.unwrap_or_else(|| "the graph cannot be planned".into()));
        }
    };
    let run = runner.run(&planned, task.range, ShowProgress::Off).map_err(|e| format!("{e:#}"))?;
    let (account, _) = account(&planned, &run, task.counts).map_err(|e| format!("{e:#}"))?;
    Ok(Summary::of(&account, &run.prices, periods, None))
}

/// Runs all tasks, `threads` at a time.
pub fn run(
    runner: &Runner,
    tasks: &[Task],
    periods: Periods,
    threads: usize,
    what: &str,
    show: bool,
) -> anyhow::Result<Vec<Trial>> {
    let bar = if show { ProgressBar::new(tasks.len() as u64) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(what.to_owned());
    let results: Vec<Mutex<Option<Trial>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let one = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(i).filter(|_| !runner.stop.is_cancelled()) else { return };
            let outcome = trial(runner, task, periods);
            *results[i].lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Trial { task: task.clone(), outcome });
            bar.inc(1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, tasks.len().max(1)) {
            scope.spawn(one);
        }
    });
    bar.finish_and_clear();
    if runner.stop.is_cancelled() {
        anyhow::bail!("stopped before all runs had ended");
    }
    Ok(results.into_iter().filter_map(|r| r.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

/// The trials from best to worst by a figure: those without it come last, equal ones in the order of the grid.
pub fn ranked<'a>(trials: &'a [Trial], metric: &str) -> Vec<&'a Trial> {
    let less = LESS_IS_BETTER.contains(&metric);
    let mut ranked: Vec<&Trial> = trials.iter().collect();
    let key = |t: &Trial| t.get(metric).map(|v| if less { -v } else { v }).unwrap_or(f64::NEG_INFINITY);
    ranked.sort_by(|a, b| key(b).total_cmp(&key(a)));
    ranked
}

/// How many variants were tried, and the variance of their Sharpe ratios by period: what the best of them is deflated by
/// (Bailey and Lopez de Prado 2014).
pub fn effort(trials: &[Trial]) -> (usize, f64) {
    let by_period = |t: &Trial| {
        let per_year = t.outcome.as_ref().ok()?.returns.per_year;
        Some(t.get("sharpe")? / per_year.sqrt())
    };
    let ratios: Vec<f64> = trials.iter().filter_map(by_period).filter(|v| v.is_finite()).collect();
    let tried = trials.iter().filter(|t| t.outcome.is_ok()).count();
    (tried.max(1), performance::variance(&ratios).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::summary::{Figure, Unit};
    use super::*;

    fn made(sharpe: Option<f64>, volatility: f64) -> Trial {
        let figure = |name, value| Figure { name, label: name, unit: Unit::Ratio, value };
        let figures = vec![figure("sharpe", sharpe), figure("volatility", Some(volatility))];
        let mut summary = Summary { figures, ..Summary::default() };
        summary.returns.per_year = 4.0;
        let task = Task { sets: Vec::new(), range: (0, 1), counts: (0, 1) };
        Trial { task, outcome: Ok(summary) }
    }

    #[test]
    fn the_best_comes_first_and_what_failed_last() {
        let mut trials = vec![made(Some(1.0), 3.0), made(None, 1.0), made(Some(3.0), 2.0)];
        trials.push(Trial { task: trials[0].task.clone(), outcome: Err("no".into()) });
        let by = |metric| ranked(&trials, metric).iter().map(|t| t.get("volatility")).collect::<Vec<_>>();
        assert_eq!(by("sharpe"), [Some(2.0), Some(3.0), Some(1.0), None]);
        assert_eq!(by("volatility"), [Some(1.0), Some(2.0), Some(3.0), None]);
        // Sharpe ratios of 0.5 and 1.5 a period.
        assert_eq!(effort(&trials), (3, 0.5));
    }
}
