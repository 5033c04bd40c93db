//! Rows of JSON lines files by a mapping: one object a line, decoded as the `jsonl` source decodes it.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimestampNanosecondType};
use tidemill_engine::json::Decoder;
use tidemill_engine::spec::TimeUnitName;

use super::columns::constant;
use super::mapping::{From, Mapping};
use super::text::Unit;
use super::{Failure, Rows};

/// Rows of a batch.
const BATCH_ROWS: usize = 32_768;
/// Bytes a line may have.
const LINE_MAX: u64 = 16 << 20;

/// Reads a file to its end; blocks. `name` is how messages call it.
pub fn read(name: &str, bytes: impl Read, mapping: &Mapping, out: &mut Rows) -> Result<(), Failure> {
    let mut wanted = Wanted::new(mapping).map_err(|e| Failure::Range(format!("`{name}`: {e}")))?;
    let mut bytes = BufReader::with_capacity(1 << 17, bytes);
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        let read = bytes.by_ref().take(LINE_MAX).read_until(b'\n', &mut line);
        let read = read.map_err(|e| {
            Failure::Range(format!("cannot read `{name}` after line {number}: it is damaged or cut off: {e}"))
        })?;
        if read == 0 {
            break;
        }
        number += 1;
        if read as u64 == LINE_MAX && line.last() != Some(&b'\n') {
            return Err(Failure::Range(format!(
                "line {number} of `{name}` is longer than {LINE_MAX} bytes: is it a file of JSON lines?"
            )));
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match wanted.decoder.push(text) {
            Ok(()) => wanted.lines.push(number),
            Err(reason) => out.refuse(|| format!("line {number} of `{name}`: {reason}")),
        }
        if wanted.lines.len() == BATCH_ROWS {
            wanted.flush(name, out)?;
        }
    }
    wanted.flush(name, out)
}

/// Decodes into the file's own names, then makes the mapping's columns of them.
struct Wanted<'a> {
    mapping: &'a Mapping,
    decoder: Decoder,
    /// For each of the mapping's columns, its place among the decoded ones.
    places: Vec<Option<usize>>,
    /// The line of each row.
    lines: Vec<u64>,
}

impl<'a> Wanted<'a> {
    fn new(mapping: &'a Mapping) -> Result<Self, String> {
        let mut fields: Vec<Field> = Vec::new();
        let mut places = Vec::new();
        let mut unit = TimeUnitName::Ns;
        for (i, column) in mapping.columns.iter().enumerate() {
            let field = mapping.schema.field(i);
            let name = match &column.from {
                From::Constant(_) => {
                    places.push(None);
                    continue;
                }
                From::Name(name) => name.clone(),
                // JSON has no header to look into: without a mapping it is the column's own name.
                From::AnyOf(_) => field.name().clone(),
                From::Place(_) => {
                    return Err(format!("JSON has no places: map `{}` by a name", field.name()));
                }
            };
            unit = match column.time.unit {
                Unit::Of(1_000_000_000) => TimeUnitName::S,
                Unit::Of(1_000_000) => TimeUnitName::Ms,
                Unit::Of(1000) => TimeUnitName::Us,
                Unit::Of(_) | Unit::Auto => unit,
            };
            // Numbers whose unit is told by their size are decoded as they stand.
            let kind = match (&column.time.format, field.data_type()) {
                (Some(_), DataType::Timestamp(..)) => DataType::Utf8,
                (_, other) => other.clone(),
            };
            let there = fields.iter().position(|f| *f.name() == name && *f.data_type() == kind);
            places.push(Some(there.unwrap_or(fields.len())));
            if there.is_none() {
                if fields.iter().any(|f| *f.name() == name) {
                    return Err(format!("`{name}` is wanted both as a time and as something else"));
                }
                fields.push(Field::new(name, kind, field.is_nullable()));
            }
        }
        let decoder = Decoder::new(Arc::new(Schema::new(fields)), unit);
        Ok(Self { mapping, decoder, places, lines: Vec::new() })
    }

    fn flush(&mut self, name: &str, out: &mut Rows) -> Result<(), Failure> {
        let rows = self.decoder.finish();
        let lines = std::mem::take(&mut self.lines);
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let fail = |e: arrow::error::ArrowError| Failure::Range(format!("`{name}`: {e}"));
        let mut keep = vec![true; rows.num_rows()];
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.mapping.columns.len());
        for (i, column) in self.mapping.columns.iter().enumerate() {
            let field = self.mapping.schema.field(i);
            let array = match (self.places[i], &column.from) {
                (Some(place), _) => rows.column(place).clone(),
                (None, From::Constant(text)) => {
                    arrow::compute::cast(&constant(text, rows.num_rows()), field.data_type()).map_err(fail)?
                }
                (None, _) => arrow::array::new_null_array(field.data_type(), rows.num_rows()),
            };
            columns.push(match self.mapping.is_time(i) {
                false => array,
                true => {
                    let time = |j: usize| -> Option<i64> {
                        let ns = match array.as_string_opt::<i32>() {
                            Some(text) => column.time.parse(text.value(j))?,
                            None => {
                                let ns = array.as_primitive::<TimestampNanosecondType>().value(j);
                                if column.time.unit == Unit::Auto { Unit::Auto.ns(ns)? } else { ns }
                            }
                        };
                        ns.checked_add(column.shift_ns)
                    };
                    let mut times = Vec::with_capacity(array.len());
                    for j in 0..array.len() {
                        let at = if array.is_null(j) { None } else { time(j) };
                        if at.is_none() && (array.is_valid(j) || !field.is_nullable()) && keep[j] {
                            keep[j] = false;
                            out.refuse(|| {
                                format!(
                                    "line {} of `{name}`: column `{}` is not a time",
                                    lines[j],
                                    field.name()
                                )
                            });
                        }
                        times.push(
                            Some(at.unwrap_or_default()).filter(|_| at.is_some() || !field.is_nullable()),
                        );
                    }
                    Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC"))
                }
            });
        }
        let mut batch = RecordBatch::try_new(self.mapping.schema.clone(), columns).map_err(fail)?;
        if keep.contains(&false) {
            batch = arrow::compute::filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(fail)?;
        }
        out.blocking_send(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapping::{Options, pairs, schema};
    use super::super::rows_for_test;
    use super::*;

    #[test]
    fn lines_become_rows_and_bad_ones_are_refused_alone() {
        let options = Options {
            map: pairs("ts=when:%Y/%m/%d %H:%M,price=p").unwrap(),
            symbol: Some("X".into()),
            ..Options::default()
        };
        let trade = schema("trade").unwrap().resolve("schema").unwrap();
        let mapping = Mapping::new(trade, &options).unwrap();
        let text = "{\"when\":\"1970/01/02 00:01\",\"p\":1.5,\"size\":2}\n{\"when\":\"soon\",\"p\":1,\"size\":2}\n\n{\"p\":\n{\"when\":\"1970/01/03 00:00\",\"p\":2,\"size\":0}";
        let (mut out, mut rx) = rows_for_test(9);
        read("f", text.as_bytes(), &mapping, &mut out).unwrap();
        let batch = rx.try_recv().unwrap();
        let minute = 60_000_000_000_i64;
        assert_eq!(tidemill_engine::row::ts(&batch), [1441 * minute, 2880 * minute]);
        assert_eq!((batch.num_rows(), out.refused.count), (2, 2));
        assert_eq!(out.refused.reasons[1], "line 2 of `f`: column `ts` is not a time");
    }

    #[test]
    fn numbers_tell_their_unit() {
        let columns = schema("ts: timestamp, v: i64").unwrap().resolve("schema").unwrap();
        let mapping = Mapping::new(columns, &Options::default()).unwrap();
        let (mut out, mut rx) = rows_for_test(9);
        let text = "{\"ts\":1398902401787,\"v\":1}\n{\"ts\":\"2014-05-01T00:00:01.787Z\",\"v\":2}";
        read("f", text.as_bytes(), &mapping, &mut out).unwrap();
        let batch = rx.try_recv().unwrap();
        assert_eq!(tidemill_engine::row::ts(&batch), [1_398_902_401_787_000_000; 2]);
    }
}
