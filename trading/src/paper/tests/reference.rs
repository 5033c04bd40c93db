//! A slow matcher of market and limit orders on quotes, in whole cents and units, beside the real one. It keeps no state but the log of
//! what happened, and asks the whole log anew for everything: what is left of an order, what is left of a quote.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use Side::{Buy, Sell};

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Price and size of the bid and of the ask.
    Quote([(i64, i64); 2]),
    /// Side, quantity, limit (none: a market order), immediate or cancel, fill or kill.
    Order(Side, i64, Option<i64>, bool, bool),
}

/// (event of the order, price, quantity, maker)
type Execution = (usize, i64, i64, bool);

struct Log<'a> {
    events: &'a [Event],
    /// Executions, with the event in which they were.
    log: Vec<(usize, Execution)>,
    killed: Vec<usize>,
}

impl Log<'_> {
    fn side(&self, order: usize) -> Side {
        match self.events[order] {
            Event::Order(side, ..) => side,
            Event::Quote(_) => unreachable!(),
        }
    }

    fn left(&self, order: usize) -> i64 {
        let Event::Order(_, quantity, ..) = self.events[order] else { return 0 };
        if self.killed.contains(&order) {
            return 0;
        }
        quantity - self.log.iter().filter(|(_, x)| x.0 == order).map(|(_, x)| x.2).sum::<i64>()
    }

    /// The quote that an order of `side` takes from, as of event `now`: price and what is left.
    fn offer(&self, side: Side, now: usize) -> Option<(i64, i64)> {
        let which = usize::from(side == Buy);
        let quotes: Vec<(usize, (i64, i64))> = (0..=now)
            .filter_map(|n| match self.events[n] {
                Event::Quote(quote) => Some((n, quote[which])),
                Event::Order(..) => None,
            })
            .collect();
        let (_, shown) = *quotes.last()?;
        // Shown since the last quote that was different.
        let since = quotes.iter().rev().take_while(|(_, quote)| *quote == shown).last()?.0;
        let had: i64 =
            self.log.iter().filter(|(n, x)| *n >= since && self.side(x.0) == side).map(|(_, x)| x.2).sum();
        Some((shown.0, shown.1 - had))
    }

    fn execute(&mut self, order: usize, now: usize, maker: bool) {
        let Event::Order(side, _, limit, _, all) = self.events[order] else { return };
        let Some((price, size)) = self.offer(side, now) else { return };
        let good = match (side, limit) {
            (_, None) => true,
            (Buy, Some(limit)) => price <= limit,
            (Sell, Some(limit)) => price >= limit,
        };
        let quantity = self.left(order).min(size);
        if good && quantity > 0 && !(all && quantity < self.left(order)) {
            let price = if maker { limit.unwrap() } else { price };
            self.log.push((now, (order, price, quantity, maker)));
        }
    }

    fn run(mut self) -> Vec<Execution> {
        for now in 0..self.events.len() {
            match self.events[now] {
                Event::Order(_, _, _, ioc, fok) => {
                    // Before the first quote an order waits for it.
                    if self.offer(Buy, now).is_some() {
                        self.execute(now, now, false);
                        if ioc || fok {
                            self.killed.push(now);
                        }
                    }
                }
                Event::Quote(_) => {
                    // At the first quote all take; after it limit orders rest.
                    let later = self.events[..now].iter().any(|event| matches!(event, Event::Quote(_)));
                    let mut resting: Vec<(usize, i64)> = Vec::new();
                    for order in 0..now {
                        let Event::Order(_, _, limit, ioc, fok) = self.events[order] else { continue };
                        match limit {
                            Some(limit) if later => resting.push((order, limit)),
                            _ => self.execute(order, now, false),
                        }
                        if ioc || fok {
                            self.killed.push(order);
                        }
                    }
                    for side in [Buy, Sell] {
                        let mut own: Vec<_> =
                            resting.iter().filter(|(order, _)| self.side(*order) == side).collect();
                        own.sort_by_key(|(order, limit)| (if side == Buy { -limit } else { *limit }, *order));
                        for (order, _) in own {
                            self.execute(*order, now, true);
                        }
                    }
                }
            }
        }
        self.log.into_iter().map(|(_, execution)| execution).collect()
    }
}

fn real(events: &[Event]) -> Vec<Execution> {
    let mut venue = venue(json!({}));
    let price = |cents: i64| Decimal::new(cents, 2);
    for (n, event) in events.iter().enumerate() {
        let ts = n as i64;
        match *event {
            Event::Quote([bid, ask]) => {
                let units = |shown: (i64, i64)| (shown.0 as f64 / 100.0, shown.1 as f64);
                let ((bid, bid_size), (ask, ask_size)) = (units(bid), units(ask));
                venue.quote(ts, bid, bid_size, ask, ask_size);
            }
            Event::Order(side, quantity, limit, ioc, fok) => {
                let order_type =
                    limit.map_or(OrderType::Market, |limit| OrderType::Limit { limit: price(limit) });
                let time_in_force = match (ioc, fok) {
                    (_, true) => TimeInForce::Fok,
                    (true, _) => TimeInForce::Ioc,
                    _ => TimeInForce::Gtc,
                };
                let order = order(n as u128, side, "1", order_type);
                venue.send(ts, Order { quantity: quantity.into(), time_in_force, ..order });
            }
        }
    }
    let cents = |price: Decimal| i64::try_from(price * Decimal::from(100)).unwrap();
    let executions = venue.out.iter().filter_map(|report| match &report.what {
        Said::Filled(fill) => {
            let quantity = i64::try_from(fill.quantity).unwrap();
            Some((fill.order.0 as usize, cents(fill.price), quantity, fill.maker.unwrap()))
        }
        _ => None,
    });
    executions.collect()
}

fn event() -> impl Strategy<Value = Event> {
    let quote =
        (9_990..10_010i64, 0..20i64, 1..5i64, 0..20i64).prop_map(|(bid, bid_size, spread, ask_size)| {
            Event::Quote([(bid, bid_size), (bid + spread, ask_size)])
        });
    let side = prop_oneof![Just(Buy), Just(Sell)];
    let limit = prop::option::weighted(0.7, 9_990..10_015i64);
    let times = prop_oneof![6 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))];
    let order = (side, 1..30i64, limit, times)
        .prop_map(|(side, quantity, limit, (ioc, fok))| Event::Order(side, quantity, limit, ioc, fok));
    prop_oneof![quote, order]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 500 } else { 5000 }))]

    #[test]
    fn a_slow_matcher_finds_the_same_executions(events in prop::collection::vec(event(), 1..60)) {
        let slow = Log { events: &events, log: Vec::new(), killed: Vec::new() }.run();
        prop_assert_eq!(real(&events), slow);
    }
}
