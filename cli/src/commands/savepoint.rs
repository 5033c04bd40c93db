//! `tidemill savepoint`: checkpoints that are kept under a name.

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use tidemill_engine::checkpoint::{CheckpointStore, Manifest, SavepointName};
use tidemill_engine::clock::Clock;
use tidemill_engine::duration::Span;
use tidemill_engine::storage;

use super::{GraphArgs, block_on, load_or_explain};
use crate::commands::run::HowArgs;

/// How often it is looked for a new checkpoint.
const LOOK: Duration = Duration::from_millis(500);

/// Keeps a job's newest checkpoint under a name, whether the job runs or not; without a name, lists savepoints
///
/// `tidemill run GRAPH --from savepoint:NAME` begins from it, on any number of workers, with a graph that has changed as far as its state
/// allows. Sinks that know what they have written (kafka, exactly once) leave out what they wrote since; files go back to the savepoint.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    graph: GraphArgs,
    /// Its name: letters, digits, `-`, `_`, `.`
    #[arg(value_name = "NAME")]
    name: Option<SavepointName>,
    /// Takes the place of one that has this name
    #[arg(long, requires = "name")]
    replace: bool,
    /// Waits for the running job's next checkpoint, so long at most
    #[arg(long, requires = "name", value_name = "SPAN")]
    next: Option<Span>,
    /// Removes it
    #[arg(long, requires = "name", conflicts_with_all = ["replace", "next"])]
    remove: bool,
    /// Where checkpoints are kept; default: as `tidemill run` finds them
    #[arg(long, value_name = "URL")]
    checkpoints: Option<String>,
}

/// Exit code 1 where the graph has a problem, or there is nothing to keep.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let Some((spec, plan)) = load_or_explain(&args.graph.graph, &args.graph.vars, &registry)? else {
        return Ok(ExitCode::FAILURE);
    };
    let Some((url, base)) = HowArgs::place(args.checkpoints.as_deref(), &spec) else {
        anyhow::bail!("the graph has checkpoints switched off");
    };
    let store = CheckpointStore::new(storage::open(&url, &base)?, &plan.job, spec.checkpoints.keep);
    let Some(name) = &args.name else { return list(&store) };
    if args.remove {
        if !block_on(store.unpin(name))?? {
            anyhow::bail!("{} has no savepoint `{name}`", store.place());
        }
        println!("{}: savepoint `{name}` is removed", plan.job);
        return Ok(ExitCode::SUCCESS);
    }
    let pinned = block_on(async {
        if let Some(patience) = args.next {
            wait_for_next(&store, patience).await?;
        }
        anyhow::Ok(store.pin(name, args.replace).await?)
    })??;
    match pinned {
        Some(manifest) => {
            println!("{}: savepoint `{name}` is checkpoint {}", plan.job, described(&manifest));
            Ok(ExitCode::SUCCESS)
        }
        None => anyhow::bail!("{}: no checkpoints in {}", plan.job, store.place()),
    }
}

async fn wait_for_next(store: &CheckpointStore, patience: Span) -> anyhow::Result<()> {
    let before = store.ids().await?.last().copied();
    let waiting = Clock::System.start();
    while store.ids().await?.last().copied() == before {
        if waiting.elapsed() >= patience.std() {
            anyhow::bail!("no checkpoint was committed within {patience}: does the job run?");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn described(manifest: &Manifest) -> String {
    format!("{} of {}, {} bytes of state", manifest.id, manifest.committed_at, manifest.state_bytes())
}

fn list(store: &CheckpointStore) -> anyhow::Result<ExitCode> {
    let all = block_on(store.savepoints())??;
    if all.is_empty() {
        println!("no savepoints in {}", store.place());
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["name", "checkpoint", "committed at", "workers", "keys", "state bytes"]);
    for (name, m) in &all {
        table.add_row([
            name.clone(),
            m.id.to_string(),
            m.committed_at.clone(),
            m.workers.to_string(),
            m.state_keys().to_string(),
            m.state_bytes().to_string(),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}
