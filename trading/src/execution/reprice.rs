//! A wish that is as before but for its prices: the orders that work for it follow.

use super::Execution;
use super::account::{Account, Without};
use super::brackets::{on_tick, trail_on_tick};
use super::orders::{Purpose, Tracked, at_prices};
use super::slot::{Cause, Goal};
use crate::event::{Event, Reason};
use crate::gate::{OrderIntent, Refusal};
use crate::market::InstrumentId;
use crate::money::{self, Decimal};
use crate::order::{Order, OrderType, Side, Status, Trail};
use crate::signal::OrderWish;

/// New prices of an order, where it needs any.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Prices {
    limit: Option<Decimal>,
    stop: Option<Decimal>,
}

impl Execution {
    /// Orders and slices that work for the wish get its limit and its stop, slices that are to come are made by it. What cannot be changed is
    /// told, once for a wish.
    pub(super) fn reprice(
        &mut self,
        i: InstrumentId,
        coming: Decimal,
        wish: OrderWish,
        cause: Cause,
        out: &mut Vec<Event>,
    ) {
        if wish == OrderWish::default() {
            return;
        }
        for parent in self.own.parents.values_mut().filter(|p| p.instrument == i) {
            parent.wish = wish;
        }
        let tick = self.instruments[i as usize].tick.0;
        let works = |o: &&Tracked| matches!(o.purpose, Purpose::Wish | Purpose::Slice(_));
        let orders: Vec<Tracked> = self.own.orders.of(i).filter(works).cloned().collect();
        let (mut ignored, mut refused) = (None, Vec::new());
        for order in orders {
            let id = order.order.id;
            let prices = match changes(&order, wish, tick) {
                Ok(prices) if prices == Prices::default() => continue,
                Ok(_) if order.rigid => {
                    ignored = Some(format!("order {id} stays as it is: the venue refused to change it"));
                    continue;
                }
                Ok(prices) => prices,
                Err(why) => {
                    ignored = Some(format!("order {id} stays as it is: {why}"));
                    continue;
                }
            };
            let settled = matches!(order.status, Status::Working | Status::PartlyFilled)
                && !order.changing
                && !order.canceling;
            if settled {
                match self.may_become(&order, prices) {
                    Ok(()) => self.modify(id, None, prices.limit, prices.stop, Reason::Replaced, out),
                    Err(refusal) => refused.push((order, refusal)),
                }
            } else {
                // It is on its way there or back: what is wanted is settled when the venue has spoken.
                self.own.slots[i as usize].goal =
                    Some(Goal { target: coming, wish, cause, reason: Reason::Replaced });
            }
        }
        let told = &mut self.own.slots[i as usize].ignored;
        let was = std::mem::replace(told, (ignored.is_some() || !refused.is_empty()).then_some(wish));
        if was == Some(wish) {
            return;
        }
        if let Some(detail) = ignored {
            self.alert(Some(i), "change_ignored", detail, out);
        }
        for (order, Refusal { rule, detail }) in refused {
            let detail = format!("order {} stays as it is: {detail}", order.order.id);
            self.refuse(i, order.order.side, order.rest(), rule, detail, out);
        }
    }

    /// Whether an order may get new prices: what is left of it is held against the account and the rules as if it were sent anew. From then on it
    /// reserves what it will need.
    fn may_become(&mut self, order: &Tracked, prices: Prices) -> Result<(), Refusal> {
        let mut changed = order.clone();
        changed.order.order_type = at_prices(order.order.order_type, prices.limit, prices.stop);
        let mut rest = changed.order.clone();
        rest.quantity = order.rest();
        let Order { instrument, side, quantity, order_type, reduce_only, .. } = rest;
        let Some(price) = self.expected(instrument, side, &order_type) else { return Ok(()) };
        let borne = self.ledger.can_bear_instead(&rest, price);
        borne.map_err(|short| Refusal { rule: short.rule(), detail: short.to_string() })?;
        let intent =
            OrderIntent { instrument, side, quantity, price, order_type, reduce_only, protective: false };
        let account = Account {
            ledger: &self.ledger,
            orders: &self.own.orders,
            slots: &self.own.slots,
            history: &self.history,
        };
        self.gate.check_change(self.own.now, &intent, &Without { account, order })?;
        let was = self.expected(instrument, side, &order.order.order_type);
        if side == Side::Sell || was.is_none_or(|was| price > was) {
            self.reserve(&changed);
        }
        Ok(())
    }
}

/// What of an order differs from a wish, or why it cannot be made like it.
fn changes(order: &Tracked, wish: OrderWish, tick: Decimal) -> Result<Prices, String> {
    let order = &order.order;
    let buys = order.side == Side::Buy;
    // A limit is rounded to ask for no less, a trigger to come no earlier.
    let price = |price: f64, name: &str, up: bool| {
        let exact = if price > 0.0 { money::from_f64(price) } else { None };
        let exact = exact.and_then(|p| on_tick(p, tick, up)).filter(|p| *p > Decimal::ZERO);
        exact.ok_or_else(|| format!("a {name} of {price} is no price"))
    };
    let other = |name: &str| format!("a {name} does not go with its kind; take it back first (`CANCEL`)");
    if let Some(trail) = wish.trail {
        let amount = if trail > 0.0 { money::from_f64(trail) } else { None };
        let amount = amount.ok_or_else(|| format!("a trail of {trail} is no distance"))?;
        let same = OrderType::TrailingStop { trail: Trail::Amount(trail_on_tick(amount, tick)) };
        return match order.order_type {
            now if now == same => Ok(Prices::default()),
            OrderType::TrailingStop { .. } => {
                Err("how far it follows cannot be changed; take it back first (`CANCEL`)".into())
            }
            _ => Err(other("trail")),
        };
    }
    let mut prices = Prices::default();
    if let Some(limit) = wish.limit {
        let now = order.limit().ok_or_else(|| other("limit"))?;
        prices.limit = Some(price(limit, "limit", !buys)?).filter(|limit| *limit != now);
    }
    if let Some(stop) = wish.stop {
        let (OrderType::Stop { stop: now } | OrderType::StopLimit { stop: now, .. }) = order.order_type
        else {
            return Err(other("stop"));
        };
        prices.stop = Some(price(stop, "stop", buys)?).filter(|stop| *stop != now);
    }
    Ok(prices)
}
