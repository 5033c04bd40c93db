//! The right side of an as-of join, by key and time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use datafusion::common::{Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;

use super::keys::{Keys, NO_KEY};
use super::node::Direction;

/// All right rows. Those of a key stand together, in order of time.
#[derive(Debug)]
pub(crate) struct Index {
    /// The rows as they came.
    pub batch: RecordBatch,
    keys: Keys,
    /// Where each key's rows begin; one more at the end.
    starts: Vec<u32>,
    /// Times, by key.
    ts: Vec<i64>,
    /// The row of each.
    rows: Vec<u32>,
    /// What all this is allowed to take.
    reservation: Option<MemoryReservation>,
}

impl Index {
    /// Keeps the memory that the index takes accounted for while it lives.
    pub(crate) fn hold(&mut self, reservation: MemoryReservation) {
        self.reservation = Some(reservation);
    }

    /// Bytes beside the batch that an index of so many rows takes while it is built.
    pub(crate) fn bytes(rows: usize) -> usize {
        rows * 20
    }

    /// Orders rows by `keys` and `ts`; of equal times, the later by `ties` and then by place comes last.
    pub(crate) fn new(
        batch: RecordBatch,
        keys: &[ArrayRef],
        ts: &Int64Array,
        ties: &[Int64Array],
    ) -> Result<Self> {
        let n = batch.num_rows();
        if n >= NO_KEY as usize {
            return exec_err!(
                "an as-of join takes at most 4294967294 right rows, not {n}: ask for a shorter range of time"
            );
        }
        let types: Vec<_> = keys.iter().map(|k| k.data_type().clone()).collect();
        let mut numbers = Keys::new(&types)?;
        let mut slots = numbers.add(keys, n)?;
        if ts.null_count() > 0 {
            (0..n).filter(|i| ts.is_null(*i)).for_each(|i| slots[i] = NO_KEY);
        }
        // A counting sort by key.
        let mut starts = vec![0_u32; numbers.len() + 1];
        for slot in slots.iter().filter(|s| **s != NO_KEY) {
            starts[*slot as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let kept = starts.last().copied().unwrap_or(0) as usize;
        let mut next = starts.clone();
        let mut rows = vec![0_u32; kept];
        for (row, slot) in slots.iter().enumerate().filter(|(_, s)| **s != NO_KEY) {
            let at = &mut next[*slot as usize];
            rows[*at as usize] = row as u32;
            *at += 1;
        }
        drop(slots);
        let times = ts.values();
        for group in starts.windows(2) {
            let group = &mut rows[group[0] as usize..group[1] as usize];
            let key = |row: &u32| {
                let row = *row as usize;
                (
                    times[row],
                    ties.first().map_or(0, |t| t.value(row)),
                    ties.get(1).map_or(0, |t| t.value(row)),
                    row,
                )
            };
            // Mostly they come in order.
            if !group.is_sorted_by(|a, b| key(a) < key(b)) {
                group.sort_unstable_by_key(key);
            }
        }
        let ts = rows.iter().map(|row| times[*row as usize]).collect();
        Ok(Self { batch, keys: numbers, starts, ts, rows, reservation: None })
    }

    /// The numbers of left keys.
    pub(crate) fn slots(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        self.keys.find(keys, rows)
    }

    /// How many different keys there are.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }
}

/// Looks rows up; left rows mostly come in order of time, so it goes on from where a key's last was.
#[derive(Debug)]
pub(crate) struct Prober {
    index: Arc<Index>,
    direction: Direction,
    tolerance_ns: Option<i64>,
    /// By key: how many of its rows were before the last left row.
    cursors: Vec<u32>,
}

impl Prober {
    pub(crate) fn new(index: Arc<Index>, direction: Direction, tolerance_ns: Option<i64>) -> Self {
        let cursors = vec![0; index.len()];
        Self { index, direction, tolerance_ns, cursors }
    }

    /// The right row that matches a left row.
    #[inline]
    pub(crate) fn find(&mut self, slot: u32, ts: i64) -> Option<u32> {
        if slot == NO_KEY {
            return None;
        }
        let slot = slot as usize;
        let (start, end) = (self.index.starts[slot] as usize, self.index.starts[slot + 1] as usize);
        let times = &self.index.ts[start..end];
        // Rows before the place: `<= ts` or `< ts`.
        let at_too = self.direction.backward == self.direction.inclusive;
        let before = |t: i64| if at_too { t <= ts } else { t < ts };
        let place = gallop(times, self.cursors[slot] as usize, before);
        self.cursors[slot] = place as u32;
        let mut found = if self.direction.backward { place.checked_sub(1)? } else { place };
        let time = *times.get(found)?;
        if self.tolerance_ns.is_some_and(|most| ts.abs_diff(time) > most as u64) {
            return None;
        }
        if !self.direction.backward {
            // The last of those at that time, as when looking back.
            found += times[found..].partition_point(|t| *t == time) - 1;
        }
        Some(self.index.rows[start + found])
    }
}

/// How many of the sorted `times` are `before`, searched from a guess.
fn gallop(times: &[i64], guess: usize, before: impl Fn(i64) -> bool) -> usize {
    let mut low = guess.min(times.len());
    if low > 0 && !before(times[low - 1]) {
        return times[..low].partition_point(|t| before(*t));
    }
    let mut step = 1;
    while low + step <= times.len() && before(times[low + step - 1]) {
        low += step;
        step *= 2;
    }
    let high = (low + step).min(times.len());
    low + times[low..high].partition_point(|t| before(*t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn galloping_finds_what_a_scan_finds() {
        let times: Vec<i64> = vec![1, 1, 2, 5, 5, 5, 9, 12, 12, 40, 41, 41, 60];
        for guess in 0..=times.len() + 1 {
            for t in 0..70 {
                let naive = times.iter().filter(|x| **x <= t).count();
                assert_eq!(gallop(&times, guess, |x| x <= t), naive, "{t} from {guess}");
            }
        }
    }
}
