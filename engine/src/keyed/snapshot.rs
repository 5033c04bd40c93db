//! A snapshot of keyed state while rows flow on: what stood when it began, group by group.
//!
//! A state about to change is encoded first. Where keys spill, the view of their table is as of the beginning too; a slot
//! that goes to another key before its group's turn leaves its state in a table beside.

use super::SlotStore;
use super::cold::{Frozen, WRITES, row_key};
use crate::keys::{GROUPS, Keys};
use crate::operator::OperatorError;

#[derive(Debug)]
pub(super) struct Snapshot {
    /// Its number.
    epoch: u32,
    /// Slots below this existed when it began.
    slots: u32,
    /// The next group to encode: those before have been.
    next: u16,
    /// By slot: one more than where in `bytes` its state from before it changed stands; 0 where it has not; [`GONE`].
    /// (A vector of zeros costs nothing until it is written to, however long.)
    saved: Vec<u64>,
    /// Saved states, each behind its length.
    bytes: Vec<u8>,
    frozen: Option<Frozen>,
    /// The groups to encode, where not all are.
    only: Option<Vec<bool>>,
}

/// The slot held no key when the snapshot began, or its state has been set aside.
const GONE: u64 = u64::MAX;

impl Snapshot {
    /// A snapshot that begins now.
    pub(super) fn new(epoch: u32, keys: &Keys, frozen: Option<Frozen>) -> Self {
        let mut saved = vec![0; keys.len()];
        if frozen.is_some() {
            for slot in (0..keys.len()).filter(|slot| keys.is_free(*slot as u32)) {
                saved[slot] = GONE;
            }
        }
        Self { epoch, slots: keys.len() as u32, next: 0, saved, bytes: Vec::new(), frozen, only: None }
    }

    /// Bytes of saved states.
    pub(super) fn saved_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The group whose turn it is; the turn passes.
    pub(super) fn group(&mut self) -> Option<u16> {
        loop {
            let group = (self.next < GROUPS).then_some(self.next)?;
            self.next += 1;
            if self.is_due(group) {
                return Some(group);
            }
        }
    }

    /// Encodes no other groups than these.
    pub(super) fn only(&mut self, groups: Vec<bool>) {
        self.only = Some(groups);
    }

    /// Whether only some groups are encoded.
    pub(super) fn is_partial(&self) -> bool {
        self.only.is_some()
    }

    /// Whether a group is to be encoded.
    fn is_due(&self, group: u16) -> bool {
        self.only.as_ref().is_none_or(|only| only[group as usize])
    }

    /// Lets go of what it has set aside.
    pub(super) fn end(self) -> Result<(), OperatorError> {
        self.frozen.map_or(Ok(()), Frozen::end)
    }

    /// Keeps the state of a slot that is about to change.
    pub(super) fn save<C: SlotStore>(&mut self, keys: &Keys, store: &C, slot: u32) {
        if slot >= self.slots || self.saved[slot as usize] != 0 {
            return;
        }
        let group = keys.group(slot);
        if group < self.next || !self.is_due(group) {
            return;
        }
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        store.encode(slot, &mut self.bytes);
        let length = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.saved[slot as usize] = at as u64 + 1;
    }

    /// Whether a slot's state belongs to the snapshot and is in memory.
    fn holds(&self, keys: &Keys, slot: u32) -> bool {
        slot < self.slots && self.saved[slot as usize] != GONE && !keys.ended_before(slot, self.epoch)
    }

    /// Appends a slot's state of the beginning.
    fn push_state<C: SlotStore>(&self, store: &C, slot: u32, out: &mut Vec<u8>) {
        match self.saved[slot as usize] {
            0 => store.encode(slot, out),
            saved => {
                let from = &self.bytes[saved as usize - 1..];
                let length = from.first_chunk::<4>().map_or(0, |l| u32::from_le_bytes(*l));
                out.extend_from_slice(&from[4..4 + length as usize]);
            }
        }
    }

    /// Writes down the states of slots that other keys may take.
    pub(super) fn set_aside<C: SlotStore>(
        &mut self,
        keys: &Keys,
        store: &C,
        slots: &[u32],
    ) -> Result<(), OperatorError> {
        for part in slots.chunks(WRITES) {
            let due: Vec<u32> = part
                .iter()
                .copied()
                .filter(|slot| {
                    let group = keys.group(*slot);
                    self.holds(keys, *slot) && group >= self.next && self.is_due(group)
                })
                .collect();
            if let Some(frozen) = self.frozen.as_mut().filter(|_| !due.is_empty()) {
                let table = frozen.beside(self.epoch)?.clone();
                let mut writes = table.writes();
                let (mut key, mut state) = (Vec::new(), Vec::new());
                for slot in due {
                    row_key(&mut key, keys.group(slot), keys.key(slot));
                    state.clear();
                    self.push_state(store, slot, &mut state);
                    writes.put(&key, &state)?;
                }
                writes.commit()?;
            }
            for slot in part.iter().filter(|slot| **slot < self.slots) {
                self.saved[*slot as usize] = GONE;
            }
        }
        Ok(())
    }

    /// Writes down all saved states: they leave memory.
    pub(super) fn set_all_aside<C: SlotStore>(
        &mut self,
        keys: &Keys,
        store: &C,
    ) -> Result<(), OperatorError> {
        let changed: Vec<u32> =
            (0..self.slots).filter(|slot| !matches!(self.saved[*slot as usize], 0 | GONE)).collect();
        self.set_aside(keys, store, &changed)?;
        self.bytes = Vec::new();
        Ok(())
    }

    /// A group as it was when the snapshot began: each key and its state behind their lengths.
    pub(super) fn encode<C: SlotStore>(
        &mut self,
        keys: &Keys,
        store: &C,
        group: u16,
    ) -> Result<Vec<u8>, OperatorError> {
        let slots = match &mut self.frozen {
            None => keys.in_group(group).to_vec(),
            Some(frozen) => frozen.in_group(keys, self.slots, group),
        };
        let of_it = |slot: &u32| self.holds(keys, *slot) && keys.group(*slot) == group;
        let slots: Vec<u32> = slots.into_iter().filter(of_it).collect();
        let mut out = Vec::new();
        for slot in &slots {
            let key = keys.key(*slot);
            out.extend_from_slice(&(key.len() as u32).to_le_bytes());
            out.extend_from_slice(key);
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            self.push_state(store, *slot, &mut out);
            let length = (out.len() - at - 4) as u32;
            out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        if let Some(frozen) = &self.frozen {
            let mut own: Vec<&[u8]> = slots.iter().map(|slot| keys.key(*slot)).collect();
            own.sort_unstable();
            frozen.encode(store, group, &own, &mut out)?;
        }
        Ok(out)
    }
}
