//! What holds for any input: saved and restored is never stopped; calls of `advance` change nothing; cash and positions are equity.

use proptest::prelude::*;

use super::*;
use crate::execution::orders::Purpose;
use crate::money;

/// One input.
#[derive(Clone, Debug)]
enum Input {
    Market(u32, Market),
    Want(u32, Want, OrderWish),
    Control(Control),
}

fn price() -> impl Strategy<Value = f64> {
    (9_000u32..11_000).prop_map(|cents| f64::from(cents) / 100.0)
}

/// Prices of an order, where the wish gives any.
fn wish() -> impl Strategy<Value = OrderWish> {
    let one = || prop_oneof![2 => Just(None), 1 => price().prop_map(Some)];
    let trail = prop_oneof![4 => Just(None), 1 => (1u32..300).prop_map(|t| Some(f64::from(t) / 1000.0))];
    (one(), one(), trail).prop_map(|(limit, stop, trail)| OrderWish { limit, stop, trail })
}

fn input() -> impl Strategy<Value = Input> {
    let trade = (price(), 1u32..50).prop_map(|(price, size)| Market::Trade { price, size: f64::from(size) });
    let quote = (price(), 0u32..30, 1u32..60, 1u32..60).prop_map(|(bid, wide, bids, asks)| Market::Quote {
        bid,
        bid_size: f64::from(bids),
        ask: ((bid * 100.0).round() + f64::from(wide)) / 100.0,
        ask_size: f64::from(asks),
    });
    let odd = prop_oneof![
        Just(Market::Halt(true)),
        Just(Market::Halt(false)),
        Just(Market::Trade { price: f64::NAN, size: 1.0 }),
        Just(Market::Trade { price: 0.0, size: 1.0 }),
        Just(Market::BookReset),
    ];
    let market = prop_oneof![6 => trade, 6 => quote, 1 => odd];
    let want = prop_oneof![
        4 => Just(Want::Long),
        4 => Just(Want::Short),
        2 => Just(Want::Flat),
        2 => (-40i64..40).prop_map(|q| Want::Target(q.into())),
        1 => (-1.0f64..1.0).prop_map(Want::Weight),
        1 => (-9i64..9).prop_map(|q| Want::Trade(q.into())),
        1 => Just(Want::Cancel),
    ];
    let control = prop_oneof![
        Just(Control::Halt),
        Just(Control::Flatten),
        Just(Control::Reduce),
        Just(Control::Resume)
    ];
    prop_oneof![
        12 => (0u32..2, market).prop_map(|(i, m)| Input::Market(i, m)),
        5 => (0u32..2, want, wish()).prop_map(|(i, w, l)| Input::Want(i, w, l)),
        1 => control.prop_map(Input::Control),
    ]
}

fn inputs() -> impl Strategy<Value = Vec<(i64, Input)>> {
    proptest::collection::vec(
        (prop_oneof![Just(0i64), Just(1_000_000), Just(700_000_000), Just(40_000_000_000)], input()),
        1..70,
    )
}

/// Machines of very different kinds.
fn machines() -> Vec<Value> {
    let margin = json!({ "kind": "margin", "cash": { "USD": 20000 }, "fees": { "taker": 0.001, "maker": -0.0002 }, "interest": 0.05 });
    vec![
        json!({ "sample": "10s" }),
        json!({
            "account": margin, "short": true, "sample": "1m",
            "venue": { "kind": "paper", "latency": "3ms", "liquidate": true },
            "protect": { "stop_loss": { "fraction": 0.01 }, "take_profit": { "fraction": 0.02 } },
            "risk": { "drawdown": { "max": 0.05, "cool_down": "1m" }, "gross": 5000, "rate": { "orders": 5, "per": "1s" } },
        }),
        json!({
            "account": margin, "short": true,
            "order": { "type": "limit", "turn": "two", "time_in_force": { "gtd": "30s" } },
            "protect": { "trailing": { "amount": 1 }, "at": "machine" },
        }),
        json!({
            "account": margin, "short": true, "mode": "trade", "sample": "5s",
            "order": { "algo": { "twap": { "over": "20s", "slices": 7 } } },
            "risk": { "position": { "max_quantity": 30 } },
        }),
        json!({ "order": { "type": "limit", "algo": { "iceberg": { "display": 3 } } }, "protect": { "stop_loss": { "amount": 2 } } }),
        json!({ "account": margin, "order": { "algo": { "pov": { "rate": 0.2, "over": "1m" } } }, "rebalance": 0.2 }),
        json!({
            "order": { "type": "limit", "time_in_force": { "gtd": "5s" }, "algo": { "iceberg": { "display": 3 } } },
            "venue": { "kind": "paper", "latency": "3ms" },
        }),
        json!({ "order": { "type": "limit", "from": "far", "time_in_force": "ioc", "algo": { "iceberg": { "display": 4 } } } }),
        json!({ "order": { "type": "limit", "time_in_force": "day", "algo": { "twap": { "over": "30s", "slices": 3 } } } }),
        closing_for_a_minute(json!({
            "account": margin, "short": true, "flat_at_close": true, "flat_before": "10s",
            "protect": { "stop_loss": { "fraction": 0.01 }, "at": "machine" },
        })),
        closing_for_a_minute(json!({
            "account": margin, "short": true, "venue": { "kind": "paper", "latency": "3ms" },
            "protect": { "trailing": { "fraction": 0.01 }, "at": "machine", "reenter": true },
            "risk": { "drawdown": { "max": 0.002, "action": "flatten", "cool_down": "1m" } },
        })),
    ]
}

/// The market is shut from 22:14 to 22:15 UTC: the inputs begin at 22:13:20.
fn closing_for_a_minute(mut with: Value) -> Value {
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let session = json!({ "zone": "UTC", "open": "22:15", "close": "22:14", "days": days });
    with["default_instrument"] = json!({ "symbol": "", "session": session });
    with
}

fn machine(with: &Value) -> Execution {
    Execution::new(params(with.clone()), "job", "node").unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn give(machine: &mut Execution, (ts, seq): (i64, u64), input: &Input, out: &mut Vec<Event>) {
    match input {
        Input::Market(i, market) => {
            let instrument = machine.instrument(["A", "B"][*i as usize]).unwrap();
            machine.market(&Tick { ts, instrument, market: *market }, out);
        }
        Input::Want(i, want, order) => {
            let instrument = machine.instrument(["A", "B"][*i as usize]).unwrap();
            let signal = Signal {
                ts,
                src: 1,
                seq,
                instrument,
                want: *want,
                strength: if seq % 3 == 0 { 1.5 } else { 1.0 },
                order: *order,
                atr: None,
                volatility: None,
                expected: None,
                stop_loss: None,
                take_profit: None,
            };
            machine.signal(&signal, out);
        }
        Input::Control(control) => machine.control(ts, *control, "a law", out),
    }
}

fn times(inputs: &[(i64, Input)]) -> Vec<(i64, &Input)> {
    let mut ts = 1_700_000_000 * S;
    inputs
        .iter()
        .map(|(step, input)| {
            ts += step;
            (ts, input)
        })
        .collect()
}

/// NaN is not equal to itself, so events are compared as text.
fn shown(events: &[Event]) -> Vec<String> {
    events.iter().map(|e| format!("{e:?}")).collect()
}

/// What the account says must follow from the fills and cash that were told.
fn books_hold(machine: &Execution, start: Decimal, events: &[Event]) {
    let mut cash = start;
    let mut held = [Decimal::ZERO; 2];
    for event in events {
        match &event.what {
            Happened::Filled { fill, .. } => {
                let units = fill.side.sign() * fill.quantity;
                held[fill.instrument as usize] += units;
                cash -= units * fill.price + fill.fee;
            }
            Happened::Cash { amount, .. } => cash += *amount,
            _ => {}
        }
    }
    assert_eq!(machine.ledger.cash("USD"), cash);
    let mut equity = cash;
    for (i, units) in held.iter().enumerate().take(machine.instruments.len()) {
        assert_eq!(machine.ledger.quantity(i as u32), *units);
        if !units.is_zero() {
            equity += *units * money::from_f64(machine.own.slots[i].price).unwrap();
        }
    }
    assert_eq!(machine.ledger.equity_exact(), Some(equity));
}

/// A sliced order that is not all sent waits for a time, for trades, or for one of its slices.
fn nothing_stalls(machine: &Execution) -> bool {
    let slice = |number: u64| machine.own.orders.iter().any(|o| o.purpose == Purpose::Slice(number));
    machine.own.parents.iter().all(|(number, parent)| {
        parent.schedule.next_due() != i64::MAX || !parent.schedule.is_one_at_a_time() || slice(*number)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Cash and positions at their prices are equity, to the last digit, after every input; and nothing is filled that was not ordered.
    #[test]
    fn cash_and_positions_are_equity(inputs in inputs(), kind in 0usize..machines().len()) {
        let with = &machines()[kind];
        let start = params(with.clone()).account.cash["USD"].0;
        let mut machine = machine(with);
        let mut events = Vec::new();
        for (seq, (ts, input)) in times(&inputs).into_iter().enumerate() {
            give(&mut machine, (ts, seq as u64), input, &mut events);
            books_hold(&machine, start, &events);
            prop_assert!(nothing_stalls(&machine), "a sliced order waits for nothing");
        }
        prop_assert!(events.windows(2).all(|w| w[0].ts <= w[1].ts));
        let mut ordered = std::collections::BTreeMap::new();
        for event in &events {
            match &event.what {
                Happened::Sent { command: Command::New(order), .. } => {
                    prop_assert!(ordered.insert(order.id, order.quantity).is_none(), "an order was sent twice");
                }
                Happened::Sent { command: Command::Modify { order, quantity: Some(quantity), .. }, .. } => {
                    let known = ordered.get_mut(order).unwrap();
                    *known = (*known).max(*quantity);
                }
                Happened::Filled { fill, .. } => {
                    let left = ordered.get_mut(&fill.order).unwrap();
                    *left -= fill.quantity;
                    prop_assert!(*left >= Decimal::ZERO, "more was filled than ordered");
                }
                _ => {}
            }
        }
    }

    /// A machine that is saved and restored after any input tells what one tells that never stopped; and `advance` at any time changes nothing.
    #[test]
    fn saved_and_restored_is_never_stopped(inputs in inputs(), kind in 0usize..machines().len(), cuts in proptest::collection::vec(any::<bool>(), 70)) {
        let with = &machines()[kind];
        let mut whole = machine(with);
        let mut expect = Vec::new();
        let mut broken = machine(with);
        let mut got = Vec::new();
        let all = times(&inputs);
        for (seq, (ts, input)) in all.iter().enumerate() {
            give(&mut whole, (*ts, seq as u64), input, &mut expect);
            give(&mut broken, (*ts, seq as u64), input, &mut got);
            if cuts[seq] {
                let bytes = postcard::to_stdvec(&broken.save()).unwrap();
                broken = machine(with);
                broken.restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
            } else if let Some((next, _)) = all.get(seq + 1) {
                broken.advance(ts + (next - ts) / 2, &mut got);
                broken.advance(*next, &mut got);
            }
        }
        let end = all.last().map_or(0, |(ts, _)| ts + 100 * S);
        whole.advance(end, &mut expect);
        broken.advance(end, &mut got);
        prop_assert_eq!(shown(&got), shown(&expect));
    }

    /// What the gate limits is never exceeded, whatever is wanted and however it is filled.
    #[test]
    fn limits_are_never_exceeded(inputs in inputs()) {
        let with = json!({
            "account": { "kind": "margin", "cash": { "USD": 20000 } }, "short": true, "mode": "trade",
            "venue": { "kind": "paper", "latency": "1s" },
            "risk": { "position": { "max_quantity": 25 }, "order": { "max_quantity": 12 } },
        });
        let mut machine = machine(&with);
        let mut events = Vec::new();
        for (seq, (ts, input)) in times(&inputs).into_iter().enumerate() {
            give(&mut machine, (ts, seq as u64), input, &mut events);
        }
        for event in &events {
            if let Happened::Filled { position, .. } = &event.what {
                prop_assert!(position.abs() <= 25.into());
            }
        }
    }
}
