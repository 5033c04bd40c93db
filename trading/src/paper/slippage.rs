//! How much worse than shown a taking order is filled.

use crate::money::{self, Decimal};
use crate::order::Side;
use crate::paper::params::Slippage;

impl Slippage {
    /// The price at which `quantity` of `shown` units at `price` are had; `shown` is `None` where any quantity was there. Rounded to
    /// the tick, for the worse, and never below one tick.
    pub(crate) fn worsen(
        self,
        side: Side,
        price: Decimal,
        quantity: Decimal,
        shown: Option<Decimal>,
        tick: Decimal,
    ) -> Decimal {
        let by = match self {
            Self::None => return price,
            Self::Ticks(n) => tick.checked_mul(Decimal::from(n)),
            Self::Bps(Exact(bps)) => price.checked_mul(bps).map(|by| by / Decimal::from(10_000)),
            Self::Impact(coefficient) => {
                let part = shown.and_then(|shown| quantity.checked_div(shown)).unwrap_or(Decimal::ZERO);
                let fraction = coefficient * money::to_f64(part).min(1.0).sqrt();
                money::from_f64(fraction).and_then(|fraction| price.checked_mul(fraction))
            }
        };
        let Some(by) = by.filter(|by| !by.is_zero()) else { return price };
        let worse = match side {
            Side::Buy => price.checked_add(by).and_then(|price| to_tick(price, tick, true)),
            Side::Sell => price.checked_sub(by).and_then(|price| to_tick(price, tick, false)),
        };
        worse.unwrap_or(price).max(tick.min(price))
    }
}

use crate::money::Exact;

/// A price on the grid of ticks, at or above it (`up`), or at or below it. `None`: beyond what decimals hold.
pub(crate) fn to_tick(price: Decimal, tick: Decimal, up: bool) -> Option<Decimal> {
    let ticks = price.checked_div(tick)?;
    if up { ticks.ceil() } else { ticks.floor() }.checked_mul(tick)
}

/// A quantity cut to whole lots; zero where it is beyond what decimals hold.
pub(crate) fn to_lots(quantity: Decimal, lot: Decimal) -> Decimal {
    quantity
        .checked_div(lot)
        .and_then(|lots| lots.floor().checked_mul(lot))
        .unwrap_or(Decimal::ZERO)
        .max(Decimal::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    #[test]
    fn prices_get_worse_by_the_model_and_stay_on_the_grid() {
        let worsen = |model: Slippage, side, quantity: &str, shown: Option<&str>| {
            model.worsen(side, d("100.00"), d(quantity), shown.map(d), d("0.01"))
        };
        assert_eq!(worsen(Slippage::None, Side::Buy, "5", Some("10")), d("100"));
        assert_eq!(worsen(Slippage::Ticks(2), Side::Buy, "5", Some("10")), d("100.02"));
        assert_eq!(worsen(Slippage::Ticks(2), Side::Sell, "5", Some("10")), d("99.98"));
        // 1.25 bp of 100 is 0.0125: a buyer pays 100.02, a seller gets 99.98.
        assert_eq!(worsen(Slippage::Bps(Exact(d("1.25"))), Side::Buy, "5", Some("10")), d("100.02"));
        assert_eq!(worsen(Slippage::Bps(Exact(d("1.25"))), Side::Sell, "5", Some("10")), d("99.98"));
        // A quarter of what is shown, by 0.1 % x sqrt(1/4) = 0.05.
        assert_eq!(worsen(Slippage::Impact(0.001), Side::Buy, "25", Some("100")), d("100.05"));
        assert_eq!(worsen(Slippage::Impact(0.001), Side::Buy, "25", None), d("100"));
        assert_eq!(Slippage::Ticks(9).worsen(Side::Sell, d("0.05"), d("1"), None, d("0.01")), d("0.01"));
    }

    #[test]
    fn grids() {
        assert_eq!(to_tick(d("1.021"), d("0.01"), true), Some(d("1.03")));
        assert_eq!(to_tick(d("1.029"), d("0.01"), false), Some(d("1.02")));
        assert_eq!(to_lots(d("7.9"), d("2")), d("6"));
        assert_eq!(to_lots(Decimal::MAX, d("0.0001")), Decimal::ZERO);
    }
}
