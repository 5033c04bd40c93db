//! The columns that venue histories fill: those of the venue feeds' tables (see
//! [`venue::tables`](crate::venue::tables)), so that history and what comes live fit together.
//!
//! History was never received: its `received_at` equals `ts`, so that rows are a function of the venue's
//! history and not of the day on which it was fetched.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use tidemill_engine::row;

fn fields(table: Vec<Field>) -> SchemaRef {
    let mut all = vec![
        Field::new(row::TS, row::ts_type(), false),
        Field::new("venue", row::symbol_type(), false),
        Field::new("symbol", row::symbol_type(), false),
    ];
    all.extend(table);
    all.push(Field::new("received_at", row::ts_type(), false));
    Arc::new(Schema::new(all))
}

/// The columns of trades.
pub fn trades_schema() -> SchemaRef {
    fields(vec![
        Field::new("trade_id", DataType::Int64, true),
        Field::new("price", DataType::Float64, false),
        Field::new("size", DataType::Float64, false),
        Field::new("side", row::symbol_type(), true),
    ])
}

/// The columns of bars.
pub fn bars_schema() -> SchemaRef {
    fields(vec![
        Field::new("start", row::ts_type(), false),
        Field::new("open", DataType::Float64, false),
        Field::new("high", DataType::Float64, false),
        Field::new("low", DataType::Float64, false),
        Field::new("close", DataType::Float64, false),
        Field::new("volume", DataType::Float64, false),
        Field::new("trades", DataType::Int64, true),
        Field::new("closed", DataType::Boolean, false),
    ])
}

/// A column of one text, dictionary-encoded.
pub fn constant(text: &str, n: usize) -> ArrayRef {
    let values: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let keys = Int32Array::from(vec![0; n]);
    Arc::new(DictionaryArray::<Int32Type>::try_new(keys, values).expect("key 0 is the one value's"))
}

/// A trade as a venue's history tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trade {
    /// Nanoseconds since the epoch.
    pub ts: i64,
    /// The venue's number of it.
    pub id: i64,
    /// Price.
    pub price: f64,
    /// Size.
    pub size: f64,
    /// Whether the taker bought.
    pub taker_bought: bool,
}

/// Trades into the columns of [`trades_schema`].
pub fn trades(venue: &str, symbol: &str, rows: &[Trade]) -> RecordBatch {
    let n = rows.len();
    let ts = row::ts_array(rows.iter().map(|t| t.ts).collect());
    let sides: ArrayRef = Arc::new(StringArray::from(vec!["buy", "sell"]));
    let side = Int32Array::from_iter_values(rows.iter().map(|t| i32::from(!t.taker_bought)));
    let side = DictionaryArray::<Int32Type>::try_new(side, sides).expect("keys are 0 and 1 of two values");
    let columns: Vec<ArrayRef> = vec![
        ts.clone(),
        constant(venue, n),
        constant(symbol, n),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|t| t.id))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|t| t.price))),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|t| t.size))),
        Arc::new(side),
        ts,
    ];
    RecordBatch::try_new(trades_schema(), columns).expect("columns of the schema's types, n values each")
}

/// A bar as a venue's history tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// Its start, nanoseconds since the epoch.
    pub start: i64,
    /// Open, high, low, close.
    pub prices: [f64; 4],
    /// Volume.
    pub volume: f64,
    /// How many trades.
    pub trades: Option<i64>,
    /// Its end, nanoseconds: the row's `ts`.
    pub end: i64,
}

/// Closed bars into the columns of [`bars_schema`]; a bar's `ts` is its end.
pub fn bars(venue: &str, symbol: &str, rows: &[Bar]) -> RecordBatch {
    let n = rows.len();
    let ts = row::ts_array(rows.iter().map(|b| b.end).collect());
    let price =
        |i: usize| -> ArrayRef { Arc::new(Float64Array::from_iter_values(rows.iter().map(|b| b.prices[i]))) };
    let columns: Vec<ArrayRef> = vec![
        ts.clone(),
        constant(venue, n),
        constant(symbol, n),
        row::ts_array(rows.iter().map(|b| b.start).collect()),
        price(0),
        price(1),
        price(2),
        price(3),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|b| b.volume))),
        Arc::new(rows.iter().map(|b| b.trades).collect::<Int64Array>()),
        Arc::new(BooleanArray::from(vec![true; n])),
        ts,
    ];
    RecordBatch::try_new(bars_schema(), columns).expect("columns of the schema's types, n values each")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::tables;

    #[test]
    fn the_columns_are_those_of_the_feeds() {
        assert_eq!(trades_schema(), tables::trades::Trades::new("x").schema());
        assert_eq!(bars_schema(), tables::bars::Bars::new("x").schema());
        let trade = Trade { ts: 5, id: 7, price: 1.5, size: 2.0, taker_bought: false };
        let rows = trades("kraken", "BTC/USD", &[trade]);
        assert_eq!(row::text(rows.column(6), 0), Some("sell"));
        assert_eq!(row::text(rows.column(1), 0), Some("kraken"));
    }
}
