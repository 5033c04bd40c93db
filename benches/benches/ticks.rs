//! What a market tick costs where there is nothing to do: the machine of an account, and the paper venue alone with orders far away.
//!
//!     cargo bench --workspace --bench ticks

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use tidemill_trading::execution::Execution;
use tidemill_trading::instrument::{Fees, Instrument};
use tidemill_trading::market::{Market, Tick};
use tidemill_trading::money::Decimal;
use tidemill_trading::order::{Command, Order, OrderId, OrderType, Side, TimeInForce};
use tidemill_trading::paper::Paper;
use tidemill_trading::signal::{OrderWish, Signal, Want};

const SECOND: i64 = 1_000_000_000;
const TICKS: i64 = 1000;

fn instrument() -> Instrument {
    serde_json::from_value(json!({ "symbol": "SPY" })).expect("a share needs only a symbol")
}

fn tick(ts: i64, market: Market) -> Tick {
    Tick { ts, instrument: 0, market }
}

fn trades(from: i64) -> Vec<Tick> {
    (0..TICKS)
        .map(|k| tick(from + k, Market::Trade { price: 100.0 + (k & 7) as f64 / 100.0, size: 5.0 }))
        .collect()
}

fn quotes(from: i64) -> Vec<Tick> {
    (0..TICKS)
        .map(|k| {
            let bid = 99.0 + (k % 7) as f64 / 100.0;
            tick(from + k, Market::Quote { bid, bid_size: 10.0, ask: bid + 1.0, ask_size: (k % 11) as f64 })
        })
        .collect()
}

/// A machine that holds a hundred shares, or nothing.
fn machine(more: Value, holds: bool) -> Execution {
    let mut with = json!({
        "signals": "signals", "instruments": [{ "symbol": "SPY" }], "sizing": { "fixed": 100 }, "sample": "0s",
        "account": { "cash": { "USD": 1_000_000 } },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        with[name] = value.clone();
    }
    let params = serde_json::from_value(with).expect("these are parameters");
    let mut machine = Execution::new(params, "bench", "desk").expect("they fit together");
    let mut events = Vec::new();
    let quote = Market::Quote { bid: 99.0, bid_size: 1000.0, ask: 100.0, ask_size: 1000.0 };
    machine.market(&tick(SECOND, quote), &mut events);
    if holds {
        let order = OrderWish::default();
        let signal = Signal {
            ts: 2 * SECOND,
            src: 0,
            seq: 0,
            instrument: 0,
            want: Want::Long,
            strength: 1.0,
            order,
            atr: None,
            volatility: None,
            expected: None,
            stop_loss: None,
            take_profit: None,
        };
        machine.signal(&signal, &mut events);
    }
    machine
}

fn ticks(c: &mut Criterion) {
    let mut group = c.benchmark_group("tick");
    group.throughput(Throughput::Elements(TICKS as u64));
    let guards =
        json!({ "protect": { "stop_loss": { "fraction": 0.5 }, "take_profit": { "fraction": 0.5 } } });
    let cases = [
        ("machine/nothing held", json!({}), false),
        ("machine/held", json!({}), true),
        ("machine/held, guarded", guards, true),
        ("machine/held, drawdown rule", json!({ "risk": { "drawdown": { "max": 0.9 } } }), true),
    ];
    for (name, with, holds) in cases {
        let (mut machine, mut events, mut from) = (machine(with, holds), Vec::new(), 3 * SECOND);
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    from += SECOND;
                    trades(from)
                },
                |ticks| {
                    ticks.iter().for_each(|tick| machine.market(black_box(tick), &mut events));
                    events.clear();
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    for resting in [0, 10] {
        for (what, made) in [("quotes", quotes as fn(i64) -> Vec<Tick>), ("trades", trades)] {
            let mut paper = Paper::new(&Default::default(), Arc::new([instrument()]), Fees::default())
                .expect("the defaults fit");
            let mut out = Vec::new();
            paper.tick(&quotes(0)[0], &mut out);
            for n in 0..resting {
                let (side, price) = if n % 2 == 0 { (Side::Buy, 90) } else { (Side::Sell, 110) };
                let order = Order {
                    id: OrderId(n),
                    instrument: 0,
                    side,
                    quantity: Decimal::from(5),
                    order_type: OrderType::Limit { limit: Decimal::from(price) },
                    time_in_force: TimeInForce::Gtc,
                    post_only: false,
                    reduce_only: false,
                };
                paper.command(TICKS, &Command::New(order));
            }
            let mut from = SECOND;
            group.bench_function(format!("paper/{what}, {resting} resting"), |b| {
                b.iter_batched(
                    || {
                        from += SECOND;
                        made(from)
                    },
                    |ticks| {
                        ticks.iter().for_each(|tick| paper.tick(black_box(tick), &mut out));
                        out.clear();
                    },
                    criterion::BatchSize::SmallInput,
                );
            });
            assert_eq!(paper.working().len(), resting as usize);
        }
    }
    group.finish();
}

criterion_group!(benches, ticks);
criterion_main!(benches);
