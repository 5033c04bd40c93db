//! Cash that no fill accounts for, and what a venue says the account has.

use serde::{Deserialize, Serialize};

use super::currency::reason_index;
use super::fill::convert;
use super::{Ledger, LedgerError, Waiting, exact};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::report::CashReason;

/// Cash that came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CashMove {
    /// When; UTC nanoseconds.
    pub ts: i64,
    /// Currency.
    pub currency: String,
    /// Signed: what was added.
    pub amount: Decimal,
    /// What for.
    pub reason: CashReason,
    /// Of which instrument.
    pub instrument: Option<InstrumentId>,
}

impl Ledger {
    /// Books cash that came (or went: below zero). A fee of an instrument counts among its fees.
    ///
    /// # Errors
    /// [`LedgerError::Digits`], [`LedgerError::UnknownInstrument`]; nothing changes then.
    pub fn cash_move(
        &mut self,
        currency: &str,
        amount: Decimal,
        reason: CashReason,
        instrument: Option<InstrumentId>,
    ) -> Result<(), LedgerError> {
        if let Some(unknown) = instrument.filter(|&instrument| instrument as usize >= self.instruments.len())
        {
            return Err(LedgerError::UnknownInstrument(unknown));
        }
        let digits = LedgerError::Digits("cash");
        let place = self.purse(currency);
        let rate = self.rate_of(place);
        let purse = &mut self.state.purses[place];
        let moved = &mut purse.moved[reason_index(reason)];
        let sums = exact::add(purse.cash, amount).zip(exact::add(*moved, amount));
        let (cash, total) = sums.ok_or(digits)?;
        if let (CashReason::Fee, Some(instrument)) = (reason, instrument) {
            let held = &mut self.state.positions[instrument as usize];
            match convert(-amount, rate) {
                Some(fee) => {
                    held.fees_account =
                        exact::add(held.fees_account, fee).ok_or(LedgerError::Digits("fees"))?
                }
                None => {
                    let (currency, realized, fee) = (currency.into(), Decimal::ZERO, -amount);
                    self.state.waiting.push(Waiting { instrument, currency, realized, fee });
                }
            }
        }
        (purse.cash, *moved) = (cash, total);
        Ok(())
    }

    /// Pays a dividend of `per_unit` at `ts`: who is long receives it, who is short pays it; rounded to 8 decimals. `None` where nothing
    /// is held.
    pub fn dividend(
        &mut self,
        ts: i64,
        instrument: InstrumentId,
        per_unit: Decimal,
    ) -> Result<Option<CashMove>, LedgerError> {
        let amount =
            self.quantity(instrument).checked_mul(per_unit).ok_or(LedgerError::Digits("dividend"))?;
        self.pay(ts, instrument, amount, CashReason::Dividend)
    }

    /// Pays the funding of a perpetual at `ts`: a long position pays `rate` x its value at the mark, a short one receives it; rounded to
    /// 8 decimals. `None` where nothing is held or the rate is zero.
    ///
    /// # Errors
    /// [`LedgerError::NoMark`] where the position has no mark; [`LedgerError::Digits`], also for a rate that is not a number.
    pub fn funding(
        &mut self,
        ts: i64,
        instrument: InstrumentId,
        rate: f64,
    ) -> Result<Option<CashMove>, LedgerError> {
        let i = instrument as usize;
        if self.quantity(instrument).is_zero() {
            return Ok(None);
        }
        if self.state.marks[i].is_nan() {
            return Err(LedgerError::NoMark(instrument));
        }
        let value = self.value_exact(i).zip(money::from_f64(rate));
        let amount =
            value.and_then(|(value, rate)| value.checked_mul(rate)).ok_or(LedgerError::Digits("funding"))?;
        self.pay(ts, instrument, -amount, CashReason::Funding)
    }

    pub(super) fn pay(
        &mut self,
        ts: i64,
        instrument: InstrumentId,
        amount: Decimal,
        reason: CashReason,
    ) -> Result<Option<CashMove>, LedgerError> {
        let amount = exact::paid(amount);
        if amount.is_zero() {
            return Ok(None);
        }
        let currency = self.instruments[instrument as usize].quote.clone();
        self.cash_move(&currency, amount, reason, Some(instrument))?;
        Ok(Some(CashMove { ts, currency, amount, reason, instrument: Some(instrument) }))
    }

    /// The venue's cash is the truth: what differs is booked as a transfer, and told (venue's minus ours).
    pub fn adopt_cash(&mut self, currency: &str, cash: Decimal) -> Result<Decimal, LedgerError> {
        let differs = exact::sub(cash, self.cash(currency)).ok_or(LedgerError::Digits("cash"))?;
        if !differs.is_zero() {
            self.cash_move(currency, differs, CashReason::Transfer, None)?;
        }
        Ok(differs)
    }

    /// The venue's position is the truth: from now on `quantity` units are held, at `average` each. Without: at the average that there was
    /// if the side stays, else at the mark. Cash does not move; where the units differ, the others are as if transferred at their cost.
    /// What differs is told, in units (venue's minus ours).
    ///
    /// With FIFO the lots are kept where the units are the same and `average` is not given, else they become one of `ts`.
    ///
    /// # Errors
    /// [`LedgerError::NoMark`] where no price for the units is known at all; nothing changes then.
    pub fn adopt_position(
        &mut self,
        ts: i64,
        instrument: InstrumentId,
        quantity: Decimal,
        average: Option<Decimal>,
    ) -> Result<Decimal, LedgerError> {
        let i = instrument as usize;
        let digits = || LedgerError::Digits("position");
        let Some(held) = self.state.positions.get(i) else {
            return Err(LedgerError::UnknownInstrument(instrument));
        };
        let differs = exact::sub(quantity, held.quantity).ok_or_else(digits)?;
        if differs.is_zero() && average.is_none() {
            return Ok(differs);
        }
        let multiplier = self.instruments[i].multiplier.0;
        let same_side =
            !held.quantity.is_zero() && held.quantity.is_sign_negative() == quantity.is_sign_negative();
        let cost = match average {
            _ if quantity.is_zero() => Decimal::ZERO,
            Some(average) => exact::product(quantity, average, multiplier).ok_or_else(digits)?,
            None if same_side => exact::share(held.cost, quantity, held.quantity).ok_or_else(digits)?,
            None => {
                let price = money::from_f64(self.state.marks[i]).ok_or(LedgerError::NoMark(instrument))?;
                exact::product(quantity, price, multiplier).ok_or_else(digits)?
            }
        };
        if self.known[i].paid {
            let more = exact::sub(cost, held.cost).ok_or_else(digits)?;
            let purse = &mut self.state.purses[self.known[i].quote];
            purse.adopted = exact::add(purse.adopted, more).ok_or_else(digits)?;
        }
        self.state.positions[i].replace(ts, quantity, cost, self.params.pnl);
        self.refresh(i);
        Ok(differs)
    }
}
