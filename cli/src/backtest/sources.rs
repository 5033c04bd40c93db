//! Where a backtest reads what a graph reads live.
//!
//! A source that ends by itself stays, with the times asked for put on it. One that does not is read from a dataset of
//! its own name in the archive, or from what `--source` says.

use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};
use tidemill_engine::problem::Problem;
use tidemill_engine::registry::{Registry, Role};
use tidemill_engine::spec::NodeSpec;

use super::graph::{Change, Changed};

/// Kinds that end by themselves, or say while they are planned that they don't.
const BOUNDED: [&str; 4] = ["parquet", "csv", "jsonl", "sim_market"];

/// Where sources are read from.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    /// The archive, absolute.
    pub url: Option<String>,
    /// Files or datasets of sources, by name.
    pub sources: Vec<(String, String)>,
}

impl Archive {
    /// What `source` is to be read from, as far as the command line says.
    fn place(&self, source: &str) -> Option<String> {
        let chosen = self.sources.iter().rev().find(|(name, _)| name == source).map(|(_, place)| place);
        match (chosen, &self.url) {
            (Some(place), Some(archive)) if is_dataset(place) => Some(join(archive, place)),
            (Some(place), _) => {
                Some(crate::commands::replay::absolute(place).unwrap_or_else(|_| place.clone()))
            }
            (None, Some(archive)) => Some(join(archive, source)),
            (None, None) => None,
        }
    }

    /// Whether the command line names `source`.
    pub fn names(&self, source: &str) -> bool {
        self.sources.iter().any(|(name, _)| name == source)
    }
}

/// A bare word that is no file here is a dataset of the archive.
fn is_dataset(place: &str) -> bool {
    !place.contains(['/', '.', '*', ':']) && !Path::new(place).exists()
}

fn join(archive: &str, dataset: &str) -> String {
    format!("{}/{dataset}", archive.trim_end_matches('/'))
}

/// Turns a source to history.
pub fn replace(node: &mut NodeSpec, registry: &Registry, wanted: &Change, done: &mut Changed) {
    if !ends(node) || wanted.archive.names(&node.name) {
        let Some(place) = wanted.archive.place(&node.name) else {
            if registry.get(Role::Source, &node.kind).is_none() {
                // The planner says so.
                return;
            }
            let reason =
                format!("source `{}` ({}) has no end: a backtest needs its history", node.name, node.kind);
            let hint = format!(
                "give --archive DIR with a dataset `{0}`, or --source {0}=FILES (Parquet, CSV or JSON lines)",
                node.name
            );
            done.problems.push(Problem::new(&node.path, reason).hint(hint).at_key());
            return;
        };
        if let Err(problem) = read(node, &place) {
            done.problems.push(problem);
            return;
        }
        done.notes.push(format!("`{}` is read from {}", node.name, tidemill_engine::storage::redact(&place)));
    }
    if node.kind == "parquet" {
        bound(node, "from", wanted.range.0, |own, asked| own > asked);
        bound(node, "to", wanted.range.1, |own, asked| own < asked);
    }
}

/// Whether a source ends by itself: files do, a feed that is read from a capture, and a topic read to its end.
pub fn ends(node: &NodeSpec) -> bool {
    let replay = node.with.get("connection").is_some_and(|c| c.get("replay").is_some_and(|r| !r.is_null()));
    let to_end = node.with.get("stop").and_then(Value::as_str) == Some("end");
    BOUNDED.contains(&node.kind.as_str()) || replay || to_end
}

/// Makes the node one that reads `place`.
fn read(node: &mut NodeSpec, place: &str) -> Result<(), Problem> {
    let ends = |endings: &[&str]| endings.iter().any(|e| place.ends_with(e));
    let kind = if ends(&[".csv", ".csv.gz"]) {
        "csv"
    } else if ends(&[".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"]) {
        "jsonl"
    } else {
        "parquet"
    };
    let mut with = json!({ "url": place });
    if kind != "parquet" {
        let Some(schema) = node.with.get("schema").cloned() else {
            let reason = format!("`{place}` has no column types, and `{}` declares none", node.name);
            let hint = "give Parquet files, or a `schema` to the source";
            return Err(Problem::new(&node.path, reason).hint(hint).at_key());
        };
        with["schema"] = schema;
    }
    node.kind = kind.into();
    node.with = with.clone();
    node.written = with;
    Ok(())
}

/// Puts a bound on a source, unless its own leaves out more.
fn bound(node: &mut NodeSpec, field: &str, asked: Option<i64>, tighter: fn(i64, i64) -> bool) {
    let Some(asked) = asked else { return };
    let own = node
        .with
        .get(field)
        .and_then(Value::as_str)
        .and_then(|text| DateTime::parse_from_rfc3339(text).ok().and_then(|t| t.timestamp_nanos_opt()));
    if own.is_some_and(|own| tighter(own, asked)) {
        return;
    }
    let text = DateTime::from_timestamp_nanos(asked).to_rfc3339_opts(SecondsFormat::AutoSi, true);
    node.with[field] = text.clone().into();
    node.written[field] = text.into();
}
