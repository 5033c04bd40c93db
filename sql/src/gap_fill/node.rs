//! The filling of gaps as a node of a logical plan.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, cast};

use crate::functions::time_bucket::Width;

/// The node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GapFill {
    pub input: Arc<LogicalPlan>,
    /// Index of the column of time.
    pub ts: usize,
    pub keys: Vec<usize>,
    pub width: Width,
    pub from: Option<i64>,
    pub to: Option<i64>,
    pub schema: DFSchemaRef,
}

impl GapFill {
    pub(crate) fn try_new(
        input: LogicalPlan,
        ts: &str,
        width: Width,
        keys: &[&str],
        from: Option<i64>,
        to: Option<i64>,
    ) -> Result<Self> {
        let index = |input: &LogicalPlan, name: &str| match input.schema().index_of_column_by_name(None, name)
        {
            Some(index) => Ok(index),
            None => {
                let names: Vec<&str> = input.schema().fields().iter().map(|f| f.name().as_str()).collect();
                plan_err!("the table given to gap_fill has no column `{name}`: it has {}", names.join(", "))
            }
        };
        let at = index(&input, ts)?;
        let input = match input.schema().field(at).data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => input,
            DataType::Timestamp(_, zone) => {
                // Everything here counts in nanoseconds.
                let t = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
                let columns: Vec<Expr> = input
                    .schema()
                    .iter()
                    .enumerate()
                    .map(|(i, (q, f))| {
                        let column = Expr::from((q, f));
                        if i == at {
                            cast(column, t.clone()).alias_qualified(q.cloned(), f.name())
                        } else {
                            column
                        }
                    })
                    .collect();
                LogicalPlanBuilder::from(input).project(columns)?.build()?
            }
            other => return plan_err!("`{ts}` given to gap_fill is a column of {other}, not of time"),
        };
        let ts = index(&input, ts)?;
        let keys = keys.iter().map(|k| index(&input, k)).collect::<Result<Vec<_>>>()?;
        let schema = Self::schema_of(&input, ts, &keys)?;
        Ok(Self { input: Arc::new(input), ts, keys, width, from, to, schema })
    }

    /// What is neither time nor key may be null.
    fn schema_of(input: &LogicalPlan, ts: usize, keys: &[usize]) -> Result<DFSchemaRef> {
        let fields = input.schema().iter().enumerate().map(|(i, (qualifier, field))| {
            let nullable = field.is_nullable() || (i != ts && !keys.contains(&i));
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
        });
        let metadata = input.schema().metadata().clone();
        Ok(Arc::new(DFSchema::new_with_metadata(fields.collect(), metadata)?))
    }
}

impl PartialOrd for GapFill {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |n: &Self| (n.ts, n.keys.clone(), n.from, n.to);
        key(self).partial_cmp(&key(other)).filter(|order| *order != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for GapFill {
    fn name(&self) -> &str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GapFill: {} every {:?}", self.schema.field(self.ts).name(), self.width)?;
        for key in &self.keys {
            write!(f, ", {}", self.schema.field(*key).name())?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
            return plan_err!("gap_fill has one input");
        };
        let schema = Self::schema_of(&input, self.ts, &self.keys)?;
        Ok(Self { input: Arc::new(input), schema, keys: self.keys.clone(), ..*self })
    }
}
