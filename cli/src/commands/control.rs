//! `tidemill control`: a command to the traders of a job, through the files that its `control` sources watch.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tidemill_connectors::broker::place::Place;
use tidemill_connectors::control::{self, inbox, switch, switch::Watch};
use tidemill_engine::clock::Clock;
use tidemill_engine::component::SourceKind;
use tidemill_engine::duration::Span;
use tidemill_engine::registry::Role;
use tidemill_engine::spec::{NodeSpec, Spec};

use super::{VarArgs, block_on};

/// Halts, flattens, reduces or resumes the trading of a job
///
/// Writes the command into the file of each `control` source of the graph, and waits until the running job has read it. A job that does
/// not run reads it first when it starts. Where the source's `path` is in object storage it works from anywhere, else on the machine (or the
/// shared folder) where the job runs.
/// Exit code 0 when every source has read it, 3 when one has not in time: the command stands in the file then.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The graph's file
    #[arg(value_name = "GRAPH")]
    graph: PathBuf,
    /// What is commanded
    #[arg(value_enum)]
    command: Command,
    /// Why: it is told with every order that the command stops
    #[arg(value_name = "REASON")]
    reason: Vec<String>,
    /// Only this source; default: all `control` sources of the graph
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// How long to wait for the job
    #[arg(long, value_name = "SPAN", default_value = "5s")]
    wait: Span,
    #[command(flatten)]
    vars: VarArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Command {
    /// Cancels all orders; none is sent any more
    Halt,
    /// Cancels all orders, closes all positions at market, then as halt
    Flatten,
    /// Only orders that make positions smaller pass
    Reduce,
    /// Back to normal
    Resume,
}

impl Command {
    fn word(self) -> &'static str {
        match self {
            Self::Halt => "halt",
            Self::Flatten => "flatten",
            Self::Reduce => "reduce",
            Self::Resume => "resume",
        }
    }
}

/// Not every source has read the command yet.
const NOT_YET: u8 = 3;

/// Exit code 1 where the graph cannot be read or has no source to command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Whatever else is wrong with the graph, its switch must work.
    let spec = match Spec::load_lenient(&args.graph, &args.vars.sets) {
        Ok((spec, _)) => spec,
        Err(errors) => {
            eprint!("{}", errors.render(crate::render::colours(&std::io::stderr())));
            return Ok(ExitCode::FAILURE);
        }
    };
    let sources = sources(&spec, args.source.as_deref())?;
    let mut line = args.command.word().to_owned();
    for word in args.reason.iter().flat_map(|reason| reason.split_whitespace()) {
        line.push(' ');
        line.push_str(word);
    }
    block_on(send(&spec, sources, &line, args.wait))?
}

/// Puts the command to each source, and waits until it has been read.
async fn send(spec: &Spec, sources: Vec<&NodeSpec>, line: &str, wait: Span) -> anyhow::Result<ExitCode> {
    let clock = Clock::System;
    let mut waiting = Vec::new();
    for source in sources {
        let path = source.with.get("path").and_then(Value::as_str);
        let place = control::place(path, &spec.base, &spec.dataflow, &source.name);
        let place = place.map_err(|problem| anyhow::anyhow!("source `{}`: {problem}", source.name))?;
        let mut watch = Watch::new(&place);
        // What stands there already is not our command.
        watch.poll().await?;
        let object = match &place {
            Place::Local(file) => {
                append(file, line).with_context(|| format!("cannot write to `{place}`"))?;
                None
            }
            Place::Store(location) => {
                let text = format!("{line}\n");
                Some(inbox::put(&switch::commands_in(location), &text, clock.now_ns()).await?)
            }
        };
        waiting.push((source.name.as_str(), place, object, watch));
    }
    let since = clock.start();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for (source, place, object, mut watch) in waiting {
            let read = watch.poll().await?;
            let is_ours = |c: &&switch::Command| match &object {
                Some(name) => c.object.as_ref().is_some_and(|object| object.name == *name),
                None => c.line() == line,
            };
            let Some(ours) = read.iter().find(is_ours) else {
                still.push((source, place, object, watch));
                continue;
            };
            let at = chrono::DateTime::from_timestamp_nanos(ours.ts);
            println!("{source}: {line}: read at {}", at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
        }
        waiting = still;
        if waiting.is_empty() || since.elapsed() >= wait.std() {
            break;
        }
        let local = waiting.iter().all(|(_, place, ..)| place.local().is_some());
        tokio::time::sleep(Duration::from_millis(if local { 10 } else { 100 })).await;
    }
    for (source, place, ..) in &waiting {
        let runs = if place.local().is_some() { "does not run here" } else { "does not run" };
        println!(
            "{source}: {line}: written to {place}, not read within {wait}: the job {runs}, and will read it when it starts"
        );
    }
    Ok(if waiting.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_YET) })
}

fn sources<'a>(spec: &'a Spec, only: Option<&str>) -> anyhow::Result<Vec<&'a NodeSpec>> {
    let kind = control::Control::KIND;
    let all: Vec<&NodeSpec> =
        spec.nodes.iter().filter(|n| n.role == Role::Source && n.kind == kind).collect();
    anyhow::ensure!(
        !all.is_empty(),
        "`{}` has no `{kind}` source: add one, and name it in `from` and `control` of the `execution`; `tidemill components {kind}` shows how",
        spec.file
    );
    let Some(only) = only else { return Ok(all) };
    let names: Vec<&str> = all.iter().map(|n| n.name.as_str()).collect();
    let chosen: Vec<&NodeSpec> = all.iter().copied().filter(|n| n.name == only).collect();
    anyhow::ensure!(
        !chosen.is_empty(),
        "no `{kind}` source is named `{only}`; there are: {}",
        names.join(", ")
    );
    Ok(chosen)
}

/// Appends a line, behind the end of the last one; on the disk when this returns.
fn append(file: &Path, line: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let ends = match std::fs::read(file) {
        Ok(text) => text.last().is_none_or(|b| *b == b'\n'),
        Err(e) if e.kind() == ErrorKind::NotFound => true,
        Err(e) => return Err(e),
    };
    let mut open = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    let begin = if ends { "" } else { "\n" };
    open.write_all(format!("{begin}{line}\n").as_bytes())?;
    open.sync_all()
}
