//! Rows of the `trades` table.

use std::sync::Arc;

use arrow::array::{Float64Builder, Int64Builder, RecordBatch, StringDictionaryBuilder};
use arrow::datatypes::{Int32Type, SchemaRef};

use super::{Head, HeadColumns, Side, id, number, symbol};

/// Builds trades.
pub struct Trades {
    head: HeadColumns,
    trade_id: Int64Builder,
    price: Float64Builder,
    size: Float64Builder,
    side: StringDictionaryBuilder<Int32Type>,
}

impl Trades {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let fields =
            vec![id("trade_id"), number("price", false), number("size", false), symbol("side", true)];
        Self {
            head: HeadColumns::new(venue, fields),
            trade_id: Int64Builder::new(),
            price: Float64Builder::new(),
            size: Float64Builder::new(),
            side: StringDictionaryBuilder::new(),
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds a trade; `side` is the taker's.
    pub fn push(&mut self, head: Head, trade_id: Option<i64>, price: f64, size: f64, side: Option<Side>) {
        self.head.push(head);
        self.trade_id.append_option(trade_id);
        self.price.append_value(price);
        self.size.append_value(size);
        self.side.append_option(side.map(Side::name));
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.head.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Takes the rows.
    pub fn finish(&mut self) -> RecordBatch {
        self.head.finish(vec![
            Arc::new(self.trade_id.finish()),
            Arc::new(self.price.finish()),
            Arc::new(self.size.finish()),
            Arc::new(self.side.finish()),
        ])
    }
}
