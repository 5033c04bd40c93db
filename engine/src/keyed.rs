//! State by key, with snapshots that do not stop the flow.
//!
//! [`KeyedState`] pairs the [`Keys`] an operator has met with a store of one state per slot. A
//! snapshot is taken group by group between batches; a key about to change before its group's turn
//! has its state encoded first (copy before write), so the snapshot is the state at the instant it
//! began. By key and not by group, because one batch may touch every group: what a batch pays is
//! bounded by its rows, never by the size of the state.
//!
//! With a [limit](State::limit), keys without recent rows leave memory ([`Cold`]) between batches, and return when a row
//! of theirs comes: what an operator sees of a batch's slots is the same.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde::{Serialize, de::DeserializeOwned};

use crate::keys::{GROUPS, KeyReader, Keys};
use crate::operator::{Groups, OperatorError, Spilled, State};
use crate::state_memory::StatePart;

mod cold;
mod expiring;
mod snapshot;

use cold::Cold;
use snapshot::Snapshot;

pub use expiring::ExpiringState;

/// States by slot.
pub trait SlotStore: Send {
    /// Makes room for `slots` slots; new ones hold the initial state.
    fn reserve(&mut self, slots: usize);
    /// Appends the state of a slot to `out`.
    fn encode(&self, slot: u32, out: &mut Vec<u8>);
    /// Replaces the state of a slot by what `encode` wrote.
    fn decode(&mut self, slot: u32, bytes: &[u8]) -> Result<(), OperatorError>;
    /// Bytes of a slot in memory without what it points to; 0 where that is not known.
    fn slot_bytes(&self) -> usize {
        0
    }
    /// Keys whose last row is older than this start over.
    fn horizon(&self) -> i64 {
        i64::MIN
    }
    /// Whether what `encode` wrote is of a key whose last row is older than `horizon`.
    fn expired(&self, _state: &[u8], _horizon: i64) -> bool {
        false
    }
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

    fn slot_bytes(&self) -> usize {
        size_of::<S>()
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
    /// Whether only the slots of a batch at hand are ever used.
    can_spill: bool,
    memory: Option<Memory>,
}

/// The limit of an instance.
#[derive(Debug)]
struct Memory {
    part: StatePart,
    /// Where keys go; `None`: they stay, and too many are an error.
    cold: Option<Cold>,
    /// Mean length of an encoded state.
    state_bytes: usize,
    /// Keys when that was measured.
    measured: usize,
    calls: u32,
}

/// Keys that leave memory between two batches at most.
const EVICTIONS_MAX: usize = 128 * 1024;
/// Between so many calls the size of states is measured again.
const MEASURE_EVERY: u32 = 256;

impl<C: SlotStore> KeyedState<C> {
    /// No keys yet; they come from the columns at `by` of `schema`.
    pub fn new(by: Vec<usize>, schema: &Schema, store: C) -> Self {
        Self {
            keys: Keys::new(by, schema),
            store,
            slots: Vec::new(),
            snapshot: None,
            epoch: 0,
            can_spill: false,
            memory: None,
        }
    }

    /// Declares that the operator uses only slots that [`rows`](Self::rows) has given within the same call, so that the
    /// others can leave memory.
    pub fn spillable(mut self) -> Self {
        self.can_spill = true;
        self
    }

    /// Finds every row's slot and makes the batch's states ready to be changed. The slots and the
    /// store, then.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<(&[u32], &mut C), OperatorError> {
        self.keys.resolve(batch, &mut self.slots);
        self.ready()?;
        Ok((&self.slots, &mut self.store))
    }

    /// Like [`rows`](Self::rows), with the key columns of another input.
    pub fn rows_with(
        &mut self,
        reader: &KeyReader,
        batch: &RecordBatch,
    ) -> Result<(&[u32], &mut C), OperatorError> {
        self.keys.resolve_with(reader, batch, &mut self.slots);
        self.ready()?;
        Ok((&self.slots, &mut self.store))
    }

    fn ready(&mut self) -> Result<(), OperatorError> {
        self.store.reserve(self.keys.len());
        if let Some(cold) = self.memory.as_mut().and_then(|memory| memory.cold.as_mut()) {
            cold.load(&mut self.keys, &mut self.store, &self.slots)?;
        }
        if self.snapshot.is_some() {
            let slots = std::mem::take(&mut self.slots);
            self.save(&slots);
            self.slots = slots;
        }
        Ok(())
    }

    /// Must be called before states are changed outside of [`rows`](Self::rows) (as time passes).
    pub fn touch(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.keys.mark(*slot));
        self.save(slots);
    }

    /// Keeps what a snapshot under way needs.
    fn save(&mut self, slots: &[u32]) {
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

    fn cold(&mut self) -> Option<&mut Cold> {
        self.memory.as_mut().and_then(|memory| memory.cold.as_mut())
    }

    /// Gives the key of a slot that the batch at hand uses another slot with the initial state.
    fn renew(&mut self, slot: u32) -> Result<u32, OperatorError> {
        let fresh = self.keys.renew(slot, self.epoch);
        self.store.reserve(self.keys.len());
        if let Some(cold) = self.memory.as_mut().and_then(|memory| memory.cold.as_mut()) {
            cold.renewed(slot, fresh, &mut self.keys, &mut self.store)?;
        }
        Ok(fresh)
    }

    /// Lets the key of a slot go.
    fn forget(&mut self, slot: u32) {
        self.keys.forget(slot, self.epoch);
        if let Some(cold) = self.cold() {
            cold.dying.push(slot);
        }
    }

    /// Bytes that a key takes in memory, estimated: the table and vectors that grow by doubling, its text, its state and
    /// what that points to, and what a snapshot notes of it.
    fn key_bytes(&self) -> usize {
        const TABLE: usize = 10;
        const VECTORS: usize = (8 + 2 + 4 + 4 + 1) * 3 / 2;
        const SNAPSHOT: usize = 8 + 4;
        let text = (self.keys.text_bytes() / self.keys.live().max(1)) * 5 / 4;
        let encoded = self.memory.as_ref().map_or(0, |memory| memory.state_bytes);
        let state = self.store.slot_bytes().max(encoded) * 3 / 2 + encoded / 2;
        TABLE + VECTORS + SNAPSHOT + text + state
    }

    /// Bytes in memory, estimated.
    fn bytes(&self) -> u64 {
        let saved = self.snapshot.as_ref().map_or(0, Snapshot::saved_bytes);
        (self.keys.live() * self.key_bytes() + saved) as u64
    }

    /// Measures the size of states, now and then.
    fn measure(&mut self) {
        let Some(memory) = &mut self.memory else { return };
        memory.calls = memory.calls.wrapping_add(1);
        let live = self.keys.live();
        if live == 0 || (live < 2 * memory.measured && !memory.calls.is_multiple_of(MEASURE_EVERY)) {
            return;
        }
        let (mut bytes, mut count) = (Vec::new(), 0);
        let step = (self.keys.len() / 64).max(1);
        for slot in (0..self.keys.len()).step_by(step).filter(|slot| self.keys.is_live(*slot as u32)) {
            self.store.encode(slot as u32, &mut bytes);
            count += 1;
        }
        memory.state_bytes = bytes.len() / count.max(1);
        memory.measured = live;
    }

    /// Encodes a group as it was when the snapshot began.
    fn encode_group(&mut self, group: u16) -> Result<Vec<u8>, OperatorError> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(Vec::new()) };
        snapshot.encode(&self.keys, &self.store, group)
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
    fn snapshots(&self) -> u32 {
        self.epoch
    }

    fn begin_changed(&mut self, since: u32) -> bool {
        // What has changed up to now; marks are numbered by the snapshots before, and one more.
        let changed = (0..GROUPS).map(|group| self.keys.changed(group) > since).collect();
        self.begin();
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.only(changed);
        }
        true
    }

    fn begin(&mut self) {
        self.epoch += 1;
        self.keys.mark_with(self.epoch + 1);
        let frozen = self.memory.as_mut().and_then(|memory| memory.cold.as_mut()).map(|cold| {
            cold.bury(&mut self.keys, &[]);
            cold.freeze(self.store.horizon())
        });
        self.snapshot = Some(Snapshot::new(self.epoch, &self.keys, frozen));
    }

    fn next(&mut self, budget: usize) -> Result<Option<Groups>, OperatorError> {
        let mut groups = Groups::new();
        let mut size = 0;
        while size < budget {
            let Some(group) = self.snapshot.as_mut().and_then(Snapshot::group) else { break };
            let bytes = self.encode_group(group)?;
            if !bytes.is_empty() || self.snapshot.as_ref().is_some_and(Snapshot::is_partial) {
                size += bytes.len();
                groups.push((group, bytes));
            }
        }
        if groups.is_empty() {
            if let Some(snapshot) = self.snapshot.take() {
                snapshot.end()?;
            }
            return Ok(None);
        }
        Ok(Some(groups))
    }

    fn restore(&mut self, group: u16, mut bytes: &[u8]) -> Result<(), OperatorError> {
        self.measure();
        let (used, key_bytes) = (self.bytes(), self.key_bytes() as u64);
        let mut room = usize::MAX;
        if let Some(memory) = &mut self.memory
            && memory.cold.is_some()
        {
            room = (memory.part.report(used)? / key_bytes) as usize;
        }
        let mut rest = Vec::new();
        while !bytes.is_empty() {
            let key = take(&mut bytes)?;
            let state = take(&mut bytes)?;
            if self.keys.live() >= room {
                rest.push((key, state));
                continue;
            }
            let slot = self.keys.slot(key);
            self.store.reserve(self.keys.len());
            self.store.decode(slot, state)?;
        }
        if let Some(cold) = self.memory.as_mut().and_then(|memory| memory.cold.as_mut()) {
            cold.restored(&mut self.keys, group, &rest)?;
        }
        self.keys.unmark(group);
        Ok(())
    }

    fn keys(&self) -> usize {
        let cold = self.memory.as_ref().and_then(|memory| memory.cold.as_ref());
        self.keys.live() + cold.map_or(0, Cold::on_disk) as usize
    }

    fn can_spill(&self) -> bool {
        self.can_spill
    }

    fn limit(&mut self, part: StatePart) -> Result<(), OperatorError> {
        let mut cold = None;
        if let Some(table) = part.table().filter(|_| self.can_spill) {
            self.keys.reuse_slots();
            self.store.reserve(1);
            let mut initial = Vec::new();
            self.store.encode(0, &mut initial);
            cold = Some(Cold::new(table.clone(), initial));
        }
        self.memory = Some(Memory { part, cold, state_bytes: 0, measured: 0, calls: 0 });
        Ok(())
    }

    fn trim(&mut self) -> Result<(), OperatorError> {
        if self.memory.is_none() {
            return Ok(());
        }
        self.measure();
        let key_bytes = self.key_bytes() as u64;
        let mut used = self.bytes();
        let Self { keys, store, snapshot, memory, epoch, .. } = self;
        let Some(memory) = memory else { return Ok(()) };
        let allowed = memory.part.report(used)?;
        let Some(cold) = &mut memory.cold else { return Ok(()) };
        let dying = std::mem::take(&mut cold.dying);
        if let Some(snapshot) = snapshot {
            snapshot.set_aside(keys, store, &dying)?;
        }
        cold.bury(keys, &dying);
        if let Some(snapshot) = snapshot
            && snapshot.saved_bytes() as u64 > allowed / 8
        {
            used -= snapshot.saved_bytes() as u64;
            snapshot.set_all_aside(keys, store)?;
        }
        if used > allowed {
            let target = (allowed - allowed / 64).saturating_sub(used - keys.live() as u64 * key_bytes);
            let n = keys.live() - ((target / key_bytes) as usize).min(keys.live());
            cold.evict(keys, store, snapshot.as_mut(), n.min(EVICTIONS_MAX), *epoch)?;
            let used = self.bytes();
            if let Some(memory) = &mut self.memory {
                memory.part.report(used)?;
            }
        }
        let horizon = self.store.horizon();
        let Self { keys, store, memory, .. } = self;
        match memory.as_mut().and_then(|memory| memory.cold.as_mut()) {
            Some(cold) => cold.sweep(keys, store, horizon),
            None => Ok(()),
        }
    }

    fn spilled(&self) -> Option<Spilled> {
        let cold = self.memory.as_ref().and_then(|memory| memory.cold.as_ref())?;
        Some(cold.spilled(self.keys.live() as u64))
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
        let (slots, store) = state.rows(&batch(keys)).unwrap();
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
        while let Some(more) = state.next(64).unwrap() {
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
