//! Snapshots and what stands around them: they are neither gains nor losses, count each fill once, and answer what was asked before.

use super::*;
use crate::order::{Order, Side};
use crate::report::{CashReason, Open, Snapshot};

fn snapshot(orders: Vec<Open>, position: i64, cash: &str) -> Said {
    let positions = if position == 0 { vec![] } else { vec![(0, Decimal::from(position), Some(d("100")))] };
    Said::Snapshot(Snapshot { orders, positions, cash: vec![("USD".into(), d(cash))] })
}

fn fill(id: &str, order: OrderId, side: Side, quantity: i64, price: &str) -> Said {
    Said::Filled(Fill {
        id: id.into(),
        order,
        instrument: 0,
        side,
        price: d(price),
        quantity: quantity.into(),
        fee: Decimal::ONE,
        fee_currency: "USD".into(),
        maker: None,
    })
}

fn cash(amount: &str, reason: CashReason) -> Said {
    Said::Cash { currency: "USD".into(), amount: d(amount), reason, instrument: None }
}

fn external(with: Value) -> Desk {
    let mut whole = json!({ "venue": { "kind": "external" }, "instruments": [{ "symbol": "A" }] });
    for (key, value) in with.as_object().unwrap() {
        whole[key] = value.clone();
    }
    Desk::new(whole)
}

/// At the venue, with nothing held and an order for 10 at 95.
fn ordered() -> (Desk, Order) {
    let mut desk = external(json!({}));
    desk.quote(S, 99.0, 100.0);
    desk.say(S, snapshot(vec![], 0, "10000"));
    desk.signal_with(2 * S, Want::Long, |s| s.order.limit = Some(95.0));
    let order = desk.machine.own.orders.iter().next().unwrap().order.clone();
    desk.say(3 * S, Said::Accepted { order: order.id });
    (desk, order)
}

fn states(desk: &Desk) -> usize {
    desk.events.iter().filter(|e| matches!(e.what, Happened::State { .. })).count()
}

fn breaker() -> Value {
    json!({ "risk": { "drawdown": { "max": 0.2, "action": "flatten" } } })
}

#[test]
fn the_first_snapshot_is_no_loss() {
    let mut desk = external(breaker());
    // 10000 were written down; there are half of it.
    desk.quote(S, 99.0, 101.0);
    desk.say(S, snapshot(vec![], 20, "3000"));
    desk.quote(2 * S, 99.0, 101.0);
    assert_eq!(states(&desk), 0, "{:?}", desk.told(0));
    assert_eq!(desk.machine.equity().drawdown, 0.0);
    desk.quote(3 * S, 30.0, 32.0);
    assert_eq!(states(&desk), 1, "what is lost from then on counts");
}

#[test]
fn a_sale_that_only_a_snapshot_tells_of_is_no_loss() {
    let mut desk = external(breaker());
    desk.say(S, snapshot(vec![], 50, "5000"));
    desk.quote(2 * S, 99.0, 101.0);
    desk.say(3 * S, snapshot(vec![], 0, "10000"));
    assert_eq!(states(&desk), 0, "{:?}", desk.told(0));
}

#[test]
fn a_sale_at_a_loss_that_only_a_snapshot_tells_of_counts() {
    let mut desk = external(breaker());
    desk.say(S, snapshot(vec![], 50, "5000"));
    desk.quote(2 * S, 99.0, 101.0);
    desk.say(3 * S, snapshot(vec![], 0, "7500"));
    assert_eq!(states(&desk), 1, "{:?}", desk.told(0));
}

#[test]
fn money_that_is_withdrawn_is_no_loss_and_money_that_comes_hides_none() {
    for told in [false, true] {
        let mut desk = external(breaker());
        desk.say(S, snapshot(vec![], 50, "5000"));
        desk.quote(2 * S, 99.0, 101.0);
        let said = |desk: &mut Desk, ts, amount: &str, all: &str| match told {
            true => desk.say(ts, cash(amount, CashReason::Transfer)),
            false => desk.say(ts, snapshot(vec![], 50, all)),
        };
        said(&mut desk, 3 * S, "-4000", "1000");
        desk.quote(4 * S, 99.0, 101.0);
        assert_eq!(states(&desk), 0, "{:?}", desk.told(0));
        said(&mut desk, 5 * S, "99000", "100000");
        desk.quote(6 * S, 99.0, 101.0);
        // A fifth of what there is is lost now, not of what there was.
        desk.quote(7 * S, 1.0, 1.2);
        assert_eq!(states(&desk), 0);
        said(&mut desk, 8 * S, "-98000", "2000");
        desk.quote(9 * S, 1.0, 1.1);
        assert_eq!(states(&desk), 1, "{:?}", desk.told(0));
    }
}

#[test]
fn a_fill_that_the_snapshot_has_counts_once() {
    let (mut desk, order) = ordered();
    desk.say(4 * S, snapshot(vec![Open { order: order.clone(), filled: 5.into() }], 5, "9524"));
    let told = desk.say(5 * S, fill("1", order.id, Side::Buy, 5, "95"));
    assert_eq!((desk.position(), told), (d("5"), vec!["alert late_fill".to_owned()]));
    assert_eq!(desk.say(5 * S, fill("1", order.id, Side::Buy, 5, "95")), ["alert duplicate_fill"]);
    assert_eq!(desk.machine.ledger.cash("USD"), d("9524"));
    desk.say(6 * S, fill("2", order.id, Side::Buy, 5, "95"));
    assert_eq!((desk.position(), desk.working()), (d("10"), vec![]));
    assert_eq!(desk.machine.ledger.cash("USD"), d("9048"));
}

#[test]
fn what_a_snapshot_has_of_a_fill_is_not_booked_again() {
    let (mut desk, order) = ordered();
    desk.say(4 * S, snapshot(vec![Open { order: order.clone(), filled: 2.into() }], 2, "9809"));
    desk.say(5 * S, fill("1", order.id, Side::Buy, 4, "95"));
    // The other half of the fill, and of its fee.
    assert_eq!((desk.position(), desk.machine.ledger.cash("USD")), (d("4"), d("9618.5")));
}

#[test]
fn fills_of_an_adopted_order_from_before_it_was_known_are_not_waited_for() {
    let mut desk = external(json!({}));
    let (_, mut order) = ordered();
    order.id = OrderId(77);
    desk.quote(S, 99.0, 100.0);
    desk.say(2 * S, snapshot(vec![Open { order: order.clone(), filled: 4.into() }], 4, "9000"));
    desk.say(3 * S, fill("8", order.id, Side::Buy, 3, "95"));
    assert_eq!((desk.position(), desk.working().len()), (d("7"), 1));
    desk.say(4 * S, fill("9", order.id, Side::Buy, 3, "95"));
    assert_eq!((desk.position(), desk.working()), (d("10"), vec![]));
}

#[test]
fn a_snapshot_ends_a_change_that_was_never_answered() {
    let mut desk = external(json!({ "protect": { "stop_loss": { "fraction": 0.1 } } }));
    desk.quote(S, 99.0, 100.0);
    desk.say(S, snapshot(vec![], 0, "10000"));
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    desk.say(3 * S, fill("1", id, Side::Buy, 4, "100"));
    let stop = desk.machine.own.orders.iter().find(|o| o.order.id != id).unwrap().order.clone();
    desk.say(3 * S, Said::Accepted { order: stop.id });
    assert!(
        desk.say(4 * S, fill("2", id, Side::Buy, 6, "100")).contains(&"modify Some(10) None None".into())
    );
    // One of the same instant may be from before the change.
    let same = || snapshot(vec![Open { order: stop.clone(), filled: Decimal::ZERO }], 10, "8998");
    assert_eq!(desk.say(4 * S, same()), [""; 0]);
    assert_eq!(desk.say(5 * S, same()), ["modify Some(10) None None"]);
    let told = desk.say(6 * S, Said::ChangeRejected { order: stop.id, reason: "no".into() });
    assert_eq!(told, ["working", "alert unguarded"], "4 of 10 are guarded");
}

#[test]
fn a_cancel_that_was_refused_behind_a_change_that_was_taken_is_asked_again() {
    let (mut desk, order) = ordered();
    let id = order.id;
    desk.signal_with(4 * S, Want::Long, |s| s.order.limit = Some(96.0));
    assert_eq!(desk.want(5 * S, Want::Flat), ["cancel"]);
    desk.say(6 * S, Said::ChangeRejected { order: id, reason: "the cancel".into() });
    let told =
        desk.say(6 * S, Said::Replaced { order: id, quantity: 10.into(), limit: Some(d("96")), stop: None });
    assert!(told.contains(&"alert cancel_rejected".into()), "{told:?}");
    desk.say(7 * S, snapshot(vec![Open { order, filled: Decimal::ZERO }], 0, "10000"));
    assert_eq!(desk.want(8 * S, Want::Flat), ["cancel"]);
}

#[test]
fn an_order_that_was_taken_for_over_and_works_is_counted() {
    let over: [fn(OrderId) -> Said; 4] = [
        |order| Said::Rejected { order, reason: "not sent: too old".into() },
        |order| Said::Canceled { order, reason: None },
        |order| Said::Expired { order },
        |_| snapshot(vec![], 0, "10000"),
    ];
    for over in over {
        let (mut desk, order) = ordered();
        desk.say(4 * S, over(order.id));
        assert_eq!(desk.working(), [""; 0]);
        assert_eq!(desk.say(5 * S, Said::Accepted { order: order.id }), ["alert order_revived", "working"]);
        assert_eq!(desk.machine.ledger.reserved(order.id), d("10"));
        // It is what is wanted: nothing is sent beside it. And it can be taken back.
        assert_eq!(desk.want(6 * S, Want::Long), [""; 0]);
        assert_eq!(desk.want(7 * S, Want::Flat), ["cancel"]);
    }
}

#[test]
fn an_order_that_works_after_all_is_taken_back_where_nothing_may() {
    let (mut desk, order) = ordered();
    desk.control(4 * S, Control::Halt);
    desk.say(5 * S, Said::Canceled { order: order.id, reason: None });
    assert_eq!(
        desk.say(6 * S, Said::Accepted { order: order.id }),
        ["alert order_revived", "working", "cancel"]
    );
    // One that is filled is not.
    desk.say(7 * S, fill("1", order.id, Side::Buy, 10, "95"));
    assert_eq!(desk.say(8 * S, Said::Accepted { order: order.id }), [""; 0]);
    assert_eq!(desk.working(), [""; 0]);
}
