//! From a protocol's rows and refused input to the engine's chunks: numbers, positions, sizes.
//!
//! `_seq` counts rows and refused input in the order of frames, so it doesn't depend on when rows are
//! taken. A partition's position is `{"rows": n, "state": …, "capture": …, "feed": …}`: how many there were, what the
//! protocol goes on from, how much of the feed's own log was read for that, where it keeps one, and which feed it is. That of a replay has
//! `input` in place of a state: which files it counts.

use arrow::array::RecordBatch;
use serde_json::{Value, json};
use tidemill_engine::source::{Chunk, Position, Reject, Seqs};

use crate::capture::record::Cut;

/// Numbers the rows of one partition.
#[derive(Debug)]
pub(crate) struct Numbering {
    /// Rows and refused input so far.
    pub next: u64,
}

/// Rows and refused input with their numbers.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub rows: RecordBatch,
    pub seqs: Vec<u64>,
    pub rejects: Vec<Reject>,
}

impl Numbering {
    /// Numbers `rows` and `rejects`; the latter say how many of the rows came before them.
    pub fn number(&mut self, rows: RecordBatch, mut rejects: Vec<Reject>) -> Numbered {
        let n = rows.num_rows();
        let mut seqs = Vec::with_capacity(n);
        let mut waiting = rejects.iter_mut().peekable();
        for row in 0..=n {
            // A protocol that counts wrongly must not lose a reject.
            while let Some(reject) = waiting.next_if(|r| r.before <= row || row == n) {
                reject.before = row;
                reject.seq = self.next;
                self.next += 1;
            }
            if row < n {
                seqs.push(self.next);
                self.next += 1;
            }
        }
        Numbered { rows, seqs, rejects }
    }
}

impl Numbered {
    pub fn is_empty(&self) -> bool {
        self.seqs.is_empty() && self.rejects.is_empty()
    }

    /// What has a number from `from` on and below `to`.
    pub fn within(self, from: u64, to: u64) -> Self {
        let start = self.seqs.partition_point(|seq| *seq < from);
        let end = self.seqs.partition_point(|seq| *seq < to);
        if start == 0 && end == self.seqs.len() && self.rejects.iter().all(|r| (from..to).contains(&r.seq)) {
            return self;
        }
        let rejects = self.rejects.into_iter().filter(|r| (from..to).contains(&r.seq));
        Self {
            rows: self.rows.slice(start, end.max(start) - start),
            seqs: self.seqs[start..end.max(start)].to_vec(),
            rejects: rejects.map(|r| Reject { before: r.before.clamp(start, end) - start, ..r }).collect(),
        }
    }

    /// As one chunk.
    pub fn chunk(self, position: Position) -> Chunk {
        let contiguous = self.seqs.windows(2).all(|w| w[1] == w[0] + 1);
        let seqs = match self.seqs.first() {
            Some(first) if contiguous => Seqs::From(*first),
            _ => Seqs::List(self.seqs),
        };
        Chunk { rows: self.rows, seqs, position, rejects: self.rejects }
    }

    /// As chunks of at most `chunk_rows` rows, for a replay of the files in `counted`.
    pub fn chunks(self, chunk_rows: usize, counted: &Value) -> Vec<Chunk> {
        let position = |rows: u64| json!({ "rows": rows, "input": counted });
        let size = chunk_rows.max(1);
        let mut chunks = Vec::with_capacity(self.seqs.len() / size + 1);
        let mut rest = self;
        while rest.seqs.len() > size {
            let cut = rest.seqs[size];
            let rejects = rest.rejects.split_off(rest.rejects.partition_point(|r| r.seq < cut));
            let after = Self {
                rows: rest.rows.slice(size, rest.seqs.len() - size),
                seqs: rest.seqs.split_off(size),
                rejects: rejects.into_iter().map(|r| Reject { before: r.before - size, ..r }).collect(),
            };
            rest.rows = rest.rows.slice(0, size);
            chunks.push(std::mem::replace(&mut rest, after).chunk(position(cut)));
        }
        let last = rest.seqs.last().copied().max(rest.rejects.last().map(|r| r.seq));
        if let Some(last) = last {
            chunks.push(rest.chunk(position(last + 1)));
        }
        chunks
    }
}

/// A position.
pub(crate) fn position(rows: u64, state: Value) -> Position {
    match state {
        Value::Null => json!({ "rows": rows }),
        state => json!({ "rows": rows, "state": state }),
    }
}

/// A position in a live feed, at `addresses`, which may keep a log.
pub(crate) fn logged(rows: u64, state: Value, cut: Option<Cut>, addresses: &[String]) -> Position {
    let mut position = position(rows, state);
    if !addresses.is_empty() {
        position["feed"] = json!(addresses);
    }
    if let Some(cut) = cut {
        position["capture"] = json!(cut);
    }
    position
}

/// What a position says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Restored {
    /// Rows and refused input before it.
    pub rows: u64,
    /// What the protocol goes on from.
    pub state: Value,
    /// Where it is in the feed's own log.
    pub cut: Option<Cut>,
    /// Which feed it is of; older versions do not say.
    pub addresses: Vec<String>,
}

/// Reads a position; none is the beginning.
pub(crate) fn restored(position: Option<&Position>) -> Result<Restored, String> {
    let Some(position) = position else { return Ok(Restored::default()) };
    let other = || format!("the checkpoint's position `{position}` is not one of a feed");
    let rows = position["rows"].as_u64().ok_or_else(other)?;
    let cut = match &position["capture"] {
        Value::Null => None,
        cut => Some(serde_json::from_value(cut.clone()).map_err(|_| other())?),
    };
    let addresses = match &position["feed"] {
        Value::Null => Vec::new(),
        addresses => serde_json::from_value(addresses.clone()).map_err(|_| other())?,
    };
    Ok(Restored { rows, state: position["state"].clone(), cut, addresses })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn rows(values: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from_iter_values(values)) as _)]).unwrap()
    }

    fn reject(before: usize) -> Reject {
        Reject { seq: 0, before, raw: Vec::new(), key: None, reason: String::new() }
    }

    /// Every row's value and every reject, by number.
    fn all(chunks: Vec<Chunk>) -> Vec<(u64, Option<i64>)> {
        let mut all = Vec::new();
        for chunk in chunks {
            let values = chunk.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            let seqs = match chunk.seqs {
                Seqs::From(first) => (first..).take(values.len()).collect(),
                Seqs::List(list) => list,
            };
            for r in &chunk.rejects {
                assert!(r.before == 0 || seqs[r.before - 1] < r.seq);
                assert!(r.before == seqs.len() || seqs[r.before] > r.seq);
                all.push((r.seq, None));
            }
            all.extend(seqs.into_iter().zip(values.into_iter().map(Some)));
            assert_eq!(chunk.position["rows"].as_u64(), all.iter().map(|(seq, _)| seq + 1).max());
        }
        all.sort();
        all
    }

    #[test]
    fn numbers_do_not_depend_on_when_rows_are_taken_nor_on_chunks() {
        let whole = [(0, Some(0)), (1, None), (2, Some(1)), (3, Some(2)), (4, None), (5, None), (6, Some(3))];
        for size in 1..6 {
            let mut numbering = Numbering { next: 0 };
            let one = numbering.number(rows(0..4), vec![reject(1), reject(3), reject(3)]);
            assert_eq!(all(one.chunks(size, &Value::Null)), whole, "chunks of {size}");
            let mut numbering = Numbering { next: 0 };
            let mut parts = numbering.number(rows(0..2), vec![reject(1)]).chunks(size, &Value::Null);
            parts.extend(numbering.number(rows(2..4), vec![reject(1), reject(1)]).chunks(size, &Value::Null));
            assert_eq!(all(parts), whole, "taken in two, chunks of {size}");
        }
        for (from, to) in [(0, 7), (1, 5), (3, 3), (5, 6), (6, 99)] {
            let one = Numbering { next: 0 }.number(rows(0..4), vec![reject(1), reject(3), reject(3)]);
            let expected: Vec<_> =
                whole.iter().copied().filter(|(seq, _)| (from..to).contains(seq)).collect();
            assert_eq!(all(one.within(from, to).chunks(2, &Value::Null)), expected, "{from}..{to}");
        }
    }
}
