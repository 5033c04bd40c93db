//! State by key, with snapshots that do not stop the flow.
//!
//! [`KeyedState`] pairs the [`Keys`] an operator has met with a store of one state per slot. A
//! snapshot is taken group by group between batches; a group about to change before its turn is
//! encoded first (copy before write), so the snapshot is the state at the instant it began.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde::{Serialize, de::DeserializeOwned};

use crate::keys::{GROUPS, KeyReader, Keys};
use crate::operator::{OperatorError, State};

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
        self[slot as usize] =
            postcard::from_bytes(bytes).map_err(|e| OperatorError::State(e.to_string()))?;
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
}

#[derive(Debug)]
struct Snapshot {
    /// Slots below this existed when it began.
    slots: u32,
    /// Groups not yet encoded.
    pending: Vec<bool>,
    /// Where the walk over the groups stands.
    next: u16,
    /// Groups encoded ahead of their turn.
    early: Vec<(u16, Vec<u8>)>,
}

impl<C: SlotStore> KeyedState<C> {
    /// No keys yet; they come from the columns at `by` of `schema`.
    pub fn new(by: Vec<usize>, schema: &Schema, store: C) -> Self {
        Self { keys: Keys::new(by, schema), store, slots: Vec::new(), snapshot: None }
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
            let group = self.keys.group(*slot);
            if snapshot.pending[group as usize] {
                snapshot.pending[group as usize] = false;
                let bytes = encode_group(&self.keys, &self.store, group, snapshot.slots);
                snapshot.early.push((group, bytes));
            }
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

fn encode_group<C: SlotStore>(keys: &Keys, store: &C, group: u16, below: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut state = Vec::new();
    for slot in keys.in_group(group).iter().filter(|slot| **slot < below) {
        state.clear();
        store.encode(*slot, &mut state);
        for part in [keys.key(*slot), &state] {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out
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
        self.snapshot = Some(Snapshot {
            slots: self.keys.len() as u32,
            pending: vec![true; GROUPS as usize],
            next: 0,
            early: Vec::new(),
        });
    }

    fn next(&mut self, budget: usize) -> Option<Vec<(u16, Vec<u8>)>> {
        let snapshot = self.snapshot.as_mut()?;
        let mut groups: Vec<(u16, Vec<u8>)> = std::mem::take(&mut snapshot.early);
        let mut size: usize = groups.iter().map(|(_, bytes)| bytes.len()).sum();
        while snapshot.next < GROUPS && size < budget {
            let group = snapshot.next;
            snapshot.next += 1;
            if std::mem::take(&mut snapshot.pending[group as usize]) {
                let bytes = encode_group(&self.keys, &self.store, group, snapshot.slots);
                size += bytes.len();
                groups.push((group, bytes));
            }
        }
        groups.retain(|(_, bytes)| !bytes.is_empty());
        if groups.is_empty() && snapshot.next == GROUPS {
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
        self.keys.len()
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
        let mut values: Vec<i64> = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&keys[0]).values().to_vec();
        values.sort_unstable();
        assert_eq!(values, (0..5000).collect::<Vec<_>>());
    }
}
