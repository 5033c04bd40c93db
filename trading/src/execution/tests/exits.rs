//! Exits beside the guard of their position, and stops that are reached while something still enters.

use super::*;
use crate::order::{Order, OrderType, Side};
use crate::report::Snapshot;

fn margin(with: Value) -> Desk {
    let mut all = json!({ "short": true, "account": { "kind": "margin", "cash": { "USD": 100_000 } }, "sizing": { "fixed": 100 } });
    for (key, value) in with.as_object().unwrap() {
        all[key] = value.clone();
    }
    Desk::new(all)
}

/// Long 100 at 100, with a stop at 95.
fn long(with: Value) -> Desk {
    let mut all = json!({ "protect": { "stop_loss": { "fraction": 0.05 } } });
    for (key, value) in with.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut desk = margin(all);
    desk.trade(S, 100.0);
    desk.want(2 * S, Want::Target(d("100")));
    for n in 0..10 {
        desk.trade(3 * S + n * S / 10, 100.0);
        desk.advance(3 * S + n * S / 10 + 1);
    }
    desk.advance(4 * S - 1);
    assert_eq!((desk.position(), desk.working()[0].as_str()), (d("100"), "sell 100 stop 95"));
    desk
}

/// How a wish is to be ordered.
type How = fn(&mut Signal);

fn reduces(desk: &Desk) -> Vec<bool> {
    desk.machine.own.orders.iter().map(|o| o.order.reduce_only).collect()
}

#[test]
fn an_exit_that_rests_leaves_the_stop_where_it_is() {
    let limit: How = |s| s.order.limit = Some(140.0);
    let stop: How = |s| s.order.stop = Some(60.0);
    let trail: How = |s| s.order.trail = Some(30.0);
    let table: [(Want, How, &str); 5] = [
        (Want::Flat, limit, "sell 100 limit 140"),
        (Want::Flat, stop, "sell 100 stop 60"),
        (Want::Flat, trail, "sell 100 trailing Amount(30)"),
        (Want::Trade(d("-100")), limit, "sell 100 limit 140"),
        (Want::Target(d("60")), limit, "sell 40 limit 140"),
    ];
    for (want, how, exit) in table {
        let mut desk = long(json!({}));
        assert_eq!(desk.signal_with(4 * S, want, how), [exit, "working"]);
        assert_eq!(desk.working(), ["sell 100 stop 95", exit]);
        assert_eq!(reduces(&desk), [true, true]);
        desk.trade(5 * S, 94.0);
        desk.trade(6 * S, 94.0);
        assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]), "{exit}");
    }
}

#[test]
fn what_an_exit_fills_the_stop_does_not_close_again() {
    let mut desk = long(json!({}));
    desk.signal_with(4 * S, Want::Flat, |s| s.order.limit = Some(110.0));
    desk.tick(5 * S, "A", Market::Trade { price: 111.0, size: 30.0 });
    assert_eq!(desk.position(), d("70"));
    assert_eq!(desk.working(), ["sell 70 stop 95", "sell 100 limit 110"]);
    desk.trade(6 * S, 94.0);
    desk.trade(7 * S, 94.0);
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]));
}

#[test]
fn a_sliced_exit_stands_beside_the_stop_and_ends_with_it() {
    let mut desk = long(json!({ "order": { "algo": { "twap": { "over": "500ms", "slices": 5 } } } }));
    assert_eq!(desk.want(20 * S, Want::Flat)[0], "sell 20 market");
    assert_eq!(desk.working()[0], "sell 100 stop 95");
    desk.trade(20 * S + S / 20, 100.0);
    desk.advance(20 * S + S / 10);
    desk.trade(20 * S + S / 10 + 1, 100.0);
    assert_eq!(desk.position(), d("60"));
    desk.trade(20 * S + S / 10 + 2, 94.0);
    desk.trade(20 * S + S / 10 + 3, 94.0);
    assert_eq!(desk.position(), Decimal::ZERO);
    desk.trade(60 * S, 94.0);
    desk.trade(61 * S, 94.0);
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]));
}

#[test]
fn a_market_exit_waits_for_no_stop_to_go() {
    let mut desk = long(json!({ "venue": { "kind": "paper", "latency": "500ms" } }));
    assert_eq!(desk.want(10 * S, Want::Flat), ["sell 100 market"]);
    // On its way when it falls: the stop is still there.
    desk.trade(10 * S + S / 4, 85.0);
    desk.trade(10 * S + S / 3, 85.0);
    desk.advance(20 * S);
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]));
    let at = desk.events.iter().rev().find(|e| matches!(e.what, Happened::Filled { .. })).unwrap().ts;
    assert_eq!(at, 10 * S + S / 3);
}

#[test]
fn a_turn_that_rests_leaves_first_and_opens_then() {
    let mut desk = long(json!({}));
    desk.signal_with(4 * S, Want::Short, |s| s.order.limit = Some(140.0));
    assert_eq!(desk.working(), ["sell 100 stop 95", "sell 100 limit 140"]);
    desk.trade(5 * S, 141.0);
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec!["sell 100 limit 140".into()]));
    desk.trade(6 * S, 142.0);
    assert_eq!(desk.position(), d("-100"));
    assert_eq!(desk.working(), ["buy 100 stop 149.1"]);
}

#[test]
fn a_turn_at_market_takes_exits_back_first() {
    let mut desk = long(json!({}));
    desk.signal_with(4 * S, Want::Flat, |s| s.order.limit = Some(140.0));
    desk.want(5 * S, Want::Short);
    desk.trade(6 * S, 101.0);
    desk.trade(7 * S, 101.0);
    assert_eq!((desk.position(), desk.working()), (d("-100"), vec!["buy 100 stop 106.05".into()]));
}

#[test]
fn a_stop_says_no_only_to_the_wish_for_what_it_closed() {
    let mut desk = long(json!({}));
    desk.signal_with(4 * S, Want::Short, |s| s.order.limit = Some(140.0));
    desk.trade(5 * S, 94.0);
    desk.trade(6 * S, 94.0);
    // The stop closed the long; what was wanted is a short at 140 or better.
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec!["sell 100 limit 140".into()]));
}

#[test]
fn the_machine_keeps_the_stop_where_the_venue_takes_no_second_order() {
    let with = json!({ "protect": { "stop_loss": { "fraction": 0.05 }, "at": "machine" } });
    let mut desk = margin(with);
    desk.trade(S, 100.0);
    desk.want(2 * S, Want::Long);
    desk.trade(3 * S, 100.0);
    desk.signal_with(4 * S, Want::Flat, |s| s.order.limit = Some(140.0));
    assert_eq!((desk.working(), reduces(&desk)), (vec!["sell 100 limit 140".into()], vec![false]));
    assert_eq!(desk.trade(5 * S, 95.0), ["cancel", "canceled", "sell 100 market", "working"]);
    desk.trade(6 * S, 94.0);
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]));
}

#[test]
fn a_stop_that_is_reached_takes_back_what_still_enters() {
    // As bought in parts: 3 at 100, then it falls.
    let part = |price: f64| Market::Trade { price, size: 3.0 };
    for at in ["venue", "machine"] {
        let mut desk = margin(json!({ "protect": { "stop_loss": { "fraction": 0.1 }, "at": at } }));
        desk.trade(S, 100.0);
        desk.want(2 * S, Want::Target(d("10")));
        desk.tick(3 * S, "A", part(100.0));
        assert_eq!(desk.position(), d("3"), "{at}");
        desk.tick(4 * S, "A", part(89.0));
        assert!(desk.working().iter().all(|o| o.starts_with("sell")), "{at}: {:?}", desk.working());
        for n in 5..20 {
            desk.tick(n * S, "A", part(88.0));
        }
        assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]), "{at}");
        let bought: Decimal = fills(&desk, Side::Buy);
        assert_eq!(bought, d("6"), "{at}");
    }
}

fn fills(desk: &Desk, side: Side) -> Decimal {
    let units = |e: &Event| match &e.what {
        Happened::Filled { fill, .. } if fill.side == side => fill.quantity,
        _ => Decimal::ZERO,
    };
    desk.events.iter().map(units).sum()
}

#[test]
fn an_order_that_adds_does_not_outlive_the_stop() {
    let mut desk = long(json!({}));
    desk.signal_with(4 * S, Want::Target(d("150")), |s| s.order.limit = Some(75.0));
    assert_eq!(desk.working(), ["sell 100 stop 95", "buy 50 limit 75"]);
    for (n, price) in [(5, 90.0), (6, 80.0), (7, 70.0), (8, 70.0)] {
        desk.trade(n * S, price);
    }
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]));
    assert_eq!(fills(&desk, Side::Buy), d("100"));
    // And the same wish does not open it again.
    assert_eq!(desk.signal_with(9 * S, Want::Target(d("150")), |s| s.order.limit = Some(75.0)), [""; 0]);
}

fn broker() -> Desk {
    let mut desk =
        margin(json!({ "venue": { "kind": "external" }, "protect": { "stop_loss": { "fraction": 0.05 } } }));
    desk.trade(S, 100.0);
    let snapshot = Snapshot { orders: vec![], positions: vec![], cash: vec![("USD".into(), d("100000"))] };
    desk.say(S, Said::Snapshot(snapshot));
    desk.want(2 * S, Want::Long);
    let entry = desk.order();
    assert_eq!(fill(&mut desk, 3 * S, entry, "100", "100").last().unwrap(), "sell 100 stop 95");
    let stop = desk.order();
    desk.say(3 * S, Said::Accepted { order: stop });
    desk
}

fn fill(desk: &mut Desk, ts: i64, order: OrderId, quantity: &str, price: &str) -> Vec<String> {
    let side = desk.machine.own.orders.get(order).unwrap().order.side;
    let id = format!("{ts}");
    let (fee, fee_currency, maker) = (Decimal::ZERO, "USD".into(), None);
    let fill = Fill {
        id,
        order,
        instrument: 0,
        side,
        price: d(price),
        quantity: d(quantity),
        fee,
        fee_currency,
        maker,
    };
    desk.say(ts, Said::Filled(fill))
}

fn live(desk: &Desk, kind: fn(&Order) -> bool) -> OrderId {
    desk.machine.own.orders.iter().find(|o| kind(&o.order)).unwrap().order.id
}

#[test]
fn with_a_broker_the_machine_cuts_what_stands_beside_the_stop() {
    let mut desk = broker();
    let told = desk.signal_with(4 * S, Want::Flat, |s| s.order.limit = Some(140.0));
    assert_eq!(told, ["sell 100 limit 140"]);
    assert_eq!(reduces(&desk), [true, true]);
    let exit = live(&desk, |o| matches!(o.order_type, OrderType::Limit { .. }));
    let stop = live(&desk, |o| matches!(o.order_type, OrderType::Stop { .. }));
    desk.say(5 * S, Said::Accepted { order: exit });
    let told = fill(&mut desk, 6 * S, stop, "30", "95");
    assert!(told.contains(&"modify Some(70) None None".to_owned()), "{told:?}");
    let told = fill(&mut desk, 7 * S, stop, "70", "95");
    assert_eq!(told, ["fill 70 at 95 -> 0", "filled", "cancel"]);
    assert_eq!(desk.say(8 * S, Said::Canceled { order: exit, reason: None }), ["canceled"]);
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]));
}

#[test]
fn with_a_broker_a_market_exit_frees_the_units_first() {
    let mut desk = broker();
    let stop = desk.order();
    assert_eq!(desk.want(4 * S, Want::Flat), ["cancel"]);
    assert_eq!(
        desk.say(5 * S, Said::Canceled { order: stop, reason: None }),
        ["canceled", "sell 100 market"]
    );
    assert_eq!(reduces(&desk), [false]);
}

#[test]
fn a_take_profit_ends_the_entry_too() {
    let mut desk =
        long(json!({ "protect": { "stop_loss": { "fraction": 0.05 }, "take_profit": { "amount": 5 } } }));
    desk.signal_with(4 * S, Want::Target(d("150")), |s| s.order.limit = Some(75.0));
    desk.trade(5 * S, 106.0);
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]));
}

#[test]
fn an_order_that_could_turn_the_position_stands_in_the_guards_place_and_that_is_told() {
    let mut desk = long(json!({}));
    let told = desk.signal_with(4 * S, Want::Trade(d("-150")), |s| s.order.limit = Some(140.0));
    assert_eq!(told, ["sell 150 limit 140", "alert unguarded", "cancel", "working", "canceled"]);
    assert_eq!(desk.working(), ["sell 150 limit 140"]);
    desk.want(5 * S, Want::Cancel);
    assert_eq!(desk.working(), ["sell 100 stop 95"]);
}
