//! Rows of the `bars` table.

use std::sync::Arc;

use arrow::array::{BooleanBuilder, Float64Builder, Int64Builder, RecordBatch};
use arrow::datatypes::SchemaRef;
use tidemill_engine::row;

use super::{Head, HeadColumns, flag, id, number, time};

/// A bar as a venue sends it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// Beginning of its interval, nanoseconds.
    pub start_ns: i64,
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Size traded, in units of the base.
    pub volume: f64,
    /// How many trades.
    pub trades: Option<i64>,
    /// Whether it is final.
    pub closed: bool,
}

/// Builds bars.
pub struct Bars {
    head: HeadColumns,
    start: Vec<i64>,
    /// Open, high, low, close, volume.
    numbers: [Float64Builder; 5],
    trades: Int64Builder,
    closed: BooleanBuilder,
}

impl Bars {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let mut fields = vec![time("start", false)];
        fields.extend(["open", "high", "low", "close", "volume"].map(|name| number(name, false)));
        fields.extend([id("trades"), flag("closed")]);
        Self {
            head: HeadColumns::new(venue, fields),
            start: Vec::new(),
            numbers: Default::default(),
            trades: Int64Builder::new(),
            closed: BooleanBuilder::new(),
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds a bar.
    pub fn push(&mut self, head: Head, bar: &Bar) {
        self.head.push(head);
        self.start.push(bar.start_ns);
        let values = [bar.open, bar.high, bar.low, bar.close, bar.volume];
        self.numbers.iter_mut().zip(values).for_each(|(column, value)| column.append_value(value));
        self.trades.append_option(bar.trades);
        self.closed.append_value(bar.closed);
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
        let mut columns = vec![row::ts_array(std::mem::take(&mut self.start))];
        for column in &mut self.numbers {
            columns.push(Arc::new(column.finish()));
        }
        columns.push(Arc::new(self.trades.finish()));
        columns.push(Arc::new(self.closed.finish()));
        self.head.finish(columns)
    }
}
