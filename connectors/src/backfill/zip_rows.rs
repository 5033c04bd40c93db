//! The CSV inside a dump: with a header or without, trades or bars.

use std::io::Read;

use super::binance::{Interval, unit_ns};
use super::columns::{self, Bar, Trade};
use super::ranges::Span;
use super::{Failure, Rows};

/// Rows of a batch.
const BATCH_ROWS: usize = 32_768;

/// Names that a column of a header may have.
type Names = &'static [&'static str];

/// Reads the CSV of one dump.
pub(super) struct Parser<'a> {
    /// How messages call the dump.
    pub(super) shown: &'a str,
    pub(super) venue: &'a str,
    pub(super) symbol: &'a str,
    /// Rows outside of it are left out.
    pub(super) piece: Span,
    /// Bytes of the zip.
    pub(super) size: u64,
    /// Bytes of the CSV.
    pub(super) total: u64,
}

impl Parser<'_> {
    /// Rows of the CSV, each made by `row` of its line's values; `flush` takes them away.
    fn rows<T>(
        &self,
        bytes: impl Read,
        plain: &[usize],
        names: &[Names],
        row: impl Fn(&[&str]) -> Result<T, String>,
        flush: impl Fn(&[T]) -> arrow::array::RecordBatch,
        out: &mut Rows,
    ) -> Result<(), Failure> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(1 << 17)
            .from_reader(bytes);
        let broken = |e: csv::Error| Failure::Range(format!("`{}` is damaged: {e}", self.shown));
        let mut record = csv::ByteRecord::new();
        let mut places = plain.to_vec();
        let mut width = None;
        let mut rows: Vec<T> = Vec::with_capacity(BATCH_ROWS);
        while reader.read_byte_record(&mut record).map_err(broken)? {
            let first = width.is_none();
            let expected = *width.get_or_insert(record.len());
            let is_header = first && record.get(0).is_some_and(|v| v.iter().any(u8::is_ascii_alphabetic));
            if is_header {
                let there: Vec<String> =
                    record.iter().map(|v| String::from_utf8_lossy(v).trim().to_ascii_lowercase()).collect();
                let find = |n: &Names| there.iter().position(|t| n.contains(&t.as_str()));
                let missing: Vec<&str> = names.iter().filter(|n| find(n).is_none()).map(|n| n[0]).collect();
                if !missing.is_empty() {
                    return Err(Failure::Range(format!(
                        "the header of `{}` lacks {}; it has {}",
                        self.shown,
                        missing.join(", "),
                        there.join(", ")
                    )));
                }
                places = names.iter().filter_map(find).collect();
                continue;
            }
            let line = || reader.position().line().saturating_sub(1);
            if record.len() != expected {
                let (n, line) = (record.len(), line());
                out.refuse(|| format!("line {line} of `{}`: {n} values, expected {expected}", self.shown));
                continue;
            }
            let mut values = [""; 8];
            let mut bad = None;
            for (value, place) in values.iter_mut().zip(&places) {
                match record.get(*place).map(std::str::from_utf8) {
                    Some(Ok(text)) => *value = text,
                    _ => bad = Some(format!("value {} is not there, or not text", place + 1)),
                }
            }
            match bad.map_or_else(|| row(&values), Err) {
                Ok(row) => rows.push(row),
                Err(reason) => {
                    let line = line();
                    out.refuse(|| format!("line {line} of `{}`: {reason}", self.shown));
                }
            }
            if rows.len() == BATCH_ROWS {
                let behind = u128::from(reader.position().byte());
                out.blocking_send(flush(&rows))?;
                out.at((u128::from(self.size) * behind / u128::from(self.total)) as u64);
                rows.clear();
            }
        }
        if !rows.is_empty() {
            out.blocking_send(flush(&rows))?;
        }
        Ok(())
    }

    pub(super) fn trades(&self, bytes: impl Read, aggregate: bool, out: &mut Rows) -> Result<(), Failure> {
        // Without a header. Trades: id, price, qty, quote_qty, time, is_buyer_maker, …; aggregates: id, price,
        // quantity, first, last, time, is_buyer_maker, …
        let plain = if aggregate { [0, 1, 2, 5, 6] } else { [0, 1, 2, 4, 5] };
        let names: [Names; 5] = [
            &["id", "agg_trade_id", "aggtradeid", "trade_id"],
            &["price"],
            &["qty", "quantity"],
            &["time", "transact_time", "timestamp"],
            &["is_buyer_maker", "isbuyermaker", "was_the_buyer_the_maker"],
        ];
        let row = |v: &[&str]| {
            Ok(Trade {
                id: whole(v[0])?,
                price: number(v[1])?,
                size: number(v[2])?,
                ts: time(v[3])?,
                taker_bought: match v[4] {
                    "True" | "true" | "1" => false,
                    "False" | "false" | "0" => true,
                    other => return Err(format!("`{other}` is not true or false")),
                },
            })
        };
        self.rows(
            bytes,
            &plain,
            &names,
            row,
            |rows| self.inside(columns::trades(self.venue, self.symbol, rows)),
            out,
        )
    }

    pub(super) fn bars(&self, bytes: impl Read, interval: &Interval, out: &mut Rows) -> Result<(), Failure> {
        let names: [Names; 7] =
            [&["open_time"], &["open"], &["high"], &["low"], &["close"], &["volume"], &["count"]];
        let Some(length) = interval.ns else {
            return Err(Failure::Range(format!("`{}`: bars of months have no one length", self.shown)));
        };
        let row = |v: &[&str]| {
            let start = time(v[0])?;
            Ok(Bar {
                start,
                prices: [number(v[1])?, number(v[2])?, number(v[3])?, number(v[4])?],
                volume: number(v[5])?,
                trades: Some(whole(v[6])?),
                end: start.checked_add(length).ok_or("a time out of range")?,
            })
        };
        self.rows(
            bytes,
            &[0, 1, 2, 3, 4, 5, 8],
            &names,
            row,
            |rows| self.inside(columns::bars(self.venue, self.symbol, rows)),
            out,
        )
    }

    /// The rows of the piece: REST may have brought others of the same file.
    fn inside(&self, rows: arrow::array::RecordBatch) -> arrow::array::RecordBatch {
        let ts = tidemill_engine::row::ts(&rows);
        if ts.iter().all(|t| self.piece.holds(*t)) {
            return rows;
        }
        let keep: arrow::array::BooleanArray = ts.iter().map(|t| Some(self.piece.holds(*t))).collect();
        arrow::compute::filter_record_batch(&rows, &keep).expect("a verdict for every row")
    }
}

fn number(text: &str) -> Result<f64, String> {
    let n: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if n.is_finite() { Ok(n) } else { Err(format!("`{text}` is not a number")) }
}

fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

fn time(text: &str) -> Result<i64, String> {
    whole(text).ok().and_then(unit_ns).ok_or_else(|| format!("`{text}` is not a time"))
}
