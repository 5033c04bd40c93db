//! From a [`Spec`] to a [`Plan`]: kinds looked up, components planned, schemas inferred, exchanges
//! and delivery chosen. Finds every problem it can: a node whose inputs could not be planned has
//! its own fields checked, and is otherwise passed over in silence.

use std::path::PathBuf;

use futures::future::join_all;

use super::graph::{self, Graph};
use super::order::{self, Placed};
use super::{Body, Edge, Exchange, Node, Plan, Port, options};
use crate::clock::Clock;
use crate::component::{Distribution, OperatorPlan, PlanContext, Problems, SinkPlan, SourcePlan, StreamInfo};
use crate::dead_letter;
use crate::problem::Problem;
use crate::registry::{Entry, PlanFn, Registry, Role};
use crate::spec::{NodeSpec, SourceOptions, Spec};

/// Plans a graph. `base` is the folder that relative paths start from. The list of problems is empty
/// where the graph was read leniently and its reader has reported all there is.
pub async fn plan(
    spec: &Spec,
    registry: &Registry,
    base: PathBuf,
    clock: Clock,
) -> Result<Plan, Vec<Problem>> {
    let graph = graph::resolve(spec);
    let mut planner = Planner {
        spec,
        base: base.clone(),
        clock,
        problems: Vec::new(),
        done: spec.nodes.iter().map(|_| None).collect(),
        nodes: Vec::new(),
    };
    let entries: Vec<Option<&Entry>> = spec.nodes.iter().map(|node| planner.entry(registry, node)).collect();
    let sources: Vec<usize> =
        graph.order.iter().copied().filter(|i| spec.nodes[*i].role == Role::Source).collect();
    let planned = join_all(sources.iter().map(|i| planner.plan_source(*i, entries[*i]))).await;
    for (i, result) in sources.into_iter().zip(planned) {
        match result {
            Ok(planned) => planner.add_source(i, planned),
            Err(problems) => planner.report(&spec.nodes[i], problems),
        }
    }
    for (i, entry) in entries.iter().enumerate() {
        if spec.nodes[i].role != Role::Source && !graph.order.contains(&i) {
            planner.check_fields(i, *entry);
        }
    }
    for i in graph.order.iter().copied().filter(|i| spec.nodes[*i].role != Role::Source) {
        planner.reader(i, entries[i], &graph);
    }
    planner.check_tests();
    let Planner { mut problems, nodes, .. } = planner;
    problems.extend(graph.problems);
    // A node that could not be read has been reported by the reader: nothing is left to say of it.
    if !problems.is_empty() || nodes.len() != spec.nodes.len() {
        return Err(problems);
    }
    Ok(Plan { job: spec.dataflow.clone(), version: spec.version, base, nodes })
}

struct Planner<'a> {
    spec: &'a Spec,
    base: PathBuf,
    clock: Clock,
    problems: Vec<Problem>,
    /// By index in the spec: the node's id and where its rows are, once it is planned.
    done: Vec<Option<(usize, Placed)>>,
    nodes: Vec<Node>,
}

struct PlannedSource {
    plan: SourcePlan,
    options: SourceOptions,
    ts_range: (i64, i64),
    schema: arrow::datatypes::SchemaRef,
}

impl<'a> Planner<'a> {
    fn entry<'r>(&mut self, registry: &'r Registry, node: &NodeSpec) -> Option<&'r Entry> {
        if node.kind.is_empty() {
            return None;
        }
        let found = registry.get(node.role, &node.kind);
        if found.is_none() {
            let noun = node.role.noun();
            let problem = Problem::new(
                format!("{}.kind", node.path),
                format!("there is no kind of {noun} `{}`", node.kind),
            );
            let others = [Role::Source, Role::Operator, Role::Sink].into_iter();
            let elsewhere = others
                .filter(|role| *role != node.role)
                .find(|role| registry.get(*role, &node.kind).is_some());
            let kinds: Vec<&str> = registry.kinds(node.role).collect();
            self.problems.push(match elsewhere {
                Some(role) if crate::problem::nearest(&node.kind, &kinds).is_none() => problem.hint(format!(
                    "`{}` is {}; kinds of {noun}: {}",
                    node.kind,
                    role.article(),
                    kinds.join(", ")
                )),
                _ => problem.hint_names(&node.kind, kinds),
            });
        }
        found
    }

    fn context(&self, node: &NodeSpec) -> PlanContext {
        PlanContext {
            job: self.spec.dataflow.clone(),
            node: node.name.clone(),
            base: self.base.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Adds problems of a node's `with:` block: their paths made whole, without what follows from
    /// values that could not be resolved, and without secrets.
    fn report(&mut self, node: &NodeSpec, problems: Problems) {
        let mut secrets = Vec::new();
        crate::spec::secrets(&node.with, &node.written, &mut secrets);
        let with = format!("{}.with", node.path);
        let clean = |text: String| {
            secrets.iter().fold(text, |text, (secret, reference)| text.replace(secret, reference))
        };
        for problem in problems {
            let mut problem = problem.under(&with);
            let follows = node.poisoned.iter().any(|path| {
                problem
                    .path
                    .strip_prefix(path.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            });
            if follows {
                continue;
            }
            problem.reason = clean(problem.reason);
            problem.hint = problem.hint.map(clean);
            self.problems.push(problem);
        }
    }

    /// Checks the fields of a node that cannot be planned.
    fn check_fields(&mut self, i: usize, entry: Option<&Entry>) {
        let node = &self.spec.nodes[i];
        if let Some(Err(problems)) = entry.map(|entry| entry.check(node.with.clone())) {
            self.report(node, problems);
        }
    }

    async fn plan_source(&self, i: usize, entry: Option<&Entry>) -> Result<PlannedSource, Problems> {
        let node = &self.spec.nodes[i];
        let schema = entry.map(|entry| (entry.schema)()).unwrap_or_default();
        let (ours, theirs, unknown) = options::split(&node.with, &schema);
        let parsed = options::parse(ours).map_err(|mut problems| {
            options::as_written(&node.with, &mut problems);
            problems
        });
        let unusable = node.broken || !node.poisoned.is_empty();
        let planned = match entry.map(|entry| (entry, entry.plan)) {
            None => Err(Problems::new()),
            Some((entry, _)) if unusable => Err(entry.check(theirs).err().unwrap_or_default()),
            Some((_, PlanFn::Source(plan))) => plan(theirs, self.context(node)).await,
            Some(_) => Err(Problems::new()),
        };
        let ((options, ts_range), plan) = match (parsed, planned) {
            (Ok(parsed), Ok(plan)) if unknown.is_empty() => (parsed, plan),
            (parsed, planned) => {
                let mut problems = unknown;
                problems.extend(parsed.err().unwrap_or_default());
                // A field that both read is reported once.
                let known: Vec<String> = problems.iter().map(|p| p.path.clone()).collect();
                let more = planned.err().unwrap_or_default().into_iter();
                problems.extend(more.filter(|p| p.path.is_empty() || !known.contains(&p.path)));
                return Err(problems);
            }
        };
        let schema =
            options::stream_schema(&node.name, &plan.columns, &options).map_err(|problem| vec![problem])?;
        Ok(PlannedSource { plan, options, ts_range, schema })
    }

    fn add_source(&mut self, i: usize, planned: PlannedSource) {
        let PlannedSource { plan, options, ts_range, schema } = planned;
        let placed = order::of_source(&plan.partitions, options.max_out_of_orderness, &schema);
        let body = Body::Source { plan, options, ts_range };
        self.add(i, Vec::new(), schema, placed, body);
    }

    /// Plans an operator or a sink.
    fn reader(&mut self, i: usize, entry: Option<&Entry>, graph: &Graph) {
        let node = &self.spec.nodes[i];
        let Some(entry) = entry else { return };
        let inputs = &graph.inputs[i];
        let counted = self.count_inputs(node, entry, inputs.len());
        let ready: Option<Vec<Input>> = inputs.iter().map(|input| self.input(*input)).collect();
        let usable = counted && !inputs.is_empty() && !node.broken && node.poisoned.is_empty();
        match (ready.filter(|_| usable), entry.plan) {
            (Some(inputs), PlanFn::Operator(plan, _)) => {
                let infos: Vec<StreamInfo> = inputs.iter().map(|input| input.info.clone()).collect();
                let planned = plan(node.with.clone(), &infos, &self.context(node));
                match planned.and_then(|plan| Ok((edges(&plan, &inputs)?, plan))) {
                    Ok((edges, plan)) => {
                        let placed: Vec<&Placed> = inputs.iter().map(|input| &input.placed).collect();
                        let delivery = order::delivery(&plan, &placed);
                        let placed = order::of_operator(&plan, &placed);
                        self.add(i, edges, plan.schema.clone(), placed, Body::Operator { plan, delivery });
                    }
                    Err(problems) => self.report(node, problems),
                }
            }
            (Some(inputs), PlanFn::Sink(plan)) => {
                // Several inputs are dead letters of several sources: all of one schema.
                let first = &inputs[0];
                let planned = plan(node.with.clone(), &first.info, &self.context(node));
                match planned.and_then(|plan| Ok((order::shards(&plan.placement, &first.info)?, plan))) {
                    Ok((exchange, plan)) => {
                        if let Some(problem) = self.place_taken(node, &plan) {
                            return self.report(node, vec![problem]);
                        }
                        let edges = inputs.iter().map(|input| input.edge(exchange.clone())).collect();
                        let placed = if inputs.len() == 1 { first.placed.clone() } else { Placed::NOWHERE };
                        self.add(i, edges, first.info.schema.clone(), placed, Body::Sink { plan });
                    }
                    Err(problems) => self.report(node, problems),
                }
            }
            _ => self.check_fields(i, Some(entry)),
        }
    }

    /// Two sinks that would write one file: each would take the other's rows for its own.
    fn place_taken(&self, node: &NodeSpec, plan: &SinkPlan) -> Option<Problem> {
        let (field, place) = plan.sink.exclusive()?;
        let other = self.nodes.iter().find(|other| match &other.body {
            Body::Sink { plan } => {
                other.kind == node.kind && plan.sink.exclusive().is_some_and(|(_, theirs)| theirs == place)
            }
            _ => false,
        })?;
        let problem = Problem::new(field, format!("sink `{}` writes `{place}`, too", other.name));
        Some(problem.hint("give each sink a place of its own; `union` merges streams before a sink"))
    }

    fn count_inputs(&mut self, node: &NodeSpec, entry: &Entry, count: usize) -> bool {
        let (least, most) = entry.inputs();
        // None at all has been reported with the shape of the graph; dead letters need no `from`.
        if count == 0 || (least..=most).contains(&count) || node.from.is_empty() {
            return count > 0;
        }
        let takes = match (least, most) {
            (1, 1) => "one input".to_owned(),
            (least, most) if least == most => format!("{least} inputs"),
            (least, usize::MAX) => format!("at least {least} inputs"),
            (least, most) => format!("{least} to {most} inputs"),
        };
        let problem = Problem::new(
            format!("{}.from", node.path),
            format!("`{}` takes {takes}, `from` names {count}", node.kind),
        );
        self.problems.push(match count > most {
            true if most == 1 => {
                problem.hint("merge the streams in a node before it, or write one such node for each")
            }
            true => problem.hint("name fewer nodes"),
            false => problem.hint("write `from: [NAME, NAME]`"),
        });
        false
    }

    fn input(&self, input: Option<(usize, Port)>) -> Option<Input> {
        let (index, port) = input?;
        let (id, placed) = self.done[index].as_ref()?;
        let node = &self.nodes[*id];
        Some(match port {
            Port::Rows => Input {
                from: *id,
                port,
                placed: placed.clone(),
                info: StreamInfo { name: node.name.clone(), schema: node.schema.clone() },
            },
            Port::DeadLetters => Input {
                from: *id,
                port,
                placed: Placed::NOWHERE,
                info: StreamInfo {
                    name: format!("{}.{}", node.name, graph::DEAD_LETTERS),
                    schema: dead_letter::schema(),
                },
            },
        })
    }

    fn add(
        &mut self,
        i: usize,
        inputs: Vec<Edge>,
        schema: arrow::datatypes::SchemaRef,
        placed: Placed,
        body: Body,
    ) {
        let node = &self.spec.nodes[i];
        let id = self.nodes.len();
        self.nodes.push(Node {
            id,
            name: node.name.clone(),
            identity: node.identity().to_owned(),
            kind: node.kind.clone(),
            role: node.role,
            with: node.written.clone(),
            inputs,
            schema,
            order: placed.order.clone(),
            body,
        });
        self.done[i] = Some((id, placed));
    }

    /// The columns that tests give and expect.
    fn check_tests(&mut self) {
        let mut problems = Vec::new();
        for (t, test) in self.spec.tests.iter().enumerate() {
            let parts = [("given", &test.given, Role::Source), ("expect", &test.expect, Role::Sink)];
            for (part, rows, role) in parts {
                for (name, rows) in rows {
                    let node = self.nodes.iter().find(|node| node.name == *name && node.role == role);
                    let Some(node) = node else { continue };
                    let schema = match &node.body {
                        Body::Source { plan, .. } => &plan.columns,
                        _ => &node.schema,
                    };
                    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                    for (r, row) in rows.iter().enumerate() {
                        let columns = row.as_object().into_iter().flat_map(|row| row.keys());
                        for column in columns.filter(|column| !names.contains(&column.as_str())) {
                            let path = format!("tests[{t}].{part}.{name}[{r}].{column}");
                            let problem =
                                Problem::new(path, format!("`{name}` has no column `{column}`")).at_key();
                            let known = names.iter().copied().filter(|n| !n.starts_with('_'));
                            problems.push(problem.hint_names(column, known));
                        }
                    }
                }
            }
        }
        self.problems.append(&mut problems);
    }
}

/// A stream that a node reads.
struct Input {
    from: usize,
    port: Port,
    placed: Placed,
    info: StreamInfo,
}

impl Input {
    fn edge(&self, exchange: Exchange) -> Edge {
        Edge { from: self.from, port: self.port, exchange }
    }
}

/// How an operator's inputs find its instances.
fn edges(plan: &OperatorPlan, inputs: &[Input]) -> Result<Vec<Edge>, Problems> {
    let by = match &plan.distribution {
        Distribution::Local => {
            return Ok(inputs.iter().map(|input| input.edge(Exchange::Stay)).collect());
        }
        Distribution::Keyed(by) => by,
    };
    if by.len() != inputs.len() || by.iter().any(|keys| keys.len() != by[0].len()) {
        return Err(vec![Problem::new("", "every input needs as many key columns as the others")]);
    }
    let keyed = inputs.iter().zip(by).map(|(input, by)| {
        let columns = input.info.keys("by", by)?;
        Ok(input.edge(order::exchange(by, columns, &input.placed)))
    });
    keyed.collect()
}

#[cfg(test)]
mod tests;
