//! Technical indicators as window functions: `rsi(close, 14) OVER (PARTITION BY symbol ORDER BY ts)`.
//!
//! Every indicator of `tidemill_operators::indicators`, by the very structs that the `indicators`
//! operator runs, so SQL and dataflow agree bit for bit. First come the columns it reads, in the order
//! of its roles, then its parameters as constants, in the order of its documentation; left out, they
//! have their defaults. Values are null until the indicator is warm; a row that lacks a number is
//! skipped and gives null. The frame is always the whole partition up to the row.
//!
//! A function by the name of each output gives that output (`macd`, `macd_signal`, `macd_hist`,
//! `bollinger_upper`, …). An indicator whose name no output has gives a struct of all (`bollinger`,
//! `aroon`). All are also there with `ta_` before the name; those whose plain name is an aggregate
//! (`max`, `min`, `stddev`, `vwap`) only so.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use serde_json::{Map, Value};
use tidemill_operators::columns::{floats, nullable};
use tidemill_operators::indicators::{Spec, all};

/// Names that aggregates have.
const TAKEN: [&str; 4] = ["max", "min", "stddev", "vwap"];

/// All of them.
pub(crate) fn functions() -> impl Iterator<Item = WindowUDF> {
    all().iter().flat_map(|spec| {
        let outputs = spec.outputs.iter().enumerate().map(|(i, name)| Study::new(spec, name, Some(i)));
        let whole = (!spec.outputs.contains(&spec.name)).then(|| Study::new(spec, spec.name, None));
        outputs.chain(whole).map(WindowUDF::from)
    })
}

/// One output of an indicator, or all.
#[derive(Debug)]
struct Study {
    spec: &'static Spec,
    name: String,
    aliases: Vec<String>,
    output: Option<usize>,
    params: Vec<(String, Value)>,
    signature: Signature,
}

impl PartialEq for Study {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Study {}

impl Hash for Study {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Study {
    fn new(spec: &'static Spec, name: &str, output: Option<usize>) -> Self {
        let prefixed = format!("ta_{name}");
        let (name, aliases) =
            if TAKEN.contains(&name) { (prefixed, vec![]) } else { (name.to_owned(), vec![prefixed]) };
        let schema = spec.params_schema();
        let params = schema["properties"].as_object().into_iter().flatten();
        let params = params.map(|(name, field)| (name.clone(), field["default"].clone())).collect();
        Self {
            spec,
            name,
            aliases,
            output,
            params,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    fn usage(&self) -> String {
        let inputs = self.spec.inputs.iter().map(|role| role.column().to_owned());
        let params = self.params.iter().map(|(name, default)| format!("[{name} = {default}]"));
        format!("{}({})", self.name, inputs.chain(params).collect::<Vec<_>>().join(", "))
    }

    /// The parameters that a call gives, as the indicator's builder reads them.
    fn read_params(&self, args: &[Arc<dyn PhysicalExpr>]) -> Result<Value> {
        let mut given = Map::new();
        for (arg, (name, default)) in args.iter().skip(self.spec.inputs.len()).zip(&self.params) {
            let Some(literal) = arg.downcast_ref::<Literal>() else {
                return plan_err!("`{name}` of {} must be a constant", self.name);
            };
            let Some(value) = json(literal.value(), default) else {
                return plan_err!("`{name}` of {} cannot be {}", self.name, literal.value());
            };
            given.insert(name.clone(), value);
        }
        Ok(Value::Object(given))
    }
}

/// A constant as JSON; whole numbers stay whole, for periods.
fn json(value: &ScalarValue, default: &Value) -> Option<Value> {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => Some(text.clone().into()),
        ScalarValue::Boolean(Some(b)) => Some((*b).into()),
        other if other.is_null() => Some(default.clone()),
        other => match other.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(n))) if other.data_type().is_integer() => Some(n.into()),
            _ => match other.cast_to(&DataType::Float64) {
                Ok(ScalarValue::Float64(Some(x))) => Some(x.into()),
                _ => None,
            },
        },
    }
}

impl WindowUDFImpl for Study {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let inputs = self.spec.inputs.len();
        if args.len() < inputs || args.len() > inputs + self.params.len() {
            return plan_err!("{} takes {}, not {} arguments", self.name, self.usage(), args.len());
        }
        for (role, t) in self.spec.inputs.iter().zip(args) {
            if !t.is_numeric() && *t != DataType::Null {
                return plan_err!("{} reads a number as `{}`, not {t}", self.name, role.column());
            }
        }
        let read = args.iter().enumerate();
        Ok(read.map(|(i, t)| if i < inputs { DataType::Float64 } else { t.clone() }).collect())
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let params = self.read_params(args.input_exprs())?;
        if let Err(e) = self.spec.build(&params) {
            return plan_err!("{}: {e} ({})", self.name, self.usage());
        }
        Ok(Box::new(Evaluator { spec: self.spec, output: self.output, params }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let data_type = match self.output {
            Some(_) => DataType::Float64,
            None => DataType::Struct(fields(self.spec)),
        };
        Ok(Arc::new(Field::new(args.name(), data_type, true)))
    }

    fn limit_effect(&self, _: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

/// The outputs as fields, without the indicator's name before theirs.
fn fields(spec: &Spec) -> Fields {
    let names = spec.outputs.iter().map(|output| {
        let rest = output.strip_prefix(spec.name).and_then(|r| r.strip_prefix('_'));
        Field::new(rest.unwrap_or(output), DataType::Float64, true)
    });
    names.collect()
}

#[derive(Debug)]
struct Evaluator {
    spec: &'static Spec,
    output: Option<usize>,
    params: Value,
}

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let inputs: Vec<_> =
            values.iter().take(self.spec.inputs.len()).map(floats).collect::<Result<_, _>>()?;
        let inputs: Vec<&[f64]> = inputs.iter().map(|column| &column[..]).collect();
        let mut bank = match self.spec.build(&self.params) {
            Ok(bank) => bank,
            Err(e) => return exec_err!("{}: {e}", self.spec.name),
        };
        bank.reserve(1);
        let mut made: Vec<Vec<f64>> = vec![Vec::with_capacity(rows); self.spec.outputs.len()];
        bank.update(&vec![0; rows], &inputs, &mut made);
        match self.output {
            Some(output) => Ok(nullable(made.swap_remove(output))),
            None => {
                let columns = made.into_iter().map(nullable).collect();
                Ok(Arc::new(StructArray::try_new(fields(self.spec), columns, None)?))
            }
        }
    }
}
