//! Whether a job can go on from a checkpoint that another version of its graph took.
//!
//! What a checkpoint holds of a graph is the list that [`describe`] gives. The rules:
//! - An operator with state must be the same: kind, fields, schema, and the nodes its rows stem
//!   from. One that is new would have missed the rows before the checkpoint; one that is gone
//!   would leave its state behind.
//! - A source must keep its name, kind and event time: its positions are stored under its name. Its
//!   other fields (addresses, credentials, limits) may change.
//!   [`StateChanges`] allows either.
//! - A node is known by its `id`, which is its name unless the graph says otherwise: so a node may be renamed.
//! - A sink may come, go, and change its fields; under one name it keeps its kind.
//! - Stateless operators may change at will. A change of what they let through applies to the rows
//!   after the checkpoint.

use arrow::datatypes::Schema;
use serde_json::{Map, Value, json};

use super::{Body, Node, Plan, Port};
use crate::component::Distribution;
use crate::problem::Problem;
use crate::registry::Role;
use crate::schema::type_name;

/// What a checkpoint remembers of a graph: one entry a node.
pub fn describe(plan: &Plan) -> Value {
    plan.nodes.iter().map(|node| describe_node(plan, node)).collect()
}

/// A hash of [`describe`] that is the same on every machine.
pub fn fingerprint(plan: &Plan) -> u64 {
    xxhash_rust::xxh3::xxh3_64(describe(plan).to_string().as_bytes())
}

fn describe_node(plan: &Plan, node: &Node) -> Value {
    let schema = |schema: &Schema| -> Value {
        schema.fields().iter().map(|f| json!([f.name(), type_name(f.data_type()), f.is_nullable()])).collect()
    };
    let origins: Vec<Value> = node
        .inputs
        .iter()
        .map(|edge| {
            let mut names = Vec::new();
            origins(plan, edge.from, edge.port, &mut names);
            names.into()
        })
        .collect();
    json!({
        "name": node.identity,
        "role": node.role,
        "kind": node.kind,
        "stateful": is_stateful(node),
        "with": node.with,
        "schema": schema(&node.schema),
        "inputs": origins,
    })
}

fn is_stateful(node: &Node) -> bool {
    match &node.body {
        Body::Operator { plan, .. } => plan.ordered || plan.distribution != Distribution::Local,
        _ => false,
    }
}

/// The nodes that a stream's rows stem from, looking through those without state.
fn origins(plan: &Plan, id: usize, port: Port, names: &mut Vec<String>) {
    let node = &plan.nodes[id];
    if node.role == Role::Operator && !is_stateful(node) {
        node.inputs.iter().for_each(|edge| origins(plan, edge.from, edge.port, names));
        return;
    }
    let name = if port == Port::DeadLetters {
        format!("{}.dead_letters", node.identity)
    } else {
        node.identity.clone()
    };
    if !names.contains(&name) {
        names.push(name);
    }
}

const HINT: &str = "undo it, give the dataflow another name, or run with `--from none` to begin from nothing";
const HINT_GONE: &str = "if it was renamed, give it `id:` with its former name; `--allow-gone-state` leaves that behind; or run with \
                         `--from none` to begin from nothing";
const HINT_NEW: &str = "if it was renamed, give it `id:` with its former name; with `--allow-new-state` it begins empty; or run with \
                        `--from none` to begin from nothing";

/// Changes of state that are allowed when a job goes on from a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateChanges {
    /// Operators that are new begin without state: they have missed the rows before the checkpoint.
    pub new: bool,
    /// State of operators, and positions of sources, that are gone are left behind.
    pub gone: bool,
}

/// Whether `new` can go on from a checkpoint of the graph that [`describe`] gave `old` for; else
/// everything that keeps it from that.
pub fn compatible(old: &Value, new: &Plan, changes: StateChanges) -> Result<(), Vec<Problem>> {
    let described = describe(new);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (old, new) = (list(old), list(&described));
    let mut problems = Vec::new();
    let mut refuse =
        |path: String, reason: String, hint: &str| problems.push(Problem::new(path, reason).hint(hint));
    for before in &old {
        let (name, role) = (text(before, "name"), text(before, "role"));
        let path = format!("{role}s.{name}");
        let Some(after) =
            new.iter().find(|node| node["name"] == before["name"] && node["role"] == before["role"])
        else {
            if changes.gone {
                continue;
            }
            if before["stateful"] == true {
                refuse(
                    path,
                    format!("operator `{name}` is gone, and the checkpoint holds its state"),
                    HINT_GONE,
                );
            } else if role == "source" {
                refuse(
                    path,
                    format!("source `{name}` is gone, and the checkpoint holds its positions"),
                    HINT_GONE,
                );
            }
            continue;
        };
        let stateful = before["stateful"] == true || after["stateful"] == true;
        if before["kind"] != after["kind"] && (stateful || role != "operator") {
            let (was, is) = (text(before, "kind"), text(after, "kind"));
            refuse(format!("{path}.kind"), format!("the kind was `{was}` and is `{is}`"), HINT);
            continue;
        }
        if role == "source" && before["with"]["event_time"] != after["with"]["event_time"] {
            let (was, is) = (shown(before["with"].get("event_time")), shown(after["with"].get("event_time")));
            refuse(format!("{path}.with.event_time"), format!("the event time was {was} and is {is}"), HINT);
        }
        if !stateful {
            continue;
        }
        let mut differs = |path, reason| refuse(path, reason, HINT);
        differences(&format!("{path}.with"), &before["with"], &after["with"], &mut differs);
        if before["inputs"] != after["inputs"] {
            let streams =
                |node: &Value| list(&node["inputs"]).iter().map(names).collect::<Vec<_>>().join(" and ");
            refuse(
                format!("{path}.from"),
                format!("its rows came from {} and come from {}", streams(before), streams(after)),
                HINT,
            );
        }
        if before["schema"] != after["schema"] {
            refuse(
                path,
                format!(
                    "its columns changed: {}",
                    columns(&list(&before["schema"]), &list(&after["schema"]))
                ),
                HINT,
            );
        }
    }
    for after in new.iter().filter(|node| node["stateful"] == true && !changes.new) {
        let known = old.iter().any(|node| node["name"] == after["name"] && node["role"] == after["role"]);
        if !known {
            let name = text(after, "name");
            let reason =
                format!("operator `{name}` is new: its state would lack the rows before the checkpoint");
            refuse(format!("operators.{name}"), reason, HINT_NEW);
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn text<'a>(node: &'a Value, field: &str) -> &'a str {
    node[field].as_str().unwrap_or_default()
}

fn names(list: &Value) -> String {
    let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "not set".into(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    }
}

fn differences(path: &str, before: &Value, after: &Value, refuse: &mut impl FnMut(String, String)) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let new = after.keys().filter(|name| !before.contains_key(*name));
            for name in before.keys().chain(new) {
                let (was, is) = (before.get(name), after.get(name));
                let both = was.is_some_and(Value::is_object) && is.is_some_and(Value::is_object);
                let path = format!("{path}.{name}");
                match (was, is) {
                    (Some(was), Some(is)) if both => differences(&path, was, is, refuse),
                    _ if was != is => {
                        refuse(path, format!("`{name}` was {} and is {}", shown(was), shown(is)))
                    }
                    _ => {}
                }
            }
        }
        _ if before != after => {
            refuse(path.to_owned(), format!("it was {} and is {}", shown(Some(before)), shown(Some(after))))
        }
        _ => {}
    }
}

fn columns(before: &[Value], after: &[Value]) -> String {
    let by_name = |list: &[Value]| -> Map<String, Value> {
        list.iter().filter_map(|c| Some((c[0].as_str()?.to_owned(), c.clone()))).collect()
    };
    let (was, is) = (by_name(before), by_name(after));
    let mut changes = Vec::new();
    for (name, column) in &was {
        match is.get(name) {
            None => changes.push(format!("`{name}` is gone")),
            Some(now) if now[1] != column[1] => {
                changes.push(format!("`{name}` was {} and is {}", text_of(&column[1]), text_of(&now[1])));
            }
            Some(now) if now[2] != column[2] => {
                let may = if now[2] == true { "may now" } else { "may no longer" };
                changes.push(format!("`{name}` {may} be null"));
            }
            Some(_) => {}
        }
    }
    changes.extend(is.keys().filter(|name| !was.contains_key(*name)).map(|name| format!("`{name}` is new")));
    if changes.is_empty() { "their order".into() } else { changes.join(", ") }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
