//! Orders of each kind, goals, turns, limits of the account.

use super::*;

#[test]
fn a_market_order_is_filled_at_the_ask_and_goes_into_the_position() {
    let mut desk = Desk::new(json!({}));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long), ["buy 10 market", "working", "fill 10 at 100 -> 10", "filled"]);
    // Repeating it changes nothing, leaving it sells at the bid.
    assert_eq!(desk.want(3 * S, Want::Long), [""; 0]);
    assert_eq!(desk.want(4 * S, Want::Flat), ["sell 10 market", "working", "fill 10 at 99 -> 0", "filled"]);
    // 10 x 100 bought, 10 x 99 sold.
    assert_eq!(desk.machine.ledger.cash("USD"), d("9990"));
}

#[test]
fn latency_delays_what_happens_to_its_own_time() {
    let mut desk = Desk::new(json!({ "venue": { "kind": "paper", "latency": "5ms" } }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long), ["buy 10 market"]);
    // At the venue after 5 ms; the quote has moved by then.
    desk.quote(2 * S + 1_000_000, 100.0, 101.0);
    let told = desk.quote(3 * S, 100.0, 102.0);
    assert_eq!(told, ["working", "fill 10 at 101 -> 10", "filled"]);
    let fill = desk.events.iter().find(|e| matches!(e.what, Happened::Filled { .. })).unwrap();
    assert_eq!(fill.ts, 2 * S + 5_000_000);
}

#[test]
fn a_sell_without_a_position_does_nothing_unless_shorts_are_allowed() {
    let mut desk = Desk::new(json!({}));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Short), [""; 0]);
    let mut desk =
        Desk::new(json!({ "short": true, "account": { "kind": "margin", "cash": { "USD": 10000 } } }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(
        desk.want(2 * S, Want::Short),
        ["sell 10 market", "working", "fill 10 at 99 -> -10", "filled"]
    );
    // A turn is one order of twice the size.
    assert_eq!(desk.want(3 * S, Want::Long), ["buy 20 market", "working", "fill 20 at 100 -> 10", "filled"]);
}

#[test]
fn a_turn_in_two_orders_closes_first() {
    let with = json!({ "short": true, "account": { "kind": "margin", "cash": { "USD": 10000 } }, "order": { "turn": "two" } });
    let mut desk = Desk::new(with);
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    let told = desk.want(3 * S, Want::Short);
    assert_eq!(
        told,
        [
            "sell 10 market",
            "working",
            "fill 10 at 99 -> 0",
            "filled",
            "sell 10 market",
            "working",
            "fill 10 at 99 -> -10",
            "filled"
        ]
    );
}

#[test]
fn a_limit_rests_until_the_market_comes_and_follows_a_new_limit() {
    let mut desk = Desk::new(json!({}));
    desk.quote(S, 99.0, 100.0);
    let limit = |price: f64| move |s: &mut Signal| s.order.limit = Some(price);
    assert_eq!(desk.signal_with(2 * S, Want::Long, limit(98.5)), ["buy 10 limit 98.5", "working"]);
    let told = desk.signal_with(3 * S, Want::Long, limit(98.7));
    assert_eq!(told, ["modify None Some(98.7) None", "working"]);
    let told = desk.quote(4 * S, 98.0, 98.6);
    assert_eq!(told, ["fill 10 at 98.7 -> 10", "filled"]);
}

#[test]
fn graph_wide_limits_stand_behind_the_quote() {
    let mut desk =
        Desk::new(json!({ "order": { "type": "limit", "offset": { "ticks": 3 }, "time_in_force": "day" } }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long), ["buy 10 limit 98.97", "working"]);
    // Leaving: the buy order is taken back; nothing is held, so nothing is sold.
    assert_eq!(desk.want(3 * S, Want::Flat), ["cancel", "canceled"]);
    assert_eq!(desk.working(), [""; 0]);
}

#[test]
fn stops_and_their_limits_come_from_the_signal() {
    let mut desk = Desk::new(json!({}));
    desk.trade(S, 100.0);
    let told = desk.signal_with(2 * S, Want::Long, |s| s.order.stop = Some(101.004));
    assert_eq!(told, ["buy 10 stop 101.01", "working"]);
    desk.trade(3 * S, 101.0);
    let told = desk.trade(4 * S, 101.02);
    assert!(told.is_empty() || told[0].starts_with("fill"), "{told:?}");
    let told = desk.trade(5 * S, 101.1);
    assert!(desk.position() == d("10"), "{told:?} {:?}", desk.working());
    let told =
        desk.signal_with(6 * S, Want::Flat, |s| (s.order.stop, s.order.limit) = (Some(99.0), Some(98.5)));
    assert_eq!(told, ["sell 10 stop 99 limit 98.5", "working"]);
    let told = desk.want(7 * S, Want::Cancel);
    assert_eq!(told, ["cancel", "canceled"]);
    let told = desk.signal_with(8 * S, Want::Flat, |s| s.order.trail = Some(0.5));
    assert_eq!(told, ["sell 10 trailing Amount(0.5)", "working"]);
}

#[test]
fn types_of_the_graph_lie_on_the_right_side_of_the_market() {
    for (order, buy, sell) in [
        (json!({ "type": "stop", "trigger": { "bps": 100 } }), "buy 10 stop 101", "sell 10 stop 99"),
        (json!({ "type": "take_profit", "trigger": { "amount": 2 } }), "buy 10 take 98", "sell 10 take 102"),
        (
            json!({ "type": "stop_limit", "trigger": { "ticks": 50 }, "offset": { "ticks": 10 } }),
            "buy 10 stop 100.5 limit 100.6",
            "sell 10 stop 99.5 limit 99.4",
        ),
        (json!({ "type": "limit", "from": "far" }), "buy 10 limit 100.01", "sell 10 limit 99.99"),
        (json!({ "type": "limit", "from": "mid" }), "buy 10 limit 100", "sell 10 limit 100"),
    ] {
        let with = json!({ "order": order, "short": true, "account": { "kind": "margin", "cash": { "USD": 10000 } } });
        for (want, expect) in [(Want::Long, buy), (Want::Short, sell)] {
            let mut desk = Desk::new(with.clone());
            desk.quote(S, 99.99, 100.01);
            assert_eq!(desk.want(2 * S, want)[0], expect, "{order}");
        }
    }
}

#[test]
fn a_new_goal_waits_until_what_works_against_it_is_gone() {
    let mut desk =
        Desk::new(json!({ "venue": { "kind": "paper", "latency": "1ms" }, "order": { "type": "limit" } }));
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Target(d("8")));
    desk.advance(3 * S);
    // Less is wanted: the order is taken back, and only when the venue has said so the rest is sent.
    assert_eq!(desk.want(4 * S, Want::Target(d("5"))), ["cancel"]);
    assert_eq!(desk.advance(5 * S), ["canceled", "buy 5 limit 99", "working"]);
    // More is wanted: only the difference is sent.
    assert_eq!(desk.want(6 * S, Want::Target(d("9"))), ["buy 4 limit 99"]);
}

#[test]
fn weights_follow_equity_and_a_band_keeps_them_quiet() {
    let mut desk = Desk::new(json!({ "rebalance": 0.1 }));
    desk.quote(S, 100.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Weight(0.5))[0], "buy 50 market");
    // 10 000 x 0.52 = 52 units: within a tenth. 0.6: 60 units.
    assert_eq!(desk.want(3 * S, Want::Weight(0.52)), [""; 0]);
    assert_eq!(desk.want(4 * S, Want::Weight(0.6))[0], "buy 10 market");
}

#[test]
fn trade_mode_adds_an_order_each_time() {
    let mut desk = Desk::new(json!({ "mode": "trade" }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long)[0], "buy 10 market");
    assert_eq!(desk.want(3 * S, Want::Long)[0], "buy 10 market");
    assert_eq!(desk.want(4 * S, Want::Short)[0], "sell 10 market");
    assert_eq!(desk.position(), d("10"));
    assert_eq!(desk.want(5 * S, Want::Trade(d("-4")))[0], "sell 4 market");
}

#[test]
fn a_cash_account_refuses_what_it_cannot_pay() {
    let mut desk = Desk::new(json!({ "sizing": { "fixed": 200 } }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long), ["refused account.cash"]);
}

#[test]
fn the_venues_sizes_are_kept() {
    let instrument =
        json!({ "symbol": "A", "lot": 0.5, "min_quantity": 2, "max_quantity": 4, "min_notional": 250 });
    let mut desk = Desk::new(json!({ "instruments": [instrument] }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Target(d("1.9"))), ["refused instrument.min_quantity"]);
    assert_eq!(desk.want(2 * S, Want::Target(d("2"))), ["refused instrument.min_notional"]);
    let sent: Vec<String> =
        desk.want(3 * S, Want::Target(d("9.3"))).into_iter().filter(|t| t.starts_with("buy")).collect();
    // 9 units: 4 + 4 and the rest of 1, which is less than the least order.
    assert_eq!(sent, ["buy 4 market", "buy 4 market"]);
    assert_eq!(desk.position(), d("8"));
}

#[test]
fn the_gate_names_its_rule() {
    let mut desk = Desk::new(json!({ "risk": { "position": { "max_notional": 500 } } }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long), ["refused position.max_notional"]);
    assert_eq!(desk.want(3 * S, Want::Target(d("4")))[0], "buy 4 market");
}

#[test]
fn positions_are_closed_before_the_session_ends() {
    let session = json!({ "zone": "UTC", "open": "09:00", "close": "17:00", "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] });
    let with = json!({ "instruments": [{ "symbol": "A", "session": session }], "flat_at_close": true, "flat_before": "10m" });
    let mut desk = Desk::new(with);
    let hour = 3600 * S;
    desk.quote(10 * hour, 99.0, 100.0);
    desk.want(11 * hour, Want::Long);
    assert_eq!(desk.position(), d("10"));
    let told = desk.advance(17 * hour - 600 * S);
    assert_eq!(told, ["sell 10 market", "working", "fill 10 at 99 -> 0", "filled"]);
    // Nothing is opened until the end.
    assert_eq!(desk.want(17 * hour - 300 * S, Want::Flat), [""; 0]);
    assert_eq!(desk.want(17 * hour - 300 * S, Want::Long), ["refused flat_at_close"]);
    // The next day it begins anew.
    desk.quote(34 * hour, 99.0, 100.0);
    desk.want(34 * hour, Want::Flat);
    assert_eq!(desk.want(34 * hour, Want::Long)[0], "buy 10 market");
    assert_eq!(desk.advance(41 * hour - 600 * S)[0], "sell 10 market");
}

#[test]
fn samples_come_on_the_grid_and_only_where_something_was_seen() {
    let mut desk = Desk::new(json!({ "sample": "10s" }));
    desk.quote(3 * S, 99.0, 101.0);
    desk.want(4 * S, Want::Long);
    desk.quote(12 * S, 109.0, 111.0);
    desk.advance(100 * S);
    let rows: Vec<(i64, f64)> = desk
        .events
        .iter()
        .filter_map(|e| if let Happened::Equity(row) = &e.what { Some((e.ts, row.equity)) } else { None })
        .collect();
    // Bought 10 at 101; the mid is 100, later 110.
    assert_eq!(rows, [(3 * S, 10_000.0), (10 * S, 9990.0), (20 * S, 10090.0)]);
}

#[test]
fn reduce_only_orders_open_nothing() {
    let mut desk = Desk::new(json!({ "order": { "reduce_only": true } }));
    desk.quote(S, 99.0, 100.0);
    let told = desk.want(2 * S, Want::Long);
    assert!(told.iter().all(|t| !t.starts_with("fill")), "{told:?}");
    assert_eq!(desk.position(), Decimal::ZERO);
}

/// Nearly all of the account is in the long side: one order turns it, for it sets that free.
#[test]
fn a_position_that_holds_all_margin_is_turned() {
    let mut desk = Desk::new(json!({
        "account": { "kind": "margin", "cash": { "USD": 100000 } }, "short": true, "sizing": { "fixed": 950 },
    }));
    desk.quote(S, 100.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long)[2], "fill 950 at 100 -> 950");
    desk.quote(3 * S, 100.0, 100.01);
    desk.quote(4 * S, 100.0, 100.0);
    let told = desk.want(5 * S, Want::Short);
    assert_eq!(told[0], "sell 1900 market");
    desk.quote(6 * S, 100.01, 100.02);
    assert_eq!(desk.position(), d("-950"));
}
