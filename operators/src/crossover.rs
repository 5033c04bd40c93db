//! `crossover`: a row when a signal changes, and none while it stays.
//!
//! Time: rows keep their `ts`. State: the last side, or the last value, a key; with `ttl` only of keys that live.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, Field, Int32Type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::duration::Span;
use tidemill_engine::keyed::ExpiringState;
use tidemill_engine::keys::{KeyReader, is_key_type};
use tidemill_engine::operator::{Operator, OperatorError, Output, State};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;

use crate::columns::floats;

/// Lets a row through when a signal changes.
///
/// Three forms. `fast` and `slow`: when the one column crosses the other; `column` and `level`: when a
/// column crosses a number. Both add the column `side` (or as `as` says): `BUY` where the first is now above, `SELL`
/// where it is below. Touching is not crossing: a row on which both are equal changes nothing. `on`:
/// when that column (or any of them, in a list) differs from its key's row before; nothing is added.
///
/// Rows where something is null or not a number are passed over. A key's first row only says where the
/// signal stands and is not let through, unless `initial: true`.
///
/// ```yaml
/// operators:
///   signals:
///     kind: crossover
///     from: studies
///     with: { by: [symbol], fast: ema_fast, slow: ema_slow }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Key columns: each of their values has a signal of its own. Empty (the default): one for the stream.
    #[serde(default)]
    pub by: Vec<String>,
    /// The column that crosses `slow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast: Option<String>,
    /// The column that `fast` crosses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<String>,
    /// The column that crosses `level`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The number that `column` crosses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<f64>,
    /// The column, or columns, whose change is the signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Columns>,
    /// Name of the added column. Default `side`.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether a key's first row is let through.
    #[serde(default)]
    pub initial: bool,
    /// Event time after which a key without rows is forgotten: its next row is its first again. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
}

/// A column or a list of them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Columns {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

#[derive(Clone, Debug)]
enum Signal {
    Cross { fast: usize, slow: usize },
    Level { column: usize, level: f64 },
    Change { floats: Vec<usize>, keys: Vec<usize> },
}

/// See [`Params`].
#[derive(Debug)]
pub struct Crossover;

impl OperatorKind for Crossover {
    const KIND: &'static str = "crossover";
    type Params = Params;

    fn plan(params: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let input = &inputs[0];
        let mut problems = Problems::new();
        let by = input.keys("by", &params.by).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        let signal = signal(&params, input).unwrap_or_else(|more| {
            problems.extend(more);
            Signal::Change { floats: Vec::new(), keys: Vec::new() }
        });
        let mut fields: Vec<Arc<Field>> = input.user_columns().cloned().collect();
        if params.on.is_none() {
            let name = params.name.clone().unwrap_or_else(|| "side".into());
            if row::is_system(&name) || fields.iter().any(|f| *f.name() == name) {
                let problem = Problem::new("as", format!("there is a column `{name}` already"));
                problems.push(problem.hint("`as: signal`, say"));
            }
            fields.push(Arc::new(Field::new(name, row::symbol_type(), false)));
        } else if params.name.is_some() {
            problems.push(Problem::new("as", "`on` adds no column").hint("leave `as` out"));
        }
        let ttl_ns = crate::ttl::ns(params.ttl).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let (schema, initial) = (input.schema.clone(), params.initial);
        Ok(OperatorPlan {
            schema: row::stream_schema(&fields),
            distribution: Distribution::Keyed(vec![params.by]),
            ordered: true,
            passes: schema.fields().iter().map(|f| (f.name().clone(), f.name().clone())).collect(),
            build: Arc::new(move || match &signal {
                Signal::Change { floats, keys } => {
                    let state = ExpiringState::new(by.clone(), &schema, ttl_ns, Vec::new);
                    let (floats, reader) = (floats.clone(), KeyReader::new(keys.clone()));
                    Box::new(Change { floats, reader, initial, state })
                }
                signal => {
                    let state = ExpiringState::new(by.clone(), &schema, ttl_ns, Vec::new);
                    Box::new(Cross { signal: signal.clone(), initial, state })
                }
            }),
        })
    }
}

fn signal(params: &Params, input: &StreamInfo) -> Result<Signal, Problems> {
    match (&params.fast, &params.slow, &params.column, params.level, &params.on) {
        (Some(fast), Some(slow), None, None, None) => {
            match (input.numeric("fast", fast), input.numeric("slow", slow)) {
                (Ok(fast), Ok(slow)) => Ok(Signal::Cross { fast, slow }),
                (fast, slow) => Err(fast.err().into_iter().chain(slow.err()).collect()),
            }
        }
        (None, None, Some(column), Some(level), None) => {
            let column = input.numeric("column", column).map_err(|p| vec![p])?;
            Ok(Signal::Level { column, level })
        }
        (None, None, None, None, Some(on)) => {
            let names = match on {
                Columns::One(name) => std::slice::from_ref(name),
                Columns::Many(names) => names,
            };
            let (mut problems, mut floats, mut keys) = (Problems::new(), Vec::new(), Vec::new());
            for name in names {
                match input.column("on", name) {
                    Ok(i) if is_key_type(input.data_type(i)) => keys.push(i),
                    Ok(i) if input.data_type(i).is_floating() => floats.push(i),
                    Ok(i) => problems.push(
                        Problem::new(
                            "on",
                            format!(
                                "column `{name}` is {}, whose changes are not followed",
                                input.data_type(i)
                            ),
                        )
                        .hint("text, numbers, booleans, dates and times are"),
                    ),
                    Err(problem) => problems.push(problem),
                }
            }
            if names.is_empty() {
                problems.push(Problem::new("on", "needs at least one column"));
            }
            if problems.is_empty() { Ok(Signal::Change { floats, keys }) } else { Err(problems) }
        }
        _ => Err(vec![
            Problem::new("", "a signal is either `fast` and `slow`, or `column` and `level`, or `on`")
                .hint("`fast: ema_fast, slow: ema_slow`, say"),
        ]),
    }
}

const BUY: i8 = 1;
const SELL: i8 = -1;

/// One value crosses another.
struct Cross {
    signal: Signal,
    initial: bool,
    /// The side a key is on; 0 before its first row.
    state: ExpiringState<Vec<i8>>,
}

impl Operator for Cross {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let (fast, slow) = match &self.signal {
            Signal::Cross { fast, slow } => (floats(batch.column(*fast))?, floats(batch.column(*slow))?),
            Signal::Level { column, level } => {
                (floats(batch.column(*column))?, vec![*level; batch.num_rows()].into())
            }
            Signal::Change { .. } => return Ok(()),
        };
        let (slots, sides) = self.state.rows(batch)?;
        let (mut kept, mut codes) = (Vec::with_capacity(slots.len()), Vec::new());
        for ((slot, fast), slow) in slots.iter().zip(fast.iter()).zip(slow.iter()) {
            let before = &mut sides[*slot as usize];
            // NaN is neither.
            let side = if fast > slow {
                BUY
            } else if fast < slow {
                SELL
            } else {
                *before
            };
            let keep = side != *before && (*before != 0 || self.initial);
            *before = side;
            kept.push(keep);
            if keep {
                codes.push(i32::from(side == SELL));
            }
        }
        if codes.is_empty() {
            return Ok(());
        }
        let rows = filter_record_batch(batch, &BooleanArray::from(kept))?;
        let names = Arc::new(StringArray::from(vec!["BUY", "SELL"]));
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(Arc::new(DictionaryArray::<Int32Type>::try_new(Int32Array::from(codes), names)?));
        out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        Ok(())
    }

    fn advance(&mut self, watermark: i64, _: &mut Output) -> Result<(), OperatorError> {
        self.state.expire(watermark)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.state)
    }
}

/// A value differs from the one before.
struct Change {
    floats: Vec<usize>,
    reader: KeyReader,
    initial: bool,
    /// The last values of a key, encoded; empty before its first row.
    state: ExpiringState<Vec<Box<[u8]>>>,
}

impl Change {
    /// Rows in which no column is null or NaN.
    fn complete(&self, batch: &RecordBatch) -> Result<RecordBatch, OperatorError> {
        let mut mask: Option<BooleanArray> = None;
        for c in self.floats.iter().chain(self.reader.columns()) {
            let column = batch.column(*c);
            let there = match column.data_type() {
                t if t.is_floating() => {
                    floats(column)?.iter().map(|v| !v.is_nan()).collect::<Vec<_>>().into()
                }
                DataType::Dictionary(..) | DataType::Utf8 if !column.is_nullable() => continue,
                _ => is_not_null(column)?,
            };
            mask = match mask {
                None => Some(there),
                Some(mask) => Some(arrow::compute::and(&mask, &there)?),
            };
        }
        match mask {
            Some(mask) if mask.false_count() > 0 => Ok(filter_record_batch(batch, &mask)?),
            _ => Ok(batch.clone()),
        }
    }
}

impl Operator for Change {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let batch = self.complete(batch)?;
        let (mut numbers, mut values) = (Vec::new(), Vec::<Vec<u8>>::new());
        self.reader.map(&batch, &mut numbers, |value| {
            // The first byte tells a value of no columns from none.
            values.push([&[1], value].concat());
            values.len() - 1
        });
        let reads = self.floats.iter().map(|c| floats(batch.column(*c))).collect::<Result<Vec<_>, _>>()?;
        let (slots, before) = self.state.rows(&batch)?;
        let mut kept = Vec::with_capacity(slots.len());
        let mut now = Vec::new();
        for (i, (slot, number)) in slots.iter().zip(&numbers).enumerate() {
            now.clear();
            now.extend_from_slice(&values[*number]);
            for read in &reads {
                // Adding zero makes the two zeros one.
                now.extend_from_slice(&(read[i] + 0.0).to_le_bytes());
            }
            let before = &mut before[*slot as usize];
            let changed = before.as_ref() != now.as_slice();
            kept.push(changed && (!before.is_empty() || self.initial));
            if changed {
                *before = now.as_slice().into();
            }
        }
        out.push(filter_record_batch(&batch, &BooleanArray::from(kept))?);
        Ok(())
    }

    fn advance(&mut self, watermark: i64, _: &mut Output) -> Result<(), OperatorError> {
        self.state.expire(watermark)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Rng, check, numbers, plan, stream, symbols, whole};
    use serde_json::{Value, json};

    type Tick = (i64, &'static str, Option<f64>, Option<f64>);

    fn ticks(rows: &[Tick]) -> RecordBatch {
        let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
        let columns = vec![
            ("symbol", symbols(rows.iter().map(|r| r.1))),
            ("fast", numbers(rows.iter().map(|r| r.2))),
            ("slow", numbers(rows.iter().map(|r| r.3))),
        ];
        let fields = ["fast", "slow"].map(|n| Arc::new(Field::new(n, DataType::Float64, true)));
        let symbol = Arc::new(Field::new("symbol", row::symbol_type(), false));
        RecordBatch::try_new(
            row::stream_schema([&symbol, &fields[0], &fields[1]]),
            stream(&at, columns).columns().to_vec(),
        )
        .unwrap()
    }

    fn planned(with: Value) -> OperatorPlan {
        plan::<Crossover>(with, &[ticks(&[]).schema()]).unwrap()
    }

    fn text(i: usize, tick: &Tick) -> String {
        let number = |v: Option<f64>| v.map_or("null".to_owned(), |v| format!("{v:?}"));
        format!("{},{i},{},{},{}", tick.0, tick.1, number(tick.2), number(tick.3))
    }

    fn random(rng: &mut Rng) -> Vec<Tick> {
        let mut ts = 0;
        let values = [Some(1.0), Some(2.0), Some(3.0), None, Some(f64::NAN)];
        (0..rng.below(100))
            .map(|_| {
                ts += rng.below(3) as i64;
                (ts, rng.pick(&["A", "B", "C"]), rng.pick(&values), rng.pick(&values))
            })
            .collect()
    }

    #[test]
    fn a_golden_cross_buys_and_a_touch_does_nothing() {
        let values = [(1.0, 2.0), (3.0, 2.0), (2.0, 2.0), (4.0, 2.0), (1.0, 2.0)];
        let rows: Vec<Tick> =
            values.iter().enumerate().map(|(i, v)| (i as i64, "A", Some(v.0), Some(v.1))).collect();
        let got = whole(&planned(json!({"by": ["symbol"], "fast": "fast", "slow": "slow"})), &[ticks(&rows)]);
        assert_eq!(got, ["1,1,A,3.0,2.0,BUY", "4,4,A,1.0,2.0,SELL"]);
    }

    #[test]
    fn crossings_are_the_same_however_rows_come() {
        for seed in 0..150 {
            let rows = random(&mut Rng(seed));
            for (initial, level) in [(false, None), (true, None), (true, Some(2.0))] {
                let mut expect = Vec::new();
                for symbol in ["A", "B", "C"] {
                    let mut side = "";
                    for (i, tick) in rows.iter().enumerate().filter(|(_, r)| r.1 == symbol) {
                        let (Some(fast), Some(slow)) = (tick.2, level.or(tick.3)) else { continue };
                        let now = if fast > slow {
                            "BUY"
                        } else if slow > fast {
                            "SELL"
                        } else {
                            side
                        };
                        if now != side && (initial || !side.is_empty()) {
                            expect.push(format!("{},{now}", text(i, tick)));
                        }
                        side = now;
                    }
                }
                let with = match level {
                    None => json!({"by": ["symbol"], "fast": "fast", "slow": "slow", "initial": initial}),
                    Some(level) => {
                        json!({"by": ["symbol"], "column": "fast", "level": level, "initial": initial})
                    }
                };
                check(&planned(with), &[ticks(&rows)], expect, seed);
            }
        }
    }

    #[test]
    fn a_key_that_was_silent_for_its_time_to_live_has_no_side() {
        for seed in 0..150 {
            let rows = random(&mut Rng(seed));
            let mut expect = Vec::new();
            for symbol in ["A", "B", "C"] {
                let (mut side, mut last) = ("", i64::MIN);
                for (i, tick) in rows.iter().enumerate().filter(|(_, r)| r.1 == symbol) {
                    if tick.0.saturating_sub(last) > 5 {
                        side = "";
                    }
                    last = tick.0;
                    let (Some(fast), Some(slow)) = (tick.2, tick.3) else { continue };
                    let now = if fast > slow {
                        "BUY"
                    } else if slow > fast {
                        "SELL"
                    } else {
                        side
                    };
                    if now != side && !side.is_empty() {
                        expect.push(format!("{},{now}", text(i, tick)));
                    }
                    side = now;
                }
            }
            let with = json!({"by": ["symbol"], "fast": "fast", "slow": "slow", "ttl": "5ns"});
            check(&planned(with), &[ticks(&rows)], expect, seed);
        }
        let with = json!({"by": ["symbol"], "fast": "fast", "slow": "slow", "ttl": "0s"});
        let problems = plan::<Crossover>(with, &[ticks(&[]).schema()]).err().unwrap();
        assert_eq!(problems, ["ttl: is not above 0 (write `7d`, or leave it out to keep every key)"]);
    }

    #[test]
    fn changes_are_the_same_however_rows_come() {
        for seed in 0..150 {
            let rows = random(&mut Rng(seed));
            let mut by_key = Vec::new();
            for symbol in ["A", "B", "C"] {
                let mut last = None;
                for (i, tick) in rows.iter().enumerate().filter(|(_, r)| r.1 == symbol) {
                    let Some(value) = tick.2.filter(|v| !v.is_nan()) else { continue };
                    if last.is_some_and(|last| last != value) {
                        by_key.push(text(i, tick));
                    }
                    last = Some(value);
                }
            }
            check(&planned(json!({"by": ["symbol"], "on": "fast"})), &[ticks(&rows)], by_key, seed);
            let mut all = Vec::new();
            let mut last = "";
            for (i, tick) in rows.iter().enumerate() {
                if tick.1 != last {
                    all.push(text(i, tick));
                }
                last = tick.1;
            }
            check(&planned(json!({"on": ["symbol"], "initial": true})), &[ticks(&rows)], all, seed);
        }
    }

    #[test]
    fn problems_say_what_to_do() {
        let problems = |with| plan::<Crossover>(with, &[ticks(&[]).schema()]).err().unwrap();
        assert_eq!(
            problems(json!({"fast": "fast"})),
            [
                ": a signal is either `fast` and `slow`, or `column` and `level`, or `on` (`fast: ema_fast, slow: ema_slow`, say)"
            ]
        );
        assert_eq!(
            problems(json!({"fast": "fast", "slow": "slow", "as": "symbol"})),
            ["as: there is a column `symbol` already (`as: signal`, say)"]
        );
    }
}
