//! What a wish asks of its guard, looked at before it counts: an entry that could not be guarded as the graph and its signal ask is refused.

use super::Execution;
use super::brackets::{Asked, Distance, Guard, Watch, amount};
use super::goals::side_of;
use super::orders::Tracked;
use crate::event::{Event, Happened};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{OrderType, Side, Trail};
use crate::signal::{OrderWish, Signal, Want};

/// What is wrong with a wish: the rule that it breaks, and how.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unfit {
    pub rule: &'static str,
    pub detail: String,
}

impl Execution {
    /// What a signal says of its guard, and the first of its prices that is none.
    pub(super) fn asked(&self, signal: &Signal) -> (Asked, Option<Unfit>) {
        let mut unfit = None;
        let symbol = &self.instruments[signal.instrument as usize].symbol;
        let decimal = |x: f64| if x > 0.0 { money::from_f64(x) } else { None };
        let mut price = |value: Option<f64>, rule: &'static str, name: &str| {
            let value = value?;
            let exact = decimal(value);
            if exact.is_none() && unfit.is_none() {
                let detail = format!(
                    "a {name} of {value} is no price of {symbol}: give one above zero, or null for none"
                );
                unfit = Some(Unfit { rule, detail });
            }
            exact
        };
        let stop_loss = price(signal.stop_loss, "protect.stop_loss", "stop_loss");
        let take_profit = price(signal.take_profit, "protect.take_profit", "take_profit");
        let atr = signal.atr.and_then(decimal);
        (Asked { stop_loss, take_profit, atr }, unfit)
    }

    /// The first leg of the guard that a position with this average (or expected) price is to have and cannot.
    pub(super) fn lacks(&self, i: InstrumentId, long: bool, entry: Decimal, asked: &Asked) -> Option<Unfit> {
        let params = &self.params.protect;
        let guard = Guard::new(params, long, entry, asked, self.instruments[i as usize].tick.0);
        let why = |distance: Option<Distance>, side: &str| match distance {
            Some(Distance::Atr(n)) if asked.atr.is_none() => {
                format!(
                    "it is {} average true ranges away, and the signal has no `atr` above zero",
                    n.0.normalize()
                )
            }
            Some(distance) => {
                let away = amount(distance, entry, asked.atr).unwrap_or(Decimal::MAX);
                format!("it would be {} {side} {}, where no price is", away.normalize(), entry.normalize())
            }
            None => "the price that the signal gives is less than a tick".to_owned(),
        };
        let (losing, winning) = if long { ("below", "above") } else { ("above", "below") };
        let stop_asked = asked.stop_loss.is_some();
        let no_stop = guard.stop.is_none_or(|stop| stop <= Decimal::ZERO);
        if (stop_asked || params.stop_loss.is_some()) && no_stop {
            let distance = params.stop_loss.filter(|_| !stop_asked);
            return Some(Unfit { rule: "protect.stop_loss", detail: why(distance, losing) });
        }
        let behind = match guard.trail {
            Some(Trail::Amount(amount)) if long => amount < entry,
            trail => trail.is_some(),
        };
        if params.trailing.is_some() && !stop_asked && !behind {
            return Some(Unfit { rule: "protect.trailing", detail: why(params.trailing, losing) });
        }
        let no_take = guard.take.is_none_or(|take| take <= Decimal::ZERO);
        let take_asked = asked.take_profit.is_some();
        if (take_asked || params.take_profit.is_some()) && no_take {
            let distance = params.take_profit.filter(|_| !take_asked);
            return Some(Unfit { rule: "protect.take_profit", detail: why(distance, winning) });
        }
        None
    }

    /// Why a position of this side that is entered near `entry` cannot be guarded as asked: a leg cannot be, or would be reached at once.
    pub(super) fn unguardable(
        &self,
        i: InstrumentId,
        long: bool,
        entry: Decimal,
        asked: &Asked,
    ) -> Option<Unfit> {
        if let Some(unfit) = self.lacks(i, long, entry, asked) {
            return Some(unfit);
        }
        let (losing, winning) = if long { ("below", "above") } else { ("above", "below") };
        let side = if long { "long" } else { "short" };
        let told = |rule, what: &str, price: Decimal, where_: &str| {
            let (price, entry) = (price.normalize(), entry.normalize());
            let detail = format!(
                "a {what} of {price} is reached at once: for a {side} position at {entry} it must be {where_} that"
            );
            Some(Unfit { rule, detail })
        };
        match (asked.stop_loss, asked.take_profit) {
            (Some(stop), _) if (stop >= entry) == long || stop == entry => {
                told("protect.stop_loss", "stop_loss", stop, losing)
            }
            (_, Some(take)) if (take <= entry) == long || take == entry => {
                told("protect.take_profit", "take_profit", take, winning)
            }
            _ => None,
        }
    }

    /// The price at which an order of such a wish is expected to open a position; `None`: not known, which another rule tells.
    pub(super) fn entry_price(&self, i: InstrumentId, side: Side, wish: OrderWish) -> Option<Decimal> {
        let order_type = self.order_type(i, side, wish).ok()?;
        self.expected(i, side, &order_type)
    }

    /// Why a trigger that a signal names lies on the wrong side of the market: the order would be filled at once, which its kind says it must not.
    pub(super) fn triggers_at_once(&self, i: InstrumentId, side: Side, wish: OrderWish) -> Option<Unfit> {
        let stop = wish.stop.filter(|stop| *stop > 0.0 && wish.trail.is_none())?;
        let slot = &self.own.slots[i as usize];
        let quote = if side == Side::Buy { slot.ask } else { slot.bid };
        let market = [slot.last, quote, slot.price].into_iter().find(|p| *p > 0.0)?;
        let (wrong, word, other) = match side {
            Side::Buy => (stop < market, "buy", "above"),
            Side::Sell => (stop > market, "sell", "below"),
        };
        let detail = format!(
            "a {word} stop of {stop} would be filled at once, the market is at {market}: it must be {other} that (or a `limit`)"
        );
        wrong.then_some(Unfit { rule: "order.stop", detail })
    }

    /// Refuses a wish, once: not again while the same is wanted and the same rule refuses it.
    pub(super) fn refuse_wish(
        &mut self,
        i: InstrumentId,
        side: Side,
        quantity: Decimal,
        want: Want,
        unfit: Unfit,
        out: &mut Vec<Event>,
    ) {
        let Unfit { rule, detail } = unfit;
        let told = &mut self.own.slots[i as usize].refused;
        if told.as_ref().is_some_and(|(was, by)| *was == want && by == rule) {
            return;
        }
        *told = Some((want, rule.to_owned()));
        self.refuse(i, side, quantity, rule, detail, out);
    }

    /// A wish came for a position that is held: prices that it gives for the guard take the place of those that were given before.
    pub(super) fn reguard(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        let held = self.ledger.position(i);
        if held.quantity.is_zero() {
            return;
        }
        let long = held.quantity > Decimal::ZERO;
        let tick = self.instruments[i as usize].tick.0;
        let slot = &mut self.own.slots[i as usize];
        let guard = Guard::new(&self.params.protect, long, held.average, &slot.asked, tick);
        if slot.guard == Some(guard) || guard == Guard::default() {
            return;
        }
        let price = if slot.price > 0.0 { slot.price } else { money::to_f64(held.average) };
        slot.watch = Watch::new(&guard, long, price, slot.guard.is_some().then_some(&slot.watch));
        slot.guard = Some(guard);
        slot.unguarded = false;
        self.own.orders.soften(i);
        self.tell_bare(i, out);
        self.protect(i, out);
    }

    /// Tells, once, that a position has not the guard that was asked for.
    pub(super) fn tell_bare(&mut self, i: InstrumentId, out: &mut Vec<Event>) {
        let held = self.ledger.position(i);
        let lacks = if held.quantity.is_zero() {
            None
        } else {
            let asked = self.own.slots[i as usize].asked;
            self.lacks(i, held.quantity > Decimal::ZERO, held.average, &asked)
        };
        let was = std::mem::replace(&mut self.own.slots[i as usize].bare, lacks.is_some());
        if let Some(Unfit { rule, detail }) = lacks.filter(|_| !was) {
            let detail = format!("{} units have no {rule}: {detail}", held.quantity);
            self.tell(Happened::Alert { instrument: Some(i), code: "unguarded".into(), detail }, out);
        }
    }

    /// Tells, once, that the guard is taken back for an order that rests: it could turn the position, so nothing would cut it.
    pub(super) fn tell_aside(&mut self, i: InstrumentId, leaving: bool, out: &mut Vec<Event>) {
        let slot = &self.own.slots[i as usize];
        let aside = leaving && slot.guard.is_some() && !self.watches() && !slot.closing.is_on();
        let position = self.ledger.quantity(i);
        let rests = |o: &&Tracked| {
            o.order.side != side_of(position)
                && self.is_in_place_of_guard(o)
                && o.order.order_type != OrderType::Market
        };
        let order = self.own.orders.of(i).find(rests).filter(|_| aside).map(|o| o.order.id);
        let was = std::mem::replace(&mut self.own.slots[i as usize].aside, order.is_some());
        if let Some(id) = order.filter(|_| !was) {
            let detail = format!(
                "{position} units have no guard while order {id} works, which could turn them: leave with one order, open with another"
            );
            self.alert(Some(i), "unguarded", detail, out);
        }
    }

    /// Where the market is for one who opens such a position now.
    pub(super) fn market_price(&self, i: InstrumentId, side: Side) -> Option<Decimal> {
        self.expected(i, side, &OrderType::Market)
    }
}

impl Execution {
    /// A wish for a position of so many units counts: what it asks of the guard is noted. Whether the position may be opened or grow so; what may not
    /// is told. A wish that makes it smaller always may: what is wrong with its prices is told, and those of before stay.
    pub(super) fn may_aim(&mut self, signal: &Signal, aim: Decimal, out: &mut Vec<Event>) -> bool {
        let i = signal.instrument;
        if aim.is_zero() {
            return true;
        }
        let (long, side) = (aim > Decimal::ZERO, side_of(aim));
        let is_same = |units: Decimal| !units.is_zero() && (units > Decimal::ZERO) == long;
        let position = self.ledger.quantity(i);
        let (mut asked, mut unfit) = self.asked(signal);
        let before = self.own.slots[i as usize].asked;
        if is_same(position) || is_same(self.coming(i)) {
            // What a signal does not say is as it was.
            asked.stop_loss = asked.stop_loss.or(before.stop_loss);
            asked.take_profit = asked.take_profit.or(before.take_profit);
            asked.atr = asked.atr.or(before.atr);
        }
        let grows = !is_same(position) || aim.abs() > position.abs();
        let names = signal.stop_loss.is_some() || signal.take_profit.is_some();
        let entry = if grows {
            self.entry_price(i, side, signal.order)
        } else {
            self.market_price(i, side).filter(|_| names)
        };
        if unfit.is_none() {
            unfit = entry.and_then(|entry| self.unguardable(i, long, entry, &asked));
        }
        if let Some(unfit) = unfit {
            let units = aim.saturating_sub(position).abs();
            self.refuse_wish(i, side, units, signal.want, unfit, out);
            return !grows;
        }
        self.own.slots[i as usize].asked = asked;
        true
    }

    /// Whether the trigger that a wish names for units of this sign lies where it may; what does not is told.
    pub(super) fn may_trigger(&mut self, signal: &Signal, units: Decimal, out: &mut Vec<Event>) -> bool {
        if units.is_zero() {
            return true;
        }
        let (i, side) = (signal.instrument, side_of(units));
        let Some(unfit) = self.triggers_at_once(i, side, signal.order) else { return true };
        self.refuse_wish(i, side, units.abs(), signal.want, unfit, out);
        false
    }

    /// Whether a wish is for less than one lot, which is told.
    pub(super) fn is_dust(&mut self, signal: &Signal, units: Decimal, out: &mut Vec<Event>) -> bool {
        let i = signal.instrument;
        let lot = self.lot(i);
        if units.is_zero() || !money::floor_to(units, lot).is_zero() {
            return false;
        }
        let symbol = &self.instruments[i as usize].symbol;
        let detail = format!(
            "{} units of {symbol} are less than its lot of {}, so none is ordered: ask for more, or give the instrument a smaller `lot`",
            units.abs().round_dp(12).normalize(),
            lot.normalize()
        );
        let unfit = Unfit { rule: "instrument.lot", detail };
        self.refuse_wish(i, side_of(units), units.abs(), signal.want, unfit, out);
        true
    }
}
