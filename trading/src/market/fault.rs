//! Ticks that cannot be: what is wrong with one, and what of it can still be used.

use super::Market;

/// The smallest price: money leaves with 18 decimals.
pub const PRICE_MIN: f64 = 1e-18;
/// The largest price: the value of a thousand million units of it is still exact.
pub const PRICE_MAX: f64 = 1e15;

/// Whether a number is a price that can be traded at.
#[inline]
pub fn is_price(price: f64) -> bool {
    (PRICE_MIN..=PRICE_MAX).contains(&price)
}

/// What is wrong with a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// A price that is none: zero, negative, not a number, or out of bounds.
    Price(f64),
    /// A size that is none: zero where something was traded or is offered, negative, or infinite.
    Size(f64),
    /// A bid above the ask.
    Crossed(f64, f64),
    /// A bar whose high is below its low.
    Bar(f64, f64),
}

impl Fault {
    /// Its word in alerts.
    pub fn code(self) -> &'static str {
        match self {
            Self::Price(_) => "bad_price",
            Self::Size(_) => "bad_size",
            Self::Crossed(..) => "crossed_quote",
            Self::Bar(..) => "bad_bar",
        }
    }

    /// A bit for each kind.
    pub fn bit(self) -> u8 {
        match self {
            Self::Price(_) => 1,
            Self::Size(_) => 2,
            Self::Crossed(..) => 4,
            Self::Bar(..) => 8,
        }
    }

    /// What is told of it.
    pub fn detail(self, symbol: &str) -> String {
        let once = "this is told once";
        match self {
            Self::Price(price) if price > PRICE_MAX || (price > 0.0 && price < PRICE_MIN) => format!(
                "a price of {symbol} is {price:e}, and prices are from {PRICE_MIN:e} to {PRICE_MAX:e}: it is passed over, {once}"
            ),
            Self::Price(price) => format!("a price of {symbol} is {price}: it is passed over, {once}"),
            Self::Size(size) => {
                let size =
                    if size == f64::INFINITY { "no number, or infinite".into() } else { size.to_string() };
                format!("a size of {symbol} is {size}: nothing is filled by it, {once}")
            }
            Self::Crossed(bid, ask) => format!(
                "the bid of {symbol} is {bid}, above the ask of {ask}: nothing is filled or valued by such quotes, {once}"
            ),
            Self::Bar(high, low) => format!(
                "a bar of {symbol} has a high of {high}, below its low of {low}: such bars are passed over, {once}"
            ),
        }
    }
}

/// Whether a size is one, or not told.
#[inline]
fn is_size(size: f64) -> bool {
    (size > 0.0 && size < f64::INFINITY) || size.is_nan()
}

/// A size that nothing is filled by, where it is none.
fn size_of(size: f64) -> f64 {
    if is_size(size) { size } else { 0.0 }
}

impl Market {
    /// The first thing that is wrong with it.
    #[inline]
    pub fn fault(&self) -> Option<Fault> {
        match *self {
            Self::Trade { price, .. } | Self::Mark { price } | Self::Level { price, .. }
                if !is_price(price) =>
            {
                Some(Fault::Price(price))
            }
            Self::Trade { size, .. } => (!is_size(size)).then_some(Fault::Size(size)),
            Self::Level { size, .. } => (!(0.0..f64::INFINITY).contains(&size)).then_some(Fault::Size(size)),
            Self::Quote { bid, bid_size, ask, ask_size } => {
                if is_price(bid) && is_price(ask) && bid <= ask && is_size(bid_size) && is_size(ask_size) {
                    return None;
                }
                let sides = [(bid, bid_size), (ask, ask_size)].into_iter().filter(|side| !side.0.is_nan());
                let price = sides.clone().map(|side| side.0).find(|price| !is_price(*price));
                let size = sides.map(|side| side.1).find(|size| !is_size(*size));
                let crossed = (bid > ask).then_some(Fault::Crossed(bid, ask));
                price.map(Fault::Price).or(crossed).or(size.map(Fault::Size))
            }
            Self::Bar { high, low, close, volume, .. } => {
                if let Some(bad) = [close, low, high].into_iter().find(|price| !is_price(*price)) {
                    Some(Fault::Price(bad))
                } else if low > high {
                    Some(Fault::Bar(high, low))
                } else {
                    (!is_size(volume)).then_some(Fault::Size(volume))
                }
            }
            Self::Mark { .. }
            | Self::Resting { .. }
            | Self::BookReset
            | Self::Funding { .. }
            | Self::Halt(_) => None,
        }
    }

    /// What of it can be used: a size that is none fills nothing, a side without a price is not there, nor are both of a crossed quote.
    /// A level that is none leaves a book that is not known. `None`: nothing of it.
    pub fn sound(self) -> Option<Self> {
        let side = |price: f64, size: f64| {
            if is_price(price) { (price, size_of(size)) } else { (f64::NAN, f64::NAN) }
        };
        match (self.fault(), self) {
            (
                Some(Fault::Price(_) | Fault::Bar(..)),
                Self::Trade { .. } | Self::Mark { .. } | Self::Bar { .. },
            )
            | (Some(Fault::Price(_)), Self::Level { .. }) => None,
            (Some(_), Self::Level { .. }) => Some(Self::BookReset),
            (Some(_), Self::Trade { price, size }) => Some(Self::Trade { price, size: size_of(size) }),
            (Some(_), Self::Bar { open, high, low, close, volume }) => {
                Some(Self::Bar { open, high, low, close, volume: size_of(volume) })
            }
            (Some(_), Self::Quote { bid, bid_size, ask, ask_size }) => {
                let ((bid, bid_size), (ask, ask_size)) = (side(bid, bid_size), side(ask, ask_size));
                Some(if bid > ask {
                    let none = f64::NAN;
                    Self::Quote { bid: none, bid_size: none, ask: none, ask_size: none }
                } else {
                    Self::Quote { bid, bid_size, ask, ask_size }
                })
            }
            (_, same) => Some(same),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f64 = f64::NAN;

    fn quote(bid: f64, bid_size: f64, ask: f64, ask_size: f64) -> Market {
        Market::Quote { bid, bid_size, ask, ask_size }
    }

    fn check(market: Market, code: &str, left: Option<Market>) {
        assert_eq!(market.fault().map_or("", Fault::code), code, "{market:?}");
        assert_eq!(format!("{:?}", market.sound()), format!("{left:?}"), "{market:?}");
    }

    #[test]
    fn what_cannot_be_is_named_and_what_is_left_of_it_can_be_used() {
        let trade = |price: f64, size: f64| Market::Trade { price, size };
        for good in [trade(1.0, 2.0), trade(1.0, NAN), trade(PRICE_MIN, 1.0), quote(1.0, NAN, 1.0, 3.0)] {
            check(good, "", Some(good));
        }
        for price in [0.0, -1.0, NAN, f64::INFINITY, 1e25, 1e-30] {
            check(trade(price, 1.0), "bad_price", None);
        }
        for size in [0.0, -5.0, f64::INFINITY, f64::NEG_INFINITY] {
            check(trade(1.0, size), "bad_size", Some(trade(1.0, 0.0)));
        }
        // A side without a price is no fault; one with an impossible one is.
        let only_ask = quote(NAN, NAN, 2.0, 5.0);
        check(only_ask, "", Some(only_ask));
        check(quote(-1.0, 4.0, 2.0, 5.0), "bad_price", Some(only_ask));
        check(quote(100.0, 1.0, 90.0, 1.0), "crossed_quote", Some(quote(NAN, NAN, NAN, NAN)));
        check(quote(1.0, -5.0, 2.0, 5.0), "bad_size", Some(quote(1.0, 0.0, 2.0, 5.0)));
        let bar =
            |high: f64, low: f64, volume: f64| Market::Bar { open: 100.0, high, low, close: 100.0, volume };
        check(bar(90.0, 110.0, 5.0), "bad_bar", None);
        check(bar(110.0, 0.0, 5.0), "bad_price", None);
        check(bar(110.0, 90.0, 0.0), "bad_size", Some(bar(110.0, 90.0, 0.0)));
        check(bar(110.0, 90.0, NAN), "", Some(bar(110.0, 90.0, NAN)));
        let level = |price: f64, size: f64| Market::Level { bid: true, price, size };
        check(level(1.0, 0.0), "", Some(level(1.0, 0.0)));
        check(level(1.0, NAN), "bad_size", Some(Market::BookReset));
        check(level(NAN, 1.0), "bad_price", None);
    }
}
