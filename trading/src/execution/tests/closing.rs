//! Positions that must go and cannot, yet.

use super::*;
use crate::event::Reason;
use crate::report::Snapshot;

const HOUR: i64 = 3600 * S;

/// A share that is traded from 9 to 17 UTC, each day.
fn by_day(with: Value) -> Desk {
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let session = json!({ "zone": "UTC", "open": "09:00", "close": "17:00", "days": days });
    let mut all = json!({ "instruments": [{ "symbol": "A", "session": session }] });
    for (key, value) in with.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut desk = Desk::new(all);
    desk.quote(10 * HOUR, 99.0, 100.0);
    desk.want(11 * HOUR, Want::Long);
    assert_eq!(desk.position(), d("10"));
    desk
}

fn sells(desk: &Desk) -> Vec<i64> {
    let sell = |e: &&Event| text(&e.what).is_some_and(|t| t.starts_with("sell 10 market"));
    desk.events.iter().filter(sell).map(|e| e.ts).collect()
}

#[test]
fn what_cannot_be_closed_after_the_session_is_closed_when_the_next_one_opens() {
    let mut desk = by_day(json!({}));
    let told = desk.control(18 * HOUR, Control::Flatten);
    assert_eq!(told, ["Halted", "sell 10 market", "rejected", "alert close_failed"]);
    // What is wished for meanwhile is refused, not kept for the morning.
    assert_eq!(desk.want(19 * HOUR, Want::Target(d("20"))), ["refused closing"]);
    assert_eq!(desk.advance(33 * HOUR - 1), [""; 0]);
    assert_eq!(desk.advance(33 * HOUR)[0], "sell 10 market");
    desk.quote(33 * HOUR + S, 98.0, 99.0);
    assert_eq!(desk.position(), Decimal::ZERO);
    desk.advance(200 * HOUR);
    assert_eq!(sells(&desk), [18 * HOUR, 33 * HOUR]);
}

#[test]
fn a_drawdown_after_the_session_closes_when_the_next_one_opens() {
    let mut desk = by_day(
        json!({ "sizing": { "fixed": 10 }, "risk": { "drawdown": { "max": 0.01, "action": "flatten" } } }),
    );
    let told = desk.quote(18 * HOUR, 80.0, 81.0);
    assert_eq!(told, ["Halted", "sell 10 market", "rejected", "alert close_failed"]);
    for minute in 1..100 {
        assert_eq!(desk.quote(18 * HOUR + 60 * minute * S, 79.0, 80.0), [""; 0]);
    }
    desk.quote(33 * HOUR, 79.0, 80.0);
    assert_eq!(desk.position(), Decimal::ZERO);
}

#[test]
fn a_guard_that_cannot_close_sends_no_order_with_each_tick() {
    let mut desk = by_day(json!({ "protect": { "stop_loss": { "fraction": 0.05 }, "at": "machine" } }));
    for n in 0..500 {
        desk.quote(18 * HOUR + n * S / 10, 90.0, 91.0);
    }
    assert_eq!(sells(&desk), [18 * HOUR]);
    desk.quote(33 * HOUR + S, 90.0, 91.0);
    assert_eq!(sells(&desk), [18 * HOUR, 33 * HOUR]);
    assert_eq!(desk.position(), Decimal::ZERO);
}

#[test]
fn resume_ends_what_the_kill_switch_could_not_close() {
    let mut desk = by_day(json!({ "protect": { "stop_loss": { "fraction": 0.05 } } }));
    desk.control(18 * HOUR, Control::Flatten);
    assert_eq!(desk.working(), [""; 0]);
    // The position stays, and so does its guard.
    assert_eq!(desk.control(19 * HOUR, Control::Resume)[..2], ["Normal", "sell 10 stop 95"]);
    desk.advance(40 * HOUR);
    assert_eq!((desk.position(), sells(&desk)), (d("10"), vec![18 * HOUR]));
}

#[test]
fn a_new_wish_takes_the_place_of_a_guards_closing_and_an_old_one_does_not() {
    let with = json!({ "protect": { "stop_loss": { "fraction": 0.05 }, "at": "machine", "reenter": true } });
    let mut desk = by_day(with);
    desk.quote(18 * HOUR, 90.0, 91.0);
    assert_eq!(desk.want(19 * HOUR, Want::Long), ["refused closing"]);
    let told = desk.signal_with(20 * HOUR, Want::Long, |s| s.strength = 2.0);
    assert_eq!(told, ["buy 10 market", "rejected"]);
    assert_eq!(desk.advance(34 * HOUR), [""; 0]);
    // The price is still beyond the guard, which has its say again, and no more often than before.
    desk.quote(34 * HOUR, 90.0, 91.0);
    assert_eq!(desk.position(), Decimal::ZERO);
}

#[test]
fn a_halted_symbol_is_closed_when_it_goes_on() {
    let mut desk = Desk::new(json!({ "protect": { "stop_loss": { "fraction": 0.05 }, "at": "machine" } }));
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    desk.tick(3 * S, "A", Market::Halt(true));
    assert_eq!(desk.quote(4 * S, 90.0, 91.0), ["alert close_waits"]);
    assert_eq!(desk.quote(5 * S, 90.0, 91.0), [""; 0]);
    assert_eq!(desk.control(6 * S, Control::Flatten), ["Halted", "alert close_waits"]);
    assert_eq!(desk.advance(600 * S), [""; 0]);
    assert_eq!(desk.tick(601 * S, "A", Market::Halt(false))[0], "sell 10 market");
    desk.quote(602 * S, 90.0, 91.0);
    assert_eq!(desk.position(), Decimal::ZERO);
}

fn broker(with: Value) -> Desk {
    let mut all = json!({ "venue": { "kind": "external" } });
    for (key, value) in with.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut desk = Desk::new(all);
    desk.quote(S, 99.0, 100.0);
    let positions = vec![(0, d("10"), Some(d("100")))];
    let cash = vec![("USD".into(), d("10000"))];
    desk.say(S, Said::Snapshot(Snapshot { orders: vec![], positions, cash }));
    desk
}

#[test]
fn a_broker_that_refuses_is_asked_again_later_and_later() {
    let mut desk = broker(json!({}));
    let mut ts = 2 * S;
    desk.control(ts, Control::Flatten);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        let order = desk.order();
        let told = desk.say(ts, Said::Rejected { order, reason: "not now".into() });
        assert_eq!(told, ["rejected", "alert close_failed"]);
        // Not with each tick, not before its time, and then once.
        assert_eq!(desk.quote(ts + 1, 50.0, 51.0), [""; 0]);
        assert_eq!(desk.advance(ts + wait * S - 1), [""; 0]);
        ts += wait * S;
        assert_eq!(desk.advance(ts), ["sell 10 market"]);
    }
    // A person asks again: at once.
    let order = desk.order();
    desk.say(ts, Said::Rejected { order, reason: "not now".into() });
    assert_eq!(desk.control(ts + 1, Control::Flatten), ["sell 10 market"]);
    let order = desk.order();
    let fill = |id: &str, quantity: &str| {
        Said::Filled(Fill {
            id: id.into(),
            order,
            instrument: 0,
            side: crate::order::Side::Sell,
            price: d("50"),
            quantity: d(quantity),
            fee: Decimal::ZERO,
            fee_currency: "USD".into(),
            maker: None,
        })
    };
    desk.say(ts + 2, fill("1", "4"));
    // What was taken shows that orders are: the waits begin anew.
    desk.say(ts + 3, Said::Canceled { order, reason: None });
    assert_eq!(desk.advance(ts + 3 + S), ["sell 6 market"]);
    let sent =
        desk.events.iter().filter(|e| matches!(e.what, Happened::Sent { reason: Reason::KillSwitch, .. }));
    assert_eq!(sent.count(), 11);
}

#[test]
fn a_second_command_leaves_the_closing_order_alone() {
    let mut desk = broker(json!({}));
    assert_eq!(desk.control(2 * S, Control::Flatten), ["Halted", "sell 10 market"]);
    assert_eq!(desk.control(3 * S, Control::Flatten), [""; 0]);
    assert_eq!(desk.want(4 * S, Want::Cancel), [""; 0]);
    assert_eq!(desk.working(), ["sell 10 market"]);
}

#[test]
fn orders_of_a_halted_symbol_are_refused_and_its_guard_comes_back() {
    let mut desk = broker(json!({ "protect": { "stop_loss": { "fraction": 0.1 } } }));
    assert_eq!(desk.working(), ["sell 10 stop 90"]);
    desk.tick(2 * S, "A", Market::Halt(true));
    assert_eq!(desk.want(3 * S, Want::Target(d("20"))), ["refused halted"]);
    let stop = desk.order();
    assert_eq!(
        desk.say(4 * S, Said::Rejected { order: stop, reason: "halted".into() }),
        ["rejected", "alert unguarded"]
    );
    assert_eq!(desk.tick(5 * S, "A", Market::Halt(false)), ["sell 10 stop 90"]);
    assert_eq!(desk.want(6 * S, Want::Target(d("20"))), ["buy 10 market"]);
}

#[test]
fn dust_is_not_tried_for_ever() {
    let instrument = json!({ "symbol": "A", "lot": 1, "min_quantity": 20 });
    let mut desk = broker(
        json!({ "instruments": [instrument], "protect": { "stop_loss": { "fraction": 0.05 }, "at": "machine" } }),
    );
    assert_eq!(desk.quote(2 * S, 90.0, 91.0), ["refused instrument.min_quantity"]);
    assert_eq!(desk.quote(3 * S, 90.0, 91.0), [""; 0]);
    assert_eq!(desk.advance(1000 * S), [""; 0]);
}
