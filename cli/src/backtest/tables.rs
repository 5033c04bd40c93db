//! The tables that a backtest leaves: one Parquet file each, so that SQL can ask them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, RecordBatch, StringArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Decimal128Type, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidemill_engine::row;
use tidemill_trading::Decimal;
use tidemill_trading::money;

use super::columns::Rows;
use super::pairing::Trade;
use super::range::Range;
use super::sweep::Trial;

/// A table of the account: its name, the events that are its rows, the columns it always has.
const TABLES: [(&str, &[&str], &[&str]); 6] = [
    (
        "equity",
        &["equity"],
        &[
            "ts",
            "equity",
            "cash",
            "gross",
            "net",
            "margin",
            "realized",
            "unrealized",
            "fees_total",
            "drawdown",
        ],
    ),
    ("positions", &["position"], &["ts", "symbol", "position", "average", "realized", "unrealized", "value"]),
    (
        "fills",
        &["fill"],
        &[
            "ts",
            "symbol",
            "order_id",
            "fill_id",
            "side",
            "fill_price",
            "fill_quantity",
            "fee",
            "fee_currency",
            "liquidity",
            "realized",
            "position",
            "average",
        ],
    ),
    (
        "orders",
        &["order", "modify", "cancel", "status"],
        &[
            "ts",
            "event",
            "symbol",
            "order_id",
            "side",
            "type",
            "time_in_force",
            "quantity",
            "price",
            "stop",
            "status",
            "reason",
        ],
    ),
    ("rejections", &["rejection"], &["ts", "symbol", "side", "quantity", "rule", "detail"]),
    ("events", &["cash", "state", "alert"], &["ts", "event", "symbol", "reason", "detail"]),
];

/// Writes the tables of an account's rows in `range`; gives their paths.
pub fn write(folder: &Path, rows: &Rows, trades: &[Trade], range: Range) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let event = rows.text("event");
    for (name, events, columns) in TABLES {
        let ts = rows.ts();
        let chosen: BooleanArray = (0..rows.len())
            .map(|i| {
                Some((range.0..range.1).contains(&ts[i]) && event.get(i).is_some_and(|e| events.contains(&e)))
            })
            .collect();
        let batch = filter_record_batch(rows.batch(), &chosen)?;
        paths.push(save(folder, name, &project(&batch, columns)?)?);
    }
    paths.push(save(folder, "trades", &self::trades(trades)?)?);
    Ok(paths)
}

/// Writes rows as they are, less the engine's own columns.
pub fn keep(folder: &Path, name: &str, batch: &RecordBatch) -> anyhow::Result<PathBuf> {
    let all: Vec<&str> = batch
        .schema_ref()
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .filter(|n| !n.starts_with('_'))
        .collect();
    save(folder, name, &project(batch, &all)?)
}

/// The columns named, and any other that holds something.
fn project(batch: &RecordBatch, columns: &[&str]) -> anyhow::Result<RecordBatch> {
    let schema = batch.schema();
    let named = columns.iter().filter_map(|name| schema.index_of(name).ok());
    let mut kept: Vec<usize> = named.collect();
    for (i, field) in schema.fields().iter().enumerate() {
        let own = field.name().starts_with('_') || field.name() == "event";
        if !own && !kept.contains(&i) && batch.column(i).null_count() < batch.num_rows() {
            kept.push(i);
        }
    }
    Ok(batch.project(&kept)?)
}

/// Digits after the point of exact columns, where all values have no more: the product of two such columns still fits SQL's
/// 38 digits, that of two columns with 18 does not.
const SCALE: i8 = 8;

/// Exact columns with no more digits than they need.
fn slim(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let cut = 10i128.pow(money::WIRE_SCALE - SCALE as u32);
    let mut fields: Vec<Field> = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let exact = array.as_primitive_opt::<Decimal128Type>().filter(|_| *field.data_type() == wire_type());
        let (field, array) = match exact {
            Some(exact) if exact.iter().flatten().all(|v| v % cut == 0) => {
                let slim =
                    exact.unary::<_, Decimal128Type>(|v| v / cut).with_precision_and_scale(38, SCALE)?;
                let field = field.as_ref().clone().with_data_type(DataType::Decimal128(38, SCALE));
                (field, Arc::new(slim) as ArrayRef)
            }
            _ => (field.as_ref().clone(), array.clone()),
        };
        fields.push(field);
        arrays.push(array);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn wire_type() -> DataType {
    DataType::Decimal128(38, money::WIRE_SCALE as i8)
}

/// Writes a file whole, or not at all.
fn save(folder: &Path, name: &str, batch: &RecordBatch) -> anyhow::Result<PathBuf> {
    let batch = &slim(batch)?;
    let path = folder.join(format!("{name}.parquet"));
    let staged = folder.join(format!(".{name}.parquet.part"));
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let write = || -> anyhow::Result<()> {
        let mut writer = ArrowWriter::try_new(File::create(&staged)?, batch.schema(), Some(properties))?;
        writer.write(batch)?;
        writer.close()?;
        std::fs::rename(&staged, &path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn time(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), false)
}

fn exact(name: &str, values: impl Iterator<Item = Decimal>) -> anyhow::Result<(Field, ArrayRef)> {
    // Averages have more digits than the wire takes: what is beyond is cut off.
    let wire = values.map(|v| money::to_wire(v.round_dp(money::WIRE_SCALE)));
    let scale = money::WIRE_SCALE as i8;
    let array = wire.collect::<Decimal128Array>().with_precision_and_scale(38, scale)?;
    Ok((Field::new(name, wire_type(), true), Arc::new(array)))
}

fn text<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> (Field, ArrayRef) {
    (Field::new(name, DataType::Utf8, false), Arc::new(StringArray::from_iter_values(values)))
}

fn numbers(name: &str, values: impl Iterator<Item = Option<f64>>) -> (Field, ArrayRef) {
    (Field::new(name, DataType::Float64, true), Arc::new(values.collect::<Float64Array>()))
}

fn batch(columns: Vec<(Field, ArrayRef)>) -> anyhow::Result<RecordBatch> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn trades(trades: &[Trade]) -> anyhow::Result<RecordBatch> {
    let times = |of: fn(&Trade) -> i64| row::ts_array(trades.iter().map(of).collect());
    batch(vec![
        (time("opened_at"), times(|t| t.opened_at)),
        (time("closed_at"), times(|t| t.closed_at)),
        text("symbol", trades.iter().map(|t| t.symbol.as_str())),
        text("side", trades.iter().map(|t| if t.long { "long" } else { "short" })),
        exact("quantity", trades.iter().map(|t| t.quantity))?,
        exact("entry", trades.iter().map(|t| t.entry))?,
        exact("exit", trades.iter().map(|t| t.exit))?,
        exact("gross", trades.iter().map(|t| t.gross))?,
        exact("fees", trades.iter().map(|t| t.fees))?,
        exact("net", trades.iter().map(Trade::net))?,
        text("entry_order", trades.iter().map(|t| t.entry_order.as_str())),
        text("exit_order", trades.iter().map(|t| t.exit_order.as_str())),
    ])
}

/// The results of a sweep: a row a point, its variables (numbers where all are) and its figures.
pub fn sweep(folder: &Path, trials: &[Trial]) -> anyhow::Result<PathBuf> {
    let mut columns = Vec::new();
    let names: Vec<&str> =
        trials.first().map_or(Vec::new(), |t| t.task.sets.iter().map(|s| s.0.as_str()).collect());
    for (i, name) in names.iter().enumerate() {
        let values = || trials.iter().map(|t| t.task.sets[i].1.as_str());
        let parsed: Vec<Option<f64>> = values().map(|v| v.parse().ok()).collect();
        columns.push(match parsed.iter().all(Option::is_some) {
            true => numbers(name, parsed.into_iter()),
            false => text(name, values()),
        });
    }
    let mut figures: Vec<&str> = Vec::new();
    for summary in trials.iter().filter_map(|t| t.outcome.as_ref().ok()) {
        for figure in &summary.figures {
            if !figures.contains(&figure.name) {
                figures.push(figure.name);
            }
        }
    }
    // A variable of a figure's name keeps it.
    for figure in figures.into_iter().filter(|f| !names.contains(f)) {
        columns.push(numbers(figure, trials.iter().map(|t| t.get(figure))));
    }
    let errors: StringArray = trials.iter().map(|t| t.outcome.as_ref().err().map(String::as_str)).collect();
    columns.push((Field::new("error", DataType::Utf8, true), Arc::new(errors)));
    save(folder, "sweep", &batch(columns)?)
}

/// The folds of a walk-forward: a row a fold.
pub fn folds(folder: &Path, walk: &super::walk_forward::Walk, metric: &str) -> anyhow::Result<PathBuf> {
    let times = |of: &dyn Fn(&super::folds::Fold) -> i64| {
        row::ts_array(walk.folds.iter().map(|f| of(&f.fold)).collect())
    };
    let of = |trial: &Option<Trial>, name: &str| trial.as_ref().and_then(|t| t.get(name));
    let chosen: Vec<String> = walk.folds.iter().map(|f| chosen(&f.train)).collect();
    batch(vec![
        (time("train_from"), times(&|f| f.train.0)),
        (time("train_to"), times(&|f| f.train.1)),
        (time("test_from"), times(&|f| f.test.0)),
        (time("test_to"), times(&|f| f.test.1)),
        text("chosen", chosen.iter().map(String::as_str)),
        numbers("train_metric", walk.folds.iter().map(|f| of(&f.train, metric))),
        numbers("test_metric", walk.folds.iter().map(|f| of(&f.test, metric))),
        numbers("test_return", walk.folds.iter().map(|f| of(&f.test, "total_return"))),
        numbers("test_sharpe", walk.folds.iter().map(|f| of(&f.test, "sharpe"))),
        numbers("test_max_drawdown", walk.folds.iter().map(|f| of(&f.test, "max_drawdown"))),
        numbers("test_trades", walk.folds.iter().map(|f| of(&f.test, "trades"))),
    ])
    .and_then(|batch| save(folder, "folds", &batch))
}

/// The variables of a trial: `fast=5 slow=20`.
pub fn chosen(trial: &Option<Trial>) -> String {
    let sets = trial.iter().flat_map(|t| &t.task.sets);
    sets.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}
