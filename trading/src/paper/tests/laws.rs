//! Laws that hold over any market and any orders.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use Side::{Buy, Sell};

/// Something that happens `after` nanoseconds.
#[derive(Clone, Debug)]
struct Step {
    after: i64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Show(Market),
    New(Order),
    Modify(u128, Option<Decimal>, Option<Decimal>, Option<Decimal>),
    Cancel(u128),
    Split(Decimal),
}

/// Prices are whole numbers around 100, so that much touches.
fn price() -> impl Strategy<Value = f64> {
    (95..105).prop_map(f64::from)
}

fn size() -> impl Strategy<Value = f64> {
    (0..30).prop_map(f64::from)
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Buy), Just(Sell)]
}

fn exact(price: f64) -> Decimal {
    crate::money::from_f64(price).unwrap()
}

fn quote() -> impl Strategy<Value = Market> {
    (price(), size(), 1..3, size()).prop_map(|(bid, bid_size, spread, ask_size)| Market::Quote {
        bid,
        bid_size,
        ask: bid + f64::from(spread),
        ask_size,
    })
}

fn trade() -> impl Strategy<Value = Market> {
    (price(), size()).prop_map(|(price, size)| Market::Trade { price, size })
}

fn any_market() -> impl Strategy<Value = Market> {
    let bar =
        (price(), price(), 0..3, 0..3, size()).prop_map(|(open, close, up, down, volume)| Market::Bar {
            open,
            high: open.max(close) + f64::from(up),
            low: open.min(close) - f64::from(down),
            close,
            volume,
        });
    let level =
        (any::<bool>(), price(), size()).prop_map(|(bid, price, size)| Market::Level { bid, price, size });
    let rest = (0..6u64, any::<bool>(), price(), size());
    let rest = rest.prop_map(|(order, bid, price, size)| Market::Resting { order, bid, price, size });
    prop_oneof![
        6 => quote(),
        6 => trade(),
        2 => bar,
        6 => level,
        3 => rest,
        1 => Just(Market::BookReset),
        1 => price().prop_map(|price| Market::Mark { price }),
        1 => any::<bool>().prop_map(Market::Halt),
        1 => Just(Market::Trade { price: f64::NAN, size: 1.0 }),
        1 => Just(Market::Quote { bid: f64::NAN, bid_size: 0.0, ask: 0.0, ask_size: f64::NAN }),
    ]
}

fn any_type() -> impl Strategy<Value = OrderType> {
    let price = || price().prop_map(exact);
    prop_oneof![
        3 => Just(OrderType::Market),
        6 => price().prop_map(|limit| OrderType::Limit { limit }),
        1 => price().prop_map(|stop| OrderType::Stop { stop }),
        1 => (price(), price()).prop_map(|(stop, limit)| OrderType::StopLimit { stop, limit }),
        1 => price().prop_map(|trigger| OrderType::TakeProfit { trigger }),
        1 => (1..4i64).prop_map(|n| OrderType::TrailingStop { trail: Trail::Amount(n.into()) }),
        1 => (1..4i64).prop_map(|n| OrderType::TrailingStop { trail: Trail::Fraction(Decimal::new(n, 2)) }),
    ]
}

fn any_order() -> impl Strategy<Value = Order> {
    let times = prop_oneof![
        6 => Just(TimeInForce::Gtc),
        2 => Just(TimeInForce::Ioc),
        2 => Just(TimeInForce::Fok),
        1 => Just(TimeInForce::Day),
        1 => (0..300i64).prop_map(TimeInForce::Gtd),
    ];
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.2));
    (side(), 0..40i64, any_type(), times, flags).prop_map(
        |(side, quantity, order_type, time_in_force, (post_only, reduce_only))| Order {
            id: OrderId(0),
            instrument: 0,
            side,
            quantity: quantity.into(),
            order_type,
            time_in_force,
            post_only,
            reduce_only,
        },
    )
}

/// Steps of which the orders are numbered from 1.
fn steps(
    market: impl Strategy<Value = Market>,
    order: impl Strategy<Value = Order>,
    splits: u32,
) -> impl Strategy<Value = Vec<Step>> {
    let some = |strategy| prop::option::of(strategy);
    let whole = || (1..40i64).prop_map(Decimal::from);
    let modify = (
        1..20u128,
        some(whole()),
        prop::option::of(price().prop_map(exact)),
        prop::option::of(price().prop_map(exact)),
    )
        .prop_map(|(id, quantity, limit, stop)| What::Modify(id, quantity, limit, stop));
    let split = prop_oneof![Just(d("2")), Just(d("0.5")), Just(d("1.5"))].prop_map(What::Split);
    let what = prop_oneof![
        12 => market.prop_map(What::Show),
        6 => order.prop_map(What::New),
        2 => modify,
        1 => (1..20u128).prop_map(What::Cancel),
        splits => split,
    ];
    prop::collection::vec((0..6i64, what).prop_map(|(after, what)| Step { after, what }), 1..80).prop_map(
        |mut steps| {
            let mut id = 0;
            for step in &mut steps {
                if let What::New(order) = &mut step.what {
                    id += 1;
                    order.id = OrderId(id);
                }
            }
            steps
        },
    )
}

fn any_params() -> impl Strategy<Value = Value> {
    let latency = prop_oneof![
        Just(json!("0s")),
        Just(json!("3ns")),
        Just(json!({ "order": "2ns", "report": "4ns" })),
        Just(json!({ "series_ns": [0, 5, 1, 9] })),
        Just(json!({ "series_ns": [0, 5, 1, 9], "seed": 4 })),
    ];
    let match_on = prop_oneof![
        3 => Just(Value::Null),
        1 => Just(json!("trades")),
        1 => Just(json!("quotes")),
        1 => Just(json!("book"))
    ];
    let queue = prop::sample::select(vec!["pessimistic", "proportional", "exact", "none"]);
    let slippage = prop_oneof![
        Just(json!("none")),
        Just(json!({ "ticks": 1 })),
        Just(json!({ "bps": 7 })),
        Just(json!({ "impact": 0.01 }))
    ];
    let trigger = prop::sample::select(vec!["last", "quote", "mark"]);
    let whole = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.8));
    (latency, match_on, queue, slippage, trigger, whole).prop_map(|(latency, match_on, queue, slippage, trigger, flags)| {
        json!({ "latency": latency, "match_on": match_on, "queue": queue, "slippage": slippage, "stop_trigger": trigger,
            "participation": if flags.0 { json!(1) } else { json!("0.3") }, "fill_at_touch": flags.1, "partial_fills": flags.2 })
    })
}

/// Runs the steps; what was said after each is a list. `between` is called before each step, at its time.
fn run(venue: &mut Venue, steps: &[Step], mut between: impl FnMut(&mut Venue, i64)) -> Vec<Vec<Report>> {
    let mut now = 0;
    let mut all = Vec::new();
    for step in steps {
        now += step.after;
        between(venue, now);
        match &step.what {
            What::Show(market) => venue.show(now, *market),
            What::New(order) => venue.paper.command(now, &Command::New(order.clone())),
            What::Modify(id, quantity, limit, stop) => {
                let (quantity, limit, stop) = (*quantity, *limit, *stop);
                venue.paper.command(now, &Command::Modify { order: OrderId(*id), quantity, limit, stop });
            }
            What::Cancel(id) => venue.paper.command(now, &Command::Cancel { order: OrderId(*id) }),
            What::Split(ratio) => {
                venue.to(now);
                venue.paper.split(now, 0, *ratio);
            }
        }
        // With no latency a command takes effect at once.
        venue.to(now);
        all.push(std::mem::take(&mut venue.out));
    }
    venue.to(now + 1000);
    all.push(std::mem::take(&mut venue.out));
    all
}

/// Where an order is by what was said of it.
#[derive(Debug)]
struct Life {
    order: Order,
    is_accepted: bool,
    is_over: bool,
    quantity: Decimal,
    filled: Decimal,
    limit: Option<Decimal>,
}

/// Reads all reports as a client would, and stops where one can't follow those before.
fn check(steps: &[Step], reports: &[Vec<Report>]) -> (BTreeMap<OrderId, Life>, Decimal) {
    let mut lives = BTreeMap::new();
    for step in steps {
        if let What::New(order) = &step.what {
            let (quantity, limit) = (order.quantity, order.limit());
            let (is_accepted, is_over, filled) = (false, false, Decimal::ZERO);
            lives.insert(
                order.id,
                Life { order: order.clone(), is_accepted, is_over, quantity, filled, limit },
            );
        }
    }
    let mut position = Decimal::ZERO;
    let mut fills = 0;
    let mut last = i64::MIN;
    for report in reports.iter().flatten() {
        assert!(report.ts >= last, "reports come in the order of time");
        last = report.ts;
        let mut alive = |id: &OrderId| {
            let life = lives.remove(id).unwrap();
            assert!(life.is_accepted && !life.is_over, "{report:?} of {life:?}");
            life
        };
        let life = match &report.what {
            Said::Accepted { order } => {
                let life = lives.remove(order).unwrap();
                assert!(!life.is_accepted && !life.is_over);
                Life { is_accepted: true, ..life }
            }
            Said::Rejected { order, reason } => {
                let life = lives.remove(order).unwrap();
                assert!(!life.is_accepted && !life.is_over && !reason.is_empty());
                Life { is_over: true, ..life }
            }
            Said::Filled(fill) => {
                fills += 1;
                assert_eq!(fill.id, format!("p{fills}"));
                let life = alive(&fill.order);
                assert!(fill.quantity > Decimal::ZERO && fill.price > Decimal::ZERO);
                assert!(fill.quantity.fract().is_zero(), "whole lots");
                let filled = life.filled + fill.quantity;
                assert!(filled <= life.quantity, "{fill:?} of {life:?}");
                match (fill.side, life.limit) {
                    (Buy, Some(limit)) => assert!(fill.price <= limit, "{fill:?} {life:?}"),
                    (Sell, Some(limit)) => assert!(fill.price >= limit, "{fill:?} {life:?}"),
                    (_, None) => {}
                }
                if life.order.post_only {
                    assert_eq!(fill.maker, Some(true));
                }
                let change = fill.side.sign() * fill.quantity;
                if life.order.reduce_only {
                    assert!((position + change).abs() < position.abs() && position * change < Decimal::ZERO);
                }
                position += change;
                Life { filled, is_over: filled == life.quantity, ..life }
            }
            Said::Replaced { order, quantity, limit, .. } => {
                let life = alive(order);
                Life { quantity: *quantity, limit: *limit, ..life }
            }
            Said::Canceled { order, .. } | Said::Expired { order } => Life { is_over: true, ..alive(order) },
            Said::ChangeRejected { .. } => continue,
            other => panic!("{other:?}"),
        };
        lives.insert(life.order.id, life);
    }
    (lives, position)
}

fn is_at_once(order: &Order) -> bool {
    matches!(order.time_in_force, TimeInForce::Ioc | TimeInForce::Fok)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]

    #[test]
    fn orders_live_as_they_should(params in any_params(), steps in steps(any_market(), any_order(), 0)) {
        let mut venue = venue(params);
        let reports = run(&mut venue, &steps, |_, _| {});
        let (lives, position) = check(&steps, &reports);
        prop_assert_eq!(venue.paper.position(0), position);
        let working: BTreeMap<_, _> = venue.paper.working().into_iter().map(|open| (open.order.id, open)).collect();
        for (id, life) in &lives {
            prop_assert!(life.is_accepted || life.is_over, "every order is answered");
            prop_assert_eq!(working.contains_key(id), !life.is_over, "{:?}", life);
            if let Some(open) = working.get(id) {
                prop_assert_eq!((open.order.quantity, open.filled), (life.quantity, life.filled));
            }
            if life.order.time_in_force == TimeInForce::Fok && !life.order.reduce_only {
                prop_assert!(life.filled.is_zero() || life.filled == life.quantity, "{:?}", life);
            }
            if let TimeInForce::Gtd(_) = life.order.time_in_force {
                prop_assert!(life.is_over, "all of these times are past");
            }
        }
    }

    #[test]
    fn saved_and_restored_at_any_point_is_never_stopped(
        params in any_params(),
        steps in steps(any_market(), any_order(), 1),
        early in 0..4i64,
    ) {
        let mut whole = venue(params.clone());
        let one = run(&mut whole, &steps, |_, _| {});
        let mut broken = venue(params);
        let two = run(&mut broken, &steps, |venue, now| {
            // Time passes in other portions, too.
            venue.to(now - early);
            let bytes = postcard::to_stdvec(venue.paper.state()).unwrap();
            let mut paper = Paper { state: PaperState::default(), ..venue.paper.clone() };
            paper.restore(postcard::from_bytes(&bytes).unwrap());
            assert_eq!(paper.next_due(), venue.paper.next_due());
            venue.paper = paper;
        });
        prop_assert_eq!(one.concat(), two.concat());
        let bytes = |venue: &Venue| postcard::to_stdvec(venue.paper.state()).unwrap();
        prop_assert_eq!(bytes(&whole), bytes(&broken));
    }

    #[test]
    fn what_is_passed_over_would_have_changed_nothing(
        params in any_params(),
        steps in steps(any_market(), any_order(), 1),
    ) {
        let mut quick = venue(params.clone());
        let one = run(&mut quick, &steps, |_, _| {});
        let mut thorough = venue(params);
        let two = run(&mut thorough, &steps, |venue, now| {
            venue.to(now);
            let view = &mut venue.paper.state.views[0];
            (view.low, view.high) = (f64::INFINITY, f64::NEG_INFINITY);
        });
        prop_assert_eq!(one.concat(), two.concat());
    }

    #[test]
    fn a_trade_is_had_once(
        queue in prop::sample::select(vec!["pessimistic", "none"]),
        steps in steps(trade(), any_order(), 0),
    ) {
        let params = json!({ "queue": queue, "participation": "0.5" });
        let reports = run(&mut venue(params), &steps, |_, _| {});
        for (step, reports) in steps.iter().zip(&reports) {
            let fills = || reports.iter().filter_map(|report| match &report.what {
                Said::Filled(fill) => Some(fill),
                _ => None,
            });
            match step.what {
                What::Show(Market::Trade { price, size }) => {
                    let had: Decimal = fills().map(|fill| fill.quantity).sum();
                    prop_assert!(had <= exact(size) * d("0.5"));
                    // Nobody gets better than what traded.
                    for fill in fills() {
                        let better = if fill.side == Buy { fill.price < exact(price) } else { fill.price > exact(price) };
                        prop_assert!(!better, "{:?} at {}", fill, price);
                    }
                }
                _ => prop_assert_eq!(fills().count(), 0, "where only trades are seen, only trades fill"),
            }
        }
    }

    #[test]
    fn a_quote_is_had_once(steps in steps(quote(), any_order(), 0)) {
        let mut venue = venue(json!({ "queue": "none" }));
        let reports = run(&mut venue, &steps, |_, _| {});
        // Price, size and what was had of the bid and of the ask.
        let mut sides = [(f64::NAN, f64::NAN, Decimal::ZERO); 2];
        for (step, reports) in steps.iter().zip(&reports) {
            if let What::Show(Market::Quote { bid, bid_size, ask, ask_size }) = step.what {
                for (side, new) in sides.iter_mut().zip([(bid, bid_size), (ask, ask_size)]) {
                    if (side.0, side.1) != new {
                        *side = (new.0, new.1, Decimal::ZERO);
                    }
                }
            }
            for report in reports {
                let Said::Filled(fill) = &report.what else { continue };
                let side = &mut sides[usize::from(fill.side == Buy)];
                side.2 += fill.quantity;
                prop_assert!(side.2 <= exact(side.1), "{:?} of {:?}", fill, side);
                let shown = exact(side.0);
                let fair = match (fill.maker, fill.side) {
                    (Some(false), _) => fill.price == shown,
                    (_, Buy) => fill.price >= shown,
                    (_, Sell) => fill.price <= shown,
                };
                prop_assert!(fair, "{:?} of {:?}", fill, side);
            }
        }
        let waiting = venue.paper.working().into_iter().filter(|open| is_at_once(&open.order));
        for open in waiting {
            let armed = !matches!(open.order.order_type, OrderType::Market | OrderType::Limit { .. });
            // Before the first quote nobody knows whether there will be any.
            prop_assert!(armed || !steps.iter().any(|step| matches!(step.what, What::Show(_))), "{:?}", open);
        }
    }

    #[test]
    fn a_level_is_had_once(levels in prop::collection::vec((any::<bool>(), price(), size()), 1..20), orders in prop::collection::vec(any_order(), 1..10)) {
        let mut venue = venue(json!({}));
        let mut shown = BTreeMap::new();
        for (bid, price, size) in levels {
            let side = if bid { Buy } else { Sell };
            venue.level(1, side, price, size);
            shown.insert((bid, exact(price)), exact(size));
        }
        for (n, order) in orders.into_iter().enumerate() {
            venue.send(2, Order { id: OrderId(n as u128), ..order });
        }
        for report in &venue.out {
            let Said::Filled(fill) = &report.what else { continue };
            let left = shown.get_mut(&(fill.side == Sell, fill.price)).unwrap();
            *left -= fill.quantity;
            prop_assert!(*left >= Decimal::ZERO);
        }
    }
}
