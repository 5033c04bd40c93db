//! Splits: what was measured, what guards and what follows is of the new units.

use super::*;
use crate::execution::corporate::{CorporateAction, CorporateKind};
use crate::report::Snapshot;

fn desk(at: i64, symbol: &str, ratio: &str, with: Value) -> Desk {
    let action =
        CorporateAction { ts: at, symbol: symbol.into(), kind: CorporateKind::Split, value: d(ratio) };
    let machine = Execution::with_corporate_actions(params(with), "job", "node", vec![action]).unwrap();
    Desk { machine, events: Vec::new(), seq: 0 }
}

#[test]
fn volatility_is_measured_across_a_split() {
    let with = json!({
        "account": { "cash": { "USD": 1_000_000 } },
        "instruments": [{ "symbol": "A", "tick": 0.0001, "lot": 0.001 }],
        "sizing": { "volatility": { "target": 0.05, "max_leverage": 0.9 } },
        "history": { "every": "1s", "window": 100, "min_samples": 10, "periods_per_year": 252 },
    });
    let units = |split_at: i64| {
        let mut desk = desk(split_at, "A", "10", with.clone());
        for n in 1..60 {
            let by = if n * S < split_at { 1.0 } else { 10.0 };
            desk.trade(n * S, (100.0 + (n % 7) as f64) / by);
        }
        let told = desk.want(60 * S, Want::Long);
        let units = told[0].strip_prefix("buy ").unwrap().strip_suffix(" market").unwrap();
        units.parse::<f64>().unwrap()
    };
    let (before, after) = (units(1000 * S), units(30 * S));
    assert!((after / before - 10.0).abs() < 0.01, "{before} {after}");
}

#[test]
fn the_collar_knows_of_the_split() {
    let mut desk = desk(5 * S, "A", "10", json!({ "risk": { "collar": { "bps": 100 } } }));
    desk.quote(S, 99.9, 100.0);
    desk.want(2 * S, Want::Long);
    desk.advance(6 * S);
    assert_eq!(desk.want(7 * S, Want::Flat)[0], "sell 100 market");
}

#[test]
fn a_trailing_stop_keeps_its_best_price() {
    for at in ["venue", "machine"] {
        let with = json!({ "protect": { "trailing": { "amount": 3 }, "at": at } });
        let mut desk = desk(10 * S, "A", "2", with);
        desk.quote(S, 99.0, 100.0);
        desk.want(2 * S, Want::Long);
        desk.quote(3 * S, 106.0, 106.1);
        let before: Vec<OrderId> = desk.machine.orders().iter().map(|o| o.order.id).collect();
        assert!(!desk.advance(11 * S).contains(&"cancel".to_owned()));
        let after: Vec<OrderId> = desk.machine.orders().iter().map(|o| o.order.id).collect();
        assert_eq!(before, after);
        // 106 - 3 is 53 - 1.5.
        desk.quote(12 * S, 51.6, 51.7);
        assert_eq!(desk.position(), d("20"), "{at}");
        desk.quote(13 * S, 51.4, 51.5);
        assert_eq!(desk.position(), Decimal::ZERO, "{at}");
    }
}

#[test]
fn guards_are_on_the_tick_after_a_split() {
    let with =
        json!({ "protect": { "stop_loss": { "fraction": 0.0199 }, "take_profit": { "amount": 2.01 } } });
    let mut desk = desk(10 * S, "A", "10", with);
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.working(), ["sell 10 stop 98.01", "sell 10 limit 102.01"]);
    desk.advance(11 * S);
    assert_eq!(desk.working(), ["sell 100 stop 9.8", "sell 100 limit 10.21"]);
}

#[test]
fn slices_that_are_to_come_have_the_new_prices() {
    let with = json!({ "order": { "algo": { "twap": { "over": "10s", "slices": 2 } } } });
    let mut desk = desk(4 * S, "A", "2", with);
    desk.quote(S, 99.0, 100.0);
    desk.signal_with(2 * S, Want::Long, |s| s.order.limit = Some(90.0));
    desk.advance(60 * S);
    assert_eq!(desk.working(), ["buy 10 limit 45", "buy 10 limit 45"]);
}

#[test]
fn an_action_of_a_symbol_that_nobody_showed_is_told() {
    let mut desk = desk(5 * S, "TYPO", "2", json!({}));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.advance(6 * S), ["alert unknown_symbol"]);
}

#[test]
fn a_broker_needs_no_file_of_actions() {
    let with = json!({ "venue": { "kind": "external" }, "corporate_actions": "actions.csv" });
    let wrong = Execution::new(params(with), "job", "node").err().unwrap();
    assert_eq!(wrong[0].0, "corporate_actions");
}

/// A broker whose account had `units` at `average`, and has others after a split that it did not tell of.
fn adopted(with: Value, (units, average): (&str, &str), signal: impl FnOnce(&mut Signal)) -> Desk {
    let mut all =
        json!({ "venue": { "kind": "external" }, "sizing": { "fixed": units.parse::<f64>().unwrap() } });
    for (key, value) in with.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut desk = Desk::new(all);
    desk.say(S, has("0", "0"));
    desk.trade(2 * S, average.parse().unwrap());
    desk.signal_with(3 * S, Want::Long, signal);
    let fill = Fill {
        id: "1".into(),
        order: desk.order(),
        instrument: 0,
        side: crate::order::Side::Buy,
        price: d(average),
        quantity: d(units),
        fee: Decimal::ZERO,
        fee_currency: "USD".into(),
        maker: None,
    };
    desk.say(4 * S, Said::Filled(fill));
    desk
}

fn has(units: &str, average: &str) -> Said {
    let positions = if units == "0" { vec![] } else { vec![(0, d(units), Some(d(average)))] };
    Said::Snapshot(Snapshot { orders: vec![], positions, cash: vec![] })
}

#[test]
fn a_guard_that_is_watched_here_goes_by_what_a_snapshot_says() {
    let with = json!({ "protect": { "take_profit": { "fraction": 0.2 }, "stop_loss": { "fraction": 0.1 }, "at": "machine" } });
    // One for ten, told by nobody but the snapshot: 12 would be a gain of the old units.
    let mut desk = adopted(with.clone(), ("100", "10"), |_| {});
    desk.say(10 * S, has("10", "100"));
    assert_eq!(desk.trade(11 * S, 100.0), [""; 0]);
    assert_eq!(desk.trade(12 * S, 119.9), [""; 0]);
    assert_eq!(desk.trade(13 * S, 120.0), ["sell 10 market"]);
    // Ten for one: 90 would be a loss.
    let mut desk = adopted(with, ("10", "100"), |_| {});
    desk.say(10 * S, has("100", "10"));
    assert_eq!(desk.trade(11 * S, 9.1), [""; 0]);
    assert_eq!(desk.trade(12 * S, 9.0), ["sell 100 market"]);
}

#[test]
fn prices_that_signals_gave_are_of_the_new_units() {
    let mut desk = adopted(json!({ "protect": { "at": "machine" } }), ("100", "10"), |s| {
        (s.take_profit, s.stop_loss) = (Some(12.0), Some(9.0));
    });
    let told = desk.say(10 * S, has("10", "100"));
    assert_eq!(told, ["alert position_differs", "alert position_split"]);
    assert_eq!(desk.trade(11 * S, 119.0), [""; 0]);
    assert_eq!(desk.trade(12 * S, 90.0), ["sell 10 market"]);
    // Bought while nobody listened: the prices are of these units.
    let mut desk = adopted(json!({ "protect": { "at": "machine" } }), ("100", "10"), |s| {
        (s.take_profit, s.stop_loss) = (Some(12.0), Some(9.0));
    });
    assert_eq!(desk.say(10 * S, has("150", "10.1")), ["alert position_differs"]);
    assert_eq!(desk.trade(11 * S, 9.1), [""; 0]);
    assert_eq!(desk.trade(12 * S, 9.0), ["sell 150 market"]);
}

#[test]
fn a_trailing_guard_begins_anew_with_the_first_price_after_it() {
    let with = json!({ "protect": { "trailing": { "fraction": 0.05 }, "at": "machine" } });
    let mut desk = adopted(with, ("10", "100"), |_| {});
    desk.say(10 * S, has("100", "10"));
    assert_eq!(desk.trade(11 * S, 10.0), [""; 0]);
    assert_eq!(desk.trade(12 * S, 10.4), [""; 0]);
    assert_eq!(desk.trade(13 * S, 9.89), [""; 0]);
    assert_eq!(desk.trade(14 * S, 9.88), ["sell 100 market"]);
}
