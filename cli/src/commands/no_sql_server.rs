//! `tidemill sql-server` of a binary that was built without it.

use std::process::ExitCode;

/// Answers psql, Grafana and drivers over the Postgres protocol (not in this binary: build it with `make build`)
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the command.
pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "this binary was built without the SQL server (feature `sql-server`): `make build` or `make release` makes one with it"
    )
}
