//! Keyed state that ends: a key without a row for longer than `ttl` of event time starts over.
//!
//! Whether a key has expired follows from its rows alone: a row whose `ts` is more than `ttl` after the key's previous
//! row finds the initial state. So the output depends on neither batches, workers nor the watermark. The watermark only
//! decides when memory is freed: once it is more than `ttl` past a key's last row, every later row would start over
//! anyway. Memory: at most twice the keys seen within about 1.25 `ttl`, besides a thousand.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::{KeyedState, SlotStore};
use crate::operator::{END, Groups, OperatorError, Spilled, State};
use crate::row;
use crate::state_memory::StatePart;

/// Expired slots that are kept whatever their share.
const SLACK: usize = 1024;
/// A slot that has had no row.
const NEVER: i64 = i64::MIN;

/// States by slot with the time of each slot's last row, where keys expire.
struct Aged<C> {
    states: C,
    last: Option<Vec<i64>>,
    /// Keys whose last row is older have been let go.
    horizon: i64,
}

impl<C: SlotStore> SlotStore for Aged<C> {
    fn reserve(&mut self, slots: usize) {
        self.states.reserve(slots);
        if let Some(last) = &mut self.last
            && last.len() < slots
        {
            last.resize(slots, NEVER);
        }
    }

    fn encode(&self, slot: u32, out: &mut Vec<u8>) {
        if let Some(last) = &self.last {
            out.extend_from_slice(&last[slot as usize].to_le_bytes());
        }
        self.states.encode(slot, out);
    }

    fn decode(&mut self, slot: u32, bytes: &[u8]) -> Result<(), OperatorError> {
        let Some(last) = &mut self.last else { return self.states.decode(slot, bytes) };
        let cut = || OperatorError::State("the time of a key's last row is cut short".into());
        let (ts, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
        last[slot as usize] = i64::from_le_bytes(*ts);
        self.states.decode(slot, rest)
    }

    fn slot_bytes(&self) -> usize {
        match self.states.slot_bytes() {
            0 => 0,
            bytes => bytes + if self.last.is_some() { 8 } else { 0 },
        }
    }

    fn horizon(&self) -> i64 {
        self.horizon
    }

    fn expired(&self, state: &[u8], horizon: i64) -> bool {
        let last = state.first_chunk::<8>().map(|ts| i64::from_le_bytes(*ts));
        self.last.is_some() && last.is_some_and(|last| last < horizon)
    }
}

/// [`KeyedState`] whose keys may expire.
pub struct ExpiringState<C> {
    state: KeyedState<Aged<C>>,
    make: Box<dyn Fn() -> C + Send>,
    ttl_ns: i64,
    /// The watermark at which expired keys are looked for next.
    next_look: i64,
}

impl<C: SlotStore> ExpiringState<C> {
    /// No keys yet; they come from the columns at `by` of `schema` and expire `ttl_ns` after their last row (`None`:
    /// never). `make` gives an empty store.
    pub fn new(
        by: Vec<usize>,
        schema: &Schema,
        ttl_ns: Option<i64>,
        make: impl Fn() -> C + Send + 'static,
    ) -> Self {
        let store = Aged { states: make(), last: ttl_ns.map(|_| Vec::new()), horizon: i64::MIN };
        let ttl_ns = ttl_ns.unwrap_or(i64::MAX).max(1);
        Self {
            state: KeyedState::new(by, schema, store).spillable(),
            make: Box::new(make),
            ttl_ns,
            next_look: i64::MIN,
        }
    }

    /// Finds every row's slot, a fresh one where the row's key has expired, and makes the states ready to be changed.
    /// A key's rows must come in order of `ts`.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<(&[u32], &mut C), OperatorError> {
        self.state.rows(batch)?;
        if self.state.store.last.is_some() {
            self.renew_expired(batch)?;
        }
        Ok((&self.state.slots, &mut self.state.store.states))
    }

    fn renew_expired(&mut self, batch: &RecordBatch) -> Result<(), OperatorError> {
        let mut slots = std::mem::take(&mut self.state.slots);
        let mut renewed: BTreeMap<u32, u32> = BTreeMap::new();
        for (slot, ts) in slots.iter_mut().zip(row::ts(batch)) {
            let resolved = *slot;
            if let Some(fresh) = renewed.get(&resolved) {
                *slot = *fresh;
            }
            let last = self.state.store.last.as_ref().map_or(NEVER, |last| last[*slot as usize]);
            if last != NEVER && ts.saturating_sub(last) > self.ttl_ns {
                *slot = self.state.renew(*slot)?;
                renewed.insert(resolved, *slot);
            }
            if let Some(last) = &mut self.state.store.last {
                last[*slot as usize] = *ts;
            }
        }
        self.state.slots = slots;
        Ok(())
    }

    /// Frees what has expired at this watermark; to be called from [`Operator::advance`](crate::operator::Operator).
    /// Slots given before are void.
    pub fn expire(&mut self, watermark: i64) -> Result<(), OperatorError> {
        if self.state.store.last.is_none() || watermark < self.next_look || watermark == END {
            return Ok(());
        }
        self.next_look = watermark.saturating_add((self.ttl_ns / 4).max(1));
        self.state.store.horizon = watermark.saturating_sub(self.ttl_ns);
        for slot in 0..self.state.keys.len() as u32 {
            let last = self.state.store.last.as_ref().map_or(NEVER, |last| last[slot as usize]);
            if watermark.saturating_sub(last) > self.ttl_ns && self.state.keys.is_live(slot) {
                self.state.forget(slot);
            }
        }
        let keys = &self.state.keys;
        let mostly_gone = keys.forgotten() > SLACK + keys.live();
        let reused = self.state.cold().is_some();
        if mostly_gone && !reused && self.state.snapshot.is_none() { self.compact() } else { Ok(()) }
    }

    /// Moves the live keys and their states into new memory.
    fn compact(&mut self) -> Result<(), OperatorError> {
        let KeyedState { keys, store, .. } = &mut self.state;
        let mut live = keys.emptied();
        let mut states = Aged { states: (self.make)(), last: Some(Vec::new()), horizon: store.horizon };
        let mut bytes = Vec::new();
        for slot in (0..keys.len() as u32).filter(|slot| keys.is_live(*slot)) {
            bytes.clear();
            store.encode(slot, &mut bytes);
            let slot = live.slot(keys.key(slot));
            states.reserve(live.len());
            states.decode(slot, &bytes)?;
        }
        live.keep_marks(keys);
        (*keys, *store) = (live, states);
        Ok(())
    }
}

impl<C: SlotStore> State for ExpiringState<C> {
    fn begin(&mut self) {
        self.state.begin();
    }

    fn begin_changed(&mut self, since: u32) -> bool {
        self.state.begin_changed(since)
    }

    fn snapshots(&self) -> u32 {
        self.state.snapshots()
    }

    fn next(&mut self, budget: usize) -> Result<Option<Groups>, OperatorError> {
        self.state.next(budget)
    }

    fn restore(&mut self, group: u16, bytes: &[u8]) -> Result<(), OperatorError> {
        self.state.restore(group, bytes)
    }

    fn keys(&self) -> usize {
        State::keys(&self.state)
    }

    fn can_spill(&self) -> bool {
        self.state.can_spill()
    }

    fn limit(&mut self, part: StatePart) -> Result<(), OperatorError> {
        self.state.limit(part)
    }

    fn trim(&mut self) -> Result<(), OperatorError> {
        self.state.trim()
    }

    fn spilled(&self) -> Option<Spilled> {
        self.state.spilled()
    }
}

#[cfg(test)]
mod tests;
