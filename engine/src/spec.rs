//! The graph as users write it: YAML text to a [`Spec`] whose every value knows its place.
//!
//! Reading finds as much as it can: what is wrong with one node does not hide what is wrong with
//! the next. Variables, environment and secrets are resolved here ([`vars`](self)); kinds, columns
//! and the shape of the graph are the planner's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::duration::Span;
use crate::problem::Problem;
use crate::registry::Role;
use crate::state_memory::StateOptions;

pub mod options;
pub use options::*;

mod errors;
mod read;
mod schema;
mod vars;
mod yaml;

pub use errors::{Placed, SpecErrors};
pub use read::SECTIONS;
pub use schema::{json_schema, source_options_schema};
pub(crate) use vars::secrets;
pub use yaml::Place;
pub(crate) use yaml::scalar;

/// A graph.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name of the job.
    pub dataflow: String,
    /// The graph's version, for its readers.
    pub version: u64,
    /// What the graph is for.
    pub description: Option<String>,
    /// Sources, then operators, then sinks, each as written.
    pub nodes: Vec<NodeSpec>,
    /// How the job is checkpointed.
    pub checkpoints: CheckpointOptions,
    /// How much memory keyed state may take.
    pub state: StateOptions,
    /// The graph's own tests.
    pub tests: Vec<TestSpec>,
    /// The file as it was named.
    pub file: String,
    /// The folder of the file: relative paths start here.
    pub base: PathBuf,
    text: Arc<str>,
    marks: yaml::Marks,
}

/// One source, operator or sink.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name, unique in the graph.
    pub name: String,
    /// The name under which checkpoints and sinks remember it, where that is not its name.
    pub id: Option<String>,
    /// What it is.
    pub role: Role,
    /// Its kind.
    pub kind: String,
    /// Which nodes it reads: `name` or `name.dead_letters`.
    pub from: Vec<String>,
    /// Its `with:` block, resolved: what its kind gets. May hold secrets.
    pub with: Value,
    /// Its `with:` block as written, variables resolved, secrets and environment as references:
    /// what is printed and stored.
    pub written: Value,
    /// Its YAML path, such as `operators.bars`.
    pub path: String,
    /// Whether it was written well enough to be planned.
    pub(crate) broken: bool,
    /// Paths of values in `with` that could not be resolved.
    pub(crate) poisoned: Vec<String>,
}

/// How a job is checkpointed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointOptions {
    /// Where checkpoints are kept: a path or an `s3://`, `gs://` or `az://` URL. Left out, it is the
    /// folder `.tidemill` beside the graph.
    pub url: Option<String>,
    /// How often one is taken.
    pub every: Span,
    /// How many are kept.
    pub keep: usize,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self { url: None, every: Span::from_ns(10_000_000_000), keep: 3 }
    }
}

/// One test of a graph: rows in, rows out.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// What it shows.
    pub name: String,
    /// Variables that have other values in this test.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// Rows of each source; a source left out has none.
    #[serde(default)]
    pub given: BTreeMap<String, Vec<Value>>,
    /// Rows that each sink must receive; a sink left out may receive any.
    pub expect: BTreeMap<String, Vec<Value>>,
    /// How far numbers may be apart, relative to their size. Left out, they must be equal to 1e-9.
    #[serde(default)]
    pub tolerance: Option<f64>,
    /// Whether rows may come in any order.
    #[serde(default)]
    pub unordered: bool,
}

impl Spec {
    /// Reads a graph from a file; `sets` are `(name, value)` pairs that replace variables.
    pub fn load(path: &Path, sets: &[(String, String)]) -> Result<Self, SpecErrors> {
        let (spec, errors) = Self::load_lenient(path, sets)?;
        if errors.is_empty() { Ok(spec) } else { Err(errors) }
    }

    /// Reads a graph from a file, giving what could be read and what is wrong; an error only where
    /// nothing can be read.
    pub fn load_lenient(path: &Path, sets: &[(String, String)]) -> Result<(Self, SpecErrors), SpecErrors> {
        let file = path.display().to_string();
        let fail = |reason: String, hint: &str| {
            let problem = Problem::new("", reason).hint(hint);
            SpecErrors::new(&file, Arc::from(""), vec![Placed::new(problem, (1, 1))])
        };
        let bytes = std::fs::read(path)
            .map_err(|e| fail(format!("cannot read the graph: {e}"), "give the path of a YAML file"))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| fail("the file is not UTF-8 text".into(), "save it as UTF-8"))?;
        Self::parse_lenient(&text, &file, sets, &|name| std::env::var(name).ok())
    }

    /// Reads a graph from text. `env` looks up environment variables.
    pub fn parse(
        text: &str,
        file: &str,
        sets: &[(String, String)],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SpecErrors> {
        let (spec, errors) = Self::parse_lenient(text, file, sets, env)?;
        if errors.is_empty() { Ok(spec) } else { Err(errors) }
    }

    /// Reads a graph from text, giving what could be read and what is wrong with the rest.
    pub fn parse_lenient(
        text: &str,
        file: &str,
        sets: &[(String, String)],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, SpecErrors), SpecErrors> {
        read::read(text, file, sets, env)
    }

    /// The place of a YAML path; where it is not written, that of the nearest path around it.
    pub fn locate(&self, path: &str) -> Option<Place> {
        self.marks.locate(path, false)
    }

    /// Puts problems at their places in the file.
    pub fn errors(&self, problems: Vec<Problem>) -> SpecErrors {
        let placed = problems.into_iter().map(|problem| {
            let place = self.marks.locate(&problem.path, problem.at_key).unwrap_or((1, 1));
            Placed::new(problem, place)
        });
        SpecErrors::new(&self.file, self.text.clone(), placed.collect())
    }

    /// The node of a name.
    pub fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The nodes of a role, as written.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &NodeSpec> {
        self.nodes.iter().filter(move |node| node.role == role)
    }
}

impl NodeSpec {
    fn new(name: &str, role: Role, path: String) -> Self {
        let empty = || Value::Object(Map::new());
        Self {
            name: name.to_owned(),
            id: None,
            role,
            kind: String::new(),
            from: Vec::new(),
            with: empty(),
            written: empty(),
            path,
            broken: false,
            poisoned: Vec::new(),
        }
    }

    /// The name under which checkpoints and sinks remember it.
    pub fn identity(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }
}

#[cfg(test)]
mod tests;
