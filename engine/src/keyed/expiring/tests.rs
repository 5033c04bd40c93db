use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Field};

use super::*;

const TTL: i64 = 100;

fn batch(rows: &[(i64, i64)]) -> RecordBatch {
    let fields = [Arc::new(Field::new("k", DataType::Int64, false))];
    let n = rows.len() as u64;
    let columns: Vec<ArrayRef> = vec![
        row::ts_array(rows.iter().map(|(ts, _)| *ts).collect()),
        Arc::new(UInt64Array::from(vec![0; rows.len()])),
        Arc::new(UInt64Array::from_iter_values(0..n)),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, key)| *key))),
    ];
    RecordBatch::try_new(row::stream_schema(&fields), columns).unwrap()
}

fn counting() -> ExpiringState<Vec<u64>> {
    ExpiringState::new(vec![3], &batch(&[]).schema(), Some(TTL), Vec::new)
}

/// Counts each row of its key; the counts after each row.
fn count(state: &mut ExpiringState<Vec<u64>>, rows: &[(i64, i64)]) -> Vec<u64> {
    let (slots, counts) = state.rows(&batch(rows)).unwrap();
    slots
        .iter()
        .map(|slot| {
            counts[*slot as usize] += 1;
            counts[*slot as usize]
        })
        .collect()
}

/// The counts by the definition: a gap longer than the time to live starts over.
fn by_definition(rows: &[(i64, i64)]) -> Vec<u64> {
    let mut keys: HashMap<i64, (i64, u64)> = HashMap::new();
    rows.iter()
        .map(|(ts, key)| {
            let (last, n) = keys.entry(*key).or_insert((*ts, 0));
            *n = if ts - *last > TTL { 1 } else { *n + 1 };
            *last = *ts;
            *n
        })
        .collect()
}

#[test]
fn a_key_starts_over_after_its_time_to_live_and_not_at_it() {
    let rows = [(0, 1), (100, 1), (201, 1), (201, 2), (250, 1), (302, 2)];
    assert_eq!(count(&mut counting(), &rows), [1, 2, 1, 1, 2, 1]);
}

#[test]
fn rows_make_the_same_whatever_batches_watermarks_and_restarts() {
    let mut seed = 7_u64;
    let mut random = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    for _ in 0..60 {
        let mut ts = 0;
        let rows: Vec<(i64, i64)> = (0..600)
            .map(|_| {
                ts += if random(20) == 0 { random(150) as i64 } else { random(3) as i64 };
                (ts, random(12) as i64)
            })
            .collect();
        let mut state = counting();
        let mut got = Vec::new();
        let mut rest = &rows[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + random(40) as usize).min(rest.len()));
            got.extend(count(&mut state, now));
            rest = later;
            if random(3) == 0 {
                state.expire(rest.first().map_or(END, |(ts, _)| *ts)).unwrap();
            }
            if random(6) == 0 {
                // A snapshot is as of its beginning, though rows flow on while it is taken.
                state.begin();
                let (next, after) = rest.split_at((random(30) as usize).min(rest.len()));
                let mut groups = state.next(1).unwrap().unwrap_or_default();
                count(&mut state, next);
                while let Some(more) = state.next(1).unwrap() {
                    groups.extend(more);
                }
                state = counting();
                for (group, bytes) in groups {
                    state.restore(group, &bytes).unwrap();
                }
                got.extend(count(&mut state, next));
                rest = after;
            }
        }
        assert_eq!(got, by_definition(&rows));
    }
}

#[test]
fn memory_follows_the_keys_that_live() {
    let mut state = counting();
    for round in 0..200_i64 {
        let rows: Vec<(i64, i64)> = (0..1000).map(|i| (round * 50, round * 1000 + i)).collect();
        count(&mut state, &rows);
        state.expire(round * 50).unwrap();
        let bound = 2 * 4 * 1000 + SLACK + 1000;
        assert!(state.state.keys.len() <= bound, "{} slots in round {round}", state.state.keys.len());
    }
    assert!(state.keys() <= 4000, "{} keys", state.keys());
}

#[test]
fn without_a_time_to_live_snapshots_are_those_of_keyed_state() {
    let schema = batch(&[]).schema();
    let mut plain = KeyedState::new(vec![3], &schema, Vec::<u64>::new());
    let mut never = ExpiringState::new(vec![3], &schema, None, Vec::<u64>::new);
    let rows = [(0, 1), (10_000, 1), (10_000, 2)];
    let (slots, counts) = plain.rows(&batch(&rows)).unwrap();
    slots.iter().for_each(|slot| counts[*slot as usize] += 1);
    assert_eq!(count(&mut never, &rows), [1, 2, 1]);
    plain.begin();
    never.begin();
    assert_eq!(plain.next(usize::MAX).unwrap(), never.next(usize::MAX).unwrap());
}
