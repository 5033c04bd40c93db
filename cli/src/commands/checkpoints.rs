//! `tidemill checkpoints`: the checkpoints a job could begin from.

use std::process::ExitCode;

use comfy_table::{Table, presets};
use tidemill_engine::checkpoint::CheckpointStore;
use tidemill_engine::storage;

use super::{GraphArgs, block_on, load_or_explain};
use crate::commands::run::HowArgs;

/// Lists a job's checkpoints
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    graph: GraphArgs,
    /// Where checkpoints are kept; default: as `tidemill run` finds them
    #[arg(long, value_name = "URL")]
    checkpoints: Option<String>,
    /// Prints whole manifests as JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1 where the graph has a problem.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let Some((spec, plan)) = load_or_explain(&args.graph.graph, &args.graph.vars, &registry)? else {
        return Ok(ExitCode::FAILURE);
    };
    let Some(options) = HowArgs::place(args.checkpoints.as_deref(), &spec) else {
        anyhow::bail!("the graph has checkpoints switched off");
    };
    let location = storage::open(&options.0, &options.1)?;
    let store = CheckpointStore::new(location, &plan.job, spec.checkpoints.keep);
    let manifests = block_on(store.manifests())??;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&manifests)?);
        return Ok(ExitCode::SUCCESS);
    }
    if manifests.is_empty() {
        println!("{}: no checkpoints in {}", plan.job, store.place());
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "id",
        "committed at",
        "why",
        "generation",
        "workers",
        "keys",
        "state bytes",
        "fits this graph",
    ]);
    for m in &manifests {
        let reason = serde_json::to_value(m.reason)?.as_str().unwrap_or_default().to_owned();
        let fits = match tidemill_engine::plan::compatible(&m.graph, &plan, Default::default()) {
            Ok(()) => "yes".to_owned(),
            Err(problems) => problems.first().map_or_else(|| "no".into(), |p| format!("no: {p}")),
        };
        table.add_row([
            m.id.to_string(),
            m.committed_at.clone(),
            reason,
            m.generation.to_string(),
            m.workers.to_string(),
            m.state_keys().to_string(),
            m.state_bytes().to_string(),
            fits,
        ]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}
