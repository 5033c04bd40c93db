//! Rows of the `deltas` table: a row a changed level.
//!
//! A message's rows stand together; `last` is true on its last one. `snapshot` rows are a whole book: the first of them, after
//! a row with `last` or an `invalid` one, begins it anew; an empty book is one `snapshot` row without a side. After an `invalid` row (`reason`
//! says why) nothing is known of the book until the next snapshot.

use std::sync::Arc;

use arrow::array::{BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringDictionaryBuilder};
use arrow::datatypes::{Int32Type, SchemaRef};
use tidemill_book::{Level, Side};

use super::{Head, HeadColumns, flag, id, number, symbol};

/// What a row of `deltas` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A level of a whole book.
    Snapshot,
    /// A level that changed.
    Delta,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Delta => "delta",
        }
    }
}

/// Builds deltas.
pub struct Deltas {
    head: HeadColumns,
    event: StringDictionaryBuilder<Int32Type>,
    side: StringDictionaryBuilder<Int32Type>,
    price: Float64Builder,
    size: Float64Builder,
    update_id: Int64Builder,
    last: BooleanBuilder,
    reason: StringDictionaryBuilder<Int32Type>,
}

impl Deltas {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let fields = vec![
            symbol("event", false),
            symbol("side", true),
            number("price", true),
            number("size", true),
            id("update_id"),
            flag("last"),
            symbol("reason", true),
        ];
        Self {
            head: HeadColumns::new(venue, fields),
            event: StringDictionaryBuilder::new(),
            side: StringDictionaryBuilder::new(),
            price: Float64Builder::new(),
            size: Float64Builder::new(),
            update_id: Int64Builder::new(),
            last: BooleanBuilder::new(),
            reason: StringDictionaryBuilder::new(),
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds a level; `last` where it is the last of its message.
    pub fn push(
        &mut self,
        head: Head,
        event: Event,
        side: Side,
        level: Level,
        update_id: Option<i64>,
        last: bool,
    ) {
        self.side.append_value(side.name());
        self.price.append_value(level.price.to_f64());
        self.size.append_value(level.size.to_f64());
        self.rest(head, event.name(), update_id, last, None);
    }

    /// Adds the snapshot of a book without levels.
    pub fn push_empty(&mut self, head: Head, update_id: Option<i64>) {
        self.no_level();
        self.rest(head, Event::Snapshot.name(), update_id, true, None);
    }

    /// Says that the book can't be believed from here on.
    pub fn push_invalid(&mut self, head: Head, reason: &str) {
        self.no_level();
        self.rest(head, "invalid", None, true, Some(reason));
    }

    fn no_level(&mut self) {
        self.side.append_null();
        self.price.append_null();
        self.size.append_null();
    }

    fn rest(&mut self, head: Head, event: &str, update_id: Option<i64>, last: bool, reason: Option<&str>) {
        self.head.push(head);
        self.event.append_value(event);
        self.update_id.append_option(update_id);
        self.last.append_value(last);
        self.reason.append_option(reason);
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
            Arc::new(self.event.finish()),
            Arc::new(self.side.finish()),
            Arc::new(self.price.finish()),
            Arc::new(self.size.finish()),
            Arc::new(self.update_id.finish()),
            Arc::new(self.last.finish()),
            Arc::new(self.reason.finish()),
        ])
    }
}
