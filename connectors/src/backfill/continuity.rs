//! Whether a history is whole: ids without holes, a bar for every interval. What is not there becomes
//! a gap with its reason; nothing is made up to fill it.
//!
//! Ids are looked at in the order in which they come, per symbol. One that does not follow the last is a
//! hole (forwards) or is out of order (backwards, counted: the venue's log, or the file, is not in order).

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use tidemill_engine::row;

use super::ranges::{Span, time};

/// What a whole history looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing is known of it.
    None,
    /// A whole-number column counts by one, per symbol.
    Ids(String),
    /// A time column has one row for every interval of so many nanoseconds, from multiples of it on.
    Every {
        /// The column.
        column: String,
        /// Nanoseconds.
        interval_ns: i64,
    },
}

/// A hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Whose: a symbol, or the range's key.
    pub key: String,
    /// From the last row before it to the first behind it.
    pub span: Span,
    /// What is missing.
    pub reason: String,
}

/// What is remembered between the ranges of one key, so that a hole at their border is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// The last id of each symbol, and its time.
    pub ids: HashMap<String, (i64, i64)>,
}

/// Looks at the rows of one range.
pub struct Checker {
    rule: Rule,
    key: String,
    span: Option<Span>,
    last: Last,
    /// The next interval that is due.
    due: Option<i64>,
    gaps: Vec<Gap>,
    /// Rows that came behind one they should precede.
    backwards: u64,
}

/// Gaps that one range tells of, one by one; more become one of a count.
const GAPS_MAX: usize = 1000;

impl Checker {
    /// A checker of the range `span` (where it is known) of `key`; `last` is what the range before it ended with.
    pub fn new(rule: Rule, key: &str, span: Option<Span>, last: Last) -> Self {
        let due = match (&rule, span) {
            (Rule::Every { interval_ns, .. }, Some(span)) => Some(ceil(span.from, *interval_ns)),
            _ => None,
        };
        Self { rule, key: key.to_owned(), span, last, due, gaps: Vec::new(), backwards: 0 }
    }

    /// Takes a batch in the order of the history.
    pub fn look(&mut self, batch: &RecordBatch) {
        match self.rule.clone() {
            Rule::None => {}
            Rule::Ids(column) => self.ids(batch, &column),
            Rule::Every { column, interval_ns } => self.every(batch, &column, interval_ns),
        }
    }

    fn ids(&mut self, batch: &RecordBatch, column: &str) {
        let Some(ids) = batch.column_by_name(column).and_then(whole_numbers) else { return };
        let symbols = batch.column_by_name("symbol");
        let times = batch.column_by_name(row::TS).and_then(times);
        // Rows of one symbol stand together mostly: its entry is looked up when it changes.
        let mut symbol = self.key.clone();
        let mut last = self.last.ids.get(&symbol).copied();
        for i in 0..batch.num_rows() {
            if let Some(text) = symbols.and_then(|s| row::text(s, i))
                && text != symbol
            {
                if let Some(last) = last {
                    self.last.ids.insert(std::mem::replace(&mut symbol, text.to_owned()), last);
                } else {
                    symbol = text.to_owned();
                }
                last = self.last.ids.get(&symbol).copied();
            }
            if ids.is_null(i) {
                continue;
            }
            let id = ids.value(i);
            let at = times.as_ref().map_or(0, |t| t.value(i));
            if let Some((before, before_at)) = last {
                match id - before {
                    1 => {}
                    step if step > 1 => {
                        let missing = if step == 2 {
                            format!("{column} {} is missing", before + 1)
                        } else {
                            format!("{column} {} to {} are missing ({})", before + 1, id - 1, step - 1)
                        };
                        self.gap(&symbol, Span::new(before_at, at), missing);
                    }
                    _ => {
                        self.backwards += 1;
                        continue;
                    }
                }
            }
            last = Some((id, at));
        }
        if let Some(last) = last {
            self.last.ids.insert(symbol, last);
        }
    }

    fn every(&mut self, batch: &RecordBatch, column: &str, interval_ns: i64) {
        let Some(starts) = batch.column_by_name(column).and_then(times) else { return };
        for i in 0..starts.len() {
            let start = starts.value(i);
            match self.due {
                Some(due) if start > due => self.absent(due, start, interval_ns),
                Some(due) if start < due => {
                    self.backwards += 1;
                    continue;
                }
                _ => {}
            }
            self.due = Some(start.saturating_add(interval_ns));
        }
    }

    fn absent(&mut self, from: i64, to: i64, interval_ns: i64) {
        let n = (to - from + interval_ns - 1) / interval_ns;
        let bars = if n == 1 { "1 interval has".into() } else { format!("{n} intervals have") };
        let key = self.key.clone();
        self.gap(&key, Span::new(from, to), format!("{bars} no bar from {}", time(from)));
    }

    fn gap(&mut self, key: &str, span: Span, reason: String) {
        match self.gaps.len() {
            n if n < GAPS_MAX => self.gaps.push(Gap { key: key.to_owned(), span, reason }),
            n => {
                if n == GAPS_MAX {
                    self.gaps.push(Gap { key: key.to_owned(), span, reason: String::new() });
                }
                let more = &mut self.gaps[GAPS_MAX];
                more.span.to = more.span.to.max(span.to);
                more.reason = format!(
                    "more than {GAPS_MAX} gaps: those from {} on are not listed",
                    time(more.span.from)
                );
            }
        }
    }

    /// The gaps, how many rows were out of order, and what the next range needs.
    pub fn finish(mut self) -> (Vec<Gap>, u64, Last) {
        if let (Rule::Every { interval_ns, .. }, Some(due), Some(span)) = (&self.rule, self.due, self.span) {
            let interval_ns = *interval_ns;
            // An interval that ends behind the span belongs to the next range only if it starts there.
            if due < span.to {
                self.absent(due, span.to, interval_ns);
            }
        }
        (self.gaps, self.backwards, self.last)
    }
}

fn ceil(ns: i64, interval_ns: i64) -> i64 {
    let rest = ns.rem_euclid(interval_ns.max(1));
    if rest == 0 { ns } else { ns - rest + interval_ns }
}

fn whole_numbers(column: &arrow::array::ArrayRef) -> Option<arrow::array::Int64Array> {
    if !column.data_type().is_integer() {
        return None;
    }
    let column = arrow::compute::cast(column, &DataType::Int64).ok()?;
    Some(column.as_primitive::<Int64Type>().clone())
}

fn times(column: &arrow::array::ArrayRef) -> Option<arrow::array::Int64Array> {
    let ns = arrow::compute::cast(column, &row::ts_type()).ok()?;
    let ns = arrow::compute::cast(&ns, &DataType::Int64).ok()?;
    Some(ns.as_primitive::<Int64Type>().clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use rand::Rng as _;

    use super::*;

    fn batch(rows: &[(&str, i64)]) -> RecordBatch {
        RecordBatch::try_from_iter([
            (row::TS, row::ts_array(rows.iter().map(|r| r.1 * 10).collect())),
            ("symbol", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0))) as ArrayRef),
            ("trade_id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn holes_in_ids_are_those_a_set_finds_however_the_rows_are_cut() {
        let mut rng = <rand_pcg::Pcg64Mcg as rand::SeedableRng>::seed_from_u64(3);
        for _ in 0..300 {
            let rows: Vec<(&str, i64)> = (100..200)
                .flat_map(|id| [("A", id), ("B", id + 5)])
                .filter(|_| rng.random_range(0..5) > 0)
                .collect();
            // Oracle: the ids between the first and the last that a set lacks, per symbol.
            let mut expected = 0;
            for symbol in ["A", "B"] {
                let ids: BTreeSet<i64> = rows.iter().filter(|r| r.0 == symbol).map(|r| r.1).collect();
                expected += ids.last().unwrap() - ids.first().unwrap() + 1 - ids.len() as i64;
            }
            let mut last = Last::default();
            let (mut found, mut rest) = (0, rows.as_slice());
            // In several ranges, each of several batches.
            while !rest.is_empty() {
                let mut checker = Checker::new(Rule::Ids("trade_id".into()), "k", None, last);
                for _ in 0..3 {
                    let (head, tail) = rest.split_at(rng.random_range(0..=rest.len().min(20)));
                    checker.look(&batch(head));
                    rest = tail;
                }
                let (gaps, backwards, end) = checker.finish();
                assert_eq!(backwards, 0);
                for gap in gaps {
                    found += (gap.span.to - gap.span.from) / 10 - 1;
                }
                last = end;
            }
            assert_eq!(found, expected);
        }
        let mut checker = Checker::new(Rule::Ids("trade_id".into()), "k", None, Last::default());
        checker.look(&batch(&[("A", 1), ("A", 2), ("A", 4), ("A", 3), ("A", 5), ("A", 9)]));
        let (gaps, backwards, _) = checker.finish();
        let reasons: Vec<&str> = gaps.iter().map(|g| g.reason.as_str()).collect();
        assert_eq!(reasons, ["trade_id 3 is missing", "trade_id 6 to 8 are missing (3)"]);
        assert_eq!(backwards, 1);
    }

    #[test]
    fn every_interval_is_asked_for_also_at_the_edges() {
        let rule = Rule::Every { column: row::TS.into(), interval_ns: 60 };
        let bars =
            |starts: &[i64]| RecordBatch::try_from_iter([(row::TS, row::ts_array(starts.to_vec()))]).unwrap();
        let check = |span, starts: &[i64]| {
            let mut checker = Checker::new(rule.clone(), "k", span, Last::default());
            starts.chunks(2).for_each(|c| checker.look(&bars(c)));
            checker.finish().0.into_iter().map(|g| (g.span.from, g.span.to)).collect::<Vec<_>>()
        };
        let span = Some(Span::new(60, 420));
        assert_eq!(check(span, &[60, 120, 180, 240, 300, 360]), []);
        assert_eq!(check(span, &[120, 300]), [(60, 120), (180, 300), (360, 420)]);
        assert_eq!(check(span, &[]), [(60, 420)]);
        assert_eq!(check(None, &[120, 300]), [(180, 300)]);
    }
}
