//! Orders that are changed, taken back, or met by a split.

use serde_json::json;

use super::*;
use Side::{Buy, Sell};

#[test]
fn less_keeps_the_place_and_all_else_loses_it() {
    let mut venue = venue(json!({ "queue": "none" }));
    venue.trade(0, 105.0, 1.0);
    for id in [1, 2, 3] {
        venue.send(1, limit(id, Buy, "10", "100"));
    }
    venue.said();
    venue.modify(2, 1, Some("8"), None, None);
    venue.modify(2, 2, Some("12"), None, None);
    venue.expect(&["2 1 replaced 8 100 -", "2 2 replaced 12 100 -"]);
    venue.trade(3, 99.0, 20.0);
    venue.expect(&["3 1 filled 8 at 100 maker", "3 3 filled 10 at 100 maker", "3 2 filled 2 at 100 maker"]);
}

#[test]
fn a_new_price_joins_the_queue_anew_or_takes() {
    let mut venue = venue(json!({}));
    venue.level(1, Buy, 100.0, 5.0);
    venue.level(1, Buy, 99.0, 50.0);
    venue.level(1, Sell, 101.0, 4.0);
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.modify(3, 1, None, Some("99"), None);
    venue.trade(4, 99.0, 51.0);
    venue.expect(&["2 1 accepted", "3 1 replaced 10 99 -", "4 1 filled 1 at 99 maker"]);
    venue.modify(5, 1, None, Some("101"), None);
    venue.expect(&["5 1 replaced 10 101 -", "5 1 filled 4 at 101 taker"]);
}

#[test]
fn a_stop_is_moved_until_it_is_triggered() {
    let mut venue = venue(json!({}));
    venue.trade(1, 100.0, 1.0);
    venue.send(2, stop(1, Sell, "10", "95"));
    venue.modify(3, 1, None, None, Some("99"));
    venue.expect(&["2 1 accepted", "3 1 replaced 10 - 99"]);
    // Beyond the market: it goes at once, that is with the next trade.
    venue.modify(4, 1, None, None, Some("100"));
    venue.modify(5, 1, None, None, Some("90"));
    venue.trade(6, 100.0, 10.0);
    let expected =
        ["4 1 replaced 10 - 100", "5 1 not changed: stop: the order has none, or it was triggered"];
    venue.expect(&[expected[0], expected[1], "6 1 filled 10 at 100 taker"]);
}

#[test]
fn what_is_impossible_changes_nothing() {
    let mut venue = venue(json!({ "queue": "none" }));
    let unknown = "unknown: no such order works here; it may be filled or over";
    venue.cancel(1, 9);
    venue.modify(1, 9, Some("1"), None, None);
    venue.expect(&[&format!("1 9 not changed: {unknown}"), &format!("1 9 not changed: {unknown}")]);
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.trade(3, 99.0, 4.0);
    venue.said();
    venue.modify(4, 1, Some("4"), None, None);
    venue.modify(4, 1, Some("4.5"), None, None);
    venue.modify(4, 1, None, None, Some("4"));
    venue.modify(4, 1, None, Some("0.001"), None);
    venue.send(4, limit(1, Sell, "10", "100"));
    venue.expect(&[
        "4 1 not changed: quantity: 4 is not above the 4 that are filled",
        "4 1 not changed: lot: 4.5 is not a multiple of 1",
        "4 1 not changed: stop: the order has none, or it was triggered",
        "4 1 not changed: tick: limit 0.001 is not a multiple of 0.01",
        "4 1 not changed: duplicate: an order of this id works already",
    ]);
    venue.trade(5, 99.0, 100.0);
    venue.cancel(6, 1);
    venue.expect(&["5 1 filled 6 at 100 maker", &format!("6 1 not changed: {unknown}")]);
}

#[test]
fn a_split_adjusts_orders_and_the_position() {
    let mut venue = venue(json!({ "queue": "none" }));
    venue.quote(1, 99.0, 100.0, 100.0, 100.0);
    venue.trade(1, 99.5, 1.0);
    venue.send(2, market(1, Buy, "9"));
    venue.send(2, limit(2, Buy, "10", "97.25"));
    venue.send(2, limit(3, Sell, "5", "105.05"));
    venue.send(2, stop(4, Sell, "3", "90.1"));
    venue.send(2, trailing(5, Sell, "3", Trail::Amount(d("4"))));
    venue.said();
    venue.paper.split(3, 0, d("2"));
    venue.to(3);
    // 48.625 down for a buyer, 52.525 up for a seller.
    let expected = [
        "3 2 replaced 20 48.62 -",
        "3 3 replaced 10 52.53 -",
        "3 4 replaced 6 - 45.05",
        "3 5 replaced 6 - -",
    ];
    venue.expect(&expected);
    assert_eq!(venue.paper.position(0), d("18"));
    // Best 49.75, trail 2; the quote from before the split is no more.
    venue.trade(4, 47.75, 1.0);
    venue.expect(&["4 2 filled 1 at 48.62 maker"]);
    venue.quote(5, 47.0, 100.0, 48.0, 100.0);
    venue.expect(&["5 5 filled 6 at 47 taker", "5 2 filled 19 at 48.62 maker"]);
    // One for ten: less than a lot is left of 6 and of 9.
    venue.paper.split(6, 0, d("0.1"));
    venue.to(6);
    let reason = "split: less than a lot or a tick is left of it after 0.1 for 1";
    venue.expect(&["6 3 replaced 1 525.3 -", &format!("6 4 canceled: {reason}")]);
}
