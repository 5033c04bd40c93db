//! The registry as data: every kind is documented, and its examples are graphs that plan.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and may watch the clock for a deadline"
)]

use std::collections::BTreeSet;

use tidemill_engine::params::properties;
use tidemill_engine::plan::source_option_names;
use tidemill_engine::problem::nearest;
use tidemill_engine::registry::{Entry, Role};
use tidemill_engine::spec::{Spec, json_schema};
use tidemill_tests::registry;

/// Fields of the engine's that a source kind may declare too: it gets the same value.
const SHARED: [&str; 2] = ["event_time", "event_time_unit"];

fn name(entry: &Entry) -> String {
    format!("{} {}", entry.role.noun(), entry.kind)
}

#[test]
fn kinds_are_documented() {
    for entry in registry().iter() {
        let summary = entry.summary();
        assert!(summary.len() > 10 && summary.ends_with('.'), "{}: the summary is `{summary}`", name(entry));
        assert!(
            summary.len() <= 200,
            "{}: the first paragraph is long for a summary: {summary}",
            name(entry)
        );
        assert!(entry.doc().contains("```yaml"), "{}: no example", name(entry));
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(entry.kind.chars().all(ok), "{}: not a plain name", name(entry));
    }
}

#[test]
fn fields_are_documented_and_closed() {
    for entry in registry().iter() {
        let schema = (entry.schema)();
        let closed = schema["additionalProperties"] == false;
        assert!(closed, "{}: unknown fields would pass unseen: add deny_unknown_fields", name(entry));
        for field in properties(&schema) {
            let schema = &schema["properties"][&field];
            assert!(
                schema.is_null() || schema.get("description").is_some(),
                "{}: `{field}` has no doc comment",
                name(entry)
            );
        }
    }
}

#[test]
fn fields_of_sources_do_not_clash_with_the_engines() {
    let ours = source_option_names();
    for entry in registry().iter().filter(|entry| entry.role == Role::Source) {
        let theirs = properties(&(entry.schema)());
        let clash = theirs.iter().find(|name| ours.contains(name) && !SHARED.contains(&name.as_str()));
        assert!(clash.is_none(), "{}: {clash:?} is a field of every source", name(entry));
    }
}

/// The examples of a manual page.
fn examples(entry: &Entry) -> Vec<String> {
    let doc = entry.doc();
    let blocks =
        doc.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
    blocks.collect()
}

/// A whole graph around an example's sections.
fn whole(example: &str) -> String {
    let mut text = String::from("dataflow: example\n");
    text += example;
    for section in ["sources", "sinks"] {
        if !example.lines().any(|line| line.starts_with(&format!("{section}:"))) {
            text += &format!("{section}: {{}}\n");
        }
    }
    text
}

#[test]
fn examples_are_nodes_of_their_kind() {
    let registry = registry();
    for entry in registry.iter() {
        for example in examples(entry) {
            // Some values come from the user's machine in an example as in life.
            let env = |_: &str| Some("secret".to_owned());
            let read = Spec::parse_lenient(&whole(&example), "example.yaml", &[], &env);
            let (spec, errors) = read.unwrap_or_else(|e| panic!("{}:\n{e}", name(entry)));
            let said: Vec<_> = errors
                .problems
                .iter()
                .map(|p| &p.problem)
                .filter(|p| {
                    !matches!(p.path.as_str(), "sources" | "sinks")
                        && !p.reason.contains("cannot read the secret")
                })
                .collect();
            assert!(said.is_empty(), "{}: {said:?}", name(entry));
            let nodes: Vec<_> =
                spec.nodes.iter().filter(|n| n.role == entry.role && n.kind == entry.kind).collect();
            assert!(!nodes.is_empty(), "{}: the example has no node of the kind:\n{example}", name(entry));
            let options = source_option_names();
            for node in &spec.nodes {
                let used = registry.get(node.role, &node.kind);
                let used = used.unwrap_or_else(|| panic!("{}: unknown kind {}", name(entry), node.kind));
                let own = properties(&(used.schema)());
                let mut with = node.with.clone();
                if let (Role::Source, Some(fields)) = (node.role, with.as_object_mut()) {
                    fields.retain(|field, _| !options.contains(field) || own.contains(field));
                }
                used.check(with).unwrap_or_else(|problems| panic!("{}: {problems:?}", name(entry)));
            }
        }
    }
}

#[test]
fn the_editors_schema_holds_together() {
    let registry = registry();
    let schema = json_schema(&registry);
    let defs = schema["$defs"].as_object().unwrap();
    let mut missing = BTreeSet::new();
    fn references<'a>(at: &'a serde_json::Value, found: &mut Vec<&'a str>) {
        match at {
            serde_json::Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(|r| r.as_str()));
                fields.values().for_each(|v| references(v, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&schema, &mut found);
    for target in found {
        let known = target.strip_prefix("#/$defs/").is_some_and(|name| defs.contains_key(name));
        if !known {
            missing.insert(target);
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    for entry in registry.iter() {
        assert!(defs.contains_key(&format!("{}_{}", entry.role.noun(), entry.kind)));
    }
    let fields = &defs["source_parquet"]["properties"];
    assert!(fields.get("url").is_some() && fields.get("max_out_of_orderness").is_some());
}

#[test]
fn near_kinds_are_told_apart() {
    for role in [Role::Source, Role::Operator, Role::Sink] {
        let registry = registry();
        let kinds: Vec<&str> = registry.kinds(role).collect();
        for kind in &kinds {
            assert_eq!(nearest(kind, &kinds), Some(*kind));
        }
    }
}
