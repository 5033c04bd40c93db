//! Against books kept as sorted maps of whole ticks, and formulas written out once more.

use std::collections::BTreeMap;

use arrow::array::{BooleanArray, Float64Builder, ListBuilder};
use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};

use super::*;
use crate::check::{Rng, check, numbers, plan, stream, symbols, whole};

const SYMBOLS: [&str; 3] = ["BTC", "ETH", "€"];

/// Ticks of a quarter, and whole sizes: exact in floats.
#[derive(Clone, Debug, Default)]
struct Truth {
    known: bool,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    /// Best bid and ask of the message before.
    before: Option<[i64; 4]>,
}

impl Truth {
    fn bids(&self) -> Vec<(i64, i64)> {
        self.bids.iter().rev().map(|(p, s)| (*p, *s)).collect()
    }

    fn asks(&self) -> Vec<(i64, i64)> {
        self.asks.iter().map(|(p, s)| (*p, *s)).collect()
    }

    fn set(&mut self, bid: bool, tick: i64, size: i64) {
        let side = if bid { &mut self.bids } else { &mut self.asks };
        if size == 0 {
            side.remove(&tick);
        } else {
            side.insert(tick, size);
        }
    }

    fn touch(&self) -> Option<[i64; 4]> {
        let ((b, bs), (a, s)) = (*self.bids().first()?, *self.asks().first()?);
        Some([b, bs, a, s])
    }
}

fn price(tick: i64) -> f64 {
    tick as f64 * 0.25
}

fn shown(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or("null".into(), |v| format!("{v:?}"))
}

/// Taking `size` unit by unit.
fn taken(side: &[(i64, i64)], size: i64) -> Option<f64> {
    let units: Vec<i64> = side.iter().flat_map(|(p, s)| vec![*p; *s as usize]).take(size as usize).collect();
    (units.len() as i64 == size).then(|| units.iter().map(|p| price(*p)).sum::<f64>() / size as f64)
}

/// Expected cells of `mid, spread, spread_bps, microprice, imbalance_2, depth 500 bps, ofi, vwap 7`; `cut`: levels that are shown.
fn expected(truth: &mut Truth, cut: Option<usize>) -> Vec<String> {
    let touch = truth.touch();
    let (mut bids, mut asks) = (truth.bids(), truth.asks());
    let whole = cut.is_none();
    bids.truncate(cut.unwrap_or(usize::MAX));
    asks.truncate(cut.unwrap_or(usize::MAX));
    let mut cells = Vec::new();
    let mid = touch.map(|[b, _, a, _]| (price(b) + price(a)) / 2.0);
    cells.push(mid);
    let spread = touch.map(|[b, _, a, _]| price(a) - price(b));
    cells.push(spread);
    cells.push(spread.zip(mid).map(|(s, m)| s / m * 1e4));
    cells.push(touch.map(|[b, bs, a, s]| (price(b) * s as f64 + price(a) * bs as f64) / (bs + s) as f64));
    let two = |side: &[(i64, i64)]| {
        (whole || side.len() >= 2).then(|| side.iter().take(2).map(|(_, s)| s).sum::<i64>() as f64)
    };
    cells.push(two(&bids).zip(two(&asks)).map(|(b, a)| (b - a) / (b + a)));
    let depth = |side: &[(i64, i64)], inside: &dyn Fn(f64) -> bool| {
        let within: Vec<i64> = side.iter().filter(|(p, _)| inside(price(*p))).map(|(_, s)| *s).collect();
        (whole || within.len() < side.len()).then(|| within.iter().sum::<i64>() as f64)
    };
    cells.push(mid.and_then(|m| depth(&bids, &|p| p >= m * (1.0 - 0.05))));
    cells.push(mid.and_then(|m| depth(&asks, &|p| p <= m * (1.0 + 0.05))));
    let flow = truth.before.zip(touch).map(|([b0, bs0, a0, s0], [b, bs, a, s])| {
        let bid = match b.cmp(&b0) {
            std::cmp::Ordering::Greater => bs,
            std::cmp::Ordering::Equal => bs - bs0,
            std::cmp::Ordering::Less => -bs0,
        };
        let ask = match a.cmp(&a0) {
            std::cmp::Ordering::Less => s,
            std::cmp::Ordering::Equal => s - s0,
            std::cmp::Ordering::Greater => -s0,
        };
        (bid - ask) as f64
    });
    cells.push(flow);
    truth.before = touch;
    cells.push(taken(&asks, 7));
    cells.push(taken(&bids, 7));
    cells.into_iter().map(shown).collect()
}

const UNKNOWN: &str = "null,null,null,null,null,null,null,null,null,null";

fn all_metrics() -> Value {
    json!(["mid", "spread", "spread_bps", "microprice", { "imbalance": { "levels": 2 } },
        { "depth": { "bps": 500.0 } }, "ofi", { "vwap": { "size": 7.0 } }])
}

#[derive(Clone, Debug)]
struct Row {
    ts: i64,
    symbol: &'static str,
    event: &'static str,
    level: Option<(bool, i64, i64)>,
    last: bool,
}

fn delta_stream(rows: &[Row]) -> RecordBatch {
    let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.ts, i as u64)).collect();
    let side = |r: &Row| r.level.map(|l| if l.0 { "bid" } else { "ask" });
    let sides: arrow::array::DictionaryArray<arrow::datatypes::Int32Type> = rows.iter().map(side).collect();
    let last: BooleanArray = rows.iter().map(|r| Some(r.last)).collect();
    let fields = [
        Field::new("symbol", row::symbol_type(), false),
        Field::new("event", row::symbol_type(), false),
        Field::new("side", row::symbol_type(), true),
        Field::new("price", DataType::Float64, true),
        Field::new("size", DataType::Float64, true),
        Field::new("last", DataType::Boolean, false),
    ];
    let batch = stream(
        &at,
        vec![
            ("symbol", symbols(rows.iter().map(|r| r.symbol))),
            ("event", symbols(rows.iter().map(|r| r.event))),
            ("side", Arc::new(sides)),
            ("price", numbers(rows.iter().map(|r| r.level.map(|l| price(l.1))))),
            ("size", numbers(rows.iter().map(|r| r.level.map(|l| l.2 as f64)))),
            ("last", Arc::new(last)),
        ],
    );
    let fields: Vec<Arc<Field>> = fields.into_iter().map(Arc::new).collect();
    RecordBatch::try_new(row::stream_schema(&fields), batch.columns().to_vec()).unwrap()
}

fn level(rng: &mut Rng) -> (bool, i64, i64) {
    let bid = rng.below(2) == 0;
    let tick = if bid { 370 + rng.below(30) } else { 401 + rng.below(30) };
    (bid, tick as i64, rng.pick(&[0, 0, 1, 2, 5, 9]))
}

/// Messages of a feed and what they should give. Rows of a message stand together.
fn deltas(rng: &mut Rng) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut expect) = (Vec::new(), Vec::new());
    let mut truths: BTreeMap<&str, Truth> = BTreeMap::new();
    let mut ts = 0;
    for _ in 0..rng.below(60) {
        ts += rng.pick(&[0, 0, 1, 5, 40]);
        let symbol = rng.pick(&SYMBOLS);
        let truth = truths.entry(symbol).or_default();
        let row = Row { ts, symbol, event: "delta", level: None, last: true };
        match rng.below(10) {
            0 => {
                *truth = Truth::default();
                rows.push(Row { event: "invalid", ..row });
            }
            1 | 2 => {
                // A snapshot leaves the flow as it is: it is the next book after the one before.
                *truth = Truth { known: true, before: truth.before, ..Truth::default() };
                let levels: Vec<_> = (0..rng.below(12)).map(|_| level(rng)).filter(|l| l.2 > 0).collect();
                let n = levels.len();
                for (i, level) in levels.into_iter().enumerate() {
                    truth.set(level.0, level.1, level.2);
                    rows.push(Row { event: "snapshot", level: Some(level), last: i + 1 == n, ..row.clone() });
                }
                if n == 0 {
                    rows.push(Row { event: "snapshot", ..row });
                }
            }
            3 => rows.push(Row { event: "a new kind", last: false, ..row }),
            _ => {
                let n = 1 + rng.below(4);
                for i in 0..n {
                    let level = level(rng);
                    truth.set(level.0, level.1, level.2);
                    rows.push(Row { level: Some(level), last: i + 1 == n, ..row.clone() });
                }
            }
        }
        let at = format!("{ts},{},{symbol}", rows.len() - 1);
        if rows.last().is_some_and(|r| r.event == "a new kind") {
            continue;
        }
        if truth.known {
            expect.push(format!("{at},{}", expected(truth, None).join(",")));
        } else {
            *truth = Truth::default();
            expect.push(format!("{at},{UNKNOWN}"));
        }
    }
    (rows, expect)
}

#[test]
fn deltas_give_what_sorted_maps_give_whole_split_restored_and_rescaled() {
    for seed in 0..200 {
        let rng = &mut Rng(seed);
        let (rows, expect) = deltas(rng);
        let input = delta_stream(&rows);
        let with = json!({ "by": ["symbol"], "metrics": all_metrics() });
        let plan = plan::<BookMetrics>(with, &[input.schema()]).unwrap();
        check(&plan, &[input], expect, seed);
    }
}

/// Books of one row each, cut at three levels; some not valid.
fn snapshots(rng: &mut Rng) -> (RecordBatch, Vec<String>) {
    let (mut at, mut names, mut valid, mut expect) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut lists: [ListBuilder<Float64Builder>; 4] = Default::default();
    let mut truths: BTreeMap<&str, Truth> = BTreeMap::new();
    let mut ts = 0;
    for i in 0..rng.below(80) as u64 {
        ts += rng.pick(&[0, 1, 7]);
        let symbol = rng.pick(&SYMBOLS);
        let truth = truths.entry(symbol).or_default();
        (0..1 + rng.below(6)).for_each(|_| {
            let level = level(rng);
            truth.set(level.0, level.1, level.2);
        });
        let ok = rng.below(8) > 0;
        let sides = if ok { [truth.bids(), truth.asks()] } else { [vec![], vec![]] };
        for (side, lists) in sides.iter().zip(lists.chunks_exact_mut(2)) {
            for (tick, size) in side.iter().take(3) {
                lists[0].values().append_value(price(*tick));
                lists[1].values().append_value(*size as f64);
            }
            lists.iter_mut().for_each(|list| list.append(true));
        }
        at.push((ts, i));
        names.push(symbol);
        valid.push(Some(ok));
        if ok {
            expect.push(format!("{ts},{i},{symbol},{}", expected(truth, Some(3)).join(",")));
        } else {
            truth.before = None;
            expect.push(format!("{ts},{i},{symbol},{UNKNOWN}"));
        }
    }
    let [bp, bs, ap, asz] = &mut lists;
    let input = stream(
        &at,
        vec![
            ("symbol", symbols(names)),
            ("valid", Arc::new(valid.into_iter().collect::<BooleanArray>())),
            ("bid_prices", Arc::new(bp.finish())),
            ("bid_sizes", Arc::new(bs.finish())),
            ("ask_prices", Arc::new(ap.finish())),
            ("ask_sizes", Arc::new(asz.finish())),
        ],
    );
    (input, expect)
}

#[test]
fn snapshots_give_what_sorted_maps_give_whole_split_restored_and_rescaled() {
    for seed in 0..150 {
        let rng = &mut Rng(seed);
        let (input, expect) = snapshots(rng);
        let with = json!({ "by": ["symbol"], "metrics": all_metrics() });
        let plan = plan::<BookMetrics>(with, &[input.schema()]).unwrap();
        check(&plan, &[input], expect, seed);
    }
}

fn quotes(rows: &[(i64, [Option<f64>; 4])]) -> RecordBatch {
    let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
    let column = |c: usize| numbers(rows.iter().map(|r| r.1[c]));
    stream(
        &at,
        vec![
            ("symbol", symbols(rows.iter().map(|_| "BTC"))),
            ("bid", column(0)),
            ("bid_size", column(1)),
            ("ask", column(2)),
            ("ask_size", column(3)),
        ],
    )
}

#[test]
fn quotes_give_what_the_best_levels_tell() {
    let input = quotes(&[
        (1, [Some(99.0), Some(3.0), Some(101.0), Some(1.0)]),
        (2, [Some(99.0), Some(5.0), Some(101.0), Some(1.0)]),
        (3, [None, None, Some(101.0), Some(1.0)]),
        (4, [Some(99.0), Some(5.0), Some(100.0), Some(5.0)]),
    ]);
    let metrics = json!(["mid", "microprice", { "imbalance": { "levels": 1 } }, "ofi"]);
    let plan =
        plan::<BookMetrics>(json!({ "by": ["symbol"], "metrics": metrics }), &[input.schema()]).unwrap();
    let expect = [
        "1,0,BTC,100.0,100.5,0.5,null",
        "2,1,BTC,100.0,100.66666666666667,0.6666666666666666,2.0",
        "3,2,BTC,null,null,null,null",
        "4,3,BTC,99.5,99.5,0.0,null",
    ];
    assert_eq!(whole(&plan, &[input]), expect);
}

#[test]
fn what_need_not_be_remembered_is_local() {
    let input = quotes(&[]);
    let of = |metrics: Value| {
        plan::<BookMetrics>(json!({ "by": ["symbol"], "metrics": metrics }), &[input.schema()]).unwrap()
    };
    assert_eq!(of(json!(["mid"])).distribution, Distribution::Local);
    assert_eq!(of(json!(["ofi"])).distribution, Distribution::Keyed(vec![vec!["symbol".into()]]));
}

#[test]
fn mistakes_are_found_when_it_is_planned() {
    let refused = |with: Value, schema: SchemaRef, says: &[&str]| {
        let problems = plan::<BookMetrics>(with, &[schema]).err().unwrap().join("\n");
        for text in says {
            assert!(problems.contains(text), "{problems:?} says nothing of {text:?}");
        }
    };
    let quotes = quotes(&[]).schema();
    let metrics =
        json!([{ "depth": { "bps": 5.0 } }, { "vwap": { "size": 1.0 } }, { "imbalance": { "levels": 3 } }]);
    refused(
        json!({ "by": ["symbol"], "metrics": metrics }),
        quotes.clone(),
        &["`depth` can't be told", "`vwap` can't be told", "more than one level", "output: deltas"],
    );
    refused(json!({ "by": ["symbol"], "metrics": [] }), quotes.clone(), &["needs at least one metric"]);
    refused(json!({ "by": ["symbl"], "metrics": ["mid"] }), quotes.clone(), &["did you mean `symbol`"]);
    refused(
        json!({ "by": ["symbol"], "metrics": ["mid", "mid"] }),
        quotes.clone(),
        &["a column `mid` already"],
    );
    let deltas = delta_stream(&[]).schema();
    let metrics = json!([{ "depth": { "bps": -5.0 } }, { "imbalance": { "levels": 0 } }]);
    refused(
        json!({ "by": ["symbol"], "metrics": metrics }),
        deltas,
        &["bps must be above 0", "levels must be 1 to 1000"],
    );
    let trades = crate::check::trade_stream(&[]).schema();
    refused(
        json!({ "by": ["symbol"], "metrics": ["mid"] }),
        trades,
        &["no columns of a book", "bid_prices", "output"],
    );
}
