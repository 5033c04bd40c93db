//! Round trips: what was bought and sold again, first in, first out.
//!
//! Each part of a fill that makes a position smaller is paired with the oldest part that is still open. Parts of one
//! opening and one closing order are one trade: quantities add up, prices are averages by quantity. Fees of a fill go to
//! its parts by quantity. Prices are in the currency of the instrument, profit and fees in the account's: profit at the rate
//! of the fill that closed, when the account realized it. Exact but for the averages.

use std::collections::{BTreeMap, VecDeque};

use tidemill_trading::order::Side;
use tidemill_trading::{Decimal, money};

/// An execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// When, UTC nanoseconds.
    pub ts: i64,
    /// Of what.
    pub symbol: String,
    /// Whose.
    pub order: String,
    /// Bought or sold.
    pub side: Side,
    /// Price of one unit.
    pub price: Decimal,
    /// Units, above zero.
    pub quantity: Decimal,
    /// What it cost, in the account's currency.
    pub fee: Decimal,
    /// What one unit of the instrument's currency was worth in the account's.
    pub rate: Decimal,
}

/// A round trip.
#[derive(Clone, Debug, PartialEq)]
pub struct Trade {
    /// Of what.
    pub symbol: String,
    /// Whether it was bought first.
    pub long: bool,
    /// First fill that opened it.
    pub opened_at: i64,
    /// Last fill that closed it.
    pub closed_at: i64,
    /// Units.
    pub quantity: Decimal,
    /// Average price at which it was opened.
    pub entry: Decimal,
    /// Average price at which it was closed.
    pub exit: Decimal,
    /// Gain before fees, with cash in lieu of fractions of units, in the account's currency.
    pub gross: Decimal,
    /// Fees of both sides, in the account's currency.
    pub fees: Decimal,
    /// The order that opened it.
    pub entry_order: String,
    /// The order that closed it.
    pub exit_order: String,
}

impl Trade {
    /// Gain after fees.
    pub fn net(&self) -> Decimal {
        self.gross.saturating_sub(self.fees)
    }
}

#[derive(Clone, Debug)]
struct Lot {
    ts: i64,
    order: String,
    side: Side,
    price: Decimal,
    quantity: Decimal,
    /// What of the fill's fee is left for this lot.
    fee: Decimal,
    /// Cash that was paid for a fraction of it, in the account's currency.
    in_lieu: Decimal,
}

/// Pairs fills in the order in which they come.
#[derive(Clone, Debug, Default)]
pub struct Pairing {
    open: BTreeMap<String, VecDeque<Lot>>,
    trades: Vec<Trade>,
}

impl Pairing {
    /// Takes a fill; `multiplier` is the value of one unit at a price of one. Numbers too large to be
    /// multiplied leave the fill out.
    pub fn fill(&mut self, fill: &Execution, multiplier: Decimal) {
        if fill.quantity <= Decimal::ZERO {
            return;
        }
        let lots = self.open.entry(fill.symbol.clone()).or_default();
        let mut left = fill.quantity;
        let mut fee_left = fill.fee;
        while left > Decimal::ZERO {
            let Some(lot) = lots.front_mut().filter(|lot| lot.side != fill.side) else { break };
            let part = left.min(lot.quantity);
            let share = |fee: Decimal, whole: Decimal| match part == whole {
                true => fee,
                false => fee.checked_mul(part).and_then(|f| f.checked_div(whole)).unwrap_or_default(),
            };
            let (opened, closed) = (share(lot.fee, lot.quantity), share(fee_left, left));
            let in_lieu = share(lot.in_lieu, lot.quantity);
            let gained = (fill.price - lot.price) * lot.side.sign();
            let gross = gained.checked_mul(part).and_then(|g| g.checked_mul(multiplier));
            let gross =
                gross.and_then(|g| g.checked_mul(fill.rate)).unwrap_or_default().saturating_add(in_lieu);
            // What a split left of a price may have no end.
            let gross = gross.round_dp(money::WIRE_SCALE).normalize();
            let trade = Trade {
                symbol: fill.symbol.clone(),
                long: lot.side == Side::Buy,
                opened_at: lot.ts,
                closed_at: fill.ts,
                quantity: part,
                entry: lot.price,
                exit: fill.price,
                gross,
                fees: opened.saturating_add(closed),
                entry_order: lot.order.clone(),
                exit_order: fill.order.clone(),
            };
            lot.fee -= opened;
            lot.in_lieu -= in_lieu;
            lot.quantity -= part;
            if lot.quantity <= Decimal::ZERO {
                lots.pop_front();
            }
            fee_left -= closed;
            left -= part;
            add(&mut self.trades, trade);
        }
        if left > Decimal::ZERO {
            lots.push_back(Lot {
                ts: fill.ts,
                order: fill.order.clone(),
                side: fill.side,
                price: fill.price,
                quantity: left,
                fee: fee_left,
                in_lieu: Decimal::ZERO,
            });
        }
    }

    /// Cash was paid for fractions of units that a split left (in the account's currency): it belongs to the units that
    /// remain, whose cost is that of the fractions too.
    pub fn in_lieu(&mut self, symbol: &str, amount: Decimal) {
        let lots = self.open.get_mut(symbol).filter(|lots| !lots.is_empty());
        let Some((last, others)) = lots.map(|lots| lots.make_contiguous()).and_then(<[Lot]>::split_last_mut)
        else {
            return;
        };
        let held = others.iter().fold(last.quantity, |sum, lot| sum.saturating_add(lot.quantity));
        let mut left = amount;
        for lot in others {
            let part = amount.checked_mul(lot.quantity).and_then(|a| a.checked_div(held)).unwrap_or_default();
            lot.in_lieu += part;
            left -= part;
        }
        last.in_lieu += left;
    }

    /// A position as the account has it, after its fills. Where the lots add up to something else, units were split or
    /// merged: lots and their prices follow. Where nothing is left of them (all was fractions), cash in lieu closed them.
    pub fn position(&mut self, ts: i64, symbol: &str, quantity: Decimal) {
        let Some(lots) = self.open.get_mut(symbol).filter(|lots| !lots.is_empty()) else { return };
        let paid_out = quantity.is_zero() && lots.iter().any(|lot| !lot.in_lieu.is_zero());
        if paid_out {
            for lot in lots.drain(..) {
                let trade = Trade {
                    symbol: symbol.to_owned(),
                    long: lot.side == Side::Buy,
                    opened_at: lot.ts,
                    closed_at: ts,
                    quantity: lot.quantity,
                    entry: lot.price,
                    exit: lot.price,
                    gross: lot.in_lieu,
                    fees: lot.fee,
                    entry_order: lot.order,
                    exit_order: "cash in lieu".into(),
                };
                add(&mut self.trades, trade);
            }
            return;
        }
        let held: Decimal = lots.iter().map(|lot| lot.quantity * lot.side.sign()).sum();
        if held == quantity
            || held.is_zero()
            || quantity.is_zero()
            || (held > Decimal::ZERO) != (quantity > Decimal::ZERO)
        {
            return;
        }
        let Some(ratio) = quantity.checked_div(held) else { return };
        for lot in lots {
            if let (Some(q), Some(p)) = (lot.quantity.checked_mul(ratio), lot.price.checked_div(ratio)) {
                (lot.quantity, lot.price) = (q, p);
            }
        }
    }

    /// The round trips so far, in the order in which they were closed.
    pub fn trades(self) -> Vec<Trade> {
        self.trades
    }
}

/// Adds a part to the trade it belongs to, else as a new one.
fn add(trades: &mut Vec<Trade>, part: Trade) {
    // Parts of one pair of orders come soon after each other.
    let same = |t: &&mut Trade| {
        t.symbol == part.symbol
            && t.entry_order == part.entry_order
            && t.exit_order == part.exit_order
            && t.long == part.long
    };
    let Some(trade) = trades.iter_mut().rev().take(64).find(same) else { return trades.push(part) };
    let quantity = trade.quantity + part.quantity;
    let average = |a: Decimal, b: Decimal| {
        let sum = a.checked_mul(trade.quantity)?.checked_add(b.checked_mul(part.quantity)?)?;
        sum.checked_div(quantity)
    };
    let (entry, exit) = (average(trade.entry, part.entry), average(trade.exit, part.exit));
    trade.entry = entry.unwrap_or(trade.entry);
    trade.exit = exit.unwrap_or(trade.exit);
    trade.opened_at = trade.opened_at.min(part.opened_at);
    trade.closed_at = trade.closed_at.max(part.closed_at);
    trade.quantity = quantity;
    trade.gross += part.gross;
    trade.fees += part.fees;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn d(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    fn fill(ts: i64, order: &str, side: Side, quantity: &str, price: &str, fee: &str) -> Execution {
        Execution {
            ts,
            symbol: "S".into(),
            order: order.into(),
            side,
            price: d(price),
            quantity: d(quantity),
            fee: d(fee),
            rate: Decimal::ONE,
        }
    }

    #[test]
    fn first_in_first_out_with_fees_by_quantity() {
        let mut pairing = Pairing::default();
        for f in [
            fill(1, "a", Side::Buy, "10", "100", "1"),
            fill(2, "b", Side::Buy, "10", "110", "1"),
            fill(3, "c", Side::Sell, "15", "120", "3"),
        ] {
            pairing.fill(&f, Decimal::ONE);
        }
        let trades = pairing.trades();
        // 10 x 20 and 5 x 10; of the fee of 3, ten fifteenths and five.
        let told: Vec<_> = trades.iter().map(|t| (t.quantity, t.gross, t.fees)).collect();
        assert_eq!(told, [(d("10"), d("200"), d("3")), (d("5"), d("50"), d("1.5"))]);
    }

    #[test]
    fn a_turn_closes_and_opens_and_parts_of_two_orders_are_one_trade() {
        let mut pairing = Pairing::default();
        for f in [
            fill(1, "a", Side::Sell, "4", "50", "0"),
            fill(2, "a", Side::Sell, "6", "52", "0"),
            fill(3, "b", Side::Buy, "12", "40", "0"),
            fill(4, "c", Side::Sell, "2", "41", "0"),
        ] {
            pairing.fill(&f, d("10"));
        }
        let trades = pairing.trades();
        assert_eq!(trades.len(), 2);
        assert_eq!((trades[0].long, trades[0].quantity, trades[0].entry), (false, d("10"), d("51.2")));
        assert_eq!((trades[0].gross, trades[0].opened_at, trades[0].closed_at), (d("1120"), 1, 3));
        assert_eq!((trades[1].long, trades[1].gross), (true, d("20")));
    }

    #[test]
    fn a_split_in_mid_position_moves_lots_and_prices() {
        let mut pairing = Pairing::default();
        pairing.fill(&fill(1, "a", Side::Buy, "10", "100", "0"), Decimal::ONE);
        pairing.position(1, "S", d("10"));
        pairing.position(2, "S", d("20"));
        pairing.fill(&fill(3, "b", Side::Sell, "20", "55", "0"), Decimal::ONE);
        let trades = pairing.trades();
        assert_eq!((trades.len(), trades[0].entry, trades[0].gross), (1, d("50"), d("100")));
    }

    #[test]
    fn cash_in_lieu_belongs_to_the_round_trip() {
        let mut pairing = Pairing::default();
        pairing.fill(&fill(1, "a", Side::Buy, "19", "100", "0"), Decimal::ONE);
        pairing.in_lieu("S", d("900"));
        pairing.position(2, "S", d("1"));
        pairing.fill(&fill(3, "b", Side::Sell, "1", "1000", "0"), Decimal::ONE);
        let trades = pairing.trades();
        assert_eq!((trades.len(), trades[0].gross), (1, d("0")));
    }

    #[test]
    fn gains_are_at_the_rate_of_the_fill_that_closed() {
        let mut pairing = Pairing::default();
        let at = |f: Execution, rate: &str| Execution { rate: d(rate), ..f };
        pairing.fill(&at(fill(1, "a", Side::Buy, "10", "100", "1"), "2"), Decimal::ONE);
        pairing.fill(&at(fill(2, "b", Side::Sell, "10", "110", "1"), "3"), Decimal::ONE);
        let trades = pairing.trades();
        assert_eq!((trades[0].gross, trades[0].fees, trades[0].net()), (d("300"), d("2"), d("298")));
    }

    proptest! {
        /// When a position is flat again, the gains of its round trips are what was paid and got.
        #[test]
        fn gains_are_the_cash_that_came(fills in proptest::collection::vec((any::<bool>(), 1i64..50, 1i64..500, 0i64..9), 1..60)) {
            let mut pairing = Pairing::default();
            let (mut held, mut cash, mut fees) = (0, Decimal::ZERO, Decimal::ZERO);
            let mut all: Vec<_> = fills;
            let rest: i64 = all.iter().map(|f| if f.0 { f.1 } else { -f.1 }).sum();
            if rest != 0 {
                all.push((rest < 0, rest.abs(), 77, 2));
            }
            for (i, (buy, quantity, price, fee)) in all.iter().enumerate() {
                let side = if *buy { Side::Buy } else { Side::Sell };
                let f = fill(i as i64, &i.to_string(), side, &quantity.to_string(), &price.to_string(), &fee.to_string());
                held += if *buy { *quantity } else { -quantity };
                cash -= side.sign() * f.price * f.quantity;
                fees += f.fee;
                pairing.fill(&f, Decimal::ONE);
            }
            prop_assert_eq!(held, 0);
            let trades = pairing.trades();
            let gross: Decimal = trades.iter().map(|t| t.gross).sum();
            prop_assert_eq!(gross, cash);
            let paid: Decimal = trades.iter().map(|t| t.fees).sum();
            prop_assert!((paid - fees).abs() < d("0.000000000001"), "{} {}", paid, fees);
        }
    }
}
