//! What guards a position: the prices at which its loss is cut and its gain taken, and the pair of orders that do so.
//!
//! A guard belongs to a position, not to an order: when the position grows, shrinks or turns, so does its guard. The legs are one
//! cancels other: each is for the whole position and reduce-only, so when one is filled the other is cut to what is left, or taken back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::execution::orders::Purpose;
use crate::money::{self, Decimal, Exact};
use crate::order::{OrderType, Trail};

/// Stop-loss and take-profit, attached to each position.
///
/// ```yaml
/// protect: { stop_loss: { fraction: 0.02 }, take_profit: { atr: 3 } }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectParams {
    /// How far below its average price (above, when short) a position is closed. A signal's `stop_loss` column says a price instead.
    #[serde(default)]
    pub stop_loss: Option<Distance>,
    /// How far above it (below, when short) it is closed. A signal's `take_profit` column says a price instead.
    #[serde(default)]
    pub take_profit: Option<Distance>,
    /// How far behind the best price since the position was opened it is closed; in place of `stop_loss`.
    #[serde(default)]
    pub trailing: Option<Distance>,
    /// Where prices are watched: by orders that rest at the `venue` (a stop order and a limit order, reduce-only; exits stand beside them), or by this
    /// `machine`, which takes back what else works and sends a market order once a price is there (for venues that take no second order for what is
    /// held, such as brokers of shares).
    #[serde(default)]
    pub at: Watched,
    /// Whether the same wish may open the position again after its guard closed it. Default: not until the strategy wished for something
    /// else in between.
    #[serde(default)]
    pub reenter: bool,
}

impl Default for ProtectParams {
    fn default() -> Self {
        Self { stop_loss: None, take_profit: None, trailing: None, at: Watched::Venue, reenter: false }
    }
}

/// A distance from a price.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Distance {
    /// A fraction of the price (0.02: two percent).
    Fraction(Exact),
    /// In price.
    Amount(Exact),
    /// So many average true ranges (the signal's `atr` column).
    Atr(Exact),
}

/// Who watches the prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    /// Orders that rest at the venue.
    #[default]
    Venue,
    /// This machine.
    Machine,
}

impl ProtectParams {
    /// What is wrong with it: field and reason.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let all =
            [("stop_loss", self.stop_loss), ("take_profit", self.take_profit), ("trailing", self.trailing)];
        for (name, distance) in all {
            let Some(distance) = distance else { continue };
            let (unit, value) = match distance {
                Distance::Fraction(x) => ("fraction", x.0),
                Distance::Amount(x) => ("amount", x.0),
                Distance::Atr(x) => ("atr", x.0),
            };
            if value <= Decimal::ZERO {
                problems.push((format!("{name}.{unit}"), "must be above zero".into()));
            }
            if unit == "fraction" && value >= Decimal::ONE && name != "take_profit" {
                problems.push((
                    format!("{name}.fraction"),
                    "must be below 1: a price does not fall further".into(),
                ));
            }
        }
        if self.stop_loss.is_some() && self.trailing.is_some() {
            problems.push(("trailing".into(), "takes the place of `stop_loss`: write one of them".into()));
        }
        problems
    }
}

/// What the signal that opened or grew a position said of its guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Price at which a loss is cut.
    pub stop_loss: Option<Decimal>,
    /// Price at which a gain is taken.
    pub take_profit: Option<Decimal>,
    /// Average true range.
    pub atr: Option<Decimal>,
}

impl Asked {
    /// Every unit became `ratio` units, so prices are smaller by it.
    pub fn split(&mut self, ratio: Decimal) {
        for price in [&mut self.stop_loss, &mut self.take_profit, &mut self.atr].into_iter().flatten() {
            *price = price.checked_div(ratio).unwrap_or(*price);
        }
    }
}

/// The guard of one position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Price at which its loss is cut.
    pub stop: Option<Decimal>,
    /// Price at which its gain is taken.
    pub take: Option<Decimal>,
    /// Distance of a stop that follows the best price.
    pub trail: Option<Trail>,
}

impl Guard {
    /// The guard of a position with this average price. Prices are put on the tick: a stop away from the market, a gain towards it.
    pub fn new(params: &ProtectParams, long: bool, average: Decimal, asked: &Asked, tick: Decimal) -> Self {
        let (down, up) =
            if long { (Decimal::NEGATIVE_ONE, Decimal::ONE) } else { (Decimal::ONE, Decimal::NEGATIVE_ONE) };
        let away = |distance: Option<Distance>, sign: Decimal| {
            let price = average.checked_add(sign * amount(distance?, average, asked.atr)?)?;
            on_tick(price, tick, sign > Decimal::ZERO).filter(|p| *p > Decimal::ZERO)
        };
        let stop =
            asked.stop_loss.and_then(|p| on_tick(p, tick, !long)).or_else(|| away(params.stop_loss, down));
        let take =
            asked.take_profit.and_then(|p| on_tick(p, tick, long)).or_else(|| away(params.take_profit, up));
        let trail = match (stop, params.trailing) {
            (None, Some(Distance::Fraction(f))) => Some(Trail::Fraction(f.0)),
            (None, Some(away)) => {
                let away = amount(away, average, asked.atr);
                away.map(|away| Trail::Amount(trail_on_tick(away, tick)))
            }
            _ => None,
        };
        Self { stop, take, trail }
    }

    /// The orders that a venue should hold for it.
    pub fn legs(&self) -> [Option<(Purpose, OrderType)>; 2] {
        let stop = self.stop.map(|stop| OrderType::Stop { stop });
        let stop = stop.or(self.trail.map(|trail| OrderType::TrailingStop { trail }));
        let take = self.take.map(|limit| OrderType::Limit { limit });
        [stop.map(|o| (Purpose::StopLoss, o)), take.map(|o| (Purpose::TakeProfit, o))]
    }

    /// Prices became smaller by `ratio`, and are put on the tick again.
    pub fn split(&mut self, ratio: Decimal, long: bool, tick: Decimal) {
        let less = |price: Option<Decimal>, up: bool| {
            let price = price?;
            let exact = price.checked_div(ratio).unwrap_or(price);
            on_tick(exact, tick, up).filter(|p| *p > Decimal::ZERO).or(Some(exact))
        };
        (self.stop, self.take) = (less(self.stop, !long), less(self.take, long));
        self.trail = self.trail.map(|trail| trail_after_split(trail, ratio, tick));
    }
}

/// A distance in price.
pub(super) fn amount(distance: Distance, average: Decimal, atr: Option<Decimal>) -> Option<Decimal> {
    match distance {
        Distance::Fraction(f) => average.checked_mul(f.0),
        Distance::Amount(a) => Some(a.0),
        Distance::Atr(n) => atr?.checked_mul(n.0),
    }
}

/// The multiple of `tick` at or below a price, or at or above it.
pub fn on_tick(price: Decimal, tick: Decimal, up: bool) -> Option<Decimal> {
    let below = money::floor_to(price, tick);
    if up && below != price { below.checked_add(tick) } else { Some(below) }
}

/// The distance of a trailing stop on the tick: no looser than asked, but for one tick, which is the least.
pub fn trail_on_tick(amount: Decimal, tick: Decimal) -> Decimal {
    money::floor_to(amount, tick).max(tick).normalize()
}

/// The distance of a trailing stop after every unit became `ratio` units.
pub fn trail_after_split(trail: Trail, ratio: Decimal, tick: Decimal) -> Trail {
    match trail {
        Trail::Amount(amount) => {
            Trail::Amount(trail_on_tick(amount.checked_div(ratio).unwrap_or(amount), tick))
        }
        Trail::Fraction(_) => trail,
    }
}

/// A guard that this machine watches: at which prices it acts. Between `low` and `high`, nothing happens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// At or below it, something is to be done.
    pub low: f64,
    /// At or above it, too.
    pub high: f64,
    long: bool,
    stop: f64,
    take: f64,
    /// Distance behind the best price, and whether it is a fraction.
    trail: Option<(f64, bool)>,
    best: f64,
}

/// Nothing is watched.
pub const ASLEEP: Watch = Watch {
    low: f64::NEG_INFINITY,
    high: f64::INFINITY,
    long: true,
    stop: f64::NAN,
    take: f64::NAN,
    trail: None,
    best: f64::NAN,
};

impl Watch {
    /// Watches a guard. `price` is where the market is, `before` what was watched for the same position so far.
    pub fn new(guard: &Guard, long: bool, price: f64, before: Option<&Self>) -> Self {
        let number = |p: Option<Decimal>| p.map_or(f64::NAN, money::to_f64);
        let trail = guard.trail.map(|t| match t {
            Trail::Amount(a) => (money::to_f64(a), false),
            Trail::Fraction(f) => (money::to_f64(f), true),
        });
        let best = before.filter(|b| b.long == long && b.best.is_finite()).map_or(price, |b| b.best);
        let mut watch =
            Self { long, stop: number(guard.stop), take: number(guard.take), trail, best, ..ASLEEP };
        watch.bounds();
        watch
    }

    fn bounds(&mut self) {
        let mut stop = self.stop;
        if let Some((distance, fraction)) = self.trail {
            let behind = if fraction { self.best * distance } else { distance };
            stop = if self.long { self.best - behind } else { self.best + behind };
        }
        // A trailing stop has to see each better price.
        let follow = if self.trail.is_none() {
            f64::NAN
        } else if self.best.is_nan() {
            // Any price is the best one so far.
            if self.long { f64::NEG_INFINITY } else { f64::INFINITY }
        } else if self.long {
            self.best.next_up()
        } else {
            self.best.next_down()
        };
        // A comparison with NaN picks the other side, so what is not watched stays infinite.
        if self.long {
            self.low = f64::NEG_INFINITY.max(stop);
            self.high = f64::INFINITY.min(self.take).min(follow);
        } else {
            self.low = f64::NEG_INFINITY.max(self.take).max(follow);
            self.high = f64::INFINITY.min(stop);
        }
        self.stop = if self.trail.is_some() { stop } else { self.stop };
    }

    /// Begins anew with the next price, where it follows the best one.
    pub fn forget(&mut self) {
        if self.trail.is_some() {
            (self.best, self.stop) = (f64::NAN, f64::NAN);
            self.bounds();
        }
    }

    /// Prices became smaller by `ratio`.
    pub fn split(mut self, ratio: f64) -> Self {
        for price in [&mut self.stop, &mut self.take, &mut self.best, &mut self.low, &mut self.high] {
            *price /= ratio;
        }
        if let Some((distance, false)) = &mut self.trail {
            *distance /= ratio;
        }
        self.bounds();
        self
    }

    /// Prices went from `low` to `high`: what is to be done. Where both happened, the loss: nobody knows which was first.
    pub fn seen(&mut self, low: f64, high: f64) -> Option<Purpose> {
        let (worst, best) = if self.long { (low, high) } else { (high, low) };
        let reached = |price: f64, level: f64, up: bool| if up { price >= level } else { price <= level };
        if reached(worst, self.stop, !self.long) {
            return Some(Purpose::StopLoss);
        }
        if reached(best, self.take, self.long) {
            return Some(Purpose::TakeProfit);
        }
        if self.trail.is_some() && (self.best.is_nan() || reached(best, self.best, self.long)) {
            self.best = best;
            self.bounds();
        }
        None
    }
}

#[cfg(test)]
mod tests;
