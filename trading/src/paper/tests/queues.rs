//! Where a resting order stands in the queue of its price.

use serde_json::json;

use super::*;
use Side::{Buy, Sell};

#[test]
fn pessimistic_all_that_is_shown_is_ahead() {
    let mut venue = venue(json!({}));
    venue.quote(1, 100.0, 50.0, 100.2, 10.0);
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.said();
    venue.trade(3, 100.0, 30.0);
    venue.expect(&[]);
    // 20 are ahead: 25 leave 5 for ours.
    venue.trade(4, 100.0, 25.0);
    venue.expect(&["4 1 filled 5 at 100 maker"]);
    venue.trade(5, 100.0, 3.0);
    venue.expect(&["5 1 filled 3 at 100 maker"]);
}

#[test]
fn cancels_move_a_proportional_queue_only() {
    for (queue, filled) in [("pessimistic", false), ("proportional", true), ("exact", false)] {
        let mut venue = venue(json!({ "queue": queue }));
        venue.level(1, Buy, 100.0, 50.0);
        venue.level(1, Sell, 100.2, 10.0);
        venue.send(2, limit(1, Buy, "10", "100"));
        // 50 join behind; then half of the 100 are cancelled: 25 of them, in proportion, were ahead.
        venue.level(3, Buy, 100.0, 100.0);
        venue.level(4, Buy, 100.0, 50.0);
        venue.said();
        venue.trade(5, 100.0, 25.0);
        venue.expect(&[]);
        venue.trade(6, 100.0, 10.0);
        assert_eq!(venue.said().len(), usize::from(filled), "{queue}");
    }
}

#[test]
fn what_traded_is_not_taken_for_cancelled() {
    let mut venue = venue(json!({ "queue": "proportional" }));
    venue.level(1, Buy, 100.0, 50.0);
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.level(3, Buy, 100.0, 100.0);
    // 30 trade: 20 are ahead of ours, 50 behind. The level says so afterwards: nobody cancelled.
    venue.trade(4, 100.0, 30.0);
    venue.level(5, Buy, 100.0, 70.0);
    venue.trade(6, 100.0, 20.0);
    venue.expect(&["2 1 accepted"]);
    venue.trade(7, 100.0, 4.0);
    venue.expect(&["7 1 filled 4 at 100 maker"]);
}

#[test]
fn never_more_ahead_than_what_is_shown() {
    let mut venue = venue(json!({}));
    venue.level(1, Buy, 100.0, 50.0);
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.level(3, Buy, 100.0, 5.0);
    venue.trade(4, 100.0, 7.0);
    venue.expect(&["2 1 accepted", "4 1 filled 2 at 100 maker"]);
}

#[test]
fn a_trade_through_the_price_fills() {
    let mut venue = venue(json!({}));
    venue.quote(1, 100.0, 50.0, 100.2, 10.0);
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.trade(3, 99.99, 4.0);
    venue.expect(&["2 1 accepted", "3 1 filled 4 at 100 maker"]);
}

#[test]
fn a_touch_does_not_fill_where_that_is_not_wanted() {
    let mut venue = venue(json!({ "fill_at_touch": false, "queue": "none" }));
    venue.quote(1, 100.0, 50.0, 100.2, 10.0);
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.trade(3, 100.0, 1000.0);
    venue.trade(4, 99.99, 4.0);
    venue.expect(&["2 1 accepted", "4 1 filled 4 at 100 maker"]);
}

#[test]
fn behind_the_best_price_the_place_is_known_when_it_becomes_the_best() {
    let mut venue = venue(json!({}));
    venue.quote(1, 100.0, 50.0, 100.2, 10.0);
    venue.send(2, limit(1, Buy, "10", "99.9"));
    venue.send(2, limit(2, Buy, "10", "100.1"));
    venue.said();
    // Nobody was at 100.1, so ours is the first there; but this trade was a buyer's.
    venue.trade(3, 100.2, 3.0);
    venue.trade(4, 100.1, 3.0);
    venue.expect(&["4 2 filled 3 at 100.1 maker"]);
    venue.quote(5, 99.9, 8.0, 100.2, 10.0);
    venue.trade(6, 99.9, 16.0);
    // 7 go to the better price, and 16 less the 8 ahead less those 7 are left.
    venue.expect(&["6 2 filled 7 at 100.1 maker", "6 1 filled 1 at 99.9 maker"]);
}

#[test]
fn a_print_is_had_once_by_price_then_time() {
    let mut venue = venue(json!({ "queue": "none" }));
    venue.trade(0, 105.0, 1.0);
    for (id, price) in [(1, "99"), (2, "100"), (3, "101"), (4, "100")] {
        venue.send(1, limit(id, Buy, "10", price));
    }
    venue.said();
    venue.trade(2, 98.0, 26.0);
    let fills = ["2 3 filled 10 at 101 maker", "2 2 filled 10 at 100 maker", "2 4 filled 6 at 100 maker"];
    venue.expect(&fills);
}

#[test]
fn sells_mirror_buys() {
    let mut venue = venue(json!({}));
    venue.quote(1, 100.0, 50.0, 100.2, 10.0);
    venue.send(2, limit(1, Sell, "10", "100.2"));
    venue.trade(3, 100.2, 14.0);
    venue.quote(4, 100.3, 2.0, 100.4, 10.0);
    venue.expect(&["2 1 accepted", "3 1 filled 4 at 100.2 maker", "4 1 filled 2 at 100.2 maker"]);
}

#[test]
fn exact_those_ahead_are_known_one_by_one() {
    let mut venue = venue(json!({ "queue": "exact" }));
    let rest = |venue: &mut Venue, ts, order, price, size| {
        venue.show(ts, Market::Resting { order, bid: true, price, size });
    };
    for (order, size) in [(1, 10.0), (2, 20.0), (3, 30.0)] {
        rest(&mut venue, 1, order, 100.0, size);
    }
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.said();
    rest(&mut venue, 3, 4, 100.0, 50.0);
    // 10 trade: the first is gone. Then the third, ahead, and the fourth, behind, are cancelled: 20 are left ahead.
    venue.trade(4, 100.0, 10.0);
    rest(&mut venue, 4, 1, 100.0, 0.0);
    rest(&mut venue, 5, 3, 99.0, 30.0);
    rest(&mut venue, 6, 4, 100.0, 0.0);
    venue.trade(7, 100.0, 15.0);
    rest(&mut venue, 7, 2, 100.0, 5.0);
    venue.expect(&[]);
    venue.trade(8, 100.0, 9.0);
    venue.expect(&["8 1 filled 4 at 100 maker"]);
    // Orders make the levels that taking orders get: 30 at 99 now, and 5 at 100 until the feed says that they are gone.
    rest(&mut venue, 9, 2, 100.0, 0.0);
    venue.send(10, with(market(2, Sell, "40"), TimeInForce::Ioc));
    let rest = "10 2 canceled: immediate or cancel: there is no more";
    venue.expect(&["10 2 accepted", "10 2 filled 30 at 99 taker", rest]);
}

#[test]
fn exact_one_that_grows_goes_behind() {
    let mut venue = venue(json!({ "queue": "exact" }));
    venue.show(1, Market::Resting { order: 1, bid: true, price: 100.0, size: 10.0 });
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.show(3, Market::Resting { order: 1, bid: true, price: 100.0, size: 15.0 });
    venue.trade(4, 100.0, 2.0);
    venue.expect(&["2 1 accepted", "4 1 filled 2 at 100 maker"]);
}

#[test]
fn exact_one_that_moves_to_a_better_price_is_ahead_no_more() {
    let mut venue = venue(json!({ "queue": "exact" }));
    venue.show(1, Market::Resting { order: 7, bid: false, price: 102.0, size: 1.0 });
    venue.show(1, Market::Resting { order: 1, bid: true, price: 100.0, size: 10.0 });
    venue.send(2, limit(1, Buy, "10", "100"));
    venue.show(3, Market::Resting { order: 1, bid: true, price: 101.0, size: 10.0 });
    venue.show(4, Market::Resting { order: 1, bid: true, price: 101.0, size: 0.0 });
    venue.trade(5, 100.0, 2.0);
    venue.expect(&["2 1 accepted", "5 1 filled 2 at 100 maker"]);
}
