//! Plans queries, with the operations that are ours.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::asof::planner::AsofPlanner;
use crate::gap_fill::exec::{GapFillExec, Terms};
use crate::gap_fill::node::GapFill;

/// DataFusion's planner and ours.
#[derive(Debug)]
pub(crate) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let ours: Vec<Arc<dyn ExtensionPlanner + Send + Sync>> =
            vec![Arc::new(AsofPlanner), Arc::new(GapFillPlanner)];
        let planner = DefaultPhysicalPlanner::with_extension_planners(ours);
        planner.create_physical_plan(plan, session).await
    }
}

struct GapFillPlanner;

#[async_trait]
impl ExtensionPlanner for GapFillPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(node), [input]) = (node.as_any().downcast_ref::<GapFill>(), inputs) else {
            return Ok(None);
        };
        let terms =
            Terms { ts: node.ts, keys: node.keys.clone(), width: node.width, from: node.from, to: node.to };
        let schema = node.schema.inner().clone();
        Ok(Some(Arc::new(GapFillExec::try_new(input.clone(), Arc::new(terms), schema)?)))
    }
}
