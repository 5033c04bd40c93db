//! Each kind of order, step by step.

use serde_json::json;

use super::*;
use Side::{Buy, Sell};

#[test]
fn a_market_order_takes_what_is_shown_and_waits_for_more() {
    let mut venue = venue(json!({}));
    venue.quote(1, 99.99, 300.0, 100.01, 200.0);
    venue.send(2, market(1, Buy, "500"));
    venue.expect(&["2 1 accepted", "2 1 filled 200 at 100.01 taker"]);
    // The same ask again is no new liquidity, whatever the bid does.
    venue.quote(3, 99.98, 100.0, 100.01, 200.0);
    venue.expect(&[]);
    venue.quote(4, 99.98, 100.0, 100.02, 1000.0);
    venue.expect(&["4 1 filled 300 at 100.02 taker"]);
    // 700 of the 1000 are left for the next one.
    venue.send(5, market(2, Buy, "800"));
    venue.expect(&["5 2 accepted", "5 2 filled 700 at 100.02 taker"]);
    venue.send(6, market(3, Sell, "40"));
    venue.expect(&["6 3 accepted", "6 3 filled 40 at 99.98 taker"]);
}

#[test]
fn a_market_order_walks_the_book() {
    let mut venue = venue(json!({ "latency": 0 }));
    for (price, size) in [(100.02, 30.0), (100.01, 20.0), (100.05, 100.0)] {
        venue.level(1, Sell, price, size);
    }
    venue.level(1, Buy, 99.99, 10.0);
    venue.send(2, market(1, Buy, "60"));
    let fills =
        ["2 1 filled 20 at 100.01 taker", "2 1 filled 30 at 100.02 taker", "2 1 filled 10 at 100.05 taker"];
    venue.expect(&["2 1 accepted", fills[0], fills[1], fills[2]]);
    // A level that is set anew is new; the others stay taken.
    venue.level(3, Sell, 100.02, 5.0);
    venue.send(4, with(market(2, Buy, "200"), TimeInForce::Ioc));
    let last = "4 2 canceled: immediate or cancel: there is no more";
    venue.expect(&["4 2 accepted", "4 2 filled 5 at 100.02 taker", "4 2 filled 90 at 100.05 taker", last]);
    assert_eq!(venue.paper.position(0), d("155"));
}

#[test]
fn where_only_trades_are_seen_a_market_order_gets_the_next_one() {
    let mut venue = venue(json!({}));
    venue.trade(1, 100.0, 50.0);
    venue.send(2, market(1, Buy, "70"));
    venue.expect(&["2 1 accepted"]);
    venue.trade(3, 100.5, 50.0);
    venue.trade(4, 100.4, 50.0);
    venue.expect(&["3 1 filled 50 at 100.5 taker", "4 1 filled 20 at 100.4 taker"]);
}

#[test]
fn no_more_than_its_part_of_a_trade() {
    let mut venue = venue(json!({ "participation": 0.1 }));
    venue.send(1, market(1, Buy, "70"));
    venue.trade(2, 100.0, 400.0);
    venue.trade(3, 100.0, 309.0);
    venue.expect(&["1 1 accepted", "2 1 filled 40 at 100 taker", "3 1 filled 30 at 100 taker"]);
}

#[test]
fn a_limit_order_takes_within_its_limit_and_rests() {
    let mut venue = venue(json!({ "queue": "none" }));
    venue.level(1, Sell, 100.01, 20.0);
    venue.level(1, Sell, 100.02, 20.0);
    venue.level(1, Sell, 100.03, 20.0);
    venue.send(2, limit(1, Buy, "50", "100.02"));
    venue.expect(&["2 1 accepted", "2 1 filled 20 at 100.01 taker", "2 1 filled 20 at 100.02 taker"]);
    // The rest is the best bid now: a seller who comes to it gets its price, however low he would go.
    venue.level(3, Sell, 100.01, 0.0);
    venue.level(3, Sell, 100.00, 6.0);
    venue.expect(&["3 1 filled 6 at 100.02 maker"]);
    venue.trade(4, 100.01, 1.0);
    venue.expect(&["4 1 filled 1 at 100.02 maker"]);
}

#[test]
fn a_limit_order_beyond_the_last_trade_gets_the_next_ones_price() {
    let mut venue = venue(json!({}));
    venue.trade(1, 100.0, 5.0);
    venue.send(2, limit(1, Buy, "5", "101"));
    venue.send(2, limit(2, Buy, "5", "99"));
    venue.trade(3, 100.5, 3.0);
    venue.expect(&["2 1 accepted", "2 2 accepted", "3 1 filled 3 at 100.5 taker"]);
    // From then on it rests, and its own price counts.
    venue.trade(4, 100.5, 1.0);
    venue.trade(5, 98.0, 4.0);
    let expected = ["4 1 filled 1 at 101 maker", "5 1 filled 1 at 101 maker", "5 2 filled 3 at 99 maker"];
    venue.expect(&expected);
}

#[test]
fn a_stop_becomes_a_market_order() {
    let mut venue = venue(json!({}));
    venue.quote(1, 99.9, 100.0, 100.1, 100.0);
    venue.trade(1, 100.0, 1.0);
    venue.send(2, stop(1, Sell, "10", "99.5"));
    venue.trade(3, 99.51, 1.0);
    venue.expect(&["2 1 accepted"]);
    venue.quote(4, 99.3, 4.0, 99.6, 100.0);
    venue.expect(&[]);
    venue.trade(5, 99.5, 1.0);
    venue.expect(&["5 1 filled 4 at 99.3 taker"]);
    venue.quote(6, 99.2, 100.0, 99.6, 100.0);
    venue.expect(&["6 1 filled 6 at 99.2 taker"]);
    // One whose trigger the market is beyond already goes at once.
    venue.send(7, stop(2, Buy, "1", "99.5"));
    venue.expect(&["7 2 accepted", "7 2 filled 1 at 99.6 taker"]);
}

#[test]
fn stops_go_by_the_quote_or_the_mark_where_that_is_wanted() {
    let mut venue1 = venue(json!({ "stop_trigger": "quote" }));
    venue1.quote(1, 99.9, 100.0, 100.1, 100.0);
    venue1.send(2, stop(1, Sell, "10", "99.5"));
    venue1.trade(3, 99.0, 1.0);
    venue1.expect(&["2 1 accepted"]);
    venue1.quote(4, 99.5, 100.0, 100.1, 100.0);
    venue1.expect(&["4 1 filled 10 at 99.5 taker"]);

    let mut venue2 = venue(json!({ "stop_trigger": "mark" }));
    venue2.quote(1, 99.9, 100.0, 100.1, 100.0);
    venue2.send(2, stop(1, Buy, "10", "100.5"));
    venue2.quote(3, 100.9, 100.0, 101.1, 100.0);
    venue2.show(4, Market::Mark { price: 100.49 });
    venue2.expect(&["2 1 accepted"]);
    venue2.show(5, Market::Mark { price: 100.5 });
    venue2.expect(&["5 1 filled 10 at 101.1 taker"]);

    // Where there are no trades, `last` goes by the quote.
    let mut venue3 = venue(json!({}));
    venue3.quote(1, 99.9, 100.0, 100.1, 100.0);
    venue3.send(2, stop(1, Sell, "10", "99.5"));
    venue3.quote(3, 99.4, 100.0, 100.1, 100.0);
    venue3.expect(&["2 1 accepted", "3 1 filled 10 at 99.4 taker"]);
}

#[test]
fn a_stop_limit_becomes_a_limit_order() {
    let mut venue = venue(json!({ "queue": "none" }));
    venue.quote(1, 99.9, 100.0, 100.1, 100.0);
    venue.trade(1, 100.0, 1.0);
    let stop_limit = OrderType::StopLimit { stop: d("100.5"), limit: d("100.6") };
    venue.send(2, order(1, Buy, "150", stop_limit));
    venue.quote(3, 100.4, 100.0, 100.55, 100.0);
    venue.expect(&["2 1 accepted"]);
    venue.trade(4, 100.55, 1.0);
    venue.expect(&["4 1 filled 100 at 100.55 taker"]);
    venue.quote(5, 100.6, 100.0, 100.7, 100.0);
    venue.trade(6, 100.6, 20.0);
    venue.expect(&["6 1 filled 20 at 100.6 maker"]);
}

#[test]
fn a_trailing_stop_follows_the_best_price() {
    let mut venue = venue(json!({}));
    venue.quote(1, 99.0, 100.0, 99.1, 100.0);
    venue.trade(1, 100.0, 1.0);
    venue.send(2, trailing(1, Sell, "10", Trail::Amount(d("1.00"))));
    venue.send(2, trailing(2, Buy, "10", Trail::Fraction(d("0.1"))));
    // Sell: best 102, so the stop is at 101. Buy: best 100, stop at 110.
    for (ts, price) in [(3, 99.01), (4, 102.0), (5, 101.01)] {
        venue.trade(ts, price, 1.0);
    }
    venue.expect(&["2 1 accepted", "2 2 accepted"]);
    venue.trade(6, 101.0, 1.0);
    venue.expect(&["6 1 filled 10 at 99 taker"]);
    // Buy: best 90, stop at 99.
    for (ts, price) in [(7, 90.0), (8, 98.99)] {
        venue.trade(ts, price, 1.0);
    }
    venue.expect(&[]);
    venue.trade(9, 99.0, 1.0);
    venue.expect(&["9 2 filled 10 at 99.1 taker"]);
}

#[test]
fn a_take_profit_goes_where_the_price_is_better() {
    let mut venue = venue(json!({}));
    venue.quote(1, 99.9, 100.0, 100.1, 100.0);
    venue.trade(1, 100.0, 1.0);
    venue.send(2, order(1, Sell, "10", OrderType::TakeProfit { trigger: d("101") }));
    venue.send(2, order(2, Buy, "10", OrderType::TakeProfit { trigger: d("99") }));
    venue.trade(3, 100.99, 1.0);
    venue.expect(&["2 1 accepted", "2 2 accepted"]);
    venue.trade(4, 101.0, 1.0);
    venue.trade(5, 98.0, 1.0);
    venue.expect(&["4 1 filled 10 at 99.9 taker", "5 2 filled 10 at 100.1 taker"]);
}

#[test]
fn fill_or_kill_is_all_or_nothing() {
    let mut venue = venue(json!({}));
    venue.level(1, Sell, 100.0, 20.0);
    venue.level(1, Sell, 100.1, 20.0);
    venue.level(1, Sell, 100.2, 20.0);
    venue.send(2, with(limit(1, Buy, "41", "100.1"), TimeInForce::Fok));
    venue.expect(&["2 1 accepted", "2 1 canceled: fill or kill: there is not enough"]);
    venue.send(3, with(limit(2, Buy, "40", "100.1"), TimeInForce::Fok));
    venue.expect(&["3 2 accepted", "3 2 filled 20 at 100 taker", "3 2 filled 20 at 100.1 taker"]);
    // Where only trades are seen, the next one decides.
    let mut venue = super::venue(json!({}));
    venue.send(2, with(market(1, Buy, "41"), TimeInForce::Fok));
    venue.send(2, with(market(2, Buy, "30"), TimeInForce::Fok));
    venue.send(2, with(market(3, Buy, "30"), TimeInForce::Ioc));
    venue.said();
    venue.trade(3, 100.0, 40.0);
    venue.expect(&[
        "3 1 canceled: fill or kill: there is not enough",
        "3 2 filled 30 at 100 taker",
        "3 3 filled 10 at 100 taker",
        "3 3 canceled: immediate or cancel: there is no more",
    ]);
}

#[test]
fn without_partial_fills_an_order_waits_until_all_of_it_can_be_had() {
    let mut venue = venue(json!({ "partial_fills": false, "queue": "none" }));
    venue.quote(1, 99.9, 10.0, 100.1, 10.0);
    venue.send(2, market(1, Buy, "30"));
    venue.send(2, limit(2, Sell, "30", "100.2"));
    venue.trade(3, 100.3, 29.0);
    venue.quote(4, 99.9, 10.0, 100.1, 29.0);
    venue.expect(&["2 1 accepted", "2 2 accepted"]);
    venue.trade(5, 100.3, 30.0);
    venue.quote(6, 99.9, 10.0, 100.1, 31.0);
    venue.expect(&["5 2 filled 30 at 100.2 maker", "6 1 filled 30 at 100.1 taker"]);
}

#[test]
fn post_only_never_takes() {
    let mut venue = venue(json!({}));
    let post_only = |order: Order| Order { post_only: true, ..order };
    venue.quote(1, 99.9, 10.0, 100.1, 10.0);
    venue.send(2, post_only(limit(1, Buy, "30", "100.1")));
    venue.expect(&["2 1 rejected: post_only: a buy at 100.1 would trade at once: the ask is 100.1"]);
    venue.send(3, post_only(limit(2, Sell, "30", "99.8")));
    venue.expect(&["3 2 rejected: post_only: a sell at 99.8 would trade at once: the bid is 99.9"]);
    venue.send(4, post_only(limit(3, Buy, "30", "100")));
    venue.expect(&["4 3 accepted"]);
    venue.modify(5, 3, None, Some("100.2"), None);
    venue.expect(&["5 3 not changed: post_only: a buy at 100.2 would trade at once: the ask is 100.1"]);
    venue.send(6, post_only(market(4, Buy, "30")));
    venue.expect(&["6 4 rejected: post_only: such an order can't rest"]);
    let stop_limit = OrderType::StopLimit { stop: d("99"), limit: d("98") };
    venue.send(7, post_only(order(5, Sell, "1", stop_limit)));
    venue.trade(8, 99.0, 1.0);
    let words = "8 5 canceled: post_only: a sell at 98 would trade at once: the bid is 99.9";
    venue.expect(&["7 5 accepted", "8 3 filled 1 at 100 maker", words]);
}

#[test]
fn reduce_only_is_cut_or_cancelled() {
    let mut venue = venue(json!({}));
    let reduce = |order: Order| Order { reduce_only: true, ..order };
    venue.quote(1, 99.9, 1000.0, 100.1, 1000.0);
    venue.send(2, reduce(market(1, Sell, "10")));
    venue.expect(&["2 1 rejected: reduce_only: a sell can't reduce a position of 0"]);
    venue.send(3, market(2, Buy, "100"));
    venue.send(4, reduce(limit(3, Sell, "150", "101")));
    venue.said();
    venue.send(5, reduce(stop(4, Sell, "80", "90")));
    venue.expect(&["5 4 accepted"]);
    // Selling 40 leaves 60 for each of them.
    venue.send(6, market(5, Sell, "40"));
    let cuts = ["6 3 replaced 60 101 -", "6 4 replaced 60 - 90"];
    venue.expect(&["6 5 accepted", "6 5 filled 40 at 99.9 taker", cuts[0], cuts[1]]);
    venue.modify(7, 3, Some("70"), None, None);
    venue.expect(&["7 3 replaced 70 101 -", "7 3 replaced 60 101 -"]);
    venue.trade(8, 101.5, 50.0);
    venue.expect(&["8 3 filled 50 at 101 maker", "8 4 replaced 10 - 90"]);
    venue.send(9, reduce(market(6, Sell, "30")));
    venue.expect(&[
        "9 6 accepted",
        "9 6 replaced 10 - -",
        "9 6 filled 10 at 99.9 taker",
        // Order 3 asked for more, so it is behind 4 now.
        "9 4 canceled: reduce_only: a position of 0 leaves nothing to reduce",
        "9 3 canceled: reduce_only: a position of 0 leaves nothing to reduce",
    ]);
}

#[test]
fn rules_are_named_with_their_numbers() {
    let more =
        json!({ "lot": 0.5, "tick": "0.05", "min_quantity": 2, "max_quantity": 100, "min_notional": 500 });
    let mut venue = venue_of(json!({}), more);
    venue.quote(1, 99.9, 1000.0, 100.1, 1000.0);
    let refused = [
        (limit(1, Buy, "0", "100"), "quantity: 0 is not above zero"),
        (limit(1, Buy, "2.25", "100"), "lot: 2.25 is not a multiple of 0.5"),
        (limit(1, Buy, "1.5", "100"), "min_quantity: 1.5 is below 2"),
        (limit(1, Buy, "100.5", "100"), "max_quantity: 100.5 is above 100"),
        (limit(1, Buy, "50", "100.01"), "tick: limit 100.01 is not a multiple of 0.05"),
        (limit(1, Buy, "50", "-1"), "limit: -1 is not above zero"),
        (limit(1, Buy, "4", "100"), "min_notional: 4 at 100 is worth 400, below 500"),
        (market(1, Buy, "4"), "min_notional: 4 at 100.1 is worth 400.4, below 500"),
        (trailing(1, Buy, "50", Trail::Fraction(d("1"))), "trail: 1 is not between 0 and 1"),
        (trailing(1, Buy, "50", Trail::Amount(d("0.01"))), "tick: trail 0.01 is not a multiple of 0.05"),
        (Order { instrument: 7, ..market(1, Buy, "50") }, "unknown instrument: there is no number 7"),
    ];
    for (order, reason) in refused {
        venue.send(2, order);
        venue.expect(&[&format!("2 1 rejected: {reason}")]);
    }
    let huge = Decimal::MAX / d("2");
    venue.send(2, Order { quantity: huge.trunc(), ..market(1, Buy, "1") });
    assert!(venue.said()[0].starts_with("2 1 rejected: "));
}

#[test]
fn slippage_is_paid_within_the_limit() {
    let mut venue = venue(json!({ "slippage": { "ticks": 3 } }));
    venue.quote(1, 99.9, 10.0, 100.1, 10.0);
    venue.send(2, market(1, Buy, "1"));
    venue.send(2, limit(2, Buy, "1", "100.12"));
    venue.send(2, market(3, Sell, "1"));
    let said = venue.said();
    let fills: Vec<_> = said.iter().filter(|line| line.contains("filled")).collect();
    assert_eq!(
        fills,
        ["2 1 filled 1 at 100.13 taker", "2 2 filled 1 at 100.12 taker", "2 3 filled 1 at 99.87 taker"]
    );
}

#[test]
fn a_feed_without_sizes_fills_any_quantity() {
    let mut venue = venue(json!({}));
    venue.quote(1, 1.1, f64::NAN, 1.2, f64::NAN);
    venue.send(2, market(1, Buy, "1000000"));
    venue.send(2, with(market(2, Sell, "5"), TimeInForce::Fok));
    let fills = ["2 1 filled 1000000 at 1.2 taker", "2 2 filled 5 at 1.1 taker"];
    venue.expect(&["2 1 accepted", fills[0], "2 2 accepted", fills[1]]);
}

#[test]
fn a_bar_is_four_trades() {
    let mut venue = venue(json!({}));
    venue.send(1, market(1, Buy, "30"));
    venue.send(1, limit(2, Buy, "100", "98"));
    venue.send(1, limit(3, Sell, "30", "103"));
    venue.send(1, stop(4, Sell, "10", "99"));
    venue.said();
    // 25 units each at 100, 97, 104, 102.
    venue.bar(2, [100.0, 104.0, 97.0, 102.0], 100.0);
    venue.expect(&[
        "2 1 filled 25 at 100 taker",
        "2 1 filled 5 at 97 taker",
        "2 4 filled 10 at 99 taker",
        "2 2 filled 10 at 98 maker",
        "2 3 filled 25 at 103 maker",
    ]);
    // A gap: the stop gets the open. The high comes first where that is asked for.
    let mut venue = super::venue(json!({ "bars": { "path": "open_high_low_close" } }));
    venue.bar(1, [100.0, 100.0, 100.0, 100.0], 100.0);
    venue.send(2, stop(1, Sell, "10", "99"));
    venue.send(2, trailing(2, Sell, "10", Trail::Amount(d("5"))));
    venue.bar(3, [98.0, 104.0, 97.0, 99.5], 100.0);
    venue.expect(&["2 1 accepted", "2 2 accepted", "3 1 filled 10 at 98 taker", "3 2 filled 10 at 99 taker"]);
}

#[test]
fn bad_parameters_are_told_with_their_paths() {
    let params: PaperParams =
        serde_json::from_value(json!({ "participation": 0, "slippage": { "bps": -1 } })).unwrap();
    let instruments = [instrument(json!({ "lot": 0 })), instrument(json!({}))].into();
    let problems = Paper::new(&params, instruments, Fees::default()).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["participation", "slippage", "instruments[0].lot"]);
}

#[test]
fn fees_are_those_of_makers_and_takers() {
    let fees = json!({ "maker": "-0.0001", "taker": "0.0005", "tiers": [{ "from": 1000, "maker": 0, "taker": "0.0002" }] });
    let mut venue =
        venue_of(json!({ "queue": "none" }), json!({ "fees": fees, "quote": "USDT", "multiplier": 10 }));
    venue.quote(1, 99.0, 10.0, 100.0, 1000.0);
    venue.send(2, market(1, Buy, "1"));
    venue.send(2, market(2, Buy, "1"));
    venue.send(2, limit(3, Buy, "1", "99.5"));
    venue.trade(3, 99.0, 1.0);
    let fees: Vec<_> = venue
        .out
        .iter()
        .filter_map(|report| match &report.what {
            Said::Filled(fill) => {
                Some((fill.id.as_str(), fill.fee.normalize().to_string(), fill.fee_currency.as_str()))
            }
            _ => None,
        })
        .collect();
    // 1000 x 0.0005, then by the tier that these 1000 reach: 1000 x 0.0002, 995 x 0.
    let usdt = |id, fee: &str| (id, fee.to_string(), "USDT");
    assert_eq!(fees, [usdt("p1", "0.5"), usdt("p2", "0.2"), usdt("p3", "0")]);
}

/// 1 share at 0.005 and at least 1.00 an order, in three fills.
#[test]
fn the_least_fee_is_paid_once_for_an_order() {
    let fees: Fees = serde_json::from_str(r#"{"per_unit": 0.005, "minimum": 1}"#).unwrap();
    let instruments: Arc<[Instrument]> = [instrument(serde_json::json!({}))].into();
    let paper = Paper::new(&PaperParams::default(), instruments, fees).unwrap();
    let mut venue = Venue { paper, out: Vec::new() };
    venue.send(1, market(1, Side::Buy, "300"));
    for (ts, size) in [(2, 100.0), (3, 150.0), (4, 500.0)] {
        venue.trade(ts, 25.0, size);
    }
    venue.send(5, market(2, Side::Sell, "10"));
    venue.trade(6, 25.0, 500.0);
    let fees: Vec<Decimal> = venue
        .out
        .iter()
        .filter_map(|report| if let Said::Filled(fill) = &report.what { Some(fill.fee) } else { None })
        .collect();
    assert_eq!(fees, [d("1"), d("0.25"), d("0.25"), d("1")]);
}

#[test]
fn a_print_without_units_fills_nothing() {
    let mut venue = venue(serde_json::json!({}));
    venue.send(1, market(1, Side::Buy, "3"));
    venue.said();
    venue.trade(2, 25.0, 0.0);
    venue.trade(3, 25.0, -5.0);
    assert_eq!(venue.said(), [""; 0]);
}

#[test]
fn slippage_has_bounds() {
    let problems = |text: &str| {
        let params: PaperParams = serde_json::from_str(text).unwrap();
        params.problems().len()
    };
    assert_eq!(problems(r#"{"slippage": {"ticks": 10000}}"#), 0);
    assert_eq!(problems(r#"{"slippage": {"ticks": 100000000}}"#), 1);
}
