//! The subcommands, one file each, and what they share: reading a graph and planning it.

use std::future::Future;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tidemill_engine::clock::Clock;
use tidemill_engine::plan::Plan;
use tidemill_engine::registry::Registry;
use tidemill_engine::spec::{Spec, SpecErrors};

pub mod archive;
pub mod backfill;
pub mod backtest;
pub mod capture;
pub mod checkpoints;
pub mod components;
pub mod control;
pub mod dead_letters;
pub mod demo;
pub mod plan;
pub mod replay;
pub mod run;
pub mod savepoint;
pub mod schema;
pub mod sql;
#[cfg_attr(not(feature = "sql-server"), path = "commands/no_sql_server.rs")]
pub mod sql_server;
pub mod test;
pub mod validate;

/// Which graph, and with which variables.
#[derive(Clone, Debug, clap::Args)]
pub struct GraphArgs {
    /// The graph's file
    #[arg(value_name = "GRAPH")]
    pub graph: PathBuf,
    #[command(flatten)]
    pub vars: VarArgs,
}

/// Variables from the command line.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct VarArgs {
    /// Replaces a variable of the graph; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub sets: Vec<(String, String)>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

/// Reads and plans a graph, finding everything that is wrong with it.
pub fn load(
    path: &Path,
    vars: &VarArgs,
    registry: &Registry,
) -> anyhow::Result<Result<(Spec, Plan), SpecErrors>> {
    load_changed(path, vars, registry, |_| ())
}

/// Like [`load`], with the graph changed between reading and planning.
fn load_changed(
    path: &Path,
    vars: &VarArgs,
    registry: &Registry,
    change: impl FnOnce(&mut Spec),
) -> anyhow::Result<Result<(Spec, Plan), SpecErrors>> {
    let (mut spec, mut errors) = match Spec::load_lenient(path, &vars.sets) {
        Ok(read) => read,
        Err(errors) => return Ok(Err(errors)),
    };
    change(&mut spec);
    let planned =
        block_on(tidemill_engine::plan::plan(&spec, registry, spec.base.clone(), Clock::default()))?;
    match planned {
        Ok(plan) if errors.is_empty() => Ok(Ok((spec, plan))),
        Ok(_) => Ok(Err(errors)),
        Err(problems) => {
            errors.extend(spec.errors(problems));
            Ok(Err(errors))
        }
    }
}

/// Reads and plans a graph; prints what is wrong with it and gives nothing where something is.
pub fn load_or_explain(
    path: &Path,
    vars: &VarArgs,
    registry: &Registry,
) -> anyhow::Result<Option<(Spec, Plan)>> {
    load_changed_or_explain(path, vars, registry, |_| ())
}

/// Like [`load_or_explain`], with the graph changed between reading and planning.
pub fn load_changed_or_explain(
    path: &Path,
    vars: &VarArgs,
    registry: &Registry,
    change: impl FnOnce(&mut Spec),
) -> anyhow::Result<Option<(Spec, Plan)>> {
    match load_changed(path, vars, registry, change)? {
        Ok(loaded) => Ok(Some(loaded)),
        Err(errors) => {
            eprint!("{}", errors.render(crate::render::colours(&std::io::stderr())));
            eprintln!("{}", crate::render::count_problems(errors.problems.len()));
            Ok(None)
        }
    }
}

/// Runs a future to its end on a small runtime of its own.
pub fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let output = runtime.block_on(future);
    // A client that still retries in the background must not hold up the exit.
    runtime.shutdown_background();
    Ok(output)
}
