//! The contract of a component: a kind, its parameters, and how it is planned.
//!
//! A component lives in one file of its room: the `Params` struct (its doc comment is the manual
//! page and carries a YAML example that a test runs), the impl of one of the three `*Kind` traits
//! below, the runtime part, and its tests. One line in the room's `register` adds it.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::operator::Operator;
use crate::problem::Problem;
use crate::row;
use crate::sink::{Delivery, FlushPolicy, Placement, Sink};
use crate::source::Source;

/// Problems found while planning a component; paths are relative to its `with:` block.
pub type Problems = Vec<Problem>;

/// What a component may know while it is planned.
#[derive(Clone, Debug)]
pub struct PlanContext {
    /// Name of the job (the graph's `dataflow:`).
    pub job: String,
    /// Name of the node.
    pub node: String,
    /// Folder of the graph's file: relative paths start here.
    pub base: PathBuf,
    /// Time, for limits that are relative to now.
    pub clock: Clock,
}

/// A kind of source.
#[async_trait]
pub trait SourceKind: 'static {
    /// Its name in `kind:`; equal to its file's or folder's name.
    const KIND: &'static str;
    /// Its own `with:` fields; the engine's ([`SourceOptions`](crate::spec::SourceOptions)) come on top.
    type Params: DeserializeOwned + JsonSchema + Send;
    /// Finds out what it delivers; may look at the outside world (list files, read a footer).
    async fn plan(params: Self::Params, cx: &PlanContext) -> Result<SourcePlan, Problems>;
}

/// A kind of operator.
pub trait OperatorKind: 'static {
    /// Its name in `kind:`; equal to its file's name.
    const KIND: &'static str;
    /// Its `with:` fields.
    type Params: DeserializeOwned + JsonSchema;
    /// How many inputs it takes, least and most.
    const INPUTS: (usize, usize) = (1, 1);
    /// Resolves columns and infers its output.
    fn plan(params: Self::Params, inputs: &[StreamInfo], cx: &PlanContext) -> Result<OperatorPlan, Problems>;
}

/// A kind of sink.
pub trait SinkKind: 'static {
    /// Its name in `kind:`; equal to its file's or folder's name.
    const KIND: &'static str;
    /// Its `with:` fields.
    type Params: DeserializeOwned + JsonSchema;
    /// Resolves columns and settings.
    fn plan(params: Self::Params, input: &StreamInfo, cx: &PlanContext) -> Result<SinkPlan, Problems>;
}

/// A planned source.
#[derive(Clone)]
pub struct SourcePlan {
    /// The columns its chunks have, the event time column among them.
    pub columns: SchemaRef,
    /// How its partitions relate to keys.
    pub partitions: Partitions,
    /// Whether it ends by itself.
    pub bounded: bool,
    /// Whether it can be read again from a checkpoint's position and then gives the same rows. A
    /// crash costs the others what lies between the checkpoint and the crash, so sinks keep it.
    pub replayable: bool,
    /// What reads it.
    pub source: Arc<dyn Source>,
}

/// How a source's rows are spread over partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// One partition, read by one instance.
    Single,
    /// Any number, spread over instances. `keyed_by`: rows equal in these columns always come
    /// through the same partition.
    Many { keyed_by: Option<Vec<String>> },
}

/// A planned operator.
#[derive(Clone)]
pub struct OperatorPlan {
    /// Output schema, system columns first (see [`row::stream_schema`]).
    pub schema: SchemaRef,
    /// Where rows are processed.
    pub distribution: Distribution,
    /// Whether rows of a key must come in event order (any stateful operator: yes).
    pub ordered: bool,
    /// Columns that leave as they came in, `(input name, output name)`: lets the planner carry
    /// key and order properties through. Rows must keep their `ts` for it to matter.
    pub passes: Vec<(String, String)>,
    /// Makes an instance.
    pub build: Arc<dyn Fn() -> Box<dyn Operator> + Send + Sync>,
}

/// Where an operator's rows are processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Wherever they are: the operator has no state.
    Local,
    /// By the key columns, one list an input, of equal length and types. Empty lists: all rows on
    /// one worker.
    Keyed(Vec<Vec<String>>),
}

/// A planned sink.
#[derive(Clone)]
pub struct SinkPlan {
    /// In which order rows reach it.
    pub delivery: Delivery,
    /// How rows are spread over writers.
    pub placement: Placement,
    /// When it is flushed.
    pub flush: FlushPolicy,
    /// What writes it.
    pub sink: Arc<dyn Sink>,
}

/// What is known of a stream while its readers are planned.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// The node it comes from.
    pub name: String,
    /// Its schema, system columns first.
    pub schema: SchemaRef,
}

impl StreamInfo {
    /// The index of column `name`; else a problem at `path` that names the columns there are.
    pub fn column(&self, path: &str, name: &str) -> Result<usize, Problem> {
        self.schema.index_of(name).map_err(|_| {
            let columns: Vec<&str> = self
                .schema
                .fields()
                .iter()
                .map(|f| f.name().as_str())
                .filter(|n| !n.starts_with('_'))
                .collect();
            let known = columns.join(", ");
            let problem = Problem::new(path, format!("`{}` has no column `{name}`", self.name));
            match crate::problem::nearest(name, &columns) {
                Some(near) => problem.hint(format!("did you mean `{near}`? its columns: {known}")),
                None => problem.hint(format!("its columns: {known}")),
            }
        })
    }

    /// Like [`column`](Self::column), and it must be a number (any Arrow numeric type; operators
    /// cast it to f64 once per batch).
    pub fn numeric(&self, path: &str, name: &str) -> Result<usize, Problem> {
        let i = self.column(path, name)?;
        let data_type = self.schema.field(i).data_type();
        if data_type.is_numeric() {
            return Ok(i);
        }
        let t = crate::schema::type_name(data_type);
        Err(Problem::new(path, format!("column `{name}` of `{}` is {t}, not a number", self.name)))
    }

    /// Checks key columns: present, and of a type that can be a key. Collects every problem.
    pub fn keys(&self, path: &str, by: &[String]) -> Result<Vec<usize>, Problems> {
        let mut problems = Problems::new();
        let mut indices = Vec::new();
        for (i, name) in by.iter().enumerate() {
            let at = format!("{path}[{i}]");
            match self.column(&at, name) {
                Ok(index) if crate::keys::is_key_type(self.schema.field(index).data_type()) => {
                    indices.push(index)
                }
                Ok(index) => {
                    let t = crate::schema::type_name(self.schema.field(index).data_type());
                    problems.push(
                        Problem::new(at, format!("column `{name}` is {t}, which cannot be a key"))
                            .hint("keys are text, integers, booleans or dates"),
                    );
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(indices) } else { Err(problems) }
    }

    /// The type of column `i`.
    pub fn data_type(&self, i: usize) -> &DataType {
        self.schema.field(i).data_type()
    }

    /// The columns that are not the engine's.
    pub fn user_columns(&self) -> impl Iterator<Item = &Arc<arrow::datatypes::Field>> {
        self.schema.fields().iter().skip(row::SYSTEM_COLUMNS)
    }
}
