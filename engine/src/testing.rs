//! Runs the `tests:` of a graph: rows given to its sources, rows expected at its sinks.
//!
//! A test runs the real plan with its sources and sinks replaced by memory, so it needs no server.
//! Only the columns a test names are compared; numbers to a relative tolerance; a number
//! stands for a decimal of its value too.

use std::sync::Arc;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::json::{Decoder, EncodeOptions, Encoder};
use crate::memory::{CollectSink, Collected, MemorySource};
use crate::metrics::Metrics;
use crate::plan::{Body, Exchange, Plan, Port};
use crate::runtime::{self, RunOptions};
use crate::spec::TestSpec;

/// Relative distance at which numbers count as equal.
const TOLERANCE: f64 = 1e-9;

/// What a failed test found, line by line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct TestFailure(pub Vec<String>);

/// Runs one test of a planned graph.
pub fn run(plan: &Plan, test: &TestSpec, options: &RunOptions, tokio: &Handle) -> Result<(), TestFailure> {
    let mut plan = plan.clone();
    let mut problems = unknown_names(&plan, test);
    let mut collected: Vec<(String, Collected)> = Vec::new();
    for node in &mut plan.nodes {
        match &mut node.body {
            Body::Source { plan: source, options, .. } => {
                let rows = test.given.get(&node.name).map_or(&[][..], Vec::as_slice);
                let mut decoder = Decoder::new(source.columns.clone(), options.event_time_unit);
                for (i, row) in rows.iter().enumerate() {
                    if let Err(reason) = decoder.push(row.to_string().as_bytes()) {
                        problems.push(format!("given.{}[{i}]: {reason}", node.name));
                    }
                }
                *source = MemorySource::plan(source.columns.clone(), vec![decoder.finish()]);
            }
            Body::Sink { plan: sink } => {
                let (memory, rows) = CollectSink::plan();
                *sink = memory;
                for edge in node.inputs.iter_mut().filter(|e| e.port == Port::Rows) {
                    edge.exchange = Exchange::Shard { by: Vec::new(), shards: 1 };
                }
                collected.push((node.name.clone(), rows));
            }
            Body::Operator { .. } => {}
        }
    }
    if !problems.is_empty() {
        return Err(TestFailure(problems));
    }
    let metrics = Metrics::new(&plan);
    let options = RunOptions { checkpoints: None, cluster: None, ..options.clone() };
    runtime::run(Arc::new(plan), &options, metrics, tokio, CancellationToken::new())
        .map_err(|e| TestFailure(vec![e.to_string()]))?;
    for (sink, expected) in &test.expect {
        let Some((_, rows)) = collected.iter().find(|(name, _)| name == sink) else { continue };
        problems.extend(compare(sink, &as_json(rows), expected, test));
    }
    if problems.is_empty() { Ok(()) } else { Err(TestFailure(problems)) }
}

fn unknown_names(plan: &Plan, test: &TestSpec) -> Vec<String> {
    let is = |name: &str, role| plan.nodes.iter().any(|n| n.name == name && n.role == role);
    let given = test.given.keys().filter(|n| !is(n, crate::registry::Role::Source));
    let expect = test.expect.keys().filter(|n| !is(n, crate::registry::Role::Sink));
    let given = given.map(|n| format!("given.{n}: the graph has no source `{n}`"));
    given.chain(expect.map(|n| format!("expect.{n}: the graph has no sink `{n}`"))).collect()
}

/// Collected rows as JSON values.
pub fn as_json(rows: &Collected) -> Vec<Value> {
    let batches = rows.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut values = Vec::new();
    for batch in batches.iter() {
        let mut encoder = Encoder::new(batch.schema(), EncodeOptions::default());
        values
            .extend(encoder.encode(batch).iter().map(|row| serde_json::from_slice(row).unwrap_or_default()));
    }
    values
}

fn compare(sink: &str, got: &[Value], expected: &[Value], test: &TestSpec) -> Vec<String> {
    let tolerance = test.tolerance.unwrap_or(TOLERANCE);
    let mut problems = Vec::new();
    if got.len() != expected.len() {
        problems.push(format!("{sink}: expected {} rows, got {}", expected.len(), got.len()));
    }
    if test.unordered {
        let mut left: Vec<&Value> = got.iter().collect();
        for row in expected {
            match left.iter().position(|candidate| differences(row, candidate, tolerance).is_empty()) {
                Some(i) => drop(left.remove(i)),
                None => problems.push(format!("{sink}: expected {row}, which did not come")),
            }
        }
        problems.extend(left.iter().map(|row| format!("{sink}: got {row}, which was not expected")));
        return problems;
    }
    for i in 0..got.len().max(expected.len()) {
        match (got.get(i), expected.get(i)) {
            (Some(got), Some(row)) => {
                let wrong = differences(row, got, tolerance);
                problems.extend(wrong.into_iter().map(|w| format!("{sink}[{i}].{w}")));
            }
            (None, Some(row)) => problems.push(format!("{sink}[{i}]: expected {row}, got nothing")),
            (Some(row), None) => problems.push(format!("{sink}[{i}]: got {row}, expected nothing")),
            (None, None) => {}
        }
    }
    problems
}

fn differences(expected: &Value, got: &Value, tolerance: f64) -> Vec<String> {
    let Some(fields) = expected.as_object() else { return vec![format!(": expected {expected}, got {got}")] };
    let mut wrong = Vec::new();
    for (name, want) in fields {
        let have = got.get(name).unwrap_or(&Value::Null);
        if !same(want, have, tolerance) {
            wrong.push(format!("{name}: expected {want}, got {have}"));
        }
    }
    wrong
}

fn same(want: &Value, have: &Value, tolerance: f64) -> bool {
    match (want, have) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0),
            _ => a == b,
        },
        // Exact decimals are text with all their digits; a test may write them as numbers.
        (Value::Number(_), Value::String(text)) => {
            let number = text.parse::<serde_json::Number>();
            number.is_ok_and(|number| same(want, &Value::Number(number), tolerance))
        }
        // Times may be written with any number of fractional digits.
        (Value::String(a), Value::String(b)) if a != b => {
            let time = |s: &str| chrono::DateTime::parse_from_rfc3339(s).ok();
            matches!((time(a), time(b)), (Some(a), Some(b)) if a == b)
        }
        (a, b) => a == b,
    }
}
