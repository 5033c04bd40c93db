//! `tidemill backtest`: runs a graph over history, on paper, and says how it went.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDate, NaiveTime};
use serde_json::{Map, Value, json};
use tidemill_engine::duration::Span;
use tokio_util::sync::CancellationToken;

use super::VarArgs;
use super::replay::absolute;
use super::run::{ShowProgress, runtime, stop_on_signal};
use crate::backtest::account::{Account, Terms};
use crate::backtest::curve::Periods;
use crate::backtest::folds::Folds;
use crate::backtest::graph::Change;
use crate::backtest::grid::{self, Axis};
use crate::backtest::range::{ALWAYS, Range};
use crate::backtest::recorded::Library;
use crate::backtest::runner::{Planned, Run, Runner, Set};
use crate::backtest::sources::Archive;
use crate::backtest::summary::Summary;
use crate::backtest::sweep::{self, Task, Trial};
use crate::backtest::walk_forward::{self, Walk};
use crate::backtest::{columns, look_ahead, notes, tables};
use crate::report::{self, Report, SweepPart};

mod show;

/// Runs a graph over history, with its orders on paper
///
/// The graph is the live one. Sources that do not end are read from the archive's datasets of their names, or from what
/// --source says; every `execution` operator trades on the paper venue; sinks are left out. Into the folder --out go
/// report.html and the tables trades, fills, equity, positions, orders, rejections and events as Parquet. Exit code 1 where
/// the graph has a problem, the run fails or the look-ahead check finds something.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill backtest momentum.yaml --archive ./archive --from 2013-10-07 --to 2013-10-11 --benchmark SPY
  tidemill backtest momentum.yaml --source trades='data/trades_*.parquet' --sweep fast=4..16:2 --sweep slow=20..40:5
  tidemill backtest momentum.yaml --archive ./archive --sweep fast=4..16 --walk-forward folds=4,purge=1h,embargo=1h
  tidemill backtest momentum.yaml --archive ./archive --look-ahead-check
  tidemill sql --table fills=backtests/momentum/fills.parquet \"SELECT symbol, count(*) FROM fills GROUP BY 1\"")]
pub struct Args {
    /// The graph's file
    #[arg(value_name = "GRAPH")]
    graph: PathBuf,
    #[command(flatten)]
    vars: VarArgs,
    /// Rows before this are left out: a date or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Rows from this on are left out
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// Where sources that do not end are read from: each from the dataset of its name
    #[arg(long, value_name = "URL", env = "TIDEMILL_ARCHIVE")]
    archive: Option<String>,
    /// What a source is read from: Parquet, CSV or JSON lines files, or another dataset of the archive; may be given several times
    #[arg(long = "source", value_name = "NAME=PATH", value_parser = super::assignment)]
    sources: Vec<(String, String)>,
    /// Where results go; default: backtests/ and the graph's name
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The `execution` operator that is reported, where there are several
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Sets a field of the paper venue, such as latency=5ms; may be given several times
    #[arg(long, value_name = "FIELD=VALUE", value_parser = super::assignment)]
    paper: Vec<(String, String)>,
    /// A symbol of the market data to compare with
    #[arg(long, value_name = "SYMBOL")]
    benchmark: Option<String>,
    /// Also writes the rows of this source or operator, as NAME.parquet; may be given several times
    #[arg(long, value_name = "NODE")]
    keep: Vec<String>,
    /// Length of the periods that ratios are measured by; default: 1d, with fewer than 20 of them 1h, then 1m
    #[arg(long, value_name = "SPAN", value_parser = period)]
    period: Option<Span>,
    /// Trading days in a year; default: 252, or 365 where weekends are traded
    #[arg(long, value_name = "DAYS", value_parser = year_days)]
    year_days: Option<f64>,
    /// Runs the graph for each of a variable's values: NAME=A..B[:STEP] or NAME=A,B,C; several make a grid
    #[arg(long, value_name = "NAME=VALUES")]
    sweep: Vec<Axis>,
    /// The figure that sweeps are ordered by
    #[arg(long, value_name = "FIGURE", default_value = "sharpe")]
    metric: String,
    /// Chooses by the past and judges by what came after: folds=5[,train=SPAN][,test=SPAN][,purge=SPAN][,embargo=SPAN][,warmup=SPAN]
    #[arg(long, value_name = "FOLDS")]
    walk_forward: Option<Folds>,
    /// Runs again on history that ends at N instants, and fails where any earlier row of any operator changes
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "8", require_equals = true, value_parser = clap::value_parser!(u16).range(1..=1000))]
    look_ahead_check: Option<u16>,
    /// What the instants of the look-ahead check depend on
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Variants that were tried before this one, with other tools or by hand: deflates the Sharpe ratio
    #[arg(long, value_name = "N", conflicts_with = "sweep", value_parser = clap::value_parser!(u32).range(1..))]
    trials: Option<u32>,
    /// Runs of a sweep at once; default: one a core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Prints the figures as JSON
    #[arg(long)]
    json: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = ShowProgress::Off)]
    progress: ShowProgress,
}

/// A date or a time in UTC nanoseconds.
fn time(text: &str) -> Result<i64, String> {
    let parsed = DateTime::parse_from_rfc3339(text).ok().and_then(|t| t.timestamp_nanos_opt());
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let midnight = || date().and_then(|d| d.and_time(NaiveTime::MIN).and_utc().timestamp_nanos_opt());
    parsed
        .or_else(midnight)
        .ok_or_else(|| format!("`{text}` is not a time: write 2013-10-07 or 2013-10-07T13:30:00Z"))
}

fn period(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span < Span::from_ns(1_000_000_000) { Err("a period is 1s or longer".into()) } else { Ok(span) }
}

fn year_days(text: &str) -> Result<f64, String> {
    let days: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (1.0..=366.0).contains(&days) { Ok(days) } else { Err("a year has 1 to 366 trading days".into()) }
}

/// Exit code 1 where the graph has a problem, the run fails, or something knew the future.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        bail!("--from is not before --to: no row could be between them");
    }
    let mut runner = runner(&args)?;
    let points = grid::points(&args.sweep).map_err(anyhow::Error::msg)?;
    if let Some(axis) =
        args.sweep.iter().find(|axis| args.vars.sets.iter().any(|(name, _)| *name == axis.name))
    {
        bail!("`{}` is given by --set and by --sweep: leave one out", axis.name);
    }
    if let Some(count) = args.look_ahead_check {
        let (code, traded) = check(&mut runner, &args, count.into())?;
        if code != ExitCode::SUCCESS || !traded {
            return Ok(code);
        }
    }
    let many = args.walk_forward.is_some() || !args.sweep.is_empty();
    if many && runner.library.is_none() {
        runner.library = Some(Library::default());
    }
    let range = range(&args);
    let threads = args.threads.map_or_else(cores, usize::from);
    let live = !args.json && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let mut trials = Vec::new();
    let mut best: Vec<Set> = Vec::new();
    if !args.sweep.is_empty() && args.walk_forward.is_none() {
        let task = |sets: Vec<Set>| Task { sets, range, counts: range };
        let tasks: Vec<Task> = points.iter().cloned().map(task).collect();
        trials = sweep::run(&runner, &tasks, args.periods(), threads, "sweep", live)?;
        // What is wrong with every point is told as of any graph.
        if trials.iter().all(|t| t.outcome.is_err()) && planned(&runner, &tasks[0].sets)?.is_none() {
            return Ok(ExitCode::FAILURE);
        }
        best = chosen(&trials, &args.metric)?;
    }
    let Some(plan) = planned(&runner, &best)? else { return Ok(ExitCode::FAILURE) };
    let run = runner.run(&plan, range, args.progress)?;
    if run.events == 0 {
        bail!("no source has a row {}: nothing was traded", between(&args));
    }
    let (account, terms) = sweep::account(&plan, &run, range)?;
    if let Some(symbol) = args.benchmark.as_ref().filter(|_| run.prices.is_empty()) {
        bail!("--benchmark {symbol}: the market data has no prices of it");
    }
    let effort = match args.trials {
        Some(n) => Some((n as usize, by_chance(&account, &args))),
        None => (!trials.is_empty()).then(|| sweep::effort(&trials)),
    };
    let summary = Summary::of(&account, &run.prices, args.periods(), effort);
    let walk = match &args.walk_forward {
        Some(folds) => Some(walk(&runner, &args, folds, &points, &summary, threads, live)?),
        None => None,
    };
    let out = args.out.clone().unwrap_or_else(|| Path::new("backtests").join(&plan.spec.dataflow));
    let done = Done {
        args: &args,
        plan: &plan,
        run: &run,
        account: &account,
        terms: &terms,
        summary: &summary,
        trials: &trials,
        best: &best,
        walk: walk.as_ref(),
    };
    let files = done.write(&out, range)?;
    if args.json {
        println!("{:#}", done.json(&files));
    } else {
        print!("{}", show::text(&summary, &run, &done.notes()));
        if !trials.is_empty() {
            print!("{}", show::sweep(&trials, &args.metric));
        }
        if let Some(walk) = &walk {
            print!("{}", show::walk(walk, &args.metric));
        }
        println!("\n{}", out.join("report.html").display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The times that were asked for, in words.
fn between(args: &Args) -> String {
    match (args.from.map(report::text::time), args.to.map(report::text::time)) {
        (Some(from), Some(to)) => format!("from {from} to {to}"),
        (Some(from), None) => format!("from {from} on"),
        (None, Some(to)) => format!("before {to}"),
        (None, None) => "at all".into(),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn range(args: &Args) -> Range {
    (args.from.unwrap_or(ALWAYS.0), args.to.unwrap_or(ALWAYS.1))
}

impl Args {
    fn periods(&self) -> Periods {
        Periods { every: self.period, year_days: self.year_days }
    }
}

fn runner(args: &Args) -> anyhow::Result<Runner> {
    let mut paper = Map::new();
    for (name, value) in &args.paper {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
        paper.insert(name.clone(), value);
    }
    let url = args.archive.as_deref().map(absolute).transpose()?;
    let change = Change {
        archive: Archive { url, sources: args.sources.clone() },
        range: (args.from, args.to),
        account: args.account.clone(),
        paper: paper.into(),
        benchmark: args.benchmark.clone(),
        keep: args.keep.clone(),
        all: false,
    };
    let tokio = runtime(1)?;
    let stop = CancellationToken::new();
    tokio.spawn(stop_on_signal(stop.clone()));
    Ok(Runner {
        graph: args.graph.clone(),
        sets: args.vars.sets.clone(),
        change,
        registry: crate::registry::registry(),
        tokio,
        library: None,
        stop,
    })
}

/// Plans the graph; prints what is wrong with it and gives nothing where something is.
fn planned(runner: &Runner, sets: &[Set]) -> anyhow::Result<Option<Planned>> {
    match runner.plan(sets)? {
        Ok(planned) => Ok(Some(planned)),
        Err(errors) => {
            eprint!("{}", errors.render(crate::render::colours(&std::io::stderr())));
            eprintln!("{}", crate::render::count_problems(errors.problems.len()));
            Ok(None)
        }
    }
}

/// The look-ahead check: its exit code, and whether the graph trades at all.
fn check(runner: &mut Runner, args: &Args, count: usize) -> anyhow::Result<(ExitCode, bool)> {
    runner.library = Some(Library::default());
    runner.change.all = true;
    let Some(plan) = planned(runner, &[])? else { return Ok((ExitCode::FAILURE, false)) };
    let checked = look_ahead::check(runner, &plan, count, args.seed)?;
    runner.change.all = false;
    if checked.cuts.is_empty() {
        bail!("no operator gave a row, so there is nothing to check: do the sources have rows?");
    }
    let traded = plan.changed.execution.is_some();
    if args.json && (!traded || !checked.findings.is_empty()) {
        println!("{:#}", json!({ "look_ahead": show::checked_json(&checked) }));
    } else if !args.json {
        print!("{}", show::checked(&checked));
    }
    let code = if checked.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok((code, traded))
}

/// The variables of the best trial.
fn chosen(trials: &[Trial], metric: &str) -> anyhow::Result<Vec<Set>> {
    let Some(known) = trials.iter().find_map(|t| t.outcome.as_ref().ok()) else {
        let why = trials.iter().find_map(|t| t.outcome.as_ref().err()).cloned().unwrap_or_default();
        bail!("none of {} variants could be run: {why}", trials.len());
    };
    if !known.figures.iter().any(|f| f.name == metric) {
        let names: Vec<&str> = known.figures.iter().map(|f| f.name).collect();
        bail!("--metric {metric}: there is no such figure; one of {}", names.join(", "));
    }
    // Where none has the figure (no trial traded), the first that could be run stands for all.
    let best = sweep::ranked(trials, metric).into_iter().find(|t| t.outcome.is_ok());
    Ok(best.map(|t| t.task.sets.clone()).unwrap_or_default())
}

/// The variance of Sharpe ratios by period that trials without skill would show over so many periods: one over their number.
fn by_chance(account: &Account, args: &Args) -> f64 {
    let fills: Vec<i64> = account.fills.iter().map(|f| f.ts).collect();
    let returns = crate::backtest::curve::returns(&account.curve, &fills, account.start, args.periods());
    1.0 / returns.values.len().max(1) as f64
}

fn walk(
    runner: &Runner,
    args: &Args,
    folds: &Folds,
    points: &[Vec<Set>],
    summary: &Summary,
    threads: usize,
    live: bool,
) -> anyhow::Result<Walk> {
    // The history is what was asked for, else what there is.
    let history = (args.from.unwrap_or(summary.range.0), args.to.unwrap_or(summary.range.1 + 1));
    let folds = folds.over(history).map_err(|why| anyhow::anyhow!("--walk-forward: {why}"))?;
    let walk = walk_forward::run(runner, points, &folds, &args.metric, args.periods(), threads, live)?;
    if walk.folds.iter().all(|f| f.train.is_none()) {
        bail!(
            "--walk-forward: in no fold does a variant have the figure `{}`: no variant could be run or none traded; take longer training spans or fewer folds",
            args.metric
        );
    }
    Ok(walk)
}

/// Everything that is to be told.
struct Done<'a> {
    args: &'a Args,
    plan: &'a Planned,
    run: &'a Run,
    account: &'a Account,
    terms: &'a Terms,
    summary: &'a Summary,
    trials: &'a [Trial],
    best: &'a [Set],
    walk: Option<&'a Walk>,
}

impl Done<'_> {
    /// Writes the tables and the report.
    fn write(&self, out: &Path, range: Range) -> anyhow::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
        // What an earlier run left is not this one's.
        for name in ["sweep.parquet", "folds.parquet"] {
            let _ = std::fs::remove_file(out.join(name));
        }
        let name = self.plan.changed.execution.as_deref().unwrap_or_default();
        let mut files = Vec::new();
        for (node, (schema, batches)) in &self.run.rows {
            let rows = columns::Rows::new(schema, batches)?;
            if node == name {
                files.extend(tables::write(out, &rows, &self.account.trades, range)?);
            }
            if self.args.keep.contains(node) {
                files.push(tables::keep(out, node, rows.batch())?);
            }
        }
        if !self.trials.is_empty() {
            files.push(tables::sweep(out, self.trials)?);
        }
        if let Some(walk) = self.walk {
            files.push(tables::folds(out, walk, &self.args.metric)?);
        }
        let yaml = std::fs::read_to_string(&self.args.graph).unwrap_or_default();
        let settings = self.settings();
        let mut notes = self.notes();
        if self.walk.is_some() {
            notes.push("This page is of the graph's own values, in sample; what the walk-forward chose is judged in its section.".into());
        }
        let page = report::html(&Report {
            job: &self.plan.spec.dataflow,
            description: self.plan.spec.description.as_deref(),
            yaml: &yaml,
            settings: &settings,
            notes: &notes,
            currency: &self.terms.currency,
            summary: self.summary,
            account: self.account,
            benchmark: self.args.benchmark.as_deref().map(|symbol| (symbol, &self.run.prices)),
            sweep: (!self.trials.is_empty())
                .then_some(SweepPart { trials: self.trials, metric: &self.args.metric }),
            walk: self.walk.map(|walk| (walk, self.args.metric.as_str())),
        });
        let path = out.join("report.html");
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
        files.push(path);
        Ok(files)
    }

    fn settings(&self) -> Vec<(String, String)> {
        let mut out = vec![("graph".to_owned(), self.args.graph.display().to_string())];
        let mut add = |name: &str, value: String| out.push((name.to_owned(), value));
        for (name, at) in [("from", self.args.from), ("to", self.args.to)] {
            if let Some(at) = at {
                add(name, report::text::time(at));
            }
        }
        for (name, value) in self.args.vars.sets.iter().chain(self.best) {
            add(name, value.clone());
        }
        for (name, value) in &self.args.paper {
            add(&format!("paper {name}"), value.clone());
        }
        add("events", report::text::number(self.run.events as f64, 0));
        out
    }

    fn notes(&self) -> Vec<String> {
        notes::notes(&self.plan.changed.notes, &self.terms.free, self.account, self.summary)
    }

    fn json(&self, files: &[PathBuf]) -> Value {
        let mut out = json!({
            "job": self.plan.spec.dataflow,
            "events": self.run.events,
            "summary": self.summary.json(),
            "rejections": self.account.rejections,
            "alerts": self.account.alerts,
            "notes": self.notes(),
            "files": files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>(),
        });
        if !self.trials.is_empty() {
            out["sweep"] = show::sweep_json(self.trials, &self.args.metric);
        }
        if let Some(walk) = self.walk {
            out["walk_forward"] = show::walk_json(walk, &self.args.metric);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_or_rfc_3339() {
        assert_eq!(time("1970-01-02"), Ok(86_400_000_000_000));
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(time("yesterday").is_err());
        assert!(period("0s").is_err() && period("1d").is_ok() && year_days("0").is_err());
    }
}
