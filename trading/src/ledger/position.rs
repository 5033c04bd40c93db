//! One position: units, what they cost, and what became of those that were closed.
//!
//! What is kept is the **cost** of the units (exact), not their average price, which is a quotient: closing part of a position takes part
//! of the cost out, rounded once to 16 decimals, and what stays is the rest. So cost is conserved to the last digit, whatever is
//! closed in which steps; the average price is only shown.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::exact;
use super::params::PnlMethod;
use crate::money::Decimal;

/// Units that were bought (or sold short) at once. Signed as the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// When; UTC nanoseconds.
    pub ts: i64,
    /// Units, negative when short.
    pub quantity: Decimal,
    /// What they cost in the quote currency, multiplier included; negative when short.
    pub cost: Decimal,
}

/// A position. Amounts are in the instrument's quote currency, but those `_account`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub quantity: Decimal,
    pub cost: Decimal,
    /// Oldest first; only with FIFO.
    pub lots: VecDeque<Lot>,
    pub realized: Decimal,
    pub realized_account: Decimal,
    pub fees_account: Decimal,
}

/// What a trade will do to a position: reckoned first, kept only if all of its booking can be.
#[derive(Clone, Debug)]
pub(crate) struct Trade {
    /// Profit made real.
    pub realized: Decimal,
    /// What was paid for the units, or what selling them brought (below zero): change of cost less profit.
    pub paid: Decimal,
    total: Decimal,
    quantity: Decimal,
    cost: Decimal,
    /// Lots that are used up.
    used: usize,
    /// What is left of the lot after these.
    first: Option<Lot>,
    opened: Option<Lot>,
}

impl Held {
    /// Trades `delta` units at `price`. `None` where a number is too large.
    ///
    /// What goes against the position closes it first; the rest opens one on the other side, at `price`.
    pub fn plan(
        &self,
        ts: i64,
        delta: Decimal,
        price: Decimal,
        multiplier: Decimal,
        method: PnlMethod,
    ) -> Option<Trade> {
        let against =
            !self.quantity.is_zero() && self.quantity.is_sign_negative() != delta.is_sign_negative();
        let closing = match against {
            true if delta.abs() <= self.quantity.abs() => -delta,
            true => self.quantity,
            false => Decimal::ZERO,
        };
        let (mut realized, mut cost, mut used, mut first) = (Decimal::ZERO, self.cost, 0, None);
        if !closing.is_zero() {
            let taken;
            (taken, used, first) = match method {
                PnlMethod::Average if closing == self.quantity => (self.cost, 0, None),
                PnlMethod::Average => (exact::share(self.cost, closing, self.quantity)?, 0, None),
                PnlMethod::Fifo => self.oldest(closing)?,
            };
            realized = exact::sub(exact::product(closing, price, multiplier)?, taken)?;
            cost = exact::sub(cost, taken)?;
        }
        let opening = exact::add(delta, closing)?;
        let mut opened = None;
        if !opening.is_zero() {
            let lot = Lot { ts, quantity: opening, cost: exact::product(opening, price, multiplier)? };
            cost = exact::add(cost, lot.cost)?;
            opened = (method == PnlMethod::Fifo).then_some(lot);
        }
        let quantity = exact::add(self.quantity, delta)?.normalize();
        let paid = exact::sub(exact::sub(cost, self.cost)?, realized)?;
        let total = exact::add(self.realized, realized)?;
        Some(Trade { realized, paid, total, quantity, cost, used, first, opened })
    }

    /// Does what was planned.
    pub fn commit(&mut self, trade: Trade) {
        (self.quantity, self.cost, self.realized) = (trade.quantity, trade.cost, trade.total);
        self.lots.drain(..trade.used);
        if let (Some(rest), Some(lot)) = (trade.first, self.lots.front_mut()) {
            *lot = rest;
        }
        self.lots.extend(trade.opened);
    }

    /// What the oldest `quantity` units (signed as the position, no more than it) cost; how many lots they use up, and what is left of
    /// the next one.
    fn oldest(&self, quantity: Decimal) -> Option<(Decimal, usize, Option<Lot>)> {
        let (mut rest, mut cost) = (quantity, Decimal::ZERO);
        for (used, lot) in self.lots.iter().enumerate() {
            if rest.is_zero() {
                return Some((cost, used, None));
            }
            if lot.quantity.abs() > rest.abs() {
                let part = exact::share(lot.cost, rest, lot.quantity)?;
                let left = exact::sub(lot.quantity, rest)?.normalize();
                let left = Lot { ts: lot.ts, quantity: left, cost: exact::sub(lot.cost, part)? };
                return Some((exact::add(cost, part)?, used, Some(left)));
            }
            rest = exact::sub(rest, lot.quantity)?;
            cost = exact::add(cost, lot.cost)?;
        }
        rest.is_zero().then_some((cost, self.lots.len(), None))
    }

    /// Every unit becomes `ratio` units; the cost stays. With FIFO the units are the sum of the lots', each of them rounded.
    pub fn split(&mut self, ratio: Decimal) -> Option<()> {
        let whole = exact::units(self.quantity, ratio)?;
        if let Some((last, others)) = self.lots.make_contiguous().split_last_mut() {
            let mut rest = whole;
            for lot in others {
                lot.quantity = exact::units(lot.quantity, ratio)?;
                rest = exact::sub(rest, lot.quantity)?;
            }
            last.quantity = rest.normalize();
        }
        self.quantity = whole;
        Some(())
    }

    /// Units and cost are now these, whatever they were.
    pub fn replace(&mut self, ts: i64, quantity: Decimal, cost: Decimal, method: PnlMethod) {
        (self.quantity, self.cost) = (quantity.normalize(), cost);
        self.lots.clear();
        if method == PnlMethod::Fifo && !quantity.is_zero() {
            self.lots.push_back(Lot { ts, quantity: self.quantity, cost });
        }
    }
}
