//! The ledger of one account: positions, cash, profit and loss, margin.
//!
//! Money is exact ([`Decimal`]): fills, cash, costs and realized profits. What values things at market prices (equity, margin) is `f64`, as
//! the prices are; [`Ledger::equity_exact`] has it in decimals. Everything is a function of the calls in their order.
//!
//! **Cash.** `spot` and `option`: a fill moves `price x quantity x multiplier` of cash. `perpetual` and `future`: a fill moves no
//! cash but the profit that it makes real. Fees go from the cash of their currency; a fee in an instrument's `base` goes from the
//! units (as crypto venues do), and is a fee of as much of the quote currency as these are worth at the fill's price.
//!
//! **Profit.** Kept in the quote currency exactly, and in the account's currency at the rate of the moment of the fill. Where no rate is
//! known then, it waits until one is ([`Ledger::is_waiting_for_rate`]). Average-cost or FIFO (`pnl`); a fill that goes through
//! zero closes the whole position and opens the rest on the other side at its price.
//!
//! **Rounding.** Products of prices and quantities are exact up to 16 decimals and rounded there; nothing is divided but the cost of a part of a
//! position (16 decimals; what stays is the rest, so nothing is lost) and the average price that is shown. A number that a decimal
//! cannot hold exactly is an error, and the call changes nothing. So [`Ledger::identity`] holds to the last digit, always.
//!
//! **Marks.** [`Ledger::mark`] is the hot path: it stores a price. What depends on prices is reckoned from scratch when it is read,
//! O(positions held), so nothing drifts. A fill is a mark where there is none yet.
//!
//! **State.** [`LedgerState`] is all there is to save; a ledger made from the same parameters and instruments goes on from it as if never
//! stopped. Memory: a position per instrument, lots not closed (FIFO), working orders, and the fills of [`ORDERS_MAX`] orders that are over
//! and of all that are not (see [`Ledger::release`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fees::Volume;
use crate::instrument::{Class, Instrument};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{OrderId, Side};

mod accrue;
mod cash;
mod currency;
mod exact;
mod fill;
mod identity;
mod liquidation;
mod params;
mod position;
mod reserve;
mod seen;
mod split;
mod value;

pub use cash::CashMove;
pub use fill::{Booked, LedgerError};
pub use identity::Identity;
pub use params::{AccountKind, LedgerParams, PnlMethod, RateSpec, instrument_problems};
pub use position::Lot;
pub use reserve::{Short, Working};
pub use seen::ORDERS_MAX;

use currency::{Purse, Way};
use position::Held;
use reserve::Reserved;
use seen::Seen;

/// The ledger of one account. See the module.
#[derive(Clone, Debug)]
pub struct Ledger {
    params: LedgerParams,
    instruments: Arc<[Instrument]>,
    state: LedgerState,
    /// What follows from the state and the parameters; by instrument.
    known: Vec<Known>,
    /// Instruments of which units are held, rising.
    held: Vec<InstrumentId>,
    /// By currency.
    ways: Vec<Way>,
}

/// All of a ledger that is not in its parameters: what is saved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LedgerState {
    symbols: Vec<String>,
    positions: Vec<Held>,
    marks: Vec<f64>,
    marks_refused: u64,
    purses: Vec<Purse>,
    seen: Seen,
    reserved: BTreeMap<OrderId, Reserved>,
    volume: Volume,
    accrued_to: Option<i64>,
    waiting: Vec<Waiting>,
}

/// Amounts that were booked while no rate to the account's currency was known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    instrument: InstrumentId,
    currency: String,
    realized: Decimal,
    fee: Decimal,
}

/// What is reckoned once of an instrument and its position.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Place of its quote currency.
    quote: usize,
    /// Whether cash was paid for it (spot, option).
    paid: bool,
    /// Whether it needs margin in this account.
    margined: bool,
    initial: Decimal,
    maintenance: Decimal,
    initial_near: f64,
    maintenance_near: f64,
    /// Units x multiplier, signed.
    size: f64,
    cost: f64,
    working: Working,
    /// Working orders to buy and to sell that are not reduce-only: units and the worth of one, the dearest first.
    orders: [Vec<(Decimal, Decimal)>; 2],
}

impl Known {
    fn orders(&self, side: Side) -> &[(Decimal, Decimal)] {
        &self.orders[usize::from(side == Side::Sell)]
    }
}

/// A position as it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Units, negative when short.
    pub quantity: Decimal,
    /// Average price of one unit: cost by units and multiplier, rounded to 12 decimals (18 below a thousandth). Zero where nothing is held.
    pub average: Decimal,
    /// What the units cost, multiplier included, in the quote currency; exact; negative when short.
    pub cost: Decimal,
    /// Profit made real since the start, in the account's currency, before fees.
    pub realized: Decimal,
    /// Fees of fills since the start, in the account's currency.
    pub fees: Decimal,
}

impl Ledger {
    /// A ledger of an account that trades `instruments`, as it is at the start. The error has every fault of the parameters and of the
    /// instruments, as `(path, reason)`.
    pub fn new(params: &LedgerParams, instruments: Arc<[Instrument]>) -> Result<Self, Vec<(String, String)>> {
        let problems = params.problems(&instruments);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut ledger = Self {
            params: params.clone(),
            instruments: Arc::from(Vec::new()),
            state: LedgerState::default(),
            known: Vec::new(),
            held: Vec::new(),
            ways: Vec::new(),
        };
        ledger.purse(&params.currency);
        for (currency, amount) in &params.cash {
            let place = ledger.purse(currency);
            ledger.state.purses[place].cash = amount.0;
            ledger.state.purses[place].start = amount.0;
        }
        ledger.set_instruments(instruments);
        Ok(ledger)
    }

    /// A longer list of instruments: those that there were, and new ones after them.
    pub fn extend(&mut self, instruments: Arc<[Instrument]>) -> Result<(), Vec<(String, String)>> {
        let same =
            self.state.symbols.iter().zip(instruments.iter()).all(|(symbol, new)| *symbol == new.symbol);
        if instruments.len() < self.state.symbols.len() || !same {
            return Err(vec![("instruments".into(), "a list goes on where the one before ended".into())]);
        }
        let problems = self.params.problems(&instruments);
        if !problems.is_empty() {
            return Err(problems);
        }
        self.set_instruments(instruments);
        Ok(())
    }

    /// What is to be saved.
    pub fn state(&self) -> &LedgerState {
        &self.state
    }

    /// Goes on from `state`, which a ledger with the same parameters and instruments (or the first of them) had. The error says
    /// what differs.
    pub fn restore(&mut self, state: LedgerState) -> Result<(), String> {
        let n = state.symbols.len();
        if state.positions.len() != n || state.marks.len() != n || n > self.instruments.len() {
            return Err(format!(
                "the saved account has {n} instruments, this one {}",
                self.instruments.len()
            ));
        }
        if let Some((symbol, new)) =
            state.symbols.iter().zip(self.instruments.iter()).find(|(a, b)| **a != b.symbol)
        {
            return Err(format!(
                "the saved account has instrument `{symbol}` where this one has `{}`",
                new.symbol
            ));
        }
        if state.purses.first().is_none_or(|purse| purse.name != self.params.currency) {
            return Err(format!("the saved account is not in {}", self.params.currency));
        }
        if state.reserved.values().any(|reserved| reserved.instrument() as usize >= n) {
            return Err("the saved account has a working order of an instrument that it has not".into());
        }
        self.state = state;
        self.set_instruments(self.instruments.clone());
        Ok(())
    }

    /// Says what one unit of `instrument` is worth now, in its quote currency. A price that is not above zero, infinite or NaN is refused
    /// (`false`) and counted, and the one before stays. So is one of an instrument that is not there.
    #[inline]
    pub fn mark(&mut self, instrument: InstrumentId, price: f64) -> bool {
        if price > 0.0
            && price < f64::INFINITY
            && let Some(mark) = self.state.marks.get_mut(instrument as usize)
        {
            *mark = price;
            if !self.state.waiting.is_empty() {
                self.settle();
            }
            return true;
        }
        self.state.marks_refused += 1;
        false
    }

    /// The last mark; NaN where there is none.
    #[inline]
    pub fn price(&self, instrument: InstrumentId) -> f64 {
        self.state.marks.get(instrument as usize).copied().unwrap_or(f64::NAN)
    }

    /// How many marks were refused.
    pub fn marks_refused(&self) -> u64 {
        self.state.marks_refused
    }

    /// The account's parameters.
    pub fn params(&self) -> &LedgerParams {
        &self.params
    }

    /// The instruments, by number.
    pub fn instruments(&self) -> &Arc<[Instrument]> {
        &self.instruments
    }

    /// Units held, negative when short; zero of an instrument that is not there.
    pub fn quantity(&self, instrument: InstrumentId) -> Decimal {
        self.state.positions.get(instrument as usize).map_or(Decimal::ZERO, |held| held.quantity)
    }

    /// A position; all zero of an instrument that is not there.
    pub fn position(&self, instrument: InstrumentId) -> Position {
        let i = instrument as usize;
        let (Some(held), Some(traded)) = (self.state.positions.get(i), self.instruments.get(i)) else {
            return Position::default();
        };
        Position {
            quantity: held.quantity,
            average: exact::average(held.cost, held.quantity, traded.multiplier.0),
            cost: held.cost,
            realized: held.realized_account,
            fees: held.fees_account,
        }
    }

    /// The units held by when they came, oldest first. Only with FIFO.
    pub fn lots(&self, instrument: InstrumentId) -> impl Iterator<Item = &Lot> {
        self.state.positions.get(instrument as usize).into_iter().flat_map(|held| &held.lots)
    }

    /// Instruments of which units are held, by number.
    pub fn held(&self) -> &[InstrumentId] {
        &self.held
    }

    /// Positions with units, by instrument number.
    pub fn positions(&self) -> impl Iterator<Item = (InstrumentId, Position)> + '_ {
        self.held.iter().map(|&instrument| (instrument, self.position(instrument)))
    }

    /// Value traded in the last 30 days as of `ts`, in the account's currency: what fee tiers go by. Fills in currencies whose rate was not
    /// known are left out.
    pub fn volume(&self, ts: i64) -> Decimal {
        self.state.volume.total(ts)
    }

    /// Whether profits or fees wait for a rate to the account's currency, and are not yet in [`Position::realized`].
    pub fn is_waiting_for_rate(&self) -> bool {
        !self.state.waiting.is_empty()
    }

    /// Whether units of it may be sold that are not there.
    pub fn can_short(&self, instrument: InstrumentId) -> bool {
        self.instruments.get(instrument as usize).is_some_and(|traded| {
            traded.shortable
                && (matches!(traded.class, Class::Perpetual | Class::Future) || self.params.shorts())
        })
    }

    /// The place of a currency; a new one is added at the end.
    fn purse(&mut self, name: &str) -> usize {
        if let Some(place) = self.state.purses.iter().position(|purse| purse.name == name) {
            return place;
        }
        self.state.purses.push(Purse { name: name.into(), ..Purse::default() });
        self.ways = currency::ways(&self.params, &self.instruments, &self.state.purses);
        self.state.purses.len() - 1
    }

    fn set_instruments(&mut self, instruments: Arc<[Instrument]>) {
        self.instruments = instruments.clone();
        self.state.symbols = instruments.iter().map(|traded| traded.symbol.clone()).collect();
        self.state.positions.resize_with(instruments.len(), Held::default);
        self.state.marks.resize(instruments.len(), f64::NAN);
        let known = instruments.iter().map(|traded| self.know(traded)).collect();
        self.known = known;
        self.ways = currency::ways(&self.params, &self.instruments, &self.state.purses);
        self.held.clear();
        for i in 0..instruments.len() {
            self.refresh(i);
        }
        self.count_working();
    }

    fn know(&mut self, traded: &Instrument) -> Known {
        let paid = matches!(traded.class, Class::Spot | Class::Option);
        let (initial, maintenance) =
            (self.params.initial_margin(traded), self.params.maintenance_margin(traded));
        Known {
            quote: self.purse(&traded.quote),
            paid,
            margined: !paid || self.params.kind == AccountKind::Margin,
            initial,
            maintenance,
            initial_near: money::to_f64(initial),
            maintenance_near: money::to_f64(maintenance),
            ..Known::default()
        }
    }

    /// Brings what follows from a position up to date.
    fn refresh(&mut self, i: usize) {
        let held = &self.state.positions[i];
        self.known[i].size = money::to_f64(held.quantity) * money::to_f64(self.instruments[i].multiplier.0);
        self.known[i].cost = money::to_f64(held.cost);
        let id = i as InstrumentId;
        match (self.held.binary_search(&id), held.quantity.is_zero()) {
            (Ok(place), true) => {
                self.held.remove(place);
            }
            (Err(place), false) => self.held.insert(place, id),
            _ => {}
        }
    }
}

/// Signed units of `quantity` on `side`.
fn signed(side: Side, quantity: Decimal) -> Decimal {
    match side {
        Side::Buy => quantity,
        Side::Sell => -quantity,
    }
}

#[cfg(test)]
mod tests;
