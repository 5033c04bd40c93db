//! The paper venue as a machine meets it: splits while something is on its way, books that are shown again, fee tiers of other currencies.

use super::*;

fn split_at(desk: &mut Desk, ts: i64, ratio: &str) {
    let i = desk.id("A");
    desk.machine.own.now = ts;
    let mut events = std::mem::take(&mut desk.events);
    desk.machine.split(i, d(ratio), &mut events);
    desk.events = events;
}

#[test]
fn a_split_meets_what_is_on_its_way() {
    for latency in [json!({ "report": "1s" }), json!({ "order": "1s" }), json!("1s")] {
        let mut desk = Desk::new(json!({ "venue": { "kind": "paper", "latency": latency } }));
        desk.quote(S, 99.0, 100.0);
        desk.want(2 * S, Want::Long);
        split_at(&mut desk, 2 * S + S / 2, "2");
        desk.quote(2 * S + S * 3 / 4, 49.5, 50.0);
        desk.quote(4 * S, 49.5, 50.0);
        desk.advance(10 * S);
        assert_eq!((desk.position(), desk.working()), (d("20"), vec![]), "{latency} {:?}", desk.told(0));
        assert_eq!(desk.machine.ledger.cash("USD"), d("9000"), "no money is made");
        // What is held at the venue is what is held here: it can be sold.
        desk.want(11 * S, Want::Flat);
        desk.quote(13 * S, 49.5, 50.0);
        desk.advance(20 * S);
        assert_eq!((desk.position(), desk.working()), (d("0"), vec![]), "{latency} {:?}", desk.told(0));
    }
}

#[test]
fn an_order_on_its_way_is_cut_to_lots_by_a_split() {
    let mut desk =
        Desk::new(json!({ "venue": { "kind": "paper", "latency": "1s" }, "sizing": { "fixed": 15 } }));
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    split_at(&mut desk, 2 * S + S / 2, "0.1");
    desk.quote(4 * S, 990.0, 1000.0);
    desk.advance(10 * S);
    assert_eq!((desk.position(), desk.working()), (d("1"), vec![]), "{:?}", desk.told(0));
    assert_eq!(desk.machine.ledger.cash("USD"), d("9000"));
}

#[test]
fn a_change_on_its_way_is_met_by_a_split() {
    let mut desk = Desk::new(json!({ "venue": { "kind": "paper", "latency": { "order": "1s" } } }));
    desk.quote(S, 99.0, 100.0);
    desk.signal_with(2 * S, Want::Long, |s| s.order.limit = Some(90.0));
    desk.advance(4 * S);
    desk.signal_with(5 * S, Want::Long, |s| s.order.limit = Some(92.0));
    split_at(&mut desk, 5 * S + S / 2, "2");
    desk.advance(10 * S);
    assert_eq!(desk.working(), ["buy 20 limit 46"], "{:?}", desk.told(0));
}

#[test]
fn a_book_that_is_shown_again_renews_nothing() {
    let mut desk = Desk::new(json!({ "mode": "trade", "account": { "cash": { "USD": 100000 } } }));
    let book = |desk: &mut Desk, ts, offered: f64| {
        desk.tick(ts, "A", Market::BookReset);
        desk.tick(ts, "A", Market::Level { bid: false, price: 100.0, size: offered });
        desk.tick(ts, "A", Market::Level { bid: true, price: 99.0, size: 10.0 });
    };
    book(&mut desk, S, 10.0);
    desk.want(2 * S, Want::Long);
    desk.advance(3 * S);
    book(&mut desk, 4 * S, 10.0);
    desk.tick(4 * S, "A", Market::BookReset);
    book(&mut desk, 4 * S, 10.0);
    desk.want(5 * S, Want::Long);
    desk.advance(6 * S);
    assert_eq!(desk.position(), d("10"), "10 were ever offered: {:?}", desk.told(0));
    // Another size is another offer.
    book(&mut desk, 7 * S, 12.0);
    assert_eq!(desk.position(), d("20"));
}

#[test]
fn fee_tiers_go_by_the_accounts_currency() {
    let mut desk = Desk::new(json!({ "mode": "trade",
        "account": { "currency": "USD", "cash": { "USD": 10000, "JPY": 1000000 },
            "rates": [{ "from": "JPY", "to": "USD", "rate": 0.007 }],
            "fees": { "taker": 0.01, "tiers": [{ "from": 1000, "maker": 0, "taker": 0 }] } },
        "instruments": [{ "symbol": "A", "quote": "JPY" }] }));
    desk.quote(S, 9900.0, 10000.0);
    for n in 0..3 {
        desk.want((2 + n) * S, Want::Long);
        desk.advance((2 + n) * S + 1);
    }
    let fee = |e: &Event| if let Happened::Filled { fill, .. } = &e.what { Some(fill.fee) } else { None };
    let fees: Vec<_> = desk.events.iter().filter_map(fee).collect();
    // 700 USD each: the third is beyond 1000.
    assert_eq!(fees, [d("1000"), d("1000"), d("0")]);
}

#[test]
fn a_stop_is_not_triggered_by_a_trade_of_another_time() {
    let mut desk = Desk::new(json!({ "protect": { "stop_loss": { "fraction": 0.05 } } }));
    // It traded at 90 once; the market is at 100 since.
    desk.trade(S, 90.0);
    desk.quote(2 * S, 99.0, 100.0);
    desk.want(3 * S, Want::Long);
    desk.quote(4 * S, 99.1, 100.0);
    desk.quote(5 * S, 99.0, 100.0);
    assert_eq!(
        (desk.position(), desk.working()),
        (d("10"), vec!["sell 10 stop 95".into()]),
        "{:?}",
        desk.told(0)
    );
    // A trade of now triggers it, whatever is quoted.
    desk.trade(6 * S, 94.0);
    assert_eq!(desk.position(), Decimal::ZERO);
}

#[test]
fn a_stop_that_was_reached_before_it_came_goes_at_once() {
    let mut desk = Desk::new(json!({ "protect": { "stop_loss": { "fraction": 0.05 } } }));
    desk.trade(S, 90.0);
    desk.quote(2 * S, 90.0, 100.0);
    desk.want(3 * S, Want::Long);
    desk.quote(4 * S, 89.0, 100.0);
    assert_eq!(desk.position(), Decimal::ZERO, "{:?}", desk.told(0));
}

#[test]
fn instruments_that_are_added_at_a_restore_are_closed_for_the_day_too() {
    let with = |symbols: Value| json!({ "instruments": symbols, "flat_at_close": true, "flat_before": "1m" });
    let a = json!({ "symbol": "A", "session": { "zone": "UTC", "open": "09:00", "close": "17:00" } });
    let mut b = a.clone();
    b["symbol"] = "B".into();
    let mut before = Desk::new(with(json!([a])));
    before.quote(10 * 3600 * S, 99.0, 100.0);
    let mut after = Desk::new(with(json!([a, b])));
    after.machine.restore(before.machine.save()).unwrap();
    let flat_at: Vec<i64> = after.machine.own.slots.iter().map(|s| s.flat_at).collect();
    assert_eq!(flat_at, [(17 * 3600 - 60) * S; 2]);
}
