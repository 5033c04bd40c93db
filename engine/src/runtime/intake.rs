//! Turns a partition's chunks into stream rows: event time, origin, the late-row policy, rejects.
//!
//! A row is late when it is older than the newest row before it in its partition by more than
//! `max_out_of_orderness`. That is a property of the partition's log alone, so a replay decides the same.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampNanosecondType};
use arrow::error::ArrowError;

use crate::dead_letter::DeadLetter;
use crate::row;
use crate::source::{Chunk, Seqs};
use crate::spec::{LatePolicy, SourceOptions};

/// How a source's rows are made, for all its partitions.
#[derive(Clone, Debug)]
pub struct Intake {
    schema: SchemaRef,
    /// Index of the event time among the source's columns.
    event_time: usize,
    /// Of each user column of the stream, its index among the source's columns.
    columns: Vec<usize>,
    unit_ns: i64,
    out_of_orderness_ns: i64,
    late: LatePolicy,
    ts_min: i64,
    ts_max: i64,
}

/// What a chunk became.
#[derive(Debug)]
pub struct Taken {
    /// Stream rows; their `ts` is never below the partition's watermark before each of them.
    pub rows: RecordBatch,
    /// Input that could not become a row, in order.
    pub refused: Vec<DeadLetter>,
    /// Late rows that go to the dead letters by choice.
    pub diverted: Vec<DeadLetter>,
    /// Late rows, whatever became of them.
    pub late: u64,
    /// Newest event time seen by the partition.
    pub max_ts: i64,
}

impl Intake {
    /// For a source with `columns` and `options`, into a stream of `schema`.
    pub fn new(
        columns: &SchemaRef,
        schema: &SchemaRef,
        options: &SourceOptions,
        ts_range: (i64, i64),
    ) -> Result<Self, ArrowError> {
        let event_time = columns.index_of(&options.event_time)?;
        let user = schema.fields().iter().skip(row::SYSTEM_COLUMNS);
        Ok(Self {
            event_time,
            columns: user.map(|f| columns.index_of(f.name())).collect::<Result<_, _>>()?,
            schema: schema.clone(),
            unit_ns: options.event_time_unit.nanoseconds(),
            out_of_orderness_ns: options.max_out_of_orderness.ns(),
            late: options.late,
            ts_min: ts_range.0,
            ts_max: ts_range.1,
        })
    }

    /// The same for rows that may come so far out of order.
    pub fn bounded_by(&self, ns: i64) -> Self {
        Self { out_of_orderness_ns: ns, ..self.clone() }
    }

    /// How far out of order rows may come, nanoseconds.
    pub fn out_of_orderness_ns(&self) -> i64 {
        self.out_of_orderness_ns
    }

    /// The watermark of a partition whose newest row is at `max_ts`.
    pub fn watermark(&self, max_ts: i64) -> i64 {
        if max_ts == i64::MIN { i64::MIN } else { max_ts.saturating_sub(self.out_of_orderness_ns) }
    }

    /// The newest time of a partition whose watermark is at least `floor`.
    pub fn raise(&self, max_ts: i64, floor: i64) -> i64 {
        if self.watermark(max_ts) >= floor { max_ts } else { floor.saturating_add(self.out_of_orderness_ns) }
    }

    /// Event times in nanoseconds; `None` where there is none in range.
    fn event_times(&self, column: &ArrayRef) -> Result<(Vec<i64>, Option<Vec<bool>>), ArrowError> {
        let (values, nulls) = match column.data_type() {
            t if t.is_integer() => {
                let ints = cast(column, &DataType::Int64)?;
                let ints = ints.as_primitive::<Int64Type>();
                let scaled: Vec<i64> =
                    ints.values().iter().map(|v| v.checked_mul(self.unit_ns).unwrap_or(i64::MAX)).collect();
                (scaled, ints.nulls().cloned())
            }
            _ => {
                let times = cast(column, &row::ts_type())?;
                let times = times.as_primitive::<TimestampNanosecondType>();
                (times.values().to_vec(), times.nulls().cloned())
            }
        };
        let in_range = |ts: i64| (self.ts_min..self.ts_max).contains(&ts);
        let good = nulls.is_none() && values.iter().all(|ts| in_range(*ts));
        if good {
            return Ok((values, None));
        }
        let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
        let mask = values.iter().enumerate().map(|(i, ts)| valid(i) && in_range(*ts)).collect();
        Ok((values, Some(mask)))
    }

    /// Takes a chunk of the partition with this origin, whose newest row so far was at `max_ts`.
    pub fn take(&self, chunk: Chunk, origin: u64, max_ts: i64) -> Result<Taken, ArrowError> {
        let rows = chunk.rows.num_rows();
        let (mut times, valid) = self.event_times(chunk.rows.column(self.event_time))?;
        let seqs = match chunk.seqs {
            Seqs::From(first) => UInt64Array::from_iter_values(first..first + rows as u64),
            Seqs::List(list) => UInt64Array::from(list),
        };
        let letter_ts = |max: i64| self.watermark(max).max(self.ts_min);
        let mut refused = Vec::new();
        let mut diverted = Vec::new();
        let mut late = 0;
        let mut keep: Option<Vec<bool>> = None;
        let mut newest = max_ts;
        let in_order = self.out_of_orderness_ns == 0
            && valid.is_none()
            && chunk.rejects.is_empty()
            && times.first().is_none_or(|first| *first >= max_ts)
            && times.is_sorted();
        if in_order {
            newest = times.last().copied().unwrap_or(max_ts);
        } else {
            let mut rejects = chunk.rejects.iter().peekable();
            let mut mask = vec![true; rows];
            for row in 0..=rows {
                while let Some(reject) = rejects.next_if(|r| r.before <= row) {
                    refused.push(DeadLetter {
                        ts: letter_ts(newest),
                        seq: reject.seq,
                        reason: reject.reason.clone(),
                        key: reject.key.clone(),
                        raw: reject.raw.clone(),
                    });
                }
                if row == rows {
                    break;
                }
                let ts = times[row];
                if valid.as_ref().is_some_and(|v| !v[row]) {
                    mask[row] = false;
                    refused.push(self.letter(
                        &chunk.rows,
                        row,
                        seqs.value(row),
                        letter_ts(newest),
                        self.range_reason(&chunk.rows, row),
                    ));
                    continue;
                }
                let watermark = self.watermark(newest);
                if ts < watermark {
                    late += 1;
                    match self.late {
                        LatePolicy::Admit => times[row] = watermark,
                        LatePolicy::Drop => mask[row] = false,
                        LatePolicy::Divert => {
                            mask[row] = false;
                            let reason = format!(
                                "late: {} behind the newest row",
                                crate::duration::Span::from_ns(newest - ts)
                            );
                            diverted.push(self.letter(
                                &chunk.rows,
                                row,
                                seqs.value(row),
                                letter_ts(newest),
                                reason,
                            ));
                        }
                    }
                }
                newest = newest.max(ts);
            }
            keep = mask.contains(&false).then_some(mask);
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        columns.push(row::ts_array(times));
        columns.push(Arc::new(UInt64Array::from_value(origin, rows)));
        columns.push(Arc::new(seqs));
        columns.extend(self.columns.iter().map(|c| chunk.rows.column(*c).clone()));
        let mut batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        if let Some(mask) = keep {
            batch = filter_record_batch(&batch, &BooleanArray::from(mask))?;
        }
        Ok(Taken { rows: batch, refused, diverted, late, max_ts: newest })
    }

    fn range_reason(&self, rows: &RecordBatch, row: usize) -> String {
        let column = rows.column(self.event_time);
        let name = rows.schema_ref().field(self.event_time).name().clone();
        if column.is_null(row) {
            return format!("{name}: the event time is missing");
        }
        let text = arrow::util::display::array_value_to_string(column, row).unwrap_or_default();
        format!("{name}: {text} is outside ts_min and ts_max")
    }

    /// A decoded row as a dead letter: its columns as JSON text.
    fn letter(&self, rows: &RecordBatch, row: usize, seq: u64, ts: i64, reason: String) -> DeadLetter {
        let mut fields = serde_json::Map::new();
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let value = match column.is_null(row) {
                true => serde_json::Value::Null,
                false => {
                    let text = arrow::util::display::array_value_to_string(column, row).unwrap_or_default();
                    match field.data_type().is_numeric() {
                        true => serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
                        false => serde_json::Value::String(text),
                    }
                }
            };
            fields.insert(field.name().clone(), value);
        }
        DeadLetter {
            ts,
            seq,
            reason,
            key: None,
            raw: serde_json::Value::Object(fields).to_string().into_bytes(),
        }
    }
}

/// Rows with every `ts` below `watermark` raised to it, and how many those are.
pub fn lift(rows: RecordBatch, watermark: i64) -> Result<(RecordBatch, u64), ArrowError> {
    let late = row::ts(&rows).iter().filter(|ts| **ts < watermark).count() as u64;
    if late == 0 {
        return Ok((rows, 0));
    }
    let times = row::ts(&rows).iter().map(|ts| (*ts).max(watermark)).collect();
    let mut columns = rows.columns().to_vec();
    columns[0] = row::ts_array(times);
    Ok((RecordBatch::try_new(rows.schema(), columns)?, late))
}
