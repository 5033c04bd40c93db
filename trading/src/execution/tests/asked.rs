//! Guards that cannot be, triggers on the wrong side, sizes below a lot: refused by name, once.

use super::*;

fn desk(with: Value) -> Desk {
    let mut all = json!({ "short": true, "account": { "kind": "margin", "cash": { "USD": 100_000 } } });
    for (key, value) in with.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut desk = Desk::new(all);
    desk.trade(S, 100.0);
    desk
}

type Ask = fn(&mut Signal);

#[test]
fn an_entry_that_cannot_be_guarded_is_refused_by_the_guards_name() {
    let none: Ask = |_| {};
    let table: Vec<(Value, Want, Ask, &str)> = vec![
        (json!({ "stop_loss": { "atr": 2 } }), Want::Long, none, "protect.stop_loss"),
        (json!({ "stop_loss": { "atr": 2 } }), Want::Long, |s| s.atr = Some(f64::NAN), "protect.stop_loss"),
        (json!({ "stop_loss": { "atr": 2 } }), Want::Long, |s| s.atr = Some(60.0), "protect.stop_loss"),
        (json!({ "trailing": { "atr": 2 } }), Want::Long, none, "protect.trailing"),
        (json!({ "trailing": { "amount": 100 } }), Want::Long, none, "protect.trailing"),
        (json!({ "take_profit": { "atr": 2 } }), Want::Target(Decimal::TEN), none, "protect.take_profit"),
        (json!({ "take_profit": { "fraction": 1.5 } }), Want::Short, none, "protect.take_profit"),
        (json!({ "stop_loss": { "amount": 500 } }), Want::Long, none, "protect.stop_loss"),
        (json!({}), Want::Long, |s| s.stop_loss = Some(-5.0), "protect.stop_loss"),
        (json!({}), Want::Long, |s| s.stop_loss = Some(0.0), "protect.stop_loss"),
        (json!({}), Want::Long, |s| s.stop_loss = Some(1e300), "protect.stop_loss"),
        (json!({}), Want::Long, |s| s.stop_loss = Some(0.001), "protect.stop_loss"),
        (json!({}), Want::Long, |s| s.stop_loss = Some(150.0), "protect.stop_loss"),
        (json!({}), Want::Long, |s| s.stop_loss = Some(100.0), "protect.stop_loss"),
        (json!({}), Want::Long, |s| s.take_profit = Some(50.0), "protect.take_profit"),
        (json!({}), Want::Long, |s| s.take_profit = Some(0.0), "protect.take_profit"),
        (json!({}), Want::Short, |s| s.stop_loss = Some(90.0), "protect.stop_loss"),
        (json!({}), Want::Short, |s| s.take_profit = Some(110.0), "protect.take_profit"),
        (json!({}), Want::Trade(Decimal::TEN), |s| s.stop_loss = Some(150.0), "protect.stop_loss"),
        (
            json!({ "stop_loss": { "fraction": 0.1 } }),
            Want::Long,
            |s| s.stop_loss = Some(-1.0),
            "protect.stop_loss",
        ),
    ];
    for (protect, want, ask, rule) in table {
        let mut desk = desk(json!({ "protect": protect }));
        assert_eq!(desk.signal_with(2 * S, want, ask), [format!("refused {rule}")], "{protect} {want:?}");
        // The same wish is not told of again; one without fault goes on.
        assert_eq!(desk.signal_with(3 * S, want, ask), [""; 0], "{protect} {want:?}");
        desk.want(4 * S, Want::Flat);
        assert_eq!(desk.signal_with(5 * S, want, ask).len(), 1, "{protect} {want:?}");
        assert_eq!(desk.position(), Decimal::ZERO);
    }
    let mut desk = desk(json!({}));
    let good: Ask = |s| (s.stop_loss, s.take_profit) = (Some(90.0), Some(110.0));
    assert_eq!(desk.signal_with(2 * S, Want::Long, good), ["buy 10 market", "working"]);
}

#[test]
fn a_limit_is_what_its_guard_is_measured_by() {
    let mut desk = desk(json!({}));
    let ask: Ask = |s| (s.order.limit, s.stop_loss) = (Some(80.0), Some(85.0));
    assert_eq!(desk.signal_with(2 * S, Want::Long, ask), ["refused protect.stop_loss"]);
    let ask: Ask = |s| (s.order.limit, s.take_profit) = (Some(80.0), Some(95.0));
    assert_eq!(desk.signal_with(3 * S, Want::Long, ask), ["buy 10 limit 80", "working"]);
}

#[test]
fn a_turn_whose_guard_cannot_be_still_leaves() {
    let mut desk = desk(json!({}));
    desk.want(2 * S, Want::Long);
    desk.trade(3 * S, 100.0);
    let told = desk.signal_with(4 * S, Want::Short, |s| s.stop_loss = Some(90.0));
    assert_eq!(told, ["refused protect.stop_loss", "sell 10 market", "working"]);
    desk.trade(5 * S, 100.0);
    assert_eq!((desk.position(), desk.working()), (Decimal::ZERO, vec![]));
}

#[test]
fn a_guard_that_becomes_impossible_is_told_once() {
    let mut desk = desk(json!({ "protect": { "stop_loss": { "amount": 50 } } }));
    desk.want(2 * S, Want::Long);
    // It opens at half the price.
    let told = desk.tick(3 * S, "A", Market::Trade { price: 40.0, size: 4.0 });
    assert_eq!(told, ["fill 4 at 40 -> 4", "partly_filled", "alert unguarded"]);
    assert_eq!(desk.trade(4 * S, 40.0), ["fill 6 at 40 -> 10", "filled"]);
}

#[test]
fn a_trigger_on_the_wrong_side_of_the_market_is_refused() {
    for (want, stop, price) in [(Want::Long, 50.0, "buy"), (Want::Short, 150.0, "sell")] {
        let mut desk = desk(json!({}));
        assert_eq!(
            desk.signal_with(2 * S, want, |s| s.order.stop = Some(stop)),
            ["refused order.stop"],
            "{price}"
        );
        assert_eq!(desk.signal_with(3 * S, want, |s| s.order.stop = Some(stop)), [""; 0]);
        let told = desk.signal_with(4 * S, want, |s| s.order.stop = Some(100.0));
        assert_eq!(told[0], format!("{price} 10 stop 100"));
    }
    // An exit too: what guards the position stays.
    let mut desk = desk(json!({ "protect": { "stop_loss": { "amount": 10 } } }));
    desk.want(2 * S, Want::Long);
    desk.trade(3 * S, 100.0);
    assert_eq!(desk.signal_with(4 * S, Want::Flat, |s| s.order.stop = Some(150.0)), ["refused order.stop"]);
    assert_eq!(desk.working(), ["sell 10 stop 90"]);
}

#[test]
fn a_size_below_a_lot_is_told_when_the_wish_changes() {
    let half = d("0.5");
    for (with, want) in [
        (json!({ "sizing": { "fixed": 0.5 } }), Want::Long),
        (json!({ "sizing": { "equity": 0.0005 } }), Want::Short),
        (json!({ "sizing": { "fixed": 0.5 }, "mode": "trade" }), Want::Long),
        (json!({}), Want::Target(half)),
        (json!({}), Want::Trade(-half)),
        (json!({}), Want::Weight(0.00001)),
    ] {
        let mut desk = desk(with);
        assert_eq!(desk.want(2 * S, want), ["refused instrument.lot"], "{want:?}");
        assert_eq!(desk.want(3 * S, want), [""; 0], "{want:?}");
        assert_eq!(desk.want(4 * S, Want::Target(d("0.7"))), ["refused instrument.lot"]);
        let detail = desk.events.iter().rev().find_map(|e| match &e.what {
            Happened::Refused { detail, .. } => Some(detail.clone()),
            _ => None,
        });
        let detail = detail.unwrap();
        assert!(detail.starts_with("0.7 units of A are less than its lot of 1, "), "{detail}");
    }
    // What may not be held anyway is no matter of lots.
    let mut long_only = Desk::new(json!({ "sizing": { "fixed": 0.5 } }));
    long_only.trade(S, 100.0);
    assert_eq!(long_only.want(2 * S, Want::Short), [""; 0]);
}

#[test]
fn a_wish_for_less_than_a_lot_takes_the_place_of_an_older_one() {
    let mut desk = desk(json!({}));
    desk.signal_with(2 * S, Want::Target(d("10")), |s| s.order.limit = Some(90.0));
    assert_eq!(desk.want(3 * S, Want::Weight(0.00001)), ["refused instrument.lot", "cancel", "canceled"]);
}

#[test]
fn a_repeated_wish_with_another_stop_moves_the_stop() {
    for at in ["venue", "machine"] {
        let mut desk = desk(json!({ "protect": { "at": at } }));
        desk.signal_with(2 * S, Want::Long, |s| (s.stop_loss, s.take_profit) = (Some(90.0), Some(120.0)));
        desk.trade(3 * S, 100.0);
        let told = desk.signal_with(4 * S, Want::Long, |s| s.stop_loss = Some(95.0));
        if at == "venue" {
            assert_eq!(told, ["modify None None Some(95)", "working"]);
            assert_eq!(desk.working(), ["sell 10 stop 95", "sell 10 limit 120"]);
        }
        // One that says nothing changes nothing, one that cannot be is told.
        assert_eq!(desk.want(5 * S, Want::Long), [""; 0]);
        let told = desk.signal_with(6 * S, Want::Long, |s| s.stop_loss = Some(105.0));
        assert_eq!(told, ["refused protect.stop_loss"]);
        desk.trade(7 * S, 94.0);
        desk.trade(8 * S, 94.0);
        assert_eq!(desk.position(), Decimal::ZERO, "{at}");
    }
}

#[test]
fn a_new_stop_also_holds_for_what_is_still_being_bought() {
    let mut desk = desk(json!({}));
    desk.signal_with(2 * S, Want::Long, |s| (s.order.limit, s.stop_loss) = (Some(98.0), Some(90.0)));
    desk.signal_with(3 * S, Want::Long, |s| (s.order.limit, s.stop_loss) = (Some(98.0), Some(95.0)));
    desk.trade(4 * S, 97.0);
    assert_eq!(desk.working(), ["sell 10 stop 95"]);
    desk.signal_with(5 * S, Want::Target(d("4")), |s| s.stop_loss = Some(96.0));
    desk.trade(6 * S, 97.0);
    assert_eq!((desk.position(), desk.working()), (d("4"), vec!["sell 4 stop 96".into()]));
}
