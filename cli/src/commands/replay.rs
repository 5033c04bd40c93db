//! `tidemill replay`: runs a graph with its feeds read from a capture in place of the network.

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tidemill_engine::registry::{Registry, Role};
use tidemill_engine::spec::Spec;
use tokio_util::sync::CancellationToken;

use super::run::{HowArgs, run_plan, runtime, stop_on_signal};
use super::{VarArgs, load_changed_or_explain};

/// Runs a graph from captured feeds, exactly as it ran live
///
/// Every source of the graph that connects to a venue reads CAPTURE instead: the capture of its own
/// name in there, or the only one. It ends with the capture, and its rows are those of the live run. Without
/// --checkpoints none are taken, so a replay never touches the live job's.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The capture: a path, or an s3://, gs:// or az:// URL
    #[arg(value_name = "CAPTURE")]
    capture: String,
    /// The graph's file
    #[arg(value_name = "GRAPH")]
    graph: std::path::PathBuf,
    #[command(flatten)]
    vars: VarArgs,
    /// Only this source is replayed; may be given several times
    #[arg(long = "source", value_name = "NAME")]
    sources: Vec<String>,
    #[command(flatten)]
    how: HowArgs,
}

/// Exit code 1 where the graph has a problem or the job fails.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let capture = absolute(&args.capture)?;
    let mut replayed = Vec::new();
    let change = |spec: &mut Spec| replayed = replay(spec, &registry, &capture, &args.sources);
    let Some((spec, plan)) = load_changed_or_explain(&args.graph, &args.vars, &registry, change)? else {
        return Ok(ExitCode::FAILURE);
    };
    if let Some(missing) = args.sources.iter().find(|name| !replayed.contains(name)) {
        bail!("`{missing}` is no source of the graph that can be replayed");
    }
    if replayed.is_empty() {
        bail!("the graph has no source that connects to a venue: there is nothing to replay");
    }
    if args.how.processes > 1 {
        bail!("a replay runs in one process; --workers spreads it over threads");
    }
    tracing::info!("replaying {} from {capture}", replayed.join(", "));
    let mut how = args.how.clone();
    how.checkpoints.get_or_insert_with(|| "off".into());
    let options = how.options(&spec);
    let runtime = runtime(options.workers)?;
    let stop = CancellationToken::new();
    runtime.spawn(stop_on_signal(stop.clone()));
    let outcome = run_plan(plan, &options, &runtime, stop, how.progress);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

/// What the command line names is relative to where the command is run, not to the graph.
pub fn absolute(url: &str) -> anyhow::Result<String> {
    if url.contains("://") {
        return Ok(url.to_owned());
    }
    let path = std::path::absolute(url).with_context(|| format!("`{url}` is no path"))?;
    Ok(path.display().to_string())
}

/// Turns every source with a `connection: {replay}` to the capture; gives their names.
fn replay(spec: &mut Spec, registry: &Registry, capture: &str, only: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    for node in spec.nodes.iter_mut().filter(|node| node.role == Role::Source) {
        let chosen = only.is_empty() || only.contains(&node.name);
        let connects = registry.get(Role::Source, &node.kind).is_some_and(|entry| {
            // The field by which every feed says how it connects.
            let schema = (entry.schema)();
            schema["properties"]["connection"]["$ref"]
                .as_str()
                .is_some_and(|name| name.ends_with("/FeedParams"))
        });
        if !chosen || !connects {
            continue;
        }
        names.push(node.name.clone());
        for with in [&mut node.with, &mut node.written] {
            let Some(with) = with.as_object_mut() else { continue };
            let connection = with.entry("connection").or_insert_with(|| json!({}));
            if let Value::Object(connection) = connection {
                connection.shift_remove("capture");
                connection.insert("replay".into(), capture.into());
            }
        }
    }
    names
}
