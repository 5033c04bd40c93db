//! No sequence of orders that the account can bear, in whatever sequence and parts they are filled, breaks its margin.

use proptest::prelude::*;

use super::*;
use crate::order::{Order, OrderType, TimeInForce};

const INSTRUMENTS: &str = r#"[
    {"symbol": "STOCK"},
    {"symbol": "COIN", "quote": "EUR", "initial_margin": 0.6},
    {"symbol": "PERP", "class": "perpetual", "multiplier": 10, "initial_margin": 0.25},
    {"symbol": "FUT", "class": "future", "quote": "EUR", "initial_margin": 0.3}]"#;

#[derive(Clone, Debug)]
enum Op {
    /// A wish to trade; price in hundredths of the mark, away from it.
    Order {
        instrument: usize,
        quantity: i64,
        off: i64,
        limit: bool,
    },
    /// Fills a part of a working order at its price.
    Fill {
        which: usize,
        quantity: i64,
    },
    Cancel {
        which: usize,
    },
    Mark {
        instrument: usize,
        price: i64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4usize, (-80..80i64).prop_filter("", |n| *n != 0), -10..10i64, any::<bool>())
            .prop_map(|(instrument, quantity, off, limit)| Op::Order { instrument, quantity, off, limit }),
        6 => (0..9usize, 1..60i64).prop_map(|(which, quantity)| Op::Fill { which, quantity }),
        1 => (0..9usize).prop_map(|which| Op::Cancel { which }),
        1 => (0..4usize, 95..105i64).prop_map(|(instrument, price)| Op::Mark { instrument, price }),
    ]
}

/// Equity less the margin of what is held: nothing of the ledger's own reserves.
fn room(ledger: &Ledger) -> Decimal {
    let mut room = ledger.equity_exact().unwrap();
    for (i, held) in ledger.positions() {
        let traded = &ledger.instruments()[i as usize];
        let price = money::from_f64(ledger.price(i)).unwrap();
        let value = held.quantity.abs() * price * traded.multiplier.0 * ledger.rate(i).unwrap();
        room -= value * ledger.initial_margin(i);
    }
    room
}

fn run(account: &str, ops: &[Op]) {
    let mut ledger = ledger(account, INSTRUMENTS);
    (0..4).for_each(|i| assert!(ledger.mark(i, 100.0)));
    let mut working: Vec<(Order, Decimal)> = Vec::new();
    let (mut turned, mut next, mut sound) = (0, 0, true);
    for op in ops {
        match *op {
            Op::Order { instrument, quantity, off, limit } => {
                let side = if quantity > 0 { Side::Buy } else { Side::Sell };
                let i = instrument as u32;
                let mark = money::from_f64(ledger.price(i)).unwrap();
                let price = mark * Decimal::new(100 + off, 2);
                let order_type = if limit { OrderType::Limit { limit: price } } else { OrderType::Market };
                let units = Decimal::from(quantity.abs());
                if ledger.can_bear(i, side, units, &order_type, price).is_err() {
                    continue;
                }
                next += 1;
                let order = Order {
                    id: OrderId(next),
                    instrument: i,
                    side,
                    quantity: units,
                    order_type,
                    time_in_force: TimeInForce::Gtc,
                    post_only: false,
                    reduce_only: false,
                };
                ledger.reserve(&order, price);
                working.push((order, price));
            }
            Op::Fill { which, quantity } if !working.is_empty() => {
                let n = which % working.len();
                let (order, price) = &mut working[n];
                let part = order.quantity.min(Decimal::from(quantity));
                let i = order.instrument as usize;
                let (price, multiplier) = (*price, ledger.instruments()[i].multiplier.0);
                let fee = (part * price * multiplier * d("0.001")).round_dp(8);
                let before = ledger.quantity(i as u32);
                let booked = ledger.fill(
                    0,
                    &Fill {
                        id: format!("{next}-{}", order.quantity),
                        order: order.id,
                        instrument: i as u32,
                        side: order.side,
                        price,
                        quantity: part,
                        fee,
                        fee_currency: ledger.instruments()[i].quote.clone(),
                        maker: None,
                    },
                );
                turned += usize::from(before * booked.unwrap().position < Decimal::ZERO);
                order.quantity -= part;
                if order.quantity.is_zero() {
                    ledger.release(order.id);
                    working.remove(n);
                }
                next += 1;
            }
            Op::Cancel { which } if !working.is_empty() => {
                let (order, _) = working.remove(which % working.len());
                ledger.release(order.id);
            }
            Op::Fill { .. } | Op::Cancel { .. } => {}
            Op::Mark { instrument, price } => {
                // Prices may break what orders may not: only while nothing works, and the account bears it.
                if working.is_empty() {
                    let before = ledger.price(instrument as u32);
                    ledger.mark(instrument as u32, price as f64);
                    if room(&ledger) < Decimal::ZERO {
                        ledger.mark(instrument as u32, before);
                    }
                }
            }
        }
        sound &= room(&ledger) >= Decimal::ZERO;
        assert!(sound, "{op:?}: {}", room(&ledger));
        let (exact, near) = (money::to_f64(ledger.free_exact().unwrap()), ledger.free());
        assert!((exact - near).abs() < 1e-6, "{exact} {near}");
    }
    TURNED.fetch_add(turned, std::sync::atomic::Ordering::Relaxed);
}

static TURNED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

#[test]
fn no_sequence_of_orders_breaks_the_margin() {
    let account = r#"{"kind": "margin", "leverage_max": 4, "cash": {"USD": 2500, "EUR": 1000}, "fees": {"taker": 0.001},
        "rates": [{"from": "EUR", "to": "USD", "rate": 1.25}]}"#;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let ops = prop::collection::vec(op(), 1..80);
    runner
        .run(&ops, |ops| {
            run(account, &ops);
            Ok(())
        })
        .unwrap();
    assert!(TURNED.load(std::sync::atomic::Ordering::Relaxed) > 100, "positions are turned");
}
