//! The shape of a graph: which node reads which, in what order they can be planned, and what is
//! wrong with that: unknown names, cycles, nodes that read nothing or that no node reads.

use crate::plan::Port;
use crate::problem::{Problem, nearest};
use crate::registry::Role;
use crate::spec::{NodeSpec, Spec};

/// Name of a source's second stream, after a dot.
pub const DEAD_LETTERS: &str = "dead_letters";

/// Edges between the nodes of a spec, by their index there.
pub(super) struct Graph {
    /// Nodes in an order in which each comes after those it reads: sources, operators, sinks. Nodes
    /// on a cycle or behind one are left out.
    pub order: Vec<usize>,
    /// What each node reads, port by port; `None` where that is not known.
    pub inputs: Vec<Vec<Option<(usize, Port)>>>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// The sink that a source's `on_error` names.
pub(super) fn dead_letter_sink(node: &NodeSpec) -> Option<&str> {
    node.with.get("on_error")?.get("dead_letter")?.as_str()
}

pub(super) fn resolve(spec: &Spec) -> Graph {
    let nodes = &spec.nodes;
    let mut problems = Vec::new();
    // Nodes that an unknown name was probably meant for: they are not unused.
    let mut meant: Vec<&str> = Vec::new();
    let mut inputs: Vec<Vec<Option<(usize, Port)>>> = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let many = node.from.len() > 1;
        let found = node.from.iter().enumerate().map(|(k, from)| {
            let path = if many { format!("{}.from[{k}]", node.path) } else { format!("{}.from", node.path) };
            stream(nodes, i, from, &path).map_err(|(problem, near)| {
                problems.push(problem);
                meant.extend(near);
            })
        });
        inputs.push(found.map(Result::ok).collect());
    }
    let diverted = dead_letter_edges(nodes, &mut inputs, &mut problems);
    for (i, node) in nodes.iter().enumerate().filter(|(_, n)| n.role != Role::Source && !n.broken) {
        if inputs[i].is_empty() && !diverted.contains(&node.name.as_str()) {
            let problem =
                Problem::new(&node.path, format!("{} `{}` reads nothing", node.role.noun(), node.name));
            problems.push(problem.hint("write `from: NAME`, the node whose rows it takes"));
        }
    }
    for (i, node) in nodes.iter().enumerate().filter(|(_, n)| n.role != Role::Sink) {
        let read = inputs.iter().flatten().flatten().any(|(from, port)| *from == i && *port == Port::Rows);
        if !read
            && !node.kind.is_empty()
            && !meant.contains(&node.name.as_str())
            && !nodes[..i].iter().any(|n| n.name == node.name)
        {
            let problem =
                Problem::new(&node.path, format!("nothing reads the rows of `{}`", node.name)).at_key();
            problems.push(problem.hint(format!("remove it, or add a node with `from: {}`", node.name)));
        }
    }
    let order = topological(nodes, &inputs, &mut problems);
    Graph { order, inputs, problems }
}

/// The stream that `from` names; else what is wrong and which node was probably meant.
fn stream<'a>(
    nodes: &'a [NodeSpec],
    reader: usize,
    from: &str,
    path: &str,
) -> Result<(usize, Port), (Problem, Option<&'a str>)> {
    let (name, port) = match from.split_once('.') {
        Some((name, port)) => (name, Some(port)),
        None => (from, None),
    };
    let found = nodes.iter().position(|node| node.name == name);
    let readable = |node: &&NodeSpec| node.role != Role::Sink && node.name != nodes[reader].name;
    let Some(found) = found else {
        let names: Vec<&str> = nodes.iter().filter(readable).map(|node| node.name.as_str()).collect();
        let problem = Problem::new(path, format!("there is no node `{name}` to read"));
        return Err((problem.hint_names(name, names.iter().copied()), nearest(name, &names)));
    };
    let node = &nodes[found];
    match (node.role, port) {
        (Role::Sink, _) => {
            let problem = Problem::new(path, format!("`{name}` is a sink: it sends no rows on"));
            let hint = match node.from.as_slice() {
                [] => "read a source or an operator".to_owned(),
                from => format!("read what it reads: `from: {}`", from.join(", ")),
            };
            Err((problem.hint(hint), None))
        }
        (_, None) => Ok((found, Port::Rows)),
        (Role::Source, Some(DEAD_LETTERS)) => Ok((found, Port::DeadLetters)),
        (role, Some(port)) => {
            let problem = Problem::new(path, format!("{} `{name}` has no stream `{port}`", role.noun()));
            Err((
                problem.hint(match role {
                    Role::Source => format!("its streams are `{name}` and `{name}.{DEAD_LETTERS}`"),
                    _ => format!("its rows are `{name}`; only sources have `.{DEAD_LETTERS}`"),
                }),
                Some(name).and_then(|n| nodes.iter().find(|x| x.name == n)).map(|n| n.name.as_str()),
            ))
        }
    }
}

/// Adds the edges that `on_error: {dead_letter: SINK}` means; gives the sinks named.
fn dead_letter_edges<'a>(
    nodes: &'a [NodeSpec],
    inputs: &mut [Vec<Option<(usize, Port)>>],
    problems: &mut Vec<Problem>,
) -> Vec<&'a str> {
    let mut named = Vec::new();
    for (i, source) in nodes.iter().enumerate().filter(|(_, n)| n.role == Role::Source) {
        let Some(name) = dead_letter_sink(source) else {
            continue;
        };
        let path = format!("{}.with.on_error.dead_letter", source.path);
        match nodes.iter().position(|node| node.name == name && node.role == Role::Sink) {
            None => {
                let sinks = nodes.iter().filter(|n| n.role == Role::Sink).map(|n| n.name.as_str());
                problems
                    .push(Problem::new(path, format!("there is no sink `{name}`")).hint_names(name, sinks));
            }
            Some(sink) if nodes[sink].from.is_empty() => {
                named.push(nodes[sink].name.as_str());
                inputs[sink].push(Some((i, Port::DeadLetters)));
            }
            // It has a `from`: right where that leads back to these dead letters.
            Some(sink) if leads_to(inputs, sink, i) => {}
            Some(sink) => problems.push(
                Problem::new(
                    path,
                    format!("sink `{name}` reads `{}` already", nodes[sink].from.join("`, `")),
                )
                .hint(format!(
                    "name a sink without `from`, or one that reads `{}.{DEAD_LETTERS}`",
                    source.name
                )),
            ),
        }
    }
    for (i, source) in nodes.iter().enumerate().filter(|(_, n)| n.role == Role::Source) {
        let read = inputs.iter().flatten().flatten().any(|input| *input == (i, Port::DeadLetters));
        let diverts = source.with.get("late").is_some_and(|late| late == "divert");
        if diverts && !read && dead_letter_sink(source).is_none() {
            problems.push(
                Problem::new(
                    format!("{}.with.late", source.path),
                    "late rows are diverted, but nothing reads them",
                )
                .hint(format!(
                    "add `on_error: {{dead_letter: SINK}}`, or a node with `from: {}.{DEAD_LETTERS}`",
                    source.name
                )),
            );
        }
        if read && !diverts && dead_letter_sink(source).is_none() {
            problems.push(
                Problem::new(
                    &source.path,
                    format!("`{0}.{DEAD_LETTERS}` is read, but `{0}` never sends any", source.name),
                )
                .hint("set `on_error: {dead_letter: SINK}` or `late: divert` in its `with`"),
            );
        }
    }
    named
}

fn leads_to(inputs: &[Vec<Option<(usize, Port)>>], sink: usize, source: usize) -> bool {
    let mut seen = vec![false; inputs.len()];
    let mut open = vec![sink];
    while let Some(node) = open.pop() {
        for (from, port) in inputs[node].iter().flatten() {
            if (*from, *port) == (source, Port::DeadLetters) {
                return true;
            }
            if !std::mem::replace(&mut seen[*from], true) {
                open.push(*from);
            }
        }
    }
    false
}

fn topological(
    nodes: &[NodeSpec],
    inputs: &[Vec<Option<(usize, Port)>>],
    problems: &mut Vec<Problem>,
) -> Vec<usize> {
    let mut done = vec![false; nodes.len()];
    let mut order = Vec::new();
    // As written wherever that is possible, so that plans read like their graphs.
    while let Some(next) =
        (0..nodes.len()).find(|i| !done[*i] && inputs[*i].iter().flatten().all(|(from, _)| done[*from]))
    {
        done[next] = true;
        order.push(next);
    }
    order.sort_by_key(|i| nodes[*i].role == Role::Sink);
    // What is left is on a cycle or behind one: walking backwards from it ends on a cycle.
    let mut reported = done.clone();
    while let Some(start) = reported.iter().position(|reported| !reported) {
        let mut walk = vec![start];
        let begin = loop {
            let at = walk[walk.len() - 1];
            let Some((from, _)) = inputs[at].iter().flatten().find(|(from, _)| !done[*from]) else {
                break walk.len();
            };
            if let Some(begin) = walk.iter().position(|node| node == from) {
                break begin;
            }
            walk.push(*from);
        };
        let cycle = &walk[begin..];
        if !cycle.is_empty() && !cycle.iter().any(|node| reported[*node]) {
            // The walk went against the rows; the message goes with them, from the first written.
            let mut names: Vec<usize> = cycle.iter().rev().copied().collect();
            let first = names.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(i, _)| i);
            names.rotate_left(first);
            let path = format!("{}.from", nodes[names[0]].path);
            names.push(names[0]);
            let names: Vec<&str> = names.iter().map(|i| nodes[*i].name.as_str()).collect();
            problems.push(
                Problem::new(path, format!("the graph has a cycle: {}", names.join(" -> ")))
                    .hint("rows must flow one way: let one of these nodes read another"),
            );
        }
        walk.iter().for_each(|node| reported[*node] = true);
    }
    order
}
