//! The tables that feeds fill, the same for every venue, and their builders.
//!
//! Prices and sizes are f64 (analytics); times are UTC nanoseconds. `ts` is the venue's time of the event;
//! where a message has none, the time it was received. `received_at` is always the latter.
//!
//! | table | columns after `ts, venue, symbol` |
//! |---|---|
//! | trades | `trade_id` i64?, `price`, `size`, `side` symbol? (`buy`, `sell`: the taker's), `received_at` |
//! | quotes | `bid`?, `bid_size`?, `ask`?, `ask_size`?, `update_id` i64?, `valid` bool, `received_at` |
//! | deltas | `event` symbol (`snapshot`, `delta`, `invalid`), `side` symbol? (`bid`, `ask`), `price`?, `size`? (0 removes the level), `update_id` i64?, `last` bool (of its message), `reason` symbol?, `received_at` |
//! | snapshots | `valid` bool, `reason` symbol?, `update_id` i64?, `bid_prices`, `bid_sizes`, `ask_prices`, `ask_sizes` (lists of f64, best first), `received_at` |
//! | bars | `start`, `open`, `high`, `low`, `close`, `volume`, `trades` i64?, `closed` bool, `received_at` |
//! | tickers | `last`, `bid`?, `ask`?, `volume`?, `received_at` |
//! | mark_prices | `mark_price`, `index_price`?, `funding_rate`?, `next_funding_at`?, `received_at` |
//! | liquidations | `side` symbol, `price`, `size`, `average_price`?, `received_at` |

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, StringDictionaryBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use tidemill_engine::row;

pub mod bars;
pub mod deltas;
pub mod liquidations;
pub mod mark_prices;
pub mod quotes;
pub mod snapshots;
pub mod tickers;
pub mod trades;

/// Whose side: the taker's of a trade, the order's of a liquidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Bought.
    Buy,
    /// Sold.
    Sell,
}

impl Side {
    /// `buy` or `sell`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

/// What every row of every table begins with, and its last column.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The venue's time of the event, nanoseconds; the time of receipt where a message has none.
    pub ts_ns: i64,
    /// The instrument as the venue calls it.
    pub symbol: &'a str,
    /// When the frame was received, nanoseconds.
    pub received_ns: i64,
}

/// Builds the columns that all tables share.
pub struct HeadColumns {
    schema: SchemaRef,
    venue: ArrayRef,
    ts: Vec<i64>,
    symbol: StringDictionaryBuilder<Int32Type>,
    received: Vec<i64>,
}

impl HeadColumns {
    /// For a table of `venue` whose own columns are `fields`.
    pub fn new(venue: &str, fields: Vec<Field>) -> Self {
        Self {
            schema: schema(fields),
            venue: Arc::new(StringArray::from_iter_values([venue])),
            ts: Vec::new(),
            symbol: StringDictionaryBuilder::new(),
            received: Vec::new(),
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Begins a row.
    pub fn push(&mut self, head: Head) {
        self.ts.push(head.ts_ns);
        self.symbol.append_value(head.symbol);
        self.received.push(head.received_ns);
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.ts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ts.is_empty()
    }

    /// Takes the rows; `columns` are the table's own, in the order of the fields it was made with.
    pub fn finish(&mut self, columns: Vec<ArrayRef>) -> RecordBatch {
        let rows = self.ts.len();
        let codes = Int32Array::from_value(0, rows);
        let venue = DictionaryArray::<Int32Type>::try_new(codes, self.venue.clone())
            .expect("every code is 0 and there is one value");
        let mut all: Vec<ArrayRef> = Vec::with_capacity(columns.len() + 4);
        all.push(row::ts_array(std::mem::take(&mut self.ts)));
        all.push(Arc::new(venue));
        all.push(Arc::new(self.symbol.finish()));
        all.extend(columns);
        all.push(row::ts_array(std::mem::take(&mut self.received)));
        RecordBatch::try_new(self.schema.clone(), all)
            .expect("a builder makes its own fields, a value a row, and no null where none may be")
    }
}

/// The columns of a table whose own are `fields`.
pub fn schema(fields: Vec<Field>) -> SchemaRef {
    let mut all = vec![
        Field::new(row::TS, row::ts_type(), false),
        Field::new("venue", row::symbol_type(), false),
        Field::new("symbol", row::symbol_type(), false),
    ];
    all.extend(fields);
    all.push(Field::new("received_at", row::ts_type(), false));
    Arc::new(Schema::new(all))
}

/// A column of numbers.
pub fn number(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Float64, nullable)
}

/// A column of text with few distinct values.
pub fn symbol(name: &str, nullable: bool) -> Field {
    Field::new(name, row::symbol_type(), nullable)
}

/// A column of ids.
pub fn id(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

/// A column of times.
pub fn time(name: &str, nullable: bool) -> Field {
    Field::new(name, row::ts_type(), nullable)
}

/// A column of truth values.
pub fn flag(name: &str) -> Field {
    Field::new(name, DataType::Boolean, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_its_head_its_own_columns_and_the_time_of_receipt() {
        let mut rows = trades::Trades::new("kraken");
        let head = Head { ts_ns: 5, symbol: "BTC/USD", received_ns: 7 };
        rows.push(head, Some(9), 1.5, 2.0, Some(Side::Sell));
        rows.push(Head { symbol: "ETH/USD", ..head }, None, 1.0, 1.0, None);
        assert_eq!(rows.len(), 2);
        let batch = rows.finish();
        let names: Vec<&str> = batch.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["ts", "venue", "symbol", "trade_id", "price", "size", "side", "received_at"]);
        assert_eq!(row::text(batch.column(1), 1), Some("kraken"));
        assert_eq!(row::text(batch.column(2), 1), Some("ETH/USD"));
        assert_eq!((row::text(batch.column(6), 0), row::text(batch.column(6), 1)), (Some("sell"), None));
        assert_eq!(rows.finish().num_rows(), 0);
    }
}
