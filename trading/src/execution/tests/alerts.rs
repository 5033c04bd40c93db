//! Each alert that a person may get, from what makes it.

use super::*;
use crate::execution::corporate::{CorporateAction, CorporateKind};
use crate::order::Side;
use crate::report::{CashReason, Snapshot};

fn broker(with: Value) -> Desk {
    let mut all = json!({ "venue": { "kind": "external" } });
    for (key, value) in with.as_object().unwrap() {
        all[key] = value.clone();
    }
    let mut desk = Desk::new(all);
    desk.quote(S, 99.0, 100.0);
    let cash = vec![("USD".into(), d("10000"))];
    desk.say(S, Said::Snapshot(Snapshot { orders: vec![], positions: vec![], cash }));
    desk
}

fn filled(desk: &mut Desk, id: &str, side: Side, price: &str, quantity: &str) -> Said {
    let order = desk.order();
    Said::Filled(Fill {
        id: id.into(),
        order,
        instrument: 0,
        side,
        price: d(price),
        quantity: d(quantity),
        fee: Decimal::ZERO,
        fee_currency: "USD".into(),
        maker: None,
    })
}

fn cash(amount: Decimal) -> Said {
    Said::Cash { currency: "USD".into(), amount, reason: CashReason::Other, instrument: None }
}

/// A paper account with an action that falls due at 5 s.
fn paper(with: Value, kind: CorporateKind, value: Decimal) -> Desk {
    let action = CorporateAction { ts: 5 * S, symbol: "A".into(), kind, value };
    let machine = Execution::with_corporate_actions(params(with), "job", "node", vec![action]).unwrap();
    let mut desk = Desk { machine, events: Vec::new(), seq: 0 };
    desk.quote(S, 99.0, 100.0);
    desk
}

/// What makes it.
type Makes = fn() -> Desk;

#[test]
fn what_makes_no_sense_is_told_by_its_name() {
    let table: &[(&str, Makes)] = &[
        ("wrong_side", || {
            let mut desk = broker(json!({}));
            desk.want(2 * S, Want::Long);
            let fill = filled(&mut desk, "1", Side::Sell, "100", "4");
            desk.say(3 * S, fill);
            assert_eq!(desk.position(), d("-4"));
            desk
        }),
        ("rejected_after_fill", || {
            let mut desk = broker(json!({}));
            desk.want(2 * S, Want::Long);
            let order = desk.order();
            let fill = filled(&mut desk, "1", Side::Buy, "100", "4");
            desk.say(3 * S, fill);
            desk.say(4 * S, Said::Rejected { order, reason: "no".into() });
            assert_eq!((desk.position(), desk.working().len()), (d("4"), 0));
            desk
        }),
        ("dividend_refused", || {
            let mut desk = paper(json!({}), CorporateKind::Dividend, Decimal::MAX);
            desk.want(2 * S, Want::Long);
            desk.advance(6 * S);
            assert_eq!(desk.machine.ledger.cash("USD"), d("9000"));
            desk
        }),
        ("split_refused", || {
            let mut desk = paper(json!({}), CorporateKind::Split, Decimal::MAX);
            desk.want(2 * S, Want::Long);
            desk.advance(6 * S);
            assert_eq!(desk.position(), d("10"));
            desk
        }),
        ("split_refused", || {
            let mut desk = broker(json!({}));
            desk.say(2 * S, Said::Split { instrument: 7, ratio: 2.into() });
            desk
        }),
        ("interest_refused", || {
            let instrument = json!({ "symbol": "A", "borrow_rate": 1e13 });
            let account = json!({ "kind": "margin", "cash": { "USD": 10000 } });
            let venue = json!({ "kind": "paper", "liquidate": false });
            let with =
                json!({ "account": account, "instruments": [instrument], "short": true, "venue": venue });
            let mut desk = Desk::new(with);
            desk.quote(S, 99.0, 100.0);
            desk.want(2 * S, Want::Short);
            desk.trade(3 * S, 1e15);
            // Two days later: each is told once, and time goes on.
            desk.advance(2 * 86_400 * S);
            desk.advance(2 * 86_400 * S + 1);
            let refused = |e: &&Event| text(&e.what).is_some_and(|t| t == "alert interest_refused");
            assert_eq!(desk.events.iter().filter(refused).count(), 2);
            desk
        }),
        ("cash_refused", || {
            let mut desk = broker(json!({}));
            desk.say(2 * S, cash(Decimal::MAX));
            assert_eq!(desk.machine.ledger.cash("USD"), d("10000"));
            desk
        }),
        ("cash_refused", || {
            let mut desk = broker(json!({}));
            desk.say(2 * S, cash(d("-20000")));
            let cash = vec![("USD".into(), Decimal::MAX)];
            desk.say(3 * S, Said::Snapshot(Snapshot { orders: vec![], positions: vec![], cash }));
            desk
        }),
    ];
    for (code, makes) in table {
        let desk = makes();
        let codes: Vec<String> = desk.events.iter().filter_map(|e| text(&e.what)).collect();
        assert!(codes.contains(&format!("alert {code}")), "{code}: {codes:?}");
    }
}

#[test]
fn a_cash_account_that_owes_is_told_once_and_again_when_it_had_paid() {
    let mut desk = broker(json!({}));
    desk.want(2 * S, Want::Long);
    let fill = filled(&mut desk, "1", Side::Buy, "2000", "6");
    let told = desk.say(3 * S, fill);
    assert_eq!(told, ["fill 6 at 2000 -> 6", "partly_filled", "alert negative_balance"]);
    let fill = filled(&mut desk, "2", Side::Buy, "2000", "4");
    assert_eq!(desk.say(4 * S, fill), ["fill 4 at 2000 -> 10", "filled"]);
    assert_eq!(desk.say(5 * S, cash(d("10000"))), ["cash 10000 Other"]);
    // By a fee, and as the venue has it.
    assert_eq!(desk.say(6 * S, cash(d("-1"))), ["cash -1 Other", "alert negative_balance"]);
    assert_eq!(desk.say(7 * S, cash(d("1"))), ["cash 1 Other"]);
    let said = |cash: &str| {
        let positions = vec![(0, d("10"), Some(d("2000")))];
        Said::Snapshot(Snapshot { orders: vec![], positions, cash: vec![("USD".into(), d(cash))] })
    };
    let told = desk.say(8 * S, said("-5"));
    assert_eq!(told, ["alert cash_differs", "cash -5 Other", "alert negative_balance"]);
    assert_eq!(desk.say(9 * S, said("-5")), [""; 0]);
}

#[test]
fn a_margin_account_may_borrow_cash_but_not_owe_more_than_it_has() {
    let account = json!({ "kind": "margin", "leverage_max": 4, "cash": { "USD": 1000 } });
    let venue = json!({ "kind": "paper", "liquidate": false });
    let with = json!({ "account": account, "sizing": { "fixed": 30 }, "sample": "10s", "venue": venue });
    let mut desk = Desk::new(with);
    desk.quote(S, 100.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert!(desk.machine.ledger.cash("USD") < Decimal::ZERO);
    // 3000 were bought with 1000: below 66.67 nothing of it is left.
    desk.quote(11 * S, 67.0, 67.0);
    assert_eq!(desk.advance(20 * S), [""; 0]);
    desk.quote(21 * S, 66.0, 66.0);
    assert_eq!(desk.advance(30 * S), ["alert negative_balance"]);
    desk.quote(31 * S, 65.0, 65.0);
    assert_eq!(desk.advance(40 * S), [""; 0]);
}
