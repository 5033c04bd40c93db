//! One worker: renders the plan as a dataflow, then steps it, obeys commands and reports.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use timely::dataflow::InputHandle;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Exchange, Inspect, Probe};
use timely::worker::Worker;
use tokio::sync::mpsc;

use crate::plan::{Node, Port};
use crate::registry::Role;
use crate::runtime::align::Align;
use crate::runtime::control::{Command, Local, Report, Shared};
use crate::runtime::coordinator::Coordinator;
use crate::runtime::job::JobError;
use crate::runtime::steering::Phase;
use crate::runtime::time::Time;
use crate::runtime::{operator_node, sink_node, source_node, stall};

/// Longest time a worker sleeps before it looks at commands and reports.
const PARK: Duration = Duration::from_millis(2);

/// Runs this worker until the run closes or fails.
pub fn run(worker: &mut Worker, shared: Arc<Shared>) {
    let (reports, mut outbox) = mpsc::unbounded_channel();
    let local = Rc::new(Local {
        index: worker.index(),
        peers: worker.peers(),
        epoch: Cell::new(shared.start.epoch),
        look: Cell::new(0),
        halt: Cell::new(false),
        emit: Cell::new(!shared.begins()),
        committed: Cell::new(0),
        elsewhere: RefCell::default(),
        close: Cell::new(false),
        on_commit: RefCell::default(),
        on_close: RefCell::default(),
        activators: RefCell::default(),
        reports,
        probe: timely::dataflow::operators::probe::Handle::new(),
        shared: shared.clone(),
    });
    // Before anything of the dataflow is there: what is refused here leaves nothing behind.
    let prepared = match prepare(&local) {
        Ok(prepared) => prepared,
        Err(reason) => {
            shared.fail(JobError::Checkpoint(reason));
            return;
        }
    };
    let mut control = Control::new(worker, &local);
    if let Err(reason) = render(worker, &local, prepared) {
        shared.fail(JobError::Setup(reason));
    }
    let mut asked = false;
    let (look_every, mut looked) = (stall::interval(shared.options.stall_after), shared.clock.start());
    loop {
        if shared.failed() {
            break;
        }
        if shared.ask_stop.is_cancelled() && !asked {
            asked = true;
            shared.options.control.enter(Phase::Stopping);
            let _ = local.reports.send(Report::StopAsked);
        }
        if shared.options.control.take_checkpoint_request() {
            let _ = local.reports.send(Report::CheckpointRequested);
        }
        if looked.elapsed() >= look_every {
            looked = shared.clock.start();
            local.look();
        }
        while let Ok(report) = outbox.try_recv() {
            control.send(report);
        }
        control.tick();
        while let Some(command) = control.commands.borrow_mut().pop_front() {
            local.obey(command);
        }
        if local.close.get() {
            control.close();
            break;
        }
        worker.step_or_park(Some(PARK));
    }
    while worker.has_dataflows() && !shared.failed() {
        worker.step_or_park(Some(PARK));
    }
    // After a failure, also one while closing: another worker may have dropped its part, so these would never end.
    for index in worker.installed_dataflows() {
        worker.drop_dataflow(index);
    }
}

/// The control dataflow: commands from worker 0 to all, reports from all to worker 0.
struct Control {
    commands: Rc<RefCell<std::collections::VecDeque<Command>>>,
    inbox: Rc<RefCell<Vec<Report>>>,
    command_input: Option<InputHandle<u64, timely::container::CapacityContainerBuilder<Vec<Command>>>>,
    report_input: Option<InputHandle<u64, timely::container::CapacityContainerBuilder<Vec<Report>>>>,
    coordinator: Option<Coordinator>,
}

impl Control {
    fn new(worker: &mut Worker, local: &Rc<Local>) -> Self {
        let commands: Rc<RefCell<std::collections::VecDeque<Command>>> = Rc::default();
        let inbox: Rc<RefCell<Vec<Report>>> = Rc::default();
        let (heard, collected) = (commands.clone(), inbox.clone());
        let (command_input, report_input) = worker.dataflow_named::<u64, _, _>("control", |scope| {
            let mut command_input = InputHandle::new();
            let mut report_input = InputHandle::new();
            command_input
                .to_stream(scope)
                .broadcast()
                .inspect(move |command: &Command| heard.borrow_mut().push_back(command.clone()));
            report_input
                .to_stream(scope)
                .exchange(|_: &Report| 0)
                .inspect(move |report: &Report| collected.borrow_mut().push(report.clone()));
            (command_input, report_input)
        });
        let coordinator = (local.index == 0).then(|| Coordinator::new(local.shared.clone(), local.peers));
        Self {
            commands,
            inbox,
            command_input: Some(command_input),
            report_input: Some(report_input),
            coordinator,
        }
    }

    fn send(&mut self, report: Report) {
        if let Some(input) = &mut self.report_input {
            input.send(report);
            // Only a step in time pushes it through the exchange.
            let next = *input.time() + 1;
            input.advance_to(next);
        }
    }

    fn tick(&mut self) {
        let Some(coordinator) = &mut self.coordinator else { return };
        for report in self.inbox.borrow_mut().drain(..) {
            coordinator.report(report);
        }
        if let Some(input) = &mut self.command_input {
            for command in coordinator.tick() {
                input.send(command);
                let next = *input.time() + 1;
                input.advance_to(next);
            }
        }
    }

    fn close(&mut self) {
        self.command_input = None;
        self.report_input = None;
    }
}

/// A node's instance on this worker, with the state it begins with.
enum Prepared {
    Source,
    Operator(operator_node::Prepared),
    Sink(Align),
}

fn prepare(local: &Local) -> Result<VecDeque<Prepared>, String> {
    let prepare = |node: &Node| match node.role {
        Role::Source => Ok(Prepared::Source),
        Role::Operator => operator_node::prepare(local, node).map(Prepared::Operator),
        Role::Sink => sink_node::prepare(local, node).map(Prepared::Sink),
    };
    local.shared.plan.nodes.iter().map(prepare).collect()
}

fn render(worker: &mut Worker, local: &Rc<Local>, mut prepared: VecDeque<Prepared>) -> Result<(), String> {
    let plan = local.shared.plan.clone();
    worker.dataflow_named::<Time, _, _>(&plan.job, |scope| {
        let mut rows = Vec::with_capacity(plan.nodes.len());
        let mut letters = Vec::with_capacity(plan.nodes.len());
        for node in &plan.nodes {
            let mut inputs = Vec::new();
            for edge in &node.inputs {
                let streams: &Vec<Option<crate::runtime::input::RowStream>> = match edge.port {
                    Port::Rows => &rows,
                    Port::DeadLetters => &letters,
                };
                let stream = streams.get(edge.from).and_then(Clone::clone);
                inputs.push(
                    stream.ok_or_else(|| format!("`{}` reads a stream that does not exist", node.name))?,
                );
            }
            let instance = prepared.pop_front().ok_or_else(|| format!("`{}` was not prepared", node.name))?;
            let (sent, refused) = match instance {
                Prepared::Source => {
                    let streams = source_node::add(scope, local, node)?;
                    (Some(streams.rows), Some(streams.dead_letters))
                }
                Prepared::Operator(instance) => {
                    (Some(operator_node::add(scope, local, node, instance, inputs)?), None)
                }
                Prepared::Sink(align) => {
                    sink_node::add(scope, local, node, align, inputs)?.probe_with(&local.probe);
                    (None, None)
                }
            };
            rows.push(sent);
            letters.push(refused);
        }
        Ok(())
    })
}
