//! Rows of the `snapshots` table: the best levels of both sides, best first.
//!
//! A row that isn't `valid` says that nothing is known from here on (`reason` says why); its lists are empty.

use std::sync::Arc;

use arrow::array::{
    BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, RecordBatch, StringDictionaryBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type, SchemaRef};
use tidemill_book::Level;

use super::{Head, HeadColumns, flag, id, symbol};

/// Builds snapshots.
pub struct Snapshots {
    head: HeadColumns,
    valid: BooleanBuilder,
    reason: StringDictionaryBuilder<Int32Type>,
    update_id: Int64Builder,
    /// Bid prices, bid sizes, ask prices, ask sizes.
    lists: [ListBuilder<Float64Builder>; 4],
}

fn item() -> Field {
    Field::new_list_field(DataType::Float64, false)
}

fn list() -> ListBuilder<Float64Builder> {
    ListBuilder::new(Float64Builder::new()).with_field(item())
}

impl Snapshots {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let mut fields = vec![flag("valid"), symbol("reason", true), id("update_id")];
        fields.extend(
            ["bid_prices", "bid_sizes", "ask_prices", "ask_sizes"]
                .map(|name| Field::new(name, DataType::List(Arc::new(item())), false)),
        );
        Self {
            head: HeadColumns::new(venue, fields),
            valid: BooleanBuilder::new(),
            reason: StringDictionaryBuilder::new(),
            update_id: Int64Builder::new(),
            lists: [list(), list(), list(), list()],
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds the best levels, best first.
    pub fn push(&mut self, head: Head, update_id: Option<i64>, bids: &[Level], asks: &[Level]) {
        self.row(head, update_id, None, bids, asks);
    }

    /// Says that the book can't be believed from here on.
    pub fn push_invalid(&mut self, head: Head, reason: &str) {
        self.row(head, None, Some(reason), &[], &[]);
    }

    fn row(
        &mut self,
        head: Head,
        update_id: Option<i64>,
        invalid: Option<&str>,
        bids: &[Level],
        asks: &[Level],
    ) {
        self.head.push(head);
        self.valid.append_value(invalid.is_none());
        self.reason.append_option(invalid);
        self.update_id.append_option(update_id);
        for (lists, levels) in self.lists.chunks_exact_mut(2).zip([bids, asks]) {
            for level in levels {
                lists[0].values().append_value(level.price.to_f64());
                lists[1].values().append_value(level.size.to_f64());
            }
            lists[0].append(true);
            lists[1].append(true);
        }
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
        let [bid_prices, bid_sizes, ask_prices, ask_sizes] = &mut self.lists;
        self.head.finish(vec![
            Arc::new(self.valid.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.update_id.finish()),
            Arc::new(bid_prices.finish()),
            Arc::new(bid_sizes.finish()),
            Arc::new(ask_prices.finish()),
            Arc::new(ask_sizes.finish()),
        ])
    }
}
