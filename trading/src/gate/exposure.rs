//! Worst-case exposure: where positions can end, whatever of the working orders is filled, in whatever order.
//!
//! With `p` held, `B` to be bought and `S` to be sold, a position can end anywhere in `[p - S, p + B]`. Reduce-only orders move it towards zero and
//! no further; but they can do so before the others are filled, so a short position's upper end is that much higher, at most `B`, and a long one's
//! lower end that much lower, at most `-S`. Positions of different instruments move independently, so the sum of the worst cases is the worst case
//! of the sum.

use super::limits::{Known, Limits};
use super::{OrderIntent, View, Working};
use crate::market::InstrumentId;
use crate::money::{Decimal, from_f64};
use crate::order::Side;

/// Units between which a position can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) low: Decimal,
    pub(super) high: Decimal,
}

impl Reach {
    /// `None` where the numbers are too large.
    pub(super) fn of(position: Decimal, working: &Working) -> Option<Self> {
        let (mut high, mut low) = (position, position);
        if position < Decimal::ZERO {
            high = position.checked_add(working.reducing_buys)?.min(Decimal::ZERO);
        } else {
            low = position.checked_sub(working.reducing_sells)?.max(Decimal::ZERO);
        }
        high = high.checked_add(working.buys)?;
        low = low.checked_sub(working.sells)?;
        Some(Self { low, high })
    }

    /// The end that an order of this side moves, counted in its direction: not above zero where it can but make a position smaller.
    pub(super) fn end(self, side: Side) -> Decimal {
        match side {
            Side::Buy => self.high,
            Side::Sell => -self.low,
        }
    }

    /// The largest position, long or short.
    pub(super) fn largest(self) -> Decimal {
        self.low.abs().max(self.high.abs())
    }
}

/// The working orders with one more.
pub(super) fn with_order(working: &Working, order: &OrderIntent) -> Option<Working> {
    let mut working = *working;
    let units = match (order.side, order.reduce_only) {
        (Side::Buy, false) => &mut working.buys,
        (Side::Sell, false) => &mut working.sells,
        (Side::Buy, true) => &mut working.reducing_buys,
        (Side::Sell, true) => &mut working.reducing_sells,
    };
    *units = units.checked_add(order.quantity)?;
    Some(working)
}

/// What an order does to the position of its instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    /// It can but make it smaller: it is reduce-only, or stays on this side of zero whatever of the working orders is filled before it. One that
    /// closes a position beside a reduce-only one (a stop-loss) must be reduce-only too, for both might be filled.
    pub(super) reduces: bool,
    /// It moves the worst case further out. A reduce-only one does so beside working orders that together would turn the position.
    pub(super) raises: bool,
}

impl Effect {
    pub(super) fn of(order: &OrderIntent, view: &dyn View) -> Self {
        let (position, working) = (view.position(order.instrument), view.working(order.instrument));
        let before = Reach::of(position, &working).map(|reach| reach.end(order.side));
        let after = with_order(&working, order).and_then(|working| Reach::of(position, &working));
        match (before, after.map(|reach| reach.end(order.side))) {
            (Some(before), Some(after)) => {
                let inside = after <= Decimal::ZERO;
                Self { reduces: order.reduce_only || inside, raises: !inside && after > before }
            }
            // Too large to reckon with: the rules say so.
            _ => Self { reduces: order.reduce_only, raises: true },
        }
    }
}

/// Why an exposure cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// No price of it was seen.
    Price(String),
    /// No rate of its currency.
    Rate(String),
    /// The numbers are beyond 28 digits.
    TooLarge,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Price(symbol) => write!(f, "no price of {symbol} is known, so exposure is not"),
            Self::Rate(symbol) => write!(f, "no rate of {symbol}'s currency is known, so exposure is not"),
            Self::TooLarge => f.write_str("the numbers are too large to reckon with"),
        }
    }
}

/// What one unit is worth in the account's currency, at a price.
pub(super) fn unit_value(
    known: &Known,
    instrument: InstrumentId,
    price: Decimal,
    view: &dyn View,
) -> Result<Decimal, Unknown> {
    let rate = view.rate(instrument).ok_or_else(|| Unknown::Rate(known.symbol.clone()))?;
    let value = price.checked_mul(known.multiplier).and_then(|value| value.checked_mul(rate));
    value.ok_or(Unknown::TooLarge)
}

/// What one unit is worth at the price by which positions are valued.
pub(super) fn marked_value(
    known: &Known,
    instrument: InstrumentId,
    view: &dyn View,
) -> Result<Decimal, Unknown> {
    let price = view.price(instrument);
    let price = if price > 0.0 { from_f64(price) } else { None };
    let price = price.ok_or_else(|| Unknown::Price(known.symbol.clone()))?;
    unit_value(known, instrument, price, view)
}

/// Worst cases of the book in the account's currency, without the new order and with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) gross: Change,
    pub(super) sector: Change,
    pub(super) venue: Change,
    /// The most that longs can outweigh shorts, signed.
    pub(super) net_high: Change,
    /// The least, signed.
    pub(super) net_low: Change,
    /// Gross of all instruments but the order's, as they are held.
    pub(super) others: Decimal,
    /// The worst case of the order's instrument.
    pub(super) own: Change,
}

/// A sum without the new order, and with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub(super) before: Decimal,
    pub(super) after: Decimal,
}

impl Change {
    fn add(&mut self, before: Decimal, after: Decimal) -> Option<()> {
        self.before = self.before.checked_add(before)?;
        self.after = self.after.checked_add(after)?;
        Some(())
    }
}

/// Adds up the book. The order's own instrument counts at `own_unit`, the value of its unit at the order's price or its mark, whichever is larger.
pub(super) fn totals(
    limits: &Limits,
    order: &OrderIntent,
    own: &Known,
    own_unit: Decimal,
    view: &dyn View,
) -> Result<Totals, Unknown> {
    let mut totals = Totals::default();
    for (instrument, known) in limits.iter() {
        let (position, working) = (view.position(instrument), view.working(instrument));
        let ours = instrument == order.instrument;
        if !ours && position.is_zero() && working == Working::default() {
            continue;
        }
        let unit = if ours { own_unit } else { marked_value(known, instrument, view)? };
        // At the mark, an end on the far side of zero weighs less against the others than at the order's price: the worse counts.
        let marked = if ours { marked_value(known, instrument, view).unwrap_or(unit) } else { unit };
        let terms = Terms { position, working, unit, marked, order: ours.then_some(order) };
        let same_sector = known.sector.map(|g| g.number) == own.sector.map(|g| g.number);
        let same_venue = known.venue.map(|g| g.number) == own.venue.map(|g| g.number);
        terms.add_to(&mut totals, same_sector, same_venue).ok_or(Unknown::TooLarge)?;
    }
    Ok(totals)
}

struct Terms<'a> {
    position: Decimal,
    working: Working,
    unit: Decimal,
    marked: Decimal,
    order: Option<&'a OrderIntent>,
}

impl Terms<'_> {
    fn add_to(&self, totals: &mut Totals, same_sector: bool, same_venue: bool) -> Option<()> {
        let before = Reach::of(self.position, &self.working)?;
        let after = match self.order {
            Some(order) => Reach::of(self.position, &with_order(&self.working, order)?)?,
            None => before,
        };
        let worst = |reach: Reach| reach.largest().checked_mul(self.unit);
        let (gross_before, gross_after) = (worst(before)?, worst(after)?);
        totals.gross.add(gross_before, gross_after)?;
        if same_sector {
            totals.sector.add(gross_before, gross_after)?;
        }
        if same_venue {
            totals.venue.add(gross_before, gross_after)?;
        }
        totals.net_high.add(self.high(before)?, self.high(after)?)?;
        totals.net_low.add(self.low(before)?, self.low(after)?)?;
        match self.order {
            Some(_) => totals.own.add(gross_before, gross_after),
            None => {
                let held = self.position.abs().checked_mul(self.unit)?;
                totals.others = totals.others.checked_add(held)?;
                Some(())
            }
        }
    }

    fn high(&self, reach: Reach) -> Option<Decimal> {
        reach.high.checked_mul(if reach.high > Decimal::ZERO { self.unit } else { self.marked })
    }

    fn low(&self, reach: Reach) -> Option<Decimal> {
        reach.low.checked_mul(if reach.low < Decimal::ZERO { self.unit } else { self.marked })
    }
}
