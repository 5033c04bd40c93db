//! Sliced orders through the machine.

use super::*;

#[test]
fn twap_sends_its_slices_at_their_times() {
    let mut desk = Desk::new(json!({ "order": { "algo": { "twap": { "over": "10s", "slices": 4 } } } }));
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    desk.advance(60 * S);
    let sent: Vec<(i64, String)> = desk
        .events
        .iter()
        .filter_map(|e| if let Happened::Sent { .. } = &e.what { Some((e.ts, text(&e.what)?)) } else { None })
        .collect();
    let at = |half_seconds: i64, units: u32| (2 * S + half_seconds * S / 2, format!("buy {units} market"));
    assert_eq!(sent, [at(0, 2), at(5, 3), at(10, 2), at(15, 3)]);
    assert_eq!(desk.position(), d("10"));
}

#[test]
fn a_repeated_wish_does_not_double_a_sliced_order_and_leaving_ends_it() {
    let mut desk = Desk::new(json!({ "order": { "algo": { "twap": { "over": "10s", "slices": 4 } } } }));
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Target(d("10")));
    assert_eq!(desk.want(3 * S, Want::Target(d("10"))), [""; 0]);
    // Two units are held by now. Flat: what is not sent is given up, what is held goes, in slices too.
    desk.want(4 * S, Want::Flat);
    desk.advance(60 * S);
    assert_eq!(desk.position(), Decimal::ZERO);
    assert!(desk.machine.own.parents.is_empty());
}

#[test]
fn pov_follows_the_markets_trades() {
    let mut desk = Desk::new(json!({ "order": { "algo": { "pov": { "rate": 0.1, "min": 2 } } } }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long), [""; 0]);
    let told = |desk: &mut Desk, ts: i64, size: f64| -> Vec<String> {
        let told = desk.tick(ts, "A", Market::Trade { price: 99.5, size });
        told.into_iter().filter(|t| t.starts_with("buy")).collect()
    };
    assert_eq!(told(&mut desk, 3 * S, 15.0), [""; 0]);
    assert_eq!(told(&mut desk, 4 * S, 15.0), ["buy 3 market"]);
    assert_eq!(told(&mut desk, 5 * S, 1000.0), ["buy 7 market"]);
    assert_eq!(desk.position(), d("10"));
}

#[test]
fn an_iceberg_shows_a_part_at_a_time() {
    let mut desk =
        Desk::new(json!({ "order": { "type": "limit", "algo": { "iceberg": { "display": 4 } } } }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Long), ["buy 4 limit 99", "working"]);
    // A quote through the limit fills the part; the next is at the new bid.
    let told = desk.quote(3 * S, 97.0, 98.0);
    assert_eq!(told[..2], ["fill 4 at 99 -> 4", "filled"]);
    assert!(told[2].starts_with("buy 4 limit 97"), "{told:?}");
    assert_eq!(desk.working().len(), 1);
}

#[test]
fn an_iceberg_ends_with_a_part_whose_time_is_over() {
    let order =
        json!({ "type": "limit", "time_in_force": { "gtd": "3s" }, "algo": { "iceberg": { "display": 4 } } });
    let mut desk = Desk::new(json!({ "order": order }));
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.advance(60 * S), ["expired", "alert slices_ended"]);
    assert!(desk.machine.own.parents.is_empty());
    // Nothing stands in the way of the next wish.
    assert_eq!(desk.want(61 * S, Want::Long), ["buy 4 limit 99", "working"]);
}

#[test]
fn an_iceberg_ends_with_a_part_that_the_venue_takes_back() {
    let with = json!({ "venue": { "kind": "external" }, "order": { "type": "limit", "algo": { "iceberg": { "display": 4 } } } });
    let mut desk = Desk::new(with);
    desk.quote(S, 99.0, 100.0);
    let nothing = crate::report::Snapshot { orders: vec![], positions: vec![], cash: vec![] };
    desk.say(S, Said::Snapshot(nothing));
    desk.want(2 * S, Want::Long);
    let order = desk.order();
    desk.say(3 * S, Said::Accepted { order });
    assert_eq!(desk.say(4 * S, Said::Canceled { order, reason: None }), ["canceled", "alert slices_ended"]);
    assert_eq!(desk.want(5 * S, Want::Long), ["buy 4 limit 99"]);
    // Taken back by ourselves: nothing to tell.
    let order = desk.order();
    desk.say(6 * S, Said::Accepted { order });
    assert_eq!(desk.want(7 * S, Want::Flat), ["cancel"]);
    assert_eq!(desk.say(8 * S, Said::Canceled { order, reason: None }), ["canceled"]);
}

#[test]
fn a_slice_that_is_refused_ends_the_order() {
    let with = json!({
        "order": { "algo": { "twap": { "over": "10s", "slices": 2 } } },
        "risk": { "position": { "max_quantity": 7 } },
    });
    let mut desk = Desk::new(with);
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.advance(60 * S), ["refused position.max_quantity"]);
    assert_eq!(desk.position(), d("5"));
}
