//! Lines that a graph wrote, and what they say of books.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::rebuild::{Rebuild, Trade};

/// The rows of a file in the order in which the source made them.
pub fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["_seq"].as_u64().unwrap());
    rows
}

/// A time of a row.
pub fn time(row: &Value, column: &str) -> i64 {
    let time = chrono::DateTime::parse_from_rfc3339(row[column].as_str().unwrap()).unwrap();
    time.timestamp_nanos_opt().unwrap()
}

/// Whether a row came of a message.
pub fn is_of(row: &Value, symbol: &str, at_ns: i64) -> bool {
    row["symbol"] == symbol && time(row, "received_at") == at_ns
}

/// A row of `trades`.
pub fn trade(row: &Value) -> Trade {
    Trade {
        received_ns: time(row, "received_at"),
        ts_ns: time(row, "ts"),
        symbol: row["symbol"].as_str().unwrap().to_owned(),
        id: row["trade_id"].as_i64(),
        price: row["price"].as_f64().unwrap(),
        size: row["size"].as_f64().unwrap(),
        side: if row["side"] == "buy" { "buy" } else { "sell" },
    }
}

/// The best levels of a row of `snapshots`: bids, asks.
pub fn top(row: &Value) -> [Vec<(f64, f64)>; 2] {
    let list = |name: &str| -> Vec<f64> {
        row[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    [("bid_prices", "bid_sizes"), ("ask_prices", "ask_sizes")]
        .map(|(prices, sizes)| list(prices).into_iter().zip(list(sizes)).collect())
}

/// A book as rows of `deltas` tell it.
#[derive(Debug, Default)]
pub struct Told {
    pub valid: bool,
    /// Bids and asks by the bits of the price, which sort as positive numbers do.
    sides: [BTreeMap<u64, f64>; 2],
    /// Within the rows of a whole book.
    begun: bool,
}

impl Told {
    pub fn take(&mut self, row: &Value) {
        let event = row["event"].as_str().unwrap();
        if event == "invalid" {
            assert!(self.valid, "it is told once: {row}");
            *self = Self::default();
            return;
        }
        if event == "snapshot" && !self.begun {
            *self = Self { valid: true, ..Self::default() };
        }
        assert!(self.valid, "nothing is known yet: {row}");
        self.begun = event == "snapshot" && row["last"] == false;
        if let Some(side) = row["side"].as_str() {
            let side = &mut self.sides[usize::from(side == "ask")];
            let price = row["price"].as_f64().unwrap().to_bits();
            match row["size"].as_f64().unwrap() {
                0.0 => side.remove(&price),
                size => side.insert(price, size),
            };
        }
    }

    /// Whether every level of both sides is that of the rebuild, and how many those are.
    pub fn equals(&self, slow: &Rebuild) -> Option<usize> {
        let [bids, asks] = &self.sides;
        let same = |told: &BTreeMap<u64, f64>, slow: &super::rebuild::Side| {
            let told = told.iter().map(|(price, size)| (f64::from_bits(*price), *size));
            told.eq(slow.values().map(|level| level.numbers))
        };
        (same(bids, &slow.bids) && same(asks, &slow.asks)).then_some(bids.len() + asks.len())
    }
}

/// The books that rows of `deltas` end with.
pub fn final_books(rows: &[Value]) -> BTreeMap<String, Told> {
    let mut books: BTreeMap<String, Told> = BTreeMap::new();
    for row in rows {
        books.entry(row["symbol"].as_str().unwrap().to_owned()).or_default().take(row);
    }
    books
}
