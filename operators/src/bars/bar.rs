//! One key's bar while it grows, and finished bars on their way out.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};
use tidemill_engine::keys::Keys;
use tidemill_engine::operator::{OperatorError, Output};
use tidemill_engine::row;

use super::grid::Interval;

/// What is kept of a key: the bar that grows, or where the last one ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bar {
    /// Its interval, `[start, end)`; equal where none is open. Only `start` where bars end by size.
    pub start: i64,
    pub end: i64,
    /// Rows in it; zero in an interval that has had none yet.
    pub trades: i64,
    pub open: f64,
    pub high: f64,
    pub low: f64,
    pub close: f64,
    pub volume: f64,
    /// Sum of price times size.
    pub notional: f64,
    /// The last row that went in.
    pub src: u64,
    pub seq: u64,
    /// Empty bars since the last trade.
    pub empties: u32,
}

impl Default for Bar {
    fn default() -> Self {
        Self {
            start: i64::MIN,
            end: i64::MIN,
            trades: 0,
            open: 0.0,
            high: 0.0,
            low: 0.0,
            close: 0.0,
            volume: 0.0,
            notional: 0.0,
            src: 0,
            seq: 0,
            empties: 0,
        }
    }
}

impl Bar {
    /// Whether an interval is open.
    pub fn is_open(&self) -> bool {
        self.start < self.end
    }

    /// Opens an interval without trades: its prices are the last close.
    pub fn begin(&mut self, interval: Interval) {
        (self.start, self.end) = (interval.start, interval.end);
        (self.open, self.high, self.low) = (self.close, self.close, self.close);
        (self.trades, self.volume, self.notional) = (0, 0.0, 0.0);
    }

    /// Takes the first trade.
    #[inline]
    pub fn first(&mut self, price: f64, size: f64, src: u64, seq: u64) {
        (self.open, self.high, self.low) = (price, price, price);
        (self.trades, self.volume, self.notional) = (0, 0.0, 0.0);
        self.empties = 0;
        self.add(price, size, src, seq);
    }

    /// Takes another trade.
    #[inline]
    pub fn add(&mut self, price: f64, size: f64, src: u64, seq: u64) {
        self.high = if price > self.high { price } else { self.high };
        self.low = if price < self.low { price } else { self.low };
        self.close = price;
        self.volume += size;
        self.notional += price * size;
        self.trades += 1;
        (self.src, self.seq) = (src, seq);
    }
}

/// The columns of a bar after its keys.
pub fn fields() -> Vec<Arc<Field>> {
    let float = |name: &str| Arc::new(Field::new(name, DataType::Float64, false));
    vec![
        Arc::new(Field::new("start", row::ts_type(), false)),
        float("open"),
        float("high"),
        float("low"),
        float("close"),
        float("volume"),
        Arc::new(Field::new("vwap", DataType::Float64, true)),
        Arc::new(Field::new("trades", DataType::Int64, false)),
    ]
}

/// Finished bars, column by column.
#[derive(Debug, Default)]
pub struct Finished {
    slots: Vec<u32>,
    ts: Vec<i64>,
    src: Vec<u64>,
    seq: Vec<u64>,
    start: Vec<i64>,
    prices: [Vec<f64>; 4],
    volume: Vec<f64>,
    vwap: Vec<f64>,
    trades: Vec<i64>,
}

impl Finished {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a bar.
    pub fn push(&mut self, slot: u32, ts: i64, bar: &Bar) {
        self.slots.push(slot);
        self.ts.push(ts);
        self.src.push(bar.src);
        self.seq.push(bar.seq);
        self.start.push(bar.start);
        for (column, value) in self.prices.iter_mut().zip([bar.open, bar.high, bar.low, bar.close]) {
            column.push(value);
        }
        self.volume.push(bar.volume);
        self.vwap.push(if bar.volume > 0.0 { bar.notional / bar.volume } else { f64::NAN });
        self.trades.push(bar.trades);
    }

    /// Sends them on.
    pub fn flush(&mut self, keys: &Keys, out: &mut Output) -> Result<(), OperatorError> {
        if self.slots.is_empty() {
            return Ok(());
        }
        let done = std::mem::take(self);
        let mut columns: Vec<ArrayRef> =
            vec![row::ts_array(done.ts), row::u64_array(done.src), row::u64_array(done.seq)];
        columns.extend(keys.columns(&done.slots)?);
        columns.push(row::ts_array(done.start));
        columns.extend(done.prices.into_iter().map(|c| Arc::new(Float64Array::from(c)) as ArrayRef));
        columns.push(Arc::new(Float64Array::from(done.volume)));
        columns.push(crate::columns::nullable(done.vwap));
        columns.push(Arc::new(Int64Array::from(done.trades)));
        out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        Ok(())
    }
}
