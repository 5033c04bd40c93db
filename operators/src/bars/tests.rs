use super::*;
use crate::check::{Rng, Trade, check, plan, trade_stream, trades, whole};
use serde_json::json;

fn planned(with: serde_json::Value) -> OperatorPlan {
    plan::<Bars>(with, &[trade_stream(&[]).schema()]).unwrap()
}

fn trade(ts: i64, seq: u64, price: f64, size: f64) -> Trade {
    Trade { ts, seq, symbol: "SPY", price: Some(price), size: Some(size) }
}

fn good(t: &Trade) -> Option<(f64, f64)> {
    let (price, size) = (t.price?, t.size?);
    (price.is_finite() && size.is_finite() && size >= 0.0).then_some((price, size))
}

/// A bar from its trades: ts, seq, symbol, start, open, high, low, close, volume, vwap, trades.
fn bar(ts: i64, start: i64, rows: &[&Trade]) -> String {
    let values: Vec<(f64, f64)> = rows.iter().filter_map(|t| good(t)).collect();
    let prices = || values.iter().map(|v| v.0);
    let volume: f64 = values.iter().fold(0.0, |sum, v| sum + v.1);
    let notional: f64 = values.iter().fold(0.0, |sum, v| sum + v.0 * v.1);
    let vwap = if volume > 0.0 { format!("{:?}", notional / volume) } else { "null".into() };
    let last = rows[rows.len() - 1];
    format!(
        "{ts},{},{},{start},{:?},{:?},{:?},{:?},{volume:?},{vwap},{}",
        last.seq,
        last.symbol,
        values[0].0,
        prices().fold(f64::NEG_INFINITY, f64::max),
        prices().fold(f64::INFINITY, f64::min),
        values[values.len() - 1].0,
        values.len()
    )
}

fn empty(ts: i64, start: i64, last: &Trade) -> String {
    let close = last.price.unwrap();
    format!("{ts},{},{},{start},{close:?},{close:?},{close:?},{close:?},0.0,null,0", last.seq, last.symbol)
}

fn by_symbol(trades: &[Trade]) -> BTreeMap<&str, Vec<&Trade>> {
    let mut keys: BTreeMap<&str, Vec<&Trade>> = BTreeMap::new();
    trades.iter().filter(|t| good(t).is_some()).for_each(|t| keys.entry(t.symbol).or_default().push(t));
    keys
}

/// Time bars by grouping; `hours`: open and close in a day of `day`; empty bars up to `fill`.
fn time_bars(
    trades: &[Trade],
    every: i64,
    offset: i64,
    hours: Option<(i64, i64, i64)>,
    fill: u32,
) -> Vec<String> {
    let interval = |ts: i64| match hours {
        None => {
            let start = (ts - offset).div_euclid(every) * every + offset;
            Some((start, start + every))
        }
        Some((day, open, close)) => {
            let (from, until) = (ts.div_euclid(day) * day + open, ts.div_euclid(day) * day + close);
            let start = from + (ts - from).div_euclid(every) * every;
            (from..until).contains(&ts).then_some((start, (start + every).min(until)))
        }
    };
    let mut bars = Vec::new();
    for rows in by_symbol(trades).values() {
        let mut groups: BTreeMap<(i64, i64), Vec<&Trade>> = BTreeMap::new();
        for t in rows {
            if let Some(at) = interval(t.ts) {
                groups.entry(at).or_default().push(t);
            }
        }
        for ((start, end), rows) in &groups {
            bars.push(bar(*end, *start, rows));
            let mut at = *end;
            for _ in 0..fill {
                let Some((start, end)) = interval(at) else { break };
                if start != at || groups.contains_key(&(start, end)) {
                    break;
                }
                bars.push(empty(end, start, rows[rows.len() - 1]));
                at = end;
            }
        }
    }
    bars
}

fn sized_bars(trades: &[Trade], complete: impl Fn(&[&Trade]) -> bool) -> Vec<String> {
    let mut bars = Vec::new();
    for rows in by_symbol(trades).values() {
        let mut open: Vec<&Trade> = Vec::new();
        for t in rows {
            open.push(t);
            if complete(&open) {
                bars.push(bar(t.ts, open[0].ts, &open));
                open.clear();
            }
        }
    }
    bars
}

fn sum(rows: &[&Trade], f: impl Fn(f64, f64) -> f64) -> f64 {
    rows.iter().filter_map(|t| good(t)).fold(0.0, |sum, (price, size)| sum + f(price, size))
}

#[test]
fn a_minute_of_trades_is_a_bar_known_at_its_end() {
    let minute = 60_000_000_000;
    let rows = [trade(5, 1, 10.0, 2.0), trade(minute - 1, 2, 13.0, 1.0), trade(minute, 3, 9.0, 4.0)];
    let got = whole(&planned(json!({"every": "1m", "by": ["symbol"]})), &[trade_stream(&rows)]);
    let (m, m2) = (minute, 2 * minute);
    assert_eq!(
        got,
        [
            format!("{m},2,SPY,0,10.0,13.0,10.0,13.0,3.0,11.0,2"),
            format!("{m2},3,SPY,{m},9.0,9.0,9.0,9.0,4.0,9.0,1"),
        ]
    );
}

#[test]
fn a_trade_above_the_threshold_closes_one_bar_and_an_open_one_is_left_out() {
    let rows =
        [trade(1, 1, 10.0, 350.0), trade(2, 2, 11.0, 60.0), trade(3, 3, 12.0, 40.0), trade(4, 4, 13.0, 1.0)];
    let got = whole(&planned(json!({"volume": 100, "by": ["symbol"]})), &[trade_stream(&rows)]);
    assert_eq!(
        got,
        ["1,1,SPY,1,10.0,10.0,10.0,10.0,350.0,10.0,1", "3,3,SPY,2,11.0,12.0,11.0,12.0,100.0,11.4,2"]
    );
}

#[test]
fn a_row_older_than_its_bar_is_left_out() {
    let plan = planned(json!({"every": "10ns"}));
    let mut out = Output::new(plan.schema.clone());
    let mut bars = (plan.build)();
    bars.process(&[Some(trade_stream(&[trade(11, 1, 1.0, 1.0)]))], &mut out).unwrap();
    bars.advance(20, &mut out).unwrap();
    bars.process(&[Some(trade_stream(&[trade(3, 2, 9.0, 1.0), trade(12, 3, 9.0, 1.0)]))], &mut out).unwrap();
    bars.advance(END_FOR_TEST, &mut out).unwrap();
    let sent: Vec<String> = out.drain().flat_map(|b| crate::check::rows(&b)).collect();
    assert_eq!(sent, ["20,1,10,1.0,1.0,1.0,1.0,1.0,1.0,1"]);
}

const END_FOR_TEST: i64 = tidemill_engine::operator::END;

#[test]
fn time_bars_are_the_same_however_rows_come() {
    for seed in 0..150 {
        let trades = trades(&mut Rng(seed), 1);
        let stream = [trade_stream(&trades)];
        let plan = |with| planned(with);
        let by = ["symbol"];
        check(&plan(json!({"every": "10ns", "by": by})), &stream, time_bars(&trades, 10, 0, None, 0), seed);
        let with = json!({"every": "7ns", "offset": "3ns", "by": by, "empty": "fill", "fill_max": 4});
        check(&plan(with), &stream, time_bars(&trades, 7, 3, None, 4), seed);
        let one: Vec<Trade> = trades.iter().map(|t| Trade { symbol: "SPY", ..*t }).collect();
        let expect: Vec<String> =
            time_bars(&one, 10, 0, None, 0).iter().map(|r| r.replace("SPY,", "")).collect();
        check(&plan(json!({"every": "10ns"})), &stream, expect, seed);
    }
}

#[test]
fn session_bars_are_the_same_however_rows_come() {
    let (hour, day) = (3_600_000_000_000, 86_400_000_000_000);
    for seed in 0..150 {
        let trades = trades(&mut Rng(seed), 600_000_000_000);
        let stream = [trade_stream(&trades)];
        let hours = Some((day, 9 * hour + hour / 2, 16 * hour));
        let session = json!({"timezone": "UTC", "open": "09:30", "close": "16:00",
            "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]});
        for (empty, fill) in [("skip", 0), ("fill", 100_000)] {
            let with = json!({"every": "1h", "by": ["symbol"], "session": session, "empty": empty});
            check(&planned(with), &stream, time_bars(&trades, hour, 0, hours, fill), seed);
        }
    }
}

#[test]
fn bars_by_size_are_the_same_however_rows_come() {
    for seed in 0..150 {
        let trades = trades(&mut Rng(seed), 1);
        let stream = [trade_stream(&trades)];
        let by = ["symbol"];
        check(&planned(json!({"ticks": 3, "by": by})), &stream, sized_bars(&trades, |b| b.len() == 3), seed);
        let volume = |b: &[&Trade]| sum(b, |_, size| size) >= 200.0;
        check(&planned(json!({"volume": 200, "by": by})), &stream, sized_bars(&trades, volume), seed);
        let dollars = |b: &[&Trade]| sum(b, |price, size| price * size).abs() >= 30_000.0;
        check(&planned(json!({"dollars": 30000.0, "by": by})), &stream, sized_bars(&trades, dollars), seed);
    }
}

#[test]
fn a_million_keys_close_together() {
    let keys = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
    let at: Vec<(i64, u64)> = (0..keys).map(|i| (5, i)).collect();
    let ids: arrow::array::ArrayRef = Arc::new(arrow::array::UInt64Array::from_iter_values(0..keys));
    let ones = || crate::check::numbers((0..keys).map(|_| Some(1.0)));
    let batch = crate::check::stream(&at, vec![("id", ids), ("price", ones()), ("size", ones())]);
    let plan = plan::<Bars>(json!({"every": "10ns", "by": ["id"]}), &[batch.schema()]).unwrap();
    let mut out = Output::new(plan.schema.clone());
    let mut bars = (plan.build)();
    bars.process(&[Some(batch)], &mut out).unwrap();
    assert_eq!(out.drain().count(), 0);
    bars.advance(10, &mut out).unwrap();
    assert_eq!(out.drain().map(|b| b.num_rows() as u64).sum::<u64>(), keys);
}

#[test]
fn problems_say_what_to_do() {
    let problems = |with| plan::<Bars>(with, &[trade_stream(&[]).schema()]).err().unwrap();
    assert_eq!(
        problems(json!({"every": "1m", "ticks": 5})),
        [
            ": exactly one of `every`, `ticks`, `volume` and `dollars` says when a bar is complete (`every: 1m`, say)"
        ]
    );
    assert_eq!(
        problems(json!({"every": "1m", "by": ["simbol"], "price": "symbol", "size": "qty"})),
        [
            "price: column `symbol` of `left` is symbol, not a number",
            "size: `left` has no column `qty` (its columns: ts, symbol, price, size)",
            "by[0]: `left` has no column `simbol` (did you mean `symbol`? its columns: ts, symbol, price, size)",
        ]
    );
    assert_eq!(problems(json!({"every": "1m", "empty": "fill"})).len(), 1);
    assert_eq!(problems(json!({"ticks": 0})), ["ticks: must be more than zero (raise it)"]);
    assert_eq!(problems(json!({"ticks": 1, "offset": "1s", "session": {"timezone": "UTC", "open": "9:00", "close": "10:00"}})).len(), 2);
    assert_eq!(
        problems(json!({"every": "1m", "by": ["symbol", "symbol"]})),
        ["by[1]: key column `symbol` is there twice"]
    );
}
