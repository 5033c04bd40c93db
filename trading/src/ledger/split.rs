//! Splits of units.

use super::fill::convert;
use super::{CashMove, Ledger, LedgerError, exact};
use crate::instrument::Class;
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::report::CashReason;

impl Ledger {
    /// Every unit becomes `ratio` units at `ts` (2: two for one; 0.1: one for ten): the position and its lots, the units and prices of its
    /// working orders, and the mark. The cost stays, so the average is divided by the ratio. Units are rounded to 18 decimals.
    ///
    /// With `pay_fractions`, what is not a whole lot of the instrument after the split is taken out and paid at the new mark (cash in
    /// lieu), as brokers of shares do; its profit is made real as by a sale without a fee, and the cash is told. Without, it stays.
    /// Derivatives keep theirs always.
    ///
    /// # Errors
    /// A ratio that is not above zero, numbers that are too large, no mark to pay fractions at; nothing changes then.
    pub fn split(
        &mut self,
        ts: i64,
        instrument: InstrumentId,
        ratio: Decimal,
        pay_fractions: bool,
    ) -> Result<Option<CashMove>, LedgerError> {
        let i = instrument as usize;
        let digits = || LedgerError::Digits("split");
        if i >= self.instruments.len() {
            return Err(LedgerError::UnknownInstrument(instrument));
        }
        if ratio <= Decimal::ZERO {
            return Err(LedgerError::NotPositive { what: "split ratio", value: ratio });
        }
        let traded = self.instruments.clone();
        let traded = &traded[i];
        let mark = self.state.marks[i] / money::to_f64(ratio);
        let mut held = self.state.positions[i].clone();
        held.split(ratio).ok_or_else(digits)?;
        let mut reserved = self.state.reserved.clone();
        for order in reserved.values_mut().filter(|order| order.instrument() == instrument) {
            order.split(ratio).ok_or_else(digits)?;
        }
        let quote = self.known[i].quote;
        let mut purse = self.state.purses[quote].clone();
        let (mut paid, mut waits) = (None, None);
        let lots = held.quantity.checked_div(traded.lot.0).ok_or_else(digits)?;
        let whole = lots.trunc().checked_mul(traded.lot.0).ok_or_else(digits)?;
        let rest = exact::sub(held.quantity, whole).ok_or_else(digits)?;
        if pay_fractions && traded.class == Class::Spot && !rest.is_zero() {
            let price = money::from_f64(mark).ok_or(LedgerError::NoMark(instrument))?;
            let trade =
                held.plan(ts, -rest, price, traded.multiplier.0, self.params.pnl).ok_or_else(digits)?;
            let realized = trade.realized;
            match convert(realized, self.rate_of(quote)) {
                Some(now) => {
                    held.realized_account = exact::add(held.realized_account, now).ok_or_else(digits)?
                }
                None => waits = Some(realized),
            }
            purse.realized = exact::add(purse.realized, realized).ok_or_else(digits)?;
            purse.cash = exact::sub(purse.cash, trade.paid).ok_or_else(digits)?;
            let (currency, reason) = (traded.quote.clone(), CashReason::InLieu);
            paid = Some(CashMove { ts, currency, amount: -trade.paid, reason, instrument: Some(instrument) });
            held.commit(trade);
        }
        if let Some(realized) = waits {
            self.wait_for_rate(instrument, quote, realized, Decimal::ZERO);
        }
        self.state.positions[i] = held;
        self.state.reserved = reserved;
        self.state.marks[i] = mark;
        self.state.purses[quote] = purse;
        self.refresh(i);
        self.count(instrument);
        Ok(paid)
    }
}
