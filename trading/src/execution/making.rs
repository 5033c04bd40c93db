//! Making a machine: its parts, and room for symbols that were not listed.

use std::sync::Arc;

use super::Execution;
use super::params::{ExecutionParams, VenueParams, Wrong};
use super::slot::Slot;
use crate::gate::Gate;
use crate::history::History;
use crate::instrument::{Class, Instrument};
use crate::ledger::{AccountKind, Ledger, instrument_problems};
use crate::market::InstrumentId;
use crate::paper::Paper;
use crate::session::{Session, SessionClock};
use crate::sizing::Sizing;

/// The most instruments of a machine: beyond it, new symbols are refused.
pub const INSTRUMENTS_MAX: usize = 100_000;

pub(super) struct Made {
    pub sessions: Vec<SessionClock>,
    pub ledger: Ledger,
    pub gate: Gate,
    pub sizing: Sizing,
    pub history: History,
    pub paper: Option<Paper>,
}

/// A share: what a symbol is taken for where a graph says nothing of instruments.
pub(super) fn share() -> Instrument {
    // The defaults of the fields, read where they are declared.
    serde_json::from_value(serde_json::json!({ "symbol": "" })).expect("every other field has a default")
}

/// Whether positions may have to be closed because their margin is used up.
pub(super) fn forced(params: &ExecutionParams) -> bool {
    matches!(&params.venue, VenueParams::Paper(paper) if paper.liquidate)
        && params.account.kind == AccountKind::Margin
}

/// The parts, or all that is wrong.
pub(super) fn make(
    params: &ExecutionParams,
    instruments: &Arc<[Instrument]>,
    template: Option<&Instrument>,
) -> Result<Made, Wrong> {
    let mut wrong = params.problems();
    let mut take = |at: &str, more: Wrong| {
        // Several parts look at the instruments; what one has told of is told once.
        for (path, why) in more {
            let path = match path.as_str() {
                "" => at.to_owned(),
                listed if at.is_empty() || listed.starts_with("instruments[") => path,
                _ => format!("{at}.{path}"),
            };
            if !wrong.iter().any(|(told, _)| *told == path) {
                wrong.push((path, why));
            }
        }
    };
    let mut sessions = Vec::new();
    for (i, instrument) in instruments.iter().chain(template).enumerate() {
        let at =
            if i < instruments.len() { format!("instruments[{i}]") } else { "default_instrument".into() };
        match session(instrument) {
            Ok(session) if i < instruments.len() => sessions.push(session),
            Ok(_) => {}
            Err(why) => take(&at, vec![("session".into(), why)]),
        }
    }
    let pays = params.account.kind == AccountKind::Cash;
    let mut paid = instruments.iter().chain(template).map(|i| matches!(i.class, Class::Spot | Class::Option));
    if params.short && pays && paid.all(|paid| paid) {
        take(
            "short",
            vec![(
                String::new(),
                "a cash account sells only what it has: write `account: { kind: margin }`".into(),
            )],
        );
    }
    if let Some(template) = template {
        let named = Instrument { symbol: "?".into(), ..template.clone() };
        take("", instrument_problems("default_instrument", &named));
        if let Some(reason) = params.account.no_rate(&named.quote) {
            // Where the graph describes no instruments at all, shares in dollars are meant: the account is what differs.
            let at =
                if params.default_instrument.is_some() { "default_instrument.quote" } else { "instruments" };
            take(at, vec![(String::new(), reason)]);
        }
    }
    let ledger = Ledger::new(&params.account, instruments.clone()).map_err(|more| take("account", more)).ok();
    let gate = if template.is_some() {
        Gate::open(&params.risk, instruments, template)
    } else {
        Gate::new(&params.risk, instruments.clone())
    };
    let gate = gate.map_err(|more| take("risk", more)).ok();
    let sizing =
        Sizing::new(params.sizing.as_ref(), instruments.clone()).map_err(|more| take("sizing", more)).ok();
    let history = History::new(&params.history, instruments.len()).map_err(|more| take("history", more)).ok();
    let paper = match &params.venue {
        VenueParams::External => Some(None),
        VenueParams::Paper(paper) => Paper::new(paper, instruments.clone(), params.account.fees.clone())
            .map_err(|more| take("venue", more))
            .ok()
            .map(Some),
    };
    match (ledger, gate, sizing, history, paper) {
        (Some(ledger), Some(gate), Some(sizing), Some(history), Some(paper)) if wrong.is_empty() => {
            Ok(Made { sessions, ledger, gate, sizing, history, paper })
        }
        _ => Err(wrong),
    }
}

fn session(instrument: &Instrument) -> Result<SessionClock, String> {
    let session = instrument.session.as_ref().map(Session::new).transpose()?;
    Ok(SessionClock::new(session.map(Arc::new)))
}

impl Execution {
    /// Room for a symbol that was not listed.
    pub(super) fn add(&mut self, symbol: &str) -> Option<InstrumentId> {
        let template = self.template.as_ref()?;
        if symbol.is_empty() || self.instruments.len() >= INSTRUMENTS_MAX {
            return None;
        }
        let instrument = Instrument { symbol: symbol.to_owned(), ..template.clone() };
        // The template was looked at when the machine was made.
        let clock = session(&instrument).ok()?;
        let id = self.instruments.len() as InstrumentId;
        let longer: Arc<[Instrument]> =
            self.instruments.iter().cloned().chain([instrument.clone()]).collect();
        self.ledger.extend(longer.clone()).ok()?;
        if let Some(paper) = &mut self.paper {
            paper.add(&instrument).ok()?;
        }
        self.gate.add(&instrument);
        self.sizing.add(&instrument);
        self.history.add();
        self.sessions.push(clock);
        self.instruments = longer;
        self.ids.insert(symbol.to_owned(), id);
        self.own.slots.push(Slot::default());
        self.plan_close(id);
        self.find_close();
        // It may be time to close it already: a machine that was restored would know, too.
        self.schedule();
        Some(id)
    }
}
