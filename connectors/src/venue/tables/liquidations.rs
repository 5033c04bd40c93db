//! Rows of the `liquidations` table.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, RecordBatch, StringDictionaryBuilder};
use arrow::datatypes::{Int32Type, SchemaRef};

use super::{Head, HeadColumns, Side, number, symbol};

/// A liquidation order as a venue sends it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Liquidation {
    /// The order's side.
    pub side: Side,
    /// The order's price.
    pub price: f64,
    /// The order's size.
    pub size: f64,
    /// Average price of what was filled.
    pub average_price: Option<f64>,
}

/// Builds liquidations.
pub struct Liquidations {
    head: HeadColumns,
    side: StringDictionaryBuilder<Int32Type>,
    /// Price, size, average price.
    numbers: [Float64Builder; 3],
}

impl Liquidations {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let fields = vec![
            symbol("side", false),
            number("price", false),
            number("size", false),
            number("average_price", true),
        ];
        Self {
            head: HeadColumns::new(venue, fields),
            side: StringDictionaryBuilder::new(),
            numbers: Default::default(),
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds a liquidation.
    pub fn push(&mut self, head: Head, order: &Liquidation) {
        self.head.push(head);
        self.side.append_value(order.side.name());
        let values = [Some(order.price), Some(order.size), order.average_price];
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
        let mut columns: Vec<_> = vec![Arc::new(self.side.finish()) as ArrayRef];
        for column in &mut self.numbers {
            columns.push(Arc::new(column.finish()));
        }
        self.head.finish(columns)
    }
}
