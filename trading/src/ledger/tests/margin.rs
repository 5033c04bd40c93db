//! Margin, leverage and liquidation.

use super::*;
use crate::order::{Order, OrderType, TimeInForce};

/// Regulation T: half of the value to open, a quarter to keep.
#[test]
fn a_margin_account_of_two_times_leverage() {
    let account = r#"{"kind": "margin", "leverage_max": 2, "cash": {"USD": 10000}}"#;
    let mut ledger = ledger(account, STOCK);
    assert_eq!((ledger.initial_margin(0), ledger.maintenance_margin(0)), (d("0.5"), d("0.25")));
    assert_eq!(ledger.buying_power(0), 20000.0);
    assert_eq!(ledger.can_bear(0, Side::Buy, d("200"), &OrderType::Market, d("100")), Ok(()));
    assert!(ledger.can_bear(0, Side::Buy, d("201"), &OrderType::Market, d("100")).is_err());
    assert!(ledger.can_bear(0, Side::Sell, d("201"), &OrderType::Market, d("100")).is_err());
    ledger.fill(1, &fill(1, 0, "200", "100", "0")).unwrap();
    assert_eq!((ledger.cash("USD"), ledger.free(), ledger.leverage()), (d("-10000"), 0.0, 2.0));
    assert!(ledger.can_bear(0, Side::Buy, d("1"), &OrderType::Market, d("100")).is_err());
    assert_eq!(
        ledger.can_bear(0, Side::Sell, d("200"), &OrderType::Market, d("100")),
        Ok(()),
        "closing needs nothing"
    );
    // Equity 200 P - 10000 is a quarter of 200 P at P = 66.67.
    let price = ledger.liquidation_price(0).unwrap();
    assert!((price - 200.0 / 3.0).abs() < 1e-12);
    assert!((ledger.liquidation_distance(0).unwrap() - 1.0 / 3.0).abs() < 1e-12);
    assert!(!ledger.is_liquidated());
    ledger.mark(0, 66.66);
    assert!(ledger.is_liquidated());
    assert!(ledger.liquidation_distance(0).unwrap() < 0.0);
}

/// Binance's example for cross margin in one-way mode (docs "How to calculate liquidation price of USDⓈ-M futures contracts"): wallet
/// 1535443.01; BTCUSDT 109.488 at 32481.98, mark 31967.27, 2.5 %, maintenance amount 16300; ETHUSDT 3683.979 at 1456.84, mark 1335.18, 10 %,
/// maintenance amount 135365. Answers: 26316.89 and 1153.26. Maintenance amounts are a constant that maintenance is less by, which is as
/// if the wallet had more.
#[test]
fn liquidation_prices_are_those_of_binance_s_example() {
    let instruments = r#"[
        {"symbol": "BTCUSDT", "class": "perpetual", "quote": "USDT", "initial_margin": 0.05, "maintenance_margin": 0.025},
        {"symbol": "ETHUSDT", "class": "perpetual", "quote": "USDT", "initial_margin": 0.2, "maintenance_margin": 0.1}]"#;
    let account = r#"{"kind": "margin", "currency": "USDT", "cash": {"USDT": "1687108.01"}}"#;
    let mut ledger = ledger(account, instruments);
    ledger.fill(1, &fill(1, 0, "109.488", "32481.98", "0")).unwrap();
    ledger.fill(1, &fill(2, 1, "3683.979", "1456.84", "0")).unwrap();
    ledger.mark(0, 31967.27);
    ledger.mark(1, 1335.18);
    assert_eq!(format!("{:.2}", ledger.liquidation_price(0).unwrap()), "26316.89");
    assert_eq!(format!("{:.2}", ledger.liquidation_price(1).unwrap()), "1153.26");
}

/// At the price told, equity is the maintenance margin: long and short, paid for and not, in another currency, several positions.
#[test]
fn at_the_liquidation_price_equity_is_the_maintenance_margin() {
    let instruments = r#"[
        {"symbol": "S", "initial_margin": 0.5},
        {"symbol": "P", "class": "perpetual", "quote": "EUR", "multiplier": 10, "initial_margin": 0.1},
        {"symbol": "F", "class": "future", "initial_margin": 0.2, "maintenance_margin": 0.15}]"#;
    let account =
        r#"{"kind": "margin", "cash": {"USD": 1500}, "rates": [{"from": "EUR", "to": "USD", "rate": 1.1}]}"#;
    for signs in [["30", "9", "20"], ["-30", "9", "-20"], ["30", "-9", "20"], ["-30", "-9", "-20"]] {
        let mut ledger = ledger(account, instruments);
        for (n, quantity) in signs.iter().enumerate() {
            ledger.fill(1, &fill(n as u32, n as u32, quantity, "50", "0")).unwrap();
            ledger.mark(n as u32, 50.0 + n as f64);
        }
        let mut found = 0;
        for i in 0..3 {
            let Some(price) = ledger.liquidation_price(i) else { continue };
            found += 1;
            let mut there = ledger.clone();
            assert!(there.mark(i, price));
            let (equity, margin) = (there.equity(), there.margin_maintenance());
            assert!((equity - margin).abs() < 1e-9 * (1.0 + margin), "{signs:?} {i}: {equity} {margin}");
            let safer = if ledger.value(i) > 0.0 { 1.0001 } else { 0.9999 };
            there.mark(i, price * safer);
            assert!(!there.is_liquidated());
            there.mark(i, price / safer);
            assert!(there.is_liquidated());
        }
        assert!(found >= 2, "{signs:?}");
    }
}

#[test]
fn positions_paid_in_full_have_no_liquidation_price() {
    let mut paid = ledger(r#"{"cash": {"USD": 10000}}"#, STOCK);
    paid.fill(1, &fill(1, 0, "100", "100", "0")).unwrap();
    assert_eq!((paid.liquidation_price(0), paid.margin_used(), paid.is_liquidated()), (None, 0.0, false));
    let mut rich = ledger(r#"{"kind": "margin", "cash": {"USD": 10000}}"#, STOCK);
    rich.fill(1, &fill(1, 0, "10", "100", "0")).unwrap();
    assert_eq!(rich.liquidation_price(0), None, "the rest of the account bears the whole loss");
}

#[test]
fn working_orders_reserve_the_margin_of_the_side_that_opens_more() {
    let instruments = r#"[{"symbol": "P", "class": "perpetual", "initial_margin": 0.1}]"#;
    let mut ledger = ledger(r#"{"kind": "margin", "cash": {"USD": 1000}}"#, instruments);
    ledger.fill(1, &fill(1, 0, "10", "100", "0")).unwrap();
    assert_eq!((ledger.free(), ledger.buying_power(0)), (900.0, 9000.0));
    ledger.reserve(&order(1, Side::Buy, "5", false), d("90"));
    assert_eq!(ledger.free(), 855.0);
    // 12 sold close 10 and open 2: less than the 5 bought.
    ledger.reserve(&order(2, Side::Sell, "12", false), d("110"));
    assert_eq!(ledger.free(), 855.0);
    // 30 sold end at 20 short, which needs 220; the 10 held and 5 bought at the other end 145.
    ledger.reserve(&order(2, Side::Sell, "30", false), d("110"));
    assert_eq!((ledger.free(), ledger.free_exact()), (780.0, Some(d("780"))));
    ledger.reserve(&order(3, Side::Sell, "10", true), d("110"));
    assert_eq!(ledger.free(), 780.0);
    assert_eq!(ledger.working(0).reducing_sells, d("10"));
    // 71 more sold would need 71 x 110 x 0.1 = 781.
    assert!(ledger.can_bear(0, Side::Sell, d("71"), &OrderType::Market, d("110")).is_err());
    assert_eq!(ledger.can_bear(0, Side::Sell, d("70"), &OrderType::Market, d("110")), Ok(()));
}

fn order(id: u128, side: Side, quantity: &str, reduce_only: bool) -> Order {
    Order {
        id: OrderId(id),
        instrument: 0,
        side,
        quantity: d(quantity),
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Gtc,
        post_only: false,
        reduce_only,
    }
}

/// 950 long at 100 hold 95,000 of the 100,000: selling 1,900 sets them free, and 950 short need as much.
#[test]
fn turning_a_position_needs_the_margin_of_the_new_side_only() {
    let account = r#"{"kind": "margin", "cash": {"USD": 100000}, "fees": {"taker": 0.001}}"#;
    let mut ledger = ledger(account, STOCK);
    ledger.fill(1, &fill(1, 0, "950", "100", "0")).unwrap();
    let sell = |ledger: &Ledger, quantity: &str, price: &str| {
        ledger.can_bear(0, Side::Sell, d(quantity), &OrderType::Market, d(price)).map_err(|e| e.to_string())
    };
    assert_eq!(sell(&ledger, "1900", "100"), Ok(()));
    // 1,049 short need 104,900 and the fee of 1,999 units.
    let text = "the order needs 105099.9 USD of margin with its fee, 100000 are free";
    assert_eq!(sell(&ledger, "1999", "100"), Err(text.into()));
    // A dollar below the mark loses 1,900, the fee is 188.1, and 950 short are worth 95,000 at the mark.
    assert_eq!(sell(&ledger, "1900", "99"), Ok(()));
    let text = "the order needs 101263.92 USD of margin with its fee, 100000 are free";
    assert_eq!(sell(&ledger, "1900", "96.8"), Err(text.into()));
    // While it works, what is held and what it will open are one need, not two.
    ledger.reserve(&order(2, Side::Sell, "1900", false), d("100"));
    assert_eq!(ledger.free_exact(), Some(d("4810")));
    // The same again would open 1,900 more; 48 more fit, 4,800 and their fee of 4.8.
    assert!(sell(&ledger, "1900", "100").is_err());
    assert_eq!(sell(&ledger, "48", "100"), Ok(()));
    assert!(sell(&ledger, "49", "100").is_err());
}

#[test]
fn an_account_below_its_margin_may_turn_to_a_side_that_it_can_bear() {
    let mut ledger = ledger(r#"{"kind": "margin", "leverage_max": 2, "cash": {"USD": 10000}}"#, STOCK);
    ledger.fill(1, &fill(1, 0, "180", "100", "0")).unwrap();
    ledger.mark(0, 85.0);
    // Equity of 7,300, margin of 7,650; 172 short need 7,310, 171 need 7,267.5.
    assert_eq!(ledger.free(), -350.0);
    assert!(ledger.can_bear(0, Side::Buy, d("1"), &OrderType::Market, d("85")).is_err());
    assert!(ledger.can_bear(0, Side::Sell, d("352"), &OrderType::Market, d("85")).is_err());
    assert_eq!(ledger.can_bear(0, Side::Sell, d("351"), &OrderType::Market, d("85")), Ok(()));
}

/// Of several orders that close and open, the dearest are taken to be those that open.
#[test]
fn the_order_in_which_orders_are_filled_does_not_matter() {
    let mut ledger = ledger(r#"{"kind": "margin", "cash": {"USD": 10000}}"#, STOCK);
    ledger.fill(1, &fill(1, 0, "50", "100", "0")).unwrap();
    ledger.reserve(&order(2, Side::Sell, "50", false), d("100"));
    assert_eq!(ledger.free_exact(), Some(d("5000")));
    // Where the one at 150 comes last, it is the one that opens.
    assert_eq!(ledger.can_bear(0, Side::Sell, d("66"), &OrderType::Market, d("150")), Ok(()));
    assert!(ledger.can_bear(0, Side::Sell, d("67"), &OrderType::Market, d("150")).is_err());
    ledger.reserve(&order(3, Side::Sell, "66", false), d("150"));
    assert_eq!(ledger.free_exact(), Some(d("100")));
}
