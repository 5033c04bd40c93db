//! Sums and products of money that say when a [`Decimal`] cannot hold them, instead of dropping digits.

use rust_decimal::RoundingStrategy;

use crate::money::Decimal;

/// Decimals that amounts are rounded to where a product has more of them: prices and quantities of eight decimals have exact products,
/// and sums of amounts up to 7.9e12 have room.
pub const AMOUNT_SCALE: u32 = 16;

/// Decimals of amounts that the ledger itself reckons by a rate: funding, interest, dividends.
pub const PAID_SCALE: u32 = 8;

/// Decimals of units after a split: a ratio such as a third has no end.
const UNIT_SCALE: u32 = 18;

const HALF_UP: RoundingStrategy = RoundingStrategy::MidpointAwayFromZero;

/// `a + b`; `None` where the sum has more digits than a decimal holds.
pub fn add(a: Decimal, b: Decimal) -> Option<Decimal> {
    let exact =
        |a: Decimal, b: Decimal| a.checked_add(b).filter(|sum| sum.scale() >= a.scale().max(b.scale()));
    if b.is_zero() {
        return Some(a);
    }
    if a.is_zero() {
        return Some(b);
    }
    exact(a, b).or_else(|| exact(a.normalize(), b.normalize()))
}

/// `a - b`, as [`add`].
pub fn sub(a: Decimal, b: Decimal) -> Option<Decimal> {
    add(a, -b)
}

/// `a x b x c` as an amount, rounded to [`AMOUNT_SCALE`], halves away from zero.
pub fn product(a: Decimal, b: Decimal, c: Decimal) -> Option<Decimal> {
    let ab = if c == Decimal::ONE { a } else { a.checked_mul(c)? };
    Some(ab.checked_mul(b)?.round_dp_with_strategy(AMOUNT_SCALE, HALF_UP).normalize())
}

/// `amount x part / whole`, rounded to [`AMOUNT_SCALE`], halves away from zero; `whole` is not zero.
pub fn share(amount: Decimal, part: Decimal, whole: Decimal) -> Option<Decimal> {
    let product = amount.checked_mul(part).and_then(|product| product.checked_div(whole));
    let share = product.or_else(|| amount.checked_div(whole)?.checked_mul(part))?;
    Some(share.round_dp_with_strategy(AMOUNT_SCALE, HALF_UP).normalize())
}

/// Rounded to [`PAID_SCALE`], halves away from zero.
pub fn paid(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(PAID_SCALE, HALF_UP).normalize()
}

/// `units x ratio`, rounded to 18 decimals: what a third of 99 needs to be 33.
pub fn units(quantity: Decimal, ratio: Decimal) -> Option<Decimal> {
    Some(quantity.checked_mul(ratio)?.round_dp_with_strategy(UNIT_SCALE, HALF_UP).normalize())
}

/// `cost / (units x multiplier)` with 12 decimals, and 18 where it is below a thousandth. Zero where that is not a number.
pub fn average(cost: Decimal, quantity: Decimal, multiplier: Decimal) -> Decimal {
    let average =
        quantity.checked_mul(multiplier).and_then(|units| cost.checked_div(units)).unwrap_or_default();
    let scale = if average.abs() >= Decimal::new(1, 3) { 12 } else { UNIT_SCALE };
    average.round_dp_with_strategy(scale, HALF_UP).normalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    #[test]
    fn a_sum_that_would_lose_digits_is_none() {
        assert_eq!(add(d("0.1"), d("0.02")), Some(d("0.12")));
        assert_eq!(add(d("8000000000000"), d("0.0000000000000001")), None);
        assert_eq!(add(d("8000000000000"), d("0.1000000000000000")), Some(d("8000000000000.1")));
        assert_eq!(add(d("8000000000000"), d("0.0000000000000000")), Some(d("8000000000000")));
        assert_eq!(add(Decimal::MAX, Decimal::ONE), None);
        assert_eq!(sub(d("1.5"), d("1.5")), Some(Decimal::ZERO));
        assert_eq!(sub(Decimal::MIN, Decimal::ONE), None);
    }

    #[test]
    fn shares_and_units_round_where_they_must() {
        assert_eq!(share(d("100"), d("1"), d("3")), Some(d("33.3333333333333333")));
        assert_eq!(share(d("30.30"), d("2"), d("3")), Some(d("20.20")));
        assert_eq!(units(d("99"), d("0.3333333333333333333333333333")), Some(d("33")));
        assert_eq!(product(d("0.00000001"), d("0.00000001"), Decimal::ONE), Some(d("0.0000000000000001")));
        assert_eq!(product(Decimal::MAX, d("2"), Decimal::ONE), None);
        assert_eq!(average(d("100"), d("3"), Decimal::ONE), d("33.333333333333"));
        assert_eq!(average(d("100"), Decimal::ZERO, Decimal::ONE), Decimal::ZERO);
    }
}
