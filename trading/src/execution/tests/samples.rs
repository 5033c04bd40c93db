//! The last sample.

use super::*;

fn equities(desk: &Desk) -> Vec<(i64, f64)> {
    let row = |e: &Event| if let Happened::Equity(row) = &e.what { Some((e.ts, row.equity)) } else { None };
    desk.events.iter().filter_map(row).collect()
}

fn finish(desk: &mut Desk) {
    desk.machine.finish(&mut desk.events);
}

#[test]
fn the_end_is_sampled_once_at_the_last_input() {
    let mut desk = Desk::new(json!({ "sample": "10s" }));
    desk.quote(3 * S, 99.0, 101.0);
    desk.want(4 * S, Want::Long);
    desk.quote(12 * S, 109.0, 111.0);
    finish(&mut desk);
    finish(&mut desk);
    assert_eq!(equities(&desk), [(3 * S, 10_000.0), (10 * S, 9990.0), (12 * S, 10090.0)]);
    let last: Vec<_> = desk.events[desk.events.len() - 2..].iter().map(|e| (e.ts, &e.what)).collect();
    assert!(matches!(last[..], [(_, Happened::Position(_)), (_, Happened::Equity(_))]), "{last:?}");
}

#[test]
fn an_end_that_was_sampled_is_not_sampled_again() {
    let mut desk = Desk::new(json!({ "sample": "10s" }));
    desk.quote(3 * S, 99.0, 101.0);
    desk.advance(10 * S);
    finish(&mut desk);
    assert_eq!(equities(&desk).len(), 2);
    // At the time of a sample, but behind it.
    desk.want(10 * S, Want::Long);
    finish(&mut desk);
    assert_eq!(equities(&desk), [(3 * S, 10_000.0), (10 * S, 10_000.0), (10 * S, 9990.0)]);
}

/// Silence is no error and costs nothing, however many samples it has.
#[test]
fn a_long_silence_is_one_step() {
    let mut desk = Desk::new(json!({ "sample": "1s" }));
    desk.quote(3 * S, 99.0, 101.0);
    desk.want(4 * S, Want::Long);
    let later = 400 * 86_400 * S;
    desk.quote(later, 109.0, 111.0);
    desk.advance(later + S);
    assert_eq!(
        equities(&desk),
        [(3 * S, 10_000.0), (4 * S, 10_000.0), (5 * S, 9990.0), (later + S, 10090.0)]
    );
}

#[test]
fn what_interest_costs_after_the_last_input_is_in_the_last_sample() {
    let instrument = json!({ "symbol": "A", "borrow_rate": 0.365 });
    let account = json!({ "kind": "margin", "cash": { "USD": 10000 } });
    let mut desk =
        Desk::new(json!({ "sample": "1h", "account": account, "instruments": [instrument], "short": true }));
    let day = 86_400 * S;
    desk.trade(day - 2, 100.0);
    desk.want(day - 2, Want::Target(d("-100")));
    desk.trade(day - 1, 100.0);
    desk.advance(2 * day);
    finish(&mut desk);
    let last = *equities(&desk).last().unwrap();
    assert_eq!(last.0, 2 * day);
    assert!((last.1 - 9980.0).abs() < 1e-9, "{last:?}");
}

#[test]
fn where_nothing_was_or_nothing_is_sampled_the_end_is_silent() {
    let mut desk = Desk::new(json!({ "sample": "10s" }));
    finish(&mut desk);
    assert!(desk.events.is_empty());
    let mut desk = Desk::new(json!({}));
    desk.quote(3 * S, 99.0, 101.0);
    finish(&mut desk);
    assert_eq!(equities(&desk).len(), 0);
}
