//! Rows of the `statuses` channel: whether a stock is traded, and why not.
//!
//! The venue tells of changes only: what a stock's status is when the feed begins, or was while it was not connected, nobody says.
//! Codes: <https://docs.alpaca.markets/docs/real-time-stock-pricing-data#trading-status>; those of tapes A and B (CTA) and of C and O (UTP)
//! have no letter in common.

use std::sync::Arc;

use arrow::array::{BooleanBuilder, RecordBatch, StringDictionaryBuilder};
use arrow::datatypes::{DataType, Field, Int32Type, SchemaRef};

use super::wire::Status;
use crate::venue::tables::{Head, HeadColumns, symbol};

/// Whether a stock is not traded any more (`true`) or again (`false`); nothing where the code says nothing of it.
pub fn halted(code: &str) -> Option<bool> {
    match code {
        // CTA: trading halt. UTP: trading halt, volatility trading pause.
        "2" | "H" | "P" => Some(true),
        // CTA: resume. UTP: trading resumption.
        "3" | "T" => Some(false),
        // Imbalances, price indications, short sale restrictions, price bands; and quotes that come again before trading does (`Q`).
        _ => None,
    }
}

/// Whether the venue documents the code.
pub fn is_known(code: &str) -> bool {
    halted(code).is_some() || matches!(code, "5" | "6" | "7" | "8" | "9" | "A" | "C" | "D" | "E" | "F" | "Q")
}

/// Builds statuses.
pub struct Statuses {
    head: HeadColumns,
    halted: BooleanBuilder,
    /// `status`, `status_text`, `reason`, `reason_text`.
    texts: [StringDictionaryBuilder<Int32Type>; 4],
}

impl Statuses {
    /// Of a venue.
    pub fn new(venue: &str) -> Self {
        let fields = vec![
            Field::new("halted", DataType::Boolean, true),
            symbol("status", false),
            symbol("status_text", true),
            symbol("reason", true),
            symbol("reason_text", true),
        ];
        Self {
            head: HeadColumns::new(venue, fields),
            halted: BooleanBuilder::new(),
            texts: Default::default(),
        }
    }

    /// The table's columns.
    pub fn schema(&self) -> SchemaRef {
        self.head.schema()
    }

    /// Adds a status.
    pub fn push(&mut self, head: Head, status: &Status) {
        self.head.push(head);
        self.halted.append_option(halted(&status.sc));
        let some = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let texts = [Some(status.sc.clone()), some(&status.sm), some(&status.rc), some(&status.rm)];
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.append_option(text));
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
        let [status, status_text, reason, reason_text] = &mut self.texts;
        self.head.finish(vec![
            Arc::new(self.halted.finish()),
            Arc::new(status.finish()),
            Arc::new(status_text.finish()),
            Arc::new(reason.finish()),
            Arc::new(reason_text.finish()),
        ])
    }
}
