//! Splits, dividends, funding, interest, what venues say, and working orders in cash accounts.

use super::*;
use crate::order::{Order, OrderType, TimeInForce};
use crate::report::CashReason;

const DAY: i64 = 86_400_000_000_000;

fn order(id: u128, side: Side, quantity: &str) -> Order {
    Order {
        id: OrderId(id),
        instrument: 0,
        side,
        quantity: d(quantity),
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Gtc,
        post_only: false,
        reduce_only: false,
    }
}

#[test]
fn a_split_changes_units_and_prices_not_worth() {
    for method in ["fifo", "average"] {
        let mut ledger = ledger(&format!(r#"{{"pnl": "{method}", "cash": {{"USD": 10000}}}}"#), STOCK);
        ledger.fill(1, &fill(1, 0, "60", "10", "0")).unwrap();
        ledger.fill(1, &fill(2, 0, "45", "20", "0")).unwrap();
        ledger.mark(0, 30.0);
        ledger.reserve(&order(9, Side::Sell, "15"), d("33"));
        let equity = ledger.equity_exact();
        assert_eq!(ledger.split(2, 0, d("3"), false), Ok(None));
        assert_eq!((ledger.quantity(0), ledger.price(0), ledger.equity_exact()), (d("315"), 10.0, equity));
        assert_eq!((ledger.working(0).sells, ledger.working(0).sell_value), (d("45"), d("495")));
        // One for ten: 31.5 units, of which the half is paid at 100.
        let paid = ledger.split(3, 0, d("0.1"), true).unwrap().unwrap();
        assert_eq!((paid.amount, ledger.quantity(0)), (d("50"), d("31")));
        assert_eq!(ledger.equity_exact(), equity);
        // FIFO takes it from the lot at 10 (33.33 by now), average from 1500 / 31.5 = 47.6.
        let near = money::to_f64(ledger.position(0).realized);
        let expected = if method == "fifo" { 50.0 - 0.5 * 600.0 / 18.0 } else { 50.0 - 0.5 * 1500.0 / 31.5 };
        assert!((near - expected).abs() < 1e-12, "{near} {expected}");
        holds(&ledger);
        assert!(ledger.split(4, 0, d("0"), true).is_err() && ledger.split(4, 5, d("2"), true).is_err());
    }
}

#[test]
fn a_third_of_99_units_is_33() {
    let mut ledger = ledger(r#"{"cash": {"USD": 10000}}"#, STOCK);
    ledger.fill(1, &fill(1, 0, "99", "10", "0")).unwrap();
    assert_eq!(ledger.split(2, 0, d("0.3333333333333333333333333333"), true), Ok(None));
    assert_eq!((ledger.quantity(0), ledger.position(0).average), (d("33"), d("30")));
}

#[test]
fn the_long_receive_dividends_and_pay_funding() {
    let instruments = r#"[{ "symbol": "SPY" }, { "symbol": "BTCUSD", "class": "perpetual" }]"#;
    let mut ledger = ledger(r#"{"kind": "margin", "cash": {"USD": 10000}}"#, instruments);
    assert_eq!(ledger.dividend(1, 0, d("1.5")), Ok(None));
    ledger.fill(1, &fill(1, 0, "-10", "100", "0")).unwrap();
    assert_eq!(ledger.dividend(2, 0, d("1.5")).unwrap().unwrap().amount, d("-15"));
    ledger.fill(1, &fill(2, 1, "0.5", "20000", "0")).unwrap();
    ledger.mark(1, 20100.0);
    let paid = ledger.funding(3, 1, 0.0001).unwrap().unwrap();
    assert_eq!((paid.amount, paid.reason, paid.instrument), (d("-1.005"), CashReason::Funding, Some(1)));
    assert_eq!(ledger.moved("USD", CashReason::Dividend), d("-15"));
    assert!(ledger.funding(3, 1, f64::NAN).is_err());
    assert_eq!(ledger.cash("USD"), d("10983.995"));
    holds(&ledger);
}

/// 1000 short at 50 % a year and 500 owed at 10 % a year: 1000 x 0.5 / 365 and 500 x 0.1 / 365 each day.
#[test]
fn borrowing_costs_at_each_midnight() {
    let instruments = r#"[{ "symbol": "A" }, { "symbol": "B", "borrow_rate": 0.5 }]"#;
    let mut ledger = ledger(r#"{"kind": "margin", "interest": 0.1, "cash": {"USD": 500}}"#, instruments);
    assert_eq!(ledger.next_accrual(), i64::MIN);
    let mut moves = Vec::new();
    ledger.accrue(DAY / 2, &mut moves).unwrap();
    assert_eq!((moves.len(), ledger.next_accrual()), (0, DAY));
    ledger.fill(1, &fill(1, 0, "20", "100", "0")).unwrap();
    ledger.fill(1, &fill(2, 1, "-10", "100", "0")).unwrap();
    ledger.accrue(DAY - 1, &mut moves).unwrap();
    assert!(moves.is_empty());
    ledger.accrue(DAY, &mut moves).unwrap();
    let amounts: Vec<_> = moves.iter().map(|moved| (moved.ts, moved.amount, moved.instrument)).collect();
    assert_eq!(amounts, [(DAY, d("-0.1369863"), None), (DAY, d("-1.36986301"), Some(1))]);
    let whole = {
        let mut other = ledger.clone();
        let mut moves = Vec::new();
        other.accrue(5 * DAY + 7, &mut moves).unwrap();
        assert_eq!(moves.len(), 8);
        other
    };
    for ts in [DAY + 1, 2 * DAY, 4 * DAY - 1, 5 * DAY, 5 * DAY + 7] {
        ledger.accrue(ts, &mut moves).unwrap();
    }
    assert_eq!(
        ledger.state(),
        whole.state(),
        "when it is called does not matter, only which midnights passed"
    );
    holds(&ledger);
}

#[test]
fn what_the_venue_says_is_taken() {
    let mut ledger = ledger(r#"{"pnl": "fifo", "cash": {"USD": 1000}}"#, STOCK);
    ledger.fill(1, &fill(1, 0, "10", "10", "0")).unwrap();
    assert_eq!(ledger.adopt_position(2, 0, d("10"), None), Ok(d("0")));
    assert_eq!(ledger.adopt_position(2, 0, d("15"), None), Ok(d("5")));
    assert_eq!((ledger.position(0).average, ledger.lots(0).count()), (d("10"), 1));
    assert_eq!(ledger.adopt_position(2, 0, d("12"), Some(d("11"))), Ok(d("-3")));
    assert_eq!(ledger.position(0).cost, d("132"));
    assert_eq!(ledger.adopt_cash("USD", d("950")), Ok(d("50")));
    assert_eq!(ledger.adopt_cash("EUR", d("0")), Ok(d("0")));
    assert_eq!(ledger.equity_exact(), Some(d("1070")));
    assert_eq!(ledger.adopt_position(3, 0, d("0"), None), Ok(d("-12")));
    assert!(ledger.held().is_empty() && ledger.lots(0).count() == 0);
    holds(&ledger);
}

#[test]
fn working_orders_of_a_cash_account_reserve_cash_and_units() {
    let mut ledger = ledger(r#"{"cash": {"USD": 1000}, "fees": {"taker": 0.01}}"#, STOCK);
    let short = |ledger: &Ledger, side, quantity: &str, price: &str| {
        ledger.can_bear(0, side, d(quantity), &OrderType::Market, d(price)).map_err(|error| error.to_string())
    };
    assert_eq!(short(&ledger, Side::Buy, "9", "110"), Ok(()));
    assert_eq!(
        short(&ledger, Side::Buy, "9", "110.02"),
        Err("the order needs 1000.0818 USD with its fee, 1000 are free".into())
    );
    ledger.reserve(&order(1, Side::Buy, "5"), d("100"));
    assert_eq!(ledger.free_cash("USD"), d("495"));
    assert_eq!(ledger.buying_power(0), 495.0);
    assert!(short(&ledger, Side::Buy, "5", "100").is_err());
    ledger.fill(1, &Fill { order: OrderId(1), ..fill(1, 0, "2", "100", "2") }).unwrap();
    assert_eq!(
        (ledger.working(0).buys, ledger.free_cash("USD"), ledger.reserved(OrderId(1))),
        (d("3"), d("495"), d("3"))
    );
    ledger.reserve(&order(2, Side::Sell, "1"), d("100"));
    assert_eq!(short(&ledger, Side::Sell, "1", "100"), Ok(()));
    let none = "2 units are to be sold, 1 are there and not in working orders: shorts are not allowed";
    assert_eq!(short(&ledger, Side::Sell, "2", "100"), Err(none.into()));
    assert_eq!((ledger.worst(0, Side::Buy), ledger.worst(0, Side::Sell)), (d("5"), d("1")));
    ledger.release(OrderId(1));
    ledger.release(OrderId(2));
    assert_eq!((ledger.working(0), ledger.free_cash("USD")), (Working::default(), d("798")));
    assert!(
        ledger.fill(2, &Fill { order: OrderId(1), ..fill(1, 0, "2", "100", "2") }).is_err(),
        "still known"
    );
}

#[test]
fn faults_of_an_account_are_told_all_at_once() {
    let account = r#"{"shorts": true, "leverage_max": 2, "cash": {"USD": -1}, "interest": -1, "fees": {"taker": 5},
        "rates": [{"from": "EUR", "to": "USD"}, {"from": "X", "to": "X", "symbol": "NONE"}]}"#;
    let instruments =
        r#"[{"symbol": "A", "tick": 0}, {"symbol": "A", "maintenance_margin": 2, "base": "USD"}]"#;
    let expected = [
        "fees.taker",
        "leverage_max",
        "shorts",
        "interest",
        "cash.USD",
        "rates[0]",
        "rates[1].symbol",
        "rates[1].to",
        "instruments[0].tick",
        "instruments[1].maintenance_margin",
        "instruments[1].base",
        "instruments[1].symbol",
    ];
    assert_eq!(problems(account, instruments), expected);
}

#[test]
fn a_currency_that_nothing_values_is_a_fault() {
    let reasons = |account: &str, instruments: &str| {
        let params: LedgerParams = serde_json::from_str(account).unwrap();
        let instruments: Vec<Instrument> = serde_json::from_str(instruments).unwrap();
        let wrong = Ledger::new(&params, Arc::from(instruments)).err().unwrap_or_default();
        wrong.into_iter().map(|(path, why)| format!("{path}: {why}")).collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(r#"{"cash": {"usd": 1000}}"#, "[]"),
        ["cash.usd: nothing tells what a usd is worth in USD: did you mean USD?"]
    );
    assert!(reasons(r#"{"cash": {"EUR": 1000}}"#, "[]")[0].starts_with("cash.EUR: nothing tells"));
    assert_eq!(reasons(r#"{"cash": {"EUR": 0}}"#, "[]"), [""; 0]);
    let foreign = r#"[{"symbol": "SAP", "quote": "EUR"}]"#;
    assert!(reasons("{}", foreign)[0].starts_with("instruments[0].quote: nothing tells what a EUR"));
    // By way of a third one.
    let rates = r#"{"cash": {"EUR": 5}, "rates": [{"from": "GBP", "to": "USD", "rate": 1.2}, {"from": "GBP", "to": "EUR", "rate": 1.1}]}"#;
    assert_eq!(reasons(rates, foreign), [""; 0]);
}

#[test]
fn an_order_that_cannot_be_reckoned_says_what_is_missing() {
    let account = r#"{"kind": "margin", "cash": {"EUR": 1000}, "rates": [{"from": "EUR", "to": "USD", "symbol": "EURUSD"}]}"#;
    let mut ledger = ledger(account, r#"[{"symbol": "SPY"}, {"symbol": "EURUSD"}]"#);
    let bear = |ledger: &Ledger| {
        ledger.can_bear(0, Side::Buy, d("1"), &OrderType::Market, d("10")).map_err(|e| e.to_string())
    };
    let text = "no rate of EUR to USD is known: no price of EURUSD has been seen yet";
    assert_eq!(bear(&ledger), Err(text.into()));
    ledger.mark(1, 1.1);
    assert_eq!(bear(&ledger), Ok(()));
    // A venue paid in something that nothing values.
    ledger.cash_move("CHF", d("5"), CashReason::Transfer, None).unwrap();
    assert!(
        bear(&ledger).unwrap_err().starts_with("no rate of CHF to USD is known: add one to `account.rates`")
    );
}

#[test]
fn sizes_of_orders_that_leave_none_are_a_fault() {
    let of = |more: &str| problems("{}", &format!(r#"[{{"symbol": "A", {more}}}]"#));
    assert_eq!(of(r#""min_quantity": 10, "max_quantity": 5"#), ["instruments[0].max_quantity"]);
    assert_eq!(of(r#""lot": 100, "max_quantity": 50"#), ["instruments[0].max_quantity"]);
}
