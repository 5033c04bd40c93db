//! Where a backtest's rows go: into memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use async_trait::async_trait;
use tidemill_engine::component::SinkPlan;
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::memory::{CollectSink, Collected};
use tidemill_engine::plan::{Body, Exchange, Plan};
use tidemill_engine::row;
use tidemill_engine::sink::{Delivery, FlushPolicy, Placement, Sink, SinkContext, SinkWriter};

use super::graph::{PRICES, TAP};

/// How far apart prices of the benchmark are kept.
pub const PRICE_GRID_NS: i64 = 60_000_000_000;

/// Prices at the ends of grid intervals: `(time of the last price, price)`.
pub type Prices = Vec<(i64, f64)>;

/// The memory that taps write to.
#[derive(Default)]
pub struct Taps {
    rows: BTreeMap<String, (SchemaRef, Collected)>,
    prices: Vec<Arc<Mutex<Prices>>>,
}

impl Taps {
    /// Opens the taps of a plan; `benchmark` is the symbol whose prices are kept.
    pub fn open(plan: &mut Plan, benchmark: Option<&str>) -> Self {
        let mut taps = Self::default();
        for node in &mut plan.nodes {
            let Body::Sink { plan: sink } = &mut node.body else { continue };
            if let Some(name) = node.name.strip_prefix(TAP) {
                let (memory, rows) = CollectSink::plan();
                *sink = memory;
                taps.rows.insert(name.to_owned(), (node.schema.clone(), rows));
            } else if let (true, Some(symbol)) = (node.name.starts_with(PRICES), benchmark) {
                let Some(columns) = PriceColumns::find(&node.schema) else { continue };
                let prices = Arc::<Mutex<Prices>>::default();
                *sink = PriceSink { columns, symbol: symbol.to_owned(), prices: prices.clone() }.plan();
                taps.prices.push(prices);
            } else {
                continue;
            }
            for edge in &mut node.inputs {
                edge.exchange = Exchange::Shard { by: Vec::new(), shards: 1 };
            }
        }
        taps
    }

    /// What has come, by node: its schema, and its rows in total order.
    pub fn rows(self) -> (BTreeMap<String, (SchemaRef, Vec<RecordBatch>)>, Prices) {
        let take =
            |rows: Collected| std::mem::take(&mut *rows.lock().unwrap_or_else(PoisonError::into_inner));
        let rows = self.rows.into_iter().map(|(name, (schema, rows))| (name, (schema, take(rows)))).collect();
        // The market stream that knows most of the symbol.
        let all = self
            .prices
            .into_iter()
            .map(|p| std::mem::take(&mut *p.lock().unwrap_or_else(PoisonError::into_inner)));
        (rows, all.max_by_key(Vec::len).unwrap_or_default())
    }
}

/// Which columns tell the price of what.
#[derive(Clone, Copy, Debug)]
struct PriceColumns {
    symbol: usize,
    price: usize,
    /// Where `price` is a bid: the ask, for the middle.
    ask: Option<usize>,
}

impl PriceColumns {
    fn find(schema: &SchemaRef) -> Option<Self> {
        let column = |name: &str| schema.index_of(name).ok();
        let symbol = column("symbol").filter(|i| *schema.field(*i).data_type() == row::symbol_type())?;
        let numeric = |i: &usize| schema.field(*i).data_type().is_numeric();
        if let Some(price) = column("price").or_else(|| column("close")).filter(numeric) {
            return Some(Self { symbol, price, ask: None });
        }
        let (bid, ask) = (column("bid").filter(numeric)?, column("ask").filter(numeric)?);
        Some(Self { symbol, price: bid, ask: Some(ask) })
    }
}

struct PriceSink {
    columns: PriceColumns,
    symbol: String,
    prices: Arc<Mutex<Prices>>,
}

impl PriceSink {
    fn plan(self) -> SinkPlan {
        SinkPlan {
            delivery: Delivery::Ordered,
            placement: Placement::Shards { count: 1, by: Vec::new() },
            flush: FlushPolicy::default(),
            sink: Arc::new(self),
        }
    }
}

#[async_trait]
impl Sink for PriceSink {
    async fn open(&self, _: SinkContext) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let (columns, symbol, prices) = (self.columns, self.symbol.clone(), self.prices.clone());
        Ok(Box::new(PriceWriter { columns, symbol, prices }))
    }
}

struct PriceWriter {
    columns: PriceColumns,
    symbol: String,
    prices: Arc<Mutex<Prices>>,
}

impl PriceWriter {
    fn take(&self, rows: &RecordBatch) -> Result<(), arrow::error::ArrowError> {
        let symbols = rows.column(self.columns.symbol).as_dictionary::<Int32Type>();
        let names = symbols.values().as_string::<i32>();
        // Rows that were held and merged may have a value under several keys.
        let wanted: Vec<bool> =
            (0..names.len()).map(|i| names.is_valid(i) && names.value(i) == self.symbol).collect();
        if !wanted.contains(&true) {
            return Ok(());
        }
        let number = |i: usize| -> Result<Float64Array, arrow::error::ArrowError> {
            Ok(cast(rows.column(i), &DataType::Float64)?.as_primitive().clone())
        };
        let price = number(self.columns.price)?;
        let ask = self.columns.ask.map(number).transpose()?;
        let mut prices = self.prices.lock().unwrap_or_else(PoisonError::into_inner);
        let (ts, keys) = (row::ts(rows), symbols.keys());
        for i in 0..rows.num_rows() {
            if keys.is_null(i) || !wanted[keys.value(i) as usize] || price.is_null(i) {
                continue;
            }
            let mut value = price.value(i);
            if let Some(ask) = &ask {
                if ask.is_null(i) || ask.value(i) <= 0.0 {
                    continue;
                }
                value = (value + ask.value(i)) / 2.0;
            }
            if !value.is_finite() || value <= 0.0 {
                continue;
            }
            // The very first price stays: it is what the benchmark is bought at.
            let bought = prices.len() <= 1;
            match prices.last_mut() {
                Some(last) if !bought && interval(last.0) == interval(ts[i]) => {
                    *last = (ts[i], value);
                }
                _ => prices.push((ts[i], value)),
            }
        }
        Ok(())
    }
}

/// The interval that a time is in: its end is part of it, as of the account's periods.
fn interval(ts: i64) -> i64 {
    ts.saturating_sub(1).div_euclid(PRICE_GRID_NS)
}

#[async_trait]
impl SinkWriter for PriceWriter {
    async fn write(&mut self, rows: RecordBatch) -> Result<(), ConnectorError> {
        self.take(&rows).map_err(|e| ConnectorError::fatal("the benchmark's prices", e))
    }

    async fn flush(&mut self, _: i64) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_symbol_may_stand_under_several_keys() {
        let fields =
            [Field::new("symbol", row::symbol_type(), true), Field::new("price", DataType::Float64, true)];
        let schema = row::stream_schema(&fields.map(Arc::new));
        let keys = Int32Array::from(vec![Some(0), Some(1), Some(2), None, Some(2), Some(0)]);
        let names = Arc::new(StringArray::from(vec!["SPY", "IBM", "SPY"]));
        let columns: Vec<arrow::array::ArrayRef> = vec![
            row::ts_array(vec![0, 1, 2, 3, PRICE_GRID_NS, PRICE_GRID_NS + 1]),
            row::u64_array(vec![1; 6]),
            row::u64_array((0..6).collect()),
            Arc::new(DictionaryArray::new(keys, names)),
            Arc::new(Float64Array::from(vec![10.0, 99.0, 11.0, 99.0, 12.0, 13.0])),
        ];
        let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let columns = PriceColumns::find(&schema).unwrap();
        let writer = PriceWriter { columns, symbol: "SPY".into(), prices: Arc::default() };
        writer.take(&rows).unwrap();
        // The price at an interval's end is the interval's last one.
        let expect = [(0, 10.0), (PRICE_GRID_NS, 12.0), (PRICE_GRID_NS + 1, 13.0)];
        assert_eq!(*writer.prices.lock().unwrap(), expect);
    }
}
