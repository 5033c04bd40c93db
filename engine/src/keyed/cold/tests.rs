//! Given state that does not fit its memory, then rows, snapshots and restarts give what a plain map gives.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field};

use crate::keyed::ExpiringState;
use crate::operator::{END, Groups, State};
use crate::row;
use crate::size::Size;
use crate::state_memory::{StateMemory, StateOptions};

const TTL: i64 = 400;

type Row = (i64, u64);
type Counting = ExpiringState<Vec<u64>>;

/// Keys have texts of several lengths.
fn text(key: u64) -> String {
    format!("wallet-{key}{}", "x".repeat(key as usize % 9))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let fields = [Arc::new(Field::new("k", DataType::Utf8, false))];
    let columns: Vec<ArrayRef> = vec![
        row::ts_array(rows.iter().map(|(ts, _)| *ts).collect()),
        Arc::new(UInt64Array::from(vec![0; rows.len()])),
        Arc::new(UInt64Array::from_iter_values(0..rows.len() as u64)),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, key)| text(*key)))),
    ];
    RecordBatch::try_new(row::stream_schema(&fields), columns).unwrap()
}

fn counting(ttl: Option<i64>, memory: Option<&StateMemory>) -> Counting {
    let mut state = ExpiringState::new(vec![3], &batch(&[]).schema(), ttl, Vec::new);
    if let Some(part) = memory.and_then(|memory| memory.part("count", true).unwrap()) {
        state.limit(part).unwrap();
    }
    state
}

fn count(state: &mut Counting, rows: &[Row]) -> Vec<u64> {
    let (slots, counts) = state.rows(&batch(rows)).unwrap();
    let counted = slots.iter().map(|slot| {
        counts[*slot as usize] += 1;
        counts[*slot as usize]
    });
    let counted = counted.collect();
    state.trim().unwrap();
    counted
}

/// The counts by the definition.
#[derive(Clone, Default)]
struct ByDefinition(HashMap<u64, (i64, u64)>);

impl ByDefinition {
    fn count(&mut self, ttl: Option<i64>, rows: &[Row]) -> Vec<u64> {
        let one = |(ts, key): &Row| {
            let (last, n) = self.0.entry(*key).or_insert((*ts, 0));
            *n = if ttl.is_some_and(|ttl| ts - *last > ttl) { 1 } else { *n + 1 };
            *last = *ts;
            *n
        };
        rows.iter().map(one).collect()
    }
}

/// The keys and states of a snapshot.
fn content(groups: &Groups) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for (group, bytes) in groups {
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            let key = crate::keyed::take(&mut bytes).unwrap();
            let state = crate::keyed::take(&mut bytes).unwrap();
            assert_eq!(crate::keys::group_of(key), *group);
            assert!(rows.insert(key.to_vec(), state.to_vec()).is_none(), "a key is twice in a snapshot");
        }
    }
    rows
}

fn restore(state: &mut Counting, groups: &Groups) {
    for (group, bytes) in groups {
        state.restore(*group, bytes).unwrap();
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn rows(random: &mut Random, n: usize, keys: u64) -> Vec<Row> {
    let mut ts = 0;
    let one = |_| {
        ts += if random.below(60) == 0 { random.below(600) as i64 } else { random.below(3) as i64 };
        // Some keys come often.
        let key = if random.below(3) == 0 { random.below(keys / 20 + 1) } else { random.below(keys) };
        (ts, key)
    };
    (0..n).map(one).collect()
}

fn memory(bytes: u64, folder: &Path) -> StateMemory {
    let spill = Some(folder.display().to_string());
    StateMemory::open(&StateOptions { memory: Some(Size::from_bytes(bytes)), spill }, "job-0").unwrap()
}

/// Batches, watermarks, snapshots while rows flow, and restarts, with and without a limit, side by side.
#[test]
fn rows_and_snapshots_are_those_of_state_without_a_limit() {
    let (mut evictions, mut lookups, mut swept) = (0, 0, 0);
    for seed in 0..24 {
        let folder = tempfile::tempdir().unwrap();
        let random = &mut Random(seed);
        let memory = memory(2_000 + random.below(60_000), folder.path());
        let ttl = [None, Some(TTL)][seed as usize % 2];
        let keys = 50 + random.below(1500);
        let rows = rows(random, 8_000, keys);
        let (mut spilling, mut plain) = (counting(ttl, Some(&memory)), counting(ttl, None));
        let mut expected = ByDefinition::default();
        let mut rest = &rows[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + random.below(200) as usize).min(rest.len()));
            let right = expected.count(ttl, now);
            assert_eq!(count(&mut spilling, now), right, "seed {seed}");
            assert_eq!(count(&mut plain, now), right);
            rest = later;
            if random.below(3) == 0 {
                let watermark = rest.first().map_or(END, |(ts, _)| *ts);
                for state in [&mut spilling, &mut plain] {
                    state.expire(watermark).unwrap();
                    state.trim().unwrap();
                }
            }
            if random.below(12) != 0 {
                continue;
            }
            // Rows, watermarks and evictions go on while the snapshot is taken.
            let at_the_cut = (expected.clone(), rest);
            spilling.begin();
            plain.begin();
            let (mut ours, mut theirs) = (Groups::new(), Groups::new());
            let budget = [1, 500, 1 << 20][random.below(3) as usize];
            let mut turns = 0;
            while let Some(more) = spilling.next(budget).unwrap() {
                ours.extend(more);
                turns += 1;
                if turns % 40 == 1 {
                    let (now, later) = rest.split_at((random.below(120) as usize).min(rest.len()));
                    let right = expected.count(ttl, now);
                    assert_eq!(count(&mut spilling, now), right, "during a snapshot, seed {seed}");
                    rest = later;
                    spilling.expire(rest.first().map_or(END, |(ts, _)| *ts)).unwrap();
                    spilling.trim().unwrap();
                }
            }
            while let Some(more) = plain.next(1 << 20).unwrap() {
                theirs.extend(more);
            }
            assert_eq!(content(&ours), content(&theirs), "a snapshot, seed {seed}");
            let spilled = spilling.spilled().unwrap();
            (evictions, lookups) = (evictions + spilled.evictions, lookups + spilled.lookups);
            swept += u64::from(ttl.is_some() && spilled.on_disk < spilled.evictions);
            // A restart: what came after the cut comes again.
            (expected, rest) = at_the_cut;
            drop(spilling);
            (spilling, plain) = (counting(ttl, Some(&memory)), counting(ttl, None));
            restore(&mut spilling, &theirs);
            restore(&mut plain, &ours);
            assert_eq!(spilling.keys(), plain.keys(), "keys after a restart, seed {seed}");
        }
    }
    assert!(evictions > 10_000 && lookups > 10_000 && swept > 10, "{evictions} {lookups} {swept}");
}

#[test]
fn memory_is_bounded_whatever_the_number_of_keys() {
    let folder = tempfile::tempdir().unwrap();
    let memory = memory(400_000, folder.path());
    let mut state = counting(None, Some(&memory));
    for round in 0..100_u64 {
        let rows: Vec<Row> = (0..1000).map(|i| (round as i64, round * 1000 + i)).collect();
        count(&mut state, &rows);
        let spilled = state.spilled().unwrap();
        assert!(spilled.in_memory <= 6000, "{spilled:?}");
        assert_eq!(spilled.in_memory + spilled.on_disk, (round + 1) * 1000);
    }
    // A snapshot that is restored does not fit either.
    state.begin();
    let mut groups = Groups::new();
    while let Some(more) = state.next(1 << 20).unwrap() {
        groups.extend(more);
    }
    drop(state);
    let mut state = counting(None, Some(&memory));
    restore(&mut state, &groups);
    assert!(state.spilled().unwrap().in_memory <= 6000, "{:?}", state.spilled());
    assert_eq!(state.keys(), 100_000);
    let rows: Vec<Row> = (0..100_000).step_by(331).map(|key| (200, key)).collect();
    assert!(count(&mut state, &rows).iter().all(|n| *n == 2));
}

#[test]
fn keys_that_expired_leave_the_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let memory = memory(40_000, folder.path());
    let mut state = counting(Some(TTL), Some(&memory));
    for round in 0..200_i64 {
        let rows: Vec<Row> = (0..200).map(|i| (round * 50, round as u64 * 200 + i)).collect();
        count(&mut state, &rows);
        for _ in 0..4 {
            state.expire((round + 1) * 50).unwrap();
            state.trim().unwrap();
        }
    }
    // Alive are those of the last 400 ns: 8 rounds or 1,600 keys, and what the sweep has not reached.
    assert!(state.keys() < 6000, "{}", state.keys());
}

/// Given snapshots of changed groups alone, then laid over one another they are the whole, whatever was restored between and
/// whether keys spill.
#[test]
fn changed_groups_over_the_snapshot_before_are_the_whole() {
    for seed in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let random = &mut Random(seed + 100);
        let memory = memory(30_000, folder.path());
        let limit = (seed % 2 == 0).then_some(&memory);
        let ttl = [None, Some(TTL)][seed as usize / 2 % 2];
        let rows = rows(random, 4_000, 3_000);
        let (mut state, mut plain) = (counting(ttl, limit), counting(ttl, None));
        let mut base: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        let (mut since, mut partial) = (None, 0);
        for chunk in rows.chunks(60) {
            count(&mut state, chunk);
            count(&mut plain, chunk);
            for state in [&mut state, &mut plain] {
                state.expire(chunk[chunk.len() - 1].0).unwrap();
                state.trim().unwrap();
            }
            if random.below(4) != 0 {
                continue;
            }
            plain.begin();
            match since {
                Some(since) => assert!(state.begin_changed(since)),
                None => state.begin(),
            }
            let (number, before) = (state.snapshots(), base.clone());
            let mut given = 0;
            while let Some(groups) = state.next(1 << 20).unwrap() {
                given += groups.len();
                base.extend(groups);
            }
            partial += u64::from(since.is_some() && given < 1000);
            let mut whole = Groups::new();
            while let Some(groups) = plain.next(1 << 20).unwrap() {
                whole.extend(groups);
            }
            let merged: Groups = base.clone().into_iter().collect();
            let (merged, whole) = (content(&merged), content(&whole));
            if ttl.is_none() {
                assert_eq!(merged, whole, "seed {seed}");
            } else {
                // A spilled key that has expired may stay until its group changes.
                assert!(whole.iter().all(|row| merged.get(row.0) == Some(row.1)), "seed {seed}");
            }
            // A checkpoint may fail: the next one is then over the one before it.
            if random.below(3) > 0 {
                since = Some(number);
            } else {
                base = before;
            }
            if random.below(5) == 0 && since == Some(number) {
                let merged: Groups = base.clone().into_iter().collect();
                drop(state);
                state = counting(ttl, limit);
                restore(&mut state, &merged);
                since = Some(0);
            }
        }
        assert!(partial > 3, "{partial}");
    }
}
