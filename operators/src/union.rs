//! `union`: the rows of several streams with the same columns, as one stream.
//!
//! Time: rows keep their `ts` and origin. State: none; rows go on as they come. Readers that need
//! an order are given it by the engine.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::operator::{Operator, OperatorError, Output};
use tidemill_engine::problem::Problem;
use tidemill_engine::row::{self, SYSTEM_COLUMNS};
use tidemill_engine::schema::type_name;

/// Puts the rows of several streams with the same columns into one stream.
///
/// From 2 to 16 streams. Columns must be equal in name and type; their order is the first stream's. A
/// column that can be null in one stream can be null in the result.
///
/// ```yaml
/// operators:
///   trades:
///     kind: union
///     from: [binance_trades, kraken_trades]
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// See [`Params`].
#[derive(Debug)]
pub struct Union;

impl OperatorKind for Union {
    const KIND: &'static str = "union";
    type Params = Params;
    const INPUTS: (usize, usize) = (2, 16);

    fn plan(_: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let first = &inputs[0];
        let mut fields: Vec<Field> = first.user_columns().map(|f| f.as_ref().clone()).collect();
        let mut problems = Problems::new();
        let mut ports: Vec<Vec<usize>> = Vec::new();
        for other in inputs {
            let mut differences = Vec::new();
            let mut port: Vec<usize> = (0..SYSTEM_COLUMNS).collect();
            for field in &mut fields {
                let name = field.name();
                let (want, found) = (type_name(field.data_type()), other.schema.index_of(name));
                match found.map(|i| (i, other.schema.field(i))) {
                    Err(_) => differences.push(format!("`{name}` ({want}) is missing")),
                    Ok((_, f)) if f.data_type() != field.data_type() => {
                        differences.push(format!("`{name}` is {}, not {want}", type_name(f.data_type())));
                    }
                    Ok((i, f)) => {
                        let nullable = field.is_nullable() || f.is_nullable();
                        *field = field.clone().with_nullable(nullable);
                        port.push(i);
                    }
                }
            }
            for f in other.user_columns().filter(|f| !fields.iter().any(|known| known.name() == f.name())) {
                differences.push(format!(
                    "`{}` ({}) is not in `{}`",
                    f.name(),
                    type_name(f.data_type()),
                    first.name
                ));
            }
            if !differences.is_empty() {
                let reason = format!(
                    "`{}` has other columns than `{}`: {}",
                    other.name,
                    first.name,
                    differences.join(", ")
                );
                problems
                    .push(Problem::new("", reason).hint("make them equal with a `select` before the union"));
            }
            ports.push(port);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let fields: Vec<Arc<Field>> = fields.into_iter().map(Arc::new).collect();
        let schema = row::stream_schema(&fields);
        Ok(OperatorPlan {
            passes: schema.fields().iter().map(|f| (f.name().clone(), f.name().clone())).collect(),
            schema,
            distribution: Distribution::Local,
            ordered: false,
            build: Arc::new(move || Box::new(Gather { ports: ports.clone() })),
        })
    }
}

struct Gather {
    /// Which column of each input goes where.
    ports: Vec<Vec<usize>>,
}

impl Operator for Gather {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        for (batch, port) in inputs.iter().zip(&self.ports) {
            let Some(batch) = batch else { continue };
            let columns = port.iter().map(|i| batch.column(*i).clone()).collect();
            out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, numbers, plan, rows, stream, symbols};
    use arrow::array::{ArrayRef, Int64Array};
    use serde_json::json;

    #[test]
    fn columns_are_brought_into_the_first_streams_order() {
        let one = stream(&[(1, 1)], vec![("a", symbols(["x"])), ("b", numbers([Some(1.0)]))]);
        let two = stream(&[(2, 2)], vec![("b", numbers([Some(2.0)])), ("a", symbols(["y"]))]);
        let plan = plan::<Union>(json!({}), &[one.schema(), two.schema()]).unwrap();
        check(&plan, &[one, two], vec!["1,1,x,1.0".into(), "2,2,y,2.0".into()], 1);
    }

    #[test]
    fn a_column_that_may_be_null_anywhere_may_be_null() {
        let one = stream(&[(1, 1)], vec![("b", numbers([Some(1.0)]))]);
        let two = stream(&[(2, 2)], vec![("b", numbers([None]))]);
        let plan = plan::<Union>(json!({}), &[one.schema(), two.schema()]).unwrap();
        assert!(plan.schema.field(3).is_nullable());
        let mut out = Output::new(plan.schema.clone());
        (plan.build)().process(&[None, Some(two)], &mut out).unwrap();
        assert_eq!(out.drain().flat_map(|b| rows(&b)).collect::<Vec<_>>(), ["2,2,null"]);
    }

    #[test]
    fn every_difference_is_named() {
        let one = stream(&[], vec![("a", symbols([])), ("b", numbers([]))]);
        let ints: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        let two = stream(&[], vec![("b", ints), ("c", numbers([]))]);
        let problems = plan::<Union>(json!({}), &[one.schema(), two.schema()]).err().unwrap();
        assert_eq!(
            problems,
            [": `right` has other columns than `left`: `a` (symbol) is missing, `b` is i64, not f64, \
              `c` (f64) is not in `left` (make them equal with a `select` before the union)"]
        );
    }
}
