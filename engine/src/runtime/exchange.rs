//! Splits batches over workers by the key groups of their rows.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use timely::communication::Push;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::channels::{Message, Stamp};

use crate::keys::{GROUPS, KeyReader, owner};
use crate::plan::Exchange;
use crate::runtime::rows::Rows;

/// Sends every row to the worker that owns its key, or its sink shard.
pub struct ByKey {
    keys: KeyReader,
    shards: Option<usize>,
    groups: Vec<u16>,
    rows: Vec<Vec<u32>>,
}

impl ByKey {
    /// Splits as `exchange` says, among `peers` workers.
    pub fn new(exchange: &Exchange, peers: usize) -> Self {
        let (columns, shards) = match exchange {
            Exchange::Key(columns) => (columns.clone(), None),
            Exchange::Shard { by, shards } => (by.clone(), Some(*shards)),
            Exchange::Stay => (Vec::new(), None),
        };
        Self { keys: KeyReader::new(columns), shards, groups: Vec::new(), rows: vec![Vec::new(); peers] }
    }

    fn worker(&self, group: u16) -> usize {
        match self.shards {
            None => owner(group, self.rows.len()),
            Some(shards) => shard(group, shards) % self.rows.len(),
        }
    }

    /// The parts of `batch`, by worker.
    fn split(&mut self, batch: &RecordBatch) -> Vec<(usize, RecordBatch)> {
        if self.keys.columns().is_empty() {
            return vec![(self.worker(crate::keys::group_of(&[])), batch.clone())];
        }
        let mut groups = std::mem::take(&mut self.groups);
        self.keys.groups(batch, &mut groups);
        for (row, group) in groups.iter().enumerate() {
            let worker = self.worker(*group);
            self.rows[worker].push(row as u32);
        }
        self.groups = groups;
        let mut parts = Vec::new();
        for (worker, rows) in self.rows.iter_mut().enumerate() {
            if rows.len() == batch.num_rows() {
                parts.push((worker, batch.clone()));
            } else if !rows.is_empty() {
                let part = take_record_batch(batch, &UInt32Array::from(std::mem::take(rows)))
                    .expect("the indices are rows of the batch");
                parts.push((worker, part));
            }
            rows.clear();
        }
        parts
    }
}

/// The sink shard of a key group.
pub fn shard(group: u16, shards: usize) -> usize {
    group as usize * shards / GROUPS as usize
}

impl Distributor<Rows> for ByKey {
    fn partition<T: Clone, P: Push<Message<T, Rows>>>(
        &mut self,
        container: &mut Rows,
        stamp: &Stamp<T>,
        pushers: &mut [P],
    ) {
        let Some(batch) = container.take() else { return };
        for (worker, part) in self.split(&batch) {
            Message::push_at(&mut Rows::from(part), stamp.clone(), &mut pushers[worker]);
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Rows>>>(&mut self, _: &Stamp<T>, _: &mut [P]) {}
}
