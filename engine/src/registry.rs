//! The list of component kinds a binary knows.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::component::*;
use crate::params;

/// What a kind is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Rows come in.
    Source,
    /// Rows are transformed.
    Operator,
    /// Rows go out.
    Sink,
}

impl Role {
    /// The section of a graph that holds its nodes.
    pub fn section(self) -> &'static str {
        match self {
            Self::Source => "sources",
            Self::Operator => "operators",
            Self::Sink => "sinks",
        }
    }

    /// Its name.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Operator => "operator",
            Self::Sink => "sink",
        }
    }

    /// Its name with an article.
    pub fn article(self) -> &'static str {
        match self {
            Self::Source => "a source",
            Self::Operator => "an operator",
            Self::Sink => "a sink",
        }
    }

    pub(crate) fn example_of_from(self) -> &'static str {
        if self == Self::Source { "" } else { "from: …, " }
    }
}

/// One kind, its documentation, and how to plan it from raw parameters.
pub struct Entry {
    /// Name in `kind:`.
    pub kind: &'static str,
    /// What it is for.
    pub role: Role,
    /// JSON Schema of its `with:` block; its `description` is the manual page.
    pub schema: fn() -> Value,
    pub(crate) plan: PlanFn,
    check: fn(Value) -> Result<(), Problems>,
}

type PlanSource = fn(Value, PlanContext) -> BoxFuture<'static, Result<SourcePlan, Problems>>;
type PlanOperator = fn(Value, &[StreamInfo], &PlanContext) -> Result<OperatorPlan, Problems>;
type PlanSink = fn(Value, &StreamInfo, &PlanContext) -> Result<SinkPlan, Problems>;

#[derive(Clone, Copy)]
pub(crate) enum PlanFn {
    Source(PlanSource),
    Operator(PlanOperator, (usize, usize)),
    Sink(PlanSink),
}

impl Entry {
    /// The manual page: the parameters' doc comment.
    pub fn doc(&self) -> String {
        (self.schema)().get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The first paragraph of the manual page, on one line.
    pub fn summary(&self) -> String {
        let doc = self.doc();
        let paragraph = doc.split("\n\n").next().unwrap_or_default();
        paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// How many inputs it takes, least and most.
    pub fn inputs(&self) -> (usize, usize) {
        match self.plan {
            PlanFn::Source(_) => (0, 0),
            PlanFn::Operator(_, inputs) => inputs,
            PlanFn::Sink(_) => (1, 1),
        }
    }

    /// Reads a `with:` block without planning anything: finds what is wrong with its fields alone.
    pub fn check(&self, with: Value) -> Result<(), Problems> {
        (self.check)(with)
    }
}

/// All kinds, by role and name.
#[derive(Default)]
pub struct Registry {
    entries: BTreeMap<(Role, &'static str), Entry>,
}

fn schema_of<P: JsonSchema>() -> Value {
    schemars::schema_for!(P).to_value()
}

fn parse<P: DeserializeOwned + JsonSchema>(with: Value) -> Result<P, Problems> {
    params::parse(with, &schema_of::<P>())
}

fn check<P: DeserializeOwned + JsonSchema>(with: Value) -> Result<(), Problems> {
    parse::<P>(with).map(drop)
}

impl Registry {
    /// Adds a source kind.
    pub fn source<K: SourceKind>(&mut self) -> &mut Self {
        let plan: PlanSource = |with, cx| Box::pin(async move { K::plan(parse(with)?, &cx).await });
        self.add(Entry {
            kind: K::KIND,
            role: Role::Source,
            schema: schema_of::<K::Params>,
            plan: PlanFn::Source(plan),
            check: check::<K::Params>,
        })
    }

    /// Adds an operator kind.
    pub fn operator<K: OperatorKind>(&mut self) -> &mut Self {
        let plan: PlanOperator = |with, inputs, cx| K::plan(parse(with)?, inputs, cx);
        let plan = PlanFn::Operator(plan, K::INPUTS);
        self.add(Entry {
            kind: K::KIND,
            role: Role::Operator,
            schema: schema_of::<K::Params>,
            plan,
            check: check::<K::Params>,
        })
    }

    /// Adds a sink kind.
    pub fn sink<K: SinkKind>(&mut self) -> &mut Self {
        let plan: PlanSink = |with, input, cx| K::plan(parse(with)?, input, cx);
        self.add(Entry {
            kind: K::KIND,
            role: Role::Sink,
            schema: schema_of::<K::Params>,
            plan: PlanFn::Sink(plan),
            check: check::<K::Params>,
        })
    }

    fn add(&mut self, entry: Entry) -> &mut Self {
        let key = (entry.role, entry.kind);
        let before = self.entries.insert(key, entry);
        assert!(before.is_none(), "kind {key:?} is registered twice");
        self
    }

    /// The entry of a kind in a role.
    pub fn get(&self, role: Role, kind: &str) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.role == role && entry.kind == kind)
    }

    /// All entries, by role and name.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Names of a role's kinds.
    pub fn kinds(&self, role: Role) -> impl Iterator<Item = &'static str> {
        self.entries.keys().filter(move |(r, _)| *r == role).map(|(_, k)| *k)
    }
}
