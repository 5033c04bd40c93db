//! Margin, leverage and liquidation.

use super::*;

/// Regulation T: half of the value to open, a quarter to keep.
#[test]
fn a_margin_account_of_two_times_leverage() {
    let account = r#"{"kind": "margin", "leverage_max": 2, "cash": {"USD": 10000}}"#;
    let mut ledger = ledger(account, STOCK);
    assert_eq!((ledger.initial_margin(0), ledger.maintenance_margin(0)), (d("0.5"), d("0.25")));
    assert_eq!(ledger.buying_power(0), 20000.0);
    assert_eq!(ledger.can_bear(0, Side::Buy, d("200"), d("100")), Ok(()));
    assert!(ledger.can_bear(0, Side::Buy, d("201"), d("100")).is_err());
    assert!(ledger.can_bear(0, Side::Sell, d("201"), d("100")).is_err());
    ledger.fill(1, &fill(1, 0, "200", "100", "0")).unwrap();
    assert_eq!((ledger.cash("USD"), ledger.free(), ledger.leverage()), (d("-10000"), 0.0, 2.0));
    assert!(ledger.can_bear(0, Side::Buy, d("1"), d("100")).is_err());
    assert_eq!(ledger.can_bear(0, Side::Sell, d("200"), d("100")), Ok(()), "closing needs nothing");
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
    use crate::order::{Order, OrderType, TimeInForce};
    let instruments = r#"[{"symbol": "P", "class": "perpetual", "initial_margin": 0.1}]"#;
    let mut ledger = ledger(r#"{"kind": "margin", "cash": {"USD": 1000}}"#, instruments);
    ledger.fill(1, &fill(1, 0, "10", "100", "0")).unwrap();
    assert_eq!((ledger.free(), ledger.buying_power(0)), (900.0, 9000.0));
    let order = |id, side, quantity: &str, reduce_only| Order {
        id: OrderId(id),
        instrument: 0,
        side,
        quantity: d(quantity),
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Gtc,
        post_only: false,
        reduce_only,
    };
    ledger.reserve(&order(1, Side::Buy, "5", false), d("90"));
    assert_eq!(ledger.free(), 855.0);
    // 12 sold close 10 and open 2: less than the 5 bought.
    ledger.reserve(&order(2, Side::Sell, "12", false), d("110"));
    assert_eq!(ledger.free(), 855.0);
    ledger.reserve(&order(2, Side::Sell, "20", false), d("110"));
    assert_eq!((ledger.free(), ledger.free_exact()), (790.0, Some(d("790"))));
    ledger.reserve(&order(3, Side::Sell, "10", true), d("110"));
    assert_eq!(ledger.free(), 790.0);
    assert_eq!(ledger.working(0).reducing_sells, d("10"));
    // 72 more sold would need 72 x 110 x 0.1 = 792.
    assert!(ledger.can_bear(0, Side::Sell, d("72"), d("110")).is_err());
    assert_eq!(ledger.can_bear(0, Side::Sell, d("71"), d("110")), Ok(()));
}
