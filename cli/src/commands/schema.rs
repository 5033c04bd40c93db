//! `tidemill schema`: a JSON Schema of graphs, for editors.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

/// Writes one JSON Schema of the whole graph, for editors
///
/// Save it and begin a graph with `# yaml-language-server: $schema=FILE`: editors that speak to
/// yaml-language-server then complete and check it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to; left out, it is printed
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the schema.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let schema = tidemill_engine::spec::json_schema(&crate::registry::registry());
    let text = format!("{schema:#}\n");
    match args.output {
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
        Some(file) => {
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?
        }
    }
    Ok(ExitCode::SUCCESS)
}
