mod ends;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{Field, SchemaRef};
use serde_json::{Value, json};
use tidemill_engine::row;
use tidemill_trading::order::OrderId;

use super::Execution;
use crate::check::{Rng, check, numbers, plan, stream, symbols, whole};

const S: i64 = 1_000_000_000;

/// `(ts, symbol, bid, ask)`.
type Quote = (i64, &'static str, f64, f64);
/// `(ts, symbol, side)`.
type Wish = (i64, &'static str, Option<&'static str>);

fn quotes(rows: &[Quote]) -> RecordBatch {
    let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
    let columns = vec![
        ("symbol", symbols(rows.iter().map(|r| r.1))),
        ("bid", numbers(rows.iter().map(|r| Some(r.2)))),
        ("ask", numbers(rows.iter().map(|r| Some(r.3)))),
    ];
    nullable(stream(&at, columns))
}

fn wishes(rows: &[Wish]) -> RecordBatch {
    let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
    let sides: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.2)));
    nullable(stream(&at, vec![("symbol", symbols(rows.iter().map(|r| r.1))), ("side", sides)]))
}

/// The same batch, with columns that may be null, so that its schema does not depend on its rows.
fn nullable(batch: RecordBatch) -> RecordBatch {
    let fields: Vec<Arc<Field>> = batch
        .schema()
        .fields()
        .iter()
        .skip(3)
        .map(|f| Arc::new(f.as_ref().clone().with_nullable(true)))
        .collect();
    RecordBatch::try_new(row::stream_schema(&fields), batch.columns().to_vec()).unwrap()
}

fn schemas() -> [SchemaRef; 2] {
    [quotes(&[]).schema(), wishes(&[]).schema()]
}

fn with(change: Value) -> Value {
    let mut with = json!({
        "signals": "right",
        "account": { "cash": { "USD": 100000 } },
        "sizing": { "fixed": 10 },
        "sample": 0,
    });
    for (key, value) in change.as_object().unwrap() {
        with[key] = value.clone();
    }
    with
}

/// Rows with only the columns that say something, as `name=value`; zeros at the end of a value are left out.
fn told(schema: &SchemaRef, rows: &[String]) -> Vec<String> {
    let names: Vec<&str> =
        schema.fields().iter().map(|f| f.name().as_str()).filter(|n| *n != row::SRC).collect();
    let one = |line: &String| {
        let cells = line.split(',').zip(&names).skip(2).filter(|(cell, _)| *cell != "null");
        cells
            .map(|(cell, name)| format!("{name}={}", cell.trim_end_matches('0').trim_end_matches('.')))
            .collect::<Vec<_>>()
            .join(" ")
    };
    rows.iter().map(one).collect()
}

#[test]
fn a_signal_becomes_an_order_a_fill_and_a_position() {
    let plan = plan::<Execution>(with(json!({})), &schemas()).unwrap();
    let inputs = [quotes(&[(S, "A", 99.0, 100.0)]), wishes(&[(2 * S, "A", Some("BUY"))])];
    let told = told(&plan.schema, &whole(&plan, &inputs));
    let id = OrderId::derive("job", "node", "A", 2 * S, 7, 0, 0);
    let of = |event: &str| format!("event={event} symbol=A order_id={id}");
    let expect = [
        of("order") + " side=buy type=market time_in_force=gtc quantity=10 post_only=false reduce_only=false reason=signal",
        of("status") + " status=working filled=0",
        of("fill")
            + " side=buy fill_id=p1 fill_price=100 fill_quantity=10 fee=0 fee_currency=USD fee_value=0 rate=1 liquidity=taker position=10 average=100 realized=0",
        of("status") + " status=filled filled=10",
        "event=position symbol=A position=10 average=100 mark=99.5 realized=0 unrealized=-5 value=995 fees_total=0".into(),
    ];
    assert_eq!(told, expect);
}

/// The rows of market orders without latency against quotes, from scratch: each is filled at once at the other side's price, by all of it.
fn oracle(schema: &SchemaRef, quotes: &[Quote], wishes: &[Wish]) -> Vec<String> {
    let mut events: Vec<(i64, u8, usize)> = quotes.iter().enumerate().map(|(i, q)| (q.0, 0, i)).collect();
    events.extend(wishes.iter().enumerate().map(|(i, w)| (w.0, 3, i)));
    events.sort_unstable();
    let mut lines: Vec<(i64, Vec<(&str, String)>)> = Vec::new();
    let mut market = std::collections::BTreeMap::new();
    let mut held: std::collections::BTreeMap<&str, (f64, f64, f64)> = Default::default();
    let (mut fills, exact) = (1, |v: f64| format!("{v:.18}"));
    for (ts, class, i) in events {
        if class == 0 {
            market.insert(quotes[i].1, (quotes[i].2, quotes[i].3));
            continue;
        }
        let (_, symbol, side) = wishes[i];
        let of = |event: &str| vec![("event", event.to_owned()), ("symbol", symbol.to_owned())];
        let direction = match side {
            None | Some("HOLD") => continue,
            Some("BUY") => 1.0,
            Some("FLAT" | "SELL") => 0.0,
            Some(word) => panic!("{word}"),
        };
        let (units, cost, realized) = held.get(symbol).copied().unwrap_or_default();
        let more = direction * 10.0 - units;
        if direction == 1.0 && !market.contains_key(symbol) {
            let mut row = of("rejection");
            row.extend([("side", "buy".into()), ("quantity", exact(0.0)), ("rule", "sizing.price".into())]);
            lines.push((ts, row));
            continue;
        }
        if more == 0.0 {
            continue;
        }
        let (bid, ask) = market[symbol];
        let (side, price) = if more > 0.0 { ("buy", ask) } else { ("sell", bid) };
        let id = OrderId::derive("job", "node", symbol, ts, 7, i as u64, 0).to_string();
        let gain = if more < 0.0 { -more * price - cost } else { 0.0 };
        let (now, cost, realized) =
            if more > 0.0 { (10.0, 10.0 * price, realized) } else { (0.0, 0.0, realized + gain) };
        held.insert(symbol, (now, cost, realized));
        let average = if now > 0.0 { price } else { 0.0 };
        let mark = (bid + ask) / 2.0;
        let ordered = || vec![("order_id", id.clone())];
        let mut row = of("order");
        row.extend(ordered());
        row.extend([
            ("side", side.into()),
            ("type", "market".into()),
            ("time_in_force", "gtc".into()),
            ("quantity", exact(10.0)),
        ]);
        row.extend([
            ("post_only", "false".into()),
            ("reduce_only", "false".into()),
            ("reason", "signal".into()),
        ]);
        lines.push((ts, row));
        let status = |word: &str, filled: f64| {
            let mut row = of("status");
            row.extend(ordered());
            row.extend([("status", word.into()), ("filled", exact(filled))]);
            row
        };
        lines.push((ts, status("working", 0.0)));
        let mut row = of("fill");
        row.extend(ordered());
        row.extend([
            ("side", side.into()),
            ("fill_id", format!("p{fills}")),
            ("fill_price", exact(price)),
            ("fill_quantity", exact(10.0)),
        ]);
        row.extend([("fee", exact(0.0)), ("fee_currency", "USD".into())]);
        row.extend([("fee_value", exact(0.0)), ("rate", exact(1.0)), ("liquidity", "taker".into())]);
        row.extend([
            ("position", exact(now)),
            ("average", exact(average)),
            ("realized", format!("{gain:?}")),
        ]);
        lines.push((ts, row));
        fills += 1;
        lines.push((ts, status("filled", 10.0)));
        let mut row = of("position");
        row.extend([("position", exact(now)), ("average", exact(average)), ("mark", format!("{mark:?}"))]);
        row.extend([
            ("realized", format!("{realized:?}")),
            ("unrealized", format!("{:?}", now * mark - cost)),
        ]);
        row.extend([("value", format!("{:?}", now * mark)), ("fees_total", "0.0".into())]);
        lines.push((ts, row));
    }
    let line = |seq: usize, ts: i64, cells: &[(&str, String)]| {
        let cell = |name: &str| match name {
            row::TS => ts.to_string(),
            row::SEQ => seq.to_string(),
            _ => cells.iter().find(|(n, _)| *n == name).map_or("null".to_owned(), |(_, value)| value.clone()),
        };
        let names = schema.fields().iter().map(|f| f.name().as_str()).filter(|n| *n != row::SRC);
        names.map(cell).collect::<Vec<_>>().join(",")
    };
    lines.iter().enumerate().map(|(seq, (ts, cells))| line(seq, *ts, cells)).collect()
}

#[test]
fn rows_are_the_same_however_they_come() {
    let plan = plan::<Execution>(with(json!({})), &schemas()).unwrap();
    for seed in 0..60 {
        let rng = &mut Rng(seed);
        let mut ts = 0;
        let mut time = |rng: &mut Rng| {
            ts += rng.pick(&[0, 0, 1, 5, 100]) * S;
            ts
        };
        let quotes_rows: Vec<Quote> = (0..rng.below(40))
            .map(|_| {
                let bid = 90.0 + rng.below(80) as f64 / 4.0;
                (time(rng), rng.pick(&["A", "B"]), bid, bid + rng.pick(&[0.0, 0.25, 1.0]))
            })
            .collect();
        let mut ts = 0;
        let wish_rows: Vec<Wish> = (0..rng.below(40))
            .map(|_| {
                ts += rng.pick(&[0, 1, 7, 90]) * S;
                (
                    ts,
                    rng.pick(&["A", "B"]),
                    rng.pick(&[Some("BUY"), Some("BUY"), Some("FLAT"), Some("SELL"), Some("HOLD"), None]),
                )
            })
            .collect();
        let inputs = [quotes(&quotes_rows), wishes(&wish_rows)];
        let mut expect = oracle(&plan.schema, &quotes_rows, &wish_rows);
        // The words of a refusal are not the oracle's affair.
        let detail = "no price of";
        for line in expect.iter_mut().filter(|l| l.contains("sizing.price")) {
            let symbol = if line.contains(",A,") { "A" } else { "B" };
            let words = format!(
                "sizing.price,{detail} {symbol} has been seen, so nothing tells how many units it should be"
            );
            *line = line.replacen("sizing.price,null", &words, 1);
        }
        check(&plan, &inputs, expect, seed);
    }
}

/// Latency, samples, slices, guards and a broker's gate: no oracle but itself, however the rows come.
#[test]
fn what_falls_due_in_between_is_the_same_however_rows_come() {
    let all = json!({
        "account": { "kind": "margin", "cash": { "USD": 100000 }, "fees": { "taker": 0.001 } },
        "short": true,
        "sample": "30s",
        "venue": { "kind": "paper", "latency": "1s" },
        "order": { "algo": { "twap": { "over": "90s", "slices": 5 } } },
        "protect": { "stop_loss": { "fraction": 0.01 }, "take_profit": { "fraction": 0.02 } },
        "risk": { "drawdown": { "max": 0.001, "cool_down": "2m" }, "rate": { "orders": 4, "per": "10s" } },
    });
    let plan = plan::<Execution>(with(all), &schemas()).unwrap();
    for seed in 0..40 {
        let rng = &mut Rng(seed);
        let mut ts = 0;
        let quotes_rows: Vec<Quote> = (0..60)
            .map(|_| {
                ts += rng.pick(&[0, 1, 5, 20]) * S;
                let bid = 98.0 + rng.below(40) as f64 / 10.0;
                (ts, rng.pick(&["A", "B", "C"]), bid, bid + 0.1)
            })
            .collect();
        let mut ts = 0;
        let wish_rows: Vec<Wish> = (0..20)
            .map(|_| {
                ts += rng.pick(&[0, 11, 60]) * S;
                (
                    ts,
                    rng.pick(&["A", "B"]),
                    rng.pick(&[Some("BUY"), Some("SELL"), Some("FLAT"), Some("CANCEL")]),
                )
            })
            .collect();
        let inputs = [quotes(&quotes_rows), wishes(&wish_rows)];
        let expect = whole(&plan, &inputs);
        // Rows come in total order: `_seq` counts them, their times rise.
        let key =
            |line: &String| line.split(',').take(2).map(|n| n.parse::<i64>().unwrap()).collect::<Vec<_>>();
        assert!(expect.windows(2).all(|w| key(&w[0]) < key(&w[1])));
        check(&plan, &inputs, expect, seed);
    }
}

#[test]
fn one_stream_may_be_market_and_signals() {
    let bars = |rows: &[(i64, f64, f64)]| {
        let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
        let price = |rows: &[(i64, f64, f64)]| numbers(rows.iter().map(|r| Some(r.1)));
        nullable(stream(
            &at,
            vec![
                ("symbol", symbols(rows.iter().map(|_| "A"))),
                ("open", price(rows)),
                ("high", price(rows)),
                ("low", price(rows)),
                ("close", price(rows)),
                ("volume", numbers(rows.iter().map(|_| Some(1000.0)))),
                ("target", numbers(rows.iter().map(|r| Some(r.2)))),
            ],
        ))
    };
    let change = json!({ "signals": "left", "market": ["left"] });
    let plan = plan::<Execution>(with(change), &[bars(&[]).schema()]).unwrap();
    let rows = whole(
        &plan,
        &[bars(&[(60 * S, 100.0, 5.0), (120 * S, 101.0, 5.0), (180 * S, 102.0, 0.0), (240 * S, 103.0, 0.0)])],
    );
    let fills: Vec<String> =
        told(&plan.schema, &rows).into_iter().filter(|l| l.starts_with("event=fill")).collect();
    assert_eq!(fills.len(), 2, "{rows:?}");
    assert!(fills[0].contains("side=buy") && fills[0].contains("fill_price=101"), "{fills:?}");
    assert!(fills[1].contains("side=sell") && fills[1].contains("fill_price=103"), "{fills:?}");
}

#[test]
fn bad_rows_become_alerts() {
    let plan = plan::<Execution>(with(json!({ "instruments": [{ "symbol": "A" }] })), &schemas()).unwrap();
    let inputs = [
        quotes(&[(S, "A", 99.0, 100.0), (S, "Z", 1.0, 2.0)]),
        wishes(&[(2 * S, "A", Some("UP")), (3 * S, "B", Some("BUY"))]),
    ];
    let told = told(&plan.schema, &whole(&plan, &inputs));
    assert!(
        told[0].starts_with("event=alert rule=bad_signal detail=the signal for A: `UP` is no side"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("event=alert rule=unknown_symbol detail=B is not among the `instruments`"),
        "{told:?}"
    );
    assert_eq!(told.len(), 2);
}

/// Signals with numbers: `null` says nothing.
fn numbered(rows: &[(i64, &str, Option<f64>)], name: &str) -> RecordBatch {
    let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
    let sides: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| Some(r.1))));
    let columns = vec![
        ("symbol", symbols(rows.iter().map(|_| "A"))),
        ("side", sides),
        (name, numbers(rows.iter().map(|r| r.2))),
    ];
    nullable(stream(&at, columns))
}

#[test]
fn a_number_that_is_none_refuses_its_signal_and_null_says_nothing() {
    for name in super::signals::NUMBERS {
        let rows = |value: Option<f64>, side: &'static str| numbered(&[(2 * S, side, value)], name);
        let schemas = [schemas()[0].clone(), rows(None, "BUY").schema()];
        let plan = plan::<Execution>(with(json!({})), &schemas).unwrap();
        let run = |value: Option<f64>, side: &'static str| {
            told(&plan.schema, &whole(&plan, &[quotes(&[(S, "A", 99.0, 100.0)]), rows(value, side)]))
        };
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let told = run(Some(value), "BUY");
            let text = format!("event=alert rule=bad_signal detail=the signal for A: its `{name}` is");
            assert!(told.len() == 1 && told[0].starts_with(&text), "{name} {value}: {told:?}");
        }
        let told = run(None, "BUY");
        assert!(
            told[0].contains("side=buy type=market") && told[2].contains("event=fill"),
            "{name}: {told:?}"
        );
        // A position is left whatever its sizes are.
        assert_eq!(run(Some(f64::NAN), "CANCEL"), [""; 0], "{name}");
    }
    for (name, value) in [("stop_loss", -5.0), ("stop_loss", 0.0), ("take_profit", 1e300), ("atr", -1.0)] {
        let rows = numbered(&[(2 * S, "BUY", Some(value))], name);
        let plan = plan::<Execution>(with(json!({})), &[schemas()[0].clone(), rows.schema()]).unwrap();
        let told = told(&plan.schema, &whole(&plan, &[quotes(&[(S, "A", 99.0, 100.0)]), rows]));
        assert!(told.len() == 1 && told[0].contains("rule=bad_signal"), "{name} {value}: {told:?}");
    }
}

#[test]
fn a_signal_that_wants_two_things_is_refused() {
    let rows = |side: &'static str| numbered(&[(2 * S, side, Some(-50.0))], "target");
    let plan = plan::<Execution>(with(json!({})), &[schemas()[0].clone(), rows("BUY").schema()]).unwrap();
    let run = |side: &'static str| {
        told(&plan.schema, &whole(&plan, &[quotes(&[(S, "A", 99.0, 100.0)]), rows(side)]))
    };
    let told = run("BUY");
    let text = "event=alert rule=bad_signal detail=the signal for A: it has both `target` and `side`";
    assert!(told.len() == 1 && told[0].starts_with(text), "{told:?}");
    // `HOLD` says nothing.
    assert!(!run("HOLD").iter().any(|line| line.contains("bad_signal")));
}

#[test]
fn a_size_that_is_null_is_any_and_one_that_is_no_number_fills_nothing() {
    let trades = |rows: &[(i64, Option<f64>)]| {
        let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
        nullable(stream(
            &at,
            vec![
                ("symbol", symbols(rows.iter().map(|_| "A"))),
                ("price", numbers(rows.iter().map(|_| Some(100.0)))),
                ("size", numbers(rows.iter().map(|r| r.1))),
            ],
        ))
    };
    let plan = plan::<Execution>(with(json!({})), &[trades(&[]).schema(), schemas()[1].clone()]).unwrap();
    let run = |size: Option<f64>| {
        let inputs = [
            trades(&[(S, Some(5.0)), (3 * S, size), (4 * S, Some(100.0))]),
            wishes(&[(2 * S, "A", Some("BUY"))]),
        ];
        let told = told(&plan.schema, &whole(&plan, &inputs));
        told.into_iter().filter(|l| l.contains("event=fill") || l.contains("event=alert")).collect::<Vec<_>>()
    };
    assert_eq!(run(None).len(), 1);
    let told = run(Some(f64::NAN));
    assert!(told[0].contains("rule=bad_size detail=a size of A is no number"), "{told:?}");
    assert!(told[1].contains("fill_quantity=10"), "{told:?}");
}

/// A batch of reports: columns by name.
fn reports(rows: &[(i64, Value)]) -> RecordBatch {
    let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
    let text = |name: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1[name].as_str())))
    };
    let number = |name: &str| -> ArrayRef {
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.1[name].as_f64())))
    };
    let mut columns = Vec::new();
    for name in ["event", "order_id", "symbol", "side", "fill_id", "reason", "currency"] {
        columns.push((name, text(name)));
    }
    for name in ["quantity", "price", "fill_price", "fill_quantity", "cash", "filled"] {
        columns.push((name, number(name)));
    }
    nullable(stream(&at, columns))
}

#[test]
fn a_broker_tells_of_its_account_and_its_fills() {
    let change = json!({ "venue": { "kind": "external" }, "reports": "third" });
    let [left, right] = schemas();
    let plan = plan::<Execution>(with(change), &[left, right, reports(&[]).schema()]).unwrap();
    let id = OrderId::derive("job", "node", "A", 5 * S, 7, 0, 0).to_string();
    let said = [
        (S, json!({ "event": "snapshot_begin" })),
        (S, json!({ "event": "snapshot_position", "symbol": "A", "quantity": 3, "price": 90 })),
        (S, json!({ "event": "snapshot_cash", "currency": "USD", "cash": 5000 })),
        (2 * S, json!({ "event": "snapshot_end" })),
        (6 * S, json!({ "event": "accepted", "order_id": id, "symbol": "A" })),
        (
            7 * S,
            json!({ "event": "filled", "order_id": id, "symbol": "A", "side": "buy", "fill_id": "x", "fill_price": 100, "fill_quantity": 7 }),
        ),
        (
            7 * S,
            json!({ "event": "filled", "order_id": id, "symbol": "A", "side": "buy", "fill_id": "x", "fill_price": 100, "fill_quantity": 7 }),
        ),
        (8 * S, json!({ "event": "filled", "order_id": id, "symbol": "A" })),
        (8 * S, json!({ "event": "heartbeat" })),
        (9 * S, json!({ "event": "alert", "reason": "pattern day trader" })),
    ];
    let inputs = [quotes(&[(S, "A", 99.0, 100.0)]), wishes(&[(5 * S, "A", Some("BUY"))]), reports(&said)];
    let rows = whole(&plan, &inputs);
    let brief: Vec<String> = told(&plan.schema, &rows)
        .iter()
        .map(|l| {
            let keep = ["event=", "quantity=", "status=", "position=", "amount=", "rule="];
            l.split(' ').filter(|w| keep.iter().any(|k| w.starts_with(k))).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        brief,
        [
            "event=position position=3",
            "event=cash amount=-95000",
            "event=order quantity=7",
            "event=status status=working",
            "event=fill position=10",
            "event=status status=filled",
            "event=position position=10",
            "event=alert rule=duplicate_fill",
            "event=alert rule=bad_report",
            "event=alert rule=venue",
        ]
    );
    check(&plan, &inputs, rows, 3);
}

#[test]
fn reports_that_begin_again_hold_orders_back_until_the_account_is_told() {
    let change = json!({ "venue": { "kind": "external" }, "reports": "third" });
    let [left, right] = schemas();
    let plan = plan::<Execution>(with(change), &[left, right, reports(&[]).schema()]).unwrap();
    let snapshot = |at: i64, held: i64| {
        [
            (at, json!({ "event": "snapshot_begin" })),
            (at, json!({ "event": "snapshot_position", "symbol": "A", "quantity": held, "price": 90 })),
            (at, json!({ "event": "snapshot_end" })),
        ]
    };
    // An order of which this run does not know has bought 6 of 10.
    let mut said = snapshot(S, 0).to_vec();
    said.push((2 * S, json!({ "event": "reconciling" })));
    said.push((4 * S, json!({ "event": "heartbeat" })));
    said.extend(snapshot(5 * S, 6));
    let inputs = [quotes(&[(S, "A", 99.0, 100.0)]), wishes(&[(3 * S, "A", Some("BUY"))]), reports(&said)];
    let rows = whole(&plan, &inputs);
    let told = told(&plan.schema, &rows);
    let orders: Vec<&String> = told.iter().filter(|row| row.contains("event=order ")).collect();
    assert_eq!(orders.len(), 1, "{told:?}");
    assert!(orders[0].contains(" quantity=4 "), "{orders:?}");
    check(&plan, &inputs, rows, 3);
}

#[test]
fn a_snapshot_with_a_row_that_cannot_be_read_counts_for_nothing() {
    let change =
        json!({ "venue": { "kind": "external" }, "reports": "third", "instruments": [{ "symbol": "A" }] });
    let [left, right] = schemas();
    let plan = plan::<Execution>(with(change), &[left, right, reports(&[]).schema()]).unwrap();
    let snapshot = |at: i64, rows: &[serde_json::Value]| {
        let begin = (at, json!({ "event": "snapshot_begin" }));
        let rows = rows.iter().map(|row| (at, row.clone()));
        let end = (at, json!({ "event": "snapshot_end" }));
        std::iter::once(begin).chain(rows).chain([end]).collect::<Vec<_>>()
    };
    let held = json!({ "event": "snapshot_position", "symbol": "A", "quantity": 3, "price": 90 });
    let unlisted = json!({ "event": "snapshot_position", "symbol": "B", "quantity": 3, "price": 90 });
    let cash = json!({ "event": "snapshot_cash", "currency": "USD", "cash": 5000 });
    let bad = [
        json!({ "event": "snapshot_position", "symbol": "A", "price": 90 }),
        json!({ "event": "snapshot_position", "quantity": 3, "price": 90 }),
        json!({ "event": "snapshot_order", "symbol": "A", "order_id": "x", "side": "buy", "quantity": 1 }),
        json!({ "event": "snapshot_cash", "currency": "USD" }),
    ];
    let mut said = snapshot(S, &[held.clone(), unlisted, cash.clone()]);
    for (n, bad) in (2..).zip(bad) {
        said.extend(snapshot(n * S, &[bad, cash.clone()]));
    }
    let inputs = [quotes(&[(S, "A", 99.0, 100.0)]), wishes(&[]), reports(&said)];
    let rows = whole(&plan, &inputs);
    let told = told(&plan.schema, &rows);
    let count = |word: &str| told.iter().filter(|row| row.contains(word)).count();
    assert_eq!(count("event=position"), 1, "{told:?}");
    assert_eq!(count("rule=bad_report"), 5, "{told:?}");
    assert_eq!(count("the whole snapshot is passed over"), 4, "{told:?}");
    // The next one that can be read counts.
    let mut said = said;
    said.extend(snapshot(9 * S, &[cash]));
    let inputs = [quotes(&[(S, "A", 99.0, 100.0)]), wishes(&[]), reports(&said)];
    let rows = whole(&plan, &inputs);
    assert_eq!(self::told(&plan.schema, &rows).iter().filter(|r| r.contains("position_differs")).count(), 1);
    check(&plan, &inputs, rows, 3);
}

#[test]
fn commands_and_halts_come_by_streams() {
    let control: RecordBatch = {
        let words: ArrayRef = Arc::new(StringArray::from(vec!["halt", "resume", "dance"]));
        nullable(stream(&[(2 * S, 0), (4 * S, 1), (6 * S, 2)], vec![("command", words)]))
    };
    let change = json!({ "control": "third" });
    let [left, right] = schemas();
    let plan = plan::<Execution>(with(change), &[left, right, control.schema()]).unwrap();
    let inputs = [
        quotes(&[(S, "A", 99.0, 100.0)]),
        wishes(&[(3 * S, "A", Some("BUY")), (5 * S, "A", Some("BUY"))]),
        control,
    ];
    let told = told(&plan.schema, &whole(&plan, &inputs));
    assert!(told[0].starts_with("event=state"), "{told:?}");
    assert!(told[1].starts_with("event=rejection"), "{told:?}");
    assert!(told[3].starts_with("event=order"), "{told:?}");
    assert!(told.last().unwrap().contains("rule=bad_command"), "{told:?}");
}

#[test]
fn a_position_tells_how_far_it_is_from_its_liquidation() {
    let perpetual =
        json!({ "symbol": "A", "class": "perpetual", "initial_margin": 0.1, "maintenance_margin": 0.05 });
    let change = json!({
        "instruments": [perpetual],
        "account": { "kind": "margin", "cash": { "USD": 1000 } },
        "sizing": { "fixed": 50 },
    });
    let plan = plan::<Execution>(with(change), &schemas()).unwrap();
    let rows = whole(&plan, &[quotes(&[(S, "A", 100.0, 100.0)]), wishes(&[(2 * S, "A", Some("BUY"))])]);
    let told = told(&plan.schema, &rows);
    let position = told.last().unwrap();
    // 1000 + 50 (p - 100) = 0.05 x 50 p at 4000 / 47.5 = 84.21: 15.79 % below the mark.
    assert!(position.contains("liquidation=84.2105"), "{position}");
    assert!(position.contains("liquidation_distance=0.15789"), "{position}");
}

#[test]
fn a_stream_of_halts_is_market_data() {
    let halts = |rows: &[(i64, bool)]| {
        let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0, i as u64)).collect();
        let halted: ArrayRef = Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.1))));
        nullable(stream(&at, vec![("symbol", symbols(rows.iter().map(|_| "A"))), ("halted", halted)]))
    };
    let [left, right] = schemas();
    let plan = plan::<Execution>(with(json!({})), &[left, right, halts(&[]).schema()]).unwrap();
    let inputs = [
        quotes(&[(S, "A", 99.0, 100.0), (5 * S, "A", 99.0, 100.0)]),
        wishes(&[(3 * S, "A", Some("BUY")), (6 * S, "A", Some("BUY"))]),
        halts(&[(2 * S, true), (4 * S, false)]),
    ];
    let rows = whole(&plan, &inputs);
    let told = told(&plan.schema, &rows);
    assert!(told[0].contains("rule=halted"), "{told:?}");
    assert!(told[1].starts_with("event=order"), "{told:?}");
    check(&plan, &inputs, rows, 3);
}

#[test]
fn a_book_told_order_by_order_gives_the_exact_place_in_the_queue() {
    // At 99 rest 5 ahead of ours. 3 of them trade, 2 are cancelled; then 4 trade, which are ours.
    let rows = [
        (1, "order", Some(1), "bid", 99.0, 5.0),
        (1, "order", Some(2), "ask", 101.0, 5.0),
        (3, "trade", None, "bid", 99.0, 3.0),
        (3, "order", Some(1), "bid", 99.0, 2.0),
        (4, "order", Some(1), "bid", 99.0, 0.0),
        (5, "trade", None, "bid", 99.0, 4.0),
        (6, "reset", None, "bid", 0.0, 0.0),
    ];
    let book = |n: usize| {
        let rows = &rows[..n];
        let at: Vec<(i64, u64)> = rows.iter().enumerate().map(|(i, r)| (r.0 * S, i as u64)).collect();
        let order: ArrayRef = Arc::new(UInt64Array::from_iter(rows.iter().map(|r| r.2)));
        let columns = vec![
            ("symbol", symbols(rows.iter().map(|_| "A"))),
            ("event", symbols(rows.iter().map(|r| r.1))),
            ("order", order),
            ("side", symbols(rows.iter().map(|r| r.3))),
            ("price", numbers(rows.iter().map(|r| Some(r.4)))),
            ("size", numbers(rows.iter().map(|r| Some(r.5)))),
        ];
        nullable(stream(&at, columns))
    };
    let more = json!({ "venue": { "kind": "paper", "queue": "exact" }, "order": { "type": "limit", "from": "near" } });
    let [_, right] = schemas();
    let plan = plan::<Execution>(with(more), &[book(0).schema(), right]).unwrap();
    let inputs = [book(7), wishes(&[(2 * S, "A", Some("BUY"))])];
    let rows = whole(&plan, &inputs);
    let fills: Vec<String> =
        told(&plan.schema, &rows).into_iter().filter(|t| t.starts_with("event=fill ")).collect();
    assert!(
        fills.len() == 1 && fills[0].contains("fill_quantity=4") && fills[0].contains("fill_price=99"),
        "{fills:?}"
    );
    check(&plan, &inputs, rows, 3);
}

#[test]
fn a_book_and_marks_are_market_data() {
    let deltas = {
        let text = |values: [&'static str; 4]| symbols(values);
        let last: ArrayRef = Arc::new(BooleanArray::from(vec![false, true, true, true]));
        let columns = vec![
            ("symbol", text(["A"; 4])),
            ("event", text(["snapshot", "snapshot", "delta", "delta"])),
            ("side", text(["bid", "ask", "ask", "bid"])),
            ("price", numbers([99.0, 100.0, 100.0, 98.5].map(Some))),
            ("size", numbers([50.0, 4.0, 0.0, 10.0].map(Some))),
            ("last", last),
        ];
        nullable(stream(&[(S, 0), (S, 1), (10 * S, 2), (11 * S, 3)], columns))
    };
    let marks = {
        let next: ArrayRef = row::ts_array(vec![8 * S, 8 * S, 16 * S]);
        let columns = vec![
            ("symbol", symbols(["A"; 3])),
            ("mark_price", numbers([99.5, 99.6, 99.7].map(Some))),
            ("funding_rate", numbers([0.001, 0.002, 0.003].map(Some))),
            ("next_funding_at", next),
        ];
        nullable(stream(&[(2 * S, 0), (7 * S, 1), (9 * S, 2)], columns))
    };
    let change = json!({ "instruments": [{ "symbol": "A", "class": "perpetual", "initial_margin": 0.1 }] });
    let plan =
        plan::<Execution>(with(change), &[deltas.schema(), wishes(&[]).schema(), marks.schema()]).unwrap();
    let inputs = [deltas, wishes(&[(3 * S, "A", Some("BUY"))]), marks];
    let rows = whole(&plan, &inputs);
    let told = told(&plan.schema, &rows);
    // Four units are shown; at nine seconds the funding of eight falls due on them, at the rate that was last told before it.
    assert!(told.iter().any(|l| l.contains("fill_price=100 fill_quantity=4")), "{told:#?}");
    assert!(
        told.iter()
            .any(|l| l.starts_with("event=cash symbol=A rate=1 reason=funding currency=USD amount=-0.7976")),
        "{told:#?}"
    );
    check(&plan, &inputs, rows, 5);
}

#[test]
fn problems_say_where_and_what_to_do() {
    let bad = json!({ "signals": "rigth", "reports": "nowhere", "sizing": { "fixed": 0 }, "corporate_actions": "none.csv" });
    let problems = plan::<Execution>(with(bad), &schemas()).err().unwrap();
    let text = problems.join("\n");
    for part in [
        "signals: `rigth` is no stream of `from:` (did you mean `right`?)",
        "reports: `nowhere` is no stream of `from:`",
        "sizing.fixed: 0 is not above zero",
        "corporate_actions: cannot read `none.csv`",
        "market: `right` has no columns of market data",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // `sizing` is not missing: signals may bring their sizes.
    assert!(
        plan::<Execution>(json!({ "signals": "nowhere" }), &schemas())
            .err()
            .unwrap()
            .iter()
            .all(|p| !p.contains("sizing"))
    );
}
