//! Booking an execution.

use thiserror::Error;

use super::{Ledger, Waiting, exact, signed};
use crate::instrument::Class;
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::OrderId;
use crate::report::Fill;

/// What a fill did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// Profit that it made real, in the account's currency at the rate of now, before fees. Zero where no rate is known yet
    /// ([`Ledger::is_waiting_for_rate`]).
    pub realized: Decimal,
    /// Units held now.
    pub position: Decimal,
    /// Average price of these, as [`super::Position::average`].
    pub average: Decimal,
    /// Its fee in the account's currency; `None` where no rate is known yet.
    pub fee: Option<Decimal>,
    /// What one unit of the instrument's quote currency is worth in the account's; `None` where that is not known.
    pub rate: Option<Decimal>,
}

/// Why something could not be booked. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// The fill was booked before.
    #[error("fill `{id}` of order {order} was booked before")]
    Duplicate {
        /// Whose.
        order: OrderId,
        /// The venue's id.
        id: String,
    },
    /// There is no such instrument.
    #[error("there is no instrument number {0}")]
    UnknownInstrument(InstrumentId),
    /// A number that must be above zero is not.
    #[error("a {what} of {value} is not above zero")]
    NotPositive {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: Decimal,
    },
    /// A number has more digits than are exact (28).
    #[error("{0} has more digits than 28: it cannot be booked exactly")]
    Digits(&'static str),
    /// Something is needed that is not known.
    #[error("no price of instrument number {0} is known yet")]
    NoMark(InstrumentId),
}

impl Ledger {
    /// Books an execution at `ts` (UTC nanoseconds): units, cash, fee, profit; what its order still reserves becomes less.
    ///
    /// # Errors
    /// [`LedgerError::Duplicate`] where a fill of this id and order was booked; other errors where the fill makes no sense (a price of zero is
    /// one for an option only) or its numbers are too large. Nothing changes then.
    pub fn fill(&mut self, ts: i64, fill: &Fill) -> Result<Booked, LedgerError> {
        let i = fill.instrument as usize;
        let instruments = self.instruments.clone();
        let Some(traded) = instruments.get(i) else {
            return Err(LedgerError::UnknownInstrument(fill.instrument));
        };
        if self.state.seen.contains(fill.order, &fill.id) {
            return Err(LedgerError::Duplicate { order: fill.order, id: fill.id.clone() });
        }
        if fill.quantity <= Decimal::ZERO {
            return Err(LedgerError::NotPositive { what: "quantity", value: fill.quantity });
        }
        if fill.price < Decimal::ZERO || (fill.price.is_zero() && traded.class != Class::Option) {
            return Err(LedgerError::NotPositive { what: "price", value: fill.price });
        }
        let (price, multiplier, quote) = (fill.price, traded.multiplier.0, self.known[i].quote);
        let digits = LedgerError::Digits;
        let in_units = traded.base.as_deref() == Some(fill.fee_currency.as_str());
        let mut delta = signed(fill.side, fill.quantity);
        let mut fee = fill.fee;
        let notional = exact::product(delta, price, multiplier).ok_or(digits("value"))?;
        if in_units {
            // As if the units of the fee were sold at the fill's price, and paid with what they bring.
            delta = exact::sub(delta, fill.fee).ok_or(digits("quantity"))?;
            fee = exact::product(fill.fee, price, multiplier).ok_or(digits("fee"))?;
        }
        let fee_purse = if in_units || fill.fee.is_zero() { quote } else { self.purse(&fill.fee_currency) };

        // Nothing is kept until all of it could be reckoned.
        let held = &self.state.positions[i];
        let trade = held.plan(ts, delta, price, multiplier, self.params.pnl).ok_or(digits("position"))?;
        let purse = &self.state.purses[quote];
        let realized = trade.realized;
        let realized_sum = exact::add(purse.realized, realized).ok_or(digits("realized profit"))?;
        // What is not paid for brings its profit only.
        let came = if self.known[i].paid { -trade.paid } else { realized };
        let cash = exact::add(purse.cash, came).ok_or(digits("cash"))?;
        let payer = &self.state.purses[fee_purse];
        let fee_cash =
            exact::sub(if fee_purse == quote { cash } else { payer.cash }, fee).ok_or(digits("cash"))?;
        let fee_sum = exact::add(payer.fees, fee).ok_or(digits("fees"))?;
        let rate = self.rate_of(quote);
        let realized_now = convert(realized, rate);
        let fee_now = convert(fee, self.rate_of(fee_purse));
        let add = |sum: Decimal, more: Option<Decimal>| exact::add(sum, more.unwrap_or_default());
        let realized_account = add(held.realized_account, realized_now).ok_or(digits("realized profit"))?;
        let fees_account = add(held.fees_account, fee_now).ok_or(digits("fees"))?;

        let held = &mut self.state.positions[i];
        held.commit(trade);
        (held.realized_account, held.fees_account) = (realized_account, fees_account);
        let purse = &mut self.state.purses[quote];
        (purse.cash, purse.realized) = (cash, realized_sum);
        let payer = &mut self.state.purses[fee_purse];
        (payer.cash, payer.fees) = (fee_cash, fee_sum);
        if realized_now.is_none() {
            self.wait_for_rate(fill.instrument, quote, realized, Decimal::ZERO);
        }
        if fee_now.is_none() {
            self.wait_for_rate(fill.instrument, fee_purse, Decimal::ZERO, fee);
        }
        if let Some(value) = convert(notional.abs(), rate) {
            self.state.volume.add(ts, value);
        }
        self.state.seen.insert(fill.order, &fill.id);
        self.take_reserved(fill.order, fill.quantity);
        if self.state.marks[i].is_nan() {
            let near = money::to_f64(price);
            if near > 0.0 {
                self.mark(fill.instrument, near);
            }
        }
        self.refresh(i);
        let now = self.position(fill.instrument);
        Ok(Booked {
            realized: realized_now.unwrap_or_default(),
            position: now.quantity,
            average: now.average,
            fee: fee_now,
            rate,
        })
    }

    /// A fill is not to be booked, for it is in what was [adopted](Self::adopt_position): it is only remembered. `false` where it came before.
    pub fn pass_over(&mut self, fill: &Fill) -> bool {
        let fresh = !self.state.seen.contains(fill.order, &fill.id);
        self.state.seen.insert(fill.order, &fill.id);
        fresh
    }

    pub(super) fn wait_for_rate(
        &mut self,
        instrument: InstrumentId,
        purse: usize,
        realized: Decimal,
        fee: Decimal,
    ) {
        let currency = self.state.purses[purse].name.clone();
        self.state.waiting.push(Waiting { instrument, currency, realized, fee });
    }

    /// Books what waits for rates that are known by now.
    #[cold]
    pub(super) fn settle(&mut self) {
        let waiting = std::mem::take(&mut self.state.waiting);
        for wait in waiting {
            let purse = self.purse(&wait.currency);
            let rate = self.rate_of(purse);
            let held = &mut self.state.positions[wait.instrument as usize];
            let sums = convert(wait.realized, rate)
                .and_then(|realized| exact::add(held.realized_account, realized))
                .zip(convert(wait.fee, rate).and_then(|fee| exact::add(held.fees_account, fee)));
            match sums {
                Some((realized, fees)) => (held.realized_account, held.fees_account) = (realized, fees),
                None => self.state.waiting.push(wait),
            }
        }
    }

    /// The exact rate of a currency to the account's.
    pub(super) fn rate_of(&self, purse: usize) -> Option<Decimal> {
        self.ways.get(purse)?.exact(&self.state.marks)
    }
}

/// An amount at a rate; zero needs none.
pub(super) fn convert(amount: Decimal, rate: Option<Decimal>) -> Option<Decimal> {
    if amount.is_zero() {
        return Some(Decimal::ZERO);
    }
    exact::product(amount, rate?, Decimal::ONE)
}
