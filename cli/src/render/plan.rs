//! A plan as text, Mermaid or JSON.

use std::fmt::Write;

use arrow::datatypes::Schema;
use serde_json::{Value, json};
use tidemill_engine::component::{Distribution, Partitions};
use tidemill_engine::dead_letter;
use tidemill_engine::plan::{Body, Edge, Exchange, Node, Order, Plan, Port};
use tidemill_engine::registry::Role;
use tidemill_engine::row;
use tidemill_engine::schema::type_name;
use tidemill_engine::sink::{Delivery, Guarantee, Placement};

/// For a reader at a terminal.
pub fn text(plan: &Plan, colours: bool) -> String {
    let (bold, dim, end) = if colours { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let mut out = format!("{bold}{}{end} version {}\n", plan.job, plan.version);
    for node in &plan.nodes {
        let mut lines: Vec<(&str, String)> = Vec::new();
        for edge in &node.inputs {
            lines.push(("reads", format!("{}, {}", stream(plan, edge), moves(plan, edge))));
        }
        if let Body::Operator { plan, delivery } = &node.body {
            lines.push((
                "delivery",
                match (delivery, plan.ordered) {
                    (Delivery::Eager, true) => "as rows come: they are in order".into(),
                    (Delivery::Eager, false) => "as rows come: order does not matter".into(),
                    (Delivery::Ordered, _) => "in order, once the watermark has passed".into(),
                },
            ));
        }
        if node.role != Role::Sink {
            lines.push(("columns", columns(&node.schema)));
            lines.push(("order", order(&node.order)));
        }
        lines.push(("runs", parallelism(node)));
        lines.extend(promise(plan, node).map(|promise| ("promise", promise.text())));
        if node.with.as_object().is_some_and(|with| !with.is_empty()) {
            lines.push(("with", flow(&node.with)));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{bold}{}{end} {dim}{} {}{end}", node.name, node.role.noun(), node.kind);
        for (label, line) in lines {
            let _ = writeln!(out, "  {dim}{label:<9}{end}{line}");
        }
    }
    out
}

/// For a page that draws it.
pub fn mermaid(plan: &Plan) -> String {
    let mut out = String::from("flowchart LR\n");
    for node in &plan.nodes {
        let promise = promise(plan, node).map(|p| format!("<br/><small>{}</small>", p.word()));
        let label =
            format!("\"{}<br/><small>{}</small>{}\"", node.name, node.kind, promise.unwrap_or_default());
        let shape = match node.role {
            Role::Source => format!("([{label}])"),
            Role::Operator => format!("[{label}]"),
            Role::Sink => format!("[({label})]"),
        };
        let _ = writeln!(out, "  n{}{shape}", node.id);
    }
    for node in &plan.nodes {
        for edge in &node.inputs {
            let by = by(plan, edge);
            let label = match &edge.exchange {
                Exchange::Stay => String::new(),
                Exchange::Key(_) if by.is_empty() => "|all to one|".into(),
                Exchange::Key(_) => format!("|\"by {}\"|", by.join(", ")),
                Exchange::Shard { shards, .. } if by.is_empty() || *shards == 1 => "|one writer|".into(),
                Exchange::Shard { shards, .. } => {
                    format!("|\"{shards} shards by {}\"|", by.join(", "))
                }
            };
            let arrow = if edge.port == Port::DeadLetters { "-.->" } else { "-->" };
            let _ = writeln!(out, "  n{} {arrow}{label} n{}", edge.from, node.id);
        }
    }
    out
}

/// For programs.
pub fn json(plan: &Plan) -> Value {
    let nodes: Vec<Value> = plan.nodes.iter().map(|node| node_json(plan, node)).collect();
    json!({"job": plan.job, "version": plan.version, "nodes": nodes})
}

fn node_json(plan: &Plan, node: &Node) -> Value {
    let inputs = node.inputs.iter().map(|edge| {
        let exchange = match &edge.exchange {
            Exchange::Stay => json!({"to": "stay"}),
            Exchange::Key(_) => json!({"to": "key", "by": by(plan, edge)}),
            Exchange::Shard { shards, .. } => {
                json!({"to": "shard", "by": by(plan, edge), "shards": shards})
            }
        };
        json!({"from": plan.nodes[edge.from].name, "port": edge.port, "exchange": exchange})
    });
    let fields = node.schema.fields().iter();
    let columns = fields
        .map(|f| json!({"name": f.name(), "type": type_name(f.data_type()), "nullable": f.is_nullable()}));
    let mut out = json!({
        "id": node.id,
        "name": node.name,
        "role": node.role,
        "kind": node.kind,
        "inputs": inputs.collect::<Vec<_>>(),
        "columns": columns.collect::<Vec<_>>(),
        "order": node.order,
        "parallelism": parallelism(node),
        "with": node.with,
    });
    match &node.body {
        Body::Source { plan, options, .. } => {
            out["bounded"] = plan.bounded.into();
            out["replayable"] = plan.replayable.into();
            out["event_time"] = options.event_time.clone().into();
        }
        Body::Operator { plan, delivery } => {
            out["delivery"] = json!(delivery);
            out["ordered"] = plan.ordered.into();
            if let Distribution::Keyed(by) = &plan.distribution {
                out["keys"] = json!(by);
            }
        }
        Body::Sink { plan } => out["delivery"] = json!(plan.delivery),
    }
    if let Some(promise) = promise(plan, node) {
        out["promise"] = json!({"guarantee": promise.guarantee(), "unreplayable_sources": promise.sources});
    }
    out
}

/// What readers of a sink can rely on when the job is killed and goes on.
pub struct Promise<'a> {
    sink: Guarantee,
    /// Sources that feed the sink and cannot be read again.
    pub sources: Vec<&'a str>,
}

/// The promise of a sink; of no other node.
pub fn promise<'a>(plan: &'a Plan, node: &Node) -> Option<Promise<'a>> {
    let Body::Sink { plan: sink } = &node.body else { return None };
    let sources = plan.unreplayable(node.id).into_iter().map(|source| source.name.as_str()).collect();
    Some(Promise { sink: sink.sink.guarantee(), sources })
}

impl Promise<'_> {
    fn guarantee(&self) -> Guarantee {
        if self.sources.is_empty() { self.sink } else { Guarantee::AtLeastOnce }
    }

    fn word(&self) -> &'static str {
        match self.guarantee() {
            Guarantee::ExactlyOnce => "exactly once",
            Guarantee::AtLeastOnce => "at least once",
        }
    }

    /// What limits it, and how that is changed.
    pub fn limit(&self) -> Option<String> {
        let names: Vec<String> = self.sources.iter().map(|name| format!("`{name}`")).collect();
        let noun = if names.len() == 1 { "source" } else { "sources" };
        let limit = || {
            format!(
                "{noun} {} cannot be read again; set `connection: {{capture: FOLDER}}` there to change that",
                names.join(", ")
            )
        };
        (!names.is_empty()).then(limit)
    }

    fn text(&self) -> String {
        match self.limit() {
            Some(limit) => format!("{} across a crash: {limit}", self.word()),
            None => self.word().into(),
        }
    }
}

fn stream(plan: &Plan, edge: &Edge) -> String {
    let name = &plan.nodes[edge.from].name;
    match edge.port {
        Port::Rows => name.clone(),
        Port::DeadLetters => format!("{name}.dead_letters"),
    }
}

/// Names of the columns an edge's rows are spread by.
fn by(plan: &Plan, edge: &Edge) -> Vec<String> {
    let schema = match edge.port {
        Port::Rows => plan.nodes[edge.from].schema.clone(),
        Port::DeadLetters => dead_letter::schema(),
    };
    let (Exchange::Key(by) | Exchange::Shard { by, .. }) = &edge.exchange else {
        return Vec::new();
    };
    by.iter().map(|i| schema.field(*i).name().clone()).collect()
}

fn moves(plan: &Plan, edge: &Edge) -> String {
    let by = by(plan, edge);
    match &edge.exchange {
        Exchange::Stay => "rows stay on their worker".into(),
        Exchange::Key(_) if by.is_empty() => "all rows go to one worker".into(),
        Exchange::Key(_) => format!("rows go to the worker that owns their {}", by.join(", ")),
        Exchange::Shard { shards: 1, .. } => "all rows go to one writer".into(),
        Exchange::Shard { .. } if by.is_empty() => "all rows go to the first writer".into(),
        Exchange::Shard { shards, .. } => {
            format!("rows go to one of {shards} writers by {}", by.join(", "))
        }
    }
}

fn columns(schema: &Schema) -> String {
    let shown = schema.fields().iter().filter(|f| !matches!(f.name().as_str(), row::SRC | row::SEQ));
    let shown = shown.map(|f| {
        format!("{} {}{}", f.name(), type_name(f.data_type()), if f.is_nullable() { "?" } else { "" })
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn order(order: &Order) -> String {
    match order {
        Order::Total => "all rows in order, on one worker".into(),
        Order::PerKey { by, .. } => format!("in order for each {}", by.join(", ")),
        Order::None => "none is promised".into(),
    }
}

fn parallelism(node: &Node) -> String {
    match &node.body {
        Body::Source { plan, .. } => {
            let spread = match &plan.partitions {
                Partitions::Single => "one partition, on one worker",
                Partitions::Many { .. } => "partitions spread over the workers",
            };
            format!("{spread}; {}", if plan.bounded { "it ends" } else { "without end" })
        }
        Body::Operator { plan, .. } => match &plan.distribution {
            Distribution::Local => "on every worker".into(),
            Distribution::Keyed(by) if by.first().is_none_or(Vec::is_empty) => "on one worker".into(),
            Distribution::Keyed(by) => {
                format!("on every worker, each with its share of {}", by[0].join(", "))
            }
        },
        Body::Sink { plan } => match &plan.placement {
            Placement::Local => "one writer a worker".into(),
            Placement::Shards { count, .. } => super::count(*count, "writer"),
        },
    }
}

/// A value in YAML's flow style.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", flow(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => {
            let plain = !text.is_empty()
                && text.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c))
                && !matches!(text.as_str(), "true" | "false" | "null")
                && text.parse::<f64>().is_err();
            if plain { text.clone() } else { format!("{value}") }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_yaml() {
        let value = json!({"every": "1m", "by": ["venue"], "n": 3, "sql": "a, b", "s": "3", "nothing": null});
        assert_eq!(flow(&value), "{every: 1m, by: [venue], n: 3, sql: \"a, b\", s: \"3\", nothing: null}");
    }
}
