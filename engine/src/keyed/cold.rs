//! Keys that have left memory: their states are rows of a table on disk.
//!
//! A key is in memory (then that is its state, whatever an older row of the table says) or in the table alone. The
//! second-chance rule decides who leaves: a key without a row since the hand last passed it. A batch's keys that are not in memory
//! are looked up together, in the table's order. Whether a key was in memory never shows: a state returns as the bytes
//! that a checkpoint would hold.
//!
//! Time to live: a row of an expired key is left out of snapshots, starts over when it is looked up (its time says so),
//! and is removed by a sweep that goes on a little after each batch.

use super::SlotStore;
use super::snapshot::Snapshot;
use crate::keys::{GROUPS, Keys};
use crate::operator::{OperatorError, Spilled};
use crate::state_memory::{Table, View};

/// Rows written together.
pub(super) const WRITES: usize = 8192;
/// Rows a sweep looks at after a batch.
const SWEEP: usize = 1024;

/// The slot has had a row since the hand passed it.
const USED: u8 = 1;
/// The table has a row of the slot's key.
const STORED: u8 = 2;
/// The slot is about to be evicted.
const LEAVING: u8 = 4;

/// A table's key: the group, then the key.
pub(super) fn row_key(out: &mut Vec<u8>, group: u16, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&group.to_be_bytes());
    out.extend_from_slice(key);
}

#[derive(Debug)]
pub(super) struct Cold {
    table: Table,
    /// The state of a key before its first row.
    initial: Vec<u8>,
    /// By slot.
    flags: Vec<u8>,
    /// Rows of the table.
    rows: u64,
    /// Slots whose key has a row in the table.
    stored: u64,
    /// The slot that is considered for eviction next.
    hand: u32,
    /// Slots of keys that were forgotten, which the batch at hand may still use.
    pub(super) dying: Vec<u32>,
    /// Where the sweep goes on, while there is one.
    sweep: Option<Vec<u8>>,
    /// The horizon of the last sweep.
    swept: i64,
    lookups: u64,
    evictions: u64,
}

impl Cold {
    pub(super) fn new(table: Table, initial: Vec<u8>) -> Self {
        Self {
            table,
            initial,
            flags: Vec::new(),
            rows: 0,
            stored: 0,
            hand: 0,
            dying: Vec::new(),
            sweep: None,
            swept: i64::MIN,
            lookups: 0,
            evictions: 0,
        }
    }

    /// Keys that are in the table alone.
    pub(super) fn on_disk(&self) -> u64 {
        self.rows.saturating_sub(self.stored)
    }

    pub(super) fn spilled(&self, in_memory: u64) -> Spilled {
        Spilled {
            in_memory,
            on_disk: self.on_disk(),
            lookups: self.lookups,
            evictions: self.evictions,
            disk_bytes: self.table.disk_bytes(),
        }
    }

    /// Brings the states of a batch's keys into memory.
    pub(super) fn load<C: SlotStore>(
        &mut self,
        keys: &mut Keys,
        store: &mut C,
        slots: &[u32],
    ) -> Result<(), OperatorError> {
        let mut fresh = keys.take_fresh();
        self.flags.resize(keys.len(), 0);
        for (slot, again) in &fresh {
            if *again {
                store.decode(*slot, &self.initial)?;
            }
        }
        if self.rows > 0 && !fresh.is_empty() {
            let at = |slot: u32| (keys.group(slot), keys.key(slot));
            fresh.sort_unstable_by(|(a, _), (b, _)| at(*a).cmp(&at(*b)));
            let mut key = Vec::new();
            for (slot, _) in fresh {
                row_key(&mut key, keys.group(slot), keys.key(slot));
                self.lookups += 1;
                if let Some(state) = self.table.get(&key)? {
                    store.decode(slot, &state)?;
                    self.flags[slot as usize] |= STORED;
                    self.stored += 1;
                }
            }
        }
        for slot in slots {
            self.flags[*slot as usize] |= USED;
        }
        Ok(())
    }

    /// A key of the batch at hand starts over in another slot.
    pub(super) fn renewed<C: SlotStore>(
        &mut self,
        slot: u32,
        fresh: u32,
        keys: &mut Keys,
        store: &mut C,
    ) -> Result<(), OperatorError> {
        self.flags.resize(keys.len(), 0);
        for (slot, again) in keys.take_fresh() {
            if again {
                store.decode(slot, &self.initial)?;
            }
        }
        // Its row in the table, if it has one, is older than what is in memory from now on.
        let stored = self.flags[slot as usize] & STORED;
        self.flags[slot as usize] &= !STORED;
        self.flags[fresh as usize] = USED | stored;
        self.dying.push(slot);
        Ok(())
    }

    /// Frees the slots of forgotten keys: `slots`, and those that have not been freed yet.
    pub(super) fn bury(&mut self, keys: &mut Keys, slots: &[u32]) {
        let waiting = std::mem::take(&mut self.dying);
        for slot in slots.iter().chain(&waiting) {
            self.free(keys, *slot);
        }
    }

    fn free(&mut self, keys: &mut Keys, slot: u32) {
        if self.flags[slot as usize] & STORED != 0 {
            self.stored -= 1;
        }
        self.flags[slot as usize] = 0;
        keys.free(slot);
    }

    /// Writes the states of `n` keys to the table and frees their slots.
    pub(super) fn evict<C: SlotStore>(
        &mut self,
        keys: &mut Keys,
        store: &C,
        mut snapshot: Option<&mut Snapshot>,
        n: usize,
        epoch: u32,
    ) -> Result<(), OperatorError> {
        let mut leaving = self.choose(keys, n);
        let at = |slot: u32| (keys.group(slot), keys.key(slot));
        leaving.sort_unstable_by(|a, b| at(*a).cmp(&at(*b)));
        for part in leaving.chunks(WRITES) {
            if let Some(snapshot) = &mut snapshot {
                snapshot.set_aside(keys, store, part)?;
            }
            let mut writes = self.table.writes();
            let (mut key, mut state) = (Vec::new(), Vec::new());
            for slot in part {
                row_key(&mut key, keys.group(*slot), keys.key(*slot));
                state.clear();
                store.encode(*slot, &mut state);
                writes.put(&key, &state)?;
            }
            writes.commit()?;
            for slot in part {
                if self.flags[*slot as usize] & STORED == 0 {
                    self.rows += 1;
                }
                keys.forget(*slot, epoch);
                self.free(keys, *slot);
            }
            self.evictions += part.len() as u64;
        }
        Ok(())
    }

    /// The second-chance rule.
    fn choose(&mut self, keys: &Keys, n: usize) -> Vec<u32> {
        let slots = keys.len() as u32;
        let mut leaving = Vec::with_capacity(n);
        let mut looks = 2 * u64::from(slots);
        while leaving.len() < n && looks > 0 {
            looks -= 1;
            self.hand = if self.hand + 1 < slots { self.hand + 1 } else { 0 };
            let flags = &mut self.flags[self.hand as usize];
            if !keys.is_live(self.hand) || *flags & LEAVING != 0 {
                continue;
            }
            if *flags & USED != 0 {
                *flags &= !USED;
            } else {
                *flags |= LEAVING;
                leaving.push(self.hand);
            }
        }
        leaving
    }

    /// Takes over what a checkpoint holds: keys that are in memory already, and these of `group` that are not.
    pub(super) fn restored(
        &mut self,
        keys: &mut Keys,
        group: u16,
        rest: &[(&[u8], &[u8])],
    ) -> Result<(), OperatorError> {
        keys.take_fresh();
        self.flags.resize(keys.len(), 0);
        let mut at = Vec::new();
        for part in rest.chunks(WRITES) {
            let mut writes = self.table.writes();
            for (key, state) in part {
                row_key(&mut at, group, key);
                writes.put(&at, state)?;
            }
            writes.commit()?;
            self.rows += part.len() as u64;
        }
        Ok(())
    }

    /// The table as it is now, for a snapshot.
    pub(super) fn freeze(&self, horizon: i64) -> Frozen {
        Frozen {
            table: self.table.clone(),
            view: self.table.view(),
            horizon,
            order: Vec::new(),
            ends: Vec::new(),
            beside: None,
        }
    }

    /// Looks at some more rows, and removes those of expired keys.
    pub(super) fn sweep<C: SlotStore>(
        &mut self,
        keys: &Keys,
        store: &C,
        horizon: i64,
    ) -> Result<(), OperatorError> {
        if self.sweep.is_none() {
            if horizon <= self.swept || self.rows == 0 {
                return Ok(());
            }
            self.swept = horizon;
            self.sweep = Some(Vec::new());
        }
        let Some(at) = &mut self.sweep else { return Ok(()) };
        let rows = self.table.after(at, SWEEP)?;
        let mut writes = self.table.writes();
        let mut removed = Vec::new();
        for (key, state) in &rows {
            if store.expired(state, horizon) {
                writes.remove(key);
                removed.push(key);
            }
        }
        writes.commit()?;
        for key in removed {
            self.rows -= 1;
            let slot = key.get(2..).and_then(|key| keys.find(key));
            if let Some(slot) = slot.filter(|slot| self.flags[*slot as usize] & STORED != 0) {
                self.flags[slot as usize] &= !STORED;
                self.stored -= 1;
            }
        }
        match rows.last() {
            Some((key, _)) if rows.len() == SWEEP => *at = key.to_vec(),
            _ => self.sweep = None,
        }
        Ok(())
    }
}

/// Spilled keys as they were when a snapshot began.
#[derive(Debug)]
pub(super) struct Frozen {
    table: Table,
    view: View,
    /// Keys that had expired before.
    horizon: i64,
    /// Slots by group, and where each group ends; made when the first group is encoded.
    order: Vec<u32>,
    ends: Vec<u32>,
    /// States that left memory since: each key at most once.
    beside: Option<Table>,
}

impl Frozen {
    /// The table for states that leave memory before their group's turn.
    pub(super) fn beside(&mut self, epoch: u32) -> Result<&Table, OperatorError> {
        let beside = match self.beside.take() {
            Some(beside) => beside,
            None => self.table.beside(&format!("s{epoch}"))?,
        };
        Ok(self.beside.insert(beside))
    }

    pub(super) fn end(self) -> Result<(), OperatorError> {
        match self.beside {
            Some(beside) => Ok(beside.remove()?),
            None => Ok(()),
        }
    }

    /// The slots below `slots` that hold keys of a group, or held some when this was first asked for.
    pub(super) fn in_group(&mut self, keys: &Keys, slots: u32, group: u16) -> Vec<u32> {
        if self.ends.is_empty() {
            let groups = GROUPS as usize;
            let mut starts = vec![0_u32; groups + 1];
            (0..slots).for_each(|slot| starts[keys.group(slot) as usize + 1] += 1);
            (0..groups).for_each(|group| starts[group + 1] += starts[group]);
            self.order = vec![0; slots as usize];
            for slot in 0..slots {
                let at = &mut starts[keys.group(slot) as usize];
                self.order[*at as usize] = slot;
                *at += 1;
            }
            // Each start has moved to its group's end.
            starts.truncate(groups);
            self.ends = starts;
        }
        let group = group as usize;
        let start = if group == 0 { 0 } else { self.ends[group - 1] };
        self.order[start as usize..self.ends[group] as usize].to_vec()
    }

    /// Appends a group's keys that were not in memory when the snapshot began, and those that have left it since. `own`,
    /// sorted, are those still in memory.
    pub(super) fn encode<C: SlotStore>(
        &self,
        store: &C,
        group: u16,
        own: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let mut push = |key: &[u8], state: &[u8]| {
            for part in [key, state] {
                out.extend_from_slice(&(part.len() as u32).to_le_bytes());
                out.extend_from_slice(part);
            }
        };
        let mut aside = match &self.beside {
            Some(beside) => beside.view().group(group).collect::<Result<Vec<_>, _>>()?,
            None => Vec::new(),
        };
        // Both are in order of keys.
        aside.reverse();
        for row in self.view.group(group) {
            let (key, state) = row?;
            while let Some((earlier, state)) = aside.pop_if(|(earlier, _)| *earlier < key) {
                push(&earlier[2..], &state);
            }
            if let Some((key, state)) = aside.pop_if(|(same, _)| *same == key) {
                push(&key[2..], &state);
            } else if own.binary_search(&&key[2..]).is_err() && !store.expired(&state, self.horizon) {
                push(&key[2..], &state);
            }
        }
        while let Some((key, state)) = aside.pop() {
            push(&key[2..], &state);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
