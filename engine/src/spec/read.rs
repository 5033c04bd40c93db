//! Reads the sections of a graph out of its YAML values.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::vars::{At, Expanded, Findings, Scope};
use super::{CheckpointOptions, NodeSpec, Spec, SpecErrors, TestSpec, yaml};
use crate::params;
use crate::problem::Problem;
use crate::registry::Role;
use crate::size::Size;
use crate::state_memory::StateOptions;

/// The sections of a graph and what they are.
pub const SECTIONS: [(&str, &str); 10] = [
    ("dataflow", "Name of the job: lower-case letters, digits, `_` and `-`."),
    ("version", "The graph's version, a whole number."),
    ("description", "What the graph is for."),
    (
        "vars",
        "Variables: `$name` and `${name}` stand for them in the sections below; `--set name=value` replaces them.",
    ),
    ("sources", "Where rows come from, by name."),
    ("operators", "What is done to them, by name."),
    ("sinks", "Where rows go, by name."),
    ("checkpoints", "How the job is checkpointed."),
    ("state", "How much memory keyed state may take, and where the rest goes."),
    ("tests", "Rows in, rows out: `tidemill test` runs them."),
];

/// Most nodes a graph may have.
const NODES_MAX: usize = 1_000;
/// Fields of a node.
const FIELDS: [&str; 4] = ["kind", "id", "from", "with"];
/// Least memory for keyed state.
const MEMORY_MIN: Size = Size::from_bytes(16 << 20);
/// Longest name of a job or node.
const NAME_MAX: usize = 64;

pub(super) fn read(
    text: &str,
    file: &str,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Spec, SpecErrors), SpecErrors> {
    let text: Arc<str> = Arc::from(text);
    let document = yaml::parse(&text).map_err(|placed| SpecErrors::new(file, text.clone(), vec![placed]))?;
    let base = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
    let mut spec = Spec {
        dataflow: String::new(),
        version: 1,
        description: None,
        nodes: Vec::new(),
        checkpoints: CheckpointOptions::default(),
        state: StateOptions::default(),
        tests: Vec::new(),
        file: file.to_owned(),
        base: base.clone(),
        text: text.clone(),
        marks: document.marks,
    };
    let top = match document.value {
        Value::Object(top) => top,
        other => {
            let found = if other.is_null() { "nothing".into() } else { params::describe(&other) };
            let problem = Problem::new("", format!("expected a graph, found {found}"))
                .hint("a graph has `dataflow: NAME`, `sources:`, `operators:` and `sinks:`");
            return Err(spec.errors(vec![problem]));
        }
    };
    let mut reader = Reader { problems: Vec::new() };
    reader.unknown_sections(&top);
    reader.heading(&top, &mut spec);
    let vars = reader.vars(top.get("vars"), sets, env, &base);
    let scope = Scope { vars, env, base: &base };
    for role in [Role::Source, Role::Operator, Role::Sink] {
        reader.section(&top, role, &scope, &mut spec.nodes);
    }
    reader.names(&spec.nodes);
    if let Some(value) = top.get("checkpoints") {
        let mut findings = Findings::default();
        let value = scope.expand(value, "checkpoints", At::default(), &mut findings);
        reader.problems.append(&mut findings.problems);
        if !value.poisoned {
            reader.checkpoints(value.resolved, &mut spec);
        }
    }
    if let Some(value) = top.get("state") {
        let mut findings = Findings::default();
        let value = scope.expand(value, "state", At::default(), &mut findings);
        reader.problems.append(&mut findings.problems);
        if !value.poisoned {
            reader.state(value.resolved, &mut spec);
        }
    }
    if let Some(value) = top.get("tests") {
        reader.tests(value, &mut spec);
    }
    let mut errors = spec.errors(reader.problems);
    errors.extend(SpecErrors::new(file, text, document.problems));
    Ok((spec, errors))
}

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn unknown_sections(&mut self, top: &Map<String, Value>) {
        let names = SECTIONS.map(|(name, _)| name);
        for name in top.keys().filter(|name| !names.contains(&name.as_str())) {
            let problem = Problem::new(name, format!("unknown section `{name}`"));
            self.problem(problem.hint_names(name, names).at_key());
        }
    }

    fn heading(&mut self, top: &Map<String, Value>, spec: &mut Spec) {
        match top.get("dataflow") {
            Some(Value::String(name)) => {
                spec.dataflow = name.clone();
                self.name("dataflow", name);
            }
            Some(other) => self.problem(
                Problem::new("dataflow", format!("expected a name, found {}", params::describe(other)))
                    .hint("the job's name, such as `dataflow: momentum`"),
            ),
            None => {
                self.problem(Problem::new("", "the graph has no name").hint("begin it with `dataflow: NAME`"))
            }
        }
        match top.get("version").map(|v| (v, v.as_u64())) {
            Some((_, Some(version))) => spec.version = version,
            Some((other, None)) => self.problem(Problem::new(
                "version",
                format!("expected a whole number, found {}", params::describe(other)),
            )),
            None => {}
        }
        match top.get("description") {
            Some(Value::String(text)) => spec.description = Some(text.clone()),
            Some(Value::Null) | None => {}
            Some(other) => self.problem(Problem::new(
                "description",
                format!("expected text, found {}", params::describe(other)),
            )),
        }
    }

    fn vars(
        &mut self,
        value: Option<&Value>,
        sets: &[(String, String)],
        env: &dyn Fn(&str) -> Option<String>,
        base: &Path,
    ) -> Vec<(String, Expanded)> {
        let mut scope = Scope { vars: Vec::new(), env, base };
        let empty = Map::new();
        let fields = match value {
            Some(Value::Object(fields)) => fields,
            Some(Value::Null) | None => &empty,
            Some(other) => {
                self.problem(
                    Problem::new(
                        "vars",
                        format!("expected names and values, found {}", params::describe(other)),
                    )
                    .hint("write `vars: {name: value}`"),
                );
                &empty
            }
        };
        for (name, _) in sets.iter().filter(|(name, _)| !fields.contains_key(name)) {
            let problem = Problem::new("vars", format!("--set {name}: the graph has no variable `{name}`"));
            self.problem(match fields.is_empty() {
                true => problem.hint("it declares none"),
                false => problem.hint_names(name, fields.keys().map(String::as_str)),
            });
        }
        for (name, declared) in fields {
            let path = format!("vars.{name}");
            let ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !ok {
                self.problem(
                    Problem::new(&path, format!("`{name}` cannot be the name of a variable"))
                        .hint("use letters, digits and `_`, beginning with a letter")
                        .at_key(),
                );
            }
            // The last of several wins, as on every command line.
            let set = sets.iter().rev().find(|(n, _)| n == name).map(|(_, text)| match declared {
                Value::String(_) => Value::String(text.clone()),
                _ => super::scalar(text),
            });
            let mut findings = Findings::default();
            let at = At::default();
            let expanded = scope.expand(set.as_ref().unwrap_or(declared), &path, at, &mut findings);
            self.problems.append(&mut findings.problems);
            scope.vars.push((name.clone(), expanded));
        }
        scope.vars
    }

    fn section(&mut self, top: &Map<String, Value>, role: Role, scope: &Scope, nodes: &mut Vec<NodeSpec>) {
        let section = role.section();
        let fields = match top.get(section) {
            Some(Value::Object(fields)) => fields,
            None | Some(Value::Null) if role == Role::Operator => return,
            None | Some(Value::Null) => {
                let problem = Problem::new(section, format!("the graph has no {section}"));
                return self
                    .problem(problem.hint(format!("write `{section}: {{NAME: {{kind: …, with: {{…}}}}}}`")));
            }
            Some(other) => {
                let problem = Problem::new(
                    section,
                    format!("expected nodes by name, found {}", params::describe(other)),
                );
                return self
                    .problem(problem.hint(format!("write `{section}: {{NAME: {{kind: …, with: {{…}}}}}}`")));
            }
        };
        if fields.is_empty() && role != Role::Operator {
            self.problem(Problem::new(section, format!("the graph has no {section}")));
        }
        for (name, value) in fields {
            if nodes.len() == NODES_MAX {
                return self.problem(Problem::new(section, format!("a graph has at most {NODES_MAX} nodes")));
            }
            let node = self.node(name, role, value, scope);
            nodes.push(node);
        }
    }

    fn node(&mut self, name: &str, role: Role, value: &Value, scope: &Scope) -> NodeSpec {
        let path = format!("{}.{name}", role.section());
        let mut node = NodeSpec::new(name, role, path.clone());
        self.name(&path, name);
        let Value::Object(fields) = value else {
            node.broken = true;
            self.problem(
                Problem::new(&path, format!("expected a node, found {}", params::describe(value)))
                    .hint(format!("a node is `{name}: {{kind: …, {}with: {{…}}}}`", role.example_of_from())),
            );
            return node;
        };
        for field in fields.keys().filter(|f| !FIELDS.contains(&f.as_str())) {
            let problem =
                Problem::new(format!("{path}.{field}"), format!("unknown field `{field}`")).at_key();
            self.problem(match crate::problem::nearest(field, &FIELDS) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("settings of its kind go under `with`: `with: {{{field}: …}}`")),
            });
        }
        match fields.get("kind") {
            Some(Value::String(kind)) => node.kind = kind.clone(),
            other => {
                node.broken = true;
                let problem = match other {
                    Some(Value::Null) | None => Problem::new(&path, "the node has no `kind`"),
                    Some(other) => Problem::new(
                        format!("{path}.kind"),
                        format!("expected the name of a kind, found {}", params::describe(other)),
                    ),
                };
                self.problem(problem.hint("`tidemill components` lists the kinds"));
            }
        }
        match fields.get("id") {
            None | Some(Value::Null) => {}
            Some(Value::String(id)) => {
                self.name(&format!("{path}.id"), id);
                node.id = Some(id.clone());
            }
            Some(other) => {
                let found = params::describe(other);
                let problem = Problem::new(format!("{path}.id"), format!("expected a name, found {found}"));
                self.problem(
                    problem.hint("the name under which checkpoints know the node: the one it had before"),
                );
            }
        }
        let good;
        (node.from, good) = self.from(&path, role, fields.get("from"));
        node.broken |= !good;
        match fields.get("with") {
            None | Some(Value::Null) => {}
            Some(with) => {
                let mut findings = Findings::default();
                let at = At { open: role == Role::Operator, ..At::default() };
                let expanded = scope.expand(with, &format!("{path}.with"), at, &mut findings);
                self.problems.append(&mut findings.problems);
                node.poisoned = findings.poisoned;
                if expanded.resolved.is_object() {
                    (node.with, node.written) = (expanded.resolved, expanded.written);
                } else {
                    node.broken = true;
                    if !expanded.poisoned {
                        let found = params::describe(with);
                        self.problem(Problem::new(
                            format!("{path}.with"),
                            format!("expected fields, found {found}"),
                        ));
                    }
                }
            }
        }
        node
    }

    /// The nodes that `from` names, and whether that is all there is to it.
    fn from(&mut self, path: &str, role: Role, value: Option<&Value>) -> (Vec<String>, bool) {
        let at = format!("{path}.from");
        let items = match value {
            None | Some(Value::Null) => return (Vec::new(), true),
            Some(_) if role == Role::Source => {
                let problem = Problem::new(at, "a source reads no other node").at_key();
                self.problem(problem.hint("remove `from`, or move the node to `operators:`"));
                return (Vec::new(), true);
            }
            Some(Value::Array(items)) => items.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        let mut names = Vec::new();
        for (i, item) in items.iter().enumerate() {
            if let Value::String(name) = item {
                names.push(name.clone());
                continue;
            }
            let at = if value == Some(item) { at.clone() } else { format!("{at}[{i}]") };
            let reason = format!("expected a node's name, found {}", params::describe(item));
            let problem = Problem::new(at, reason);
            self.problem(problem.hint("write `from: NAME` or `from: [NAME, NAME]`"));
        }
        let good = names.len() == items.len();
        (names, good)
    }

    fn name(&mut self, path: &str, name: &str) {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        let what = if path == "dataflow" { "job" } else { "node" };
        let problem = if name.is_empty() || !name.chars().all(ok) {
            let lower = name.to_ascii_lowercase();
            let words: Vec<&str> = lower.split(|c| !ok(c)).filter(|w| !w.is_empty()).collect();
            let near = words.join("_");
            Problem::new(path, format!("`{name}` cannot be the name of a {what}")).hint(
                match near.is_empty() {
                    true => "use lower-case letters, digits, `_` and `-`".to_owned(),
                    false => format!("use lower-case letters, digits, `_` and `-`: `{near}`"),
                },
            )
        } else if name.len() > NAME_MAX {
            Problem::new(path, format!("the name of a {what} has at most {NAME_MAX} characters"))
        } else {
            return;
        };
        self.problem(problem);
    }

    fn names(&mut self, nodes: &[NodeSpec]) {
        for (i, node) in nodes.iter().enumerate() {
            let same = |other: &&NodeSpec| other.identity() == node.identity() && other.name != node.name;
            if let Some(first) = nodes[..i].iter().find(same) {
                let at = if node.id.is_some() { format!("{}.id", node.path) } else { node.path.clone() };
                let reason = format!("checkpoints know `{}` as `{}` already", first.path, node.identity());
                self.problem(Problem::new(at, reason).hint("give each node an `id` of its own"));
            }
            if let Some(first) = nodes[..i].iter().find(|other| other.name == node.name) {
                self.problem(
                    Problem::new(
                        &node.path,
                        format!("`{}` is also the name of {}", node.name, first.role.article()),
                    )
                    .hint(format!(
                        "rename one: names are unique over sources, operators and sinks (`{}`)",
                        first.path
                    )),
                );
            }
        }
    }

    fn parse<P: DeserializeOwned + schemars::JsonSchema>(&mut self, value: Value, path: &str) -> Option<P> {
        match params::parse(value, &schemars::schema_for!(P).to_value()) {
            Ok(parsed) => Some(parsed),
            Err(problems) => {
                self.problems.extend(problems.into_iter().map(|p| p.under(path)));
                None
            }
        }
    }

    fn checkpoints(&mut self, value: Value, spec: &mut Spec) {
        let every = value.get("every").map(|every| match every {
            Value::String(text) => text.parse::<crate::duration::Span>().is_ok_and(|span| span.ns() == 0),
            other => other == 0,
        });
        if every == Some(true) {
            let problem = Problem::new("checkpoints.every", "checkpoints cannot be taken without a pause");
            self.problem(problem.hint("write a span of time such as `10s`"));
        }
        if value.get("keep").is_some_and(|keep| keep == 0) {
            self.problem(Problem::new("checkpoints.keep", "at least one checkpoint must be kept"));
        }
        if let Some(options) = self.parse::<CheckpointOptions>(value, "checkpoints") {
            spec.checkpoints = options;
        }
    }

    fn state(&mut self, value: Value, spec: &mut Spec) {
        let Some(options) = self.parse::<StateOptions>(value, "state") else { return };
        match options.memory {
            Some(memory) if memory < MEMORY_MIN => {
                let problem = Problem::new("state.memory", format!("{memory} is less than {MEMORY_MIN}"));
                self.problem(problem.hint("this is for the state of all nodes together: `2GiB`, say"));
            }
            None if options.spill.is_some() => {
                let problem = Problem::new("state.spill", "it is not said how much stays in memory");
                self.problem(problem.hint("add `memory: 2GiB`, say").at_key());
            }
            _ => {}
        }
        if options.spill.as_ref().is_some_and(|folder| folder.is_empty() || folder.contains("://")) {
            let problem = Problem::new("state.spill", "expected a folder on a local disk");
            self.problem(problem.hint("checkpoints keep the state in object storage: `checkpoints.url`"));
        }
        spec.state = options;
    }

    fn tests(&mut self, value: &Value, spec: &mut Spec) {
        let items = match value {
            Value::Array(items) => items,
            Value::Null => return,
            other => {
                let found = params::describe(other);
                return self.problem(
                    Problem::new("tests", format!("expected a list of tests, found {found}"))
                        .hint("each test is `- {name: …, given: {…}, expect: {…}}`"),
                );
            }
        };
        for (i, item) in items.iter().enumerate() {
            let path = format!("tests[{i}]");
            let Some(test) = self.parse::<TestSpec>(item.clone(), &path) else {
                continue;
            };
            for (part, rows, role) in
                [("given", &test.given, Role::Source), ("expect", &test.expect, Role::Sink)]
            {
                for (name, rows) in rows {
                    let at = format!("{path}.{part}.{name}");
                    let mut names = spec.nodes.iter().filter(|n| n.role == role).map(|n| n.name.as_str());
                    if !names.clone().any(|n| n == name) {
                        let problem = Problem::new(&at, format!("the graph has no {} `{name}`", role.noun()));
                        self.problem(problem.hint_names(name, names.by_ref()).at_key());
                    }
                    for (j, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_object()) {
                        let found = params::describe(row);
                        self.problem(
                            Problem::new(format!("{at}[{j}]"), format!("expected a row, found {found}"))
                                .hint("a row is `{column: value, …}`"),
                        );
                    }
                }
            }
            spec.tests.push(test);
        }
    }
}
