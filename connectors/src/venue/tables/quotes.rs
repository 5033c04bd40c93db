//! Rows of the `quotes` table: the best bid and ask.
//!
//! A side without levels is null. A row that isn't `valid` says that nothing is known from here on, and has neither side.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::{Head, HeadColumns, flag, id, number};

/// The best bid and ask.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quote {
    /// Best bid and its size.
    pub bid: Option<(f64, f64)>,
    /// Best ask and its size.
    pub ask: Option<(f64, f64)>,
    /// The venue's number of the update.
    pub update_id: Option<i64>,
}

/// Builds quotes.
pub struct Quotes {
    head: HeadColumns,
    /// Bid, bid size, ask, ask size.
    numbers: [Float64Builder; 4],
    update_id: Int64Builder,
    valid: BooleanBuilder,
}

impl Quotes {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let mut fields = ["bid", "bid_size", "ask", "ask_size"].map(|name| number(name, true)).to_vec();
        fields.extend([id("update_id"), flag("valid")]);
        Self {
            head: HeadColumns::new(venue, fields),
            numbers: Default::default(),
            update_id: Int64Builder::new(),
            valid: BooleanBuilder::new(),
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds a quote.
    pub fn push(&mut self, head: Head, quote: &Quote) {
        self.row(head, quote, true);
    }

    /// Says that the quote can't be believed from here on.
    pub fn push_invalid(&mut self, head: Head) {
        self.row(head, &Quote::default(), false);
    }

    fn row(&mut self, head: Head, quote: &Quote, valid: bool) {
        self.head.push(head);
        let (bid, ask) = (quote.bid.unzip(), quote.ask.unzip());
        let values = [bid.0, bid.1, ask.0, ask.1];
        self.numbers.iter_mut().zip(values).for_each(|(column, value)| column.append_option(value));
        self.update_id.append_option(quote.update_id);
        self.valid.append_value(valid);
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
        columns.push(Arc::new(self.update_id.finish()));
        columns.push(Arc::new(self.valid.finish()));
        self.head.finish(columns)
    }
}
