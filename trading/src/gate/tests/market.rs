use super::*;
use crate::market::Market;

const S: i64 = 1_000_000_000;

fn tick(ts: i64, market: Market) -> Tick {
    Tick { ts, instrument: 0, market }
}

fn trade(ts: i64, price: f64) -> Tick {
    tick(ts, Market::Trade { price, size: 1.0 })
}

fn quote(ts: i64, bid: f64, ask: f64) -> Tick {
    tick(ts, Market::Quote { bid, bid_size: 1.0, ask, ask_size: 1.0 })
}

fn limit(side: Side, price: &str) -> OrderIntent {
    let order_type = OrderType::Limit { limit: d(price) };
    OrderIntent { side, price: d(price), order_type, ..buy(0, "1") }
}

#[test]
fn silence_makes_a_market_stale() {
    let mut gate = gate(r#"{"stale": "5s"}"#);
    let book = Book::new(3);
    let rule = |gate: &mut Gate, now| gate.check(now, &buy(0, "1"), &book).map_err(|r| r.detail);
    assert_eq!(rule(&mut gate, 0), Err("the market of BAC was not seen yet".into()));
    // A price of zero is no sign of life.
    gate.observe(&trade(0, 0.0));
    assert!(rule(&mut gate, 0).is_err());
    for shown in
        [trade(10 * S, 100.0), quote(20 * S, f64::NAN, 5.0), tick(30 * S, Market::Mark { price: 3.0 })]
    {
        gate.observe(&shown);
        assert_eq!(rule(&mut gate, shown.ts + 5 * S), Ok(()));
        let late = "the market of BAC was last seen 5s1ns ago, the limit is 5s";
        assert_eq!(rule(&mut gate, shown.ts + 5 * S + 1), Err(late.into()));
    }
    gate.observe(&tick(40 * S, Market::Halt(true)));
    assert!(rule(&mut gate, 40 * S).is_err());
    // A stop-loss goes out all the same.
    let mut book = book.clone();
    book.position[0] = d("5");
    let stop_loss = OrderIntent { protective: true, ..sell(0, "5") };
    assert_eq!(gate.check(90 * S, &stop_loss, &book), Ok(()));
    assert!(gate.check(90 * S, &OrderIntent { protective: true, ..sell(0, "6") }, &book).is_err());
}

#[test]
fn limits_are_held_against_the_other_side() {
    let mut gate = gate(r#"{"collar": {"bps": 50}}"#);
    let mut book = Book::new(3);
    book.price[0] = f64::NAN;
    assert_eq!(verdict(&mut gate, &book, limit(Side::Buy, "1")), "collar.bps");
    gate.observe(&trade(0, 100.0));
    assert_eq!(verdict(&mut gate, &book, limit(Side::Buy, "100.50")), "");
    assert_eq!(verdict(&mut gate, &book, limit(Side::Buy, "100.51")), "collar.bps");
    gate.observe(&quote(1, 199.0, 200.0));
    assert_eq!(verdict(&mut gate, &book, limit(Side::Buy, "201")), "");
    let refusal = gate.check(0, &limit(Side::Buy, "202"), &book).unwrap_err();
    assert_eq!(refusal.detail, "price 202 of BAC is 100 bps beyond the market's 200, the limit is 50 bps");
    // 199 x (1 - 0.005) = 198.005
    assert_eq!(verdict(&mut gate, &book, limit(Side::Sell, "198.005")), "");
    assert_eq!(verdict(&mut gate, &book, limit(Side::Sell, "198.00")), "collar.bps");
    // The cheap direction does no harm.
    assert_eq!(verdict(&mut gate, &book, limit(Side::Buy, "1")), "");
    assert_eq!(verdict(&mut gate, &book, limit(Side::Sell, "900")), "");
}

#[test]
fn market_orders_are_held_against_the_last_trade() {
    let mut gate = gate(r#"{"collar": {"bps": 100}}"#);
    let book = Book::new(3);
    gate.observe(&quote(0, 90.0, 110.0));
    let at = |price| OrderIntent { price: d(price), ..buy(0, "1") };
    assert_eq!(verdict(&mut gate, &book, at("110")), "collar.bps");
    assert_eq!(verdict(&mut gate, &book, at("101")), "");
    gate.observe(&trade(0, 109.0));
    assert_eq!(verdict(&mut gate, &book, at("110")), "");
}

#[test]
fn stops_wait_for_their_price() {
    let mut gate = gate(r#"{"collar": {"bps": 100}}"#);
    let book = Book::new(3);
    gate.observe(&trade(0, 100.0));
    let of = |order_type| OrderIntent { order_type, ..sell(0, "1") };
    assert_eq!(verdict(&mut gate, &book, of(OrderType::Stop { stop: d("50") })), "");
    let stop_limit = |limit| of(OrderType::StopLimit { stop: d("50"), limit: d(limit) });
    assert_eq!(verdict(&mut gate, &book, stop_limit("49.5")), "");
    assert_eq!(verdict(&mut gate, &book, stop_limit("49.4")), "collar.bps");
}

#[test]
fn the_rate_is_a_sliding_window() {
    // A slow recount of all that passed, at seeded times with many ties.
    let mut gate = gate(r#"{"rate": {"orders": 3, "per": "10ns"}}"#);
    let book = Book::new(3);
    let (mut now, mut seed, mut passed) = (0i64, 7u64, Vec::new());
    for _ in 0..5000 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        now += (seed >> 33) as i64 % 6;
        let in_window = passed.iter().filter(|ts| **ts > now - 10 && **ts <= now).count();
        let verdict = gate.check(now, &buy(0, "1"), &book);
        assert_eq!(verdict.is_ok(), in_window < 3, "{now}");
        match verdict {
            Ok(()) => passed.push(now),
            Err(refusal) => {
                assert_eq!(
                    refusal.to_string(),
                    "rate.orders: 3 orders left in the last 10ns, the limit is 3"
                );
            }
        }
    }
    assert!(passed.len() > 1000 && passed.len() < 4500);
}

#[test]
fn refused_orders_do_not_count_for_the_rate_and_protective_ones_do() {
    let mut gate = gate(r#"{"rate": {"orders": 2, "per": "10ns"}, "order": {"max_quantity": 1}}"#);
    let mut book = Book::new(3);
    book.position[0] = d("5");
    for _ in 0..5 {
        assert_eq!(verdict(&mut gate, &book, buy(0, "2")), "order.max_quantity");
    }
    let stop_loss = OrderIntent { protective: true, ..sell(0, "5") };
    for _ in 0..5 {
        assert_eq!(verdict(&mut gate, &book, stop_loss), "");
    }
    assert_eq!(verdict(&mut gate, &book, buy(0, "1")), "rate.orders");
    assert_eq!(verdict(&mut gate, &book, sell(0, "1")), "rate.orders");
    assert_eq!(gate.check(10, &buy(0, "1"), &book), Ok(()));
}

#[test]
fn what_a_reset_took_away_is_no_price() {
    let mut gate = gate(r#"{"collar": {"bps": 50}}"#);
    let book = Book::new(3);
    gate.observe(&trade(0, 100.0));
    gate.observe(&quote(1, 199.0, 200.0));
    assert_eq!(verdict(&mut gate, &book, limit(Side::Buy, "201")), "");
    gate.observe(&tick(2, Market::BookReset));
    assert_eq!(verdict(&mut gate, &book, limit(Side::Buy, "201")), "collar.bps");
}
