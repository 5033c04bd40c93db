//! Rows of the `mark_prices` table.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, RecordBatch, TimestampNanosecondBuilder};
use arrow::datatypes::SchemaRef;

use super::{Head, HeadColumns, number, time};

/// A mark price as a venue sends it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarkPrice {
    /// The price that margins are reckoned with.
    pub mark_price: f64,
    /// The index's price.
    pub index_price: Option<f64>,
    /// Rate of the next funding, per funding interval.
    pub funding_rate: Option<f64>,
    /// When that is paid, nanoseconds.
    pub next_funding_ns: Option<i64>,
}

/// Builds mark prices.
pub struct MarkPrices {
    head: HeadColumns,
    /// Mark price, index price, funding rate.
    numbers: [Float64Builder; 3],
    next_funding: TimestampNanosecondBuilder,
}

impl MarkPrices {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let fields = vec![
            number("mark_price", false),
            number("index_price", true),
            number("funding_rate", true),
            time("next_funding_at", true),
        ];
        Self {
            head: HeadColumns::new(venue, fields),
            numbers: Default::default(),
            next_funding: TimestampNanosecondBuilder::new().with_timezone("UTC"),
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds a mark price.
    pub fn push(&mut self, head: Head, mark: &MarkPrice) {
        self.head.push(head);
        let values = [Some(mark.mark_price), mark.index_price, mark.funding_rate];
        self.numbers.iter_mut().zip(values).for_each(|(column, value)| column.append_option(value));
        self.next_funding.append_option(mark.next_funding_ns);
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
        let mut columns: Vec<_> =
            self.numbers.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        columns.push(Arc::new(self.next_funding.finish()));
        self.head.finish(columns)
    }
}
