//! The execution machine of one account: wishes, market data and reports in, orders and what became of them out.
//!
//! A wish becomes a position to be had ([`Sizing`](crate::sizing::Sizing)); the difference to what is held and worked on becomes an order, once
//! nothing works against it; the order passes the [`Gate`](crate::gate::Gate), gets a name that is the same in every run, and goes out. What the venue
//! says of it changes the [`Ledger`](crate::ledger::Ledger), the guards of the position, the slices that follow.
//!
//! Time: inputs come in order of `ts`; at equal times market, reports, controls, signals. What falls due at `t` (paper fills, slices,
//! samples, corporate actions) happens before inputs of `t`. So the events are a function of the inputs, however often
//! [`advance`](Execution::advance) is called.
//!
//! State ([`Saved`]): orders that are not over and some that are, a slot an instrument, sliced orders, and the states of the parts. A machine that
//! was restored goes on as if it had never stopped.
//!
//! A tick of an instrument that nothing works on costs a few stores and comparisons: no allocation, no [`Decimal`] arithmetic.

pub mod brackets;
pub mod closing;
pub mod corporate;
pub mod orders;
pub mod params;
pub mod reconcile;
pub mod slot;

mod account;
mod asked;
mod exits;
mod goals;
mod guards;
mod making;
mod reprice;
mod said;
mod saved;
mod send;
mod states;
mod ticks;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{EquityRow, Event, Happened, TradingState};
use crate::gate::{self, Gate};
use crate::history::History;
use crate::instrument::Instrument;
use crate::ledger::Ledger;
use crate::market::{InstrumentId, Tick};
use crate::money::Decimal;
use crate::order::OrderId;
use crate::paper::Paper;
use crate::report::Report;
use crate::session::SessionClock;
use crate::signal::{Control, Signal};
use crate::sizing::Sizing;

use corporate::CorporateAction;
use orders::Orders;
use params::{ExecutionParams, Wrong};
pub use saved::Saved;
use slot::{Parent, Slot};

/// The machine of one account.
#[derive(Clone, Debug)]
pub struct Execution {
    params: ExecutionParams,
    job: String,
    node: String,
    instruments: Arc<[Instrument]>,
    ids: BTreeMap<String, InstrumentId>,
    /// What symbols that are not listed are like.
    template: Option<Instrument>,
    /// In order of time.
    corporate: Arc<[CorporateAction]>,
    sessions: Vec<SessionClock>,
    ledger: Ledger,
    gate: Gate,
    sizing: Sizing,
    history: History,
    /// The paper venue; `None`: an external one.
    paper: Option<Paper>,
    own: Own,
    /// When something next falls due by time alone.
    due: i64,
    /// When the first position is to be closed because its session ends.
    closes: i64,
    /// When the first closing that failed is tried again.
    retries: i64,
    /// Positions may have to be closed by force; looked at with each price.
    forced: bool,
    /// Rules of the gate follow equity; told with each price of something held.
    follows: bool,
    reports: Vec<Report>,
    actions: Vec<gate::Action>,
}

/// What the machine itself remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Own {
    /// Time has come to here.
    now: i64,
    orders: Orders,
    slots: Vec<Slot>,
    /// Sliced orders that are not all sent, by number.
    parents: BTreeMap<u64, Parent>,
    next_parent: u64,
    /// Orders that no row asked for, so far: part of their names.
    made: u64,
    /// When the venue's last snapshot was; `None`: none yet, so nothing is sent to an external venue.
    snapshot_at: Option<i64>,
    /// Orders may work that are not known here: no new one is sent before the next snapshot.
    reconciling: bool,
    /// The next `equity` rows; `i64::MAX`: none.
    next_sample: i64,
    /// Something was seen since the last sample.
    seen: bool,
    /// The last sample of the account, and when.
    sampled: Option<(i64, EquityRow)>,
    /// Corporate actions that have been.
    corporate_done: usize,
    /// Highest equity of all samples; NaN before the first.
    peak: f64,
    /// Currencies in which the account was told to owe what it has not.
    owed: BTreeSet<String>,
    /// The account was found liquidated, and positions are being closed.
    liquidating: bool,
}

impl Execution {
    /// A machine for `node` of `job`: their names go into those of its orders.
    ///
    /// # Errors
    /// All that is wrong with the parameters, by their path.
    pub fn new(params: ExecutionParams, job: &str, node: &str) -> Result<Self, Wrong> {
        Self::with_corporate_actions(params, job, node, Vec::new())
    }

    /// As [`new`](Self::new), with what falls due by a file ([`corporate::parse`]).
    ///
    /// # Errors
    /// All that is wrong with the parameters, by their path.
    pub fn with_corporate_actions(
        params: ExecutionParams,
        job: &str,
        node: &str,
        mut corporate: Vec<CorporateAction>,
    ) -> Result<Self, Wrong> {
        corporate.sort_by_key(|a| a.ts);
        let template = match (&params.default_instrument, params.instruments.is_empty()) {
            (Some(template), _) => Some(template.clone()),
            (None, true) => Some(making::share()),
            (None, false) => None,
        };
        let instruments: Arc<[Instrument]> = params.instruments.clone().into();
        let made = making::make(&params, &instruments, template.as_ref())?;
        let mut machine = Self {
            job: job.to_owned(),
            node: node.to_owned(),
            ids: BTreeMap::new(),
            template,
            corporate: corporate.into(),
            sessions: made.sessions,
            ledger: made.ledger,
            gate: made.gate,
            sizing: made.sizing,
            history: made.history,
            paper: made.paper,
            own: Own {
                now: i64::MIN,
                orders: Orders::default(),
                slots: vec![Slot::default(); instruments.len()],
                parents: BTreeMap::new(),
                next_parent: 0,
                made: 0,
                snapshot_at: None,
                reconciling: false,
                next_sample: i64::MAX,
                seen: false,
                sampled: None,
                corporate_done: 0,
                peak: f64::NAN,
                owed: BTreeSet::new(),
                liquidating: false,
            },
            due: i64::MIN,
            closes: i64::MAX,
            retries: i64::MAX,
            forced: making::forced(&params),
            follows: params.risk.daily_loss.is_some() || params.risk.drawdown.is_some(),
            reports: Vec::new(),
            actions: Vec::new(),
            instruments,
            params,
        };
        machine.ids = machine.instruments.iter().map(|i| i.symbol.clone()).zip(0..).collect();
        Ok(machine)
    }

    /// The number of a symbol. A symbol that was not listed gets one at first sight, where the graph says what it is like.
    pub fn instrument(&mut self, symbol: &str) -> Option<InstrumentId> {
        match self.ids.get(symbol) {
            Some(id) => Some(*id),
            None => self.add(symbol),
        }
    }

    /// The instruments, by number.
    pub fn instruments(&self) -> &Arc<[Instrument]> {
        &self.instruments
    }

    /// The account.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Orders that are not over.
    pub fn orders(&self) -> &Orders {
        &self.own.orders
    }

    /// Whether orders pass.
    pub fn state(&self) -> TradingState {
        self.gate.state()
    }

    /// The market showed something.
    #[inline]
    pub fn market(&mut self, tick: &Tick, out: &mut Vec<Event>) {
        if self.due <= tick.ts {
            self.run(tick.ts, out);
        }
        self.own.now = self.own.now.max(tick.ts);
        self.tick(tick, out);
    }

    /// A strategy wants something.
    pub fn signal(&mut self, signal: &Signal, out: &mut Vec<Event>) {
        self.begin(signal.ts, out);
        self.wish(signal, out);
        self.end(out);
    }

    /// An external venue says something. With the paper venue there is nobody to report: an alert says so.
    pub fn report(&mut self, report: &Report, out: &mut Vec<Event>) {
        self.begin(report.ts, out);
        if self.paper.is_some() {
            self.alert(None, "unexpected_report", "the venue is paper, which reports by itself".into(), out);
        } else {
            self.said(report, out);
        }
        self.end(out);
    }

    /// A command from outside.
    pub fn control(&mut self, ts: i64, control: Control, why: &str, out: &mut Vec<Event>) {
        self.begin(ts, out);
        self.command(control, why, out);
        self.end(out);
    }

    /// Something about a row that is of no use (an unknown symbol, a word that means nothing): it is told, and nothing else happens.
    pub fn complain(
        &mut self,
        ts: i64,
        instrument: Option<InstrumentId>,
        code: &str,
        detail: String,
        out: &mut Vec<Event>,
    ) {
        self.begin(ts, out);
        self.alert(instrument, code, detail, out);
        self.end(out);
    }

    /// Time has come to `to`: what falls due at or before it happens. Before the first input nothing does.
    #[inline]
    pub fn advance(&mut self, to: i64, out: &mut Vec<Event>) {
        if self.due <= to && self.own.now != i64::MIN {
            self.run(to, out);
        }
    }

    /// No more input comes: the account as it is at the last of them is told, where samples are and it was not told already. Time stands.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        if self.own.now == i64::MIN || self.params.sample.ns() == 0 {
            return;
        }
        self.advance(self.own.now, out);
        if std::mem::take(&mut self.own.seen) {
            // What the gate does about it comes before it is told.
            self.follow(out);
            self.end(out);
            let now = (self.own.now, self.equity());
            if self.own.sampled != Some(now) {
                self.sample(out);
            }
            self.own.seen = false;
        }
    }

    /// When the last thing happened; `i64::MIN` before the first.
    pub fn now(&self) -> i64 {
        self.own.now
    }

    fn begin(&mut self, ts: i64, out: &mut Vec<Event>) {
        if self.due <= ts {
            self.run(ts, out);
        }
        self.own.now = self.own.now.max(ts);
        self.own.seen = true;
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        self.schedule();
        if self.due <= self.own.now {
            self.run(self.own.now, out);
        }
    }

    fn tell(&self, what: Happened, out: &mut Vec<Event>) {
        out.push(Event { ts: self.own.now, what });
    }

    fn alert(&self, instrument: Option<InstrumentId>, code: &str, detail: String, out: &mut Vec<Event>) {
        self.tell(Happened::Alert { instrument, code: code.to_owned(), detail }, out);
    }

    fn lot(&self, instrument: InstrumentId) -> Decimal {
        self.instruments[instrument as usize].lot.0
    }

    fn name_order(&self, instrument: InstrumentId, cause: &mut slot::Cause) -> OrderId {
        let symbol = &self.instruments[instrument as usize].symbol;
        let id = OrderId::derive(&self.job, &self.node, symbol, cause.ts, cause.src, cause.seq, cause.n);
        cause.n += 1;
        id
    }
}

#[cfg(test)]
mod tests;
