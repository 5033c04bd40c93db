//! `tidemill components`: the kinds there are, documented from their own code.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};
use tidemill_engine::problem::nearest;
use tidemill_engine::registry::{Entry, Registry, Role};

use crate::render::block::Block;
use crate::render::component as page;

/// Lists the kinds of sources, operators and sinks, or documents one
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind to document, or a block of its settings (`execution.risk`); left out, all are listed
    #[arg(value_name = "KIND[.FIELD…]")]
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
    let (kind, path) = match args.kind.as_deref().map(|kind| kind.split_once('.').unwrap_or((kind, ""))) {
        Some((kind, path)) => (Some(kind), path.trim_end_matches('.')),
        None => (None, ""),
    };
    let entries = chosen(&registry, role, kind)?;
    let mut out = std::io::stdout().lock();
    if let Some(kind) = kind.filter(|_| !path.is_empty()) {
        return Ok(write!(out, "{}", inside(&entries, kind, path, args.format)?).map(|()| ExitCode::SUCCESS)?);
    }
    match (args.format, kind) {
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

/// What `path` of a kind is, of each role that has it.
fn inside(entries: &[&Entry], kind: &str, path: &str, format: Format) -> anyhow::Result<String> {
    let mut wrong = None;
    let (mut pages, mut blocks) = (Vec::new(), Vec::new());
    for entry in entries {
        let mut schemas = vec![(entry.schema)()];
        if entry.role == Role::Source {
            schemas.push(tidemill_engine::spec::source_options_schema());
        }
        for schema in &schemas {
            match Block::whole(schema).at(path) {
                Ok(block) => {
                    pages.push(block.page(&format!("{kind}.{path}")));
                    blocks.push(json!({
                        "kind": kind, "role": entry.role, "path": path, "with": block.schema(),
                    }));
                    break;
                }
                Err((at, done, step)) => {
                    wrong.get_or_insert_with(|| at.unknown(kind, done, step));
                }
            }
        }
    }
    match (pages.is_empty(), wrong) {
        (true, Some(wrong)) => bail!(wrong),
        _ => Ok(match format {
            Format::Text => pages.join("\n\n"),
            Format::Json => format!("{:#}\n", Value::from(blocks)),
        }),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_looked_up_in_every_role_of_its_kind() {
        let registry = crate::registry::registry();
        let page = |kind: &str, path: &str| {
            let entries = chosen(&registry, None, Some(kind)).unwrap();
            inside(&entries, kind, path, Format::Text)
        };
        assert!(page("execution", "risk.drawdown").unwrap().starts_with("execution.risk.drawdown\n"));
        // `kafka` is a source and a sink; both have brokers, and only the source is late.
        assert_eq!(page("kafka", "brokers").unwrap().matches("kafka.brokers\n").count(), 2);
        assert_eq!(
            page("kafka", "max_out_of_orderness").unwrap().matches("kafka.max_out_of_orderness\n").count(),
            1
        );
        let wrong = page("execution", "risk.drawdwon").unwrap_err().to_string();
        assert!(wrong.ends_with("did you mean `execution.risk.drawdown`?"), "{wrong}");
        let entries = chosen(&registry, None, Some("execution")).unwrap();
        let json = inside(&entries, "execution", "sizing", Format::Json).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[0]["with"]["anyOf"][0]["$ref"], "#/$defs/SizingParams");
        assert!(json[0]["with"]["$defs"]["SizingParams"]["oneOf"].is_array());
    }
}
