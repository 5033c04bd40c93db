//! A planned graph: names resolved, schemas inferred, exchanges chosen. Nothing is parsed later.

use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use serde_json::Value;

use crate::component::{OperatorPlan, SinkPlan, SourcePlan};
use crate::registry::Role;
use crate::sink::Delivery;
use crate::spec::SourceOptions;
use crate::storage;

mod compat;
mod graph;
mod options;
mod order;
mod planner;

pub use compat::{StateChanges, compatible, describe, fingerprint};
pub use options::source_option_names;
pub use planner::plan;

/// A graph that can run.
#[derive(Clone)]
pub struct Plan {
    /// Name of the job: the graph's `dataflow:`.
    pub job: String,
    /// The graph's `version:`.
    pub version: u64,
    /// Folder of the graph's file: relative paths start here.
    pub base: PathBuf,
    /// Nodes in topological order; a node's id is its index.
    pub nodes: Vec<Node>,
}

impl Node {
    /// Whether it has state all of whose keys stay in memory, whatever `state.spill` says.
    pub fn keeps_keys_in_memory(&self) -> bool {
        let Body::Operator { plan, .. } = &self.body else { return false };
        (plan.build)().state().is_some_and(|state| !state.can_spill())
    }
}

impl Plan {
    /// The node of a name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// What nodes keep on this machine's disk although the job's checkpoints, at `url`, are in object storage: such a job cannot go on
    /// on another machine. One sentence for each node.
    pub fn kept_here(&self, url: &str) -> Vec<String> {
        if storage::local_path(url, &self.base).is_some() {
            return Vec::new();
        }
        let kept = self.nodes.iter().filter_map(|node| Some((node, node.body.kept_here()?)));
        let sentence = |(node, kept): (&Node, String)| {
            format!(
                "{} `{}` keeps `{kept}` on this machine's disk, and checkpoints are in object storage: on another machine the job would go on \
                 without it; give it a place in object storage too",
                node.role.noun(),
                node.name
            )
        };
        kept.map(sentence).collect()
    }

    /// The sources whose rows reach node `id` and that cannot be read again from a checkpoint, in order.
    pub fn unreplayable(&self, id: usize) -> Vec<&Node> {
        let mut reached = vec![false; self.nodes.len()];
        let mut open = vec![id];
        while let Some(node) = open.pop().and_then(|id| self.nodes.get(id)) {
            if !std::mem::replace(&mut reached[node.id], true) {
                open.extend(node.inputs.iter().map(|edge| edge.from));
            }
        }
        let lost = |node: &&Node| matches!(&node.body, Body::Source { plan, .. } if !plan.replayable);
        self.nodes.iter().filter(|node| reached[node.id]).filter(lost).collect()
    }
}

/// One source, operator or sink.
#[derive(Clone)]
pub struct Node {
    /// Its index in [`Plan::nodes`].
    pub id: usize,
    /// Its name in the graph.
    pub name: String,
    /// The name under which checkpoints and sinks remember it: its `id`, else its name.
    pub identity: String,
    /// Its kind.
    pub kind: String,
    /// What it is.
    pub role: Role,
    /// Its `with:` block with defaults as written, secrets replaced by their references.
    pub with: Value,
    /// Where its rows come from, port by port.
    pub inputs: Vec<Edge>,
    /// Rows it sends on (of a sink: rows it takes), system columns first.
    pub schema: SchemaRef,
    /// What is promised of the order of rows it sends on.
    pub order: Order,
    /// The part that runs.
    pub body: Body,
}

/// A stream between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The node that sends.
    pub from: usize,
    /// Which of its streams.
    pub port: Port,
    /// How rows find their worker.
    pub exchange: Exchange,
}

/// The streams a node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// Its rows.
    Rows,
    /// Input that could not become a row (sources only); schema [`dead_letter_schema`](crate::dead_letter::schema).
    DeadLetters,
}

/// How rows find their worker.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exchange {
    /// They stay on theirs.
    Stay,
    /// To the owner of their key's group; the columns are indices into the stream's schema. An
    /// empty list sends all rows to one worker.
    Key(Vec<usize>),
    /// To the worker that runs their sink shard: the key's group picks one of `shards`.
    Shard { by: Vec<usize>, shards: usize },
}

/// What is promised of a stream's order.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// All rows are on one worker, in total order.
    Total,
    /// Rows equal in these columns are on one worker, in total order. (By `Exchange::Key` on the
    /// same columns no row need move.) `partitioned`: they were spread by the hash of exactly
    /// these columns.
    PerKey { by: Vec<String>, partitioned: bool },
    /// Nothing.
    None,
}

/// The running part of a node.
#[derive(Clone)]
pub enum Body {
    /// A source.
    Source {
        /// As its kind planned it.
        plan: SourcePlan,
        /// The engine's part of `with:`.
        options: SourceOptions,
        /// Bounds of `ts`, nanoseconds: `[min, max)`.
        ts_range: (i64, i64),
    },
    /// An operator; `delivery` is what the planner chose.
    Operator {
        /// As its kind planned it.
        plan: OperatorPlan,
        /// Rows as they come, or held until the watermark passes them.
        delivery: Delivery,
    },
    /// A sink.
    Sink {
        /// As its kind planned it.
        plan: SinkPlan,
    },
}

impl Body {
    fn kept_here(&self) -> Option<String> {
        match self {
            Self::Source { plan, .. } => plan.source.kept_here(),
            Self::Operator { .. } => None,
            Self::Sink { plan } => plan.sink.kept_here(),
        }
    }
}
