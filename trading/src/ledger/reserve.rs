//! Working orders: what they may still trade, and whether the account can bear one more.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AccountKind, Ledger, exact, signed};
use crate::fees::fee;
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{Order, OrderId, Side};

/// What is left of a working order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reserved {
    instrument: InstrumentId,
    side: Side,
    quantity: Decimal,
    price: Decimal,
    reduce_only: bool,
}

impl Reserved {
    pub fn instrument(&self) -> InstrumentId {
        self.instrument
    }

    pub fn split(&mut self, ratio: Decimal) -> Option<()> {
        self.quantity = exact::units(self.quantity, ratio)?;
        self.price = self.price.checked_div(ratio)?;
        Some(())
    }
}

/// What the working orders of one instrument may still trade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Working {
    /// Units to buy, by orders that are not reduce-only.
    pub buys: Decimal,
    /// Units to sell, by orders that are not reduce-only.
    pub sells: Decimal,
    /// Units to buy, by reduce-only orders.
    pub reducing_buys: Decimal,
    /// Units to sell, by reduce-only orders.
    pub reducing_sells: Decimal,
    /// Value of `buys` at the orders' prices, in the quote currency.
    pub buy_value: Decimal,
    /// Value of `sells` at the orders' prices, in the quote currency.
    pub sell_value: Decimal,
    /// Fees of `buys` as a taker, in the quote currency.
    pub buy_fees: Decimal,
}

/// Why an account cannot bear an order. The text has the numbers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Short {
    /// Not enough cash.
    #[error("the order needs {needed} {currency} with its fee, {available} are free")]
    Cash {
        /// Price and fee.
        needed: Decimal,
        /// Cash that no working order reserves.
        available: Decimal,
        /// In which currency.
        currency: String,
    },
    /// More units than there are, and they may not be sold short.
    #[error(
        "{needed} units are to be sold, {available} are there and not in working orders: shorts are not allowed"
    )]
    Units {
        /// Units to sell.
        needed: Decimal,
        /// Units that no working order sells.
        available: Decimal,
    },
    /// Not enough margin.
    #[error("the order needs {needed} {currency} of margin with its fee, {available} are free")]
    Margin {
        /// Margin and fee.
        needed: Decimal,
        /// Equity that is neither margin nor reserved.
        available: Decimal,
        /// The account's currency.
        currency: String,
    },
    /// Something that the answer depends on is not known, or is too large a number.
    #[error("{0}")]
    Unknown(String),
}

impl Ledger {
    /// An order works: its units are counted in [`Ledger::working`], and cash or margin is reserved for it at `price` (its limit, or what
    /// a market order is expected to pay). Again with the same id: it has changed; `order.quantity` is then what is left of it.
    /// An instrument that is not there is left out.
    pub fn reserve(&mut self, order: &Order, price: Decimal) {
        if (order.instrument as usize) < self.instruments.len() {
            let Order { instrument, side, quantity, reduce_only, .. } = *order;
            self.state.reserved.insert(order.id, Reserved { instrument, side, quantity, price, reduce_only });
            self.count(order.instrument);
        }
    }

    /// An order is over: it reserves nothing any more, and its fills need not be remembered for ever (those of the last
    /// [`super::ORDERS_MAX`] orders that are over still are). Call it for every order, also of unknown ones that were filled.
    pub fn release(&mut self, order: OrderId) {
        if let Some(reserved) = self.state.reserved.remove(&order) {
            self.count(reserved.instrument);
        }
        self.state.seen.over(order);
    }

    /// Units of an order that still reserve something; zero if none.
    pub fn reserved(&self, order: OrderId) -> Decimal {
        self.state.reserved.get(&order).map_or(Decimal::ZERO, |reserved| reserved.quantity)
    }

    /// What working orders of an instrument may still trade. O(1).
    pub fn working(&self, instrument: InstrumentId) -> Working {
        self.known.get(instrument as usize).map_or_else(Working::default, |known| known.working)
    }

    /// Whether the account can bear `quantity` more units on `side` at `price`, with all working orders filled, and the fee of a taker.
    ///
    /// Cash accounts, spot and options: the cash of the quote currency pays for all buys, units are there for all sells. Else: what the
    /// order could open, beyond closing what is held and what other orders do, needs margin. An order that only closes passes.
    ///
    /// # Errors
    /// What is short, or what must be known and is not (a mark or rate of something held).
    pub fn can_bear(
        &self,
        instrument: InstrumentId,
        side: Side,
        quantity: Decimal,
        price: Decimal,
    ) -> Result<(), Short> {
        let i = instrument as usize;
        let unknown = |what: &str| Short::Unknown(what.into());
        let (Some(traded), Some(known)) = (self.instruments.get(i), self.known.get(i)) else {
            return Err(unknown("there is no such instrument"));
        };
        let large = || unknown("a number of the order has more digits than 28");
        let position = self.quantity(instrument);
        let working = known.working;
        let add = |a, b| exact::add(a, b).ok_or_else(large);
        let sub = |a, b| exact::sub(a, b).ok_or_else(large);
        // What the position is in the worst case before this order, on its side, and how much of the order goes beyond nothing held.
        let before = match side {
            Side::Buy => add(position, working.buys)?,
            Side::Sell => sub(working.sells, position)?,
        };
        let after = add(before, quantity)?;
        if side == Side::Sell && after > Decimal::ZERO && !self.can_short(instrument) {
            let available = (-before).max(Decimal::ZERO);
            return Err(Short::Units { needed: quantity, available });
        }
        let opened = (after - before.max(Decimal::ZERO)).max(Decimal::ZERO);
        let fee = fee(&self.params.fees, traded, price, quantity, false, Decimal::ZERO).ok_or_else(large)?;
        let fee = fee.max(Decimal::ZERO);
        if self.params.kind == AccountKind::Cash && known.paid {
            if side == Side::Sell {
                return Ok(());
            }
            let value = exact::product(quantity, price, traded.multiplier.0).ok_or_else(large)?;
            let needed = add(value, fee)?;
            let available = self.free_cash_at(known.quote).ok_or_else(large)?;
            let currency = traded.quote.clone();
            return if needed > available {
                Err(Short::Cash { needed, available, currency })
            } else {
                Ok(())
            };
        }
        if opened.is_zero() {
            return Ok(());
        }
        let rate = self
            .rate_of(known.quote)
            .ok_or_else(|| unknown(&format!("no rate of {} is known", traded.quote)))?;
        let value = exact::product(opened, price, traded.multiplier.0).ok_or_else(large)?;
        let margin = exact::product(value, known.initial, Decimal::ONE).ok_or_else(large)?;
        let needed = exact::product(add(margin, fee)?, rate, Decimal::ONE).ok_or_else(large)?;
        let available =
            self.free_exact().ok_or_else(|| unknown("a price or rate of something held is not known"))?;
        let currency = self.params.currency.clone();
        if needed > available { Err(Short::Margin { needed, available, currency }) } else { Ok(()) }
    }

    /// Cash of a currency that working buys of a cash account do not reserve.
    pub fn free_cash(&self, currency: &str) -> Decimal {
        let place = self.state.purses.iter().position(|purse| purse.name == currency);
        place.and_then(|place| self.free_cash_at(place)).unwrap_or_default()
    }

    fn free_cash_at(&self, purse: usize) -> Option<Decimal> {
        let mut free = self.state.purses[purse].cash;
        if self.params.kind == AccountKind::Cash {
            for known in self.known.iter().filter(|known| known.paid && known.quote == purse) {
                free = exact::sub(exact::sub(free, known.working.buy_value)?, known.working.buy_fees)?;
            }
        }
        Some(free)
    }

    /// Margin that working orders would need, in the quote currency: of the side that would open more.
    pub(super) fn reserved_margin(&self, i: usize) -> Option<Decimal> {
        let (position, known) = (self.state.positions[i].quantity, &self.known[i]);
        let Working { buys, sells, buy_value, sell_value, .. } = known.working;
        let side = |units: Decimal, value: Decimal, closes: Decimal| {
            let opened = exact::sub(units, closes.max(Decimal::ZERO))?;
            if opened <= Decimal::ZERO { Some(Decimal::ZERO) } else { exact::share(value, opened, units) }
        };
        let value = side(buys, buy_value, -position)?.max(side(sells, sell_value, position)?);
        exact::product(value, known.initial, Decimal::ONE)
    }

    /// As [`Self::reserved_margin`].
    pub(super) fn reserved_margin_near(&self, i: usize) -> f64 {
        if self.known[i].working == Working::default() {
            return 0.0;
        }
        self.reserved_margin(i).map_or(f64::NAN, money::to_f64)
    }

    pub(super) fn take_reserved(&mut self, order: OrderId, filled: Decimal) {
        if let Some(reserved) = self.state.reserved.get_mut(&order) {
            reserved.quantity = (reserved.quantity - filled.min(reserved.quantity)).max(Decimal::ZERO);
            let instrument = reserved.instrument;
            self.count(instrument);
        }
    }

    pub(super) fn count_working(&mut self) {
        for i in 0..self.known.len() {
            self.count(i as InstrumentId);
        }
    }

    /// Sums the working orders of an instrument from scratch: there are few, and no sum drifts.
    pub(super) fn count(&mut self, instrument: InstrumentId) {
        let traded = &self.instruments[instrument as usize];
        let mut working = Working::default();
        for reserved in self.state.reserved.values().filter(|reserved| reserved.instrument == instrument) {
            let value = reserved.quantity.saturating_mul(reserved.price).saturating_mul(traded.multiplier.0);
            let (units, sum) = match (reserved.side, reserved.reduce_only || reserved.quantity.is_zero()) {
                (Side::Buy, false) => (&mut working.buys, Some(&mut working.buy_value)),
                (Side::Sell, false) => (&mut working.sells, Some(&mut working.sell_value)),
                (Side::Buy, true) => (&mut working.reducing_buys, None),
                (Side::Sell, true) => (&mut working.reducing_sells, None),
            };
            *units = units.saturating_add(reserved.quantity);
            let Some(sum) = sum else { continue };
            *sum = sum.saturating_add(value);
            if reserved.side == Side::Buy {
                let fee =
                    fee(&self.params.fees, traded, reserved.price, reserved.quantity, false, Decimal::ZERO);
                let fee = fee.unwrap_or(Decimal::MAX).max(Decimal::ZERO);
                working.buy_fees = working.buy_fees.saturating_add(fee);
            }
        }
        self.known[instrument as usize].working = working;
    }

    /// The position if every working order on `side` were filled and none on the other: signed units. Reduce-only orders are left out.
    pub fn worst(&self, instrument: InstrumentId, side: Side) -> Decimal {
        let working = self.working(instrument);
        let units = if side == Side::Buy { working.buys } else { working.sells };
        self.quantity(instrument).saturating_add(signed(side, units))
    }
}
