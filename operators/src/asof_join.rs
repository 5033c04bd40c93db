//! `asof_join`: to each left row, what the right stream last said at that time.
//!
//! Time: rows keep the left row's `ts` and origin; a right row at the same `ts` counts as known. State:
//! the last right row a key. Both inputs come complete up to a watermark, so a match never depends on
//! which of them was faster.

mod cells;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::duration::Span;
use tidemill_engine::keyed::KeyedState;
use tidemill_engine::keys::KeyReader;
use tidemill_engine::operator::{Operator, OperatorError, Output, State};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_engine::schema::type_name;

use cells::{Cells, Match};

/// Adds to each row of the first stream the latest row of the second, as of its time.
///
/// The latest right row is the last one, in event order, of the same key whose `ts` is not after the
/// left row's. `tolerance` says how old it may be at most. The result has the left row's columns, `ts`
/// and origin, then the right row's. A left row without a match is kept, with nulls, or dropped.
///
/// ```yaml
/// operators:
///   priced:
///     kind: asof_join
///     from: [trades, quotes]
///     with: { by: [symbol], tolerance: 5s, columns: [bid, ask] }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Columns, of both streams, in which rows must be equal. Empty (the default): any two rows match.
    #[serde(default)]
    pub by: Vec<String>,
    /// The greatest age of a match, itself included. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Span>,
    /// Columns of the right stream. Default: all but those in `by`. `ts` may be among them if renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Goes before the names of the right stream's columns.
    #[serde(default)]
    pub prefix: String,
    /// Goes after the names of the right stream's columns.
    #[serde(default)]
    pub suffix: String,
    /// What becomes of a left row without a match. Default `keep`.
    #[serde(default)]
    pub unmatched: Unmatched,
}

/// What becomes of a left row without a match.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// It goes on, with nulls.
    #[default]
    Keep,
    /// It is left out.
    Drop,
}

/// See [`Params`].
#[derive(Debug)]
pub struct AsofJoin;

impl OperatorKind for AsofJoin {
    const KIND: &'static str = "asof_join";
    type Params = Params;
    const INPUTS: (usize, usize) = (2, 2);

    fn plan(params: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let [left, right] = inputs else {
            return Err(vec![Problem::new("", "needs two streams").hint("`from: [trades, quotes]`, say")]);
        };
        let mut problems = Problems::new();
        let mut keys = |input: &StreamInfo| {
            input.keys("by", &params.by).unwrap_or_else(|more| {
                problems.extend(more);
                Vec::new()
            })
        };
        let (left_by, right_by) = (keys(left), keys(right));
        for (i, (l, r)) in left_by.iter().zip(&right_by).enumerate() {
            let (l, r) = (left.data_type(*l), right.data_type(*r));
            if l != r {
                let name = &params.by[i];
                let reason = format!(
                    "`{name}` is {} in `{}` and {} in `{}`",
                    type_name(l),
                    left.name,
                    type_name(r),
                    right.name
                );
                problems
                    .push(Problem::new(format!("by[{i}]"), reason).hint("make them equal with a `select`"));
            }
        }
        let names = params.columns.clone().unwrap_or_else(|| {
            right.user_columns().map(|f| f.name().clone()).filter(|n| !params.by.contains(n)).collect()
        });
        let mut fields: Vec<Arc<Field>> = left.user_columns().cloned().collect();
        let mut columns = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let path = params.columns.as_ref().map_or("columns".to_owned(), |_| format!("columns[{i}]"));
            let column = match right.column(&path, name) {
                Ok(column) => column,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let t = right.data_type(column);
            if !cells::fits(t) {
                let problem =
                    Problem::new(&path, format!("column `{name}` is {t}, which a join cannot hold"));
                problems.push(problem.hint("cast it with a `select`, or leave it out of `columns`"));
            }
            let called = format!("{}{name}{}", params.prefix, params.suffix);
            if row::is_system(&called) || fields.iter().any(|f| *f.name() == called) {
                let problem = Problem::new(&path, format!("there is a column `{called}` already"));
                problems
                    .push(problem.hint(format!("rename the right side's: `prefix: {}_`, say", right.name)));
            }
            let nullable = params.unmatched == Unmatched::Keep || right.schema.field(column).is_nullable();
            fields.push(Arc::new(Field::new(called, t.clone(), nullable)));
            columns.push(column);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let types: Vec<_> = columns.iter().map(|c| right.data_type(*c).clone()).collect();
        let left_schema = left.schema.clone();
        Ok(OperatorPlan {
            schema: row::stream_schema(&fields),
            distribution: Distribution::Keyed(vec![params.by.clone(), params.by]),
            ordered: true,
            passes: left_schema.fields().iter().map(|f| (f.name().clone(), f.name().clone())).collect(),
            build: Arc::new(move || {
                Box::new(Joiner {
                    columns: columns.clone(),
                    right_key: KeyReader::new(right_by.clone()),
                    tolerance: params.tolerance.map_or(i64::MAX, Span::ns),
                    drop: params.unmatched == Unmatched::Drop,
                    state: KeyedState::new(left_by.clone(), &left_schema, Cells::new(types.clone()))
                        .spillable(),
                    latest: Vec::new(),
                })
            }),
        })
    }
}

struct Joiner {
    /// Columns of the right stream.
    columns: Vec<usize>,
    right_key: KeyReader,
    tolerance: i64,
    drop: bool,
    state: KeyedState<Cells>,
    /// By slot: the last row of the right batch at hand that has been passed; `u32::MAX` for none.
    latest: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Operator for Joiner {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let (left, right) = (inputs[0].as_ref(), inputs[1].as_ref());
        let right_slots = match right {
            Some(right) => self.state.rows_with(&self.right_key, right)?.0.to_vec(),
            None => Vec::new(),
        };
        let left_slots = match left {
            Some(left) => self.state.rows(left)?.0.to_vec(),
            None => Vec::new(),
        };
        self.latest.resize(self.state.keys().len(), NONE);
        let right_ts = right.map_or(&[][..], row::ts);
        let left_ts = left.map_or(&[][..], row::ts);
        let mut matches = Vec::with_capacity(left_ts.len());
        let mut at = 0;
        for (slot, ts) in left_slots.iter().zip(left_ts) {
            while at < right_ts.len() && right_ts[at] <= *ts {
                self.latest[right_slots[at] as usize] = at as u32;
                at += 1;
            }
            let (found, when) = match self.latest[*slot as usize] {
                NONE => (Match::Slot(*slot), self.state.store().ts[*slot as usize]),
                row => (Match::Row(row), right_ts[row as usize]),
            };
            let near = when != i64::MIN && ts.saturating_sub(when) <= self.tolerance;
            matches.push(if near { found } else { Match::None });
        }
        if let Some(left) = left {
            self.send(left, right, &matches, out)?;
        }
        if let Some(right) = right {
            for (row, slot) in right_slots.iter().enumerate().skip(at) {
                self.latest[*slot as usize] = row as u32;
            }
            let mut last = Vec::new();
            for slot in right_slots {
                let row = std::mem::replace(&mut self.latest[slot as usize], NONE);
                if row != NONE {
                    last.push((slot, row));
                }
            }
            let columns: Vec<&ArrayRef> = self.columns.iter().map(|c| right.column(*c)).collect();
            self.state.store_mut().keep(&last, &columns, right_ts)?;
        }
        Ok(())
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.state)
    }
}

impl Joiner {
    fn send(
        &self,
        left: &RecordBatch,
        right: Option<&RecordBatch>,
        matches: &[Match],
        out: &mut Output,
    ) -> Result<(), OperatorError> {
        let (mut left, mut matches) = (left.clone(), matches.to_vec());
        if self.drop && matches.contains(&Match::None) {
            let found: BooleanArray = matches.iter().map(|m| Some(*m != Match::None)).collect();
            left = filter_record_batch(&left, &found)?;
            matches.retain(|m| *m != Match::None);
        }
        let mut columns = left.columns().to_vec();
        for (c, column) in self.columns.iter().enumerate() {
            columns.push(self.state.store().take(c, &matches, right.map(|r| r.column(*column)))?);
        }
        out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Rng, check, numbers, plan, stream, symbols, whole};
    use arrow::datatypes::DataType;
    use serde_json::{Value, json};

    type Row = (i64, &'static str, Option<f64>);

    fn batch(rows: &[Row], column: &str) -> RecordBatch {
        let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
        let columns = vec![
            ("symbol", symbols(rows.iter().map(|r| r.1))),
            (column, numbers(rows.iter().map(|r| r.2))),
            ("venue", symbols(rows.iter().enumerate().map(|(i, _)| ["X", "Y"][i % 2]))),
        ];
        let fields = [
            Arc::new(Field::new("symbol", row::symbol_type(), false)),
            Arc::new(Field::new(column, DataType::Float64, true)),
            Arc::new(Field::new("venue", row::symbol_type(), false)),
        ];
        RecordBatch::try_new(row::stream_schema(&fields), stream(&at, columns).columns().to_vec()).unwrap()
    }

    fn planned(with: Value) -> OperatorPlan {
        plan::<AsofJoin>(with, &[batch(&[], "price").schema(), batch(&[], "bid").schema()]).unwrap()
    }

    #[test]
    fn a_trade_gets_the_quote_that_stood_when_it_happened() {
        let trades = [(1, "A", Some(1.0)), (5, "A", Some(2.0)), (5, "B", Some(3.0)), (30, "A", Some(4.0))];
        let quotes = [(2, "A", Some(10.0)), (5, "A", Some(11.0)), (6, "B", Some(12.0))];
        let plan = planned(json!({"by": ["symbol"], "tolerance": "20ns", "columns": ["bid"]}));
        let got = whole(&plan, &[batch(&trades, "price"), batch(&quotes, "bid")]);
        assert_eq!(got, ["1,0,A,1.0,X,null", "5,1,A,2.0,Y,11.0", "5,2,B,3.0,X,null", "30,3,A,4.0,Y,null"]);
    }

    #[test]
    fn matches_are_the_same_however_rows_come() {
        for seed in 0..200 {
            let rng = &mut Rng(seed);
            let mut side = |n: usize| -> Vec<Row> {
                let mut ts = 0;
                let mut row = || {
                    ts += rng.pick(&[0, 0, 1, 2, 20]);
                    let value = [None, Some(rng.below(1000) as f64)][usize::from(rng.below(9) > 0)];
                    (ts, rng.pick(&["A", "B", "C"]), value)
                };
                (0..n).map(|_| row()).collect()
            };
            let (left, right) = (side(seed as usize % 60), side(seed as usize * 7 % 90));
            for (keyed, tolerance, drop) in
                [(true, None, false), (true, Some(5), true), (false, Some(0), false)]
            {
                let mut expect = Vec::new();
                for (i, l) in left.iter().enumerate() {
                    let last = right.iter().enumerate().rfind(|(_, r)| r.0 <= l.0 && (!keyed || r.1 == l.1));
                    let found = last.filter(|(_, r)| tolerance.is_none_or(|t| l.0 - r.0 <= t));
                    let number = |v: Option<f64>| v.map_or("null".to_owned(), |v| format!("{v:?}"));
                    let own = format!("{},{i},{},{},{}", l.0, l.1, number(l.2), ["X", "Y"][i % 2]);
                    match found {
                        Some((j, r)) => {
                            expect.push(format!("{own},{},{},{}", number(r.2), ["X", "Y"][j % 2], r.0))
                        }
                        None if drop => {}
                        None => expect.push(format!("{own},null,null,null")),
                    }
                }
                let by: &[&str] = if keyed { &["symbol"] } else { &[] };
                let mut with = json!({"by": by, "columns": ["bid", "venue", "ts"], "prefix": "q_"});
                if let Some(t) = tolerance {
                    with["tolerance"] = format!("{t}ns").replace("0ns", "0").into();
                }
                with["unmatched"] = if drop { "drop" } else { "keep" }.into();
                check(&planned(with), &[batch(&left, "price"), batch(&right, "bid")], expect, seed);
            }
        }
    }

    #[test]
    fn problems_say_what_to_do() {
        let left = batch(&[], "price").schema();
        let problems = plan::<AsofJoin>(json!({"by": ["symbol"]}), &[left.clone(), left]).err().unwrap();
        assert_eq!(
            problems,
            [
                "columns: there is a column `price` already (rename the right side's: `prefix: right_`, say)",
                "columns: there is a column `venue` already (rename the right side's: `prefix: right_`, say)",
            ]
        );
    }
}
