//! Looks for what is missing, by a rule of continuity, key by key.
//!
//! A rule says which numbers a key's rows should have: every whole number (`trade_id`), or a time at
//! least every so often. Rows may come in any order: a key's numbers are kept as a set of stretches, so
//! memory grows with the holes, not with the rows.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampNanosecondType};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use tidemill_engine::row;

use crate::ArchiveError;
use crate::read::{self, Choice};
use crate::snapshot::Snapshot;

/// Stretches that all keys may have together.
const STRETCHES_MAX: usize = 2_000_000;
/// Columns that count a venue's messages, when no other is named.
pub const SEQUENCE_COLUMNS: [&str; 6] =
    ["trade_id", "agg_trade_id", "agg_id", "sequence", "sequence_num", "update_id"];
/// Columns that tell keys apart, when no others are named.
pub const KEY_COLUMNS: [&str; 3] = ["venue", "exchange", "symbol"];

/// When rows belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Whole numbers in this column, each exactly once.
    Sequence(String),
    /// Times at most so many nanoseconds apart.
    Every(i64),
}

/// One hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Whose: values of the key columns.
    pub key: Vec<String>,
    /// Last event time before it, nanoseconds.
    pub from: i64,
    /// First event time after it.
    pub to: i64,
    /// The numbers that are missing, first and last, for a sequence.
    pub numbers: Option<(i64, i64)>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Holes by key and place.
    pub holes: Vec<Hole>,
    /// Rows looked at.
    pub rows: u64,
    /// Keys seen.
    pub keys: usize,
    /// Rows whose number another row of the key has too, for a sequence.
    pub duplicates: u64,
    /// Rows without a number.
    pub nulls: u64,
}

/// Looks through all files of a snapshot; `progress` hears of every file's bytes.
pub async fn find(
    snapshot: &Snapshot,
    rule: &Rule,
    by: &[String],
    mut progress: impl FnMut(u64),
) -> Result<Report, ArchiveError> {
    let schema = snapshot.schema().await?;
    let field = |name: &str| {
        schema.field_with_name(name).map_err(|_| {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            ArchiveError::Invalid(format!(
                "`{}` has no column `{name}`; it has {}",
                snapshot.dataset().name(),
                names.join(", ")
            ))
        })
    };
    let mut fields = vec![field(row::TS)?.clone()];
    for name in by {
        let field = field(name)?;
        if name == row::TS {
            return Err(ArchiveError::Invalid("rows cannot be told apart by `ts`".into()));
        }
        fields.push(Field::new(name, field.data_type().clone(), true));
    }
    if let Rule::Sequence(column) = rule {
        if !field(column)?.data_type().is_integer() {
            return Err(ArchiveError::Invalid(format!(
                "column `{column}` is {}: only whole numbers have a next one",
                field(column)?.data_type()
            )));
        }
        fields.push(Field::new(column, DataType::Int64, true));
    }
    let keys = fields[1..=by.len()].iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let converter = RowConverter::new(keys).map_err(|e| ArchiveError::rows("compare keys", e))?;
    let mut search = Search {
        rule: rule.clone(),
        columns: by.len(),
        converter,
        stretches: BTreeMap::new(),
        report: Report::default(),
    };
    let chosen = std::sync::Arc::new(Schema::new(fields));
    for file in snapshot.files() {
        let mut choice = Choice::all(chosen.clone());
        choice.batch_rows = 65_536;
        let mut rows = read::rows(snapshot.dataset(), file, choice).await?;
        while let Some(batch) = rows.try_next().await? {
            search.take(&batch)?;
        }
        progress(file.bytes);
    }
    Ok(search.finish())
}

struct Search {
    rule: Rule,
    columns: usize,
    converter: RowConverter,
    /// Per key: what it is called, and its stretches.
    stretches: BTreeMap<Box<[u8]>, (Vec<String>, Stretches)>,
    report: Report,
}

impl Search {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), ArchiveError> {
        let ts = batch.column(0).as_primitive::<TimestampNanosecondType>().values().clone();
        let keys: Vec<ArrayRef> = batch.columns()[1..=self.columns].to_vec();
        let rows =
            self.converter.convert_columns(&keys).map_err(|e| ArchiveError::rows("compare keys", e))?;
        let (numbers, reach) = match self.rule {
            Rule::Sequence(_) => (Some(batch.column(self.columns + 1).as_primitive::<Int64Type>()), 1),
            Rule::Every(ns) => (None, ns),
        };
        self.report.rows += batch.num_rows() as u64;
        let mut i = 0;
        while i < batch.num_rows() {
            // A run of rows of one key costs one look-up. (Without key columns all rows are of one.)
            let key: &[u8] = if self.columns == 0 { &[] } else { rows.row(i).data() };
            if !self.stretches.contains_key(key) {
                let name = |c: &ArrayRef| array_value_to_string(c, i).unwrap_or_default();
                self.stretches.insert(key.into(), (keys.iter().map(name).collect(), Stretches::default()));
            }
            let (_, stretches) = self.stretches.get_mut(key).expect("it has just been put there");
            while i < batch.num_rows() && (self.columns == 0 || rows.row(i).data() == key) {
                match numbers {
                    Some(numbers) if numbers.is_null(i) => self.report.nulls += 1,
                    Some(numbers) => {
                        self.report.duplicates +=
                            u64::from(!stretches.insert(numbers.value(i), ts[i], reach));
                    }
                    None => {
                        stretches.insert(ts[i], ts[i], reach);
                    }
                }
                i += 1;
            }
        }
        let stretches: usize = self.stretches.values().map(|(_, s)| s.0.len()).sum();
        if stretches > STRETCHES_MAX {
            return Err(ArchiveError::Invalid(format!(
                "more than {STRETCHES_MAX} holes: the rule does not fit these rows"
            )));
        }
        Ok(())
    }

    fn finish(mut self) -> Report {
        self.report.keys = self.stretches.len();
        for (key, stretches) in self.stretches.into_values() {
            let sequence = matches!(self.rule, Rule::Sequence(_));
            let ends: Vec<(i64, Stretch)> = stretches.0.into_iter().collect();
            for pair in ends.windows(2) {
                let ((_, before), (start, after)) = (pair[0], pair[1]);
                self.report.holes.push(Hole {
                    key: key.clone(),
                    from: before.last_ts,
                    to: after.first_ts,
                    numbers: sequence.then_some((before.last + 1, start - 1)),
                });
            }
        }
        self.report
    }
}

/// Numbers without a hole between them, by their first.
#[derive(Debug, Default)]
struct Stretches(BTreeMap<i64, Stretch>);

#[derive(Clone, Copy, Debug)]
struct Stretch {
    last: i64,
    first_ts: i64,
    last_ts: i64,
}

impl Stretches {
    /// Adds a number; false where it was there. Stretches at most `reach` apart are one.
    fn insert(&mut self, n: i64, ts: i64, reach: i64) -> bool {
        let mut new = (n, Stretch { last: n, first_ts: ts, last_ts: ts });
        if let Some((first, stretch)) = self.0.range_mut(..=n).next_back() {
            if n <= stretch.last {
                return false;
            }
            if n.saturating_sub(stretch.last) <= reach {
                stretch.last = n;
                stretch.last_ts = ts;
                new = (*first, *stretch);
            }
        }
        if let Some((next, stretch)) = self.0.range(n..).find(|(first, _)| **first > n).map(|(f, s)| (*f, *s))
            && next.saturating_sub(n) <= reach
        {
            self.0.remove(&next);
            new.1.last = stretch.last;
            new.1.last_ts = stretch.last_ts;
        }
        self.0.insert(new.0, new.1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_those_of_the_sorted_numbers() {
        let mut seed = 99u64;
        let mut next = |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % n) as i64
        };
        for reach in [1, 3] {
            for _ in 0..200 {
                let numbers: Vec<i64> = (0..next(60) + 1).map(|_| next(80) - 40).collect();
                let mut stretches = Stretches::default();
                let mut fresh = 0;
                for n in &numbers {
                    fresh += usize::from(stretches.insert(*n, *n * 10, reach));
                }
                let mut sorted = numbers.clone();
                sorted.sort_unstable();
                sorted.dedup();
                let mut expected: Vec<(i64, i64)> = Vec::new();
                for n in &sorted {
                    match expected.last_mut() {
                        Some(last) if n - last.1 <= reach => last.1 = *n,
                        _ => expected.push((*n, *n)),
                    }
                }
                let found: Vec<(i64, i64)> = stretches.0.iter().map(|(f, s)| (*f, s.last)).collect();
                assert_eq!(found, expected);
                assert!(stretches.0.iter().all(|(f, s)| s.first_ts == f * 10 && s.last_ts == s.last * 10));
                if reach == 1 {
                    assert_eq!(fresh, sorted.len());
                }
            }
        }
    }
}
