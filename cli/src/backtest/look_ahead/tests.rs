//! The comparison by itself, and the whole check on a graph with an operator that peeks.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, Float64Type};
use schemars::JsonSchema;
use serde::Deserialize;
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::operator::{Operator, OperatorError, Output};
use tokio_util::sync::CancellationToken;

use super::super::graph::Change;
use super::super::recorded::Library;
use super::*;

fn batch(rows: &[(i64, Option<f64>)]) -> RecordBatch {
    let schema = row::stream_schema(&[Arc::new(Field::new("next", DataType::Float64, true))]);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        row::ts_array(rows.iter().map(|r| r.0).collect()),
        row::u64_array(vec![1; rows.len()]),
        row::u64_array(rows.iter().map(|r| r.0 as u64).collect()),
        Arc::new(rows.iter().map(|r| r.1).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

#[test]
fn batches_do_not_matter_and_rows_behind_the_cut_neither() {
    let all = [batch(&[(1, Some(1.0)), (2, None), (3, Some(3.0))]), batch(&[(4, Some(9.0))])];
    let part = [batch(&[(1, Some(1.0))]), batch(&[]), batch(&[(2, None), (3, Some(f64::NAN))])];
    assert_eq!(compare(&all, &part, 3), Ok(2));
    let nan = [batch(&[(3, Some(f64::NAN))])];
    assert_eq!(compare(&nan, &nan.clone(), 9), Ok(1));
}

#[test]
fn a_row_that_knew_the_next_is_found() {
    // Each row has the price of the one after it.
    let all = [batch(&[(1, Some(2.0)), (2, Some(3.0)), (3, None)])];
    let part = [batch(&[(1, Some(2.0)), (2, None)])];
    let column = |short: &str, whole: &str| Difference::Column("next".into(), short.into(), whole.into());
    assert_eq!(compare(&all, &part, 3), Err((1, 2, column("null", "3.0"))));
    assert_eq!(compare(&all, &[batch(&[(1, Some(2.0))])], 3), Err((1, 2, Difference::Missing)));
    assert_eq!(compare(&part, &all, 4), Err((1, 2, column("3.0", "null"))));
    let more = [batch(&[(1, Some(2.0)), (1, Some(5.0))])];
    assert_eq!(compare(&[batch(&[(1, Some(2.0))])], &more, 3), Err((1, 1, Difference::Extra)));
}

#[test]
fn the_last_sample_of_a_shorter_history_is_none_that_knew_the_future() {
    let account = |rows: &[(i64, &str)]| {
        let schema = row::stream_schema(&[Arc::new(Field::new("event", DataType::Utf8, true))]);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            row::ts_array(rows.iter().map(|r| r.0).collect()),
            row::u64_array(vec![1; rows.len()]),
            row::u64_array((0..rows.len() as u64).collect()),
            Arc::new(rows.iter().map(|r| Some(r.1)).collect::<arrow::array::StringArray>()),
        ];
        RecordBatch::try_new(schema, columns).unwrap()
    };
    let all = [account(&[(1, "order"), (2, "fill"), (9, "equity")])];
    let mut part = [account(&[(1, "order"), (2, "fill")]), account(&[(3, "position"), (3, "equity")])];
    assert_eq!((last_sample(&part), last_sample(&all[..0])), (Some(3), None));
    assert_eq!(take_last_sample(&all, &mut part, 5), Some(3));
    assert_eq!(compare(&all, &part, 5), Ok(2));
    let mut knew = [account(&[(1, "order"), (2, "fill"), (3, "order"), (3, "equity")])];
    assert_eq!(take_last_sample(&all, &mut knew, 5), None);
    assert_eq!(compare(&all, &knew, 5), Err((2, 3, Difference::Extra)));
}

/// Gives each row the price of the row after it: what no honest operator can.
struct Peek;

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

impl OperatorKind for Peek {
    const KIND: &'static str = "peek";
    type Params = Nothing;

    fn plan(_: Nothing, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let price = inputs[0].column("", "price").map_err(|p| vec![p])?;
        let field = Arc::new(Field::new("next", DataType::Float64, true));
        Ok(OperatorPlan {
            schema: row::stream_schema([&field]),
            distribution: Distribution::Keyed(vec![Vec::new()]),
            ordered: true,
            passes: Vec::new(),
            build: Arc::new(move || Box::new(Peeking { price, rows: Vec::new() })),
        })
    }
}

struct Peeking {
    price: usize,
    rows: Vec<(i64, f64)>,
}

impl Operator for Peeking {
    fn process(&mut self, inputs: &[Option<RecordBatch>], _: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let price = batch.column(self.price).as_primitive::<Float64Type>();
        self.rows.extend(row::ts(batch).iter().zip(price.values()).map(|(ts, p)| (*ts, *p)));
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Output) -> Result<(), OperatorError> {
        if watermark == tidemill_engine::operator::END {
            let next = |i: usize| self.rows.get(i + 1).map(|r| r.1);
            let rows: Vec<_> = self.rows.iter().enumerate().map(|(i, r)| (r.0, next(i))).collect();
            out.push(batch(&rows));
        }
        Ok(())
    }
}

fn checked(operator: &str) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..200)
        .map(|i| {
            format!(
                "{{\"ts\":\"2024-01-02T14:{:02}:{:02}Z\",\"price\":{}}}",
                30 + i / 60,
                i % 60,
                100 + i * i % 17
            )
        })
        .collect();
    std::fs::write(folder.path().join("prices.jsonl"), lines.join("\n")).unwrap();
    let graph = folder.path().join("g.yaml");
    let text = format!(
        "dataflow: g\nsources:\n  prices: {{ kind: jsonl, with: {{ url: prices.jsonl, schema: {{ ts: timestamp, price: f64 }} }} }}\n\
         operators:\n  honest: {{ kind: select, from: prices, with: {{ sql: \"price * 2 AS price\" }} }}\n  {operator}\n\
         sinks:\n  out: {{ kind: \"null\", from: last }}\n"
    );
    std::fs::write(&graph, text.replace("FOLDER", &folder.path().display().to_string())).unwrap();
    let mut registry = crate::registry::registry();
    registry.operator::<Peek>();
    let runner = Runner {
        graph,
        sets: Vec::new(),
        change: Change { all: true, ..Change::default() },
        registry,
        tokio: crate::commands::run::runtime(1).unwrap(),
        library: Some(Library::default()),
        stop: CancellationToken::new(),
    };
    let planned = runner.plan(&[]).unwrap().unwrap_or_else(|e| panic!("{}", e.render(false)));
    check(&runner, &planned, 8, 7).unwrap()
}

#[test]
fn an_operator_that_peeks_is_named() {
    let seen = checked("last: { kind: peek, from: honest }");
    assert!(!seen.findings.is_empty());
    assert!(seen.findings.iter().all(|f| f.node == "last"), "{:?}", seen.findings);
    let told = seen.findings[0].to_string();
    assert!(told.contains("`last`, row ") && told.contains("`next` is null when history ends at"), "{told}");
}

#[test]
fn honest_operators_pass() {
    let seen = checked("last: { kind: select, from: honest, with: { sql: \"price + 1 AS price\" } }");
    assert_eq!(seen.findings, []);
    assert_eq!(seen.nodes, 2);
    assert!(seen.cuts.len() >= 5 && seen.rows > 100, "{seen:?}");
}
