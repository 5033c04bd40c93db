//! An external venue that says anything in any order: nothing panics, fills count once, no order is sent twice, and a restored machine goes on
//! the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::order::{Order, OrderType, Side, TimeInForce};
use crate::report::{CashReason, Open, Snapshot};

/// What is said, of the `k`th order that was sent (or of a stranger's).
#[derive(Clone, Debug, PartialEq)]
enum Rumour {
    Quote(u32),
    Halt(bool),
    Control(Control),
    Want(Want),
    Accepted(usize),
    Filled(usize, u32, u32),
    Canceled(usize),
    Rejected(usize),
    Expired(usize),
    ChangeRejected(usize),
    Replaced(usize, u32),
    Transfer(i64),
    Snapshot(Vec<usize>, i64),
    Reconciling,
}

fn rumour() -> impl Strategy<Value = Rumour> {
    let k = 0usize..6;
    prop_oneof![
        3 => (9_800u32..10_200).prop_map(Rumour::Quote),
        1 => any::<bool>().prop_map(Rumour::Halt),
        1 => prop_oneof![Just(Control::Flatten), Just(Control::Resume)].prop_map(Rumour::Control),
        4 => prop_oneof![Just(Want::Long), Just(Want::Short), Just(Want::Flat), Just(Want::Target(3.into())), Just(Want::Cancel)]
            .prop_map(Rumour::Want),
        3 => k.clone().prop_map(Rumour::Accepted),
        5 => (k.clone(), 0u32..8, 1u32..12).prop_map(|(k, id, units)| Rumour::Filled(k, id, units)),
        2 => k.clone().prop_map(Rumour::Canceled),
        1 => k.clone().prop_map(Rumour::Rejected),
        1 => k.clone().prop_map(Rumour::Expired),
        1 => k.clone().prop_map(Rumour::ChangeRejected),
        1 => (k.clone(), 1u32..20).prop_map(|(k, units)| Rumour::Replaced(k, units)),
        1 => (-9_000i64..9_000).prop_map(Rumour::Transfer),
        1 => Just(Rumour::Reconciling),
        2 => (proptest::collection::vec(k, 0..3), -5i64..15).prop_map(|(open, held)| Rumour::Snapshot(open, held)),
    ]
}

/// The orders that were sent so far, latest first; beyond them, strangers.
fn pick(sent: &[Order], k: usize) -> Order {
    let stranger = Order {
        id: OrderId(900 + k as u128),
        instrument: 0,
        side: Side::Buy,
        quantity: 4.into(),
        order_type: OrderType::Limit { limit: 90.into() },
        time_in_force: TimeInForce::Gtc,
        post_only: false,
        reduce_only: false,
    };
    sent.iter().rev().nth(k).cloned().unwrap_or(stranger)
}

fn sent(events: &[Event]) -> Vec<Order> {
    let order = |e: &Event| {
        if let Happened::Sent { command: Command::New(order), .. } = &e.what {
            Some(order.clone())
        } else {
            None
        }
    };
    events.iter().filter_map(order).collect()
}

fn say(desk: &mut Desk, ts: i64, rumour: &Rumour) -> Option<Said> {
    let orders = sent(&desk.events);
    let of = |k: &usize| pick(&orders, *k);
    let why = || "because".to_owned();
    let said = match rumour {
        Rumour::Quote(cents) => {
            let bid = f64::from(*cents) / 100.0;
            desk.quote(ts, bid, bid + 0.01);
            return None;
        }
        Rumour::Halt(on) => {
            desk.tick(ts, "A", Market::Halt(*on));
            return None;
        }
        Rumour::Control(control) => {
            desk.control(ts, *control);
            return None;
        }
        Rumour::Want(want) => {
            desk.want(ts, *want);
            return None;
        }
        Rumour::Accepted(k) => Said::Accepted { order: of(k).id },
        Rumour::Filled(k, id, units) => {
            let order = of(k);
            Said::Filled(Fill {
                id: format!("{id}"),
                order: order.id,
                instrument: 0,
                side: order.side,
                price: 100.into(),
                quantity: (*units).into(),
                fee: Decimal::ZERO,
                fee_currency: "USD".into(),
                maker: None,
            })
        }
        Rumour::Canceled(k) => Said::Canceled { order: of(k).id, reason: None },
        Rumour::Rejected(k) => Said::Rejected { order: of(k).id, reason: why() },
        Rumour::Expired(k) => Said::Expired { order: of(k).id },
        Rumour::ChangeRejected(k) => Said::ChangeRejected { order: of(k).id, reason: why() },
        Rumour::Replaced(k, units) => {
            Said::Replaced { order: of(k).id, quantity: (*units).into(), limit: None, stop: None }
        }
        Rumour::Transfer(amount) => Said::Cash {
            currency: "USD".into(),
            amount: (*amount).into(),
            reason: CashReason::Transfer,
            instrument: None,
        },
        Rumour::Reconciling => Said::Reconciling,
        Rumour::Snapshot(open, held) => {
            let open: BTreeMap<OrderId, Open> =
                open.iter().map(|k| (of(k).id, Open { order: of(k), filled: Decimal::ZERO })).collect();
            let positions = vec![(0, Decimal::from(*held), Some(100.into()))];
            Said::Snapshot(Snapshot {
                orders: open.into_values().collect(),
                positions,
                cash: vec![("USD".into(), 5000.into())],
            })
        }
    };
    desk.say(ts, said.clone());
    Some(said)
}

fn desk() -> Desk {
    Desk::new(json!({
        "venue": { "kind": "external" },
        "account": { "kind": "margin", "cash": { "USD": 100000 } },
        "short": true,
        "protect": { "stop_loss": { "fraction": 0.01 }, "take_profit": { "fraction": 0.01 } },
        "order": { "turn": "two" },
        "risk": { "drawdown": { "max": 0.1, "cool_down": "9s", "action": "reduce" }, "daily_loss": { "amount": 50, "action": "flatten" } },
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_said_counts_once(rumours in proptest::collection::vec(rumour(), 1..60)) {
        let (mut desk, mut twin) = (desk(), desk());
        let mut held = Decimal::ZERO;
        let mut seen = BTreeSet::new();
        desk.id("A");
        twin.id("A");
        let mut reconciling = false;
        for (n, rumour) in rumours.iter().enumerate() {
            let ts = (n as i64 + 1) * S;
            let before = sent(&desk.events).len();
            match say(&mut desk, ts, rumour) {
                Some(Said::Filled(fill)) if seen.insert((fill.order, fill.id.clone())) => held += fill.side.sign() * fill.quantity,
                Some(Said::Snapshot(snapshot)) => held = snapshot.positions[0].1,
                _ => {}
            }
            prop_assert_eq!(desk.machine.ledger.quantity(0), held);
            let waits = reconciling && !matches!(rumour, Rumour::Snapshot(..));
            prop_assert!(!waits || sent(&desk.events).len() == before, "sent before the snapshot");
            reconciling = waits || *rumour == Rumour::Reconciling;
            say(&mut twin, ts, rumour);
            let bytes = postcard::to_stdvec(&twin.machine.save()).unwrap();
            twin.machine = super::rumours::desk().machine;
            twin.machine.restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
        }
        let ids: Vec<OrderId> = sent(&desk.events).iter().map(|o| o.id).collect();
        prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        let shown = |desk: &Desk| desk.events.iter().map(|e| format!("{e:?}")).collect::<Vec<_>>();
        prop_assert_eq!(shown(&desk), shown(&twin));
    }
}
