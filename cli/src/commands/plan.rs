//! `tidemill plan`: the graph as it would run.

use std::io::Write;
use std::process::ExitCode;

use super::run::HowArgs;
use super::{GraphArgs, load_or_explain};
use crate::render;

/// Prints a graph as it would run: schemas, keys, order, exchange and delivery
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    graph: GraphArgs,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Mermaid,
    Json,
}

/// Exit code 1 where the graph has a problem.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let Some((spec, plan)) = load_or_explain(&args.graph.graph, &args.graph.vars, &registry)? else {
        return Ok(ExitCode::FAILURE);
    };
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Text => {
            write!(out, "{}", render::plan::text(&plan, render::colours(&std::io::stdout())))?;
            for kept in HowArgs::place(None, &spec).iter().flat_map(|(url, _)| plan.kept_here(url)) {
                writeln!(out, "\nnote: {kept}")?;
            }
        }
        Format::Mermaid => write!(out, "{}", render::plan::mermaid(&plan))?,
        Format::Json => writeln!(out, "{:#}", render::plan::json(&plan))?,
    }
    Ok(ExitCode::SUCCESS)
}
