//! Bars: open, high, low, close and volume of trades, by time, ticks, volume or dollars.
//!
//! Time: a time bar goes out when its interval is over, by the key's next row or by the watermark,
//! with the same result. State: one bar a key, and a list of the ends that are waited for; O(1) a
//! row. What the watermark closes is found by end, so keys that wait cost nothing.

mod bar;
mod grid;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{
    Distribution, OperatorKind, OperatorPlan, PlanContext, Problems, StreamInfo,
};
use tidemill_engine::duration::Span;
use tidemill_engine::keyed::{KeyedState, SlotStore};
use tidemill_engine::operator::{Operator, OperatorError, Output, State};
use tidemill_engine::problem::Problem;
use tidemill_engine::row;

use crate::columns::floats;
use bar::{Bar, Finished};
use grid::Grid;
pub use grid::{Day, Session};

/// The longest interval.
const EVERY_MAX_NS: i64 = 3660 * 86_400_000_000_000;
/// The most empty bars after a key's last trade.
const EMPTIES_MAX: u32 = 100_000;
/// Finished bars are sent on in batches of about this many rows.
const FLUSH_ROWS: usize = 65_536;

/// Open, high, low, close and volume of trades: bars by time, ticks, volume or dollars.
///
/// Exactly one of `every`, `ticks`, `volume` and `dollars` says when a bar is complete. Output: the
/// `by` columns, `start`, `open`, `high`, `low`, `close`, `volume`, `vwap` (null without volume) and
/// `trades` (how many rows). `_src` and `_seq` are those of the last row in it.
///
/// A time bar covers `[start, end)`: a trade at the very end is in the next one. Its `ts` is that
/// end, so a bar is never known before it is over. When the input ends, open time bars go out. A tick,
/// volume or dollar bar closes with the row that reaches the threshold, whole (a big trade closes one
/// bar, never two) and has that row's `ts`; one still open when the input ends is left out.
///
/// A row whose price or size is null or not finite, or whose size is negative, is left out. A size of
/// zero counts as a trade without volume. Prices may be zero or negative, as some markets' are (dollar
/// bars go by the magnitude of the sum). With a `session`, rows outside of it are left out, intervals
/// start at its open and the last one ends at its close. A row older than its key's open interval
/// (late rows that a source admits) is left out.
///
/// With `empty: fill`, an interval without trades gives a bar at the previous close with no volume:
/// until the session closes, and at most `fill_max` in a row. Those bars go out on time, whether or
/// not another trade will come, so they also follow a key's last trade.
///
/// ```yaml
/// operators:
///   bars:
///     kind: bars
///     from: trades
///     with:
///       every: 1m
///       by: [symbol]
///       session: { timezone: America/New_York, open: "09:30", close: "16:00" }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Time bars: the length of an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// Tick bars: so many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticks: Option<u64>,
    /// Volume bars: at least so much size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<f64>,
    /// Dollar bars: at least so much price times size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dollars: Option<f64>,
    /// Key columns: a bar for each of their values. Empty (the default): one for the whole stream.
    #[serde(default)]
    pub by: Vec<String>,
    /// Column of the price. Default `price`.
    #[serde(default = "price")]
    pub price: String,
    /// Column of the size. Default `size`.
    #[serde(default = "size")]
    pub size: String,
    /// Time bars without a session: shifts intervals from whole multiples of `every` since the epoch (UTC).
    #[serde(default)]
    pub offset: Span,
    /// Time bars: trading hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Time bars: what an interval without trades gives. Default `skip`.
    #[serde(default)]
    pub empty: Empty,
    /// With `empty: fill`: the most empty bars in a row, up to 100000. Needed where there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill_max: Option<u32>,
}

fn price() -> String {
    "price".into()
}

fn size() -> String {
    "size".into()
}

/// What an interval without trades gives.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Empty {
    /// Nothing.
    #[default]
    Skip,
    /// A bar at the previous close.
    Fill,
}

/// When a bar is complete.
#[derive(Clone, Debug)]
enum Rule {
    Time { grid: Grid, empties_max: u32 },
    Ticks(i64),
    Volume(f64),
    Dollars(f64),
}

/// See [`Params`].
#[derive(Debug)]
pub struct Bars;

impl OperatorKind for Bars {
    const KIND: &'static str = "bars";
    type Params = Params;

    fn plan(params: Params, inputs: &[StreamInfo], _: &PlanContext) -> Result<OperatorPlan, Problems> {
        let input = &inputs[0];
        let mut problems = Problems::new();
        let mut keep =
            |result: Result<usize, Problem>| result.map_err(|p| problems.push(p)).unwrap_or_default();
        let price = keep(input.numeric("price", &params.price));
        let size = keep(input.numeric("size", &params.size));
        let by = input.keys("by", &params.by).unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        let made = bar::fields();
        for (i, name) in params.by.iter().enumerate() {
            let twice = params.by[..i].contains(name);
            if twice || row::is_system(name) || made.iter().any(|f| f.name() == name) {
                let reason = if twice { "is there twice" } else { "is the name of a column that bars make" };
                problems.push(Problem::new(format!("by[{i}]"), format!("key column `{name}` {reason}")));
            }
        }
        let rule = rule(&params).unwrap_or_else(|more| {
            problems.extend(more);
            Rule::Ticks(1)
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let keys: Vec<_> = by.iter().map(|i| input.schema.fields()[*i].clone()).collect();
        let schema = row::stream_schema(keys.iter().chain(&made));
        let input = input.schema.clone();
        Ok(OperatorPlan {
            schema,
            distribution: Distribution::Keyed(vec![params.by.clone()]),
            ordered: true,
            passes: params.by.iter().map(|name| (name.clone(), name.clone())).collect(),
            build: Arc::new(move || {
                let state = KeyedState::new(by.clone(), &input, Store::default());
                Box::new(Maker { price, size, rule: rule.clone(), state, done: Finished::default() })
            }),
        })
    }
}

fn rule(params: &Params) -> Result<Rule, Problems> {
    let mut problems = Problems::new();
    let mut problem =
        |path: &str, reason: &str, hint: &str| problems.push(Problem::new(path, reason).hint(hint));
    let sized = [params.ticks.is_some(), params.volume.is_some(), params.dollars.is_some()];
    let given = sized.iter().filter(|given| **given).count() + usize::from(params.every.is_some());
    if given != 1 {
        problem(
            "",
            "exactly one of `every`, `ticks`, `volume` and `dollars` says when a bar is complete",
            "`every: 1m`, say",
        );
        return Err(problems);
    }
    if let Some(every) = params.every {
        if every.ns() == 0 || every.ns() > EVERY_MAX_NS {
            problem("every", "an interval must be longer than zero and at most 3660d", "`every: 1m`, say");
        }
        if params.session.is_some() && params.offset.ns() != 0 {
            problem("offset", "intervals of a session start at its open", "leave `offset` out");
        }
        let empties_max = match (params.empty, params.fill_max, &params.session) {
            (Empty::Skip, None, _) => 0,
            (Empty::Skip, Some(_), _) => {
                problem("fill_max", "only `empty: fill` makes empty bars", "add it, or leave `fill_max` out");
                0
            }
            (Empty::Fill, Some(max), _) if max <= EMPTIES_MAX => max,
            (Empty::Fill, Some(_), _) => {
                problem("fill_max", "at most 100000 empty bars in a row", "lower it");
                0
            }
            (Empty::Fill, None, Some(_)) => EMPTIES_MAX,
            (Empty::Fill, None, None) => {
                problem(
                    "empty",
                    "without a session, something must say when filling ends",
                    "add `fill_max: 60`, say",
                );
                0
            }
        };
        let every = every.ns().max(1);
        let grid = match &params.session {
            None => Grid::plain(every, params.offset.ns() % every),
            Some(session) => Grid::session(every, session).unwrap_or_else(|more| {
                problems.extend(more);
                Grid::plain(every, 0)
            }),
        };
        return if problems.is_empty() { Ok(Rule::Time { grid, empties_max }) } else { Err(problems) };
    }
    let timed = [
        ("session", params.session.is_some()),
        ("offset", params.offset.ns() != 0),
        ("empty", params.empty != Empty::Skip),
        ("fill_max", params.fill_max.is_some()),
    ];
    for (field, _) in timed.iter().filter(|(_, given)| *given) {
        problem(field, "only time bars have it", "set `every`, or leave it out");
    }
    let more_than_zero = |x: f64| x > 0.0 && x.is_finite();
    let rule = match (params.ticks, params.volume, params.dollars) {
        (Some(n), ..) if (1..=i64::MAX as u64).contains(&n) => Rule::Ticks(n as i64),
        (_, Some(x), _) if more_than_zero(x) => Rule::Volume(x),
        (.., Some(x)) if more_than_zero(x) => Rule::Dollars(x),
        _ => {
            let field =
                ["ticks", "volume", "dollars"][sized.iter().position(|given| *given).unwrap_or_default()];
            problem(field, "must be more than zero", "raise it");
            Rule::Ticks(1)
        }
    };
    if problems.is_empty() { Ok(rule) } else { Err(problems) }
}

/// A bar a key, and which keys' intervals end when.
#[derive(Debug, Default)]
struct Store {
    bars: Vec<Bar>,
    /// May name keys whose interval has ended by a row since.
    ends: BTreeMap<i64, Vec<u32>>,
}

impl SlotStore for Store {
    fn reserve(&mut self, slots: usize) {
        SlotStore::reserve(&mut self.bars, slots);
    }

    fn encode(&self, slot: u32, out: &mut Vec<u8>) {
        self.bars.encode(slot, out);
    }

    fn decode(&mut self, slot: u32, bytes: &[u8]) -> Result<(), OperatorError> {
        self.bars.decode(slot, bytes)?;
        self.wait(slot);
        Ok(())
    }
}

impl Store {
    fn wait(&mut self, slot: u32) {
        let bar = &self.bars[slot as usize];
        if bar.is_open() {
            self.ends.entry(bar.end).or_default().push(slot);
        }
    }

    /// Sends on what has ended by `time`, empty bars as well.
    fn pass(&mut self, slot: u32, time: i64, grid: &mut Grid, empties_max: u32, done: &mut Finished) {
        let bar = &mut self.bars[slot as usize];
        while bar.is_open() && bar.end <= time {
            done.push(slot, bar.end, bar);
            let end = bar.end;
            let next = if bar.empties < empties_max { grid.interval(end) } else { None };
            match next.filter(|next| next.start == end && !next.opens) {
                Some(next) => {
                    bar.begin(next);
                    bar.empties += 1;
                }
                None => bar.start = end,
            }
        }
    }

    /// Takes the first trade of an interval.
    #[allow(clippy::too_many_arguments)]
    #[cold]
    fn turn(&mut self, slot: u32, ts: i64, grid: &mut Grid, empties_max: u32, done: &mut Finished) -> bool {
        let Some(interval) = grid.interval(ts) else { return false };
        let before = self.bars[slot as usize].end;
        if ts < self.bars[slot as usize].start {
            return false;
        }
        self.pass(slot, ts, grid, empties_max, done);
        let bar = &mut self.bars[slot as usize];
        if !bar.is_open() {
            bar.begin(interval);
        }
        if bar.end != before {
            self.wait(slot);
        }
        true
    }
}

struct Maker {
    price: usize,
    size: usize,
    rule: Rule,
    state: KeyedState<Store>,
    done: Finished,
}

/// A batch's columns.
struct Rows<'a> {
    ts: &'a [i64],
    src: &'a [u64],
    seq: &'a [u64],
    price: &'a [f64],
    size: &'a [f64],
}

impl Rows<'_> {
    /// Calls `take(row, price, size)` for the rows that count as trades.
    #[inline]
    fn trades(&self, mut take: impl FnMut(usize, f64, f64)) {
        for (i, (&price, &size)) in self.price.iter().zip(self.size).enumerate() {
            if price.is_finite() && (0.0..f64::INFINITY).contains(&size) {
                take(i, price, size);
            }
        }
    }

    /// Bars that a row completes.
    #[inline]
    fn sized(&self, slots: &[u32], bars: &mut [Bar], done: &mut Finished, complete: impl Fn(&Bar) -> bool) {
        self.trades(|i, price, size| {
            let bar = &mut bars[slots[i] as usize];
            if bar.trades == 0 {
                bar.start = self.ts[i];
                bar.first(price, size, self.src[i], self.seq[i]);
            } else {
                bar.add(price, size, self.src[i], self.seq[i]);
            }
            if complete(bar) {
                done.push(slots[i], self.ts[i], bar);
                bar.trades = 0;
            }
        });
    }
}

impl Operator for Maker {
    fn process(&mut self, inputs: &[Option<RecordBatch>], out: &mut Output) -> Result<(), OperatorError> {
        let Some(batch) = &inputs[0] else { return Ok(()) };
        let (price, size) = (floats(batch.column(self.price))?, floats(batch.column(self.size))?);
        let rows = Rows {
            ts: row::ts(batch),
            src: row::src(batch),
            seq: row::seq(batch),
            price: &price,
            size: &size,
        };
        let (slots, store) = self.state.rows(batch)?;
        let done = &mut self.done;
        match &mut self.rule {
            Rule::Time { grid, empties_max } => rows.trades(|i, price, size| {
                let (slot, ts) = (slots[i], rows.ts[i]);
                let bar = &mut store.bars[slot as usize];
                if ts >= bar.start && ts < bar.end && bar.trades > 0 {
                    bar.add(price, size, rows.src[i], rows.seq[i]);
                } else if store.turn(slot, ts, grid, *empties_max, done) {
                    store.bars[slot as usize].first(price, size, rows.src[i], rows.seq[i]);
                }
            }),
            Rule::Ticks(n) => rows.sized(slots, &mut store.bars, done, |bar| bar.trades >= *n),
            Rule::Volume(x) => rows.sized(slots, &mut store.bars, done, |bar| bar.volume >= *x),
            Rule::Dollars(x) => rows.sized(slots, &mut store.bars, done, |bar| bar.notional.abs() >= *x),
        }
        self.done.flush(self.state.keys(), out)
    }

    fn advance(&mut self, watermark: i64, out: &mut Output) -> Result<(), OperatorError> {
        let Rule::Time { grid, empties_max } = &mut self.rule else { return Ok(()) };
        while let Some(first) = self.state.store_mut().ends.first_entry().filter(|e| *e.key() <= watermark) {
            let (end, mut slots) = first.remove_entry();
            let bars = &self.state.store().bars;
            slots.retain(|slot| bars[*slot as usize].is_open() && bars[*slot as usize].end == end);
            self.state.touch(&slots);
            for slot in slots {
                let store = self.state.store_mut();
                store.pass(slot, watermark, grid, *empties_max, &mut self.done);
                store.wait(slot);
                if self.done.len() >= FLUSH_ROWS {
                    self.done.flush(self.state.keys(), out)?;
                }
            }
        }
        self.done.flush(self.state.keys(), out)
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(&mut self.state)
    }
}

#[cfg(test)]
mod tests;
