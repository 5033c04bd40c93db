//! Technical indicators as pure structs: no engine types, no IO, no clock.
//!
//! [`all`] lists them; a [`Spec`] says what one reads and gives and builds a [`Bank`], which holds
//! one state per key and takes a batch at a time. What holds for all of them (nulls, NaN, limits)
//! is said at [`Indicator`]; formula, source, warm-up and state are at the head of each file.
//!
//! The operator of this name, which adds their columns to a stream, is in this file: columns in,
//! columns out, one dynamic call an indicator and batch. Rows keep their `ts`; a row's values are
//! those after it. State: that of each indicator a key.

pub mod indicator;
pub mod params;
pub mod registry;

mod extremes;
mod moments;
mod ring;
mod trend;

pub mod adx;
pub mod aroon;
pub mod atr;
pub mod bollinger;
pub mod bop;
pub mod cci;
pub mod cmf;
pub mod dema;
pub mod donchian;
pub mod ema;
pub mod force;
pub mod ichimoku;
pub mod kama;
pub mod keltner;
pub mod linreg;
pub mod macd;
pub mod mfi;
pub mod obv;
pub mod psar;
pub mod roc;
pub mod rsi;
pub mod sma;
pub mod stddev;
pub mod stoch;
pub mod supertrend;
pub mod t3;
pub mod trima;
pub mod trix;
pub mod tsi;
pub mod ultimate;
pub mod vortex;
pub mod vwap;
pub mod williams_r;
pub mod wma;
pub mod zlema;

#[cfg(test)]
mod check;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod talib;

pub use indicator::{Bank, BankOf, Indicator};
pub use params::ParamError;
pub use registry::{Role, Spec, all, find};

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::duration::Span;
use tidemill_engine::keyed::{ExpiringState, SlotStore};
use tidemill_engine::operator::{Operator, OperatorError, Output, State};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;

use crate::columns::{floats, nullable};

/// Adds columns of technical indicators, by key.
///
/// `add` names them, each with its parameters (`{}`: the defaults). An indicator's columns are called
/// after it (`rsi`; `macd`, `macd_signal`, `macd_hist`; `bollinger_upper`, …) and follow the input's.
/// Under another name, with `kind` to say which indicator it is, that name takes the place of the
/// indicator's: `fast: { kind: ema, period: 5 }` gives `fast`. Values are null until an indicator is
/// warm, and for a row that lacks a number it reads: such a row leaves its state as it was.
///
/// Indicators of one series read `close`; others `open`, `high`, `low`, `close` and `volume`.
/// `column` names another column for the one series, `columns` others for any
/// (`columns: { close: mid, volume: size }`), for all indicators or for one.
///
/// ```yaml
/// operators:
///   studies:
///     kind: indicators
///     from: bars
///     with:
///       by: [symbol]
///       add:
///         macd: {}
///         rsi: { period: 14 }
///         trend: { kind: ema, period: 50, column: open }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Key columns: each of their values has indicators of its own. Empty (the default): one for
    /// the stream.
    #[serde(default)]
    pub by: Vec<String>,
    /// The indicators, by name: their parameters, and `kind`, `column`, `columns` as above.
    pub add: Map<String, Value>,
    /// Which columns stand for `open`, `high`, `low`, `close` and `volume`.
    #[serde(default)]
    pub columns: Map<String, Value>,
    /// Event time after which a key without rows is forgotten: its next row starts over, with indicators that are not
    /// warm. Default: never. State then follows the keys that live, not all that ever were.
    #[serde(default)]
    pub ttl: Option<Span>,
}

/// The most indicators of one operator.
const INDICATORS_MAX: usize = 256;

/// One indicator, resolved.
#[derive(Clone, Debug)]
struct Study {
    spec: &'static Spec,
    params: Value,
    /// Which of the columns read, by role.
    inputs: Vec<usize>,
    names: Vec<String>,
}

/// See [`Params`].
#[derive(Debug)]
pub struct Indicators;

impl OperatorKind for Indicators {
    const KIND: &'static str = "indicators";
    type Params = Params;

    fn plan(params: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let input = &inputs[0];
        let mut problems = Problems::new();
        let by = input.keys("by", &params.by).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        if params.add.is_empty() || params.add.len() > INDICATORS_MAX {
            let reason = format!("from 1 to {INDICATORS_MAX} indicators, not {}", params.add.len());
            problems.push(Problem::new("add", reason).hint("`add: { rsi: {} }`, say"));
        }
        check_roles("columns", &params.columns, &mut problems);
        let ttl_ns = crate::ttl::ns(params.ttl).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let mut fields: Vec<Arc<Field>> = input.user_columns().cloned().collect();
        let mut reads: Vec<usize> = Vec::new();
        let mut studies = Vec::new();
        for (name, with) in &params.add {
            let path = format!("add.{name}");
            let study = match resolve(name, with, &params.columns, input, &mut reads) {
                Ok(study) => study,
                Err(more) => {
                    problems.extend(more.into_iter().map(|p| p.under(&path)));
                    continue;
                }
            };
            for column in &study.names {
                if row::is_system(column) || fields.iter().any(|f| f.name() == column) {
                    let hint =
                        format!("give it another name: `my_{name}: {{ kind: {}, … }}`", study.spec.name);
                    problems.push(
                        Problem::new(&path, format!("there is a column `{column}` already")).hint(hint),
                    );
                } else {
                    fields.push(Arc::new(Field::new(column, DataType::Float64, true)));
                }
            }
            studies.push(study);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let passes = input.schema.fields().iter().map(|f| (f.name().clone(), f.name().clone())).collect();
        let input = input.schema.clone();
        Ok(OperatorPlan {
            schema: row::stream_schema(&fields),
            distribution: Distribution::Keyed(vec![params.by]),
            ordered: true,
            passes,
            build: Arc::new(move || {
                let of_state = studies.clone();
                let banks = move || {
                    let bank = |study: &Study| {
                        study.spec.build(&study.params).expect("the plan has built it with these parameters")
                    };
                    Banks(of_state.iter().map(bank).collect())
                };
                let state = ExpiringState::new(by.clone(), &input, ttl_ns, banks);
                Box::new(Adder { reads: reads.clone(), studies: studies.clone(), state })
            }),
        })
    }
}

/// The name of a role in `columns`.
fn role_name(role: Role) -> &'static str {
    role.column()
}

fn check_roles(path: &str, columns: &Map<String, Value>, problems: &mut Problems) {
    const ROLES: [&str; 5] = ["open", "high", "low", "close", "volume"];
    for (role, column) in columns {
        let at = format!("{path}.{role}");
        if !ROLES.contains(&role.as_str()) {
            problems.push(Problem::new(&at, format!("no indicator reads `{role}`")).hint_names(role, ROLES));
        }
        if !column.is_string() {
            problems.push(Problem::new(at, "expected the name of a column"));
        }
    }
}

/// Finds an indicator, its columns and its parameters; paths of problems are within its block.
fn resolve(
    name: &str,
    with: &Value,
    shared: &Map<String, Value>,
    input: &StreamInfo,
    reads: &mut Vec<usize>,
) -> Result<Study, Problems> {
    let mut with = match with {
        Value::Null => Map::new(),
        Value::Object(with) => with.clone(),
        _ => {
            return Err(vec![Problem::new("", "expected parameters, or {} for the defaults")]);
        }
    };
    let kind = match with.shift_remove("kind") {
        None => name.to_owned(),
        Some(Value::String(kind)) => kind,
        Some(_) => {
            return Err(vec![Problem::new("kind", "expected the name of an indicator")]);
        }
    };
    let Some(spec) = find(&kind) else {
        let problem = Problem::new("", format!("unknown indicator `{kind}`"));
        return Err(vec![problem.hint_names(&kind, all().iter().map(|s| s.name))]);
    };
    let mut problems = Problems::new();
    let one = with.shift_remove("column");
    let own = match with.shift_remove("columns") {
        None => Map::new(),
        Some(Value::Object(columns)) => columns,
        Some(_) => {
            problems.push(Problem::new("columns", "expected roles and columns: { close: mid }"));
            Map::new()
        }
    };
    check_roles("columns", &own, &mut problems);
    for role in own.keys().filter(|role| !spec.inputs.iter().any(|r| role_name(*r) == *role)) {
        let roles: Vec<&str> = spec.inputs.iter().map(|r| role_name(*r)).collect();
        let problem = Problem::new(format!("columns.{role}"), format!("`{kind}` does not read `{role}`"));
        problems.push(problem.hint(format!("it reads: {}", roles.join(", "))));
    }
    let series = spec.inputs.iter().position(|role| *role == Role::Price);
    match (&one, series) {
        (Some(Value::String(_)), Some(_)) | (None, _) => {}
        (Some(Value::String(_)), None) => {
            let problem = Problem::new("column", format!("`{kind}` reads more than one series"));
            problems.push(problem.hint(format!("say `columns: {{ {}: … }}`", role_name(spec.inputs[0]))));
        }
        _ => problems.push(Problem::new("column", "expected the name of a column")),
    }
    let mut inputs = Vec::new();
    for (i, role) in spec.inputs.iter().enumerate() {
        let named = if Some(i) == series { one.as_ref() } else { None };
        let (path, column) = match (named, own.get(role_name(*role)), shared.get(role_name(*role))) {
            (Some(column), ..) => ("column".to_owned(), column.as_str()),
            (None, Some(column), _) => (format!("columns.{}", role_name(*role)), column.as_str()),
            (None, None, Some(column)) => (String::new(), column.as_str()),
            (None, None, None) => (String::new(), Some(role.column())),
        };
        match input.numeric(&path, column.unwrap_or_default()) {
            Ok(column) => inputs.push(reads.iter().position(|c| *c == column).unwrap_or_else(|| {
                reads.push(column);
                reads.len() - 1
            })),
            // Not text: reported above.
            Err(_) if column.is_none() => {}
            Err(problem) => problems.push(problem),
        }
    }
    let params = Value::Object(with);
    if let Err(e) = spec.build(&params) {
        problems.push(Problem::new(e.path, e.reason));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let names = spec.outputs.iter().map(|output| match output.strip_prefix(spec.name) {
        _ if kind == name => (*output).to_owned(),
        Some(rest) => format!("{name}{rest}"),
        None => format!("{name}_{output}"),
    });
    Ok(Study { spec, params, inputs, names: names.collect() })
}

struct Banks(Vec<Box<dyn Bank>>);

impl SlotStore for Banks {
    fn reserve(&mut self, slots: usize) {
        self.0.iter_mut().for_each(|bank| bank.reserve(slots));
    }

    fn encode(&self, slot: u32, out: &mut Vec<u8>) {
        self.0.iter().for_each(|bank| bank.encode(slot, out));
    }

    fn decode(&mut self, slot: u32, mut bytes: &[u8]) -> Result<(), OperatorError> {
        for bank in &mut self.0 {
            bank.decode(slot, &mut bytes).map_err(OperatorError::State)?;
        }
        Ok(())
    }
}

struct Adder {
    reads: Vec<usize>,
    studies: Vec<Study>,
    state: ExpiringState<Banks>,
}

impl Operator for Adder {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else {
            return Ok(());
        };
        let reads: Vec<ScalarBuffer<f64>> =
            self.reads.iter().map(|c| floats(batch.column(*c))).collect::<Result<_, _>>()?;
        let (slots, banks) = self.state.rows(batch)?;
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        for (study, bank) in self.studies.iter().zip(&mut banks.0) {
            let inputs: Vec<&[f64]> = study.inputs.iter().map(|i| &reads[*i][..]).collect();
            let mut made: Vec<Vec<f64>> =
                study.names.iter().map(|_| Vec::with_capacity(slots.len())).collect();
            bank.update(slots, &inputs, &mut made);
            columns.extend(made.into_iter().map(nullable));
        }
        out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        Ok(())
    }

    fn advance(&mut self, watermark: i64, _: &mut Output) -> Result<(), OperatorError> {
        self.state.expire(watermark)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.state)
    }
}

#[cfg(test)]
mod operator_tests {
    use std::collections::HashMap;

    use super::*;
    use crate::check::{Rng, check, plan, trade_stream, trades, whole};
    use serde_json::json;

    fn problems(with: Value) -> Vec<String> {
        plan::<Indicators>(with, &[trade_stream(&[]).schema()]).err().unwrap()
    }

    #[test]
    fn columns_are_named_after_the_indicator_or_its_alias() {
        let with = json!({"by": ["symbol"], "columns": {"close": "price", "volume": "size"}, "add": {
            "macd": {}, "slow": {"kind": "macd", "fast": 5, "slow": 50}, "lots": {"kind": "sma", "period": 2, "column": "size"}}});
        let plan = plan::<Indicators>(with, &[trade_stream(&[]).schema()]).unwrap();
        let names: Vec<&str> = plan.schema.fields().iter().skip(6).map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["macd", "macd_signal", "macd_hist", "slow", "slow_signal", "slow_hist", "lots"]);
    }

    #[test]
    fn a_row_without_a_number_has_null_and_leaves_the_state_alone() {
        let row = |seq: u64, price| crate::check::Trade { ts: 1, seq, symbol: "A", price, size: Some(1.0) };
        let rows = [row(1, Some(1.0)), row(2, None), row(3, Some(f64::NAN)), row(4, Some(3.0))];
        let with = json!({"by": ["symbol"], "add": {"sma": {"period": 2, "column": "price"}}});
        let plan = plan::<Indicators>(with, &[trade_stream(&rows).schema()]).unwrap();
        let got = whole(&plan, &[trade_stream(&rows)]);
        assert_eq!(
            got,
            ["1,1,A,1.0,1.0,null", "1,2,A,null,1.0,null", "1,3,A,NaN,1.0,null", "1,4,A,3.0,1.0,2.0"]
        );
    }

    /// Every indicator there is: one fresh bank a key, one row at a time.
    #[test]
    fn values_are_the_same_however_rows_come() {
        let add: Map<String, Value> =
            all().iter().map(|s| (format!("my_{}", s.name), json!({"kind": s.name}))).collect();
        let columns =
            json!({"open": "price", "high": "price", "low": "price", "close": "price", "volume": "size"});
        let with = json!({"by": ["symbol"], "add": add, "columns": columns});
        let plan = plan::<Indicators>(with, &[trade_stream(&[]).schema()]).unwrap();
        for seed in 0..40 {
            let trades = trades(&mut Rng(seed), 1);
            let mut expect: Vec<String> = crate::check::rows(&trade_stream(&trades));
            for spec in all() {
                let mut banks: HashMap<&str, Box<dyn Bank>> = HashMap::new();
                for (t, row) in trades.iter().zip(&mut expect) {
                    let bank = banks.entry(t.symbol).or_insert_with(|| {
                        let mut bank = spec.build(&Value::Null).unwrap();
                        bank.reserve(1);
                        bank
                    });
                    let (price, size) = ([t.price.unwrap_or(f64::NAN)], [t.size.unwrap_or(f64::NAN)]);
                    let inputs: Vec<&[f64]> = spec
                        .inputs
                        .iter()
                        .map(|r| if *r == Role::Volume { &size[..] } else { &price[..] })
                        .collect();
                    let mut out = vec![Vec::new(); spec.outputs.len()];
                    bank.update(&[0], &inputs, &mut out);
                    for value in out {
                        *row +=
                            &if value[0].is_nan() { ",null".to_owned() } else { format!(",{:?}", value[0]) };
                    }
                }
            }
            check(&plan, &[trade_stream(&trades)], expect, seed);
        }
    }

    #[test]
    fn a_key_that_was_silent_for_its_time_to_live_starts_over() {
        let row =
            |ts: i64, seq: u64, price| crate::check::Trade { ts, seq, symbol: "A", price, size: Some(1.0) };
        let rows = [(0, 1.0), (10, 2.0), (21, 3.0), (22, 4.0), (32, 5.0), (50, 6.0)];
        let rows: Vec<_> = rows.iter().enumerate().map(|(i, (ts, p))| row(*ts, i as u64, Some(*p))).collect();
        let with = json!({"by": ["symbol"], "ttl": "10ns", "add": {"sma": {"period": 2, "column": "price"}}});
        let plan = plan::<Indicators>(with, &[trade_stream(&rows).schema()]).unwrap();
        let means = ["null", "1.5", "null", "3.5", "4.5", "null"];
        let expect = crate::check::rows(&trade_stream(&rows))
            .iter()
            .zip(means)
            .map(|(r, m)| format!("{r},{m}"))
            .collect();
        check(&plan, &[trade_stream(&rows)], expect, 1);
    }

    #[test]
    fn problems_say_what_to_do() {
        assert_eq!(
            problems(
                json!({"add": {"rsy": {}, "ema": {"perod": 3, "column": "price"}, "atr": {"column": "price"}}})
            )[0],
            "add.rsy: unknown indicator `rsy` (did you mean `rsi`?)"
        );
        let text = problems(json!({"add": {"ema": {"perod": 3, "column": "price"}}}));
        assert!(text[0].starts_with("add.ema.perod: unknown field"), "{text:?}");
        let text = problems(json!({"add": {"rsi": {}}}));
        assert_eq!(text, ["add.rsi: `left` has no column `close` (its columns: ts, symbol, price, size)"]);
        let text = problems(json!({"add": {"rsi": {"column": "symbol"}}}));
        assert_eq!(text, ["add.rsi.column: column `symbol` of `left` is symbol, not a number"]);
        let text = problems(json!({"add": {"price": {"kind": "sma", "period": 3, "column": "price"}}}));
        assert_eq!(
            text,
            [
                "add.price: there is a column `price` already (give it another name: `my_price: { kind: sma, … }`)"
            ]
        );
        assert_eq!(problems(json!({"add": {}})).len(), 1);
    }
}
