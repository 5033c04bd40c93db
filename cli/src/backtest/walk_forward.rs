//! Walk-forward: on each fold the best point of the grid by the past, judged by what came after.

use tidemill_engine::duration::Span;

use super::curve::{DAY, Periods, Point, Returns, SECOND};
use super::folds::Fold;
use super::runner::{Runner, Set};
use super::summary::Summary;
use super::sweep::{self, Task, Trial};

/// One fold and what came of it.
#[derive(Clone, Debug)]
pub struct Walked {
    /// Its windows.
    pub fold: Fold,
    /// Variants that were tried on its training.
    pub tried: usize,
    /// What was chosen, with its figures in training; `None` where nothing could be run.
    pub train: Option<Trial>,
    /// The same on the test.
    pub test: Option<Trial>,
}

/// Everything that came of a walk-forward.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The folds.
    pub folds: Vec<Walked>,
    /// Returns of the tests, one after the other.
    pub returns: Returns,
    /// What the equity at the start would have become by these.
    pub curve: Vec<Point>,
}

/// Runs the grid on each fold's training, and the best point on its test.
pub fn run(
    runner: &Runner,
    grid: &[Vec<Set>],
    folds: &[Fold],
    metric: &str,
    periods: Periods,
    threads: usize,
    show: bool,
) -> anyhow::Result<Walk> {
    let periods = alike(periods, folds);
    let task =
        |sets: &Vec<Set>, fold: &Fold, counts| Task { sets: sets.clone(), range: fold.read(counts), counts };
    let training: Vec<Task> =
        folds.iter().flat_map(|fold| grid.iter().map(move |sets| task(sets, fold, fold.train))).collect();
    let trained = sweep::run(runner, &training, periods, threads, "train", show)?;
    let mut walked: Vec<Walked> = Vec::new();
    for (fold, trials) in folds.iter().zip(trained.chunks(grid.len().max(1))) {
        let best =
            sweep::ranked(trials, metric).first().filter(|t| t.get(metric).is_some()).map(|t| (*t).clone());
        let tried = trials.iter().filter(|t| t.outcome.is_ok()).count();
        walked.push(Walked { fold: *fold, tried, train: best, test: None });
    }
    let chosen: Vec<(usize, Task)> = walked
        .iter()
        .enumerate()
        .filter_map(|(i, w)| Some((i, task(&w.train.as_ref()?.task.sets, &w.fold, w.fold.test))))
        .collect();
    let tasks: Vec<Task> = chosen.iter().map(|(_, task)| task.clone()).collect();
    let tested = sweep::run(runner, &tasks, periods, threads, "test", show)?;
    for ((i, _), trial) in chosen.iter().zip(tested) {
        walked[*i].test = Some(trial);
    }
    let (returns, curve) = stitch(&walked);
    Ok(Walk { folds: walked, returns, curve })
}

/// Periods of one length for all windows: what the shortest test has enough of.
fn alike(periods: Periods, folds: &[Fold]) -> Periods {
    let shortest = folds.iter().map(|f| f.test.1 - f.test.0).min().unwrap_or_default();
    let every = match shortest {
        s if s >= 30 * DAY => DAY,
        s if s >= 2 * DAY => 3600 * SECOND,
        _ => 60 * SECOND,
    };
    Periods { every: periods.every.or(Some(Span::from_ns(every))), ..periods }
}

/// The tests' returns end to end, as one account that compounds.
fn stitch(folds: &[Walked]) -> (Returns, Vec<Point>) {
    let tests = || folds.iter().filter_map(|f| f.test.as_ref()?.outcome.as_ref().ok());
    let start = tests().find_map(|s| s.get("start_equity")).unwrap_or(0.0);
    let mut all = Returns::default();
    let mut curve = Vec::new();
    let mut equity = start;
    for summary in tests() {
        all.every = summary.returns.every;
        all.per_year = all.per_year.max(summary.returns.per_year);
        all.year_days = summary.returns.year_days;
        curve.push(Point { ts: summary.range.0, equity, ..Point::default() });
        for (end, r) in summary.returns.ends.iter().zip(&summary.returns.values) {
            all.ends.push(*end);
            all.values.push(*r);
            all.gains.push(equity * r);
            equity *= 1.0 + r;
            curve.push(Point { ts: *end, equity, ..Point::default() });
        }
    }
    (all, curve)
}

impl Walk {
    /// A figure of the stitched tests.
    pub fn total_return(&self) -> Option<f64> {
        tidemill_risk::performance::total_return(&self.returns.values)
    }

    /// The Sharpe ratio of the stitched tests.
    pub fn sharpe(&self) -> Option<f64> {
        tidemill_risk::performance::sharpe(&self.returns.values, self.returns.per_year)
    }

    /// The deepest drawdown of the stitched tests.
    pub fn max_drawdown(&self) -> Option<f64> {
        tidemill_risk::performance::max_drawdown(&self.returns.values)
    }

    /// What the tests gave, over what training promised, on average of the folds that have both: near 1 where it lasts, near 0
    /// where training was luck. `None` where training promised nothing.
    pub fn kept(&self, metric: &str) -> Option<f64> {
        let pairs = self
            .folds
            .iter()
            .filter_map(|f| Some((f.train.as_ref()?.get(metric)?, f.test.as_ref()?.get(metric)?)));
        let (train, test): (Vec<f64>, Vec<f64>) = pairs.unzip();
        let sum: f64 = train.iter().sum();
        (sum > 0.0).then(|| test.iter().sum::<f64>() / sum)
    }
}

/// The figures of a fold's window.
pub fn figures(trial: &Option<Trial>) -> Option<&Summary> {
    trial.as_ref()?.outcome.as_ref().ok()
}
