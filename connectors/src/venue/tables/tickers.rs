//! Rows of the `tickers` table.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::{Head, HeadColumns, number};

/// A ticker as a venue sends it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ticker {
    /// Price of the last trade.
    pub last: f64,
    /// Best bid.
    pub bid: Option<f64>,
    /// Best ask.
    pub ask: Option<f64>,
    /// Size traded in 24 hours, in units of the base.
    pub volume: Option<f64>,
}

/// Builds tickers.
pub struct Tickers {
    head: HeadColumns,
    /// Last, bid, ask, volume.
    numbers: [Float64Builder; 4],
}

impl Tickers {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let fields =
            vec![number("last", false), number("bid", true), number("ask", true), number("volume", true)];
        Self { head: HeadColumns::new(venue, fields), numbers: Default::default() }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds a ticker.
    pub fn push(&mut self, head: Head, ticker: &Ticker) {
        self.head.push(head);
        let values = [Some(ticker.last), ticker.bid, ticker.ask, ticker.volume];
        self.numbers.iter_mut().zip(values).for_each(|(column, value)| column.append_option(value));
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
        let columns = self.numbers.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        self.head.finish(columns)
    }
}
