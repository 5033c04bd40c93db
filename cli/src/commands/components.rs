//! `tidemill components`: the kinds there are, documented from their own code.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};
use tidemill_engine::problem::nearest;
use tidemill_engine::registry::{Entry, Registry, Role};

use crate::render::component as page;

/// Lists the kinds of sources, operators and sinks, or documents one
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind to document; left out, all are listed
    #[arg(value_name = "KIND")]
    kind: Option<String>,
    /// Only those of this role
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RoleArg {
    Source,
    Operator,
    Sink,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Source => Self::Source,
            RoleArg::Operator => Self::Operator,
            RoleArg::Sink => Self::Sink,
        }
    }
}

/// Prints the list or the page.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let role = args.role.map(Role::from);
    let entries = chosen(&registry, role, args.kind.as_deref())?;
    let mut out = std::io::stdout().lock();
    match (args.format, args.kind) {
        (Format::Json, _) => {
            writeln!(out, "{:#}", entries.iter().map(|entry| as_json(entry)).collect::<Value>())?
        }
        (Format::Text, None) => write!(out, "{}", page::list(&entries))?,
        (Format::Text, Some(_)) => {
            let pages: Vec<String> = entries.iter().map(|entry| page::page(entry)).collect();
            write!(out, "{}", pages.join("\n\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen<'a>(
    registry: &'a Registry,
    role: Option<Role>,
    kind: Option<&str>,
) -> anyhow::Result<Vec<&'a Entry>> {
    let of_role = |entry: &&Entry| role.is_none_or(|role| entry.role == role);
    let entries: Vec<&Entry> =
        registry.iter().filter(of_role).filter(|entry| kind.is_none_or(|kind| entry.kind == kind)).collect();
    if entries.is_empty()
        && let Some(kind) = kind
    {
        let kinds: Vec<&str> = registry.iter().filter(of_role).map(|entry| entry.kind).collect();
        let what = role.map_or("kind".to_owned(), |role| format!("kind of {}", role.noun()));
        match nearest(kind, &kinds) {
            Some(near) => bail!("there is no {what} `{kind}`: did you mean `{near}`?"),
            None => {
                bail!("there is no {what} `{kind}`: `tidemill components` lists those there are")
            }
        }
    }
    Ok(entries)
}

fn as_json(entry: &Entry) -> Value {
    json!({
        "kind": entry.kind,
        "role": entry.role,
        "summary": entry.summary(),
        "doc": entry.doc(),
        "inputs": entry.inputs(),
        "with": (entry.schema)(),
    })
}
