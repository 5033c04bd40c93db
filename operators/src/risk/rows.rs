//! Figures as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int64Builder, RecordBatch, StringDictionaryBuilder};
use arrow::datatypes::{DataType, Field, Int32Type};
use tidemill_engine::operator::{OperatorError, Output};
use tidemill_engine::row;

/// Columns beside the engine's own.
pub(super) fn fields() -> Vec<Arc<Field>> {
    let field = |name: &str, t: DataType, nullable: bool| Arc::new(Field::new(name, t, nullable));
    vec![
        field("measure", row::symbol_type(), false),
        field("method", row::symbol_type(), true),
        field("level", DataType::Float64, true),
        field("horizon", DataType::Int64, true),
        field("symbol", row::symbol_type(), true),
        field("other", row::symbol_type(), true),
        field("value", DataType::Float64, false),
        field("fraction", DataType::Float64, true),
    ]
}

/// What a figure is of; what doesn't apply is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Of<'a> {
    pub method: Option<&'a str>,
    pub level: Option<f64>,
    pub horizon: Option<u32>,
    pub symbol: Option<&'a str>,
    pub other: Option<&'a str>,
    /// By what `value` is divided for `fraction`.
    pub equity: Option<f64>,
}

/// Rows on their way out.
#[derive(Default)]
pub(super) struct Rows {
    ts: Vec<i64>,
    src: Vec<u64>,
    seq: Vec<u64>,
    measure: StringDictionaryBuilder<Int32Type>,
    method: StringDictionaryBuilder<Int32Type>,
    level: Float64Builder,
    horizon: Int64Builder,
    symbol: StringDictionaryBuilder<Int32Type>,
    other: StringDictionaryBuilder<Int32Type>,
    value: Float64Builder,
    fraction: Float64Builder,
}

impl Rows {
    /// Adds a figure; one that is not a finite number is left out.
    pub fn push(&mut self, (ts, src, seq): (i64, u64, u64), measure: &str, of: Of<'_>, value: f64) {
        if !value.is_finite() {
            return;
        }
        // Without a sign: a nought is a nought.
        let value = value + 0.0;
        self.ts.push(ts);
        self.src.push(src);
        self.seq.push(seq);
        self.measure.append_value(measure);
        self.method.append_option(of.method);
        self.level.append_option(of.level);
        self.horizon.append_option(of.horizon.map(i64::from));
        self.symbol.append_option(of.symbol);
        self.other.append_option(of.other);
        self.value.append_value(value);
        let equity = of.equity.filter(|equity| *equity > 0.0);
        self.fraction.append_option(equity.map(|equity| value / equity).filter(|f| f.is_finite()));
    }

    /// Sends what there is.
    pub fn send(&mut self, out: &mut Output) -> Result<(), OperatorError> {
        if self.ts.is_empty() {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = vec![
            row::ts_array(std::mem::take(&mut self.ts)),
            row::u64_array(std::mem::take(&mut self.src)),
            row::u64_array(std::mem::take(&mut self.seq)),
            Arc::new(self.measure.finish()),
            Arc::new(self.method.finish()),
            Arc::new(self.level.finish()),
            Arc::new(self.horizon.finish()),
            Arc::new(self.symbol.finish()),
            Arc::new(self.other.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.fraction.finish()),
        ];
        out.push(RecordBatch::try_new(out.schema().clone(), columns)?);
        Ok(())
    }
}
