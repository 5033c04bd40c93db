//! Small chunks that wait together are taken as one.
//!
//! Every batch costs the same small work in each node behind. A source whose chunks queue up is read faster than it is processed, so what
//! waits is joined: the more a job lags, the cheaper its rows. A chunk that comes alone is passed on at once. Cutting rows into batches
//! never changes what they make, so neither does joining them.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;

use crate::runtime::partition::Partition;
use crate::source::{Chunk, Seqs};

/// A chunk of this many rows is not made longer.
const ROWS_MAX: usize = 1024;

/// `chunk` with those that wait behind it, up to about `room` rows.
pub fn with_waiting(p: &mut Partition, chunk: Chunk, room: usize) -> Result<Chunk, ArrowError> {
    let rows_max = ROWS_MAX.min(room);
    // Where a decision takes effect within the rows, chunks are taken one by one.
    let alone = !p.floors.is_empty() || p.former.is_some() || p.changed.is_some();
    let mut rows = chunk.rows.num_rows();
    if alone || rows >= rows_max || !chunk.rejects.is_empty() {
        return Ok(chunk);
    }
    let mut waiting = Vec::new();
    while rows < rows_max {
        let Ok(next) = p.queue.try_recv() else { break };
        if !next.rejects.is_empty() || next.rows.schema_ref() != chunk.rows.schema_ref() {
            p.stash = Some(next);
            break;
        }
        rows += next.rows.num_rows();
        waiting.push(next);
    }
    if waiting.is_empty() { Ok(chunk) } else { joined(chunk, waiting) }
}

fn joined(first: Chunk, others: Vec<Chunk>) -> Result<Chunk, ArrowError> {
    let schema = first.rows.schema();
    let chunks: Vec<Chunk> = std::iter::once(first).chain(others).collect();
    let position = chunks.iter().next_back().map(|chunk| chunk.position.clone()).unwrap_or_default();
    let batches: Vec<RecordBatch> = chunks.iter().map(|chunk| chunk.rows.clone()).collect();
    let seqs = seqs(&chunks);
    Ok(Chunk { rows: concat_batches(&schema, &batches)?, seqs, position, rejects: Vec::new() })
}

/// Positions of all rows, one chunk behind another.
fn seqs(chunks: &[Chunk]) -> Seqs {
    let filled = || chunks.iter().filter(|chunk| chunk.rows.num_rows() > 0);
    let mut next = None;
    let gapless = filled().all(|chunk| match chunk.seqs {
        Seqs::From(start) if next.is_none_or(|next| next == start) => {
            next = Some(start + chunk.rows.num_rows() as u64);
            true
        }
        _ => false,
    });
    let first =
        filled().find_map(|chunk| if let Seqs::From(start) = chunk.seqs { Some(start) } else { None });
    match (gapless, first) {
        (true, Some(first)) => Seqs::From(first),
        _ => Seqs::List(filled().flat_map(positions).collect()),
    }
}

fn positions(chunk: &Chunk) -> Box<dyn Iterator<Item = u64> + '_> {
    match &chunk.seqs {
        Seqs::From(start) => Box::new(*start..*start + chunk.rows.num_rows() as u64),
        Seqs::List(list) => Box::new(list.iter().copied()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use serde_json::json;

    fn chunk(values: &[i64], seqs: Seqs, position: u64) -> Chunk {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let rows = RecordBatch::try_from_iter([("v", column)]).unwrap();
        Chunk { rows, seqs, position: json!(position), rejects: Vec::new() }
    }

    #[test]
    fn rows_positions_and_the_place_to_resume_are_those_of_all() {
        let all = joined(
            chunk(&[1, 2], Seqs::From(7), 9),
            vec![chunk(&[], Seqs::From(0), 9), chunk(&[3], Seqs::From(9), 10)],
        )
        .unwrap();
        assert_eq!((all.rows.num_rows(), &all.position), (3, &json!(10)));
        assert!(matches!(all.seqs, Seqs::From(7)));
        let holes = joined(
            chunk(&[1, 2], Seqs::From(7), 9),
            vec![chunk(&[3], Seqs::List(vec![12]), 13), chunk(&[4], Seqs::From(13), 14)],
        )
        .unwrap();
        assert!(matches!(&holes.seqs, Seqs::List(list) if *list == [7, 8, 12, 13]));
        let empty = joined(chunk(&[], Seqs::From(0), 3), vec![chunk(&[], Seqs::List(vec![]), 4)]).unwrap();
        assert!(matches!(&empty.seqs, Seqs::List(list) if list.is_empty()));
    }
}
