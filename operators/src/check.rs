//! The check that every operator passes: its output is a function of its rows in event order.
//!
//! Rows go through whole, in random batches with watermarks between, through a snapshot and into
//! another instance, and over two instances whose state three take over: the result must be what
//! the test expects from an oracle of its own, each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use serde_json::Value;
use tidemill_engine::clock::Clock;
use tidemill_engine::component::*;
use tidemill_engine::keys::{KeyReader, owner};
use tidemill_engine::operator::{END, Operator, Output};
use tidemill_engine::row;
use tidemill_engine::size::Size;
use tidemill_engine::state_memory::{StateMemory, StateOptions};

/// A small generator of random numbers (SplitMix64): a seed names a case.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Plans an operator over streams of these schemas, named `left`, `right`, ….
pub fn plan<K: OperatorKind>(with: Value, schemas: &[SchemaRef]) -> Result<OperatorPlan, Vec<String>> {
    let names = ["left", "right", "third"];
    let inputs: Vec<StreamInfo> = schemas
        .iter()
        .zip(names)
        .map(|(schema, name)| StreamInfo { name: name.into(), schema: schema.clone() })
        .collect();
    let cx = PlanContext { job: "job".into(), node: "node".into(), base: ".".into(), clock: Clock::System };
    let schema = schemars::schema_for!(K::Params).to_value();
    tidemill_engine::params::parse::<K::Params>(with, &schema)
        .and_then(|params| K::plan(params, &inputs, &cx))
        .map_err(|problems| problems.iter().map(|p| p.to_string()).collect())
}

/// A batch of a stream: `rows` are `(ts, seq)`, with these columns. `_src` is 7.
pub fn stream(rows: &[(i64, u64)], columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Arc<Field>> = columns
        .iter()
        .map(|(name, a)| Arc::new(Field::new(*name, a.data_type().clone(), a.is_nullable())))
        .collect();
    let mut arrays = vec![
        row::ts_array(rows.iter().map(|r| r.0).collect()),
        row::u64_array(vec![7; rows.len()]),
        row::u64_array(rows.iter().map(|r| r.1).collect()),
    ];
    arrays.extend(columns.into_iter().map(|(_, a)| a));
    RecordBatch::try_new(row::stream_schema(&fields), arrays).unwrap()
}

/// A column of symbols.
pub fn symbols<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<DictionaryArray<Int32Type>>())
}

/// A column of numbers.
pub fn numbers(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

/// A cell as tests write it.
pub fn cell(column: &ArrayRef, i: usize) -> String {
    if column.is_null(i) {
        return "null".into();
    }
    match column.data_type() {
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(i)),
        DataType::Timestamp(..) => column.as_primitive::<TimestampNanosecondType>().value(i).to_string(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(i).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(i).to_string(),
        DataType::Boolean => column.as_boolean().value(i).to_string(),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(i),
        _ => row::text(column, i).unwrap().to_owned(),
    }
}

/// Rows as tests write them: cells with commas between, but without `_src`.
pub fn rows(batch: &RecordBatch) -> Vec<String> {
    let columns: Vec<&ArrayRef> =
        batch.columns().iter().enumerate().filter(|(c, _)| *c != 1).map(|(_, a)| a).collect();
    (0..batch.num_rows()).map(|i| columns.iter().map(|c| cell(c, i)).collect::<Vec<_>>().join(",")).collect()
}

/// Rows of several inputs in one go: what comes out, in the order it does.
pub fn whole(plan: &OperatorPlan, inputs: &[RecordBatch]) -> Vec<String> {
    let step = Step::Rows(inputs.iter().map(|b| Some(b.clone())).collect());
    let mut run = Run::new(plan);
    run.step(&step);
    run.step(&Step::Advance(END));
    run.rows
}

/// Passes the check, or panics. `inputs` hold all rows of each port, in total order.
pub fn check(plan: &OperatorPlan, inputs: &[RecordBatch], mut expect: Vec<String>, seed: u64) {
    expect.sort();
    let same = |mut got: Vec<String>, how: &str| {
        got.sort();
        assert_eq!(got, expect, "{how}, seed {seed}");
    };
    let rng = &mut Rng(seed ^ 0xabcd);
    same(whole(plan, inputs), "whole");
    for _ in 0..3 {
        let mut run = Run::new(plan);
        schedule(plan, inputs, END, rng).iter().for_each(|step| run.step(step));
        same(run.rows, "in random batches");
    }
    let can_spill = match (plan.build)().state() {
        None => return,
        Some(state) => state.can_spill(),
    };
    let unlimited = StateMemory::default();
    same(resumed(plan, inputs, rng, &unlimited), "snapshot and restored");
    same(rescaled(plan, inputs, rng, &unlimited), "on two, then on three");
    if can_spill && seed.is_multiple_of(SPILLED_EVERY) {
        let folder = tempfile::tempdir().unwrap();
        let limited = StateOptions {
            memory: Some(Size::from_bytes(rng.pick(&[1, 600, 2_000]))),
            spill: Some(folder.path().display().to_string()),
        };
        let limited = StateMemory::open(&limited, "check").unwrap();
        same(resumed(plan, inputs, rng, &limited), "snapshot and restored, with spilled keys");
        same(rescaled(plan, inputs, rng, &limited), "on two, then on three, with spilled keys");
    }
}

/// Of so many seeds one is checked with keys that leave memory too: a store on disk takes time to open.
const SPILLED_EVERY: u64 = 50;

enum Step {
    Rows(Vec<Option<RecordBatch>>),
    Advance(i64),
}

/// An instance and what it has sent.
struct Run {
    operator: Box<dyn Operator>,
    out: Output,
    rows: Vec<String>,
    watermark: i64,
}

impl Run {
    fn new(plan: &OperatorPlan) -> Self {
        let out = Output::new(plan.schema.clone());
        Self { operator: (plan.build)(), out, rows: Vec::new(), watermark: i64::MIN }
    }

    /// With keys that leave memory.
    fn limited(plan: &OperatorPlan, memory: &StateMemory) -> Self {
        let mut run = Self::new(plan);
        if let Some(part) = memory.part("node", true).unwrap() {
            run.operator.state().unwrap().limit(part).unwrap();
        }
        run
    }

    fn step(&mut self, step: &Step) {
        let before = self.watermark;
        match step {
            Step::Rows(inputs) => self.operator.process(inputs, &mut self.out).unwrap(),
            Step::Advance(watermark) => {
                self.operator.advance(*watermark, &mut self.out).unwrap();
                self.watermark = *watermark;
            }
        }
        if let Some(state) = self.operator.state() {
            state.trim().unwrap();
        }
        let schema = self.out.schema().clone();
        for batch in self.out.drain() {
            assert_eq!(batch.schema(), schema);
            assert!(row::ts(&batch).iter().all(|ts| *ts >= before), "a row below the watermark");
            self.rows.extend(rows(&batch));
        }
    }
}

fn take(batch: &RecordBatch, indices: &[usize]) -> RecordBatch {
    let indices: UInt32Array = indices.iter().map(|i| *i as u32).collect();
    arrow::compute::take_record_batch(batch, &indices).unwrap()
}

fn keys_of(plan: &OperatorPlan, port: usize, batch: &RecordBatch) -> Option<KeyReader> {
    match &plan.distribution {
        Distribution::Local => None,
        Distribution::Keyed(by) => {
            let columns = by[port].iter().map(|name| batch.schema().index_of(name).unwrap()).collect();
            Some(KeyReader::new(columns))
        }
    }
}

/// A way that the engine may hand rows over: what is not of one key in any order where there is
/// one port, everything up to each watermark where there are two.
fn schedule(plan: &OperatorPlan, inputs: &[RecordBatch], end: i64, rng: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::new();
    if inputs.len() > 1 {
        let mut times: Vec<i64> = inputs.iter().flat_map(|b| row::ts(b).to_vec()).collect();
        times.sort_unstable();
        times.dedup();
        times.retain(|_| rng.below(3) == 0);
        times.push(end);
        let mut at = vec![0; inputs.len()];
        for time in times {
            let port = |(port, batch): (usize, &RecordBatch)| {
                let from = at[port];
                at[port] = row::ts(batch).partition_point(|ts| *ts < time);
                (at[port] > from).then(|| batch.slice(from, at[port] - from))
            };
            steps.push(Step::Rows(inputs.iter().enumerate().map(port).collect()));
            steps.push(Step::Advance(time));
        }
        return steps;
    }
    let batch = &inputs[0];
    let ts = row::ts(batch);
    let order = shuffle(plan, batch, rng);
    let size = rng.pick(&[1, 3, 20, 200]);
    let (mut at, mut watermark) = (0, i64::MIN);
    while at < order.len() {
        let next = (at + 1 + rng.below(size)).min(order.len());
        steps.push(Step::Rows(vec![Some(take(batch, &order[at..next]))]));
        at = next;
        let reach = order[at..].iter().map(|i| ts[*i]).min();
        if let Some(reach) = reach.filter(|t| *t > watermark && rng.below(2) == 0) {
            // As far as it may go, or short of it.
            watermark = watermark.max(reach - rng.pick(&[0, 0, 1, 5, 40]));
            steps.push(Step::Advance(watermark));
        }
    }
    steps.push(Step::Advance(end));
    steps
}

/// Another order of rows, the same for rows of one key.
fn shuffle(plan: &OperatorPlan, batch: &RecordBatch, rng: &mut Rng) -> Vec<usize> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    match keys_of(plan, 0, batch) {
        None => return (0..batch.num_rows()).collect(),
        Some(reader) => {
            let mut numbers = Vec::new();
            let mut known = Vec::new();
            reader.map(batch, &mut numbers, |key| {
                known.push(key.to_vec());
                known.len() - 1
            });
            keys.extend(numbers.iter().map(|n| known[*n].clone()));
        }
    }
    let mut queues: BTreeMap<&[u8], std::collections::VecDeque<usize>> = BTreeMap::new();
    keys.iter().enumerate().for_each(|(i, key)| queues.entry(key).or_default().push_back(i));
    let slack = rng.pick(&[0, 10, 1000]);
    let ts = row::ts(batch);
    let mut order = Vec::new();
    while order.len() < batch.num_rows() {
        let first = queues.values().filter_map(|q| q.front()).map(|i| ts[*i]).min().unwrap();
        let ready =
            |q: &std::collections::VecDeque<usize>| q.front().is_some_and(|i| ts[*i] <= first + slack);
        let ready: Vec<&[u8]> = queues.iter().filter(|(_, q)| ready(q)).map(|(k, _)| *k).collect();
        let key = rng.pick(&ready);
        order.extend(queues.get_mut(key).unwrap().pop_front());
    }
    order
}

/// Continues another instance from a snapshot that is taken while rows go on flowing.
fn resumed(plan: &OperatorPlan, inputs: &[RecordBatch], rng: &mut Rng, memory: &StateMemory) -> Vec<String> {
    let steps = schedule(plan, inputs, END, rng);
    let cut = rng.below(steps.len());
    let mut first = Run::limited(plan, memory);
    steps[..cut].iter().for_each(|step| first.step(step));
    let (before, watermark) = (first.rows.clone(), first.watermark);
    let mut groups = Vec::new();
    first.operator.state().unwrap().begin();
    let budget = rng.pick(&[1, 50, 100_000]);
    let mut rest = steps[cut..].iter();
    while let Some(more) = first.operator.state().unwrap().next(budget).unwrap() {
        groups.extend(more);
        if let Some(step) = rest.next() {
            first.step(step);
        }
    }
    rest.for_each(|step| first.step(step));
    let mut second = Run::limited(plan, memory);
    for (group, bytes) in groups {
        second.operator.state().unwrap().restore(group, &bytes).unwrap();
    }
    (second.rows, second.watermark) = (before, watermark);
    steps[cut..].iter().for_each(|step| second.step(step));
    let sorted = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(first.rows), sorted(second.rows.clone()), "the first instance differs from the second");
    second.rows
}

/// The rows of each port between two times, of the keys that worker `index` of `peers` owns.
fn part(
    plan: &OperatorPlan,
    inputs: &[RecordBatch],
    (from, until): (i64, i64),
    (index, peers): (usize, usize),
) -> Vec<RecordBatch> {
    let port = |(port, batch): (usize, &RecordBatch)| {
        let mut groups = Vec::new();
        keys_of(plan, port, batch).unwrap().groups(batch, &mut groups);
        let mine =
            |i: &usize| owner(groups[*i], peers) == index && (from..until).contains(&row::ts(batch)[*i]);
        take(batch, &(0..batch.num_rows()).filter(mine).collect::<Vec<_>>())
    };
    inputs.iter().enumerate().map(port).collect()
}

fn rescaled(plan: &OperatorPlan, inputs: &[RecordBatch], rng: &mut Rng, memory: &StateMemory) -> Vec<String> {
    let times: Vec<i64> = inputs.iter().flat_map(|b| row::ts(b).to_vec()).collect();
    let cut = if times.is_empty() { 0 } else { rng.pick(&times) };
    let mut sent = Vec::new();
    let mut groups = Vec::new();
    for index in 0..2 {
        let mut run = Run::limited(plan, memory);
        let mine = part(plan, inputs, (i64::MIN, cut), (index, 2));
        schedule(plan, &mine, cut, rng).iter().for_each(|step| run.step(step));
        run.operator.state().unwrap().begin();
        while let Some(more) = run.operator.state().unwrap().next(1000).unwrap() {
            groups.extend(more);
        }
        sent.extend(run.rows);
    }
    for index in 0..3 {
        let mut run = Run::limited(plan, memory);
        for (group, bytes) in groups.iter().filter(|(group, _)| owner(*group, 3) == index) {
            run.operator.state().unwrap().restore(*group, bytes).unwrap();
        }
        run.watermark = cut;
        let mine = part(plan, inputs, (cut, END), (index, 3));
        schedule(plan, &mine, END, rng).iter().for_each(|step| run.step(step));
        sent.extend(run.rows);
    }
    sent
}

/// A random stream of trades, as plain rows.
#[derive(Clone, Debug)]
pub struct Trade {
    pub ts: i64,
    pub seq: u64,
    pub symbol: &'static str,
    pub price: Option<f64>,
    pub size: Option<f64>,
}

const SYMBOLS: [&str; 6] = ["AIG", "BAC", "IBM", "SPY", "QQQ", "€"];

/// Trades with ties in time, gaps, and some that are no good.
pub fn trades(rng: &mut Rng, tick: i64) -> Vec<Trade> {
    let (n, kinds) = (rng.below(120), 1 + rng.below(SYMBOLS.len()));
    let mut ts = rng.pick(&[0, -500, 1_000_003]) * tick;
    (0..n)
        .map(|i| {
            ts += rng.pick(&[0, 0, 1, 1, 2, 7, 10, 90]) * tick;
            let price = match rng.below(20) {
                0 => None,
                1 => Some(f64::NAN),
                2 => Some(-1.5),
                _ => Some(100.0 + rng.below(1000) as f64 / 7.0),
            };
            let size = match rng.below(20) {
                0 => None,
                1 => Some(-3.0),
                2 => Some(0.0),
                3 => Some(f64::INFINITY),
                _ => Some(rng.below(500) as f64 / 3.0),
            };
            Trade { ts, seq: i as u64, symbol: SYMBOLS[rng.below(kinds)], price, size }
        })
        .collect()
}

/// Trades as a stream.
pub fn trade_stream(trades: &[Trade]) -> RecordBatch {
    let at: Vec<(i64, u64)> = trades.iter().map(|t| (t.ts, t.seq)).collect();
    let fields = [
        Arc::new(Field::new("symbol", row::symbol_type(), false)),
        Arc::new(Field::new("price", DataType::Float64, true)),
        Arc::new(Field::new("size", DataType::Float64, true)),
    ];
    let columns = vec![
        ("symbol", symbols(trades.iter().map(|t| t.symbol))),
        ("price", numbers(trades.iter().map(|t| t.price))),
        ("size", numbers(trades.iter().map(|t| t.size))),
    ];
    let batch = stream(&at, columns);
    RecordBatch::try_new(row::stream_schema(&fields), batch.columns().to_vec()).unwrap()
}
