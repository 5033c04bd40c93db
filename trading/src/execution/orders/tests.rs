use super::*;
use crate::order::{TimeInForce, Trail};
use crate::report::Fill;

const ID: OrderId = OrderId(7);

fn order(id: u128, quantity: i64) -> Order {
    Order {
        id: OrderId(id),
        instrument: 0,
        side: Side::Buy,
        quantity: quantity.into(),
        order_type: OrderType::Limit { limit: 100.into() },
        time_in_force: TimeInForce::Gtc,
        post_only: false,
        reduce_only: false,
    }
}

fn fill(id: u128, quantity: i64) -> Said {
    Said::Filled(Fill {
        id: "1".into(),
        order: OrderId(id),
        instrument: 0,
        side: Side::Buy,
        price: 100.into(),
        quantity: quantity.into(),
        fee: Decimal::ZERO,
        fee_currency: "USD".into(),
        maker: None,
    })
}

fn book() -> Orders {
    let mut orders = Orders::default();
    orders.add(order(7, 10), 1, Purpose::Wish);
    orders
}

fn canceled() -> Said {
    Said::Canceled { order: ID, reason: None }
}

#[test]
fn an_order_is_accepted_filled_in_parts_and_over() {
    let mut orders = book();
    let status = |a: &Applied| a.order.as_ref().unwrap().status;
    assert_eq!(status(&orders.apply(&Said::Accepted { order: ID })), Status::Working);
    assert_eq!(status(&orders.apply(&fill(7, 4))), Status::PartlyFilled);
    assert_eq!(orders.get(ID).unwrap().rest(), 6.into());
    let last = orders.apply(&fill(7, 6));
    assert_eq!((status(&last), last.ended), (Status::Filled, true));
    assert!(orders.get(ID).is_none() && orders.knows(ID));
}

#[test]
fn an_acknowledgement_after_a_fill_says_nothing_new() {
    let mut orders = book();
    orders.apply(&fill(7, 4));
    let late = orders.apply(&Said::Accepted { order: ID });
    assert!(!late.changed);
    assert_eq!(orders.get(ID).unwrap().status, Status::PartlyFilled);
}

#[test]
fn a_fill_after_the_cancel_still_counts_but_the_order_stays_over() {
    let mut orders = book();
    assert!(orders.apply(&canceled()).ended);
    let late = orders.apply(&fill(7, 3));
    let order = late.order.unwrap();
    assert_eq!((order.filled(), order.status, late.changed), (3.into(), Status::Canceled, true));
    let whole = orders.apply(&fill(7, 7)).order.unwrap();
    assert_eq!(whole.status, Status::Filled);
    assert_eq!(orders.apply(&fill(7, 1)).alert.unwrap().0, "overfilled");
}

#[test]
fn strangers_are_told_apart() {
    let mut orders = book();
    assert_eq!(orders.apply(&fill(8, 1)), Applied::UNKNOWN);
    assert_eq!(orders.apply(&Said::Accepted { order: OrderId(8) }), Applied::UNKNOWN);
}

#[test]
fn a_snapshot_and_the_fills_behind_it_count_once() {
    let mut orders = book();
    assert!(orders.confirm(2, &order(7, 10), 4.into()));
    assert_eq!(orders.get(ID).unwrap().status, Status::PartlyFilled);
    orders.apply(&fill(7, 4));
    assert_eq!(orders.get(ID).unwrap().filled(), 4.into());
    orders.apply(&fill(7, 2));
    assert_eq!(orders.get(ID).unwrap().rest(), 4.into());
}

#[test]
fn changes_come_with_the_venues_word_only() {
    let mut orders = book();
    orders.get_mut(ID).unwrap().changing = true;
    orders.apply(&Said::ChangeRejected { order: ID, reason: "too late".into() });
    assert!(!orders.get(ID).unwrap().changing);
    orders.apply(&Said::Replaced { order: ID, quantity: 5.into(), limit: Some(99.into()), stop: None });
    let now = orders.get(ID).unwrap();
    assert_eq!((now.order.quantity, now.order.limit()), (5.into(), Some(99.into())));
    orders.apply(&fill(7, 5));
    assert!(orders.get(ID).is_none());
}

#[test]
fn what_is_over_is_remembered_up_to_a_bound() {
    let mut orders = Orders::default();
    for id in 0..REMEMBERED as u128 + 10 {
        orders.add(order(id, 1), 1, Purpose::Wish);
        orders.apply(&fill(id, 1));
    }
    assert!(!orders.knows(OrderId(9)) && orders.knows(OrderId(10)));
    assert_eq!(orders.iter().count(), 0);
    assert!(!orders.any(0));
}

#[test]
fn a_split_moves_quantities_and_prices() {
    let mut orders = book();
    orders.apply(&fill(7, 4));
    orders.split(0, 2.into(), Decimal::new(1, 2));
    let now = orders.get(ID).unwrap();
    assert_eq!((now.order.quantity, now.filled(), now.order.limit()), (20.into(), 8.into(), Some(50.into())));
    let trail = |amount: &str| OrderType::TrailingStop {
        trail: Trail::Amount(Decimal::from_str_exact(amount).unwrap()),
    };
    orders.add(Order { order_type: trail("3.01"), ..order(8, 10) }, 1, Purpose::StopLoss);
    orders.split(0, 2.into(), Decimal::new(1, 2));
    assert_eq!(orders.get(OrderId(8)).unwrap().order.order_type, trail("1.5"));
}
