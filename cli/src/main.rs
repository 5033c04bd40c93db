//! `tidemill`: dataflow for trading from the command line.
//!
//! One file a subcommand, under `commands/`; each gives the process's exit code. Errors print with
//! what caused them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidemill_engine::runtime::JobError;

mod backtest;
mod cluster;
mod commands;
mod logging;
mod progress;
mod registry;
mod render;
mod report;
mod stop_requests;

/// Dataflow for trading: the same graph, live, replayed or backtested, gives the same rows.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(commands::run::Args),
    Replay(commands::replay::Args),
    Backtest(Box<commands::backtest::Args>),
    Capture(commands::capture::Args),
    Backfill(commands::backfill::Args),
    Test(commands::test::Args),
    Validate(commands::validate::Args),
    Control(commands::control::Args),
    Checkpoints(commands::checkpoints::Args),
    Savepoint(commands::savepoint::Args),
    DeadLetters(commands::dead_letters::Args),
    Demo(commands::demo::Args),
    Plan(commands::plan::Args),
    Components(commands::components::Args),
    Schema(commands::schema::Args),
    Archive(commands::archive::Args),
    Sql(commands::sql::Args),
    SqlServer(commands::sql_server::Args),
}

fn main() -> ExitCode {
    logging::start();
    let result = match Cli::parse().command {
        Command::Run(args) => commands::run::run(args),
        Command::Replay(args) => commands::replay::run(args),
        Command::Backtest(args) => commands::backtest::run(*args),
        Command::Capture(args) => commands::capture::run(args),
        Command::Backfill(args) => commands::backfill::run(args),
        Command::Test(args) => commands::test::run(args),
        Command::Control(args) => commands::control::run(args),
        Command::Checkpoints(args) => commands::checkpoints::run(args),
        Command::Savepoint(args) => commands::savepoint::run(args),
        Command::DeadLetters(args) => commands::dead_letters::run(args),
        Command::Demo(args) => commands::demo::run_demo(args),
        Command::Validate(args) => commands::validate::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Components(args) => commands::components::run(args),
        Command::Schema(args) => commands::schema::run(args),
        Command::Archive(args) => commands::archive::run(args),
        Command::Sql(args) => commands::sql::run(args),
        Command::SqlServer(args) => commands::sql_server::run(args),
    };
    result.unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            // `tidemill components | head` is no failure.
            return ExitCode::SUCCESS;
        }
        eprintln!("error: {error}");
        for cause in error.chain().skip(1) {
            eprintln!("  caused by: {cause}");
        }
        // A failed job says whether a restart may help.
        let failure = error.chain().find_map(|cause| cause.downcast_ref::<JobError>());
        failure.map_or(ExitCode::FAILURE, |failure| failure.class().exit_code().into())
    })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
