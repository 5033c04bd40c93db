//! `execution`: signals and market data in, orders and what became of them out. A thin shell around
//! [`Execution`](tidemill_trading::execution::Execution), the machine of one account.
//!
//! Time: rows keep the `ts` of what happened: of the row that caused them, or of what fell due in between (a slice, a paper fill, a sample). At equal
//! times market data comes before reports, commands, signals. State: the machine's, as one group; all rows are on one worker. The
//! manual page is [`ExecutionParams`]'.

mod control;
mod inputs;
mod market;
mod reports;
mod rows;
mod signals;
mod symbols;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::keys::group_of;
use tidemill_engine::operator::{END, Groups, Operator, OperatorError, Output, State};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::event::Event;
use tidemill_trading::execution::brackets::Distance;
use tidemill_trading::execution::corporate::{self, CorporateAction};
use tidemill_trading::execution::params::ExecutionParams;
use tidemill_trading::execution::{self, Saved};

use inputs::Port;
use reports::Gathered;

/// See [`ExecutionParams`].
#[derive(Debug)]
pub struct Execution;

impl OperatorKind for Execution {
    const KIND: &'static str = "execution";
    type Params = ExecutionParams;
    const INPUTS: (usize, usize) = (1, 64);

    fn plan(
        params: ExecutionParams,
        inputs: &[StreamInfo],
        cx: &PlanContext,
    ) -> Result<OperatorPlan, Problems> {
        let mut problems = Problems::new();
        let ports = inputs::ports(&params, inputs).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        problems.extend(needs_atr(&params, inputs));
        let corporate = read_corporate(params.corporate_actions.as_deref(), cx).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        let machine = execution::Execution::with_corporate_actions(params, &cx.job, &cx.node, corporate);
        let machine = machine.map_err(|wrong| {
            problems.extend(wrong.into_iter().map(|(path, why)| Problem::new(path, why)));
        });
        let Ok(machine) = machine else { return Err(problems) };
        if !problems.is_empty() {
            return Err(problems);
        }
        let none = vec![Vec::new(); inputs.len()];
        let src = row::origin(&cx.node, 0);
        Ok(OperatorPlan {
            schema: rows::schema(),
            distribution: Distribution::Keyed(none),
            ordered: true,
            passes: Vec::new(),
            build: Arc::new(move || {
                Box::new(Running {
                    ports: ports.clone(),
                    shell: Shell {
                        machine: machine.clone(),
                        seq: 0,
                        gathered: Gathered::default(),
                        books: Vec::new(),
                        snapshot: None,
                    },
                    events: Vec::new(),
                    src,
                })
            }),
        })
    }
}

/// Distances of the guard in average true ranges need a column of them.
fn needs_atr(params: &ExecutionParams, inputs: &[StreamInfo]) -> Problems {
    let Some(signals) = inputs.iter().find(|i| i.name == params.signals) else { return Problems::new() };
    let has = signals.schema.index_of("atr").is_ok_and(|i| signals.data_type(i).is_numeric());
    let guard = &params.protect;
    let all =
        [("stop_loss", guard.stop_loss), ("take_profit", guard.take_profit), ("trailing", guard.trailing)];
    let by_atr = all.iter().filter(|(_, distance)| !has && matches!(distance, Some(Distance::Atr(_))));
    let problem = |(name, _): &(&str, _)| {
        let why = format!("counts average true ranges, and `{}` has no numeric column `atr`", signals.name);
        let hint = "add it to the signals (operator `indicators`), or write `fraction` or `amount`";
        Problem::new(format!("protect.{name}.atr"), why).hint(hint)
    };
    by_atr.map(problem).collect()
}

/// Reads the file of corporate actions.
pub(crate) fn read_corporate(path: Option<&str>, cx: &PlanContext) -> Result<Vec<CorporateAction>, Problems> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let at = "corporate_actions";
    let text = std::fs::read_to_string(cx.base.join(path))
        .map_err(|e| vec![Problem::new(at, format!("cannot read `{path}`: {e}"))])?;
    corporate::parse(&text)
        .map_err(|wrong| wrong.into_iter().map(|why| Problem::new(at, format!("{path}: {why}"))).collect())
}

struct Running {
    ports: Vec<Port>,
    shell: Shell,
    events: Vec<Event>,
    /// Origin of all rows: the node.
    src: u64,
}

/// The machine, and what its shell must remember.
struct Shell {
    machine: execution::Execution,
    /// Rows sent so far: their `_seq`.
    seq: u64,
    /// The part of a snapshot that has come.
    gathered: Gathered,
    /// By instrument: where its stream of book deltas or mark prices is.
    books: Vec<market::Stream>,
    snapshot: Option<Vec<u8>>,
}

/// What is saved of a shell.
#[derive(Serialize, Deserialize)]
struct Kept {
    machine: Saved,
    seq: u64,
    gathered: Gathered,
    books: Vec<market::Stream>,
}

impl Running {
    fn send(&mut self, out: &mut Output) -> Result<(), OperatorError> {
        if self.events.is_empty() {
            return Ok(());
        }
        let batch = rows::batch(
            &self.events,
            self.shell.machine.instruments(),
            self.src,
            self.shell.seq,
            out.schema(),
        )?;
        self.shell.seq += self.events.len() as u64;
        self.events.clear();
        out.push(batch);
        Ok(())
    }
}

impl Operator for Running {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        inputs::feed(&self.ports, inputs, &mut self.shell, &mut self.events)?;
        self.send(out)
    }

    fn advance(&mut self, watermark: i64, out: &mut Output) -> Result<(), OperatorError> {
        // At the end of all rows time stops with the last of them.
        match watermark {
            END => self.shell.machine.finish(&mut self.events),
            _ => self.shell.machine.advance(watermark, &mut self.events),
        }
        self.send(out)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.shell)
    }
}

impl State for Shell {
    /// The whole machine is one state of some kilobytes, so it is written at once.
    fn begin(&mut self) {
        // An instance that never had a row has nothing to say: another worker has the rows.
        self.snapshot = (self.machine.now() != i64::MIN).then(|| {
            let kept = Kept {
                machine: self.machine.save(),
                seq: self.seq,
                gathered: self.gathered.clone(),
                books: self.books.clone(),
            };
            postcard::to_stdvec(&kept).expect("writing plain values to memory does not fail")
        });
    }

    fn next(&mut self, _: usize) -> Result<Option<Groups>, OperatorError> {
        Ok(self.snapshot.take().map(|bytes| vec![(group_of(&[]), bytes)]))
    }

    fn restore(&mut self, _: u16, bytes: &[u8]) -> Result<(), OperatorError> {
        let kept: Kept = postcard::from_bytes(bytes).map_err(|e| OperatorError::State(e.to_string()))?;
        self.machine.restore(kept.machine).map_err(OperatorError::State)?;
        (self.seq, self.gathered, self.books) = (kept.seq, kept.gathered, kept.books);
        Ok(())
    }

    fn keys(&self) -> usize {
        self.machine.instruments().len()
    }
}
