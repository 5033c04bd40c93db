//! What the market last showed of an instrument: for `stale` and `collar`.

use serde::{Deserialize, Serialize};

use super::params::Collar;
use super::{OrderIntent, Refusal};
use crate::market::{Market, Tick};
use crate::money::{Decimal, from_f64};
use crate::order::{OrderType, Side};
use crate::span::Span;

/// The last prices; NaN where there is none.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// When; `i64::MIN`: never.
    ts: i64,
    bid: f64,
    ask: f64,
    last: f64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { ts: i64::MIN, bid: f64::NAN, ask: f64::NAN, last: f64::NAN }
    }
}

impl Seen {
    /// A price of zero is no price, and no sign of life.
    #[inline]
    pub(super) fn observe(&mut self, tick: &Tick) {
        match tick.market {
            Market::Trade { price, .. } | Market::Bar { close: price, .. } if price > 0.0 => {
                self.last = price
            }
            Market::Quote { bid, ask, .. } if bid > 0.0 || ask > 0.0 => (self.bid, self.ask) = (bid, ask),
            Market::Level { price, .. } | Market::Resting { price, .. } | Market::Mark { price }
                if price > 0.0 => {}
            // What was shown is not there any more: no order is held against it.
            Market::BookReset => return (self.bid, self.ask) = (f64::NAN, f64::NAN),
            _ => return,
        }
        self.ts = tick.ts;
    }

    pub(super) fn split(&mut self, ratio: f64) {
        for price in [&mut self.bid, &mut self.ask, &mut self.last] {
            *price /= ratio;
        }
    }

    pub(super) fn check_stale(&self, now: i64, stale: Option<Span>, symbol: &str) -> Result<(), Refusal> {
        let Some(stale) = stale else { return Ok(()) };
        if self.ts == i64::MIN {
            return Err(Refusal::new("stale", format!("the market of {symbol} was not seen yet")));
        }
        let age = Span::from_ns(now.saturating_sub(self.ts));
        if age > stale {
            let detail = format!("the market of {symbol} was last seen {age} ago, the limit is {stale}");
            return Err(Refusal::new("stale", detail));
        }
        Ok(())
    }

    /// `valued` is the price by which positions are valued: what is left where neither quote nor trade was seen.
    pub(super) fn check_collar(
        &self,
        order: &OrderIntent,
        collar: Option<&Collar>,
        valued: f64,
        symbol: &str,
    ) -> Result<(), Refusal> {
        let Some(collar) = collar else { return Ok(()) };
        let other_side = match order.side {
            Side::Buy => self.ask,
            Side::Sell => self.bid,
        };
        let (price, reference) = match order.order_type {
            OrderType::Market => (order.price, first_price([self.last, (self.bid + self.ask) / 2.0, valued])),
            OrderType::Limit { limit } => (limit, first_price([other_side, self.last, valued])),
            OrderType::StopLimit { stop, limit } => (limit, Some(stop)),
            OrderType::Stop { .. } | OrderType::TrailingStop { .. } | OrderType::TakeProfit { .. } => {
                return Ok(());
            }
        };
        let Some(reference) = reference else {
            let detail = format!("no price of {symbol} was seen that the order's could be held against");
            return Err(Refusal::new("collar.bps", detail));
        };
        let beyond = (price - reference) * order.side.sign();
        let allowed = reference.checked_mul(collar.bps.0).map(|product| product / Decimal::from(10_000));
        if allowed.is_none_or(|allowed| beyond > allowed) {
            let (far, bps) = (bps(beyond, reference), collar.bps.0);
            let detail = format!(
                "price {price} of {symbol} is {far} bps beyond the market's {reference}, the limit is {bps} bps"
            );
            return Err(Refusal::new("collar.bps", detail));
        }
        Ok(())
    }
}

fn first_price(prices: [f64; 3]) -> Option<Decimal> {
    prices.into_iter().find(|price| *price > 0.0).and_then(from_f64)
}

fn bps(distance: Decimal, reference: Decimal) -> String {
    let ratio = distance.checked_mul(Decimal::from(10_000)).and_then(|d| d.checked_div(reference));
    ratio.map_or_else(|| "very many".into(), |ratio| ratio.round_dp(2).normalize().to_string())
}
