//! `book_metrics`: what can be read off an order book, message by message.
//!
//! Time: rows keep the `ts` of the message they come from. State: from `deltas`, a key's book (every level); for order-flow
//! imbalance its best levels before; else none. Formulas: [`metric`].

pub mod kept;
pub mod metric;
pub mod table;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
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

use crate::columns::nullable;
use kept::Kept;
use metric::{Levels, Metric};
use table::{Columns, DeltaRows, Table, believed};

/// Reads spread, microprice, imbalance, depth, order flow and prices to a size off order books.
///
/// The input is a `deltas`, `snapshots` or `quotes` table as venue feeds give them (`book: { output: … }`); which one is seen by its
/// columns. From `deltas` the books are kept here. Each message of the feed gives one row: the `by` columns, then the metrics.
/// A book that isn't valid, or not known yet, gives nulls; so does what a table does not tell: a depth band that
/// reaches beyond the levels of a `snapshots` row, an average price to a size that a side doesn't have, anything between two sides one of
/// which is empty.
///
/// | metric | columns | from |
/// |---|---|---|
/// | `mid`, `spread`, `spread_bps`, `microprice` | of the same name | all |
/// | `imbalance: { levels: 5 }` | `imbalance_5` | all (`quotes`: one level) |
/// | `depth: { bps: 10 }` | `bid_depth_10bps`, `ask_depth_10bps` | `deltas`, `snapshots` |
/// | `ofi` | `ofi`: order-flow imbalance since the message before | all |
/// | `vwap: { size: 2.5 }` | `buy_vwap_2_5`, `sell_vwap_2_5` | `deltas`, `snapshots` |
///
/// ```yaml
/// operators:
///   liquidity:
///     kind: book_metrics
///     from: books
///     with:
///       by: [venue, symbol]
///       metrics: [mid, spread_bps, microprice, ofi, { imbalance: { levels: 5 } }, { depth: { bps: 10 } }, { vwap: { size: 2.5 } }]
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Key columns: each of their values has a book of its own.
    #[serde(default = "venue_and_symbol")]
    pub by: Vec<String>,
    /// What to read off, in the order of the columns.
    pub metrics: Vec<Metric>,
}

fn venue_and_symbol() -> Vec<String> {
    vec!["venue".into(), "symbol".into()]
}

/// See [`Params`].
#[derive(Debug)]
pub struct BookMetrics;

impl OperatorKind for BookMetrics {
    const KIND: &'static str = "book_metrics";
    type Params = Params;

    fn plan(params: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let input = &inputs[0];
        let mut problems = Problems::new();
        let by = input.keys("by", &params.by).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        let table = Table::of(input).map_err(|problem| problems.push(problem)).ok();
        let mut fields: Vec<Arc<Field>> =
            by.iter().map(|i| Arc::new(input.schema.field(*i).clone())).collect();
        if params.metrics.is_empty() {
            let problem = Problem::new("metrics", "needs at least one metric");
            problems.push(problem.hint("`metrics: [mid, spread_bps]`, say"));
        }
        for (i, metric) in params.metrics.iter().enumerate() {
            let path = format!("metrics[{i}]");
            if let Some(mistake) = metric.mistake() {
                problems.push(Problem::new(&path, mistake));
            }
            problems.extend(table.as_ref().and_then(|table| untold(metric, table, &path)));
            for name in metric.columns() {
                if row::is_system(&name) || fields.iter().any(|f| *f.name() == name) {
                    problems.push(Problem::new(&path, format!("there is a column `{name}` already")));
                }
                fields.push(Arc::new(Field::new(name, DataType::Float64, true)));
            }
        }
        let Some(table) = table.filter(|_| problems.is_empty()) else { return Err(problems) };
        let flow = params.metrics.contains(&Metric::Ofi);
        let stateful = flow || matches!(table, Table::Deltas { .. });
        let metrics = params.metrics;
        let schema = input.schema.clone();
        let passed = params.by.iter().map(|name| name.as_str()).chain([row::TS, row::SRC, row::SEQ]);
        Ok(OperatorPlan {
            schema: row::stream_schema(&fields),
            passes: passed.map(|name| (name.to_owned(), name.to_owned())).collect(),
            distribution: match stateful {
                true => Distribution::Keyed(vec![params.by.clone()]),
                false => Distribution::Local,
            },
            ordered: stateful,
            build: Arc::new(move || {
                let state = stateful.then(|| KeyedState::new(by.clone(), &schema, Vec::new()).spillable());
                let (table, sheet) = (table.clone(), Sheet::new(metrics.clone()));
                Box::new(Reader { table, by: by.clone(), flow, sheet, state })
            }),
        })
    }
}

/// A metric that a table can't give.
fn untold(metric: &Metric, table: &Table, path: &str) -> Option<Problem> {
    let Table::Quotes { .. } = table else { return None };
    let what = match metric {
        Metric::Imbalance { levels } if *levels > 1 => "`imbalance` of more than one level",
        Metric::Depth { .. } => "`depth`",
        Metric::Vwap { .. } => "`vwap`",
        _ => return None,
    };
    let reason =
        format!("{what} can't be told from a table of {}, which has only the best level", table.name());
    Some(Problem::new(path, reason).hint("let the feed give `book: { output: deltas }`, or `snapshots`"))
}

/// One instance.
struct Reader {
    table: Table,
    by: Vec<usize>,
    /// Whether order flow is asked for.
    flow: bool,
    sheet: Sheet,
    /// None where nothing need be remembered.
    state: Option<KeyedState<Vec<Kept>>>,
}

/// Rows on their way out.
struct Sheet {
    metrics: Vec<Metric>,
    /// Rows of the batch that they come from.
    rows: Vec<u32>,
    columns: Vec<Vec<f64>>,
}

impl Sheet {
    fn new(metrics: Vec<Metric>) -> Self {
        let columns = metrics.iter().flat_map(Metric::columns).map(|_| Vec::new()).collect();
        Self { metrics, rows: Vec::new(), columns }
    }

    fn push(&mut self, i: usize, bids: &impl Levels, asks: &impl Levels, ofi: f64) {
        self.rows.push(i as u32);
        let mut columns = self.columns.iter_mut();
        for metric in &self.metrics {
            let values = metric.values(bids, asks, ofi);
            let two = matches!(metric, Metric::Depth { .. } | Metric::Vwap { .. });
            for (value, column) in values.iter().take(1 + usize::from(two)).zip(&mut columns) {
                column.push(*value);
            }
        }
    }

    fn push_unknown(&mut self, i: usize) {
        self.rows.push(i as u32);
        self.columns.iter_mut().for_each(|column| column.push(f64::NAN));
    }

    fn finish(&mut self, batch: &RecordBatch, by: &[usize], out: &mut Output) -> Result<(), OperatorError> {
        let rows = UInt32Array::from(std::mem::take(&mut self.rows));
        let take = |c: usize| arrow::compute::take(batch.column(c), &rows, None);
        let mut columns: Vec<ArrayRef> =
            (0..row::SYSTEM_COLUMNS).chain(by.iter().copied()).map(take).collect::<Result<_, _>>()?;
        columns.extend(self.columns.iter_mut().map(|values| nullable(std::mem::take(values))));
        out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        Ok(())
    }
}

impl Operator for Reader {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        match self.table {
            Table::Deltas { columns } => self.deltas(batch, columns)?,
            Table::Snapshots { valid, columns } => {
                self.books(batch, valid, Columns::lists(batch, columns))?
            }
            Table::Quotes { valid, columns } => self.books(batch, valid, Columns::values(batch, columns)?)?,
        }
        self.sheet.finish(batch, &self.by, out)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        self.state.as_mut().map(|state| state as &mut dyn State)
    }
}

impl Reader {
    fn deltas(&mut self, batch: &RecordBatch, columns: [usize; 5]) -> Result<(), OperatorError> {
        let rows = DeltaRows::new(batch, columns)?;
        let Some(state) = &mut self.state else { return Ok(()) };
        let (slots, books) = state.rows(batch)?;
        for (i, slot) in slots.iter().enumerate() {
            let Some((event, level, last)) = rows.row(i) else { continue };
            let kept = &mut books[*slot as usize];
            kept.take(event, level, last);
            if !last && event != kept::Event::Invalid {
                continue;
            }
            let best = kept.sides().map(|(bids, asks)| (bids.best(), asks.best()));
            let ofi = match best {
                Some((bid, ask)) if self.flow => kept.flow.next(bid, ask),
                _ => f64::NAN,
            };
            match kept.sides() {
                Some((bids, asks)) => self.sheet.push(i, bids, asks, ofi),
                None => self.sheet.push_unknown(i),
            }
        }
        Ok(())
    }

    /// Tables that hold a whole book, or its best, in a row.
    fn books(
        &mut self,
        batch: &RecordBatch,
        valid: Option<usize>,
        columns: Columns<'_>,
    ) -> Result<(), OperatorError> {
        let believed = believed(batch, valid);
        let mut state = self.state.as_mut().map(|state| state.rows(batch)).transpose()?;
        for i in 0..batch.num_rows() {
            let flow = state.as_mut().map(|(slots, books)| &mut books[slots[i] as usize].flow);
            if !believed(i) {
                if let Some(flow) = flow {
                    flow.reset();
                }
                self.sheet.push_unknown(i);
                continue;
            }
            let (bids, asks) = columns.sides(i);
            let ofi = flow.map_or(f64::NAN, |flow| flow.next(bids.best(), asks.best()));
            self.sheet.push(i, &bids, &asks, ofi);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
