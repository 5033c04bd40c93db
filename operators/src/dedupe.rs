//! `dedupe`: of rows equal in some columns within a span of time, the first goes on.
//!
//! Time: a row at `t` is a duplicate when the last one let through was later than `t - within`. State:
//! one time for each key let through in the last two spans; older ones are swept out as the watermark
//! passes, a few key groups at a time. When that happens never shows: rows are judged by their times.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::duration::Span;
use tidemill_engine::keys::{GROUPS, KeyReader, group_of};
use tidemill_engine::operator::{END, Operator, OperatorError, Output, State};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;

/// Lets the first of several equal rows through, and leaves out the others.
///
/// Rows are equal when their `by` columns are. The first in event order goes on; those that follow it
/// within less than `within` (by `ts`) are left out. A row at or after that is a first one again.
/// So what must be remembered is bounded by `within`.
///
/// ```yaml
/// operators:
///   once:
///     kind: dedupe
///     from: trades
///     with: { by: [symbol, trade_id], within: 10m }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Columns in which duplicates are equal.
    pub by: Vec<String>,
    /// How long a row is remembered, in event time.
    pub within: Span,
}

/// See [`Params`].
#[derive(Debug)]
pub struct Dedupe;

impl OperatorKind for Dedupe {
    const KIND: &'static str = "dedupe";
    type Params = Params;

    fn plan(params: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let input = &inputs[0];
        let mut problems = Problems::new();
        if params.by.is_empty() {
            let problem = Problem::new("by", "something must tell duplicates apart from other rows");
            problems.push(problem.hint("name the columns in which they are equal: `by: [symbol, trade_id]`"));
        }
        if params.within.ns() == 0 {
            problems.push(Problem::new("within", "must be longer than zero").hint("`within: 10m`, say"));
        }
        let by = input.keys("by", &params.by).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let within = params.within.ns();
        Ok(OperatorPlan {
            schema: input.schema.clone(),
            distribution: Distribution::Keyed(vec![params.by]),
            ordered: true,
            passes: input.schema.fields().iter().map(|f| (f.name().clone(), f.name().clone())).collect(),
            build: Arc::new(move || {
                let seen = Seen { groups: vec![Group::default(); GROUPS as usize], snapshot: None };
                Box::new(Filter { reader: KeyReader::new(by.clone()), within, seen, swept: None })
            }),
        })
    }
}

/// Keys by the time that the last row was let through.
type Group = HashMap<Box<[u8]>, i64>;

/// What has been let through, by key group, with snapshots by copy before write.
struct Seen {
    groups: Vec<Group>,
    snapshot: Option<Snapshot>,
}

struct Snapshot {
    pending: Vec<bool>,
    next: u16,
    early: Vec<(u16, Vec<u8>)>,
}

fn encode(group: &Group) -> Vec<u8> {
    let mut entries: Vec<(&Box<[u8]>, &i64)> = group.iter().collect();
    entries.sort_unstable();
    postcard::to_stdvec(&entries).expect("writing lists of numbers to memory does not fail")
}

impl Seen {
    /// The group, to be changed.
    fn group(&mut self, group: u16) -> &mut Group {
        if let Some(snapshot) = &mut self.snapshot
            && std::mem::take(&mut snapshot.pending[group as usize])
        {
            snapshot.early.push((group, encode(&self.groups[group as usize])));
        }
        &mut self.groups[group as usize]
    }
}

impl State for Seen {
    fn begin(&mut self) {
        self.snapshot = Some(Snapshot { pending: vec![true; GROUPS as usize], next: 0, early: Vec::new() });
    }

    fn next(&mut self, budget: usize) -> Option<Vec<(u16, Vec<u8>)>> {
        let snapshot = self.snapshot.as_mut()?;
        let mut groups = std::mem::take(&mut snapshot.early);
        let mut size: usize = groups.iter().map(|(_, bytes)| bytes.len()).sum();
        while snapshot.next < GROUPS && size < budget {
            let group = snapshot.next;
            snapshot.next += 1;
            if std::mem::take(&mut snapshot.pending[group as usize]) {
                let bytes = encode(&self.groups[group as usize]);
                size += bytes.len();
                groups.push((group, bytes));
            }
        }
        if groups.is_empty() && snapshot.next == GROUPS {
            self.snapshot = None;
            return None;
        }
        // A group without keys is one zero: the length of its list.
        groups.retain(|(_, bytes)| bytes.len() > 1);
        Some(groups)
    }

    fn restore(&mut self, group: u16, bytes: &[u8]) -> Result<(), OperatorError> {
        let entries: Vec<(Box<[u8]>, i64)> =
            postcard::from_bytes(bytes).map_err(|e| OperatorError::State(e.to_string()))?;
        self.groups[group as usize].extend(entries);
        Ok(())
    }

    fn keys(&self) -> usize {
        self.groups.iter().map(HashMap::len).sum()
    }
}

struct Filter {
    reader: KeyReader,
    within: i64,
    seen: Seen,
    /// How far sweeping has come, in turns (see [`advance`](Operator::advance)).
    swept: Option<i64>,
}

impl Operator for Filter {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let (mut numbers, mut keys) = (Vec::new(), Vec::<Box<[u8]>>::new());
        self.reader.map(batch, &mut numbers, |key| {
            keys.push(key.into());
            keys.len() - 1
        });
        let mut firsts = Vec::with_capacity(numbers.len());
        for (number, ts) in numbers.iter().zip(row::ts(batch)) {
            let key = &keys[*number];
            let group = self.seen.group(group_of(key));
            let first = match group.get_mut(key) {
                Some(last) if *ts < last.saturating_add(self.within) => false,
                Some(last) => {
                    *last = *ts;
                    true
                }
                None => {
                    group.insert(key.clone(), *ts);
                    true
                }
            };
            firsts.push(first);
        }
        out.push(filter_record_batch(batch, &BooleanArray::from(firsts))?);
        Ok(())
    }

    /// Time is cut into turns of `within / GROUPS`; with each turn, one group is swept.
    fn advance(&mut self, watermark: i64, _: &mut Output) -> Result<(), OperatorError> {
        if watermark == END {
            return Ok(());
        }
        let turn = watermark.div_euclid((self.within / i64::from(GROUPS)).max(1));
        let from = self.swept.unwrap_or(turn).max(turn.saturating_sub(i64::from(GROUPS)));
        self.swept = Some(turn);
        for turn in from..turn {
            let group = turn.rem_euclid(i64::from(GROUPS)) as u16;
            if !self.seen.groups[group as usize].is_empty() {
                let within = self.within;
                self.seen.group(group).retain(|_, last| last.saturating_add(within) > watermark);
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Rng, check, plan, stream, symbols, whole};
    use arrow::array::{ArrayRef, UInt64Array};
    use serde_json::json;

    type Row = (i64, &'static str, u64);

    fn batch(rows: &[Row]) -> RecordBatch {
        let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
        let ids: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.2)));
        stream(&at, vec![("symbol", symbols(rows.iter().map(|r| r.1))), ("id", ids)])
    }

    fn planned(within: &str) -> OperatorPlan {
        let with = json!({"by": ["symbol", "id"], "within": within});
        plan::<Dedupe>(with, &[batch(&[]).schema()]).unwrap()
    }

    #[test]
    fn the_first_goes_on_and_is_forgotten_after_a_while() {
        let rows = [(0, "A", 1), (9, "A", 1), (9, "A", 2), (10, "A", 1), (19, "A", 1)];
        assert_eq!(whole(&planned("10ns"), &[batch(&rows)]), ["0,0,A,1", "9,2,A,2", "10,3,A,1"]);
    }

    #[test]
    fn firsts_are_the_same_however_rows_come() {
        for seed in 0..200 {
            let rng = &mut Rng(seed);
            let mut ts = rng.pick(&[0, -300, 1_000_000]);
            let rows: Vec<Row> = (0..rng.below(150))
                .map(|_| {
                    ts += rng.pick(&[0, 0, 1, 3, 50]);
                    (ts, rng.pick(&["A", "B"]), rng.below(6) as u64)
                })
                .collect();
            for (within, text) in [(1, "1ns"), (10, "10ns"), (5000, "5us")] {
                let mut firsts: Vec<(usize, &Row)> = Vec::new();
                for (i, row) in rows.iter().enumerate() {
                    let same = |first: &&(usize, &Row)| (first.1.1, first.1.2) == (row.1, row.2);
                    if firsts.iter().rev().find(same).is_none_or(|first| row.0 - first.1.0 >= within) {
                        firsts.push((i, row));
                    }
                }
                let expect = firsts.iter().map(|(i, r)| format!("{},{i},{},{}", r.0, r.1, r.2)).collect();
                check(&planned(text), &[batch(&rows)], expect, seed);
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_by_the_span() {
        let plan = planned("1us");
        let mut dedupe = (plan.build)();
        let mut out = Output::new(plan.schema.clone());
        for i in 0..200_i64 {
            let rows: Vec<Row> = (0..100).map(|j| (i * 100 + j, "A", (i * 100 + j) as u64)).collect();
            dedupe.process(&[Some(batch(&rows))], &mut out).unwrap();
            dedupe.advance((i + 1) * 100, &mut out).unwrap();
            assert!(dedupe.state().unwrap().keys() <= 2200, "{}", dedupe.state().unwrap().keys());
        }
        assert_eq!(out.drain().map(|b| b.num_rows()).sum::<usize>(), 20_000);
    }

    #[test]
    fn problems_say_what_to_do() {
        let problems =
            plan::<Dedupe>(json!({"by": [], "within": "0"}), &[batch(&[]).schema()]).err().unwrap();
        assert_eq!(problems.len(), 2);
        let problems = plan::<Dedupe>(json!({"by": ["id"]}), &[batch(&[]).schema()]).err().unwrap();
        assert!(problems[0].starts_with(": missing field `within`"), "{problems:?}");
    }
}
