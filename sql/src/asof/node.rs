//! The as-of join as a node of a logical plan.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{DFSchemaRef, JoinType, Result, plan_err};
use datafusion::logical_expr::logical_plan::builder::build_join_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

/// Which right row matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Direction {
    /// The latest before, or the earliest after.
    pub backward: bool,
    /// Whether a row at the same time matches.
    pub inclusive: bool,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.backward, self.inclusive) {
            (true, true) => ">=",
            (true, false) => ">",
            (false, true) => "<=",
            (false, false) => "<",
        })
    }
}

/// The node. Left rows without a match are kept unless `inner`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AsofJoin {
    pub left: Arc<LogicalPlan>,
    pub right: Arc<LogicalPlan>,
    /// Pairs of keys that must be equal.
    pub on: Vec<(Expr, Expr)>,
    /// Left and right time, of one type.
    pub times: (Expr, Expr),
    pub direction: Direction,
    /// The greatest distance of a match.
    pub tolerance_ns: Option<i64>,
    pub inner: bool,
    /// What decides between right rows of equal time, the greatest wins.
    pub ties: Vec<Expr>,
    pub schema: DFSchemaRef,
}

impl AsofJoin {
    /// The output's schema, from the inputs'.
    pub(crate) fn schema_of(left: &LogicalPlan, right: &LogicalPlan, inner: bool) -> Result<DFSchemaRef> {
        let kind = if inner { JoinType::Inner } else { JoinType::Left };
        Ok(Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?))
    }
}

impl PartialOrd for AsofJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |n: &Self| (n.direction, n.tolerance_ns, n.inner);
        key(self)
            .partial_cmp(&key(other))
            .filter(|order| *order != Ordering::Equal)
            .or_else(|| self.on.partial_cmp(&other.on))
            .filter(|order| *order != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for AsofJoin {
    fn name(&self) -> &str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.on.iter().flat_map(|(l, r)| [l.clone(), r.clone()]);
        keys.chain([self.times.0.clone(), self.times.1.clone()]).chain(self.ties.iter().cloned()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "AsofJoin: {} {} {}", self.times.0, self.direction, self.times.1)?;
        for (l, r) in &self.on {
            write!(f, ", {l} = {r}")?;
        }
        if let Some(ns) = self.tolerance_ns {
            write!(f, ", within {}", tidemill_engine::duration::Span::from_ns(ns))?;
        }
        f.write_str(if self.inner { ", inner" } else { "" })
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([left, right]) = <[LogicalPlan; 2]>::try_from(inputs) else {
            return plan_err!("an as-of join has two inputs");
        };
        let keys = 2 * self.on.len();
        if exprs.len() != keys + 2 + self.ties.len() {
            return plan_err!("an as-of join with {} expressions", exprs.len());
        }
        let on = exprs[..keys].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let schema = Self::schema_of(&left, &right, self.inner)?;
        Ok(Self {
            on,
            times: (exprs[keys].clone(), exprs[keys + 1].clone()),
            ties: exprs[keys + 2..].to_vec(),
            left: Arc::new(left),
            right: Arc::new(right),
            schema,
            ..*self
        })
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        // The columns of `expressions` are added by the optimizer.
        let left = self.left.schema().fields().len();
        let (of_left, of_right): (Vec<usize>, Vec<usize>) = output.iter().partition(|i| **i < left);
        Some(vec![of_left, of_right.into_iter().map(|i| i - left).collect()])
    }
}
