//! What a snapshot of the machine holds: everything but its parameters.

use serde::{Deserialize, Serialize};

use super::{Execution, Own};
use crate::gate::GateState;
use crate::history::HistoryState;
use crate::ledger::LedgerState;
use crate::market::InstrumentId;
use crate::paper::PaperState;
use crate::sizing::SizingState;

/// A machine's memory. Restored into a machine of the same parameters, it goes on as if it had never stopped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// Symbols by number: those that were not listed are made again.
    symbols: Vec<String>,
    own: Own,
    ledger: LedgerState,
    gate: GateState,
    sizing: SizingState,
    history: HistoryState,
    paper: Option<PaperState>,
}

impl Execution {
    /// What it remembers.
    pub fn save(&self) -> Saved {
        Saved {
            symbols: self.instruments.iter().map(|i| i.symbol.clone()).collect(),
            own: self.own.clone(),
            ledger: self.ledger.state().clone(),
            gate: self.gate.save(),
            sizing: self.sizing.save(),
            history: self.history.state().clone(),
            paper: self.paper.as_ref().map(|p| p.state().clone()),
        }
    }

    /// Goes on from what another machine of the same parameters remembered. Listed instruments may have become more, at the end of the
    /// list.
    ///
    /// # Errors
    /// Where the snapshot is of other instruments, in other places.
    pub fn restore(&mut self, saved: Saved) -> Result<(), String> {
        for (id, symbol) in (0..).zip(&saved.symbols) {
            if self.instrument(symbol) != Some(id) {
                return Err(format!(
                    "the snapshot's instrument {id} is {symbol}, the graph's is another: instruments may be added at the end, not moved"
                ));
            }
        }
        self.own = saved.own;
        let known = self.own.slots.len();
        let listed = self.instruments.len();
        self.own.slots.resize_with(listed, Default::default);
        self.ledger.restore(saved.ledger)?;
        self.gate.restore(saved.gate);
        self.sizing.restore(saved.sizing);
        self.history.restore(saved.history);
        if let (Some(paper), Some(state)) = (&mut self.paper, saved.paper) {
            paper.restore(state);
        }
        // Those that are new in the list have sessions to be closed for, too.
        (known..listed).for_each(|i| self.plan_close(i as InstrumentId));
        self.find_close();
        self.find_retry();
        self.schedule();
        Ok(())
    }
}
