//! `dedupe`: of rows equal in some columns within a span of time, the first goes on.
//!
//! Time: a row at `t` is a duplicate when the last one let through was later than `t - within`. State:
//! one time for each key with a row within the last span; older keys expire as the watermark passes. When that
//! happens never shows: rows are judged by their times.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::duration::Span;
use tidemill_engine::keyed::ExpiringState;
use tidemill_engine::operator::{Groups, Operator, OperatorError, Output, Spilled, State};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_engine::state_memory::StatePart;

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
        let schema = input.schema.clone();
        Ok(OperatorPlan {
            schema: input.schema.clone(),
            distribution: Distribution::Keyed(vec![params.by]),
            ordered: true,
            passes: input.schema.fields().iter().map(|f| (f.name().clone(), f.name().clone())).collect(),
            build: Arc::new(move || {
                let seen = Seen(ExpiringState::new(by.clone(), &schema, Some(within), Vec::new));
                Box::new(Filter { within, seen })
            }),
        })
    }
}

/// By key: when its last row was let through.
type Passed = ExpiringState<Vec<Option<i64>>>;

/// What has been let through.
struct Seen(Passed);

/// First byte of a key group. (Groups of earlier releases begin with how many entries they have, which is not zero.)
const VERSION: u8 = 0;

impl State for Seen {
    fn begin(&mut self) {
        self.0.begin();
    }

    fn begin_changed(&mut self, since: u32) -> bool {
        self.0.begin_changed(since)
    }

    fn snapshots(&self) -> u32 {
        self.0.snapshots()
    }

    fn next(&mut self, budget: usize) -> Result<Option<Groups>, OperatorError> {
        let mut groups = self.0.next(budget)?;
        groups.iter_mut().flatten().for_each(|(_, bytes)| bytes.insert(0, VERSION));
        Ok(groups)
    }

    fn restore(&mut self, group: u16, bytes: &[u8]) -> Result<(), OperatorError> {
        match bytes.split_first() {
            Some((&VERSION, bytes)) => self.0.restore(group, bytes),
            _ => self.0.restore(group, &of_earlier_release(bytes)?),
        }
    }

    fn keys(&self) -> usize {
        self.0.keys()
    }

    fn can_spill(&self) -> bool {
        self.0.can_spill()
    }

    fn limit(&mut self, part: StatePart) -> Result<(), OperatorError> {
        self.0.limit(part)
    }

    fn trim(&mut self) -> Result<(), OperatorError> {
        self.0.trim()
    }

    fn spilled(&self) -> Option<Spilled> {
        self.0.spilled()
    }
}

/// A key group that an earlier release has written (a list of keys and times), as [`ExpiringState`] reads it.
fn of_earlier_release(bytes: &[u8]) -> Result<Vec<u8>, OperatorError> {
    let broken = |e: postcard::Error| OperatorError::State(e.to_string());
    let entries: Vec<(Box<[u8]>, i64)> = postcard::from_bytes(bytes).map_err(broken)?;
    let mut group = Vec::new();
    for (key, passed) in entries {
        let state = postcard::to_stdvec(&Some(passed)).map_err(broken)?;
        group.extend_from_slice(&(key.len() as u32).to_le_bytes());
        group.extend_from_slice(&key);
        group.extend_from_slice(&(8 + state.len() as u32).to_le_bytes());
        group.extend_from_slice(&passed.to_le_bytes());
        group.extend_from_slice(&state);
    }
    Ok(group)
}

struct Filter {
    within: i64,
    seen: Seen,
}

impl Operator for Filter {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let (slots, passed) = self.seen.0.rows(batch)?;
        let mut firsts = Vec::with_capacity(slots.len());
        for (slot, ts) in slots.iter().zip(row::ts(batch)) {
            let last = &mut passed[*slot as usize];
            let first = last.is_none_or(|last| *ts >= last.saturating_add(self.within));
            if first {
                *last = Some(*ts);
            }
            firsts.push(first);
        }
        out.push(filter_record_batch(batch, &BooleanArray::from(firsts))?);
        Ok(())
    }

    fn advance(&mut self, watermark: i64, _: &mut Output) -> Result<(), OperatorError> {
        self.seen.0.expire(watermark)
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

    /// Given a checkpoint of an earlier release, then what it remembers counts.
    #[test]
    fn groups_of_an_earlier_release_are_read() {
        let plan = planned("10ns");
        let (mut dedupe, mut out) = ((plan.build)(), Output::new(plan.schema.clone()));
        let keys = std::cell::RefCell::new(Vec::new());
        let reader = tidemill_engine::keys::KeyReader::new(vec![3, 4]);
        reader.map(&batch(&[(0, "A", 1)]), &mut Vec::new(), |key| keys.borrow_mut().push(key.to_vec()));
        let key = keys.into_inner().remove(0);
        let bytes = postcard::to_stdvec(&vec![(key.clone(), 100_i64)]).unwrap();
        dedupe.state().unwrap().restore(tidemill_engine::keys::group_of(&key), &bytes).unwrap();
        let rows = [(109, "A", 1), (109, "B", 1), (110, "A", 1)];
        dedupe.process(&[Some(batch(&rows))], &mut out).unwrap();
        let passed: Vec<i64> = out.drain().flat_map(|b| row::ts(&b).to_vec()).collect();
        assert_eq!(passed, [109, 110]);
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
