//! Merges sorted runs: of equal rows, those of the earlier run first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::row::Rows;

use super::run::{Run, RunReader};
use super::{BATCH_ROWS, Keys};
use crate::ArchiveError;

/// A merge under way.
pub struct Merge {
    keys: Keys,
    cursors: Vec<Cursor>,
    /// The next row of each cursor that has one: its key, then which cursor.
    heads: BinaryHeap<Reverse<(Box<[u8]>, usize)>>,
    /// Batches that the rows in `picked` are of; a cursor's own is at `Cursor::slot`.
    slots: Vec<RecordBatch>,
    picked: Vec<(usize, usize)>,
}

struct Cursor {
    reader: RunReader,
    rows: Rows,
    slot: usize,
    at: usize,
}

impl Merge {
    /// A merge of `runs`, the earliest first.
    pub fn new(runs: Vec<Run>, keys: Keys) -> Result<Self, ArchiveError> {
        let mut merge = Self {
            keys,
            cursors: Vec::new(),
            heads: BinaryHeap::new(),
            slots: Vec::new(),
            picked: Vec::with_capacity(BATCH_ROWS),
        };
        for run in runs {
            let mut reader = run.read()?;
            if let Some(batch) = reader.next_batch()? {
                let rows = merge.keys.rows(&batch)?;
                merge.heads.push(Reverse((rows.row(0).data().into(), merge.cursors.len())));
                merge.cursors.push(Cursor { reader, rows, slot: merge.slots.len(), at: 0 });
                merge.slots.push(batch);
            }
        }
        Ok(merge)
    }

    /// The next rows.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArchiveError> {
        while self.picked.len() < BATCH_ROWS {
            let Some(Reverse((_, c))) = self.heads.pop() else { break };
            let next = self.heads.peek().map(|Reverse((key, other))| (&**key, *other));
            let cursor = &mut self.cursors[c];
            // As long as this run is ahead of all others no heap is needed.
            let mut more = true;
            while self.picked.len() < BATCH_ROWS {
                self.picked.push((cursor.slot, cursor.at));
                cursor.at += 1;
                if cursor.at == cursor.rows.num_rows() {
                    match cursor.reader.next_batch()? {
                        Some(batch) => {
                            cursor.rows = self.keys.rows(&batch)?;
                            cursor.slot = self.slots.len();
                            cursor.at = 0;
                            self.slots.push(batch);
                        }
                        None => {
                            more = false;
                            break;
                        }
                    }
                }
                if next.is_some_and(|next| next < (cursor.rows.row(cursor.at).data(), c)) {
                    break;
                }
            }
            if more {
                self.heads.push(Reverse((cursor.rows.row(cursor.at).data().into(), c)));
            } else {
                // Its last batch may still be needed by what is picked; the cursor is not.
                cursor.slot = usize::MAX;
            }
        }
        if self.picked.is_empty() {
            return Ok(None);
        }
        let refs: Vec<&RecordBatch> = self.slots.iter().collect();
        let merged =
            interleave_record_batch(&refs, &self.picked).map_err(|e| ArchiveError::rows("merge rows", e))?;
        self.picked.clear();
        // Only the batches that the cursors stand in are needed from now on.
        let old = std::mem::take(&mut self.slots);
        for cursor in self.cursors.iter_mut().filter(|c| c.slot != usize::MAX) {
            let batch = old[cursor.slot].clone();
            cursor.slot = self.slots.len();
            self.slots.push(batch);
        }
        Ok(Some(merged))
    }
}
