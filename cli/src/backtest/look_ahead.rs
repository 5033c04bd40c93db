//! Whether anything knows the future: the graph runs again on history that ends at chosen instants, and every row of every
//! operator before the instant must be there, unchanged.
//!
//! What this finds: an operator or a source that gives rows of a time only after it has seen later ones. What it cannot
//! find: a future that is written into the history itself (a column that was computed with hindsight).

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use tidemill_engine::row;

use super::range::ALWAYS;
use super::runner::{Planned, Run, Runner};
use crate::commands::run::ShowProgress;

/// A row that changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The operator that gave it; those that read it may differ too.
    pub node: String,
    /// Where history ended, UTC nanoseconds.
    pub cut: i64,
    /// The row's number among the operator's rows.
    pub row: usize,
    /// Its time.
    pub ts: i64,
    /// How it differs.
    pub how: Difference,
}

/// How a row differs.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// It is there only with the whole history.
    Missing,
    /// It is there only with the shorter history.
    Extra,
    /// A column has another value: its name, with the shorter history, with the whole.
    Column(String, String, String),
}

/// What the check has seen.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Operators.
    pub nodes: usize,
    /// Rows that were compared, over all instants.
    pub rows: usize,
    /// Where history was ended.
    pub cuts: Vec<i64>,
    /// What changed: the first difference of each instant.
    pub findings: Vec<Finding>,
}

/// Runs the check with `count` instants drawn by `seed`.
pub fn check(runner: &Runner, planned: &Planned, count: usize, seed: u64) -> anyhow::Result<Checked> {
    let whole = runner.run(planned, ALWAYS, ShowProgress::Off)?;
    let cuts = instants(&whole, count, seed);
    let mut checked = Checked { nodes: whole.rows.len(), cuts: cuts.clone(), ..Checked::default() };
    for cut in cuts {
        let short = runner.run(planned, (i64::MIN, cut), ShowProgress::Off)?;
        // In the order of the plan: what comes first is the cause.
        let mut untils = vec![cut; planned.plan.nodes.len()];
        for node in &planned.plan.nodes {
            let mut until =
                node.inputs.iter().filter_map(|edge| untils.get(edge.from)).min().map_or(cut, |u| *u);
            untils[node.id] = until;
            let (Some((_, all)), Some((_, part))) = (whole.rows.get(&node.name), short.rows.get(&node.name))
            else {
                continue;
            };
            let mut part = part.clone();
            if node.kind == "execution"
                && let Some(ts) = last_sample(&part)
            {
                // Time stands there: what fell due later, by time alone, only the whole history has. What reads it is compared up to it.
                until = until.min(ts.saturating_add(1));
                untils[node.id] = until.min(ts);
                take_last_sample(all, &mut part, until);
            }
            match compare(all, &part, until) {
                Ok(rows) => checked.rows += rows,
                Err((row, ts, how)) => {
                    checked.findings.push(Finding { node: node.name.clone(), cut, row, ts, how });
                    break;
                }
            }
        }
    }
    Ok(checked)
}

/// Instants at rows of the run, or just after them: there a peek would show.
fn instants(run: &Run, count: usize, seed: u64) -> Vec<i64> {
    let nodes: Vec<(usize, &Vec<RecordBatch>)> = run
        .rows
        .values()
        .map(|(_, batches)| (batches.iter().map(RecordBatch::num_rows).sum(), batches))
        .filter(|(rows, _)| *rows > 0)
        .collect();
    let mut random = SplitMix(seed);
    let mut cuts = Vec::new();
    for _ in 0..count {
        let Some((rows, batches)) = nodes.get(random.below(nodes.len())) else { break };
        let mut wanted = random.below(*rows);
        for batch in *batches {
            if wanted < batch.num_rows() {
                cuts.push(row::ts(batch)[wanted] + random.below(2) as i64);
                break;
            }
            wanted -= batch.num_rows();
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

/// When the account's last sample was, if that is its last row.
fn last_sample(rows: &[RecordBatch]) -> Option<i64> {
    let last = rows.iter().rev().find(|batch| batch.num_rows() > 0)?;
    let event = last.column_by_name("event")?;
    let row = last.num_rows() - 1;
    (row::text(event, row) == Some("equity")).then(|| row::ts(last)[row])
}

/// An account is told once more where its history ends, so a shorter one has those rows too: takes them away, and gives their time.
fn take_last_sample(all: &[RecordBatch], part: &mut [RecordBatch], cut: i64) -> Option<i64> {
    let before = |batches: &[RecordBatch]| -> usize {
        batches.iter().map(|batch| row::ts(batch).partition_point(|ts| *ts < cut)).sum()
    };
    let mut extra = before(part).checked_sub(before(all)).filter(|rows| *rows > 0)?;
    let mut at = None;
    for batch in part.iter_mut().rev() {
        let rows = row::ts(batch).partition_point(|ts| *ts < cut);
        let taken = extra.min(rows);
        let told = batch.slice(rows - taken, taken);
        let event = told.column_by_name("event")?;
        if (0..taken).any(|i| !matches!(row::text(event, i), Some("position" | "equity"))) {
            return None;
        }
        at = row::ts(&told).first().copied().or(at);
        *batch = batch.slice(0, rows - taken);
        extra -= taken;
        if extra == 0 {
            break;
        }
    }
    at
}

type Differs = (usize, i64, Difference);

/// Compares the rows before `cut` of two runs; gives how many there are.
fn compare(all: &[RecordBatch], part: &[RecordBatch], cut: i64) -> Result<usize, Differs> {
    let (mut a, mut b) = (Cursor::new(all, cut), Cursor::new(part, cut));
    let mut row = 0;
    loop {
        match (a.rest(), b.rest()) {
            (None, None) => return Ok(row),
            (Some(rest), None) => return Err((row, row::ts(&rest)[0], Difference::Missing)),
            (None, Some(rest)) => return Err((row, row::ts(&rest)[0], Difference::Extra)),
            (Some(x), Some(y)) => {
                let n = x.num_rows().min(y.num_rows());
                let (x, y) = (x.slice(0, n), y.slice(0, n));
                if x != y {
                    let at = (0..n).find(|i| x.slice(*i, 1) != y.slice(*i, 1)).unwrap_or_default();
                    return Err(differs(&x.slice(at, 1), &y.slice(at, 1), row + at));
                }
                row += n;
                a.pass(n);
                b.pass(n);
            }
        }
    }
}

fn differs(all: &RecordBatch, part: &RecordBatch, row: usize) -> Differs {
    let (x, y) = (row::ts(all)[0], row::ts(part)[0]);
    let how = match x.cmp(&y) {
        std::cmp::Ordering::Less => Difference::Missing,
        std::cmp::Ordering::Greater => Difference::Extra,
        std::cmp::Ordering::Equal => {
            let column =
                (0..all.num_columns()).find(|c| all.column(*c) != part.column(*c)).unwrap_or_default();
            let text = |batch: &RecordBatch| {
                let column = batch.column(column);
                if column.is_null(0) {
                    "null".into()
                } else {
                    array_value_to_string(column, 0).unwrap_or_default()
                }
            };
            Difference::Column(all.schema().field(column).name().clone(), text(part), text(all))
        }
    };
    (row, x.min(y), how)
}

/// Walks over the rows before an instant, batch by batch.
struct Cursor<'a> {
    batches: &'a [RecordBatch],
    at: usize,
    cut: i64,
}

impl<'a> Cursor<'a> {
    fn new(batches: &'a [RecordBatch], cut: i64) -> Self {
        Self { batches, at: 0, cut }
    }

    /// What of the current batch is left. Rows are in order of time.
    fn rest(&mut self) -> Option<RecordBatch> {
        loop {
            let batch = self.batches.first()?;
            let before = row::ts(batch).partition_point(|ts| *ts < self.cut);
            if self.at < before {
                return Some(batch.slice(self.at, before - self.at));
            }
            (self.batches, self.at) = (&self.batches[1..], 0);
        }
    }

    fn pass(&mut self, rows: usize) {
        self.at += rows;
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |ns: i64| super::summary::rfc3339(ns).as_str().unwrap_or_default().to_owned();
        let (ts, cut) = (time(self.ts), time(self.cut));
        write!(f, "`{}`, row {} of {ts}: ", self.node, self.row)?;
        match &self.how {
            Difference::Missing => write!(f, "it is not there when history ends at {cut}"),
            Difference::Extra => write!(f, "it is there only when history ends at {cut}"),
            Difference::Column(name, short, whole) => {
                write!(f, "`{name}` is {short} when history ends at {cut}, and {whole} when it goes on")
            }
        }
    }
}

#[cfg(test)]
mod tests;
