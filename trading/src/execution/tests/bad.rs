//! Bad input: nothing panics, nothing is lost, each is told.

use super::*;
use crate::execution::corporate::{CorporateAction, CorporateKind};

#[test]
fn bad_prices_are_passed_over_and_told_once() {
    let mut desk = Desk::new(json!({}));
    assert_eq!(desk.trade(S, 0.0), ["alert bad_price"]);
    for price in [f64::NAN, -1.0, f64::INFINITY] {
        assert_eq!(desk.trade(2 * S, price), [""; 0]);
    }
    assert_eq!(desk.want(3 * S, Want::Long), ["refused sizing.price"]);
    desk.quote(4 * S, 99.0, 100.0);
    assert_eq!(desk.want(5 * S, Want::Long)[0], "buy 10 market");
}

#[test]
fn a_crossed_quote_fills_and_values_nothing() {
    let mut desk = Desk::new(json!({}));
    desk.quote(S, 99.0, 101.0);
    assert_eq!(desk.quote(2 * S, 100.0, 90.0), ["alert crossed_quote"]);
    let price = desk.machine.own.slots[0].price;
    assert_eq!(price, 100.0, "the middle of the last quote that could be");
    assert_eq!(desk.want(3 * S, Want::Long), ["buy 10 market", "working"]);
    assert_eq!(desk.quote(4 * S, 100.0, 90.0), [""; 0]);
    assert_eq!(desk.quote(5 * S, 100.0, 101.0), ["fill 10 at 101 -> 10", "filled"]);
}

#[test]
fn sizes_that_are_none_fill_nothing_and_are_told_once() {
    let mut desk = Desk::new(json!({}));
    desk.trade(S, 100.0);
    desk.want(2 * S, Want::Long);
    let trade = |size: f64| Market::Trade { price: 100.0, size };
    assert_eq!(desk.tick(3 * S, "A", trade(f64::INFINITY)), ["alert bad_size"]);
    for size in [0.0, -5.0, f64::NEG_INFINITY] {
        assert_eq!(desk.tick(4 * S, "A", trade(size)), [""; 0]);
    }
    assert_eq!(desk.tick(5 * S, "A", trade(4.0)), ["fill 4 at 100 -> 4", "partly_filled"]);
    // A feed without sizes.
    assert_eq!(desk.tick(6 * S, "A", trade(f64::NAN)), ["fill 6 at 100 -> 10", "filled"]);
}

#[test]
fn a_bar_whose_high_is_below_its_low_is_named_so() {
    let mut desk = Desk::new(json!({}));
    let bar = |high: f64, low: f64| Market::Bar { open: 100.0, high, low, close: 100.0, volume: 50.0 };
    assert_eq!(desk.tick(S, "A", bar(90.0, 110.0)), ["alert bad_bar"]);
    assert_eq!(desk.tick(2 * S, "A", bar(110.0, 0.0)), ["alert bad_price"]);
    assert_eq!(desk.want(3 * S, Want::Long), ["refused sizing.price"]);
}

/// What could not leave as `Decimal128(38, 18)` is no price.
#[test]
fn a_price_out_of_bounds_is_none() {
    let mut desk = Desk::new(json!({}));
    desk.trade(S, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.trade(3 * S, 1e25), ["alert bad_price"]);
    assert_eq!(desk.trade(4 * S, 100.0), ["fill 10 at 100 -> 10", "filled"]);
}

#[test]
fn a_side_that_did_not_change_is_kept_through_a_quote_that_crosses_it() {
    let mut desk = Desk::new(json!({ "zero_is_unchanged": true }));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.quote(2 * S, 101.0, 0.0), ["alert crossed_quote"]);
    assert_eq!(desk.quote(3 * S, 0.0, 102.0), [""; 0]);
    assert_eq!(desk.want(4 * S, Want::Long)[2], "fill 10 at 102 -> 10");
    assert_eq!(desk.want(5 * S, Want::Flat)[2], "fill 10 at 101 -> 0");
}

#[test]
fn unlisted_symbols_are_refused_where_instruments_are_listed() {
    let mut desk = Desk::new(json!({ "instruments": [{ "symbol": "A" }] }));
    assert_eq!(desk.machine.instrument("B"), None);
    let with =
        json!({ "instruments": [{ "symbol": "A" }], "default_instrument": { "symbol": "", "lot": 0.1 } });
    let mut desk = Desk::new(with);
    assert_eq!(desk.machine.instrument("B"), Some(1));
    assert_eq!(desk.machine.instruments()[1].lot.0, d("0.1"));
}

#[test]
fn a_halted_symbol_takes_no_orders() {
    let mut desk = Desk::new(json!({}));
    desk.quote(S, 99.0, 100.0);
    desk.tick(2 * S, "A", Market::Halt(true));
    assert_eq!(desk.want(3 * S, Want::Long), ["refused halted"]);
    desk.tick(4 * S, "A", Market::Halt(false));
    desk.quote(4 * S, 99.0, 100.0);
    assert_eq!(desk.want(5 * S, Want::Flat), [""; 0]);
    assert_eq!(desk.want(5 * S, Want::Long).last().unwrap(), "filled");
}

#[test]
fn zero_may_mean_unchanged() {
    let mut desk = Desk::new(json!({ "zero_is_unchanged": true }));
    let quote = |bid: f64, ask: f64| Market::Quote { bid, bid_size: 10.0, ask, ask_size: 20.0 };
    desk.tick(S, "A", quote(99.0, 100.0));
    desk.tick(2 * S, "A", quote(99.5, 0.0));
    assert_eq!(desk.want(3 * S, Want::Long), ["buy 10 market", "working", "fill 10 at 100 -> 10", "filled"]);
    assert_eq!(desk.want(4 * S, Want::Flat)[2], "fill 10 at 99.5 -> 0");
}

#[test]
fn numbers_that_make_no_sense_refuse_the_signal() {
    let mut desk = Desk::new(json!({}));
    desk.quote(S, 99.0, 100.0);
    assert_eq!(desk.want(2 * S, Want::Weight(f64::NAN)), ["refused signal.weight"]);
    assert_eq!(desk.signal_with(3 * S, Want::Long, |s| s.strength = -1.0), ["refused sizing.fixed"]);
    assert_eq!(desk.signal_with(4 * S, Want::Long, |s| s.order.limit = Some(-5.0)), ["refused order.price"]);
    assert_eq!(desk.want(5 * S, Want::Target(Decimal::MAX)), ["refused signal.units"]);
    assert_eq!(desk.want(6 * S, Want::Trade(Decimal::MIN)), ["refused signal.units"]);
    assert_eq!(desk.want(7 * S, Want::Target(d("1000000000000000"))), ["refused account.cash"]);
    assert_eq!(desk.position(), Decimal::ZERO);
}

fn corporate(actions: &[(i64, CorporateKind, &str)]) -> Desk {
    let action = |(ts, kind, value): &(i64, CorporateKind, &str)| CorporateAction {
        ts: *ts,
        symbol: "A".into(),
        kind: *kind,
        value: d(value),
    };
    let actions = actions.iter().map(action).collect();
    let with = json!({ "protect": { "stop_loss": { "fraction": 0.1 } } });
    let machine = Execution::with_corporate_actions(params(with), "job", "node", actions).unwrap();
    Desk { machine, events: Vec::new(), seq: 0 }
}

#[test]
fn a_split_in_mid_position_keeps_its_worth_and_its_guard() {
    let mut desk = corporate(&[(5 * S, CorporateKind::Split, "2"), (S / 2, CorporateKind::Split, "3")]);
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.working(), ["sell 10 stop 90"]);
    let equity = desk.machine.ledger.equity();
    let told = desk.advance(6 * S);
    assert_eq!(told[0], "alert split");
    assert_eq!(desk.position(), d("20"));
    assert_eq!(desk.working(), ["sell 20 stop 45"]);
    assert_eq!(desk.machine.ledger.equity(), equity);
    // Prices are half from now on; the stop at the venue is, too.
    desk.quote(7 * S, 49.5, 50.0);
    assert_eq!(desk.position(), d("20"));
    desk.quote(8 * S, 44.9, 45.1);
    assert_eq!(desk.position(), Decimal::ZERO);
}

#[test]
fn a_dividend_is_paid_to_who_holds() {
    let mut desk = corporate(&[(5 * S, CorporateKind::Dividend, "0.25")]);
    desk.quote(S, 99.0, 100.0);
    desk.want(2 * S, Want::Long);
    assert_eq!(desk.advance(6 * S), ["cash 2.5 Dividend"]);
}

#[test]
fn reports_to_a_paper_venue_are_told() {
    let mut desk = Desk::new(json!({}));
    assert_eq!(desk.say(S, Said::Accepted { order: OrderId(1) }), ["alert unexpected_report"]);
}

#[test]
fn every_mistake_of_the_graph_is_told_at_once() {
    let with = json!({
        "account": { "currency": "", "cash": { "USD": 1 } },
        "instruments": [{ "symbol": "A", "tick": 0, "min_notional": -1 }, { "symbol": "A" }],
        "order": { "post_only": true, "algo": { "iceberg": { "display": 1 } } },
        "protect": { "stop_loss": { "fraction": 2 } },
        "sizing": { "fixed": 0 },
        "risk": { "drawdown": { "max": 3 } },
        "short": true,
        "rebalance": -1,
    });
    let wrong = Execution::new(params(with), "job", "node").err().unwrap();
    let paths: Vec<&str> = wrong.iter().map(|(path, _)| path.as_str()).collect();
    for path in [
        "account.currency",
        "instruments[0].tick",
        "instruments[0].min_notional",
        "instruments[1].symbol",
        "order.post_only",
        "order.algo.iceberg",
        "protect.stop_loss.fraction",
        "sizing.fixed",
        "risk.drawdown.max",
        "short",
        "rebalance",
    ] {
        assert_eq!(paths.iter().filter(|p| **p == path).count(), 1, "{path} in {paths:?}");
    }
}
