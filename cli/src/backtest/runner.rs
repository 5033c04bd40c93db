//! Plans a graph as a backtest and runs it in this process, its rows in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_engine::clock::Clock;
use tidemill_engine::metrics::Metrics;
use tidemill_engine::plan::{Body, Plan};
use tidemill_engine::problem::Problem;
use tidemill_engine::registry::{Registry, Role};
use tidemill_engine::runtime::{self, RunOptions};
use tidemill_engine::spec::{Spec, SpecErrors};
use tokio_util::sync::CancellationToken;

use super::graph::{self, Change, Changed};
use super::range::{self, Range};
use super::recorded::Library;
use super::tap::{Prices, Taps};
use crate::commands::run::ShowProgress;
use crate::progress::Progress;

/// Rows of a batch: large ones, since nobody waits for a row.
const CHUNK_ROWS: usize = 32 * 1024;
/// Rows on their way.
const IN_FLIGHT_ROWS: usize = 1 << 20;

/// A variable of the graph and its value.
pub type Set = (String, String);

/// Runs one graph with many values of its variables.
pub struct Runner {
    /// The graph's file.
    pub graph: PathBuf,
    /// Variables that are the same in every run.
    pub sets: Vec<Set>,
    /// What makes a backtest of it.
    pub change: Change,
    /// Kinds of components.
    pub registry: Registry,
    /// Where connectors run.
    pub tokio: tokio::runtime::Runtime,
    /// History in memory, where it is read more than once.
    pub library: Option<Library>,
    /// Ends all runs.
    pub stop: CancellationToken,
}

/// A graph that can be run as a backtest.
pub struct Planned {
    /// The graph, changed.
    pub spec: Spec,
    /// Its plan.
    pub plan: Plan,
    /// What was changed.
    pub changed: Changed,
}

/// What a run gave.
pub struct Run {
    /// Rows of the tapped nodes, in total order.
    pub rows: BTreeMap<String, (SchemaRef, Vec<RecordBatch>)>,
    /// Prices of the benchmark.
    pub prices: Prices,
    /// Rows that sources gave.
    pub events: u64,
    /// How long it took.
    pub took: Duration,
}

impl Runner {
    /// Reads, changes and plans the graph, with `sets` over those of every run.
    pub fn plan(&self, sets: &[Set]) -> anyhow::Result<Result<Planned, SpecErrors>> {
        let mut all = self.sets.clone();
        all.extend_from_slice(sets);
        let (mut spec, mut errors) = match Spec::load_lenient(&self.graph, &all) {
            Ok(read) => read,
            Err(errors) => return Ok(Err(errors)),
        };
        let mut changed = graph::change(&mut spec, &self.registry, &self.change);
        let problems = std::mem::take(&mut changed.problems);
        if !problems.is_empty() || !errors.is_empty() {
            errors.extend(spec.errors(problems));
            return Ok(Err(errors));
        }
        let base = spec.base.clone();
        let planning = tidemill_engine::plan::plan(&spec, &self.registry, base, Clock::default());
        let mut plan = match self.tokio.block_on(planning) {
            Ok(plan) => plan,
            Err(problems) => return Ok(Err(spec.errors(problems))),
        };
        let endless = endless(&plan);
        if !endless.is_empty() {
            return Ok(Err(spec.errors(endless)));
        }
        if let Some(library) = &self.library {
            self.tokio.block_on(library.serve(&mut plan)).context("cannot read the history")?;
        }
        Ok(Ok(Planned { spec, plan, changed }))
    }

    /// Runs a plan over the rows in `range`.
    pub fn run(&self, planned: &Planned, range: Range, show: ShowProgress) -> anyhow::Result<Run> {
        let mut plan = range::limit(&planned.plan, range);
        let taps = Taps::open(&mut plan, self.change.benchmark.as_deref());
        let metrics = Metrics::new(&plan);
        let options =
            RunOptions { chunk_rows: CHUNK_ROWS, in_flight_rows: IN_FLIGHT_ROWS, ..RunOptions::default() };
        let job = plan.job.clone();
        let watch = options.clock.start();
        let progress = (show != ShowProgress::Off)
            .then(|| Progress::start(&job, metrics.clone(), options.clock.clone(), show));
        let sources: Vec<usize> =
            plan.nodes.iter().filter(|n| n.role == Role::Source).map(|n| n.id).collect();
        let outcome =
            runtime::run(Arc::new(plan), &options, metrics.clone(), self.tokio.handle(), self.stop.clone());
        if let Some(progress) = progress {
            progress.finish(outcome.is_ok());
        }
        outcome.with_context(|| format!("the backtest of `{job}` failed"))?;
        if self.stop.is_cancelled() {
            anyhow::bail!("stopped: a backtest that has not come to its end says nothing");
        }
        let took = watch.elapsed();
        let read = metrics.read();
        let events = sources.iter().map(|id| read[*id].rows_out).sum();
        let (rows, prices) = taps.rows();
        Ok(Run { rows, prices, events, took })
    }
}

/// Sources that would never come to an end.
fn endless(plan: &Plan) -> Vec<Problem> {
    let sources =
        plan.nodes.iter().filter(|node| matches!(&node.body, Body::Source { plan, .. } if !plan.bounded));
    sources
        .map(|node| {
            let reason =
                format!("source `{}` ({}) never ends: a backtest would not either", node.name, node.kind);
            let hint =
                format!("give it an end, or its history with --archive DIR or --source {}=FILES", node.name);
            Problem::new(format!("sources.{}", node.name), reason).hint(hint).at_key()
        })
        .collect()
}
