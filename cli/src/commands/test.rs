//! `tidemill test`: runs the tests that graphs carry.

use std::path::PathBuf;
use std::process::ExitCode;

use tidemill_engine::runtime::RunOptions;
use tidemill_engine::spec::TestSpec;
use tidemill_engine::testing;

use super::{VarArgs, load_or_explain};
use crate::commands::run::runtime;

/// Runs the tests: sections of graphs
///
/// Each test gives rows to sources and expects rows at sinks; it needs no server. Exit code 1
/// where one fails.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The graphs' files
    #[arg(value_name = "GRAPH", required = true)]
    graphs: Vec<PathBuf>,
    #[command(flatten)]
    vars: VarArgs,
    /// Runs only tests whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// Exit code 1 where a test fails or a graph cannot be planned.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let runtime = runtime(1)?;
    let (mut passed, mut failed) = (0, 0);
    for path in &args.graphs {
        let Some((spec, plan)) = load_or_explain(path, &args.vars, &registry)? else {
            failed += 1;
            continue;
        };
        if spec.tests.is_empty() {
            println!("{}: no tests", spec.dataflow);
        }
        for test in &spec.tests {
            if args.only.as_ref().is_some_and(|only| !test.name.contains(only)) {
                continue;
            }
            let own = if test.set.is_empty() {
                None
            } else {
                load_or_explain(path, &with_set(&args.vars, test), &registry)?
            };
            let plan = match &own {
                Some((_, plan)) => plan,
                None if test.set.is_empty() => &plan,
                None => {
                    failed += 1;
                    continue;
                }
            };
            match testing::run(plan, test, &RunOptions::default(), runtime.handle()) {
                Ok(()) => {
                    passed += 1;
                    println!("ok      {}: {}", spec.dataflow, test.name);
                }
                Err(failure) => {
                    failed += 1;
                    println!("FAILED  {}: {}", spec.dataflow, test.name);
                    failure.0.iter().for_each(|line| println!("        {line}"));
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The variables of a test: those of the command line, then its own.
fn with_set(vars: &VarArgs, test: &TestSpec) -> VarArgs {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut vars = vars.clone();
    vars.sets.extend(test.set.iter().map(|(name, value)| (name.clone(), text(value))));
    vars
}
