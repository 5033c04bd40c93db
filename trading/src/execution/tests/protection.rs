//! Guards, states, liquidation.

use super::*;

fn guarded(at: &str) -> Desk {
    let with = json!({ "protect": { "stop_loss": { "fraction": 0.02 }, "take_profit": { "fraction": 0.05 }, "at": at } });
    let mut desk = Desk::new(with);
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.position(), d("10"));
    desk
}

#[test]
fn a_position_gets_its_pair_of_guards_and_one_ends_the_other() {
    let mut desk = guarded("venue");
    assert_eq!(desk.working(), ["sell 10 stop 98", "sell 10 limit 105"]);
    let told = desk.quote(3 * S, 105.5, 106.0);
    assert!(told.contains(&"fill 10 at 105 -> 0".to_owned()), "{told:?}");
    assert_eq!(desk.working(), [""; 0]);
    assert_eq!(desk.position(), Decimal::ZERO);
    // The same wish does not open it again, a new one does.
    assert_eq!(desk.want(4 * S, Want::Long), [""; 0]);
    desk.want(5 * S, Want::Flat);
    assert_eq!(desk.want(6 * S, Want::Long)[0], "buy 10 market");
}

#[test]
fn guards_grow_and_shrink_with_their_position() {
    let mut desk = guarded("venue");
    let told = desk.want(3 * S, Want::Target(d("15")));
    assert!(told.iter().any(|t| t.starts_with("modify Some(15)")), "{told:?}");
    assert_eq!(desk.working(), ["sell 15 stop 98", "sell 15 limit 105"]);
    // Less: the guards stand aside, come back smaller.
    desk.want(4 * S, Want::Target(d("6")));
    assert_eq!(desk.position(), d("6"));
    assert_eq!(desk.working(), ["sell 6 stop 98", "sell 6 limit 105"]);
    desk.want(5 * S, Want::Flat);
    assert_eq!((desk.working(), desk.position()), (vec![], Decimal::ZERO));
}

#[test]
fn the_machine_watches_where_the_venue_should_not() {
    let mut desk = guarded("machine");
    assert_eq!(desk.working(), [""; 0]);
    assert_eq!(desk.quote(3 * S, 98.1, 98.2), [""; 0]);
    let told = desk.quote(4 * S, 97.9, 98.1);
    assert_eq!(told, ["sell 10 market", "working", "fill 10 at 97.9 -> 0", "filled"]);
    assert_eq!(desk.want(5 * S, Want::Long), [""; 0]);
}

#[test]
fn signals_name_their_own_prices() {
    let mut desk = Desk::new(json!({}));
    desk.quote(S, 99.0, 100.0);
    desk.signal_with(2 * S, Want::Long, |s| (s.stop_loss, s.take_profit) = (Some(95.0), Some(112.0)));
    assert_eq!(desk.working(), ["sell 10 stop 95", "sell 10 limit 112"]);
}

#[test]
fn a_trailing_guard_is_one_order() {
    let mut desk = Desk::new(json!({ "protect": { "trailing": { "amount": 3 } } }));
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.working(), ["sell 10 trailing Amount(3)"]);
    for (ts, price) in [(3, 104.0), (4, 106.0), (5, 104.0)] {
        desk.quote(ts * S, price, price + 0.1);
        desk.tick(ts * S, "A", Market::Trade { price, size: 5.0 });
    }
    assert_eq!(desk.position(), d("10"));
    desk.quote(6 * S, 102.9, 103.0);
    desk.tick(6 * S, "A", Market::Trade { price: 102.9, size: 5.0 });
    assert_eq!(desk.position(), Decimal::ZERO);
}

#[test]
fn halt_cancels_and_refuses_until_resumed() {
    let mut desk = guarded("venue");
    let told = desk.control(3 * S, Control::Halt);
    assert_eq!(told[0], "Halted");
    assert_eq!(desk.working(), [""; 0]);
    assert!(desk.want(4 * S, Want::Target(d("20")))[0].starts_with("refused "));
    assert_eq!(desk.position(), d("10"));
    desk.control(5 * S, Control::Resume);
    assert_eq!(desk.working(), ["sell 10 stop 98", "sell 10 limit 105"]);
    desk.want(6 * S, Want::Target(d("12")));
    assert_eq!(desk.position(), d("12"));
    assert_eq!(desk.working().len(), 2);
}

#[test]
fn flatten_takes_everything_back_and_closes_at_market() {
    let mut desk = guarded("venue");
    let told = desk.control(3 * S, Control::Flatten);
    assert!(told.contains(&"fill 10 at 99 -> 0".to_owned()), "{told:?}");
    assert_eq!((desk.working(), desk.position()), (vec![], Decimal::ZERO));
    assert!(desk.want(4 * S, Want::Target(d("1")))[0].starts_with("refused "));
}

#[test]
fn a_drawdown_flattens() {
    let mut desk = Desk::new(
        json!({ "sizing": { "fixed": 90 }, "risk": { "drawdown": { "max": 0.1, "action": "flatten" } } }),
    );
    desk.quote(S, 99.9, 100.0);
    desk.want(2 * S, Want::Long);
    // 90 units at 89: 9 % are gone, at 88: more than 10 %.
    assert_eq!(desk.quote(3 * S, 89.9, 90.1), [""; 0]);
    let told = desk.quote(4 * S, 87.9, 88.1);
    assert_eq!(told[0], "Halted");
    assert_eq!(desk.position(), Decimal::ZERO);
}

#[test]
fn a_margin_account_is_liquidated_when_its_margin_is_used_up() {
    let account = json!({ "kind": "margin", "cash": { "USD": 1000 } });
    let perpetual = json!({ "symbol": "A", "class": "perpetual", "lot": 0.1, "initial_margin": 0.1, "maintenance_margin": 0.05 });
    let with = json!({ "account": account, "instruments": [perpetual], "sizing": { "fixed": 50 }, "venue": { "kind": "paper", "liquidate": true } });
    let mut desk = Desk::new(with);
    desk.quote(S, 100.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.position(), d("50"));
    // E = 1000 + 50 (p - 100), M = 0.05 x 50 p: equal at 4000 / 47.5 = 84.21.
    assert_eq!(desk.quote(3 * S, 84.3, 84.3), [""; 0]);
    let told = desk.quote(4 * S, 84.2, 84.2);
    assert_eq!(told[..2], ["alert liquidated", "sell 50 market"]);
    assert_eq!(desk.position(), Decimal::ZERO);
}

/// 390 short at 100 with 10,000; the price jumps from 110 to 900, past the liquidation price of 111.68.
#[test]
fn an_account_that_a_jump_ruins_is_told_so() {
    let account = json!({ "kind": "margin", "leverage_max": 4, "cash": { "USD": 10000 } });
    let mut desk = Desk::new(json!({ "account": account, "short": true }));
    desk.trade(S, 100.0);
    desk.want(2 * S, Want::Target(d("-390")));
    desk.trade(3 * S, 100.0);
    assert_eq!(desk.trade(4 * S, 110.0), [""; 0]);
    let told = desk.trade(5 * S, 900.0);
    assert_eq!(told[..2], ["alert liquidated", "buy 390 market"]);
    let told = desk.trade(6 * S, 900.0);
    assert!(told.contains(&"alert ruined".to_owned()), "{told:?}");
    assert_eq!(desk.machine.ledger.equity(), -302_000.0);
    assert_eq!(desk.want(7 * S, Want::Target(d("100"))), ["refused account.margin"]);
}

#[test]
fn funding_falls_due_at_the_mark() {
    let perpetual = json!({ "symbol": "A", "class": "perpetual", "initial_margin": 0.1 });
    let mut desk = Desk::new(json!({ "instruments": [perpetual] }));
    desk.quote(S, 100.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.tick(3 * S, "A", Market::Funding { rate: 0.0001 }), ["cash -0.1 Funding"]);
}
