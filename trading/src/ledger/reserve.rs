//! Working orders: what they may still trade, and whether the account can bear one more.
//!
//! **Margin.** What an instrument may come to need is its margin at the worse of two ends: all working buys filled and no sells, or all sells and
//! no buys; plus what filling them costs (fees, and prices worse than the mark). On the way from what is held to an end beyond zero the margin of
//! what is held comes free, so it counts at its own end only: an order that turns a position needs the margin of the new side, not of both.
//! Where orders of a side close the position, the dearest of them are taken to be the ones that open. An order passes where its end fits what all
//! other instruments leave; so with prices as they are no order, in whatever sequence and parts they are filled, brings equity below the margin.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AccountKind, Ledger, exact, signed};
use crate::fees::fee;
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{Order, OrderId, OrderType, Side};

/// What is left of a working order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reserved {
    instrument: InstrumentId,
    side: Side,
    quantity: Decimal,
    price: Decimal,
    /// How much worse than the mark the price of a unit is.
    loss: Decimal,
    reduce_only: bool,
}

impl Reserved {
    pub fn instrument(&self) -> InstrumentId {
        self.instrument
    }

    pub fn split(&mut self, ratio: Decimal) -> Option<()> {
        self.quantity = exact::units(self.quantity, ratio)?;
        self.price = self.price.checked_div(ratio)?;
        self.loss = self.loss.checked_div(ratio)?;
        Some(())
    }

    /// The price of a unit, or the mark where that is better than it: what a unit is worth once it is had.
    fn worth(&self) -> Decimal {
        worth(self.side, self.price, self.loss)
    }
}

fn worth(side: Side, price: Decimal, loss: Decimal) -> Decimal {
    match side {
        Side::Buy => price.saturating_sub(loss),
        Side::Sell => price.saturating_add(loss),
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
    /// Fees of `buys` and `sells` as a taker, and what their prices are worse than the marks of when they were sent; in the quote currency.
    pub costs: Decimal,
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

impl Short {
    /// What is short, as refusals name it.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Cash { .. } => "account.cash",
            Self::Units { .. } => "account.shorts",
            Self::Margin { .. } => "account.margin",
            Self::Unknown(_) => "account.unknown",
        }
    }
}

impl Ledger {
    /// An order works: its units are counted in [`Ledger::working`], and cash or margin is reserved for it at `price` (its limit, or what
    /// a market order is expected to pay). Again with the same id: it has changed; `order.quantity` is then what is left of it.
    /// An instrument that is not there is left out.
    pub fn reserve(&mut self, order: &Order, price: Decimal) {
        if (order.instrument as usize) < self.instruments.len() {
            let Order { instrument, side, quantity, reduce_only, .. } = *order;
            let loss = self.loss(instrument, side, &order.order_type, price);
            let reserved = Reserved { instrument, side, quantity, price, loss, reduce_only };
            self.state.reserved.insert(order.id, reserved);
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
    /// order could open, beyond closing what is held and what other orders do, needs margin; what closing sets free is there for it. An
    /// order that only closes passes.
    ///
    /// # Errors
    /// What is short, or what must be known and is not (a mark or rate of something held).
    pub fn can_bear(
        &self,
        instrument: InstrumentId,
        side: Side,
        quantity: Decimal,
        order_type: &OrderType,
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
        let free = self.free_exact().ok_or_else(|| unknown(&self.what_is_unknown()))?;
        let rate = self.rate_of(known.quote).ok_or_else(|| unknown(&self.no_rate_of(&traded.quote)))?;
        let loss = self.loss(instrument, side, order_type, price);
        let cost = add(exact::product(quantity, loss, traded.multiplier.0).ok_or_else(large)?, fee)?;
        let end_before = self.end_margin(i, side, None).ok_or_else(large)?;
        let more = (quantity, worth(side, price, loss));
        let end_after = self.end_margin(i, side, Some(more)).ok_or_else(large)?;
        let in_account = |amount| exact::product(amount, rate, Decimal::ONE).ok_or_else(large);
        let needed = in_account(add(sub(end_after, end_before)?, cost)?)?;
        // What this instrument needs now comes free on the way to the order's end, but for that end's own.
        let other = sub(sub(self.need(i).ok_or_else(large)?, end_before)?, working.costs)?;
        let available = add(free, in_account(other)?)?;
        let currency = self.params.currency.clone();
        if needed > available { Err(Short::Margin { needed, available, currency }) } else { Ok(()) }
    }

    /// As [`Ledger::can_bear`], of an order that takes the place of a working one.
    ///
    /// # Errors
    /// As [`Ledger::can_bear`].
    pub fn can_bear_instead(&mut self, order: &Order, price: Decimal) -> Result<(), Short> {
        let Order { instrument, side, quantity, ref order_type, .. } = *order;
        let reserved = self.state.reserved.remove(&order.id);
        if reserved.is_some() {
            self.count(instrument);
        }
        let borne = self.can_bear(instrument, side, quantity, order_type, price);
        if let Some(reserved) = reserved {
            self.state.reserved.insert(order.id, reserved);
            self.count(instrument);
        }
        borne
    }

    /// How much worse than the mark a unit is had at `price`, the price that an order of `order_type` is expected to have. What waits for a
    /// trigger is had when the market is there.
    fn loss(&self, instrument: InstrumentId, side: Side, order_type: &OrderType, price: Decimal) -> Decimal {
        let market = match *order_type {
            OrderType::Market | OrderType::Limit { .. } => money::from_f64(self.price(instrument)),
            OrderType::StopLimit { stop, .. } => Some(stop),
            OrderType::Stop { .. } | OrderType::TrailingStop { .. } | OrderType::TakeProfit { .. } => None,
        };
        let worse = market.and_then(|market| match side {
            Side::Buy => price.checked_sub(market),
            Side::Sell => market.checked_sub(price),
        });
        worse.unwrap_or_default().max(Decimal::ZERO)
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

    /// Margin of the position if all working orders on `side` were filled, and `more` (units, worth of one), in the quote currency.
    fn end_margin(&self, i: usize, side: Side, more: Option<(Decimal, Decimal)>) -> Option<Decimal> {
        let (known, multiplier) = (&self.known[i], self.instruments[i].multiplier.0);
        let position = signed(side, self.state.positions[i].quantity);
        let mut value = if position > Decimal::ZERO { self.value_exact(i)?.abs() } else { Decimal::ZERO };
        let orders = known.orders(side);
        // The dearest first, as they are in the list.
        let place = more.map_or(0, |(_, worth)| orders.partition_point(|(_, other)| *other >= worth));
        let mut all = orders[..place].iter().chain(more.as_ref()).chain(&orders[place..]);
        let units = if side == Side::Buy { known.working.buys } else { known.working.sells };
        let units = exact::add(units, more.map_or(Decimal::ZERO, |(units, _)| units))?;
        let mut opened = exact::sub(units, (-position).max(Decimal::ZERO))?;
        while opened > Decimal::ZERO
            && let Some(&(units, worth)) = all.next()
        {
            value = exact::add(value, exact::product(units.min(opened), worth, multiplier)?)?;
            opened = exact::sub(opened, units.min(opened))?;
        }
        exact::product(value, known.initial, Decimal::ONE)
    }

    /// Margin that an instrument with margin may come to need, in the quote currency: at the worse end, with all costs of its working orders.
    pub(super) fn need(&self, i: usize) -> Option<Decimal> {
        let worse = self.end_margin(i, Side::Buy, None)?.max(self.end_margin(i, Side::Sell, None)?);
        exact::add(worse, self.known[i].working.costs)
    }

    /// As [`Self::need`].
    pub(super) fn need_near(&self, i: usize) -> f64 {
        if self.known[i].working == Working::default() {
            return self.known[i].initial_near * (self.known[i].size * self.state.marks[i]).abs();
        }
        self.need(i).map_or(f64::NAN, money::to_f64)
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
        let (mut working, mut orders) = (Working::default(), [Vec::new(), Vec::new()]);
        for reserved in self.state.reserved.values().filter(|reserved| reserved.instrument == instrument) {
            let Reserved { side, quantity, price, .. } = *reserved;
            let value = |price: Decimal| quantity.saturating_mul(price).saturating_mul(traded.multiplier.0);
            let (units, sum) = match (side, reserved.reduce_only || quantity.is_zero()) {
                (Side::Buy, false) => (&mut working.buys, Some(&mut working.buy_value)),
                (Side::Sell, false) => (&mut working.sells, Some(&mut working.sell_value)),
                (Side::Buy, true) => (&mut working.reducing_buys, None),
                (Side::Sell, true) => (&mut working.reducing_sells, None),
            };
            *units = units.saturating_add(quantity);
            let Some(sum) = sum else { continue };
            *sum = sum.saturating_add(value(price));
            let fee = fee(&self.params.fees, traded, price, quantity, false, Decimal::ZERO);
            let fee = fee.unwrap_or(Decimal::MAX).max(Decimal::ZERO);
            if side == Side::Buy {
                working.buy_fees = working.buy_fees.saturating_add(fee);
            }
            working.costs = working.costs.saturating_add(fee).saturating_add(value(reserved.loss));
            orders[usize::from(side == Side::Sell)].push((quantity, reserved.worth()));
        }
        orders.iter_mut().for_each(|side| side.sort_by_key(|order| Reverse(order.1)));
        let known = &mut self.known[instrument as usize];
        (known.working, known.orders) = (working, orders);
    }

    /// The position if every working order on `side` were filled and none on the other: signed units. Reduce-only orders are left out.
    pub fn worst(&self, instrument: InstrumentId, side: Side) -> Decimal {
        let working = self.working(instrument);
        let units = if side == Side::Buy { working.buys } else { working.sells };
        self.quantity(instrument).saturating_add(signed(side, units))
    }
}
