//! What a paper venue knows of one market: the best prices, the book, the last trade, and how much of what is shown ours have taken.
//!
//! Prices are compared as `f64`. That is right for what is written in decimal with up to 15 digits: two texts of the same number
//! are the same `f64`, and two numbers stand as their `f64` do. Fills carry the exact decimal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::market::{Market, is_price};
use crate::money::{self, Decimal};
use crate::order::Side;

/// What is shown at a price.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// NaN: nothing.
    pub price: f64,
    /// Infinite where the feed does not say.
    pub size: f64,
    /// What ours took of it since it was last set.
    pub taken: Decimal,
}

impl Shown {
    const NOTHING: Self = Self { price: f64::NAN, size: 0.0, taken: Decimal::ZERO };

    fn new(price: f64, size: f64) -> Self {
        if is_price(price) {
            // A feed without sizes says nothing against any quantity.
            let size = if size.is_nan() { f64::INFINITY } else { size.max(0.0) };
            Self { price, size, taken: Decimal::ZERO }
        } else {
            Self::NOTHING
        }
    }

    /// What is left of it for ours. `None`: any quantity.
    pub fn left(&self) -> Option<Decimal> {
        money::from_f64(self.size).map(|size| (size - self.taken).max(Decimal::ZERO))
    }

    /// Puts another in its place; one that says the same renews nothing.
    #[inline]
    fn set(&mut self, price: f64, size: f64) {
        let new = Self::new(price, size);
        if new.price != self.price || new.size != self.size {
            *self = new;
        }
    }
}

/// What was shown before a tick: price and size of the bid and of the ask, or of one level. NaN: nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub bid: (f64, f64),
    pub ask: (f64, f64),
    /// One order, where the tick was of one.
    pub rest: Option<Rest>,
}

/// An order of the market, in a feed that tells of each.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Rest {
    pub bid: bool,
    pub price: f64,
    pub size: Decimal,
}

const UNSEEN: (f64, f64) = (f64::NAN, 0.0);

/// The market of one instrument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct View {
    /// While all prices stay above this and below `high`, nothing of ours is touched.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    pub bid: Shown,
    pub ask: Shown,
    /// Price of the last trade; NaN: none yet.
    pub last: f64,
    /// Trades so far.
    pub prints: u64,
    /// NaN: none yet.
    pub mark: f64,
    pub halted: bool,
    pub has_quote: bool,
    pub has_book: bool,
    /// Levels, the best at the end.
    bids: Vec<Shown>,
    asks: Vec<Shown>,
    /// Orders of the market, where the feed tells of each.
    rests: BTreeMap<u64, Rest>,
    /// What they come to, by side and price (its bits).
    sums: BTreeMap<(bool, u64), Decimal>,
    /// Levels of which ours had taken when the book was reset: those that it shows again as they were are the same.
    kept: Vec<(bool, Shown)>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            bid: Shown::NOTHING,
            ask: Shown::NOTHING,
            last: f64::NAN,
            prints: 0,
            mark: f64::NAN,
            halted: false,
            has_quote: false,
            has_book: false,
            bids: Vec::new(),
            asks: Vec::new(),
            rests: BTreeMap::new(),
            sums: BTreeMap::new(),
            kept: Vec::new(),
        }
    }
}

impl View {
    /// Takes a tick in. Prices that are not above zero are as good as none.
    #[inline]
    pub fn observe(&mut self, market: &Market) -> Before {
        let mut before = Before { bid: UNSEEN, ask: UNSEEN, rest: None };
        if !self.kept.is_empty()
            && !matches!(market, Market::Level { .. } | Market::Resting { .. } | Market::BookReset)
        {
            // The message that showed the book anew is over.
            self.kept.clear();
        }
        match *market {
            Market::Trade { price, .. } => {
                if is_price(price) {
                    self.last = price;
                    self.prints += 1;
                }
            }
            Market::Quote { bid, bid_size, ask, ask_size } => {
                before.bid = (self.bid.price, self.bid.size);
                before.ask = (self.ask.price, self.ask.size);
                self.bid.set(bid, bid_size);
                self.ask.set(ask, ask_size);
                self.has_quote = true;
            }
            Market::Bar { close, .. } => {
                if is_price(close) {
                    self.last = close;
                    self.prints += 1;
                }
            }
            Market::Level { bid, price, size } => {
                let was = self.level(bid, price, size);
                *(if bid { &mut before.bid } else { &mut before.ask }) = (price, was);
            }
            Market::Resting { order, bid, price, size } => before.rest = self.rest(order, bid, price, size),
            Market::BookReset => {
                if !(self.bids.is_empty() && self.asks.is_empty()) {
                    self.kept.clear();
                }
                let bids = self.bids.drain(..).map(|level| (true, level));
                let all = bids.chain(self.asks.drain(..).map(|level| (false, level)));
                self.kept.extend(all.filter(|(_, level)| level.taken > Decimal::ZERO));
                self.rests.clear();
                self.sums.clear();
                (self.bid, self.ask) = (Shown::NOTHING, Shown::NOTHING);
            }
            Market::Mark { price } => {
                if is_price(price) {
                    self.mark = price;
                }
            }
            Market::Halt(on) => {
                self.halted = on;
                // What was offered before a halt is not there after it.
                (self.bid, self.ask) = (Shown::NOTHING, Shown::NOTHING);
            }
            Market::Funding { .. } => {}
        }
        before
    }

    /// Whether a tick that was just taken in can't concern any order.
    #[inline]
    pub fn is_quiet(&self, market: &Market, before: &Before) -> bool {
        let (low, high) = (self.low, self.high);
        match *market {
            // Comparisons with NaN are false: a side that isn't there touches nothing.
            Market::Quote { bid, ask, .. } => !(bid <= low || ask >= high || ask <= low || bid >= high),
            Market::Trade { price, .. } | Market::Mark { price } => !(price <= low || price >= high),
            Market::Bar { high: top, low: bottom, .. } => !(bottom <= low || top >= high),
            Market::Resting { .. }
                if before.rest.is_some_and(|was| was.price <= low || was.price >= high) =>
            {
                false
            }
            Market::Level { price, .. } | Market::Resting { price, .. } => {
                let (bid, ask) = (best(&self.bids), best(&self.asks));
                !(price <= low || price >= high || bid <= low || ask >= high || ask <= low || bid >= high)
            }
            Market::BookReset | Market::Funding { .. } | Market::Halt(_) => true,
        }
    }

    /// Sets a level and tells what was there.
    fn level(&mut self, bid: bool, price: f64, size: f64) -> f64 {
        self.has_book = true;
        if !is_price(price) {
            return 0.0;
        }
        let levels = if bid { &mut self.bids } else { &mut self.asks };
        // From the best: most changes are near it.
        let better = |level: &Shown| if bid { level.price > price } else { level.price < price };
        let mut at = levels.len();
        while at > 0 && better(&levels[at - 1]) {
            at -= 1;
        }
        let mut new = Shown::new(price, size);
        if let Some(k) =
            self.kept.iter().position(|(side, k)| (*side, k.price, k.size) == (bid, price, new.size))
        {
            new.taken = self.kept.remove(k).1.taken;
        }
        match levels.get_mut(at.wrapping_sub(1)) {
            Some(level) if level.price == price => {
                let was = level.size;
                if new.size <= 0.0 {
                    levels.remove(at - 1);
                } else if new.size != level.size {
                    *level = new;
                }
                was
            }
            _ => {
                if new.size > 0.0 {
                    levels.insert(at, new);
                }
                0.0
            }
        }
    }

    /// Sets one order, and the levels that it leaves and joins. What was there of it.
    #[cold]
    fn rest(&mut self, order: u64, bid: bool, price: f64, size: f64) -> Option<Rest> {
        let good = is_price(price);
        let size =
            money::from_f64(size).filter(|size| good && *size > Decimal::ZERO).unwrap_or(Decimal::ZERO);
        let was = self.rests.remove(&order);
        if size > Decimal::ZERO {
            self.rests.insert(order, Rest { bid, price, size });
        }
        if let Some(was) = was
            && (was.bid, was.price) != (bid, price)
        {
            self.change_level(was.bid, was.price, -was.size);
            self.change_level(bid, price, size);
        } else {
            self.change_level(bid, price, size - was.map_or(Decimal::ZERO, |was| was.size));
        }
        was
    }

    /// Adds to the orders at a price: in decimals, so that no rounding adds up.
    fn change_level(&mut self, bid: bool, price: f64, by: Decimal) {
        let sum = self.sums.entry((bid, price.to_bits())).or_default();
        *sum = sum.saturating_add(by);
        let size = money::to_f64(*sum);
        if *sum <= Decimal::ZERO {
            self.sums.remove(&(bid, price.to_bits()));
        }
        self.level(bid, price, size);
    }

    /// Those of the market that rest at a price; none where the feed doesn't tell of each.
    pub fn rests_of(&self, side: Side, price: f64) -> BTreeMap<u64, Decimal> {
        let bid = side == Side::Buy;
        let there = self.rests.iter().filter(|(_, rest)| rest.bid == bid && rest.price == price);
        there.map(|(order, rest)| (*order, rest.size)).collect()
    }

    /// Whether the feed tells of each order.
    pub fn has_rests(&self) -> bool {
        !self.rests.is_empty()
    }

    /// The levels that an order of `side` takes from, the best at the end.
    pub fn opposite(&mut self, side: Side, book: bool) -> &mut [Shown] {
        let (quote, levels) = match side {
            Side::Buy => (&mut self.ask, &mut self.asks),
            Side::Sell => (&mut self.bid, &mut self.bids),
        };
        match book {
            true => levels,
            false if quote.price.is_nan() => &mut [],
            false => std::slice::from_mut(quote),
        }
    }

    /// The best bid and ask; NaN: none.
    pub fn best(&self, book: bool) -> (f64, f64) {
        if book { (best(&self.bids), best(&self.asks)) } else { (self.bid.price, self.ask.price) }
    }

    /// What the book shows at a price on the side that an order of `side` rests on.
    pub fn rests_at(&self, side: Side, price: f64) -> f64 {
        let levels = if side == Side::Buy { &self.bids } else { &self.asks };
        levels.iter().rev().find(|level| level.price == price).map_or(0.0, |level| level.size)
    }

    /// Forgets all prices: they are in units that are no more.
    pub fn forget(&mut self) {
        let Self { halted, has_quote, has_book, prints, .. } = *self;
        *self = Self { halted, has_quote, has_book, prints, ..Self::default() };
    }
}

#[inline]
fn best(levels: &[Shown]) -> f64 {
    levels.last().map_or(f64::NAN, |level| level.price)
}
