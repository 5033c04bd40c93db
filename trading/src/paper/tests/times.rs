//! Latency, times in force, halts and hours.

use serde_json::json;

use super::*;
use Side::{Buy, Sell};

#[test]
fn orders_and_reports_take_their_time() {
    let mut venue = venue(json!({ "latency": { "order": "10ns", "report": "5ns" } }));
    venue.quote(0, 99.0, 10.0, 100.0, 10.0);
    venue.paper.command(1, &Command::New(market(1, Buy, "5")));
    assert_eq!(venue.paper.next_due(), 11);
    // What is shown when it arrives counts; what is shown at that very time comes after it.
    venue.quote(10, 99.0, 10.0, 101.0, 10.0);
    venue.quote(11, 99.0, 10.0, 102.0, 10.0);
    venue.expect(&[]);
    assert_eq!(venue.paper.next_due(), 16);
    venue.to(15);
    venue.expect(&[]);
    venue.to(16);
    venue.expect(&["16 1 accepted", "16 1 filled 5 at 101 taker"]);
    assert_eq!(venue.paper.next_due(), i64::MAX);
}

#[test]
fn messages_never_overtake_each_other() {
    let mut venue = venue(json!({ "latency": { "series_ns": [10, 0, 2] } }));
    venue.quote(0, 99.0, 10.0, 100.0, 10.0);
    venue.paper.command(1, &Command::New(limit(1, Buy, "5", "98")));
    venue.paper.command(2, &Command::Cancel { order: OrderId(1) });
    venue.paper.command(20, &Command::Cancel { order: OrderId(1) });
    // Both arrive at 11. The first report leaves then and takes 10, the second none, the third (at 22) 2.
    venue.to(100);
    let late = "24 1 not changed: unknown: no such order works here; it may be filled or over";
    venue.expect(&["21 1 accepted", "21 1 canceled", late]);
}

#[test]
fn a_cancel_races_with_the_market() {
    let mut venue = venue(json!({ "latency": "10ns", "queue": "none" }));
    venue.trade(0, 105.0, 1.0);
    venue.paper.command(0, &Command::New(limit(1, Buy, "5", "98")));
    venue.to(10);
    venue.paper.command(11, &Command::Cancel { order: OrderId(1) });
    venue.trade(20, 97.0, 5.0);
    venue.to(30);
    let late = "21 1 not changed: unknown: no such order works here; it may be filled or over";
    venue.expect(&["10 1 accepted", "20 1 filled 5 at 98 maker", late]);
}

#[test]
fn good_till_a_time() {
    let mut venue = venue(json!({ "queue": "none" }));
    venue.trade(0, 105.0, 1.0);
    venue.send(1, with(limit(1, Buy, "5", "98"), TimeInForce::Gtd(10)));
    venue.send(1, with(limit(2, Buy, "5", "98"), TimeInForce::Gtd(1)));
    venue.expect(&["1 1 accepted", "1 2 rejected: time_in_force: good till 1, and it is 1"]);
    assert_eq!(venue.paper.next_due(), 10);
    venue.trade(9, 98.0, 1.0);
    venue.trade(10, 97.0, 1.0);
    venue.expect(&["9 1 filled 1 at 98 maker", "10 1 expired"]);
    // Taken back in time, it does not expire.
    venue.send(11, with(limit(3, Buy, "5", "98"), TimeInForce::Gtd(20)));
    venue.modify(12, 3, Some("7"), None, None);
    venue.cancel(13, 3);
    venue.to(30);
    venue.expect(&["11 3 accepted", "12 3 replaced 7 98 -", "13 3 canceled"]);
    assert_eq!(venue.paper.next_due(), i64::MAX);
}

const HOUR: i64 = 3_600_000_000_000;
/// Monday 2024-01-08 00:00 UTC.
const MONDAY: i64 = 1_704_672_000_000_000_000;

#[test]
fn a_day_ends_with_the_session_or_the_utc_day() {
    let mut around = venue(json!({}));
    around.send(MONDAY + HOUR, with(limit(1, Buy, "5", "98"), TimeInForce::Day));
    assert_eq!(around.paper.next_due(), MONDAY + 24 * HOUR);

    let session = json!({ "session": { "zone": "America/New_York", "open": "09:30", "close": "16:00" } });
    let mut venue = venue_of(json!({}), session);
    venue.send(MONDAY + 16 * HOUR, with(limit(1, Buy, "5", "98"), TimeInForce::Day));
    assert_eq!(venue.paper.next_due(), MONDAY + 21 * HOUR);
    venue.to(MONDAY + 21 * HOUR);
    // What comes after the close is for the next session.
    venue.send(MONDAY + 22 * HOUR, with(limit(2, Buy, "5", "98"), TimeInForce::Day));
    assert_eq!(venue.paper.next_due(), MONDAY + 45 * HOUR);
    assert_eq!(venue.said()[1], format!("{} 1 expired", MONDAY + 21 * HOUR));
}

#[test]
fn outside_of_hours_orders_wait_or_are_rejected() {
    let session = json!({ "session": { "zone": "UTC", "open": "09:00", "close": "17:00" } });
    let mut venue = venue_of(json!({}), session);
    let (early, open, late) = (MONDAY + 8 * HOUR, MONDAY + 9 * HOUR, MONDAY + 17 * HOUR);
    venue.quote(early, 99.0, 10.0, 100.0, 10.0);
    venue.send(early, market(1, Buy, "5"));
    venue.send(early, with(limit(2, Buy, "5", "101"), TimeInForce::Ioc));
    venue.send(early, limit(3, Buy, "5", "101"));
    venue.send(early, limit(4, Sell, "5", "103"));
    venue.send(early, stop(5, Sell, "5", "98"));
    venue.quote(early + 1, 97.0, 10.0, 98.0, 10.0);
    venue.expect(&[
        &format!("{early} 1 rejected: closed: no market orders while the instrument is not traded"),
        &format!(
            "{early} 2 rejected: closed: no orders that are filled at once or not at all while the instrument is not traded"
        ),
        &format!("{early} 3 accepted"),
        &format!("{early} 4 accepted"),
        &format!("{early} 5 accepted"),
    ]);
    // The opening: what rests takes from what is there, at its price; the bid is beyond the stop.
    venue.quote(open, 96.5, 10.0, 98.5, 10.0);
    venue.expect(&[&format!("{open} 3 filled 5 at 98.5 taker"), &format!("{open} 5 filled 5 at 96.5 taker")]);
    venue.trade(late, 110.0, 10.0);
    venue.expect(&[]);
}

#[test]
fn a_halt_stops_everything_but_cancels() {
    let mut venue = venue(json!({ "queue": "none" }));
    venue.quote(1, 99.0, 10.0, 100.0, 10.0);
    venue.send(2, limit(1, Buy, "5", "98"));
    venue.send(2, limit(2, Buy, "5", "98"));
    venue.said();
    venue.halt(3, true);
    venue.send(4, market(3, Buy, "5"));
    venue.trade(5, 97.0, 10.0);
    venue.cancel(6, 2);
    venue.expect(&[
        "4 3 rejected: halted: no market orders while the instrument is not traded",
        "6 2 canceled",
    ]);
    venue.halt(7, false);
    // What was offered before the halt is gone: this one waits for a new quote.
    venue.send(8, market(4, Sell, "5"));
    venue.expect(&["8 4 accepted"]);
    venue.quote(9, 96.0, 10.0, 97.0, 4.0);
    venue.expect(&["9 4 filled 5 at 96 taker", "9 1 filled 4 at 98 maker"]);
}

#[test]
fn a_stop_that_was_passed_in_a_halt_goes_with_the_first_tick_after_it() {
    let mut venue = venue(json!({}));
    venue.quote(1, 99.0, 10.0, 100.0, 10.0);
    venue.send(2, stop(1, Buy, "5", "101"));
    venue.halt(3, true);
    venue.trade(4, 101.0, 10.0);
    venue.halt(5, false);
    venue.expect(&["2 1 accepted"]);
    venue.quote(6, 98.0, 10.0, 99.0, 10.0);
    venue.expect(&["6 1 filled 5 at 99 taker"]);
}
