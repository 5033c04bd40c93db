//! The planner over a handful of fake kinds.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::{StateChanges, compatible};
use super::*;
use crate::component::*;
use crate::connector::ConnectorError;
use crate::operator::{Operator, OperatorError, Output};
use crate::plan::{Exchange, Order};
use crate::row;
use crate::sink::{Delivery, FlushPolicy, Placement, Sink, SinkContext, SinkWriter};
use crate::source::{Source, SourceContext};

/// A source.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FeedParams {
    #[serde(default)]
    keyed_by: Option<Vec<String>>,
    #[serde(default)]
    single: bool,
    #[serde(default)]
    password: Option<String>,
    /// Name of the topic.
    topic: String,
}

struct Feed;

#[async_trait]
impl Source for Feed {
    async fn run(&self, _: SourceContext) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[async_trait]
impl SourceKind for Feed {
    const KIND: &'static str = "feed";
    type Params = FeedParams;
    async fn plan(p: FeedParams, _: &PlanContext) -> Result<SourcePlan, Problems> {
        if let Some(password) = p.password.filter(|p| p != "good") {
            return Err(vec![Problem::new("password", format!("the server does not take `{password}`"))]);
        }
        let _ = p.topic;
        let columns = Arc::new(Schema::new(vec![
            Field::new("time", row::ts_type(), false),
            Field::new("symbol", row::symbol_type(), false),
            Field::new("price", DataType::Float64, false),
        ]));
        let partitions =
            if p.single { Partitions::Single } else { Partitions::Many { keyed_by: p.keyed_by } };
        Ok(SourcePlan { columns, partitions, bounded: true, replayable: true, source: Arc::new(Feed) })
    }
}

/// A keyed operator with one or two inputs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FoldParams {
    #[serde(default)]
    by: Vec<String>,
    #[serde(default = "one")]
    window: u32,
}

fn one() -> u32 {
    1
}

struct Fold;

impl Operator for Fold {
    fn process(
        &mut self,
        _: &[Option<arrow::array::RecordBatch>],
        _: &mut Output,
    ) -> Result<(), OperatorError> {
        Ok(())
    }
}

impl OperatorKind for Fold {
    const KIND: &'static str = "fold";
    type Params = FoldParams;
    const INPUTS: (usize, usize) = (1, 2);
    fn plan(p: FoldParams, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let _ = p.window;
        inputs[0].keys("by", &p.by)?;
        Ok(OperatorPlan {
            schema: inputs[0].schema.clone(),
            distribution: Distribution::Keyed(inputs.iter().map(|_| p.by.clone()).collect()),
            ordered: true,
            passes: p.by.iter().map(|n| (n.clone(), n.clone())).collect(),
            build: Arc::new(|| Box::new(Fold)),
        })
    }
}

/// A stateless operator.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PassParams {
    #[serde(default)]
    only: Vec<String>,
}

struct Pass;

impl OperatorKind for Pass {
    const KIND: &'static str = "pass";
    type Params = PassParams;
    fn plan(p: PassParams, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let keep = |name: &String| p.only.is_empty() || p.only.contains(name);
        let fields: Vec<_> = inputs[0].user_columns().filter(|f| keep(f.name())).cloned().collect();
        Ok(OperatorPlan {
            passes: fields.iter().map(|f| (f.name().clone(), f.name().clone())).collect(),
            schema: row::stream_schema(&fields),
            distribution: Distribution::Local,
            ordered: false,
            build: Arc::new(|| Box::new(Fold)),
        })
    }
}

/// A sink.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DrainParams {
    #[serde(default)]
    key: Vec<String>,
}

struct Drain;

#[async_trait]
impl Sink for Drain {
    async fn open(&self, _: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Err(ConnectorError::Fatal("never opened".into()))
    }
}

impl SinkKind for Drain {
    const KIND: &'static str = "drain";
    type Params = DrainParams;
    fn plan(p: DrainParams, input: &StreamInfo, _: &PlanContext) -> Result<SinkPlan, Problems> {
        input.keys("key", &p.key)?;
        Ok(SinkPlan {
            delivery: Delivery::Eager,
            placement: Placement::Shards { count: 4, by: p.key },
            flush: FlushPolicy::default(),
            sink: Arc::new(Drain),
        })
    }
}

fn env(name: &str) -> Option<String> {
    (name == "PW").then(|| "hunter2".into())
}

fn try_plan(text: &str) -> Result<Plan, Vec<String>> {
    let mut registry = Registry::default();
    registry.source::<Feed>().operator::<Fold>().operator::<Pass>().sink::<Drain>();
    let (spec, errors) = Spec::parse_lenient(text, "g.yaml", &[], &env).unwrap();
    let planned = futures::executor::block_on(plan(&spec, &registry, PathBuf::new(), Clock::default()));
    let mut all: Vec<Problem> = errors.problems.into_iter().map(|p| p.problem).collect();
    match planned {
        Ok(plan) if all.is_empty() => Ok(plan),
        Ok(_) => Err(all.iter().map(|p| p.to_string()).collect()),
        Err(problems) => {
            all.extend(problems);
            Err(all.iter().map(|p| p.to_string()).collect())
        }
    }
}

fn graph(with: &str, rest: &str) -> String {
    format!(
        "dataflow: g\nsources:\n  t: {{ kind: feed, with: {{ topic: x, event_time: time, {with} }} }}\n{rest}"
    )
}

#[test]
fn a_chain_is_planned_with_exchange_order_and_delivery() {
    let text = graph(
        "single: true",
        "operators:\n  c: { kind: fold, from: b, with: { by: [symbol] } }\n  a: { kind: pass, from: t }\n  b: { kind: fold, from: a, with: { by: [symbol] } }\nsinks:\n  s: { kind: drain, from: c, with: { key: [symbol] } }\n",
    );
    let plan = try_plan(&text).unwrap();
    let names: Vec<&str> = plan.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["t", "a", "b", "c", "s"], "each after what it reads");
    let columns: Vec<&str> = plan.nodes[0].schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(columns, ["ts", "_src", "_seq", "time", "symbol", "price"]);
    let exchange = |name| plan.node(name).unwrap().inputs[0].exchange.clone();
    assert_eq!(exchange("a"), Exchange::Stay);
    assert_eq!(exchange("b"), Exchange::Key(vec![4]));
    assert_eq!(exchange("c"), Exchange::Stay, "rows are with the owner of their key already");
    assert_eq!(exchange("s"), Exchange::Shard { by: vec![4], shards: 4 });
    let delivery = |name| match &plan.node(name).unwrap().body {
        Body::Operator { delivery, .. } => *delivery,
        _ => panic!("not an operator"),
    };
    assert_eq!(
        (delivery("a"), delivery("b"), delivery("c")),
        (Delivery::Eager, Delivery::Eager, Delivery::Eager)
    );
    assert_eq!(plan.node("a").unwrap().order, Order::Total);
    assert_eq!(plan.node("c").unwrap().order, Order::PerKey { by: vec!["symbol".into()], partitioned: true });
}

#[test]
fn unordered_rows_wait_for_the_watermark() {
    let rest = "operators:\n  b: { kind: fold, from: t, with: { by: [symbol] } }\nsinks:\n  s: { kind: drain, from: b }\n";
    let delivery = |with: &str| match &try_plan(&graph(with, rest)).unwrap().node("b").unwrap().body {
        Body::Operator { delivery, .. } => *delivery,
        _ => panic!("not an operator"),
    };
    assert_eq!(delivery(""), Delivery::Ordered);
    assert_eq!(delivery("keyed_by: [symbol]"), Delivery::Eager);
    assert_eq!(delivery("keyed_by: [symbol], max_out_of_orderness: 1s"), Delivery::Ordered);
    assert_eq!(delivery("single: true, lateness: 1s"), Delivery::Ordered);
}

#[test]
fn dead_letters_find_their_sink() {
    let rest = "sinks:\n  s: { kind: drain, from: t }\n  dead: { kind: drain }\n";
    let plan = try_plan(&graph("on_error: { dead_letter: dead }", rest)).unwrap();
    let dead = plan.node("dead").unwrap();
    assert_eq!((dead.inputs[0].from, dead.inputs[0].port), (0, Port::DeadLetters));
    assert_eq!(dead.schema, dead_letter::schema());
    let rest = "operators: { p: { kind: pass, from: t.dead_letters } }\nsinks:\n  s: { kind: drain, from: t }\n  dead: { kind: drain, from: p }\n";
    assert!(try_plan(&graph("on_error: { dead_letter: dead }", rest)).is_ok());
    assert!(try_plan(&graph("late: divert", rest)).is_ok());
    let problems = |with: &str, rest: &str| try_plan(&graph(with, rest)).err().unwrap().join("\n");
    assert!(problems("", rest).contains("never sends any"));
    let plain = "sinks:\n  s: { kind: drain, from: t }\n";
    assert_eq!(
        problems("on_error: { dead_letter: ss }, late: drop", plain),
        "sources.t.with.on_error.dead_letter: there is no sink `ss` (did you mean `s`?)"
    );
    assert!(problems("on_error: { dead_letter: s }", plain).contains("sink `s` reads `t` already"));
    assert!(problems("late: divert", plain).contains("late rows are diverted, but nothing reads them"));
}

/// A field may have its former name; a problem with it is reported where it stands.
#[test]
fn former_names_of_source_options_are_accepted() {
    let sinks = "sinks:\n  s: { kind: drain, from: t }\n";
    let options = |with: &str| {
        let plan = try_plan(&graph(with, sinks)).map_err(|problems| problems[0].to_string())?;
        match &plan.nodes[0].body {
            Body::Source { options, .. } => Ok(options.max_out_of_orderness.ns()),
            _ => Err("the first node is no source".to_owned()),
        }
    };
    assert_eq!(options("single: true, lateness: 1s"), Ok(1_000_000_000));
    assert_eq!(options("single: true, max_out_of_orderness: 2s"), Ok(2_000_000_000));
    let bad = options("single: true, lateness: soon").unwrap_err();
    assert!(bad.starts_with("sources.t.with.lateness: "), "{bad}");
    let both = options("single: true, lateness: 1s, max_out_of_orderness: 1s").unwrap_err();
    assert!(both.contains("former name of `max_out_of_orderness`"), "{both}");
}

#[test]
fn every_problem_is_found_and_nothing_follows_from_another() {
    let text = graph(
        "single: true, wat: 1",
        "operators:\n  a: { kind: fold, from: t, with: { window: many } }\n  b: { kind: fold, from: [a, c] }\n  c: { kind: fold, from: b, with: { windw: 1 } }\n  d: { kind: fodl, from: t }\n  e: { kind: pass, from: ghost }\nsinks:\n  s: { kind: drain, from: bb }\n  r: { kind: drain }\n  q: { kind: drain, from: s }\n",
    );
    assert_eq!(
        try_plan(&text).err().unwrap(),
        [
            "operators.d.kind: there is no kind of operator `fodl` (did you mean `fold`?)",
            "sources.t.with.wat: unknown field `wat` (one of: keyed_by, password, single, topic, event_time, event_time_unit, idle_timeout, late, max_out_of_orderness, on_error, ts_max, ts_min)",
            "operators.c.with.windw: unknown field `windw` (did you mean `window`?)",
            "operators.a.with.window: expected a whole number, zero or more, found text `many`",
            "operators.e.from: there is no node `ghost` to read (one of: t, a, b, c, d)",
            "sinks.s.from: there is no node `bb` to read (did you mean `b`?)",
            "sinks.q.from: `s` is a sink: it sends no rows on (read what it reads: `from: bb`)",
            "sinks.r: sink `r` reads nothing (write `from: NAME`, the node whose rows it takes)",
            "operators.d: nothing reads the rows of `d` (remove it, or add a node with `from: d`)",
            "operators.e: nothing reads the rows of `e` (remove it, or add a node with `from: e`)",
            "operators.b.from: the graph has a cycle: b -> c -> b (rows must flow one way: let one of these nodes read another)",
        ]
    );
}

#[test]
fn event_time_must_be_a_time_that_is_there() {
    let with = |options: &str| {
        let text = format!(
            "dataflow: g\nsources: {{ t: {{ kind: feed, with: {{ topic: x, {options} }} }} }}\nsinks: {{ s: {{ kind: drain, from: t }} }}\n"
        );
        try_plan(&text).err().unwrap().join("\n")
    };
    assert_eq!(
        with(""),
        "sources.t.with.event_time: `t` has no column `ts` to take the event time from (set `event_time` to one of its columns: time, symbol, price)"
    );
    assert_eq!(
        with("event_time: tme"),
        "sources.t.with.event_time: `t` has no column `tme` to take the event time from (did you mean `time`? its columns: time, symbol, price)"
    );
    assert_eq!(
        with("event_time: price"),
        "sources.t.with.event_time: column `price` is f64, not a time (an event time is a timestamp, a date, or an integer with `event_time_unit`)"
    );
    assert!(
        with("event_time: time, ts_min: 2020-01-01, ts_max: 2019-01-01").contains("no time lies between")
    );
    assert!(with("event_time: time, ts_min: soon").contains("sources.t.with.ts_min: `soon` is not a time"));
}

#[test]
fn secrets_stay_out_of_problems_and_plans() {
    let rest = "sinks: { s: { kind: drain, from: t } }\n";
    let problems = try_plan(&graph("password: \"${PW}\"", rest)).err().unwrap().join("\n");
    assert_eq!(problems, "sources.t.with.password: the server does not take `${PW}`");
}

#[test]
fn what_cannot_be_resolved_is_said_once() {
    let rest = "operators: { a: { kind: fold, from: t, with: { window: $w, by: [nope] } } }\nsinks: { s: { kind: drain, from: a, with: { keyy: 1 } } }\n";
    let problems = try_plan(&graph("", rest)).err().unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("operators.a.with.window: unknown variable `w`"));
    assert!(problems[1].contains("sinks.s.with.keyy: unknown field"));
}

#[test]
fn tests_name_columns_that_are_there() {
    let rest = "sinks: { s: { kind: drain, from: t } }\ntests: [{ name: x, given: { t: [{ prise: 1 }] }, expect: { s: [{ volume: 1, ts: 1 }] } }]\n";
    assert_eq!(
        try_plan(&graph("", rest)).err().unwrap(),
        [
            "tests[0].given.t[0].prise: `t` has no column `prise` (did you mean `price`?)",
            "tests[0].expect.s[0].volume: `s` has no column `volume` (one of: ts, time, symbol, price)",
        ]
    );
}

#[test]
fn a_checkpoint_outlives_what_it_can() {
    let base = "operators:\n  a: { kind: fold, from: t, with: { by: [symbol], window: 5 } }\nsinks:\n  s: { kind: drain, from: a }\n";
    let old = super::super::describe(&try_plan(&graph("", base)).unwrap());
    let check = |with: &str, rest: &str| match compatible(
        &old,
        &try_plan(&graph(with, rest)).unwrap(),
        StateChanges::default(),
    ) {
        Ok(()) => "ok".to_owned(),
        Err(problems) => {
            problems.iter().map(|p| format!("{}: {}", p.path, p.reason)).collect::<Vec<_>>().join("\n")
        }
    };
    assert_eq!(check("", base), "ok");
    assert_eq!(check("max_out_of_orderness: 1s", base).split(':').next(), Some("ok"));
    let through = "operators:\n  p: { kind: pass, from: t }\n  a: { kind: fold, from: p, with: { by: [symbol], window: 5 } }\nsinks:\n  s: { kind: drain, from: a, with: { key: [symbol] } }\n  more: { kind: drain, from: p }\n";
    assert_eq!(check("", through), "ok", "stateless operators and sinks come and go");
    assert_eq!(
        check("", &base.replace("window: 5", "window: 6")),
        "operators.a.with.window: `window` was `5` and is `6`"
    );
    assert_eq!(
        check("", "sinks: { s: { kind: drain, from: t } }\n"),
        "operators.a: operator `a` is gone, and the checkpoint holds its state"
    );
    let added = base
        .replace("sinks:", "  b: { kind: fold, from: a }\nsinks:")
        .replace("from: a }\n", "from: b }\n")
        .replace("b: { kind: fold, from: b }", "b: { kind: fold, from: a }");
    assert_eq!(
        check("", &added),
        "operators.b: operator `b` is new: its state would lack the rows before the checkpoint"
    );
    let fewer = base
        .replace("from: t,", "from: p,")
        .replace("operators:\n", "operators:\n  p: { kind: pass, from: t, with: { only: [symbol] } }\n");
    assert_eq!(check("", &fewer), "operators.a: its columns changed: `time` is gone, `price` is gone");
}

/// A node that was renamed keeps its state with its former name as `id`; state may come and go where that is allowed.
#[test]
fn renamed_nodes_and_allowed_changes_of_state() {
    let base = "operators:\n  a: { kind: fold, from: t, with: { by: [symbol], window: 5 } }\nsinks:\n  s: { kind: drain, from: a }\n";
    let old = super::super::describe(&try_plan(&graph("", base)).unwrap());
    let problems = |rest: &str, changes: StateChanges| {
        let plan = try_plan(&graph("", rest)).unwrap();
        compatible(&old, &plan, changes)
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|p| p.path)
            .collect::<Vec<_>>()
    };
    let none = StateChanges::default();
    let renamed =
        base.replace("  a: { kind: fold,", "  b: { kind: fold, id: a,").replace("from: a }", "from: b }");
    assert_eq!(problems(&renamed, none), [""; 0]);
    assert_eq!(problems(&renamed.replace("id: a, ", ""), none), ["operators.a", "operators.b"]);
    let (new, gone) = (StateChanges { new: true, ..none }, StateChanges { gone: true, ..none });
    assert_eq!(problems(&renamed.replace("id: a, ", ""), new), ["operators.a"]);
    assert_eq!(problems(&renamed.replace("id: a, ", ""), gone), ["operators.b"]);
    assert_eq!(problems(&renamed.replace("id: a, ", ""), StateChanges { new: true, gone: true }), [""; 0]);
    assert_eq!(
        problems(&base.replace("window: 5", "window: 6"), StateChanges { new: true, gone: true }).len(),
        1
    );
    let twice = "operators:\n  a: { kind: fold, from: t }\nsinks:\n  s: { kind: drain, from: a, id: a }\n";
    let told = try_plan(&graph("", twice)).err().unwrap().join("\n");
    assert!(told.contains("sinks.s.id: checkpoints know `operators.a` as `a` already"), "{told}");
}
