//! From nodes of a logical plan to operations.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::exec::{AsofJoinExec, Terms};
use super::node::AsofJoin;

/// Plans [`AsofJoin`].
#[derive(Debug)]
pub(crate) struct AsofPlanner;

#[async_trait]
impl ExtensionPlanner for AsofPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn datafusion::catalog::Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<AsofJoin>() else {
            return Ok(None);
        };
        let [left, right] = inputs else {
            return internal_err!("an as-of join has two inputs");
        };
        let expr = |e: &Expr, side: &DFSchema| planner.create_physical_expr(e, side, session, context);
        let exprs = |all: &mut dyn Iterator<Item = &Expr>, side: &DFSchema| {
            all.map(|e| expr(e, side)).collect::<Result<Vec<Arc<dyn PhysicalExpr>>>>()
        };
        let (left_side, right_side) = (node.left.schema(), node.right.schema());
        let terms = Terms {
            left_keys: exprs(&mut node.on.iter().map(|(l, _)| l), left_side)?,
            right_keys: exprs(&mut node.on.iter().map(|(_, r)| r), right_side)?,
            left_ts: expr(&node.times.0, left_side)?,
            right_ts: expr(&node.times.1, right_side)?,
            ties: exprs(&mut node.ties.iter(), right_side)?,
            direction: node.direction,
            tolerance_ns: node.tolerance_ns,
            inner: node.inner,
        };
        let schema = node.schema.inner().clone();
        Ok(Some(Arc::new(AsofJoinExec::try_new(left.clone(), right.clone(), Arc::new(terms), schema)?)))
    }
}
