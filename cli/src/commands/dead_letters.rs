//! `tidemill dead-letters`: what a graph's sources refused, and sending it through again.

use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use comfy_table::{Table, presets};
use serde_json::Value;
use tidemill_connectors::kafka::client::Options;
use tidemill_connectors::kafka::{Connection, admin};
use tidemill_engine::plan::{Plan, Port};
use tidemill_engine::spec::{NodeSpec, Spec};

use super::{GraphArgs, block_on, load_or_explain};

/// Lists, shows and replays what a graph's sources refused
///
/// Dead letters are read from the jsonl and kafka sinks that the graph's `on_error: {dead_letter: …}`
/// name. `replay` sends the raw bytes back to the topic of their kafka source, with their key; letters
/// of a file are corrected in the file.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// One line per dead letter
    List {
        #[command(flatten)]
        graph: GraphArgs,
    },
    /// One dead letter whole: origin, reason and raw bytes
    Show {
        #[command(flatten)]
        graph: GraphArgs,
        /// Its number in the list
        number: usize,
    },
    /// Sends dead letters back through their source's topic
    Replay {
        #[command(flatten)]
        graph: GraphArgs,
        /// Only these numbers of the list; default: all
        numbers: Vec<usize>,
        /// Only letters of this source
        #[arg(long)]
        source: Option<String>,
        /// Shows what would be sent
        #[arg(long)]
        dry_run: bool,
    },
}

struct Letter {
    source: String,
    partition: u64,
    position: u64,
    reason: String,
    key: Option<Vec<u8>>,
    raw: Vec<u8>,
}

/// Exit code 1 where the graph has a problem.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let registry = crate::registry::registry();
    let (What::List { graph } | What::Show { graph, .. } | What::Replay { graph, .. }) = &args.what;
    let Some((spec, plan)) = load_or_explain(&graph.graph, &graph.vars, &registry)? else {
        return Ok(ExitCode::FAILURE);
    };
    let letters = read(&spec, &plan)?;
    match &args.what {
        What::List { .. } => list(&letters),
        What::Show { number, .. } => {
            let Some(letter) = letters.get(*number) else {
                bail!("there is no dead letter {number}: there are {}", letters.len())
            };
            println!(
                "source    {}\npartition {}\nposition  {}\nreason    {}",
                letter.source, letter.partition, letter.position, letter.reason
            );
            if let Some(key) = &letter.key {
                println!("key       {}", String::from_utf8_lossy(key));
            }
            println!("raw       {} bytes\n{}", letter.raw.len(), String::from_utf8_lossy(&letter.raw));
        }
        What::Replay { numbers, source, dry_run, .. } => {
            replay(&spec, letters, numbers, source.as_deref(), *dry_run)?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(letters: &[Letter]) {
    if letters.is_empty() {
        println!("no dead letters");
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["", "source", "partition", "position", "reason", "raw"]);
    for (i, letter) in letters.iter().enumerate() {
        let raw: String = String::from_utf8_lossy(&letter.raw).chars().take(60).collect();
        let numbers = [letter.partition.to_string(), letter.position.to_string()];
        let [partition, position] = numbers;
        table.add_row([
            i.to_string(),
            letter.source.clone(),
            partition,
            position,
            letter.reason.clone(),
            raw,
        ]);
    }
    println!("{table}");
}

/// All dead letters of a graph, sink by sink, in their order.
fn read(spec: &Spec, plan: &Plan) -> anyhow::Result<Vec<Letter>> {
    let mut letters = Vec::new();
    let sinks = plan.nodes.iter().filter(|n| n.inputs.iter().any(|e| e.port == Port::DeadLetters));
    let mut found = false;
    for sink in sinks.filter_map(|n| spec.node(&n.name)) {
        found = true;
        let lines = match sink.kind.as_str() {
            "jsonl" => jsonl_lines(sink, &spec.base)?,
            "kafka" => kafka_lines(sink)?,
            other => bail!(
                "sink `{}` keeps dead letters as {other}; this command reads jsonl and kafka",
                sink.name
            ),
        };
        for line in lines {
            let row: Value = serde_json::from_slice(&line)
                .with_context(|| format!("sink `{}` holds a line that is no dead letter", sink.name))?;
            letters.push(Letter {
                source: row["source"].as_str().unwrap_or_default().to_owned(),
                partition: row["partition"].as_u64().unwrap_or_default(),
                position: row["position"].as_u64().unwrap_or_default(),
                reason: row["reason"].as_str().unwrap_or_default().to_owned(),
                key: bytes(&row["key"]),
                raw: bytes(&row["raw"]).unwrap_or_default(),
            });
        }
    }
    if !found {
        bail!(
            "no source of the graph keeps dead letters: set `on_error: {{dead_letter: SINK}}` in its with: block"
        );
    }
    Ok(letters)
}

/// Binary as the JSON encoder writes it: text, or `{"base64": …}`.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(fields) => BASE64.decode(fields.get("base64")?.as_str()?).ok(),
        _ => None,
    }
}

fn jsonl_lines(sink: &NodeSpec, base: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let path = base.join(sink.with["path"].as_str().unwrap_or_default());
    if !path.exists() {
        return Ok(Vec::new());
    }
    let file = std::fs::File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = std::io::BufReader::new(file).split(b'\n');
    Ok(lines.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|l| !l.is_empty()).collect())
}

fn connection(node: &NodeSpec) -> anyhow::Result<Connection> {
    let brokers = node.with["brokers"].as_str().unwrap_or_default();
    let options: Options = match &node.with["options"] {
        Value::Null => Options::default(),
        given => serde_json::from_value(given.clone())?,
    };
    Connection::new(brokers, &options).map_err(|problems| {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", list.join("; "))
    })
}

fn kafka_lines(sink: &NodeSpec) -> anyhow::Result<Vec<Vec<u8>>> {
    let topic = sink.with["topic"].as_str().unwrap_or_default();
    let messages = block_on(admin::read_all(&connection(sink)?, topic, true))??;
    Ok(messages.into_iter().filter_map(|m| m.payload).collect())
}

fn replay(
    spec: &Spec,
    letters: Vec<Letter>,
    numbers: &[usize],
    only: Option<&str>,
    dry_run: bool,
) -> anyhow::Result<()> {
    if let Some(wrong) = numbers.iter().find(|n| **n >= letters.len()) {
        bail!("there is no dead letter {wrong}: there are {}", letters.len());
    }
    let chosen = letters.into_iter().enumerate().filter(|(i, letter)| {
        (numbers.is_empty() || numbers.contains(i)) && only.is_none_or(|source| source == letter.source)
    });
    let mut by_source: std::collections::BTreeMap<String, Vec<admin::Message>> = Default::default();
    for (i, letter) in chosen {
        let source = spec
            .node(&letter.source)
            .with_context(|| format!("the graph has no source `{}` any more", letter.source))?;
        if source.kind != "kafka" {
            bail!(
                "dead letter {i} comes from `{}`, which reads {}: correct its input there",
                source.name,
                source.kind
            );
        }
        let message = admin::Message { key: letter.key, payload: Some(letter.raw), ..Default::default() };
        by_source.entry(letter.source).or_default().push(message);
    }
    for (name, messages) in by_source {
        let Some(source) = spec.node(&name) else {
            continue;
        };
        let topic = source.with["topic"].as_str().unwrap_or_default();
        let count = messages.len();
        if dry_run {
            println!("would send {count} to topic {topic} of `{name}`");
            continue;
        }
        block_on(admin::produce(&connection(source)?, topic, messages))??;
        println!("sent {count} to topic {topic} of `{name}`");
    }
    Ok(())
}
