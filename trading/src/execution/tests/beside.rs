//! Exits beside guards, for any market and any wishes to be long or flat: nothing is sold that is not held, what is held has its stop, and a machine
//! that was restored goes on the same.

use proptest::prelude::*;

use super::*;
use crate::execution::orders::Purpose;

#[derive(Clone, Debug)]
enum Input {
    Market(Market),
    /// A wish, its limit, stop and trail, its stop-loss and take-profit.
    Want(Want, OrderWish, Option<f64>, Option<f64>),
}

fn price() -> impl Strategy<Value = f64> {
    (9_000u32..11_000).prop_map(|cents| f64::from(cents) / 100.0)
}

fn input() -> impl Strategy<Value = Input> {
    let trade = (price(), 1u32..50).prop_map(|(price, size)| Market::Trade { price, size: f64::from(size) });
    let quote = (price(), 1u32..30).prop_map(|(bid, size)| {
        let size = f64::from(size);
        Market::Quote { bid, bid_size: size, ask: ((bid * 100.0).round() + 2.0) / 100.0, ask_size: size }
    });
    let want = prop_oneof![
        3 => Just(Want::Long),
        3 => Just(Want::Flat),
        3 => (0i64..40).prop_map(|q| Want::Target(q.into())),
        1 => (0.0f64..0.3).prop_map(Want::Weight),
        1 => (1i64..9).prop_map(|q| Want::Trade(q.into())),
        1 => Just(Want::Cancel),
    ];
    let some = || prop_oneof![3 => Just(None), 1 => price().prop_map(Some)];
    let trail = prop_oneof![8 => Just(None), 1 => Just(Some(2.0))];
    let wish = (some(), some(), trail).prop_map(|(limit, stop, trail)| OrderWish { limit, stop, trail });
    prop_oneof![
        4 => trade.prop_map(Input::Market),
        1 => quote.prop_map(Input::Market),
        4 => (want, wish, some(), some()).prop_map(|(w, o, s, t)| Input::Want(w, o, s, t)),
    ]
}

fn inputs() -> impl Strategy<Value = Vec<(i64, Input)>> {
    let step = prop_oneof![Just(0i64), Just(1_000_000), Just(200_000_000), Just(3_000_000_000)];
    proptest::collection::vec((step, input()), 1..80)
}

fn machines() -> [Value; 6] {
    let account = json!({ "kind": "margin", "cash": { "USD": 20000 } });
    let both = json!({ "stop_loss": { "fraction": 0.02 }, "take_profit": { "amount": 3 } });
    let late = json!({ "kind": "paper", "latency": "250ms" });
    [
        json!({ "protect": both }),
        json!({ "protect": both, "venue": late }),
        json!({ "protect": { "trailing": { "amount": 2 } }, "venue": late, "order": { "turn": "two" } }),
        json!({ "protect": both, "venue": late, "order": { "algo": { "twap": { "over": "2s", "slices": 4 } } } }),
        json!({ "protect": both, "order": { "type": "limit", "algo": { "iceberg": { "display": 3 } } }, "mode": "trade" }),
        json!({ "protect": { "stop_loss": { "fraction": 0.02 }, "at": "machine" }, "venue": late }),
    ]
    .map(|mut with| {
        (with["account"], with["short"]) = (account.clone(), json!(true));
        with
    })
}

fn give(desk: &mut Desk, ts: i64, input: &Input) {
    match input {
        Input::Market(market) => desk.tick(ts, "A", *market),
        Input::Want(want, order, stop_loss, take_profit) => desk.signal_with(ts, *want, |s| {
            (s.order, s.stop_loss, s.take_profit) = (*order, *stop_loss, *take_profit);
        }),
    };
}

/// What is held has its stop: where nothing takes time, after every input. (One that was triggered and found nobody yet cannot be changed; what came
/// since has its own when that one is filled.)
fn is_stopped(desk: &mut Desk) {
    let (held, machine) = (desk.position(), &desk.machine);
    let slot = &machine.own.slots[0];
    if held.is_zero() || slot.closing.is_on() || slot.bare || slot.unguarded {
        return;
    }
    if machine.own.orders.of(0).any(|o| o.purpose == Purpose::StopLoss && o.rigid) {
        return;
    }
    let stops: Decimal = machine
        .own
        .orders
        .of(0)
        .filter(|o| o.purpose == Purpose::StopLoss && !o.canceling)
        .map(|o| o.rest())
        .sum();
    assert_eq!(stops, held, "{:?}", desk.working());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_more_is_sold_than_is_held(inputs in inputs(), kind in 0usize..6) {
        let mut desk = Desk::new(machines()[kind].clone());
        let mut ts = 1_700_000_000 * S;
        for (step, input) in &inputs {
            ts += step;
            give(&mut desk, ts, input);
            prop_assert!(desk.position() >= Decimal::ZERO, "{:?}", desk.working());
            if kind == 0 {
                is_stopped(&mut desk);
            }
        }
        // Nothing is left on its way to sell what is not there.
        desk.advance(ts + 100 * S);
        for (n, price) in [80.0, 120.0, 80.0, 120.0].into_iter().enumerate() {
            give(&mut desk, ts + (101 + n as i64) * S, &Input::Market(Market::Trade { price, size: 1e6 }));
        }
        for event in &desk.events {
            if let Happened::Filled { position, .. } = &event.what {
                prop_assert!(*position >= Decimal::ZERO);
            }
        }
    }

    #[test]
    fn saved_and_restored_is_never_stopped(inputs in inputs(), kind in 0usize..6, cuts in proptest::collection::vec(any::<bool>(), 80)) {
        let with = &machines()[kind];
        let (mut whole, mut broken) = (Desk::new(with.clone()), Desk::new(with.clone()));
        let mut ts = 1_700_000_000 * S;
        for ((step, input), cut) in inputs.iter().zip(cuts) {
            ts += step;
            give(&mut whole, ts, input);
            give(&mut broken, ts, input);
            if cut {
                let bytes = postcard::to_stdvec(&broken.machine.save()).unwrap();
                broken.machine = Desk::new(with.clone()).machine;
                broken.machine.restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
            }
        }
        whole.advance(ts + 100 * S);
        broken.advance(ts + 100 * S);
        whole.machine.finish(&mut whole.events);
        broken.machine.finish(&mut broken.events);
        let shown = |desk: &Desk| desk.events.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>();
        prop_assert_eq!(shown(&broken), shown(&whole));
    }
}
