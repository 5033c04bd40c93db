//! Limits that hold whatever way an order comes to be: by a change of its prices, as reduce-only, behind a `flatten` or a `reduce`.

use super::*;
use crate::order::Side;
use crate::report::{Open, Snapshot};

fn snapshot(orders: Vec<Open>, position: i64, cash: &str) -> Said {
    let positions = if position == 0 { vec![] } else { vec![(0, Decimal::from(position), Some(d("100")))] };
    Said::Snapshot(Snapshot { orders, positions, cash: vec![("USD".into(), d(cash))] })
}

fn external(with: Value, position: i64, cash: &str) -> Desk {
    let mut whole = json!({ "venue": { "kind": "external" } });
    for (key, value) in with.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let mut desk = Desk::new(whole);
    desk.quote(S, 99.0, 100.0);
    desk.say(S, snapshot(vec![], position, cash));
    desk
}

fn limit(desk: &mut Desk, ts: i64, want: Want, limit: f64) -> Vec<String> {
    desk.signal_with(ts, want, |s| s.order.limit = Some(limit))
}

#[test]
fn a_change_of_price_passes_the_rules_of_an_order() {
    let rules = [
        ("collar.bps", json!({ "collar": { "bps": 100 } }), 900.0, 10_000),
        ("position.max_notional", json!({ "position": { "max_notional": 1000 } }), 105.0, 2_000),
        ("order.max_notional", json!({ "order": { "max_notional": 1000 } }), 105.0, 2_000),
        ("stale", json!({ "stale": "1s" }), 96.0, 1_000),
        ("account.cash", json!({}), 99.9, 998),
    ];
    for (rule, risk, price, cash) in rules {
        let mut desk = external(json!({ "risk": risk }), 0, &cash.to_string());
        let free = |desk: &Desk| desk.machine.ledger.free_cash("USD");
        desk.quote(2 * S, 99.0, 100.0);
        assert_eq!(limit(&mut desk, 2 * S, Want::Long, 95.0), ["buy 10 limit 95"], "{rule}");
        let id = desk.order();
        desk.say(3 * S, Said::Accepted { order: id });
        assert_eq!(limit(&mut desk, 4 * S, Want::Long, price), [format!("refused {rule}")]);
        // Told once of a wish; the order stays as it is, with what it reserves.
        assert_eq!(limit(&mut desk, 5 * S, Want::Long, price), [""; 0], "{rule}");
        assert_eq!(desk.working(), ["buy 10 limit 95"]);
        assert_eq!(free(&desk), Decimal::from(cash - 950));
        // What passes, goes: its own cash is there for it.
        desk.quote(6 * S, 99.0, 100.0);
        assert_eq!(limit(&mut desk, 6 * S, Want::Long, 97.5), ["modify None Some(97.5) None"], "{rule}");
        assert_eq!(free(&desk), Decimal::from(cash - 975), "from now on, not from the venue's answer");
        desk.say(7 * S, Said::ChangeRejected { order: id, reason: "no".into() });
        assert_eq!(free(&desk), Decimal::from(cash - 950));
    }
}

#[test]
fn a_change_of_price_waits_for_no_halted_account() {
    let mut desk = external(json!({ "protect": {} }), 0, "1000");
    limit(&mut desk, 2 * S, Want::Long, 95.0);
    let id = desk.order();
    desk.say(3 * S, Said::Accepted { order: id });
    desk.control(4 * S, Control::Halt);
    desk.say(5 * S, Said::ChangeRejected { order: id, reason: "not now".into() });
    assert_eq!(limit(&mut desk, 6 * S, Want::Long, 96.0), ["refused control.halt"]);
}

#[test]
fn an_order_that_may_only_reduce_is_for_no_more_than_what_is_held() {
    let with = || json!({ "order": { "reduce_only": true }, "risk": { "order": { "max_quantity": 5 } } });
    let mut desk = external(with(), 0, "10000");
    assert_eq!(desk.want(2 * S, Want::Long), ["refused order.reduce_only"]);
    let mut desk = external(with(), 3, "10000");
    assert_eq!(desk.signal_with(2 * S, Want::Trade(d("-10")), |_| {}), ["sell 3 market"]);
    assert_eq!(desk.signal_with(2 * S, Want::Trade(d("10")), |_| {}), ["refused order.reduce_only"]);
}

#[test]
fn flatten_holds_for_a_fill_that_comes_late() {
    let mut desk = external(json!({}), 0, "10000");
    desk.want(2 * S, Want::Long);
    let id = desk.order();
    desk.control(3 * S, Control::Flatten);
    desk.say(4 * S, Said::Canceled { order: id, reason: None });
    let fill = Fill {
        id: "1".into(),
        order: id,
        instrument: 0,
        side: Side::Buy,
        price: d("100"),
        quantity: 10.into(),
        fee: Decimal::ZERO,
        fee_currency: "USD".into(),
        maker: None,
    };
    let told = desk.say(5 * S, Said::Filled(fill));
    assert_eq!(told, ["fill 10 at 100 -> 10", "filled", "sell 10 market"]);
}

#[test]
fn flatten_holds_for_a_position_that_a_snapshot_brings() {
    let mut desk = external(json!({}), 0, "10000");
    desk.control(3 * S, Control::Flatten);
    let told = desk.say(4 * S, snapshot(vec![], 7, "9300"));
    assert_eq!(told, ["alert position_differs", "alert cash_differs", "cash -700 Other", "sell 7 market"]);
    // After a `halt` it stays: that closes nothing.
    let mut desk = external(json!({}), 0, "10000");
    desk.control(3 * S, Control::Halt);
    assert!(!desk.say(4 * S, snapshot(vec![], 7, "9300")).iter().any(|t| t.starts_with("sell")));
}

#[test]
fn reduce_leaves_no_orders_that_together_turn_a_position() {
    let with =
        json!({ "mode": "trade", "short": true, "account": { "kind": "margin", "cash": { "USD": 10000 } } });
    let mut desk = external(with, 10, "9000");
    for n in 0..2 {
        limit(&mut desk, (2 + n) * S, Want::Short, 110.0);
    }
    let first = desk.machine.own.orders.iter().next().unwrap().order.id;
    let told = desk.control(5 * S, Control::Reduce);
    assert_eq!(told.iter().filter(|t| *t == "cancel").count(), 1, "{told:?}");
    assert!(!desk.machine.own.orders.get(first).unwrap().canceling, "what came first stays");
}
