//! What trading costs: a part of the value by maker or taker, an amount for each unit, a least amount for each order, tiers by volume.
//!
//! A fee is rounded to 8 decimals, halves away from zero: the precision in which venues book fees of coins; fees in dollars of
//! orders of a few thousand units have fewer anyway.

use std::collections::VecDeque;

use rust_decimal::RoundingStrategy;
use serde::{Deserialize, Serialize};

use crate::instrument::{Fees, Instrument};
use crate::money::Decimal;

/// Decimals that a fee is rounded to.
pub const FEE_SCALE: u32 = 8;

/// The largest rebate that is taken for one, a part of the value: a hundredth.
const REBATE_MAX: Decimal = Decimal::from_parts(1, 0, 0, false, 2);
/// The same for each unit, in the quote currency: a tenth. Those of exchanges are some tenths of a cent.
const UNIT_REBATE_MAX: Decimal = Decimal::from_parts(1, 0, 0, false, 1);

const DAY_NS: i64 = 86_400_000_000_000;
const DAYS: i64 = 30;

/// The fee of an order of `quantity` units that is filled at once at `price`, by the instrument's own fees, or the account's where it has none;
/// in the instrument's quote currency. `volume` as in [`Fees::fee`].
pub fn fee(
    account: &Fees,
    instrument: &Instrument,
    price: Decimal,
    quantity: Decimal,
    maker: bool,
    volume: Decimal,
) -> Option<Decimal> {
    let notional = price.checked_mul(quantity)?.checked_mul(instrument.multiplier.0)?;
    Fees::of(instrument, account).checked_fee(notional, quantity, maker, volume)
}

/// What the fills of one order cost, of which some are to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFees {
    /// By rate and unit, before the least amount.
    earned: Decimal,
    /// Charged so far.
    charged: Decimal,
}

impl OrderFees {
    /// The fee of the next fill: what all fills with it cost as one order, less what was charged before. So the first fill pays the least amount,
    /// and the later ones nothing until together they are worth more. `None`: beyond what a [`Decimal`] holds; nothing changes then.
    pub fn next(
        &mut self,
        fees: &Fees,
        notional: Decimal,
        quantity: Decimal,
        maker: bool,
        volume: Decimal,
    ) -> Option<Decimal> {
        let earned = self.earned.checked_add(fees.part(notional, quantity, maker, volume)?)?;
        let total = fees.at_least(earned);
        let fee = total.checked_sub(self.charged)?;
        *self = Self { earned, charged: total };
        Some(fee)
    }
}

impl Fees {
    /// The fees that count for `instrument` in an account that has `account`'s.
    pub fn of<'a>(instrument: &'a Instrument, account: &'a Fees) -> &'a Fees {
        instrument.fees.as_ref().unwrap_or(account)
    }

    /// What an order of `quantity` units worth `notional` costs that is filled at once (negative: a rebate), with `volume` traded in the last 30
    /// days.
    ///
    /// rate x value + per_unit x units, rounded to 8 decimals, halves away from zero, but not below `minimum` where there is one.
    /// Where that is beyond what a [`Decimal`] holds: the largest one, which no account can pay.
    pub fn fee(&self, notional: Decimal, quantity: Decimal, maker: bool, volume: Decimal) -> Decimal {
        self.checked_fee(notional, quantity, maker, volume).unwrap_or(Decimal::MAX)
    }

    /// [`Fees::fee`], `None` where it is beyond what a [`Decimal`] holds.
    pub fn checked_fee(
        &self,
        notional: Decimal,
        quantity: Decimal,
        maker: bool,
        volume: Decimal,
    ) -> Option<Decimal> {
        Some(self.at_least(self.part(notional, quantity, maker, volume)?))
    }

    /// By rate and unit.
    fn part(&self, notional: Decimal, quantity: Decimal, maker: bool, volume: Decimal) -> Option<Decimal> {
        let value = self.rate(maker, volume).checked_mul(notional.abs())?;
        let fee = value.checked_add(self.per_unit.0.checked_mul(quantity.abs())?)?;
        Some(fee.round_dp_with_strategy(FEE_SCALE, RoundingStrategy::MidpointAwayFromZero))
    }

    fn at_least(&self, fee: Decimal) -> Decimal {
        let least = self.minimum.0.round_dp_with_strategy(FEE_SCALE, RoundingStrategy::MidpointAwayFromZero);
        if least > Decimal::ZERO { fee.max(least) } else { fee }
    }

    /// The part of the value that is paid: that of the tier with the highest `from` that `volume` has reached, else the base rate.
    pub fn rate(&self, maker: bool, volume: Decimal) -> Decimal {
        let reached = self.tiers.iter().filter(|tier| tier.from.0 <= volume).max_by_key(|tier| tier.from);
        match (reached, maker) {
            (Some(tier), true) => tier.maker.0,
            (Some(tier), false) => tier.taker.0,
            (None, true) => self.maker.0,
            (None, false) => self.taker.0,
        }
    }

    /// What is wrong with these, as `(path, reason)` below `at`.
    pub fn problems(&self, at: &str) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut rate = |path: String, rate: Decimal| {
            if rate >= Decimal::ONE {
                problems.push((
                    path,
                    format!("{rate} of the value is no fee: rates are fractions, 0.001 is 10 basis points"),
                ));
            } else if rate < -REBATE_MAX {
                problems.push((
                    path,
                    format!("{rate} of the value is no rebate: rates are fractions, -0.0001 is a basis point that is received, and {REBATE_MAX} is the most"),
                ));
            }
        };
        rate(format!("{at}.maker"), self.maker.0);
        rate(format!("{at}.taker"), self.taker.0);
        for (n, tier) in self.tiers.iter().enumerate() {
            rate(format!("{at}.tiers[{n}].maker"), tier.maker.0);
            rate(format!("{at}.tiers[{n}].taker"), tier.taker.0);
        }
        if self.per_unit.0 < -UNIT_REBATE_MAX {
            problems.push((
                format!("{at}.per_unit"),
                format!("{} for each unit is no rebate: {UNIT_REBATE_MAX} is the most", self.per_unit.0),
            ));
        }
        if self.minimum.0 < Decimal::ZERO {
            problems.push((format!("{at}.minimum"), format!("{} is below zero", self.minimum.0)));
        }
        for n in 1..self.tiers.len() {
            if self.tiers[n].from <= self.tiers[n - 1].from {
                let reason = "tiers go from small to large volumes, each `from` above the one before".into();
                problems.push((format!("{at}.tiers[{n}].from"), reason));
            }
        }
        problems
    }
}

/// Value traded in the last 30 days: today (UTC) so far, and the 29 days before it.
///
/// State: 30 sums at most. Times may go back; a fill of a day that is over counts for that day while it is among the 30.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// (day, value), days rising.
    days: VecDeque<(i64, Decimal)>,
}

impl Volume {
    /// Adds `value` traded at `ts` (UTC nanoseconds). What is beyond a [`Decimal`] stays at its largest.
    pub fn add(&mut self, ts: i64, value: Decimal) {
        let day = ts.div_euclid(DAY_NS);
        let place = self.days.partition_point(|&(other, _)| other < day);
        match self.days.get_mut(place) {
            Some((other, sum)) if *other == day => *sum = sum.saturating_add(value),
            _ => self.days.insert(place, (day, value)),
        }
        let newest = self.days.back().map_or(day, |&(day, _)| day);
        while self.days.front().is_some_and(|&(day, _)| day <= newest - DAYS) {
            self.days.pop_front();
        }
    }

    /// The sum as of `ts`.
    pub fn total(&self, ts: i64) -> Decimal {
        let today = ts.div_euclid(DAY_NS);
        let counts = |&&(day, _): &&(i64, Decimal)| day > today - DAYS && day <= today;
        self.days.iter().filter(counts).fold(Decimal::ZERO, |sum, &(_, value)| sum.saturating_add(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::Tier;
    use crate::money::Exact;

    fn d(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    fn exact(text: &str) -> Exact {
        Exact(d(text))
    }

    #[test]
    fn a_taker_pays_a_part_of_the_value_rounded_half_up_to_eight_decimals() {
        let fees = Fees { maker: exact("-0.0001"), taker: exact("0.0005"), ..Fees::default() };
        assert_eq!(fees.fee(d("1000"), d("2"), false, Decimal::ZERO), d("0.5"));
        assert_eq!(fees.fee(d("1000"), d("2"), true, Decimal::ZERO), d("-0.1"));
        assert_eq!(fees.fee(d("0.00003"), d("1"), false, Decimal::ZERO), d("0.00000002"));
        assert_eq!(fees.fee(d("0.00015"), d("1"), true, Decimal::ZERO), d("-0.00000002"));
        assert_eq!(fees.fee(Decimal::MAX, d("1"), false, Decimal::ZERO), Decimal::MAX * d("0.0005"));
    }

    /// The fixed schedule of US stocks of a well-known broker: 0.005 a share, at least 1.00 an order.
    #[test]
    fn an_amount_for_each_share_and_a_least_amount() {
        let fees = Fees { per_unit: exact("0.005"), minimum: exact("1"), ..Fees::default() };
        assert_eq!(fees.fee(d("25000"), d("1000"), false, Decimal::ZERO), d("5"));
        assert_eq!(fees.fee(d("2500"), d("100"), false, Decimal::ZERO), d("1"));
    }

    /// The fixed schedule of US stocks of a well-known broker: at least 1.00 an order, however many fills it has.
    #[test]
    fn the_least_amount_is_of_an_order_not_of_its_fills() {
        let fees = Fees { per_unit: exact("0.005"), minimum: exact("1"), ..Fees::default() };
        let mut order = OrderFees::default();
        let charged = ["100", "50", "60", "90"]
            .map(|units| order.next(&fees, d("25") * d(units), d(units), false, Decimal::ZERO).unwrap());
        // 0.5, 0.75, 1.05 and 1.5 in all, at least 1.
        assert_eq!(charged, [d("1"), d("0"), d("0.05"), d("0.45")]);
        let dear = Fees { per_unit: exact("5"), ..Fees::default() };
        let before = order;
        assert_eq!(order.next(&dear, Decimal::MAX, Decimal::MAX, false, Decimal::ZERO), None);
        assert_eq!(order, before);
    }

    #[test]
    fn rebates_have_bounds() {
        let problems = |maker: &str, taker: &str, per_unit: &str| {
            let fees = Fees {
                maker: exact(maker),
                taker: exact(taker),
                per_unit: exact(per_unit),
                ..Fees::default()
            };
            fees.problems("fees").into_iter().map(|(path, _)| path).collect::<Vec<_>>()
        };
        assert_eq!(problems("-0.00025", "-0.01", "-0.003"), [""; 0]);
        assert_eq!(problems("0", "-0.9", "-5"), ["fees.taker", "fees.per_unit"]);
    }

    #[test]
    fn the_last_tier_reached_counts() {
        let tier = |from: &str, maker: &str, taker: &str| Tier {
            from: exact(from),
            maker: exact(maker),
            taker: exact(taker),
        };
        let fees = Fees {
            maker: exact("0.001"),
            taker: exact("0.002"),
            tiers: vec![tier("1000", "0.0008", "0.0015"), tier("5000", "0", "0.001")],
            ..Fees::default()
        };
        assert_eq!(fees.fee(d("100"), d("1"), false, d("999.99")), d("0.2"));
        assert_eq!(fees.fee(d("100"), d("1"), false, d("1000")), d("0.15"));
        assert_eq!(fees.fee(d("100"), d("1"), true, d("9000")), d("0"));
        assert!(fees.problems("fees").is_empty());
        let turned = Fees { tiers: fees.tiers.iter().rev().cloned().collect(), ..fees };
        assert_eq!(turned.problems("fees")[0].0, "fees.tiers[1].from");
        assert_eq!(turned.rate(false, d("9000")), d("0.001"));
    }

    #[test]
    fn volume_forgets_days_older_than_thirty() {
        let mut volume = Volume::default();
        for day in 0..60 {
            volume.add(day * DAY_NS + 5, d("10"));
            assert_eq!(volume.total(day * DAY_NS + 6), Decimal::from(10 * (day + 1).min(30)));
        }
        volume.add(50 * DAY_NS, d("1"));
        volume.add(3 * DAY_NS, d("1"));
        assert_eq!(volume.total(59 * DAY_NS), d("301"));
        assert_eq!(volume.total(88 * DAY_NS), d("10"));
        assert_eq!(volume.total(89 * DAY_NS), d("0"));
    }
}
