//! What the tests share: instruments, an account, fills.

use std::sync::Arc;

use super::*;
use crate::report::Fill;

mod account;
mod laws;
mod margin;
mod orders;
mod profit;

fn d(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

/// A ledger from the blocks of a graph, in JSON.
fn ledger(account: &str, instruments: &str) -> Ledger {
    let params: LedgerParams = serde_json::from_str(account).unwrap();
    let instruments: Vec<Instrument> = serde_json::from_str(instruments).unwrap();
    Ledger::new(&params, Arc::from(instruments)).unwrap()
}

const STOCK: &str = r#"[{ "symbol": "SPY" }]"#;

fn problems(account: &str, instruments: &str) -> Vec<String> {
    let params: LedgerParams = serde_json::from_str(account).unwrap();
    let instruments: Vec<Instrument> = serde_json::from_str(instruments).unwrap();
    Ledger::new(&params, Arc::from(instruments)).unwrap_err().into_iter().map(|(path, _)| path).collect()
}

/// Fill number `n` of an order of the same number, its fee in dollars.
fn fill(n: u32, instrument: InstrumentId, quantity: &str, price: &str, fee: &str) -> Fill {
    let quantity = d(quantity);
    Fill {
        id: n.to_string(),
        order: OrderId(n.into()),
        instrument,
        side: if quantity.is_sign_negative() { Side::Sell } else { Side::Buy },
        price: d(price),
        quantity: quantity.abs(),
        fee: d(fee),
        fee_currency: "USD".into(),
        maker: None,
    }
}

fn holds(ledger: &Ledger) {
    for identity in ledger.identity().unwrap() {
        assert!(identity.holds(), "{identity:?}");
    }
}
