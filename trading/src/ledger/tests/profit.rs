//! Profits and fees, worked by hand.

use super::*;

/// 100 at 10, 100 at 12, 150 sold at 15: FIFO 100 x 5 + 50 x 3 = 650; average 150 x (15 - 11) = 600.
#[test]
fn fifo_sells_the_oldest_units_average_all_alike() {
    for (method, realized, average) in [("fifo", "650", "12"), ("average", "600", "11")] {
        let mut ledger = ledger(&format!(r#"{{"pnl": "{method}", "cash": {{"USD": 10000}}}}"#), STOCK);
        ledger.fill(1, &fill(1, 0, "100", "10", "0")).unwrap();
        ledger.fill(2, &fill(2, 0, "100", "12", "0")).unwrap();
        let booked = ledger.fill(3, &fill(3, 0, "-150", "15", "1.5")).unwrap();
        assert_eq!(
            booked,
            Booked { realized: d(realized), position: d("50"), average: d(average), ..booked }
        );
        assert_eq!(ledger.cash("USD"), d("10048.5"));
        assert_eq!(ledger.position(0).fees, d("1.5"));
        assert_eq!(ledger.lots(0).count(), usize::from(method == "fifo"));
        holds(&ledger);
    }
}

#[test]
fn a_fill_through_zero_closes_all_and_opens_the_rest_at_its_price() {
    for method in ["fifo", "average"] {
        let account = format!(r#"{{"pnl": "{method}", "kind": "margin", "cash": {{"USD": 1000}}}}"#);
        let mut ledger = ledger(&account, STOCK);
        ledger.fill(1, &fill(1, 0, "10", "100", "0")).unwrap();
        let booked = ledger.fill(2, &fill(2, 0, "-15", "110", "0")).unwrap();
        assert_eq!(booked, Booked { realized: d("100"), position: d("-5"), average: d("110"), ..booked });
        let booked = ledger.fill(3, &fill(3, 0, "5", "90", "0")).unwrap();
        assert_eq!(booked, Booked { realized: d("100"), position: d("0"), average: d("0"), ..booked });
        assert_eq!(ledger.cash("USD"), d("1200"));
        assert!(ledger.held().is_empty());
        holds(&ledger);
    }
}

/// A third of a cost has no end: what is rounded stays in the position, so the sum is right when it is closed.
#[test]
fn nothing_is_lost_by_closing_in_parts() {
    let mut ledger = ledger(r#"{"cash": {"USD": 1000}}"#, STOCK);
    ledger.fill(1, &fill(1, 0, "1", "10", "0")).unwrap();
    ledger.fill(2, &fill(2, 0, "2", "20", "0")).unwrap();
    assert_eq!(ledger.position(0).average, d("16.666666666667"));
    for n in 3..6 {
        ledger.fill(3, &fill(n, 0, "-1", "20", "0")).unwrap();
        holds(&ledger);
    }
    assert_eq!(ledger.position(0).realized, d("10"));
    assert_eq!(ledger.cash("USD"), d("1010"));
}

#[test]
fn futures_move_no_cash_but_profit_and_fees_options_their_premium() {
    let instruments = r#"[{ "symbol": "ES", "class": "future", "multiplier": 50, "initial_margin": 0.1 },
                          { "symbol": "C", "class": "option", "multiplier": 100 }]"#;
    let mut ledger = ledger(r#"{"kind": "margin", "cash": {"USD": 50000}}"#, instruments);
    ledger.fill(1, &fill(1, 0, "2", "4000", "4")).unwrap();
    assert_eq!(ledger.cash("USD"), d("49996"));
    assert_eq!(ledger.fill(2, &fill(2, 0, "-1", "4010", "2")).unwrap().realized, d("500"));
    assert_eq!(ledger.cash("USD"), d("50494"));
    ledger.fill(3, &fill(3, 1, "3", "1.25", "0")).unwrap();
    assert_eq!(ledger.cash("USD"), d("50119"));
    ledger.mark(0, 3990.0);
    ledger.mark(1, 1.5);
    // Equity: 50119 - 10 x 50 + 1.5 x 300.
    assert_eq!(ledger.equity_exact(), Some(d("50069")));
    assert_eq!((ledger.equity(), ledger.gross(), ledger.unrealized(0)), (50069.0, 199_950.0, -500.0));
    // It expires worthless.
    assert_eq!(ledger.fill(4, &fill(4, 1, "-3", "0", "0")).unwrap().realized, d("-375"));
    holds(&ledger);
}

/// 1 BTC bought at 20000 with a fee of 0.001 BTC: 20000 paid, 0.999 there, a fee of 20.
#[test]
fn a_fee_in_coins_is_taken_from_the_units() {
    let mut ledger = ledger(
        r#"{"currency": "USDT", "cash": {"USDT": 50000}, "rates": [{"from": "BNB", "to": "USDT", "rate": 300}]}"#,
        r#"[{ "symbol": "BTCUSDT", "quote": "USDT", "base": "BTC" }]"#,
    );
    let bought = Fill { fee_currency: "BTC".into(), ..fill(1, 0, "1", "20000", "0.001") };
    assert_eq!(ledger.fill(1, &bought).unwrap().position, d("0.999"));
    assert_eq!((ledger.cash("USDT"), ledger.position(0).fees), (d("30000"), d("20")));
    assert_eq!(ledger.position(0).average, d("20000"));
    let sold = Fill { fee_currency: "BNB".into(), ..fill(2, 0, "-0.5", "21000", "0.01") };
    assert_eq!(ledger.fill(2, &sold).unwrap().realized, d("500"));
    assert_eq!(
        (ledger.cash("USDT"), ledger.cash("BNB"), ledger.position(0).fees),
        (d("40500"), d("-0.01"), d("23"))
    );
    assert_eq!(ledger.negative_cash().collect::<Vec<_>>(), [("BNB", d("-0.01"))]);
    ledger.mark(0, 21000.0);
    // 50000 + 1000 x 0.999 of profit (500 of it real) - 20 - 3.
    assert_eq!(ledger.equity_exact(), Some(d("50976")));
    holds(&ledger);
}

#[test]
fn profits_of_other_currencies_count_at_the_rate_of_the_fill_and_wait_for_it() {
    let mut ledger = ledger(
        r#"{"cash": {"USD": 1000, "EUR": 1000}, "rates": [{"from": "EUR", "to": "USD", "symbol": "EURUSD"}]}"#,
        r#"[{ "symbol": "SAP", "quote": "EUR" }, { "symbol": "EURUSD", "base": "EUR" }]"#,
    );
    ledger.fill(1, &fill(1, 0, "10", "100", "0")).unwrap();
    assert!(ledger.equity().is_nan() && ledger.equity_exact().is_none());
    assert_eq!(ledger.unknown(), ["EUR"]);
    assert_eq!(ledger.fill(2, &fill(2, 0, "-5", "110", "1")).unwrap().realized, d("0"));
    assert!(ledger.is_waiting_for_rate());
    ledger.mark(1, 1.1);
    assert!(!ledger.is_waiting_for_rate());
    assert_eq!(ledger.position(0).realized, d("55"));
    ledger.mark(1, 1.2);
    assert_eq!(ledger.fill(3, &fill(3, 0, "-5", "110", "1")).unwrap().realized, d("60"));
    assert_eq!(ledger.realized_total(), d("115"));
    // 1000 - 2 dollars, 1100 euros.
    assert_eq!(ledger.equity_exact(), Some(d("2318")));
    assert_eq!(ledger.equity(), 2318.0);
    holds(&ledger);
}

#[test]
fn a_rate_is_turned_round_and_chained() {
    let mut ledger = ledger(
        r#"{"currency": "EUR", "cash": {"GBP": 100, "USD": 50}, "rates": [
            {"from": "GBP", "to": "USD", "rate": 1.25}, {"from": "EUR", "to": "USD", "symbol": "EURUSD"}]}"#,
        r#"[{ "symbol": "EURUSD", "base": "EUR" }]"#,
    );
    ledger.mark(0, 1.25);
    assert_eq!(ledger.equity_exact(), Some(d("140")));
    assert_eq!(ledger.equity(), 140.0);
    assert_eq!(ledger.rate(0), Some(d("0.8")));
}

#[test]
fn fills_that_make_no_sense_change_nothing() {
    let mut ledger = ledger(r#"{"cash": {"USD": 1000}}"#, STOCK);
    ledger.fill(1, &fill(1, 0, "1", "10", "0")).unwrap();
    let before = ledger.state().clone();
    let errors = [
        (fill(1, 0, "1", "10", "0"), "fill `1` of order 00000000000000000000000000000001 was booked before"),
        (fill(2, 7, "1", "10", "0"), "there is no instrument number 7"),
        (fill(2, 0, "0", "10", "0"), "a quantity of 0 is not above zero"),
        (fill(2, 0, "1", "0", "0"), "a price of 0 is not above zero"),
        (fill(2, 0, "1", "-1", "0"), "a price of -1 is not above zero"),
        (
            fill(2, 0, "79228162514264337593543950335", "10", "0"),
            "value has more digits than 28: it cannot be booked exactly",
        ),
        (
            fill(2, 0, "8000000000000", "1", "0.0000000000000001"),
            "cash has more digits than 28: it cannot be booked exactly",
        ),
    ];
    for (fill, error) in errors {
        match ledger.fill(2, &fill) {
            Err(found) => assert_eq!(found.to_string(), error),
            Ok(booked) => panic!("{fill:?} was booked: {booked:?}"),
        }
        assert_eq!(*ledger.state(), before);
    }
    for price in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(!ledger.mark(0, price));
    }
    assert!(!ledger.mark(9, 1.0));
    assert_eq!((ledger.price(0), ledger.marks_refused()), (10.0, 5));
    assert!(
        ledger.fill(2, &Fill { order: OrderId(2), ..fill(1, 0, "1", "10", "0") }).is_ok(),
        "ids are an order's"
    );
}
