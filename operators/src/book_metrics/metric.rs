//! What can be read off a book: plain functions of its levels, best first.
//!
//! `b`, `a` are the best prices, `B`, `A` their sizes. Mid `(b + a) / 2`; spread `a - b`, or in basis points of the mid; microprice
//! `(b·A + a·B) / (B + A)`; imbalance `(ΣB - ΣA) / (ΣB + ΣA)` over the best levels (Cartea, Jaimungal and Penalva 2015, 3.5); depth: the sizes
//! within a band around the mid; VWAP: what the average unit costs, or brings, when a size is taken at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A metric of a book.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Metric {
    /// Column `mid`: halfway between best bid and best ask.
    Mid,
    /// Column `spread`: best ask less best bid.
    Spread,
    /// Column `spread_bps`: the spread in basis points of the mid.
    SpreadBps,
    /// Column `microprice`: best prices, each weighted by the size on the other side.
    Microprice,
    /// Column `imbalance_N`: bid size less ask size over their sum, of the best levels; 1 is all bids.
    Imbalance {
        /// How many levels of each side, 1 to 1000.
        levels: usize,
    },
    /// Columns `bid_depth_Xbps`, `ask_depth_Xbps`: sizes within a band on each side of the mid.
    Depth {
        /// Half the band's width, basis points of the mid, above 0.
        bps: f64,
    },
    /// Column `ofi`: order-flow imbalance since the book before (Cont, Kukanov and Stoikov 2014). Add it up over time: `bars` or SQL.
    Ofi,
    /// Columns `buy_vwap_S`, `sell_vwap_S`: average price when so much is bought from the asks, or sold to the bids, at once.
    Vwap {
        /// The size, above 0.
        size: f64,
    },
}

/// One side's levels.
pub trait Levels {
    /// Price and size, best first.
    fn best_first(&self) -> impl Iterator<Item = (f64, f64)> + Clone;
    /// Whether these are all there are.
    fn whole(&self) -> bool;

    /// The best level.
    fn best(&self) -> Option<(f64, f64)> {
        self.best_first().next()
    }
}

impl Metric {
    /// Names of its columns.
    pub fn columns(&self) -> Vec<String> {
        // A point would read as a path in SQL and JSON.
        let name = |x: f64| x.to_string().replace('.', "_");
        match self {
            Self::Mid => vec!["mid".into()],
            Self::Spread => vec!["spread".into()],
            Self::SpreadBps => vec!["spread_bps".into()],
            Self::Microprice => vec!["microprice".into()],
            Self::Imbalance { levels } => vec![format!("imbalance_{levels}")],
            Self::Depth { bps } => ["bid", "ask"].map(|s| format!("{s}_depth_{}bps", name(*bps))).into(),
            Self::Ofi => vec!["ofi".into()],
            Self::Vwap { size } => ["buy", "sell"].map(|s| format!("{s}_vwap_{}", name(*size))).into(),
        }
    }

    /// What is wrong with its numbers.
    pub fn mistake(&self) -> Option<String> {
        let positive = |what: &str, x: f64| {
            (!(x.is_finite() && x > 0.0)).then(|| format!("{what} must be above 0, it is {x}"))
        };
        match self {
            Self::Imbalance { levels } if !(1..=1000).contains(levels) => {
                Some(format!("levels must be 1 to 1000, they are {levels}"))
            }
            Self::Depth { bps } => positive("bps", *bps),
            Self::Vwap { size } => positive("size", *size),
            _ => None,
        }
    }

    /// Its values, one a column; NaN where the book doesn't tell. `ofi` is the flow since the book before.
    #[inline]
    pub fn values<B: Levels, A: Levels>(&self, bids: &B, asks: &A, ofi: f64) -> [f64; 2] {
        let touch = || Some((bids.best()?, asks.best()?));
        let of_touch = |f: &dyn Fn((f64, f64), (f64, f64)) -> f64| match touch() {
            Some((bid, ask)) => [f(bid, ask), f64::NAN],
            None => [f64::NAN; 2],
        };
        match self {
            Self::Mid => of_touch(&|b, a| mid(b.0, a.0)),
            Self::Spread => of_touch(&|b, a| a.0 - b.0),
            Self::SpreadBps => of_touch(&|b, a| (a.0 - b.0) / mid(b.0, a.0) * 1e4),
            Self::Microprice => of_touch(&|b, a| (b.0 * a.1 + a.0 * b.1) / (b.1 + a.1)),
            Self::Imbalance { levels } => [imbalance(bids, asks, *levels), f64::NAN],
            Self::Depth { bps } => match touch() {
                Some((bid, ask)) => {
                    let mid = mid(bid.0, ask.0);
                    let (low, high) = (mid * (1.0 - bps / 1e4), mid * (1.0 + bps / 1e4));
                    [within(bids, |price| price >= low), within(asks, |price| price <= high)]
                }
                None => [f64::NAN; 2],
            },
            Self::Ofi => [ofi, f64::NAN],
            Self::Vwap { size } => [vwap(asks, *size), vwap(bids, *size)],
        }
    }
}

fn mid(bid: f64, ask: f64) -> f64 {
    (bid + ask) / 2.0
}

fn imbalance<B: Levels, A: Levels>(bids: &B, asks: &A, levels: usize) -> f64 {
    // A side that is cut short before so many levels may have more of them.
    let total = |n: usize, whole: bool, sum: f64| if n == levels || whole { sum } else { f64::NAN };
    let sum = |side: &mut dyn Iterator<Item = (f64, f64)>| {
        side.take(levels).fold((0, 0.0), |(n, sum), (_, size)| (n + 1, sum + size))
    };
    let (b, a) = (sum(&mut bids.best_first()), sum(&mut asks.best_first()));
    let (b, a) = (total(b.0, bids.whole(), b.1), total(a.0, asks.whole(), a.1));
    (b - a) / (b + a)
}

/// Sizes at prices in a band; unknown where the levels end inside it and there may be more.
fn within(side: &impl Levels, inside: impl Fn(f64) -> bool) -> f64 {
    let mut sum = 0.0;
    for (price, size) in side.best_first() {
        if !inside(price) {
            return sum;
        }
        sum += size;
    }
    if side.whole() { sum } else { f64::NAN }
}

/// Average price of `size` taken from a side; unknown where it has less.
fn vwap(side: &impl Levels, size: f64) -> f64 {
    let (mut left, mut cost) = (size, 0.0);
    for (price, there) in side.best_first() {
        let taken = there.min(left);
        cost += taken * price;
        left -= taken;
        if left <= 0.0 {
            return cost / size;
        }
    }
    f64::NAN
}

/// Order-flow imbalance: what the best levels gained or lost between two books.
///
/// `e = 1{b' ≥ b} B' - 1{b' ≤ b} B - 1{a' ≤ a} A' + 1{a' ≥ a} A` (Cont, Kukanov and Stoikov, "The price impact of order book events",
/// J. Financial Econometrics 12, 2014, eq. 3), where the primed are the newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Best bid, its size, best ask, its size.
    last: Option<[f64; 4]>,
}

impl Flow {
    /// Takes the next book's best levels; NaN without a book before, or where a side is empty.
    pub fn next(&mut self, bid: Option<(f64, f64)>, ask: Option<(f64, f64)>) -> f64 {
        let now = bid.zip(ask).map(|(b, a)| [b.0, b.1, a.0, a.1]);
        let (Some([b, bs, a, az]), Some([b0, bs0, a0, as0])) = (now, std::mem::replace(&mut self.last, now))
        else {
            return f64::NAN;
        };
        let mut flow = 0.0;
        if b >= b0 {
            flow += bs;
        }
        if b <= b0 {
            flow -= bs0;
        }
        if a <= a0 {
            flow -= az;
        }
        if a >= a0 {
            flow += as0;
        }
        flow
    }

    /// Forgets: the book is not to be believed.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Side(Vec<(f64, f64)>, bool);

    impl Levels for Side {
        fn best_first(&self) -> impl Iterator<Item = (f64, f64)> + Clone {
            self.0.iter().copied()
        }

        fn whole(&self) -> bool {
            self.1
        }
    }

    fn book(whole: bool) -> (Side, Side) {
        let bids = vec![(99.0, 3.0), (98.0, 5.0), (90.0, 100.0)];
        (Side(bids, whole), Side(vec![(101.0, 1.0), (102.0, 4.0)], whole))
    }

    fn values(metric: Metric, whole: bool) -> [f64; 2] {
        let (bids, asks) = book(whole);
        metric.values(&bids, &asks, 7.0)
    }

    #[test]
    fn metrics_are_their_formulas_by_hand() {
        assert_eq!(values(Metric::Mid, true)[0], 100.0);
        assert_eq!(values(Metric::Spread, true)[0], 2.0);
        assert_eq!(values(Metric::SpreadBps, true)[0], 200.0);
        // (99·1 + 101·3) / 4: near the ask, where little is left.
        assert_eq!(values(Metric::Microprice, true)[0], 100.5);
        assert_eq!(values(Metric::Imbalance { levels: 1 }, true)[0], 0.5);
        assert_eq!(values(Metric::Imbalance { levels: 2 }, true)[0], 3.0 / 13.0);
        assert_eq!(values(Metric::Depth { bps: 200.0 }, true), [8.0, 5.0]);
        assert_eq!(values(Metric::Depth { bps: 50.0 }, true), [0.0, 0.0]);
        assert_eq!(values(Metric::Vwap { size: 3.0 }, true), [(101.0 + 2.0 * 102.0) / 3.0, 99.0]);
        assert_eq!(values(Metric::Ofi, true)[0], 7.0);
        assert!(values(Metric::Vwap { size: 6.0 }, true)[0].is_nan());
    }

    #[test]
    fn what_levels_that_are_cut_short_do_not_tell_is_not_guessed() {
        assert_eq!(values(Metric::Depth { bps: 150.0 }, false), [3.0, 1.0]);
        let [bid, ask] = values(Metric::Depth { bps: 300.0 }, false);
        assert!(bid == 8.0 && ask.is_nan(), "the asks end inside the band");
        assert!(values(Metric::Imbalance { levels: 3 }, false)[0].is_nan());
        assert_eq!(values(Metric::Imbalance { levels: 3 }, true)[0], 103.0 / 113.0);
    }

    #[test]
    fn an_empty_side_has_no_mid_and_all_the_imbalance() {
        let (bids, none) = (book(true).0, Side(vec![], true));
        for metric in [Metric::Mid, Metric::Spread, Metric::SpreadBps, Metric::Microprice] {
            assert!(metric.values(&bids, &none, 0.0)[0].is_nan());
        }
        assert_eq!(Metric::Imbalance { levels: 5 }.values(&bids, &none, 0.0)[0], 1.0);
        assert!(Metric::Imbalance { levels: 5 }.values(&none, &none, 0.0)[0].is_nan());
        assert!(Metric::Depth { bps: 5.0 }.values(&bids, &none, 0.0).iter().all(|v| v.is_nan()));
    }

    /// The cases of section 2.1 of the paper, each with one thing that happened.
    #[test]
    fn order_flow_is_what_joined_less_what_left() {
        let flow = |bid, ask| {
            let mut flow = Flow::default();
            assert!(flow.next(Some((10.0, 5.0)), Some((11.0, 6.0))).is_nan());
            flow.next(Some(bid), Some(ask))
        };
        let (bid, ask) = ((10.0, 5.0), (11.0, 6.0));
        assert_eq!(flow(bid, ask), 0.0);
        assert_eq!(flow((10.0, 7.0), ask), 2.0, "a limit order to buy joins the best bid");
        assert_eq!(flow((10.0, 1.0), ask), -4.0, "part of the best bid is sold to or taken back");
        assert_eq!(flow((10.5, 2.0), ask), 2.0, "a better bid");
        assert_eq!(flow((9.0, 8.0), ask), -5.0, "the best bid is gone");
        assert_eq!(flow(bid, (11.0, 9.0)), -3.0, "a limit order to sell joins the best ask");
        assert_eq!(flow(bid, (10.5, 1.0)), -1.0, "a better ask");
        assert_eq!(flow(bid, (12.0, 4.0)), 6.0, "the best ask is bought");
        let mut broken = Flow::default();
        broken.next(Some(bid), Some(ask));
        assert!(broken.next(None, Some(ask)).is_nan());
        assert!(broken.next(Some(bid), Some(ask)).is_nan());
    }
}
