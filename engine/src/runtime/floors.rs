//! The floors of one partition (see [`crate::checkpoint::decisions`]): which hold for a chunk, and which are still undecided.

use arrow::array::RecordBatch;

use crate::checkpoint::decisions::{Floor, Rule};
use crate::source::{Chunk, Seqs};

/// Floors that are durable and not absorbed yet, in order.
#[derive(Clone, Debug, Default)]
pub struct Floors(Vec<Floor>);

impl Floors {
    /// Adds a durable floor.
    pub fn add(&mut self, floor: Floor) {
        if let Err(at) = self.0.binary_search(&floor) {
            self.0.insert(at, floor);
        }
    }

    /// For a manifest.
    pub fn list(&self) -> Vec<Floor> {
        self.0.clone()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rows before `next_seq` have been taken: floors before it are part of the partition's newest time.
    pub fn absorb(&mut self, next_seq: u64) {
        self.0.retain(|f| f.from_seq >= next_seq);
    }

    /// The watermark that holds for the row at `seq`, if one does.
    pub fn at(&self, seq: u64) -> Option<i64> {
        self.0.iter().filter(|f| f.from_seq <= seq).filter_map(|f| f.rule.ts()).max()
    }

    /// Where the partition was let go as idle and has not been decided to come back: rows from there on wait for that.
    pub fn open_idle(&self) -> Option<u64> {
        let idle = self.0.iter().rev().find(|f| f.rule == Rule::Idle)?.from_seq;
        let woke = self.0.iter().any(|f| matches!(f.rule, Rule::Woke(_)) && f.from_seq >= idle);
        (!woke).then_some(idle)
    }

    /// Whether some earlier attempt has read rows at `next_seq` or after it, so that they will come again.
    pub fn expects_rows(&self, next_seq: u64) -> bool {
        let woke = |f: &Floor| f.from_seq == next_seq && matches!(f.rule, Rule::Woke(_));
        self.0.iter().any(|f| f.from_seq > next_seq || woke(f))
    }

    /// The chunk in pieces, each with the watermark that holds for it.
    pub fn pieces(&self, chunk: Chunk) -> Vec<(Option<i64>, Chunk)> {
        let mut pieces = Vec::new();
        let mut rest = chunk;
        while let Some((first, last)) = seq_range(&rest) {
            let next =
                self.0.iter().filter(|f| f.rule.ts().is_some()).map(|f| f.from_seq).find(|s| *s > first);
            let Some(cut) = next.filter(|next| *next <= last) else {
                pieces.push((self.at(first), rest));
                return pieces;
            };
            let (before, after) = split(rest, cut);
            pieces.push((self.at(first), before));
            rest = after;
        }
        pieces.push((None, rest));
        pieces
    }
}

/// First and last position of a chunk's rows and rejects.
pub fn seq_range(chunk: &Chunk) -> Option<(u64, u64)> {
    let rows = chunk.rows.num_rows();
    let of_rows = match &chunk.seqs {
        _ if rows == 0 => None,
        Seqs::From(first) => Some((*first, first + rows as u64 - 1)),
        Seqs::List(list) => list.first().copied().zip(list.last().copied()),
    };
    let of_rejects = chunk.rejects.first().zip(chunk.rejects.last()).map(|(a, b)| (a.seq, b.seq));
    match (of_rows, of_rejects) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

/// The rows and rejects before position `cut`, and the others. Only the second may be remembered as read: both have its position.
fn split(chunk: Chunk, cut: u64) -> (Chunk, Chunk) {
    let all = chunk.rows.num_rows();
    let (rows, before, after) = match chunk.seqs {
        Seqs::From(first) => {
            let rows = (cut.saturating_sub(first) as usize).min(all);
            (rows, Seqs::From(first), Seqs::From(first + rows as u64))
        }
        Seqs::List(mut list) => {
            let rows = list.partition_point(|seq| *seq < cut);
            let after = list.split_off(rows);
            (rows, Seqs::List(list), Seqs::List(after))
        }
    };
    let slice = |from: usize, to: usize| -> RecordBatch { chunk.rows.slice(from, to - from) };
    let (rejects, mut later): (Vec<_>, Vec<_>) = chunk.rejects.into_iter().partition(|r| r.seq < cut);
    later.iter_mut().for_each(|r| r.before = r.before.saturating_sub(rows));
    let first = Chunk { rows: slice(0, rows), seqs: before, position: chunk.position.clone(), rejects };
    let second = Chunk { rows: slice(rows, all), seqs: after, position: chunk.position, rejects: later };
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Reject;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use proptest::prelude::*;
    use std::sync::Arc;

    /// Positions with gaps; every third is a reject. Rows hold their position as value.
    fn chunk(seqs: &[u64], gapless: bool) -> Chunk {
        let (mut rows, mut rejects) = (Vec::new(), Vec::new());
        for seq in seqs {
            match gapless || seq % 3 > 0 {
                true => rows.push(*seq),
                false => rejects.push(Reject {
                    seq: *seq,
                    before: rows.len(),
                    raw: Vec::new(),
                    key: None,
                    reason: String::new(),
                }),
            }
        }
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
        let values = Arc::new(Int64Array::from_iter_values(rows.iter().map(|s| *s as i64)));
        let seqs = if gapless { Seqs::From(rows.first().copied().unwrap_or(0)) } else { Seqs::List(rows) };
        Chunk {
            rows: RecordBatch::try_new(schema, vec![values]).unwrap(),
            seqs,
            position: serde_json::json!(9),
            rejects,
        }
    }

    /// Each position of a chunk in log order: rows, and rejects at their places.
    fn order(chunk: &Chunk) -> Vec<u64> {
        let values = chunk.rows.column(0).as_primitive::<Int64Type>();
        let mut rejects = chunk.rejects.iter().peekable();
        let mut all = Vec::new();
        for row in 0..=chunk.rows.num_rows() {
            while let Some(reject) = rejects.next_if(|r| r.before <= row) {
                all.push(reject.seq);
            }
            if row < chunk.rows.num_rows() {
                let seq = match &chunk.seqs {
                    Seqs::From(first) => first + row as u64,
                    Seqs::List(list) => list[row],
                };
                assert_eq!(seq as i64, values.value(row));
                all.push(seq);
            }
        }
        all
    }

    proptest! {
        /// Given any floors and any chunk, when it is cut, then every position is there once, in order, and the watermark of its piece
        /// is the largest of the floors at or before it.
        #[test]
        fn a_chunk_is_cut_at_every_floor(
            seqs in proptest::collection::btree_set(0u64..40, 0..20),
            floors in proptest::collection::vec((0u64..40, 0i64..100, 0u8..3), 0..6),
            gapless in any::<bool>(),
        ) {
            let seqs: Vec<u64> = match gapless {
                true => (3..3 + seqs.len() as u64).collect(),
                false => seqs.into_iter().collect(),
            };
            let mut known = Floors::default();
            for (from_seq, ts, kind) in &floors {
                let rule = [Rule::Joined(*ts), Rule::Woke(*ts), Rule::Idle][*kind as usize];
                known.add(Floor { from_seq: *from_seq, rule });
            }
            let pieces = known.pieces(chunk(&seqs, gapless));
            let mut got = Vec::new();
            for (ts, piece) in &pieces {
                got.extend(order(piece).into_iter().map(|seq| (seq, *ts)));
            }
            let expected: Vec<_> = seqs.iter().map(|seq| {
                let at = floors.iter().filter(|(from, _, kind)| from <= seq && *kind < 2).map(|f| f.1).max();
                (*seq, at)
            }).collect();
            prop_assert_eq!(got, expected);
        }
    }

    /// Given a partition that was idle and came back, then only an idle mark without a later decision waits.
    #[test]
    fn rows_behind_an_idle_mark_wait_for_a_decision() {
        let mut floors = Floors::default();
        floors.add(Floor { from_seq: 0, rule: Rule::Joined(5) });
        assert_eq!(floors.open_idle(), None);
        assert!(!floors.expects_rows(0), "a partition that joined may have no rows");
        floors.add(Floor { from_seq: 3, rule: Rule::Idle });
        assert_eq!(floors.open_idle(), Some(3));
        assert!(floors.expects_rows(2) && !floors.expects_rows(3));
        floors.add(Floor { from_seq: 3, rule: Rule::Woke(9) });
        assert_eq!(floors.open_idle(), None);
        assert!(floors.expects_rows(3));
        assert_eq!((floors.at(2), floors.at(3)), (Some(5), Some(9)));
        floors.absorb(4);
        assert!(floors.is_empty());
    }
}
