//! From the graph as it runs live to the graph of a backtest: the same operators, with sources that end, the venue on
//! paper and no sink that anybody else would see.
//!
//! Everything happens before planning, so what is wrong is told as of any graph: with its place in the file.

use serde_json::{Value, json};
use tidemill_engine::problem::Problem;
use tidemill_engine::registry::{Registry, Role};
use tidemill_engine::spec::{NodeSpec, Spec};

use super::sources::{self, Archive};

/// Kind of the operator that trades.
pub const EXECUTION: &str = "execution";
/// What the names of added sinks begin with. No node of a graph can have such a name.
pub const TAP: &str = "tap:";
/// The same, of sinks that keep the benchmark's prices.
pub const PRICES: &str = "prices:";

/// What a backtest makes of a graph.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Where sources that do not end are read from.
    pub archive: Archive,
    /// Times that are read: from the first up to, not including, the second. UTC nanoseconds.
    pub range: (Option<i64>, Option<i64>),
    /// The account that is reported, where the graph has several.
    pub account: Option<String>,
    /// Settings of the paper venue that replace those of the graph.
    pub paper: Value,
    /// The symbol of the market data that results are compared with.
    pub benchmark: Option<String>,
    /// Nodes whose rows are wanted as well.
    pub keep: Vec<String>,
    /// Whether the rows of every operator are wanted.
    pub all: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// The `execution` node that is reported.
    pub execution: Option<String>,
    /// Nodes whose rows a tap takes.
    pub tapped: Vec<String>,
    /// What a person should know of the change.
    pub notes: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Changes `spec` in place.
pub fn change(spec: &mut Spec, registry: &Registry, wanted: &Change) -> Changed {
    let mut done = Changed::default();
    // They speak of sources and sinks that are there no longer.
    spec.tests.clear();
    done.execution = account(spec, wanted, &mut done.problems);
    // Commands that are on file are part of the history, and so are those that the graph itself gives; what somebody would send now is not.
    let sent = |n: &&NodeSpec| n.role == Role::Source && !sources::ends(n) && !wanted.archive.names(&n.name);
    let sent: Vec<String> = spec.nodes.iter().filter(sent).map(|n| n.name.clone()).collect();
    for node in spec.nodes.iter_mut().filter(|n| n.kind == EXECUTION && n.role == Role::Operator) {
        on_paper(node, &wanted.paper, &sent, &mut done.notes);
    }
    let unknown = wanted
        .keep
        .iter()
        .filter(|name| !spec.nodes.iter().any(|n| n.name == **name && n.role != Role::Sink));
    for name in unknown {
        let names = spec.nodes.iter().filter(|n| n.role != Role::Sink).map(|n| n.name.as_str());
        let problem = Problem::new("", format!("--keep {name}: the graph has no such source or operator"));
        done.problems.push(problem.hint_names(name, names));
    }
    let operators = spec.nodes.iter().filter(|n| n.role == Role::Operator).map(|n| n.name.clone());
    let mut tapped: Vec<String> = if wanted.all { operators.collect() } else { Vec::new() };
    tapped.extend(done.execution.iter().chain(&wanted.keep).cloned());
    tapped.sort();
    tapped.dedup();
    let market = match (&wanted.benchmark, &done.execution) {
        (Some(_), Some(name)) => spec.node(name).map(market).unwrap_or_default(),
        _ => Vec::new(),
    };
    // With an unknown account nothing is read at all.
    let whole = done.problems.is_empty();
    prune(spec, &tapped, &market);
    for node in spec.nodes.iter_mut().filter(|n| n.role == Role::Source) {
        sources::replace(node, registry, wanted, &mut done);
    }
    for name in wanted.archive.sources.iter().map(|(name, _)| name).filter(|_| whole) {
        if !spec.nodes.iter().any(|n| n.role == Role::Source && n.name == *name) {
            let names = spec.nodes.iter().filter(|n| n.role == Role::Source).map(|n| n.name.as_str());
            let problem = Problem::new("", format!("--source {name}: the backtest reads no such source"));
            done.problems.push(problem.hint_names(name, names));
        }
    }
    done.tapped = tapped;
    done
}

/// The one `execution` node, or the one that was asked for.
fn account(spec: &Spec, wanted: &Change, problems: &mut Vec<Problem>) -> Option<String> {
    let names: Vec<&str> = spec
        .nodes
        .iter()
        .filter(|n| n.kind == EXECUTION && n.role == Role::Operator)
        .map(|n| n.name.as_str())
        .collect();
    match (&wanted.account, names.as_slice()) {
        (Some(name), names) if names.contains(&name.as_str()) => Some(name.clone()),
        (Some(name), names) => {
            let problem =
                Problem::new("", format!("--account {name}: the graph has no such `{EXECUTION}` operator"));
            problems.push(problem.hint_names(name, names.iter().copied()));
            None
        }
        (None, [one]) => Some((*one).to_owned()),
        // The look-ahead check needs no account.
        (None, []) if wanted.all => None,
        (None, []) => {
            let reason = format!("the graph has no `{EXECUTION}` operator, so nothing is traded");
            let hint = "add one that reads the signals and the market data; `tidemill components execution` shows how";
            problems.push(Problem::new("operators", reason).hint(hint));
            None
        }
        (None, many) => {
            let reason = format!("the graph has {} accounts: {}", many.len(), many.join(", "));
            problems.push(Problem::new("operators", reason).hint("choose one with --account NAME"));
            None
        }
    }
}

/// Puts an account on paper, and cuts it off from what only a live venue sends.
fn on_paper(node: &mut NodeSpec, paper: &Value, sent: &[String], notes: &mut Vec<String>) {
    let mut dropped = Vec::new();
    for with in [&mut node.with, &mut node.written] {
        let Some(with) = with.as_object_mut() else { continue };
        for port in ["reports", "control"] {
            let stays = port == "control"
                && with.get(port).and_then(Value::as_str).is_some_and(|name| !sent.iter().any(|n| n == name));
            if !stays && let Some(Value::String(name)) = with.shift_remove(port) {
                dropped.push(name);
            }
        }
        let venue = with.entry("venue").or_insert_with(|| json!({ "kind": "paper" }));
        let kind = venue.get("kind").and_then(Value::as_str).unwrap_or("paper").to_owned();
        if kind != "paper" {
            // What the live venue is like, as far as the graph says: `venue: {kind: external, paper: {…}}`.
            let mut like = venue.get("paper").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
            like["kind"] = "paper".into();
            *venue = like;
            let note = format!("`{}` trades on paper in place of its {kind} venue", node.name);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        if let (Some(venue), Some(paper)) = (venue.as_object_mut(), paper.as_object()) {
            venue.extend(paper.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }
    node.from.retain(|from| !dropped.contains(from));
}

/// The streams of market data of an account.
fn market(node: &NodeSpec) -> Vec<String> {
    match node.with.get("market") {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => node.from.clone(),
    }
}

/// Leaves only what the tapped nodes need, and adds a sink for each of them and for each stream of market data.
fn prune(spec: &mut Spec, tapped: &[String], market: &[String]) {
    let mut needed: Vec<String> = tapped.to_vec();
    let mut next = 0;
    while let Some(node) = needed.get(next).and_then(|name| spec.node(name)) {
        for from in &node.from {
            let name = from.split('.').next().unwrap_or(from);
            if !needed.iter().any(|n| n == name) {
                needed.push(name.to_owned());
            }
        }
        next += 1;
    }
    // A graph that was read has a sink, if it is whole.
    let template = spec.nodes.iter().find(|n| n.role == Role::Sink).cloned();
    spec.nodes.retain(|n| n.role != Role::Sink && needed.contains(&n.name));
    let Some(template) = template else { return };
    let known: Vec<&String> = market.iter().filter(|name| spec.node(name).is_some()).collect();
    let wanted = tapped.iter().map(|name| (TAP, name)).chain(known.into_iter().map(|name| (PRICES, name)));
    let sinks: Vec<NodeSpec> = wanted
        .map(|(prefix, name)| {
            let mut sink = template.clone();
            sink.name = format!("{prefix}{name}");
            sink.kind = "null".into();
            sink.from = vec![name.clone()];
            sink.with = json!({});
            sink.written = json!({});
            sink
        })
        .collect();
    spec.nodes.extend(sinks);
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"
dataflow: g
sources:
  trades: { kind: kafka, with: { brokers: embedded, topic: trades, format: json, schema: trade, keyed_by: [symbol] } }
  fills: { kind: jsonl, with: { url: fills.jsonl, schema: { ts: timestamp } } }
operators:
  bars: { kind: bars, from: trades, with: { every: 1m, by: [symbol] } }
  unused: { kind: select, from: bars, with: { sql: "*" } }
  signal: { kind: select, from: bars, with: { sql: "symbol, 'BUY' AS side" } }
  desk:
    kind: execution
    from: [signal, trades, fills]
    with: { signals: signal, market: [trades], reports: fills, venue: { kind: external, paper: { latency: 5ms } } }
sinks:
  broker: { kind: alpaca, from: desk }
  history: { kind: parquet, from: unused, with: { url: x } }
"#;

    fn changed(graph: &str, wanted: &Change) -> (Spec, Changed) {
        let mut spec =
            Spec::parse(graph, "g.yaml", &[], &|_| None).unwrap_or_else(|e| panic!("{}", e.render(false)));
        let done = change(&mut spec, &crate::registry::registry(), wanted);
        (spec, done)
    }

    #[test]
    fn only_what_trades_is_left_and_it_trades_on_paper() {
        let archive = Archive { url: Some("/archive".into()), sources: Vec::new() };
        let paper = json!({ "participation": 0.5 });
        let (spec, done) = changed(GRAPH, &Change { archive, paper, ..Change::default() });
        assert_eq!(done.problems, []);
        let names: Vec<&str> = spec.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["trades", "bars", "signal", "desk", "tap:desk"]);
        let trades = spec.node("trades").unwrap();
        assert_eq!((trades.kind.as_str(), &trades.with), ("parquet", &json!({ "url": "/archive/trades" })));
        let desk = spec.node("desk").unwrap();
        assert_eq!(desk.from, ["signal", "trades"]);
        assert_eq!(desk.with["venue"], json!({ "latency": "5ms", "kind": "paper", "participation": 0.5 }));
        assert_eq!(desk.with.get("reports"), None);
        assert_eq!(done.execution.as_deref(), Some("desk"));
        assert_eq!(done.notes.len(), 2, "{:?}", done.notes);
    }

    #[test]
    fn what_cannot_be_tested_is_said() {
        let (_, done) = changed(GRAPH, &Change::default());
        assert_eq!(done.problems.len(), 1);
        assert_eq!(done.problems[0].path, "sources.trades");
        let none = GRAPH.replace("kind: execution", "kind: union");
        let (_, done) = changed(&none, &Change::default());
        assert!(done.problems[0].reason.contains("no `execution` operator"), "{:?}", done.problems);
        let (_, done) = changed(GRAPH, &Change { keep: vec!["bar".into()], ..Change::default() });
        assert_eq!(done.problems[0].hint.as_deref(), Some("did you mean `bars`?"));
    }
}
