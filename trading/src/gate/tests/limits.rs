use super::*;

/// At the limit it passes, a lot more fails, and what is said has the numbers.
fn at_the_limit(rules: &str, book: &Book, at: OrderIntent, beyond: OrderIntent, rule: &str, detail: &str) {
    let mut gate = gate(rules);
    assert_eq!(gate.check(0, &at, book), Ok(()), "{rules}");
    let refusal = gate.check(0, &beyond, book).unwrap_err();
    assert_eq!((refusal.rule, refusal.detail.as_str()), (rule, detail));
}

#[test]
fn an_order_s_size() {
    let book = Book::new(3);
    let rule = "order.max_quantity";
    let detail = "order of 51 BAC, the limit is 50";
    at_the_limit(r#"{"order": {"max_quantity": 50}}"#, &book, buy(0, "50"), buy(0, "51"), rule, detail);
    let rule = "order.max_notional";
    let detail = "order of BAC is worth 5100 USD, the limit is 5000";
    at_the_limit(r#"{"order": {"max_notional": 5000}}"#, &book, buy(0, "50"), buy(0, "51"), rule, detail);
}

#[test]
fn a_symbol_s_own_limits_come_before_those_of_all() {
    let rules =
        r#"{"order": {"max_quantity": 50, "max_notional": 7000, "symbols": {"AIG": {"max_quantity": 80}}}}"#;
    let book = Book::new(3);
    let mut gate = gate(rules);
    assert_eq!(verdict(&mut gate, &book, buy(0, "51")), "order.max_quantity");
    assert_eq!(verdict(&mut gate, &book, buy(1, "70")), "");
    assert_eq!(verdict(&mut gate, &book, buy(1, "71")), "order.max_notional");
    assert_eq!(verdict(&mut gate, &book, buy(1, "81")), "order.max_quantity");
}

#[test]
fn a_position_counts_with_all_that_works_for_it() {
    let mut book = Book::new(3);
    book.position[0] = d("40");
    book.working[0].buys = d("30");
    // Sold orders might not be filled: they make no room.
    book.working[0].sells = d("25");
    let rules = r#"{"position": {"max_quantity": 100}}"#;
    let detail = "position of BAC would be 101, the limit is 100";
    at_the_limit(rules, &book, buy(0, "30"), buy(0, "31"), "position.max_quantity", detail);
    // The other end: 40 - 25 - 115 = -100.
    let detail = "position of BAC would be 101, the limit is 100";
    at_the_limit(rules, &book, sell(0, "115"), sell(0, "116"), "position.max_quantity", detail);
}

#[test]
fn a_position_s_value_is_exact_and_knows_contracts_and_rates() {
    let mut book = Book::new(3);
    book.price[2] = 0.1;
    book.rate[2] = Some(d("1.1"));
    // 50 x 0.1 x 1.1 = 5.5 a contract.
    let order = |n| OrderIntent { price: d("0.1"), ..buy(2, n) };
    let detail = "position of ES would be 16.5 USD, the limit is 11.0";
    let detail = detail.replace("11.0", "11");
    at_the_limit(
        r#"{"position": {"max_notional": 11.0}}"#,
        &book,
        order("2"),
        order("3"),
        "position.max_notional",
        &detail,
    );
}

#[test]
fn the_dearer_of_price_and_mark_counts() {
    let mut book = Book::new(3);
    let order = |n, price| OrderIntent { price: d(price), ..sell(0, n) };
    let mut gate = gate(r#"{"position": {"max_notional": 10000}}"#);
    assert_eq!(verdict(&mut gate, &book, order("90", "120")), "position.max_notional");
    assert_eq!(verdict(&mut gate, &book, order("101", "90")), "position.max_notional");
    assert_eq!(verdict(&mut gate, &book, order("100", "90")), "");
    // Without a mark the order's own price is all there is.
    book.price[0] = f64::NAN;
    assert_eq!(verdict(&mut gate, &book, order("111", "90")), "");
    assert_eq!(verdict(&mut gate, &book, order("112", "90")), "position.max_notional");
}

#[test]
fn groups_add_up_long_and_short() {
    let mut book = Book::new(3);
    book.position[1] = d("-30");
    book.working[1].sells = d("10");
    let detail = "positions of sector banks would be 10100 USD, the limit is 10000";
    at_the_limit(r#"{"sector": {"banks": 10000}}"#, &book, buy(0, "60"), buy(0, "61"), "sector", detail);
    at_the_limit(r#"{"sector": {"*": 10000}}"#, &book, buy(0, "60"), buy(0, "61"), "sector", detail);
    let detail = "positions at venue nyse would be 10100 USD, the limit is 10000";
    let rules = r#"{"venue": {"nyse": 10000, "cme": 5000}}"#;
    at_the_limit(rules, &book, buy(0, "60"), buy(0, "61"), "venue", detail);
    let detail = "positions at venue cme would be 10000 USD, the limit is 5000";
    at_the_limit(rules, &book, buy(2, "1"), buy(2, "2"), "venue", detail);
    // The future has no sector.
    assert_eq!(verdict(&mut gate(r#"{"sector": {"*": 0}}"#), &book, buy(2, "5")), "");
}

#[test]
fn the_whole_book() {
    let mut book = Book::new(3);
    book.position[1] = d("-30");
    book.position[2] = d("1");
    let detail = "gross exposure would be 10100 USD, the limit is 10000";
    at_the_limit(r#"{"gross": 10000}"#, &book, buy(0, "20"), buy(0, "21"), "gross", detail);
    // Net is 5000 - 3000.
    let detail = "net exposure would be 4100 USD, the limit is 4000 either way";
    at_the_limit(r#"{"net": 4000}"#, &book, buy(0, "20"), buy(0, "21"), "net", detail);
    let detail = "net exposure would be -4100 USD, the limit is 4000 either way";
    at_the_limit(r#"{"net": 4000}"#, &book, sell(0, "60"), sell(0, "61"), "net", detail);
    book.equity = 5000.0;
    let detail = "gross exposure would be 10100 USD, 2.02 times the equity of 5000, the limit is 2";
    at_the_limit(r#"{"leverage": 2}"#, &book, buy(0, "20"), buy(0, "21"), "leverage", detail);
    let detail = "position of BAC would be 2600 USD, 0.52 of the equity of 5000, the limit is 0.5";
    at_the_limit(
        r#"{"concentration": {"max": 0.5}}"#,
        &book,
        buy(0, "25"),
        buy(0, "26"),
        "concentration.max",
        detail,
    );
    let detail = "position of BAC would be 8100 USD, 0.5031 of the gross exposure of 16100, the limit is 0.5";
    at_the_limit(
        r#"{"concentration": {"max": 0.5, "of": "gross"}}"#,
        &book,
        buy(0, "80"),
        buy(0, "81"),
        "concentration.max",
        detail,
    );
}

#[test]
fn what_makes_positions_smaller_passes_all_limits_of_size() {
    let mut book = Book::new(3);
    book.position[0] = d("200");
    book.equity = f64::NAN;
    let rules = r#"{"order": {"max_quantity": 1, "max_notional": 1}, "position": {"max_quantity": 1, "max_notional": 1}, "sector": {"*": 1},
                    "venue": {"*": 1}, "gross": 1, "net": 1, "leverage": 1, "concentration": {"max": 0.1}, "var": {"level": 0.95, "amount": 1},
                    "correlation": {"max": 0}}"#;
    let mut gate = gate(rules);
    assert_eq!(verdict(&mut gate, &book, sell(0, "200")), "");
    assert_eq!(verdict(&mut gate, &book, sell(0, "201")), "order.max_quantity");
    // With another order to sell at work, all of both would turn the position.
    book.working[0].sells = d("150");
    assert_eq!(verdict(&mut gate, &book, sell(0, "51")), "order.max_quantity");
    // So would they if a stop-loss of the position were filled first.
    book.working[0] = Working { reducing_sells: d("150"), ..Working::default() };
    assert_eq!(verdict(&mut gate, &book, sell(0, "50")), "");
    assert_eq!(verdict(&mut gate, &book, sell(0, "51")), "order.max_quantity");
    // Unless the venue cuts it.
    assert_eq!(verdict(&mut gate, &book, OrderIntent { reduce_only: true, ..sell(0, "200") }), "");
}

/// Held 1, an order to sell 4 at work, limit 3.5: the position ends at -3. A reduce-only order to sell, filled first, makes that -4.
#[test]
fn a_reduce_only_order_counts_beside_one_that_turns_the_position() {
    let mut book = Book::new(3);
    book.position[0] = d("1");
    let mut gate = gate(r#"{"position": {"max_quantity": 3.5}, "order": {"max_quantity": 4}}"#);
    let reduce_only = |n| OrderIntent { reduce_only: true, ..sell(0, n) };
    assert_eq!(verdict(&mut gate, &book, sell(0, "4")), "");
    assert_eq!(verdict(&mut gate, &book, reduce_only("100")), "");
    book.working[0].sells = d("4");
    assert_eq!(verdict(&mut gate, &book, reduce_only("0.5")), "");
    assert_eq!(verdict(&mut gate, &book, reduce_only("0.6")), "position.max_quantity");
}

#[test]
fn a_position_that_its_price_carried_beyond_a_limit_may_turn_but_not_grow() {
    let mut book = Book::new(3);
    book.position[0] = d("120");
    let mut gate = gate(r#"{"position": {"max_quantity": 100}, "gross": 10000}"#);
    assert_eq!(verdict(&mut gate, &book, buy(0, "1")), "position.max_quantity");
    assert_eq!(verdict(&mut gate, &book, buy(1, "1")), "gross");
    assert_eq!(verdict(&mut gate, &book, sell(0, "220")), "");
    assert_eq!(verdict(&mut gate, &book, sell(0, "221")), "position.max_quantity");
}

#[test]
fn what_cannot_be_known_is_refused() {
    let mut book = Book::new(3);
    book.position[1] = d("1");
    book.price[1] = f64::NAN;
    let refusal = gate(r#"{"gross": 10000}"#).check(0, &buy(0, "1"), &book).unwrap_err();
    assert_eq!(refusal.to_string(), "gross: no price of AIG is known, so exposure is not");
    book.price[1] = 100.0;
    book.rate[0] = None;
    let refusal = gate(r#"{"leverage": 2}"#).check(0, &buy(0, "1"), &book).unwrap_err();
    assert_eq!(refusal.to_string(), "leverage: no rate of BAC's currency is known, so exposure is not");
    book.rate[0] = Some(Decimal::ONE);
    for equity in [f64::NAN, 0.0, -5.0] {
        book.equity = equity;
        let refusal = gate(r#"{"leverage": 2}"#).check(0, &buy(0, "1"), &book).unwrap_err();
        assert_eq!(refusal.rule, "leverage");
        assert_eq!(refusal.detail, format!("equity is {equity}, so nothing can be held against it"));
    }
    let huge = OrderIntent { quantity: Decimal::MAX, ..buy(0, "1") };
    for rules in
        [r#"{"gross": 1}"#, r#"{"position": {"max_notional": 1}}"#, r#"{"order": {"max_notional": 1}}"#]
    {
        assert!(gate(rules).check(0, &huge, &book).is_err());
    }
    book.position[0] = Decimal::MAX;
    assert_eq!(
        verdict(&mut gate(r#"{"position": {"max_quantity": 1}}"#), &book, buy(0, "1")),
        "position.max_quantity"
    );
}
