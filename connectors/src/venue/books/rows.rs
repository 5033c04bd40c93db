//! The rows that books are told by: one of three tables.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_book::sync::Delta;
use tidemill_book::{Book, Level, Side};

use super::{BookOutput, BookParams};
use crate::venue::tables::Head;
use crate::venue::tables::deltas::{Deltas, Event};
use crate::venue::tables::quotes::{Quote, Quotes};
use crate::venue::tables::snapshots::Snapshots;

/// A builder of one of the tables.
pub(super) enum Rows {
    Deltas(Deltas),
    /// With how many levels a side.
    Snapshots(Snapshots, usize),
    Quotes(Quotes),
}

/// A book as it is told.
pub(super) struct News<'a> {
    pub(super) book: &'a Book,
    pub(super) update_id: Option<i64>,
    /// What its last message changed.
    pub(super) deltas: &'a [Delta],
    /// Whether the whole book is news, and not just what changed.
    pub(super) whole: bool,
    /// Whether downstream knows nothing of it.
    pub(super) fresh: bool,
}

impl Rows {
    pub(super) fn new(venue: &str, params: &BookParams) -> Self {
        match params.output {
            BookOutput::Deltas => Self::Deltas(Deltas::new(venue)),
            BookOutput::Snapshots => Self::Snapshots(Snapshots::new(venue), params.depth),
            BookOutput::Quotes => Self::Quotes(Quotes::new(venue)),
        }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::Deltas(rows) => rows.schema(),
            Self::Snapshots(rows, _) => rows.schema(),
            Self::Quotes(rows) => rows.schema(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Deltas(rows) => rows.len(),
            Self::Snapshots(rows, _) => rows.len(),
            Self::Quotes(rows) => rows.len(),
        }
    }

    pub(super) fn finish(&mut self) -> RecordBatch {
        match self {
            Self::Deltas(rows) => rows.finish(),
            Self::Snapshots(rows, _) => rows.finish(),
            Self::Quotes(rows) => rows.finish(),
        }
    }

    pub(super) fn push_invalid(&mut self, head: Head, reason: &str) {
        match self {
            Self::Deltas(rows) => rows.push_invalid(head, reason),
            Self::Snapshots(rows, _) => rows.push_invalid(head, reason),
            Self::Quotes(rows) => rows.push_invalid(head),
        }
    }

    /// Tells of a message that was applied. `top` is what was told of the best levels before: bids, asks.
    pub(super) fn tell(&mut self, head: Head<'_>, news: &News<'_>, top: &mut [Vec<Level>; 2]) {
        let depth = match self {
            Self::Deltas(rows) if news.whole => return tell_book(rows, head, news),
            Self::Deltas(rows) => return tell_deltas(rows, head, news),
            Self::Snapshots(_, depth) => *depth,
            Self::Quotes(_) => 1,
        };
        let [bids, asks] = top;
        let changed = replace(bids, news.book.bids().iter().take(depth));
        let changed = replace(asks, news.book.asks().iter().take(depth)) || changed;
        if !changed && !news.fresh {
            return;
        }
        let id = news.update_id;
        match self {
            Self::Snapshots(rows, _) => rows.push(head, id, bids, asks),
            Self::Quotes(rows) => {
                let best =
                    |side: &[Level]| side.first().map(|best| (best.price.to_f64(), best.size.to_f64()));
                rows.push(head, &Quote { bid: best(bids), ask: best(asks), update_id: id });
            }
            Self::Deltas(_) => {}
        }
    }
}

fn tell_book(rows: &mut Deltas, head: Head<'_>, news: &News<'_>) {
    let (book, id) = (news.book, news.update_id);
    let mut left = book.bids().len() + book.asks().len();
    if left == 0 {
        return rows.push_empty(head, id);
    }
    for side in [Side::Bid, Side::Ask] {
        for level in book.side(side).iter() {
            left -= 1;
            rows.push(head, Event::Snapshot, side, *level, id, left == 0);
        }
    }
}

fn tell_deltas(rows: &mut Deltas, head: Head<'_>, news: &News<'_>) {
    for (i, delta) in news.deltas.iter().enumerate() {
        let last = i + 1 == news.deltas.len();
        rows.push(head, Event::Delta, delta.side, delta.level, news.update_id, last);
    }
}

/// Puts `now` in place of `levels`; whether it was another.
fn replace<'a>(levels: &mut Vec<Level>, now: impl Iterator<Item = &'a Level> + Clone) -> bool {
    if levels.iter().eq(now.clone()) {
        return false;
    }
    levels.clear();
    levels.extend(now);
    true
}
