//! What borrowing costs: interest on cash that is owed, fees of units that are borrowed. Daily, at midnight UTC.

use super::{CashMove, Ledger, LedgerError, exact};
use crate::instrument::Class;
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::report::CashReason;

const DAY_NS: i64 = 86_400_000_000_000;
const DAYS_A_YEAR: Decimal = Decimal::from_parts(365, 0, 0, false, 0);

impl Ledger {
    /// When [`Ledger::accrue`] has something to do next: the next midnight (UTC) after the last call; at once before the first one;
    /// never (`i64::MAX`) where nothing that the account trades costs interest.
    pub fn next_accrual(&self) -> i64 {
        if !self.costs() {
            return i64::MAX;
        }
        self.state.accrued_to.map_or(i64::MIN, |day| day.saturating_mul(DAY_NS).saturating_add(DAY_NS))
    }

    /// Books what borrowing cost at every midnight (UTC) after the last call up to `ts`; the first call only says when the account began.
    ///
    /// At each midnight, in this order: on each currency's cash below zero, `interest` / 365 of it; for each short position in spot units,
    /// `borrow_rate` / 365 of its value at the mark as of the call (at its cost where there is none). Each rounded to 8
    /// decimals. What was booked at one midnight counts at the next. Call it before the marks and fills of a new day are booked.
    pub fn accrue(&mut self, ts: i64, moves: &mut Vec<CashMove>) -> Result<(), LedgerError> {
        let today = ts.div_euclid(DAY_NS);
        let first = self.state.accrued_to.map_or(today, |day| day + 1);
        if self.costs() {
            for day in first..=today {
                if self.state.accrued_to.is_some() {
                    let booked = self.accrue_day(day.saturating_mul(DAY_NS), moves);
                    // A day that cannot be reckoned is told of once, and not tried for ever.
                    self.state.accrued_to = Some(day);
                    booked?;
                }
            }
        }
        self.state.accrued_to = Some(self.state.accrued_to.map_or(today, |day| day.max(today)));
        Ok(())
    }

    fn costs(&self) -> bool {
        !self.params.interest.0.is_zero()
            || self.instruments.iter().any(|traded| !traded.borrow_rate.0.is_zero())
    }

    fn accrue_day(&mut self, ts: i64, moves: &mut Vec<CashMove>) -> Result<(), LedgerError> {
        let digits = || LedgerError::Digits("interest");
        let a_day = |amount: Decimal, rate: Decimal| {
            Some(exact::paid(amount.checked_mul(rate)?.checked_div(DAYS_A_YEAR)?))
        };
        for place in 0..self.state.purses.len() {
            let purse = &self.state.purses[place];
            let amount = a_day(purse.cash.min(Decimal::ZERO), self.params.interest.0).ok_or_else(digits)?;
            if !amount.is_zero() {
                let currency = purse.name.clone();
                self.cash_move(&currency, amount, CashReason::Borrow, None)?;
                moves.push(CashMove { ts, currency, amount, reason: CashReason::Borrow, instrument: None });
            }
        }
        for i in 0..self.instruments.len() {
            let (traded, held) = (&self.instruments[i], &self.state.positions[i]);
            if traded.class != Class::Spot || traded.borrow_rate.0.is_zero() || held.quantity >= Decimal::ZERO
            {
                continue;
            }
            let value = match money::from_f64(self.state.marks[i]) {
                Some(_) => self.value_exact(i),
                None => Some(held.cost),
            };
            let amount = value.and_then(|value| a_day(value, traded.borrow_rate.0)).ok_or_else(digits)?;
            moves.extend(self.pay(ts, i as InstrumentId, amount, CashReason::Borrow)?);
        }
        Ok(())
    }
}
