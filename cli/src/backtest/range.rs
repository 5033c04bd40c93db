//! Leaves out rows before and after given times, behind every source of a plan.
//!
//! Rows are chosen by event time, after late rows have been decided, so what is left is the same rows as of the whole
//! history. No state.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use tidemill_engine::component::{Distribution, OperatorPlan};
use tidemill_engine::operator::{Operator, OperatorError, Output};
use tidemill_engine::plan::{Body, Edge, Exchange, Node, Plan, Port};
use tidemill_engine::registry::Role;
use tidemill_engine::row;
use tidemill_engine::sink::Delivery;

/// Times from the first up to, not including, the second; UTC nanoseconds.
pub type Range = (i64, i64);

/// All times.
pub const ALWAYS: Range = (i64::MIN, i64::MAX);

/// Puts `range` behind every source.
pub fn limit(plan: &Plan, range: Range) -> Plan {
    if range == ALWAYS {
        return plan.clone();
    }
    let mut nodes: Vec<Node> = Vec::new();
    // The node whose rows are those of each old node, and the node itself.
    let mut moved: Vec<(usize, usize)> = Vec::new();
    for node in &plan.nodes {
        let mut node = node.clone();
        node.id = nodes.len();
        for edge in &mut node.inputs {
            let (rows, own) = moved[edge.from];
            edge.from = if edge.port == Port::Rows { rows } else { own };
        }
        let own = node.id;
        let filter = (node.role == Role::Source).then(|| filter(&node, range));
        nodes.push(node);
        nodes.extend(filter);
        moved.push((nodes.len() - 1, own));
    }
    Plan { nodes, ..plan.clone() }
}

fn filter(source: &Node, range: Range) -> Node {
    let names = source.schema.fields().iter().map(|f| (f.name().clone(), f.name().clone()));
    let plan = OperatorPlan {
        schema: source.schema.clone(),
        distribution: Distribution::Local,
        ordered: false,
        passes: names.collect(),
        build: Arc::new(move || Box::new(InRange(range))),
    };
    Node {
        id: source.id + 1,
        name: format!("{}:range", source.name),
        identity: format!("{}:range", source.identity),
        kind: "range".into(),
        role: Role::Operator,
        with: serde_json::Value::Null,
        inputs: vec![Edge { from: source.id, port: Port::Rows, exchange: Exchange::Stay }],
        schema: source.schema.clone(),
        order: source.order.clone(),
        body: Body::Operator { plan, delivery: Delivery::Eager },
    }
}

struct InRange(Range);

impl Operator for InRange {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let (from, to) = self.0;
        let within = |ts: &i64| (from..to).contains(ts);
        let ts = row::ts(batch);
        // Nearly every batch is wholly inside or wholly outside.
        let inside = ts.iter().filter(|ts| within(ts)).count();
        if inside == ts.len() {
            out.push(batch.clone());
        } else if inside > 0 {
            let mask: BooleanArray = ts.iter().map(|ts| Some(within(ts))).collect();
            out.push(filter_record_batch(batch, &mask)?);
        }
        Ok(())
    }
}
