//! An external venue: reports, snapshots, and what must never be done twice.

use super::*;
use crate::event::Reason;
use crate::order::{Order, OrderType, Side, TimeInForce};
use crate::report::{CashReason, Open, Snapshot};

fn snapshot(orders: Vec<Open>, position: i64) -> Said {
    let positions = if position == 0 { vec![] } else { vec![(0, Decimal::from(position), Some(d("100")))] };
    Said::Snapshot(Snapshot { orders, positions, cash: vec![("USD".into(), d("10000"))] })
}

fn external() -> Desk {
    let mut desk = Desk::new(json!({ "venue": { "kind": "external" } }));
    desk.quote(S, 99.0, 100.0);
    desk
}

fn started() -> Desk {
    let mut desk = external();
    desk.say(S, snapshot(vec![], 0));
    desk
}

fn fill(id: &str, order: OrderId, quantity: i64) -> Said {
    Said::Filled(Fill {
        id: id.into(),
        order,
        instrument: 0,
        side: Side::Buy,
        price: d("100"),
        quantity: quantity.into(),
        fee: Decimal::ZERO,
        fee_currency: "USD".into(),
        maker: None,
    })
}

fn open(id: u128, quantity: i64, filled: i64) -> Open {
    let order = Order {
        id: OrderId(id),
        instrument: 0,
        side: Side::Buy,
        quantity: quantity.into(),
        order_type: OrderType::Limit { limit: d("90") },
        time_in_force: TimeInForce::Gtc,
        post_only: false,
        reduce_only: false,
    };
    Open { order, filled: filled.into() }
}

#[test]
fn nothing_is_sent_before_the_first_snapshot() {
    let mut desk = external();
    assert_eq!(desk.want(2 * S, Want::Long), ["refused venue.snapshot"]);
    assert_eq!(desk.say(3 * S, snapshot(vec![], 0)), [""; 0]);
    assert_eq!(desk.want(4 * S, Want::Long), ["buy 10 market"]);
}

#[test]
fn the_first_snapshot_is_where_the_machine_begins() {
    let mut desk = external();
    let said = Said::Snapshot(Snapshot {
        orders: vec![open(5, 10, 4)],
        positions: vec![(0, d("7"), Some(d("80")))],
        cash: vec![("USD".into(), d("25000"))],
    });
    let told = desk.say(2 * S, said);
    assert_eq!(told, ["alert unknown_order", "partly_filled", "cash 15000 Transfer"]);
    assert_eq!(desk.position(), d("7"));
    assert_eq!(desk.working(), ["buy 10 limit 90"]);
    // 7 held and 6 that may still come: leaving takes the order back, then sells what is there.
    assert_eq!(desk.want(3 * S, Want::Flat), ["cancel"]);
    assert_eq!(
        desk.say(4 * S, Said::Canceled { order: OrderId(5), reason: None }),
        ["canceled", "sell 7 market"]
    );
}

#[test]
fn a_fill_counts_once_whenever_it_comes() {
    let mut desk = started();
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    // Before the acknowledgement, twice, and after the cancel.
    assert_eq!(desk.say(3 * S, fill("1", id, 4)), ["fill 4 at 100 -> 4", "partly_filled"]);
    assert_eq!(desk.say(3 * S, fill("1", id, 4)), ["alert duplicate_fill"]);
    assert_eq!(desk.say(4 * S, Said::Accepted { order: id }), [""; 0]);
    assert_eq!(desk.want(5 * S, Want::Flat), ["cancel"]);
    assert_eq!(desk.say(6 * S, Said::Canceled { order: id, reason: None }), ["canceled", "sell 4 market"]);
    let told = desk.say(7 * S, fill("2", id, 3));
    assert_eq!(told, ["fill 3 at 100 -> 7", "canceled"]);
    assert_eq!(desk.say(8 * S, fill("2", id, 3)), ["alert duplicate_fill"]);
    assert_eq!(desk.position(), d("7"));
}

#[test]
fn a_fill_of_an_order_that_nobody_knows_is_told_and_counts() {
    let mut desk = started();
    let told = desk.say(2 * S, fill("9", OrderId(77), 5));
    assert_eq!(told, ["fill 5 at 100 -> 5", "alert unknown_fill"]);
    assert_eq!(desk.position(), d("5"));
    assert_eq!(desk.say(3 * S, Said::Accepted { order: OrderId(77) }), ["alert unknown_order"]);
}

#[test]
fn an_order_that_the_venue_does_not_have_is_asked_for_and_never_sent_again() {
    let mut desk = started();
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    assert_eq!(desk.say(3 * S, snapshot(vec![], 0)), ["unknown"]);
    assert_eq!(desk.say(4 * S, snapshot(vec![], 0)), [""; 0]);
    // The same wish: it is on its way, as far as anyone knows.
    assert_eq!(desk.want(5 * S, Want::Long), [""; 0]);
    // It had come after all.
    assert_eq!(desk.say(6 * S, Said::Accepted { order: id }), ["working"]);
    assert_eq!(desk.say(7 * S, fill("1", id, 10)), ["fill 10 at 100 -> 10", "filled"]);
}

#[test]
fn silence_is_no_answer() {
    let mut desk = started();
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    for ts in 3..2000 {
        desk.say(ts * S, snapshot(vec![], 0));
    }
    // It may still come; only the venue's word ends it.
    assert_eq!(desk.want(2000 * S, Want::Long), [""; 0]);
    assert_eq!(desk.say(2001 * S, Said::Rejected { order: id, reason: "no".into() }), ["rejected"]);
    assert_eq!(desk.want(2002 * S, Want::Long), ["buy 10 market"]);
}

#[test]
fn an_order_that_the_venue_had_and_has_no_more_is_over_and_positions_are_the_venues() {
    let mut desk = started();
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    desk.say(3 * S, Said::Accepted { order: id });
    // It was filled while nobody listened.
    let told = desk.say(4 * S, snapshot(vec![], 10));
    assert_eq!(told, ["canceled", "alert position_differs"]);
    assert_eq!(desk.position(), d("10"));
    // The fill comes at last: it is in the position already.
    assert_eq!(desk.say(3 * S, fill("1", id, 10)), ["alert late_fill", "filled"]);
    assert_eq!(desk.position(), d("10"));
}

#[test]
fn a_rejected_order_is_not_tried_again() {
    let mut desk = started();
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    assert_eq!(desk.say(3 * S, Said::Rejected { order: id, reason: "no".into() }), ["rejected"]);
    assert_eq!(desk.working(), [""; 0]);
    desk.advance(100 * S);
    assert_eq!(desk.working(), [""; 0]);
}

#[test]
fn a_cancel_that_is_refused_ends_the_goal_not_the_order() {
    let mut desk = started();
    desk.signal_with(2 * S, Want::Long, |s| s.order.limit = Some(95.0));
    let id = desk.order();
    desk.say(3 * S, Said::Accepted { order: id });
    desk.want(4 * S, Want::Flat);
    let told = desk.say(5 * S, Said::ChangeRejected { order: id, reason: "too late".into() });
    assert_eq!(told, ["working", "alert cancel_rejected"]);
    // The fill shows why; nothing was doubled.
    assert_eq!(desk.say(6 * S, fill("1", id, 10)), ["fill 10 at 100 -> 10", "filled"]);
    assert_eq!(desk.want(7 * S, Want::Flat), ["sell 10 market"]);
}

#[test]
fn cash_is_the_venues() {
    let mut desk = started();
    let cash =
        Said::Cash { currency: "USD".into(), amount: d("-3.5"), reason: CashReason::Fee, instrument: None };
    assert_eq!(desk.say(2 * S, cash), ["cash -3.5 Fee"]);
    let told = desk.say(3 * S, snapshot(vec![], 0));
    assert_eq!(told, ["alert cash_differs", "cash 3.5 Other"]);
}

#[test]
fn a_guard_that_the_venue_refuses_is_told_and_not_tried_for_ever() {
    let mut desk = Desk::new(
        json!({ "venue": { "kind": "external" }, "protect": { "stop_loss": { "fraction": 0.1 } } }),
    );
    desk.quote(S, 99.0, 100.0);
    desk.say(S, snapshot(vec![], 0));
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    let told = desk.say(3 * S, fill("1", id, 10));
    assert_eq!(told, ["fill 10 at 100 -> 10", "filled", "sell 10 stop 90"]);
    let stop = desk.order();
    let sent = desk
        .events
        .iter()
        .filter(|e| matches!(e.what, Happened::Sent { reason: Reason::StopLoss, .. }))
        .count();
    assert_eq!(sent, 1);
    let told = desk.say(4 * S, Said::Rejected { order: stop, reason: "not allowed".into() });
    assert_eq!(told, ["rejected", "alert unguarded"]);
    assert_eq!(desk.working(), [""; 0]);
}

#[test]
fn statuses_follow_the_life_of_an_order() {
    let mut desk = started();
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    assert_eq!(desk.machine.own.orders.get(id).unwrap().status, Status::Pending);
    assert_eq!(desk.say(3 * S, Said::Expired { order: id }), ["expired"]);
    // A split of an external venue comes as a report.
    desk.say(4 * S, fill("1", id, 4));
    let told = desk.say(5 * S, Said::Split { instrument: 0, ratio: 2.into() });
    assert_eq!(told, ["alert split"]);
    assert_eq!(desk.position(), d("8"));
}

#[test]
fn reports_that_begin_again_hold_new_orders_back_until_their_snapshot() {
    // What became of an order that was sent after the last checkpoint: it works, it is filled, it never came.
    for (orders, position, sent) in
        [(vec![open(5, 10, 0)], 0, None), (vec![], 10, None), (vec![], 0, Some("buy 10 market"))]
    {
        let mut desk = started();
        assert_eq!(desk.say(2 * S, Said::Reconciling), [""; 0]);
        assert_eq!(desk.want(3 * S, Want::Long), [""; 0]);
        desk.advance(9 * S);
        assert_eq!(desk.working(), [""; 0]);
        let told = desk.say(10 * S, snapshot(orders, position));
        assert_eq!(told.iter().find(|t| t.starts_with("buy")).map(String::as_str), sent, "{told:?}");
        assert_eq!(desk.want(11 * S, Want::Flat).len(), 1);
    }
}

#[test]
fn a_stop_that_is_reached_before_that_snapshot_closes_what_it_tells_of() {
    let protect = json!({ "stop_loss": { "fraction": 0.1 }, "at": "machine" });
    let mut desk = Desk::new(json!({ "venue": { "kind": "external" }, "protect": protect }));
    desk.quote(S, 99.0, 100.0);
    desk.say(S, snapshot(vec![], 0));
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    desk.say(3 * S, fill("1", id, 10));
    desk.say(4 * S, Said::Reconciling);
    assert_eq!(desk.quote(5 * S, 80.0, 81.0), [""; 0]);
    assert_eq!(desk.advance(100 * S), [""; 0]);
    let told = desk.say(101 * S, snapshot(vec![], 7));
    assert_eq!(told.last().map(String::as_str), Some("sell 7 market"), "{told:?}");
}

#[test]
fn slices_that_fall_due_before_that_snapshot_are_sent_after_it() {
    let algo = json!({ "algo": { "twap": { "over": "10s", "slices": 5 } } });
    let mut desk = Desk::new(json!({ "venue": { "kind": "external" }, "order": algo }));
    desk.quote(S, 99.0, 100.0);
    desk.say(S, snapshot(vec![], 0));
    assert_eq!(desk.want(2 * S, Want::Long), ["buy 2 market"]);
    let first = desk.order();
    desk.say(3 * S, fill("1", first, 2));
    desk.say(3 * S, Said::Reconciling);
    assert_eq!(desk.advance(100 * S), [""; 0]);
    let told = desk.say(101 * S, snapshot(vec![], 2));
    assert_eq!(told.last().map(String::as_str), Some("buy 8 market"), "{told:?}");
}
