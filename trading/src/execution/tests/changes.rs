//! Wishes that come again with other prices.

use super::*;
use crate::event::Reason;

fn again(with: Value, first: OrderWish, then: OrderWish) -> (Desk, Vec<String>) {
    let mut desk = Desk::new(with);
    desk.quote(S, 99.0, 100.0);
    desk.signal_with(2 * S, Want::Long, |s| s.order = first);
    let told = desk.signal_with(3 * S, Want::Long, |s| s.order = then);
    (desk, told)
}

fn wish(limit: Option<f64>, stop: Option<f64>, trail: Option<f64>) -> OrderWish {
    OrderWish { limit, stop, trail }
}

#[test]
fn a_stop_follows_its_wish() {
    let (desk, told) = again(json!({}), wish(None, Some(105.0), None), wish(None, Some(103.001), None));
    assert_eq!(told, ["modify None None Some(103.01)", "working"]);
    assert_eq!(desk.working(), ["buy 10 stop 103.01"]);
    let first = wish(Some(106.0), Some(105.0), None);
    let (desk, told) = again(json!({}), first, wish(Some(104.0), Some(103.0), None));
    assert_eq!(told, ["modify None Some(104) Some(103)", "working"]);
    assert_eq!(desk.working(), ["buy 10 stop 103 limit 104"]);
}

#[test]
fn what_cannot_be_changed_is_told_once() {
    for (first, then) in [
        (wish(None, None, Some(0.5)), wish(None, None, Some(0.7))),
        (wish(Some(95.0), None, None), wish(None, Some(105.0), None)),
        (wish(Some(95.0), None, None), wish(None, None, Some(1.0))),
        (wish(None, Some(105.0), None), wish(Some(95.0), None, None)),
        (wish(Some(95.0), None, None), wish(Some(-1.0), None, None)),
    ] {
        let (mut desk, told) = again(json!({}), first, then);
        assert_eq!(told, ["alert change_ignored"], "{first:?} {then:?}");
        let before = desk.working();
        assert_eq!(desk.signal_with(4 * S, Want::Long, |s| s.order = then), [""; 0]);
        assert_eq!(desk.working(), before);
    }
    // The same distance, rounded to the tick, is no other.
    let (_, told) = again(json!({}), wish(None, None, Some(0.5037)), wish(None, None, Some(0.5)));
    assert_eq!(told, [""; 0]);
}

#[test]
fn slices_follow_a_new_limit() {
    let with = json!({ "order": { "algo": { "twap": { "over": "10s", "slices": 2 } } } });
    let (mut desk, told) = again(with, wish(Some(95.0), None, None), wish(Some(96.0), None, None));
    assert_eq!(told, ["modify None Some(96) None", "working"]);
    desk.advance(60 * S);
    assert_eq!(desk.working(), ["buy 5 limit 96", "buy 5 limit 96"]);
    let changes =
        desk.events.iter().filter(|e| matches!(e.what, Happened::Sent { reason: Reason::Replaced, .. }));
    assert_eq!(changes.count(), 1);
}

#[test]
fn trails_are_put_on_the_tick() {
    let mut desk = Desk::new(json!({ "protect": { "trailing": { "atr": 3 } } }));
    desk.quote(S, 99.0, 100.0);
    // 3 x 0.3337 = 1.0011: no looser than that.
    let told = desk.signal_with(2 * S, Want::Long, |s| s.atr = Some(0.3337));
    assert!(told.contains(&"working".to_owned()) && !told.contains(&"rejected".to_owned()), "{told:?}");
    assert_eq!(desk.working(), ["sell 10 trailing Amount(1)"]);
    for (trail, expect) in
        [(0.5037, "sell 10 trailing Amount(0.5)"), (0.0001, "sell 10 trailing Amount(0.01)")]
    {
        let mut desk = Desk::new(json!({}));
        desk.quote(S, 99.0, 100.0);
        desk.want(2 * S, Want::Long);
        let told = desk.signal_with(3 * S, Want::Flat, |s| s.order.trail = Some(trail));
        assert_eq!(told[..2], [expect, "working"]);
    }
    let mut desk =
        Desk::new(json!({ "order": { "type": "trailing_stop", "trigger": { "amount": 0.5037 } } }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long), ["buy 10 trailing Amount(0.5)", "working"]);
}
