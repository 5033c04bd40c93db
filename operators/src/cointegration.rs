//! `cointegration`: whether two columns move together, how many of one hedge the other, and how far apart they are.
//!
//! Time: rows keep their `ts`. State: the last `window` pairs, a key. Each row is reckoned from its window anew, so nothing drifts:
//! O(window) a row.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::keyed::KeyedState;
use tidemill_engine::operator::{Operator, OperatorError, Output, State};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_risk::cointegration::{Lags, engle_granger};

use crate::columns::{floats, nullable};

/// Fewest pairs that a test is made of.
const WINDOW_MIN: usize = 20;

/// Adds what the last rows tell of a pair: its hedge, its spread, and whether that comes back.
///
/// Over the last `window` rows of a key, `y` is regressed on `x` (ordinary least squares, with a constant), and what the line leaves is tested for
/// a unit root (Engle and Granger 1987; augmented Dickey-Fuller with one lag; p-values of MacKinnon 1994). Columns that follow
/// the input's:
///
/// | column | what |
/// |---|---|
/// | `hedge` | units of `x` that hedge one of `y`; with `log`, money in `x` for money in `y` |
/// | `spread` | how far the row is from the line |
/// | `zscore` | `spread` in standard deviations of the window's (divided by n) |
/// | `p_value` | the probability of such residuals if the two don't belong together: below 0.05, they mostly do |
/// | `half_life` | rows in which half of a spread is gone; null where it does not come back |
///
/// All are null until the window is full, and for a window in which `x` or `y` doesn't move. A row that lacks a number is
/// passed on with nulls and left out of the window.
///
/// ```yaml
/// operators:
///   spread:
///     kind: cointegration
///     from: both
///     with: { by: [pair], y: first, x: second, window: 120, log: true }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Key columns: each of their values is a pair of its own. Empty (the default): one for the stream.
    #[serde(default)]
    pub by: Vec<String>,
    /// The column that is hedged.
    pub y: String,
    /// The column that hedges it.
    pub x: String,
    /// Rows that are looked at, 20 to 100000.
    pub window: usize,
    /// Whether logarithms are taken first: for prices, whose spread is then relative.
    #[serde(default)]
    pub log: bool,
}

/// See [`Params`].
#[derive(Debug)]
pub struct Cointegration;

const COLUMNS: [&str; 5] = ["hedge", "spread", "zscore", "p_value", "half_life"];

impl OperatorKind for Cointegration {
    const KIND: &'static str = "cointegration";
    type Params = Params;

    fn plan(params: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let input = &inputs[0];
        let mut problems = Problems::new();
        let by = input.keys("by", &params.by).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        let mut column = |path: &str, name: &str| {
            input.numeric(path, name).unwrap_or_else(|problem| {
                problems.push(problem);
                0
            })
        };
        let (y, x) = (column("y", &params.y), column("x", &params.x));
        if !(WINDOW_MIN..=100_000).contains(&params.window) {
            let reason = format!("a window of {} rows is not between {WINDOW_MIN} and 100000", params.window);
            problems.push(Problem::new("window", reason));
        }
        let mut fields: Vec<Arc<Field>> = input.user_columns().cloned().collect();
        for name in COLUMNS {
            if fields.iter().any(|f| f.name() == name) {
                problems.push(
                    Problem::new("", format!("there is a column `{name}` already"))
                        .hint("take it out by a `select` before"),
                );
            }
            fields.push(Arc::new(Field::new(name, DataType::Float64, true)));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let (schema, window, log) = (input.schema.clone(), params.window, params.log);
        Ok(OperatorPlan {
            schema: row::stream_schema(&fields),
            distribution: Distribution::Keyed(vec![params.by]),
            ordered: true,
            passes: schema.fields().iter().map(|f| (f.name().clone(), f.name().clone())).collect(),
            build: Arc::new(move || {
                let state = KeyedState::new(by.clone(), &schema, Vec::new()).spillable();
                Box::new(Pairs { y, x, window, log, state })
            }),
        })
    }
}

struct Pairs {
    y: usize,
    x: usize,
    window: usize,
    log: bool,
    /// The last pairs of a key, `(y, x)`.
    state: KeyedState<Vec<VecDeque<(f64, f64)>>>,
}

impl Operator for Pairs {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let (ys, xs) = (floats(batch.column(self.y))?, floats(batch.column(self.x))?);
        let (slots, windows) = self.state.rows(batch)?;
        let mut columns: [Vec<f64>; 5] = std::array::from_fn(|_| Vec::with_capacity(slots.len()));
        for ((slot, y), x) in slots.iter().zip(ys.iter()).zip(xs.iter()) {
            let (y, x) = if self.log { (y.ln(), x.ln()) } else { (*y, *x) };
            let window = &mut windows[*slot as usize];
            let there = y.is_finite() && x.is_finite();
            if there {
                if window.len() == self.window {
                    window.pop_front();
                }
                window.push_back((y, x));
            }
            let told = (there && window.len() == self.window).then(|| told(window)).flatten();
            for (column, value) in columns.iter_mut().zip(told.unwrap_or([f64::NAN; 5])) {
                column.push(value);
            }
        }
        let mut all: Vec<ArrayRef> = batch.columns().to_vec();
        all.extend(columns.map(nullable));
        out.push(RecordBatch::try_new(out.schema().clone(), all)?);
        Ok(())
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.state)
    }
}

/// What a full window tells; nothing where a column of it does not move.
fn told(window: &VecDeque<(f64, f64)>) -> Option<[f64; 5]> {
    let (y, x): (Vec<f64>, Vec<f64>) = window.iter().copied().unzip();
    let test = engle_granger(&y, &x, Lags::Fixed(1)).ok()?;
    let residuals: Vec<f64> = y.iter().zip(&x).map(|(y, x)| test.line.residual(*y, *x)).collect();
    // A line with a constant leaves residuals whose mean is zero.
    let deviation = (residuals.iter().map(|r| r * r).sum::<f64>() / residuals.len() as f64).sqrt();
    let spread = *residuals.last()?;
    Some([test.line.beta, spread, spread / deviation, test.p_value, test.half_life.unwrap_or(f64::NAN)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Rng, check, numbers, plan, stream, symbols, whole};
    use serde_json::json;

    type Row = (&'static str, Option<f64>, Option<f64>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let at: Vec<(i64, u64)> = (0..rows.len()).map(|i| (i as i64 * 10, i as u64)).collect();
        let columns = vec![
            ("pair", symbols(rows.iter().map(|r| r.0))),
            ("a", numbers(rows.iter().map(|r| r.1))),
            ("b", numbers(rows.iter().map(|r| r.2))),
        ];
        let fields = ["a", "b"].map(|n| Arc::new(Field::new(n, DataType::Float64, true)));
        let pair = Arc::new(Field::new("pair", row::symbol_type(), false));
        let schema = row::stream_schema(&[&[pair], &fields[..]].concat());
        RecordBatch::try_new(schema, stream(&at, columns).columns().to_vec()).unwrap()
    }

    /// Two walks for each key; `b` follows `a` for some of them, and some numbers are missing.
    fn random(seed: u64, rows: usize) -> Vec<Row> {
        let rng = &mut Rng(seed);
        let mut walks = [(100.0, 50.0), (20.0, 80.0), (7.0, 7.0)];
        let unit = |rng: &mut Rng| rng.below(2001) as f64 / 1000.0 - 1.0;
        (0..rows)
            .map(|_| {
                let key = rng.below(3);
                let (a, b) = &mut walks[key];
                *a += unit(rng) * 0.1;
                *b = if key == 0 { 0.5 * *a + unit(rng) * 0.2 } else { *b + unit(rng) * 0.1 };
                let missing = rng.below(20) == 0;
                (["x", "y", "z"][key], (!missing).then_some(*a), Some(*b))
            })
            .collect()
    }

    /// By normal equations over the rows so far, from scratch.
    fn slow(rows: &[Row], window: usize) -> Vec<Option<(f64, f64)>> {
        let one = |i: usize| {
            let (key, a, b) = rows[i];
            a.zip(b)?;
            let all: Vec<(f64, f64)> =
                rows[..=i].iter().filter(|r| r.0 == key).filter_map(|r| r.1.zip(r.2)).collect();
            let last = all.len().checked_sub(window).map(|from| &all[from..])?;
            let n = window as f64;
            let (mean_y, mean_x) =
                (last.iter().map(|p| p.0).sum::<f64>() / n, last.iter().map(|p| p.1).sum::<f64>() / n);
            let xy: f64 = last.iter().map(|p| (p.0 - mean_y) * (p.1 - mean_x)).sum();
            let xx: f64 = last.iter().map(|p| (p.1 - mean_x).powi(2)).sum();
            let beta = xy / xx;
            let residual = |p: &(f64, f64)| p.0 - mean_y - beta * (p.1 - mean_x);
            let deviation = (last.iter().map(|p| residual(p).powi(2)).sum::<f64>() / n).sqrt();
            Some((beta, residual(&last[window - 1]) / deviation))
        };
        (0..rows.len()).map(one).collect()
    }

    #[test]
    fn hedge_and_score_are_those_of_the_normal_equations_however_rows_are_cut() {
        for seed in 0..20 {
            let rows = random(seed, 200);
            let input = batch(&rows);
            let with = json!({"by": ["pair"], "y": "a", "x": "b", "window": 24});
            let plan = plan::<Cointegration>(with, &[input.schema()]).unwrap();
            let got = whole(&plan, std::slice::from_ref(&input));
            for (line, expected) in got.iter().zip(slow(&rows, 24)) {
                let cells: Vec<&str> = line.split(',').collect();
                let read = |i: usize| cells[cells.len() - i].parse::<f64>().ok();
                match expected {
                    None => assert_eq!((read(5), read(3)), (None, None), "{line}"),
                    Some((beta, score)) => {
                        assert!(
                            (read(5).unwrap() - beta).abs() < 1e-9 * beta.abs().max(1.0),
                            "{line}: {beta}"
                        );
                        assert!((read(3).unwrap() - score).abs() < 1e-6, "{line}: {score}");
                    }
                }
            }
            check(&plan, &[input], got, seed);
        }
    }

    #[test]
    fn a_pair_that_belongs_together_is_told_from_one_that_does_not() {
        let rows = random(3, 3000);
        let input = batch(&rows);
        let with = json!({"by": ["pair"], "y": "a", "x": "b", "window": 250});
        let plan = plan::<Cointegration>(with, &[input.schema()]).unwrap();
        let got = whole(&plan, &[input]);
        let rate = |key: &str| {
            let p: Vec<f64> = got
                .iter()
                .filter(|l| l.split(',').nth(2) == Some(key))
                .filter_map(|l| l.rsplit(',').nth(1)?.parse().ok())
                .collect();
            p.iter().filter(|p| **p < 0.05).count() as f64 / p.len() as f64
        };
        assert!(
            rate("x") > 0.95 && rate("y") < 0.5 && rate("z") < 0.5,
            "{} {} {}",
            rate("x"),
            rate("y"),
            rate("z")
        );
    }

    #[test]
    fn what_cannot_be_is_a_problem_with_its_place() {
        let input = batch(&[("x", Some(1.0), Some(1.0))]);
        let with = json!({"y": "a", "x": "pair", "window": 3});
        let problems = plan::<Cointegration>(with, &[input.schema()]).err().unwrap().join("\n");
        assert!(
            problems.contains("not a number") && problems.contains("between 20 and 100000"),
            "{problems}"
        );
    }
}
