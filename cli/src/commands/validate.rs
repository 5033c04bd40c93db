//! `tidemill validate`: everything that is wrong with graphs, at once.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use tidemill_engine::registry::Role;

use super::run::HowArgs;
use super::{VarArgs, load};
use crate::render;

/// Finds every problem in graphs without running them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The graphs' files
    #[arg(required = true, value_name = "GRAPH")]
    graphs: Vec<PathBuf>,
    #[command(flatten)]
    vars: VarArgs,
}

/// Exit code 1 where a graph has a problem.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let mut out = std::io::stdout().lock();
    let colours = render::colours(&out);
    let (mut problems, mut bad) = (0, 0);
    for graph in &args.graphs {
        match load(graph, &args.vars, &registry)? {
            Ok((spec, plan)) => {
                let counts = [Role::Source, Role::Operator, Role::Sink]
                    .map(|role| render::count(spec.with_role(role).count(), role.noun()));
                writeln!(out, "ok: {}: {}", spec.dataflow, counts.join(", "))?;
                let spills = spec.state.spill.is_some();
                for node in plan.nodes.iter().filter(|node| spills && node.keeps_keys_in_memory()) {
                    let name = &node.name;
                    writeln!(out, "note: `{name}` keeps all its keys in memory: {} cannot spill", node.kind)?;
                }
                for node in &plan.nodes {
                    let limit = render::plan::promise(&plan, node).and_then(|promise| promise.limit());
                    if let Some(limit) = limit {
                        writeln!(out, "note: sink `{}` is at least once across a crash: {limit}", node.name)?;
                    }
                }
                for kept in HowArgs::place(None, &spec).iter().flat_map(|(url, _)| plan.kept_here(url)) {
                    writeln!(out, "note: {kept}")?;
                }
            }
            Err(errors) => {
                if bad > 0 {
                    writeln!(out)?;
                }
                write!(out, "{}", errors.render(colours))?;
                problems += errors.problems.len();
                bad += 1;
            }
        }
    }
    if bad == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let among = if args.graphs.len() > 1 {
        format!(" in {} of {} graphs", bad, args.graphs.len())
    } else {
        String::new()
    };
    writeln!(out, "\n{}{among}", render::count_problems(problems))?;
    Ok(ExitCode::FAILURE)
}
