//! State by key, with snapshots that do not stop the flow.
//!
//! [`KeyedState`] pairs the [`Keys`] an operator has met with a store of one state per slot. A
//! snapshot is taken group by group between batches; a key about to change before its group's turn
//! has its state encoded first (copy before write), so the snapshot is the state at the instant it
//! began. By key and not by group, because one batch may touch every group: what a batch pays is
//! bounded by its rows, never by the size of the state.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde::{Serialize, de::DeserializeOwned};

use crate::keys::{GROUPS, KeyReader, Keys};
use crate::operator::{OperatorError, State};

mod expiring;

pub use expiring::ExpiringState;

/// States by slot.
pub trait SlotStore: Send {
    /// Makes room for `slots` slots; new ones hold the initial state.
    fn reserve(&mut self, slots: usize);
    /// Appends the state of a slot to `out`.
    fn encode(&self, slot: u32, out: &mut Vec<u8>);
    /// Replaces the state of a slot by what `encode` wrote.
    fn decode(&mut self, slot: u32, bytes: &[u8]) -> Result<(), OperatorError>;
}

impl<S: Default + Serialize + DeserializeOwned + Send> SlotStore for Vec<S> {
    fn reserve(&mut self, slots: usize) {
        if self.len() < slots {
            self.resize_with(slots, S::default);
        }
    }

    fn encode(&self, slot: u32, out: &mut Vec<u8>) {
        let taken = std::mem::take(out);
        *out = postcard::to_extend(&self[slot as usize], taken)
            .expect("writing to memory fails only for types postcard cannot encode");
    }

    fn decode(&mut self, slot: u32, bytes: &[u8]) -> Result<(), OperatorError> {
        self[slot as usize] = postcard::from_bytes(bytes).map_err(|e| OperatorError::State(e.to_string()))?;
        Ok(())
    }
}

/// Keys and their states.
#[derive(Debug)]
pub struct KeyedState<C> {
    keys: Keys,
    store: C,
    slots: Vec<u32>,
    snapshot: Option<Snapshot>,
    /// How many snapshots have begun.
    epoch: u32,
}

#[derive(Debug)]
struct Snapshot {
    /// Its number.
    epoch: u32,
    /// Slots below this existed when it began.
    slots: u32,
    /// The next group to encode: those before have been.
    next: u16,
    /// By slot: one more than where in `bytes` its state from before it changed stands; 0 where it has not.
    /// (A vector of zeros costs nothing until it is written to, however long.)
    saved: Vec<u64>,
    /// Saved states, each behind its length.
    bytes: Vec<u8>,
}

impl Snapshot {
    fn save<C: SlotStore>(&mut self, keys: &Keys, store: &C, slot: u32) {
        if slot >= self.slots || self.saved[slot as usize] != 0 || keys.group(slot) < self.next {
            return;
        }
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        store.encode(slot, &mut self.bytes);
        let length = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.saved[slot as usize] = at as u64 + 1;
    }

    /// A group as it was when the snapshot began: each key and its state behind their lengths.
    fn encode<C: SlotStore>(&self, keys: &Keys, store: &C, group: u16) -> Vec<u8> {
        let mut out = Vec::new();
        let of_it = |slot: u32| slot < self.slots && !keys.ended_before(slot, self.epoch);
        for slot in keys.in_group(group).iter().filter(|slot| of_it(**slot)) {
            let key = keys.key(*slot);
            out.extend_from_slice(&(key.len() as u32).to_le_bytes());
            out.extend_from_slice(key);
            let at = out.len();
            match self.saved[*slot as usize] {
                0 => {
                    out.extend_from_slice(&[0; 4]);
                    store.encode(*slot, &mut out);
                    let length = (out.len() - at - 4) as u32;
                    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
                }
                saved => {
                    let from = &self.bytes[saved as usize - 1..];
                    let length = from.first_chunk::<4>().map_or(0, |l| u32::from_le_bytes(*l));
                    out.extend_from_slice(&from[..4 + length as usize]);
                }
            }
        }
        out
    }
}

impl<C: SlotStore> KeyedState<C> {
    /// No keys yet; they come from the columns at `by` of `schema`.
    pub fn new(by: Vec<usize>, schema: &Schema, store: C) -> Self {
        Self { keys: Keys::new(by, schema), store, slots: Vec::new(), snapshot: None, epoch: 0 }
    }

    /// Finds every row's slot and makes the batch's states ready to be changed. The slots and the
    /// store, then.
    pub fn rows(&mut self, batch: &RecordBatch) -> (&[u32], &mut C) {
        self.keys.resolve(batch, &mut self.slots);
        self.ready();
        (&self.slots, &mut self.store)
    }

    /// Like [`rows`](Self::rows), with the key columns of another input.
    pub fn rows_with(&mut self, reader: &KeyReader, batch: &RecordBatch) -> (&[u32], &mut C) {
        self.keys.resolve_with(reader, batch, &mut self.slots);
        self.ready();
        (&self.slots, &mut self.store)
    }

    fn ready(&mut self) {
        self.store.reserve(self.keys.len());
        if self.snapshot.is_some() {
            let slots = std::mem::take(&mut self.slots);
            self.touch(&slots);
            self.slots = slots;
        }
    }

    /// Must be called before states are changed outside of [`rows`](Self::rows) (as time passes).
    pub fn touch(&mut self, slots: &[u32]) {
        let Some(snapshot) = &mut self.snapshot else { return };
        for slot in slots {
            snapshot.save(&self.keys, &self.store, *slot);
        }
    }

    /// The states.
    pub fn store(&self) -> &C {
        &self.store
    }

    /// The states, to be changed after [`touch`](Self::touch).
    pub fn store_mut(&mut self) -> &mut C {
        &mut self.store
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}

fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], OperatorError> {
    let cut = || OperatorError::State("a key group is cut short".into());
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(cut)?;
    *bytes = rest;
    Ok(part)
}

impl<C: SlotStore> State for KeyedState<C> {
    fn begin(&mut self) {
        let slots = self.keys.len();
        self.epoch += 1;
        self.snapshot = Some(Snapshot {
            epoch: self.epoch,
            slots: slots as u32,
            next: 0,
            saved: vec![0; slots],
            bytes: Vec::new(),
        });
    }

    fn next(&mut self, budget: usize) -> Option<Vec<(u16, Vec<u8>)>> {
        let snapshot = self.snapshot.as_mut()?;
        let mut groups: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut size = 0;
        while snapshot.next < GROUPS && size < budget {
            let bytes = snapshot.encode(&self.keys, &self.store, snapshot.next);
            if !bytes.is_empty() {
                size += bytes.len();
                groups.push((snapshot.next, bytes));
            }
            snapshot.next += 1;
        }
        if groups.is_empty() {
            self.snapshot = None;
            return None;
        }
        Some(groups)
    }

    fn restore(&mut self, _group: u16, mut bytes: &[u8]) -> Result<(), OperatorError> {
        while !bytes.is_empty() {
            let key = take(&mut bytes)?;
            let state = take(&mut bytes)?;
            let slot = self.keys.slot(key);
            self.store.reserve(self.keys.len());
            self.store.decode(slot, state)?;
        }
        Ok(())
    }

    fn keys(&self) -> usize {
        self.keys.live()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    fn batch(keys: Vec<i64>) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, false)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(keys))]).unwrap()
    }

    fn count(state: &mut KeyedState<Vec<u64>>, keys: Vec<i64>) {
        let (slots, store) = state.rows(&batch(keys));
        for slot in slots {
            store[*slot as usize] += 1;
        }
    }

    #[test]
    fn a_snapshot_is_the_state_when_it_began_though_rows_flow_on() {
        let schema = batch(vec![]).schema();
        let mut state = KeyedState::new(vec![0], &schema, Vec::<u64>::new());
        count(&mut state, (0..5000).collect());
        state.begin();
        let mut groups = Vec::new();
        let mut round = 0;
        while let Some(more) = state.next(64) {
            groups.extend(more);
            // Every key changes and new ones come, between the slices of the snapshot.
            count(&mut state, (round..6000).step_by(7).collect());
            round += 1;
        }
        let mut restored = KeyedState::new(vec![0], &schema, Vec::<u64>::new());
        for (group, bytes) in groups {
            restored.restore(group, &bytes).unwrap();
        }
        assert_eq!(restored.keys().len(), 5000);
        assert!(restored.store().iter().all(|n| *n == 1));
        let keys = restored.keys().columns(&(0..5000).collect::<Vec<_>>()).unwrap();
        let mut values: Vec<i64> =
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&keys[0]).values().to_vec();
        values.sort_unstable();
        assert_eq!(values, (0..5000).collect::<Vec<_>>());
    }
}
